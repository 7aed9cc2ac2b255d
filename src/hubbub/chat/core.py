"""`Chat`: takes API Gateway's events, finds who asks and what, runs hooks and the action, and answers.

It is also the public object on which users register their own actions and hooks. Everything it needs from the world
comes in through `bind`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection
from contextvars import ContextVar
from functools import partial
from typing import Any

import msgspec

from hubbub.apigateway import (
    CONNECT,
    DEFAULT,
    DISCONNECT,
    Api,
    AuthorizerContext,
    Event,
    RequestContext,
    Response,
    Route,
)
from hubbub.apigateway import Refused as HandshakeRefused
from hubbub.apigateway import Unauthorized as HandshakeUnauthorized
from hubbub.chat.access import Access
from hubbub.chat.caller import Caller
from hubbub.chat.heads import HeadBoard
from hubbub.chat.presence import PresenceBoard
from hubbub.chat.registry import BUILT_IN, Registry
from hubbub.chat.shortcut import SEND, Held, Shortcut
from hubbub.chat.throttle import Throttle
from hubbub.clock import Clock
from hubbub.errors import (
    BadRequest,
    Forbidden,
    HubbubError,
    Internal,
    NotFound,
    RateLimited,
    TokenExpired,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnknownAction,
)
from hubbub.model import (
    MAX_PAGE,
    SYSTEM,
    ConnectionId,
    Entry,
    Principal,
    Room,
    RoomId,
    RoomKind,
    RoomState,
    RoomUpdated,
    User,
    UserId,
    new_ulid,
    type_of,
)
from hubbub.parallel import FEW_AT_ONCE, every
from hubbub.ports import Directory, Fanout, ReadyFanout, ReadyStore, Store, TokenVerifier
from hubbub.protocol import (
    CLOSE_REMOVED,
    CLOSE_TOKEN_EXPIRED,
    SUBPROTOCOL,
    Ask,
    Notice,
    Result,
    RoomSignal,
    Signal,
    decode_ask,
    decode_envelope,
    encode,
    error_reply,
    find_token,
    with_ref,
)

logger = logging.getLogger("hubbub.chat")

SEQ_DIGITS = 16
"""How much longer than before an entry's frame may become when it gets its seq."""

MAX_HOOKS = 10_000
"""How many hooks after entries may be under way; further ones are left out, and counted as failed."""

MAX_HOOK_DEPTH = 10
"""How long a chain of hooks may be in which each writes the entry that the next one hears of."""

TURNS = 5
"""How often who comes and goes again and again is looked after by one of those who made him."""

BEGINNING_TO_LISTEN = frozenset({"sync", "subscribe", "join", "create"})
"""Actions before which the store is asked afresh whether the caller is welcome.

A ban closes the connections that there are, and misses one that is just coming in. What was true a moment ago is enough
for one message, but not for all that he would hear from then on.
"""

PING_WAITS_S = 2.0
"""How long a `ping` waits for the store. It asks whether anybody is there, and somebody is: a client without an answer
leaves a connection that would work again with the store, and all clients of all nodes would come back at once.
"""

_depth: ContextVar[int] = ContextVar("hubbub hook depth", default=0)
_answering: ContextVar[RequestContext | None] = ContextVar("hubbub event", default=None)
"""The event that is being answered, also in hooks that it set off: what the log names in each of their lines."""


_held: ContextVar[Held | None] = ContextVar("hubbub message", default=None)
"""What the message of the event that is being answered holds up until the store is given it; None for nothing."""

_SHORTENED = ("handle", "perform", "write", "admit", "refusal", "is_welcome", "_message", "_perform", "_caller")
"""What the short way of a message stands for: where a subclass has its own, there is none."""


class ChatLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a client may make grow, and the delays of presence.

    Attributes:
        max_text_chars: characters in a message's text.
        rate, burst: actions per second of one connection, and how many at once; rate 0 for no limit.
        user_rate, user_burst: the same for all connections of one user.
        presence_grace_s: how long a user may be away before others are told.
        crowd: above how many listeners typing and presence are merged.
        max_reply_bytes: about how many bytes of entries one reply carries; the rest is asked for again.
        sync_entries: how many missed entries one `sync` returns at most.
        max_entry_bytes: how long an entry's frame may be; None where the gateway's limit on messages is enough.
        crowded_every_s, typing_every_s: how often a crowd is told how many are online, and that somebody types; None
            for never.
        token_notice_s: how long before its token runs out a connection is told, at least.
        heartbeat_ms: after how long a silence clients are to ask whether the connection stands, where it costs much
            that they ask more often; None for as they like.

    """

    max_text_chars: int = 8_000
    rate: float = 50.0
    burst: int = 100
    user_rate: float = 50.0
    user_burst: int = 100
    presence_grace_s: float = 5.0
    crowd: int = 200
    max_reply_bytes: int = 256 * 1024
    sync_entries: int = 1_000
    max_entry_bytes: int | None = None
    crowded_every_s: float | None = 5.0
    typing_every_s: float | None = 2.0
    token_notice_s: int = 60
    heartbeat_ms: int | None = None


class ChatStats:
    """Plain counters, read by whoever shows metrics.

    Attributes:
        actions: answered with success, by action.
        errors: answered with an error, by code.
        entries: written, by entry type.
        hook_failures: hooks after an entry that raised, or were left out.

    """

    def __init__(self) -> None:
        self.actions: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.entries: Counter[str] = Counter()
        self.hook_failures = 0


class _Unbound:
    """What `Chat.bind` gives, as long as it has not: whoever asks for it is told why it is not there.

    A chat's own attributes are found before it, so that looking them up costs what it costs anywhere.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, chat: Chat | None, owner: type[Chat]) -> Any:  # Any: of a chat it never returns
        if chat is None:
            return self
        raise RuntimeError(f"this Chat is not running yet, so it has no {self._name}: run it with `hubbub serve`")


