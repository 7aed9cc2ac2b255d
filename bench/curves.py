"""How cost grows with the work: `python -m bench.curves [--only room,rooms] [--sizes 10,100] [--save]`.

Rooms of 10 to 100,000 listeners, 1 to 100,000 rooms, users in up to 1,000 rooms each, logs of up to 10 million entries,
on a node of this process with pretended sockets (`bench.pretend`); rooms of up to 10,000 on `hubbub serve` with real
ones. The exponent of growth is fitted over the two largest decades: nothing may grow worse than linearly, and why
something grows at all is said beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop

from bench import saving
from bench.load import ROOM, hubbub_server, token
from bench.longlog import lengthen
from bench.native import Publisher, audience
from bench.pretend import Node, Pretended, cpu_s, pretended_node
from hubbub.apigateway import new_id

SENDER = "sender"
TEXT = "x" * 200
TIMES = 30
"""How often an operation is measured at a size; what counts is the median."""

WORST = 1.15
"""The exponent beyond which growth is worse than linear: what a fit over two decades may be off by."""

FLAT = 0.3
"""The exponent below which a cost is called constant; a tree of ten million rows is deeper than one of ten thousand."""

Point = dict[str, float]
"""What was measured at a size: microseconds of processor time, by operation."""


class Curve(NamedTuple):
    """How the cost of some operations grows with one quantity.

    Attributes:
        about: what grows.
        sizes: where it is measured.
        points: measures at these sizes.
        why: of each operation: why it grows, or "" where it should not.

    """

    about: str
    sizes: tuple[int, ...]
    points: Callable[[Sequence[int]], AsyncIterator[tuple[int, Point]]]
    why: dict[str, str]


class Growth(msgspec.Struct):
    """The verdict on one operation.

    Attributes:
        operation: its name.
        exponent: of the size, fitted over the two largest decades; None where there are no two sizes in them.
        grows: "constant", "less than linear", "linear" or "worse"; "unknown" without an exponent.
        why: why it grows, or "" where it should not.
        is_fine: whether it grows no worse than linearly, and not at all where it should not.

    """

    operation: str
    exponent: float | None
    grows: str
    why: str
    is_fine: bool


class Gauge:
    """Processor time as it would be with the machine at its quickest.

    A core that others use too does less in the same time, for minutes on end, which would look like growth. So a fixed
    piece of work is timed beside each operation, and what counts is the ratio.
    """

    quickest_s = math.inf

    @classmethod
    def ratio(cls, spent_s: float) -> float:
        """What was spent just now, in units of the fixed piece of work."""
        before = cpu_s()
        sum(map(str.__len__, map(str, range(2_000))))
        fixed_s = cpu_s() - before
        cls.quickest_s = min(cls.quickest_s, fixed_s)
        return spent_s / fixed_s

    @classmethod
    def us(cls, ratios: Sequence[float]) -> float:
        """The median of these, in microseconds."""
        return statistics.median(ratios) * cls.quickest_s * 1e6


async def cost_us(operation: Callable[..., Awaitable[object]], *arguments: object, **fields: object) -> float:
    """The processor time of an operation, in microseconds, all threads together."""
    await operation(*arguments, **fields)
    ratios: list[float] = []
    for _ in range(TIMES):
        before = cpu_s()
        await operation(*arguments, **fields)
        ratios.append(Gauge.ratio(cpu_s() - before))
    return Gauge.us(ratios)


async def flushed(node: Node, one: Pretended, **fields: object) -> None:
    """Ask something, and let what it published be written."""
    await node.ask(one, **fields)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def room_of_many(sizes: Sequence[int]) -> AsyncIterator[tuple[int, Point]]:
    """One room with more and more listeners."""
    async with pretended_node() as node:
        sender = await node.listener(SENDER, ["hall"])
        there = 1
        for size in sizes:
            await node.fill([(f"user{number}", ["hall"]) for number in range(there, size)])
            there = max(there, size)
            await node.chat.tick()
            node.chat.presence.listed_for_s = 0.0  # each time anew, as if a second had passed
            message = await cost_us(flushed, node, sender, action="send", room="hall", text=TEXT)
            comes, goes, tells = await _come_and_go(node, ["hall"])
            online = await cost_us(node.ask, sender, action="presence", room="hall")
            yield size, {"message": message, "comes": comes, "goes": goes, "tick": tells, "who is online": online}


async def many_rooms(sizes: Sequence[int]) -> AsyncIterator[tuple[int, Point]]:
    """More and more rooms, with one listener each."""
    async with pretended_node() as node:
        there: list[Pretended] = []
        for size in sizes:
            names = [f"room{number}" for number in range(len(there), size)]
            await node.make_rooms(names)
            there += await node.fill([(f"user-of-{name}", [name]) for name in names])
            await node.chat.tick()
            first = there[0]
            message = await cost_us(flushed, node, first, action="send", room="room0", text=TEXT)
            comes, goes, tells = await _come_and_go(node, ["room0"])
            yield size, {"message": message, "comes": comes, "goes": goes, "tick": tells}


async def rooms_of_a_user(sizes: Sequence[int]) -> AsyncIterator[tuple[int, Point]]:
    """Users who are in more and more rooms each; ten others listen in all of these."""
    async with pretended_node() as node:
        await node.make_rooms([f"room{number}" for number in range(max(sizes))])
        talker = await node.connect("talker", [f"room{number}" for number in range(max(sizes))])
        for size in sizes:
            rooms = [f"room{number}" for number in range(size)]
            await node.fill([(f"user{number}-of-{size}", rooms) for number in range(10)])
            await node.chat.tick()
            comes, goes, tells = await _come_and_go(node, rooms)
            one = await node.listener("one", rooms)
            known = (await node.ask(one, action="sync"))["rooms"]
            heads = {state["room"]: state["head"] for state in known}  # type: ignore[attr-defined]  # a reply's
            again = await cost_us(node.ask, one, action="sync", rooms=heads)
            for room in rooms:
                await node.ask(talker, action="send", room=room, text="missed")
            missed = await cost_us(node.ask, one, action="sync", rooms=heads)
            message = await cost_us(flushed, node, talker, action="send", room="room0", text=TEXT)
            yield (
                size,
                {
                    "comes": comes,
                    "sync, nothing missed": again,
                    "sync, one missed in each": missed,
                    "message": message,
                    "goes": goes,
                    "tick": tells,
                },
            )


async def connections_of_a_user(sizes: Sequence[int]) -> AsyncIterator[tuple[int, Point]]:
    """One user with more and more connections, as where all who have no account share one."""
    async with pretended_node() as node:
        there = 0
        for size in sizes:
            await node.fill([("guest", ["lobby"])] * (size - there))
            there = max(there, size)
            await node.chat.tick()
            talker = await node.connect("talker", ["lobby"])
            message = await cost_us(flushed, node, talker, action="send", room="lobby", text=TEXT)
            comes, goes, tells = await _come_and_go(node, ["lobby"], "guest")
            yield size, {"message": message, "comes": comes, "goes": goes, "tick": tells}


async def long_history(sizes: Sequence[int]) -> AsyncIterator[tuple[int, Point]]:
    """One room whose log gets longer and longer."""
    with tempfile.TemporaryDirectory(prefix="hubbub-bench-") as folder:
        path = Path(folder) / "history.db"
        async with _reader_of(path) as (node, one):
            await node.ask(one, action="send", room="log", text=TEXT[:20], client_id="c000000000001")
        for size in sizes:
            await asyncio.to_thread(lengthen, path, "log", size)
            async with _reader_of(path) as (node, one):
                page = {
                    "last page": await cost_us(node.ask, one, action="history", room="log"),
                    "first page": await cost_us(node.ask, one, action="history", room="log", after=0),
                    "page in the middle": await cost_us(node.ask, one, action="history", room="log", around=size // 2),
                }
                append = await cost_us(_say, node, one)
                # Its log's end is another than before: the next step begins there, with a message as it must.
                await node.ask(one, action="send", room="log", text=TEXT[:20], client_id=f"z{size}")
                yield size, {**page, "message": append}


async def _say(node: Node, one: Pretended) -> None:
    """A message with a `client_id` of its own, so that whether it was sent before is looked up."""
    await flushed(node, one, action="send", room="log", text=TEXT[:20], client_id=new_id())


@asynccontextmanager
async def _reader_of(path: Path) -> AsyncIterator[tuple[Node, Pretended]]:
    async with pretended_node(f"sqlite:///{path}") as node:
        yield node, await node.listener("reader", ["log"])


async def real_sockets(sizes: Sequence[int]) -> AsyncIterator[tuple[int, Point]]:
    """One room on a server of its own, whose listeners have real sockets: the server's processor time."""
    async with hubbub_server() as server, audience(server, "/ws") as crowd:
        history = msgspec.json.encode({"action": "history", "ref": "r", "room": ROOM}).decode()
        first = await crowd.open([(token(SENDER), history)], 1)
        sync = msgspec.json.encode({"action": "sync", "ref": "r"}).decode()
        frame = msgspec.json.encode({"action": "send", "ref": "r", "room": ROOM, "text": TEXT}).decode()
        there = 0
        for size in sizes:
            await crowd.open([(token(f"user{number}"), sync) for number in range(there, size)], 1)
            there = max(there, size)
            await asyncio.sleep(2.5)  # presence has been told
            ratios: list[float] = []
            for _ in range(max(10, min(TIMES, 20_000 // size))):
                before = server.cpu_s()
                await crowd.run([Publisher(first, size, frame)], 1, 1, len(TEXT))
                ratios.append(Gauge.ratio(server.cpu_s() - before))
            yield size, {"message": Gauge.us(ratios)}


async def _come_and_go(node: Node, rooms: Sequence[str], user: str | None = None) -> tuple[float, float, float]:
    """What it costs that one comes and listens, that he goes, and what the second's work is after that.

    It is another user each time, unless `user` says who.
    """
    came: list[float] = []
    went: list[float] = []
    told: list[float] = []
    for number in range(TIMES):
        before = cpu_s()
        one = await node.listener(user or f"visitor{number}", rooms)
        came.append(Gauge.ratio(cpu_s() - before))
        before = cpu_s()
        await node.chat.tick()
        told.append(Gauge.ratio(cpu_s() - before))
        before = cpu_s()
        await node.go(one)
        went.append(Gauge.ratio(cpu_s() - before))
    return Gauge.us(came), Gauge.us(went), Gauge.us(told)


EVERYBODY = "each listener is written to once"
EACH_ROOM = "each of the user's rooms is named, joined or left"

CURVES = {
    "room": Curve(
        "listeners of one room, pretended sockets",
        (10, 100, 1_000, 10_000, 100_000),
        room_of_many,
        {
            "message": EVERYBODY,
            "comes": "",
            "goes": "",
            "tick": "",
            "who is online": "the first 200 by name are picked from all, at most once a second for all who ask",
        },
    ),
    "rooms": Curve(
        "rooms with one listener each, pretended sockets",
        (1, 10, 100, 1_000, 10_000, 100_000),
        many_rooms,
        {"message": "", "comes": "", "goes": "", "tick": ""},
    ),
    "user": Curve(
        "rooms that each user is in, pretended sockets",
        (1, 10, 100, 1_000),
        rooms_of_a_user,
        {
            "comes": EACH_ROOM,
            "sync, nothing missed": EACH_ROOM,
            "sync, one missed in each": "each of the rooms has a page to read",
            "message": "",
            "goes": EACH_ROOM,
            "tick": "each of the rooms is told who has come",
        },
    ),
    "guest": Curve(
        "connections of one user, pretended sockets",
        (10, 100, 1_000, 10_000, 100_000),
        connections_of_a_user,
        {"message": EVERYBODY, "comes": "", "goes": "", "tick": ""},
    ),
    "history": Curve(
        "entries in a room's log",
        (10_000, 100_000, 1_000_000, 10_000_000),
        long_history,
        {"last page": "", "first page": "", "page in the middle": "", "message": ""},
    ),
    "sockets": Curve(
        "listeners of one room, real sockets", (10, 100, 1_000, 10_000), real_sockets, {"message": EVERYBODY}
    ),
}


def exponent(points: Sequence[tuple[int, float]]) -> float | None:
    """The slope of the logarithms' straight line over the two largest decades; None where that has no two sizes."""
    most = max((size for size, _ in points), default=0)
    chosen = [(math.log(size), math.log(max(us, 0.1))) for size, us in points if size * 100 >= most]
    if len({size for size, _ in chosen}) < 2:
        return None
    return statistics.linear_regression(*zip(*chosen, strict=True)).slope


def judge(operation: str, points: Sequence[tuple[int, float]], why: str) -> Growth:
    """How an operation grows, and whether it may."""
    found = exponent(points)
    if found is None:
        return Growth(operation, None, "unknown", why, True)
    grows = (
        "constant" if found <= FLAT else "less than linear" if found < 0.85 else "linear" if found <= WORST else "worse"
    )
    return Growth(operation, round(found, 2), grows, why, grows != "worse" and (bool(why) or grows == "constant"))


async def measure(name: str, sizes: Sequence[int] | None) -> tuple[list[dict[str, float]], list[Growth]]:
    """A curve's rows, and the verdicts; the table is printed on the way."""
    curve = CURVES[name]
    chosen = sizes_of(name, sizes)
    print(f"\n{name}: {curve.about}; processor time in us")
    print(f"{'':>12}" + "".join(f"  {operation:>{_width(operation)}}" for operation in curve.why))
    rows: list[dict[str, float]] = []
    async for size, point in curve.points(chosen):
        rows.append({"size": size, **point})
        print(
            f"{size:>12,}" + "".join(f"  {point[each]:>{_width(each)},.1f}" for each in curve.why),
            flush=True,
        )
    verdicts = [judge(each, [(int(row["size"]), row[each]) for row in rows], why) for each, why in curve.why.items()]
    for growth in verdicts:
        slope = "" if growth.exponent is None else f" (exponent {growth.exponent:.2f})"
        mark = "" if growth.is_fine else "   <-- should not"
        print(f"  {growth.operation}: {growth.grows}{slope}{f': {growth.why}' if growth.why else ''}{mark}")
    return rows, verdicts


def sizes_of(name: str, wanted: Sequence[int] | None) -> list[int]:
    """At which of its sizes a curve is measured.

    Raises:
        ValueError: at none of them.

    """
    sizes = CURVES[name].sizes
    chosen = [size for size in sizes if wanted is None or size in wanted]
    if not chosen:
        got = ", ".join(map(str, wanted or ()))
        raise ValueError(f"{name}: expected some of the sizes {', '.join(map(str, sizes))}; got {got}")
    return chosen


def _width(operation: str) -> int:
    return max(12, len(operation))


def main(only: Sequence[str], sizes: Sequence[int] | None) -> dict[str, object]:
    """Measure curves and return what is to be saved."""
    found: dict[str, object] = {}
    for name in only:
        rows, verdicts = uvloop.run(measure(name, sizes))
        found[name] = {"about": CURVES[name].about, "rows": rows, "growth": verdicts}
    return found


def _is_fine(found: dict[str, object]) -> bool:
    curves = msgspec.convert(msgspec.to_builtins(found), dict[str, dict[str, object]])
    return all(growth["is_fine"] for curve in curves.values() for growth in curve["growth"])  # type: ignore[attr-defined]


def curve_names(text: str) -> list[str]:
    """Names of curves, separated by commas.

    Raises:
        argparse.ArgumentTypeError: there is no such curve.

    """
    chosen = text.split(",")
    for each in chosen:
        if each not in CURVES:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(CURVES)}; got {each!r}")
    return chosen


def numbers(text: str) -> list[int]:
    """Sizes, separated by commas.

    Raises:
        argparse.ArgumentTypeError: something else is among them.

    """
    try:
        return [int(each) for each in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers separated by commas, got {text!r}") from None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=curve_names, default=list(CURVES), metavar="A,B", help=", ".join(CURVES))
    parser.add_argument("--sizes", type=numbers, metavar="N,M", help="only these of those measured otherwise")
    saving.add_argument(parser)
    chosen = parser.parse_args()
    try:
        for name in chosen.only:
            sizes_of(name, chosen.sizes)
    except ValueError as error:
        parser.error(str(error))
    figures = main(chosen.only, chosen.sizes)
    if chosen.save:
        saving.save("curves", figures)
    sys.exit(not _is_fine(figures))
