"""Random worlds: rooms of any shape, all that can go wrong at once, and what must hold afterwards all the same."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence

import pytest

from broadcastlab import ROOM, Lab, virtually
from hubbub.aws.service import AwsError
from hubbub.fanout.apigateway.jobs import Announce, AnyJob, decode_job, encode_job
from hubbub.fanout.apigateway.keys import delivery_key, shard_of
from hubbub.fanout.apigateway.lease import LEASE_S, Contended


class World:
    """A room of random shape; jobs come late, twice and not at all, and whoever does them may be killed.

    Attributes:
        since: after which entry each listener listens.

    """

    def __init__(self, lab: Lab, seed: int) -> None:
        dice = self.dice = random.Random(seed)
        self.lab = lab
        self.shards = dice.choice([1, 1, 2, 8])
        self.entries = dice.choice([5, 20, 60])
        self.since: dict[str, int] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.killing = dice.choice([0, 0.1, 0.3])
        self.remaining_s = dice.choice([900, 900, 1.5, 3])
        failing = dice.choice([0, 0.02, 0.08])
        self.options = {
            "split": dice.choice([1, 5, 1_000]),
            "branch": dice.choice([1, 2, 10]),
            "at_once": dice.choice([1, 5, 100]),
        }
        lab.table.fault = lambda operation, key: (
            dice.choice(["throttle", "before", "after"]) if dice.random() < failing else None
        )
        lab.transport = self  # type: ignore[assignment]  # it hands jobs over as a transport does

    def join(self, connection: str) -> None:
        """A listener comes, who knows the log as it is."""
        self.since[connection] = len(self.lab.log)
        self.lab.listen(connection, after=len(self.lab.log), shard=shard_of(f"u-{connection}", self.shards))

    async def hand(self, jobs: Sequence[AnyJob]) -> None:
        await asyncio.sleep(0.005)
        for job in jobs:
            for _ in range(1 + (self.dice.random() < 0.1)):
                self.start(decode_job(encode_job(job)), 0.1)

    def start(self, job: AnyJob, within_s: float) -> None:
        """Let a job be done soon."""
        task = asyncio.create_task(self.do(job, within_s))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def do(self, job: AnyJob, within_s: float) -> None:
        """Do a job as a queue has it done: again if it failed, and sometimes if not."""
        await asyncio.sleep(self.dice.random() * within_s)
        for _ in range(3):
            task = asyncio.create_task(self.lab.make(**self.options).run(job, remaining_s=self.remaining_s))
            if self.dice.random() < self.killing:
                await asyncio.sleep(self.dice.random() * 0.08)
                task.cancel()
            [result] = await asyncio.gather(task, return_exceptions=True)
            assert result is None or isinstance(result, AwsError | Contended | asyncio.CancelledError), result
            if result is None and self.dice.random() < 0.9:
                return
            await asyncio.sleep(self.dice.random() * 20)

    async def settled(self) -> None:
        """Return when all jobs are done."""
        while self.tasks:
            await asyncio.gather(*list(self.tasks))

    async def live(self) -> None:
        """Everything happens; in the end nothing more fails, and the room's head is announced."""
        pk, sk = delivery_key(ROOM)
        if self.shards > 1:
            self.lab.table.place({"pk": pk, "sk": sk, "shards": self.shards, "counted": self.lab.clock.now_ms()})
        for n in range(self.dice.choice([3, 10, 40])):
            self.join(f"c{n}")
        for seq in range(1, self.entries + 1):
            [job] = self.lab.write(seq)
            job.frame = job.frame if self.dice.random() < 0.7 else None
            self.start(job, self.dice.choice([0.01, 1]))
            await asyncio.sleep(self.dice.random() * 0.1)
            if self.dice.random() < 0.2:
                self.join(f"late{seq}")
        await self.settled()
        self.lab.table.fault, self.killing = None, 0
        for n in range(2):  # one may find an announcement's own parts under way
            await asyncio.sleep(LEASE_S + 1)
            await self.lab.run(Announce(id=f"h{n}", room=ROOM, head=self.entries, frame="head"))
            await self.settled()


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_every_listener_has_every_entry_in_order_whatever_happened(part: int, caplog: pytest.LogCaptureFixture):
    """Once what comes again is dropped; and nobody holds a lease any more."""
    caplog.set_level(logging.CRITICAL)
    for seed in range(20 * part, 20 * (part + 1)):

        async def story(lab: Lab, seed: int = seed) -> None:
            world = World(lab, seed)
            await world.live()
            for connection, since in world.since.items():
                assert lab.seen(connection) == list(range(since + 1, world.entries + 1)), f"seed {seed}"
            assert not any("owner" in lab.state(shard) for shard in range(world.shards)), f"seed {seed}"

        virtually(story)
