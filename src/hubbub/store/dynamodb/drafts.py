"""A transaction at the end of a room's log, put together entry by entry, and what has to be read for it.

Everything in it was read after the end of the log was, and it can only be written if the log still ends there; so what
was decided still holds when it is written. An entry that asks for what another one of it changes waits for the next.
"""

from __future__ import annotations

from collections.abc import Sequence

from hubbub.aws.marshalling import Item, Key, key_of
from hubbub.aws.table import Action, Put, Table, Update
from hubbub.errors import TooLarge
from hubbub.model import SYSTEM, Entry, MemberJoined, MessageCreated, MessageDeleted, RoomId, UserId
from hubbub.parallel import each
from hubbub.store.dynamodb import keys
from hubbub.store.dynamodb.effects import (
    STRIPPED_AT_ONCE,
    Change,
    Facts,
    Ground,
    Limits,
    change_of,
    footprint,
    is_seq,
)
from hubbub.store.dynamodb.items import Place, Tail, entry_item, number, read_seat, words_of
from hubbub.store.dynamodb.seats import count_rooms

MOST_ACTIONS = 100
"""DynamoDB's limit for one transaction."""

MOST_BYTES = 3_000_000
"""Of entries in one transaction, for which DynamoDB's limit is 4 MB."""

MOST_ENTRY_BYTES = 390_000
"""Of one entry's JSON; an item has at most 400 KB."""


class Draft:
    """A transaction.

    Args:
        tail: where the log ends, and the room.
        facts: what was read after it.
        limits: see `Limits`.
        now_ms: the time of day.

    Attributes:
        room: the log's room.
        place: how far the log comes with it.
        now_ms: the time of day.
        entries: in order, with their seq.
        unfinished: messages whose edits lose their words after it.

    """

    def __init__(self, tail: Tail, facts: Facts, limits: Limits, now_ms: int) -> None:
        self.room = tail.room.id
        self.place = tail.place
        self.entries: list[Entry] = []
        self.unfinished: list[int] = []
        self._tail = tail
        self._facts = facts
        self._limits = limits
        self.now_ms = now_ms
        self._puts: list[Action] = []
        self._effects: list[Action] = []
        self._marks: dict[UserId, Place] = {}
        self._changed: set[Key] = set()
        self._touched: set[Key] = set()  # items that effects write, each of which DynamoDB takes once
        self._bytes = 0

    @property
    def tail(self) -> Tail:
        """Where the log ends when it is written."""
        return Tail(self._tail.room, self.place)

    @property
    def actions(self) -> list[Action]:
        """All of it; the entries come first."""
        return [*self._puts, *self._effects, *(self._mark(user, place) for user, place in self._marks.items())]

    def clashes(self, asks: set[Key]) -> bool:
        """Whether one of its entries changes what another `asks` for."""
        return not self._changed.isdisjoint(asks)

    def add(self, entry: Entry) -> bool | None:
        """Add the entry and what it says.

        Returns:
            Whether it was added; False where it changes nothing, None where there is no place for it here.

        Raises:
            HubbubError: it may not be written.

        """
        ground = Ground(self._tail.room, self.place, self._facts, self._limits, self.now_ms)
        change = change_of(entry, ground)
        if change is None:
            entry.seq = 0  # an earlier try, which came too late, has given it one
            return False
        said = isinstance(entry, MessageCreated)
        place = Place(
            self.place.seq + 1, self.place.messages + said, self.place.members + change.members, self.place.life
        )
        entry.seq = place.seq
        item = entry_item(entry, place)
        size = len(str(item["body"]).encode()) + change.size
        count = len(self._puts) + len(self._effects) + len(self._marks) + len(change.actions) + 2
        effects = [make(place) for make in change.actions]
        touched = {written_by(effect) for effect in effects}
        if self.entries and (
            count > MOST_ACTIONS or self._bytes + size > MOST_BYTES or not self._touched.isdisjoint(touched)
        ):
            entry.seq = 0
            return None
        self._puts.append(Put(item, "attribute_not_exists(pk)"))
        self._effects.extend(effects)
        self._touched |= touched
        self._note(entry, place, change)
        self._bytes += size
        return True

    def _note(self, entry: Entry, place: Place, change: Change) -> None:
        self._changed.add(keys.entry_key(self.room, place.seq))
        self._changed.update(footprint(entry).changes)
        if change.unfinished is not None:
            self.unfinished.append(change.unfinished)
        if isinstance(entry, MessageCreated) and entry.by != SYSTEM:  # who reads nothing, and whose marks lie together
            self._marks[entry.by] = place
        self.place = place
        self.entries.append(entry)

    def _mark(self, user: UserId, place: Place) -> Update:
        return Update(
            keys.seat_key(user, self.room),
            "SET #read = :seq, read_n = :n, read_life = :life",
            values={"seq": place.seq, "n": place.messages, "life": place.life},
        )


def written_by(action: Action) -> Key:
    """The key of the item that the action is about."""
    return key_of(action.item) if isinstance(action, Put) else action.key


def check_size(entry: Entry) -> None:
    """Refuse an entry that no item can hold.

    Raises:
        TooLarge: it is.

    """
    size = len(words_of(entry).encode())
    if size > MOST_ENTRY_BYTES:
        raise TooLarge(f"An entry has at most {MOST_ENTRY_BYTES} bytes here, this one has {size}.")


async def read_facts(
    table: Table, tail: Tail, entries: Sequence[Entry], suspected: Sequence[MessageCreated], limits: Limits
) -> Facts:
    """What is to be known before the entries are written, of which `suspected` may be there already."""
    room = tail.room.id
    sent = [sent_key(entry) for entry in suspected]
    wanted = [key for entry in entries for key in footprint(entry).wanted]
    facts = Facts(await table.get_many([*wanted, *sent]) if wanted or sent else {})
    known = [number(facts.items[key], "seq") for key in sent if key in facts.items]
    if known:
        facts.items.update(await table.get_many([keys.entry_key(room, seq) for seq in known]))

    async def look(entry: Entry) -> None:
        if isinstance(entry, MessageDeleted):
            facts.edits[entry.target] = await _edits(table, room, entry.target) if is_seq(entry.target) else []
        elif isinstance(entry, MemberJoined):
            seat = facts.items.get(keys.seat_key(entry.user, room))
            if read_seat(entry.user, seat, tail.room.life).member is None:
                facts.rooms[entry.user] = await count_rooms(table, entry.user, limits.max_rooms)

    await each(look, [entry for entry in entries if isinstance(entry, MessageDeleted | MemberJoined)])
    return facts


async def _edits(table: Table, room: RoomId, target: int) -> list[Item]:
    """The items of the message's edits, or of more of them than lose their words at once."""
    found = await table.query(keys.about_pk(room), prefix=keys.words_prefix(target), limit=STRIPPED_AT_ONCE + 1)
    places = [(keys.log_pk(room), str(item["sk"]).rpartition("#")[2]) for item in found.items]
    return list((await table.get_many(places)).values())


def sent_key(entry: MessageCreated) -> Key:
    """Where it is written that this message was sent, which has a client_id."""
    assert entry.client_id is not None  # noqa: S101  callers ask only for those
    return keys.sent_key(entry.room, entry.by, entry.client_id)
