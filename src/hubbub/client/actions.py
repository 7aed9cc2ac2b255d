"""What a client's session wants done, one struct each; the words are those of `clients/vectors`."""

from __future__ import annotations

from typing import Any

import msgspec

from hubbub.model import Entry, RoomId
from hubbub.protocol import Signal


class Action(msgspec.Struct, frozen=True, tag_field="do", rename="camel"):
    """Base of what the session wants done."""


class GetToken(Action, frozen=True, tag="token"):
    """Get a token and give it back with `token` or `token_failed`."""


class Connect(Action, frozen=True, tag="connect"):
    """Open a connection with this token; say `opened`, and `closed` when it fails or ends."""

    token: str


class SendFrame(Action, frozen=True, tag="send"):
    """Send this frame on the connection."""

    frame: dict[str, Any]  # Any: custom actions have their own fields


class Disconnect(Action, frozen=True, tag="disconnect"):
    """Close the connection; nothing more of it is to be told, not even its end."""

    code: int


class SetTimer(Action, frozen=True, tag="timer"):
    """Call `timer(name)` after `ms`; a timer of the same name is replaced."""

    name: str
    ms: int


class CancelTimer(Action, frozen=True, tag="cancel"):
    """Forget the timer of this name, if there is one."""

    name: str


class Deliver(Action, frozen=True, tag="entry"):
    """The application gets this entry: each once, in its room's order."""

    entry: Entry


class DeliverSignal(Action, frozen=True, tag="signal"):
    """The application gets this signal."""

    signal: Signal


class RoomsChanged(Action, frozen=True, tag="rooms"):
    """Something in `Session.rooms` is different now."""


class ResetRoom(Action, frozen=True, tag="reset"):
    """The room's seqs no longer hold, or what was missed is not kept any more; its last page follows."""

    room: RoomId


class Resolve(Action, frozen=True, tag="resolve"):
    """The call succeeded; `result` is the whole reply."""

    call: int
    result: msgspec.Raw


class Reject(Action, frozen=True, tag="reject"):
    """The call failed; the code is the wire's, or `timeout`, or `disconnected` with `close_code`."""

    call: int
    code: str
    message: str
    retry: bool
    retry_after_ms: int | msgspec.UnsetType = msgspec.UNSET
    close_code: int | msgspec.UnsetType = msgspec.UNSET


class StateChanged(Action, frozen=True, tag="state"):
    """Where the client stands: connecting, live, waiting (`retry_in_ms`), or closed for good."""

    state: str
    retry_in_ms: int | msgspec.UnsetType = msgspec.UNSET
    code: int | msgspec.UnsetType = msgspec.UNSET
    reason: str | msgspec.UnsetType = msgspec.UNSET
