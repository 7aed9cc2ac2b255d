"""The sockets of WebSocket connections: a request for one until its answer, then a connection's frames.

A live connection is one object, which is the transport's protocol, the hub's wire and what events say of it: whatever
is per connection is there a hundred thousand times. All of a gateway's read into one buffer, since its loop reads and
delivers in one go; a connection keeps bytes of its own only while a frame is unfinished.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from hubbub.apigateway import Api, AuthorizerContext, Event, Identity, RequestContext, new_id
from hubbub.gateway.connection import NO_STATUS, SERVER_ERROR, TOO_BIG, Life, Message, Phase
from hubbub.gateway.framing import (
    FIN,
    OPCODE,
    RESERVED,
    BadFrame,
    Missing,
    Unfinished,
    payload_size,
    read_frame,
    switching,
)
from hubbub.gateway.handshake import Refusal, Request, http_response
from hubbub.gateway.http import Farewell
from hubbub.gateway.hub import Peer, control_frame

if TYPE_CHECKING:
    from hubbub.gateway.server import Gateway

logger = logging.getLogger("hubbub.gateway")

READ_BUFFER_BYTES = 64 * 1024
"""As much as one read of a socket brings at most."""

UNTOLD_BYTES = 64 * 1024
"""As much as waits below TLS before a loop's own TLS holds anything back, and never says; ours counts it."""

_CLOSED = Phase.CLOSED  # an enumeration is asked for a member by a function

KNOWN_WORDS, LONGEST_WORD = 1_000, 500
"""How many different things that clients say of themselves are remembered, and of how many characters at most."""


