"""What is to be sent, packed: all that one tick brings for a subject goes in one message, and only so much may wait.

While there is no connection, signals are let go (they would be stale) and the rest waits. Beyond the bound an entry is
sent as its mere `seq`, which lets the receivers read it from the store, and everything else is dropped and counted.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator

from hubbub.fanout.nats import wire
from hubbub.fanout.nats.link import Down, Link
from hubbub.fanout.nats.stats import NatsStats

PACKED_BYTES = 256 * 1024
"""How long a message may become by packing; a longer thing goes alone."""


class Outbox:
    """Hands to a link what is put into it.

    Args:
        link: to NATS.
        node: who we are.
        stats: counts.
        most_bytes: how much may wait.

    """

    def __init__(self, link: Link, *, node: str, stats: NatsStats, most_bytes: int) -> None:
        self._link = link
        self._node = node
        self._stats = stats
        self._most_bytes = most_bytes
        self._waiting: dict[str, list[tuple[wire.AnyThing, int]]] = {}  # things with their sizes, by subject
        self._bytes = 0
        self._numbers = itertools.count(1)
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.allows: Callable[[str, wire.Packet], bool] = lambda subject, packet: True  # tests lose packets by it

    def put(self, subject: str, thing: wire.AnyThing) -> None:
        """Send it soon."""
        size = wire.size_of(thing)
        if isinstance(thing, wire.Entry) and not self._fits(size):
            thing = wire.Entry(thing.seq)
            size = wire.size_of(thing)
            self._stats.dropped += 1
            has_room = self._bytes + size <= self._most_bytes + self._most_bytes // 8
        else:
            has_room = self._fits(size)
            if not has_room or (not self._link.is_up and isinstance(thing, wire.Signal | wire.Tell)):
                self._stats.dropped += 1
                return
        if has_room:
            self._waiting.setdefault(subject, []).append((thing, size))
            self._bytes += size
            self._idle.clear()
            self._work.set()

    def _fits(self, size: int) -> bool:
        return self._bytes + size <= self._most_bytes and size <= self._link.max_payload - wire.OVERHEAD

    def connected(self) -> None:
        """There is a connection: go on, but for signals, which waited too long."""
        waiting, self._waiting, self._bytes = self._waiting, {}, 0
        for subject, things in waiting.items():
            kept = [each for each in things if not isinstance(each[0], wire.Signal | wire.Tell)]
            self._stats.dropped += len(things) - len(kept)
            if kept:
                self._waiting[subject] = kept
                self._bytes += sum(size for _, size in kept)
        self._work.set()

    async def sent(self, within_s: float) -> None:
        """Return when everything was handed to NATS, or after `within_s` seconds."""
        try:
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        except TimeoutError:
            return

    async def run(self) -> None:
        """Send what is put, until cancelled."""
        self._work.set()  # what is begun anew may have been broken off
        while True:
            await self._work.wait()
            await asyncio.sleep(0)  # what this tick still brings goes along
            self._work.clear()
            while self._waiting and self._link.is_up:
                subject = next(iter(self._waiting))
                things = self._waiting.pop(subject)
                self._bytes -= sum(size for _, size in things)
                await self._send(subject, things)
            if not self._waiting:
                self._idle.set()

    async def _send(self, subject: str, things: list[tuple[wire.AnyThing, int]]) -> None:
        things = list(self._fitting(things))
        longest = max((size for _, size in things), default=0) + wire.OVERHEAD
        most = min(self._link.max_payload, max(PACKED_BYTES, longest))
        for batch in wire.fitting(things, most):
            packet = wire.Packet(wire.VERSION, self._node, next(self._numbers), batch)
            if not self.allows(subject, packet):
                continue
            data = wire.encode(packet)
            try:
                await self._link.publish(subject, data)
            except Down:
                if self._link.is_up:
                    self._stats.dropped += len(batch)
                else:
                    for thing in batch:
                        self.put(subject, thing)  # it waits again, if it may
                continue
            self._stats.published += 1
            self._stats.published_bytes += len(data)

    def _fitting(self, things: list[tuple[wire.AnyThing, int]]) -> Iterator[tuple[wire.AnyThing, int]]:
        """Those that the server takes: it may be another than that for which they were put."""
        for thing, size in things:
            if size <= self._link.max_payload - wire.OVERHEAD:
                yield thing, size
                continue
            self._stats.dropped += 1
            if isinstance(thing, wire.Entry):
                yield wire.Entry(thing.seq), wire.size_of(wire.Entry(thing.seq))
