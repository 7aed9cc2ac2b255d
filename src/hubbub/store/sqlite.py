"""The store on one SQLite file: one writer thread that commits together what arrives together.

WAL with `synchronous=FULL`: an append returns when the disk has it. Every statement lets go of the interpreter and has
to get it back from a busy event loop, so a batch of messages is a handful of statements however many they are. This
process is the file's only writer (a lock says so), which makes what is remembered of rooms and members exact.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import queue
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from itertools import islice
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import msgspec

from hubbub.errors import Conflict, HubbubError, NotFound, Unavailable
from hubbub.model import (
    AnyEntry,
    Entry,
    Member,
    MemberJoined,
    MemberLeft,
    MemberUpdated,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    Page,
    ReactionAdded,
    ReactionRemoved,
    Role,
    Room,
    RoomId,
    RoomKind,
    RoomState,
    RoomUpdated,
    User,
    UserId,
    new_ulid,
)
from hubbub.ports import Store
from hubbub.protocol import encode, entry_decoder

logger = logging.getLogger("hubbub.store")

SEQ_BITS = 36
"""How many bits of an entry's key are its seq: 68 thousand million entries a room, 134 million rooms."""

MAX_CHANGES = 1_000
MAX_BATCH = 1_024
SWEEP = 500
"""How many entries retention removes in one transaction."""

_CHUNKS = (128, 32, 8, 1)
"""Sizes of multi-row statements: few, so that SQLite's statement cache knows them all."""

T = TypeVar("T")


class _Room:
    """What the writer knows of a room; the truth until the batch is rolled back."""

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


_ROOM = "no, id, kind, name, created_at, head, first, messages, dropped, members, deleted"
_row_of: Callable[[_Room], tuple[Any, ...]] = attrgetter(*_ROOM.split(", "))


