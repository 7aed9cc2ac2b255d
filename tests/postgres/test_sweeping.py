"""What is removed when time passes, by one node at a time; and a log in partitions, made as the reference says."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from hubbub.store import PostgresStore
from postgreslab import connected, schema_of
from storelab import ROOM, delete, eventually, log, make_room, react, say, say_many, seqs

REFERENCE = Path(__file__).parents[2] / "docs/reference/postgresql.md"
KEPT = ("entries", "reactions", "members", "reads", "leftovers")


async def rows(store: PostgresStore, *tables: str) -> dict[str, int]:
    """How many rows there are in tables."""

    async def query(session):
        return {table: (await session.alone(f"SELECT count(*) FROM hubbub.{table}"))[0][0] for table in tables}

    return await store._reader.ask(query)


async def test_nothing_stays_of_a_deleted_room(opened):
    """However much there was; the room's row does, so that no seq is used twice."""
    store = await opened(sweep_s=0.01)
    await make_room(store, ROOM, *(f"user{n}" for n in range(50)))
    said = await say(store)
    await react(store, said.seq)
    await say_many(store, 2_500)
    await store.mark_read(ROOM, "bob", 3)
    await store.delete_room(ROOM)

    async def empty() -> bool:
        return set((await rows(store, *KEPT)).values()) == {0}

    await eventually(empty, "the removal of all that was there")
    assert (await rows(store, "rooms"))["rooms"] == 1


async def test_reactions_go_with_their_message(opened):
    """Whether it is deleted or too old."""
    store = await opened(retain_entries=3, sweep_s=0.01)
    await make_room(store)
    first, second = await say_many(store, 2)
    await react(store, second.seq)
    await delete(store, second.seq)
    assert (await rows(store, "reactions"))["reactions"] == 0
    third = await say(store)
    await react(store, third.seq)
    await say_many(store, 5)

    async def empty() -> bool:
        return (await rows(store, "reactions"))["reactions"] == 0

    await eventually(empty, "the removal of the reaction")
    assert first.seq < (await store.room(ROOM)).first


async def test_nodes_that_sweep_at_once_take_turns(opened):
    """Rooms end up as one of them would have left them, while all of them write."""
    nodes = [await opened(retain_entries=5, sweep_s=0.01) for _ in range(3)]
    await make_room(nodes[0])
    await asyncio.gather(*(say_many(store, 400, by=f"user{n}") for n, store in enumerate(nodes)))

    async def swept() -> bool:
        room = await nodes[0].room(ROOM)
        assert room.first <= room.head - 4
        return room.first == room.head - 4

    await eventually(swept, "retention")
    assert seqs(await log(nodes[1])) == list(range(1_197, 1_202))
    assert (await rows(nodes[2], "entries"))["entries"] == 5


async def test_a_log_may_be_in_partitions(opened, server, tmp_path):
    """The reference's statements move what is there, and the store goes on as before."""
    [statements] = re.findall(r"<!-- tested: partitions -->\n```sql\n(.*?)```", REFERENCE.read_text(), re.DOTALL)
    store = await opened(retain_entries=100)
    await asyncio.gather(*(make_room(store, f"room{n}") for n in range(5)))
    before = [await say(store, room=f"room{n}", client_id="c1") for n in range(5)]
    schema = schema_of(tmp_path)
    async with connected(server, schema) as connection:
        await connection.execute(statements.replace("hubbub.", f"{schema}."))
        parts = await connection.fetch("SELECT tableoid FROM entries GROUP BY 1")
        assert len(parts) > 1
    assert [await say(store, room=f"room{n}", client_id="c1") for n in range(5)] == before
    await asyncio.gather(*(say(store, room=f"room{n % 5}", client_id=f"d{n}") for n in range(50)))
    await react(store, 2, room="room3")
    assert [(await store.room(f"room{n}")).head for n in range(5)] == [12, 12, 12, 13, 12]
    assert (await store.page("room3", before=3)).changes[-1].seq == 13
