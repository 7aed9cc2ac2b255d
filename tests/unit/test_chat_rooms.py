"""Rooms and members: who may do what, and what everybody is told."""

from __future__ import annotations

import pytest

from chatlab import lab
from hubbub.model import MAX_PAGE, Principal, Role, RoomKind
from hubbub.protocol import Create, Invite, Send


@pytest.fixture
async def at():
    async with lab() as made:
        yield made


@pytest.fixture
async def alice(at):
    return await at.tab("alice")


async def rooms_of(tab):
    return {room["room"]: room["role"] for room in (await tab.ok("sync"))["rooms"]}


async def test_who_makes_a_room_owns_it_and_its_members_are_told(at, alice):
    """The first members get the room on all their connections, live, without asking."""
    bob, other = await at.tab("bob"), await at.tab("bob")
    made = await alice.ok("create", kind="private", name="Plans", members=["bob"])
    assert made["role"] == "owner" and made["kind"] == "private"
    for tab in (bob, other):
        signal = tab.of("room")[-1]
        assert signal["joined"] and signal["state"]["role"] == "member" and signal["state"]["unread"] == 0
    seq = (await alice.ok("send", room=made["room"], text="hi"))["seq"]
    assert [entry["seq"] for entry in bob.entries] == [seq] == [made["head"] + 1]
    assert await rooms_of(bob) == {made["room"]: "member"}
    page = await bob.ok("history", room=made["room"])
    assert [entry["type"] for entry in page["entries"]][:3] == ["room.updated", "member.joined", "member.joined"]
    assert [entry["seq"] for entry in page["entries"]] == [1, 2, 3, 4]


async def test_a_room_cannot_be_made_twice(alice):
    """The second making is a conflict."""
    await alice.ok("create", kind="public", room="general")
    assert await alice.refused("create", kind="public", room="general") == "conflict"
    assert await alice.refused("create", kind="secret") == "bad_request"
    assert await alice.refused("create", kind="public", room="direct:x") == "bad_request"


async def test_a_direct_room_is_the_same_from_both_sides(at, alice):
    """Its id is made of its two members; asking again returns it; nobody comes in or goes."""
    bob = await at.tab("bob")
    made = await alice.ok("create", kind="direct", members=["bob"])
    again = await bob.ok("create", kind="direct", members=["alice"])
    assert again["room"] == made["room"] and made["room"].startswith("direct:")
    assert len(bob.of("room")) == 1
    await bob.ok("send", room=made["room"], text="psst")
    assert alice.of("message.created")[0]["text"] == "psst"
    assert await alice.refused("invite", room=made["room"], user="carol") == "conflict"
    assert await alice.refused("leave", room=made["room"]) == "conflict"
    assert await alice.refused("create", kind="direct", members=[]) == "bad_request"
    assert await alice.refused("create", kind="direct", members=["bob", "carol"]) == "bad_request"
    assert await alice.refused("create", kind="direct", members=["alice"]) == "bad_request"
    carol = await at.tab("carol")
    assert await carol.refused("join", room=made["room"]) == "not_found"
    assert await carol.refused("history", room=made["room"]) == "not_found"


async def test_joining_and_leaving_are_entries_that_the_others_see(at, alice):
    """Both are in the log; joining twice and leaving twice succeed."""
    await alice.ok("create", kind="public", room="general")
    bob = await at.tab("bob", name="Bob")
    joined = await bob.ok("join", room="general")
    assert joined["role"] == "member"
    await bob.ok("join", room="general")
    await alice.ok("send", room="general", text="welcome")
    assert [entry["seq"] for entry in bob.entries] == [joined["head"] + 1]
    await bob.ok("leave", room="general")
    await bob.ok("leave", room="general")
    await bob.ok("leave", room="nowhere")
    await alice.ok("send", room="general", text="bye")
    assert [entry["text"] for entry in bob.of("message.created")] == ["welcome"]
    assert bob.of("room")[-1] == {"type": "room", "room": "general", "joined": False}
    assert [(entry["type"], entry["user"]) for entry in alice.of("member.joined", "member.left")] == [
        ("member.joined", "bob"),
        ("member.left", "bob"),
    ]


async def test_a_private_room_is_entered_by_invitation_only(at, alice):
    """It does not exist for others; who is invited hears it at once."""
    bob = await at.tab("bob")
    await alice.ok("create", kind="private", room="den")
    for action in ("join", "history", "presence", "members", "subscribe"):
        assert await bob.refused(action, room="den") == "not_found"
    await alice.ok("invite", room="den", user="bob")
    await alice.ok("invite", room="den", user="bob")
    await alice.ok("send", room="den", text="hi")
    assert [entry["text"] for entry in bob.of("message.created")] == ["hi"]


