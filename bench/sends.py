"""Acknowledged sends per second on SQLite with real fsync: `python -m bench.sends`.

1, 16 and 256 senders, each on its own connection, each sending its next message when the last was acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

import msgspec
import uvloop

from bench import saving
from bench.load import ROOM, Client, Server, connect_many, hubbub_server

TEXT = "x" * 200


async def measure(server: Server, senders: int, seconds: float) -> tuple[float, float, float, float]:
    """Acks per second, the server's CPU time per ack in microseconds, and the median and 99th percentile in ms."""
    clients = await connect_many(server, [f"user{n}" for n in range(senders)])
    frame = msgspec.json.encode({"action": "send", "room": ROOM, "text": TEXT, "ref": "r"})
    latencies: list[float] = []
    started = time.perf_counter()
    ends_at = started + seconds

    def drive(client: Client) -> None:
        sent_at = time.perf_counter()

        def acknowledged(reply: bytes) -> None:
            nonlocal sent_at
            if b'"type":"ok"' not in reply:
                raise RuntimeError(f"not acknowledged: {reply!r}")
            now = time.perf_counter()
            latencies.append(now - sent_at)
            if now < ends_at:
                sent_at = now
                client.send(frame)

        client.on_frame = acknowledged
        client.send(frame)

    cpu = server.cpu_s()
    for client in clients:
        drive(client)
    await asyncio.sleep(seconds + 0.2)
    cpu = server.cpu_s() - cpu
    for client in clients:
        assert client.transport is not None
        client.transport.disconnect()
    latencies.sort()
    count = len(latencies)
    return count / seconds, cpu / count * 1e6, latencies[count // 2] * 1e3, latencies[int(count * 0.99)] * 1e3


async def main(rounds: int, seconds: float) -> list[dict[str, float]]:
    """Print a table."""
    print(f"{'senders':>7}  {'acks/s':>8}  {'CPU us/ack':>10}  {'p50 ms':>7}  {'p99 ms':>7}  (medians of {rounds})")
    rows: list[dict[str, float]] = []
    async with hubbub_server() as server:
        await measure(server, 16, 1)
        for senders in (1, 16, 256):
            figures = [await measure(server, senders, seconds) for _ in range(rounds)]
            rate, cpu, p50, p99 = (statistics.median(column) for column in zip(*figures, strict=True))
            print(f"{senders:>7}  {rate:>8,.0f}  {cpu:>10.1f}  {p50:>7.2f}  {p99:>7.2f}", flush=True)
            rows.append({"senders": senders, "per_s": rate, "cpu_us": cpu, "p50_ms": p50, "p99_ms": p99})
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    saving.add_argument(parser)
    chosen = parser.parse_args()
    rows = uvloop.run(main(chosen.rounds, chosen.seconds))
    if chosen.save:
        saving.save("sends", {"rows": rows})
