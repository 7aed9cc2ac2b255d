"""Where the time of one message goes, by thread and by step: `python -m bench.path`.

The whole chat in this process, without sockets: a message goes in as the gateway would give it, the entry is stored,
framed once and handed to one listener whose socket takes everything. Beside the short way stands the long one, which a
chat with a hook on messages takes; beside a store in memory the one on disk shows what durability costs; beside one
message at a time 16 and 256 show what sharing a commit saves. `--steps` shows the loop's part function by function.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import statistics
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import msgspec
import uvloop

from bench import saving
from bench.load import ROOM
from bench.pretend import Node, Pretended, pretended_node
from hubbub.apigateway import Event, Response
from hubbub.chat import Chat

BODY = msgspec.json.encode({"action": "send", "ref": "r", "room": ROOM, "text": "x" * 200}).decode()
NAMES = {"MainThread": "event loop", "hubbub-write": "writer"}


def _cpu_us() -> Counter[str]:
    """Processor time of each thread of this process so far, in microseconds."""
    used: Counter[str] = Counter()
    for thread in threading.enumerate():
        spent = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[0]
        used[NAMES.get(thread.name, "others")] += int(spent) // 1_000
    return used


class _Chat(Chat):
    """A chat with a word of its own in the way of messages, as far as it can tell: so they go the long way."""

    async def handle(self, event: Event) -> Response:
        return await super().handle(event)


WAYS: dict[str, type[Chat]] = {"short": Chat, "long": _Chat}


class _Sender:
    """Gives a node messages of one connection and counts the answers."""

    def __init__(self, node: Node, one: Pretended) -> None:
        self._node = node
        self._one = one
        self._done: asyncio.Future[None]
        self._left = self._more = 0

    def _send(self) -> None:
        self._node.give(self._one, BODY, self._answered, self._ended)

    def _answered(self, body: bytes) -> None:
        if b'"type":"ok"' not in body and not self._done.done():
            self._done.set_exception(RuntimeError(f"not acknowledged: {body!r}"))

    def _ended(self) -> None:
        if self._more:
            self._more -= 1
            self._send()
        self._left -= 1
        if not self._left and not self._done.done():
            self._done.set_result(None)

    async def send(self, messages: int, in_flight: int) -> None:
        """Send so many, `in_flight` at a time, and wait for all the answers."""
        self._done = asyncio.get_running_loop().create_future()
        self._left, self._more = messages, messages - in_flight
        for _ in range(in_flight):
            self._send()
        await self._done


async def measure(
    url: str, chat: Chat, in_flight: int, messages: int, profile: cProfile.Profile | None = None
) -> tuple[Counter[str], float]:
    """CPU time by thread, and the time that passed, of all `messages`, in microseconds."""
    async with pretended_node(url, chat) as node:
        sender = _Sender(node, await node.listener("sender", [ROOM]))
        await sender.send(max(messages // 10, in_flight), in_flight)
        if profile is not None:
            profile.enable()
        before, began = _cpu_us(), time.perf_counter()
        await sender.send(messages, in_flight)
        passed_us = (time.perf_counter() - began) * 1e6
        used = _cpu_us() - before
        if profile is not None:
            profile.disable()
        return used, passed_us


async def figures_of(way: str, store: str, in_flight: int, messages: int) -> list[float]:
    """Microseconds of each message: of the event loop, the writer, other threads, all, and of the clock."""
    with tempfile.TemporaryDirectory(prefix="hubbub-bench-") as folder:
        url = "sqlite://:memory:" if store == "memory" else f"sqlite:///{folder}/bench.db"
        used, passed_us = await measure(url, WAYS[way](), in_flight, messages)
    columns = [used["event loop"], used["writer"], used["others"], used.total(), passed_us]
    return [column / messages for column in columns]


async def main(rounds: int, messages: int) -> list[dict[str, float | str]]:
    """Print a table of medians, and return it."""
    table: list[dict[str, float | str]] = []
    print(
        f"{'way':>6} {'store':>7}  in flight  event loop, us  writer, us  others, us  all, us  passed, us"
        "   (each message)"
    )
    cases = [(way, store, count) for store in ("memory", "file") for count in (1, 16, 256) for way in WAYS]
    figures: dict[tuple[str, str, int], list[list[float]]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            figures[case].append(await figures_of(*case, messages if case[-1] > 1 else messages // 4))
    for (way, store, in_flight), rows in figures.items():
        loop, writer, others, total, passed = (statistics.median(column) for column in zip(*rows, strict=True))
        print(
            f"{way:>6} {store:>7}  {in_flight:>9}  {loop:>14.1f}  {writer:>10.1f}  {others:>10.1f}  {total:>7.1f}"
            f"  {passed:>10.1f}",
            flush=True,
        )
        columns_us = {"loop_us": loop, "writer_us": writer, "all_us": total, "passed_us": passed}
        table.append({"way": way, "store": store, "in_flight": in_flight, **columns_us})
    return table


async def steps(messages: int) -> None:
    """Print what the event loop does for a message on the short way, by function."""
    profile = cProfile.Profile()
    await measure("sqlite://:memory:", Chat(), 64, messages, profile)
    print("The event loop's functions by their own time; a profile makes small functions dearer than they are.")
    pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=12_800)
    parser.add_argument("--steps", action="store_true", help="a profile of the event loop instead")
    parser.add_argument("--quick", action="store_true", help="one short round")
    saving.add_argument(parser)
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.messages = 1, 2_560
    if chosen.steps:
        uvloop.run(steps(chosen.messages))
    else:
        rows = uvloop.run(main(chosen.rounds, chosen.messages))
        if chosen.save:
            saving.save("path", {"rows": rows})
