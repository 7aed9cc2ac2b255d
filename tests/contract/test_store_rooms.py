"""The promises of the `Store` port on rooms: made, listed, deleted, made again."""

from __future__ import annotations

import asyncio

import pytest

from hubbub.errors import Conflict
from hubbub.model import Member, MemberJoined, Role, RoomKind, RoomUpdated
from storelab import AT, ROOM, join, log, make_room, react, say, say_many, seqs, state, unread


async def test_a_new_room_has_one_room_updated_entry_and_one_member_joined_for_each_member(store):
    """All in one commit, by whoever made it."""
    members = [Member("alice", Role.OWNER), Member("bob", Role.MEMBER)]
    made = await store.create_room(ROOM, RoomKind.PRIVATE, name="Tea", by="alice", at=AT, members=members)
    assert made == await store.room(ROOM)
    assert (made.id, made.kind, made.name, made.created_at) == (ROOM, RoomKind.PRIVATE, "Tea", AT)
    assert (made.head, made.first, made.members) == (3, 1, 2)
    updated, *joined = await log(store)
    assert isinstance(updated, RoomUpdated)
    assert (updated.room_name, updated.kind, updated.by, updated.at) == ("Tea", RoomKind.PRIVATE, "alice", AT)
    assert all(isinstance(entry, MemberJoined) and entry.by == "alice" for entry in joined)
    assert [(entry.user, entry.role) for entry in joined] == [("alice", Role.OWNER), ("bob", Role.MEMBER)]
    assert len({entry.id for entry in (updated, *joined)}) == 3
    assert await store.member(ROOM, "alice") == Member("alice", Role.OWNER, AT)


async def test_a_member_named_twice_joins_once(store):
    """There are not two entries for one membership."""
    made = await make_room(store, ROOM, "alice", "alice")
    assert (made.head, made.members) == (2, 1)


async def test_a_room_that_exists_is_a_conflict_and_stays_as_it_is(store):
    """Unless it is welcome: then it is returned as it is, also to many who make it at once."""
    await make_room(store, ROOM, "alice", name="Tea")
    await say(store)
    as_it_is = await store.room(ROOM)
    with pytest.raises(Conflict):
        await make_room(store, ROOM, "bob", name="Milk")
    welcome = await make_room(store, ROOM, "bob", name="Milk", exist_ok=True)
    assert welcome == as_it_is == await store.room(ROOM)
    many = await asyncio.gather(*(make_room(store, "new", f"user{n}", exist_ok=True) for n in range(10)))
    assert {room.id for room in many} == {"new"}
    assert seqs(await log(store, "new")) == [1, 2]
    assert await store.member("new", "user0")
    assert await store.member("new", "user1") is None


async def test_of_several_who_make_a_room_at_once_one_succeeds(store):
    """The others are told that it exists."""
    results = await asyncio.gather(
        *(make_room(store, ROOM, f"user{n}", name=f"of user{n}") for n in range(10)), return_exceptions=True
    )
    made = [room for room in results if not isinstance(room, Conflict)]
    assert made == [await store.room(ROOM)]
    assert seqs(await log(store)) == [1, 2]


async def test_a_deleted_room_is_gone_with_everything_in_it(store):
    """Its log, its members and its marks; the answer says whether there was one."""
    await make_room(store, ROOM, "alice", "bob")
    await make_room(store, "other", "alice")
    said = await say(store)
    await react(store, said.seq)
    assert await store.delete_room(ROOM) is True
    assert await store.delete_room(ROOM) is False
    assert await store.delete_room("never") is False
    assert await store.room(ROOM) is None
    assert await store.entry(ROOM, said.seq) is None
    assert await store.member(ROOM, "alice") is None
    assert await store.members(ROOM) == ([], 0, False)
    assert [each.room for each in await store.rooms_of("alice", also=[ROOM])] == ["other"]
    assert [room.id for room in (await store.rooms())[0]] == ["other"]


