"""permessage-deflate: what is agreed to, RFC 7692's own examples, and data that is wrong or grows too much."""

from __future__ import annotations

import contextlib
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.gateway.deflate import (
    LONG_BYTES,
    MEMORY_LEVEL,
    WINDOW_BITS,
    BadData,
    BadExtensions,
    TooMuch,
    agree,
    compress,
    inflate,
)

AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


# Agreeing


@pytest.mark.parametrize(
    "offered",
    [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",  # Chromium's and Firefox's
        "permessage-deflate; client_max_window_bits=9",
        'permessage-deflate; client_max_window_bits="12"',
        "Permessage-Deflate;client_no_context_takeover;server_no_context_takeover",
        "x-webkit-deflate-frame, permessage-deflate",
        'other; a; b=c; d="e", permessage-deflate',
        "permessage-deflate; server_max_window_bits=9, permessage-deflate",
        "permessage-deflate; unknown, permessage-deflate",
        ", ,permessage-deflate , ",
    ],
)
def test_an_offer_that_can_be_kept_is_taken(offered: str) -> None:
    """Contexts are never taken over, in either direction."""
    assert agree([offered]) == AGREED


@pytest.mark.parametrize("bits", range(8, 16))
def test_a_window_that_is_asked_for_is_kept_to(bits: int) -> None:
    """What is compressed for all fits a client's window, or the client gets it plain."""
    kept = f"{AGREED}; server_max_window_bits={WINDOW_BITS}"
    offered = f"permessage-deflate; server_max_window_bits={bits}; client_max_window_bits={bits}"
    assert agree([offered]) == (kept if bits >= WINDOW_BITS else None)


def test_offers_may_come_in_several_lines() -> None:
    """They are one list, whose first that can be kept is taken."""
    assert agree(["other", "permessage-deflate; server_max_window_bits=15"]) == (
        f"{AGREED}; server_max_window_bits={WINDOW_BITS}"
    )
    assert agree([]) is None


@pytest.mark.parametrize(
    "parameter",
    [
        "server_no_context_takeover=1",
        "client_no_context_takeover=true",
        "server_max_window_bits",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=015",
        "client_max_window_bits=08",
        "client_max_window_bits=x",
        "client_max_window_bits; client_max_window_bits",
        "level=9",
    ],
)
def test_an_offer_with_wrong_parameters_is_declined(parameter: str) -> None:
    """As RFC 7692, section 7, demands; the connection goes on without."""
    assert agree([f"permessage-deflate; {parameter}"]) is None


@pytest.mark.parametrize(
    "offered",
    ["permessage-deflate;", "permessage-deflate=1", "a b", "permessage-deflate; =1", 'x; y="', "; x", "x; y=\x00"],
)
def test_what_is_no_list_of_extensions_is_said(offered: str) -> None:
    """The handshake fails with what was expected (RFC 6455, section 9.1)."""
    with pytest.raises(BadExtensions, match=r"Sec-WebSocket-Extensions: expected"):
        agree(["permessage-deflate", offered])


@settings(deadline=None)
@given(st.lists(st.text(alphabet='permsagdflt-;=," \t89_12\\', max_size=40), max_size=3))
def test_any_list_is_read_or_refused(offered: list[str]) -> None:
    """Nothing else can happen."""
    with contextlib.suppress(BadExtensions):
        assert (agree(offered) or AGREED).startswith(AGREED)


# Data


@pytest.mark.parametrize(
    "data",
    [
        "f2 48 cd c9 c9 07 00",  # one compressed block
        "00 05 00 fa ff 48 65 6c 6c 6f 00",  # one without compression
        "f3 48 cd c9 c9 07 00 00",  # one that says to be the last
        "f2 48 05 00 00 00 ff ff ca c9 c9 07 00",  # two
    ],
)
def test_the_rfcs_examples_are_read(data: str) -> None:
    """RFC 7692, section 7.2.3."""
    assert inflate(bytes.fromhex(data), 5) == b"Hello"


def test_the_rfcs_first_example_is_what_is_written() -> None:
    """Also of nothing: one byte, as section 7.2.3.6 has it."""
    assert compress(b"Hello") == bytes.fromhex("f248cdc9c90700")
    assert compress(b"") == b"\x00"
    assert inflate(b"\x00", 0) == b""


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=5_000),
        st.text(max_size=500).map(str.encode),
        st.just(b"ab" * 50_000),
        st.binary(min_size=20_000, max_size=30_000),
    )
)
def test_what_is_compressed_comes_out_again(message: bytes) -> None:
    """By ours and by a reader with the agreed window and no more."""
    data = compress(message)
    assert inflate(data, len(message)) == message
    stream = zlib.decompressobj(-WINDOW_BITS)
    assert stream.decompress(data + b"\x00\x00\xff\xff") == message


def test_long_messages_are_compressed_quickly() -> None:
    """At the level that takes least time."""
    message = bytes(range(256)) * (LONG_BYTES // 256) + b"x"
    for size, level in ((LONG_BYTES - 1, 6), (LONG_BYTES, 1)):
        fast = zlib.compressobj(level, zlib.DEFLATED, -WINDOW_BITS, MEMORY_LEVEL)
        expected = fast.compress(message[:size]) + fast.flush(zlib.Z_SYNC_FLUSH)
        assert compress(message[:size]) == expected[:-4]


def test_a_longer_message_than_may_be_is_refused() -> None:
    """One byte is too much already, and the last one allowed is not."""
    data = compress(b"x" * 1_001)
    assert len(inflate(data, 1_001)) == 1_001
    with pytest.raises(TooMuch, match="expected at most 1000 bytes"):
        inflate(data, 1_000)


def test_a_bomb_takes_no_room() -> None:
    """Thirty megabytes in thirty kilobytes are not unpacked: not in one stream, and not in many."""
    whole = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = whole.compress(b"\x00" * 30_000_000) + whole.flush(zlib.Z_SYNC_FLUSH)
    last = zlib.compressobj(9, zlib.DEFLATED, -15)
    streams = (last.compress(b"\x00" * 1_000_000) + last.flush(zlib.Z_FINISH)) * 30
    for data in (bomb[:-4], streams + b"\x00"):
        tracemalloc.start()
        with pytest.raises(TooMuch):
            inflate(data, 32 * 1024)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 500_000


def test_ends_without_end_are_refused() -> None:
    """Data that ends and begins again more often than anybody's would is not followed."""
    with pytest.raises(BadData, match="ends of data"):
        inflate(b"\x03\x00" * 10_000, 32 * 1024)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"Hello",
        bytes.fromhex("f248cdc9"),  # the beginning of a block
        bytes.fromhex("000500faff4865"),  # less than it says
        bytes.fromhex("000600f9ff48656c6c6f"),
        bytes.fromhex("f248cdc9c90700ff"),  # more than it says
    ],
)
def test_what_is_not_compressed_or_not_whole_is_refused(data: bytes) -> None:
    """And is never taken for a shorter message."""
    with pytest.raises(BadData):
        inflate(data, 32 * 1024)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    """Nothing else can happen, and the bound holds."""
    with contextlib.suppress(BadData, TooMuch):
        assert len(inflate(data, 1_000)) <= 1_000
