"""The clients of one node come back to the two others: `python -m bench.reconnects [--clients 10000]`.

The node is killed (SIGKILL), and in another run drained (SIGTERM). Every client is in a room of 100 and in one of
1,000, in all of which somebody goes on talking. What counts is when all are live and have every message, and what it
took.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics as averages
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import msgspec
import uvloop
from scripts.cluster import Cluster, Node
from scripts.servers import Postgres

from bench import saving
from bench.cluster import as_server, cpu_of, forget_statements, rss, running_cluster, statements
from bench.crowd import Crowd, Visitor, open_files
from bench.load import Client, connect, token, until

TEAM, HALL = 100, 1_000
"""How many are in each of the two kinds of rooms."""

SAMPLE_S = 0.25
"""How often it is looked how far things are."""

_ASKED = """SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
WHERE d.datname = 'hubbub' AND query NOT LIKE '%pg_stat_statements%'"""


def rooms_of(number: int, clients: int) -> list[str]:
    """The rooms of a client: those of a team share no hall, or hardly."""
    return [f"team{number // TEAM}", f"hall{number % max(1, clients // HALL)}"]


class Talk:
    """Somebody who says something in one room after the other.

    Args:
        client: whose connection it is.
        rooms: where.
        every_s: how often.

    Attributes:
        heads: where the rooms' logs end, as far as was acknowledged.
        said: how many messages were acknowledged.

    """

    def __init__(self, client: Client, rooms: Sequence[str], every_s: float) -> None:
        self.heads: dict[str, int] = {}
        self.said = 0
        self._asked = 0
        self._client = client
        self._rooms = rooms
        self._every_s = every_s
        client.on_frame = self._answered

    async def go_on(self) -> None:
        """Talk until cancelled."""
        while True:
            self.say(self._rooms[self._asked % len(self._rooms)])
            await asyncio.sleep(self._every_s)

    def say(self, room: str) -> None:
        """One message."""
        self._asked += 1
        self._client.send(msgspec.json.encode({"action": "send", "room": room, "text": "x" * 100, "ref": room}))

    @property
    def is_answered(self) -> bool:
        """Whether everything was acknowledged."""
        return self.said == self._asked

    def _answered(self, frame: bytes) -> None:
        reply = msgspec.json.decode(frame)
        if reply.get("type") == "error":
            raise RuntimeError(f"a message was refused: {reply}")
        if reply.get("type") == "ok":
            self.said += 1
            self.heads[reply["room"]] = max(reply["seq"], self.heads.get(reply["room"], 0))


@dataclass
class Sample:
    """How far things were at a moment: counted from the beginning, and of each node that stays."""

    at: float
    handshakes: int
    asked: int
    cpu_s: list[float]
    rss: list[int]


@dataclass
class Return:
    """How it went.

    Attributes:
        live_after_s: of each client, how long until it was live and had what it missed; sorted.
        complete_after_s: how long until all had every message that had been acknowledged then.
        said: messages meanwhile.
        statements: how often each statement was run meanwhile.
        samples: how far things were, from the beginning on.

    """

    live_after_s: list[float]
    complete_after_s: float
    said: int
    statements: dict[str, int]
    samples: list[Sample] = field(repr=False)

    @property
    def asked(self) -> int:
        """How many statements PostgreSQL was asked in all."""
        return sum(self.statements.values())

    def most_in_a_second(self, name: str) -> float:
        """The highest rate of what is counted as `name`."""
        return max(
            (getattr(later, name) - getattr(sooner, name)) / (later.at - sooner.at) for sooner, later in self._seconds()
        )

    @property
    def most_cpu(self) -> float:
        """The most that one of the nodes used of a core for a second."""
        return max(
            (now - then) / (later.at - sooner.at)
            for sooner, later in self._seconds()
            for then, now in zip(sooner.cpu_s, later.cpu_s, strict=True)
        )

    @property
    def most_rss(self) -> int:
        """The most memory of one of the nodes, in bytes."""
        return max(size for sample in self.samples for size in sample.rss)

    def _seconds(self) -> Iterator[tuple[Sample, Sample]]:
        """Pairs of samples about a second apart."""
        step = max(1, min(round(1 / SAMPLE_S), len(self.samples) - 1))
        return zip(self.samples, self.samples[step:], strict=False)


class Watch:
    """Looks how far things are while they go on.

    Args:
        crowd: whose handshakes are counted.
        nodes: those that stay.
        database: a connection to PostgreSQL.

    Attributes:
        samples: what was seen.

    """

    def __init__(self, crowd: Crowd, nodes: Sequence[Node], database: Any) -> None:  # Any: asyncpg has no types
        self.samples: list[Sample] = []
        self._crowd = crowd
        self._nodes = nodes
        self._database = database

    async def look(self) -> None:
        """Take a sample."""
        asked = await self._database.fetchval(_ASKED)
        self.samples.append(
            Sample(
                time.monotonic(),
                self._crowd.handshakes,
                asked,
                [cpu_of(node.pid) for node in self._nodes],
                [rss(node) for node in self._nodes],
            )
        )

    async def go_on(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(SAMPLE_S)


@contextlib.asynccontextmanager
async def watching(crowd: Crowd, nodes: Sequence[Node], postgres: Postgres) -> AsyncIterator[Watch]:
    """A watch, while it goes on."""
    database = await asyncpg.connect(postgres.url)
    watch = Watch(crowd, nodes, database)
    await watch.look()
    task = asyncio.create_task(watch.go_on())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await watch.look()
        await database.close()


async def fill(cluster: Cluster, clients: int) -> Crowd:
    """A crowd whose clients are all at the first node."""
    crowd = Crowd([cluster.nodes[0].port], jitter=random.Random(5))
    for number in range(clients):
        rooms = rooms_of(number, clients)
        crowd.add(token(f"user{number}", rooms), rooms)
    await crowd.arrive(at_once=min(100, clients))
    return crowd


@contextlib.asynccontextmanager
async def talking(cluster: Cluster, clients: int, a_second: float) -> AsyncIterator[Talk]:
    """Somebody at the last node who talks in all rooms, after a first word in each."""
    rooms = sorted({room for number in range(clients) for room in rooms_of(number, clients)})
    client = await connect(as_server(cluster.nodes[-1]), "talker", rooms)
    talk = Talk(client, rooms, 1 / a_second)
    for room in rooms:
        talk.say(room)
        await until(lambda: talk.is_answered)
    task = asyncio.create_task(talk.go_on())
    try:
        yield talk
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert client.transport is not None
        client.transport.disconnect()


async def move(cluster: Cluster, crowd: Crowd, talk: Talk, *, kill: bool, within_s: float = 300.0) -> Return:
    """End the first node; returns when all of its clients are live at the others and have every message.

    At least one is sent meanwhile.

    Raises:
        TimeoutError: they are not within `within_s`.

    """
    leaving, *staying = cluster.nodes
    loop = asyncio.get_running_loop()
    forget_statements(cluster.postgres)
    said = talk.said
    crowd.ports = [node.port for node in staying]
    async with watching(crowd, staying, cluster.postgres) as watch:
        began = loop.time()
        if kill:
            leaving.kill()
        else:
            leaving.end()

        def is_back(visitor: Visitor) -> bool:
            return visitor.is_live and visitor.live_at > began

        async with asyncio.timeout(within_s):
            while talk.said == said or not all(map(is_back, crowd.visitors)) or crowd.behind(talk.heads):
                await asyncio.sleep(0.02)
        complete_after_s = loop.time() - began
    return Return(
        sorted(visitor.live_at - began for visitor in crowd.visitors),
        complete_after_s,
        talk.said - said,
        statements(cluster.postgres),
        watch.samples,
    )


def report(went: Return, crowd: Crowd, how: str, before: int) -> dict[str, object]:
    """Print it, and return what is to be saved of it."""
    times, count = went.live_after_s, len(crowd.visitors)
    print(f"\n{count:,} clients of a node that is {how}, {went.said} messages meanwhile")
    late = times[int(count * 0.99)]
    print(
        f"  live again: half after {averages.median(times):.1f} s, 99 % after {late:.1f} s, all after {times[-1]:.1f} s"
    )
    print(f"  all have every message after {went.complete_after_s:.1f} s")
    refused = ", ".join(f"{number:,} with {status}" for status, number in sorted(crowd.refused.items())) or "none"
    print(f"  connections tried {crowd.attempts:,}, refused {refused}, not taken or broken {crowd.failed:,}")
    handshakes, syncs = crowd.unanswered
    print(f"  given up for want of an answer: handshakes {handshakes:,}, syncs {syncs:,}")
    print(f"  most handshakes in a second {went.most_in_a_second('handshakes'):,.0f}")
    print(
        f"  statements {went.asked:,} ({went.asked / count:.2f} a client), most in a second"
        f" {went.most_in_a_second('asked'):,.0f}"
    )
    print(
        f"  a node's most CPU {went.most_cpu:.0%} of a core, most memory {went.most_rss / 2**20:.0f} MB"
        f" (before {before / 2**20:.0f} MB)"
    )
    print(
        f"  entries repeated {crowd.repeated}, out of order {crowd.torn}; resets {crowd.resets};"
        f" closed {dict(crowd.closed)}; errors {dict(crowd.errors)}"
    )
    for text, calls in sorted(went.statements.items(), key=lambda each: -each[1])[:12]:
        print(f"    {calls:>7,}  {text[:110]}")
    return {
        "how": how,
        "clients": count,
        "median_s": averages.median(times),
        "p99_s": late,
        "all_s": times[-1],
        "complete_s": went.complete_after_s,
        "refused": crowd.refused.total(),
        "unanswered": handshakes + syncs,
        "statements": went.asked,
        "most_cpu": went.most_cpu,
        "repeated": crowd.repeated,
        "torn": crowd.torn,
    }


async def run(clients: int, a_second: float, *, kill: bool, drain_s: float) -> dict[str, object]:
    """One run, with a cluster of its own."""
    with running_cluster(settings={"drain_s": str(drain_s)}) as cluster:
        async with talking(cluster, clients, a_second) as talk:
            began = time.monotonic()
            crowd = await fill(cluster, clients)
            print(f"\n{clients:,} have come in {time.monotonic() - began:.0f} s", flush=True)
            await asyncio.sleep(10)  # presence has been told
            crowd.attempts = crowd.handshakes = crowd.failed = 0
            crowd.unanswered = [0, 0]
            crowd.refused.clear()
            before = max(rss(node) for node in cluster.nodes[1:])
            went = await move(cluster, crowd, talk, kill=kill)
            found = report(went, crowd, "killed" if kill else f"drained within {drain_s:g} s", before)
            await crowd.leave()
            return found


def main(clients: int, a_second: float, drain_s: float, ways: Sequence[str]) -> list[dict[str, object]]:
    """Measure and print."""
    open_files(clients + 1_000)
    return [uvloop.run(run(clients, a_second, kill=way == "kill", drain_s=drain_s)) for way in ways]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--messages", type=float, default=20, help="a second")
    parser.add_argument("--drain", type=float, default=10, help="seconds")
    parser.add_argument("--ways", nargs="+", default=["kill", "drain"], choices=["kill", "drain"])
    saving.add_argument(parser)
    chosen = parser.parse_args()
    runs = main(chosen.clients, chosen.messages, chosen.drain, chosen.ways)
    if chosen.save:
        saving.save("reconnects", {"runs": runs})