async def test_a_room_made_again_goes_on_at_the_next_seq(store):
    """No seq is used twice, and nothing of what was is in it, however often."""
    for time in range(3):
        made = await make_room(store, ROOM, "alice", name=f"time {time}", at=AT + time)
        said = await say(store, f"time {time}", client_id="c1")
        await react(store, said.seq)
        first = 4 * time + 1
        assert (made.first, made.head, made.members, made.created_at) == (first, first + 1, 1, AT + time)
        assert seqs(await log(store)) == [first, first + 1, first + 2, first + 3]
        assert said.seq == first + 2
        assert await unread(store, "bob") == 1
        assert await store.entry(ROOM, first - 1) is None
        page = await store.page(ROOM, around=first, limit=2)
        assert (seqs(page.entries), page.has_more) == ([first, first + 1], True)
        await store.delete_room(ROOM)


async def test_a_room_made_again_is_as_it_was_made_when_the_data_is_opened_again(lasting_stores):
    """Its name, kind, time, first seq and members."""
    async with lasting_stores.make() as store:
        await make_room(store, ROOM, "alice", name="old")
        await store.delete_room(ROOM)
        made = await make_room(store, ROOM, "bob", name="new", at=AT + 1, kind=RoomKind.PRIVATE)
    store = await lasting_stores.open()
    assert await store.room(ROOM) == made
    assert await store.rooms() == ([made], False)
    assert (await state(store, "bob")).head == 4
    assert (await say(store)).seq == 5


async def test_rooms_may_be_deleted_and_made_among_other_writes(store):
    """Committed together or not, each write finds what was there when its turn came."""
    await make_room(store, ROOM, "alice")
    results = await asyncio.gather(
        say(store, "first", client_id="c1"),
        store.delete_room(ROOM),
        make_room(store, ROOM, "bob"),
        say(store, "second", client_id="c1", by="alice"),
        store.mark_read(ROOM, "bob", 99),
        store.delete_room(ROOM),
        make_room(store, ROOM, "carol"),
        say(store, "third", client_id="c1"),
        join(store, "alice"),
    )
    assert [results[n].seq for n in (0, 3, 7, 8)] == [3, 6, 9, 10]
    assert results[4] == 6
    assert seqs(await log(store)) == [7, 8, 9, 10]
    assert [member.user for member in (await store.members(ROOM))[0]] == ["alice", "carol"]
    assert (await state(store, "bob")).read == 0


async def test_rooms_are_listed_by_id(store):
    """Page by page, of one kind or of all."""
    names = ["a", "B", "a.b", "a-b", "Z", "zz", "0"]
    for n, name in enumerate(names):
        await make_room(store, name, kind=RoomKind.PRIVATE if n % 2 else RoomKind.PUBLIC)
    await store.delete_room("a-b")
    everywhere = sorted({*names} - {"a-b"})
    rooms, more = await store.rooms()
    assert ([room.id for room in rooms], more) == (everywhere, False)
    assert rooms[0] == await store.room(rooms[0].id)
    found, after = [], ""
    while True:
        rooms, more = await store.rooms(after=after, limit=2)
        found += [room.id for room in rooms]
        if not more:
            break
        after = found[-1]
    assert found == everywhere
    assert [room.id for room in (await store.rooms(kind=RoomKind.PUBLIC))[0]] == ["0", "Z", "a", "a.b"]
    rooms, more = await store.rooms(kind=RoomKind.PUBLIC, after="Z", limit=1)
    assert ([room.id for room in rooms], more) == (["a"], True)
    assert await store.rooms(after="zz") == ([], False)


async def test_the_room_is_known_as_it_is_now(store):
    """Its head and members are those after the last write that returned, also while others write."""
    assert await store.room(ROOM) is None
    await make_room(store)

    async def writer(user: str) -> None:
        for _ in range(20):
            said = await say(store, by=user)
            assert (await store.room(ROOM)).head >= said.seq

    await asyncio.gather(*(writer(f"user{n}") for n in range(5)))
    room = await store.room(ROOM)
    assert (room.head, room.members) == (101, 0)
    await say_many(store, 5)
    assert (await store.room(ROOM)).head == 106


async def test_the_heads_of_many_rooms_are_one_question(store):
    """As each room has it after its last write; rooms that are gone or never were are missing."""
    rooms = [f"room{n}" for n in range(7)]
    for n, room in enumerate(rooms):
        await make_room(store, room, "alice")
        await say_many(store, n, room=room)
    await store.delete_room(rooms[3])
    heads = await store.heads([*rooms, rooms[0], "never"])
    assert heads == {room: 2 + n for n, room in enumerate(rooms) if n != 3}
    assert heads[rooms[5]] == (await store.room(rooms[5])).head
    assert await store.heads([]) == {}
