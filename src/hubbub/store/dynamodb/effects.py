"""What each kind of entry asks of what is there, and what it changes beside the log.

An entry that may not be written raises here, before anything is; one that changes nothing has no `Change`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from hubbub.aws.marshalling import Item, Key
from hubbub.aws.table import Action, Delete, Put, Update
from hubbub.errors import Conflict, NotFound
from hubbub.model import (
    Entry,
    MemberJoined,
    MemberLeft,
    MemberUpdated,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    ReactionAdded,
    ReactionRemoved,
    Role,
    RoomId,
    RoomUpdated,
    UserId,
)
from hubbub.store.dynamodb import keys
from hubbub.store.dynamodb.items import Place, RoomItem, read_entry, read_room, read_seat, strip, words_of
from hubbub.store.dynamodb.keys import TOP

STRIPPED_AT_ONCE = 20
"""How many edits lose their words in the transaction of their deletion; where there are more, all do so after it."""

STRIPPED_BYTES = 1_000_000
"""The most bytes of edits of which the same holds."""


@dataclass(frozen=True)
class Limits:
    """How many members a room has at most, and how many rooms a user is in; for how long a client_id is known."""

    max_members: int
    max_rooms: int
    sent_days: float


@dataclass
class Facts:
    """What was read for entries that are to be written.

    Attributes:
        items: by key, those that are there.
        edits: by target of a deletion, the items of its edits; one more than `STRIPPED_AT_ONCE` where there are more.
        rooms: by user who would join, in how many rooms he is.

    """

    items: dict[Key, Item] = field(default_factory=dict)
    edits: dict[int, list[Item]] = field(default_factory=dict)
    rooms: dict[UserId, int] = field(default_factory=dict)


class Ground(NamedTuple):
    """Where an entry is to be written.

    Attributes:
        room: as it was read with the log's end.
        place: how far the log has come before it.
        facts: what was read after that.
        limits: see `Limits`.
        now_ms: the time of day.

    """

    room: RoomItem
    place: Place
    facts: Facts
    limits: Limits
    now_ms: int

    def message(self, seq: int) -> MessageCreated:
        """The message at `seq`.

        Raises:
            NotFound: there is none.

        """
        item = self.facts.items.get(keys.entry_key(self.room.id, seq)) if is_seq(seq) else None
        if item is not None and seq >= self.room.first and item.get("life") == self.place.life:
            entry = read_entry(item)
            if isinstance(entry, MessageCreated):
                return entry
        raise NotFound(f"There is no message {seq} in this room.")

    def standing(self, seq: int) -> MessageCreated:
        """The message at `seq`, which must not be deleted."""
        message = self.message(seq)
        if message.deleted:
            raise Conflict("The message has been deleted.")
        return message


@dataclass
class Change:
    """What an entry does beside being in the log.

    Attributes:
        actions: made when the entry has its place.
        members: how many more members the room has.
        size: how many bytes the actions write, beyond a few.
        unfinished: the message whose edits lose their words after the transaction, if it has too many.

    """

    actions: list[Callable[[Place], Action]] = field(default_factory=list)
    members: int = 0
    size: int = 0
    unfinished: int | None = None


class Footprint(NamedTuple):
    """What an entry has to do with what is there.

    Attributes:
        wanted: items to be read before it is decided.
        asks: words for what it depends on, which no entry of the same transaction may change.
        changes: words for what it changes.

    """

    wanted: list[Key]
    asks: set[Key]
    changes: set[Key]


def is_seq(seq: int | None) -> bool:
    """Whether there can be an entry there."""
    return seq is not None and 0 < seq <= TOP


def footprint(entry: Entry) -> Footprint:
    """The entry's."""
    room = entry.room
    match entry:
        case MessageCreated():
            about = [keys.entry_key(room, seq) for seq in (entry.reply_to, entry.thread) if seq and is_seq(seq)]
            sent = set() if entry.client_id is None else {keys.sent_key(room, entry.by, entry.client_id)}
            seat = keys.seat_key(entry.by, room)
            return Footprint(about, {*about, *sent, seat}, {*sent, ("mark", entry.by)})
        case MessageEdited():
            target = _entry_keys(entry)
            return Footprint(target, set(target), {("words", keys.digits(entry.target))})
        case MessageDeleted():
            target = _entry_keys(entry)
            changed = {*target, ("words", keys.digits(entry.target))}
            return Footprint(target, changed, changed)
        case ReactionAdded() | ReactionRemoved():
            reacted = keys.reacted_key(room, entry.target, entry.by, entry.reaction)
            target = _entry_keys(entry)
            return Footprint([*target, reacted] if target else [], {*target, reacted}, {reacted})
        case MemberJoined() | MemberLeft() | MemberUpdated():
            seat = keys.seat_key(entry.user, room)
            return Footprint([seat], {seat, ("mark", entry.user)}, {seat})
        case RoomUpdated():
            key = keys.room_key(room)
            return Footprint([key], {key}, {key})
    raise TypeError(f"expected an entry of a kind that is known, got {type(entry).__name__}")


