"""Frames are cut out of bytes: however they are split, masked and measured, and not one that breaks RFC 6455."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame as TheirFrame
from websockets.frames import Opcode

from hubbub.gateway import sockets
from hubbub.gateway.framing import (
    FIN,
    OPCODE,
    RESERVED,
    BadFrame,
    Frame,
    Missing,
    Unfinished,
    accept_of,
    read_frame,
    switching,
    unmask,
    unmask_slowly,
)

LONGEST = 100_000
MASK = bytes.fromhex("37fa213d")

opcodes = st.sampled_from([Opcode.CONT, Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE, Opcode.PING, Opcode.PONG])


@st.composite
def frames(draw: st.DrawFn) -> TheirFrame:
    """A frame as a client may send it, but for the reserved bits."""
    opcode = draw(opcodes)
    is_control = bool(opcode & 0x8)
    sizes = st.integers(0, 125) if is_control else st.sampled_from([0, 1, 125, 126, 127, 1_000, 65_535, 65_536])
    payload = draw(st.binary(min_size=16, max_size=16)) * 4_097
    return TheirFrame(opcode, payload[: draw(sizes)], is_control or draw(st.booleans()))


def as_ours(theirs: TheirFrame) -> tuple[int, bytes]:
    """A frame's first byte and payload."""
    return theirs.fin << 7 | theirs.opcode, bytes(theirs.data)


def cut(pieces: list[bytes]) -> tuple[list[tuple[int, bytes]], int]:
    """The frames that come in pieces, and how often one was looked for."""
    found: list[tuple[int, bytes]] = []
    looks = 0
    unfinished: Unfinished | None = None
    for piece in pieces:
        data: bytes | None = piece if unfinished is None else unfinished.add(piece)
        if data is None:
            continue
        begin, unfinished = 0, None
        while begin < len(data):
            looks += 1
            frame = read_frame(data, begin, LONGEST)
            if isinstance(frame, Missing):
                unfinished = Unfinished(data[begin:], frame.size)
                break
            found.append((frame.first, frame.payload))
            begin = frame.end
    assert unfinished is None, "the last frame is not whole"
    return found, looks


@given(st.lists(frames(), min_size=1, max_size=5))
def test_frames_that_another_library_wrote_are_read(written: list[TheirFrame]) -> None:
    """Many in one piece: their first bytes, payloads of every form of length, and nothing between."""
    data = b"".join(frame.serialize(mask=True) for frame in written)
    assert cut([data])[0] == [as_ours(frame) for frame in written]


@given(st.lists(frames(), min_size=1, max_size=3), st.lists(st.integers(0, 200_000), max_size=8))
def test_it_does_not_matter_where_they_are_split(written: list[TheirFrame], places: list[int]) -> None:
    """Bytes come in whatever pieces the network makes of them."""
    data = b"".join(frame.serialize(mask=True) for frame in written)
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    pieces = [data[begin:end] for begin, end in itertools.pairwise(at)]
    assert cut(pieces)[0] == [as_ours(frame) for frame in written]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 300])
def test_each_byte_may_come_alone(size: int) -> None:
    """Also those of lengths and masks; and only heads and ends are looked at, not each byte of a payload."""
    data = TheirFrame(Opcode.TEXT, b"x" * size).serialize(mask=True) * 2
    found, looks = cut([data[n : n + 1] for n in range(len(data))])
    assert found == [(FIN | Opcode.TEXT, b"x" * size)] * 2
    assert looks <= 2 * 4


def head(first: int, *rest: int) -> bytes:
    return bytes([first, *rest])


