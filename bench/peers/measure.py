"""What is measured of one peer: deliveries' cost, their rate, memory, connects, and what is lost when all speak.

The server gets one core, with its Redis where it has one, and its clients get the other. What counts is the processor
time of the server with all that it has started, and of Redis. Clocks say less: the machine is shared with the clients.
"""

from __future__ import annotations

import asyncio
import math
import os
import resource
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import psutil
from scripts import servers
from scripts.servers import free_port

from bench.cluster import cpu_of
from bench.peers import install
from bench.peers.audience import Audience
from bench.peers.catalogue import Peer, Place

LOST_MESSAGES = 401
"""How many messages the members of a room say when all speak."""

WARM_UP = 1 / 8
"""For what part of the time that is measured messages are sent before it."""

WARM_UP_CONNECTIONS = 1 / 20
"""How many connections are there before those that are measured."""

STRAGGLERS_S = 2.0
"""What was said before a measurement is no longer waited for when nothing of it has come for so long."""

CALM_S = (1.0, 1.5)
"""How long a server is left alone before its memory is looked at: when the first have come, and when all have."""

FOREIGN = ("HUBBUB_", "UVICORN_", "WEB_CONCURRENCY", "NODE_OPTIONS", "GOMAXPROCS", "GOGC", "GOMEMLIMIT")
"""How variables begin that would change what a server does, the number of its processes for one."""

LAST_WORDS = 1_000
"""How much of a server's log is shown when it fails."""


class Sizes(msgspec.Struct, frozen=True):
    """How much is measured.

    Attributes:
        listeners: rooms of how many.
        in_flight: how many messages are under way at a time.
        seconds: for how long messages are sent, each time.
        idle: how many connections are held for their memory.
        speakers: rooms of how many in which all speak; none when this is left out.

    """

    listeners: tuple[int, ...] = (100, 1_000)
    in_flight: tuple[int, ...] = (1, 16)
    seconds: float = 4.0
    idle: int = 2_000
    speakers: tuple[int, ...] = (100, 400, 1_000)


QUICK = Sizes(listeners=(100,), seconds=1.0, idle=200, speakers=(100,))
"""For seeing that it works."""


class Delivery(msgspec.Struct):
    """One room, one who speaks, and those who listen.

    Attributes:
        listeners, in_flight: the setting.
        messages: that were said.
        cpu_us: of the server for each delivery.
        redis_us: of Redis.
        per_s: deliveries in a second, until the last that came.
        clients_busy: how much of its core the clients used: near 1, they are what bounds the rate.
        lost: deliveries that never came.

    """

    listeners: int
    in_flight: int
    messages: int
    cpu_us: float
    redis_us: float
    per_s: float
    clients_busy: float
    lost: int

    @property
    def all_us(self) -> float:
        """Of the server and of Redis, for each delivery."""
        return self.cpu_us + self.redis_us


class Idle(msgspec.Struct):
    """Connections that are there, listen, and do nothing.

    Attributes:
        connections: how many.
        kb: resident memory of the server for each, in KiB.
        redis_kb: of Redis.
        connects_per_s: how many a second came to be.
        connect_cpu_us: of the server, and of Redis, for each handshake; where to connect is to listen, for that too.
        listen_cpu_us: the same for each that began to listen.

    """

    connections: int
    kb: float
    redis_kb: float
    connects_per_s: float
    connect_cpu_us: float
    listen_cpu_us: float


class Losses(msgspec.Struct):
    """The members of a room speak at once, as many of them as there are messages.

    Attributes:
        members, messages: the setting.
        expected: deliveries that should come.
        lost: that did not.
        doubled: that came more than once.
        told: errors, and connections ended, by which anybody could know.
        seconds: until the last came.

    """

    members: int
    messages: int
    expected: int
    lost: int
    doubled: int
    told: int
    seconds: float


