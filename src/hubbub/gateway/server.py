"""The sockets: uvicorn accepts and speaks HTTP, upgrades are ours until 101, then picows does the framing.

The handshake is answered only after the authorizer and `$connect` have agreed. picows' own server is not used, since
it refuses what Firefox sends and cannot wait; its protocol class is given the socket with a canonical request instead.
That class is private: the pin in pyproject.toml, this module and one test belong together.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import msgspec
import uvicorn
from picows import (
    WSAutoPingStrategy,
    WSFrame,
    WSListener,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # private, and so not in its stubs

from hubbub.apigateway import (
    CONNECT,
    DISCONNECT,
    Api,
    AuthorizerContext,
    Event,
    Identity,
    Refused,
    RequestContext,
    Response,
    checked_context,
    forbidden_document,
    new_id,
    request_time,
    select_route,
)
from hubbub.gateway.connection import (
    ABNORMAL,
    CLOSE,
    NO_STATUS,
    SERVER_ERROR,
    SERVICE_RESTART,
    TOO_BIG,
    Life,
    Message,
    Phase,
    Rules,
)
from hubbub.gateway.handshake import (
    Proxies,
    Refusal,
    Request,
    authorizer_event,
    connect_event,
    fields_for_functions,
    http_response,
    is_same_origin,
    said,
    what_is_wrong,
)
from hubbub.gateway.http import Farewell, RequestHead
from hubbub.gateway.hub import DEFAULT_OUTBOX_BYTES, Hub, Peer, control_frame
from hubbub.gateway.integrations import InProcess

logger = logging.getLogger("hubbub.gateway")

READ_BUFFER_BYTES = 2_048
"""picows' least; it grows with the messages that come."""

RETRY_AFTER_S = 2
"""What is told with 503."""

FINISH_WITHIN_S = 10.0
"""How long a drain waits for functions that are under way."""

ANSWER_CLOSE_WITHIN_S = 2.0
"""How long a drain waits for clients to answer CLOSE."""


class GatewayLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for the connections of a gateway; times in seconds.

    Attributes:
        max_message_bytes: the longest message from a client.
        accept_binary: whether binary messages reach the function in base64; otherwise they close with 1003.
        ping_after_s: after how long a silence a client is pinged.
        pong_within_s: how long it may then stay silent.
        idle_s, lifetime_s: how long a connection may be without messages, and live; None for no limit.
        outbox_bytes: how much may wait for a connection that does not read.
        max_connections: connections at a time; None for no limit.
        max_in_flight: messages of one connection whose functions are under way; beyond it is not read from.
        handler_timeout_s: how long a function may take.
        handshake_timeout_s: how long the head of a request may take to arrive.
        max_header_bytes: how long it may be.

    """

    max_message_bytes: int = 32 * 1024
    accept_binary: bool = False
    ping_after_s: float = 25.0
    pong_within_s: float = 20.0
    idle_s: float | None = None
    lifetime_s: float | None = None
    outbox_bytes: int = DEFAULT_OUTBOX_BYTES
    max_connections: int | None = None
    max_in_flight: int = 64
    handler_timeout_s: float = 29.0
    handshake_timeout_s: float = 10.0
    max_header_bytes: int = 16 * 1024


class Gateway:
    """Serves one WebSocket API.

    Args:
        api: its routes and authorizer.
        hub: where its live connections are.
        limits: what holds for them.
        path: where clients connect.
        allowed_origins: pages that may connect; None for those of this server's own host, `*` among them for all.
        forwarded_allow_ips: proxies whose `X-Forwarded-For` is believed: addresses or networks.

    """

    def __init__(
        self,
        api: Api,
        *,
        hub: Hub,
        limits: GatewayLimits | None = None,
        path: str = "/ws",
        allowed_origins: Sequence[str] | None = None,
        forwarded_allow_ips: str = "127.0.0.1",
    ) -> None:
        self.api = api
        self.hub = hub
        self.limits = limits or GatewayLimits()
        self.path = path
        self.draining = False
        hub.configure(
            Rules(
                max_message_bytes=self.limits.max_message_bytes,
                accept_binary=self.limits.accept_binary,
                ping_after_s=self.limits.ping_after_s,
                pong_within_s=self.limits.pong_within_s,
                idle_s=self.limits.idle_s,
                lifetime_s=self.limits.lifetime_s,
            ),
            self.limits.outbox_bytes,
        )
        self._allowed_origins = None if allowed_origins is None else frozenset(allowed_origins)
        self._proxies = Proxies(forwarded_allow_ips)
        self._integration = InProcess(self.limits.handler_timeout_s, self._failed)
        self._watched: dict[RequestHead | Farewell, float] = {}  # who is to get on with it, and until when
        self._handshakes = 0  # that have not been answered
        self._tasks: set[asyncio.Task[None]] = set()  # handshakes and `$disconnect`s under way
        self._sweeper: asyncio.Task[None] | None = None
        self._second = (0, "")  # a second and how events write it

    def __repr__(self) -> str:
        return f"<Gateway {self.api.id} at {self.path}, {len(self.hub)} connections>"

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
                "http": partial(RequestHead, self),
                "ws": partial(Upgrade, self),
                "loop": "uvloop",
                "lifespan": "off",
                "log_config": None,
                "access_log": False,
                "server_header": False,
                "backlog": 4_096,
                **options,
            },
        )

    async def drain(self, period_s: float) -> None:
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
        await self._integration.finish(FINISH_WITHIN_S)
        await self._until(lambda: not len(self.hub), ANSWER_CLOSE_WITHIN_S)
        for peer in self.hub.peers():
            peer.wire.drop(abort=True)
        await self._until(lambda: not len(self.hub), 1.0)
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=FINISH_WITHIN_S)
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
        """Begin to sweep, if that has not begun."""
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep(), name="hubbub sweeper")

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1.0)
            try:
                self._look_around(loop.time())
            except Exception:
                logger.exception("a sweep failed; the next one comes")

    def _look_around(self, now: float) -> None:
        for slow in [slow for slow, until in self._watched.items() if until <= now]:
            slow.too_slow()
        self._integration.sweep(now)
        self.hub.sweep()

    def watch(self, who: RequestHead | Farewell, within_s: float) -> None:
        """Tell it that it is too slow, unless it is unwatched before."""
        self.awake()
        self._watched[who] = asyncio.get_running_loop().time() + within_s

    def unwatch(self, who: RequestHead | Farewell) -> None:
        """It was not too slow."""
        self._watched.pop(who, None)

    # Handshakes

    def begin(self, upgrade: Upgrade) -> None:
        """A client asks for a WebSocket."""
        self.awake()
        self._own(self._handshake(upgrade))

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handshake(self, upgrade: Upgrade) -> None:
        try:
            await self._decide(upgrade)
        except Exception:
            logger.exception("a handshake failed")
            self._refuse(upgrade, Refusal(500, said("Internal server error")))

    async def _decide(self, upgrade: Upgrade) -> None:
        refusal = self._look_over(upgrade.request)
        if refusal is not None:
            self._refuse(upgrade, refusal)
            return
        connection = _Connection(self, upgrade, new_id())
        self._handshakes += 1
        try:
            outcome = await self._admit(connection, upgrade)
        finally:
            self._handshakes -= 1
        if isinstance(outcome, Refusal):
            self._refuse(upgrade, outcome)
        elif upgrade.gone or self.draining:
            self._refuse(upgrade, _FULL)
            await self._never_was(connection)
        else:
            try:
                upgrade.switch(connection, outcome)
            except Exception:
                logger.exception("a socket could not be handed over", extra=connection.ids())
                upgrade.transport.abort()
                await self._never_was(connection)

    async def _never_was(self, connection: _Connection) -> None:
        """`$connect` has agreed, and then nothing came of it."""
        if self.hub.get(connection.id) is None:
            await self.disconnected(connection, ABNORMAL, "Connection closed abnormally")

    def _agreed_late(self, connection: _Connection, response: Response) -> None:
        """`$connect` has answered after it was given up."""
        if 200 <= response.status_code < 300:
            self._own(self._never_was(connection))

    def _look_over(self, request: Request) -> Refusal | None:
        """What speaks against it without asking anybody; None if nothing does."""
        refusal = what_is_wrong(request, self.path)
        if refusal is not None:
            return refusal
        if not self._may_come_from(request.value("origin"), request.value("host") or ""):
            return Refusal(403, said("Pages of this origin may not connect."))
        full = self.limits.max_connections
        if self.draining or (full is not None and len(self.hub) + self._handshakes >= full):
            return _FULL
        return None

    async def _admit(self, connection: _Connection, upgrade: Upgrade) -> Refusal | str | None:
        """Ask the authorizer and `$connect`; a refusal, or the subprotocol that was chosen if one was."""
        request = upgrade.request
        context = connection.event("CONNECT", CONNECT).request_context
        fields = self._fields(upgrade)
        if self.api.authorizer is not None:
            started = time.perf_counter()
            try:
                async with asyncio.timeout(self.limits.handler_timeout_s):
                    said_of_it = await self.api.authorizer(authorizer_event(context, self.api, request, fields))
                took_ms = round((time.perf_counter() - started) * 1_000)
                connection.authorizer = {**checked_context(said_of_it), "integrationLatency": took_ms}
            except Refused as error:
                return _refusal(error.status, error.body)
            except Exception:
                self._failed()
                logger.exception("the authorizer failed", extra=connection.ids())
                return Refusal(500, said("Internal server error"))
            context = msgspec.structs.replace(context, authorizer=connection.authorizer)
        route = self.api.routes.get(CONNECT)
        if route is None:
            return None
        try:
            event = connect_event(context, self.api, request, fields)
            late = partial(self._agreed_late, connection)
            response = await self._integration.call(route.handler, event, late)
            return _outcome(response, request)
        except Exception:
            self._failed()
            logger.exception("$connect failed", extra=connection.ids())
            return Refusal(502, said("Internal server error"))

    def _fields(self, upgrade: Upgrade) -> list[tuple[str, str]]:
        return fields_for_functions(
            upgrade.request,
            way=self.way(upgrade),
            proxied=self._proxies.trust(upgrade.peer),
            secure=upgrade.transport.get_extra_info("ssl_object") is not None,
        )

    def way(self, upgrade: Upgrade) -> list[str]:
        """The addresses that a request came by; the last is the client's."""
        return self._proxies.way(upgrade.peer, upgrade.request.values("x-forwarded-for"))

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

    def message(self, connection: _Connection, message: Message) -> None:
        """A whole message came."""
        self.hub.stats.messages_in += 1
        key = select_route(self.api, message.body)
        event = connection.event("MESSAGE", key or "", message)
        if key is None:
            context = event.request_context
            self.hub.send_to(connection.peer, forbidden_document(context.connection_id, context.request_id))
            return
        route = self.api.routes[key]
        connection.begins()
        self._integration.start(route.handler, event, connection.answer, route.two_way, connection.ends)

    async def disconnected(self, connection: _Connection, code: int, reason: str) -> None:
        """Tell `$disconnect`."""
        route = self.api.routes.get(DISCONNECT)
        if route is None:
            return
        event = connection.event("DISCONNECT", DISCONNECT)
        event.request_context.disconnect_status_code = code
        event.request_context.disconnect_reason = reason
        event.headers = {"Host": connection.host, "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""}
        event.multi_value_headers = {name: [value] for name, value in event.headers.items()}
        try:
            await self._integration.call(route.handler, event)
        except Exception:
            self._failed()
            logger.exception("$disconnect failed", extra=connection.ids())

    def gone(self, connection: _Connection) -> None:
        """A live connection's socket is gone."""
        code, reason = self.hub.remove(connection.peer)
        self._own(self.disconnected(connection, code, reason))

    def time_of(self, epoch_s: float) -> str:
        """`epoch_s` as events write it; written once a second."""
        second = int(epoch_s)
        if self._second[0] != second:
            self._second = (second, request_time(second))
        return self._second[1]


def _refusal(status: int, body: bytes) -> Refusal:
    """A refusal that says when to come back if that can help."""
    return Refusal(status, body, {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {})


_FULL = _refusal(503, said("No more connections just now."))


def _outcome(response: Response, request: Request) -> Refusal | str | None:
    """What `$connect` has decided: a refusal, or the subprotocol that it chose if it did.

    Raises:
        ValueError: the status is none that can be sent.

    """
    status = response.status_code
    if not 200 <= status <= 599:
        raise ValueError(f"expected a status from 200 to 599, got {status!r}")
    if status >= 300:
        body = response.body.encode() if isinstance(response.body, str) else response.body
        return _refusal(status, body or b"")
    chosen = next((v for k, v in (response.headers or {}).items() if k.lower() == "sec-websocket-protocol"), None)
    return chosen if chosen in request.subprotocols() else None


class Upgrade(asyncio.Protocol):
    """A request for a WebSocket, from its head to the answer; uvicorn's `ws` protocol class."""

    def __init__(self, gateway: Gateway, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
        self._gateway = gateway
        self._connections = server_state.connections
        self._early = b""
        self.transport: asyncio.Transport  # set by connection_made
        self.request: Request  # set by the first data_received
        self.gone = False  # whether nobody waits for the answer

    @property
    def peer(self) -> str:
        """The address of who opened the socket."""
        peername = self.transport.get_extra_info("peername")
        return peername[0] if isinstance(peername, tuple) else "127.0.0.1"

    def connection_made(self, transport: Any) -> None:  # Any: uvloop's transports have none of asyncio's classes
        """The socket is ours."""
        self.transport = transport
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """First comes the whole head, which uvicorn has read, and what was read with it; no more, since we pause."""
        head, _, self._early = data.partition(b"\r\n\r\n")
        self.request = Request(head)
        self.transport.pause_reading()
        self._gateway.begin(self)

    def eof_received(self) -> bool:
        """The client says no more."""
        self.gone = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone before it was answered."""
        self.gone = True
        self._connections.discard(self)

    def shutdown(self) -> None:
        """Uvicorn shuts down, and waits for the answer: it is not 101 any more."""
        self.gone = True

    def refuse(self, refusal: Refusal) -> None:
        """Answer with no 101, and close."""
        self._connections.discard(self)
        if not self.transport.is_closing():
            self.transport.write(http_response(refusal))
            Farewell(self._gateway, self.transport)

    def switch(self, connection: _Connection, subprotocol: str | None) -> None:
        """Answer 101 and hand the socket to picows."""
        self._connections.discard(self)

        def listener(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
            extra = {"Sec-WebSocket-Protocol": subprotocol} if subprotocol else None
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(extra), connection)

        protocol = _Framing(
            None,  # host_port: a client's affair
            None,  # ws_path: likewise
            False,  # is_client_side
            listener,
            connection,  # logger: anything with a logger's methods that is not a Logger
            True,  # disconnect_on_exception
            None,  # websocket_handshake_timeout: the handshake is over
            False,  # enable_auto_ping: the hub's sweeper pings
            10,
            10,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # enable_auto_pong: `Life` answers
            self._gateway.limits.max_message_bytes,
            None,  # extra_headers: a client's affair
            READ_BUFFER_BYTES,
        )
        # uvloop keeps a method of the last protocol that was not a buffered one for as long as the transport lives.
        self.transport.set_protocol(_NOBODY)
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        canonical = (
            "GET / HTTP/1.1\r\nHost: hubbub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {self.request.value('sec-websocket-key')}\r\n\r\n"
        )
        _feed(protocol, canonical.encode("latin-1"))
        if self._early:
            _feed(protocol, self._early)
        if not connection.is_full:
            self.transport.resume_reading()


_NOBODY = asyncio.Protocol()


class _BadFrame(Exception):
    """picows refuses a frame: the close code and why."""


class _Framing(WSProtocol):  # type: ignore[misc]  # see the import
    """picows' framing, but for what it does about a bad frame: that is `_Connection.bad_frame`.

    picows would write a CLOSE of its own, after ours if ours is out already, and close the socket under what still
    comes, which resets it. So its note of the frame, which it logs before it does so, is made an exception.
    """

    __slots__ = ()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        try:
            WSProtocol.buffer_updated(self, nbytes)
        except _BadFrame as bad:
            self.listener.bad_frame(self.transport, *bad.args)


class _Connection(WSListener):
    """A live connection: picows' listener, the hub's wire, and what events say of it.

    It is also what picows logs to: its one call of `error` comes before it closes for what it could not parse.
    """

    __slots__ = (
        "_gateway",
        "_identity",
        "_in_flight",
        "_transport",
        "authorizer",
        "connected_at",
        "host",
        "id",
        "peer",
    )

    def __init__(self, gateway: Gateway, upgrade: Upgrade, id: str) -> None:  # noqa: A002
        self._gateway = gateway
        self._transport = upgrade.transport
        self._identity = Identity(gateway.way(upgrade)[-1], upgrade.request.value("user-agent"))
        self._in_flight = 0
        self.authorizer: AuthorizerContext | None = None  # what the authorizer said; None when there is none
        self.connected_at = time.time_ns() // 1_000_000
        self.host = upgrade.request.value("host") or ""
        self.id = id
        self.peer: Peer  # set when 101 has been sent

    def __repr__(self) -> str:
        return f"<connection {self.id} from {self._identity.source_ip}>"

    def ids(self) -> dict[str, str]:
        """For the log."""
        return {"connection_id": self.id}

    def event(self, kind: Any, route_key: str, message: Message | None = None) -> Event:  # Any: one of three words
        """An event of this connection."""
        now_ns = time.time_ns()
        gateway = self._gateway
        request_id = new_id()
        context = RequestContext(
            route_key=route_key,
            event_type=kind,
            extended_request_id=request_id,
            request_time=gateway.time_of(now_ns / 1e9),
            stage=gateway.api.stage,
            connected_at=self.connected_at,
            request_time_epoch=now_ns // 1_000_000,
            identity=self._identity,
            request_id=request_id,
            domain_name=self.host,
            connection_id=self.id,
            api_id=gateway.api.id,
            authorizer=self.authorizer,
        )
        event = Event(
            request_context=context,
            stage_variables=gateway.api.stage_variables or None,
            is_base64_encoded=False,
        )
        if message is not None:
            context.message_id = new_id()
            event.body = message.body
            event.is_base64_encoded = message.is_base64
        return event

    # A message's function begins, answers, ends

    @property
    def is_full(self) -> bool:
        """Whether so many functions are under way that no more is read."""
        return self.peer.life.deaf

    def begins(self) -> None:
        """One more is under way; too many, and no more is read."""
        self._in_flight += 1
        if self._in_flight >= self._gateway.limits.max_in_flight and not self.is_full:
            self.peer.life.deaf = True
            self._transport.pause_reading()

    def ends(self) -> None:
        """One fewer is under way."""
        self._in_flight -= 1
        if self.is_full and self._in_flight <= self._gateway.limits.max_in_flight // 2:
            self.peer.life.hears_again(self._gateway.hub.now())
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def answer(self, body: bytes) -> None:
        """Send a function's answer, if there is still somebody to read it."""
        if not self.peer.life.phase:
            self._gateway.hub.send_to(self.peer, body)

    # What picows tells

    def on_ws_connected(self, transport: WSTransport) -> None:
        """101 has been sent."""
        del transport.request.headers, transport.response.headers  # nobody reads them again, and they are a kilobyte
        hub = self._gateway.hub
        self.peer = Peer(self.id, Life(hub.now()), self, self._transport.write)
        hub.add(self.peer)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """A frame came."""
        hub = self._gateway.hub
        payload = frame.get_payload_as_bytes()
        hub.stats.bytes_in += len(payload)
        try:
            act = self.peer.life.received(
                int(frame.msg_type),  # type: ignore[call-overload]  # an int, typed as an Enum
                bool(frame.fin),
                bool(frame.rsv1 or frame.rsv2 or frame.rsv3),
                payload,
                hub.now(),
                hub.rules,
            )
            if isinstance(act, Message):
                self._gateway.message(self, act)
            elif act is not None:
                hub.act(self.peer, act)
        except Exception:
            logger.exception("a frame could not be taken", extra=self.ids())
            hub.close(self.id, SERVER_ERROR, "")

    def bad_frame(self, transport: WSTransport, code: int, reason: str) -> None:
        """A frame came that picows could not read, and nor can it what follows."""
        hub = self._gateway.hub
        if self.peer.life.phase is Phase.CLOSED:
            return
        shake = transport.close_handshake
        if shake is not None and shake.recv is not None:  # the frame before was a CLOSE, and picows withheld it
            told = int(shake.recv.code)  # type: ignore[call-overload]  # an int, typed as an Enum
            payload = told.to_bytes(2, "big") + (shake.recv.reason or "").encode() if told else b""
            hub.act(self.peer, self.peer.life.received(CLOSE, True, False, payload, hub.now(), hub.rules))
            return
        if code == TOO_BIG:
            reason = f"a message has at most {hub.rules.max_message_bytes} bytes"
        hub.close(self.id, code, reason)
        if not self._transport.is_closing():
            Farewell(self._gateway, self._transport, partial(self._gateway.gone, self))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The socket is gone."""
        self._gateway.gone(self)

    def pause_writing(self) -> None:
        """The socket has enough to write."""
        self._gateway.hub.congested(self.peer, True)

    def resume_writing(self) -> None:
        """The socket has room again."""
        self._gateway.hub.congested(self.peer, False)

    # What the hub asks

    def waiting(self) -> int:
        """How many bytes wait in the socket's buffer."""
        return self._transport.get_write_buffer_size()

    def send_close(self, code: int, reason: str) -> None:
        """Send CLOSE; 1005 stands for one without a code."""
        payload = b"" if code == NO_STATUS else code.to_bytes(2, "big") + reason.encode()[:123]
        self._transport.write(control_frame(0x8, payload))

    def drop(self, abort: bool) -> None:
        """Close the socket."""
        if abort:
            self._transport.abort()
        else:
            self._transport.close()

    # What picows wants of a logger

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  logging's name
        """Nothing picows has to say is written for its own sake."""
        return False

    def error(self, message: str, *args: Any) -> None:
        """Picows refuses a frame: its arguments are the close code and what was wrong with it."""
        problem = args[0] if args else None
        if isinstance(problem, tuple) and len(problem) == 2:
            raise _BadFrame(int(problem[0]), str(problem[1]))
        logger.error(message, *args, extra=self.ids())

    def info(self, message: str, *args: Any) -> None:
        """Of no interest."""

    def warning(self, message: str, *args: Any) -> None:
        """Something that should not be."""
        logger.warning(message, *args, extra=self.ids())

    def exception(self, message: str, *args: Any) -> None:
        """A defect; picows calls this where it has caught one."""
        logger.exception(message, *args, extra=self.ids())  # noqa: LOG004  it is called in a handler

    def log(self, level: int, message: str, *args: Any) -> None:
        """Of no interest."""


def _feed(protocol: WSProtocol, data: bytes) -> None:
    """Give a buffered protocol bytes as its transport would."""
    view = memoryview(data)
    while view:
        buffer = protocol.get_buffer(-1)
        size = min(len(buffer), len(view))
        buffer[:size] = view[:size]
        protocol.buffer_updated(size)
        view = view[size:]
