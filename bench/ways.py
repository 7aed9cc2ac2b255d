"""A message's way in the stack that deploy/ deploys, by how jobs are handed over: `python -m bench.ways`.

The built archive runs under `hubbub local`, its services on moto: functions in processes of their own, all on this
machine, whose queues are polled as Lambda does it. Time from sending to the ok, and to the last of 20 listeners; then a
burst by three senders, after which every listener must have had every entry.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import tempfile
import time
from pathlib import Path

from homelab import Home, fresh, stack, staged
from live import Wire

WAYS = ("invoke", "queue", "fifo")
LISTENERS = 20


class Listener:
    """A connection that notes when it got which entry."""

    def __init__(self, wire: Wire, room: str) -> None:
        self.got: list[tuple[int, float]] = []
        self.reading = asyncio.create_task(self._read(wire, room))
        self._news = asyncio.Condition()

    async def _read(self, wire: Wire, room: str) -> None:
        while True:
            frame = await wire.receive()
            if frame.get("room") == room and "id" in frame and "seq" in frame:
                async with self._news:
                    self.got.append((frame["seq"], time.perf_counter()))
                    self._news.notify_all()

    async def at(self, seq: int) -> float:
        """When it first had an entry."""
        async with asyncio.timeout(60), self._news:
            await self._news.wait_for(lambda: any(seq == each for each, _ in self.got))
        return next(at for each, at in self.got if each == seq)


async def measure(home: Home, count: int, burst: int) -> str:
    """One line of the table."""
    room = fresh("bench")
    senders = [await home.connect(fresh("sender")) for _ in range(3)]
    await senders[0].ok("create", kind="public", room=room, name="Bench")
    wires = [await home.connect(fresh("listener")) for _ in range(LISTENERS)]
    for wire in wires:
        await wire.ok("subscribe", room=room)
    for sender in senders[1:]:
        await sender.ok("join", room=room)
    listeners = [Listener(wire, room) for wire in wires]
    ok_s, last_s = [], []
    for n in range(count + 5):
        began = time.perf_counter()
        sent = await senders[0].ok("send", room=room, text=f"one by one {n}")
        took = time.perf_counter() - began
        last = max([await listener.at(sent["seq"]) for listener in listeners]) - began
        if n >= 5:  # functions have started
            ok_s.append(took)
            last_s.append(last)
    began = time.perf_counter()

    async def say(sender: Wire) -> list[int]:
        return [(await sender.ok("send", room=room, text=f"burst {n}"))["seq"] for n in range(burst // 3)]

    seqs = [seq for each in await asyncio.gather(*(say(sender) for sender in senders)) for seq in each]
    said_s = time.perf_counter() - began
    done_s = max([await listener.at(seq) for listener in listeners for seq in seqs]) - began
    disordered = repeated = 0
    for listener in listeners:
        order = [seq for seq, _ in listener.got]
        repeated += len(order) - len(set(order))
        firsts = list(dict.fromkeys(order))
        disordered += sum(later < earlier for earlier, later in itertools.pairwise(firsts))
        listener.reading.cancel()
    for wire in (*wires, *senders):
        await wire.socket.close()
    return (
        f"{statistics.median(ok_s) * 1e3:>6.0f} {statistics.median(last_s) * 1e3:>7.0f} {max(last_s) * 1e3:>6.0f}"
        f" {len(seqs) / said_s:>13.0f} {(done_s - said_s) * 1e3:>12.0f} {disordered:>10} {repeated:>8}"
    )


def main(count: int, burst: int) -> None:
    """Print the table."""
    print("   way  ok ms last ms max ms  burst, sent/s last after ms disordered repeated", flush=True)
    with tempfile.TemporaryDirectory(prefix="hubbub-bench-") as folder:
        deploy = staged(Path(folder))
        for way in WAYS:
            place = Path(folder) / way
            with stack(f"bench-{way}", deploy / "sam" / "template.yaml", place, tables="moto", Transport=way) as home:
                print(f"{way:>6} {asyncio.run(measure(home, count, burst))}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--burst", type=int, default=90)
    chosen = parser.parse_args()
    main(chosen.count, chosen.burst)
