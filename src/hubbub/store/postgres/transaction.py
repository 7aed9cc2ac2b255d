"""A transaction of several deeds: their rooms' rows, locked, as they will be, and rows to be written together.

A deed that is refused has changed nothing: it asks everything first. So it takes no other of its transaction with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from hubbub.errors import Conflict, NotFound
from hubbub.model import (
    AnyEntry,
    Member,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    ReactionAdded,
    ReactionRemoved,
    Role,
    Room,
    RoomId,
    RoomKind,
    User,
    UserId,
)
from hubbub.protocol import encode, entry_decoder
from hubbub.store.postgres.link import Session
from hubbub.store.postgres.text import packed, unpacked

ROOM = "no, id, kind, name, created_at, head, first, messages, dropped, members, deleted, made"
"""The columns of a `RoomRow`."""

SORT_OF_MESSAGE, SORT_OF_WORDS, SORT_OF_REACTION, SORT_OF_OTHERS = range(4)


@dataclass(frozen=True)
class Limits:
    """How many members a room has at most, and how many rooms a user is in."""

    max_members: int
    max_rooms: int


@dataclass(slots=True)
class RoomRow:
    """A row of `rooms`; those of deleted rooms are there too."""

    no: int
    id: str
    kind: str
    name: str
    created_at: int
    head: int
    first: int
    messages: int
    dropped: int
    members: int
    deleted: bool
    made: str

    def __post_init__(self) -> None:
        self.name = unpacked(self.name)

    def seen(self) -> Room | None:
        """The room as others see it; None for a deleted one."""
        if self.deleted:
            return None
        return Room(
            RoomId(self.id), RoomKind(self.kind), self.name, self.created_at, self.head, self.first, self.members
        )


def read_entry(seq: int, body: bytes) -> AnyEntry:
    """An entry from its row."""
    entry: AnyEntry = entry_decoder.decode(body)
    entry.seq = seq
    return entry


class Transaction:
    """A transaction under way.

    Args:
        session: whose it is.
        limits: see `Limits`.

    Attributes:
        session: for statements of a deed's own.
        limits: as given.
        sent: entries that are there already, by what makes two the same (room number, author, once).
        members, users: what is news of them; None of a member also where nothing is known any more.

    """

    def __init__(self, session: Session, limits: Limits) -> None:
        self.session = session
        self.limits = limits
        self.sent: dict[tuple[int, str, str], AnyEntry] = {}
        self.members: dict[tuple[RoomId, UserId], Member | None] = {}
        self.users: dict[UserId, User] = {}
        self._rooms: dict[str, RoomRow] = {}
        self._changed: dict[str, RoomRow] = {}
        self._seats: dict[UserId, int] = {}  # in how many rooms users are, of those whose seats are locked
        self._counted: set[UserId] = set()  # whose count is to be written
        self._noted: list[tuple[Any, ...]] = []  # Any: columns of entries that are to be written
        self._messages: dict[tuple[int, int], MessageCreated | None] = {}  # targets, by room number and seq

    # Rooms

    async def lock(self, rooms: Iterable[str]) -> None:
        """Take the right to change these rooms, of which nobody else changes one until the end."""
        rows = await self.session.fetch(
            f"SELECT {ROOM} FROM hubbub.rooms WHERE id = ANY ($1::text[]) ORDER BY id FOR NO KEY UPDATE",  # noqa: S608
            list(rooms),
        )
        for row in rows:
            self._rooms[row["id"]] = RoomRow(*row)

    def room(self, room: RoomId) -> RoomRow | None:
        """A room that is locked, deleted ones included."""
        return self._rooms.get(room)

    def living(self, room: RoomId) -> RoomRow:
        """The room.

        Raises:
            NotFound: there is none.

        """
        known = self._rooms.get(room)
        if known is None or known.deleted:
            raise NotFound(f"There is no room {room!r}.")
        return known

    async def make(self, room: RoomId, kind: RoomKind, name: str, at: int, made: str) -> RoomRow:
        """A new room, without its entries. Where somebody else makes it meanwhile, all of this is done again."""
        rows = await self.session.fetch(
            "INSERT INTO hubbub.rooms (id, kind, name, created_at, made) VALUES ($1, $2, $3, $4, $5)"  # noqa: S608
            f" RETURNING {ROOM}",
            room,
            kind.value,
            packed(name),
            at,
            made,
        )
        made_row = self._rooms[room] = RoomRow(*rows[0])
        return made_row

    def changed(self, room: RoomRow) -> None:
        """Note that its row is to be written."""
        self._changed[room.id] = room

    # Entries

    async def find_sent(self, keys: Sequence[tuple[int, str, str]]) -> None:
        """Look up which of these are there already."""
        rows = await self.session.fetch(
            "SELECT k.place, e.seq, e.body FROM unnest($1::bigint[], $2::text[], $3::text[]) WITH ORDINALITY"
            " AS k (room, author, once, place) CROSS JOIN LATERAL (SELECT e.seq, e.body FROM hubbub.entries e"
            " WHERE e.room = k.room AND e.author = k.author AND e.once = k.once LIMIT 1) e",
            [room for room, _, _ in keys],
            [packed(author) for _, author, _ in keys],
            [packed(once) for _, _, once in keys],
        )
        for place, seq, body in rows:
            self.sent[keys[place - 1]] = read_entry(seq, body)

    def add(self, room: RoomRow, entry: AnyEntry, body: bytes, once: str) -> int:
        """Note the entry's row; returns its seq."""
        room.head += 1
        sort, target = SORT_OF_OTHERS, cast("int | None", None)
        match entry:
            case MessageEdited() | MessageDeleted():
                sort, target = SORT_OF_WORDS, entry.target
            case ReactionAdded() | ReactionRemoved():
                sort, target = SORT_OF_REACTION, entry.target
        author = packed(entry.by)
        self._noted.append((room.no, room.head, author, packed(once), sort, target, room.messages, entry.at, body))
        self.changed(room)
        return room.head

    async def standing(self, room: RoomRow, seq: int) -> MessageCreated:
        """The message at `seq`, which must not be deleted.

        Raises:
            NotFound: there is none.
            Conflict: it is deleted.

        """
        key = (room.no, seq)
        if key not in self._messages:
            rows = await self.session.fetch(
                "SELECT body FROM hubbub.entries WHERE room = $1 AND seq = $2 AND sort = 0", room.no, seq
            )
            entry = read_entry(seq, rows[0]["body"]) if rows else None
            self._messages[key] = entry if isinstance(entry, MessageCreated) else None
        message = self._messages[key]
        if message is None:
            raise NotFound(f"There is no message {seq} in this room.")
        if message.deleted:
            raise Conflict("The message has been deleted.")
        return message

    async def edits(self, room: RoomRow, target: int) -> list[AnyEntry]:
        """The entries that have changed the message's words."""
        await self.flush()
        rows = await self.session.fetch(
            "SELECT seq, body FROM hubbub.entries WHERE room = $1 AND target = $2 AND sort = 1", room.no, target
        )
        return [read_entry(*row) for row in rows]

    async def rewrite(self, room: RoomRow, entries: Sequence[AnyEntry]) -> None:
        """Write entries anew in their places."""
        bodies = []
        for entry in entries:
            seq, entry.seq = entry.seq, 0
            bodies.append(encode(entry))
            entry.seq = seq
        await self.session.fetch(
            "UPDATE hubbub.entries e SET body = n.body FROM unnest($2::bigint[], $3::bytea[]) AS n (seq, body)"
            " WHERE e.room = $1 AND e.seq = n.seq",
            room.no,
            [entry.seq for entry in entries],
            bodies,
        )

    # Members

    async def member(self, room: RoomRow, user: UserId) -> Member | None:
        """The user's membership."""
        rows = await self.session.fetch(
            "SELECT role, joined_at FROM hubbub.members WHERE room = $1 AND user_id = $2", room.no, packed(user)
        )
        return Member(user, Role(rows[0]["role"]), rows[0]["joined_at"]) if rows else None

    async def lock_seats(self, users: Iterable[UserId], emptied: Iterable[RoomId]) -> None:
        """Take the right to count the rooms of these users, and of the members of the rooms that are to be emptied."""
        asked = [packed(user) for user in users]
        rooms = [row.no for room in emptied if (row := self._rooms.get(room)) is not None]
        if not asked and not rooms:
            return
        rows = await self.session.fetch(
            "WITH asked AS MATERIALIZED (SELECT user_id FROM unnest($1::text[]) AS a (user_id)"
            " UNION SELECT m.user_id FROM unnest($2::bigint[]) AS r (no) JOIN hubbub.members m ON m.room = r.no"
            " ORDER BY user_id)"
            " INSERT INTO hubbub.seats AS s (user_id, rooms) SELECT user_id, 0 FROM asked ORDER BY user_id"
            " ON CONFLICT (user_id) DO UPDATE SET rooms = s.rooms RETURNING user_id, rooms",
            asked,
            rooms,
        )
        self._seats.update((UserId(unpacked(user)), count) for user, count in rows)

    def seat(self, users: Sequence[UserId]) -> None:
        """Count a room more for each of these users, whose seats are locked.

        Raises:
            Conflict: one of them is in too many; none is counted.

        """
        if any(self._seats[user] >= self.limits.max_rooms for user in users):
            raise Conflict(f"A user is in at most {self.limits.max_rooms} rooms.")
        self._count_rooms(users, 1)

    def unseat(self, users: Sequence[UserId]) -> None:
        """Count a room less for each of them."""
        self._count_rooms(users, -1)

    def _count_rooms(self, users: Sequence[UserId], more: int) -> None:
        for user in users:
            self._seats[user] += more
        self._counted.update(users)

    async def enter(self, room: RoomRow, members: Sequence[Member]) -> None:
        """Make these members, or give them these roles."""
        await self.session.fetch(
            "INSERT INTO hubbub.members (room, user_id, role, joined_at)"
            " SELECT $1, * FROM unnest($2::text[], $3::text[], $4::bigint[])"
            " ON CONFLICT (room, user_id) DO UPDATE SET role = excluded.role",
            room.no,
            [packed(member.user) for member in members],
            [member.role.value for member in members],
            [member.joined_at for member in members],
        )
        for member in members:
            self.members[RoomId(room.id), member.user] = member
        self.changed(room)

    # Writing

    async def flush(self) -> None:
        """Write what is noted, so that statements see it."""
        noted, self._noted = self._noted, []
        if noted:
            await self.session.fetch(
                "INSERT INTO hubbub.entries (room, seq, author, once, sort, target, messages, at, body) SELECT * FROM"
                " unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::smallint[], $6::bigint[],"
                " $7::bigint[], $8::bigint[], $9::bytea[])",
                *map(list, zip(*noted, strict=True)),
            )
        counted, self._counted = list(self._counted), set()
        if counted:
            await self.session.fetch(
                "UPDATE hubbub.seats s SET rooms = n.rooms FROM unnest($1::text[], $2::bigint[]) AS n (user_id, rooms)"
                " WHERE s.user_id = n.user_id",
                [packed(user) for user in counted],
                [self._seats[user] for user in counted],
            )
        changed, self._changed = list(self._changed.values()), {}
        if changed:
            await self.session.fetch(
                "UPDATE hubbub.rooms r SET no = n.no, kind = n.kind, name = n.name, created_at = n.created_at,"
                " head = n.head, first = n.first, messages = n.messages, dropped = n.dropped, members = n.members,"
                " deleted = n.deleted, made = n.made FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[],"
                " $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[],"
                " $11::boolean[], $12::text[]) AS n (no, id, kind, name, created_at, head, first, messages, dropped,"
                " members, deleted, made) WHERE r.id = n.id",
                *map(list, zip(*map(_columns, changed), strict=True)),
            )


def _columns(room: RoomRow) -> tuple[Any, ...]:  # Any: the columns' types
    return (
        room.no,
        room.id,
        room.kind,
        packed(room.name),
        room.created_at,
        room.head,
        room.first,
        room.messages,
        room.dropped,
        room.members,
        room.deleted,
        room.made,
    )
