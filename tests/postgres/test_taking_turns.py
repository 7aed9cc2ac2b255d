"""Nodes that write at once wait for each other at the server, instead of being refused and trying again."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from hubbub.errors import Unavailable
from hubbub.model import Member, Role, RoomKind
from hubbub.store.postgres.link import Session
from storelab import AT, join, leave, log, make_room, react, say, seqs


@pytest.fixture
def refused(monkeypatch) -> list[Exception]:
    """What the server has refused."""
    found: list[Exception] = []
    fetch = Session.fetch

    async def noted(self: Session, statement: str, *values: Any) -> Any:
        try:
            return await fetch(self, statement, *values)
        except Exception as error:
            found.append(error)
            raise

    monkeypatch.setattr(Session, "fetch", noted)
    return found


async def test_no_statement_of_writers_in_one_room_is_refused(opened, refused):
    """Nor of writers in many rooms at once, in whichever order they name them."""
    nodes = [await opened() for _ in range(3)]
    rooms = [f"room{n}" for n in range(5)]
    for room in rooms:
        await make_room(nodes[0], room)
        await say(nodes[0], room=room)

    async def writer(n: int) -> None:
        store, order = nodes[n % 3], rooms if n % 2 else rooms[::-1]
        for turn in range(6):
            await asyncio.gather(*(say(store, f"{n} {turn}", by=f"user{n}", room=room) for room in order))
            await asyncio.gather(*(store.mark_read(room, f"user{n}", 3 + turn) for room in order))
        await asyncio.gather(*(join(store, f"user{n}", room=room) for room in order))
        await asyncio.gather(*(react(store, 2, by=f"user{n}", room=room) for room in order))

    await asyncio.gather(*(writer(n) for n in range(12)))
    for room in rooms:
        assert seqs(await log(nodes[1], room)) == list(range(1, 2 + 12 * 8 + 1))
    assert refused == []


async def test_no_coming_and_going_of_many_users_in_many_rooms_is_refused(opened, refused):
    """Also where rooms are made for them and deleted under them, on two nodes and in no order at all."""
    nodes = [await opened() for _ in range(2)]
    rooms, users = [f"room{n}" for n in range(12)], [f"user{n}" for n in range(40)]
    doomed = [f"doomed{n}" for n in range(12)]
    for room in [*rooms, *doomed]:
        await make_room(nodes[0], room, *(users if room in doomed else ()))
    members = [Member(user, Role.MEMBER, AT) for user in users]
    works = [
        *(lambda store, user=user, room=room: join(store, user, room=room) for room in rooms for user in users),
        *(lambda store, user=user: store.change_user(user, name="He") for user in [*users, *users]),
        *(lambda store, room=room: store.delete_room(room) for room in doomed),
        *(
            lambda store, n=n: store.create_room(
                f"new{n}", RoomKind.PUBLIC, name="", by="maker", at=AT, members=members[n:], exist_ok=True
            )
            for n in range(12)
        ),
    ]
    random.Random(7).shuffle(works)
    await asyncio.gather(*(work(nodes[n % 2]) for n, work in enumerate(works)))
    for n, user in enumerate(users):
        assert len(await nodes[1].rooms_of(user)) == len(rooms) + min(n + 1, 12)
    leaving = [(user, room) for user in users for room in rooms]
    random.Random(8).shuffle(leaving)
    await asyncio.gather(*(leave(nodes[n % 2], user, room=room) for n, (user, room) in enumerate(leaving)))
    assert {(await nodes[0].room(room)).members for room in rooms} == {0}
    assert refused == []


async def test_who_waits_in_a_transaction_holds_up_nobody_who_asks_whether_writing_is_possible(opened):
    """A node's transaction waits for a user's other rooms; all nodes are ready to write all the same."""
    one, other = await opened(writers=1), await opened()
    for room in ("first", "second"):
        await make_room(one, room)
    await join(one, "alice", room="first")
    session = await other._writer._lanes[0]._link.session()
    async with session.transaction():
        await session.fetch("SELECT FROM hubbub.seats WHERE user_id = 'alice' FOR UPDATE")
        waiting = [asyncio.create_task(one.ping()), asyncio.create_task(join(one, "alice", room="second"))]
        async with asyncio.timeout(10.0):
            await waiting[0]
            await (await opened()).ping()
        assert not waiting[1].done()
    await waiting[1]


async def test_nobody_waits_longer_than_his_patience_for_what_is_under_way(opened):
    """However long the server may take for it; whoever comes later finds it done."""
    store, other = await opened(patience_s=0.5), await opened()
    await make_room(store, "held")
    session = await other._writer._lanes[0]._link.session()
    async with session.transaction(), asyncio.timeout(10.0):
        await session.fetch("SELECT FROM hubbub.rooms WHERE id = 'held' FOR UPDATE")
        for asked in (say(store, room="held", client_id="c1"), join(store, "alice", room="held")):
            with pytest.raises(Unavailable):
                await asked
    assert (await say(other, room="held", client_id="c1")).seq == 2
    async with session.transaction(), asyncio.timeout(10.0):
        await session.script("LOCK TABLE hubbub.rooms")
        with pytest.raises(Unavailable):
            await store.heads(["held"])


async def test_a_transaction_that_cannot_get_a_lock_is_tried_again(opened):
    """Somebody who holds a room for a while, as an administrator may, holds up its writers and nobody else."""
    store, other = await opened(timeout_s=0.4), await opened()
    await make_room(store, "held")
    await make_room(store, "free")
    session = await other._writer._lanes[0]._link.session()
    writing = []
    async with session.transaction():
        await session.fetch("SELECT FROM hubbub.rooms WHERE id = 'held' FOR UPDATE")
        writing = [asyncio.create_task(say(store, f"{n}", room="held")) for n in range(3)]
        joining = asyncio.create_task(join(store, "alice", room="held"))
        assert (await other.room("held")).head == 1
        await asyncio.wait(writing, timeout=1.0)  # longer than a statement may take
        assert not any(task.done() for task in [*writing, joining])
        assert (await say(await opened(), room="free")).seq == 2
    assert [entry.seq for entry in await asyncio.gather(*writing, joining)] == [2, 3, 4, 5]
