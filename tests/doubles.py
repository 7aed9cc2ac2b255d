"""Stand-ins for time and sockets: a clock that only tests move, and a sink that writes down what it is told."""

from __future__ import annotations

import asyncio
import heapq
from collections import defaultdict


class FakeClock:
    """A clock that stands still until `advance`."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_s = now_ms / 1_000
        self._monotonic = 1_000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now_ms(self) -> int:
        return round(self._now_s * 1_000)

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._monotonic + seconds, self._count, future))
        await future

    async def advance(self, seconds: float) -> None:
        """Let time pass, waking sleepers in order and letting them run."""
        until = self._monotonic + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            at, _, future = heapq.heappop(self._sleepers)
            self._pass(at)
            if not future.done():
                future.set_result(None)
            await settle()
        self._pass(until)
        await settle()

    def _pass(self, monotonic: float) -> None:
        self._now_s += monotonic - self._monotonic
        self._monotonic = monotonic


async def settle() -> None:
    """Let everything that can run without time or input run."""
    for _ in range(20):
        await asyncio.sleep(0)


class FakeSink:
    """A `Sink` whose connections are lists of the frames they got."""

    def __init__(self) -> None:
        self.frames: dict[str, list[bytes]] = {}
        self.groups: dict[str, dict[str, None]] = defaultdict(dict)
        self.closed: dict[str, tuple[int, str]] = {}

    def open(self, connection: str) -> list[bytes]:
        """A new live connection; returns what it will have got."""
        return self.frames.setdefault(connection, [])

    def gone(self, connection: str) -> None:
        """The connection is no more."""
        del self.frames[connection]
        for members in self.groups.values():
            members.pop(connection, None)

    def join(self, group: str, connection: str) -> bool:
        if connection not in self.frames:
            return False
        self.groups[group][connection] = None
        return True

    def leave(self, group: str, connection: str) -> None:
        self.groups[group].pop(connection, None)

    def publish(self, group: str, frame: bytes, *, droppable: bool = False, exclude: str | None = None) -> None:
        for connection in self.groups[group]:
            if connection != exclude:
                self.frames[connection].append(frame)

    def send(self, connection: str, frame: bytes) -> bool:
        if connection not in self.frames:
            return False
        self.frames[connection].append(frame)
        return True

    def close(self, connection: str, code: int, reason: str) -> bool:
        if connection not in self.frames:
            return False
        self.closed[connection] = (code, reason)
        return True
