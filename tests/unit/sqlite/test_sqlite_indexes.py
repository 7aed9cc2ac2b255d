"""The SQLite store finds everything by an index: what is asked costs what is answered."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hubbub.model import RoomKind
from hubbub.store import SqliteStore
from sqlitelab import rows, traced
from storelab import ROOM, delete, edit, eventually, join, leave, make_room, react, say, say_many

TABLES = ("entries", "rooms", "members", "reads", "reactions", "users", "leftovers", "e", "r", "m", "d", "u")
"""What must not be gone through: the tables, by the names they have in statements."""


async def every_call(store: SqliteStore) -> None:
    """Every call of the port, in its variants."""
    await make_room(store, "tea", "alice", "bob", exist_ok=True)
    said = await say(store, room="tea", client_id="c1")
    answer = await say(store, room="tea", reply_to=said.seq, thread=said.seq)
    await edit(store, said.seq, "edited", room="tea")
    await react(store, said.seq, room="tea")
    await delete(store, answer.seq, room="tea")
    await join(store, "carol", room="tea")
    await leave(store, "carol", room="tea")
    await store.mark_read("tea", "bob", said.seq)
    for edges in ({}, {"before": 9}, {"after": 1}, {"around": said.seq}):
        await store.page("tea", **edges)
        await store.page("tea", thread=said.seq, **edges)
    await store.entry("tea", said.seq)
    for store_cache in (store._rooms, store._members, store._users):
        store_cache.values.clear()
    await store.room("tea")
    await store.member("tea", "alice")
    await store.members("tea", after="a")
    await store.user("alice")
    await store.change_user("alice")
    await store.rooms_of("alice", also=["tea", "other"])
    await store.rooms(after="a")
    await store.rooms(after="a", kind="public")
    await store.delete_room("tea")
    await store.ping()


async def test_no_call_reads_more_than_it_needs(store):
    """Every statement finds its rows by an index; none goes through a table, and no page has to be sorted."""
    reading, writing = store._database.reading, store._database.writing
    with traced(reading, writing) as statements:
        await every_call(store)

        async def clean() -> bool:
            return (await rows(store, "leftovers")) == {"leftovers": 0}

        await eventually(clean, "what the room left is removed")
    asked = {statement for statement in statements if "count(*) FROM leftovers" not in statement}
    planned = 0
    for statement in asked:
        if statement.split()[0] not in ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE"):
            continue
        planned += 1
        plan = [row[3] for row in reading.execute(f"EXPLAIN QUERY PLAN {statement}")]
        for step in plan:
            what, name = step.split()[:2]
            assert not (what == "SCAN" and name in TABLES), (statement, plan)
            # Of all reactions to a page's messages the newest are found by sorting their keys.
            assert "ORDER BY" not in step or "words = 0" in statement, (statement, plan)
    assert planned > 40, "the statements of every call"


@contextmanager
def counted(db: sqlite3.Connection) -> Iterator[list[int]]:
    """How many of its instructions the database does meanwhile; the only element is the count."""
    count = [0]

    def step() -> int:
        count[0] += 1
        return 0

    db.set_progress_handler(step, 1)
    yield count
    db.set_progress_handler(None, 1)


@pytest.mark.slow
async def test_a_page_costs_what_is_on_it(store):
    """Not what the log or the thread holds: the database does as much for a page of a long one as of a short one."""
    root = await say(store)
    costs: list[list[int]] = []
    for size in (200, 2_000):
        await say_many(store, size, thread=root.seq)
        head = (await store.room(ROOM)).head
        costs.append([])
        for edges in ({}, {"before": head}, {"after": 1}, {"around": head // 2}):
            for thread in (None, root.seq):
                with counted(store._database.reading) as count:
                    await store.page(ROOM, thread=thread, limit=50, **edges)
                costs[-1] += count
    for short, long in zip(*costs, strict=True):
        assert 0 < long <= short * 1.5


async def test_public_rooms_are_listed_without_reading_past_private_ones(store):
    """However many those are."""
    costs = []
    for count in (10, 300):
        await asyncio.gather(*(make_room(store, f"a{n}", kind=RoomKind.PRIVATE, exist_ok=True) for n in range(count)))
        with counted(store._database.reading) as cost:
            rooms, _ = await store.rooms(kind=RoomKind.PUBLIC)
        assert [room.id for room in rooms] == [ROOM]
        costs += cost
    assert 0 < costs[1] <= costs[0] * 1.5
