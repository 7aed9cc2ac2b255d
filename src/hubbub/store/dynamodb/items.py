"""What the table's items say, read and written: a room in one of its lives, a place in its log, a seat of a user.

A room that is deleted and made again has another *life*: a word that begins with the seq at which it began. What
carries the word of another life than the room's is not there, so that deleting a room is one short write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from hubbub.aws.marshalling import Item, Value
from hubbub.entropy import random_bytes
from hubbub.errors import NotFound
from hubbub.model import (
    AnyEntry,
    Entry,
    Member,
    MessageCreated,
    MessageEdited,
    Role,
    Room,
    RoomId,
    RoomKind,
    UserId,
)
from hubbub.protocol import encode, entry_decoder
from hubbub.store.dynamodb.keys import digits, entry_key

LIVE, MAKING, CLEARING, GONE = "live", "making", "clearing", "gone"
"""A room's states: it is there; its members are being written; what an attempt left is being removed; it is not."""


def new_life(born: int) -> str:
    """The word of a life that begins with the entry `born`; a later one is greater."""
    return f"{digits(born)}.{random_bytes(6).hex()}"


class RoomItem(msgspec.Struct, frozen=True):
    """What the table says of a room beside its log.

    Attributes:
        id, kind, name, created_at: as in `Room`; of no meaning where it is not live.
        state: one of `LIVE`, `MAKING`, `CLEARING`, `GONE`.
        life: which one this is; empty in a room that is gone.
        first: the lowest seq still kept.
        swept: the lowest seq that may still be in the table.
        dropped: how many messages there were below `first`.
        following: the seq at which the next life begins; 0 in a live room.
        until: epoch milliseconds until which whoever is making it is left alone.
        redacting: targets of deletions whose edits may still have their words, each as `seq@time`.

    """

    id: RoomId
    kind: RoomKind = RoomKind.PUBLIC
    name: str = ""
    created_at: int = 0
    state: str = GONE
    life: str = ""
    first: int = 1
    swept: int = 1
    dropped: int = 0
    following: int = 0
    until: int = 0
    redacting: frozenset[str] = frozenset()

    def redacted(self) -> frozenset[int]:
        """The targets in `redacting`."""
        return frozenset(int(word.partition("@")[0]) for word in self.redacting)

    def seen(self, place: Place) -> Room:
        """The room as others see it, whose log has come to `place`."""
        return Room(self.id, self.kind, self.name, self.created_at, place.seq, self.first, place.members)


class Place(NamedTuple):
    """How far a log has come.

    Attributes:
        seq: the last entry's.
        messages: how many message.created entries there have been up to it, in all lives.
        members: how many members the room has.
        life: the room's.

    """

    seq: int
    messages: int
    members: int
    life: str


class Tail(NamedTuple):
    """A live room and the end of its log, as they were at one moment."""

    room: RoomItem
    place: Place


class Seat(NamedTuple):
    """What a user has of a room.

    Attributes:
        member: his membership, if it is of the room's present life; None when he has none.
        read: his read mark, 0 for none.
        read_messages: how many messages the room had up to it.

    """

    member: Member | None
    read: int
    read_messages: int


def read_room(room: RoomId, item: Item | None) -> RoomItem:
    """The room of an item; one that is gone, and would begin with seq 1, where there is none."""
    if item is None:
        return RoomItem(room, following=1)
    redacting = item.get("redacting")
    return RoomItem(
        room,
        RoomKind(str(item.get("kind", "public"))),
        str(item.get("name", "")),
        number(item, "created_at"),
        str(item["state"]),
        str(item.get("life", "")),
        number(item, "first"),
        number(item, "swept"),
        number(item, "dropped"),
        number(item, "following"),
        number(item, "until"),
        frozenset(redacting) if isinstance(redacting, set) else frozenset(),
    )


def number(item: Mapping[str, Value], name: str) -> int:
    """An attribute that is a number; 0 where it is missing."""
    value = item.get(name, 0)
    assert isinstance(value, int)  # noqa: S101  only numbers are written there
    return value


def is_end(item: Item) -> bool:
    """Whether this is where a deleted room's log ends, rather than an entry."""
    return "end" in item


def place_of(item: Item) -> Place:
    """How far the log has come with this entry."""
    return Place(int(str(item["sk"])), number(item, "n"), number(item, "m"), str(item.get("life", "")))


def entry_item(entry: Entry, place: Place) -> Item:
    """The item of an entry with which the log comes to `place`."""
    pk, sk = entry_key(entry.room, place.seq)
    return {"pk": pk, "sk": sk, "life": place.life, "n": place.messages, "m": place.members, "body": words_of(entry)}


def words_of(entry: Entry) -> str:
    """What is kept of an entry: the JSON that clients see."""
    return encode(entry).decode()


def read_entry(item: Item, redacted: frozenset[int] = frozenset()) -> AnyEntry | None:
    """The entry, edits of the messages in `redacted` without words; None where retention has left only its place."""
    body = item.get("body")
    if not isinstance(body, str):
        return None
    entry: AnyEntry = entry_decoder.decode(body)
    if redacted and isinstance(entry, MessageEdited) and entry.target in redacted:
        strip(entry)
    return entry


def strip(entry: MessageCreated | MessageEdited) -> None:
    """Take its words away."""
    entry.text, entry.data, entry.deleted = None, msgspec.UNSET, True


def read_seat(user: UserId, item: Item | None, life: str) -> Seat:
    """The seat of an item in a room's present life."""
    if item is None:
        return Seat(None, 0, 0)
    member = None
    if item.get("life") == life and "role" in item:
        member = Member(user, Role(str(item["role"])), number(item, "joined"))
    if item.get("read_life") != life:
        return Seat(member, 0, 0)
    return Seat(member, number(item, "read"), number(item, "read_n"))


def no_room(room: RoomId) -> NotFound:
    """What is said of a room that is not there."""
    return NotFound(f"There is no room {room!r}.")
