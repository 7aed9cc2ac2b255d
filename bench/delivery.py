"""Server CPU time per delivered message, beside a broadcaster in C that makes one `send` a listener.

    python -m bench.delivery [--rounds 5] [--quick] [--only NAME] [--save]

200-byte texts to 100 and 1,000 listeners of one room, and to 100 rooms of 100 with each listener in four of them. With
one message in flight a room's next is sent when all its listeners have the last one; with 16 they follow each other.
Hubbub's messages take the whole way: checked, stored with fsync, given a `seq`, acknowledged. It tells members who has
come, which in many rooms is as many frames as are counted here, so nothing is measured before that is over. Listeners
and publishers are a program in C that counts, on a core of its own; servers take turns in each round.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

import msgspec
import uvloop

from bench import saving
from bench.load import Server, hubbub_server, token
from bench.native import Audience, Publisher, Run, audience, broadcaster

TEXT_BYTES = 200
ROOMS_OF_EACH = 4

TOLD_S = 3.0
"""After so long all have been told who has come: that begins within a second."""


class Shape(NamedTuple):
    """Who listens to what: so many rooms of so many listeners, each of whom is in some rooms."""

    name: str
    rooms: int
    listeners: int
    rooms_of_each: int = 1

    def memberships(self) -> list[list[int]]:
        """The rooms of each connection: no two of it the same, all rooms as full; the same in each run."""
        connections = self.rooms * self.listeners // self.rooms_of_each
        shuffled = random.Random(1)
        mine: list[list[int]] = [[] for _ in range(connections)]
        for nth in range(self.rooms_of_each):  # each time a part of the rooms of its own
            part = [room for room in range(self.rooms) if room % self.rooms_of_each == nth]
            seats = [room for room in part for _ in range(self.listeners)]
            shuffled.shuffle(seats)
            for rooms, seat in zip(mine, seats, strict=True):
                rooms.append(seat)
        return mine


SHAPES = (
    Shape("100 listeners", 1, 100),
    Shape("1,000 listeners", 1, 1_000),
    Shape("100 rooms of 100", 100, 100, ROOMS_OF_EACH),
)


class Figures(NamedTuple):
    """What one server did in one run: processor time of a delivery, deliveries a second, and how busy the load was."""

    cpu_us: float
    per_s: float
    load_busy: float


Serve = Callable[[], AbstractAsyncContextManager[Server]]


async def _measure(server: Server, crowd: Audience, publishers: list[Publisher], count: int, in_flight: int) -> Figures:
    warm_up = max(2, count // 20)
    await crowd.run(publishers, warm_up, in_flight, TEXT_BYTES)
    before = server.cpu_s()
    ran: Run = await crowd.run(publishers, count, in_flight, TEXT_BYTES)
    cpu_s = server.cpu_s() - before
    return Figures(cpu_s / ran.deliveries * 1e6, ran.deliveries / ran.seconds, ran.load_cpu_s / ran.seconds)


def _text(number: int) -> str:
    return f"~{number:03}~".ljust(TEXT_BYTES, "x")


async def bare(serve: Serve, shape: Shape, count: int, in_flight: int) -> Figures:
    """The figures of a bare broadcaster."""
    async with serve() as server, audience(server) as crowd:
        texts = [
            "listen " + " ".join(map(str, rooms)) if shape.rooms > 1 else "listen" for rooms in shape.memberships()
        ]
        await crowd.open([(None, text) for text in texts])
        first = await crowd.open([(None, "")] * shape.rooms)
        publishers = [Publisher(first + n, shape.listeners, _text(n)) for n in range(shape.rooms)]
        return await _measure(server, crowd, publishers, count, in_flight)


async def hubbub(shape: Shape, count: int, in_flight: int) -> Figures:
    """Hubbub's figures."""
    # Without the accelerator it is another server: no figure is to be of that one by accident.
    wanted = os.environ.get("HUBBUB_ACCELERATOR", "1")
    async with hubbub_server(accelerator=wanted) as server, audience(server, "/ws") as crowd:
        names = [f"bench{n}" for n in range(shape.rooms)]
        history = [_frame(action="history", room=name) for name in names]
        first = await crowd.open(
            [(token("publisher", [name]), ask) for name, ask in zip(names, history, strict=True)], 1
        )
        members = [
            (token(f"watcher{n}", [names[room] for room in rooms]), _frame(action="sync"))
            for n, rooms in enumerate(shape.memberships())
        ]
        await crowd.open(members, 1)
        await asyncio.sleep(TOLD_S)
        publishers = [
            Publisher(first + n, shape.listeners, _frame(action="send", room=name, text=_text(n)))
            for n, name in enumerate(names)
        ]
        return await _measure(server, crowd, publishers, count, in_flight)


