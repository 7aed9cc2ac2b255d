"""The end of a turn beside a bare loop over send() in C, on the same sockets: what we add to the kernel's work.

    python -m bench.flushes [--connections 1000] [--bytes 339] [--rounds 80] [--save]

One frame goes to all connections by each way in turns, and the next when another process has read it everywhere. The
ways are as near to each other in time as can be, so their ratio says more on a busy machine than that of two servers.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import select
import socket
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import uvloop

from bench import saving
from bench.native import program
from hubbub.gateway import _accelerator, outlets


async def measure(connections: int, size: int, rounds: int) -> dict[str, float]:
    """Processor time of a delivery by each way, in microseconds: medians."""
    transports: list[Any] = []
    everyone = asyncio.Event()

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:  # uvloop's have none of asyncio's classes
            transport.set_write_buffer_limits(high=0)
            transports.append(transport)
            if len(transports) == connections:
                everyone.set()

    loop = asyncio.get_running_loop()
    server = await loop.create_server(Accepted, "127.0.0.1", 0, backlog=4_096)
    command = [sys.executable, "-m", "bench.flushes", "--connections", str(connections), "--bytes", str(size), "--read"]
    cores = sorted(os.sched_getaffinity(0))
    reader = await asyncio.create_subprocess_exec(
        *command, str(server.sockets[0].getsockname()[1]), stdout=asyncio.subprocess.PIPE
    )
    assert reader.stdout is not None
    os.sched_setaffinity(reader.pid, {cores[-1]})
    os.sched_setaffinity(0, {cores[0]})
    try:
        await asyncio.wait_for(everyone.wait(), 60)
        found: dict[str, list[int]] = {}
        ways = _ways(transports, os.urandom(size))
        for number in range(rounds + 3):
            for name, way in ways.items():
                before = time.thread_time_ns()
                way()
                took = time.thread_time_ns() - before
                await asyncio.wait_for(reader.stdout.readexactly(1), 60)
                if number >= 3:  # caches are warm
                    found.setdefault(name, []).append(took)
        return {name: statistics.median(times) / connections / 1_000 for name, times in found.items()}
    finally:
        os.sched_setaffinity(0, set(cores))
        if reader.returncode is None:
            reader.kill()
        await reader.wait()
        server.close()
        for transport in transports:
            transport.abort()


def _ways(transports: list[Any], frame: bytes) -> dict[str, Callable[[], None]]:
    """What writes the frame to all, by name."""
    numbers = [transport.get_extra_info("socket").fileno() for transport in transports]
    library = ctypes.CDLL(str(program("sends", "-shared", "-fPIC")))
    sockets = (ctypes.c_int * len(numbers))(*numbers)

    def bare() -> None:
        _expect_all(library.send_all(sockets, len(numbers), frame, ctypes.c_size_t(len(frame))) == 0)

    def ours(module: Any) -> Callable[[], None]:
        everyone = [module.Outlet(each.write, each, fd) for each, fd in zip(transports, numbers, strict=True)]

        def flush() -> None:
            _expect_all(module.flush([frame], [(everyone, [0])])[2] == [])

        return flush

    return {"bare": bare, "accelerator": ours(_accelerator), "python": ours(outlets)}


def _expect_all(yes: bool) -> None:
    if not yes:
        raise RuntimeError("expected the sockets to take the whole frame: fewer --bytes")


def read(port: int, connections: int, size: int) -> None:
    """Read on all connections, and say so each time that a frame has come on all."""
    poll, sockets, got = select.epoll(), {}, 0
    for _ in range(connections):
        one = socket.create_connection(("127.0.0.1", port))
        sockets[one.fileno()] = one
        poll.register(one.fileno(), select.EPOLLIN)
    while True:
        for number, _ in poll.poll(maxevents=1_024):
            data = sockets[number].recv(1 << 20)
            if not data:
                return
            got += len(data)
        if got >= connections * size:
            got -= connections * size
            os.write(1, b".")


async def main(connections: int, size: int, rounds: int) -> dict[str, float]:
    """Print what was measured, with ratios."""
    found = await measure(connections, size, rounds)
    print(f"processor time of a delivery of {size} bytes to {connections:,} connections, medians of {rounds} rounds")
    for name, cpu_us in found.items():
        print(f"{name:>12} {cpu_us:6.2f} us {cpu_us / found['bare']:6.2f}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--bytes", type=int, default=339, help="of the frame: a chat's with 200 bytes of text has 339")
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--read", type=int, help=argparse.SUPPRESS)
    saving.add_argument(parser)
    chosen = parser.parse_args()
    if chosen.read:
        read(chosen.read, chosen.connections, chosen.bytes)
    else:
        figures = uvloop.run(main(chosen.connections, chosen.bytes, chosen.rounds))
        if chosen.save:
            saving.save("flushes", {"connections": chosen.connections, "bytes": chosen.bytes, **figures})
