"""How connections begin to listen to rooms and cease to, in one transaction with their own item.

Whoever begins to listen has a listener's item first and looks at the log afterwards: an entry that was written before
is found there, and one that is written later finds the listener. An entry that is written and handed out between the
two comes twice, and the client drops it by its seq.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from hubbub.aws.table import TRANSACT_AT_ONCE, Delete, Put, Table
from hubbub.clock import Clock
from hubbub.errors import NotFound, Unavailable
from hubbub.fanout.apigateway.connected import Connected, Seat
from hubbub.fanout.apigateway.connections import FRESH_S, Change, Connections
from hubbub.fanout.apigateway.failures import translated
from hubbub.fanout.apigateway.keys import Listener, listener_key, shard_of
from hubbub.fanout.apigateway.presence import Presence
from hubbub.fanout.apigateway.rooms import Rooms
from hubbub.fanout.apigateway.shard import caught_up
from hubbub.model import ConnectionId, RoomId, UserId
from hubbub.parallel import each, every, together
from hubbub.ports import Listening, ReadAfter

MAX_MISSED = 1_000
"""Entries written while a connection was joining; a joiner who takes longer than that many starts over."""

PAGE = 100
"""Who reads fewer entries at once has read the log to its end: a store's pages have at least so many."""

ROOMS_AT_ONCE = TRANSACT_AT_ONCE - 1
"""To how many rooms a connection begins to listen in one transaction, in which its own item is too."""

Grown = Callable[[Mapping[RoomId, int]], Awaitable[Collection[RoomId]]]
"""Which of these rooms have entries after the given seqs: what a store tells of many rooms in one request."""


class Seats:
    """Gives connections places among rooms' listeners, and takes them.

    Args:
        table, connections, rooms, presence: where things are.
        clock: time.
        read: reads a room's entries after a seq from the store.
        grown: which rooms have entries after a seq; None to read each room.

    """

    def __init__(
        self,
        table: Table,
        *,
        connections: Connections,
        rooms: Rooms,
        presence: Presence,
        clock: Clock,
        read: ReadAfter,
        grown: Grown | None,
    ) -> None:
        self._table = table
        self._connections = connections
        self._rooms = rooms
        self._presence = presence
        self._clock = clock
        self._read = read
        self._grown = grown
        self._last_at = 0  # epoch microseconds of the last seat given
        self._opened: dict[ApiGatewayListening, None] = {}  # who is about to listen, in this process

    async def open(self, connection: ConnectionId, rooms: Sequence[RoomId]) -> ApiGatewayListening:
        """Prepare the connection to listen; see `hubbub.ports.Listening`."""
        self._table.ahead.clear()  # whether it may listen is to be looked up from now on
        asked = {room: sight.asked for room, sight in (await self._rooms.see(rooms)).items()} if rooms else {}
        # With nothing to start, what was so a moment ago is as good: it only looks back further.
        known = await self._connections.get(connection, within_s=0.0 if rooms else FRESH_S)
        return ApiGatewayListening(self, connection, known, asked)

    def about_to_listen(self, room: RoomId) -> list[ApiGatewayListening]:
        """Who is about to listen to the room in this process."""
        return [listening for listening in self._opened if room in listening.asked]

    async def seat(
        self,
        connection: ConnectionId,
        afters: Mapping[RoomId, int],
        *,
        since: int | None = None,
        known: Connected | None = None,
    ) -> tuple[Connected | None, dict[RoomId, Seat]]:
        """Let the connection listen to these rooms from the given seqs on; what it is then, and its new places.

        Args:
            connection: its id.
            afters: the rooms, at most `ROOMS_AT_ONCE`, and up to where it knows their logs.
            since: it does not listen to what it was taken out of after this version; None if its user follows the
                rooms just now, whatever was before.
            known: what it was a moment ago.

        """
        shards = {room: sight.shards for room, sight in (await self._rooms.see(afters)).items()}
        given: dict[RoomId, Seat] = {}

        def decide(now: Connected) -> Change | None:
            nonlocal given
            free = [room for room in afters if room not in now.seats]
            if since is not None:
                free = [room for room in free if not now.was_taken_out(room, since)]
            given = {
                room: Seat(shard_of(now.user, shards[room]), now.version + 1, self._at(), since is None)
                for room in free
            }
            puts = [Put(_listener(now, room, seat, afters[room]).item()) for room, seat in given.items()]
            return Change(now.seated(given), puts) if puts else None

        now = await self._connections.change(connection, decide, known)
        return (now, given) if now else (None, {})

    async def take_out(self, connection: ConnectionId, room: RoomId) -> Connected | None:
        """End the connection's listening, also if it is only about to; what it was if it did listen."""
        was: Connected | None = None

        def decide(now: Connected) -> Change:
            nonlocal was
            seat = now.seats.get(room)
            was = now if seat else None
            actions = [Delete(listener_key(room, seat.shard, now.user, connection))] if seat else []
            return Change(now.without(room), actions)

        left = await self._connections.change(connection, decide)
        return was if left else None

    async def followed(self, connection: ConnectionId, since: int) -> set[RoomId]:
        """The rooms that the connection was let into after that version, because its user follows them."""
        now = await self._connections.get(connection)
        seats = now.seats if now else {}
        return {room for room, seat in seats.items() if seat.followed and seat.version > since}

    async def grown_to(self, room: RoomId, after: int) -> int | None:
        """The seq of an entry after this one, as late as one look tells; None if there is none."""
        if self._grown is not None and room not in await self._grown({room: after}):
            return None
        try:
            read = await self._read(room, after)
        except NotFound:  # it is deleted just now
            return None
        return read[-1][0] if read else None

    async def missed(self, afters: Mapping[RoomId, int]) -> dict[RoomId, list[tuple[int, bytes]]]:
        """The entries after these seqs, of rooms that have some.

        Raises:
            Unavailable: there are too many.

        """
        grown = list(afters) if self._grown is None else sorted(await self._grown(afters))
        found = await each(lambda room: self._after(room, afters[room]), grown)
        return {room: entries for room, entries in zip(grown, found, strict=True) if entries}

    async def settle(
        self,
        user: UserId,
        connection: ConnectionId,
        new: Mapping[RoomId, Seat],
        afters: Mapping[RoomId, int],
        known: Mapping[RoomId, int],
    ) -> dict[RoomId, list[bytes]]:
        """What is left to do once a connection has its new places: tell, and find what it has missed.

        Where that fails it is out of the rooms again: nobody stays of whom it is not known whether he may.

        Args:
            user, connection: whose they are.
            new: the places.
            afters: up to where it knows the rooms' logs.
            known: how often somebody had asked for all who listen to the rooms, as far as it is told of them.

        Raises:
            Unavailable: too much was missed, or somebody has asked meanwhile for all who listen, and was not told of
                this one; he is to ask again whether he may.

        """
        missed: dict[RoomId, list[tuple[int, bytes]]] = {}

        async def look() -> None:
            missed.update(await self.missed({room: afters[room] for room in new}))

        async def ask() -> None:
            asked = await self._rooms.asked(new)
            if unknown := [room for room in new if asked[room] != known[room]]:
                self._rooms.unsee(unknown)
                raise Unavailable("The room has just changed; try again.", retry_after_ms=250)

        try:
            await together(ask(), look(), self._presence.began(user, {connection: new}))
        except Exception:
            await every(lambda room: self.take_out(connection, room), new)
            await self._presence.ended(user, new)
            raise
        await each(lambda room: self.caught_up(connection, user, room, new[room], missed[room][-1][0]), missed)
        return {room: [frame for _, frame in entries] for room, entries in missed.items()}

    async def caught_up(self, connection: ConnectionId, user: UserId, room: RoomId, seat: Seat, upto: int) -> None:
        """Let the broadcaster post to it what comes after this entry, like to all others."""
        await caught_up(self._table, listener_key(room, seat.shard, user, connection), upto)

    def opened(self, listening: ApiGatewayListening) -> None:
        """It is about to listen."""
        self._opened[listening] = None

    def shut(self, listening: ApiGatewayListening) -> None:
        """It is not about to listen any more."""
        self._opened.pop(listening, None)

    async def _after(self, room: RoomId, after: int) -> list[tuple[int, bytes]]:
        """The entries after a seq, up to where the log ended at some time since this was asked."""
        found: list[tuple[int, bytes]] = []
        while len(found) <= MAX_MISSED:
            try:
                read = await self._read(room, found[-1][0] if found else after)
            except NotFound:  # it is deleted just now
                return []
            found += read
            if len(read) < PAGE:
                return found
        raise Unavailable("The room is too busy to catch up with just now; try again.", retry_after_ms=250)

    def _at(self) -> int:
        """This microsecond, or the next one if somebody had it already."""
        self._last_at = max(self._last_at + 1, self._clock.now_ms() * 1_000)
        return self._last_at


