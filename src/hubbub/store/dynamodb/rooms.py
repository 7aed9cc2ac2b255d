"""Rooms made, deleted and listed; each is made in one step for everybody else, however many members it begins with.

A room of few members is one transaction. Of many, the members' entries and seats are written beforehand, where nobody
looks as long as the room is only being made; what makes it live then is one transaction, with the log's first entry as
its lock. Whoever makes it holds the room's item meanwhile and says so with each step; if he is not heard of any more,
the next one removes what he left and begins anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from hubbub.aws.marshalling import Item
from hubbub.aws.service import AwsError
from hubbub.aws.table import Action, Cancelled, Delete, Put, Table, Update
from hubbub.clock import Clock
from hubbub.errors import Conflict, NotFound
from hubbub.model import Entry, Member, MemberJoined, Room, RoomId, RoomKind, RoomUpdated, UserId, new_ulid
from hubbub.parallel import each
from hubbub.store.dynamodb import keys
from hubbub.store.dynamodb.effects import Limits, seating, too_many_members, too_many_rooms
from hubbub.store.dynamodb.failures import Patience
from hubbub.store.dynamodb.items import (
    CLEARING,
    GONE,
    LIVE,
    MAKING,
    Place,
    RoomItem,
    Tail,
    entry_item,
    is_end,
    new_life,
    read_entry,
)
from hubbub.store.dynamodb.leaving import clear_attempt
from hubbub.store.dynamodb.seats import count_rooms
from hubbub.store.dynamodb.tails import read_item, read_tail, read_tails

AT_ONCE = 30
"""How many members a room may begin with in one transaction: three items each, and a few more."""

STEP = 45
"""How many members one step of a larger beginning writes: two items each, and the room's."""

HELD_MS = 5_000
"""For how long who makes a room is left alone after each of his steps."""