BROKEN = {
    **{f"opcode {opcode:#x}": head(FIN | opcode) for opcode in (3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF)},
    **{f"a fragment of {opcode:#x}": head(opcode) for opcode in (8, 9, 0xA)},
    "no mask": head(FIN | 1, 5),
    "no mask on a ping": head(FIN | 9, 0),
    "a ping of 126 bytes": head(FIN | 9, 0x80 | 126),
    "a close with a length of 64 bits": head(FIN | 8, 0x80 | 127),
    "125 in 16 bits": head(FIN | 1, 0x80 | 126, 0, 125),
    "65535 in 64 bits": head(FIN | 1, 0x80 | 127, 0, 0, 0, 0, 0, 0, 255, 255),
    "the highest of 64 bits": head(FIN | 1, 0x80 | 127, 0x80, 0, 0, 0, 0, 1, 0, 0),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_what_breaks_the_protocol_is_refused_with_its_last_needed_byte(data: bytes) -> None:
    """With 1002 and a reason, as soon as it can be told, and not before."""
    for there in range(1, len(data)):
        assert isinstance(read_frame(data[:there], 0, LONGEST), Missing)
    with pytest.raises(BadFrame) as bad:
        read_frame(data, 0, LONGEST)
    assert bad.value.code == 1002
    assert bad.value.reason.startswith("expected ")
    assert len(bad.value.reason.encode()) <= 123


@pytest.mark.parametrize(
    ("longest", "size"), [(10, 11), (10, 126), (10, 70_000), (1_000, 1_001), (70_000, 70_001), (70_000, 2**63 - 1)]
)
def test_a_frame_that_is_too_long_is_refused_for_its_head(longest: int, size: int) -> None:
    """With 1009, before a byte of its payload is here; one that is just short enough is taken."""
    with pytest.raises(BadFrame) as bad:
        read_frame(head_of(size), 0, longest)
    assert (bad.value.code, bad.value.reason) == (1009, f"a frame has at most {longest} bytes")
    assert isinstance(read_frame(head_of(longest), 0, longest), Missing)


def head_of(size: int) -> bytes:
    if size < 126:
        return bytes([FIN | 1, 0x80 | size])
    if size < 65_536:
        return bytes([FIN | 1, 0x80 | 126]) + size.to_bytes(2, "big")
    return bytes([FIN | 1, 0x80 | 127]) + size.to_bytes(8, "big")


def test_control_frames_have_a_bound_of_their_own() -> None:
    """A ping may be longer than what a message may be."""
    whole = TheirFrame(Opcode.PING, b"x" * 125).serialize(mask=True)
    assert read_frame(whole, 0, 10) == Frame(FIN | Opcode.PING, b"x" * 125, len(whole))


def test_reserved_bits_are_told_and_not_judged() -> None:
    """An extension may want them: they stand in the first byte as they came."""
    first, *rest = TheirFrame(Opcode.TEXT, b"x").serialize(mask=True)
    frame = read_frame(bytes([first | 0x50, *rest]), 0, LONGEST)
    assert not isinstance(frame, Missing)
    assert (frame.first & RESERVED, frame.first & OPCODE) == (0x50, 1)


@pytest.mark.parametrize("take_off", [unmask, unmask_slowly])
@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_a_mask_is_taken_off(take_off: Callable[[bytes, bytes], bytes], data: bytes, mask: bytes) -> None:
    """As RFC 6455 says it, byte by byte, compiled or not."""
    assert take_off(data, mask) == bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))


def test_the_answer_has_the_accept_value_and_the_chosen_subprotocol() -> None:
    """And no subprotocol where none was chosen."""
    assert accept_of("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, section 1.3
    plain, chosen = switching("a2V5", None), switching("a2V5", "hubbub.v1")
    assert b"Sec-WebSocket-Protocol" not in plain
    assert chosen.endswith(b"Sec-WebSocket-Protocol: hubbub.v1\r\n\r\n")
    for answer in (plain, chosen):
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert answer.count(b"\r\n\r\n") == 1


def test_a_connection_has_no_dictionary_of_its_own() -> None:
    """It is its own protocol and reads into what it is given, and nothing can be hung onto one in passing."""
    assert issubclass(sockets.Connection, asyncio.BufferedProtocol)
    assert not hasattr(object.__new__(sockets.Connection), "__dict__")
