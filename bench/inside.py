"""Where the server's processor time goes under a load: `python -m bench.inside [--load delivery] [--seconds 10]`.

A sampling profiler (py-spy) looks at `hubbub serve` from outside, C libraries included, while one of these loads goes
on: `delivery`, one message at a time to 1,000 listeners; `burst`, 16 of them in flight; `sends`, 256 who send and wait;
`connects`, who come, sync and go. For the tables before and after a change: shares of samples say what to look at.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop

from bench import saving
from bench.load import ROOM, Client, Server, connect, connect_many, hubbub_server

TEXT = "x" * 200
SAMPLES_A_SECOND = 500
SHOWN = 18
"""How many rows a table has."""

SYSTEM_CALLS = {
    "send": "send",
    "sendto": "send",
    "sendmsg": "send",
    "sendmmsg": "send",
    "write": "write",
    "writev": "write",
    "pwrite64": "file write",
    "fsync": "fsync",
    "fdatasync": "fsync",
    "recv": "recv",
    "recvfrom": "recv",
    "recvmsg": "recv",
    "read": "read",
    "pread64": "file read",
    "epoll_wait": "epoll_wait",
    "epoll_pwait": "epoll_wait",
    "epoll_ctl": "epoll_ctl",
    "accept": "accept",
    "accept4": "accept",
    "close": "close",
    "shutdown": "close",
}
"""Functions of the C library that only enter the kernel, and what the table calls them."""


WAITING = {
    "PyThread_acquire_lock_timed",
    "pthread_cond_timedwait",
    "pthread_cond_wait",
    "sem_wait",
    "sem_timedwait",
    "sem_clockwait",
    "take_gil",
    "_outlive",
}
"""Functions that wait, for another thread or process: who is in them does nothing, though the profiler counts him."""

SOURCES = {"loop.c": "uvloop", "_core.c": "msgspec", "httptools.c": "httptools"}
"""Libraries whose C sources the profiler names in place of the library."""


class Frame(NamedTuple):
    """A function on a stack, and the file it is of: a source, or a library."""

    function: str
    file: str


class Profile(msgspec.Struct):
    """What the samples say.

    Attributes:
        samples: how many there were, of threads that did something.
        places: by system call, library or module in which the time was spent itself.
        functions: by function of Hubbub's, with all that it called.
        threads: processor seconds by thread, from the kernel.

    """

    samples: int
    places: Counter[str]
    functions: Counter[str]
    threads: dict[str, float]


def read_stacks(raw: str) -> Profile:
    """Add up stacks as the profiler writes them: frames from the outermost, separated by `;`, and how often."""
    places: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    samples = 0
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_frame(text) for text in stack.split(";") if text]
        if not frames or any(frame.function in WAITING for frame in frames[-5:]):
            continue
        times = int(count)
        samples += times
        places[place(frames)] += times
        ours = {f"{_module(frame.file)}.{frame.function}" for frame in frames if _is_ours(frame)}
        for function in ours:
            functions[function] += times
    return Profile(samples, places, functions, {})


def place(frames: Sequence[Frame]) -> str:
    """Where a sample's time was spent: a system call, a C library, or a module of Python."""
    leaf = frames[-1]
    name = leaf.function.lstrip("_").removeprefix("libc_").removeprefix("GI_").lstrip("_").removesuffix("64_v2")
    if ".so" in leaf.file and name in SYSTEM_CALLS:
        return f"kernel: {SYSTEM_CALLS[name]}"
    for frame in reversed(frames):
        if frame.file.endswith(".py"):
            return _module(frame.file) if frame is leaf else f"{_module(frame.file)}, in C"
        if ".so" in frame.file and not frame.file.startswith(("libc.", "libc-", "libpython", "ld-", "libm.")):
            return frame.file.partition(".")[0]
        if known := SOURCES.get(Path(frame.file).name):
            return known
    return "interpreter"


def _frame(text: str) -> Frame:
    function, _, rest = text.rpartition(" (")
    file, _, line = rest.removesuffix(")").rpartition(":")
    return Frame(function or text, file if line.isdigit() else rest.removesuffix(")"))


def _is_ours(frame: Frame) -> bool:
    return frame.file.endswith(".py") and "hubbub/" in frame.file


def _module(file: str) -> str:
    """`hubbub.gateway.hub` for a path that ends with `hubbub/gateway/hub.py`; the package for other libraries."""
    parts = Path(file).with_suffix("").parts
    if "hubbub" in parts:
        last = len(parts) - 1 - parts[::-1].index("hubbub")
        return ".".join(part for part in parts[last:] if part != "__init__")
    return parts[-2] if len(parts) > 1 else parts[-1]