class Making:
    """A room to be made.

    Args:
        table, limits, clock: the store's.
        room, kind, name, by, at, members: see `hubbub.ports.Store.create_room`.

    """

    def __init__(
        self,
        table: Table,
        limits: Limits,
        clock: Clock,
        *,
        room: RoomId,
        kind: RoomKind,
        name: str,
        by: UserId,
        at: int,
        members: Sequence[Member],
    ) -> None:
        self._table = table
        self._limits = limits
        self._clock = clock
        self._room = room
        self._kind = kind
        self._name = name
        self._by = by
        self._at = at
        firsts: dict[UserId, Member] = {}
        for member in members:
            firsts.setdefault(member.user, member)
        self._members = list(firsts.values())

    async def done(self, *, exist_ok: bool, patience_s: float) -> Room:
        """The room, made or found.

        Raises:
            Conflict: it exists and may not, or a limit is in the way.
            Unavailable: somebody else makes it all the while.

        """
        patience = Patience(self._clock, patience_s)
        while True:
            item = await read_item(self._table, self._room)
            if item.state == LIVE:
                if not exist_ok:
                    raise Conflict(f"The room {self._room!r} exists already.")
                try:
                    tail = await read_tail(self._table, self._room)
                except NotFound:
                    continue
                return tail.room.seen(tail.place)
            if item.state == CLEARING or (item.state == MAKING and item.until < self._clock.now_ms()):
                await clear_attempt(self._table, item)
                continue
            if item.state == GONE:
                await self._check_limits()
                made = await self._make(item, patience)
                if made is not None:
                    return made
            await patience.wait()

    async def _check_limits(self) -> None:
        if len(self._members) > self._limits.max_members:
            raise too_many_members(self._limits)

        async def check(member: Member) -> None:
            if await count_rooms(self._table, member.user, self._limits.max_rooms) >= self._limits.max_rooms:
                raise too_many_rooms(self._limits)

        await each(check, self._members)

    async def _make(self, gone: RoomItem, patience: Patience) -> Room | None:
        """Make the room that is gone; None if somebody else was there first."""
        life = new_life(gone.following)
        following, dropped = gone.following, gone.dropped
        live = RoomItem(
            self._room, self._kind, self._name, self._at, LIVE, life, first=following, swept=following, dropped=dropped
        )
        updated = RoomUpdated(
            room=self._room, id=new_ulid(self._at), at=self._at, by=self._by, room_name=self._name, kind=self._kind
        )
        begun = Place(following, dropped, 0, life)
        updated.seq = begun.seq
        ended = Place(following + len(self._members), dropped, len(self._members), life)
        joins = self._joins(begun)
        try:
            if len(self._members) <= AT_ONCE:
                held, rest = "attribute_not_exists(pk) OR #state = :gone", {"gone": GONE}
                entries = list(chain.from_iterable(joins))
                await self._table.transact(*self._begin(updated, begun, live, held, rest), *entries)
            else:
                await self._in_steps(gone, live, joins, patience)
                held, rest = "#state = :making AND life = :life", {"making": MAKING, "life": life}
                beginning = self._begin(updated, begun, live, held, rest)
                await self._table.transact(*beginning, Delete(keys.leftover_key(self._room, life)))
        except Cancelled as cancelled:
            first = cancelled.reasons[0].item
            if first is None or not _is(first, updated):
                return None
        except AwsError as error:
            if not error.is_in_doubt or not await self._is_made(updated):
                raise
        return live.seen(ended)

    def _begin(self, updated: Entry, begun: Place, live: RoomItem, held: str, values: dict[str, str]) -> list[Action]:
        """The log's first entry, which is the lock; the room, if its item is as `held`; its line in the list."""
        pk, sk = keys.room_key(self._room)
        item: Item = {
            "pk": pk,
            "sk": sk,
            "state": LIVE,
            "kind": live.kind.value,
            "name": live.name,
            "created_at": live.created_at,
            "life": live.life,
            "first": live.first,
            "swept": live.swept,
            "dropped": live.dropped,
        }
        return [
            Put(entry_item(updated, begun), "attribute_not_exists(pk) OR attribute_exists(#end)"),
            Put(item, held, values),
            Put({"pk": keys.index_pk(self._kind), "sk": self._room}),
        ]

    def _joins(self, begun: Place) -> list[list[Action]]:
        """For each member his entry, his seat and his line in the list of members."""
        joins: list[list[Action]] = []
        place = begun
        for member in self._members:
            place = Place(place.seq + 1, place.messages, place.members + 1, place.life)
            joined = MemberJoined(
                room=self._room, id=new_ulid(self._at), at=self._at, by=self._by, user=member.user, role=member.role
            )
            joined.seq = place.seq
            seat, line = seating(member.user, member.role, self._at, self._room, place.life)
            joins.append([Put(entry_item(joined, place), "attribute_not_exists(pk)"), seat, line])
        return joins

    async def _in_steps(
        self, gone: RoomItem, live: RoomItem, joins: Sequence[Sequence[Action]], patience: Patience
    ) -> None:
        """Hold the room and write the members where nobody looks yet.

        Raises:
            Cancelled: somebody else was faster, or took over.

        """
        room_key = keys.room_key(self._room)
        left_pk, left_sk = keys.leftover_key(self._room, live.life)
        await self._table.transact(
            Update(
                room_key,
                "SET #state = :making, life = :life, #following = :following, dropped = :dropped, #until = :until",
                "attribute_not_exists(pk) OR #state = :gone",
                {
                    "making": MAKING,
                    "gone": GONE,
                    "life": live.life,
                    "following": gone.following,
                    "dropped": gone.dropped,
                    "until": self._clock.now_ms() + HELD_MS,
                },
            ),
            Put({"pk": left_pk, "sk": left_sk, "what": "attempt", "room": self._room, "life": live.life}),
        )
        for begin in range(0, len(joins), STEP):
            step = joins[begin : begin + STEP]
            await self._table.write_many([line.item for _, _, line in step if isinstance(line, Put)])
            held = Update(
                room_key,
                "SET #until = :until",
                "#state = :making AND life = :life",
                {"until": self._clock.now_ms() + HELD_MS, "making": MAKING, "life": live.life},
            )
            # A step whose answer was lost may be done again: so the entries are put whatever is there, which can only
            # be theirs, since the room is held.
            puts = [Put(entry.item) for entry, _, _ in step if isinstance(entry, Put)]
            await self._step([held, *puts, *(seat for _, seat, _ in step)], patience)

    async def _step(self, actions: Sequence[Action], patience: Patience) -> None:
        """Write them; who is at work on a member's seat just now has done so in a moment."""
        while True:
            try:
                return await self._table.transact(*actions)
            except Cancelled as cancelled:
                if not cancelled.is_conflict:
                    raise
            await patience.wait()

    async def _is_made(self, updated: Entry) -> bool:
        item = await self._table.get(keys.entry_key(self._room, updated.seq))
        return item is not None and _is(item, updated)


