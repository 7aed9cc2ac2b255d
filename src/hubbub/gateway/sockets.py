"""The sockets of WebSocket connections: a request for one until its answer, then picows' framing.

picows' own server is not used, since it refuses what Firefox sends and cannot wait; its protocol class is given the
socket with a canonical request instead. That class is private: the pin in pyproject.toml, this module and one test
belong together.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
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

from hubbub.apigateway import Api, AuthorizerContext, Event, Identity, RequestContext, new_id
from hubbub.gateway.connection import CLOSE, NO_STATUS, SERVER_ERROR, TOO_BIG, Life, Message, Phase
from hubbub.gateway.handshake import Refusal, Request, http_response
from hubbub.gateway.http import Farewell
from hubbub.gateway.hub import Peer, control_frame

if TYPE_CHECKING:
    from hubbub.gateway.server import Gateway

logger = logging.getLogger("hubbub.gateway")

READ_BUFFER_BYTES = 2_048
"""picows' least; it grows with the messages that come."""


class Upgrade(asyncio.Protocol):
    """A request for a WebSocket, from its head to the answer; uvicorn's `ws` protocol class."""

    def __init__(self, gateway: Gateway, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
        self._gateway = gateway
        self._connections = server_state.connections
        self._early = b""
        self.transport: asyncio.Transport  # set by connection_made
        self.request: Request  # set by the first data_received
        self.peer: str  # the address of who opened the socket, or of whom the one that did speaks for
        self.is_secure: bool  # whether that one came over TLS; both are set by comes_from
        self.gone = False  # whether nobody waits for the answer

    def comes_from(self, peer: str, *, is_secure: bool) -> None:
        """Who opened the socket, as is known before the request is looked at."""
        self.peer, self.is_secure = peer, is_secure

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

    def switch(self, connection: Connection, subprotocol: str | None) -> None:
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
            self._gateway.max_frame_bytes,
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
    """picows' framing, but for what it does about a bad frame: that is `Connection.bad_frame`.

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


class Connection(WSListener):
    """A live connection: picows' listener, the hub's wire, and what events say of it.

    It is also what picows logs to: its one call of `error` comes before it closes for what it could not parse.

    Attributes:
        id, api: its connection id, and the API that it is connected to.
        identity: where it comes from and what it showed.
        authorizer: what the authorizer said; None when there is none.
        connected_at: epoch milliseconds.
        host: what the client called the host.
        peer: it in the hub; set when 101 has been sent.

    """

    __slots__ = (
        "_gateway",
        "_in_flight",
        "_transport",
        "api",
        "authorizer",
        "connected_at",
        "host",
        "id",
        "identity",
        "peer",
    )

    def __init__(self, gateway: Gateway, upgrade: Upgrade, api: Api, id: str) -> None:  # noqa: A002
        self._gateway = gateway
        self._transport = upgrade.transport
        self._in_flight = 0
        self.api = api
        self.identity = Identity(gateway.way(upgrade)[-1], upgrade.request.value("user-agent"))
        self.authorizer: AuthorizerContext | None = None
        self.connected_at = time.time_ns() // 1_000_000
        self.host = upgrade.request.value("host") or ""
        self.id = id
        self.peer: Peer

    def __repr__(self) -> str:
        return f"<connection {self.id} from {self.identity.source_ip}>"

    def ids(self) -> dict[str, str]:
        """For the log."""
        return {"connection_id": self.id}

    def identify(self, **shown: str) -> None:
        """Note what the client has shown of itself, by the names of `Identity`."""
        self.identity = msgspec.structs.replace(self.identity, **shown)

    def event(self, kind: Any, route_key: str, message: Message | None = None) -> Event:  # Any: one of three words
        """An event of this connection."""
        now_ns = time.time_ns()
        api = self.api
        request_id = new_id()
        context = RequestContext(
            route_key=route_key,
            event_type=kind,
            extended_request_id=request_id,
            request_time=self._gateway.time_of(now_ns / 1e9),
            stage=api.stage,
            connected_at=self.connected_at,
            request_time_epoch=now_ns // 1_000_000,
            identity=self.identity,
            request_id=request_id,
            domain_name=api.domain_name or self.host,
            connection_id=self.id,
            api_id=api.id,
            authorizer=self.authorizer,
        )
        event = Event(
            request_context=context,
            stage_variables=api.stage_variables or None,
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

    def on_ws_connected(self, picows: WSTransport) -> None:
        """101 has been sent."""
        del picows.request.headers, picows.response.headers  # nobody reads them again, and they are a kilobyte
        hub = self._gateway.hub
        transport = self._transport
        transport.set_write_buffer_limits(high=0)  # a pause is asked for when, and only when, something waits
        fd = -1 if transport.get_extra_info("sslcontext") else transport.get_extra_info("socket").fileno()
        self.peer = Peer(self.id, Life(hub.now()), self, transport.write, self, transport=transport, fd=fd)
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
            reason = self._gateway.too_big
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