class _Cache(Generic[T]):
    """What was last read or written, by key; lives on the event loop.

    A read that began before a write of the same key does not overwrite what the write left here.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: dict[Any, T] = {}
        self._loading: dict[Any, object] = {}

    def get(self, key: Any) -> tuple[bool, T | None]:
        """Whether it is known, and what."""
        if key in self._values:
            return True, self._values[key]
        return False, None

    def put(self, key: Any, value: T) -> None:
        """What a write has left."""
        self._loading.pop(key, None)
        self._values[key] = value
        if len(self._values) > self._size:
            for old in list(islice(self._values, self._size // 8)):
                del self._values[old]

    def forget(self, key: Any) -> None:
        """It has changed in a way not told."""
        self._loading.pop(key, None)
        self._values.pop(key, None)

    def begin(self, key: Any) -> object:
        """A read of it begins."""
        token = self._loading[key] = object()
        return token

    def end(self, key: Any, token: object, value: T) -> None:
        """The read has ended with `value`."""
        if self._loading.get(key) is token:
            self.put(key, value)

    def fail(self, key: Any, token: object) -> None:
        """The read has failed."""
        if self._loading.get(key) is token:
            del self._loading[key]


class _Batch:
    """The writer's side of a transaction: rooms and marks as they will be, rows not yet written, news for the loop."""

    def __init__(self, db: sqlite3.Connection, rooms: dict[str, _Room]) -> None:
        self.db = db
        self.rooms = rooms
        self.dirty: dict[int, _Room] = {}
        self.rows: list[tuple[Any, ...]] = []
        self.sent: dict[tuple[int, str, str], Entry] = {}  # messages of this batch by what makes them the same
        self.marks: dict[tuple[str, int], tuple[int, int]] = {}
        self.members: dict[tuple[str, str], Member | None] = {}  # news: memberships that changed
        self.users: dict[str, User] = {}  # news: users that changed
        self.cleared: list[str] = []  # news: rooms whose members are gone

    def room(self, room: str) -> _Room | None:
        """The room, deleted ones included."""
        known = self.rooms.get(room)
        if known is None:
            row = self.db.execute(f"SELECT {_ROOM} FROM rooms WHERE id = ?", (room,)).fetchone()  # noqa: S608
            if row is None:
                return None
            known = self.rooms[room] = _Room(row)
        return known

    def living(self, room: str) -> _Room:
        """The room.

        Raises:
            NotFound: there is none.

        """
        known = self.room(room)
        if known is None or known.deleted:
            raise NotFound(f"There is no room {room!r}.")
        return known

    def add(self, room: _Room, entry: Entry) -> Entry:
        """Give the entry its seq and note its row."""
        room.head += 1
        entry.seq = room.head
        message = isinstance(entry, MessageCreated)
        client_id = thread = None
        if isinstance(entry, MessageCreated):
            room.messages += 1
            client_id, thread = entry.client_id, entry.thread
            self.marks[entry.by, room.no] = (room.head, room.messages)
            if client_id is not None:
                self.sent[room.no, entry.by, client_id] = entry
        self.dirty[room.no] = room
        self.rows.append(
            (
                room.no << SEQ_BITS | room.head,
                room.no,
                entry.by,
                client_id,
                getattr(entry, "target", None),
                thread,
                message,
                room.messages,
                entry.at,
                encode(entry),
            )
        )
        return entry

    def flush(self) -> None:
        """Write the noted rows, so that statements see them."""
        rows, self.rows = self.rows, []
        _many(self.db, "INSERT INTO entries VALUES ", "(?,?,?,?,?,?,?,?,?,?)", "", rows)

    def finish(self) -> None:
        """Write everything that is noted."""
        self.flush()
        # An upsert that never inserts: unlike UPDATE … FROM it needs no plan for a join, which costs ten times as much.
        _many(
            self.db,
            f"INSERT INTO rooms ({_ROOM}) VALUES ",  # noqa: S608
            "(?,?,?,?,?,?,?,?,?,?,?)",
            " ON CONFLICT (no) DO UPDATE SET head = excluded.head, messages = excluded.messages,"
            " kind = excluded.kind, name = excluded.name, created_at = excluded.created_at, members = excluded.members,"
            " first = excluded.first, dropped = excluded.dropped, deleted = excluded.deleted",
            [_row_of(room) for room in self.dirty.values()],
        )
        _many(
            self.db,
            "INSERT INTO reads (user, room, seq, messages) VALUES ",
            "(?,?,?,?)",
            " ON CONFLICT (user, room) DO UPDATE SET seq = excluded.seq, messages = excluded.messages"
            " WHERE excluded.seq > reads.seq",
            [(user, room, *mark) for (user, room), mark in self.marks.items()],
        )

    def entry(self, room: _Room, seq: int) -> AnyEntry | None:
        """The entry at `seq`."""
        self.flush()
        row = self.db.execute("SELECT body FROM entries WHERE key = ?", (room.no << SEQ_BITS | seq,)).fetchone()
        return None if row is None else entry_decoder.decode(row[0])

    def message(self, room: _Room, seq: int) -> MessageCreated:
        """The message at `seq`.

        Raises:
            NotFound: there is none.

        """
        entry = self.entry(room, seq)
        if not isinstance(entry, MessageCreated):
            raise NotFound(f"There is no message {seq} in this room.")
        return entry

    def replace(self, room: _Room, entry: AnyEntry) -> None:
        """Write an entry anew in its place."""
        key = room.no << SEQ_BITS | entry.seq
        self.db.execute("UPDATE entries SET body = ? WHERE key = ?", (encode(entry), key))

    def role(self, room: _Room, user: str) -> str | None:
        """The user's role in the room, if he is a member."""
        row = self.db.execute("SELECT role FROM members WHERE room = ? AND user = ?", (room.no, user)).fetchone()
        return None if row is None else row[0]