def _entry_keys(entry: MessageEdited | MessageDeleted | ReactionAdded | ReactionRemoved) -> list[Key]:
    return [keys.entry_key(entry.room, entry.target)] if is_seq(entry.target) else []


def change_of(entry: Entry, ground: Ground) -> Change | None:
    """What the entry does where it stands; None if it changes nothing and is not to be written.

    Raises:
        NotFound, Conflict: it may not be written; see `hubbub.ports.Store.append`.

    """
    match entry:
        case MessageCreated():
            return _say(entry, ground)
        case MessageEdited():
            ground.standing(entry.target)
            return Change([_words(entry)])
        case MessageDeleted():
            return _delete(entry, ground)
        case ReactionAdded() | ReactionRemoved():
            return _react(entry, ground)
        case MemberJoined() | MemberLeft() | MemberUpdated():
            return _change_membership(entry, ground)
        case RoomUpdated():
            return _change_room(entry, ground)
    raise TypeError(f"expected an entry of a kind that is known, got {type(entry).__name__}")


def _say(entry: MessageCreated, ground: Ground) -> Change:
    change = Change()
    for seq in (entry.reply_to, entry.thread):
        if seq is not None:
            ground.message(seq)
    if entry.client_id is not None:
        pk, sk = keys.sent_key(entry.room, entry.by, entry.client_id)
        now_s = ground.now_ms // 1_000
        ends_s = now_s + int(ground.limits.sent_days * 86_400)
        change.actions.append(
            lambda place: Put(
                {"pk": pk, "sk": sk, "seq": place.seq, "ttl": ends_s},
                "attribute_not_exists(pk) OR seq < :first OR #ttl < :now",
                {"first": ground.room.first, "now": now_s},
            )
        )
    if entry.thread is not None:
        root = entry.thread
        change.actions.append(
            lambda place: Put({"pk": keys.thread_pk(entry.room), "sk": keys.thread_sk(root, place.seq)})
        )
    return change


def _words(entry: MessageEdited | MessageDeleted) -> Callable[[Place], Action]:
    """That the entry changes its target's words, for pages to find."""
    return lambda place: Put({"pk": keys.about_pk(entry.room), "sk": keys.words_sk(entry.target, place.seq)})


def stripping(item: Item) -> Update | None:
    """What takes the words of an entry's item away; None where there are none."""
    entry = read_entry(item)
    if not isinstance(entry, MessageCreated | MessageEdited) or entry.deleted:
        return None
    strip(entry)
    # What retention has removed meanwhile must not come back as an item without a place.
    return Update(
        (str(item["pk"]), str(item["sk"])),
        "SET body = :body",
        "attribute_exists(body)",
        {"body": words_of(entry)},
    )


def _delete(entry: MessageDeleted, ground: Ground) -> Change:
    ground.standing(entry.target)
    change = Change([_words(entry)])
    edits = ground.facts.edits[entry.target]
    size = sum(len(str(item.get("body", ""))) for item in edits)
    is_much = len(edits) > STRIPPED_AT_ONCE or size > STRIPPED_BYTES
    message = ground.facts.items[keys.entry_key(entry.room, entry.target)]
    change.size = len(str(message.get("body", "")))
    for item in [message] if is_much else [message, *edits]:
        update = stripping(item)
        if update is not None:
            change.actions.append(lambda _, update=update: update)  # type: ignore[misc]  # mypy: a default is not inferred
    if is_much:
        change.unfinished = entry.target
        change.actions += _to_finish(entry, ground)
    else:
        change.size += size
    return change


