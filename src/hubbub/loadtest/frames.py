"""A server's bytes become what a load test counts: entries by room and `seq`, and replies.

All listeners of a room get the same bytes, often in the same pieces. So what a piece means is kept and looked up by its
bytes: that is what lets one process follow hundreds of thousands of deliveries a second. Nothing is skipped: a piece
that differs in one bit is read anew.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

_MOST_PIECES = 512
_LONGEST_PIECE = 32 * 1024
_MOST_PAYLOADS = 8192
_MOST_PAYLOAD_BYTES = 64 * 1024 * 1024
_LONGEST_MESSAGE = 64 * 1024 * 1024

_FIN = 0x80
_COMPRESSED = 0x40
"""RSV1 of a message's first frame (RFC 7692, section 6)."""

_WINDOW_BITS = 15
"""Enough for whatever the server compressed with."""


class BadFrame(Exception):
    """The server sent what is no WebSocket frame, or no frame of the chat."""


class Mark(msgspec.Struct):
    """What a load test puts into the `data` of its messages.

    Attributes:
        bench: which load test.
        worker, number: which of whose messages.
        due: when it was to be sent, on the machine's monotonic clock, in nanoseconds.

    """

    bench: str
    worker: int
    number: int
    due: int


class Head(msgspec.Struct):
    """The part of a chat's frame that is counted."""

    type: str = ""
    room: str = ""
    seq: int = 0
    ref: str | None = None
    code: str | int = ""
    head: int = 0
    id: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")
    message: msgspec.Raw = msgspec.Raw(b"")


class Run:
    """Entries of one room that follow each other.

    Attributes:
        room: whose.
        first, last: their `seq`.
        dues: when each was to be sent; 0 for what is not this load test's.

    """

    __slots__ = ("dues", "first", "last", "room")

    def __init__(self, room: str, first: int, last: int, dues: tuple[int, ...]) -> None:
        self.room = room
        self.first = first
        self.last = last
        self.dues = dues


class Reply:
    """An answer to what was asked: its head, and all of it."""

    __slots__ = ("head", "json")

    def __init__(self, head: Head, json: bytes) -> None:
        self.head = head
        self.json = json


class Signal:
    """Anything that is neither an entry nor an answer."""

    __slots__ = ()


class Control:
    """A ping, pong or close frame."""

    __slots__ = ("opcode", "payload")

    def __init__(self, opcode: int, payload: bytes) -> None:
        self.opcode = opcode
        self.payload = payload


Item = Run | Reply | Signal | Control

_SIGNAL = Signal()
_head = msgspec.json.Decoder(Head)
_mark = msgspec.json.Decoder(Mark)