class Words:
    """Equal texts as one object each: most clients say the same of themselves as many others, and each keeps it.

    `sys.intern` would never let go of them: on some Pythons (3.12.0 to 3.12.5) what it was given stays for ever, and
    anybody can give it something.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def same(self, text: str) -> str:
        """An equal text; the one that was seen first, as far as it is remembered."""
        if len(text) > LONGEST_WORD:
            return text
        if len(self._known) >= KNOWN_WORDS and text not in self._known:
            self._known.clear()
        return self._known.setdefault(text, text)


class Upgrade(asyncio.Protocol):
    """A request for a WebSocket, from its head to the answer; uvicorn's `ws` protocol class.

    Attributes:
        transport: the socket's.
        request: the head.
        peer: the address of who opened the socket, or of whom the one that did speaks for.
        is_secure: whether that one came over TLS.
        way: the addresses that the request came by; the last is the client's.
        extensions: those that are agreed to, as the answer says it; None for none.
        gone: whether nobody waits for the answer.
        congested: whether something waits to be written: an answer to what was asked before on the same connection.

    """

    __slots__ = (
        "_connections",
        "_early",
        "_gateway",
        "congested",
        "extensions",
        "gone",
        "is_secure",
        "peer",
        "request",
        "transport",
        "way",
    )

    def __init__(self, gateway: Gateway, config: Any, server_state: Any, app_state: Any) -> None:
        self._gateway = gateway
        self._connections = server_state.connections
        self.extensions: str | None = None
        self.gone = False

    def begin(
        self,
        transport: Any,  # uvloop's transports have none of asyncio's classes
        request: Request,
        *,
        peer: str,
        is_secure: bool,
        early: bytes,
        congested: bool,
    ) -> None:
        """The socket is ours, its request's head is here, and `early` came behind it; no more does, since we pause."""
        self.transport: asyncio.Transport = transport
        self.congested = congested
        self.request = request
        self.peer, self.is_secure = peer, is_secure
        self._early = early
        self.way = self._gateway.way(peer, request)
        self._connections.add(self)
        transport.pause_reading()
        self._gateway.begin(self)

    def eof_received(self) -> bool:
        """The client says no more."""
        self.gone = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone before it was answered."""
        self.gone = True
        self._connections.discard(self)

    def pause_writing(self) -> None:
        """The socket has enough to write."""
        self.congested = True

    def resume_writing(self) -> None:
        """The socket has room again."""
        self.congested = False

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
        """Answer 101; what comes from now on are frames."""
        self._connections.discard(self)
        transport = self.transport
        answer = switching(self.request.value("sec-websocket-key") or "", subprotocol, self.extensions)
        # uvloop keeps the function of the last protocol that was not a buffered one for as long as the transport lives.
        transport.set_protocol(_NOBODY)
        transport.set_protocol(connection)
        connection.begin(answer, self._early, deflates=self.extensions is not None, congested=self.congested)


class _Nobody(asyncio.Protocol):
    """Is told nothing; its function is one for all, where a method would be one for each transport that keeps it."""

    @staticmethod
    def data_received(data: bytes) -> None:
        """Nobody is told."""


_NOBODY = _Nobody()


class Connection(asyncio.BufferedProtocol):
    """A live connection: its transport's protocol, the hub's wire, and what events say of it.

    Attributes:
        id, api: its connection id, and the API that it is connected to.
        identity: where it comes from and what it showed.
        authorizer: what the authorizer said; None when there is none.
        connected_at: epoch milliseconds.
        host: what the client called the host.
        peer: it in the hub; set when 101 has been sent.

    """

    __slots__ = (
        "_fd",
        "_gateway",
        "_in_flight",
        "_transport",
        "_unfinished",
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
        self._fd = -1  # the number of its socket, where the gateway's intake may read it
        self._unfinished: Unfinished | None = None  # what came of a frame, or waits until functions have ended
        self.api = api
        same, request = gateway.words.same, upgrade.request
        agent = request.value("user-agent")
        self.identity = Identity(same(upgrade.way[-1]), agent and same(agent))
        self.authorizer: AuthorizerContext | None = None
        self.connected_at = time.time_ns() // 1_000_000
        self.host = same(request.value("host") or "")
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

    def context(self, kind: Any, route_key: str) -> RequestContext:  # Any: one of three words
        """What an event of this connection says of it and of the event."""
        now_ns = time.time_ns()
        api = self.api
        request_id = new_id()
        return RequestContext(
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

    def event(self, kind: Any, route_key: str, message: Message | None = None) -> Event:  # Any: one of three words
        """An event of this connection."""
        context = self.context(kind, route_key)
        event = Event(
            request_context=context,
            stage_variables=self.api.stage_variables or None,
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
        self._gateway.hub.departures.under_way += 1
        if self._in_flight >= self._gateway.limits.max_in_flight and not self.is_full:
            self.peer.life.deaf = True
            self._pause_reading()

    def ends(self) -> None:
        """One fewer is under way."""
        self._in_flight -= 1
        self._gateway.hub.departures.under_way -= 1
        if self.is_full and self._in_flight <= self._gateway.limits.max_in_flight // 2:
            self.peer.life.hears_again(self._gateway.hub.now())
            if not self._transport.is_closing():
                asyncio.get_running_loop().call_soon(self._take, b"")  # what had come before no more was read
                self._resume_reading()

    def answer(self, body: bytes) -> None:
        """Send a function's answer, if there is still somebody to read it."""
        if not self.peer.life.phase:
            self._gateway.hub.send_to(self.peer, body)

    def begin(self, answer: bytes, early: bytes, *, deflates: bool, congested: bool) -> None:
        """The transport is ours, and has paused.

        Args:
            answer: is to be sent.
            early: came before.
            deflates: whether compression was agreed.
            congested: whether the transport has asked for a pause, which it does but once.

        """
        hub = self._gateway.hub
        transport = self._transport
        seal = transport.get_extra_info("seal")
        knows_all = not self._is_more()
        fd = transport.get_extra_info("socket").fileno() if knows_all else -1
        life = Life(hub.now(), deflates=deflates)
        self.peer = Peer(self.id, life, self, transport.write, self, transport=transport, fd=fd, seal=seal)
        self.peer.congested = congested
        # It then writes at once, and asks for a pause when, and only when, something waits.
        # A loop's own TLS takes a limit of 0 for one that is always reached.
        transport.set_write_buffer_limits(high=0 if knows_all else 1)
        transport.write(answer)
        hub.add(self.peer)
        if seal is None:
            self._fd = fd
        if early:
            self._take(early)
        if not self.is_full:
            self._resume_reading()

    def _resume_reading(self) -> None:
        """Read on, past the transport where that may be; there is nothing to lose where it is closing."""
        intake = self._gateway.intake
        if self._fd >= 0 and intake is not None:
            if self._transport.is_closing():
                return
            try:
                intake.add(self._fd, self)
            except OSError:  # the user has as many watches as the system allows; the transport's own is free just now
                self._fd = -1
            else:
                return
        self._transport.resume_reading()

    def _pause_reading(self) -> None:
        intake = self._gateway.intake
        if self._fd < 0 or intake is None:
            self._transport.pause_reading()
        else:
            intake.remove(self._fd, self)

    def _leave_intake(self) -> None:
        """From now on only the transport reads, which has paused."""
        if self._fd >= 0 and self._gateway.intake is not None:
            self._gateway.intake.remove(self._fd, self)
        self._fd = -1

    # What the intake tells

    def receive(self, data: bytes, text: str | None) -> None:
        """Bytes came; see `hubbub.gateway.intake.Owner`."""
        try:
            if text is not None and self._unfinished is None:
                hub, size = self._gateway.hub, payload_size(data)
                if self.peer.life.takes_text(size, hub.now(), hub.rules):
                    hub.stats.bytes_in += size
                    self._gateway.message(self, Message(text))
                    return
            self._take(data)
        except Exception as error:
            self._broke(error)

    def receive_pong(self, data: bytes) -> None:
        """A pong came, if no frame is unfinished; see `hubbub.gateway.intake.Owner`."""
        life = self.peer.life
        if life.deaf or self._unfinished is not None:
            self.receive(data, None)
        else:
            life.hears(self._gateway.hub.now())

    def receive_end(self) -> None:
        """Nothing comes any more; see `hubbub.gateway.intake.Owner`."""
        self._fd = -1
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # What the transport tells

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read to."""
        return self._gateway.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        self._take(bytes(self._gateway.read_buffer[:nbytes]))

    def _take(self, data: bytes) -> None:
        """Take the frames that are whole, as long as any may be taken."""
        life = self.peer.life
        if self._unfinished is not None:
            more = self._unfinished.add(data)
            if more is None:
                life.hears(self._gateway.hub.now())
                return
            data, self._unfinished = more, None
        begin, end = 0, len(data)
        while begin < end and life.phase is not _CLOSED:
            if life.deaf:
                self._unfinished = Unfinished(data[begin:], 0)
                return
            try:
                frame = read_frame(data, begin, self._gateway.max_frame_bytes)
            except BadFrame as bad:
                self._bad_frame(bad)
                return
            if isinstance(frame, Missing):
                self._unfinished = Unfinished(data[begin:], frame.size)
                life.hears(self._gateway.hub.now())
                return
            begin = frame.end
            self._take_frame(frame.first, frame.payload)

    def _take_frame(self, first: int, payload: bytes) -> None:
        hub = self._gateway.hub
        hub.stats.bytes_in += len(payload)
        try:
            act = self.peer.life.received(
                first & OPCODE, bool(first & FIN), first & RESERVED, payload, hub.now(), hub.rules
            )
            if isinstance(act, Message):
                self._gateway.message(self, act)
            elif act is not None:
                hub.act(self.peer, act)
        except Exception as error:
            self._broke(error)

    def _broke(self, error: Exception) -> None:
        """A frame could not be taken, for no fault of the client's."""
        logger.error("a frame could not be taken", exc_info=error, extra=self.ids())
        self._gateway.hub.close(self.id, SERVER_ERROR, "")

    def _bad_frame(self, bad: BadFrame) -> None:
        """A frame came that cannot be read, and nor can what follows it."""
        self._gateway.hub.close(self.id, bad.code, self._gateway.too_big if bad.code == TOO_BIG else bad.reason)
        if not self._transport.is_closing():
            self._leave_intake()
            Farewell(self._gateway, self._transport, partial(self._gateway.gone, self))

    def eof_received(self) -> None:
        """The client says no more; the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._leave_intake()
        self._gateway.gone(self)

    def pause_writing(self) -> None:
        """The socket has enough to write."""
        self._gateway.hub.congested(self.peer, True)

    def resume_writing(self) -> None:
        """The socket has room again."""
        self._gateway.hub.congested(self.peer, False)

    # What the hub asks

    def waiting(self) -> int:
        """How many bytes wait to be written."""
        size = self._transport.get_write_buffer_size()
        return size + UNTOLD_BYTES if size and self._is_more() else size

    def _is_more(self) -> bool:
        """Whether more may wait than the transport says."""
        info = self._transport.get_extra_info
        return info("sslcontext") is not None and info("seal") is None

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
