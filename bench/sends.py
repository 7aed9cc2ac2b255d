"""Acknowledged sends per second on SQLite with real fsync: `python -m bench.sends`.

1, 16 and 256 senders, each on its own connection, each sending its next message when the last was acknowledged; the
senders are one process in C (`bare/senders.c`), so that they cost little. Then (`--half`) follows what a message
waits for its acknowledgement when 256 senders send half of what was found, each message at its time, whatever is
acknowledged by then: the time runs from when it was due. Beside it stands what the disk alone takes for a sync.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop

from bench import saving
from bench.load import ROOM, Server, hubbub_server, token
from bench.native import program

TEXT_BYTES = 200
SENDERS = (1, 16, 256)
SYNCS = 100


class Figures(NamedTuple):
    """Acknowledgements a second, the server's and the senders' processor time for each, and how long they took."""

    acks_per_s: float
    server_us: float
    senders_us: float
    p50_ms: float
    p99_ms: float
    max_ms: float


class Said(msgspec.Struct):
    """What the senders report; see `bench/bare/senders.c`."""

    acks: int
    failures: int
    unsent: int
    unanswered: int
    seconds: float
    p50_us: int
    p99_us: int
    max_us: int
    cpu_s: float


async def measure(server: Server, senders: int, seconds: float, rate: float = 0.0) -> Figures:
    """Let them send; with a rate, so many a second in all.

    Raises:
        RuntimeError: the senders failed, or a message was not sent or not acknowledged.

    """
    tokens = "".join(f"{token(f'user{n}')}\n" for n in range(senders)) + "\n"
    words = [str(server.port), "/ws", str(seconds), str(rate), ROOM, str(TEXT_BYTES)]
    process = await asyncio.create_subprocess_exec(
        str(program("senders")),
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write(tokens.encode())
    async with asyncio.timeout(seconds + 120):
        ready = await process.stdout.readline()
        cpu_s = server.cpu_s()
        line = await process.stdout.readline()
        cpu_s = server.cpu_s() - cpu_s
        process.stdin.close()
        err = await process.stderr.read()
        await process.wait()
    if process.returncode or not (ready and line):
        raise RuntimeError(f"the senders ended with {process.returncode}: {(err or line).decode().strip()}")
    return figures_of(msgspec.json.decode(line, type=Said), seconds, cpu_s)


def figures_of(said: Said, seconds: float, cpu_s: float) -> Figures:
    """The figures of a run of so many seconds, in which the server used so much processor time.

    Raises:
        RuntimeError: messages were not sent when they were due, so that nothing is known of how long they would take.

    """
    if said.unsent:
        raise RuntimeError(f"{said.unsent} messages could not be sent when they were due: the server read too slowly")
    count = max(said.acks, 1)
    return Figures(
        said.acks / seconds,
        cpu_s / count * 1e6,
        said.cpu_s / count * 1e6,
        said.p50_us / 1e3,
        said.p99_us / 1e3,
        said.max_us / 1e3,
    )


def sync_ms() -> float:
    """The median time of a sync after 8 KiB, where the stores of these benches are."""
    times: list[float] = []
    with tempfile.TemporaryDirectory(prefix="hubbub-bench-") as folder:
        file = os.open(Path(folder) / "sync", os.O_RDWR | os.O_CREAT)
        for _ in range(SYNCS):
            os.write(file, bytes(8_192))
            began = time.perf_counter()
            os.fdatasync(file)
            times.append((time.perf_counter() - began) * 1e3)
        os.close(file)
    return statistics.median(times)


def medians(rounds: list[Figures]) -> Figures:
    """Of each column."""
    return Figures(*(statistics.median(column) for column in zip(*rounds, strict=True)))


def _show(name: str, figures: Figures) -> None:
    print(
        f"{name:>16}  {figures.acks_per_s:>8,.0f}  {figures.server_us:>13.1f}  {figures.senders_us:>14.1f}"
        f"  {figures.p50_ms:>7.2f}  {figures.p99_ms:>7.2f}  {figures.max_ms:>7.2f}",
        flush=True,
    )


async def main(rounds: int, seconds: float, *, half: bool) -> dict[str, object]:
    """Print a table, and return it."""
    alone_ms = sync_ms()
    print(f"A sync of the disk alone takes {alone_ms:.2f} ms (median of {SYNCS}).")
    print(
        f"{'senders':>16}  {'acks/s':>8}  {'server us/ack':>13}  {'senders us/ack':>14}  {'p50 ms':>7}  {'p99 ms':>7}"
        f"  {'max ms':>7}  (medians of {rounds})"
    )
    table: dict[str, Figures] = {}
    async with hubbub_server(pinned=False) as server:
        await measure(server, 256, 1)
        for senders in SENDERS:
            table[str(senders)] = medians([await measure(server, senders, seconds) for _ in range(rounds)])
            _show(str(senders), table[str(senders)])
        if half:
            rate = table["256"].acks_per_s / 2
            table["256 at half"] = medians([await measure(server, 256, seconds, rate) for _ in range(rounds)])
            _show("256 at half", table["256 at half"])
    rows = [{"senders": name, **figures._asdict()} for name, figures in table.items()]
    return {"sync_ms": alone_ms, "rows": rows}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    half = argparse.BooleanOptionalAction
    parser.add_argument("--half", action=half, default=True, help="then how long a message waits at half of that load")
    parser.add_argument("--quick", action="store_true", help="one short round")
    saving.add_argument(parser)
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.seconds = 1, 2
    found = uvloop.run(main(chosen.rounds, chosen.seconds, half=chosen.half))
    if chosen.save:
        saving.save("sends", found)
