"""What a client does next, decided without I/O: fed with events and the time, it gives back actions.

The JavaScript client has the same machine; `clients/vectors` holds scripts that both must follow. Each event is a
method, which adds to what `take` returns; the caller does those actions in order.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from typing import Any

import msgspec

from hubbub.model import AnyEntry, Entry, MemberUpdated, MessageCreated, Role, RoomId, RoomKind, RoomState, RoomUpdated
from hubbub.protocol import (
    CLOSE_BAD_CLIENT,
    CLOSE_CODES,
    CLOSE_REMOVED,
    CLOSE_TOKEN_EXPIRED,
    CloseAdvice,
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
    encode,
)

PAGE = 200
"""Entries asked for at once when a hole is filled."""

LAST_PAGE = 50
"""Entries asked for when a room starts anew."""

REPEATABLE = frozenset(
    (
        *("sync", "send", "history", "join", "leave", "invite", "kick", "role", "members", "rooms", "react", "unreact"),
        *("subscribe", "unsubscribe", "read", "presence", "ping"),
    )
)
"""Actions that may be asked twice: sent and unanswered when a connection broke, they are asked again on the next."""

_STOP = {row.code for row in CLOSE_CODES if row.advice is CloseAdvice.STOP}


# What comes out


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


# What comes in


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


class _Head(msgspec.Struct):
    type: str
    ref: str | None = None
    seq: int | None = None
    id: str | None = None


class _Synced(Synced, tag="ok"):
    entries: list[msgspec.Raw]  # type: ignore[assignment]  # types of entries that are not known yet must pass


class _Page(HistoryPage, tag="ok"):
    entries: list[msgspec.Raw]  # type: ignore[assignment]  # as in _Synced
    changes: list[msgspec.Raw]  # type: ignore[assignment]  # as in _Synced


_KnownSignal = TypingSignal | PresenceSignal | ReadSignal | HeadSignal | RoomSignal | Notice
_ENTRY_TYPES = frozenset(msgspec.json.schema(AnyEntry)["discriminator"]["mapping"])
_SIGNAL_TYPES = frozenset(msgspec.json.schema(_KnownSignal)["discriminator"]["mapping"])

_head = msgspec.json.Decoder(_Head)
_entry: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(AnyEntry)
_other_entry = msgspec.json.Decoder(OtherEntry)
_signal: msgspec.json.Decoder[Signal] = msgspec.json.Decoder(_KnownSignal)
_other_signal = msgspec.json.Decoder(OtherSignal)
_synced = msgspec.json.Decoder(_Synced)
_page = msgspec.json.Decoder(_Page)
_subscribed = msgspec.json.Decoder(Subscribed)
_joined = msgspec.json.Decoder(Joined)
_error = msgspec.json.Decoder(ErrorReply)


def decode_entry(json: bytes | str | msgspec.Raw) -> Entry:
    """The entry, also one of a type that is not known here (`OtherEntry`)."""
    kind = _head.decode(json).type
    if kind in _ENTRY_TYPES:
        return _entry.decode(json)
    other = _other_entry.decode(json)
    other.json = msgspec.Raw(bytes(json) if not isinstance(json, str) else json.encode())
    return other


def _decode_signal(json: bytes | str, kind: str) -> Signal:
    if kind in _SIGNAL_TYPES:
        return _signal.decode(json)
    other = _other_signal.decode(json)
    other.json = msgspec.Raw(json.encode() if isinstance(json, str) else json)
    return other


class Settings(msgspec.Struct, frozen=True, rename="camel"):
    """The client's patience and bounds; durations in milliseconds, described at `hubbub.connect`."""

    backoff_base_ms: int = 250
    backoff_cap_ms: int = 20_000
    heartbeat_ms: int = 30_000
    answer_ms: int = 10_000
    send_deadline_ms: int = 60_000
    max_pending: int = 1000
    max_held: int = 1000
    refreshable: bool = True