def _many(db: sqlite3.Connection, head: str, row: str, tail: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Run a multi-row statement over all rows, in few calls."""
    start = 0
    for size in _CHUNKS:
        if len(rows) - start >= size:
            statement = head + ",".join([row] * size) + tail
            while len(rows) - start >= size:
                values: list[Any] = []
                for each in rows[start : start + size]:
                    values.extend(each)
                db.execute(statement, values)
                start += size


Work = Callable[[_Batch], Any]


class SqliteStore(Store):
    """The `Store` port on a SQLite file, or in memory with the path `:memory:`.

    Args:
        path: the file; its folder is made if it is missing.
        retain_entries, retain_days: what is kept of a room's log; None for all.
        max_members: members of one room.
        max_rooms: rooms of one user.
        max_pending: writes that may wait at once; more are refused with `Unavailable`.
        sweep_s: how often retention looks for what is too old, in seconds.

    Raises, on entering:
        ValueError: the file cannot be opened, is no database, is from a newer version, or is in use by another process;
            the message says which and what to do.

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
        self._memory = path == ":memory:"
        self._retain_entries = retain_entries
        self._retain_days = retain_days
        self._max_members = max_members
        self._max_rooms = max_rooms
        self._max_pending = max_pending
        self._sweep_s = sweep_s
        self._epoch = ""
        self._pending = 0
        self._closing = False
        self._failing = False
        self._queue: queue.SimpleQueue[tuple[Work, asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._rooms: _Cache[Room | None] = _Cache(50_000)
        self._members: _Cache[Member | None] = _Cache(200_000)
        self._users: _Cache[User | None] = _Cache(100_000)
        self._lock: int | None = None

    def __repr__(self) -> str:
        return f"<SqliteStore {self._path}>"

    async def __aenter__(self) -> SqliteStore:
        self._loop = asyncio.get_running_loop()
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="hubbub-read")
        try:
            self._db = await self._loop.run_in_executor(self._readers, self._open)
            self._reader = self._db if self._memory else await self._loop.run_in_executor(self._readers, self._connect)
        except sqlite3.Error as error:
            self._unlock()
            self._readers.shutdown()
            raise ValueError(_why_not_open(self._path, error)) from error
        except BaseException:
            self._unlock()
            self._readers.shutdown()
            raise
        self._thread = threading.Thread(target=self._write_all, name="hubbub-write", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._queue.put(None)
        await self._loop.run_in_executor(self._readers, self._thread.join)
        self._readers.shutdown()
        if not self._memory:
            self._reader.close()
            try:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error as failure:
                logger.warning("the write-ahead log stays beside the database: %s", failure)
        self._db.close()
        self._unlock()

    @property
    def epoch(self) -> str:
        """Made when the file was; see the port."""
        return self._epoch

    # Opening

    def _open(self) -> sqlite3.Connection:
        if not self._memory:
            file = Path(self._path)
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(f"store: cannot make the folder {file.parent}: {error.strerror}") from error
            if file.is_dir():
                raise ValueError(f"store: expected a file at {self._path}, found a folder")
            self._lock = _lock(file)
        db = self._connect()
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, cached_statements=256)

    def _prepare(self, db: sqlite3.Connection) -> None:
        scripts = sorted(
            (int(file.name[7:11]), file.read_text(encoding="utf-8"))
            for file in files("hubbub.store").iterdir()
            if file.name.startswith("sqlite_") and file.name.endswith(".sql")
        )
        found = db.execute("PRAGMA user_version").fetchone()[0]
        newest = scripts[-1][0]
        if found > newest:
            raise ValueError(
                f"store: {self._path} is of version {found}, this Hubbub knows versions up to {newest}: "
                "run the newer Hubbub that made it, or choose another file"
            )
        if not self._memory:
            db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = FAST")
        db.execute("PRAGMA wal_autocheckpoint = 4000")
        db.execute("PRAGMA cache_size = -32000")
        for version, script in scripts:
            if version > found:
                db.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {version}; COMMIT;")
        db.execute("BEGIN IMMEDIATE")  # whoever cannot write shall say so now
        db.execute("INSERT INTO meta VALUES ('epoch', ?) ON CONFLICT DO NOTHING", (secrets.token_hex(8),))
        db.execute("COMMIT")
        self._epoch = db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0]

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # The writer's thread

    def _write_all(self) -> None:
        rooms: dict[str, _Room] = {}
        sweeping = self._sweep() if self._retain_entries or self._retain_days else None
        next_sweep = time.monotonic()
        ended = False
        while not ended:
            wait_s = None if sweeping is None else max(0.0, next_sweep - time.monotonic())
            works: list[tuple[Work, asyncio.Future[Any]]] = []
            try:
                item = self._queue.get(timeout=wait_s)
                while True:
                    if item is None:
                        ended = True
                        break
                    works.append(item)
                    if len(works) == MAX_BATCH:
                        break
                    item = self._queue.get_nowait()
            except queue.Empty:
                pass
            if works:
                self._commit(rooms, works)
            elif sweeping is not None and not ended:
                more = self._commit(rooms, [(sweeping, None)])
                next_sweep = time.monotonic() + (0.0 if more else self._sweep_s)
            if len(rooms) > 100_000:
                rooms.clear()

    def _commit(self, rooms: dict[str, _Room], works: Sequence[tuple[Work, asyncio.Future[Any] | None]]) -> Any:
        """Do all of it in one transaction and tell the loop; returns what the last work returned."""
        batch = _Batch(self._db, rooms)
        outcomes: list[tuple[asyncio.Future[Any] | None, Any, HubbubError | None]] = []
        result: Any = None
        try:
            self._db.execute("BEGIN IMMEDIATE")
            _find_sent(batch, works)
            for work, future in works:
                try:
                    result = work(batch)
                except HubbubError as refused:
                    outcomes.append((future, None, refused))
                else:
                    outcomes.append((future, result, None))
            batch.finish()
            self._db.execute("COMMIT")
        except Exception as error:
            rooms.clear()
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error):
                logger.exception("a defect in the store's writer")
            elif not self._failing:
                logger.error("cannot write to %s: %s", self._path, error)
            self._failing = True
            outcomes = [(future, None, Unavailable(retry_after_ms=1_000)) for _, future in works]
            batch = _Batch(self._db, rooms)
            result = None
        else:
            if self._failing:
                logger.warning("writing to %s works again", self._path)
            self._failing = False
        seen = {room.id: room.seen() for room in batch.dirty.values()}
        try:
            self._loop.call_soon_threadsafe(self._settle, outcomes, seen, batch)
        except RuntimeError:  # the loop has ended; nobody is left to be told
            logger.warning("the event loop ended before %d writes were answered", len(outcomes))
        return result

    def _settle(
        self,
        outcomes: list[tuple[asyncio.Future[Any] | None, Any, HubbubError | None]],
        seen: dict[str, Room | None],
        batch: _Batch,
    ) -> None:
        """On the loop: what was written is known first, then its writers are told, in order."""
        for room_id, room in seen.items():
            self._rooms.put(room_id, room)
        for member, state in batch.members.items():
            self._members.put(member, state)
        for user_id, user in batch.users.items():
            self._users.put(user_id, user)
        for future, result, error in outcomes:
            if future is None:
                continue
            self._pending -= 1
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def _submit(self, work: Work) -> asyncio.Future[Any]:
        if self._closing:
            raise Unavailable("The chat is shutting down.")
        if self._pending >= self._max_pending:
            raise Unavailable("Too many writes are waiting; try again.", retry_after_ms=500)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending += 1
        self._queue.put((work, future))
        return future

    async def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query beside the writer; in memory there is one connection, so the writer runs it."""
        if self._memory:

            def work(batch: _Batch) -> T:
                batch.finish()
                return query(batch.db)

            return await self._submit(work)  # type: ignore[no-any-return]
        try:
            return await self._loop.run_in_executor(self._readers, query, self._reader)
        except sqlite3.Error as error:
            logger.error("cannot read %s: %s", self._path, error)
            raise Unavailable from error

    async def _cached(self, cache: _Cache[T], key: Any, query: Callable[[sqlite3.Connection], T]) -> T:
        token = cache.begin(key)
        try:
            value = await self._read(query)
        except BaseException:
            cache.fail(key, token)
            raise
        cache.end(key, token, value)
        return value

    # The port: rooms

    async def ping(self) -> None:
        """Write a word; see the port."""
        word = str(time.time_ns())

        def work(batch: _Batch) -> None:
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

        def work(batch: _Batch) -> Room:
            made = batch.room(room)
            if made is not None and not made.deleted:
                if exist_ok:
                    return made.seen()  # type: ignore[return-value]  # it is not deleted
                raise Conflict(f"The room {room!r} exists already.")
            if len(members) > self._max_members:
                raise Conflict(f"A room has at most {self._max_members} members.")
            for member in members:
                self._check_rooms_of(batch, member.user)
            if made is None:
                row = batch.db.execute(
                    f"INSERT INTO rooms (id, kind, name, created_at) VALUES (?, ?, ?, ?) RETURNING {_ROOM}",  # noqa: S608
                    (room, kind, name, at),
                ).fetchone()
                made = batch.rooms[room] = _Room(row)
            else:
                made.deleted, made.kind, made.name, made.created_at = 0, kind.value, name, at
                made.first = made.head + 1
            batch.add(made, RoomUpdated(room=room, id=new_ulid(at), at=at, by=by, room_name=name, kind=kind))
            for member in members:
                joined = MemberJoined(room=room, id=new_ulid(at), at=at, by=by, user=member.user, role=member.role)
                batch.add(made, joined)
                self._enter(batch, made, member.user, member.role, at)
            return made.seen()  # type: ignore[return-value]  # it is not deleted

        return await self._submit(work)  # type: ignore[no-any-return]

    async def delete_room(self, room: RoomId) -> bool:
        """Remove it; see the port."""

        def work(batch: _Batch) -> bool:
            known = batch.room(room)
            if known is None or known.deleted:
                return False
            batch.flush()
            low, high = known.no << SEQ_BITS, (known.no + 1) << SEQ_BITS
            for (user,) in batch.db.execute("SELECT user FROM members WHERE room = ?", (known.no,)):
                batch.members[room, user] = None
            batch.db.execute("DELETE FROM entries WHERE key >= ? AND key < ?", (low, high))
            for table in ("members", "reactions", "reads"):
                batch.db.execute(f"DELETE FROM {table} WHERE room = ?", (known.no,))  # noqa: S608
            batch.marks = {key: mark for key, mark in batch.marks.items() if key[1] != known.no}
            batch.sent = {key: entry for key, entry in batch.sent.items() if key[0] != known.no}
            known.deleted, known.members, known.dropped = 1, 0, known.messages
            batch.dirty[known.no] = known
            return True

        return await self._submit(work)  # type: ignore[no-any-return]

    async def room(self, room: RoomId) -> Room | None:
        """The room; see the port."""
        known, value = self._rooms.get(room)
        if known:
            return value

        def query(db: sqlite3.Connection) -> Room | None:
            row = db.execute(f"SELECT {_ROOM} FROM rooms WHERE id = ?", (room,)).fetchone()  # noqa: S608
            return None if row is None else _Room(row).seen()

        return await self._cached(self._rooms, room, query)

    async def rooms(
        self, *, after: str = "", limit: int = 100, kind: RoomKind | None = None
    ) -> tuple[list[Room], bool]:
        """Rooms by id; see the port."""

        def query(db: sqlite3.Connection) -> tuple[list[Room], bool]:
            rows = db.execute(
                f"SELECT {_ROOM} FROM rooms WHERE id > ? AND NOT deleted AND (? IS NULL OR kind = ?)"  # noqa: S608
                " ORDER BY id LIMIT ?",
                (after, kind, kind, limit + 1),
            ).fetchall()
            seen = [_Room(row).seen() for row in rows[:limit]]
            return [room for room in seen if room is not None], len(rows) > limit

        return await self._read(query)

    async def rooms_of(self, user: UserId, also: Sequence[RoomId] = ()) -> list[RoomState]:
        """The user's rooms; see the port."""
        # fmt: off
        columns = (
            "SELECT r.id, r.kind, r.name, m.role, r.head, coalesce(d.seq, 0),"
            " max(0, r.messages - max(coalesce(d.messages, 0), r.dropped))"
        )
        # fmt: on

        def query(db: sqlite3.Connection) -> list[RoomState]:
            rows = db.execute(
                f"{columns} FROM members m JOIN rooms r ON r.no = m.room"
                " LEFT JOIN reads d ON d.user = m.user AND d.room = m.room WHERE m.user = ?",
                (user,),
            ).fetchall()
            mine = {row[0] for row in rows}
            others = [room for room in dict.fromkeys(also) if room not in mine]
            for start in range(0, len(others), 500):
                some = others[start : start + 500]
                rows += db.execute(
                    f"{columns} FROM rooms r LEFT JOIN members m ON m.room = r.no AND m.user = ?"
                    " LEFT JOIN reads d ON d.user = ? AND d.room = r.no"
                    f" WHERE NOT r.deleted AND r.id IN ({','.join('?' * len(some))})",
                    (user, user, *some),
                ).fetchall()
            return [
                RoomState(RoomId(room), RoomKind(kind), name, Role(role or Role.READER), head, read, unread)
                for room, kind, name, role, head, read, unread in sorted(rows)
            ]

        return await self._read(query)

    # The port: the log

    async def append(self, entry: Entry) -> Entry:
        """Write it; see the port."""
        return await self._submit(_Append(entry, self))  # type: ignore[no-any-return]

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

        def query(db: sqlite3.Connection) -> Page:
            db.execute("BEGIN")  # one snapshot for all of it
            try:
                return _page(db, room, before, after, around, limit, thread, changes)
            finally:
                db.execute("COMMIT")

        def within(db: sqlite3.Connection) -> Page:
            return _page(db, room, before, after, around, limit, thread, changes)

        return await self._read(within if self._memory else query)

    # The port: members, marks, users

    async def member(self, room: RoomId, user: UserId) -> Member | None:
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

        def work(batch: _Batch) -> int:
            known = batch.living(room)
            goal: int = min(seq, known.head)
            noted = batch.marks.get((user, known.no))
            row = batch.db.execute("SELECT seq FROM reads WHERE user = ? AND room = ?", (user, known.no)).fetchone()
            mark = max(noted[0] if noted else 0, int(row[0]) if row else 0)
            if goal <= mark:
                return mark
            batch.marks[user, known.no] = (goal, self._ordinal(batch, known, goal))
            return goal

        return await self._submit(work)  # type: ignore[no-any-return]

    async def user(self, user: UserId) -> User | None:
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

    async def put_user(self, user: User) -> None:
        """Remember; see the port."""

        def work(batch: _Batch) -> None:
            batch.db.execute(
                "INSERT OR REPLACE INTO users VALUES (?, ?, ?, ?, ?)",
                (user.user, user.name, user.avatar, user.revoked_before, user.banned_until),
            )
            batch.users[user.user] = user

        await self._submit(work)

    # What entries do

    def written(self, batch: _Batch, entry: Entry) -> Entry:
        """Append one entry with what it says; runs in the writer."""
        room = batch.living(entry.room)
        match entry:
            case MessageCreated():
                if entry.client_id is not None:
                    first = batch.sent.get((room.no, entry.by, entry.client_id))
                    if first is not None:
                        return first
                for seq in (entry.reply_to, entry.thread):
                    if seq is not None:
                        batch.message(room, seq)
            case MessageEdited():
                if batch.message(room, entry.target).deleted:
                    raise Conflict("The message has been deleted.")
            case MessageDeleted():
                self._redact(batch, room, entry.target)
            case ReactionAdded() | ReactionRemoved():
                if not self._reacted(batch, room, entry):
                    return entry
            case MemberJoined() | MemberLeft() | MemberUpdated():
                if not self._membership(batch, room, entry):
                    return entry
            case RoomUpdated():
                room.name = room.name if entry.room_name is None else entry.room_name
                room.kind = room.kind if entry.kind is None else entry.kind.value
        return batch.add(room, entry)

    @staticmethod
    def _redact(batch: _Batch, room: _Room, target: int) -> None:
        message = batch.message(room, target)
        if message.deleted:
            raise Conflict("The message has been deleted.")
        message.text, message.data, message.deleted = None, msgspec.UNSET, True
        batch.replace(room, message)
        rows = batch.db.execute("SELECT body FROM entries WHERE room = ? AND target = ?", (room.no, target)).fetchall()
        for (body,) in rows:
            edit = entry_decoder.decode(body)
            if isinstance(edit, MessageEdited):
                edit.text, edit.data, edit.deleted = None, msgspec.UNSET, True
                batch.replace(room, edit)

    @staticmethod
    def _reacted(batch: _Batch, room: _Room, entry: ReactionAdded | ReactionRemoved) -> bool:
        """Change the reactions; False when there is nothing to change."""
        if batch.message(room, entry.target).deleted:
            raise Conflict("The message has been deleted.")
        key = (room.no, entry.target, entry.by, entry.reaction)
        if isinstance(entry, ReactionAdded):
            done = batch.db.execute("INSERT OR IGNORE INTO reactions VALUES (?, ?, ?, ?)", key)
        else:
            done = batch.db.execute(
                "DELETE FROM reactions WHERE room = ? AND target = ? AND author = ? AND reaction = ?", key
            )
        return done.rowcount > 0

    def _membership(self, batch: _Batch, room: _Room, entry: MemberJoined | MemberLeft | MemberUpdated) -> bool:
        """Change the membership; False when there is nothing to change."""
        role = batch.role(room, entry.user)
        if isinstance(entry, MemberLeft):
            if role is None:
                return False
            batch.db.execute("DELETE FROM members WHERE room = ? AND user = ?", (room.no, entry.user))
            batch.members[room.id, entry.user] = None
            room.members -= 1
            batch.dirty[room.no] = room
            return True
        if role == entry.role:
            return False
        if isinstance(entry, MemberUpdated) and role is None:
            raise NotFound(f"{entry.user!r} is not a member of this room.")
        if role is None:
            if room.members >= self._max_members:
                raise Conflict(f"A room has at most {self._max_members} members.")
            self._check_rooms_of(batch, entry.user)
        self._enter(batch, room, entry.user, entry.role, entry.at)
        return True

    def _check_rooms_of(self, batch: _Batch, user: str) -> None:
        count = batch.db.execute("SELECT count(*) FROM members WHERE user = ?", (user,)).fetchone()[0]
        if count >= self._max_rooms:
            raise Conflict(f"A user is in at most {self._max_rooms} rooms.")

    @staticmethod
    def _enter(batch: _Batch, room: _Room, user: UserId, role: Role, at: int) -> None:
        added = batch.role(room, user) is None
        batch.db.execute(
            "INSERT INTO members VALUES (?, ?, ?, ?) ON CONFLICT (room, user) DO UPDATE SET role = excluded.role",
            (room.no, user, role, at),
        )
        room.members += added
        batch.dirty[room.no] = room
        batch.members[room.id, user] = Member(user, role, at)

    @staticmethod
    def _ordinal(batch: _Batch, room: _Room, seq: int) -> int:
        """How many messages the room has up to `seq`."""
        if seq >= room.head:
            return int(room.messages)
        batch.flush()
        row = batch.db.execute("SELECT messages FROM entries WHERE key = ?", (room.no << SEQ_BITS | seq,)).fetchone()
        return int(row[0]) if row else int(room.dropped)

    # Retention

    def _sweep(self) -> Work:
        """A work that removes some of what need not be kept, and says whether there is more."""
        pending: list[Iterator[str]] = []

        def work(batch: _Batch) -> bool:
            if not pending:
                rows = batch.db.execute("SELECT id FROM rooms WHERE NOT deleted AND first <= head").fetchall()
                pending.append(iter([row[0] for row in rows]))
            for room_id in pending[0]:
                room = batch.living(room_id)
                if self._shorten(batch, room):
                    pending[0] = _again(room_id, pending[0])
                    return True
            pending.clear()
            return False

        return work

    def _shorten(self, batch: _Batch, room: _Room) -> bool:
        """Remove up to `SWEEP` entries from the room's low end; False when none is due."""
        upto = min(room.first + SWEEP - 1, room.head)
        kept_from = 1 if self._retain_entries is None else room.head - self._retain_entries + 1
        if self._retain_days is not None:
            cutoff = int((time.time() - self._retain_days * 86_400) * 1_000)
            young = batch.db.execute(
                "SELECT min(key) FROM entries WHERE key >= ? AND key <= ? AND at >= ?",
                (room.no << SEQ_BITS | room.first, room.no << SEQ_BITS | upto, cutoff),
            ).fetchone()[0]
            old_until = upto if young is None else (young & ((1 << SEQ_BITS) - 1)) - 1
            kept_from = max(kept_from, old_until + 1)
        last = min(upto, kept_from - 1)
        if last < room.first:
            return False
        low, high = room.no << SEQ_BITS | room.first, room.no << SEQ_BITS | last
        row = batch.db.execute("SELECT messages FROM entries WHERE key = ?", (high,)).fetchone()
        batch.db.execute("DELETE FROM entries WHERE key >= ? AND key <= ?", (low, high))
        batch.db.execute(
            "DELETE FROM reactions WHERE room = ? AND target >= ? AND target <= ?", (room.no, room.first, last)
        )
        room.first, room.dropped = last + 1, row[0] if row else room.dropped
        batch.dirty[room.no] = room
        return True


