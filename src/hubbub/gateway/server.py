"""The gateway: takes requests for a WebSocket and messages, finds their API and route, and calls what is behind it.

uvicorn accepts and speaks HTTP; the handshake is answered only after all of `hubbub.gateway.admission` have agreed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol

import uvicorn

from hubbub.apigateway import (
    DISCONNECT,
    Api,
    Response,
    bad_body_document,
    forbidden_document,
    new_id,
    request_time,
    select_route,
    too_many_requests_document,
)
from hubbub.gateway.admission import TOO_MANY, Admission, full
from hubbub.gateway.connection import ABNORMAL, SERVICE_RESTART, Message, Rules
from hubbub.gateway.deflate import BadExtensions, agree, longest_payload
from hubbub.gateway.door import Door, plain_request
from hubbub.gateway.handshake import (
    Headers,
    Proxies,
    Refusal,
    Request,
    headers_for_functions,
    http_response,
    is_same_origin,
    said,
    what_is_wrong,
)
from hubbub.gateway.http import Farewell, RequestHead
from hubbub.gateway.hub import Hub
from hubbub.gateway.intake import Intake, new_intake
from hubbub.gateway.integrations import InProcess
from hubbub.gateway.integrations.calls import log_failure
from hubbub.gateway.management import Management
from hubbub.gateway.queueing import Rush, Turns, unaccepted
from hubbub.gateway.quotas import Account, GatewayLimits, never_or
from hubbub.gateway.sites import Sites
from hubbub.gateway.sockets import READ_BUFFER_BYTES, Connection, Upgrade, Words
from hubbub.sigv4 import Keys

logger = logging.getLogger("hubbub.gateway")

FINISH_WITHIN_S = 10.0
"""How long a drain waits for functions that are under way."""

DECIDED_OF = 4
"""Under pressure one of so many handshakes is decided all the same, or those who come again would keep out each other.

A refusal costs a sixth of what a decision costs: two thirds of the time are left for decisions, and the queue is worked
off more than twice as fast.
"""

DECIDED_OF_MANY = 16
"""Of so many one is, as long as the kernel's queue is nearly full: it drops who comes then."""

TOLD_A_TURN, TOLD_A_TURN_IN_A_RUSH = 32, 4
"""Of so many who are gone `$disconnect` is told in a turn of the loop: thousands go at once, and others come again."""

PING_EARLY = 0.2
"""By what part of `ping_after_s` a connection may be pinged sooner, so that those who came together are spread."""

TURNED_AWAY_SAID = 20
"""How many connections that are closed at once are logged in a minute; anybody can open as many as he likes."""

SWEEP_EVERY_S = 1.0
"""How often it is looked for who is silent, idle or too slow; a hub expects it about once a second of its clock."""

ANSWER_CLOSE_WITHIN_S = 2.0
"""How long a drain waits for clients to answer CLOSE."""


class Slow(Protocol):
    """Who may be too slow."""

    def too_slow(self) -> None:
        """It was."""
        ...


