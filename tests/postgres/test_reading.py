"""Reading: crowds that ask the same cost few queries, and no answer is older than its question."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hubbub.errors import Internal
from hubbub.model import Member, Role, User, UserId
from hubbub.store.postgres.link import Session
from storelab import ROOM, eventually, join, leave, make_room, react, say, say_many, seqs


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The statements that are run meanwhile."""
    statements: list[str] = []
    fetch = Session.fetch

    async def noted(self: Session, statement: str, *values: Any) -> Any:
        statements.append(statement)
        return await fetch(self, statement, *values)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "fetch", noted)
        yield statements


async def test_a_thousand_listeners_who_resume_after_the_same_seq_cost_few_reads(store, monkeypatch):
    """Those who come together share one, those who come while it runs share the next; all get the page."""
    await make_room(store)
    await say_many(store, 30)

    async def listener(n: int) -> list[int]:
        for _ in range(n % 7):
            await asyncio.sleep(0)
        return seqs((await store.page(ROOM, after=20, changes=False)).entries)

    with counted(monkeypatch) as statements:
        found = await asyncio.gather(*(listener(n) for n in range(1_000)))
    assert all(places == list(range(21, 32)) for places in found)
    assert 1 <= len(statements) <= 8


async def test_a_thousand_users_who_come_at_once_cost_few_reads(store, monkeypatch):
    """Their rooms, their memberships, what is remembered of them, the room."""
    await make_room(store, ROOM, *(f"user{n}" for n in range(300)))
    with counted(monkeypatch) as statements:
        states = await asyncio.gather(*(store.rooms_of(f"user{n}") for n in range(1_000)))
        members = await asyncio.gather(*(store.member(ROOM, f"user{n}") for n in range(1_000)))
        users = await asyncio.gather(*(store.user(f"user{n}") for n in range(1_000)))
        rooms = await asyncio.gather(*(store.room(ROOM) for n in range(1_000)))
    assert [len(found) for found in states] == [1] * 300 + [0] * 700
    assert [member is not None for member in members] == [True] * 300 + [False] * 700
    assert set(users) == {None}
    assert {room.members for room in rooms} == {300}
    assert len(statements) <= 1_000 // 50 + 2 + 2 + 2


async def test_an_answer_is_never_older_than_its_question(opened, monkeypatch):
    """Whoever asks while a read runs is not answered by it."""
    store, other = await opened(), await opened()
    await make_room(store)
    running, released = asyncio.Event(), asyncio.Event()
    fetch = Session.fetch

    async def held(self: Session, statement: str, *values: Any) -> Any:
        result = await fetch(self, statement, *values)
        if not released.is_set() and "row_number" in statement and "FOR NO KEY" not in statement:
            running.set()
            await released.wait()
        return result

    monkeypatch.setattr(Session, "fetch", held)
    early = asyncio.create_task(store.page(ROOM))
    await running.wait()
    said = await say(other)
    late = [asyncio.create_task(store.page(ROOM)) for _ in range(3)]
    await asyncio.sleep(0)
    released.set()
    assert (await early).head == 1
    assert {page.head for page in await asyncio.gather(*late)} == {said.seq}


async def test_who_gives_up_a_shared_read_takes_it_from_nobody(store):
    """The others get their page."""
    await make_room(store)
    readers = [asyncio.create_task(store.page(ROOM)) for _ in range(10)]
    await asyncio.sleep(0)
    for reader in readers[:9:2]:
        reader.cancel()
    results = await asyncio.gather(*readers, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False] * 5


async def test_memberships_are_remembered_for_a_moment_and_own_writes_at_once(opened, monkeypatch):
    """Of what another node changes, only that somebody has joined is known at once, unless it is asked for afresh."""
    here, there = await opened(keep_s=3_600), await opened()
    await make_room(here, ROOM, "alice")
    assert await here.member(ROOM, "alice")
    with counted(monkeypatch) as statements:
        for _ in range(5):
            assert (await here.member(ROOM, "alice", recent=True)).role is Role.MEMBER
    assert statements == []
    await join(here, "alice", Role.OWNER)
    with counted(monkeypatch) as statements:
        assert (await here.member(ROOM, "alice", recent=True)).role is Role.OWNER
    assert statements == []
    assert await here.member(ROOM, "bob", recent=True) is None
    await join(there, "bob")
    assert await here.member(ROOM, "bob", recent=True)
    await leave(there, "alice")
    assert await here.member(ROOM, "alice", recent=True) is not None
    assert await here.member(ROOM, "alice") is None
    assert await here.member(ROOM, "alice", recent=True) is None


