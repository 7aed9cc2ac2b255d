"""The connection breaks when the server has committed and before its answer is here: all has happened once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hubbub.model import Member, MemberUpdated, ReactionRemoved, Role, RoomUpdated, User
from postgreslab import Wire
from storelab import ROOM, delete, edit, join, leave, log, make_room, react, say, seqs, state, write

COMMIT = b"COMMIT\x00"

ENTRIES: dict[str, tuple[Any, bytes]] = {
    "message": (lambda store: say(store, "unheard"), b"unheard"),
    "message with a client_id": (lambda store: say(store, "unheard", client_id="c1"), b"unheard"),
    "edit": (lambda store: edit(store, 3, "edited"), COMMIT),
    "deletion": (lambda store: delete(store, 3), COMMIT),
    "reaction": (lambda store: react(store, 3), COMMIT),
    "reaction removed": (lambda store: write(store, ReactionRemoved, by="bob", target=3, reaction="+1"), COMMIT),
    "join": (lambda store: join(store, "bob"), COMMIT),
    "leave": (lambda store: leave(store, "alice"), COMMIT),
    "role": (lambda store: write(store, MemberUpdated, user="alice", role=Role.OWNER), COMMIT),
    "name": (lambda store: write(store, RoomUpdated, room_name="Tea"), COMMIT),
}


@pytest.fixture
async def wire(server):
    async with Wire(server.port) as wire:
        yield wire


@pytest.fixture
async def store(opened, wire, server):
    """With one connection for writing, which is open; in the room there are alice, and a reaction."""
    store = await opened(url=wire.url_of(server), writers=1)
    await make_room(store, ROOM, "alice")
    await say(store)
    await react(store, 3, by="bob")
    return store


@pytest.mark.parametrize("kind", ENTRIES)
async def test_an_entry_whose_answer_was_lost_is_written_once(store, wire, kind):
    """Its caller waits a moment longer and is told its place; whoever comes after has the next one."""
    append, mark = ENTRIES[kind]
    wire.lose_the_answer_to(mark)
    written = await append(store)
    assert wire.lost == 1
    assert written.seq == 5
    assert (await say(store, "next")).seq == 6
    entries = await log(store)
    assert seqs(entries) == [1, 2, 3, 4, 5, 6]
    assert entries[4] == written


async def test_messages_that_waited_together_are_written_once_each(store, wire):
    """In their order, whatever became of the answer."""
    wire.lose_the_answer_to(b"say 7")
    said = await asyncio.gather(*(say(store, f"say {n}", by=f"user{n % 3}") for n in range(20)))
    assert wire.lost == 1
    assert [entry.seq for entry in said] == list(range(5, 25))
    assert [entry.text for entry in (await log(store))[4:]] == [f"say {n}" for n in range(20)]
    assert (await state(store, "bob")).unread == 21


async def test_a_room_whose_making_was_not_answered_is_made_once(store, wire):
    """And is its maker's: he is not told that it exists already."""
    wire.lose_the_answer_to(COMMIT)
    made = await make_room(store, "new", "alice", "bob", name="New")
    assert wire.lost == 1
    assert (made.head, made.members, made.name) == (3, 2, "New")
    assert made == await store.room("new")
    assert seqs(await log(store, "new")) == [1, 2, 3]


async def test_a_room_whose_removal_was_not_answered_is_removed_once(store, wire, opened):
    """What somebody has made in its place meanwhile stays."""
    wire.lose_the_answer_to(COMMIT)
    assert await store.delete_room(ROOM) is True
    assert wire.lost == 1
    assert await store.room(ROOM) is None
    assert await store.delete_room(ROOM) is False


async def test_a_mark_and_a_user_are_what_was_asked_for(store, wire):
    """Doing it again changes nothing."""
    wire.lose_the_answer_to(b"marker")
    assert await store.mark_read(ROOM, "marker", 3) == 3
    wire.lose_the_answer_to(COMMIT)
    assert await store.change_user("alice", name="Alice") == User("alice", "Alice")
    assert wire.lost == 2
    assert await store.user("alice") == User("alice", "Alice")
    assert (await state(store, "marker")).read == 3


