"""The directory of the AWS home: who is connected, who listens where, whose token ends, which rooms need a look.

Everything is in one table, so any function can ask and change it. What is left behind by a function that died is
removed by the next post to a connection that is gone (`forget`), by the sweeper, or by the items' own time to live.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Sequence
from typing import Any

from hubbub.aws.table import ConditionFailed, Table
from hubbub.clock import Clock
from hubbub.errors import Unavailable
from hubbub.fanout.apigateway.connected import Connected
from hubbub.fanout.apigateway.connections import ARRIVING_MS, FRESH_S, Change, Connections
from hubbub.fanout.apigateway.due import Dues
from hubbub.fanout.apigateway.failures import translated
from hubbub.fanout.apigateway.keys import listener_key
from hubbub.fanout.apigateway.lapsing import Lapses
from hubbub.fanout.apigateway.lease import Lease
from hubbub.fanout.apigateway.listening import ApiGatewayListening, Grown, Seats
from hubbub.fanout.apigateway.presence import Presence
from hubbub.fanout.apigateway.rooms import COUNT_FRESH_S, Rooms
from hubbub.model import ConnectionId, Principal, RoomId, UserId
from hubbub.parallel import every, together
from hubbub.ports import Directory, PresenceListener, ReadAfter

logger = logging.getLogger(__name__)

LIFETIME_S = 7_800
"""How long a connection's items count, 2 hours and 10 minutes: API Gateway ends every connection after 2 hours."""

HEAD = "head"
"""The kind of what is due when a room is to be looked after."""

MAX_NOTED = 10_000


