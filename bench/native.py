"""The programs in C of `bench/bare`: the load and what Hubbub is compared with, compiled when they are first needed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from bench.load import Server, free_port, running

SOURCES = Path(__file__).parent / "bare"
BUILT = Path(__file__).parents[1] / "build" / "bare"
FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror")


def program(name: str, *flags: str) -> Path:
    """The program of that name, or the library by `flags`, compiled unless it is there for its source as it is.

    Raises:
        RuntimeError: there is no C compiler, or it refuses the source.

    """
    source = SOURCES / f"{name}.c"
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError(f"expected a C compiler for {source.name}, got none: scripts/setup system gcc")
    version = hashlib.sha256(source.read_bytes() + " ".join((*FLAGS, *flags)).encode()).hexdigest()[:16]
    built = BUILT / f"{name}-{version}"
    if not built.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        unfinished = BUILT / f"{name}.{os.getpid()}"
        done = subprocess.run(
            [compiler, *FLAGS, *flags, str(source), "-o", str(unfinished)], capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"expected {source} to compile, got:\n{done.stderr}")
        unfinished.replace(built)
    return built


@asynccontextmanager
async def broadcaster(*options: str) -> AsyncIterator[Server]:
    """`broadcaster.c`; with `joined`, it makes one `send` of a turn's messages to a listener."""
    port = free_port()
    async with running([str(program("broadcaster")), str(port), *options], port, "", {}) as server:
        yield server


class Publisher(NamedTuple):
    """Who publishes: a connection by its number, how many listen to it, and the text that it sends."""

    connection: int
    listeners: int
    text: str


class Run(NamedTuple):
    """What came of a run: how long it took, how many deliveries there were, and the load's own processor time."""

    seconds: float
    deliveries: int
    load_cpu_s: float


class Audience:
    """`audience.c`: many connections in a process of their own.

    Attributes:
        count: how many it has open.

    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.count = 0

    async def open(self, who: Sequence[tuple[str | None, str]], replies: int = 0) -> int:
        """Open connections: with a token or without, each with a text to begin with; returns the first one's number.

        Each is waited for until `replies` texts have come.
        """
        await self._ask([f"open {len(who)} {replies}", *(f"{token or '-'}\t{text}" for token, text in who)])
        first, self.count = self.count, self.count + len(who)
        return first

    async def run(self, publishers: Sequence[Publisher], count: int, in_flight: int, least: int) -> Run:
        """Let each publisher send its text `count` times, `in_flight` at a time.

        Args:
            publishers: if they are several, the texts of number 7 have `~007~` in them.
            count, in_flight: of each.
            least: texts of at least so many bytes are deliveries.

        """
        lines = [f"{each.connection}\t{each.listeners}\t{each.text}" for each in publishers]
        answer = await self._ask([f"run {count} {in_flight} {least} {len(publishers)}", *lines])
        if answer[0] != "done":
            due = count * sum(each.listeners for each in publishers)
            raise RuntimeError(f"expected {due} deliveries, got {answer[1]} and then nothing more")
        took_ns, deliveries, cpu_ns = map(int, answer[1:])
        return Run(took_ns / 1e9, deliveries, cpu_ns / 1e9)

    async def _ask(self, lines: Sequence[str]) -> list[str]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        await self._process.stdin.drain()
        answer = (await self._process.stdout.readline()).decode().split()
        if not answer:
            raise RuntimeError(f"expected an answer to {lines[0]!r}, and the audience has ended")
        return answer


@asynccontextmanager
async def audience(server: Server, path: str = "/", *, stalled_s: float = 30) -> AsyncIterator[Audience]:
    """An audience of a server, on the core that this process is pinned to; when nothing comes so long, all is lost."""
    process = await asyncio.create_subprocess_exec(
        program("audience"),
        str(server.port),
        path,
        str(int(stalled_s * 1_000)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Audience(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
