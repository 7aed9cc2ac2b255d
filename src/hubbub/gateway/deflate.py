"""The extension permessage-deflate (RFC 7692), without context takeover: each message is compressed for itself.

So what is published is compressed once, and all who have agreed to the extension get the same bytes; and a connection
keeps no window between messages. Frames are made elsewhere: this is what is said in the handshake, and what is inside.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator

NAME = "permessage-deflate"

WINDOW_BITS = 12
"""The window of what we compress, for everybody: a client that can hold less is not compressed for.

It holds 4 KB, more than most messages have; a larger one costs memory and time for each message, and gains little.
"""

MEMORY_LEVEL = 5
"""zlib's, of its table of matches: setting up a larger one takes longer than compressing a chat's message."""

LEVEL = 6
"""zlib's, from 1 to 9."""

LONG_BYTES = 16 * 1024
"""From which length on a message is compressed in half the time, to a tenth more."""

LONG_LEVEL = 1

MAX_BYTES = 256 * 1024
"""What is longer is not to be compressed: others would wait for that for more than some milliseconds."""

MAX_STREAMS = 32
"""How many times the data of a message may end and begin again (RFC 7692, section 7.2.3.4)."""

_TAIL = b"\x00\x00\xff\xff"
"""How what is flushed ends; a message goes without it (RFC 7692, section 7.2.1)."""

_END = b"\x03\x00"
"""An empty last block: it can be read as such only where the one before was whole."""

_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = re.compile(rf'\s*;\s*({_WORD})(?:\s*=\s*(?:({_WORD})|"({_WORD})"))?')
_OFFER = re.compile(rf"\s*({_WORD})\s*")
_NEXT = re.compile(r"\s*(?:,\s*)+|\s*$")
_WINDOW = re.compile(r"[89]|1[0-5]")


class BadData(ValueError):
    """What came is not compressed as the extension says."""


class TooMuch(ValueError):
    """A message would be longer than it may be."""


class BadExtensions(ValueError):
    """What stands in `Sec-WebSocket-Extensions` is no list of extensions."""


def agree(offered: Iterable[str]) -> str | None:
    """What is answered to a client's offers of extensions: the first that we can keep, else None.

    Args:
        offered: the values of its `Sec-WebSocket-Extensions`, in their order.

    Raises:
        BadExtensions: they are no list of extensions (RFC 6455, section 9.1: the handshake is to fail then).

    """
    # All is read before anything is said of it: what is wrong further on is wrong too.
    offers = [offer for value in offered for offer in _offers(value)]
    for name, parameters in offers:
        if name == NAME and _is_valid(parameters):
            window = dict(parameters).get("server_max_window_bits")
            if window is None:
                return f"{NAME}; server_no_context_takeover; client_no_context_takeover"
            if int(window) >= WINDOW_BITS:
                least = f"server_max_window_bits={WINDOW_BITS}"
                return f"{NAME}; server_no_context_takeover; client_no_context_takeover; {least}"
    return None


_Parameters = list[tuple[str, str | None]]


def _offers(value: str) -> Iterator[tuple[str, _Parameters]]:
    at = ((leading := re.match(r"[\s,]*", value)) and leading.end()) or 0
    while at < len(value):
        offer = _OFFER.match(value, at)
        if offer is None:
            raise BadExtensions("Sec-WebSocket-Extensions: expected an extension's name")
        at = offer.end(1)
        parameters: _Parameters = []
        while (parameter := _PARAMETER.match(value, at)) is not None:
            parameters.append((parameter[1], parameter[2] or parameter[3]))
            at = parameter.end()
        after = _NEXT.match(value, at)
        if after is None:
            raise BadExtensions("Sec-WebSocket-Extensions: expected parameters and further extensions")
        at = after.end()
        yield offer[1].lower(), parameters


def _is_valid(parameters: _Parameters) -> bool:
    """Whether these are parameters of an offer of the extension (RFC 7692, section 7.1)."""
    names = [name for name, _ in parameters]
    return len(set(names)) == len(names) and all(_is_known(name, value) for name, value in parameters)


def _is_known(name: str, value: str | None) -> bool:
    match name:
        case "server_no_context_takeover" | "client_no_context_takeover":
            return value is None
        case "server_max_window_bits":
            return value is not None and _WINDOW.fullmatch(value) is not None
        case "client_max_window_bits":
            return value is None or _WINDOW.fullmatch(value) is not None
    return False


def compress(message: bytes) -> bytes:
    """A message as the payload of a compressed one."""
    level = LEVEL if len(message) < LONG_BYTES else LONG_LEVEL
    compressor = zlib.compressobj(level, zlib.DEFLATED, -WINDOW_BITS, MEMORY_LEVEL)
    return (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]


def longest_payload(max_bytes: int) -> int:
    """How many bytes a message of so many may have compressed: what does not shrink grows a little."""
    return max_bytes + max_bytes // 8 + 64


def inflate(payload: bytes, max_bytes: int) -> bytes:
    """The message that a compressed one's whole payload has in it.

    However much it would grow to, no more than one byte beyond the bound is ever made of it.

    Args:
        payload: that of all its frames.
        max_bytes: the longest message.

    Raises:
        TooMuch: it is longer.
        BadData: it is not compressed, or not whole.

    """
    left = payload + _TAIL + _END
    parts: list[bytes] = []
    room = max_bytes
    for _ in range(MAX_STREAMS):
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            part = stream.decompress(left, room + 1)
        except zlib.error as error:
            raise BadData(f"expected compressed data: {error}") from None
        room -= len(part)
        if room < 0:
            raise TooMuch(f"expected at most {max_bytes} bytes")
        parts.append(part)
        if not stream.eof:
            raise BadData("expected whole blocks, got the end inside of one")
        left = stream.unused_data
        if not left:
            return parts[0] if len(parts) == 1 else b"".join(parts)
    raise BadData(f"expected at most {MAX_STREAMS} ends of data in a message")
