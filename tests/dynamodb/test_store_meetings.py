"""What the store on a table promises where two of its mechanisms meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any

import pytest

from dynamolab import Server
from dynamostorelab import LOST, Call, Shifted, faulty, items, table_named
from hubbub.aws.table import Table
from hubbub.model import SYSTEM, MessageCreated, MessageEdited, RoomId, RoomUpdated, UserId, new_ulid
from hubbub.store import DynamoStore
from hubbub.store.dynamodb import keys
from storelab import ROOM, delete, edit, join, log, make_room, react, say, say_many, seqs, state, unread, write

ODD = ["#", "%", "%23", "a#b", "a%23b", "a", "room#x", "\N{GRINNING FACE}" * 128, "#" * 128, "\0", " ", "user"]


@pytest.fixture
async def store(table: Table) -> AsyncIterator[DynamoStore]:
    """An open store on an empty table."""
    async with DynamoStore(nullcontext(table)) as opened:
        yield opened


@pytest.fixture
async def other(dynamodb: Server, table: Table) -> AsyncIterator[DynamoStore]:
    """Another process's store on the same table, which keeps one entry of a room."""
    async with DynamoStore(table_named(dynamodb, table.name, create=False), retain_entries=1) as opened:
        yield opened


async def test_several_deletions_of_much_and_a_new_name_at_once_are_all_done(store):
    """What does not fit into their transaction is no reason for it to fail."""
    await make_room(store)
    said = await say_many(store, 3)
    for message in said:
        await asyncio.gather(*(edit(store, message.seq, f"secret {n}") for n in range(25)))
    await asyncio.gather(
        *(delete(store, message.seq) for message in said), write(store, RoomUpdated, room_name="new"), say(store)
    )
    entries = await log(store)
    assert seqs(entries) == list(range(1, 85))
    assert not [entry for entry in entries if isinstance(entry, MessageEdited) and entry.text is not None]
    assert (await store.room(ROOM)).name == "new"


async def test_a_room_made_again_says_truly_whether_there_is_more(store):
    """Whether or not what was there before is removed already."""
    await make_room(store)
    await say_many(store, 3)
    await store.delete_room(ROOM)
    made = await make_room(store)
    for asked in ({}, {"before": made.head + 1}, {"around": made.head}):
        page = await store.page(ROOM, limit=1, **asked)
        assert (seqs(page.entries), page.has_more) == ([made.head], False)


async def test_a_log_that_begins_later_now_says_truly_whether_there_is_more(store, other):
    """Whether or not what is not kept is removed already."""
    await make_room(store)
    await say_many(store, 3)

    async def only_first(operation: str, call: Call) -> Any:
        if operation in ("BatchWriteItem", "DeleteItem"):
            raise LOST
        return await call()

    with faulty(other, only_first), pytest.raises(Exception, match="try again"):
        await other.sweep([ROOM])
    page = await store.page(ROOM, limit=1)
    assert (seqs(page.entries), page.has_more) == ([4], False)


@pytest.mark.parametrize("deleted", [False, True])
async def test_who_takes_an_old_end_for_the_log_s_writes_at_the_end_all_the_same(store, table, deleted):
    """What is acknowledged has a place after everything else, however fast others write, delete and remove."""

    async def say_now(by: DynamoStore, text: str) -> Any:
        said = MessageCreated(room=ROOM, by=UserId("alice"), id=new_ulid(0), at=clock.now_ms(), text=text)
        return await by.append(said)

    clock = Shifted()
    async with DynamoStore(nullcontext(table), retain_entries=1, clock=clock) as other:
        await make_room(store)
        await say_now(store, "hello")
        for _ in range(3):
            await say_now(other, "secret")
        if deleted:
            await other.delete_room(ROOM)
            await make_room(other)
        while await other.sweep([ROOM]):
            pass
        head = (await other.room(ROOM)).head
        said = await say_now(store, "kept")
        assert said.seq == head + 1
        assert await store.entry(ROOM, said.seq) == said
        clock.ahead_ms = 600_000
        while await other.sweep([ROOM]):
            pass
        assert "secret" not in str(await items(table))
        assert await store.entry(ROOM, said.seq) == said


async def test_a_deletion_whose_answer_was_lost_leaves_the_next_room_alone(store, other):
    """Only the room that was there when it was asked is removed."""
    await make_room(store)

    async def lost(operation: str, call: Call) -> Any:
        if operation == "TransactWriteItems" and not made:
            await call()
            made.append(await make_room(other, name="another"))
            raise LOST
        return await call()

    made: list[Any] = []
    with faulty(store, lost):
        assert await store.delete_room(ROOM)
    assert await store.room(ROOM) == made[0]


async def test_what_has_to_wait_does_not_hold_up_what_else_was_left(table):
    """However much of it there is."""
    clock = Shifted()
    async with DynamoStore(nullcontext(table), clock=clock) as store:
        await make_room(store, "a")
        for _ in range(26):
            message = await say(store, room="a")
            await asyncio.gather(*(edit(store, message.seq, f"{n}", room="a") for n in range(21)))
            await delete(store, message.seq, room="a")
        await make_room(store, "b")
        await say(store, "secret", room="b")
        await store.delete_room(RoomId("b"))
        while await store.sweep():
            pass
        assert "secret" not in str(await items(table))


async def test_odd_ids_are_told_apart(store):
    """As users and as client ids; nobody gets what another has."""
    await make_room(store)
    for user in ODD:
        await store.change_user(user, name=user[:20])
        await join(store, user)
    said = {(user, sent): await say(store, by=user, client_id=sent[:64]) for user in ODD for sent in ("#", "a#b", user)}
    assert len({message.seq for message in said.values()}) == len(said)
    for (user, sent), message in said.items():
        assert await say(store, by=user, client_id=sent[:64]) == message
    first = next(iter(said.values())).seq
    reacted = [await react(store, first, reaction, by=user) for user in ODD for reaction in ("#", "1#a#", "a")]
    assert all(entry.seq for entry in reacted)
    for user in ODD:
        assert (await store.user(user)).name == user[:20]
        assert [room.room for room in await store.rooms_of(user)] == [ROOM]
    listed, count, _ = await store.members(ROOM, limit=100)
    assert ([member.user for member in listed], count) == (sorted(ODD), len(ODD))
    paged: list[str] = []
    more = True
    while more:
        page, _, more = await store.members(ROOM, after=paged[-1] if paged else "", limit=1)
        paged += [member.user for member in page]
    assert paged == sorted(ODD)


async def test_marks_moved_by_several_processes_only_go_forward(store, other):
    """And what is unread is counted from the furthest."""
    await make_room(store, ROOM, "bob")
    said = await say_many(store, 20)
    await asyncio.gather(*(each.mark_read(ROOM, "bob", m.seq) for m in said[:15] for each in (store, other)))
    assert await unread(store, "bob") == 5
    assert (await state(other, "bob")).read == said[14].seq


async def test_the_chats_own_messages_move_no_mark(store, table):
    """Nobody reads by it, and the marks of all rooms would be in one place of the table."""
    await make_room(store, ROOM, "alice")
    await say(store, by=SYSTEM)
    await say(store, by="bob")
    assert await table.get(keys.seat_key(SYSTEM, ROOM)) is None
    assert (await unread(store, "alice"), await unread(store, "bob")) == (2, 0)
