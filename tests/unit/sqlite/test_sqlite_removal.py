"""What the SQLite store removes, deleted rooms and what retention lets go, goes little by little and wholly."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hubbub.model import MessageCreated
from hubbub.store import SqliteStore
from hubbub.store.sqlite.retention import Retention
from sqlitelab import BOUND_S, held, rows, started, traced
from storelab import ROOM, eventually, join, log, make_room, react, say, say_many, seqs, state


async def fill(store: SqliteStore, count: int) -> None:
    """Messages of several users, every tenth with a reaction, read by a member."""
    await join(store, "reader")
    said = [await say(store)]
    said += await asyncio.gather(*(say(store, by=f"user{n % 7}", client_id=f"{n}") for n in range(count)))
    await asyncio.gather(*(react(store, each.seq) for each in said[::10]))
    await store.mark_read(ROOM, "reader", count)


async def test_what_a_deleted_room_leaves_behind_is_removed_little_by_little(store):
    """At once and not when retention next looks, in pieces between which others write; in the end nothing is left."""
    await fill(store, 3_500)
    await make_room(store, "other")
    with traced(store._database.writing) as statements:
        await store.delete_room(ROOM)
        said = await say(store, room="other")
        left = {"entries": said.seq, "reactions": 0, "members": 0, "reads": 1, "leftovers": 0}

        async def clean() -> bool:
            return await rows(store) == left

        await eventually(clean, "nothing is left of the room")
    transactions = "\n".join(statements).split("COMMIT")
    pieces = [transaction.count("DELETE FROM entries") for transaction in transactions]
    assert (sum(pieces), max(pieces)) == (4, 1)
    [deletion] = [transaction for transaction in transactions if "INSERT INTO leftovers" in transaction]
    assert "DELETE FROM entries" not in deletion


@pytest.mark.slow
async def test_what_could_not_be_removed_before_closing_is_removed_after_opening(path):
    """A room deleted last of all leaves nothing for ever."""
    store = await SqliteStore(str(path)).__aenter__()
    await make_room(store)
    await fill(store, 2_500)
    async with held(store):
        [deleting] = started(store.delete_room(ROOM))
        await asyncio.sleep(0)
        closing = asyncio.create_task(store.__aexit__(None, None, None))
        await asyncio.sleep(0)
    await closing
    assert await deleting
    async with SqliteStore(str(path)) as again:

        async def clean() -> bool:
            return not any((await rows(again)).values())

        await eventually(clean, "nothing is left of the room")


async def test_a_room_made_again_before_its_past_is_removed_has_nothing_of_it(store):
    """Neither reactions nor client ids nor marks, and loses nothing to the removal."""
    await fill(store, 1_500)
    async with held(store):
        waiting = started(
            store.delete_room(ROOM), make_room(store, ROOM, "reader"), say(store, "new", client_id="1", by="user1")
        )
        await asyncio.sleep(0)
    _, made, said = await asyncio.gather(*waiting)
    assert said.text == "new"
    assert (await react(store, said.seq)).seq
    assert (await state(store, "reader")).read == 0

    async def removed() -> bool:
        return (await rows(store, "leftovers")) == {"leftovers": 0}

    await eventually(removed, "the past is removed")
    assert seqs(await log(store)) == [made.first, made.first + 1, said.seq, said.seq + 1]
    assert await store.member(ROOM, "reader")
    assert await rows(store) == {"entries": 4, "reactions": 1, "members": 1, "reads": 1, "leftovers": 0}


async def test_retention_takes_its_turn_although_somebody_always_waits(path):
    """A queue that is never empty does not keep it from what is too much."""
    async with SqliteStore(str(path), retain_entries=10, sweep_s=0) as store:
        await make_room(store)
        turns = 0
        ended = asyncio.get_running_loop().create_future()

        def work(batch: Any) -> None:
            nonlocal turns
            turns += 1
            if turns == 1:
                for _ in range(50):
                    batch.add(batch.room(ROOM), MessageCreated(room=ROOM, by="alice"))
            if batch.room(ROOM).first > 1 or turns == 100_000:
                store._loop.call_soon_threadsafe(ended.set_result, batch.room(ROOM).first)
            else:
                store._writer._queue.put([(work, None)])

        store._writer._queue.put([(work, None)])
        assert await asyncio.wait_for(ended, BOUND_S) == 42


async def test_retention_removes_the_reactions_to_what_it_removes(path):
    """And goes on in a room that has more than one step's worth."""
    async with SqliteStore(str(path)) as store:
        await make_room(store)
        await fill(store, 2_500)
        head = (await store.room(ROOM)).head
    async with SqliteStore(str(path), retain_entries=5) as store:

        async def removed() -> bool:
            return (await store.room(ROOM)).first == head - 4

        await eventually(removed, "all but five entries are removed")
        assert await rows(store, "entries", "reactions") == {"entries": 5, "reactions": 0}


@pytest.mark.slow
async def test_rooms_deleted_while_retention_goes_through_them_are_passed_over(store):
    """It reaches those that come after."""
    rooms = [f"room{n}" for n in range(5)]
    for room in rooms:
        await make_room(store, room)
        await say_many(store, 600, room=room)
    retention = Retention(1, None)
    assert await store._submit(retention)
    await store.delete_room("room2")
    await store.delete_room("room3")
    steps = 0
    while await store._submit(retention):
        steps += 1
        assert steps < 10
    assert {room.id: room.head - room.first for room in (await store.rooms())[0]} == {
        ROOM: 0, "room0": 0, "room1": 0, "room4": 0
    }  # fmt: skip
    assert await rows(store, "entries", "leftovers") == {"entries": 4, "leftovers": 0}
