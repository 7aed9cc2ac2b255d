"""Short ways to write into a store and to look at what is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from hubbub.model import (
    AnyEntry,
    Entry,
    Member,
    MemberJoined,
    MemberLeft,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    ReactionAdded,
    Role,
    Room,
    RoomId,
    RoomKind,
    RoomState,
    UserId,
    new_ulid,
)
from hubbub.ports import Store

ROOM = RoomId("room")
AT = 1_700_000_000_000


async def make_room(store: Store, room: str = ROOM, *members: str, role: Role = Role.MEMBER, **fields: Any) -> Room:
    """A public room with `members`; without any it has one entry."""
    asked: dict[str, Any] = {"kind": RoomKind.PUBLIC, "name": "", "by": UserId("maker"), "at": AT, **fields}
    kind = asked.pop("kind")
    return await store.create_room(
        RoomId(room), kind, members=[Member(UserId(user), role) for user in members], **asked
    )


async def write(store: Store, of: type[Entry], /, *, by: str = "alice", room: str = ROOM, **fields: Any) -> Entry:
    """Append an entry of that type."""
    return await store.append(of(room=RoomId(room), by=UserId(by), id=new_ulid(AT), at=AT, **fields))


async def say(store: Store, text: str = "hello", **fields: Any) -> MessageCreated:
    """Append a message; alice's, unless `by` says otherwise."""
    entry = await write(store, MessageCreated, text=text, **fields)
    assert isinstance(entry, MessageCreated)
    return entry


async def say_many(store: Store, count: int, **fields: Any) -> list[MessageCreated]:
    """Append messages at once, in order."""
    return list(await asyncio.gather(*(say(store, f"message {n}", **fields) for n in range(count))))


async def edit(store: Store, target: int, text: str, **fields: Any) -> Entry:
    """Append an edit."""
    return await write(store, MessageEdited, target=target, text=text, **fields)


async def delete(store: Store, target: int, **fields: Any) -> Entry:
    """Append a deletion."""
    return await write(store, MessageDeleted, target=target, **fields)


async def react(store: Store, target: int, reaction: str = "+1", **fields: Any) -> Entry:
    """Append a reaction."""
    return await write(store, ReactionAdded, target=target, reaction=reaction, **fields)


async def join(store: Store, user: str, role: Role = Role.MEMBER, **fields: Any) -> Entry:
    """Append a member.joined."""
    return await write(store, MemberJoined, user=UserId(user), role=role, by=user, **fields)


async def leave(store: Store, user: str, **fields: Any) -> Entry:
    """Append a member.left."""
    return await write(store, MemberLeft, user=UserId(user), by=user, **fields)


async def log(store: Store, room: str = ROOM) -> list[AnyEntry]:
    """The whole log, read page by page."""
    entries: list[AnyEntry] = []
    more = True
    while more:
        after = entries[-1].seq if entries else 0
        page = await store.page(RoomId(room), after=after, limit=100)
        entries += page.entries
        more = page.has_more
    return entries


def seqs(entries: list[AnyEntry]) -> list[int]:
    """Their places."""
    return [entry.seq for entry in entries]


async def state(store: Store, user: str, room: str = ROOM) -> RoomState:
    """The room as the user sees it, member or not."""
    [found] = [each for each in await store.rooms_of(UserId(user), also=[RoomId(room)]) if each.room == room]
    return found


async def unread(store: Store, user: str, room: str = ROOM) -> int:
    """How many messages he has not read."""
    return (await state(store, user, room)).unread


async def eventually(condition: Callable[[], Any], what: str, *, bound_s: float = 20) -> None:
    """Return once `await condition()` is true; fail after `bound_s`."""
    deadline = time.monotonic() + bound_s
    while not await condition():
        assert time.monotonic() < deadline, f"{what}: not within {bound_s} s"
        await asyncio.sleep(0.002)
