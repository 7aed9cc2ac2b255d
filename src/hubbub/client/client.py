"""A client of a chat as an application sees it: does what the session decides, with a socket, timers and tasks."""

from __future__ import annotations

import asyncio
import inspect
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakSet

import msgspec

from hubbub.client.actions import (
    Action,
    CancelTimer,
    Connect,
    Deliver,
    DeliverSignal,
    Disconnect,
    GetToken,
    Reject,
    ResetRoom,
    Resolve,
    RoomsChanged,
    SendFrame,
    SetTimer,
    StateChanged,
)
from hubbub.client.connection import CLOSING_S, Connection
from hubbub.client.failures import Disconnected, failure
from hubbub.client.frames import Reset, read_entry
from hubbub.client.logs import PAGE
from hubbub.client.session import Phase, Session, Settings, encode_frame
from hubbub.client.streams import EntryStream, LogPage, SignalStream, Stream
from hubbub.errors import HubbubError, Internal, Unavailable
from hubbub.model import Role, RoomId, RoomKind, RoomState
from hubbub.protocol import (
    Appended,
    Done,
    HistoryPage,
    Joined,
    MemberPage,
    Online,
    Pong,
    Renewed,
    Result,
    RoomPage,
    Sent,
    Subscribed,
)

Token = str | Callable[[], str | Awaitable[str]]
"""A JWT, or a function that gets one, which may be asynchronous."""

ResultT = TypeVar("ResultT", bound=Result)

_LONGEST_S = 1e9
"""Thirty years stand for patience without end, which is no whole number of milliseconds."""

_TOKEN = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
"""What a JWT, or any token that can be a WebSocket subprotocol, is made of (RFC 9110, section 5.6.2)."""


class _ReadLog(Result, tag="ok"):
    entries: list[msgspec.Raw]
    head: int
    has_more: bool


def connect(
    url: str,
    *,
    token: Token,
    open_timeout_s: float | None = 30.0,
    backoff_base_s: float = 0.25,
    backoff_cap_s: float = 20.0,
    heartbeat_s: float = 30.0,
    answer_s: float = 10.0,
    deadline_s: float = 60.0,
    max_pending: int = 1000,
    max_held: int = 1000,
) -> Client:
    """A client of the chat at `url` (such as `wss://chat.example/ws`), to be used with `async with`.

    Args:
        url: where the chat is.
        token: a JWT, or a function (also asynchronous) that gets one; a function is asked at every attempt to connect
            and before a token runs out.
        open_timeout_s: how long `async with` may wait for the first sync; None for ever.
        backoff_base_s, backoff_cap_s: the longest first wait after a failure, doubled each time, and its limit.
        heartbeat_s: how long nothing may be heard before the client asks whether the server is there.
        answer_s: how long that answer, or the opening of a connection, may take.
        deadline_s: how long a call may take, its retries over reconnects included; later it raises `TimedOut`. So long
            a token may take too.
        max_pending: how many calls may wait at once; more raise `Unavailable`.
        max_held: how many entries are held while a gap is filled, and buffered for each slow reader.

    """
    if not isinstance(token, str) and not callable(token):
        raise TypeError(f"token must be a JWT, or a function that gets one, not a {type(token).__name__}")
    settings = Settings(
        backoff_base_ms=_ms(backoff_base_s),
        backoff_cap_ms=_ms(backoff_cap_s),
        heartbeat_ms=_ms(heartbeat_s),
        answer_ms=_ms(answer_s),
        send_deadline_ms=_ms(deadline_s),
        max_pending=max_pending,
        max_held=max_held,
        refreshable=callable(token),
    )
    return Client(url, token, settings, open_timeout_s)


