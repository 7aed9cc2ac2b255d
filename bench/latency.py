"""From a publish until the last of 1,000 listeners has it, beside a broadcaster in C: `python -m bench.latency`.

Ten messages a second of 200 bytes, so that each finds the server at rest. Hubbub's are checked, stored with fsync and
given a `seq` before anybody has them. The clock is that of the load, a program in C that sends the message and counts
the deliveries; both servers take turns in each round. Messages begin when they are due, whether or not the one before
was late.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple

import msgspec
import uvloop

from bench import saving
from bench.load import ROOM, hubbub_server, token
from bench.native import Audience, Publisher, audience, broadcaster

TEXT = "x" * 200
WARM = 10
"""Messages before the first that counts."""


class Hall(NamedTuple):
    """A server with its listeners, ready for messages."""

    crowd: Audience
    publisher: Publisher


@asynccontextmanager
async def bare(listening: int) -> AsyncIterator[Hall]:
    """The broadcaster in C."""
    async with broadcaster() as server, audience(server) as crowd:
        await crowd.open([(None, "listen")] * listening)
        yield Hall(crowd, Publisher(await crowd.open([(None, "")]), listening, TEXT))


@asynccontextmanager
async def hubbub(listening: int) -> AsyncIterator[Hall]:
    """`hubbub serve` on a SQLite file."""
    async with hubbub_server() as server, audience(server, "/ws") as crowd:
        first = await crowd.open([(token("publisher"), _frame(action="history", room=ROOM))], 1)
        await crowd.open([(token(f"user{number}"), _frame(action="sync")) for number in range(listening)], 1)
        await asyncio.sleep(2.5)  # presence has been told
        yield Hall(crowd, Publisher(first, listening, _frame(action="send", room=ROOM, text=TEXT)))


SERVERS: dict[str, Callable[[int], AbstractAsyncContextManager[Hall]]] = {"bare C": bare, "Hubbub": hubbub}


async def measure(hall: Hall, messages: int, rate: float) -> list[float]:
    """Milliseconds until the last listener had it, of each message; due times are `1 / rate` seconds apart.

    A message that could not be sent when it was due, since the one before took longer than that, is late from then on.
    """
    loop = asyncio.get_running_loop()
    await hall.crowd.run([hall.publisher], WARM, 1, len(TEXT))
    took: list[float] = []
    began = loop.time() + 1 / rate
    for number in range(messages):
        due = began + number / rate
        late_s = loop.time() - due
        if late_s < 0:
            await asyncio.sleep(-late_s)
            late_s = 0.0  # that the load's own timer is not exact is not the server's fault
        ran = await hall.crowd.run([hall.publisher], 1, 1, len(TEXT))
        took.append((late_s + ran.seconds) * 1e3)
    return took


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def main(rounds: int, messages: int, listening: int, rate: float) -> dict[str, object]:
    """Measure in interleaved rounds, print a table, and return what is to be saved."""
    found: dict[str, list[list[float]]] = {name: [] for name in SERVERS}
    for _ in range(rounds):
        for name, server in SERVERS.items():
            async with server(listening) as hall:
                found[name].append(await measure(hall, messages, rate))
    print(f"{listening:,} listeners, {rate:g} messages a second; ms from the publish until the last has it")
    print(f"{'':>8}      p50      p99  longest   (medians of {rounds} rounds of {messages} messages; longest of all)")
    rows: dict[str, dict[str, float]] = {}
    for name, series in found.items():
        rows[name] = {
            "p50_ms": statistics.median(percentile(each, 0.5) for each in series),
            "p99_ms": statistics.median(percentile(each, 0.99) for each in series),
            "longest_ms": max(max(each) for each in series),
        }
        print(f"{name:>8}  " + "  ".join(f"{value:>7.2f}" for value in rows[name].values()), flush=True)
    pairs = list(zip(found["Hubbub"], found["bare C"], strict=True))
    ratios = {
        f"p{share * 100:.0f}_ratio": statistics.median(
            percentile(ours, share) / percentile(theirs, share) for ours, theirs in pairs
        )
        for share in (0.5, 0.99)
    }
    print("  Hubbub to bare C, in the same round: " + ", ".join(f"{k[:-6]} {v:.2f}" for k, v in ratios.items()))
    return {"listeners": listening, "per_s": rate, "rounds": rounds, "messages": messages, "rows": rows, **ratios}


def _frame(**fields: object) -> str:
    return msgspec.json.encode({**fields, "ref": "r"}).decode()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=200, help="in each round")
    parser.add_argument("--listeners", type=int, default=1_000)
    parser.add_argument("--rate", type=float, default=10, help="messages a second")
    saving.add_argument(parser)
    chosen = parser.parse_args()
    figures = uvloop.run(main(chosen.rounds, chosen.messages, chosen.listeners, chosen.rate))
    if chosen.save:
        saving.save("latency", figures)
