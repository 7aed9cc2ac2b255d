"""A new connection until its first bytes: a plain request for a WebSocket is taken at once, all else is uvicorn's.

Nearly all of who comes asks for a WebSocket, in one piece and with nothing unusual about it. For that no HTTP server is
needed that has to be set up, told of each header, and thrown away. What is plain is told narrowly, so that there is no
request that is understood in two ways: whatever is not, right or wrong, goes to `RequestHead` as it came.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from hubbub.gateway.handshake import Request
from hubbub.gateway.http import RequestHead

if TYPE_CHECKING:
    from hubbub.gateway.server import Gateway
    from hubbub.gateway.sockets import Upgrade

_HEAD = re.compile(r"GET (/[!$%&'()*+,./0-9:;=?@A-Z_a-z~-]*) HTTP/1\.1\r\n((?:[A-Za-z0-9-]+:[\t -~]*\r\n)+)\r\n")
_FIELD = re.compile(r"([A-Za-z0-9-]+):[\t ]*([\t -~]*)\r\n")
_NOT_PLAIN = frozenset(("content-length", "expect", "transfer-encoding"))
"""Headers that say how a body comes; who asks for a WebSocket has none."""

_END = b"\r\n\r\n"


class Door(asyncio.Protocol):
    """A connection on which nothing has come; uvicorn's `http` protocol class.

    Args:
        gateway: whose it is.
        given: what uvicorn gives to a protocol of it.

    Attributes:
        transport: the socket's, once it is there.

    """

    __slots__ = ("_gateway", "_given", "transport")

    def __init__(self, gateway: Gateway, **given: Any) -> None:  # Any: uvicorn's
        self._gateway = gateway
        self._given = given
        self.transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:  # uvloop's transports have none of asyncio's classes
        """A client has connected."""
        self.transport = transport
        if self._gateway.new_door is None and transport.get_extra_info("sslcontext") is None:
            self._gateway.new_door = partial(Door, self._gateway, **self._given)
        self._given["server_state"].connections.add(self)
        self._gateway.watch(self, self._gateway.limits.handshake_timeout_s)

    def data_received(self, data: bytes) -> None:
        """The first bytes are here: this was the door's affair."""
        gateway, transport, given = self._gateway, self.transport, self._given
        given["server_state"].connections.discard(self)
        found = plain_request(data, gateway.limits.max_header_bytes)
        if found is None:
            head = RequestHead(gateway, **given)
            transport.set_protocol(head)
            head.connection_made(transport)
            gateway.watch_instead(head, self)
            head.data_received(data)
            return
        gateway.unwatch(self)
        request, size = found
        peername = transport.get_extra_info("peername")
        upgrade: Upgrade = given["config"].ws_protocol_class(
            config=given["config"], server_state=given["server_state"], app_state=given["app_state"]
        )
        transport.set_protocol(upgrade)
        upgrade.begin(
            transport,
            request,
            peer=peername[0] if isinstance(peername, tuple) else "127.0.0.1",
            is_secure=transport.get_extra_info("sslcontext") is not None,
            early=data[size:],
            congested=False,
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._given["server_state"].connections.discard(self)
        self._gateway.unwatch(self)

    def shutdown(self) -> None:
        """Uvicorn shuts down."""
        self.transport.close()

    def too_slow(self) -> None:
        """Nothing has come in time."""
        self._gateway.unwatch(self)
        self.transport.close()


def plain_request(data: bytes, max_bytes: int) -> tuple[Request, int] | None:
    """The request for a WebSocket that is all there, if it is a plain one; and how many bytes it has.

    Args:
        data: what came on the connection so far.
        max_bytes: how long the head may be.

    """
    end = data.find(_END, 0, max_bytes)
    if end == -1:
        return None
    size = end + len(_END)
    head = _HEAD.fullmatch(data[:size].decode("latin-1"))
    if head is None:
        return None
    request = Request("GET", head[1], [(name, value.rstrip()) for name, value in _FIELD.findall(head[2])])
    if not request.asks_for("connection", "upgrade") or not request.asks_for("upgrade", "websocket"):
        return None
    return None if request.headers.keys() & _NOT_PLAIN else (request, size)
