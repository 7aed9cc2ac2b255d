"""The ends of the logs of a node's rooms, looked at in turn: how an entry is found of which nobody told this node.

Each room with listeners is looked at within a stated time, and sooner where something may have been missed: after it
was subscribed to, when the connection to NATS is back, when another node died. Many rooms are one question.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import random
from collections.abc import Callable, Sequence

from hubbub.clock import Clock
from hubbub.errors import HubbubError
from hubbub.fanout.nats.stats import NatsStats
from hubbub.model import RoomId
from hubbub.ports import ReadHeads

logger = logging.getLogger("hubbub.fanout.nats")

BATCH = 500
"""Rooms in one question."""

AHEAD = 0.1
"""A turn comes by such a part of the time between two sooner where a question is asked anyway.

A question costs as much as a hundred rooms in it.
"""

MAX_EXTRA = 3
"""Looks at one room that may be waiting besides its turn."""


class HeadRounds:
    """Looks.

    Args:
        read: reads where logs end.
        expect: is told where a log ends; whether something of it is lacking here.
        clock: time.
        stats: counts.
        every_s: within which time each room has its turn.
        spread_s: over which time a look at all rooms is spread.

    """

    tick_s = 0.1
    retry_s = 1.0

    def __init__(
        self,
        *,
        read: ReadHeads,
        expect: Callable[[RoomId, int], bool],
        clock: Clock,
        stats: NatsStats,
        every_s: float,
        spread_s: float = 2.0,
    ) -> None:
        self._read = read
        self._expect = expect
        self._clock = clock
        self._stats = stats
        self._every_s = every_s
        self._spread_s = spread_s
        self._turns: dict[RoomId, float] = {}  # when each room has its turn (monotonic)
        self._extra: dict[RoomId, int] = {}  # how many looks besides wait
        self._due: list[tuple[float, int, RoomId]] = []  # a heap of turns and looks; turns that were moved are stale
        self._numbers = itertools.count()
        self._all_until = 0.0  # when the last look at all is through

    def add(self, room: RoomId) -> None:
        """The room has listeners."""
        self._take_turn(room, self._clock.monotonic() + self._every_s * random.uniform(0.5, 1.0))  # noqa: S311  no secret

    def remove(self, room: RoomId) -> None:
        """It has none any more."""
        self._turns.pop(room, None)

    def checked(self, room: RoomId) -> None:
        """Somebody else has just looked at it."""
        if room in self._turns:
            self._take_turn(room, self._clock.monotonic() + self._every_s)

    def soon(self, rooms: Sequence[RoomId], in_s: float) -> None:
        """Look at them in `in_s` seconds, besides their turn; very many are spread over some time from then on."""
        at = self._clock.monotonic() + in_s
        spread_s = self._spread_s if len(rooms) > BATCH else 0.0
        for room in rooms:
            self._look(room, at + random.uniform(0, spread_s))  # noqa: S311  no secret

    def all_soon(self) -> None:
        """Look at all of them, spread over some time."""
        now = self._clock.monotonic()
        if self._all_until - now > self._spread_s / 2:
            return
        self._all_until = now + self._spread_s
        for room in self._turns:
            self._look(room, now + random.uniform(0, self._spread_s))  # noqa: S311  no secret

    async def run(self) -> None:
        """Look at what is due, until cancelled."""
        while True:
            await self._clock.sleep(self.tick_s)
            while rooms := self._take():
                if not await self._check(rooms):
                    break

    async def _check(self, rooms: list[RoomId]) -> bool:
        try:
            heads = await self._read(rooms)
        except HubbubError as error:
            logger.warning("cannot look where the logs of %d rooms end: %s", len(rooms), error)
            self.soon(rooms, self.retry_s)
            return False
        self._stats.heads_read += len(rooms)
        for room, head in heads.items():
            if self._expect(room, head):
                self._stats.repairs += 1
        return True

    def _take(self) -> list[RoomId]:
        """The next rooms whose time has come, each once, and with them those whose turn comes next."""
        now = self._clock.monotonic()
        ahead_s = AHEAD * self._every_s
        taken: dict[RoomId, None] = {}
        while self._due and self._due[0][0] <= now + (ahead_s if taken else 0.0) and len(taken) < BATCH:
            at, _, room = self._due[0]
            is_extra = (left := self._extra.get(room, 0)) and self._turns.get(room) != at
            if is_extra and at > now:
                break  # it was asked for at this time, and not sooner
            heapq.heappop(self._due)
            if is_extra:
                self._extra[room] = left - 1
                if left == 1:
                    del self._extra[room]
            elif self._turns.get(room) == at:
                self._take_turn(room, now + self._every_s)
            else:
                continue
            if room in self._turns:
                taken[room] = None
        return list(taken)

    def _take_turn(self, room: RoomId, at: float) -> None:
        self._turns[room] = at
        self._push(at, room)
        if len(self._due) > 3 * len(self._turns) + 2 * MAX_EXTRA * len(self._extra) + 1_000:
            self._rebuild()

    def _look(self, room: RoomId, at: float) -> None:
        waiting = self._extra.get(room, 0)
        if room in self._turns and waiting < MAX_EXTRA:
            self._extra[room] = waiting + 1
            self._push(at, room)

    def _push(self, at: float, room: RoomId) -> None:
        heapq.heappush(self._due, (at, next(self._numbers), room))

    def _rebuild(self) -> None:
        """Let go what is stale; looks that are waiting come at once."""
        now = self._clock.monotonic()
        self._due = [(at, next(self._numbers), room) for room, at in self._turns.items()]
        self._due += [(now, next(self._numbers), room) for room in self._extra if room in self._turns]
        self._extra = {room: 1 for room in self._extra if room in self._turns}
        heapq.heapify(self._due)
