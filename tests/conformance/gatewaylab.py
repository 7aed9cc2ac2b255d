"""A real gateway on a real port, and functions behind it that write down what they are given."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import uvicorn
from rawpeer import CLOSE, TEXT, Peer, closing, frame

from hubbub.apigateway import CONNECT, DEFAULT, DISCONNECT, Api, Authorizer, Event, Handler, Response, Route
from hubbub.gateway import Gateway, GatewayLimits, Hub
from hubbub.gateway import server as gateway_server
from live import BOUND_S, until

Json = dict[str, Any]


class Functions:
    """Functions that keep their events, as a Lambda would get them, and do what a test tells them to.

    Attributes:
        events: every event of `$connect`, messages and `$disconnect`, decoded from its JSON, in order.
        authorizations: likewise those of the authorizer.
        held: while it is not set, `$connect` waits.

    """

    def __init__(self) -> None:
        self.events: list[Json] = []
        self.authorizations: list[Json] = []
        self.held = asyncio.Event()
        self.held.set()
        self._news = asyncio.Condition()

    def of(self, kind: str, connection: str | None = None) -> list[Json]:
        """The events of a kind, of one connection or of all."""
        contexts = [(event, event["requestContext"]) for event in self.events]
        return [
            event
            for event, context in contexts
            if context["eventType"] == kind and connection in (None, context["connectionId"])
        ]

    async def wait_for(self, kind: str, connection: str | None = None, count: int = 1) -> Json:
        """The event of a kind that is the `count`th."""
        async with asyncio.timeout(BOUND_S), self._news:
            await self._news.wait_for(lambda: len(self.of(kind, connection)) >= count)
        return self.of(kind, connection)[count - 1]

    async def keep(self, event: Event) -> Json:
        """Write an event down."""
        kept: Json = json.loads(msgspec.json.encode(event))
        async with self._news:
            self.events.append(kept)
            self._news.notify_all()
        return kept

    async def connect(self, event: Event) -> Response:
        """`$connect`: agrees, once it is not held."""
        await self.keep(event)
        await self.held.wait()
        return Response()

    async def disconnect(self, event: Event) -> Response:
        """`$disconnect`."""
        await self.keep(event)
        return Response()

    async def echo(self, event: Event) -> Response:
        """A message's function: returns the body that it got."""
        await self.keep(event)
        return Response(body=event.body)

    async def who(self, event: Event) -> Response:
        """Says the connection's id."""
        return Response(body=event.request_context.connection_id)

    async def authorize(self, event: Event) -> Json:
        """An authorizer that agrees."""
        self.authorizations.append(json.loads(msgspec.json.encode(event)))
        return {"principalId": "ann", "level": 3, "trusted": True}

    def api(self, *, authorizer: Authorizer | None = None, **routes: Handler | Route | None) -> Api:
        """These functions as an API; routes are replaced by their key without `$`, taken out by None."""
        known: dict[str, Handler | Route | None] = {
            CONNECT: self.connect,
            DISCONNECT: self.disconnect,
            DEFAULT: Route(self.echo, two_way=True),
            "who": Route(self.who, two_way=True),
        }
        for name, handler in routes.items():
            known[f"${name}" if f"${name}" in known else name] = handler
        return Api(
            routes={
                key: value if isinstance(value, Route) else Route(value)
                for key, value in known.items()
                if value is not None
            },
            authorizer=authorizer,
        )


