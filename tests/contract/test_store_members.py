"""The promises of the `Store` port on members and users."""

from __future__ import annotations

import asyncio

import pytest

from hubbub.errors import Conflict, NotFound
from hubbub.model import Member, MemberUpdated, Role, User
from storelab import AT, ROOM, join, leave, log, make_room, seqs, write


async def test_a_member_joined_entry_makes_a_member(store):
    """With that role, since that time; joining with it again writes nothing."""
    await make_room(store)
    assert await store.member(ROOM, "alice") is None
    assert (await join(store, "alice", Role.MODERATOR)).seq == 2
    assert await store.member(ROOM, "alice") == Member("alice", Role.MODERATOR, AT)
    assert (await join(store, "alice", Role.MODERATOR)).seq == 0
    assert (await store.room(ROOM)).members == 1
    assert seqs(await log(store)) == [1, 2]


async def test_a_member_who_joins_with_another_role_has_that_one(store):
    """And is a member since when he first was."""
    await make_room(store, ROOM, "alice", at=AT - 1_000)
    assert (await join(store, "alice", Role.OWNER)).seq == 3
    assert await store.member(ROOM, "alice") == Member("alice", Role.OWNER, AT - 1_000)
    assert (await store.room(ROOM)).members == 1


async def test_a_member_updated_entry_changes_the_role(store):
    """Of a member; of nobody else, and to the role he has it writes nothing."""
    await make_room(store, ROOM, "alice", at=AT - 1_000)
    assert (await write(store, MemberUpdated, user="alice", role=Role.READER)).seq == 3
    assert await store.member(ROOM, "alice") == Member("alice", Role.READER, AT - 1_000)
    assert (await write(store, MemberUpdated, user="alice", role=Role.READER)).seq == 0
    with pytest.raises(NotFound):
        await write(store, MemberUpdated, user="bob", role=Role.READER)
    assert await store.member(ROOM, "bob") is None
    assert (await store.room(ROOM)).head == 3


async def test_a_member_left_entry_ends_the_membership(store):
    """Of a member; of nobody else it writes nothing."""
    await make_room(store, ROOM, "alice", "bob")
    assert (await leave(store, "alice")).seq == 4
    assert await store.member(ROOM, "alice") is None
    assert (await leave(store, "alice")).seq == 0
    assert (await leave(store, "nobody")).seq == 0
    assert (await store.room(ROOM)).members == 1
    assert (await join(store, "alice")).seq == 5


async def test_memberships_are_the_same_when_the_data_is_opened_again(lasting_stores):
    """What is remembered is what is stored."""
    async with lasting_stores.make() as store:
        await make_room(store, ROOM, "alice", "bob", "carol", at=AT - 1_000)
        await write(store, MemberUpdated, user="alice", role=Role.OWNER)
        await join(store, "bob", Role.MODERATOR)
        await leave(store, "carol")
        known = [await store.member(ROOM, user) for user in ("alice", "bob", "carol")]
    store = await lasting_stores.open()
    assert [await store.member(ROOM, user) for user in ("alice", "bob", "carol")] == known
    assert (await store.room(ROOM)).members == 2


async def test_members_are_listed_by_user_id(store):
    """Page by page, with how many there are in all, and with what is remembered of them."""
    users = ["zoë", "alice", "Bob", "bob", "carol", "李"]
    await make_room(store, ROOM, *users)
    await store.change_user("alice", name="Alice", avatar="a.png")
    found, after = [], ""
    while True:
        members, count, more = await store.members(ROOM, after=after, limit=2)
        assert count == 6
        found += members
        if not more:
            break
        after = found[-1].user
    assert [member.user for member in found] == sorted(users)
    assert found[1] == Member("alice", Role.MEMBER, AT, "Alice", "a.png")
    assert found[0] == Member("Bob", Role.MEMBER, AT)
    assert await store.members(ROOM, after="李") == ([], 6, False)


