"""Server CPU time per delivered message, beside the bare broadcaster: `python -m bench.delivery [--quick]`.

One publisher, 100 and 1,000 listeners of one room, 200-byte texts. With one message in flight the next is sent when all
have the last one; with 16 in flight they follow each other. Hubbub's messages take the whole way: checked, stored with
fsync, given a `seq`, acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import msgspec
import uvloop

from bench import saving
from bench.load import ROOM, Client, Server, bare_server, connect, connect_many, hubbub_server, until

TEXT = "x" * 200

Make = Callable[[], AbstractAsyncContextManager[Server]]


async def _broadcast(
    server: Server, publisher: Client, listeners: list[Client], frame: bytes, count: int, in_flight: int
) -> float:
    """Send `frame` to all `count` times; the server's CPU time per delivery, in microseconds."""
    for listener in listeners:
        listener.frames, listener.least = 0, len(TEXT)  # signals are shorter
    watched = [listeners[-1], *listeners[::97]]
    before = server.cpu_s()
    sent = 0
    while sent < count:
        arrived = min(each.frames for each in watched)
        while sent < count and sent - arrived < in_flight:
            publisher.send(frame)
            sent += 1
        await asyncio.sleep(0)
    await until(lambda: all(each.frames == count for each in listeners))
    return (server.cpu_s() - before) / count / len(listeners) * 1e6


async def bare(listening: int, count: int, in_flight: int) -> float:
    """The bare broadcaster's figure."""
    async with bare_server() as server:
        listeners = await connect_many(server, [None] * listening)
        for listener in listeners:
            listener.send(b"listen")
        publisher = await connect(server)
        await asyncio.sleep(0.5)
        return await _broadcast(server, publisher, listeners, TEXT.encode(), count, in_flight)


async def hubbub(listening: int, count: int, in_flight: int, made: Make = hubbub_server) -> float:
    """Hubbub's figure; `made` starts one that is set otherwise."""
    async with made() as server:
        publisher = await connect(server, "publisher")
        await publisher.ask(action="history", room=ROOM)
        listeners = await connect_many(server, ["watcher"] * listening)
        for listener in listeners:
            await listener.ask(action="sync")
        await asyncio.sleep(2.5)  # presence has been told, nothing else is under way
        frame = msgspec.json.encode({"action": "send", "ref": "r", "room": ROOM, "text": TEXT})
        answers = 0

        def answered(reply: bytes) -> None:
            nonlocal answers
            answers += b'"type":"ok"' in reply

        publisher.on_frame = answered
        figure = await _broadcast(server, publisher, listeners, frame, count, in_flight)
        await until(lambda: answers == count)
        return figure


async def main(rounds: int, quick: bool) -> list[dict[str, float]]:
    """Measure in interleaved rounds and print a table."""
    rows: list[dict[str, float]] = []
    print(f"listeners  in flight   bare, us  Hubbub, us   ratio   (CPU per delivery, medians of {rounds} rounds)")
    for listening in (100, 1_000):
        for in_flight in (1, 16):
            count = (40_000 if quick else 200_000) // listening
            pairs = [
                (await bare(listening, count, in_flight), await hubbub(listening, count, in_flight))
                for _ in range(rounds)
            ]
            ratio = statistics.median(ours / theirs for theirs, ours in pairs)
            bare_us, hubbub_us = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(f"{listening:>9}  {in_flight:>9}  {bare_us:>9.2f}  {hubbub_us:>10.2f}  {ratio:>6.2f}", flush=True)
            figures = {"bare_us": bare_us, "hubbub_us": hubbub_us, "ratio": ratio}
            rows.append({"listeners": listening, "in_flight": in_flight, **figures})
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    saving.add_argument(parser)
    chosen = parser.parse_args()
    rows = uvloop.run(main(chosen.rounds, chosen.quick))
    if chosen.save:
        saving.save("delivery", {"rows": rows})
