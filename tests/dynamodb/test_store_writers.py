"""Many processes on one table: what the store promises when nobody is the only writer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from dynamolab import Server, fresh_table
from dynamostorelab import Nth, Shifted, faulty, table_named
from hubbub.aws.service import Unanswered
from hubbub.aws.table import Table
from hubbub.errors import Conflict, NotFound
from hubbub.model import MessageCreated, ReactionRemoved, RoomKind
from hubbub.store import DynamoStore
from storelab import ROOM, delete, edit, join, leave, log, make_room, react, say, seqs, state, unread, write


class Processes:
    """Stores as separate processes have them, each with its own connections, on one table."""

    def __init__(self, server: Server, table: Table, stack: AsyncExitStack) -> None:
        self._server = server
        self._table = table
        self._stack = stack

    async def start(self, count: int, **options: Any) -> list[DynamoStore]:
        """That many, open until the test ends."""
        tables = [table_named(self._server, self._table.name, create=False, deadline_s=60) for _ in range(count)]
        return [await self._stack.enter_async_context(DynamoStore(table, **options)) for table in tables]


@pytest.fixture
async def processes(dynamodb: Server) -> AsyncIterator[Processes]:
    """On an empty table."""
    async with fresh_table(dynamodb) as table, AsyncExitStack() as stack:
        yield Processes(dynamodb, table, stack)


async def test_fifty_writers_at_once_leave_no_gap_and_lose_nothing(processes):
    """Each gets his seqs in his order, and what was acknowledged is in the log where it was said to be."""
    stores = await processes.start(50, patience_s=60)
    await make_room(stores[0])

    async def writer(n: int) -> list[MessageCreated]:
        return [await say(stores[n], f"{n} {m}", by=f"user{n}", client_id=f"c{m}") for m in range(2)]

    given = await asyncio.gather(*(writer(n) for n in range(50)))
    entries = await log(stores[1])
    assert seqs(entries) == list(range(1, 102))
    for acknowledged in given:
        assert seqs(acknowledged) == sorted(seqs(acknowledged))
        assert [entries[said.seq - 1] for said in acknowledged] == acknowledged
    assert {await unread(store, "user0") for store in stores} == {101 - given[0][-1].seq}


async def test_one_message_sent_through_many_processes_at_once_is_written_once(processes):
    """All get the one entry, among what others write."""
    stores = await processes.start(12, patience_s=60)
    await make_room(stores[0])
    sent = await asyncio.gather(
        *(say(store, f"try {n}", client_id="c1") for n, store in enumerate(stores)),
        *(say(store, "other", by=f"user{n}") for n, store in enumerate(stores)),
    )
    assert len({entry.id for entry in sent[:12]}) == 1
    assert seqs(await log(stores[0])) == list(range(1, 15))
    assert all(entry == sent[0] for entry in sent[:12])


async def test_limits_hold_whoever_lets_members_in(processes):
    """A room takes as many as it may have, through however many processes they come."""
    stores = await processes.start(8, max_members=3, patience_s=60)
    await make_room(stores[0])
    results = await asyncio.gather(*(join(store, f"user{n}") for n, store in enumerate(stores)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 5 + ["MemberJoined"] * 3
    members, count, _ = await stores[0].members(ROOM)
    assert len(members) == count == (await stores[1].room(ROOM)).members == 3


async def test_what_another_process_has_changed_is_what_is_decided_by(processes):
    """A reaction that is there, a message that is deleted, a member who has left: known at once, everywhere."""
    one, two = await processes.start(2)
    await make_room(one, ROOM, "alice")
    said = await say(one, "secret", by="alice")
    await say(two, by="bob")
    assert (await react(one, said.seq, by="bob")).seq == 5
    assert (await react(two, said.seq, by="bob")).seq == 0
    assert (await write(two, ReactionRemoved, target=said.seq, reaction="+1", by="bob")).seq == 6
    assert (await react(one, said.seq, by="bob")).seq == 7
    await edit(two, said.seq, "secret still")
    await delete(one, said.seq)
    for store in (one, two):
        with pytest.raises(Conflict):
            await edit(store, said.seq, "back again")
    assert b"secret" not in repr(await log(two)).encode()
    assert (await leave(two, "alice")).seq == 10
    assert (await leave(one, "alice")).seq == 0
    assert await one.member(ROOM, "alice") is None


async def test_a_mark_may_be_set_at_what_another_process_has_written_just_now(processes):
    """And it only moves forward, whoever moves it."""
    one, two = await processes.start(2)
    await make_room(one)
    await say(one)
    for n in range(3):
        await say(two, f"{n}", by="carol")
    assert await one.mark_read(ROOM, "bob", 4) == 4
    assert await two.mark_read(ROOM, "bob", 3) == 4
    assert await two.mark_read(ROOM, "bob", 99) == 5
    marks = await asyncio.gather(
        *(store.mark_read(ROOM, "dave", seq) for seq, store in zip((5, 2, 4, 3), (one, two, one, two), strict=True))
    )
    assert max(marks) == 5
    assert (await state(one, "dave")).read == 5


async def test_of_several_processes_that_make_a_room_at_once_one_succeeds(processes):
    """The others are told that it exists, or get it where that is welcome."""
    stores = await processes.start(6)
    results = await asyncio.gather(
        *(make_room(store, ROOM, f"user{n}", name=f"{n}") for n, store in enumerate(stores)), return_exceptions=True
    )
    assert [type(result).__name__ for result in results].count("Conflict") == 5
    welcome = await asyncio.gather(
        *(make_room(store, "new", f"user{n}", name=f"{n}", exist_ok=True) for n, store in enumerate(stores))
    )
    assert len({room.name for room in welcome}) == 1
    assert seqs(await log(stores[0])) == seqs(await log(stores[1], "new")) == [1, 2]


async def test_a_large_room_made_by_several_at_once_has_one_beginning(processes):
    """Its members are those of the one who made it."""
    stores = await processes.start(3, patience_s=60)
    results = await asyncio.gather(
        *(
            make_room(store, ROOM, *(f"{name}{n:03}" for n in range(100)))
            for name, store in zip("abc", stores, strict=True)
        ),
        return_exceptions=True,
    )
    [made] = [result for result in results if not isinstance(result, Conflict)]
    members, count, more = await stores[0].members(ROOM, limit=200)
    assert (count, more, made.members) == (100, False, 100)
    assert len({member.user[0] for member in members}) == 1
    assert seqs(await log(stores[1])) == list(range(1, 102))


async def test_who_remembers_a_log_that_was_deleted_and_made_again_writes_in_the_new_one(processes):
    """Or is told that there is none."""
    one, two = await processes.start(2)
    await make_room(one, ROOM, "alice")
    first = await say(one, client_id="c1")
    await two.delete_room(ROOM)
    with pytest.raises(NotFound):
        await say(one, "lost")
    await make_room(two, ROOM, "bob", kind=RoomKind.PRIVATE)
    said = await say(one, client_id="c1")
    assert (first.seq, said.seq) == (3, 6)
    assert seqs(await log(one)) == [4, 5, 6]
    with pytest.raises(NotFound):
        await react(one, first.seq)
    assert await one.member(ROOM, "alice") is None
    assert (await one.room(ROOM)).kind is RoomKind.PRIVATE


async def test_a_client_id_is_known_for_as_many_days_as_the_store_was_told(processes):
    """Then it is new again, although DynamoDB may take days to remove what has expired."""
    clock = Shifted()
    [store] = await processes.start(1, sent_days=7, clock=clock)
    await make_room(store)
    first = await say(store, client_id="c1")
    clock.ahead_ms = 6 * 86_400_000
    assert await say(store, client_id="c1") == first
    clock.ahead_ms = 8 * 86_400_000
    assert (await say(store, client_id="c1")).seq == 3


async def test_who_waits_behind_a_lost_answer_keeps_his_place(processes):
    """What was started first comes first in the log, also when its answer was lost."""
    [store] = await processes.start(1)
    await make_room(store)
    await say(store)
    lost = Unanswered("Broken", "the connection broke", is_in_doubt=True)
    with faulty(store, Nth(1, lost, after=True)):
        entries = await asyncio.gather(*(say(store, f"{n}") for n in range(60)))
    assert seqs(entries) == list(range(3, 63))
    assert [entry.text for entry in (await log(store))[2:]] == [f"{n}" for n in range(60)]