async def test_a_room_that_does_not_exist_has_no_members(store):
    """Asking for them is not an error."""
    assert await store.members("never") == ([], 0, False)
    assert await store.member("never", "alice") is None


async def test_a_room_takes_only_so_many_members(stores):
    """Beyond that a member.joined is a conflict; one who leaves makes room, a change of role needs none."""
    store = await stores.open(max_members=3)
    with pytest.raises(Conflict, match="at most 3 members"):
        await make_room(store, "big", "a", "b", "c", "d")
    assert await store.room("big") is None
    await make_room(store, ROOM, "a", "b")
    results = await asyncio.gather(*(join(store, user) for user in ("c", "d", "e")), return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["MemberJoined", "Conflict", "Conflict"]
    assert (await join(store, "a", Role.OWNER)).seq
    await leave(store, "b")
    assert (await join(store, "d")).seq
    assert [member.user for member in (await store.members(ROOM))[0]] == ["a", "c", "d"]


async def test_a_user_is_in_only_so_many_rooms(stores):
    """Beyond that a member.joined is a conflict, a room that is deleted or left makes room."""
    store = await stores.open(max_rooms=2)
    await make_room(store, "one", "alice")
    await make_room(store, "two", "alice")
    await make_room(store, "three", "bob")
    with pytest.raises(Conflict, match="at most 2 rooms"):
        await join(store, "alice", room="three")
    with pytest.raises(Conflict, match="at most 2 rooms"):
        await make_room(store, "four", "bob", "alice")
    assert await store.room("four") is None
    assert (await join(store, "alice", Role.OWNER, room="one")).seq
    await store.delete_room("one")
    assert (await join(store, "alice", room="three")).seq
    await leave(store, "alice", room="two")
    await make_room(store, "four", "alice")
    assert [each.room for each in await store.rooms_of("alice")] == ["four", "three"]


async def test_a_membership_is_known_as_it_is_now(store):
    """Also while others come and go, and while it is being read."""
    await make_room(store)

    async def come_and_go(user: str) -> None:
        for _ in range(10):
            looking = asyncio.create_task(store.member(ROOM, user))
            await join(store, user)
            assert (await store.member(ROOM, user)).role is Role.MEMBER
            await looking
            assert await store.member(ROOM, user) is not None
            await leave(store, user)
            assert await store.member(ROOM, user) is None

    await asyncio.gather(*(come_and_go(f"user{n}") for n in range(10)))
    assert await store.members(ROOM) == ([], 0, False)


async def test_what_is_remembered_of_a_user_is_what_was_given_last(store):
    """What is not given stays, what is given may be nothing; of others nothing is known."""
    assert await store.user("alice") is None
    first = User("alice", "Alice", None, revoked_before=5, banned_until=2**40)
    assert await store.change_user("alice", name="Alice", revoked_before=5, banned_until=2**40) == first
    assert await store.user("alice") == first
    second = User("alice", None, "a.png", revoked_before=5, banned_until=0)
    assert await store.change_user("alice", name=None, avatar="a.png", banned_until=0) == second
    assert await store.user("alice") == second
    assert await store.change_user("alice") == second
    assert await store.user("bob") is None


async def test_changes_of_a_user_at_the_same_time_do_not_undo_each_other(store):
    """A new name and a ban both hold."""
    changes = [{"name": "Alice"}, {"avatar": "a.png"}, {"revoked_before": 5}, {"banned_until": 6}]
    await asyncio.gather(*(store.change_user("alice", **change) for change in changes))
    assert await store.user("alice") == User("alice", "Alice", "a.png", 5, 6)


async def test_users_are_remembered_when_the_data_is_opened_again(lasting_stores):
    """A ban outlives a restart."""
    async with lasting_stores.make() as store:
        await store.change_user("alice", name="Alice", avatar="a.png", revoked_before=5, banned_until=6)
    store = await lasting_stores.open()
    assert await store.user("alice") == User("alice", "Alice", "a.png", 5, 6)
