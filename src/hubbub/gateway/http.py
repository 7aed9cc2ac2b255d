"""HTTP as uvicorn does it, with bounds: how large and slow a request's head may be, and what comes after an upgrade.

Requests for a WebSocket go on to `hubbub.gateway.sockets`, all others to the HTTP application. Where the PROXY protocol
is spoken, its header comes before all that, and says who the client is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hubbub.gateway.handshake import Refusal, Request, http_response, said
from hubbub.gateway.preface import BadPreface, read_preface

if TYPE_CHECKING:
    from hubbub.gateway.server import Gateway

LINGER_S = 5.0
"""How long a client may take to be gone after it was told that this is the end."""


class Farewell(asyncio.Protocol):
    """The end of a connection to which the last word is written: what still comes is thrown away until it is gone.

    A socket that is closed before everything was read from it is reset, and the other may never see the last word
    (RFC 6455, section 7.1.1; RFC 9112, section 9.6).
    """

    def __init__(self, gateway: Gateway, transport: asyncio.Transport, lost: Callable[[], None] | None = None) -> None:
        self._gateway = gateway
        self._transport = transport
        self._lost = lost
        transport.set_protocol(self)
        gateway.watch(self, LINGER_S)
        if transport.can_write_eof():
            transport.write_eof()
            transport.resume_reading()
        else:
            transport.close()  # TLS throws away what comes, and waits for the other's goodbye

    def connection_lost(self, exc: Exception | None) -> None:
        """The other is gone."""
        self._gateway.unwatch(self)
        if self._lost is not None:
            self._lost()

    def too_slow(self) -> None:
        """The other does not go."""
        self._transport.abort()


class RequestHead(HttpToolsProtocol):
    """uvicorn's HTTP, with bounds on the head of a request, and names in the client's own case."""

    def __init__(self, gateway: Gateway, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app = partial(_beside, gateway, self.app)
        self._gateway = gateway
        self._over = False  # whether the last word on this connection is said
        self._in_head = True
        self._wants_websocket: bool | None = None  # whether this request does; None before that was asked
        self._head_bytes = 0
        self._field_bytes = 0
        self._fields: list[tuple[bytes, bytes]] = []
        self._tail: bytes | None = None  # what followed a request for a WebSocket; None while there was none
        self._preface: bytes | None = None  # what came of the PROXY protocol's header; None when it is not awaited
        self._came_from = ""  # who opened the socket, or whom that one speaks for; set by connection_made

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client has connected, or a proxy for one."""
        super().connection_made(transport)
        self._gateway.watch(self, self._gateway.limits.handshake_timeout_s)
        peername = transport.get_extra_info("peername")
        self._came_from = peername[0] if isinstance(peername, tuple) else "127.0.0.1"
        if self._gateway.proxy_protocol:
            self._preface = b""
            if not self._gateway.trusts(self._came_from):
                self._turn_away("it is none of the listed proxies")

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._gateway.unwatch(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; hand over an upgrade with what follows it."""
        if self._preface is not None:
            data = self._after_preface(self._preface + data)
            if not data:
                return
        self._unset_keepalive_if_required()
        self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self._tail = bytes(data[upgrade.args[0] :])
                self._hand_over_in_turn()
                return
        except httptools.HttpParserError:
            if not self._over:
                self._refuse(400, "This is not HTTP.")
            return
        if self._in_head and self._head_bytes > self._gateway.limits.max_header_bytes:
            self._too_large()

    def _after_preface(self, data: bytes) -> bytes:
        """What follows the PROXY protocol's header, which says who the client is; nothing while it is not here."""
        if self._over:
            return b""
        self._preface = data
        try:
            preface = read_preface(data)
        except BadPreface as bad:
            self._turn_away(str(bad))
            return b""
        if preface is None:
            return b""
        self._preface = None
        if preface.client is not None:
            self.client = preface.client
            self._came_from = preface.client[0]
        if preface.is_secure:
            self.scheme = "https"
        return data[preface.size :]

    def _turn_away(self, why: str) -> None:
        """Close a connection that does not begin with what a listed proxy says; nobody is there to read an answer."""
        self._over = True
        self._gateway.turned_away(self._came_from, why)
        self._gateway.unwatch(self)
        self.transport.abort()

    def _should_upgrade(self) -> bool:
        """Whether a WebSocket is asked for; uvicorn asks as well, and more than once."""
        if self._wants_websocket is None:
            self._wants_websocket = (
                self.scope["http_version"] == "1.1"
                and b"upgrade" in self._tokens(b"connection")
                and b"websocket" in self._tokens(b"upgrade")
            )
        return self._wants_websocket

    def _tokens(self, name: bytes) -> list[bytes]:
        """What a header lists, in lower case; a list may come in several lines (RFC 9110, section 5.3)."""
        values = [value for known, value in self.headers if known == name]
        return [token.strip() for token in b",".join(values).lower().split(b",")]

    def _hand_over_in_turn(self) -> None:
        """Hand over once the answers are out to what the client has asked before on this connection."""
        if self.cycle is None or self.cycle.response_complete:
            self.handle_websocket_upgrade()
        else:
            self.flow.pause_reading()

    def on_response_complete(self) -> None:
        """An answer is out."""
        super().on_response_complete()
        if self._tail is not None and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._hand_over_in_turn()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._wants_websocket = None
        if not self._in_head:
            self._in_head = True
            self._head_bytes = 1  # or more, but no other than what came last
            self._gateway.watch(self, self._gateway.limits.handshake_timeout_s)
        self._field_bytes = 0
        self._fields = []

    def on_url(self, url: bytes) -> None:
        """Part of its target."""
        self._field_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers."""
        self._field_bytes += len(name) + len(value) + 4
        self._fields.append((name, value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Its head is here."""
        self._in_head = False
        self._gateway.unwatch(self)
        if self._field_bytes > self._gateway.limits.max_header_bytes:
            self._too_large()
            raise ValueError("the head is too large")  # ends the parsing; the answer is out
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand the socket over, and the request as the client wrote it."""
        self._gateway.unwatch(self)
        self.connections.discard(self)
        protocol: Any = self.ws_protocol_class(  # type: ignore[misc, call-arg]  # uvicorn's own way to call it
            config=self.config, server_state=self.server_state, app_state=self.app_state
        )
        self.transport.set_protocol(protocol)
        fields = [(name.decode("latin-1"), value.decode("latin-1").strip()) for name, value in self._fields]
        protocol.begin(
            self.transport,
            Request(self.scope["method"], self.url.decode("latin-1"), fields),
            peer=self._came_from,
            is_secure=self.scheme == "https",
            early=self._tail or b"",
            congested=self.flow.write_paused,
        )
        del self.parser, self.cycle  # they and this object keep each other

    def too_slow(self) -> None:
        """The head has not arrived in time."""
        self._gateway.unwatch(self)
        if self.transport.is_closing():
            return
        if self._preface is not None:
            self._turn_away("the header of the PROXY protocol took too long to arrive")
        elif self._head_bytes:
            self._refuse(408, "The request took too long to arrive.")
        else:
            self.transport.close()

    def _too_large(self) -> None:
        self._refuse(431, f"The head of a request has at most {self._gateway.limits.max_header_bytes} bytes.")

    def _refuse(self, status: int, words: str) -> None:
        """Answer, and be done with this connection."""
        self._over = True
        self._gateway.hub.stats.refused[status] += 1
        self.transport.write(http_response(Refusal(status, said(words))))
        self.connection_lost(ConnectionAbortedError())  # for those who still work on what came before
        Farewell(self._gateway, self.transport)


async def _beside(gateway: Gateway, app: Any, scope: Any, receive: Any, send: Any) -> None:  # Any: ASGI's
    """The HTTP application, but for the management API and for who comes to a WebSocket's path without wanting one."""
    management = gateway.management
    if scope["type"] == "http" and management is not None and management.concerns(scope["path"]):
        await management(scope, receive, send)
    elif scope["type"] == "http" and gateway.sites.at(_host(scope), scope["path"]) is not None:
        await _say_what_is_here(send)
    else:
        await app(scope, receive, send)


def _host(scope: Any) -> str:  # Any: ASGI's
    host: bytes = next((value for name, value in scope["headers"] if name == b"host"), b"")
    return host.decode("latin-1")


async def _say_what_is_here(send: Any) -> None:  # Any: ASGI's
    body = said("There is a WebSocket here: ask for it with `Connection: Upgrade` and `Upgrade: websocket`.")
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"upgrade", b"websocket"),
        (b"connection", b"upgrade"),
    ]
    await send({"type": "http.response.start", "status": 426, "headers": headers})
    await send({"type": "http.response.body", "body": body})