def _is(item: Item, entry: Entry) -> bool:
    """Whether the item is the entry's."""
    there = None if is_end(item) else read_entry(item)
    return there is not None and there.id == entry.id


async def delete(table: Table, clock: Clock, room: RoomId, *, patience_s: float) -> bool:
    """Delete the room: its log gets an end, and what has its life's word is no more; see `hubbub.ports.Store`."""
    patience = Patience(clock, patience_s)
    word = new_ulid(clock.now_ms())
    life, is_in_doubt = "", False
    while True:
        try:
            tail = await read_tail(table, room)
        except NotFound:
            return is_in_doubt
        if life not in ("", tail.room.life):  # that one is gone; another has begun since, which is not to be deleted
            return is_in_doubt
        life = tail.room.life
        there, unknown = await _end(table, tail, word)
        is_in_doubt = is_in_doubt or unknown
        if there.get("end") == word:
            return True
        await patience.wait()


async def _end(table: Table, tail: Tail, word: str) -> tuple[Item, bool]:
    """End the log; returns what is where its end should be, and whether that may have been ours for a while."""
    try:
        await table.transact(*_ending(tail, word))
    except Cancelled as cancelled:
        return cancelled.reasons[0].item or {}, False
    except AwsError as error:
        if not error.is_in_doubt:
            raise
        return await table.get(keys.entry_key(tail.room.id, tail.place.seq + 1)) or {}, True
    return {"end": word}, False


def _ending(tail: Tail, word: str) -> list[Action]:
    room, place = tail
    pk, sk = keys.entry_key(room.id, place.seq + 1)
    left_pk, left_sk = keys.leftover_key(room.id, room.life)
    left: Item = {
        "pk": left_pk,
        "sk": left_sk,
        "what": "life",
        "room": room.id,
        "life": room.life,
        "first": room.swept,
        "last": place.seq,
    }
    return [
        Put(
            {"pk": pk, "sk": sk, "life": place.life, "n": place.messages, "m": 0, "end": word},
            "attribute_not_exists(pk)",
        ),
        Update(
            keys.room_key(room.id),
            "SET #state = :gone, #following = :following, dropped = :dropped REMOVE life, #name, redacting",
            "#state = :live AND life = :life",
            {
                "gone": GONE,
                "live": LIVE,
                "life": room.life,
                "following": place.seq + 1,
                "dropped": place.messages,
            },
        ),
        Delete((keys.index_pk(room.kind), room.id)),
        Put(left),
    ]


async def list_rooms(table: Table, after: str, limit: int, kind: RoomKind | None) -> tuple[list[Room], bool]:
    """Rooms by id; see `hubbub.ports.Store.rooms`."""
    names: list[RoomId] = []

    async def look(of: RoomKind) -> None:
        names.extend(await room_ids(table, of, after, limit + 1))

    await each(look, RoomKind if kind is None else [kind])
    chosen = sorted(names)[:limit]
    tails = await read_tails(table, chosen)
    rooms = [tails[name].room.seen(tails[name].place) for name in chosen if name in tails]
    return rooms, len(names) > limit


async def room_ids(table: Table, kind: RoomKind, after: str, most: int) -> list[RoomId]:
    """The ids of rooms of a kind, those greater than `after`, from the least on."""
    found: list[RoomId] = []
    low = after
    while len(found) < most:
        # What is asked for after may be there itself, so one more.
        page = await table.query(keys.index_pk(kind), low=low or None, limit=most - len(found) + 1)
        found += [RoomId(str(item["sk"])) for item in page.items if str(item["sk"]) > low]
        if page.next is None:
            break
        low = page.next
    return found[:most]
