"""What a directory knows of rooms: over how many shards their listeners are spread, how many there are, and who.

How many shards a room has is the broadcaster's to say; it only ever doubles. Who puts a listener where it belonged a
while ago does no harm, for all shards are always looked at; who looks for listeners must know of the newest shard.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from hubbub.aws.table import Table
from hubbub.clock import Clock
from hubbub.fanout.apigateway.keys import (
    Listener,
    asked_key,
    delivery_key,
    listener_of,
    listeners_of,
    listeners_pk,
    shards_of,
)
from hubbub.model import RoomId, UserId
from hubbub.parallel import each

SHARDS_FRESH_S = 60.0
"""For how long a number of shards is taken for granted by who puts a listener somewhere."""

COUNT_FRESH_S = 3.0
"""For how long a number of listeners is, and a number of shards by who looks for somebody."""

FEW = 100
"""Rooms in which the broadcaster saw fewer listeners are counted: they may have grown since anything was said."""

MAX_CACHED = 5_000


class Sight(NamedTuple):
    """What a room was seen to be.

    Attributes:
        shards: over how many partitions its listeners are spread.
        listeners: how many the broadcaster saw last; 0 for few, or none, or not known.
        asked: how often somebody has asked for all who listen.

    """

    shards: int = 1
    listeners: int = 0
    asked: int = 0


class Rooms:
    """The rooms' listeners in a table.

    Args:
        table: where they are.
        clock: time.

    """

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._seen: dict[RoomId, tuple[float, Sight]] = {}  # and when (monotonic)
        self._counted: dict[RoomId, tuple[float, int]] = {}

    async def see(self, rooms: Collection[RoomId], *, within_s: float = SHARDS_FRESH_S) -> dict[RoomId, Sight]:
        """What the rooms are, or were at most `within_s` ago."""
        now = self._clock.monotonic()
        unseen = [room for room in rooms if (seen := self._seen.get(room)) is None or now - seen[0] >= within_s]
        if unseen:
            keys = [key(room) for room in unseen for key in (delivery_key, asked_key)]
            consistent = within_s <= COUNT_FRESH_S
            items = await self._table.get_many(keys, consistent=consistent, only=("shards", "listeners", "asked"))
            for room in unseen:
                told = items.get(delivery_key(room), {})
                asked = items.get(asked_key(room), {})
                sight = Sight(_number(told, "shards", 1), _number(told, "listeners", 0), _number(asked, "asked", 0))
                self._remember(room, sight, now)
        return {room: self._seen[room][1] for room in rooms}

    async def asked(self, rooms: Iterable[RoomId]) -> dict[RoomId, int]:
        """How often somebody has asked, until now, for all who listen to the rooms."""
        keys = {asked_key(room): room for room in rooms}
        items = await self._table.get_many(list(keys), only=("asked",))
        return {room: _number(items.get(key, {}), "asked", 0) for key, room in keys.items()}

    async def ask(self, room: RoomId) -> int:
        """Say that somebody asks for all who listen to the room; how often that happened."""
        item = await self._table.update(
            asked_key(room), "ADD asked :one", values={"one": 1}, returns="ALL_NEW", repeat=True
        )
        self._seen.pop(room, None)
        return _number(item, "asked", 0)

    def unsee(self, rooms: Iterable[RoomId]) -> None:
        """Look at the rooms anew the next time."""
        for room in rooms:
            self._seen.pop(room, None)

    async def all(self, room: RoomId, *, within_s: float = 0.0) -> list[Listener]:
        """The room's listeners, those who have left but are not yet told to have included.

        Args:
            room: which.
            within_s: how old the number of its shards may be.

        """
        sight = (await self.see([room], within_s=within_s))[room]
        shards = await each(lambda shard: self._in_shard(room, shard), range(sight.shards))
        return [listener for shard in shards for listener in shard]

    async def of_user(self, room: RoomId, user: UserId) -> list[Listener]:
        """A user's listeners in the room."""
        sight = (await self.see([room], within_s=COUNT_FRESH_S))[room]
        prefix = listeners_of(user)
        shards = await each(lambda shard: self._in_shard(room, shard, prefix), shards_of(user, sight.shards))
        return [listener for shard in shards for listener in shard]

    async def count(self, room: RoomId) -> int:
        """About how many listeners the room has: what the broadcaster saw last, or if that were few, what is there."""
        now = self._clock.monotonic()
        counted = self._counted.get(room)
        if counted is not None and now - counted[0] < COUNT_FRESH_S:
            return counted[1]
        sight = (await self.see([room], within_s=COUNT_FRESH_S))[room]
        number = sight.listeners if sight.listeners >= FEW or sight.shards > 1 else await self._counted_in(room)
        if len(self._counted) >= MAX_CACHED:
            self._counted.clear()
        self._counted[room] = (now, number)
        return number

    async def _counted_in(self, room: RoomId) -> int:
        """How many listeners a room has that is not spread; the pages of a query are longer than any such room."""
        page = await self._table.query(listeners_pk(room, 0), consistent=False, count_only=True)
        return page.count

    async def _in_shard(self, room: RoomId, shard: int, prefix: str | None = None) -> list[Listener]:
        found: list[Listener] = []
        start: str | None = None
        now_s = self._clock.now_ms() // 1_000
        while True:
            page = await self._table.query(listeners_pk(room, shard), prefix=prefix, start=start)
            found += [listener for item in page.items if (listener := listener_of(item)).ttl > now_s]
            if page.next is None:
                return found
            start = page.next

    def _remember(self, room: RoomId, sight: Sight, now: float) -> None:
        self._seen.pop(room, None)
        self._seen[room] = (now, sight)
        if len(self._seen) > MAX_CACHED:
            del self._seen[next(iter(self._seen))]


def _number(item: Mapping[str, object], name: str, otherwise: int) -> int:
    value = item.get(name)
    return value if isinstance(value, int) else otherwise