def _frame(**fields: object) -> str:
    return msgspec.json.encode({**fields, "ref": "r"}).decode()


async def measure(shape: Shape, in_flight: int, rounds: int, deliveries: int) -> dict[str, object]:
    """All servers in interleaved rounds; medians, and the medians of the rounds' ratios."""
    count = max(2 * in_flight, deliveries // (shape.rooms * shape.listeners))
    found: dict[str, list[Figures]] = {"bare": [], "joined": [], "hubbub": []}
    for _ in range(rounds):
        found["bare"].append(await bare(broadcaster, shape, count, in_flight))
        found["joined"].append(await bare(lambda: broadcaster("joined"), shape, count, in_flight))
        found["hubbub"].append(await hubbub(shape, count, in_flight))
    row: dict[str, object] = {"shape": shape.name, "in_flight": in_flight, "rounds": rounds, "messages": count}
    most_busy = 0.0
    for name, figures in found.items():
        cpu_us, per_s, busy = (statistics.median(column) for column in zip(*figures, strict=True))
        row |= {f"{name}_us": cpu_us, f"{name}_per_s": per_s}
        most_busy = max(most_busy, busy)
    pairs = list(zip(found["bare"], found["hubbub"], strict=True))
    row["ratio"] = statistics.median(ours.cpu_us / theirs.cpu_us for theirs, ours in pairs)
    row["times"] = statistics.median(ours.per_s / theirs.per_s for theirs, ours in pairs)
    row["load_busy"] = most_busy  # where this comes near 1, the load and not the server bounds the rate
    return row


async def main(rounds: int, quick: bool, only: str | None = None) -> list[dict[str, object]]:
    """Measure in interleaved rounds and print a table."""
    rows = []
    print(f"CPU of the server for a delivery, us, and thousand deliveries a second; medians of {rounds} rounds")
    print(f"{'':>16}  in flight   bare C  joined  Hubbub  ratio   bare C  joined  Hubbub  times")
    for shape in SHAPES:
        if only is not None and only != shape.name:
            continue
        for in_flight in (1, 16):
            row = await measure(shape, in_flight, rounds, 40_000 if quick else 400_000)
            cpu = [row[f"{name}_us"] for name in ("bare", "joined", "hubbub")]
            rate = [row[f"{name}_per_s"] for name in ("bare", "joined", "hubbub")]
            print(
                f"{shape.name:>16}  {in_flight:>9}  {cpu[0]:>7.2f}{cpu[1]:>8.2f}{cpu[2]:>8.2f}{row['ratio']:>7.2f}"
                f"{rate[0] / 1e3:>9,.0f}{rate[1] / 1e3:>8,.0f}{rate[2] / 1e3:>8,.0f}{row['times']:>7.2f}",
                flush=True,
            )
            rows.append(row)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=[shape.name for shape in SHAPES])
    saving.add_argument(parser)
    chosen = parser.parse_args()
    rows = uvloop.run(main(chosen.rounds, chosen.quick, chosen.only))
    if chosen.save:
        saving.save("delivery", {"rows": rows})