class _Append:
    """An append waiting to be written; a class, so that the writer can look at what waits before it begins."""

    __slots__ = ("_store", "entry")

    def __init__(self, entry: Entry, store: SqliteStore) -> None:
        self.entry = entry
        self._store = store

    def __call__(self, batch: _Batch) -> Entry:
        return self._store.written(batch, self.entry)


def _find_sent(batch: _Batch, works: Sequence[tuple[Work, Any]]) -> None:
    """Look up, in few statements, which of the waiting messages are there already."""
    keys: list[tuple[Any, ...]] = []
    for work, _ in works:
        if isinstance(work, _Append):
            entry = work.entry
            if isinstance(entry, MessageCreated) and entry.client_id is not None:
                room = batch.room(entry.room)
                if room is not None:
                    keys.append((room.no, entry.by, entry.client_id))
    start = 0
    for size in _CHUNKS:
        while len(keys) - start >= size:
            rows = batch.db.execute(
                "SELECT e.room, e.author, e.client_id, e.body FROM (VALUES "  # noqa: S608
                + ",".join(["(?,?,?)"] * size)
                + ") k JOIN entries e ON e.room = k.column1 AND e.author = k.column2 AND e.client_id = k.column3"
                " WHERE e.client_id IS NOT NULL",
                [value for key in keys[start : start + size] for value in key],
            ).fetchall()
            for room_no, author, client_id, body in rows:
                batch.sent[room_no, author, client_id] = entry_decoder.decode(body)
            start += size


