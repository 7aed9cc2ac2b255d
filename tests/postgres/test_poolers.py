"""Through PgBouncer in transaction mode, where every transaction may be on another connection of the server's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from hubbub.model import Member, MemberUpdated, Role, User
from postgreslab import pooling
from storelab import ROOM, delete, edit, join, leave, log, make_room, react, say, seqs, state, unread, write


@pytest.fixture(scope="module")
def pooler(server) -> Iterator[str]:
    """Its URL; it has two connections for all."""
    with pooling(server, size=2) as url:
        yield url


async def test_a_pooler_is_noticed_by_what_it_does_not_take(opened, pooler, server):
    """Then nothing is left on a connection between transactions, and each says itself what it needs."""
    store = await opened(url=pooler)
    assert store._address.pooled
    assert not store._address.prepares
    direct = await opened()
    assert not direct._address.pooled
    session = await store._writer._lanes[0]._link.session()
    async with session.transaction():
        [row] = await session.fetch("SELECT current_setting('synchronous_commit'), current_setting('lock_timeout')")
    assert tuple(row) == ("on", "18s")


async def test_several_nodes_write_and_read_through_a_pooler(opened, pooler):
    """Everything is as without it, with far more connections to it than it has to the server."""
    nodes = [await opened(url=pooler) for _ in range(3)]
    await make_room(nodes[0], ROOM, "alice")
    said = await say(nodes[0], "first")

    async def writer(n: int) -> None:
        store = nodes[n % 3]
        for turn in range(6):
            sent = await say(store, f"{n} {turn}", by=f"user{n}", client_id=f"c{turn}", reply_to=said.seq)
            assert await nodes[(n + 1) % 3].entry(ROOM, sent.seq) == sent
            assert (await store.page(ROOM, around=sent.seq, limit=3)).head >= sent.seq
            assert (await store.room(ROOM)).head >= sent.seq
        await react(store, said.seq, by=f"user{n}")
        await join(store, f"user{n}")
        assert await store.member(ROOM, f"user{n}")

    await asyncio.gather(*(writer(n) for n in range(9)))
    entries = await log(nodes[1])
    assert seqs(entries) == list(range(1, 3 + 9 * 8 + 1))
    assert await unread(nodes[2], "alice") == 0 + 9 * 6
    assert (await nodes[0].heads([ROOM])) == {ROOM: 75}


async def test_every_call_works_through_a_pooler(opened, pooler):
    """One after the other."""
    store = await opened(url=pooler)
    await make_room(store, ROOM, "alice", name="Tea")
    said = await say(store)
    await edit(store, said.seq, "edited")
    await delete(store, said.seq)
    await write(store, MemberUpdated, user="alice", role=Role.OWNER)
    assert (await store.members(ROOM))[0][0].role is Role.OWNER
    assert await store.member(ROOM, "alice") == Member("alice", Role.OWNER, (await store.members(ROOM))[0][0].joined_at)
    assert await store.mark_read(ROOM, "bob", 3) == 3
    assert (await state(store, "bob")).read == 3
    assert await store.change_user("bob", name="Bob") == await store.user("bob") == User("bob", "Bob")
    await leave(store, "alice")
    assert [room.name for room in (await store.rooms())[0]] == ["Tea"]
    assert await store.delete_room(ROOM) is True
    assert await store.rooms() == ([], False)
    await store.ping()


async def test_in_session_mode_statements_may_be_prepared(opened, server):
    """Which the URL then says."""
    with pooling(server, "session", size=12) as url:
        store = await opened(url=f"{url}?prepared_statements=on", writers=2, readers=2)
        assert store._address.pooled
        assert store._address.prepares
        await make_room(store)
        said = await asyncio.gather(*(say(store, f"said {n}") for n in range(20)))
        assert [entry.seq for entry in said] == list(range(2, 22))