class Lab:
    """A gateway that runs.

    Attributes:
        gateway, hub, functions, port: what they are called.
        server: the uvicorn server that it hangs in.

    """

    def __init__(self, gateway: Gateway, functions: Functions, server: uvicorn.Server, port: int) -> None:
        self.gateway = gateway
        self.hub = gateway.hub
        self.functions = functions
        self.server = server
        self.port = port
        self._peers: list[Peer] = []

    async def open(self, head: bytes | None = None) -> Peer:
        """A peer that has shaken hands, and whose id is known; one at a time."""
        known = len(self.functions.of("CONNECT"))
        peer = await Peer.open(self.port, head)
        self._peers.append(peer)
        connect = await self.functions.wait_for("CONNECT", count=known + 1)
        peer.id = connect["requestContext"]["connectionId"]
        return peer

    async def dial(self, *data: bytes) -> Peer:
        """A peer that has connected and sent that."""
        peer = await Peer.dial(self.port)
        self._peers.append(peer)
        await peer.send(*data)
        return peer

    async def hang_on(self) -> None:
        """Give the server time for what it would do wrongly: as much as a round trip with it takes, and a bit more."""
        for _ in range(5):
            async with await self.dial(b"no HTTP\r\n\r\n") as peer:
                await peer.answer()

    def hang_up(self) -> None:
        """Cut all peers that are left."""
        for peer in self._peers:
            peer.cut()

    async def end(self, peer: Peer) -> tuple[int, str]:
        """What `$disconnect` is told of the peer's end."""
        context = (await self.functions.wait_for("DISCONNECT", peer.id))["requestContext"]
        return context["disconnectStatusCode"], context["disconnectReason"]

    async def fails(self, *data: bytes, after: int = 0) -> tuple[int | None, str]:
        """A new peer sends that; the code and reason of the CLOSE that it gets, once all has come to its end.

        The peer answers CLOSE, nothing follows it, and `$disconnect` is told the same code.

        Args:
            data: sent one by one.
            after: how many other frames come before CLOSE.

        """
        async with await self.open() as peer:
            for each in data:
                await peer.send(each)
            for _ in range(after):
                await peer.receive()
            close = await peer.receive()
            assert close.opcode == CLOSE, close
            await peer.send(closing(1000))
            await peer.ended()
            peer.cut()  # a stream of asyncio's stays half open by itself
            code, _ = await self.end(peer)
            assert code == close.code
            return close.code, close.reason


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """The HTTP application beside the gateway: answers everything with the path."""
    body = scope["path"].encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def running(
    functions: Functions | None = None,
    api: Api | None = None,
    app: Any = hello,
    server_options: Json | None = None,
    times_faster: int = 1,
    **options: Any,
) -> AsyncIterator[Lab]:
    """A gateway for the length of a block; options are those of `GatewayLimits` and `Gateway`.

    At the end everything must come to its end: handshakes, functions, connections, `$disconnect`s.

    Args:
        functions, api, app: what it serves.
        server_options: uvicorn's.
        times_faster: how many seconds of its hub's clock a second has; for who waits until it has looked around.
        options: as above.

    """
    functions = functions or Functions()
    now = asyncio.get_running_loop().time
    limits = {name: options.pop(name) for name in list(options) if name in GatewayLimits.__struct_fields__}
    hub = Hub(clock=lambda: now() * times_faster)
    gateway = Gateway(api or functions.api(), hub=hub, limits=GatewayLimits(**limits), **options)
    server = uvicorn.Server(gateway.config(app, port=0, **{"timeout_graceful_shutdown": 1, **(server_options or {})}))
    serving = asyncio.create_task(server.serve())
    patch = pytest.MonkeyPatch()
    patch.setattr(gateway_server, "SWEEP_EVERY_S", 1.0 / times_faster)
    try:
        async with asyncio.timeout(BOUND_S):
            while not server.started:
                await asyncio.sleep(0.001)
        lab = Lab(gateway, functions, server, server.servers[0].sockets[0].getsockname()[1])
        try:
            yield lab
        finally:
            lab.hang_up()
    finally:
        patch.undo()
        await gateway.drain(0.0)
        if not server.should_exit:  # its own way to stop is slow, and the affair of one test
            for listening in server.servers:
                listening.close()
            serving.cancel()
        await asyncio.wait({serving}, timeout=BOUND_S)
        await until(lambda: not server.server_state.connections, "uvicorn has no connection left")
        await until(lambda: not hub.departures.under_way, "no function is under way any more")


async def still_works(peer: Peer, words: str = "still here") -> None:
    """The connection is alive: what is sent comes back."""
    await peer.send(frame(TEXT, words.encode()))
    assert await peer.text() == words