class Phase(enum.Enum):
    """Where the connection stands."""

    IDLE = "idle"
    TOKEN = "token"  # noqa: S105  a word, not a secret
    OPENING = "opening"
    SYNCING = "syncing"
    LIVE = "live"
    WAITING = "waiting"
    CLOSED = "closed"


class _Log:
    """Where a room's log stands on this side."""

    __slots__ = ("begun", "counted", "held", "last", "repairing", "restarting", "wanted")

    def __init__(self) -> None:
        self.last: int | None = None  # delivered up to here; None while a start is awaited
        self.begun: int | None = None  # where `last` was at first
        self.wanted = 0  # the highest seq heard of
        self.counted = 0  # messages up to here are in the room's `unread` already
        self.held: dict[int, Entry] = {}  # came before those that they follow
        self.repairing = False  # a history request or the timer of one is under way
        self.restarting = False  # its last page is awaited, to begin with

    def begin(self, last: int) -> int:
        """Deliver what comes after `last`; returns it."""
        self.begun = self.last = last
        return last


class _Call:
    """Something the application asked for."""

    __slots__ = ("action", "deadline", "fields", "sent", "tries")

    def __init__(self, action: str, fields: dict[str, Any], deadline: int) -> None:
        self.action = action
        self.fields = fields
        self.deadline = deadline
        self.sent = False  # on this connection
        self.tries = 0


class _Waiting(msgspec.Struct):
    """A frame whose reply is awaited on this connection."""

    kind: str  # call, sync, history, subscribe, auth, ping
    call: int = 0
    room: RoomId = RoomId("")


