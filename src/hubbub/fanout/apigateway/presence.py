"""Beginnings and ends of users in rooms, told by the function in which they happen.

There are no counters that could drift: who comes or goes looks for the user's other connections, after his own change
is done. A beginning is told by the connection that was the first, an end by the one that was the last. Where two of a
user's connections come or go at the very same moment in different processes, it may be told twice, which says nothing
wrong, but never not at all.

With a `linger_s` the end of a connection is not told at once: its items stay, marked as left, until `sweep` finds them.
If the user has come back by then, neither his end nor his beginning is told.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

import msgspec

from hubbub.aws.table import ConditionFailed, Table
from hubbub.clock import Clock
from hubbub.fanout.apigateway.connected import Connected, Link, Seat
from hubbub.fanout.apigateway.connections import Connections
from hubbub.fanout.apigateway.due import Dues
from hubbub.fanout.apigateway.keys import Listener, link_key, listener_key
from hubbub.model import ConnectionId, RoomId, UserId
from hubbub.parallel import every
from hubbub.ports import PresenceListener

LEFT = "left"
"""The kind of what is due when a connection has been away for long enough."""

KEPT_S = 600
"""How long what is marked as left stays if nobody sweeps."""


class _Left(msgspec.Struct):
    """What is due: a connection that was left at `left`, to be told at `at`; both epoch milliseconds."""

    user: UserId
    connection: ConnectionId
    left: int
    at: int


class Presence:
    """Tells of users' beginnings and ends.

    Args:
        table, connections, dues: where things are.
        clock: time.
        linger_s: how long after a connection's end the user still counts as online; 0 for not at all.

    """

    def __init__(
        self, table: Table, connections: Connections, dues: Dues, clock: Clock, *, linger_s: float = 0.0
    ) -> None:
        self._table = table
        self._connections = connections
        self._dues = dues
        self._clock = clock
        self._linger_s = linger_s
        self._watchers: list[PresenceListener] = []

    def watch(self, listener: PresenceListener) -> None:
        """Tell `listener` of beginnings and ends from now on."""
        self._watchers.append(listener)

    async def began(self, user: UserId, seats: Mapping[ConnectionId, Mapping[RoomId, Seat]]) -> None:
        """These connections of a user have begun to listen: tell where he had none before."""
        if not any(seats.values()):
            return
        live, lingering = await self._others(user, seats)
        firsts: dict[RoomId, tuple[int, ConnectionId]] = {}
        for connection, rooms in seats.items():
            for room, seat in rooms.items():
                firsts[room] = min(firsts.get(room, (seat.at, connection)), (seat.at, connection))
        for room, first in firsts.items():
            earlier = [other for other in live if room in other.seats and _place(other, room) < first]
            if not earlier and not any(room in link.rooms for link in lingering):
                self._tell(room, user, True)

    async def ended(self, user: UserId, rooms: Collection[RoomId]) -> None:
        """A connection of the user does not listen to these rooms any more: tell where he has no other."""
        if not rooms:
            return
        live, lingering = await self._others(user, ())
        for room in rooms:
            if not any(room in other.seats for other in live) and not any(room in link.rooms for link in lingering):
                self._tell(room, user, False)

    async def gone(self, was: Connected) -> None:
        """A connection has been ended: see to its items, and tell, now or when it is time."""
        if self._linger_s and was.seats:
            await self._linger(was)
            await self._connections.remove(was.connection)
            return
        keys = [listener_key(room, seat.shard, was.user, was.connection) for room, seat in was.seats.items()]
        await self._table.write_many(deletes=[*keys, link_key(was.user, was.connection)])
        await self._connections.remove(was.connection)
        await self.ended(was.user, was.seats)

    async def sweep(self, now_ms: int) -> None:
        """Tell of the ends whose time has come, epoch milliseconds."""
        minute = now_ms // 60_000
        items = await self._dues.until(LEFT, minute, now=minute)
        by_user: dict[UserId, list[_Left]] = defaultdict(list)
        for item in items:
            left = msgspec.convert(item, _Left)
            if left.at <= now_ms:
                by_user[left.user].append(left)
        await every(self._tell_ends, by_user.values())
        self._dues.done(LEFT, minute)

    async def _linger(self, was: Connected) -> None:
        left = self._clock.now_ms()
        at = left + round(self._linger_s * 1_000)
        ttl = at // 1_000 + KEPT_S
        rooms = {room: seat.shard for room, seat in was.seats.items()}
        link = Link(was.connection, ttl, left, rooms)
        expires_at = was.principal.expires_at
        marked = [
            Listener(room, shard, was.user, was.connection, 0, expires_at, ttl, left) for room, shard in rooms.items()
        ]
        said = {"user": was.user, "connection": was.connection, "left": left, "at": at}
        due = self._dues.item(LEFT, was.connection, at // 1_000, **said)
        await self._table.write_many([*(listener.item() for listener in marked), link.item(was.user), due])

    async def _tell_ends(self, lefts: list[_Left]) -> None:
        """Tell of one user's ends, one after the other: each end looks for those that are yet to be told."""
        for left in lefts:
            item = self._dues.item(LEFT, left.connection, left.at // 1_000)
            key = item["pk"], item["sk"]
            rooms = await self._claim(left)
            if rooms:
                # What is looked for now is what came before the claim, or saw it.
                await self.ended(left.user, rooms)
            gone = [listener_key(room, shard, left.user, left.connection) for room, shard in rooms.items()]
            await self._table.write_many(deletes=[*gone, key])

    async def _claim(self, left: _Left) -> dict[RoomId, int]:
        """The rooms that a connection left, with their shards; none if somebody else tells of them."""
        key = link_key(left.user, left.connection)
        try:
            old = await self._table.delete(key, condition="#left = :left", values={"left": left.left}, returns_old=True)
        except ConditionFailed:
            return {}
        return msgspec.convert((old or {}).get("rooms", {}), dict[RoomId, int])

    async def _others(self, user: UserId, but: Collection[ConnectionId]) -> tuple[list[Connected], list[Link]]:
        """The user's connections but these: those that are there, and those whose end is yet to be told."""
        links = await self._connections.links(user)
        live = [link.connection for link in links if not link.left and link.connection not in but]
        found = await self._connections.many(live) if live else {}
        return list(found.values()), [link for link in links if link.left]

    def _tell(self, room: RoomId, user: UserId, online: bool) -> None:
        for watcher in self._watchers:
            watcher(room, user, online)


def _place(connected: Connected, room: RoomId) -> tuple[int, ConnectionId]:
    """Since when a connection listens to a room; of two that came at once, the id decides."""
    return connected.seats[room].at, connected.connection
