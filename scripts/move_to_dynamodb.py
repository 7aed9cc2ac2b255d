"""Moves a chat from SQLite to a DynamoDB table: rooms, logs, members, read marks, and what is remembered of users.

    python scripts/move_to_dynamodb.py hubbub-data/hubbub.db TABLE --region eu-west-1

The server must be stopped. Every entry keeps its seq, time, author and id, but for a room's first, which gets another
id. What was moved before is found again, so a run that was broken off is run again. A room whose log does not begin
with seq 1, since retention has shortened it or it was deleted and made anew, is named and left.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from hubbub.errors import HubbubError
from hubbub.model import MAX_PAGE, Entry, MemberJoined, MessageCreated, MessageEdited, Room, RoomUpdated, UserId
from hubbub.ports import Store
from hubbub.store.dynamodb import DynamoStore, table_at
from hubbub.store.sqlite import SqliteStore

ROOMS_AT_ONCE = 32


class NotMoved(Exception):
    """A room cannot be moved; the message says why."""


class Moved(NamedTuple):
    """What came of a move: how many entries each room has there, and why others have not been moved."""

    rooms: dict[str, int]
    left: dict[str, str]
    users: int


async def move(source: Store, target: Store) -> Moved:
    """Move everything that `source` has to `target`."""
    moved: dict[str, int] = {}
    left: dict[str, str] = {}
    users: set[UserId] = set()
    turn = asyncio.Semaphore(ROOMS_AT_ONCE)

    async def one(room: Room) -> None:
        async with turn:
            try:
                users.update(await move_room(source, target, room))
                moved[room.id] = room.head
            except (NotMoved, HubbubError) as why:
                left[room.id] = str(why)

    async with asyncio.TaskGroup() as group:
        async for room in rooms_of(source):
            group.create_task(one(room))
    for user in sorted(users):
        await move_user(source, target, user)
    return Moved(moved, left, len(users))


async def rooms_of(source: Store) -> AsyncIterator[Room]:
    """All rooms, by id."""
    after, more = "", True
    while more:
        rooms, more = await source.rooms(after=after)
        for room in rooms:
            after = room.id
            yield room


async def move_room(source: Store, target: Store, room: Room) -> set[UserId]:
    """Move one room; returns who is, or was, in it.

    Raises:
        NotMoved: its log has lost its beginning, or another room has that id there.

    """
    if room.first != 1:
        raise NotMoved(f"its log begins with seq {room.first}, and would have to with 1")
    known = await target.room(room.id)
    if known is None:
        first = await source.entry(room.id, 1)
        if not isinstance(first, RoomUpdated) or first.kind is None:
            raise NotMoved("it was deleted and made anew, so its log does not begin with seq 1")
        name = first.room_name or ""
        known = await target.create_room(room.id, first.kind, name=name, by=first.by, at=first.at, members=())
    done = known.head
    await check_same(source, target, room, done)
    users: set[UserId] = set()
    after = 0
    while after < room.head:
        page = await source.page(room.id, after=after, limit=MAX_PAGE, changes=False)
        users |= {entry.by for entry in page.entries}
        users |= {entry.user for entry in page.entries if isinstance(entry, MemberJoined)}
        after = page.entries[-1].seq
        for entry in page.entries:
            if entry.seq > done:
                await append(target, entry)
    await move_marks(source, target, room)
    return users


async def check_same(source: Store, target: Store, room: Room, seq: int) -> None:
    """See that the room there is the one here, as far as it was moved.

    Raises:
        NotMoved: it is another.

    """
    ours, theirs = await source.entry(room.id, seq), await target.entry(room.id, seq)
    is_same = (
        ours is not None
        and theirs is not None
        and (ours.at, ours.by, type(ours)) == (theirs.at, theirs.by, type(theirs))
    )
    if not is_same or (seq > 1 and ours is not None and theirs is not None and ours.id != theirs.id):
        raise NotMoved(f"another room has its id there: entry {seq} is not the same")


async def append(target: Store, entry: Entry) -> None:
    """Append an entry at its seq; one after the other, so that none takes the place of one that failed.

    Raises:
        NotMoved: it got another seq.

    """
    seq = entry.seq
    if isinstance(entry, MessageCreated | MessageEdited):
        entry.deleted = False  # its words are gone already; the entry that deleted it follows
    written = await target.append(entry)
    if written.seq != seq:
        raise NotMoved(f"entry {seq} became {written.seq}")


async def move_marks(source: Store, target: Store, room: Room) -> None:
    """Move the read marks of a room's members."""
    after, more = "", True
    while more:
        members, _, more = await source.members(room.id, after=after)
        for member in members:
            after = member.user
            states = {state.room: state for state in await source.rooms_of(member.user)}
            if room.id in states and states[room.id].read:
                await target.mark_read(room.id, member.user, states[room.id].read)


async def move_user(source: Store, target: Store, user: UserId) -> None:
    """Move what is remembered of a user."""
    known = await source.user(user)
    if known is not None:
        await target.change_user(
            user,
            name=known.name,
            avatar=known.avatar,
            revoked_before=known.revoked_before,
            banned_until=known.banned_until,
        )


async def run(database: Path, table: str, region: str | None, endpoint: str | None) -> int:
    """Move, and say what came of it; the process's status."""
    try:
        async with (
            SqliteStore(str(database)) as source,
            DynamoStore(table_at(table, region=region, endpoint=endpoint)) as target,
        ):
            moved = await move(source, target)
    except (ValueError, HubbubError) as error:
        print(error, file=sys.stderr)
        return 2
    print(
        f"{len(moved.rooms)} rooms with {sum(moved.rooms.values())} entries, and {moved.users} users, are in {table}."
    )
    for room, why in sorted(moved.left.items()):
        print(f"left: {room}: {why}")
    return 1 if moved.left else 0


def main() -> None:
    """Move what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("database", type=Path, help="such as hubbub-data/hubbub.db, of a server that is stopped")
    parser.add_argument("table", help="the name that the stack says as TableName")
    parser.add_argument("--region", help="by default what AWS_REGION says")
    parser.add_argument("--endpoint", help="DynamoDB's address, if it is not AWS's")
    given = parser.parse_args()
    if not given.database.is_file():  # SQLite would make one
        sys.exit(f"expected a database of Hubbub's at {given.database}, and there is none")
    sys.exit(asyncio.run(run(given.database, given.table, given.region, given.endpoint)))


if __name__ == "__main__":
    main()