async def test_ranks_rule_who_removes_whom(at, alice):
    """A moderator removes members, not moderators; an owner removes anybody; a member nobody."""
    await alice.ok("create", kind="public", room="general", members=["bob", "carol", "dave"])
    bob, carol, dave = [await at.tab(user) for user in ("bob", "carol", "dave")]
    await alice.ok("role", room="general", user="bob", role="moderator")
    await alice.ok("role", room="general", user="carol", role="moderator")
    assert await dave.refused("kick", room="general", user="bob") == "forbidden"
    assert await bob.refused("kick", room="general", user="carol") == "forbidden"
    assert await bob.refused("kick", room="general", user="alice") == "forbidden"
    assert await bob.refused("role", room="general", user="dave", role="reader") == "forbidden"
    await bob.ok("kick", room="general", user="dave")
    await bob.ok("kick", room="general", user="nobody")
    await alice.ok("kick", room="general", user="carol")
    await alice.ok("send", room="general", text="x")
    assert dave.of("message.created") == carol.of("message.created") == []
    assert await dave.refused("send", room="general", text="x") == "not_a_member"
    assert [entry["role"] for entry in bob.of("member.updated")] == ["moderator", "moderator"]


async def test_nobody_gives_a_role_above_his_own(at, alice):
    """A member invites members and readers, and no moderators."""
    await alice.ok("create", kind="private", room="den", members=["bob"])
    bob = await at.tab("bob")
    assert await bob.refused("invite", room="den", user="carol", role="moderator") == "forbidden"
    await bob.ok("invite", room="den", user="carol", role="reader")
    carol = await at.tab("carol")
    assert await carol.refused("send", room="den", text="x") == "forbidden"
    assert await carol.refused("invite", room="den", user="dave") == "forbidden"
    assert await alice.refused("role", room="den", user="nobody", role="member") == "not_found"
    await alice.ok("role", room="den", user="carol", role="member")
    await carol.ok("send", room="den", text="x")


async def test_members_come_in_pages_with_their_names(at, alice):
    """By user id, with the number of all."""
    await at.tab("bob", name="Bob B.")
    await alice.ok("create", kind="private", room="den", members=["bob", "carol", "dave"])
    page = await alice.ok("members", room="den", limit=2)
    assert [member["user"] for member in page["members"]] == ["alice", "bob"]
    assert page["members"][1]["name"] == "Bob B."
    assert (page["count"], page["has_more"]) == (4, True)
    page = await alice.ok("members", room="den", after="bob", limit=MAX_PAGE)
    assert [member["user"] for member in page["members"]] == ["carol", "dave"]
    assert not page["has_more"]


async def test_public_rooms_are_listed_and_others_are_not(at, alice):
    """`rooms` is for those who look for a room to join."""
    await alice.ok("create", kind="public", room="b", name="Bees")
    await alice.ok("create", kind="public", room="a")
    await alice.ok("create", kind="private", room="c")
    page = await (await at.tab("bob")).ok("rooms")
    assert [room["id"] for room in page["rooms"]] == ["a", "b"]
    assert page["rooms"][1]["name"] == "Bees" and page["rooms"][1]["members"] == 1


async def test_the_backend_may_do_everything(at, alice):
    """With the scope `server` rooms are made for others, posts are made as anybody, and no rank is in the way."""
    system = Principal("system", 2**40, scopes=("server",))
    await at.chat.perform("create", Create(kind=RoomKind.PRIVATE, room="orders", members=["alice"]), system)
    await at.chat.perform("send", Send(room="orders", text="shipped"), system)
    await at.chat.perform("invite", Invite(room="orders", user="bob", role=Role.OWNER), system)
    assert [entry["by"] for entry in alice.of("message.created")] == ["system"]
    assert {member["user"] for member in (await alice.ok("members", room="orders"))["members"]} == {"alice", "bob"}


async def test_a_room_is_renamed_and_deleted_and_its_members_are_told(at, alice):
    """A deleted room is gone for everybody; made again, it goes on counting."""
    await alice.ok("create", kind="private", room="den", name="Old")
    await at.chat.update_room("den", name="New")
    assert alice.of("room.updated")[-1]["room_name"] == "New"
    head = (await alice.ok("send", room="den", text="x"))["seq"]
    await at.chat.delete_room("den")
    assert alice.of("room")[-1] == {"type": "room", "room": "den", "joined": False}
    assert await alice.refused("history", room="den") == "not_found"
    assert "den" not in await rooms_of(alice)
    made = await alice.ok("create", kind="private", room="den")
    assert made["head"] > head
    page = await alice.ok("history", room="den")
    assert all(entry["seq"] > head for entry in page["entries"])
