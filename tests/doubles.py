"""Stand-ins for time and sockets: a clock that only tests move, a sink and a socket that write down what they get."""

from __future__ import annotations

import asyncio
import heapq
from collections import defaultdict
from collections.abc import Callable
from typing import ClassVar

from hubbub.gateway.deflate import inflate


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
    """A `Sink` whose connections are lists of the frames they got.

    Attributes:
        frames: what each live connection got.
        groups: who is in which, in the order of joining.
        closed: the code and reason with which each was closed, also after it is gone.

    """

    def __init__(self, *, outbox_bytes: int = 1024 * 1024) -> None:
        self.frames: dict[str, list[bytes]] = {}
        self.groups: dict[str, dict[str, None]] = defaultdict(dict)
        self.closed: dict[str, tuple[int, str]] = {}
        self._outbox_bytes = outbox_bytes
        self._unread: dict[str, int] = {}  # how many bytes wait for those that do not read

    def open(self, connection: str) -> list[bytes]:
        """A new live connection; returns what it will have got."""
        return self.frames.setdefault(connection, [])

    def gone(self, connection: str) -> None:
        """The connection is no more."""
        del self.frames[connection]
        self.reads_again(connection)
        self._leave_all(connection)

    def stops_reading(self, connection: str) -> None:
        """From now on, what the connection gets has to wait."""
        self._unread[connection] = 0

    def reads_again(self, connection: str) -> None:
        """The connection has read everything."""
        self._unread.pop(connection, None)

    def join(self, group: str, connection: str) -> bool:
        if not self._is_open(connection):
            return False
        self.groups[group][connection] = None
        return True

    def leave(self, group: str, connection: str) -> None:
        self.groups[group].pop(connection, None)

    def publish(self, group: str, frame: bytes, *, droppable: bool = False, exclude: str | None = None) -> None:
        for connection in list(self.groups[group]):
            if connection != exclude and not (droppable and connection in self._unread):
                self._give(connection, frame)

    def send(self, connection: str, frame: bytes) -> bool:
        if not self._is_open(connection):
            return False
        self._give(connection, frame)
        return True

    def close(self, connection: str, code: int, reason: str) -> bool:
        if connection not in self.frames:
            return False
        if connection not in self.closed:
            self.closed[connection] = (code, reason)
            self._leave_all(connection)
        return True

    def _is_open(self, connection: str) -> bool:
        return connection in self.frames and connection not in self.closed

    def _give(self, connection: str, frame: bytes) -> None:
        if connection in self._unread:
            self._unread[connection] += len(frame)
            if self._unread[connection] > self._outbox_bytes:
                self.close(connection, 4408, "slow consumer")
                return
        self.frames[connection].append(frame)

    def _leave_all(self, connection: str) -> None:
        for members in self.groups.values():
            members.pop(connection, None)


class FakeSocket:
    """A `Wire` and what is at its far end: what was written to it, and how it was closed.

    Attributes:
        wrongs: what was done to any socket and must not be; written down, for what a socket raises is taken for its
            own failure.
        writes: each call's bytes.
        closed: the code and reason of CLOSE; None while none was sent.
        dropped: whether the socket was closed at once (True) or after what waits (False); None while it is open.
        stuck: whether the client reads nothing, so that what is written waits.
        broken: whether writing raises.
        waits: how many bytes wait.
        on_close: called before CLOSE is sent.

    """

    wrongs: ClassVar[list[str]] = []

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.dropped: bool | None = None
        self.stuck = False
        self.broken = False
        self.waits = 0
        self.on_close: Callable[[], None] = lambda: None

    def write(self, data: bytes) -> None:
        if self.closed is not None or self.dropped is not None:
            self.wrongs.append("written to after it was closed")
        if self.broken:
            raise OSError("the socket is broken")
        self.writes.append(data)
        if self.stuck:
            self.waits += len(data)

    def waiting(self) -> int:
        return self.waits

    def send_close(self, code: int, reason: str) -> None:
        if self.closed is not None or self.dropped is not None:
            self.wrongs.append("closed twice")
        if self.broken:
            raise OSError("the socket is broken")
        self.on_close()
        self.closed = (code, reason)

    def drop(self, abort: bool) -> None:
        self.dropped = abort

    @property
    def frames(self) -> list[tuple[int, bytes]]:
        """The opcodes and payloads of what was written, which is whole, unmasked, unfragmented frames.

        What is marked as compressed is inflated.
        """
        data = b"".join(self.writes)
        frames = []
        while data:
            assert data[0] & 0x80, "not the last fragment"
            size, begin = data[1], 2
            if size > 125:
                begin = 4 if size == 126 else 10
                size = int.from_bytes(data[2:begin], "big")
            assert begin + size <= len(data), "cut off"
            payload = data[begin : begin + size]
            frames.append((data[0] & 0x0F, inflate(payload, 2**20) if data[0] & 0x40 else payload))
            data = data[begin + size :]
        return frames

    @property
    def texts(self) -> list[str]:
        """The text frames that were written."""
        return [payload.decode() for opcode, payload in self.frames if opcode == 0x1]
