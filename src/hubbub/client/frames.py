"""A server's frames as the client reads them; entries and signals of types that it does not know keep their JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from hubbub.errors import Internal
from hubbub.model import AnyEntry, Entry, RoomId
from hubbub.protocol import (
    ErrorReply,
    HeadSignal,
    HistoryPage,
    Joined,
    Notice,
    PresenceSignal,
    ReadSignal,
    RoomSignal,
    Signal,
    Subscribed,
    Synced,
    TypingSignal,
)


class OtherEntry(Entry, kw_only=True, tag=False):
    """An entry of a type that this version does not know: its common fields, and `type` with the rest as JSON."""

    type: str
    json: msgspec.Raw = msgspec.Raw(b"null")


class OtherSignal(Signal, kw_only=True, tag=False):
    """A signal of a type that this version does not know, such as one of a custom action: all of it as JSON."""

    type: str
    json: msgspec.Raw = msgspec.Raw(b"null")


class Reset(Signal, kw_only=True, tag="reset"):
    """Made by the client: `room` starts anew (other data on the server, or retention took what was missed).

    Forget what is shown of it; its last page of entries follows.
    """

    room: RoomId


class Head(msgspec.Struct):
    """The part of a frame that says what it is.

    Attributes:
        type: the frame's type; empty for API Gateway's own word about a message.
        ref: which of the client's frames it answers.
        seq, id: an entry has both. Of other frames, an application's own ones among them, they may be anything.

    """

    type: str
    ref: Any = None
    seq: Any = None
    id: Any = None

    @property
    def is_entry(self) -> bool:
        """Whether it is a line of a room's log."""
        return self.type in _ENTRY_TYPES or (type(self.seq) is int and isinstance(self.id, str))


class ReadSync(Synced, tag="ok"):
    """The reply to `sync`."""

    entries: list[msgspec.Raw]  # type: ignore[assignment]  # types of entries that are not known yet must pass


class ReadPage(HistoryPage, tag="ok"):
    """The reply to `history`."""

    entries: list[msgspec.Raw]  # type: ignore[assignment]  # as in ReadSync
    changes: list[msgspec.Raw]  # type: ignore[assignment]  # as in ReadSync


class _GatewayError(msgspec.Struct, rename="camel"):
    """API Gateway's own word about a message that it could not hand over; it does not say which."""

    message: str
    connection_id: str


LOST_IN_GATEWAY = ErrorReply(code=Internal.code, message="The server could not take this just now.", retry=True)
"""What such a word is to whoever waits for an answer."""

_KnownSignal = TypingSignal | PresenceSignal | ReadSignal | HeadSignal | RoomSignal | Notice
_ENTRY_TYPES = frozenset(msgspec.json.schema(AnyEntry)["discriminator"]["mapping"])
_SIGNAL_TYPES = frozenset(msgspec.json.schema(_KnownSignal)["discriminator"]["mapping"])

_head = msgspec.json.Decoder(Head)
_gateway_error = msgspec.json.Decoder(_GatewayError)
_entry: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(AnyEntry)
_other_entry = msgspec.json.Decoder(OtherEntry)
_signal: msgspec.json.Decoder[Signal] = msgspec.json.Decoder(_KnownSignal)
_other_signal = msgspec.json.Decoder(OtherSignal)
_synced = msgspec.json.Decoder(ReadSync)
_page = msgspec.json.Decoder(ReadPage)
_subscribed = msgspec.json.Decoder(Subscribed)
_joined = msgspec.json.Decoder(Joined)
_error = msgspec.json.Decoder(ErrorReply)

read_sync = _synced.decode
read_page = _page.decode
read_subscribed = _subscribed.decode
read_joined = _joined.decode
read_error = _error.decode


def read_head(json: bytes | str) -> Head:
    """What the frame is.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: it is no frame.

    """
    try:
        return _head.decode(json)
    except msgspec.ValidationError:
        _gateway_error.decode(json)
        return Head(type="")


def read_entry(json: bytes | str | msgspec.Raw) -> Entry:
    """The entry, also one of a type that is not known here (`OtherEntry`)."""
    kind = _head.decode(json).type
    if kind in _ENTRY_TYPES:
        return _entry.decode(json)
    other = _other_entry.decode(json)
    other.json = msgspec.Raw(bytes(json) if not isinstance(json, str) else json.encode())
    return other


def read_signal(json: bytes | str, kind: str) -> Signal:
    """The signal, also one of a type that is not known here (`OtherSignal`)."""
    if kind in _SIGNAL_TYPES:
        return _signal.decode(json)
    other = _other_signal.decode(json)
    other.json = msgspec.Raw(json.encode() if isinstance(json, str) else json)
    return other
