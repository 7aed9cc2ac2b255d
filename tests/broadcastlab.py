"""A room with its listeners and log, and broadcasters over a table in memory and a simulated API Gateway."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from hubbub.aws.credentials import Fixed
from hubbub.errors import Unavailable
from hubbub.fanout.apigateway.broadcaster import Broadcaster
from hubbub.fanout.apigateway.jobs import AnyJob, Deliver, decode_job, encode_job
from hubbub.fanout.apigateway.keys import Listener, delivery_key, listener_key
from hubbub.fanout.apigateway.pace import Pace
from hubbub.fanout.apigateway.posts import Posts
from hubbub.fanout.apigateway.tally import Tally
from hubbub.model import ConnectionId, RoomId, UserId
from memorytable import MemoryTable
from simulated import CREDENTIALS, ENDPOINT, REGION, SimulatedApi
from virtual import VirtualClock, VirtualLoop, run_virtually

ROOM = RoomId("room")
ResultT = TypeVar("ResultT")


class Handed:
    """A transport that runs what it is handed in tasks of its own, or keeps it."""

    def __init__(self) -> None:
        self.jobs: list[AnyJob] = []
        self.broadcaster: Broadcaster | None = None  # who does the jobs; None while they are kept
        self.tasks: set[asyncio.Task[None]] = set()
        self.remaining_s = 900.0
        self.start_s = 0.03

    async def hand(self, jobs: Sequence[AnyJob]) -> None:
        await asyncio.sleep(0.01)
        for job in jobs:
            again = decode_job(encode_job(job))
            self.jobs.append(again)
            if self.broadcaster is not None:
                self.tasks.add(asyncio.create_task(self._do(again)))

    async def _do(self, job: AnyJob) -> None:
        assert self.broadcaster is not None
        await asyncio.sleep(self.start_s)
        await self.broadcaster.run(job, remaining_s=self.remaining_s)

    async def settled(self) -> None:
        """Return when all that was handed over is done."""
        while self.tasks:
            tasks, self.tasks = self.tasks, set()
            await asyncio.gather(*tasks)


class Lab:
    """The world.

    Attributes:
        log: the room's entries; the frame of entry 7 is `7` unless `frames` has another.
        forgotten: connections that were taken out of the directory, in their order.
        reads: after which seqs the log was read.
        unreadable: whether the log cannot be read.
        tallies: of all jobs that are done.

    """

    def __init__(self, loop: VirtualLoop, *, checks: bool = False, **quota: float) -> None:
        self.loop = loop
        self.clock = loop.clock
        self.table = MemoryTable()
        self.api = SimulatedApi(loop.clock, checks=checks, **quota)
        self.log: list[int] = []
        self.texts: dict[int, str] = {}
        self.forgotten: list[str] = []
        self.reads: list[int] = []
        self.unreadable = False
        self.page = 200
        self.tallies: list[Tally] = []
        self.transport = Handed()
        self.broadcaster = self.make()
        self.transport.broadcaster = self.broadcaster

    def make(self, clock: VirtualClock | None = None, **options: Any) -> Broadcaster:
        """Another broadcaster, as another process has it."""
        clock = clock or self.clock
        pace = Pace(self.table, clock=clock, **options.pop("pace", {}))
        posts = Posts(
            self.api,
            ENDPOINT,
            region=REGION,
            credentials=Fixed(CREDENTIALS),
            clock=clock,
            watch=pace,
            patience_s=options.pop("patience_s", 5.0),
        )
        return Broadcaster(
            self.table,
            posts,
            pace,
            self.transport,
            read=self.read,
            forget=self.forget,
            clock=clock,
            report=self.tallies.append,
            **options,
        )

    async def read(self, room: RoomId, after: int) -> list[tuple[int, bytes]]:
        """Read the log, a page at a time."""
        await asyncio.sleep(0.005)
        self.reads.append(after)
        if self.unreadable:
            raise Unavailable
        return [(seq, self.text(seq).encode()) for seq in self.log if seq > after][: self.page]

    def text(self, seq: int) -> str:
        """An entry's frame."""
        return self.texts.get(seq, str(seq))

    async def forget(self, connection: ConnectionId) -> None:
        """Take a connection out of the directory."""
        await asyncio.sleep(0.01)
        self.forgotten.append(connection)

    def listen(self, *connections: str, after: int = 0, shard: int = 0, **said: int) -> None:
        """Let connections listen."""
        for connection in connections:
            self.table.place(self.listener(connection, after, shard, **said).item())

    def listener(self, connection: str, after: int = 0, shard: int = 0, **said: int) -> Listener:
        """A connection that listens; its user has its name."""
        ends = {"expires_at": 2**40, "ttl": 2**40, **said}
        return Listener(ROOM, shard, UserId(f"u-{connection}"), ConnectionId(connection), after, **ends)

    def leave(self, connection: str, shard: int = 0) -> None:
        """Let it listen no more."""
        key = listener_key(ROOM, shard, UserId(f"u-{connection}"), ConnectionId(connection))
        if self.table.items.pop(key, None):
            self.table._by_pk[key[0]].discard(key[1])
            self.table._sorted.pop(key[0], None)

    def write(self, *seqs: int) -> list[Deliver]:
        """Write entries to the log; the jobs that are handed over for them."""
        self.log = sorted({*self.log, *seqs})
        return [Deliver(id=f"{ROOM}.{seq}", room=ROOM, seq=seq, frame=self.text(seq)) for seq in seqs]

    async def run(self, *jobs: AnyJob, remaining_s: float = 900.0) -> None:
        """Do jobs one after the other, and what comes of them."""
        for job in jobs:
            await self.broadcaster.run(job, remaining_s=remaining_s)
        await self.transport.settled()

    def state(self, shard: int = 0) -> dict[str, Any]:
        """The delivery item."""
        return self.table.items.get(delivery_key(ROOM, shard), {})

    def seqs(self, connection: str) -> list[int]:
        """The entries that a connection got."""
        return [int(frame.split(b" ")[0]) for frame in self.api.frames(connection) if frame[:1].isdigit()]

    def seen(self, connection: str) -> list[int]:
        """The entries that its client shows: each as it follows, what came before dropped."""
        shown: list[int] = []
        for seq in self.seqs(connection):
            if not shown or seq > shown[-1]:
                shown.append(seq)
        return shown


def virtually(test: Callable[[Lab], Coroutine[Any, Any, ResultT]], **gateway: Any) -> ResultT:
    """Run a test in a world of its own, the same each time; its gateway has these options."""
    random.seed(1)
    loop = VirtualLoop()

    async def main() -> ResultT:
        return await test(Lab(loop, **gateway))

    return run_virtually(main(), loop)