class Reader:
    """Reads frames for all connections of a process.

    Args:
        bench: the name of this load test.
        on_mark: told of each message of this load test, once: its mark, room and `seq`.
        inflates: whether the connections have agreed to permessage-deflate, without context takeover.

    """

    def __init__(self, bench: str, on_mark: Callable[[Mark, str, int], None], *, inflates: bool = False) -> None:
        self._bench = bench
        self._on_mark = on_mark
        self._inflates = inflates
        self._pieces: dict[bytes, tuple[list[Item], int]] = {}
        self._plain: dict[bytes, Run | Signal] = {}
        self._compressed: dict[bytes, Run | Signal] = {}
        self._kept_bytes = 0  # of both

    def read(self, data: bytes) -> tuple[list[Item], int]:
        """What the bytes say, as far as frames in them are whole; and how many bytes that were.

        Raises:
            BadFrame: they are no frames of a server.

        """
        known = self._pieces.get(data)
        if known is not None:
            return known
        items, used = self._split(data)
        items = _joined(items)
        if len(data) <= _LONGEST_PIECE and all(type(item) is Run or item is _SIGNAL for item in items):
            if len(self._pieces) >= _MOST_PIECES:
                self._pieces.clear()
            self._pieces[data] = items, used
        return items, used

    def _split(self, data: bytes) -> tuple[list[Item], int]:
        items: list[Item] = []
        position, end = 0, len(data)
        message: bytes | None = None  # what came of a message in several frames
        compressed = False  # whether it is
        used, whole = 0, 0  # behind the last whole message: bytes, items
        while end - position >= 2:
            first, length = data[position], data[position + 1]
            start = position + 2
            if length == 126:
                start += 2
                length = int.from_bytes(data[position + 2 : start], "big")
            elif length == 127:
                start += 8
                length = int.from_bytes(data[position + 2 : start], "big")
            elif length > 127:
                raise BadFrame("the server sent a masked frame")
            stop = start + length
            if start <= end and length > _LONGEST_MESSAGE:
                raise BadFrame(f"the server sent a frame of {length:,} bytes")
            if stop > end:
                break
            position, payload = stop, data[start:stop]
            if first == _FIN | Opcode.TEXT and message is None:
                items.append(self._text(payload, self._plain))
                used, whole = position, len(items)
                continue
            if message is None and first & _COMPRESSED and first & 0x0F == Opcode.TEXT and self._inflates:
                first, compressed = first ^ _COMPRESSED, True
            if first & 0x0F >= Opcode.CLOSE and first & 0xF0 == _FIN:
                items.append(Control(first & 0x0F, payload))
            elif first & 0x7F in (Opcode.TEXT, Opcode.CONT) and (first & 0x0F == Opcode.CONT) == (message is not None):
                message = (message or b"") + payload
                if first & _FIN:
                    items.append(self._text(message, self._compressed if compressed else self._plain))
                    message, compressed = None, False
            else:
                raise BadFrame(f"the server sent a frame that begins with byte {first:#04x}")
            if message is None:
                used, whole = position, len(items)
        return items[:whole], used  # control frames between the parts of a message are read again with the rest of it

    def _text(self, payload: bytes, known: dict[bytes, Run | Signal]) -> Item:
        """What a message says; `known` is what such payloads said before."""
        if (said := known.get(payload)) is not None:
            return said
        text = payload if known is self._plain else _inflated(payload)
        try:
            head = _head.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadFrame(f"the server sent a frame that is not the chat's: {error}") from error
        if head.type in ("ok", "error") or not head.type:
            return Reply(head, text)
        item = self._entry(head) if head.seq > 0 and head.id else _SIGNAL
        self._kept_bytes += len(payload)
        if len(known) >= _MOST_PAYLOADS or self._kept_bytes > _MOST_PAYLOAD_BYTES:
            self._plain.clear()
            self._compressed.clear()
            self._kept_bytes = len(payload)
        known[payload] = item
        return item

    def _entry(self, head: Head) -> Run:
        return Run(head.room, head.seq, head.seq, (self.note(head),))

    def note(self, head: Head) -> int:
        """Tell of a message of this load test; returns when it was to be sent, and 0 for any other entry."""
        if head.type != "message.created" or not head.data:
            return 0
        try:
            mark = _mark.decode(head.data)
        except msgspec.DecodeError:
            return 0  # somebody else's
        if mark.bench != self._bench:
            return 0
        self._on_mark(mark, head.room, head.seq)
        return mark.due


def _inflated(payload: bytes) -> bytes:
    decoder = PerMessageDeflate(True, True, _WINDOW_BITS, _WINDOW_BITS)
    try:
        text = decoder.decode(Frame(Opcode.TEXT, payload, fin=True, rsv1=True), max_size=_LONGEST_MESSAGE).data
    except (PayloadTooBig, ProtocolError) as error:
        raise BadFrame(f"the server sent a compressed message that cannot be read: {error}") from error
    return bytes(text)


def _joined(items: list[Item]) -> list[Item]:
    """The same with entries that follow each other in one run."""
    if len(items) < 2:
        return items
    found: list[Item] = []
    begun: list[Run] = []
    for item in items:
        if type(item) is Run:
            if begun and (begun[-1].room != item.room or begun[-1].last + 1 != item.first):
                found.append(_one(begun))
                begun = []
            begun.append(item)
            continue
        if begun:
            found.append(_one(begun))
            begun = []
        found.append(item)
    if begun:
        found.append(_one(begun))
    return found


def _one(runs: list[Run]) -> Run:
    if len(runs) == 1:
        return runs[0]
    return Run(runs[0].room, runs[0].first, runs[-1].last, tuple(due for run in runs for due in run.dues))