class Chat(Registry):
    """A chat: the built-in actions, and those its user adds.

    Example:
        chat = Chat()

        @chat.before("send")
        async def be_polite(chat, by, ask):
            if "damn" in (ask.text or ""):
                raise Forbidden("Mind your words.")

    """

    store: Store
    fanout: Fanout
    directory: Directory
    clock: Clock
    limits: ChatLimits
    tokens: TokenVerifier
    access: Access
    presence: PresenceBoard
    heads: HeadBoard
    shortcut: Shortcut | None

    def __init__(self) -> None:
        super().__init__()
        self.actions.update(BUILT_IN.actions)
        self.stats = ChatStats()
        self._tasks: set[asyncio.Task[None]] = set()

    def bind(
        self,
        *,
        store: Store,
        fanout: Fanout,
        directory: Directory,
        tokens: TokenVerifier,
        clock: Clock,
        limits: ChatLimits | None = None,
    ) -> None:
        """Give the chat what it works with; done once, by whoever assembles the process."""
        self.store = store
        self.fanout = fanout
        self.directory = directory
        self.tokens = tokens
        self.clock = clock
        self.limits = limits or ChatLimits()
        self.access = Access(store, clock)
        self.presence = PresenceBoard(
            fanout=fanout,
            directory=directory,
            clock=clock,
            grace_s=self.limits.presence_grace_s,
            crowd=self.limits.crowd,
            crowded_every_s=self.limits.crowded_every_s,
            typing_every_s=self.limits.typing_every_s,
        )
        self.heads = HeadBoard(store=store, fanout=fanout, directory=directory, clock=clock)
        self._connections = Throttle(self.limits.rate, self.limits.burst)
        self._users = Throttle(self.limits.user_rate, self.limits.user_burst)
        self.shortcut = None
        if isinstance(store, ReadyStore) and isinstance(fanout, ReadyFanout) and not self._is_changed():
            self.shortcut = Shortcut(self, store, fanout)

    def _is_changed(self) -> bool:
        """Whether a subclass does otherwise what the short way does as well."""
        return any(getattr(type(self), name) is not getattr(Chat, name) for name in _SHORTENED)

    def api(self) -> Api:
        """The WebSocket API that a gateway serves for this chat; see `bind`."""
        route = Route(self.handle, two_way=True)
        shortcut = vars(self).get("shortcut")
        message = Route(self.handle, two_way=True, shortcut=shortcut.take if shortcut else None)
        return Api(routes={CONNECT: route, DISCONNECT: route, DEFAULT: message}, authorizer=self.authorize)

    async def run(self) -> None:
        """Do what time brings, until cancelled: tell of presence, of tokens that run out, and of where logs end."""
        while True:
            await self.clock.sleep(1.0)
            try:
                await self.tick()
            except HubbubError as error:
                logger.warning("background work was not possible just now: %s", error)

    async def tick(self) -> None:
        """One second's background work; where a part of it fails the others are done all the same.

        Raises:
            Unavailable: a part was not possible just now, for instance.

        """
        parts = (self.presence.flush, self._see_to_tokens, self.heads.flush)
        failed: Exception | None = None
        for part in parts:
            try:
                await part()
            except Exception as failure:  # whatever it is, it is raised in the end
                failed = failed or failure
        if failed is not None:
            raise failed

    async def _see_to_tokens(self) -> None:
        """Close the connections whose tokens have run out, and warn those whose tokens soon will."""
        ending, ended = await self.directory.lapsing(self.clock.now_ms() // 1_000, self.limits.token_notice_s)

        async def see_to(told: tuple[ConnectionId, bool]) -> None:
            connection, has_ended = told
            if has_ended:
                await self.fanout.close(connection, CLOSE_TOKEN_EXPIRED, "token expired")
            else:
                await self._warn(connection)

        lapsing = [*((each, True) for each in ended), *((each, False) for each in ending)]
        await every(see_to, lapsing, at_once=FEW_AT_ONCE)

    async def _warn(self, connection: ConnectionId) -> None:
        principal = await self.directory.principal(connection)
        if principal is not None:
            words = "Your token expires soon: send `auth` with a newer one."
            left_ms = max(0, principal.expires_at * 1_000 - self.clock.now_ms())
            await self.fanout.send(connection, encode(Notice(code="token_expires", message=words, in_ms=left_ms)))

    async def aclose(self, within_s: float = 10.0) -> None:
        """Wait for the hooks that are under way, and cancel those that take longer than `within_s` seconds."""
        await self._finish_hooks(within_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settle(self, within_s: float = 10.0) -> None:
        """Finish what an event has set off within `within_s` seconds: tell who came and went, and wait for hooks.

        For a process that may be halted after every event, and in which `run` therefore does not; hooks that take
        longer go on when it does, and presence that takes longer is not told.
        """
        deadline = asyncio.get_running_loop().time() + within_s
        try:
            async with asyncio.timeout_at(deadline):
                await self.presence.flush()
        except (HubbubError, TimeoutError) as error:
            logger.warning("cannot tell of presence just now: %s", str(error) or "it takes too long", extra=_ids())
        await self._finish_hooks(deadline - asyncio.get_running_loop().time())

    async def _finish_hooks(self, within_s: float) -> None:
        deadline = asyncio.get_running_loop().time() + within_s
        while self._tasks and (left_s := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._tasks, timeout=left_s)

    # Events

    async def authorize(self, event: Event) -> AuthorizerContext:
        """The REQUEST authorizer: verify the handshake's token.

        Raises:
            hubbub.apigateway.Unauthorized: with a body that says what is wrong with it.
            hubbub.apigateway.Refused: with 503, when that cannot be told just now.

        """
        token = find_token(_headers(event, _CREDENTIALS), event.query_string_parameters or {})
        try:
            if token is None:
                raise Unauthorized("There is no token in Sec-WebSocket-Protocol, Authorization or ?token=.")
            principal = await self.tokens.verify(token)
        except (Unauthorized, TokenExpired) as error:
            self.stats.errors[error.code] += 1
            raise HandshakeUnauthorized(encode(error_reply(error))) from error
        except Unavailable as error:
            self.stats.errors[error.code] += 1
            raise HandshakeRefused(error.status, encode(error_reply(error))) from error
        return {"principalId": principal.user, "principal": encode(principal).decode()}

    async def handle(self, event: Event) -> Response:
        """Answer one event: the function behind every route."""
        context = event.request_context
        _answering.set(context)
        if context.event_type == "MESSAGE":
            return await self._message(event, context)
        if context.event_type == "CONNECT":
            return await self._connect(event, context)
        connection = ConnectionId(context.connection_id)
        self._connections.forget(connection)
        await self.directory.disconnect_connection(connection)
        return Response()

    async def _message(self, event: Event, context: RequestContext) -> Response:
        if self.shortcut is None:
            return await self._answer(event, context)
        # Whatever it turns out to be: it is a message that the store may be given.
        held = Held(self.shortcut.waiting, context.connection_id)
        before = _held.set(held)
        try:
            return await self._answer(event, context)
        finally:
            held.release()
            _held.reset(before)

    async def _answer(self, event: Event, context: RequestContext) -> Response:
        ref: str | None = None
        name = "?"
        try:
            try:
                if event.is_base64_encoded is True:
                    raise BadRequest("Expected a text frame, got a binary one.")
                body = event.body or ""
                envelope = decode_envelope(body)
                ref, name = envelope.ref, envelope.action
                if name != SEND:
                    _hand_over()
            finally:  # rubbish counts like anything else
                caller = await self._caller(context, name)
                now = self.clock.monotonic()
                self._connections.take(context.connection_id, now)
                self._users.take(caller.user, now)
            action = self.actions.get(name)
            if action is None:
                raise UnknownAction(f"There is no action {name[:64]!r}.")
            result = await self._perform(name, decode_ask(action.decoder, body), caller)
            answer = None if ref is None else with_ref(result, ref)
        except HubbubError as error:
            return Response(body=self.refusal(error, ref, name, _ids()))
        except Exception as error:
            logger.exception("action %s failed", self._shown(name), extra=_ids())
            return Response(body=self.refusal(error, ref, name, _ids()))
        self.stats.actions[name] += 1
        return Response(body=answer)

    def refusal(self, error: Exception, ref: str | None, name: str, ids: dict[str, str]) -> bytes:
        """What a client is told of `error` in the action `name`; it is counted and logged. `ids` are the event's."""
        told = error if isinstance(error, HubbubError) else Internal()
        self.stats.errors[told.code] += 1
        # Who sends too fast must not fill the log as fast; the counter has him.
        level = logging.DEBUG if isinstance(told, RateLimited) else logging.INFO
        logger.log(level, "%s refused: %s", self._shown(name), told.code, extra=ids)
        return encode(error_reply(told, ref, ids.get("request_id") if isinstance(told, Internal) else None))

    def _shown(self, name: str) -> str:
        """An action's name for the log, which has no words of a client's own."""
        return name if name in self.actions else "an unknown action"

    async def _connect(self, event: Event, context: RequestContext) -> Response:
        try:
            principal = _from_authorizer(context)
            await self.admit(principal)
            await self.directory.connect(ConnectionId(context.connection_id), principal)
        except HubbubError as error:
            self.stats.errors[error.code] += 1
            return Response(status_code=error.status, body=encode(error_reply(error)))
        offered = _headers(event, _OFFERED).get("sec-websocket-protocol", "")
        if SUBPROTOCOL in [part.strip() for part in offered.split(",")]:
            return Response(headers={"Sec-WebSocket-Protocol": SUBPROTOCOL})
        return Response()

    async def _caller(self, context: RequestContext, action: str) -> Caller:
        connection = ConnectionId(context.connection_id)
        principal = await self.directory.principal(connection) or _from_authorizer(context)
        if principal.expires_at <= self.clock.now_ms() // 1_000:
            raise TokenExpired
        known = await self._known(principal.user, action)
        try:
            self._require_welcome(principal, known)
        except HubbubError as error:  # its closing went amiss: it was just coming in
            code = CLOSE_REMOVED if isinstance(error, Forbidden) else CLOSE_TOKEN_EXPIRED
            await self.fanout.close(connection, code, error.message)
            raise
        return Caller(principal, connection, context.request_id)

    async def _known(self, user: UserId, action: str) -> User | None:
        if action != "ping":
            return await self.store.user(user, recent=action not in BEGINNING_TO_LISTEN)
        try:
            async with asyncio.timeout(PING_WAITS_S):
                return await self.store.user(user, recent=True)
        except (TimeoutError, Unavailable):
            return None

    async def admit(self, principal: Principal) -> None:
        """Let the principal in, and remember his name and avatar if they are new.

        Raises:
            Forbidden: he is banned.
            Unauthorized: his token was revoked.
            Unavailable: the store does not answer.

        """
        known = await self.store.user(principal.user)
        self._require_welcome(principal, known)
        before = (known.name, known.avatar) if known else (None, None)
        if before != (principal.name, principal.avatar) and not principal.is_server:
            try:
                known = await self.store.change_user(principal.user, name=principal.name, avatar=principal.avatar)
            except Unavailable as error:  # the name can wait, the user need not
                logger.warning("cannot remember the name of a user: %s", error, extra=_ids())
            else:
                self._require_welcome(principal, known)  # he may have been banned meanwhile

    def is_welcome(self, principal: Principal, known: User | None) -> bool:
        """Whether the principal, of whom the store remembers `known`, may be here."""
        if known is None and principal.user != SYSTEM:
            return True
        try:
            self._require_welcome(principal, known)
        except HubbubError:
            return False
        return True

    def take_tokens(self, connection: ConnectionId, user: UserId, now: float) -> bool:
        """Count an action on the connection, and of the user, at the monotonic time `now`; False where it is too much.

        Then it is not counted.
        """
        if not self._connections.try_take(connection, now):
            return False
        if not self._users.try_take(user, now):
            self._connections.give_back(connection)
            return False
        return True

    def give_tokens_back(self, connection: ConnectionId, user: UserId) -> None:
        """What was counted did not happen."""
        self._connections.give_back(connection)
        self._users.give_back(user)

    def _require_welcome(self, principal: Principal, known: User | None) -> None:
        """Refuse those who are banned, tokens that were revoked, and who would be taken for the chat itself."""
        if principal.user == SYSTEM and not principal.is_server:
            raise Forbidden(f"The user id {SYSTEM!r} is the chat's own.")
        if known is None:
            return
        if known.banned_until > self.clock.now_ms() // 1_000:
            raise Forbidden("You are banned.")
        if principal.issued_at <= known.revoked_before and known.revoked_before:
            raise Unauthorized("This token has been revoked; get a new one.")

    # Actions

    async def perform(self, action: str, ask: Ask, by: Principal, connection: ConnectionId | None = None) -> Result:
        """Run an action with its hooks and checks, as a client's frame would.

        Args:
            action: its name.
            ask: its fields.
            by: who asks; with the scope `server` everything is allowed.
            connection: on which connection, for the actions that concern one.

        Raises:
            HubbubError: what the client would have been told.

        """
        result = await self._perform(action, ask, Caller(by, connection))
        self.stats.actions[action] += 1
        return result

    async def _perform(self, name: str, ask: Any, by: Caller) -> Result:  # Any: each action has its own Ask
        action = self.actions.get(name)
        if action is None:
            raise UnknownAction(f"There is no action {name[:64]!r}.")
        for hook in self.befores.get(name, ()):
            changed = await hook(self, by, ask)
            if changed is not None and not isinstance(changed, action.ask):
                got = type(changed).__name__
                raise TypeError(f"before({name!r}): {hook!r} returned a {got}, expected {action.ask.__name__} or None")
            if changed is not None:
                ask = changed
        result = await action.function(self, by, ask)
        if not isinstance(result, Result):
            got = type(result).__name__
            raise TypeError(f"action({name!r}): {action.function!r} returned a {got}, expected a hubbub.Result")
        return result

    async def write(self, entry: Entry) -> Entry:
        """Store an entry, hand it to the room's listeners and to the hooks; returns it with its `seq`.

        `id` and `at` are filled in. A `seq` of 0 in what returns means that there was nothing to write.

        Raises:
            NotFound, Conflict, Unavailable: see `hubbub.ports.Store.append`.
            TooLarge: its frame would be longer than the limit on entries.

        """
        entry.at = self.clock.now_ms()
        entry.id = new_ulid(entry.at)
        self._require_fitting(entry)
        began = self.clock.monotonic()
        await self.heads.writing(entry.room)
        _hand_over()
        stored = await self.store.append(entry)
        if stored.seq == 0:
            return stored
        try:
            await self.heads.written(stored.room, began)
        except HubbubError as error:  # it matters only if what comes next fails as well
            logger.warning("room %s is not looked after just now: %s", stored.room, error, extra=_ids())
        try:
            await self.fanout.publish(stored.room, stored.seq, encode(stored))
        except HubbubError as error:  # it is stored, and will be missed
            logger.warning("cannot hand out room %s seq %d just now: %s", stored.room, stored.seq, error, extra=_ids())
        if stored.id == entry.id:  # else it is the first result of the same client_id, and was handed out then
            kind = type_of(stored)
            self.stats.entries[kind] += 1
            for hook in self.listeners.get(kind, ()):
                self._spawn(hook, stored)
        return stored

    def _require_fitting(self, entry: Entry) -> None:
        most = self.limits.max_entry_bytes
        if most is None:
            return
        size = len(encode(entry)) + SEQ_DIGITS
        if size > most:
            raise TooLarge(f"An entry has at most {most} bytes, this one {size}.")

    async def signal(self, room: RoomId, signal: Signal, *, exclude: ConnectionId | None = None) -> None:
        """Tell the room's listeners something that is not stored and may be lost."""
        await self.fanout.signal(room, encode(signal), exclude=exclude)

    def _spawn(self, hook: Any, entry: Entry) -> None:  # Any: a hook takes its own type of entry
        depth = _depth.get() + 1
        if depth > MAX_HOOK_DEPTH or len(self._tasks) >= MAX_HOOKS:
            why = f"they have called each other {MAX_HOOK_DEPTH} times" if depth > MAX_HOOK_DEPTH else "too many run"
            self.stats.hook_failures += 1
            words = "a hook on %s was left out, room %s seq %d: %s"
            logger.error(words, type_of(entry), entry.room, entry.seq, why, extra=_ids())
            return

        async def run() -> None:
            _depth.set(depth)
            try:
                await hook(self, entry)
            except Exception:
                self.stats.hook_failures += 1
                words = "a hook on %s failed, room %s seq %d"
                logger.exception(words, type_of(entry), entry.room, entry.seq, extra=_ids())

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # For the customer's backend

    async def update_room(
        self, room: RoomId, by: UserId = SYSTEM, *, name: str | None = None, kind: RoomKind | None = None
    ) -> Room:
        """Change a room's name or kind.

        Raises:
            NotFound: no such room.
            BadRequest: a direct room's kind cannot change, nor can another become direct.

        """
        known = await self.store.room(room)
        if known is None:
            raise NotFound(f"There is no room {room!r}.")
        if kind not in (None, known.kind) and RoomKind.DIRECT in (kind, known.kind):
            raise BadRequest("A direct room stays direct, and no other room becomes one.")
        await self.write(RoomUpdated(room=room, by=by, room_name=name, kind=kind))
        if kind is RoomKind.PRIVATE:
            await self._shut_out(room)
        return await self.store.room(room) or known

    async def delete_room(self, room: RoomId) -> None:
        """Remove a room with its log; its members, and all who listen to it, are told.

        Asked again after it could not tell everybody, it tells those who still listen that there is no such room.

        Raises:
            NotFound: no such room.
            Unavailable: that could not be done, or not everybody could be told; who has the room is asked before, so
                nothing is done where nobody could be told.

        """
        users = dict.fromkeys([*await self._members(room), *await self._listeners(room)])
        existed = await self.store.delete_room(room)
        try:
            if existed:  # who has begun to listen meanwhile must not hear a room that is made under this id later
                users |= dict.fromkeys(await self._listeners(room))
        finally:
            for user in users if existed else ():
                await self.leave_live(user, room)
        if not existed:
            await self._silence(room)
            raise NotFound(f"There is no room {room!r}.")
        if await self.store.room(room) is not None:  # its new members may have been told before the old ones were
            await every(partial(self.agree, room=room, hears=False), list(users), at_once=FEW_AT_ONCE)

    async def _listeners(self, room: RoomId) -> list[UserId]:
        return [principal.user for _, principal in await self.directory.audience(room)]

    async def _silence(self, room: RoomId) -> None:
        """Let those hear the room no more who listen to it and may not."""
        for connection, principal in await self.directory.audience(room):
            if not await self.access.may_listen(Caller(principal, connection), room):
                await self.expel(connection, room)

    async def _shut_out(self, room: RoomId) -> None:
        """Let nobody listen to a room on who is not in it: it was public until now."""
        audience = await self.directory.audience(room)
        members = set(await self._members(room))  # by the page: there may be 100,000 who listened and few members
        for connection, principal in audience:
            if not (principal.user in members or room in principal.rooms or principal.is_server):
                await self.expel(connection, room)

    async def _members(self, room: RoomId) -> list[UserId]:
        users: list[UserId] = []
        more = True
        while more:
            page, _, more = await self.store.members(room, after=users[-1] if users else "", limit=MAX_PAGE)
            users += [member.user for member in page]
        return users

    async def ban(self, user: UserId, until_s: int) -> None:
        """Refuse the user until `until_s`, epoch seconds; his tokens issued until now stay void after it."""
        await self.store.change_user(user, banned_until=until_s, revoked_before=self.clock.now_ms() // 1_000)
        await self.fanout.disconnect(user, CLOSE_REMOVED, "banned")

    async def unban(self, user: UserId) -> None:
        """Let the user in again, with a token issued after the ban began."""
        if await self.store.user(user) is not None:
            await self.store.change_user(user, banned_until=0)

    async def revoke(self, user: UserId) -> None:
        """Void the user's tokens issued until now and close his connections.

        Tokens tell seconds, so one issued later in this same second is void as well.
        """
        await self.store.change_user(user, revoked_before=self.clock.now_ms() // 1_000)
        await self.fanout.disconnect(user, CLOSE_TOKEN_EXPIRED, "token revoked")

    async def disconnect(self, user: UserId, reason: str = "disconnected by the server") -> None:
        """Close the user's connections; his client does not come back by itself."""
        await self.fanout.disconnect(user, CLOSE_REMOVED, reason)

    # Membership as it is felt live

    async def enter_live(self, user: UserId, state: RoomState) -> None:
        """Let the user's connections hear the room from `state.head` on, and tell them that it is theirs."""
        await self.fanout.follow(user, state.room, state.head)
        await self.fanout.tell(user, encode(RoomSignal(room=state.room, joined=True, state=state)))

    async def expel(self, connection: ConnectionId, room: RoomId) -> None:
        """Let one connection hear the room no more, and tell it so."""
        await self.fanout.unlisten(connection, room)
        await self.fanout.send(connection, encode(RoomSignal(room=room, joined=False)))

    async def leave_live(self, user: UserId, room: RoomId, after: int | None = None) -> None:
        """Let the user's connections hear the room no more, and tell them so.

        `after` is where the log ended when he was no member: who is let in later hears it, whoever is told of it first.
        """
        await self.fanout.unfollow(user, room, after)
        await self.fanout.tell(user, encode(RoomSignal(room=room, joined=False)))

    async def agree(self, user: UserId, room: RoomId, *, hears: bool) -> None:
        """Let the user hear the room if the store says so in the end; `hears` is what the fan-out was told last.

        Two processes that wrote his coming and his going may have told the fan-out in the other order. Each of them
        looks afterwards, so the later one sees what came of both.
        """
        for _ in range(TURNS):
            member = await self.store.member(room, user)
            if hears == (member is not None):
                return
            now = await self.store.room(room)
            member = await self.store.member(room, user)  # not before the head was read, for which this holds
            hears = member is not None
            if member is None or now is None:
                await self.leave_live(user, room, None if now is None else now.head)
            else:
                await self.enter_live(user, RoomState(room, now.kind, now.name, member.role, now.head, now.head, 0))


for _name in Chat.__annotations__:
    setattr(Chat, _name, _Unbound(_name))

_principals = msgspec.json.Decoder(Principal)


def _from_authorizer(context: RequestContext) -> Principal:
    """The principal that `authorize` put into the event."""
    claims = (context.authorizer or {}).get("principal")
    if not isinstance(claims, str):
        raise Unauthorized
    return _principals.decode(claims)


_OFFERED = ("sec-websocket-protocol",)
_CREDENTIALS = (*_OFFERED, "authorization")


def _headers(event: Event, names: Collection[str]) -> dict[str, str]:
    """These of a handshake's headers; one that came in several lines is one list (RFC 9110, section 5.3).

    Args:
        event: of the handshake.
        names: in lower case, as they are in what is returned.

    """
    if event.multi_value_headers is None:
        return {key: value for name, value in (event.headers or {}).items() if (key := name.lower()) in names}
    several = event.multi_value_headers.items()
    return {key: ", ".join(values) for name, values in several if (key := name.lower()) in names}


def _hand_over() -> None:
    """The store has the message of this event, or will not get it: those after it may pass."""
    held = _held.get()
    if held is not None:
        held.release()


def _ids() -> dict[str, str]:
    """For the log: which connection and request this is about; nothing for what no event set off."""
    context = _answering.get()
    return {} if context is None else {"connection_id": context.connection_id, "request_id": context.request_id}