def profiler() -> str:
    """The profiler's program.

    Raises:
        FileNotFoundError: it is not installed; the message says how to.

    """
    found = shutil.which("py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise FileNotFoundError("expected py-spy beside Python or on PATH, found none: pip install py-spy")
    return found


async def profile(server: Server, seconds: float) -> Profile:
    """Look at a server for so long.

    Raises:
        RuntimeError: the profiler failed, as it does where a process may not be looked into; the message has its words.

    """
    with tempfile.TemporaryDirectory(prefix="hubbub-bench-") as folder:
        out = Path(folder) / "stacks"
        options = ["--native", "--format", "raw", "--rate", str(SAMPLES_A_SECOND), "--duration", str(round(seconds))]
        before = threads_s(server)
        process = await asyncio.create_subprocess_exec(
            profiler(),
            "record",
            *options,
            "--pid",
            str(server.process.pid),
            "--output",
            str(out),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        if process.returncode or not out.exists():
            raise RuntimeError(f"py-spy failed: {said.decode(errors='replace').strip()}")
        found = await asyncio.to_thread(lambda: read_stacks(out.read_text()))
        after = threads_s(server)
        found.threads = {name: after[name] - before.get(name, 0.0) for name in after}
        return found


def threads_s(server: Server) -> dict[str, float]:
    """Processor seconds so far by name of the thread."""
    used: dict[str, float] = {}
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        used[name] = used.get(name, 0.0) + int((task / "schedstat").read_text().split()[0]) / 1e9
    return used


@asynccontextmanager
async def delivering(server: Server, in_flight: int = 1, listening: int = 1_000) -> AsyncIterator[None]:
    """Messages to a room, so many in flight."""
    publisher = await connect(server, "publisher")
    await publisher.ask(action="history", room=ROOM)
    listeners = await connect_many(server, [f"user{number}" for number in range(listening)])
    for listener in listeners:
        await listener.ask(action="sync")
        listener.frames, listener.least = 0, len(TEXT)
    await asyncio.sleep(2.5)  # presence has been told
    frame = msgspec.json.encode({"action": "send", "ref": "r", "room": ROOM, "text": TEXT})
    watched = [listeners[-1], *listeners[::97]]

    async def go_on() -> None:
        sent = 0
        for listener in listeners:
            listener.frames = 0
        while True:
            arrived = min(each.frames for each in watched)
            while sent - arrived < in_flight:
                publisher.send(frame)
                sent += 1
            await asyncio.sleep(0)

    async with _while(go_on):
        yield


@asynccontextmanager
async def sending(server: Server, senders: int = 256) -> AsyncIterator[None]:
    """So many who send, and send again when they have the acknowledgement."""
    clients = await connect_many(server, [f"user{number}" for number in range(senders)])
    frame = msgspec.json.encode({"action": "send", "ref": "r", "room": ROOM, "text": TEXT})

    def next_of(client: Client) -> Callable[[bytes], None]:
        def answered(reply: bytes) -> None:
            if b'"type":"ok"' in reply[:40]:
                client.send(frame)

        return answered

    for client in clients:
        client.on_frame = next_of(client)
        client.send(frame)
    yield


@asynccontextmanager
async def connecting(server: Server, at_once: int = 32) -> AsyncIterator[None]:
    """So many who come, sync and go, again and again."""

    async def one(number: int) -> None:
        while True:
            client = await connect(server, f"user{number}")
            await client.ask(action="sync")
            assert client.transport is not None
            client.transport.disconnect()

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(at_once):
                group.create_task(one(number))

    async with _while(all_of_them):
        yield


@asynccontextmanager
async def _while(work: Callable[[], object]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work())  # type: ignore[arg-type]  # a coroutine function
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


LOADS: dict[str, Callable[[Server], AbstractAsyncContextManager[None]]] = {
    "delivery": delivering,
    "burst": lambda server: delivering(server, in_flight=16),
    "sends": sending,
    "connects": connecting,
}


def show(name: str, found: Profile) -> None:
    """Print the tables."""
    print(f"\n{name}: {found.samples} samples; processor seconds by thread: ", end="")
    print(", ".join(f"{thread} {spent:.2f}" for thread, spent in sorted(found.threads.items()) if spent >= 0.01))
    for title, counted in (
        ("spent in", found.places),
        ("spent in or below a function of Hubbub's", found.functions),
    ):
        print(f"  {title}")
        for what, times in counted.most_common(SHOWN):
            print(f"    {times / found.samples:>6.1%}  {what}", flush=True)


async def main(loads: Sequence[str], seconds: float) -> dict[str, object]:
    """Profile a server of its own under each load; print, and return what is to be saved."""
    saved: dict[str, object] = {}
    for name in loads:
        async with hubbub_server() as server, LOADS[name](server):
            await asyncio.sleep(1)
            found = await profile(server, seconds)
        if not found.samples:
            raise RuntimeError(f"{name}: the profiler saw the server do nothing")
        show(name, found)
        saved[name] = {
            "samples": found.samples,
            "threads_s": found.threads,
            "places": {what: times / found.samples for what, times in found.places.most_common(SHOWN)},
            "functions": {what: times / found.samples for what, times in found.functions.most_common(SHOWN)},
        }
    return saved


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load", nargs="+", choices=list(LOADS), default=list(LOADS))
    parser.add_argument("--seconds", type=float, default=10)
    saving.add_argument(parser)
    chosen = parser.parse_args()
    figures = uvloop.run(main(chosen.load, chosen.seconds))
    if chosen.save:
        saving.save("inside", figures)
