"""The `Store` port on one DynamoDB table: what is asked becomes a write in a room's line, or is read where it lies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any

from msgspec import UNSET, UnsetType

from hubbub.aws.marshalling import Item
from hubbub.aws.table import Table
from hubbub.clock import Clock, SystemClock
from hubbub.errors import HubbubError, NotFound, Unavailable
from hubbub.model import Entry, Member, Page, Room, RoomId, RoomKind, RoomState, User, UserId
from hubbub.ports import Store
from hubbub.store.dynamodb import keys, rooms, seats
from hubbub.store.dynamodb.appending import Logs
from hubbub.store.dynamodb.drafts import check_size
from hubbub.store.dynamodb.effects import Limits
from hubbub.store.dynamodb.failures import translating
from hubbub.store.dynamodb.items import number
from hubbub.store.dynamodb.opening import read_epoch
from hubbub.store.dynamodb.pages import Reader, read_one
from hubbub.store.dynamodb.retention import Retention
from hubbub.store.dynamodb.tails import read_tail, read_tails

logger = logging.getLogger("hubbub.store")

MOST_NOTED = 10_000
"""How many rooms that were written to are remembered for the next sweep."""


class DynamoStore(Store):
    """The `Store` port on a DynamoDB table with keys `pk` and `sk` (both strings) and the TTL attribute `ttl`.

    Many processes may use one table at the same time. All reads are strongly consistent.

    Args:
        table: gives the table and closes what it needs; `contextlib.nullcontext(table)` for one that is open anyway.
        retain_entries, retain_days: what is kept of a room's log; None for all.
        max_members: members of one room.
        max_rooms: rooms of one user.
        max_pending: writes that may wait at once; more are refused with `Unavailable`.
        sent_days: for how many days a `client_id` is known, while its entry is kept.
        sweep_s: how often what is too old is removed, in seconds; None where somebody else calls `sweep`.
        patience_s: how long a write is tried again when others are in its way.
        clock: time; this machine's by default.

    Raises, on entering:
        ValueError: there is no such table, or it has other keys; the message says how to make it.
        Unavailable: DynamoDB does not answer.

    """

    def __init__(
        self,
        table: AbstractAsyncContextManager[Table],
        *,
        retain_entries: int | None = None,
        retain_days: float | None = None,
        max_members: int = 10_000,
        max_rooms: int = 1_000,
        max_pending: int = 10_000,
        sent_days: float = 7.0,
        sweep_s: float | None = None,
        patience_s: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        self._opening = table
        self._retain_entries = retain_entries
        self._retain_days = retain_days
        self._limits = Limits(max_members, max_rooms, sent_days)
        self._max_pending = max_pending
        self._sweep_s = sweep_s
        self._patience_s = patience_s
        self._clock = clock or SystemClock()
        self._closing = False
        self._stack = AsyncExitStack()
        self._written: set[RoomId] = set()  # rooms that this process has written to since it last swept them
        self._epoch = ""

    def __repr__(self) -> str:
        return f"<DynamoStore {getattr(self, '_table', 'not open')}>"

    async def __aenter__(self) -> DynamoStore:
        async with AsyncExitStack() as stack:
            self._table = await stack.enter_async_context(self._opening)
            self._epoch = await read_epoch(self._table)
            self._logs = Logs(
                self._table,
                self._limits,
                self._clock,
                patience_s=self._patience_s,
                max_pending=self._max_pending,
                wrote=self._note,
            )
            self._retention = Retention(self._table, self._clock, entries=self._retain_entries, days=self._retain_days)
            stack.push_async_callback(self._finish)
            if self._sweep_s is not None:
                sweeping = asyncio.create_task(self._keep_sweeping(self._sweep_s), name="hubbub-sweep")
                stack.push_async_callback(_end, sweeping)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        await self._stack.aclose()

    async def _finish(self) -> None:
        await self._logs.finish()

    @property
    def epoch(self) -> str:
        """Made when the table was first used; see the port."""
        return self._epoch

    @property
    def table(self) -> Table:
        """The table, once it is open; with `used`, what its calls have cost."""
        return self._table

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise Unavailable("The chat is shutting down.")

    async def _in_turn(self, room: RoomId, deed: Any) -> Any:  # Any: as `Logs.do`
        self._refuse_when_closing()
        return await asyncio.shield(self._logs.do(room, deed))

    # What time removes

    def _note(self, room: RoomId) -> None:
        """Remember to look at the room; what is too much to remember the round finds."""
        if len(self._written) < MOST_NOTED:
            self._written.add(room)

    async def sweep(self, of: Iterable[RoomId] | None = None) -> bool:
        """Remove what is not kept any more: a step of it.

        Args:
            of: the rooms to look at; by default those that this process has written to, and the next ones of a round
                through all rooms, which everybody who sweeps shares.

        Returns:
            Whether there is more to be removed just now.

        """
        self._refuse_when_closing()
        chosen = set(self._written if of is None else of)
        self._written -= chosen
        try:
            with translating():
                more, more_left = await self._retention.sweep(chosen, go_round=of is None)
        except BaseException:
            self._written |= chosen
            raise
        for room in chosen:
            self._logs.forget(room)
        self._written |= more
        return bool(more) or more_left

    async def _keep_sweeping(self, every_s: float) -> None:
        while True:
            await self._clock.sleep(every_s)
            try:
                while await self.sweep():
                    logger.debug("there is more to be removed")
            except HubbubError as error:
                logger.warning("what is too old could not be removed: %s", error)
            except Exception:
                logger.exception("what is too old could not be removed")

    # The port: rooms

    async def ping(self) -> None:
        """Write the time; see the port."""
        self._refuse_when_closing()
        with translating():
            await self._table.update(
                keys.PING, "SET pinged_at = :now", values={"now": self._clock.now_ms()}, repeat=True
            )

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

        async def deed() -> Room:
            making = rooms.Making(
                self._table, self._limits, self._clock, room=room, kind=kind, name=name, by=by, at=at, members=members
            )
            try:
                return await making.done(exist_ok=exist_ok, patience_s=self._patience_s)
            finally:
                self._logs.forget(room)
                self._note(room)

        made: Room = await self._in_turn(room, deed)
        return made

    async def delete_room(self, room: RoomId) -> bool:
        """Remove it; see the port."""

        async def deed() -> bool:
            try:
                return await rooms.delete(self._table, self._clock, room, patience_s=self._patience_s)
            finally:
                self._logs.forget(room)

        deleted: bool = await self._in_turn(room, deed)
        return deleted

    async def room(self, room: RoomId) -> Room | None:
        """The room; see the port."""
        self._refuse_when_closing()
        with translating():
            try:
                tail = await read_tail(self._table, room)
            except NotFound:
                return None
        self._logs.saw(tail)
        return tail.room.seen(tail.place)

    async def heads(self, rooms: Sequence[RoomId]) -> dict[RoomId, int]:
        """Where their logs end; see the port."""
        self._refuse_when_closing()
        with translating():
            tails = await read_tails(self._table, rooms)
        return {room: tail.place.seq for room, tail in tails.items()}

    async def rooms(
        self, *, after: str = "", limit: int = 100, kind: RoomKind | None = None
    ) -> tuple[list[Room], bool]:
        """Rooms by id; see the port."""
        self._refuse_when_closing()
        with translating():
            return await rooms.list_rooms(self._table, after, limit, kind)

    async def rooms_of(self, user: UserId, also: Sequence[RoomId] = ()) -> list[RoomState]:
        """The user's rooms; see the port."""
        self._refuse_when_closing()
        with translating():
            return await seats.read_states(self._table, user, also)

    # The port: the log

    async def append(self, entry: Entry) -> Entry:
        """Write it; see the port.

        Raises:
            TooLarge: no item of the table can hold it.

        """
        self._refuse_when_closing()
        check_size(entry)
        return await asyncio.shield(self._logs.append(entry))

    async def entry(self, room: RoomId, seq: int) -> Entry | None:
        """One entry; see the port."""
        self._refuse_when_closing()
        with translating():
            return await read_one(self._table, room, seq)

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
        self._refuse_when_closing()
        reader = Reader(
            self._table,
            room,
            before=before,
            after=after,
            around=around,
            limit=limit,
            thread=thread,
            changes=changes,
        )
        with translating():
            return await reader.page()

    async def grown(self, known: Mapping[RoomId, int]) -> set[RoomId]:
        """Those of these rooms whose logs go on after the given seqs; a request for each hundred of them.

        Logs have no gaps, so the key of the next entry says it. For a fan-out, when somebody begins to listen.
        """
        self._refuse_when_closing()
        following = {keys.entry_key(room, seq + 1): room for room, seq in known.items()}
        with translating():
            found = await self._table.get_many(list(following), only=("pk",))
        return {following[key] for key in found}

    # The port: members, marks, users

    async def member(self, room: RoomId, user: UserId, *, recent: bool = False) -> Member | None:
        """The membership; see the port."""
        self._refuse_when_closing()
        with translating():
            return await seats.read_member(self._table, room, user)

    async def members(self, room: RoomId, *, after: str = "", limit: int = 100) -> tuple[list[Member], int, bool]:
        """Members by user id; see the port."""
        self._refuse_when_closing()
        with translating():
            return await seats.list_members(self._table, room, after, limit)

    async def mark_read(self, room: RoomId, user: UserId, seq: int) -> int:
        """Move the mark; see the port."""

        async def deed() -> int:
            return await seats.move_mark(self._table, room, user, seq)

        mark: int = await self._in_turn(room, deed)
        return mark

    async def user(self, user: UserId, *, recent: bool = False) -> User | None:
        """What is remembered; see the port."""
        self._refuse_when_closing()
        with translating():
            item = await self._table.get(keys.user_key(user))
        return None if item is None else _user(user, item)

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
        self._refuse_when_closing()
        changed = {"name": name, "avatar": avatar, "revoked_before": revoked_before, "banned_until": banned_until}
        given = {field: value for field, value in changed.items() if not isinstance(value, UnsetType)}
        # One that only asks makes the item too, as it does in every store.
        expression = "SET " + ", ".join(f"#{field} = :{field}" for field in given or {"known": True})
        with translating():
            item = await self._table.update(
                keys.user_key(user), expression, values=given or {"known": True}, returns="ALL_NEW", repeat=True
            )
        return _user(user, item)


def _user(user: UserId, item: Item) -> User:
    return User(
        user,
        seats.text(item, "name"),
        seats.text(item, "avatar"),
        number(item, "revoked_before"),
        number(item, "banned_until"),
    )


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
