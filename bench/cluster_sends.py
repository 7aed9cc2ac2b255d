"""Acknowledged sends per second through PostgreSQL, beside SQLite in the same run: `python -m bench.cluster_sends`.

1 room and 1,000 rooms, over 1, 2 and 3 nodes. Each sender has a connection of its own, and sends his next message when
the last was acknowledged. Processor time is that of the nodes, of PostgreSQL and of NATS; the load's is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import uvloop
from scripts.cluster import Node

from bench import saving
from bench.cluster import Cpu, as_server, cpu, cpu_of, disconnect, lone_node, running_cluster
from bench.load import Client, connect

TEXT = "x" * 200
AT_ONCE = 64
"""Connections that are opened at a time."""


class Load(NamedTuple):
    """Who sends where."""

    senders: int
    rooms: int

    def rooms_of(self, sender: int) -> list[str]:
        """Where a sender sends, in turn; every room has somebody."""
        return [f"of{self.rooms}-{room}" for room in range(sender % self.rooms, self.rooms, self.senders)]


LOADS = (Load(1, 1), Load(256, 1), Load(256, 1_000))


class Figures(NamedTuple):
    """Acknowledgements a second, processor time of one in microseconds, and how long it took in milliseconds."""

    rate: float
    nodes_us: float
    postgres_us: float
    nats_us: float
    p50_ms: float
    p99_ms: float

    @property
    def total_us(self) -> float:
        """Processor time of one, all parts together."""
        return self.nodes_us + self.postgres_us + self.nats_us


def medians(rounds: Sequence[Figures]) -> Figures:
    """Of each column."""
    return Figures(*(statistics.median(column) for column in zip(*rounds, strict=True)))


class Sender:
    """Sends one message after the other, each when the last was acknowledged."""

    def __init__(self, client: Client, rooms: Sequence[str]) -> None:
        self._client = client
        self._frames = [
            msgspec.json.encode({"action": "send", "room": room, "text": TEXT, "ref": "r"}) for room in rooms
        ]
        self._sent_at = 0.0
        self._next = 0
        self.latencies: list[float] = []
        self.ends_at = 0.0
        self.is_waiting = False

    def start(self) -> None:
        """Send the first one."""
        self._client.on_frame = self._acknowledged
        self._send()

    def _send(self) -> None:
        self.is_waiting = True
        self._sent_at = time.perf_counter()
        self._client.send(self._frames[self._next % len(self._frames)])
        self._next += 1

    def _acknowledged(self, reply: bytes) -> None:
        if b'"type":"ok"' not in reply:
            raise RuntimeError(f"not acknowledged: {reply!r}")
        now = time.perf_counter()
        self.latencies.append(now - self._sent_at)
        self.is_waiting = False
        if now < self.ends_at:
            self._send()


async def gathered(nodes: Sequence[Node], load: Load) -> tuple[list[Client], list[Sender]]:
    """Senders at these nodes in turn, each of whom has once said something in each of his rooms."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> Client:
        async with gate:
            rooms = load.rooms_of(number)
            client = await connect(as_server(nodes[number % len(nodes)]), f"user{number}", rooms)
            for room in rooms:
                await client.ask(action="send", room=room, text="first")
            return client

    clients = list(await asyncio.gather(*(one(number) for number in range(load.senders))))
    return clients, [Sender(client, load.rooms_of(number)) for number, client in enumerate(clients)]


async def measure(nodes: Sequence[Node], load: Load, seconds: float, used: Callable[[], Cpu]) -> Figures:
    """Let them send for a while, to these nodes in turn."""
    clients, senders = await gathered(nodes, load)
    before = used()
    ends_at = time.perf_counter() + seconds
    for sender in senders:
        sender.ends_at = ends_at
        sender.start()
    await asyncio.sleep(seconds)
    async with asyncio.timeout(30):
        while any(sender.is_waiting for sender in senders):
            await asyncio.sleep(0.002)
    spent = used().since(before)
    disconnect(clients)
    latencies = sorted(latency for sender in senders for latency in sender.latencies)
    count = len(latencies)
    return Figures(
        count / seconds,
        *(part / count * 1e6 for part in spent),
        latencies[count // 2] * 1e3,
        latencies[int(count * 0.99)] * 1e3,
    )


async def main(rounds: int, seconds: float) -> list[dict[str, object]]:
    """Measure all homes in turn, in every round, print a table and return its rows."""
    rows: list[dict[str, object]] = []
    with lone_node() as alone, running_cluster(nodes=3) as cluster:
        homes: dict[str, tuple[Sequence[Node], Callable[[], Cpu]]] = {
            "SQLite, 1 node": ([alone], lambda: Cpu(cpu_of(alone.pid), 0.0, 0.0))
        }
        for count in (1, 2, 3):
            nodes = cluster.nodes[:count]
            homes[f"PostgreSQL, {count} node{'s' * (count > 1)}"] = (nodes, lambda nodes=nodes: cpu(cluster, nodes))
        print(
            f"{'':>20}  rooms  senders   acks/s  CPU us/ack = nodes + PostgreSQL + NATS   p50 ms   p99 ms"
            "  CPU to SQLite's"
        )
        for load in LOADS:
            figures: dict[str, list[Figures]] = {home: [] for home in homes}
            for nodes, used in homes.values():
                await measure(nodes, load, 1, used)
            for _ in range(rounds):
                for home, (nodes, used) in homes.items():
                    figures[home].append(await measure(nodes, load, seconds, used))
            beside = [each.total_us for each in figures["SQLite, 1 node"]]
            for home, each in figures.items():
                all_of = medians(each)
                ratio = statistics.median(ours.total_us / theirs for ours, theirs in zip(each, beside, strict=True))
                print(
                    f"{home:>20}  {load.rooms:>5,}  {load.senders:>7}  {all_of.rate:>7,.0f}  {all_of.total_us:>10.0f} ="
                    f" {all_of.nodes_us:>5.0f} + {all_of.postgres_us:>10.0f} + {all_of.nats_us:>4.0f}"
                    f"   {all_of.p50_ms:>6.1f}   {all_of.p99_ms:>6.1f}  {ratio:>6.2f}",
                    flush=True,
                )
                asked = {"home": home, "rooms": load.rooms, "senders": load.senders}
                rows.append({**asked, **all_of._asdict(), "ratio": ratio})
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    saving.add_argument(parser)
    chosen = parser.parse_args()
    rows = uvloop.run(main(chosen.rounds, chosen.seconds))
    if chosen.save:
        saving.save("cluster_sends", {"rows": rows})
