"""Server CPU time per delivered message, beside the bare broadcaster: `python -m bench.delivery [--quick]`.

One publisher, 100 and 1,000 listeners of one room, 200-byte texts, one message in flight: the next is sent when every
listener has the last one. Hubbub's messages take the whole way: verified, stored with fsync, acknowledged, in `seq`.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics

import msgspec
import uvloop

from bench.load import ROOM, Client, Server, bare_server, connect, connect_many, hubbub_server, until

TEXT = "x" * 200


async def _broadcast(server: Server, publisher: Client, listeners: list[Client], frames: list[bytes]) -> float:
    """Send `frames` one by one to all; the server's CPU time per delivery, in microseconds."""
    last = listeners[-1]
    before = server.cpu_s()
    for frame in frames:
        goal = last.frames + 1
        publisher.send(frame)
        while last.frames < goal or any(each.frames < goal for each in listeners[::97]):
            await asyncio.sleep(0)
    wanted = listeners[0].frames
    await until(lambda: all(each.frames == wanted for each in listeners))
    return (server.cpu_s() - before) / len(frames) / len(listeners) * 1e6


async def bare(count: int, messages: int) -> float:
    """The bare broadcaster's figure."""
    async with bare_server() as server:
        listeners = await connect_many(server, [None] * count)
        for listener in listeners:
            listener.send(b"listen")
        publisher = await connect(server)
        await asyncio.sleep(0.5)
        return await _broadcast(server, publisher, listeners, [TEXT.encode()] * messages)


async def hubbub(count: int, messages: int) -> float:
    """Hubbub's figure."""
    async with hubbub_server() as server:
        publisher = await connect(server, "publisher")
        await publisher.ask(action="history", room=ROOM)
        listeners = await connect_many(server, ["watcher"] * count)
        for listener in listeners:
            await listener.ask(action="sync")
        await asyncio.sleep(2.5)  # presence has been told, nothing else is under way
        for listener in listeners:
            listener.frames = 0
        frame = msgspec.json.encode({"action": "send", "room": ROOM, "text": TEXT})
        return await _broadcast(server, publisher, listeners, [frame] * messages)


async def main(rounds: int, quick: bool) -> None:
    """Measure in interleaved rounds and print a table."""
    print(f"{'listeners':>9}  {'bare, us':>9}  {'Hubbub, us':>10}  {'ratio':>6}  (CPU per delivery, {rounds} rounds)")
    for count in (100, 1_000):
        messages = (40_000 if quick else 200_000) // count
        pairs = [(await bare(count, messages), await hubbub(count, messages)) for _ in range(rounds)]
        ratio = statistics.median(ours / theirs for theirs, ours in pairs)
        bare_us, hubbub_us = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{count:>9}  {bare_us:>9.2f}  {hubbub_us:>10.2f}  {ratio:>6.2f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    uvloop.run(main(chosen.rounds, chosen.quick))
