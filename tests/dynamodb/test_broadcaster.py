"""The broadcaster on a real table and before a real gateway: what its expressions and its posts do there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect

from dynamolab import KEYS, REGION, Server, fresh_table
from hubbub.apigateway import Api, Event, Response, Route
from hubbub.aws.credentials import Fixed
from hubbub.aws.http import HttpClient
from hubbub.aws.table import Table
from hubbub.clock import SystemClock
from hubbub.fanout.apigateway.broadcaster import Broadcaster
from hubbub.fanout.apigateway.jobs import Announce, AnyJob, Deliver, Signal, decode_job, encode_job
from hubbub.fanout.apigateway.keys import PACE_KEY, Listener, delivery_key, shard_of
from hubbub.fanout.apigateway.pace import Pace
from hubbub.fanout.apigateway.posts import Posts
from hubbub.fanout.apigateway.tally import Tally
from hubbub.gateway import Gateway, Hub
from hubbub.model import ConnectionId, RoomId, UserId
from hubbub.sigv4 import Keys
from live import BOUND_S, until

ROOM = RoomId("room")


async def _who(event: Event) -> Response:
    """Tell a client its id."""
    return Response(body=event.request_context.connection_id)


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError(f"only the gateway is asked here, got {scope['path']}")


@asynccontextmanager
async def gateway() -> AsyncIterator[int]:
    """A gateway's port, for the length of a block."""
    made = Gateway(
        Api(routes={"$default": Route(_who, two_way=True)}),
        hub=Hub(),
        keys=Keys({KEYS.access_key: KEYS.secret_key}),
    )
    server = uvicorn.Server(made.config(_nothing, port=0, timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started, "the gateway is there")
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await made.drain(0.0)
        server.should_exit = True
        await asyncio.wait({serving}, timeout=BOUND_S)


class Client:
    """A client that keeps what it gets."""

    def __init__(self, socket: ClientConnection, connection: str) -> None:
        self.socket = socket
        self.id = ConnectionId(connection)
        self.frames: list[str] = []
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for frame in self.socket:
            assert isinstance(frame, str)
            self.frames.append(frame)


class Lab:
    """Clients of a gateway, a room on a table, and broadcasters."""

    def __init__(self, table: Table, http: HttpClient, port: int, stack: AsyncExitStack) -> None:
        self.table = table
        self.log: dict[int, str] = {}
        self.forgotten: list[str] = []
        self.tallies: list[Tally] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self._http = http
        self._port = port
        self._stack = stack

    async def clients(self, count: int, shards: int = 1) -> list[Client]:
        """Clients that listen."""
        made = []
        for n in range(count):
            socket = await self._stack.enter_async_context(connect(f"ws://127.0.0.1:{self._port}/ws", proxy=None))
            await socket.send("who")
            client = Client(socket, str(await socket.recv()))
            self._stack.callback(client.reading.cancel)
            user = UserId(f"user#{n}")
            listener = Listener(ROOM, shard_of(user, shards), user, client.id, 0, 2**40, 2**40)
            await self.table.put(listener.item())
            made.append(client)
        return made

    def broadcaster(self, **options: Any) -> Broadcaster:
        """One more process."""
        clock = SystemClock()
        pace = Pace(self.table, clock=clock, free=options.pop("free", 50))
        endpoint = f"http://127.0.0.1:{self._port}/ws"
        posts = Posts(self._http, endpoint, region=REGION, credentials=Fixed(KEYS), clock=clock, watch=pace)
        return Broadcaster(
            self.table,
            posts,
            pace,
            self,
            read=self.read,
            forget=self.forget,
            clock=clock,
            report=self.tallies.append,
            **options,
        )

    async def hand(self, jobs: Sequence[AnyJob]) -> None:
        for job in jobs:
            work = self.broadcaster(split=1, branch=2).run(decode_job(encode_job(job)), remaining_s=60)
            self.tasks.add(asyncio.create_task(work))

    async def settled(self) -> None:
        """Return when all that was handed over is done."""
        while self.tasks:
            tasks, self.tasks = self.tasks, set()
            await asyncio.gather(*tasks)

    async def read(self, room: RoomId, after: int) -> list[tuple[int, bytes]]:
        return [(seq, text.encode()) for seq, text in sorted(self.log.items()) if seq > after]

    async def forget(self, connection: ConnectionId) -> None:
        self.forgotten.append(connection)

    def write(self, seq: int, text: str | None = None) -> Deliver:
        """Write an entry; the job that is handed over for it."""
        self.log[seq] = text or str(seq)
        return Deliver(id=f"{seq}", room=ROOM, seq=seq, frame=self.log[seq])

    async def state(self, shard: int = 0) -> dict[str, Any]:
        """What a delivery item says."""
        return await self.table.get(delivery_key(ROOM, shard)) or {}


@pytest.fixture
async def lab(dynamodb: Server) -> AsyncIterator[Lab]:
    async with (
        fresh_table(dynamodb, measure=True) as table,
        HttpClient() as http,
        gateway() as port,
        AsyncExitStack() as stack,
    ):
        yield Lab(table, http, port, stack)


async def all_have(clients: Sequence[Client], frames: list[str]) -> None:
    """Return when all clients got these, and fail if they do not."""
    await until(lambda: all(len(client.frames) >= len(frames) for client in clients), "everybody has everything")
    assert [client.frames for client in clients] == [frames] * len(clients)


async def test_an_entry_reaches_every_client_once_for_two_write_units(lab: Lab, dynamodb: Server):
    """One to take the lease, one to give it up; the frame travels in the job."""
    clients = await lab.clients(20)
    before, writes = lab.table.used.requests["UpdateItem"], lab.table.used.write_units
    broadcaster = lab.broadcaster()
    for seq in (1, 2, 3):
        await broadcaster.run(lab.write(seq), remaining_s=60)
    await all_have(clients, ["1", "2", "3"])
    assert lab.table.used.requests["UpdateItem"] - before == 6
    if dynamodb.name != "moto":  # which counts half of them
        assert lab.table.used.write_units - writes == 6
    assert (await lab.state())["delivered"] == 3


async def test_jobs_in_any_order_twice_and_at_once_deliver_each_entry_once_and_in_order(lab: Lab):
    """By four broadcasters, each with all jobs."""
    clients = await lab.clients(5)
    jobs = [lab.write(seq) for seq in range(1, 13)]
    makers = [lab.broadcaster() for _ in range(4)]
    await asyncio.gather(*(maker.run(job, remaining_s=60) for maker in makers for job in reversed(jobs)))
    await all_have(clients, [str(seq) for seq in range(1, 13)])
    state = await lab.state()
    assert (state["delivered"], "owner" in state, "wanted" in state) == (12, False, False)


async def test_a_spread_room_is_served_by_a_tree(lab: Lab):
    """Each shard by another broadcaster; heads and signals go the same way."""
    clients = await lab.clients(24, shards=8)
    pk, sk = delivery_key(ROOM)
    counted = {"shards": 8, "listeners": 24, "counted": SystemClock().now_ms()}
    await lab.table.put({"pk": pk, "sk": sk, **counted})
    jobs = [
        lab.write(1),
        Announce(id="h", room=ROOM, head=1, frame="head 1"),
        Signal(id="s", room=ROOM, frame="signal", exclude=clients[0].id),
    ]
    for job in jobs:
        await lab.broadcaster(split=1, branch=2).run(job, remaining_s=60)
        await lab.settled()
    await all_have(clients[1:], ["1", "head 1", "signal"])
    assert clients[0].frames == ["1", "head 1"]


async def test_a_broadcaster_that_is_killed_is_made_up_for(lab: Lab):
    """At some moment in each of the jobs; its lease has to run out."""
    clients = await lab.clients(5)
    for seq in range(1, 11):
        job = lab.write(seq)
        task = asyncio.create_task(lab.broadcaster().run(job, remaining_s=60))
        await asyncio.wait({task}, timeout=0.004 * seq)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        pk, sk = delivery_key(ROOM)
        if "owner" in await lab.state():
            await lab.table.update((pk, sk), "SET #until = :past", values={"past": 1})
        await lab.broadcaster().run(job, remaining_s=60)
    await until(lambda: all(client.frames[-1:] == ["10"] for client in clients), "everybody has the last one")
    for client in clients:
        shown: list[int] = []
        for frame in client.frames:
            if int(frame) > (shown[-1] if shown else 0):
                shown.append(int(frame))
        assert shown == list(range(1, 11))


async def test_clients_that_are_gone_are_forgotten(lab: Lab):
    """The gateway says 410; the others have the entry."""
    clients = await lab.clients(6)
    for client in clients[::2]:
        await client.socket.close()
    await lab.broadcaster().run(lab.write(1), remaining_s=60)
    await all_have(clients[1::2], ["1"])
    assert sorted(lab.forgotten) == sorted(client.id for client in clients[::2])


async def test_long_entries_pass_up_to_what_a_post_may_have(lab: Lab):
    """Longer than a frame of 32 KB, and as long as a message may be; a longer one is left out."""
    [client] = await lab.clients(1)
    texts = [f"1{'x' * 40_000}", f"2{'x' * 131_071}", f"3{'x' * 131_072}", "4"]
    for seq, text in enumerate(texts, 1):
        await lab.broadcaster().run(lab.write(seq, text), remaining_s=60)
    await until(lambda: client.frames[-1:] == ["4"], "the last one")
    assert [len(frame) for frame in client.frames] == [40_001, 131_072, 1]


async def test_what_is_too_much_for_the_time_is_left_to_a_successor(lab: Lab):
    """Its place in the listing is kept on the table."""
    clients = await lab.clients(12)
    pace = lab.broadcaster(at_once=1)
    job = lab.write(1)
    await pace.run(job, remaining_s=0.04)
    await lab.settled()
    await until(lambda: all(client.frames for client in clients), "everybody has it")
    assert (await lab.state())["delivered"] == 1


async def test_requests_are_taken_from_the_ledger(lab: Lab):
    """Its conditions hold on a real table: many broadcasters get what they need, and no more."""
    paces = [Pace(lab.table, clock=SystemClock(), chunk=50, free=0) for _ in range(4)]

    async def spend(pace: Pace) -> None:
        async with pace.allotment(150, until=SystemClock().monotonic() + 60) as allotment:
            for _ in range(150):
                await allotment.one()

    began_ms = SystemClock().now_ms()
    await asyncio.gather(*(spend(pace) for pace in paces))
    ledger = await lab.table.get(PACE_KEY) or {}
    least_us = (began_ms - 500) * 1_000 + 600 / 7_000 * 1e6
    assert ledger["given"] >= least_us
    await paces[0].throttled(ConnectionId("c"))
    for n in range(10):
        await paces[0].throttled(ConnectionId(f"c{n}"))
    await spend(paces[1])
    assert paces[1].rate() < 4_000
