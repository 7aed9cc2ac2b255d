"""A real HTTP server that writes down what it is asked, and a gateway whose routes are integrations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiohttp import web
from gatewaylab import Lab, running
from rawpeer import TEXT, Peer, frame

from hubbub.apigateway import Api, Route
from hubbub.gateway.integrations import Integration, Services
from hubbub.gateway.integrations.build import Integrations
from live import BOUND_S


class Asked(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header, whatever its case."""
        return next((value for known, value in self.headers.items() if known.lower() == name.lower()), None)


class Endpoint:
    """A server on a port of its own.

    Attributes:
        url: where it is.
        asked: the requests that came.
        answer: what it says to the next ones: status, headers and body.
        held: while it is not set, requests wait.
        dropped: set once a client has gone away before it was answered.

    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: asyncio.Queue[Asked] = asyncio.Queue()
        self.answer: tuple[int, dict[str, str], bytes] = (200, {}, b"{}")
        self.held = asyncio.Event()
        self.held.set()
        self.dropped = asyncio.Event()

    async def take(self) -> Asked:
        """The request that came next."""
        async with asyncio.timeout(BOUND_S):
            return await self.asked.get()

    async def handle(self, request: web.Request) -> web.Response:
        """Write a request down and answer it."""
        headers = dict(request.headers)
        query = list(request.query.items())
        self.asked.put_nowait(Asked(request.method, request.raw_path, query, headers, await request.read()))
        try:
            await self.held.wait()
        except asyncio.CancelledError:
            self.dropped.set()
            raise
        status, fields, body = self.answer
        return web.Response(status=status, headers=fields, body=body)


@asynccontextmanager
async def listening() -> AsyncIterator[Endpoint]:
    """An endpoint for the length of a block."""
    endpoint = Endpoint("")
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", endpoint.handle)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield endpoint
    finally:
        await runner.cleanup()


@asynccontextmanager
async def integrated(
    services: Services,
    routes: dict[str, Integration],
    *,
    one_way: bool = False,
    stage_variables: dict[str, str] | None = None,
) -> AsyncIterator[Lab]:
    """A gateway whose routes are these integrations, for the length of a block; messages are answered but `one_way`."""
    async with Integrations(services) as integrations:
        made = {
            key: Route(
                integrations.handler(integration, two_way=not one_way),
                two_way=not one_way,
                timeout_s=integration.timeout_ms / 1_000,
            )
            for key, integration in routes.items()
        }
        async with running(api=Api(routes=made, stage="dev", stage_variables=stage_variables or {})) as lab:
            yield lab


async def say(peer: Peer, text: str) -> None:
    """Send a text message."""
    await peer.send(frame(TEXT, text.encode()))
