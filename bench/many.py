"""As many idle connections as the machine holds: `python -m bench.many --connections 100000 --room 50000 --storm`.

`hubbub serve --workers` on PostgreSQL and NATS; clients in processes of their own (`bench/bare/crowd.c`), each process
with a loopback address of its own and as many connections as a process may have open files. Every connection has a user
and a token, and listens to a room; so many of them listen to one hall besides, to which messages are sent. What each
part costs is told by the kernel: resident memory, slabs and socket buffers, processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
import uvloop
from scripts.cluster import Node
from scripts.servers import Nats, Postgres

from bench import saving
from bench.cluster import SETTINGS, cpu_of
from bench.load import SECRET, Client, Server, connect, token
from bench.native import program

PER_PROCESS = 17_500
"""Connections of one worker or one crowd, where a process may have 20,000 files: workers do not get the same number."""

WARM = 200
"""Connections of each worker that come and go before anything is measured, as in `bench.memory`."""

FORGOTTEN_S = 15.0
"""After so long nothing is kept of those any more, in the hope that they come back."""

TEXT = "x" * 200


class State(msgspec.Struct):
    """What a crowd says of itself; see `bench/bare/crowd.c`."""

    orders: int = 0
    wanted: int = 0
    live: int = 0
    under_way: int = 0
    handshakes: int = 0
    refused: int = 0
    broken: int = 0
    late: int = 0
    closed: int = 0
    errors: int = 0
    frames: int = 0
    bytes: int = 0
    last_frame_ns: int = 0
    took_ns: int = 0
    cpu_s: float = 0.0


class Crowd:
    """Clients in a process of their own.

    Attributes:
        state: what it said last.
        process: it.

    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.state = State()
        self._orders = 0
        self.process = process
        self._reading = asyncio.get_running_loop().create_task(self._read())

    @classmethod
    async def start(cls, port: int, source: str, tokens: Path) -> Crowd:
        """A crowd that has not yet connected."""
        process = await asyncio.create_subprocess_exec(
            str(program("crowd")),
            str(port),
            source,
            str(tokens),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return cls(process)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.state = msgspec.json.decode(line, type=State)

    @property
    def is_up_to_date(self) -> bool:
        """Whether what it said last is from after the last order."""
        return self.state.orders == self._orders

    def order(self, line: str) -> None:
        """Tell it what to do.

        Raises:
            RuntimeError: it has ended.

        """
        if self._reading.done():
            raise RuntimeError(f"a crowd ended with {self.process.returncode}; it has said why")
        assert self.process.stdin is not None
        self._orders += 1
        self.process.stdin.write(f"{line}\n".encode())

    async def end(self) -> None:
        """Let all of them go."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        await self.process.wait()
        self._reading.cancel()


class Crowds:
    """All of them."""

    def __init__(self, crowds: Sequence[Crowd], sizes: Sequence[int]) -> None:
        self.crowds = crowds
        self.sizes = sizes

    def total(self, name: str) -> int:
        """The sum of a number that each says."""
        return sum(getattr(crowd.state, name) for crowd in self.crowds)

    async def settle(self, within_s: float, what: str) -> float:
        """Wait until all are live; returns how long it took since the order, by the crowds' own clocks, in seconds.

        Raises:
            TimeoutError: they are not within `within_s`; the message says how far they came.

        """
        wanted, shown, began = sum(self.sizes), 0.0, time.monotonic()
        while not all(
            crowd.is_up_to_date and crowd.state.took_ns and crowd.state.live == size
            for crowd, size in zip(self.crowds, self.sizes, strict=True)
        ):
            if any(crowd.process.returncode is not None for crowd in self.crowds):
                raise RuntimeError("a crowd has ended; it has said why")
            if (passed := time.monotonic() - began) > within_s:
                raise TimeoutError(
                    f"{what}: {self.total('live'):,} of {wanted:,} after {within_s:g} s: {self.trouble()}"
                )
            if passed - shown >= 10:
                shown = passed
                said = {name: count for name, count in self.trouble().items() if count}
                print(f"  {what}: {self.total('live'):,} of {wanted:,} after {passed:.0f} s {said or ''}", flush=True)
            await asyncio.sleep(0.1)
        return max(crowd.state.took_ns for crowd in self.crowds) / 1e9

    def trouble(self) -> dict[str, int]:
        """What did not go well: refused, broken, late, closed, answered with an error."""
        return {name: self.total(name) for name in ("refused", "broken", "late", "closed", "errors")}

    def tell(self, line: str) -> None:
        """The same order to all."""
        for crowd in self.crowds:
            crowd.order(line)

    async def end(self) -> None:
        """Let all go."""
        await asyncio.gather(*(crowd.end() for crowd in self.crowds))


class Use(msgspec.Struct):
    """Memory in bytes and processor time in seconds, of every part, at a moment."""

    server: int
    postgres: int
    nats: int
    generator: int
    slabs: int
    buffers: int
    available: int
    server_cpu_s: float
    postgres_cpu_s: float
    nats_cpu_s: float
    generator_cpu_s: float

    def since(self, before: Use) -> Use:
        """What came on top."""
        return Use(*(getattr(self, name) - getattr(before, name) for name in self.__struct_fields__))


def _resident(pid: int, *, shared: bool = True) -> int:
    """Resident memory of a process and all that it has started; without what they share counted more than once."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, OSError):
                if shared:
                    total += process.memory_info().rss
                else:
                    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                    total += sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
    return total


def kernel() -> tuple[int, int, int]:
    """Bytes: slabs that cannot be reclaimed, buffers of TCP sockets, and what is still available of the memory."""
    info = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    kib = {name: int(value.split()[0]) * 1024 for name, value in info.items()}
    tcp = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:")).split()
    return kib["SUnreclaim"], int(tcp[tcp.index("mem") + 1]) * resource.getpagesize(), kib["MemAvailable"]


def use(node: Node, postgres: Postgres, nats: Nats, crowds: Crowds) -> Use:
    """What each part uses now."""
    slabs, buffers, available = kernel()
    generators = [crowd.process.pid for crowd in crowds.crowds]
    return Use(
        _resident(node.pid),
        _resident(postgres.pid, shared=False),
        _resident(nats.pid),
        sum(map(_resident, generators)),
        slabs,
        buffers,
        available,
        cpu_of(node.pid),
        cpu_of(postgres.pid),
        cpu_of(nats.pid),
        sum(map(cpu_of, generators)),
    )


def rooms_of(number: int, room: int, team: int) -> list[str]:
    """The rooms of a connection: that of its team, and the hall for the first `room` of all."""
    return [f"team{number // team}", *(["hall"] if number < room else [])]


def write_tokens(folder: Path, sizes: Sequence[int], room: int, team: int) -> list[Path]:
    """A file of tokens for each crowd; the hall's listeners are spread over all crowds."""
    files: list[Path] = []
    total = sum(sizes)
    for which, size in enumerate(sizes):
        numbers = range(which, total, len(sizes))[:size]
        path = folder / f"tokens-{which}"
        path.write_text("".join(f"{token(f'user{number}', rooms_of(number, room, team))}\n" for number in numbers))
        files.append(path)
    return files


def split(connections: int, per_process: int = PER_PROCESS) -> list[int]:
    """How many connections each process gets: as few processes as possible, with as many each."""
    count = math.ceil(connections / per_process)
    return [connections // count + (which < connections % count) for which in range(count)]


@contextlib.asynccontextmanager
async def running(
    workers: int, sizes: Sequence[int], room: int, team: int, lease_s: float | None = None
) -> AsyncIterator[tuple[Any, ...]]:
    """The node with its workers, PostgreSQL, NATS and the crowds, which have not yet connected."""
    with tempfile.TemporaryDirectory(prefix="hubbub-bench-") as place:
        folder = Path(place)
        print("making tokens", flush=True)
        files = await asyncio.to_thread(write_tokens, folder, sizes, room, team)
        server = Postgres(safe=True, settings={"max_connections": str(40 + 8 * workers), "shared_buffers": "256MB"})
        server.dies_with_starter = True
        broker = Nats()
        broker.dies_with_starter = True
        with server as postgres, broker as nats:
            settings = {
                **SETTINGS,
                "store": f"{postgres.url}?writers=2&readers=2",
                "fanout": nats.url if lease_s is None else f"{nats.url}?lease_s={lease_s:g}",
                "secret": SECRET,
                "workers": str(workers),
                "drain_s": "0",
            }
            node = Node("many", settings, folder=folder)
            node.dies_with_starter = True
            with node:
                await all_workers(node, workers, 60 + 10 * workers)
                await warm_up(node, folder / "warm", WARM * workers)
                started = [
                    await Crowd.start(node.port, f"127.0.{1 + which // 250}.{1 + which % 250}", path)
                    for which, path in enumerate(files)
                ]
                crowds = Crowds(started, sizes)
                try:
                    yield node, postgres, nats, crowds
                finally:
                    await crowds.end()


async def warm_up(node: Node, tokens: Path, count: int) -> None:
    """Let so many come and go: what a server takes once is not what a connection costs."""
    tokens.write_text("".join(f"{token(f'warm{number}', rooms_of(number, count, 10))}\n" for number in range(count)))
    crowds = Crowds([await Crowd.start(node.port, "127.0.250.1", tokens)], [count])
    try:
        crowds.tell(f"open {count} 50")
        await crowds.settle(60, "warming up")
    finally:
        await crowds.end()
    await asyncio.sleep(FORGOTTEN_S)


async def all_workers(node: Node, workers: int, within_s: float) -> None:
    """Return when every worker listens.

    Raises:
        TimeoutError: they do not.

    """
    async with asyncio.timeout(within_s):
        while _listening(node.port) < workers:
            await asyncio.sleep(0.2)


def _listening(port: int) -> int:
    """How many sockets of this machine listen on a port."""
    wanted = f":{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    rows += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    return sum(row[1].endswith(wanted) and row[3] == "0A" for row in rows)


async def messages_to_the_hall(crowds: Crowds, sender: Client, room: int, count: int) -> list[float]:
    """Seconds from sending a message until the last of the hall has it, one message after the other."""
    took: list[float] = []
    for _ in range(count):
        crowds.tell(f"count {len(TEXT)}")
        async with asyncio.timeout(30):
            while not all(crowd.is_up_to_date for crowd in crowds.crowds):
                await asyncio.sleep(0.01)
        sent_ns = time.monotonic_ns()
        await sender.ask(action="send", room="hall", text=TEXT)
        async with asyncio.timeout(120):
            while crowds.total("frames") < room:
                await asyncio.sleep(0.05)
        took.append((max(crowd.state.last_frame_ns for crowd in crowds.crowds) - sent_ns) / 1e9)
    return took


def show(count: int, grown: Use) -> dict[str, float]:
    """Print what each connection costs, and return it: KB of memory."""
    each = {
        "server": grown.server,
        "kernel_slabs": grown.slabs,
        "kernel_buffers": grown.buffers,
        "postgres": grown.postgres,
        "nats": grown.nats,
        "generator": grown.generator,
        "all": -grown.available,
    }
    found = {name: size / count / 1024 for name, size in each.items()}
    print("  KB a connection: " + ", ".join(f"{name.replace('_', ' ')} {size:.2f}" for name, size in found.items()))
    print(
        "  (slabs and buffers are of both ends, the server's and the clients'; all: what is less available than before)"
    )
    return found


async def main(asked: argparse.Namespace) -> dict[str, Any]:
    """Measure, print, and return what is to be saved."""
    sizes = split(asked.connections)
    workers = asked.workers or max(2, len(sizes))
    count, room = asked.connections, min(asked.room, asked.connections)
    print(f"{count:,} connections in {len(sizes)} crowds, {workers} workers, {room:,} of them in the hall", flush=True)
    found: dict[str, Any] = {"connections": count, "workers": workers, "crowds": len(sizes), "room": room}
    async with running(workers, sizes, room, asked.team, asked.lease) as (node, postgres, nats, crowds):
        await asyncio.sleep(2)
        empty = use(node, postgres, nats, crowds)
        found["base_mb"] = {name: getattr(empty, name) / 2**20 for name in ("server", "postgres", "nats", "generator")}
        print("  MB before: " + ", ".join(f"{name} {size:.0f}" for name, size in found["base_mb"].items()), flush=True)
        for crowd, size in zip(crowds.crowds, sizes, strict=True):
            crowd.order(f"open {size} {max(1, asked.at_once // len(sizes))}")
        took = await crowds.settle(asked.within, "connecting")
        print(f"all there after {took:.1f} s: {count / took:,.0f} a second; {crowds.trouble()}", flush=True)
        found["connecting"] = {"took_s": took, "per_s": count / took, **crowds.trouble()}
        came = use(node, postgres, nats, crowds).since(empty)
        found["connecting_us"] = _cpu(came, count, "of connecting")
        await asyncio.sleep(asked.rest)
        before = use(node, postgres, nats, crowds)
        found["kb"] = show(count, before.since(empty))
        if asked.rest:
            began = time.monotonic()
            await asyncio.sleep(asked.rest)
            rested = use(node, postgres, nats, crowds).since(before)
            passed = time.monotonic() - began
            found["idle_cores"] = {"server": rested.server_cpu_s / passed, "generator": rested.generator_cpu_s / passed}
            print(f"  at rest: the server uses {rested.server_cpu_s / passed:.2%} of a core in all", flush=True)
        if room:
            sender = await connect(Server(node.process, node.port, node.ws_url), "sender", ["hall"])
            before = use(node, postgres, nats, crowds)
            heard = await messages_to_the_hall(crowds, sender, room, asked.messages)
            spent = use(node, postgres, nats, crowds).since(before)
            us = spent.server_cpu_s / asked.messages / room * 1e6
            found["hall"] = {"took_s": heard, "server_us_a_delivery": us}
            print(f"  a message to {room:,}: the last has it after {', '.join(f'{each:.2f}' for each in heard)} s;")
            print(f"  {us:.2f} us of the server's processor time a delivery, none lost", flush=True)
        if asked.storm:
            before = use(node, postgres, nats, crowds)
            crowds.tell(f"storm {asked.storm_at_once or max(sizes)}")
            took = await crowds.settle(asked.within, "coming back")
            spent = use(node, postgres, nats, crowds).since(before)
            found["storm"] = {"took_s": took, "per_s": count / took, **crowds.trouble()}
            found["storm_us"] = _cpu(spent, count, "of coming back")
            print(f"all back after {took:.1f} s: {count / took:,.0f} a second; {crowds.trouble()}", flush=True)
    return found


def _cpu(spent: Use, count: int, what: str) -> dict[str, float]:
    parts = {
        name: getattr(spent, f"{name}_cpu_s") / count * 1e6 for name in ("server", "postgres", "nats", "generator")
    }
    print(
        f"  processor time {what}, us each: " + ", ".join(f"{name} {us:.0f}" for name, us in parts.items()), flush=True
    )
    return parts


def arguments() -> argparse.ArgumentParser:
    """What can be asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=30_000)
    parser.add_argument("--room", type=int, default=10_000, help="how many of them are in one hall")
    parser.add_argument("--team", type=int, default=10, help="how many are in each other room")
    parser.add_argument("--workers", type=int, help="of the server; as many as open files make necessary by default")
    parser.add_argument("--lease", type=float, help="seconds of silence after which a worker is taken for dead")
    parser.add_argument("--at-once", type=int, default=500, help="handshakes under way at a time")
    parser.add_argument("--messages", type=int, default=5, help="to the hall")
    parser.add_argument("--rest", type=float, default=20, help="seconds before memory is looked at, and idle")
    parser.add_argument("--storm", action="store_true", help="break all connections, and let all come back at once")
    parser.add_argument("--storm-at-once", type=int, help="under way at a time in a crowd, then; all by default")
    parser.add_argument("--within", type=float, default=1_800, help="seconds for all to be there")
    saving.add_argument(parser)
    return parser


if __name__ == "__main__":
    chosen = arguments().parse_args()
    figures = uvloop.run(main(chosen))
    if chosen.save:
        saving.save("many" if chosen.storm else "many_resting", figures)
