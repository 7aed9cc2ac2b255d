"""Who is online, as a room is told: users and not connections, with a grace before "offline", never quadratic.

In a room of up to `crowd` listeners each coming and going is told. In a larger one only the number of users online is
told, at most every `crowded_every_s` and only when it changed. Typing there is told at most every `typing_every_s`,
and who is online is looked up at most every `listed_for_s`, however many ask. A process that is one of many, none of
which knows what the others told, has None for these and tells a crowd nothing.
"""

from __future__ import annotations

import heapq
from itertools import takewhile

from hubbub.clock import Clock
from hubbub.model import RoomId, UserId
from hubbub.parallel import FEW_AT_ONCE, every
from hubbub.ports import Directory, Fanout
from hubbub.protocol import PresenceSignal, TypingSignal, encode

LISTED = 200
"""How many of the users online are listed."""


class PresenceBoard:
    """Announces comings and goings.

    Args:
        fanout, directory, clock: the ports of the same name.
        grace_s: how long a user may be away before he is told to be offline.
        crowd: above how many listeners a room is crowded.
        crowded_every_s, typing_every_s: how often a crowd is told of numbers and of typing; None for never.

    """

    listed_for_s = 1.0

    def __init__(
        self,
        *,
        fanout: Fanout,
        directory: Directory,
        clock: Clock,
        grace_s: float,
        crowd: int,
        crowded_every_s: float | None = 5.0,
        typing_every_s: float | None = 2.0,
    ) -> None:
        self._fanout = fanout
        self._directory = directory
        self._clock = clock
        self._grace_s = grace_s
        self._crowd = crowd
        self._crowded_every_s = crowded_every_s
        self._typing_every_s = typing_every_s
        self._arrived: dict[tuple[RoomId, UserId], None] = {}  # told at the next flush, in order of arrival
        self._leaving: dict[tuple[RoomId, UserId], float] = {}  # told when this monotonic time has passed; in its order
        self._away: dict[RoomId, dict[UserId, None]] = {}  # who is leaving, by room
        self._crowded: dict[RoomId, None] = {}  # crowded rooms whose number may have changed
        self._told: dict[RoomId, tuple[float, int]] = {}  # when a crowded room was last told, and which number
        self._typing_at: dict[RoomId, float] = {}  # when typing may be told again in a crowded room
        self._listed: dict[
            RoomId, tuple[float, list[UserId], int]
        ] = {}  # who is online in crowded rooms, and as of when
        directory.watch(self.changed)

    def changed(self, room: RoomId, user: UserId, online: bool) -> None:
        """Take note that the user began or ceased to have a listening connection in the room."""
        key = (room, user)
        if online:
            if not self._strike_off(room, user):
                self._arrived[key] = None
        elif self._arrived.pop(key, key) is key:
            self._leaving[key] = self._clock.monotonic() + self._grace_s
            self._away.setdefault(room, {})[user] = None

    def _strike_off(self, room: RoomId, user: UserId) -> bool:
        """Strike the user off those who are leaving; False when he is none of them."""
        if self._leaving.pop((room, user), None) is None:
            return False
        away = self._away[room]
        del away[user]
        if not away:
            del self._away[room]
        return True

    async def online(self, room: RoomId) -> tuple[list[UserId], int]:
        """The first users online in the room, and how many; who is away for less than the grace counts."""
        now = self._clock.monotonic()
        listed_at, users, count = self._listed.get(room, (now - self.listed_for_s, [], 0))
        if now - listed_at < self.listed_for_s:
            return users, count
        users, count = await self._directory.online(room, LISTED)
        if away := self._away.get(room):
            users, count = heapq.nsmallest(LISTED, {*users, *away}), count + len(away)
        if await self._directory.listeners(room) > self._crowd:
            self._listed[room] = (now, users, count)
        return users, count

    async def _count(self, room: RoomId) -> int:
        _, count = await self._directory.online(room, 0)
        return count + len(self._away.get(room, ()))

    async def type(self, room: RoomId, signal: TypingSignal, exclude: str | None) -> None:
        """Tell the room of somebody's typing, unless it is crowded and was told just now."""
        if await self._directory.listeners(room) > self._crowd:
            now = self._clock.monotonic()
            if self._typing_every_s is None or now < self._typing_at.get(room, now):
                return
            self._typing_at[room] = now + self._typing_every_s
        await self._fanout.signal(room, encode(signal), exclude=exclude)  # type: ignore[arg-type]  # a ConnectionId

    async def flush(self) -> None:
        """Tell what is due; to be called about once a second."""
        now = self._clock.monotonic()
        arrived, self._arrived = self._arrived, {}
        due = [key for key, _ in takewhile(lambda leaving: leaving[1] <= now, self._leaving.items())]
        left = [key for key in due if self._strike_off(*key)]
        # Somebody may come into hundreds of rooms at once, and where no process waits, his answer waits for this.
        told = [*((key, True) for key in arrived), *((key, False) for key in left)]
        await every(self._tell, told, at_once=FEW_AT_ONCE)
        if self._crowded_every_s is not None:
            await self._tell_crowded(now, self._crowded_every_s)
        self._typing_at = {room: at for room, at in self._typing_at.items() if now < at}
        self._listed = {room: last for room, last in self._listed.items() if now - last[0] < self.listed_for_s}

    async def _tell(self, what: tuple[tuple[RoomId, UserId], bool]) -> None:
        (room, user), online = what
        if await self._directory.listeners(room) > self._crowd:
            if self._crowded_every_s is not None:
                self._crowded[room] = None
            return
        count = await self._count(room)
        await self._fanout.signal_here(room, encode(PresenceSignal(room=room, user=user, online=online, count=count)))

    async def _tell_crowded(self, now: float, every_s: float) -> None:
        for room in list(self._crowded):
            told_at, told = self._told.get(room, (-every_s, -1))
            if now - told_at < every_s:
                continue
            del self._crowded[room]
            count = await self._count(room)
            if count != told:
                self._told[room] = (now, count)
                await self._fanout.signal_here(room, encode(PresenceSignal(room=room, count=count)))
        if len(self._told) > 1_000:
            self._told = {room: last for room, last in self._told.items() if now - last[0] < every_s}
