"""Connections without sockets: all that one is in the hub and in the fan-out, for numbers that no process may open.

Each answers a ping as a client does, in the hub's own terms, at a time that the bench sets. What sockets cost beside
that is measured with real ones; a whole node without them is `bench.pretend`.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence

from hubbub.apigateway import new_id
from hubbub.clock import SystemClock
from hubbub.fanout import LocalFanout
from hubbub.gateway.connection import PONG, Life, Rules
from hubbub.gateway.hub import Hub, Peer
from hubbub.model import ConnectionId, Principal, Role, RoomId, UserId

ROOMS = 1_000
"""Over how many rooms they are spread; each listens to one."""


class Socket:
    """What would be written to a client, and its pongs.

    Attributes:
        pings: how many frames were written.

    """

    __slots__ = ("_crowd", "peer", "pings")

    def __init__(self, crowd: QuietCrowd) -> None:
        self._crowd = crowd
        self.peer: Peer
        self.pings = 0

    def write(self, data: bytes) -> None:
        self.pings += 1
        self._crowd.pinged.append(self.peer)

    def waiting(self) -> int:
        return 0

    def send_close(self, code: int, reason: str) -> None:
        raise RuntimeError(f"expected no connection to be closed, got {code} {reason}")

    def drop(self, abort: bool) -> None:
        raise RuntimeError("expected no connection to be dropped")


class QuietCrowd:
    """Such connections, at a time of its own.

    Args:
        rules: what holds for them.

    Attributes:
        hub: where they are.
        now: monotonic seconds.
        pinged: who was pinged and has not answered.

    """

    def __init__(self, rules: Rules | None = None) -> None:
        self.now = 0.0
        self.hub = Hub(rules or Rules(ping_early_s=8.0), clock=lambda: self.now)
        self.pinged: list[Peer] = []
        self._fanout = LocalFanout(sink=self.hub, read=_read_nothing, clock=SystemClock())
        self._numbers = itertools.count()
        self._here: deque[Peer] = deque()

    async def come(self) -> None:
        """One more connects, and listens to a room."""
        number = next(self._numbers)
        connection, room = ConnectionId(new_id()), RoomId(f"room{number % ROOMS}")
        socket = Socket(self)
        peer = socket.peer = Peer(connection, Life(self.now), socket, socket.write)
        self.hub.add(peer)
        principal = Principal(UserId(f"user{number}"), 2**40, rooms={room: Role.MEMBER})
        await self._fanout.connect(connection, principal)
        async with await self._fanout.listen(connection, [room]) as listening:
            await listening.start({room: 0})
        self._here.append(peer)

    async def go(self) -> None:
        """The one that has been here longest goes."""
        peer = self._here.popleft()
        self.hub.remove(peer)
        await self._fanout.disconnect_connection(ConnectionId(peer.id))

    def answer(self) -> None:
        """All that were pinged send their pong."""
        pinged, self.pinged = self.pinged, []
        for peer in pinged:
            peer.life.received(PONG, True, 0, b"", self.now, self.hub.rules)


async def _read_nothing(room: RoomId, after: int) -> Sequence[tuple[int, bytes]]:
    return []
