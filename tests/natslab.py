"""Nodes of a cluster as far as the fan-out goes: real NATS servers, and for each node a sink, over one shared log.

The log is a dictionary: what is written to it and not published was lost on the way.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from scripts.servers import Nats

from doubles import FakeSink, settle
from hubbub.clock import Clock, SystemClock
from hubbub.fanout import NatsFanout, open_fanout
from hubbub.fanout.nats import wire
from hubbub.fanout.nats.link import Pauses
from hubbub.model import ConnectionId, Principal, RoomId, UserId
from live import until

_prefixes = itertools.count(1)


def prefix() -> str:
    """One that no other test of this process has."""
    return f"t{next(_prefixes)}"


@asynccontextmanager
async def alone(server: Nats, *, sink: Any, read: Any, clock: Clock) -> AsyncIterator[NatsFanout]:
    """A node without others, as the contract tests want it."""

    async def heads(rooms: Any) -> dict[RoomId, int]:
        return {}

    url = f"{server.url}?prefix={prefix()}"
    async with open_fanout(url, sink=sink, read=read, heads=heads, clock=clock) as fanout:
        yield fanout  # type: ignore[misc]  # one over NATS


async def settled(fanout: NatsFanout) -> None:
    """What was handed over here is done."""
    await settle()


async def token_ends(fanout: NatsFanout) -> int:
    """How many ends of tokens it knows."""
    return len(fanout._local._ends)


class Log:
    """The store, as fan-outs see it.

    Attributes:
        entries: the highest seq of each room.
        reads, heads_read: how often it was asked.
        fails: whether it cannot be read just now.

    """

    def __init__(self) -> None:
        self.entries: dict[RoomId, int] = {}
        self.reads = 0
        self.heads_read = 0
        self.gate: Callable[[], Any] | None = None  # awaited before a read is answered

    def write(self, room: RoomId) -> int:
        """Append an entry; returns its seq."""
        self.entries[room] = self.entries.get(room, 0) + 1
        return self.entries[room]

    async def read(self, room: RoomId, after: int) -> list[tuple[int, bytes]]:
        self.reads += 1
        last = min(self.entries.get(room, 0), after + 200)
        found = [(seq, frame(room, seq)) for seq in range(after + 1, last + 1)]
        if self.gate is not None:
            await self.gate()
        return found

    async def heads(self, rooms: Any) -> dict[RoomId, int]:
        self.heads_read += 1
        return {room: self.entries[room] for room in rooms if room in self.entries}


def frame(room: str, seq: int) -> bytes:
    """An entry's frame."""
    return f"{room} {seq}".encode()


async def looked(node: FanoutNode) -> None:
    """Return when looks at heads come but in turn, so that only what a test is about finds what is lost."""
    await until(lambda: not node.fanout._heads._extra, "the looks after subscribing")


def no_digests(*nodes: FanoutNode) -> None:
    """Let digests of presence be told only when they are asked for, not in turn."""
    for node in nodes:
        node.fanout._reports._digest_at = float("inf")


class FanoutNode:
    """A node: a fan-out with its sink, and what it told of presence.

    Attributes:
        fanout, sink: they.
        presence: what was told, in order.

    """

    def __init__(self, fanout: NatsFanout, sink: FakeSink, log: Log) -> None:
        self.fanout = fanout
        self.sink = sink
        self.log = log
        self.presence: list[tuple[str, str, bool]] = []
        fanout.watch(lambda room, user, online: self.presence.append((room, user, online)))

    @property
    def name(self) -> str:
        """Its id among the nodes."""
        return self.fanout._exchange.node

    async def connect(self, user: str, connection: str, *rooms: str) -> list[bytes]:
        """A connection that listens to these rooms from their heads on; returns what it will have got."""
        frames = self.sink.open(connection)
        await self.fanout.connect(ConnectionId(connection), Principal(UserId(user), 2**40))
        named = [RoomId(room) for room in rooms]
        async with await self.fanout.listen(ConnectionId(connection), named) as listening:
            await listening.start({room: self.log.entries.get(room, 0) for room in named})
        return frames

    async def gone(self, connection: str) -> None:
        """The connection is no more."""
        self.sink.gone(connection)
        await self.fanout.disconnect_connection(ConnectionId(connection))

    async def write(self, room: str, *, publish: bool = True) -> int:
        """Write an entry, and hand it out if it does not get lost at once."""
        seq = self.log.write(RoomId(room))
        if publish:
            await self.fanout.publish(RoomId(room), seq, frame(room, seq))
        return seq

    def lose(self, what: Callable[[str, wire.Packet], bool]) -> None:
        """Lose the packets of which this is true on their way to NATS; they count as sent."""
        self.fanout._exchange.outbox.allows = lambda subject, packet: not what(subject, packet)


class Nodes:
    """Nodes of one cluster.

    Args:
        url: of the NATS servers.
        stack: ends them.
        parameters: of the URL.

    Attributes:
        log: the store that they share.

    """

    def __init__(self, url: str, stack: AsyncExitStack, **parameters: Any) -> None:
        self.log = Log()
        self._stack = stack
        chosen = {"prefix": prefix(), "heartbeat_s": 0.2, "lease_s": 2.0, **parameters}
        self.url = f"{url}?{'&'.join(f'{name}={value}' for name, value in chosen.items())}"

    async def add(self, *, url: str | None = None, clock: Clock | None = None) -> FanoutNode:
        """One more node, which the others know when this returns."""
        sink = FakeSink()
        fanout = open_fanout(
            url or self.url, sink=sink, read=self.log.read, heads=self.log.heads, clock=clock or SystemClock()
        )
        assert isinstance(fanout, NatsFanout)
        fanout._exchange._link._pauses = Pauses(attempt_s=2.0, first_s=0.05, most_s=0.2, ping_s=0.5, end_s=0.5)
        await self._stack.enter_async_context(fanout)
        return FanoutNode(fanout, sink, self.log)

    async def several(self, count: int) -> list[FanoutNode]:
        """So many nodes, which know each other."""
        nodes = [await self.add() for _ in range(count)]
        await self.meet(*nodes)
        return nodes

    async def meet(self, *nodes: FanoutNode) -> None:
        """Return when each of them knows the others."""
        names = {node.name for node in nodes}
        await until(
            lambda: all(names - {node.name} <= node.fanout._exchange.peers.alive for node in nodes), "nodes that meet"
        )