class ApiGatewayDirectory(Directory):
    """The directory in a table.

    Args:
        table: where it is.
        clock: time.
        read: reads a room's entries after a seq from the store.
        grown: which of many rooms have entries after given seqs; None to read each room when a connection joins it.
        lifetime_s: how long a connection's items count after it came or got a newer token: longer than connections
            live.
        linger_s: how long after a connection's end its user still counts as online, for clients that come back; the
            end is then told by `sweep`.

    """

    def __init__(
        self,
        table: Table,
        *,
        clock: Clock,
        read: ReadAfter,
        grown: Grown | None = None,
        lifetime_s: int = LIFETIME_S,
        linger_s: float = 0.0,
    ) -> None:
        self._table = table
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._connections = Connections(table, clock)
        self._rooms = Rooms(table, clock)
        self._dues = Dues(table, clock)
        self._lapses = Lapses(table, self._connections, self._dues)
        self._presence = Presence(table, self._connections, self._dues, clock, linger_s=linger_s)
        self._seats = Seats(
            table,
            connections=self._connections,
            rooms=self._rooms,
            presence=self._presence,
            clock=clock,
            read=read,
            grown=grown,
        )
        self._noted: dict[tuple[RoomId, int], None] = {}  # rooms to look after, and after which minute
        self._told: list[dict[str, Any]] = []  # Any: the items of rooms that are due and were told

    def __repr__(self) -> str:
        return f"<ApiGatewayDirectory in {self._table.name}>"

    @translated
    async def ping(self) -> None:
        """Return if the table answers.

        Raises:
            Unavailable: it does not.

        """
        await self._table.get(("meta", "ping"), consistent=False)

    # Connections

    @translated
    async def connect(self, connection: ConnectionId, principal: Principal) -> None:
        """Remember the connection, or its newer token; see the port."""
        now_ms = self._clock.now_ms()
        made = Connected(connection, principal, 1, now_ms // 1_000 + self._lifetime_s, now_ms)
        known: Connected | None = None

        async def make() -> None:
            nonlocal known
            known = await self._connections.make(made)

        beside = [self._connections.link(made), self._connections.watched(made), *self._lapses.items(made)]
        await together(make(), self._table.write_many(beside))
        if known is not None:
            await self._renew(known, principal, made.ttl)

    async def _renew(self, known: Connected, principal: Principal, ttl: int) -> None:
        """Let the connection and its listeners live as long as the newer token."""

        def decide(now: Connected) -> Change:
            return Change(now.renewed(principal, ttl))

        renewed = await self._connections.change(known.connection, decide, known)
        if renewed is not None:
            keys = [
                listener_key(room, seat.shard, known.user, known.connection) for room, seat in renewed.seats.items()
            ]
            await every(lambda key: self._prolong(key, principal.expires_at, ttl), keys)

    async def _prolong(self, key: tuple[str, str], expires_at: int, ttl: int) -> None:
        values = {"expires_at": expires_at, "ttl": ttl}
        change = "SET expires_at = :expires_at, #ttl = :ttl"
        try:
            await self._table.update(key, change, condition="attribute_exists(pk)", values=values, repeat=True)
        except ConditionFailed:  # it was taken out meanwhile
            return

    @translated
    async def disconnect_connection(self, connection: ConnectionId) -> Principal | None:
        """Forget the connection; see the port."""
        was = await self._connections.end(connection)
        if was is None:
            return None
        await self._presence.gone(was)
        return was.principal

    @translated
    async def forget(self, connection: ConnectionId) -> None:
        """A post has found that the connection is gone, though nobody told of its end or did what it takes.

        One that is just arriving is left alone: API Gateway calls it gone until `$connect` is done.
        """
        known = await self._connections.get(connection)
        if known is None:
            was = await self._connections.ending(connection)
            if was is not None:
                await self._presence.gone(was)
            return
        has_asked = any(not seat.followed for seat in known.seats.values())
        if has_asked or self._clock.now_ms() - known.at >= ARRIVING_MS:
            await self.disconnect_connection(connection)

    @translated
    async def principal(self, connection: ConnectionId, *, fresh: bool = False) -> Principal | None:
        """Whose it is; see the port. A newer token that another process has taken is known after a second."""
        known = await self._connections.get(connection, within_s=0.0 if fresh else FRESH_S)
        return known.principal if known else None

    @translated
    async def connections(self, user: UserId) -> list[ConnectionId]:
        """A user's connections."""
        return [link.connection for link in await self._connections.links(user) if not link.left]

    @translated
    async def lapsing(self, now_s: int, lead_s: int) -> tuple[list[ConnectionId], list[ConnectionId]]:
        """Whose tokens end soon and whose have ended; see the port."""
        return await self._lapses.lapsing(now_s, lead_s)

    # Listening

    @translated
    async def listen(self, connection: ConnectionId, rooms: Sequence[RoomId]) -> ApiGatewayListening:
        """Prepare to listen; see `hubbub.ports.Fanout`."""
        return await self._seats.open(connection, rooms)

    @translated
    async def unlisten(self, connection: ConnectionId, room: RoomId) -> None:
        """Stop listening; see `hubbub.ports.Fanout`."""
        was = await self._seats.take_out(connection, room)
        if was is not None:
            await self._presence.ended(was.user, [room])

    @translated
    async def follow(self, user: UserId, room: RoomId, after: int) -> dict[int, int]:
        """Let the user's connections listen; the shards that are to be served for them, and up to where at least.

        Whoever comes is behind the others until it is known that nothing was written meanwhile. What was written goes
        to him as everything does, for only who serves the shard posts all in order.
        """
        connections = [link.connection for link in await self._connections.links(user) if not link.left]
        seated = await every(lambda connection: self._seats.seat(connection, {room: after}), connections)
        new = {connection: seats[room] for connection, (_, seats) in zip(connections, seated, strict=True) if seats}
        if not new:
            return {}
        behind: dict[int, int] = {}

        async def look() -> None:
            upto = await self._seats.grown_to(room, after)
            if upto is None:
                await every(lambda each: self._seats.caught_up(each, user, room, new[each], after), new)
                return
            behind.update({seat.shard: upto for seat in new.values()})
            await every(lambda shard: Lease(self._table, clock=self._clock, room=room, shard=shard).ask_anew(), behind)

        await together(
            look(), self._presence.began(user, {connection: {room: seat} for connection, seat in new.items()})
        )
        return behind

    @translated
    async def unfollow(self, user: UserId, room: RoomId) -> None:
        """Stop the user's connections' listening; see `hubbub.ports.Fanout`."""
        connections = [link.connection for link in await self._connections.links(user) if not link.left]
        if any(await every(lambda connection: self._seats.take_out(connection, room), connections)):
            await self._presence.ended(user, [room])

    # Rooms

    @translated
    async def online(self, room: RoomId, limit: int) -> tuple[list[UserId], int]:
        """Who is online in the room; see the port."""
        users = {listener.user for listener in await self._rooms.all(room, within_s=COUNT_FRESH_S)}
        return heapq.nsmallest(limit, users), len(users)

    @translated
    async def is_online(self, room: RoomId, user: UserId) -> bool:
        """Whether the user is; see the port."""
        return bool(await self._rooms.of_user(room, user))

    @translated
    async def audience(self, room: RoomId) -> list[tuple[ConnectionId, Principal]]:
        """Who listens to the room, or is about to; see the port.

        Those who are about to in another process are not among them: they are made to start over, and to ask again
        whether they may.
        """
        asked = await self._rooms.ask(room)
        listening = [listener.connection for listener in await self._rooms.all(room) if not listener.left]
        opening = {about.connection: about for about in self._seats.about_to_listen(room)}
        there = await self._connections.many(dict.fromkeys([*listening, *opening]))
        for about in opening.values():
            about.told(room, asked)
        return [
            (connection, connected.principal)
            for connection, connected in there.items()
            if room in connected.seats or (connection in opening and _may_start(opening[connection], connected, room))
        ]

    @translated
    async def listeners(self, room: RoomId) -> int:
        """How many connections listen; see the port."""
        return await self._rooms.count(room)

    @translated
    async def look_after(self, room: RoomId, at_ms: int) -> None:
        """Remember to tell of the room in the minute after `at_ms`; see the port."""
        noted = (room, at_ms // 60_000)
        if noted in self._noted:
            return
        await self._table.put(self._dues.item(HEAD, room, at_ms // 1_000, room=room))
        if len(self._noted) >= MAX_NOTED:
            self._noted.clear()
        self._noted[noted] = None

    @translated
    async def due(self, now_ms: int) -> list[RoomId]:
        """The rooms of the minutes that are over; see the port.

        Not those of this minute, in which writers who have asked already do not ask again. Whoever asks for the next
        ones has seen to those that he was told; those of somebody who died over it are told to another.
        """
        minute = now_ms // 60_000
        self._noted = {noted: None for noted in self._noted if noted[1] >= minute}
        self._told = (await self._dues.remove(self._told))[:MAX_NOTED]
        items = await self._dues.until(HEAD, minute - 1, now=minute)
        self._dues.done(HEAD, minute)
        claimed = await self._dues.claim(items, now_ms)
        self._told += claimed
        return [RoomId(item["room"]) for item in claimed]

    # Presence

    def watch(self, listener: PresenceListener) -> None:
        """Tell `listener` of what happens in this process; see the port."""
        self._presence.watch(listener)

    @translated
    async def sweep(self, now_ms: int) -> None:
        """Tell of users who have been away for `linger_s`, as of `now_ms`, epoch milliseconds; about once a minute."""
        await self._presence.sweep(now_ms)


def _may_start(listening: ApiGatewayListening, connected: Connected, room: RoomId) -> bool:
    """Whether it may still begin to listen to the room."""
    try:
        return listening.since is not None and not connected.was_taken_out(room, listening.since)
    except Unavailable:  # it is not known any more, so it starts over
        return False