class Served:
    """A peer that runs."""

    def __init__(self, peer: Peer, port: int, server: servers.Server, redis: servers.Server | None) -> None:
        self.peer = peer
        self.port = port
        self.server = server
        self.redis = redis

    def audience(self) -> Audience:
        """Clients of it, none yet."""
        return Audience(self.peer.dialect(), self.port, at_once=self.peer.at_once)

    def cpu_s(self) -> tuple[float, float]:
        """Processor time so far, of the server and of Redis."""
        return cpu_of(self.server.pid), cpu_of(self.redis.pid) if self.redis is not None else 0.0

    def rss(self) -> tuple[int, int]:
        """Resident memory, likewise."""
        return _rss(self.server.pid), _rss(self.redis.pid) if self.redis is not None else 0


class _Patient(servers.Server):
    """A server that may take long to start, may leave processes behind when it ends, and does not outlive the bench."""

    started_within_s = 120.0
    dies_with_starter = True

    def variables(self) -> dict[str, str]:
        ours = self._environment or {}
        return {
            name: value for name, value in super().variables().items() if name in ours or not name.startswith(FOREIGN)
        }

    def stop(self) -> None:
        super().stop()
        self.kill()

    def kill(self) -> None:
        if self.process is not None:
            self._signal_all(servers.signal.SIGKILL)
            self.process.wait(servers.STOPPED_WITHIN_S)