class ApiGatewayListening(Listening):
    """One connection about to listen.

    Attributes:
        connection: whose.
        since: what happened to it after this version counts; None if it is gone.
        asked: the rooms, and how often somebody had asked for all who listen to them.

    """

    def __init__(
        self, seats: Seats, connection: ConnectionId, known: Connected | None, asked: dict[RoomId, int]
    ) -> None:
        self._seats = seats
        self._known = known
        self.connection = connection
        self.since = known.version if known else None
        self.asked = asked

    @property
    def is_known(self) -> bool:
        """Whether there is such a connection."""
        return self.since is not None

    def told(self, room: RoomId, asked: int) -> None:
        """Whoever asked for the `asked`th time for all who listen to the room was told of this one."""
        if self.asked[room] == asked - 1:
            self.asked[room] = asked

    @translated
    async def followed(self) -> set[RoomId]:
        """What its user follows since; see the port."""
        return set() if self.since is None else await self._seats.followed(self.connection, self.since)

    @translated
    async def start(self, known: Mapping[RoomId, int]) -> dict[RoomId, list[bytes]]:
        """Listen; see the port."""
        afters = {room: after for room, after in known.items() if room in self.asked}
        if self.since is None:
            return {}
        started: dict[RoomId, list[bytes]] = {}
        rooms = sorted(afters)
        for begin in range(0, len(rooms), ROOMS_AT_ONCE):
            part = {room: afters[room] for room in rooms[begin : begin + ROOMS_AT_ONCE]}
            started |= await self._start(part, self.since)
        return started

    async def _start(self, afters: Mapping[RoomId, int], since: int) -> dict[RoomId, list[bytes]]:
        self._known, new = await self._seats.seat(self.connection, afters, since=since, known=self._known)
        now = self._known
        if now is None:
            return {}
        missed = await self._seats.settle(now.user, self.connection, new, afters, self.asked) if new else {}
        return {room: missed.get(room, []) for room in afters if room in now.seats}

    async def __aenter__(self) -> ApiGatewayListening:
        self._seats.opened(self)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._seats.shut(self)


def _listener(connected: Connected, room: RoomId, seat: Seat, after: int) -> Listener:
    """Who asked for the room is told in the answer what he missed; who follows it gets that like everything else."""
    return Listener(
        room,
        seat.shard,
        connected.user,
        connected.connection,
        after,
        connected.principal.expires_at,
        connected.ttl,
        is_behind=seat.followed,
    )