class Client:
    """A chat, across as many connections as it takes; made by `connect`.

    Every call raises the class of `hubbub.errors` that the server's answer names, `TimedOut` when none came in time,
    and `Disconnected` when the client has stopped. A call that is cancelled is not repeated; it may have been done.

    Attributes:
        waiting: the streams in which a loop waits.

    """

    def __init__(self, url: str, token: Token, settings: Settings, open_timeout_s: float | None) -> None:
        self._url = url
        self._token = token
        self._open_timeout_s = open_timeout_s
        self._bound = settings.max_held
        self._session = Session(settings)
        self._state = StateChanged("connecting")
        self._changed = asyncio.Event()
        self._connection: Connection | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: WeakSet[asyncio.Task[None]] = WeakSet()  # those of the tasks that get a token
        self._calls: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._last_call = 0
        self.waiting: set[Stream[Any]] = set()  # Any: of entries or of signals
        self._readers: WeakSet[EntryStream] = WeakSet()
        self._signal_readers: WeakSet[SignalStream] = WeakSet()

    async def __aenter__(self) -> Self:
        self._session.start(_now())
        self._perform()
        try:
            async with asyncio.timeout(self._open_timeout_s):
                while self._session.phase not in (Phase.LIVE, Phase.CLOSED):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            why = self._state.reason if isinstance(self._state.reason, str) else "no answer"
            await self.close()
            raise Unavailable(f"The chat at {self._url} could not be reached: {why}") from None
        except asyncio.CancelledError:
            await self.close()
            raise
        ended = self._ended()
        if ended is not None:
            await self.close()
            raise ended
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Client {self._url} {self._state.state} as {self.user!r}>"

    async def close(self) -> None:
        """End for good: what is pending raises `Disconnected`, loops over entries end."""
        self._session.close(_now())
        self._perform()
        tasks = list(self._tasks)
        try:
            for task in self._asking:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=CLOSING_S)
        finally:
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # What is known

    @property
    def rooms(self) -> Mapping[RoomId, RoomState]:
        """The rooms one is in or subscribed to, kept up to date."""
        return MappingProxyType(self._session.rooms)

    @property
    def user(self) -> str | None:
        """Whose token it is; None before the first sync."""
        return self._session.user

    @property
    def connection_id(self) -> str | None:
        """The present connection's id; None between connections."""
        return self._session.connection_id

    @property
    def state(self) -> str:
        """`connecting`, `live`, `waiting` (to connect again) or `closed`."""
        return self._state.state

    # Reading

    def room(self, room: str, *, after: int | None = None, subscribe: bool = False) -> EntryStream:
        """The room's entries, each once and in order, since the client began to listen to it, or after the seq `after`.

        It began when it connected, or joined or subscribed later: so nothing is missed between that and this.

        Args:
            room: one of one's own rooms; nothing is joined by this.
            after: start there instead, after this seq; 0 for the whole log that is kept.
            subscribe: listen to a public room that one is no member of, on every connection.

        """
        if subscribe:
            self._session.subscribe(_now(), RoomId(room))
            self._perform()
        return self._reader(RoomId(room), self._session.logs.begun(RoomId(room)) if after is None else after)

    def entries(self) -> EntryStream:
        """The entries of all rooms from now on: each once, and in order within its room."""
        return self._reader(None, None)

    def signals(self) -> SignalStream:
        """Signals from now on, and a `Reset` for each room that starts anew."""
        stream = SignalStream(self, self._bound)
        if self._session.phase is Phase.CLOSED:
            stream.end(self._ended())
        self._signal_readers.add(stream)
        return stream

    def _reader(self, room: RoomId | None, after: int | None) -> EntryStream:
        stream = EntryStream(self, room, after, self._bound)
        if self._session.phase is Phase.CLOSED:
            stream.end(self._ended())
        self._readers.add(stream)
        return stream

    def position(self, room: RoomId) -> int | None:
        """The `seq` up to which the room has been delivered; None when it is not listened to."""
        return self._session.logs.position(room)

    async def page(self, room: RoomId, after: int) -> LogPage:
        """The entries after a seq, at most 200."""
        read = await self._get("history", _ReadLog, room=room, after=after, limit=PAGE)
        try:
            return LogPage([read_entry(raw) for raw in read.entries], read.head, read.has_more)
        except msgspec.DecodeError as error:
            raise _unreadable(error) from error

    def lost(self, room: RoomId) -> None:
        """Tell the application that entries which a reader lacks are not kept any more."""
        for stream in list(self._signal_readers):
            stream.offer(Reset(room=room))

    # Acting

    async def send(
        self,
        room: str,
        text: str | None = None,
        *,
        data: Any = msgspec.UNSET,  # Any: whatever JSON can hold
        reply_to: int | None = None,
        thread: int | None = None,
        client_id: str | None = None,
    ) -> Sent:
        """Say something; returns when it is durable, which may be after a reconnect, and is stored once.

        Args:
            room: where.
            text: what.
            data: anything JSON can hold, for the application's own use.
            reply_to: the `seq` of the message this answers.
            thread: the `seq` of the thread's first message.
            client_id: one's own id of the message, at most 64 characters; made here when absent.

        """
        fields = {"room": room, "text": text, "data": data, "reply_to": reply_to, "thread": thread}
        return await self._get("send", Sent, **fields, client_id=client_id or secrets.token_hex(16))

    async def edit(self, room: str, target: int, text: str | None = None, *, data: Any = msgspec.UNSET) -> Appended:
        """Change one's own message at the seq `target`."""
        return await self._get("edit", Appended, room=room, target=target, text=text, data=data)

    async def delete(self, room: str, target: int) -> Appended:
        """Remove one's own message, or anybody's as a moderator."""
        return await self._get("delete", Appended, room=room, target=target)

    async def react(self, room: str, target: int, reaction: str) -> Appended:
        """Add a reaction to a message."""
        return await self._get("react", Appended, room=room, target=target, reaction=reaction)

    async def unreact(self, room: str, target: int, reaction: str) -> Appended:
        """Take one's reaction back."""
        return await self._get("unreact", Appended, room=room, target=target, reaction=reaction)

    async def history(
        self,
        room: str,
        *,
        before: int | None = None,
        after: int | None = None,
        around: int | None = None,
        limit: int | None = None,
        thread: int | None = None,
    ) -> HistoryPage:
        """A page of the log: the last entries, or those `before`, `after` or `around` a seq."""
        where = {"before": before, "after": after, "around": around, "limit": limit, "thread": thread}
        return await self._get("history", HistoryPage, room=room, **where)

    async def create(
        self, kind: RoomKind | str, *, room: str | None = None, name: str | None = None, members: Sequence[str] = ()
    ) -> Joined:
        """Make a room (`public`, `private` or `direct`) and become its owner."""
        return await self._get("create", Joined, kind=str(kind), room=room, name=name, members=list(members))

    async def join(self, room: str) -> Joined:
        """Become a member of a public room, or of one that the token grants."""
        return await self._get("join", Joined, room=room)

    async def leave(self, room: str) -> None:
        """Stop being a member."""
        await self._ask("leave", {"room": room})

    async def invite(self, room: str, user: str, role: Role | str | None = None) -> None:
        """Make a user a member."""
        await self._get("invite", Done, room=room, user=user, role=None if role is None else str(role))

    async def kick(self, room: str, user: str) -> None:
        """End a user's membership."""
        await self._get("kick", Done, room=room, user=user)

    async def role(self, room: str, user: str, role: Role | str) -> None:
        """Change a member's role."""
        await self._get("role", Done, room=room, user=user, role=str(role))

    async def members(self, room: str, *, after: str | None = None, limit: int | None = None) -> MemberPage:
        """A page of the room's members, by user id."""
        return await self._get("members", MemberPage, room=room, after=after, limit=limit)

    async def public_rooms(self, *, after: str | None = None, limit: int | None = None) -> RoomPage:
        """A page of the public rooms, by id."""
        return await self._get("rooms", RoomPage, after=after, limit=limit)

    async def subscribe(self, room: str) -> Subscribed:
        """Listen to a public room without joining it, on this and every later connection."""
        return await self._get("subscribe", Subscribed, room=room)

    async def unsubscribe(self, room: str) -> None:
        """Stop listening to a room."""
        await self._get("unsubscribe", Done, room=room)

    async def typing(self, room: str, on: bool = True) -> None:
        """Tell the room that one is typing, or stopped."""
        await self._get("typing", Done, room=room, on=on)

    async def read(self, room: str, seq: int | None = None) -> None:
        """Mark a room as read up to `seq`, or to its end."""
        state = self._session.rooms.get(RoomId(room))
        await self._get("read", Done, room=room, seq=seq if seq is not None else state.head if state else 0)

    async def presence(self, room: str) -> Online:
        """Who is online in a room."""
        return await self._get("presence", Online, room=room)

    async def auth(self, token: str) -> Renewed:
        """Go on with a newer token now; the client does so by itself before one runs out."""
        return await self._get("auth", Renewed, token=token)

    async def ping(self) -> Pong:
        """The server's time."""
        return await self._get("ping", Pong)

    async def sync(self) -> None:
        """Sync anew; the client does so by itself after each connect."""
        await self._ask("sync", {})

    async def request(self, action: str, **fields: Any) -> dict[str, Any]:
        """Any action, such as one of your own; returns the reply's fields."""
        if action == "send":
            fields.setdefault("client_id", secrets.token_hex(16))
        reply = msgspec.json.decode(await self._ask(action, fields), type=dict[str, Any])
        return {name: value for name, value in reply.items() if name not in ("type", "ref")}

    async def _get(self, action: str, kind: type[ResultT], /, **fields: Any) -> ResultT:
        """Ask with the fields that are given: None is an absent one, except that `data` may be JSON's null."""
        absent = {"data": msgspec.UNSET}
        given = {name: value for name, value in fields.items() if value is not absent.get(name)}
        answer = await self._ask(action, given)
        try:
            return msgspec.json.decode(answer, type=kind)
        except msgspec.DecodeError as error:
            raise _unreadable(error) from error

    async def _ask(self, action: str, given: dict[str, Any]) -> msgspec.Raw:
        self._last_call += 1
        call = self._last_call
        answer: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        self._calls[call] = answer
        self._session.call(_now(), call, action, given)
        self._perform()
        try:
            return await answer
        finally:
            self._calls.pop(call, None)
            self._session.cancel(call)
            self._perform()

    # Doing what the session decides

    def _perform(self) -> None:
        while actions := self._session.take():
            for action in actions:
                self._do(action)

    def _do(self, action: Action) -> None:
        match action:
            case Deliver(entry=entry):
                for reader in list(self._readers):
                    reader.offer(entry)
            case SendFrame(frame=frame) if self._connection is not None:
                self._connection.send(encode_frame(frame))
            case SetTimer(name=name, ms=ms):
                self._cancel_timer(name)
                self._timers[name] = asyncio.get_running_loop().call_later(ms / 1000, self._ring, name)
            case CancelTimer(name=name):
                self._cancel_timer(name)
            case DeliverSignal(signal=signal):
                for listener in list(self._signal_readers):
                    listener.offer(signal)
            case ResetRoom(room=room):
                for reader in list(self._readers):
                    reader.restart(room)
                self.lost(room)
            case Resolve(call=call, result=result):
                self._settle(call, result)
            case Reject():
                self._settle(action.call, _failure(action))
            case GetToken():
                self._asking.add(self._own(self._get_token()))
            case Connect(token=token):
                self._connection = Connection(self, self._url, token)
                self._own(self._connection.run())
            case Disconnect():
                self._drop()
            case StateChanged():
                self._become(action)
            case RoomsChanged():
                for reader in list(self._readers):
                    reader.anchor()
            case _:
                pass  # a frame without a connection

    def _settle(self, call: int, outcome: msgspec.Raw | HubbubError) -> None:
        answer = self._calls.pop(call, None)
        if answer is None or answer.done():
            return
        if isinstance(outcome, HubbubError):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    def _become(self, state: StateChanged) -> None:
        self._state = state
        self._changed.set()
        if state.state != "closed":
            return
        for name in list(self._timers):
            self._cancel_timer(name)
        streams: list[Stream[Any]] = [*self._readers, *self._signal_readers]  # Any: of entries or of signals
        for stream in streams:
            stream.end(self._ended())

    def _ended(self) -> Disconnected | None:
        """Why the client has stopped; None if it has not, or was asked to."""
        if self._state.state != "closed" or not isinstance(self._state.code, int):
            return None
        by_application = self._state.code == 1000 and self._state.reason == "closed by the application"
        return None if by_application else Disconnected(self._state.code, str(self._state.reason or ""))

    def _ring(self, name: str) -> None:
        self._timers.pop(name, None)
        self._session.timer(_now(), name)
        self._perform()

    def _cancel_timer(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _own(self, work: Any) -> asyncio.Task[None]:  # Any: a coroutine, whose other type arguments say nothing
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # A defect in here: stop, rather than hang with nobody at the socket, and let the loop's handler show it.
            self._session.close(_now(), 1011, f"The client failed: {task.exception()!r}")
            self._perform()
            context = {"message": "The chat client failed", "exception": task.exception()}
            task.get_loop().call_exception_handler(context)

    async def _get_token(self) -> None:
        try:
            token = self._token if isinstance(self._token, str) else self._token()
            if inspect.isawaitable(token):
                token = await token
            if not isinstance(token, str) or not _TOKEN.fullmatch(token):
                raise TypeError("What was given as a token is none.")
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._session.token_failed(_now(), f"{type(error).__name__} in the function that gets tokens")
        except Exception as error:  # the application's function: whatever it raises, there is no token now
            self._session.token_failed(_now(), f"{type(error).__name__}: {error}")
        else:
            self._session.token(_now(), token)
        self._perform()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.give_up()

    def opened(self, connection: Connection) -> None:
        """A connection stands."""
        if connection is self._connection:
            self._session.opened(_now())
            self._perform()

    def received(self, connection: Connection, text: str | bytes) -> None:
        """A frame came."""
        if connection is self._connection:
            self._session.frame(_now(), text)
            self._perform()

    def closed(
        self, connection: Connection, code: int, reason: str, status: int | None, retry_after_ms: int | None
    ) -> None:
        """A connection ended, or did not come to be."""
        if connection is self._connection:
            self._connection = None
            self._session.closed(_now(), code, reason, status, retry_after_ms)
            self._perform()


def _failure(rejected: Reject) -> HubbubError:
    after = rejected.retry_after_ms if isinstance(rejected.retry_after_ms, int) else None
    closed = rejected.close_code if isinstance(rejected.close_code, int) else None
    return failure(rejected.code, rejected.message, after, closed)


def _unreadable(error: msgspec.DecodeError) -> Internal:
    return Internal(f"The server's answer cannot be read: {error}")


def _ms(seconds: float) -> int:
    return round(min(seconds, _LONGEST_S) * 1000)


def _now() -> int:
    return int(time.monotonic() * 1000)