@asynccontextmanager
async def served(peer: Peer) -> AsyncIterator[Served]:
    """A peer's server, fresh, on a core of its own, with a Redis of its own where it needs one.

    It is not told of settings for servers in our environment and working folder. Its data is below `build`, since a
    temporary folder may be in memory, where to wait for the disk is nothing. What goes wrong while it runs gets its
    last words as a note.

    Raises:
        Unavailable: it cannot be had here.
        RuntimeError: it does not start; the message has its last words.

    """
    cores = sorted(os.sched_getaffinity(0))
    install.BUILD.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"data-{peer.name}-", dir=install.BUILD))
    server = redis = None
    try:
        redis_port = free_port()
        if peer.needs_redis:
            command = [
                install.redis(),
                "--port",
                str(redis_port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
                str(folder),
            ]
            redis = _Patient(_pinned(cores[0], command), port=redis_port, log=folder / "redis.log")
            await asyncio.to_thread(redis.start)
        place = Place(free_port(), folder, redis_port)
        start = await asyncio.to_thread(peer.start, place)
        server = _Patient(
            _pinned(cores[0], ["env", "-C", str(start.folder or folder), *start.command]),
            port=place.port,
            log=folder / "server.log",
            environment=start.variables,
        )
        await asyncio.to_thread(server.start)
        os.sched_setaffinity(0, {cores[-1]})
        yield Served(peer, place.port, server, redis)
    except Exception as error:
        if server is not None and server.process is not None:
            error.add_note(server.log.read_text(errors="replace")[-LAST_WORDS:].strip())
        raise
    finally:
        os.sched_setaffinity(0, set(cores))
        for each in (server, redis):
            if each is not None:
                await asyncio.to_thread(each.stop)
        shutil.rmtree(folder, ignore_errors=True)


def let_connect(count: int) -> None:
    """Allow as many open files as so many connections need, here and in servers that are started.

    Raises:
        OSError: the system has less.

    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and count * (1 + WARM_UP_CONNECTIONS) + 100 > hard:
        raise OSError(f"{count} connections need more open files than the {hard} that a process may have here")


async def deliveries(peer: Peer, listeners: int, in_flight: tuple[int, ...], seconds: float) -> list[Delivery]:
    """What a delivery costs in a room of so many, for each number in flight, when the server is warm."""
    async with served(peer) as running:
        audience = running.audience()
        members = await audience.connect(listeners)
        await audience.listen(members)
        speaker = (await audience.connect(1))[0]
        hearing = listeners if peer.dialect().joining() else listeners + 1  # who connects listens, also who speaks
        await audience.hear(speaker, members, hearing, STRAGGLERS_S)
        found = []
        for many in in_flight:
            await _say(running, audience, hearing, many, seconds * WARM_UP)
            found.append(await _deliver(running, audience, hearing, many, seconds))
        audience.close()
        return found


async def _deliver(running: Served, audience: Audience, hearing: int, in_flight: int, seconds: float) -> Delivery:
    begin = audience.received
    before, own = running.cpu_s(), time.process_time()
    began = time.monotonic()
    sent = await _say(running, audience, hearing, in_flight, seconds)
    after = running.cpu_s()
    busy = (time.process_time() - own) / (time.monotonic() - began)
    got = audience.received - begin
    server, redis = ((now - then) / max(got, 1) * 1e6 for now, then in zip(after, before, strict=True))
    return Delivery(
        listeners=len(audience.members) - 1,
        in_flight=in_flight,
        messages=sent,
        cpu_us=server,
        redis_us=redis,
        per_s=got / (audience.last_at - began),
        clients_busy=busy,
        lost=sent * hearing - got,
    )


async def _say(running: Served, audience: Audience, hearing: int, in_flight: int, seconds: float) -> int:
    """Keep so many messages under way for that long, and wait for the last; returns how many there were.

    Raises:
        RuntimeError: the server acknowledges messages, and not all of these.

    """
    speaker = audience.members[-1]
    begin, acks = audience.received, audience.acks
    began = time.monotonic()
    sent, is_whole = 0, True
    while is_whole and time.monotonic() - began < seconds:
        done = (audience.received - begin) // hearing
        while sent - done < in_flight:
            speaker.say(sent % 1_000_000)
            sent += 1
        is_whole = await audience.until(begin + (sent - in_flight + 1) * hearing, running.peer.lost_after_s)
    is_whole = is_whole and await audience.until(begin + sent * hearing, running.peer.lost_after_s)
    if audience.dialect.acknowledges and is_whole:
        for _ in range(500):
            if audience.acks - acks >= sent:
                break
            await asyncio.sleep(0.01)
        else:
            raise RuntimeError(f"{running.peer.name} acknowledged {audience.acks - acks} of {sent} messages")
    return sent


async def idle(peer: Peer, connections: int) -> Idle:
    """What a connection costs that is there and listens, and what it costs to make one."""
    async with served(peer) as running:
        audience = running.audience()
        first = await audience.connect(math.ceil(connections * WARM_UP_CONNECTIONS))
        await audience.listen(first)  # and stay: what a server keeps for its first clients is no further connection's
        await asyncio.sleep(CALM_S[0])
        before, memory = running.cpu_s(), running.rss()
        began = time.monotonic()
        members = await audience.connect(connections)
        took = time.monotonic() - began
        connected_s = sum(running.cpu_s())
        await audience.listen(members)
        listening_s = sum(running.cpu_s())
        await asyncio.sleep(CALM_S[1])
        after = running.rss()
        kept = sum(member.is_open for member in members)
        if kept < connections:
            raise RuntimeError(f"{connections - kept} of {connections} connections to {peer.name} did not stay")
        audience.close()
        server, redis = ((now - then) / connections / 1024 for now, then in zip(after, memory, strict=True))
        return Idle(
            connections=connections,
            kb=server,
            redis_kb=redis,
            connects_per_s=connections / took,
            connect_cpu_us=(connected_s - sum(before)) / connections * 1e6,
            listen_cpu_us=(listening_s - connected_s) / connections * 1e6,
        )


async def losses(peer: Peer, members: int, messages: int = LOST_MESSAGES) -> Losses:
    """What is lost when the members of a room speak at once, the messages spread over them."""
    async with served(peer) as running:
        audience = running.audience()
        all_of_them = await audience.connect(members)
        await audience.listen(all_of_them)
        await audience.hear(all_of_them[0], all_of_them, members, STRAGGLERS_S)
        audience.track(messages)
        begin = audience.received
        began = time.monotonic()
        for number in range(messages):
            all_of_them[number % members].say(number)
        await audience.until(begin + messages * members, running.peer.lost_after_s)
        last = audience.last_at
        await audience.quiet(0.5)
        missing = doubled = 0
        for member in all_of_them:
            assert member.seen is not None
            missing += member.seen.count(0)
            doubled += sum(times - 1 for times in member.seen if times > 1)
        told = len(audience.refusals) + audience.lost_connections
        audience.close()
        return Losses(members, messages, members * messages, missing, doubled, told, last - began)


def _pinned(core: int, command: list[str]) -> list[str]:
    return ["taskset", "-c", str(core), *command]


def _rss(pid: int) -> int:
    root = psutil.Process(pid)
    return sum(int(process.memory_info().rss) for process in (root, *root.children(recursive=True)))
