"""The fan-out over API Gateway as far as it runs on a laptop: a table on a real server, posts over real HTTP.

Posts go to our own gateway's management API, in front of a sink; the broadcaster runs in this process. The time of day
is the tests' clock; what waits for an answer waits by the machine's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import uvicorn

from doubles import FakeClock, FakeSink, settle
from dynamolab import KEYS, REGION, Server, fresh_table
from hubbub.apigateway import Api, Identity
from hubbub.aws.credentials import Fixed
from hubbub.aws.http import HttpClient
from hubbub.aws.table import Table
from hubbub.clock import SystemClock
from hubbub.fanout import ApiGatewayDirectory, ApiGatewayFanout
from hubbub.fanout.apigateway.broadcaster import Broadcaster
from hubbub.fanout.apigateway.jobs import AnyJob
from hubbub.fanout.apigateway.pace import Pace
from hubbub.fanout.apigateway.posts import Posts
from hubbub.fanout.apigateway.stale import Stale
from hubbub.fanout.apigateway.transports import DirectTransport
from hubbub.gateway.management import Management
from hubbub.ports import ReadAfter
from hubbub.sigv4 import Keys
from live import until

JOB_S = 60.0
"""How long a job may take."""


class TestsDay(SystemClock):
    """The tests' time of day, while waits take as long as they take."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    def now_ms(self) -> int:
        return self._clock.now_ms()


class SinkHub:
    """A sink as the management API sees the hub of a gateway: connections that are there, or not."""

    def __init__(self, sink: FakeSink, api: Api) -> None:
        self._sink = sink
        self._context = SimpleNamespace(api=api, identity=Identity("127.0.0.1"), connected_at=0)

    def get(self, connection: str) -> Any:
        if connection not in self._sink.frames or connection in self._sink.closed:
            return None
        return SimpleNamespace(id=connection, context=self._context, life=SimpleNamespace(phase=0))

    def has_room(self, peer: Any, size: int) -> bool:
        return True

    def send_to(self, peer: Any, body: bytes) -> None:
        self._sink.send(peer.id, body)

    def close(self, connection: str, code: int, reason: str) -> None:
        self._sink.close(connection, code, reason)


@asynccontextmanager
async def management(sink: FakeSink) -> AsyncIterator[str]:
    """The address of a stage whose connections are a sink's, for the length of a block."""
    api = Api(routes={}, stage="test")
    application = Management(
        SinkHub(sink, api),  # type: ignore[arg-type]  # as far as it is asked
        keys=Keys({KEYS.access_key: KEYS.secret_key}),
        find=lambda host, prefix: api if prefix == "/test" else None,
        allow=lambda: True,
    )
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_config=None, lifespan="off", http="httptools"))
    serving = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started, "the management API is there")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/test"
    finally:
        server.should_exit = True
        await serving


class Home:
    """A fan-out and its directory in one, as `LocalFanout` is, with what they are made of.

    Attributes:
        table, directory, fanout, transport: so called.
        stale: what looks for connections that are gone.

    """

    def __init__(
        self,
        table: Table,
        directory: ApiGatewayDirectory,
        fanout: ApiGatewayFanout,
        transport: DirectTransport,
        stale: Stale,
    ) -> None:
        self.table = table
        self.directory = directory
        self.fanout = fanout
        self.transport = transport
        self.stale = stale

    def __getattr__(self, name: str) -> Any:
        return getattr(self.fanout if hasattr(self.fanout, name) else self.directory, name)

    async def settle(self) -> None:
        """Let what was handed over be done."""
        await settle()
        await self.transport.drain()

    async def items(self) -> int:
        """How many items there are in the table."""
        answer = await self.table._call("Scan", {"Select": "COUNT"})
        return int(answer["Count"])


@asynccontextmanager
async def apigateway(
    dynamodb: Server, *, sink: FakeSink, read: ReadAfter, clock: FakeClock, **options: Any
) -> AsyncIterator[Home]:
    """A fan-out on an empty table, with posts that reach a sink; `options` are the directory's."""
    async with fresh_table(dynamodb) as table, management(sink) as endpoint, HttpClient() as http:
        machine, day = SystemClock(), TestsDay(clock)
        pace = Pace(table, clock=machine)
        posts = Posts(
            http, endpoint, region=REGION, credentials=Fixed(KEYS), clock=machine, watch=pace, close_codes=True
        )
        directory = ApiGatewayDirectory(table, clock=clock, read=read, **options)
        async with DirectTransport(clock=machine) as transport:
            broadcaster = Broadcaster(table, posts, pace, transport, read=read, forget=directory.forget, clock=day)

            async def run(job: AnyJob) -> None:
                await broadcaster.run(job, remaining_s=JOB_S)

            transport.run = run
            fanout = ApiGatewayFanout(directory=directory, transport=transport, posts=posts, clock=clock)
            stale = Stale(table, posts=posts, pace=pace, forget=directory.forget, clock=day)
            yield Home(table, directory, fanout, transport, stale)
            await transport.drain()
