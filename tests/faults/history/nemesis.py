"""What breaks the cluster: one fault after the other, or two at once, each healed after a while; all by one seed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import msgspec
from scripts.servers import Server

from cuttable import Way
from history.cutter import BOTH, Link, NatsLink
from history.record import Fault, Recorder

STARTED_AGAIN_S = 90.0
"""How long a part may take until it runs again: what it needs may be away meanwhile."""

TOGETHER = 0.3
"""How often a fault comes upon one that has not healed yet."""

LONG = 0.1, 4.0
"""How often a fault lasts longer, and how much longer."""

SILENT = BOTH, frozenset({Way.THERE}), frozenset({Way.BACK})
"""In which directions nothing comes through."""


class Theatre(msgspec.Struct):
    """What there is to break.

    Attributes:
        nodes, nats: the servers.
        postgres: so.
        balancer: what clients connect to.
        to_postgres: of each node, its way there.
        to_nats: of each node, its ways to each NATS server.

    """

    nodes: Sequence[Server]
    nats: Sequence[Server]
    postgres: Server
    balancer: Server
    to_postgres: Sequence[Link]
    to_nats: Sequence[Sequence[NatsLink]]


class Nemesis:
    """Breaks and heals.

    Args:
        theatre: what there is.
        recorder: the history.
        seed: of all that is left to chance.

    Attributes:
        done: how many faults of each kind there have been.

    """

    def __init__(self, theatre: Theatre, recorder: Recorder, *, seed: int) -> None:
        self._theatre = theatre
        self._recorder = recorder
        self._chance = random.Random(f"nemesis {seed}")
        self._parts: dict[str, Server | int] = {
            **{f"node {number}": node for number, node in enumerate(theatre.nodes, 1)},
            **{f"nats {number}": server for number, server in enumerate(theatre.nats, 1)},
            "postgres": theatre.postgres,
            "balancer": theatre.balancer,
            **{f"ways {number}": number - 1 for number in range(1, len(theatre.nodes) + 1)},
        }
        self._free = set(self._parts)  # those that no fault has just now
        self._running: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(len(self._parts), "nemesis")  # one part's start may wait for another's
        self.done: Counter[str] = Counter()

    @property
    def faults(self) -> Mapping[str, Callable[[str, float], Awaitable[None]]]:
        """Every kind of fault: called with its name and how many seconds it is to last."""
        return {
            "kill a node": self.kill_node,
            "kill a NATS server": self.kill_nats,
            "kill PostgreSQL": self.kill_postgres,
            "kill nginx": self.kill_balancer,
            "cut the power": self.cut_power,
            "pause a node": self.pause_node,
            "pause a NATS server": self.pause_nats,
            "pause PostgreSQL": self.pause_postgres,
            "cut a node from PostgreSQL": self.cut_from_postgres,
            "cut a node from NATS": self.cut_from_nats,
            "silence a node's PostgreSQL": self.silence_postgres,
            "silence a node's NATS": self.silence_nats,
            "slow a node's ways": self.slow_ways,
            "lose NATS messages": self.lose_messages,
            "drain a node": self.drain_node,
            "restart all nodes in turn": self.roll,
        }

    async def one_of_each(self, *, lasting_s: float, rest_s: float) -> None:
        """Every kind once, in an order of its own."""
        await self._strike(self._shuffled(), lasting_s, rest_s)

    async def rage(self, *, enough: Callable[[], bool], lasting_s: float, rest_s: float) -> None:
        """Faults of all kinds until it is enough; each kind as often as the others, give or take one."""
        while not enough():
            await self._strike(self._shuffled(), lasting_s, rest_s, enough, self._longer)

    async def end(self) -> None:
        """Break off what is going on; nothing is healed by this."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._threads.shutdown(wait=False)

    def _longer(self) -> float:
        often, times = LONG
        return times if self._chance.random() < often else 1.0

    def _shuffled(self) -> list[str]:
        names = list(self.faults)
        self._chance.shuffle(names)
        return names

    async def _strike(
        self,
        names: Sequence[str],
        lasting_s: float,
        rest_s: float,
        enough: Callable[[], bool] = lambda: False,
        longer: Callable[[], float] = lambda: 1.0,
    ) -> None:
        for name in names:
            if enough():
                break
            self.done[name] += 1
            lasts_s = lasting_s * self._chance.uniform(0.5, 1.5) * longer()
            self._running.add(asyncio.create_task(self.faults[name](name, lasts_s)))
            if len(self._running) < 2 and self._chance.random() < TOGETHER:
                await asyncio.sleep(lasts_s * self._chance.random())
                continue
            await self._healed()
            await asyncio.sleep(rest_s * self._chance.uniform(0.5, 1.5))
        await self._healed()

    async def _healed(self) -> None:
        """Wait until nothing is broken any more; raises what went wrong with a fault."""
        await asyncio.gather(*self._running)
        self._running.clear()

    # The faults

    async def kill_node(self, fault: str, lasting_s: float) -> None:
        """SIGKILL."""
        await self._kill(fault, "node", lasting_s)

    async def kill_nats(self, fault: str, lasting_s: float) -> None:
        """SIGKILL."""
        await self._kill(fault, "nats", lasting_s)

    async def kill_postgres(self, fault: str, lasting_s: float) -> None:
        """SIGKILL to all of its processes."""
        await self._kill(fault, "postgres", lasting_s)

    async def kill_balancer(self, fault: str, lasting_s: float) -> None:
        """SIGKILL: all clients are cut off at once."""
        await self._kill(fault, "balancer", lasting_s)

    async def cut_power(self, fault: str, lasting_s: float) -> None:
        """SIGKILL to everything at once; all of it comes back at once."""
        async with AsyncExitStack() as stack:
            names = [name for name, part in self._parts.items() if isinstance(part, Server)]
            servers = [(await stack.enter_async_context(self._taking(name)))[1] for name in names]
            self._log(fault, "everything", "begins")
            await asyncio.gather(*(self._aside(server.kill) for server in servers))
            await asyncio.sleep(lasting_s)
            await asyncio.gather(*(self._start(server) for server in servers))
            self._log(fault, "everything", "heals")

    async def pause_node(self, fault: str, lasting_s: float) -> None:
        """SIGSTOP."""
        await self._pause(fault, "node", lasting_s)

    async def pause_nats(self, fault: str, lasting_s: float) -> None:
        """SIGSTOP."""
        await self._pause(fault, "nats", lasting_s)

    async def pause_postgres(self, fault: str, lasting_s: float) -> None:
        """SIGSTOP to all of its processes."""
        await self._pause(fault, "postgres", lasting_s)

    async def drain_node(self, fault: str, lasting_s: float) -> None:
        """SIGTERM, and started again a while after it has ended."""
        async with self._taking("node") as (name, server):
            await self._restart(fault, name, server, lasting_s / 2)

    async def roll(self, fault: str, lasting_s: float) -> None:
        """Every node is drained and started again, one after the other, as a deploy does it."""
        for name in [name for name in self._parts if name.startswith("node")]:
            async with self._taking(name) as (_, server):
                await self._restart(fault, name, server, 0.0)

    async def cut_from_postgres(self, fault: str, lasting_s: float) -> None:
        """A node's connections break, and new ones are refused."""
        await self._on_ways(fault, lasting_s, Link.cut, to_postgres=True)

    async def cut_from_nats(self, fault: str, lasting_s: float) -> None:
        """A node's connections break, and new ones are refused by every server."""
        await self._on_ways(fault, lasting_s, Link.cut, to_nats=True)

    async def silence_postgres(self, fault: str, lasting_s: float) -> None:
        """Everything seems to stand and nothing comes through: questions, answers, or both."""
        ways = self._chance.choice(SILENT)
        await self._on_ways(fault, lasting_s, lambda link: link.silence(ways), to_postgres=True, ways=_shown(ways))

    async def silence_nats(self, fault: str, lasting_s: float) -> None:
        """So at NATS."""
        ways = self._chance.choice(SILENT)
        await self._on_ways(fault, lasting_s, lambda link: link.silence(ways), to_nats=True, ways=_shown(ways))

    async def slow_ways(self, fault: str, lasting_s: float) -> None:
        """Everything from and to a node takes longer."""
        delay_s = round(self._chance.uniform(0.02, 0.3), 3)
        slow = partial(Link.slow, delay_s=delay_s)
        await self._on_ways(fault, lasting_s, slow, to_postgres=True, to_nats=True, delay_s=delay_s)

    async def lose_messages(self, fault: str, lasting_s: float) -> None:
        """NATS loses messages from and to all nodes, or one."""
        share, number = self._chance.choice((0.1, 0.5, 1.0)), self._chance.randrange(2 * len(self._theatre.nodes))
        ways = self._theatre.to_nats[number : number + 1] or self._theatre.to_nats
        links = [link for each in ways for link in each]
        target = f"node {number + 1}" if len(ways) == 1 else "every node"
        before = sum(link.lost.total() for link in links)
        self._log(fault, target, "begins", share=share)
        for link in links:
            link.lose(share)
        try:
            await asyncio.sleep(lasting_s)
        finally:
            for link in links:
                link.lose(0.0)
        self._log(fault, target, "heals", lost=sum(link.lost.total() for link in links) - before)

    # How they are done

    async def _kill(self, fault: str, kind: str, lasting_s: float) -> None:
        async with self._taking(kind) as (name, server):
            self._log(fault, name, "begins")
            await self._aside(server.kill)
            await asyncio.sleep(lasting_s)
            await self._start(server)
            self._log(fault, name, "heals")

    async def _pause(self, fault: str, kind: str, lasting_s: float) -> None:
        async with self._taking(kind) as (name, server):
            self._log(fault, name, "begins")
            server.pause()
            try:
                await asyncio.sleep(lasting_s)
            finally:
                server.resume()
            self._log(fault, name, "heals")

    async def _restart(self, fault: str, name: str, server: Server, away_s: float) -> None:
        self._log(fault, name, "begins")
        await self._aside(server.stop)
        await asyncio.sleep(away_s)
        await self._start(server)
        self._log(fault, name, "heals")

    async def _start(self, server: Server) -> None:
        """Start it, as often as it takes: as what looks after processes does, when what one needs is away."""
        async with asyncio.timeout(STARTED_AGAIN_S):
            while True:
                try:
                    await self._aside(server.start)
                except RuntimeError:
                    await asyncio.sleep(0.2)
                else:
                    return

    async def _on_ways(
        self,
        fault: str,
        lasting_s: float,
        harm: Callable[[Link], None],
        *,
        to_postgres: bool = False,
        to_nats: bool = False,
        **details: object,
    ) -> None:
        async with self._taking("ways") as (_, place):
            links: list[Link] = [self._theatre.to_postgres[place]] if to_postgres else []
            links += self._theatre.to_nats[place] if to_nats else ()
            self._log(fault, f"node {place + 1}", "begins", **details)
            for link in links:
                harm(link)
            try:
                await asyncio.sleep(lasting_s)
            finally:
                for link in links:
                    link.heal()
            self._log(fault, f"node {place + 1}", "heals")

    @asynccontextmanager
    async def _taking(self, kind: str) -> AsyncIterator[tuple[str, Any]]:
        """Have a part of this kind, or name, that no other fault has; wait for one if need be."""
        while not (free := sorted(name for name in self._free if name.startswith(kind))):
            await asyncio.sleep(0.05)
        name = self._chance.choice(free)
        self._free.discard(name)
        try:
            yield name, self._parts[name]
        finally:
            self._free.add(name)

    async def _aside(self, call: Callable[[], None]) -> None:
        """Do what blocks in a thread."""
        await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _log(self, fault: str, target: str, does: str, **details: object) -> None:
        self._recorder.write(Fault(t=self._recorder.now(), name=fault, target=target, does=does, details=dict(details)))


def _shown(ways: frozenset[Way]) -> list[str]:
    return sorted(way.value for way in ways)