def _to_finish(entry: MessageDeleted, ground: Ground) -> list[Callable[[Place], Action]]:
    """That edits still have their words: for readers, who leave them out, and for the sweep."""
    word = f"{entry.target}@{ground.now_ms}"
    pk, sk = keys.leftover_key(entry.room, f"{ground.place.life}#{entry.target}")
    left: Item = {"pk": pk, "sk": sk, "what": "words", "room": entry.room, "life": ground.place.life, "word": word}
    return [
        lambda _: Update(
            keys.room_key(entry.room),
            "ADD redacting :word",
            "life = :life",
            {"word": {word}, "life": ground.place.life},
        ),
        lambda _: Put(left),
    ]


def _react(entry: ReactionAdded | ReactionRemoved, ground: Ground) -> Change | None:
    ground.standing(entry.target)
    key = keys.reacted_key(entry.room, entry.target, entry.by, entry.reaction)
    adds = isinstance(entry, ReactionAdded)
    if (key in ground.facts.items) == adds:
        return None
    state: Action = Put({"pk": key[0], "sk": key[1]}) if adds else Delete(key)
    return Change(
        [
            lambda place: Put(
                {
                    "pk": keys.about_pk(entry.room),
                    "sk": keys.reaction_sk(entry.target, place.seq),
                    "body": words_of(entry),
                }
            ),
            lambda _: state,
        ]
    )


def _change_membership(entry: MemberJoined | MemberLeft | MemberUpdated, ground: Ground) -> Change | None:
    seat_key = keys.seat_key(entry.user, entry.room)
    known = read_seat(entry.user, ground.facts.items.get(seat_key), ground.place.life).member
    roll_key = keys.roll_pk(entry.room, ground.place.life), entry.user
    if isinstance(entry, MemberLeft):
        if known is None:
            return None
        unseat = Update(seat_key, "REMOVE #role, joined, life")
        return Change([lambda _: unseat, lambda _: Delete(roll_key)], members=-1)
    if known is not None and known.role == entry.role:
        return None
    if known is None:
        if isinstance(entry, MemberUpdated):
            raise NotFound(f"{entry.user!r} is not a member of this room.")
        if ground.place.members >= ground.limits.max_members:
            raise too_many_members(ground.limits)
        if ground.facts.rooms[entry.user] >= ground.limits.max_rooms:
            raise too_many_rooms(ground.limits)
    joined = entry.at if known is None else known.joined_at
    actions = seating(entry.user, entry.role, joined, ground.room.id, ground.place.life)
    return Change([lambda _: actions[0], lambda _: actions[1]], members=int(known is None))


def seating(user: UserId, role: Role, joined: int, room: RoomId, life: str) -> tuple[Update, Put]:
    """What makes a user a member: his seat, and his line in the list of members."""
    seat = Update(
        keys.seat_key(user, room),
        "SET #role = :role, joined = :joined, life = :life",
        values={"role": role.value, "joined": joined, "life": life},
    )
    return seat, Put({"pk": keys.roll_pk(room, life), "sk": user, "role": role.value, "joined": joined})


def too_many_members(limits: Limits) -> Conflict:
    """What is said where a room is full."""
    return Conflict(f"A room has at most {limits.max_members} members.")


def too_many_rooms(limits: Limits) -> Conflict:
    """What is said to a user who is in as many rooms as one may be."""
    return Conflict(f"A user is in at most {limits.max_rooms} rooms.")


def _change_room(entry: RoomUpdated, ground: Ground) -> Change:
    room = read_room(entry.room, ground.facts.items.get(keys.room_key(entry.room)))
    changed: dict[str, str] = {}
    if entry.room_name is not None:
        changed["name"] = entry.room_name
    if entry.kind is not None:
        changed["kind"] = entry.kind.value
    if not changed:
        return Change()
    update = Update(
        keys.room_key(entry.room),
        "SET " + ", ".join(f"#{name} = :{name}" for name in changed),
        "life = :life",
        {**changed, "life": ground.place.life},
    )
    change = Change([lambda _: update])
    if entry.kind is not None and entry.kind is not room.kind:
        gone, made = keys.index_pk(room.kind), keys.index_pk(entry.kind)
        change.actions.append(lambda _: Delete((gone, entry.room)))
        change.actions.append(lambda _: Put({"pk": made, "sk": entry.room}))
    return change
