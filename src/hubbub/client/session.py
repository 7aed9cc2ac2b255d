"""What a client does next, decided without I/O: fed with events and the time, it gives back actions.

The JavaScript client has the same machine; `clients/vectors` holds scripts that both must follow. Each event is a
method, which adds to what `take` returns; the caller does those actions in order. What is known of rooms and their logs
is the part of `Logs`; the connection's life and the application's calls are this one's.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from typing import Any

import msgspec

from hubbub.client.actions import (
    Action,
    CancelTimer,
    Connect,
    DeliverSignal,
    Disconnect,
    GetToken,
    Reject,
    Resolve,
    SendFrame,
    SetTimer,
    StateChanged,
)
from hubbub.client.frames import (
    LOST_IN_GATEWAY,
    ReadSync,
    read_entry,
    read_error,
    read_head,
    read_joined,
    read_page,
    read_signal,
    read_subscribed,
    read_sync,
)
from hubbub.client.logs import AGAIN_MS, PATIENCE_MS, Logs
from hubbub.errors import TokenExpired, Unauthorized
from hubbub.model import RoomId, RoomState
from hubbub.protocol import (
    CLOSE_BAD_CLIENT,
    CLOSE_CODES,
    CLOSE_REMOVED,
    CLOSE_TOKEN_EXPIRED,
    CloseAdvice,
    ErrorReply,
    HeadSignal,
    Notice,
    ReadSignal,
    RoomSignal,
    Signal,
    encode,
)

REPEATABLE = frozenset(
    (
        *("sync", "send", "history", "join", "leave", "invite", "kick", "role", "members", "rooms", "react", "unreact"),
        *("subscribe", "unsubscribe", "read", "presence", "ping"),
    )
)
"""Actions that may be asked twice: sent and unanswered when a connection broke, they are asked again on the next."""

LEAVING_MS = 5_000
"""Within how long a server is left that is going away and does not say when."""

CLOSING_MS = 3_000
"""How long the end of a connection may take that the server has said it would end."""

_STOP = {row.code for row in CLOSE_CODES if row.advice is CloseAdvice.STOP}


class Settings(msgspec.Struct, frozen=True, rename="camel"):
    """The client's patience and bounds; durations in milliseconds, most described at `hubbub.connect`.

    Attributes:
        max_named: how many rooms a resuming sync names, so that its frame stays below the server's limit; what was
            missed in the others is read from history.
        refreshable: whether another token can be got than the one at hand.

    """

    backoff_base_ms: int = 250
    backoff_cap_ms: int = 20_000
    heartbeat_ms: int = 30_000
    answer_ms: int = 10_000
    send_deadline_ms: int = 60_000
    max_pending: int = 1000
    max_held: int = 1000
    max_named: int = 300
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
        logs: one's rooms and where their logs stand.
        connection_id: as the last sync said; None between connections.
        phase: where the connection stands.

    """

    def __init__(self, settings: Settings | None = None, *, rand: Callable[[], float] = random.random) -> None:
        self.settings = settings or Settings()
        self.phase = Phase.IDLE
        self.connection_id: str | None = None
        self._out: list[Action] = []
        self.logs = Logs(self._do, self._ask_history, self.settings.max_held)
        self._rand = rand
        self._epoch: str | None = None
        self._subscribed: dict[RoomId, None] = {}  # listened to on every connection, in the order of asking
        self._calls: dict[int, _Call] = {}
        self._inflight: dict[str, _Waiting] = {}
        self._refs = 0
        self._attempt = 0  # failures since a connection lasted
        self._live_at: int | None = None  # when this connection's first sync was answered; None before
        self._refused = False  # the last connection ended for its token, and none has lasted since
        self._renewing = False  # a token for `auth` on this connection is awaited
        self._closing: tuple[int, str] | None = None  # the code and reason that count when this connection ends
        self._answering = False  # the timer of an answer runs
        self._heartbeat_ms = self.settings.heartbeat_ms  # as long as the server wants it to be, if that is longer
        self._heard_at = 0
        self._now = 0

    @property
    def rooms(self) -> dict[RoomId, RoomState]:
        """The rooms one is in or subscribed to."""
        return self.logs.rooms

    @property
    def user(self) -> str | None:
        """Whose token it is, as the last sync said; None before the first."""
        return self.logs.user

    def take(self) -> list[Action]:
        """What is to be done now, in order; empties the list."""
        out = self._out[:]
        self._out.clear()
        return out

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
            self._cancel("token")
            self._do(Connect(token))
            self._start("open", self.settings.answer_ms)
        elif self.phase in (Phase.SYNCING, Phase.LIVE) and self._renewing:
            self._renewing = False
            self._ask(_Waiting("auth"), {"action": "auth", "token": token})

    def token_failed(self, now: int, message: str) -> None:
        """No token could be got."""
        self._now = now
        self._renewing = False
        if self.phase is not Phase.TOKEN:
            return
        self._cancel("token")
        if self.settings.refreshable:
            self._wait(1006, message or "no token could be got")
        else:
            self._stop(CLOSE_TOKEN_EXPIRED, message)

    def opened(self, now: int) -> None:
        """The connection stands."""
        self._now = now
        if self.phase is not Phase.OPENING:
            return
        self.phase = Phase.SYNCING
        self._cancel("open")
        self._heard_at = now
        self._start("heartbeat", self._heartbeat_ms)
        self._sync()

    def frame(self, now: int, text: bytes | str) -> None:
        """The server sent this."""
        self._now = now
        if self.phase not in (Phase.SYNCING, Phase.LIVE):
            return
        self._heard_at = now
        if self.phase is Phase.LIVE:
            self._answered()
        try:
            self._read_frame(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._leave(1002, "the server sent what is no frame")

    def closed(
        self, now: int, code: int, reason: str = "", status: int | None = None, retry_after_ms: int | None = None
    ) -> None:
        """The connection ended, or did not come to be (1006; with the HTTP `status` if there was a response).

        Where the server has said before with which code it ends, that one counts: not every gateway can send one.

        Args:
            now: as for every event.
            code, reason: how it ended.
            status: of the response to the handshake; None for none.
            retry_after_ms: when to come back, as that response said; None for nothing.

        """
        self._now = now
        if self.phase not in (Phase.OPENING, Phase.SYNCING, Phase.LIVE):
            return
        code, reason = self._closing or (code, reason)
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
            self._wait(code, reason, retry_after_ms or 0)

    def timer(self, now: int, name: str) -> None:
        """A timer that was set has run out."""
        self._now = now
        kind, _, rest = name.partition(":")
        if self.phase is Phase.CLOSED:
            return
        match kind:
            case "retry" if self.phase is Phase.WAITING:
                self._connect()
            case "token" if self.phase is Phase.TOKEN:
                self._wait(1006, "no token came in time")
            case "open" if self.phase is Phase.OPENING:
                self._leave(1006, "the connection did not open in time")
            case "heartbeat":
                self._heartbeat()
            case "answer":
                self._leave(1006, "the server does not answer")
            case "leave":
                self._leave(1012, "the server is going away", at_once=True)
            case "closing" if self._closing is not None:
                self._do(Disconnect(1000))
                self.closed(now, *self._closing)
            case "sync" if self.phase in (Phase.SYNCING, Phase.LIVE):
                self._sync()
            case "repair":
                self.logs.repair(RoomId(rest))
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
        """The machine has a network again, or woke up: reconnect at once, or see whether a connection still stands."""
        self._now = now
        if self.phase is Phase.WAITING:
            self._connect()
        elif self.phase is Phase.LIVE:
            self._probe()

    def close(self, now: int, code: int = 1000, reason: str = "closed by the application") -> None:
        """The application ends everything; what is pending is rejected."""
        self._now = now
        if self.phase is not Phase.CLOSED:
            self._stop(code, reason, disconnect=True)

    # Connecting

    def _do(self, action: Action) -> None:
        self._out.append(action)

    def _start(self, name: str, ms: int) -> None:
        self._do(SetTimer(name, ms))

    def _cancel(self, name: str) -> None:
        self._do(CancelTimer(name))

    def _connect(self) -> None:
        self._cancel("retry")
        self.phase = Phase.TOKEN
        self._do(StateChanged("connecting"))
        self._do(GetToken())
        self._start("token", self.settings.send_deadline_ms)

    def _sync(self, call: int = 0) -> None:
        # Those one only listens to come first: the server would not let this connection hear them otherwise.
        rooms = self.logs.positions(self._subscribed, self.settings.max_named)
        frame: dict[str, Any] = {"action": "sync", "rooms": rooms}
        if self._epoch is not None:
            frame["epoch"] = self._epoch
        self.logs.syncing()
        self._ask(_Waiting("sync", call=call), frame)
        self._await_answer()

    def _lost(self) -> None:
        """Forget the connection; what may be asked again waits for the next one."""
        for name in ("open", "heartbeat", "leave", "closing", "sync"):
            self._cancel(name)
        self._answered()
        self._closing = None
        # Only a connection that outlasted the wait before it shows that all is well again.
        if self._live_at is not None and self._now - self._live_at >= self._longest(self._attempt):
            self._attempt = 0
            self._refused = False
        self._live_at = None
        self._inflight.clear()
        self._renewing = False
        self.connection_id = None
        self.logs.lost()
        for number, call in list(self._calls.items()):
            if not call.sent:
                continue
            call.sent = False
            self._cancel(f"resend:{number}")
            if call.action not in REPEATABLE:
                message = "The connection was lost before the answer came; it may have been done."
                self._reject(number, "unavailable", message, retry=True)

    def _wait(self, code: int, reason: str, at_least_ms: int = 0) -> None:
        """Come back later, and not before the server wants it; nor much later than by oneself, whatever it says."""
        self.phase = Phase.WAITING
        ms = min(at_least_ms, self.settings.backoff_cap_ms) + self._jitter(self._attempt)
        self._attempt += 1
        self._do(StateChanged("waiting", ms, code, reason))
        self._start("retry", ms)

    def _longest(self, tries: int) -> int:
        return min(self.settings.backoff_cap_ms, self.settings.backoff_base_ms << min(tries, 30))

    def _jitter(self, tries: int) -> int:
        """Full jitter: anything up to the exponential back-off, so that many clients do not come back together."""
        return int(self._rand() * self._longest(tries))

    def _stop(self, code: int, reason: str, *, disconnect: bool = False) -> None:
        if disconnect:
            self._lost()
            self._cancel("retry")
            self._cancel("token")
            self._do(Disconnect(1000))
        self.phase = Phase.CLOSED
        for number in list(self._calls):
            self._reject(number, "disconnected", reason, retry=False, close_code=code)
        self._do(StateChanged("closed", code=code, reason=reason))

    def _leave(self, code: int, reason: str, *, at_once: bool = False) -> None:
        """Give the connection up and make a new one."""
        self._lost()
        self._do(Disconnect(1000))
        if at_once:
            self._connect()
        else:
            self._wait(code, reason)

    def _heartbeat(self) -> None:
        quiet = self._now - self._heard_at
        if quiet < self._heartbeat_ms:
            self._start("heartbeat", self._heartbeat_ms - quiet)
            return
        self._probe()
        self._start("heartbeat", self._heartbeat_ms)

    def _probe(self) -> None:
        if not self._answering:  # else another question would put off the end of the patience with the first
            self._ask(_Waiting("ping"), {"action": "ping"})
            self._await_answer()

    def _await_answer(self) -> None:
        self._answering = True
        self._start("answer", self.settings.answer_ms)

    def _answered(self) -> None:
        self._answering = False
        self._cancel("answer")

    # Calls

    def _listen(self, room: RoomId) -> None:
        self._ask(_Waiting("subscribe", room=room), {"action": "subscribe", "room": room})
        self._start(f"subscribe:{room}", PATIENCE_MS)

    def _ask_history(self, room: RoomId, **where: int) -> None:
        self._ask(_Waiting("history", room=room), {"action": "history", "room": room, **where})

    def _ask(self, what: _Waiting, frame: dict[str, Any]) -> None:
        self._refs += 1
        ref = str(self._refs)
        self._inflight[ref] = what
        self._do(SendFrame({**frame, "ref": ref}))

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
        self._do(Reject(number, code, message, retry, after, closed))

    def _succeeded(self, what: _Waiting, text: bytes | str) -> None:
        if what.kind == "sync":
            self._on_synced(read_sync(text))
        elif what.kind == "history":
            page = read_page(text)
            self.logs.page(what.room, page.entries, page.head)
        elif what.kind == "subscribe":
            self._cancel(f"subscribe:{what.room}")
            self.logs.listening(what.room, read_subscribed(text).head)
        call = self._calls.get(what.call)
        if call is None:
            return
        if what.kind == "call":
            self._learn(call.action, call.fields, text)
        self.cancel(what.call)
        self._do(Resolve(what.call, msgspec.Raw(text.encode() if isinstance(text, str) else text)))

    def _failed(self, what: _Waiting, error: ErrorReply) -> None:
        call = self._calls.get(what.call)
        if self.phase is Phase.LIVE and _tells_of_the_end(what.kind, error.code):
            if call is not None:
                call.sent = False  # it was refused, so it may be asked again whatever it is
            self._do(Disconnect(1000))  # not every gateway closes at once, nor surely
            self.closed(self._now, CLOSE_TOKEN_EXPIRED, error.message)
        elif call is not None:
            self._call_failed(what.call, call, error)
        elif what.kind == "sync" and self.phase is Phase.SYNCING:
            self._sync_failed(error)
        elif what.kind == "sync" and error.retry:
            self._start("sync", AGAIN_MS if error.retry_after_ms is None else error.retry_after_ms)
        elif what.kind == "history":
            self.logs.page_failed(what.room, retry=error.retry, after_ms=error.retry_after_ms)
        elif what.kind == "subscribe" and error.retry:
            self._start(f"subscribe:{what.room}", AGAIN_MS if error.retry_after_ms is None else error.retry_after_ms)
        elif what.kind == "subscribe":
            self._cancel(f"subscribe:{what.room}")
            self._subscribed.pop(what.room, None)
            self._do(DeliverSignal(Notice(code=error.code, message=error.message)))

    def _call_failed(self, number: int, call: _Call, error: ErrorReply) -> None:
        ms = self._jitter(call.tries) if error.retry_after_ms is None else error.retry_after_ms
        if error.retry and call.action == "send" and self._now + ms < call.deadline:
            call.tries += 1
            self._start(f"resend:{number}", ms)
        else:
            self._reject(number, error.code, error.message, retry=error.retry, retry_after_ms=error.retry_after_ms)

    def _sync_failed(self, error: ErrorReply) -> None:
        self._answered()
        if error.retry:
            ms = self._jitter(self._attempt) if error.retry_after_ms is None else error.retry_after_ms
            self._attempt += 1
            self._start("sync", ms)
        elif error.code in ("unauthorized", "token_expired"):
            self._do(Disconnect(1000))
            self.closed(self._now, CLOSE_TOKEN_EXPIRED, error.message)
        else:
            self._stop(CLOSE_BAD_CLIENT, error.message, disconnect=True)

    def _learn(self, action: str, fields: dict[str, Any], text: bytes | str) -> None:
        """Take from a success what it says about one's rooms."""
        room = RoomId(str(fields.get("room")))
        if action in ("join", "create"):
            joined = read_joined(text)
            if joined.role is not None:
                self.logs.entered(joined.room, joined.kind, joined.name, joined.role, joined.head)
        elif action == "leave":
            self.logs.left(room)
        elif action == "subscribe":
            self._subscribed[room] = None
            self.logs.listening(room, read_subscribed(text).head)
        elif action == "unsubscribe":
            self._subscribed.pop(room, None)
            self._cancel(f"subscribe:{room}")
            self.logs.left(room)
        elif action == "read":
            self.logs.mark_read(room, int(fields["seq"]))

    # Frames

    def _read_frame(self, text: bytes | str) -> None:
        head = read_head(text)
        if head.type == "":
            self._lost_in_gateway()
        elif head.type in ("ok", "error"):
            what = self._inflight.pop(head.ref, None) if isinstance(head.ref, str) else None
            if what is None:
                return
            if head.type == "ok":
                self._succeeded(what, text)
            else:
                self._failed(what, read_error(text))
        elif head.is_entry:
            self.logs.take(read_entry(text))
        else:
            self._take_signal(read_signal(text, head.type))

    def _lost_in_gateway(self) -> None:
        """Something that was asked has not reached the chat, and nobody says what: so all of it may be asked again."""
        inflight, self._inflight = self._inflight, {}
        for what in inflight.values():
            self._failed(what, LOST_IN_GATEWAY)

    def _on_synced(self, synced: ReadSync) -> None:
        if self.phase is Phase.SYNCING:
            self.phase = Phase.LIVE
            self._answered()
            self._live_at = self._now
            self._do(StateChanged("live"))
        self._heartbeat_ms = max(self.settings.heartbeat_ms, synced.heartbeat_ms or 0)
        other_data = self._epoch is not None and synced.epoch != self._epoch
        self.connection_id, self._epoch, self.logs.user = synced.connection_id, synced.epoch, synced.user
        is_all = self.logs.synced(synced.rooms, synced.reset, synced.entries, other_data=other_data)
        for room in self._subscribed:
            if room not in self.rooms:
                self._listen(room)
        for number, call in list(self._calls.items()):
            if not call.sent:
                self._transmit(number)
        if not is_all:
            self._sync()

    def _take_signal(self, signal: Signal) -> None:
        match signal:
            case HeadSignal(room=room, head=head) if room in self.logs:
                self.logs.heard_of(room, head)
            case RoomSignal(joined=True, state=RoomState() as state):
                self.logs.joined(state)
            case RoomSignal(room=room, joined=False):
                self.logs.left(room)
            case ReadSignal(room=room, user=user, seq=seq) if user == self.user:
                self.logs.mark_read(room, seq)
            case Notice(code="going_away", in_ms=in_ms):
                # Spread over all the time there is, as thousands may leave; who is not gone by then is closed.
                self._start("leave", int(self._rand() * (LEAVING_MS if in_ms is None else in_ms)))
            case Notice(code="closing", close=int(code), message=message):
                self._closing = code, message
                self._start("closing", CLOSING_MS)
            case Notice(code="token_expires") if self.settings.refreshable and not self._renewing:
                self._renewing = True
                self._do(GetToken())
            case _:
                pass
        self._do(DeliverSignal(signal))


def _tells_of_the_end(kind: str, code: str) -> bool:
    """Whether an error says that the connection's own token does no more; what is answered to `auth` is about another.

    A question that nobody but the chat itself answers is refused for that alone; calls may be refused by applications.
    """
    return (code == TokenExpired.code and kind != "auth") or (code == Unauthorized.code and kind == "ping")


def encode_frame(frame: dict[str, Any]) -> bytes:
    """The bytes of a frame that `SendFrame` asks to send."""
    return encode(frame)
