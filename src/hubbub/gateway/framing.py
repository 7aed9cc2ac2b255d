"""RFC 6455's frames as clients send them, cut out of what a socket gave: section 5.2, and the masks of 5.3.

A frame is refused for its header alone, so that nobody can make the server gather what it will not take. What the
frames of a connection mean together is `hubbub.gateway.connection`'s affair. Nothing here touches a socket.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from hubbub.gateway.connection import PROTOCOL_ERROR, TOO_BIG

FIN = 0x80
RESERVED = 0x70
OPCODE = 0x0F
"""What the bits of a frame's first byte are."""

_MASKED = 0x80
_MASK_BYTES = 4
_CONTROL = 0x08
_OPCODES = frozenset((0x0, 0x1, 0x2, 0x8, 0x9, 0xA))


class BadFrame(Exception):
    """A frame that cannot be read, and so nor can what follows it.

    Attributes:
        code: the close code.
        reason: what was expected.

    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A whole frame.

    Attributes:
        first: its first byte: FIN, the reserved bits and the opcode.
        payload: without its mask.
        end: where in the data the next one begins.

    """

    first: int
    payload: bytes
    end: int


class Missing(NamedTuple):
    """A frame's beginning; it is of no use to look again before there are `size` bytes of it."""

    size: int


class Unfinished:
    """What came of frames that could not be taken yet.

    Args:
        data: it.
        needed: how many bytes are of use.

    """

    __slots__ = ("_data", "_needed")

    def __init__(self, data: bytes, needed: int) -> None:
        self._data = bytearray(data)
        self._needed = needed

    def __repr__(self) -> str:
        return f"<Unfinished {len(self._data)} of {self._needed} bytes>"

    def add(self, data: bytes) -> bytes | None:
        """All that came with what comes now; None while it is too little to be of use."""
        self._data += data
        return bytes(self._data) if len(self._data) >= self._needed else None


def _problem(first: int) -> str:
    """What is wrong with a frame's first byte; empty for nothing that can be told from it alone."""
    opcode = first & OPCODE
    if opcode not in _OPCODES:
        return f"expected an opcode of RFC 6455, got {opcode:#x}"
    if opcode & _CONTROL and not first & FIN:
        return "expected a control frame in one piece, got a fragment"
    return ""


_PROBLEMS = tuple(_problem(first) for first in range(256))


def read_frame(data: bytes, begin: int, longest: int) -> Frame | Missing:
    """The frame that begins at `begin`, or how much of it must be there for another look.

    Args:
        data: what came.
        begin: where in it; there must be a byte.
        longest: how many bytes of payload a data frame may have.

    Raises:
        BadFrame: it is none that a client may send.

    """
    first = data[begin]
    if _PROBLEMS[first]:
        raise BadFrame(PROTOCOL_ERROR, _PROBLEMS[first])
    there = len(data) - begin
    if there < 2:
        return Missing(2)
    size = data[begin + 1]
    if size < _MASKED:
        raise BadFrame(PROTOCOL_ERROR, "expected a masked frame, got one without a mask")
    size -= _MASKED
    mask_at = begin + 2
    if size > 125:
        if first & _CONTROL:
            raise BadFrame(PROTOCOL_ERROR, "expected a control frame of at most 125 bytes, got a longer one")
        width = 2 if size == 126 else 8
        mask_at += width
        if there < 2 + width:
            return Missing(2 + width)
        size = int.from_bytes(data[begin + 2 : mask_at], "big")
        if size < (126 if width == 2 else 65_536) or size >> 63:
            raise BadFrame(PROTOCOL_ERROR, "expected a length in its shortest form, got another")
    if size > longest and not first & _CONTROL:
        raise BadFrame(TOO_BIG, f"a frame has at most {longest} bytes")
    payload_at = mask_at + _MASK_BYTES
    end = payload_at + size
    if len(data) < end:
        return Missing(end - begin)
    return Frame(first, unmask(data[payload_at:end], data[mask_at:payload_at]), end)


def payload_size(data: bytes) -> int:
    """How many bytes of payload a frame has that is one whole text of at most 65,535 bytes."""
    size = len(data) - 2 - _MASK_BYTES
    return size if size < 126 else size - 2


def unmask_slowly(data: bytes, mask: bytes) -> bytes:
    """Take a mask off, in time linear in the bytes, without anything compiled."""
    size = len(data)
    repeated = (mask * (size // _MASK_BYTES + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")


def _best_unmask() -> Callable[[bytes, bytes], bytes]:
    """The compiled function of `websockets`, which takes a fraction of the time, unless it was not compiled."""
    try:
        from websockets.speedups import apply_mask
    except ImportError:  # there was no wheel for this machine and no compiler on it
        return unmask_slowly
    return apply_mask


unmask: Callable[[bytes, bytes], bytes] = _best_unmask()
"""Take a mask of four bytes off some data."""


def accept_of(key: str) -> str:
    """What answers a client's `Sec-WebSocket-Key` (RFC 6455, section 4.2.2)."""
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode("latin-1"))  # noqa: S324  it proves no identity
    return base64.b64encode(digest.digest()).decode("ascii")


def switching(key: str, subprotocol: str | None, extensions: str | None = None) -> bytes:
    """The response that ends HTTP on a connection: 101."""
    chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    chosen += f"Sec-WebSocket-Extensions: {extensions}\r\n" if extensions else ""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Accept: {accept_of(key)}\r\n{chosen}\r\n"
    ).encode("latin-1")
