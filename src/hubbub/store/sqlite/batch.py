"""One transaction of the writer: rooms as they will be, rows that wait to be written together, and news for the loop.

Every statement lets go of the interpreter and has to get it back from a busy event loop, so a batch of messages is a
handful of statements however many they are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

from hubbub.errors import NotFound
from hubbub.model import (
    AnyEntry,
    Entry,
    Member,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    Role,
    Room,
    RoomId,
    RoomKind,
    User,
    UserId,
)
from hubbub.protocol import encode, entry_decoder

SEQ_BITS = 36
"""How many bits of an entry's key are its seq: 68 thousand million entries a room, 134 million rooms."""

STEP, MOST_ROWS = 32, 256
"""Multi-row statements have so many rows as a multiple of the one up to the other, or fewer than the one.

So up to `MOST_ROWS` rows need at most two statements. Each of them lets go of the interpreter four times and has to get
it back, and the connection's cache has room for all there are.
"""

ENTRY = "(?,?,?,nullif(?,0),nullif(?,0),nullif(?,0),?,?,?,?)"
MESSAGE = "(?,?,?,nullif(?,0),NULL,NULL,0,?,?,?)"
"""A row of `entries`, and that of a message in no thread, as most are: what is not given need not be bound.

There is 0 where there is nothing, and the body is a bytearray.

For a parameter that is no int, float, str or bytearray, `sqlite3` looks for an adapter first. None and bytes are such,
and with four of them that takes as long as all else that is done for a row.
"""

PAGE = 4_096
"""SQLite's pages, of which its write-ahead log consists."""

PAGES_A_COMMIT, PAGES_A_ROOM, ROWS_A_PAGE_OF_INDEX = 5, 2, 4
"""About what a commit writes beside its entries: the last page of each tree; of each room the page where its log ends
and that of its read marks; of indexes, whose rows lie scattered, a page for some rows.
"""

ROOM = "no, id, kind, name, created_at, head, first, messages, dropped, members, deleted"
"""The columns of a `RoomRow`."""

INSERT_ROOM, ROOM_VALUES = f"INSERT INTO rooms ({ROOM}) VALUES ", "(?,?,?,?,?,?,?,?,?,?,?)"  # noqa: S608
ON_ROOM = " ON CONFLICT (no) DO UPDATE SET"
ROOM_NUMBERS = (
    "head = excluded.head, first = excluded.first, messages = excluded.messages, dropped = excluded.dropped,"
    " members = excluded.members"
)
ROOM_NAMES = "kind = excluded.kind, name = excluded.name, created_at = excluded.created_at, deleted = excluded.deleted"
"""What messages leave alone: SQLite writes an index anew of whose columns a statement sets one, be it as it was."""

_row_of: Callable[[RoomRow], tuple[Any, ...]] = attrgetter(*ROOM.split(", "))


class RoomRow:
    """A row of `rooms`; the writer's are the truth until a batch is rolled back."""

    __slots__ = ("created_at", "deleted", "dropped", "first", "head", "id", "kind", "members", "messages", "name", "no")

    def __init__(self, row: tuple[Any, ...]) -> None:
        (
            self.no,
            self.id,
            self.kind,
            self.name,
            self.created_at,
            self.head,
            self.first,
            self.messages,
            self.dropped,
            self.members,
            self.deleted,
        ) = row

    def seen(self) -> Room | None:
        """The room as others see it; None for a deleted one."""
        if self.deleted:
            return None
        return Room(
            RoomId(self.id),
            RoomKind(self.kind),
            self.name,
            self.created_at,
            self.head,
            self.first,
            self.members,
        )