async def test_what_others_have_made_of_a_user_since_is_not_undone(store, wire, opened, monkeypatch):
    """A name whose remembering was not answered, and a ban that another node has lifted and laid on meanwhile."""
    other, link = await opened(), store._writer._lanes[0]._link
    connect = link.session

    async def meanwhile():
        if wire.lost == 1:
            monkeypatch.setattr(link, "session", connect)
            await other.change_user("bob", banned_until=0)
            for n in range(6):
                await other.change_user("bob", name=f"Bob {n}", banned_until=2**40)
        return await connect()

    monkeypatch.setattr(link, "session", meanwhile)
    wire.lose_the_answer_to(COMMIT)
    there = User("bob", "Bob 5", None, banned_until=2**40)
    assert await store.change_user("bob", name="Robert", banned_until=0) == there
    assert await other.user("bob") == there
    for n in range(20):
        await store.change_user("bob", name=f"Bob {n}")
    assert (await other.user("bob")).name == "Bob 19"


async def test_memberships_that_ended_without_an_answer_are_forgotten(opened, wire, server):
    """Who is out of a room may do nothing more in it at this node, however long memberships are remembered."""
    store = await opened(url=wire.url_of(server), writers=1, keep_s=3_600)
    await make_room(store, ROOM, "alice", "bob", "carol")

    async def roles() -> list[Role | None]:
        members = [await store.member(ROOM, user, recent=True) for user in ("alice", "bob", "carol")]
        return [member and member.role for member in members]

    assert await roles() == [Role.MEMBER] * 3
    wire.lose_the_answer_to(COMMIT)
    await leave(store, "alice")
    wire.lose_the_answer_to(COMMIT)
    await write(store, MemberUpdated, user="bob", role=Role.READER)
    assert await roles() == [None, Role.READER, Role.MEMBER]
    wire.lose_the_answer_to(COMMIT)
    await store.delete_room(ROOM)
    assert wire.lost == 3
    assert await roles() == [None, None, None]


async def test_limits_count_once_what_was_done_twice(opened, wire, server):
    """A member whose joining was not answered takes one seat."""
    store = await opened(url=wire.url_of(server), writers=1, max_rooms=2)
    await make_room(store, "one")
    wire.lose_the_answer_to(COMMIT)
    await join(store, "alice", room="one")
    await make_room(store, "two", "alice")
    await leave(store, "alice", room="one")
    await make_room(store, "three", "alice")
    assert wire.lost == 1
    assert await store.member("three", "alice") == Member("alice", Role.MEMBER, (await store.room("three")).created_at)


async def test_a_connection_that_breaks_while_reading_is_made_anew(store, wire):
    """The reader waits a moment longer."""
    before = await log(store)
    wire.cut()
    assert await log(store) == before
    wire.lose_the_answer_to(ROOM.encode())
    assert await log(store) == before
    assert wire.lost == 1


async def test_in_a_storm_of_lost_answers_everything_happens_once(opened, wire, server):
    """On two nodes and of every kind: the log is what callers were told, entry by entry, and nothing else."""
    nodes = [await opened(url=wire.url_of(server), writers=2) for _ in range(2)]
    await make_room(nodes[0])
    told: list[Any] = []
    writers_left = 6

    async def writer(n: int) -> None:
        nonlocal writers_left
        store, user = nodes[n % 2], f"user{n}"
        for turn in range(3):
            said = await say(store, f"storm {n} {turn}", by=user)
            told.append(said)
            told.append(await say(store, f"storm {n} {turn}", by=user, client_id=f"c{turn}", reply_to=said.seq))
            results = await asyncio.gather(
                react(store, said.seq, by=user),
                join(store, user),
                store.mark_read(ROOM, f"storm reader {n}", said.seq),
                edit(store, said.seq, "edited", by=user),
            )
            told.extend(results[:2] + results[3:])
            told.extend([await leave(store, user), await delete(store, said.seq, by=user)])
        writers_left -= 1

    async def strike() -> None:
        while writers_left:
            wire.lose_the_answer_to(COMMIT if wire.lost % 2 else b"storm")
            lost, heard = wire.lost, len(told)
            while writers_left and (wire.lost == lost or len(told) < heard + 2):
                await asyncio.sleep(0.005)

    await asyncio.gather(*(writer(n) for n in range(6)), strike())
    assert wire.lost >= 5
    entries = await log(nodes[0])
    assert seqs(entries) == list(range(1, len(entries) + 1))
    assert sorted(entry.seq for entry in told) == list(range(2, len(entries) + 1))
    assert {entry.seq: entry.id for entry in told} == {entry.seq: entry.id for entry in entries[1:]}
    assert (await nodes[1].room(ROOM)).members == 0