class Session:
    """The life of a client over many connections.

    Attributes:
        rooms: the rooms one is in or subscribed to.
        user, connection_id: as the last sync said; None before the first, and the latter between connections.
        phase: where the connection stands.

    """

    def __init__(self, settings: Settings | None = None, *, rand: Callable[[], float] = random.random) -> None:
        self.settings = settings or Settings()
        self.phase = Phase.IDLE
        self.rooms: dict[RoomId, RoomState] = {}
        self.user: str | None = None
        self.connection_id: str | None = None
        self._rand = rand
        self._epoch: str | None = None
        self._logs: dict[RoomId, _Log] = {}
        self._subscribed: dict[RoomId, None] = {}  # listened to on every connection, in the order of asking
        self._calls: dict[int, _Call] = {}
        self._inflight: dict[str, _Waiting] = {}
        self._refs = 0
        self._attempt = 0  # failures since the last success
        self._refused = False  # the last connection ended for its token, and none has succeeded since
        self._renewing = False  # a token for `auth` on this connection is awaited
        self._heard_at = 0
        self._now = 0
        self._out: list[Action] = []

    def take(self) -> list[Action]:
        """What is to be done now, in order; empties the list."""
        out, self._out = self._out, []
        return out

    def position(self, room: RoomId) -> int | None:
        """The `seq` up to which the room has been delivered; None when it is not listened to."""
        log = self._logs.get(room)
        return log.last if log else None

    def begun(self, room: RoomId) -> int | None:
        """The `seq` after which the client began to deliver the room; None when it is not listened to."""
        log = self._logs.get(room)
        return log.begun if log else None

    # Events. `now` is in milliseconds of any steady clock.

    def start(self, now: int) -> None:
        """Begin."""
        self._now = now
        if self.phase is Phase.IDLE:
            self._connect()

    def token(self, now: int, token: str) -> None:
        """The token that was asked for."""
        self._now = now
        if self.phase is Phase.TOKEN:
            self.phase = Phase.OPENING
            self._out.append(Connect(token))
            self._start("open", self.settings.answer_ms)
        elif self.phase is Phase.LIVE and self._renewing:
            self._renewing = False
            self._ask(_Waiting("auth"), {"action": "auth", "token": token})

    def token_failed(self, now: int, message: str) -> None:
        """No token could be got."""
        self._now = now
        self._renewing = False
        if self.phase is Phase.TOKEN:
            self._wait(1006, message or "no token could be got")

    def opened(self, now: int) -> None:
        """The connection stands."""
        self._now = now
        if self.phase is not Phase.OPENING:
            return
        self.phase = Phase.SYNCING
        self._cancel("open")
        self._heard_at = now
        self._start("heartbeat", self.settings.heartbeat_ms)
        self._sync()

    def frame(self, now: int, text: bytes | str) -> None:
        """The server sent this."""
        self._now = now
        if self.phase not in (Phase.SYNCING, Phase.LIVE):
            return
        self._heard_at = now
        self._cancel("answer")
        try:
            self._read_frame(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._leave(1002, "the server sent what is no frame")

    def closed(self, now: int, code: int, reason: str = "", status: int | None = None) -> None:
        """The connection ended, or did not come to be (1006; with the HTTP `status` if there was a response)."""
        self._now = now
        if self.phase not in (Phase.OPENING, Phase.SYNCING, Phase.LIVE):
            return
        was_open = self.phase is not Phase.OPENING
        self._lost()
        refused = code == CLOSE_TOKEN_EXPIRED or status == 401
        if refused and not self.settings.refreshable:
            self._stop(CLOSE_TOKEN_EXPIRED, reason or "the token is not accepted")
        elif code in _STOP or status == 403:
            self._stop(CLOSE_REMOVED if status == 403 else code, reason)
        elif refused and was_open and not self._refused:
            self._refused = True
            self._connect()
        else:
            self._wait(code, reason)

    def timer(self, now: int, name: str) -> None:
        """A timer that was set has run out."""
        self._now = now
        kind, _, rest = name.partition(":")
        if self.phase is Phase.CLOSED:
            return
        match kind:
            case "retry" if self.phase is Phase.WAITING:
                self._connect()
            case "open" if self.phase is Phase.OPENING:
                self._leave(1006, "the connection did not open in time")
            case "heartbeat":
                self._heartbeat()
            case "answer":
                self._leave(1006, "the server does not answer")
            case "leave":
                self._leave(1012, "the server is going away", at_once=True)
            case "sync" if self.phase is Phase.SYNCING:
                self._sync()
            case "repair" if self.phase is Phase.LIVE and RoomId(rest) in self._logs:
                self._logs[RoomId(rest)].repairing = False
                self._repair(RoomId(rest))
            case "subscribe" if self.phase is Phase.LIVE and RoomId(rest) in self._subscribed:
                self._listen(RoomId(rest))
            case "resend" if self.phase is Phase.LIVE:
                self._transmit(int(rest))
            case "call":
                self._reject(int(rest), "timeout", "No answer came in time; it may have been done.", retry=True)
            case _:
                pass  # it was overtaken by an end of the connection

    def call(self, now: int, call: int, action: str, fields: dict[str, Any]) -> None:
        """The application asks for `action`; `call` is a number of its own, answered by `Resolve` or `Reject`.

        The fields of a `send` must have a `client_id`.
        """
        self._now = now
        if self.phase is Phase.CLOSED:
            self._reject(call, "disconnected", "The client is closed.", retry=False)
        elif len(self._calls) >= self.settings.max_pending:
            self._reject(call, "unavailable", "Too many calls are waiting already.", retry=True)
        elif action == "typing" and self.phase is not Phase.LIVE:
            self._reject(call, "unavailable", "There is no connection just now.", retry=True)
        else:
            wait = self.settings.send_deadline_ms
            self._calls[call] = _Call(action, fields, now + wait)
            self._start(f"call:{call}", wait)
            if self.phase is Phase.LIVE:
                self._transmit(call)

    def cancel(self, call: int) -> None:
        """The application no longer waits for this call."""
        if self._calls.pop(call, None) is not None:
            self._cancel(f"call:{call}")
            self._cancel(f"resend:{call}")

    def subscribe(self, now: int, room: RoomId) -> None:
        """Listen to this public room on this and every later connection."""
        self._now = now
        if room in self._subscribed:
            return
        self._subscribed[room] = None
        if self.phase is Phase.LIVE and room not in self.rooms:
            self._listen(room)

    def online(self, now: int) -> None:
        """The machine has a network again: reconnect at once, or see whether the connection still stands."""
        self._now = now
        if self.phase is Phase.WAITING:
            self._connect()
        elif self.phase is Phase.LIVE:
            self._probe()

    def close(self, now: int) -> None:
        """The application ends everything; what is pending is rejected."""
        self._now = now
        if self.phase is not Phase.CLOSED:
            self._stop(1000, "closed by the application", disconnect=True)

    # Connecting

    def _start(self, name: str, ms: int) -> None:
        self._out.append(SetTimer(name, ms))

    def _cancel(self, name: str) -> None:
        self._out.append(CancelTimer(name))

    def _connect(self) -> None:
        self._cancel("retry")
        self.phase = Phase.TOKEN
        self._out.append(StateChanged("connecting"))
        self._out.append(GetToken())

    def _sync(self, call: int = 0) -> None:
        rooms = {room: log.last for room, log in self._logs.items() if log.last is not None}
        frame: dict[str, Any] = {"action": "sync", "rooms": rooms}
        if self._epoch is not None:
            frame["epoch"] = self._epoch
        self._ask(_Waiting("sync", call=call), frame)
        self._start("answer", self.settings.answer_ms)

    def _lost(self) -> None:
        """Forget the connection; what may be asked again waits for the next one."""
        for name in ("open", "heartbeat", "answer", "leave", "sync"):
            self._cancel(name)
        self._inflight.clear()
        self._renewing = False
        self.connection_id = None
        for room, log in list(self._logs.items()):
            if log.repairing:
                self._cancel(f"repair:{room}")
            log.repairing = False
            log.held.clear()
            log.wanted = log.last or 0
            if log.last is None and not log.restarting:
                del self._logs[room]
        for number, call in list(self._calls.items()):
            if not call.sent:
                continue
            call.sent = False
            self._cancel(f"resend:{number}")
            if call.action not in REPEATABLE:
                message = "The connection was lost before the answer came; it may have been done."
                self._reject(number, "unavailable", message, retry=True)

    def _wait(self, code: int, reason: str) -> None:
        self.phase = Phase.WAITING
        ms = self._jitter(self._attempt)
        self._attempt += 1
        self._out.append(StateChanged("waiting", ms, code, reason))
        self._start("retry", ms)

    def _jitter(self, tries: int) -> int:
        """Full jitter: anything up to the exponential back-off, so that many clients do not come back together."""
        most = min(self.settings.backoff_cap_ms, self.settings.backoff_base_ms * 2 ** min(tries, 30))
        return int(self._rand() * most)

    def _stop(self, code: int, reason: str, *, disconnect: bool = False) -> None:
        if disconnect:
            self._lost()
            self._cancel("retry")
            self._out.append(Disconnect(1000))
        self.phase = Phase.CLOSED
        for number in list(self._calls):
            self._reject(number, "disconnected", reason, retry=False, close_code=code)
        self._out.append(StateChanged("closed", code=code, reason=reason))

    def _leave(self, code: int, reason: str, *, at_once: bool = False) -> None:
        """Give the connection up and make a new one."""
        self._lost()
        self._out.append(Disconnect(1000))
        if at_once:
            self._connect()
        else:
            self._wait(code, reason)

    def _heartbeat(self) -> None:
        quiet = self._now - self._heard_at
        if quiet < self.settings.heartbeat_ms:
            self._start("heartbeat", self.settings.heartbeat_ms - quiet)
            return
        self._probe()
        self._start("heartbeat", self.settings.heartbeat_ms)

    def _probe(self) -> None:
        self._ask(_Waiting("ping"), {"action": "ping"})
        self._start("answer", self.settings.answer_ms)

    # Calls

    def _listen(self, room: RoomId) -> None:
        self._ask(_Waiting("subscribe", room=room), {"action": "subscribe", "room": room})

    def _ask(self, what: _Waiting, frame: dict[str, Any]) -> None:
        self._refs += 1
        ref = str(self._refs)
        self._inflight[ref] = what
        self._out.append(SendFrame({**frame, "ref": ref}))

    def _transmit(self, number: int) -> None:
        call = self._calls.get(number)
        if call is None:
            return
        call.sent = True
        if call.action == "sync":
            self._sync(number)
        else:
            self._ask(_Waiting("call", call=number), {"action": call.action, **call.fields})

    def _reject(
        self,
        number: int,
        code: str,
        message: str,
        *,
        retry: bool,
        retry_after_ms: int | None = None,
        close_code: int | None = None,
    ) -> None:
        self.cancel(number)
        after = msgspec.UNSET if retry_after_ms is None else retry_after_ms
        closed = msgspec.UNSET if close_code is None else close_code
        self._out.append(Reject(number, code, message, retry, after, closed))

    def _succeeded(self, what: _Waiting, text: bytes | str) -> None:
        if what.kind == "sync":
            self._on_synced(_synced.decode(text))
        elif what.kind == "history":
            self._on_page(what.room, _page.decode(text))
        elif what.kind == "subscribe":
            self._heard_of(what.room, _subscribed.decode(text).head)
        call = self._calls.get(what.call)
        if call is None:
            return
        if what.kind == "call":
            self._learn(call.action, call.fields, text)
        self.cancel(what.call)
        self._out.append(Resolve(what.call, msgspec.Raw(text.encode() if isinstance(text, str) else text)))

    def _failed(self, what: _Waiting, error: ErrorReply) -> None:
        call = self._calls.get(what.call)
        if call is not None:
            self._call_failed(what.call, call, error)
        elif what.kind == "sync" and self.phase is Phase.SYNCING:
            self._sync_failed(error)
        elif what.kind == "history" and what.room in self._logs:
            if error.retry:
                self._start(f"repair:{what.room}", 1000 if error.retry_after_ms is None else error.retry_after_ms)
            else:
                self._forget(what.room)
        elif what.kind == "subscribe" and error.retry:
            self._start(f"subscribe:{what.room}", 1000 if error.retry_after_ms is None else error.retry_after_ms)
        elif what.kind == "subscribe":
            self._subscribed.pop(what.room, None)
            self._out.append(DeliverSignal(Notice(code=error.code, message=error.message)))

    def _call_failed(self, number: int, call: _Call, error: ErrorReply) -> None:
        ms = self._jitter(call.tries) if error.retry_after_ms is None else error.retry_after_ms
        if error.retry and call.action == "send" and self._now + ms < call.deadline:
            call.tries += 1
            self._start(f"resend:{number}", ms)
        else:
            self._reject(number, error.code, error.message, retry=error.retry, retry_after_ms=error.retry_after_ms)

    def _sync_failed(self, error: ErrorReply) -> None:
        if error.retry:
            ms = self._jitter(self._attempt) if error.retry_after_ms is None else error.retry_after_ms
            self._attempt += 1
            self._start("sync", ms)
        elif error.code in ("unauthorized", "token_expired"):
            self._out.append(Disconnect(1000))
            self.closed(self._now, CLOSE_TOKEN_EXPIRED, error.message)
        else:
            self._stop(CLOSE_BAD_CLIENT, error.message, disconnect=True)

    def _learn(self, action: str, fields: dict[str, Any], text: bytes | str) -> None:
        """Take from a success what it says about one's rooms."""
        room = fields.get("room")
        if action in ("join", "create"):
            joined = _joined.decode(text)
            if joined.role is not None and joined.room not in self.rooms:
                self._room(joined.room, joined.kind, joined.name, joined.role, joined.head)
            if joined.role is not None:
                self._heard_of(joined.room, joined.head)
        elif action == "leave":
            self._forget(RoomId(str(room)))
        elif action == "subscribe":
            listening = _subscribed.decode(text)
            self._subscribed[listening.room] = None
            self._heard_of(listening.room, listening.head)
        elif action == "unsubscribe":
            self._subscribed.pop(RoomId(str(room)), None)
            self._forget(RoomId(str(room)))
        elif action == "read":
            self._mark_read(RoomId(str(room)), int(fields["seq"]))

    def _room(self, room: RoomId, kind: RoomKind, name: str, role: Role, head: int) -> None:
        self.rooms[room] = RoomState(room, kind, name, role, head, head, 0)
        self._out.append(RoomsChanged())

    # Frames

    def _read_frame(self, text: bytes | str) -> None:
        head = _head.decode(text)
        if head.type in ("ok", "error"):
            what = self._inflight.pop(head.ref, None) if head.ref is not None else None
            if what is None:
                return
            if head.type == "ok":
                self._succeeded(what, text)
            else:
                self._failed(what, _error.decode(text))
        elif head.seq is not None and head.id is not None:
            self._take_entry(decode_entry(text))
        else:
            self._take_signal(_decode_signal(text, head.type))

    def _on_synced(self, synced: _Synced) -> None:
        if self.phase is Phase.SYNCING:
            self.phase = Phase.LIVE
            self._out.append(StateChanged("live"))
        self._attempt = 0
        self._refused = False
        self.user, self.connection_id, self._epoch = synced.user, synced.connection_id, synced.epoch
        reset = set(synced.reset)
        self.rooms.clear()
        for state in synced.rooms:
            self.rooms[state.room] = state
            self._begin(state, anew=state.room in reset)
        for room in [room for room in self._logs if room not in self.rooms]:
            self._forget(room)
        self._out.append(RoomsChanged())
        for room in synced.reset:
            if room in self._logs:
                self._out.append(ResetRoom(room))
        for raw in synced.entries:
            self._place(decode_entry(raw))
        for room in self._logs:
            self._drain(room)
        for room in self._subscribed:
            if room not in self.rooms:
                self._listen(room)
        for number, call in list(self._calls.items()):
            if not call.sent:
                self._transmit(number)

    def _begin(self, state: RoomState, *, anew: bool) -> None:
        """Where a room's log goes on after a sync."""
        log = self._log(state.room)
        log.counted = state.head
        if anew:
            log.held.clear()
            log.last, log.wanted, log.restarting = None, 0, True
            log.repairing = False
        elif log.last is None and not log.restarting:
            log.begin(state.head)
        log.wanted = max(log.wanted, state.head)

    def _take_signal(self, signal: Signal) -> None:
        match signal:
            case HeadSignal(room=room, head=head) if room in self._logs:
                self._heard_of(room, head)
            case RoomSignal(room=room, joined=True, state=RoomState() as state):
                self.rooms[room] = state
                self._out.append(RoomsChanged())
                self._log(room).counted = state.head
                self._heard_of(room, state.head)
            case RoomSignal(room=room, joined=False):
                self._forget(room)
            case ReadSignal(room=room, user=user, seq=seq) if user == self.user:
                self._mark_read(room, seq)
            case Notice(code="going_away", in_ms=in_ms):
                self._start("leave", int(self._rand() * min(5000 if in_ms is None else in_ms, 5000)))
            case Notice(code="token_expires") if self.settings.refreshable and not self._renewing:
                self._renewing = True
                self._out.append(GetToken())
            case _:
                pass
        self._out.append(DeliverSignal(signal))

    # Logs

    def _log(self, room: RoomId) -> _Log:
        log = self._logs.get(room)
        if log is None:
            log = self._logs[room] = _Log()
        return log

    def _forget(self, room: RoomId) -> None:
        if self._logs.pop(room, None) is not None:
            self._cancel(f"repair:{room}")
        if self.rooms.pop(room, None) is not None:
            self._out.append(RoomsChanged())

    def _heard_of(self, room: RoomId, head: int) -> None:
        """The room's log ends at `head`: begin there if it is new here, else get what is lacking."""
        log = self._log(room)
        if log.last is None and not log.restarting:
            log.begin(head)
        log.wanted = max(log.wanted, head)
        if self.phase is Phase.LIVE:
            self._drain(room)

    def _take_entry(self, entry: Entry) -> None:
        self._place(entry)
        if self.phase is Phase.LIVE:
            self._drain(entry.room)

    def _place(self, entry: Entry) -> None:
        """Deliver the entry if it follows, hold it if it is early, drop it if it is known."""
        known = entry.room in self._logs
        log = self._log(entry.room)
        if not known and self.phase is Phase.LIVE:
            log.begin(entry.seq - 1)
        log.wanted = max(log.wanted, entry.seq)
        if log.last is not None and entry.seq <= log.last:
            return
        if log.last is not None and entry.seq == log.last + 1:
            self._deliver(log, entry)
        elif len(log.held) < self.settings.max_held:
            log.held[entry.seq] = entry
        # What does not fit is read again later: `wanted` remembers that it is there.

    def _drain(self, room: RoomId) -> None:
        """Deliver what follows now; if something is still missing then, ask for it."""
        log = self._logs[room]
        for seq in sorted(log.held) if log.last is not None else ():
            if log.last is not None and seq == log.last + 1:
                self._deliver(log, log.held[seq])
            if log.last is not None and seq <= log.last:
                del log.held[seq]
        if log.last is None or log.last < log.wanted:
            self._repair(room)

    def _repair(self, room: RoomId) -> None:
        log = self._logs[room]
        if log.repairing:
            return
        log.repairing = True
        frame: dict[str, Any] = {"action": "history", "room": room}
        frame |= {"limit": LAST_PAGE} if log.last is None else {"after": log.last, "limit": PAGE}
        self._ask(_Waiting("history", room=room), frame)

    def _on_page(self, room: RoomId, page: _Page) -> None:
        log = self._logs.get(room)
        if log is None:
            return
        log.repairing = False
        entries = [decode_entry(raw) for raw in page.entries]
        last = log.last
        if last is None:
            last = log.begin(entries[0].seq - 1 if entries else page.head)
            log.restarting = False
        elif (entries[0].seq > last + 1) if entries else page.head > last:
            # Retention has taken what is lacking.
            log.last, log.restarting = None, True
            self._out.append(ResetRoom(room))
            self._repair(room)
            return
        progress = False
        for entry in entries:
            if entry.seq == last + 1:
                self._deliver(log, entry)
                last, progress = entry.seq, True
        log.wanted = max(log.wanted, page.head)
        if not progress and last < log.wanted and last + 1 not in log.held:
            # The server knows no more just now than what was heard of before: ask again, but not at once.
            log.repairing = True
            self._start(f"repair:{room}", 1000)
        else:
            self._drain(room)

    def _deliver(self, log: _Log, entry: Entry) -> None:
        log.last = entry.seq
        self._update(log, entry)
        self._out.append(Deliver(entry))

    def _update(self, log: _Log, entry: Entry) -> None:
        """Keep the room's state at what the entry says."""
        state = self.rooms.get(entry.room)
        if state is None:
            return
        changes: dict[str, Any] = {"head": max(state.head, entry.seq)}
        match entry:
            case MessageCreated() if entry.by == self.user and entry.seq > log.counted:
                changes |= {"read": max(state.read, entry.seq), "unread": 0}
            case MessageCreated() if entry.seq > max(log.counted, state.read):
                changes["unread"] = state.unread + 1
            case RoomUpdated():
                changes["name"] = state.name if entry.room_name is None else entry.room_name
                changes["kind"] = entry.kind or state.kind
            case MemberUpdated() if entry.user == self.user:
                changes["role"] = entry.role
            case _:
                pass
        self.rooms[entry.room] = msgspec.structs.replace(state, **changes)
        self._out.append(RoomsChanged())

    def _mark_read(self, room: RoomId, seq: int) -> None:
        state = self.rooms.get(room)
        if state is None or seq <= state.read:
            return
        unread = min(state.unread, max(0, state.head - seq))
        self.rooms[room] = msgspec.structs.replace(state, read=seq, unread=unread)
        self._out.append(RoomsChanged())


def encode_frame(frame: dict[str, Any]) -> bytes:
    """The bytes of a frame that `SendFrame` asks to send."""
    return encode(frame)