def _page(
    db: sqlite3.Connection,
    room_id: str,
    before: int | None,
    after: int | None,
    around: int | None,
    limit: int,
    thread: int | None,
    changes: bool,
) -> Page:
    row = db.execute(f"SELECT {_ROOM} FROM rooms WHERE id = ? AND NOT deleted", (room_id,)).fetchone()  # noqa: S608
    if row is None:
        raise NotFound(f"There is no room {room_id!r}.")
    room = _Room(row)
    base, top = room.no << SEQ_BITS, (1 << SEQ_BITS) - 1

    def stretch(low: int, high: int, count: int, *, last: bool) -> list[bytes]:
        """The first or last `count` entries with low <= seq <= high, ascending."""
        keys = (base | max(low, 0), base | min(high, top))
        order = "DESC" if last else "ASC"
        if low > high:
            return []
        if thread is None:
            found = db.execute(
                f"SELECT body FROM entries WHERE key >= ? AND key <= ? ORDER BY key {order} LIMIT ?",  # noqa: S608
                (*keys, count),
            )
        else:
            found = db.execute(
                "SELECT body FROM (SELECT key, body FROM entries"  # noqa: S608
                " WHERE room = ? AND thread = ? AND key >= ? AND key <= ?"
                " UNION SELECT key, body FROM entries WHERE key = ? AND key >= ? AND key <= ?)"
                f" ORDER BY key {order} LIMIT ?",
                (room.no, thread, *keys, base | min(thread, top), *keys, count),
            )
        bodies = [body for (body,) in found]
        return bodies[::-1] if last else bodies

    if around is not None:
        earlier = stretch(0, around - 1, limit, last=True)
        later = stretch(around, top, limit, last=False)
        later_count = min(len(later), limit - min(len(earlier), limit // 2))
        earlier_count = min(len(earlier), limit - later_count)
        bodies = earlier[len(earlier) - earlier_count :] + later[:later_count]
        has_more = earlier_count < len(earlier) or later_count < len(later) or earlier_count == limit
        has_more = has_more or bool(bodies and len(bodies) == limit and _beyond(stretch, bodies))
    elif after is not None:
        bodies = stretch(after + 1, top, limit + 1, last=False)
        has_more = len(bodies) > limit
        bodies = bodies[:limit]
    else:
        bodies = stretch(0, top if before is None else before - 1, limit + 1, last=True)
        has_more = len(bodies) > limit
        bodies = bodies[-limit:]
    entries = [entry_decoder.decode(body) for body in bodies]
    later_changes: list[AnyEntry] = []
    if changes and entries:
        here = {entry.seq for entry in entries}
        found = db.execute(
            "SELECT body FROM entries WHERE room = ? AND target >= ? AND target <= ? AND key > ? LIMIT ?",
            (room.no, entries[0].seq, entries[-1].seq, base | entries[0].seq, MAX_CHANGES + len(entries)),
        )
        for (body,) in found:
            change = entry_decoder.decode(body)
            if change.seq not in here and getattr(change, "target", None) in here:
                later_changes.append(change)
        later_changes.sort(key=lambda change: change.seq)
    return Page(entries, room.head, has_more, later_changes[:MAX_CHANGES])


def _beyond(stretch: Callable[..., list[bytes]], bodies: list[bytes]) -> bool:
    """Whether there is anything before or after a full page."""
    first, last = entry_decoder.decode(bodies[0]).seq, entry_decoder.decode(bodies[-1]).seq
    return bool(stretch(0, first - 1, 1, last=True) or stretch(last + 1, (1 << SEQ_BITS) - 1, 1, last=False))


def _again(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _lock(file: Path) -> int:
    """Hold `file` for this process; the kernel lets go of it however the process ends.

    Raises:
        ValueError: another process holds it, or its folder cannot be written.

    """
    path = file.with_name(f"{file.name}.lock")
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ValueError(f"store: cannot write in {file.parent}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock, 32).decode(errors="replace").strip()
        os.close(lock)
        raise ValueError(
            f"store: {file} is in use by process {holder or 'unknown'}; one Hubbub at a time writes to a SQLite file"
        ) from error
    os.ftruncate(lock, 0)
    os.write(lock, b"%d\n" % os.getpid())
    return lock


_WHY_NOT_OPEN = {
    sqlite3.SQLITE_NOTADB: "is not a SQLite database",
    sqlite3.SQLITE_READONLY: "cannot be written: make the file and its folder writable",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: look at its path and permissions",
    sqlite3.SQLITE_FULL: "cannot be written: the disk is full",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore it from a backup",
    sqlite3.SQLITE_BUSY: "is in use by another program",
    sqlite3.SQLITE_PERM: "cannot be opened: look at its permissions",
}


def _why_not_open(path: str, error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return f"store: {path} {_WHY_NOT_OPEN.get(code, 'cannot be opened')} ({error})"
