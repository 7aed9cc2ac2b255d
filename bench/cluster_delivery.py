"""What a delivery costs across two nodes, and when the last listener has it: `python -m bench.cluster_delivery`.

One sender, 200-byte texts, 100 to 2,000 listeners of one room: at a node that is alone (SQLite, local fan-out), at the
sender's own node of a cluster, at the other node, and half at each. With one message in flight the next is sent when
all have the last one; with 16 they follow each other. All rooms stay full, and each round takes them in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

import msgspec
import uvloop
from scripts.cluster import Cluster, Node

from bench import saving
from bench.cluster import Cpu, as_server, cpu, cpu_of, disconnect, lone_node, running_cluster
from bench.crowd import open_files
from bench.load import Client, connect, until

TEXT = "x" * 200
AT_ONCE = 64
"""Connections that are opened at a time."""

SETTLED_S = 4.0
"""After how long nothing is under way any more but what is measured."""


class Figures(NamedTuple):
    """Of a round.

    Attributes:
        nodes_us, nats_us: processor time of a delivery, microseconds.
        postgres_us: that of a message.
        took_s: of each message, from its sending until the last listener had it; only with one in flight.

    """

    nodes_us: float
    nats_us: float
    postgres_us: float
    took_s: list[float]


class Hall:
    """A room, its sender and its listeners.

    Args:
        sender: who sends.
        listeners: who listen.
        room: its id.
        used: what the servers have used so far.

    """

    def __init__(self, sender: Client, listeners: Sequence[Client], room: str, used: Callable[[], Cpu]) -> None:
        self._sender = sender
        self._used = used
        self._frame = msgspec.json.encode({"action": "send", "ref": "r", "room": room, "text": TEXT})
        self._heard = 0
        self._answers = 0
        self.listeners = listeners
        sender.on_frame = self._answered
        for listener in listeners:
            listener.on_frame = self._delivered

    def _answered(self, reply: bytes) -> None:
        if b'"type":"error"' in reply:
            raise RuntimeError(f"not sent: {reply!r}")
        self._answers += b'"type":"ok"' in reply

    def _delivered(self, frame: bytes) -> None:
        self._heard += len(frame) > len(TEXT)  # signals are shorter

    async def volley(self, messages: int, in_flight: int) -> Figures:
        """Send that many, and wait until all have all."""
        size = len(self.listeners)
        self._heard = self._answers = 0
        before = self._used()
        took: list[float] = []
        sent = 0
        while sent < messages:
            while sent < messages and sent - self._heard // size < in_flight:
                sent_at = time.perf_counter()
                self._sender.send(self._frame)
                sent += 1
            await asyncio.sleep(0)
            if in_flight == 1:
                while self._heard < sent * size:
                    await asyncio.sleep(0)
                took.append(time.perf_counter() - sent_at)
        await until(lambda: self._heard == messages * size and self._answers == messages)
        spent = self._used().since(before)
        deliveries = messages * size
        return Figures(
            spent.nodes / deliveries * 1e6, spent.nats / deliveries * 1e6, spent.postgres / messages * 1e6, took
        )


async def hall(
    name: str, listening: int, sender_at: Node, listeners_at: Sequence[Node], used: Callable[[], Cpu]
) -> Hall:
    """Fill a room with listeners at these nodes in turn."""
    room = f"{name.replace(' ', '-')}-{listening}"
    sender = await connect(as_server(sender_at), "sender", [room])
    await sender.ask(action="send", room=room, text="first")
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> Client:
        async with gate:
            node = listeners_at[number % len(listeners_at)]
            client = await connect(as_server(node), f"listener{number}", [room])
            await client.ask(action="sync")
            return client

    listeners = await asyncio.gather(*(one(number) for number in range(listening)))
    return Hall(sender, list(listeners), room, used)


@contextlib.asynccontextmanager
async def halls(alone: Node, cluster: Cluster, listening: int) -> AsyncIterator[dict[str, Hall]]:
    """The rooms of one size."""
    first, second = cluster.nodes
    both = lambda: cpu(cluster, cluster.nodes)  # noqa: E731
    opened = {
        "alone": await hall("alone", listening, alone, [alone], lambda: Cpu(cpu_of(alone.pid), 0.0, 0.0)),
        "same node": await hall("same node", listening, first, [first], both),
        "other node": await hall("other node", listening, first, [second], both),
        "half and half": await hall("half and half", listening, first, [first, second], both),
    }
    await asyncio.sleep(SETTLED_S)
    try:
        yield opened
    finally:
        for each in opened.values():
            disconnect(each.listeners)


def row(listening: int, in_flight: int, where: str, rounds: Sequence[Figures], beside: Sequence[Figures]) -> str:
    """A line of the table."""
    found = figures_of(rounds, beside)
    times = f"{found['p50_ms']:>7.1f}  {found['p99_ms']:>7.1f}" if "p50_ms" in found else ""
    return (
        f"{listening:>9,}  {in_flight:>9}  {where:>13}  {found['nodes_us']:>9.2f}  {found['nats_us']:>8.2f}"
        f"  {found['ratio']:>6.2f}  {found['postgres_us']:>14.0f}  {times}"
    )


def figures_of(rounds: Sequence[Figures], beside: Sequence[Figures]) -> dict[str, float]:
    """The medians, the ratio to the lone node in the same round, and of the times the median and p99."""
    nodes, nats, postgres = (statistics.median(column) for column in zip(*(each[:3] for each in rounds), strict=True))
    ratio = statistics.median(
        (ours.nodes_us + ours.nats_us) / (theirs.nodes_us + theirs.nats_us)
        for ours, theirs in zip(rounds, beside, strict=True)
    )
    found = {"nodes_us": nodes, "nats_us": nats, "postgres_us": postgres, "ratio": ratio}
    if took := sorted(each for figures in rounds for each in figures.took_s):
        found |= {"p50_ms": took[len(took) // 2] * 1e3, "p99_ms": took[int(len(took) * 0.99)] * 1e3}
    return found


async def main(rounds: int, deliveries: int, sizes: Sequence[int]) -> list[dict[str, object]]:
    """Measure in interleaved rounds, print a table and return its rows."""
    rows: list[dict[str, object]] = []
    open_files(10_000)
    print(f"{'':>37}CPU us/delivery  to one   PostgreSQL us  ms until the last has it")
    print("listeners  in flight          where      nodes      NATS    alone       / message   median      p99")
    with lone_node() as alone, running_cluster(nodes=2) as cluster:
        for listening in sizes:
            async with halls(alone, cluster, listening) as rooms:
                for in_flight in (1, 16):
                    figures: dict[str, list[Figures]] = {where: [] for where in rooms}
                    for each in rooms.values():
                        await each.volley(20, in_flight)
                    for _ in range(rounds):
                        for where, each in rooms.items():
                            figures[where].append(await each.volley(max(20, deliveries // listening), in_flight))
                    for where, all_of in figures.items():
                        print(row(listening, in_flight, where, all_of, figures["alone"]), flush=True)
                        found = figures_of(all_of, figures["alone"])
                        rows.append({"listeners": listening, "in_flight": in_flight, "where": where, **found})
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--deliveries", type=int, default=100_000, help="in each round")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 2_000])
    saving.add_argument(parser)
    chosen = parser.parse_args()
    rows = uvloop.run(main(chosen.rounds, chosen.deliveries, chosen.sizes))
    if chosen.save:
        saving.save("cluster_delivery", {"rows": rows})