class Batch:
    """A transaction under way.

    Attributes:
        db: the writer's connection, for statements of a work's own.
        sent: messages by what makes two the same (room number, author, client_id), as far as this batch may ask.
        members, users: news, what was changed of them.
        litter: whether it left something to `Retention`.
        body: the JSON of the last entry that it has added.

    """

    def __init__(self, db: sqlite3.Connection, rooms: dict[str, RoomRow]) -> None:
        self.db = db
        self.sent: dict[tuple[int, str, str], Entry] = {}
        self.members: dict[tuple[str, str], Member | None] = {}
        self.users: dict[str, User] = {}
        self.litter = False
        self.body = b""
        self._entries = 0  # how many it has written
        self._entry_bytes = 0  # how long those are that it has added
        self._indexed = 0  # rows of theirs in indexes
        self._rooms = rooms
        self._changed: dict[str, RoomRow] = {}  # rooms whose row is to be written
        self._remade: dict[str, RoomRow] = {}  # those of them of which more than numbers is
        # Entries not yet written, by key: messages of no thread, and all others. Each ends in messages, at and body.
        self._said: dict[int, tuple[Any, ...]] = {}
        self._rows: dict[int, tuple[Any, ...]] = {}
        self._marks: dict[tuple[int, str], tuple[int, str, int, int]] = {}  # read marks: the rows

    # Rooms

    def room(self, room: str) -> RoomRow | None:
        """The room, deleted ones included."""
        known = self._rooms.get(room)
        if known is None:
            row = self.db.execute(f"SELECT {ROOM} FROM rooms WHERE id = ?", (room,)).fetchone()  # noqa: S608
            if row is None:
                return None
            known = self._rooms[room] = RoomRow(row)
        return known

    def living(self, room: str) -> RoomRow:
        """The room.

        Raises:
            NotFound: there is none.

        """
        known = self._rooms.get(room) or self.room(room)
        if known is None or known.deleted:
            raise NotFound(f"There is no room {room!r}.")
        return known

    def make(self, room: RoomId, kind: RoomKind, name: str, at: int) -> RoomRow:
        """A new room, without a row of its entry."""
        [row] = self.db.execute(
            f"INSERT INTO rooms (id, kind, name, created_at) VALUES (?, ?, ?, ?) RETURNING {ROOM}",  # noqa: S608
            (room, kind, name, at),
        ).fetchall()
        made = self._rooms[room] = RoomRow(row)
        return made

    def counted(self, room: RoomRow) -> None:
        """Note that numbers of its row are to be written: where its log ends and begins, how many there are."""
        self._changed[room.id] = room

    def changed(self, room: RoomRow) -> None:
        """Note that its row is to be written, with what rooms are looked up by."""
        self._changed[room.id] = self._remade[room.id] = room

    def news_of_rooms(self) -> dict[str, Room | None]:
        """The rooms that this batch has changed, as others see them."""
        return {room.id: room.seen() for room in self._changed.values()}

    # Entries

    def add(self, room: RoomRow, entry: Entry) -> Entry:
        """Give the entry its seq and note its row."""
        seq = entry.seq = room.head = room.head + 1
        no, author = room.no, entry.by
        key = no << SEQ_BITS | seq
        self._changed[room.id] = room
        if isinstance(entry, MessageCreated):
            client_id, thread = entry.client_id, entry.thread
            messages = room.messages = room.messages + 1
            body = self.body = encode(entry)
            self._marks[no, author] = (no, author, seq, messages)
            if client_id is not None:
                self.sent[no, author, client_id] = entry
                self._indexed += 1
            sent_as = 0 if client_id is None else client_id
            if thread is None:
                self._said[key] = (key, no, author, sent_as, messages, entry.at, bytearray(body))
            else:
                self._indexed += 1
                self._rows[key] = (key, no, author, sent_as, 0, thread, 0, messages, entry.at, bytearray(body))
        else:
            target = getattr(entry, "target", 0)
            words = int(isinstance(entry, MessageEdited | MessageDeleted))
            body = self.body = encode(entry)
            self._indexed += target > 0
            self._rows[key] = (key, no, author, 0, target, 0, words, room.messages, entry.at, bytearray(body))
        self._entry_bytes += len(body)
        return entry

    def _row(self, key: int) -> tuple[Any, ...] | None:
        """The row of an entry that is not yet written."""
        return self._said.get(key) or self._rows.get(key)

    def entry(self, room: RoomRow, seq: int) -> AnyEntry | None:
        """The entry at `seq`."""
        if not room.first <= seq <= room.head:  # a greater one would be a key of another room
            return None
        key = room.no << SEQ_BITS | seq
        row = self._row(key)
        if row is None:
            row = self.db.execute("SELECT body FROM entries WHERE key = ?", (key,)).fetchone()
        return None if row is None else entry_decoder.decode(row[-1])

    def message(self, room: RoomRow, seq: int) -> MessageCreated:
        """The message at `seq`.

        Raises:
            NotFound: there is none.

        """
        entry = self.entry(room, seq)
        if not isinstance(entry, MessageCreated):
            raise NotFound(f"There is no message {seq} in this room.")
        return entry

    def ordinal(self, room: RoomRow, seq: int) -> int:
        """How many messages the room has had up to `seq`; of those that are not kept, any number will do."""
        if seq >= room.head:
            return int(room.messages)
        key = room.no << SEQ_BITS | seq
        row = self._row(key)
        if row is not None:
            return int(row[-3])
        row = self.db.execute("SELECT messages FROM entries WHERE key = ?", (key,)).fetchone()
        return int(row[0]) if row else int(room.dropped)

    def rewrite(self, room: RoomRow, entries: Iterable[AnyEntry]) -> None:
        """Write entries anew in their places."""
        rows = [(encode(entry), room.no << SEQ_BITS | entry.seq) for entry in entries]
        self.db.executemany("UPDATE entries SET body = ? WHERE key = ?", rows)

    # Members and marks

    def member(self, room: RoomRow, user: UserId) -> Member | None:
        """The user's membership."""
        row = self.db.execute(
            "SELECT role, joined_at FROM members WHERE room = ? AND user = ?", (room.no, user)
        ).fetchone()
        return None if row is None else Member(user, Role(row[0]), row[1])

    def mark(self, room: RoomRow, user: UserId) -> int:
        """Where the user's read mark is."""
        noted = self._marks.get((room.no, user))
        row = self.db.execute("SELECT seq FROM reads WHERE room = ? AND user = ?", (room.no, user)).fetchone()
        return max(noted[2] if noted else 0, row[0] if row else 0)

    def move_mark(self, room: RoomRow, user: UserId, seq: int) -> None:
        """Note that the user's read mark is at `seq`, which is further on than it was."""
        self._marks[room.no, user] = (room.no, user, seq, self.ordinal(room, seq))

    # Writing

    def log_bytes(self, changes: int) -> int:
        """About how much longer its commit makes the write-ahead log, with so many `changes` of rows in all."""
        others = changes - self._entries - len(self._changed) - len(self._marks)
        pages = PAGES_A_COMMIT + PAGES_A_ROOM * len(self._changed) + self._indexed // ROWS_A_PAGE_OF_INDEX
        return self._entry_bytes + PAGE * (pages + max(0, others))

    def flush(self) -> None:
        """Write what is noted, so that statements see it."""
        said, self._said = list(self._said.values()), {}
        rows, self._rows = list(self._rows.values()), {}
        self._entries += len(said) + len(rows)
        insert_many(self.db, "INSERT INTO entries VALUES ", MESSAGE, "", said)
        insert_many(self.db, "INSERT INTO entries VALUES ", ENTRY, "", rows)
        # An upsert that never inserts. UPDATE … FROM would do, but its join costs more than all the rest of an append.
        counted = [_row_of(room) for name, room in self._changed.items() if name not in self._remade]
        insert_many(self.db, INSERT_ROOM, ROOM_VALUES, f"{ON_ROOM} {ROOM_NUMBERS}", counted)
        remade = [_row_of(room) for room in self._remade.values()]
        insert_many(self.db, INSERT_ROOM, ROOM_VALUES, f"{ON_ROOM} {ROOM_NUMBERS}, {ROOM_NAMES}", remade)
        insert_many(
            self.db,
            "INSERT INTO reads (room, user, seq, messages) VALUES ",
            "(?,?,?,?)",
            " ON CONFLICT (room, user) DO UPDATE SET seq = excluded.seq, messages = excluded.messages",
            list(self._marks.values()),
        )


Work = Callable[[Batch], Any]
"""What a caller wants done in a transaction. It raises a `HubbubError` only before it has changed anything."""


def select_many(
    db: sqlite3.Connection, head: str, row: str, tail: str, rows: Sequence[tuple[Any, ...]]
) -> list[tuple[Any, ...]]:
    """Run a query over `rows`, written as VALUES between `head` and `tail`, in few calls; returns what it finds."""
    found: list[tuple[Any, ...]] = []
    for statement, values in _statements(head, row, tail, rows):
        found += db.execute(statement, values).fetchall()
    return found


def insert_many(db: sqlite3.Connection, head: str, row: str, tail: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """As `select_many`, for what finds nothing."""
    for statement, values in _statements(head, row, tail, rows):
        # After `execute`, `sqlite3` lets go of the interpreter once more, to ask for the number of the last row.
        db.executemany(statement, (values,))


def _statements(head: str, row: str, tail: str, rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[str, list[Any]]]:
    start, count = 0, len(rows)
    while start < count:
        size = min(count - start, MOST_ROWS)
        if size > STEP:
            size -= size % STEP
        yield head + ",".join([row] * size) + tail, list(chain.from_iterable(rows[start : start + size]))
        start += size
