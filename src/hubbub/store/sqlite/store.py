"""The `Store` port on SQLite: what is asked becomes a work for the writer, a query for the reader, or is remembered."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from hubbub.errors import Unavailable
from hubbub.model import Entry, Member, Page, Role, Room, RoomId, RoomKind, RoomState, User, UserId
from hubbub.ports import Appended, Store
from hubbub.protocol import entry_decoder
from hubbub.store.sqlite import works
from hubbub.store.sqlite.batch import ROOM, SEQ_BITS, Batch, RoomRow, Work
from hubbub.store.sqlite.cache import Cache
from hubbub.store.sqlite.lookups import Lookups
from hubbub.store.sqlite.opening import Database
from hubbub.store.sqlite.pages import read_page
from hubbub.store.sqlite.retention import Retention
from hubbub.store.sqlite.writer import Writer

logger = logging.getLogger("hubbub.store")

T = TypeVar("T")

FEW_ENTRIES = 20
"""A page of no more is read in a moment: `sync` asks for one of each room in which something was missed."""

_UNKNOWN: Any = object()  # Any: stands where a value that may be None would


class SqliteStore(Store):
    """The `Store` port on a SQLite file, or in memory with the path `:memory:`.

    WAL with `synchronous=FULL`: an append returns when the disk has it. This process is the file's only writer (a lock
    says so), which makes what is remembered of rooms, members and users exact.

    Args:
        path: the file; its folder is made if it is missing.
        retain_entries, retain_days: what is kept of a room's log; None for all.
        max_members: members of one room.
        max_rooms: rooms of one user.
        max_pending: writes, and reads, that may wait at once; more are refused with `Unavailable`.
        sweep_s: how often retention looks for what is too old, in seconds.

    Raises, on entering:
        ValueError: the file cannot be opened, is no database of Hubbub's, is from a newer version, or is in use by
            another process; the message says which and what to do.

    """

    def __init__(
        self,
        path: str,
        *,
        retain_entries: int | None = None,
        retain_days: float | None = None,
        max_members: int = 10_000,
        max_rooms: int = 1_000,
        max_pending: int = 10_000,
        sweep_s: float = 60.0,
    ) -> None:
        self._path = path
        self._retention = Retention(retain_entries, retain_days)
        self._limits = works.Limits(max_members, max_rooms)
        self._max_pending = max_pending
        self._sweep_s = sweep_s
        self._closing = False
        self._reading = 0  # queries that wait for the reader's thread or are in it
        self._rooms: Cache[Room | None] = Cache(50_000)
        self._members: Cache[Member | None] = Cache(200_000)
        self._users: Cache[User | None] = Cache(100_000)

    def __repr__(self) -> str:
        return f"<SqliteStore {self._path}>"

    async def __aenter__(self) -> SqliteStore:
        self._loop = asyncio.get_running_loop()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="hubbub-read")
        opening = self._reader.submit(Database, self._path)
        try:
            self._database = await asyncio.wrap_future(opening)
        except BaseException:
            self._reader.shutdown()
            if not opening.cancelled() and opening.exception() is None:  # it was not waited for and opened after all
                opening.result().close()
            raise
        self._lookups = Lookups(self._reader, partial(_snapshot, self._database.reading))
        self._writer = Writer(
            self._database,
            before=works.find_sent,
            settled=self._learn,
            sweep=self._retention,
            sweep_s=self._sweep_s,
            max_pending=self._max_pending,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._lookups.flush()
        self._writer.give()

        def close() -> None:
            self._writer.finish()
            self._database.close()

        closed = self._loop.run_in_executor(self._reader, close)
        self._reader.shutdown(wait=False)  # what it was given it still does
        await asyncio.shield(closed)

    @property
    def epoch(self) -> str:
        """Made when the file was; see the port."""
        return self._database.epoch

    # Writing and reading

    def _submit(self, work: Work) -> asyncio.Future[Any]:
        self._refuse_when_closing()
        return self._writer.submit(work)

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise Unavailable("The chat is shutting down.")

    def _learn(self, batch: Batch, rooms: dict[str, Room | None]) -> None:
        """What a transaction has changed is known before anybody is told that it was written."""
        for room_id, room in rooms.items():
            self._rooms.put(room_id, room)
        for key, member in batch.members.items():
            self._members.put(key, member)
        for user_id, user in batch.users.items():
            self._users.put(user_id, user)

    async def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query beside the writer; in memory there is one connection, so the writer runs it."""
        if self._database.in_memory:

            def work(batch: Batch) -> T:
                batch.flush()
                return query(batch.db)

            return await self._submit(work)  # type: ignore[no-any-return]
        return await self._within_bounds(
            lambda: self._loop.run_in_executor(self._reader, _in_one_snapshot, query, self._database.reading)
        )

    async def _look_up(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """As `_read`, for one that only takes a moment: it goes with the others of this turn."""
        if self._database.in_memory:
            return await self._read(query)
        return await self._within_bounds(lambda: self._lookups.ask(query))

    async def _within_bounds(self, begin: Callable[[], asyncio.Future[T]]) -> T:
        self._refuse_when_closing()
        if self._reading >= self._max_pending:
            raise Unavailable("Too many reads are waiting; try again.", retry_after_ms=500)
        self._reading += 1
        try:
            return await begin()
        except sqlite3.Error as error:
            logger.error("cannot read %s: %s", self._path, error)
            raise Unavailable from error
        finally:
            self._reading -= 1

    async def _cached(self, cache: Cache[T], key: Any, query: Callable[[sqlite3.Connection], T]) -> T:
        token = cache.begin(key)
        try:
            value = await self._look_up(query)
        except BaseException:
            cache.fail(key, token)
            raise
        cache.end(key, token, value)
        return value

    # The port: rooms

    async def ping(self) -> None:
        """Write a word; see the port."""
        word = str(time.time_ns())

        def work(batch: Batch) -> None:
            batch.db.execute("INSERT OR REPLACE INTO meta VALUES ('pinged', ?)", (word,))

        await self._submit(work)

    async def create_room(
        self,
        room: RoomId,
        kind: RoomKind,
        *,
        name: str,
        by: UserId,
        at: int,
        members: Sequence[Member],
        exist_ok: bool = False,
    ) -> Room:
        """Make it; see the port."""
        if exist_ok and (known := await self.room(room)) is not None:
            return known
        work = works.create_room(
            room, kind, name=name, by=by, at=at, members=members, exist_ok=exist_ok, limits=self._limits
        )
        return await self._submit(work)  # type: ignore[no-any-return]

    async def delete_room(self, room: RoomId) -> bool:
        """Remove it; see the port."""
        return await self._submit(works.delete_room(room))  # type: ignore[no-any-return]

    async def room(self, room: RoomId) -> Room | None:
        """The room; see the port."""
        known, value = self._rooms.get(room)
        if known:
            return value

        def query(db: sqlite3.Connection) -> Room | None:
            row = db.execute(f"SELECT {ROOM} FROM rooms WHERE id = ?", (room,)).fetchone()  # noqa: S608
            return None if row is None else RoomRow(row).seen()

        return await self._cached(self._rooms, room, query)

    async def heads(self, rooms: Sequence[RoomId]) -> dict[RoomId, int]:
        """Where their logs end; see the port."""
        named = msgspec.json.encode(list(rooms)).decode()

        def query(db: sqlite3.Connection) -> dict[RoomId, int]:
            return dict(
                db.execute(
                    "SELECT id, head FROM rooms WHERE NOT deleted AND id IN (SELECT value FROM json_each(?))", (named,)
                )
            )

        return await self._read(query)

    async def rooms(
        self, *, after: str = "", limit: int = 100, kind: RoomKind | None = None
    ) -> tuple[list[Room], bool]:
        """Rooms by id; see the port."""
        of_kind, chosen = ("", ()) if kind is None else (" AND kind = ?", (kind,))

        def query(db: sqlite3.Connection) -> tuple[list[Room], bool]:
            rows = db.execute(
                f"SELECT {ROOM} FROM rooms WHERE NOT deleted AND id > ?{of_kind} ORDER BY id LIMIT ?",  # noqa: S608
                (after, *chosen, limit + 1),
            ).fetchall()
            seen = [RoomRow(row).seen() for row in rows[:limit]]
            return [room for room in seen if room is not None], len(rows) > limit

        return await self._read(query)

    async def rooms_of(self, user: UserId, also: Sequence[RoomId] = ()) -> list[RoomState]:
        """The user's rooms; see the port."""
        columns = (
            "SELECT r.id, r.kind, r.name, m.role, r.head, coalesce(d.seq, 0),"
            " max(0, r.messages - max(coalesce(d.messages, 0), r.dropped))"
        )

        def query(db: sqlite3.Connection) -> list[RoomState]:
            rows = db.execute(
                f"{columns} FROM members m JOIN rooms r ON r.no = m.room"
                " LEFT JOIN reads d ON d.room = m.room AND d.user = m.user WHERE m.user = ?",
                (user,),
            ).fetchall()
            mine = {row[0] for row in rows}
            others = [room for room in dict.fromkeys(also) if room not in mine]
            if others:
                rows += db.execute(
                    f"{columns} FROM rooms r LEFT JOIN members m ON m.room = r.no AND m.user = ?"  # noqa: S608
                    " LEFT JOIN reads d ON d.room = r.no AND d.user = ?"
                    " WHERE NOT r.deleted AND r.id IN (SELECT value FROM json_each(?))",
                    (user, user, msgspec.json.encode(others).decode()),
                ).fetchall()
            return [
                RoomState(RoomId(room), RoomKind(kind), name, Role(role or Role.READER), head, read, unread)
                for room, kind, name, role, head, read, unread in sorted(rows)
            ]

        return await self._read(query)

    # The port: the log

    async def append(self, entry: Entry) -> Entry:
        """Write it; see the port."""
        entry.seq = 0
        return await self._submit(works.Append(entry, self._limits))  # type: ignore[no-any-return]

    def may_know(self, room: RoomId, user: UserId) -> tuple[Member | None, User | None] | None:
        """What is remembered; see `hubbub.ports.ReadyStore`."""
        if self._rooms.values.get(room) is None:
            return None
        member = self._members.values.get((room, user), _UNKNOWN)
        remembered = self._users.values.get(user, _UNKNOWN)
        if member is _UNKNOWN or remembered is _UNKNOWN:
            return None
        return member, remembered

    def append_ready(self, entry: Entry, appended: Appended) -> bool:
        """Write it; see `hubbub.ports.ReadyStore`."""
        if self._closing:
            return False
        entry.seq = 0
        return self._writer.put(works.Post(entry, self._limits), appended)

    async def entry(self, room: RoomId, seq: int) -> Entry | None:
        """One entry; see the port."""

        def query(db: sqlite3.Connection) -> Entry | None:
            row = db.execute(
                "SELECT body FROM entries WHERE key = (SELECT (no << ?) | ? FROM rooms WHERE id = ? AND NOT deleted)",
                (SEQ_BITS, seq, room),
            ).fetchone()
            return None if row is None else entry_decoder.decode(row[0])

        if not 0 < seq < 1 << SEQ_BITS:
            return None
        return await self._read(query)

    async def page(
        self,
        room: RoomId,
        *,
        before: int | None = None,
        after: int | None = None,
        around: int | None = None,
        limit: int = 50,
        thread: int | None = None,
        changes: bool = True,
    ) -> Page:
        """A stretch of the log; see the port."""
        read = self._look_up if limit <= FEW_ENTRIES and not changes else self._read
        return await read(
            partial(
                read_page,
                room=room,
                before=before,
                after=after,
                around=around,
                limit=limit,
                thread=thread,
                changes=changes,
            )
        )

    # The port: members, marks, users

    async def member(self, room: RoomId, user: UserId, *, recent: bool = False) -> Member | None:
        """The membership; see the port."""
        known, value = self._members.get((room, user))
        if known:
            return value

        def query(db: sqlite3.Connection) -> Member | None:
            row = db.execute(
                "SELECT m.role, m.joined_at FROM rooms r JOIN members m ON m.room = r.no WHERE r.id = ? AND m.user = ?",
                (room, user),
            ).fetchone()
            return None if row is None else Member(user, Role(row[0]), row[1])

        return await self._cached(self._members, (room, user), query)

    async def members(self, room: RoomId, *, after: str = "", limit: int = 100) -> tuple[list[Member], int, bool]:
        """Members by user id; see the port."""

        def query(db: sqlite3.Connection) -> tuple[list[Member], int, bool]:
            known = db.execute("SELECT no, members FROM rooms WHERE id = ?", (room,)).fetchone()
            if known is None:
                return [], 0, False
            rows = db.execute(
                "SELECT m.user, m.role, m.joined_at, u.name, u.avatar FROM members m LEFT JOIN users u USING (user)"
                " WHERE m.room = ? AND m.user > ? ORDER BY m.user LIMIT ?",
                (known[0], after, limit + 1),
            ).fetchall()
            found = [Member(UserId(row[0]), Role(row[1]), *row[2:]) for row in rows[:limit]]
            return found, known[1], len(rows) > limit

        return await self._read(query)

    async def mark_read(self, room: RoomId, user: UserId, seq: int) -> int:
        """Move the mark; see the port."""
        return await self._submit(works.mark_read(room, user, seq))  # type: ignore[no-any-return]

    async def user(self, user: UserId, *, recent: bool = False) -> User | None:
        """What is remembered; see the port."""
        known, value = self._users.get(user)
        if known:
            return value

        def query(db: sqlite3.Connection) -> User | None:
            row = db.execute(
                "SELECT user, name, avatar, revoked_before, banned_until FROM users WHERE user = ?", (user,)
            ).fetchone()
            return None if row is None else User(*row)

        return await self._cached(self._users, user, query)

    async def change_user(
        self,
        user: UserId,
        *,
        name: str | UnsetType | None = UNSET,
        avatar: str | UnsetType | None = UNSET,
        revoked_before: int | UnsetType = UNSET,
        banned_until: int | UnsetType = UNSET,
    ) -> User:
        """Remember; see the port."""
        changed = {"name": name, "avatar": avatar, "revoked_before": revoked_before, "banned_until": banned_until}
        given = {field: value for field, value in changed.items() if value is not UNSET}
        return await self._submit(works.change_user(user, given))  # type: ignore[no-any-return]  # what the work returns


def _in_one_snapshot(query: Callable[[sqlite3.Connection], T], db: sqlite3.Connection) -> T:
    with _snapshot(db):
        return query(db)


@contextmanager
def _snapshot(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """What is read within is of one moment."""
    db.execute("BEGIN")
    try:
        yield db
    finally:
        if db.in_transaction:
            db.execute("COMMIT")