async def test_what_is_remembered_ends_with_the_moment(opened):
    """Then it is read again."""
    here, there = await opened(keep_s=0.01), await opened()
    await make_room(here, ROOM, "alice")
    assert await here.member(ROOM, "alice", recent=True)
    await leave(there, "alice")

    async def forgotten() -> bool:
        return await here.member(ROOM, "alice", recent=True) is None

    await eventually(forgotten, "the end of the moment")


async def test_users_are_remembered_for_a_moment_and_own_writes_at_once(opened, monkeypatch):
    """Also that nothing is known of one."""
    store = await opened(keep_s=3_600)
    assert await store.user("bob") is None
    await store.change_user("alice", name="Alice")
    with counted(monkeypatch) as statements:
        assert await store.user("alice", recent=True) == User("alice", "Alice")
        assert await store.user("bob", recent=True) is None
    assert statements == []
    assert await store.user("alice") == User("alice", "Alice")


async def test_a_deleted_rooms_members_are_forgotten(opened):
    """By the node that deleted it."""
    store = await opened(keep_s=3_600)
    await make_room(store, ROOM, "alice")
    assert await store.member(ROOM, "alice", recent=True)
    await store.delete_room(ROOM)
    assert await store.member(ROOM, "alice", recent=True) is None


async def test_messages_that_come_together_are_one_statement(store, monkeypatch):
    """However many rooms they are in; their authors' marks are in it, and other marks are one more."""
    rooms = [f"room{n}" for n in range(8)]
    await asyncio.gather(*(make_room(store, room) for room in rooms))
    await say(store, room="room0")
    with counted(monkeypatch) as statements:
        await asyncio.gather(
            *(say(store, room=room, by=f"user{n}") for room in rooms for n in range(20)),
            *(store.mark_read(room, f"user{n}", 5) for room in rooms for n in range(20)),
        )
    assert len(statements) <= 2 * 4


async def test_a_value_that_cannot_be_kept_is_not_in_the_log(store, caplog):
    """It may be what somebody wrote; whoever waits beside it notices nothing."""
    odd = UserId("half a \ud800 pair")
    changed = await asyncio.gather(
        *(store.change_user(user, name="x") for user in ("alice", odd, "bob")), return_exceptions=True
    )
    assert [type(each) for each in changed] == [User, Internal, User]
    with pytest.raises(Internal):
        await store.members(ROOM, after=odd)
    assert "22000 a value that PostgreSQL does not take" in caplog.text
    assert "half a" not in caplog.text


async def test_text_may_hold_any_character(store):
    """Names, ids, reactions, words: also those that PostgreSQL does not take; their order is that of ids."""
    odd = ["a\x00b", "a\x01b", "a\x02b", "a\x00", "a\x01\x01", "a", "\U0001f44b", "'; --"]
    await make_room(store, ROOM, *odd, name="no\x00ught")
    assert (await store.room(ROOM)).name == "no\x00ught"
    members, count, _ = await store.members(ROOM)
    assert ([member.user for member in members], count) == (sorted(odd), len(odd))
    for text in odd:
        said = await say(store, text, by=text, client_id=text, name=text)
        assert await say(store, text, by=text, client_id=text) == said
        assert (await react(store, said.seq, text, by=text)).seq == said.seq + 1
        assert await store.entry(ROOM, said.seq) == said
        assert await store.change_user(text, name=text, avatar=text) == User(text, text, text)
        assert await store.member(ROOM, text) == Member(text, Role.MEMBER, members[0].joined_at)
        [state] = await store.rooms_of(text)
        assert state.read == said.seq
