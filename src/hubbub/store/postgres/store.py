"""The `Store` port on PostgreSQL: what is asked becomes a work for the writer or a query for the reader."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Hashable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, cast

from msgspec import UNSET, UnsetType

from hubbub.clock import Clock, SystemClock
from hubbub.errors import Unavailable
from hubbub.model import (
    AnyEntry,
    Entry,
    Member,
    MessageCreated,
    Page,
    Room,
    RoomId,
    RoomKind,
    RoomState,
    User,
    UserId,
    new_ulid,
)
from hubbub.ports import Store
from hubbub.store.postgres import deeds, finding
from hubbub.store.postgres.address import Address, Options, split_options
from hubbub.store.postgres.lane import Work
from hubbub.store.postgres.link import Link
from hubbub.store.postgres.lookups import Lookup
from hubbub.store.postgres.marks import Mark
from hubbub.store.postgres.messages import Message
from hubbub.store.postgres.opening import open_database
from hubbub.store.postgres.pages import read_page
from hubbub.store.postgres.proof import Ping
from hubbub.store.postgres.reader import Query, Reader, T
from hubbub.store.postgres.retention import Retention
from hubbub.store.postgres.transaction import Limits, Transaction
from hubbub.store.postgres.writer import Writer


class PostgresStore(Store):
    """The `Store` port on a PostgreSQL server, which any number of nodes share.

    An append returns when the server has committed it with `synchronous_commit` on. While the server is away, callers
    wait for it, as long as their patience lasts.

    Args:
        url: `postgresql://user:password@host:port,host:port/database?…`; see docs/reference/postgresql.md for the
            parameters.
        retain_entries, retain_days: what is kept of a room's log; None for all.
        max_members: members of one room.
        max_rooms: rooms of one user.
        max_pending: writes, and reads, that may wait at once; more are refused with `Unavailable`.
        sweep_s: how often retention looks for what is too old, in seconds.
        keep_s: how long a membership or a user is remembered; what another node changes is seen as late as that.
        clock: time.
        options: what the URL could say and does not, as the fields of `Options`.

    Raises:
        ValueError: the URL, or an option, is none.

    Raises, on entering:
        ValueError: the database cannot be used: the server refuses us, or the tables are from a newer version; the
            message says which and what to do.
        Unavailable: the server did not answer in time.

    """

    def __init__(
        self,
        url: str,
        *,
        retain_entries: int | None = None,
        retain_days: float | None = None,
        max_members: int = 10_000,
        max_rooms: int = 1_000,
        max_pending: int = 10_000,
        sweep_s: float = 60.0,
        keep_s: float = 1.0,
        clock: Clock | None = None,
        **options: Any,  # Any: see `Options`
    ) -> None:
        bare, given = split_options(url)
        self._address = Address(bare, Options(**{**options, **given}))
        self._clock = clock or SystemClock()
        self._limits = Limits(max_members, max_rooms)
        self._retained = retain_entries, retain_days, sweep_s
        self._max_pending = max_pending
        self._keep_s = keep_s
        self._is_closing = False
        self._epoch = ""

    def __repr__(self) -> str:
        return f"<PostgresStore {self._address.shown}>"

    async def __aenter__(self) -> PostgresStore:
        self._sweeper = link = Link(self._address)
        try:
            self._epoch = await open_database(link, self._address, self._clock)
        except BaseException:
            await link.close()
            raise
        self._reader = Reader(self._address, self._clock, max_pending=self._max_pending)
        self._writer = Writer(
            self._address, self._clock, self._limits, learn=self._learn, max_pending=self._max_pending
        )
        entries, days, every_s = self._retained
        retention = Retention(link, self._address, self._clock, entries=entries, days=days, every_s=every_s)
        self._sweeping = asyncio.create_task(retention.run())
        self._rooms: Lookup[RoomId, Room] = Lookup(self._reader, finding.rooms, self._clock)
        self._states: Lookup[finding.Asker, list[RoomState]] = Lookup(
            self._reader, finding.states, self._clock, most=50
        )
        # One who has joined by another node is not to be told that he has not.
        self._members: Lookup[tuple[RoomId, UserId], Member] = Lookup(
            self._reader, finding.members, self._clock, keep_s=self._keep_s, keep_missing=False
        )
        self._users: Lookup[UserId, User] = Lookup(self._reader, finding.users, self._clock, keep_s=self._keep_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closing = True
        self._sweeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._sweeping
        await self._sweeper.close()
        await self._writer.close()
        await self._reader.close()

    @property
    def epoch(self) -> str:
        """Made when the tables were; see the port."""
        return self._epoch

    # Writing and reading

    def _submit(self, work: Work) -> asyncio.Future[Any]:
        self._refuse_when_closing()
        return self._writer.submit(work)

    def _refuse_when_closing(self) -> None:
        if self._is_closing:
            raise Unavailable("The chat is shutting down.")

    def _learn(self, transaction: Transaction, began: float) -> None:
        """What a transaction has changed is known before anybody is told that it was written.

        Its answer may have come late, and others have changed more since: so it is as old as its beginning.
        """
        for key, member in transaction.members.items():
            self._members.learn(key, member, began)
        for user_id, user in transaction.users.items():
            self._users.learn(user_id, user, began)

    async def _read(self, query: Query[T]) -> T:
        self._refuse_when_closing()
        return await self._reader.ask(query)

    async def _read_shared(self, key: Hashable, query: Query[T]) -> T:
        self._refuse_when_closing()
        return await self._reader.shared(key, query)

    # The port: rooms

    async def ping(self) -> None:
        """Write a word; see the port."""
        await self._submit(Ping(str(self._clock.now_ms())))

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
        deed = deeds.CreateRoom(room, kind, name=name, by=by, at=at, members=members, exist_ok=exist_ok)
        return await self._submit(deed)  # type: ignore[no-any-return]  # what the deed returns

    async def delete_room(self, room: RoomId) -> bool:
        """Remove it; see the port."""
        return await self._submit(deeds.DeleteRoom(room))  # type: ignore[no-any-return]  # what the deed returns

    async def room(self, room: RoomId) -> Room | None:
        """The room; see the port."""
        self._refuse_when_closing()
        return await self._rooms.get(room)

    async def rooms(
        self, *, after: str = "", limit: int = 100, kind: RoomKind | None = None
    ) -> tuple[list[Room], bool]:
        """Rooms by id; see the port."""
        return await self._read(partial(finding.rooms_after, after=after, limit=limit, kind=kind))

    async def rooms_of(self, user: UserId, also: Sequence[RoomId] = ()) -> list[RoomState]:
        """The user's rooms; see the port."""
        self._refuse_when_closing()
        return await self._states.get((user, tuple(also))) or []

    async def heads(self, rooms: Sequence[RoomId]) -> dict[RoomId, int]:
        """The last seq of each; see the port."""
        return await self._read(partial(finding.heads, rooms=rooms))

    # The port: the log

    async def append(self, entry: Entry) -> Entry:
        """Write it; see the port."""
        entry.seq = 0
        work: Work
        if isinstance(entry, MessageCreated):
            work = Message(entry, new_ulid(entry.at) if entry.client_id is None else f"={entry.client_id}")
        else:
            work = deeds.Append(cast("AnyEntry", entry), new_ulid(entry.at))  # every entry is of one of its classes
        return await self._submit(work)  # type: ignore[no-any-return]  # what the work returns

    async def entry(self, room: RoomId, seq: int) -> Entry | None:
        """One entry; see the port."""
        return await self._read_shared(("entry", room, seq), partial(finding.entry, room=room, seq=seq))

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
        query = partial(
            read_page,
            room=room,
            before=before,
            after=after,
            around=around,
            limit=limit,
            thread=thread,
            changes=changes,
        )
        return await self._read_shared(("page", room, before, after, around, limit, thread, changes), query)

    # The port: members, marks, users

    async def member(self, room: RoomId, user: UserId, *, recent: bool = False) -> Member | None:
        """The membership; see the port."""
        self._refuse_when_closing()
        return await self._members.get((room, user), recent=recent)

    async def members(self, room: RoomId, *, after: str = "", limit: int = 100) -> tuple[list[Member], int, bool]:
        """Members by user id; see the port."""
        query = partial(finding.members_after, room=room, after=after, limit=limit)
        return await self._read_shared(("members", room, after, limit), query)

    async def mark_read(self, room: RoomId, user: UserId, seq: int) -> int:
        """Move the mark; see the port."""
        return await self._submit(Mark(room, user, seq))  # type: ignore[no-any-return]  # what the work returns

    async def user(self, user: UserId, *, recent: bool = False) -> User | None:
        """What is remembered; see the port."""
        self._refuse_when_closing()
        return await self._users.get(user, recent=recent)

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
        return await self._submit(deeds.ChangeUser(user, given))  # type: ignore[no-any-return]  # what the deed returns