class Gateway:
    """Serves WebSocket APIs.

    Args:
        apis: one API, found at `path`; or several at their addresses.
        hub: where its live connections are.
        limits: what holds for them.
        path: where clients connect to the one API.
        allowed_origins: pages that may connect; None for those of this server's own host, `*` among them for all.
        forwarded_allow_ips: proxies whose `X-Forwarded-For` is believed: addresses or networks.
        proxy_protocol: whether each connection comes from one of these proxies and begins with a header of the PROXY
            protocol; all others are closed.
        listeners: the sockets that it is served on: who waits there to be accepted counts as a handshake.
        keys: whose signatures are believed, at `@connections`, `@groups` and signed handshakes; None leaves them out.
        account: the buckets that it shares with other gateways; its own by default.

    Attributes:
        read_buffer: what its transports read into, one after the other. It is no other gateway's: a loop in another
            thread reads at the same time.
        intake: reads its connections past their transports, once there are any; None where that cannot be.
        words: what its connections keep of what clients say of themselves.
        new_door: makes the protocol of a plain connection that nothing has come on; None before there was one.

    """

    def __init__(
        self,
        apis: Api | Sites,
        *,
        hub: Hub,
        limits: GatewayLimits | None = None,
        path: str = "/ws",
        allowed_origins: Sequence[str] | None = None,
        forwarded_allow_ips: str = "127.0.0.1",
        proxy_protocol: bool = False,
        listeners: Sequence[socket.socket] = (),
        keys: Keys | None = None,
        account: Account | None = None,
    ) -> None:
        self.sites = apis if isinstance(apis, Sites) else Sites({path: apis})
        self.hub = hub
        self.limits = limits or GatewayLimits()
        self.account = account or Account(self.limits)
        self.draining = False
        self.proxy_protocol = proxy_protocol
        self.read_buffer = memoryview(bytearray(READ_BUFFER_BYTES))
        self.intake: Intake | None = None
        self.words = Words()
        whole, frame = self.limits.max_message_bytes, self.limits.max_frame_bytes
        longest_of_one = whole if self.limits.deflate_min_bytes is None else longest_payload(whole)
        self.max_frame_bytes = longest_of_one if frame is None else min(frame, longest_of_one)
        longest = f"a frame has at most {frame} bytes, and " if frame is not None else ""
        self.too_big = f"{longest}a message has at most {whole} bytes"  # what a client is told whose frame is
        hub.configure(
            Rules(
                max_message_bytes=whole,
                accept_binary=self.limits.accept_binary,
                ping_after_s=never_or(self.limits.ping_after_s),
                ping_early_s=PING_EARLY * (self.limits.ping_after_s or 0.0),
                pong_within_s=self.limits.pong_within_s,
                pings_are_activity=self.limits.pings_are_activity,
                idle_s=self.limits.idle_s,
                lifetime_s=self.limits.lifetime_s,
                deflate_min_bytes=self.limits.deflate_min_bytes,
            ),
            self.limits.outbox_bytes,
        )
        self.management: Management | None = None
        if keys is not None:
            self.management = Management(
                hub,
                keys=keys,
                find=lambda host, prefix: self.sites.beside(host, prefix),  # they may be changed
                allow=lambda: self.account.may_ask(hub.now()),
                max_bytes=self.limits.max_post_bytes,
            )
        self._allowed_origins = None if allowed_origins is None else frozenset(allowed_origins)
        self._listeners = listeners
        self._proxies = Proxies(forwarded_allow_ips)
        self._integration = InProcess(self.limits.handler_timeout_s, self._failed)
        self._admission = Admission(
            self._integration, timeout_s=self.limits.handler_timeout_s, keys=keys, failed=self._failed
        )
        self._watched: dict[Slow, float] = {}  # who is to get on with it, and until when
        self._handshakes = 0  # that have not been answered
        self._pressed = 0  # handshakes that came while too many waited
        self._turns = Turns()
        self._rush = Rush(self._listeners, self._sent_away, lambda client: self._own(self._let_in(client)))
        self._left: deque[tuple[Connection, int, str]] = deque()  # who is gone, and `$disconnect` is to be told of
        self.new_door: Callable[[], asyncio.BaseProtocol] | None = None
        self._turned_away = 0  # connections that were closed at once in this minute
        self._minute = 0  # which that is
        self._tasks: set[asyncio.Task[None]] = set()  # handshakes and `$disconnect`s under way
        self._sweeper: asyncio.Task[None] | None = None
        self._looked_at = 0.0  # when it looked around last, in the loop's time
        self._second = (0, "")  # a second and how events write it

    def __repr__(self) -> str:
        return f"<Gateway of {self.sites!r}, {len(self.hub)} connections>"

    def config(self, app: Any, host: str = "127.0.0.1", port: int = 8000, **options: Any) -> uvicorn.Config:
        """What uvicorn needs to serve `app` over HTTP and this gateway over WebSocket on one port.

        Args:
            app: an ASGI application for everything that is no upgrade.
            host, port: where.
            options: more of uvicorn's.

        """
        return uvicorn.Config(
            app,
            host=host,
            port=port,
            **{
                "http": partial(RequestHead if self.proxy_protocol else Door, self),
                "ws": partial(Upgrade, self),
                "loop": "uvloop",
                "lifespan": "off",
                "log_config": None,
                "access_log": False,
                "server_header": False,
                "backlog": 4_096,
                "forwarded_allow_ips": self._proxies.listed,
                **options,
            },
        )

    def redeploy(self, sites: Sites) -> None:
        """Serve other APIs from now on; connections of a stage that is still there go to its new routes."""
        self.sites = sites
        for peer in self.hub.peers():
            connection = peer.context
            connection.api = sites.now(connection.api) or connection.api

    async def drain(self, period_s: float, *, finish_within_s: float = FINISH_WITHIN_S) -> None:
        """Take no more connections, close those there are with 1012 spread over `period_s` seconds, finish.

        Returns when the functions under way have ended and every `$disconnect` has been delivered, or the bounds of
        this module have passed.
        """
        self.draining = True
        peers = self.hub.peers()
        loop = asyncio.get_running_loop()
        started = loop.time()
        for count, peer in enumerate(peers):
            ahead_s = started + period_s * count / len(peers) - loop.time()
            if ahead_s > 0.01:
                await asyncio.sleep(ahead_s)
            self.hub.close(peer.id, SERVICE_RESTART, "Service restart")
        await self._integration.finish(finish_within_s)
        await self._until(lambda: not len(self.hub), ANSWER_CLOSE_WITHIN_S)
        for peer in self.hub.peers():
            peer.wire.drop(abort=True)
        await self._until(lambda: not len(self.hub), 1.0)
        await self._until(lambda: not self._left, finish_within_s)
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=finish_within_s)
        for slow in [slow for slow in self._watched if isinstance(slow, Farewell)]:
            slow.too_slow()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait({self._sweeper})
            self._sweeper = None

    async def _until(self, condition: Callable[[], bool], within_s: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while not condition() and loop.time() < deadline:  # noqa: ASYNC110  many sockets, no one event
            await asyncio.sleep(0.02)

    def _failed(self) -> None:
        self.hub.stats.failures += 1

    # Time

    def awake(self) -> None:
        """Begin to sweep, if that has not begun, and to read."""
        if self._sweeper is None:
            self.intake = self.intake or new_intake(min(self.max_frame_bytes, self.hub.rules.max_message_bytes))
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep(), name="hubbub sweeper")

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            try:
                self._look_around(loop.time())
            except Exception:
                logger.exception("a sweep failed; the next one comes")

    def _look_around(self, now: float) -> None:
        # Whoever was already too slow the last time: since then the loop has read what was here, however long this
        # process was held up before. Without that, uvloop, which looks at its timers first, would end who has asked.
        for slow in [slow for slow, until in self._watched.items() if until <= self._looked_at]:
            slow.too_slow()
        self._looked_at = now
        self._integration.sweep(now)
        self.hub.sweep()

    def watch(self, who: Slow, within_s: float) -> None:
        """Tell it that it is too slow, unless it is unwatched before."""
        self.awake()
        self._watched[who] = asyncio.get_running_loop().time() + within_s

    def watch_instead(self, who: Slow, of: Slow) -> None:
        """Watch `who` for the time that `of` has left, who is not watched any more."""
        self._watched[who] = self._watched.pop(of)

    def unwatch(self, who: Slow) -> None:
        """It was not too slow."""
        self._watched.pop(who, None)

    # Handshakes

    def begin(self, upgrade: Upgrade) -> None:
        """A client asks for a WebSocket: what needs nobody's answer is looked over at once, and costs no task."""
        self.awake()
        try:
            api = self._look_over(upgrade.request)
            if not isinstance(api, Refusal) and self.limits.deflate_min_bytes is not None:
                upgrade.extensions = agree(upgrade.request.values("sec-websocket-extensions"))
        except BadExtensions as bad:
            api = Refusal(400, said(f"{bad}."))
        except Exception:
            logger.exception("a handshake failed")
            api = Refusal(500, said("Internal server error"))
        if isinstance(api, Refusal):
            self._refuse(upgrade, api)
        else:
            self._handshakes += 1
            self._own(self._handshake(upgrade, api))

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handshake(self, upgrade: Upgrade, api: Api) -> None:
        try:
            await self._decide(upgrade, api)
        except Exception:
            logger.exception("a handshake failed")
            self._refuse(upgrade, Refusal(500, said("Internal server error")))

    async def _decide(self, upgrade: Upgrade, api: Api) -> None:
        try:
            connection = Connection(self, upgrade, api, new_id())
            late = partial(self._agreed_late, connection)
            outcome = await self._admission.decide(connection, upgrade.request, self._headers(upgrade), late)
        finally:
            self._handshakes -= 1
        if isinstance(outcome, Refusal):
            self._refuse(upgrade, outcome)
        elif upgrade.gone or self.draining:
            self._refuse(upgrade, full())
            await self._never_was(connection)
        else:
            self._turns.took(self.hub.now())
            try:
                upgrade.switch(connection, outcome)
            except Exception:
                logger.exception("a socket could not be handed over", extra=connection.ids())
                upgrade.transport.abort()
                await self._never_was(connection)

    async def _never_was(self, connection: Connection) -> None:
        """`$connect` has agreed, and then nothing came of it."""
        if self.hub.get(connection.id) is None:
            await self.disconnected(connection, ABNORMAL, "Connection closed abnormally")

    def _agreed_late(self, connection: Connection, response: Response) -> None:
        """`$connect` has answered after it was given up."""
        if 200 <= response.status_code < 300:
            self._own(self._never_was(connection))

    def _look_over(self, request: Request) -> Api | Refusal:
        """The API that is asked for, or what speaks against it without asking anybody."""
        api = self.sites.at(request.value("host") or "", request.path)
        if api is None:
            return Refusal(404, said("There is no WebSocket at this path."))
        longest = self.limits.max_url_bytes
        if longest is not None and len(request.target) > longest:
            return Refusal(414, said(f"A target has at most {longest} bytes."))
        problem = what_is_wrong(request)
        if problem is not None:
            return problem
        if not self._may_come_from(request.value("origin"), request.value("host") or ""):
            return Refusal(403, said("Pages of this origin may not connect."))
        most = self.limits.max_connections
        if self.draining or (most is not None and len(self.hub) + self._handshakes >= most):
            return full()
        if self._is_pressed():
            return self._come_later()
        if not self.account.may_connect(api, self.hub.now()):
            return TOO_MANY
        return api

    def _is_pressed(self) -> bool:
        """Whether so many wait that this one is to be refused, so that they do not wait longer than clients do."""
        at_once = self.limits.max_handshakes
        if at_once is None:
            return False
        queue = unaccepted(self._listeners)
        if self._handshakes + queue.waiting < at_once:
            return False
        self._pressed += 1
        if queue.is_long and self.new_door is not None:
            self._rush.begin()
        decided_of = DECIDED_OF_MANY if queue.is_long else DECIDED_OF
        return self._handshakes >= at_once or self._pressed % decided_of != 0

    def _come_later(self) -> Refusal:
        return full(self._turns.wait_s(self.hub.now()))

    def _sent_away(self, asked: bytes) -> bytes | None:
        """What a client is sent away with who waits to be accepted; None if he does not ask for a WebSocket of ours."""
        found = plain_request(asked, self.limits.max_header_bytes)
        if found is None or self.sites.at(found[0].value("host") or "", found[0].path) is None:
            return None
        refusal = self._come_later()
        self.hub.stats.refused[refusal.status] += 1
        return http_response(refusal)

    async def _let_in(self, client: socket.socket) -> None:
        """Take a client as the server does whom it has accepted."""
        assert self.new_door is not None  # noqa: S101  or there would be no rush
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self.new_door, client)
        except OSError as error:
            client.close()
            logger.debug("a connection ended before it began: %s", error)

    def _headers(self, upgrade: Upgrade) -> Headers:
        return headers_for_functions(
            upgrade.request,
            way=upgrade.way,
            proxied=self._proxies.trust(upgrade.peer),
            secure=upgrade.is_secure,
        )

    def trusts(self, address: str) -> bool:
        """Whether what comes from `address` is a proxy's word."""
        return self._proxies.trust(address)

    def turned_away(self, address: str, why: str) -> None:
        """A connection from `address` is closed at once: say so, unless that was said often just now."""
        minute = int(asyncio.get_running_loop().time() / 60)
        if minute != self._minute:
            if self._turned_away > TURNED_AWAY_SAID:
                logger.warning("%d more connections were closed at once", self._turned_away - TURNED_AWAY_SAID)
            self._minute, self._turned_away = minute, 0
        self._turned_away += 1
        if self._turned_away <= TURNED_AWAY_SAID:
            logger.warning("a connection from %s is closed: %s", address, why)

    def way(self, peer: str, request: Request) -> list[str]:
        """The addresses that a request of `peer` came by; the last is the client's."""
        return self._proxies.way(peer, request.values("x-forwarded-for"))

    def _refuse(self, upgrade: Upgrade, refusal: Refusal) -> None:
        self.hub.stats.refused[refusal.status] += 1
        upgrade.refuse(refusal)

    def _may_come_from(self, origin: str | None, host: str) -> bool:
        """Whether a page of `origin` may connect (RFC 6455, section 10.2); who sends none is no browser."""
        if origin is None:
            return True
        if self._allowed_origins is None:
            return is_same_origin(origin, host)
        return origin in self._allowed_origins or "*" in self._allowed_origins

    # Messages

    def message(self, connection: Connection, message: Message) -> None:
        """A whole message came."""
        self.hub.stats.messages_in += 1
        api, now = connection.api, self.hub.now()
        key = select_route(api, message.body)
        if key is None or not self.account.may_call(api, key, now):
            self._not_called(connection, key, message)
            return
        route = api.routes[key]
        if route.accepts is not None and not route.accepts(message.body):
            self._not_called(connection, key, message, is_bad=True)
            return
        connection.begins()
        if route.shortcut is not None and not message.is_base64:
            answer, done = connection.answer, connection.ends
            if self._integration.shorten(route, connection.id, message.body, answer, done, now):
                return
        self._integration.start(route, connection.event("MESSAGE", key, message), connection.answer, connection.ends)

    def _not_called(self, connection: Connection, key: str | None, message: Message, *, is_bad: bool = False) -> None:
        """Tell a client that its message reaches no function, and why."""
        context = connection.event("MESSAGE", key or "", message).request_context
        if is_bad:
            assert context.message_id is not None  # noqa: S101  a message's event has one
            document = bad_body_document(context.connection_id, context.message_id)
        elif key is None:
            document = forbidden_document(context.connection_id, context.request_id)
        else:
            document = too_many_requests_document(context.connection_id, context.request_id)
        self.hub.send_to(connection.peer, document)

    async def disconnected(self, connection: Connection, code: int, reason: str) -> None:
        """Tell `$disconnect`."""
        route = connection.api.routes.get(DISCONNECT)
        if route is None:
            return
        event = connection.event("DISCONNECT", DISCONNECT)
        event.request_context.disconnect_status_code = code
        event.request_context.disconnect_reason = reason
        event.headers = {"Host": connection.host, "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""}
        event.multi_value_headers = {name: [value] for name, value in event.headers.items()}
        try:
            await self._integration.call(route.handler, event, timeout_s=route.timeout_s)
        except Exception as error:
            self._failed()
            log_failure("$disconnect failed", error, connection.ids())

    def gone(self, connection: Connection) -> None:
        """A connection's socket is gone. Of one that could not be handed over `$disconnect` has heard already."""
        peer = self.hub.get(connection.id)
        if peer is None:
            return
        code, reason = self.hub.remove(peer)
        self._left.append((connection, code, reason))
        if len(self._left) == 1:
            asyncio.get_running_loop().call_soon(self._tell_left)

    def _tell_left(self) -> None:
        """Tell `$disconnect` of some who are gone, and of others in the next turn."""
        for _ in range(min(len(self._left), TOLD_A_TURN_IN_A_RUSH if self._rush.goes_on else TOLD_A_TURN)):
            self._own(self.disconnected(*self._left.popleft()))
        if self._left:
            asyncio.get_running_loop().call_soon(self._tell_left)

    def time_of(self, epoch_s: float) -> str:
        """`epoch_s` as events write it; written once a second."""
        second = int(epoch_s)
        if self._second[0] != second:
            self._second = (second, request_time(second))
        return self._second[1]
