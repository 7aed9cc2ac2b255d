"""Rooms and members: who may do what, and what everybody is told."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from chatlab import lab
from doubles import settle
from hubbub.errors import NotFound, Unavailable
from hubbub.model import MAX_PAGE, Principal, Role, RoomKind
from hubbub.protocol import Create, Invite, Send, SetRole


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


class Gate:
    """Holds up every call of one of the store's functions from `shut` on, until `open`."""

    def __init__(self, monkeypatch, store, name):
        self._real, self._opened, self._reached = getattr(store, name), asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(store, name, self._pass)

    async def _pass(self, *args, **options):
        result = await self._real(*args, **options)
        self._reached.set()
        await self._opened.wait()
        return result

    @asynccontextmanager
    async def held(self, asking):
        """Begin `asking`, hold it up where it comes to the gate, let it go on at the end; yields its task."""
        task = asyncio.ensure_future(asking)
        await self._reached.wait()
        yield task
        self._opened.set()
        await task
        await settle()


async def test_who_is_removed_while_he_resumes_hears_nothing_more(at, alice, monkeypatch):
    """A kick in the middle of a `sync` holds: the room is not in the reply, and nothing of it comes live."""
    await alice.ok("create", kind="private", room="den", members=["bob"])
    await alice.ok("send", room="den", text="before")
    bob = await at.tab("bob", sync=False)
    async with Gate(monkeypatch, at.chat.store, "page").held(bob.ok("sync", rooms={"den": 1})) as syncing:
        await alice.ok("kick", room="den", user="bob")
    synced = await syncing
    assert (synced["rooms"], synced["entries"], synced["more"], synced["reset"]) == ([], [], [], [])
    await alice.ok("send", room="den", text="after")
    assert bob.entries == []


async def test_a_room_deleted_while_somebody_resumes_is_left_out(at, alice, monkeypatch):
    """The rest of the `sync` is answered, and a room made later under that id is not his."""
    await alice.ok("create", kind="public", room="den", members=["bob"])
    await alice.ok("create", kind="public", room="hall", members=["bob"])
    bob = await at.tab("bob", sync=False)
    async with Gate(monkeypatch, at.chat.store, "rooms_of").held(bob.ok("sync", rooms={"den": 1})) as syncing:
        await at.chat.delete_room("den")
    assert [room["room"] for room in (await syncing)["rooms"]] == ["hall"]
    await alice.ok("create", kind="private", room="den")
    await alice.ok("send", room="den", text="among us")
    assert bob.of("message.created") == []


async def test_a_room_deleted_while_its_log_is_read_is_left_out(at, alice, monkeypatch):
    """A `sync` that finds a room gone goes on with the others."""
    await alice.ok("create", kind="public", room="den", members=["bob"])
    await alice.ok("create", kind="public", room="hall", members=["bob"])
    bob = await at.tab("bob", sync=False)
    real = at.chat.store.page

    async def page(room, **where):
        if room == "den":
            await at.chat.delete_room("den")
        return await real(room, **where)

    monkeypatch.setattr(at.chat.store, "page", page)
    synced = await bob.ok("sync", rooms={"den": 1, "hall": 1})
    assert [room["room"] for room in synced["rooms"]] == ["hall"]
    assert {entry["room"] for entry in synced["entries"]} == {"hall"}


async def test_who_is_invited_while_he_resumes_is_in(at, alice, monkeypatch):
    """An invitation in the middle of a `sync` counts: the room is in the reply, and comes live once."""
    await alice.ok("create", kind="private", room="den")
    await alice.ok("create", kind="public", room="hall", members=["bob"])
    bob = await at.tab("bob", sync=False)
    async with Gate(monkeypatch, at.chat.store, "page").held(bob.ok("sync", rooms={"hall": 1})) as syncing:
        await alice.ok("invite", room="den", user="bob")
    assert "hall" in [room["room"] for room in (await syncing)["rooms"]]
    assert "den" in await rooms_of(bob)
    await alice.ok("send", room="den", text="hi")
    assert [entry["text"] for entry in bob.of("message.created")] == ["hi"]
    carol = await at.tab("carol", sync=False)
    real = at.chat.store.rooms_of
    asked = []

    async def invited_after_the_first_look(user, also=()):
        states = await real(user, also)
        asked.append(user)
        if len(asked) == 1:
            await alice.ok("invite", room="den", user="carol")
        return states

    monkeypatch.setattr(at.chat.store, "rooms_of", invited_after_the_first_look)
    assert [room["room"] for room in (await carol.ok("sync"))["rooms"]] == ["den"]


async def test_who_is_removed_and_invited_at_once_hears_the_room_if_he_is_a_member_in_the_end(at, alice, monkeypatch):
    """Also when two processes tell the fan-out of it in the other order than they wrote it."""
    await alice.ok("create", kind="private", room="den", members=["bob"])
    bob = await at.tab("bob")

    def slower_than(action, call):
        real = getattr(at.chat.fanout, call)

        async def late(*args):
            monkeypatch.setattr(at.chat.fanout, call, real)
            await alice.ok(action, room="den", user="bob")
            await real(*args)

        monkeypatch.setattr(at.chat.fanout, call, late)

    slower_than("invite", "unfollow")
    await alice.ok("kick", room="den", user="bob")
    await alice.ok("send", room="den", text="in")
    await alice.ok("kick", room="den", user="bob")
    slower_than("kick", "follow")
    await alice.ok("invite", room="den", user="bob")
    await alice.ok("send", room="den", text="out")
    assert [entry["text"] for entry in bob.of("message.created")] == ["in"]
    assert bob.of("room")[-1]["joined"] is False


async def test_a_failed_leaving_changes_nothing(at, alice, monkeypatch):
    """When the store cannot write the end of a membership, the member still hears the room."""
    await alice.ok("create", kind="public", room="general", members=["bob"])
    bob = await at.tab("bob")
    real = at.chat.store.append

    async def away(entry):
        raise Unavailable

    monkeypatch.setattr(at.chat.store, "append", away)
    assert await bob.refused("leave", room="general") == "unavailable"
    assert await alice.refused("kick", room="general", user="bob") == "unavailable"
    monkeypatch.setattr(at.chat.store, "append", real)
    await alice.ok("send", room="general", text="still here?")
    assert [entry["text"] for entry in bob.of("message.created")] == ["still here?"]
    assert bob.of("room") == []


async def test_leaving_says_where_the_room_then_is(at, alice):
    """The head in the answer is the leaver's own last entry, however much was written meanwhile."""
    await alice.ok("create", kind="public", room="general", members=["bob"])
    bob = await at.tab("bob")
    *_, left = await asyncio.gather(
        *(alice.ok("send", room="general", text=str(n)) for n in range(5)), bob.ok("leave", room="general")
    )
    assert left["head"] == alice.of("member.left")[-1]["seq"]


async def test_who_only_watched_a_public_room_hears_no_more_when_it_turns_private(at, alice):
    """Watchers are out and told so; members, and those whose tokens grant the room, stay."""
    await alice.ok("create", kind="public", room="general", members=["bob"])
    bob, granted = await at.tab("bob"), await at.tab("carol", rooms={"general": "reader"})
    watcher = await at.tab("dave")
    await watcher.ok("subscribe", room="general")
    await at.chat.update_room("general", kind=RoomKind.PRIVATE)
    assert watcher.of("room") == [{"type": "room", "room": "general", "joined": False}]
    await alice.ok("send", room="general", text="among us")
    assert [len(tab.of("message.created")) for tab in (bob, granted, watcher)] == [1, 1, 0]
    assert await watcher.refused("subscribe", room="general") == "not_found"
    await at.chat.update_room("general", kind=RoomKind.PUBLIC)
    await watcher.ok("subscribe", room="general")


async def test_who_subscribes_while_a_room_turns_private_does_not_listen(at, alice, monkeypatch):
    """The room does not exist for him, whenever the change falls into his asking."""
    await alice.ok("create", kind="public", room="general")
    watcher = await at.tab("dave")
    real = at.chat.access.require

    async def allowed_just_before(by, room, permission):
        role = await real(by, room, permission)
        await at.chat.update_room("general", kind=RoomKind.PRIVATE)
        return role

    monkeypatch.setattr(at.chat.access, "require", allowed_just_before)
    assert await watcher.refused("subscribe", room="general") == "not_found"
    monkeypatch.setattr(at.chat.access, "require", real)
    await alice.ok("send", room="general", text="among us")
    assert watcher.of("message.created") == []


async def test_nobody_hears_a_deleted_room_that_is_made_again(at, alice):
    """Neither its watchers nor those whose tokens granted it, and each is told once that it is gone."""
    await alice.ok("create", kind="public", room="general", members=["bob"])
    tabs = [await at.tab("bob"), await at.tab("carol", rooms={"general": "member"}), await at.tab("dave")]
    await tabs[-1].ok("subscribe", room="general")
    await at.chat.delete_room("general")
    assert [tab.of("room") for tab in tabs] == [[{"type": "room", "room": "general", "joined": False}]] * 3
    await alice.ok("create", kind="private", room="general")
    await alice.ok("send", room="general", text="among us")
    assert [tab.of("message.created") for tab in tabs] == [[], [], []]
    assert await at.chat.directory.listeners("general") == 1


async def test_a_new_member_hears_everything_after_the_head_he_is_told(at, alice, monkeypatch):
    """However many messages fall into an invitation, live entries begin right after the told head, and are unread."""
    await alice.ok("create", kind="private", room="den")
    bob = await at.tab("bob")
    real = at.chat.store.mark_read

    async def meanwhile(*args):
        await alice.ok("send", room="den", text="meanwhile")
        return await real(*args)

    monkeypatch.setattr(at.chat.store, "mark_read", meanwhile)
    await asyncio.gather(
        *(alice.ok("send", room="den", text="x") for _ in range(3)),
        alice.ok("invite", room="den", user="bob"),
        *(alice.ok("send", room="den", text="x") for _ in range(3)),
    )
    monkeypatch.setattr(at.chat.store, "mark_read", real)
    await alice.ok("send", room="den", text="last")
    head = bob.of("room")[0]["state"]["head"]
    last = alice.entries[-1]["seq"]
    assert [entry["seq"] for entry in bob.entries if entry["seq"] > head] == list(range(head + 1, last + 1))
    assert [room["unread"] for room in (await bob.ok("sync"))["rooms"]] == [last - head]


async def test_a_room_may_be_left_by_its_last_owner(at, alice):
    """Nobody is kept in; the room goes on without an owner until the backend makes one."""
    await alice.ok("create", kind="private", room="den", members=["bob"])
    bob = await at.tab("bob")
    await alice.ok("leave", room="den")
    await bob.ok("send", room="den", text="and now?")
    assert await bob.refused("role", room="den", user="bob", role="owner") == "forbidden"
    system = Principal("system", 2**40, scopes=("server",))
    await at.chat.perform("role", SetRole(room="den", user="bob", role=Role.OWNER), system)
    await bob.ok("role", room="den", user="bob", role="moderator")


async def test_a_direct_room_made_from_both_sides_at_once_is_one(at, alice):
    """Both get the same room, and each is told of it once."""
    bob = await at.tab("bob")
    one, two = await asyncio.gather(
        alice.ok("create", kind="direct", members=["bob"]), bob.ok("create", kind="direct", members=["alice"])
    )
    assert one["room"] == two["room"]
    assert (await alice.ok("members", room=one["room"]))["count"] == 2
    await alice.ok("send", room=one["room"], text="psst")
    assert len(bob.of("message.created")) == len(alice.of("message.created")) == 1


async def test_a_direct_room_with_somebody_who_was_never_here_waits_for_him(at, alice):
    """The chat knows users by their tokens only: who has not come yet finds what was said to him."""
    made = await alice.ok("create", kind="direct", members=["nobody yet"])
    await alice.ok("send", room=made["room"], text="welcome")
    late = await at.tab("nobody yet", sync=False)
    [room] = (await late.ok("sync"))["rooms"]
    assert (room["room"], room["unread"]) == (made["room"], 1)


async def test_a_token_does_not_make_a_third_member_of_a_direct_room(at, alice):
    """A grant lets him read and write while it lasts, and the room keeps its two members."""
    made = await alice.ok("create", kind="direct", members=["bob"])
    carol = await at.tab("carol", rooms={made["room"]: "member"})
    assert await carol.refused("join", room=made["room"]) == "conflict"
    assert (await alice.ok("members", room=made["room"]))["count"] == 2


async def test_the_backend_is_told_of_a_room_that_is_not_there(at):
    """With the scope `server` everything is allowed that exists."""
    backend = await at.tab("backend", scopes=["server"])
    for action in ("history", "members", "presence", "subscribe", "typing"):
        assert await backend.refused(action, room="nowhere") == "not_found"
    assert await backend.refused("read", room="nowhere", seq=1) == "not_found"


async def test_a_role_that_was_lowered_counts_from_the_next_action_on(at, alice):
    """On all connections that are open; the reader still hears."""
    await alice.ok("create", kind="private", room="den", members=["bob"])
    tabs = [await at.tab("bob"), await at.tab("bob")]
    await tabs[0].ok("send", room="den", text="x")
    await alice.ok("role", room="den", user="bob", role="reader")
    for tab in tabs:
        for action, fields in (("send", {"text": "x"}), ("typing", {}), ("invite", {"user": "carol"})):
            assert await tab.refused(action, room="den", **fields) == "forbidden"
    await alice.ok("send", room="den", text="y")
    assert [tab.entries[-1]["text"] for tab in tabs] == ["y", "y"]


async def test_a_granted_role_counts_like_a_membership_while_the_token_holds(at, alice):
    """Who has it invites up to his rank, may stay by joining, and cannot be removed before he has."""
    await alice.ok("create", kind="private", room="den")
    bob = await at.tab("bob", rooms={"den": "moderator"}, ttl_s=100)
    assert await bob.refused("invite", room="den", user="carol", role="owner") == "forbidden"
    await bob.ok("invite", room="den", user="carol")
    await bob.ok("kick", room="den", user="carol")
    await alice.ok("kick", room="den", user="bob")
    await bob.ok("send", room="den", text="still here")
    assert (await alice.ok("members", room="den"))["count"] == 1
    assert (await bob.ok("join", room="den"))["role"] == "moderator"
    await bob.ok("auth", token=at.token("bob"))
    await bob.ok("send", room="den", text="here to stay")
    await alice.ok("kick", room="den", user="bob")
    assert await bob.refused("send", room="den", text="gone") == "not_found"


@pytest.mark.parametrize("action", ["kick", "leave"])
async def test_who_is_out_of_a_room_hears_it_no_more_once_that_is_asked_again(at, alice, monkeypatch, action):
    """Where the fan-out could not be told at first; whoever hears the room by his token's leave still does."""
    bob = await at.tab("bob")
    await alice.ok("create", kind="private", room="den", members=["bob"])
    carol = await at.tab("carol", rooms={"den": "reader"})
    who, fields = (alice, {"user": "bob"}) if action == "kick" else (bob, {})
    real = at.chat.fanout.unfollow

    async def away(user, room, after=None):
        raise Unavailable

    monkeypatch.setattr(at.chat.fanout, "unfollow", away)
    assert await who.refused(action, room="den", **fields) == "unavailable"
    monkeypatch.setattr(at.chat.fanout, "unfollow", real)
    await who.ok(action, room="den", **fields)
    await alice.ok("kick", room="den", user="carol")
    await alice.ok("send", room="den", text="without bob")
    assert bob.of("message.created") == []
    assert bob.of("room")[-1] == {"type": "room", "room": "den", "joined": False}
    assert len(carol.of("message.created")) == 1


async def test_a_room_is_not_deleted_while_nobody_can_be_asked_who_listens(at, alice, monkeypatch):
    """Nothing is done, and it can be asked again."""
    await alice.ok("create", kind="private", room="den")
    real = at.chat.directory.audience

    async def away(room):
        raise Unavailable

    monkeypatch.setattr(at.chat.directory, "audience", away)
    with pytest.raises(Unavailable):
        await at.chat.delete_room("den")
    monkeypatch.setattr(at.chat.directory, "audience", real)
    await alice.ok("send", room="den", text="still here")
    assert [signal["joined"] for signal in alice.of("room")] == [True]
    await at.chat.delete_room("den")
    assert alice.of("room")[1:] == [{"type": "room", "room": "den", "joined": False}]


@pytest.mark.parametrize("failing", ["audience", "unfollow"])
async def test_who_could_not_be_told_of_a_rooms_end_is_told_when_it_is_asked_again(at, alice, monkeypatch, failing):
    """The room is gone by then; nobody who listened to it hears one that is made later under its id."""
    await alice.ok("create", kind="public", room="general", members=["bob"])
    bob, late = await at.tab("bob"), await at.tab("dave")
    store, fanout = at.chat.store, at.chat.fanout
    delete_room, call = store.delete_room, getattr(fanout, failing)

    async def away(*args):
        raise Unavailable

    async def deleted(room):
        await late.ok("subscribe", room=room)
        monkeypatch.setattr(fanout, failing, away)
        return await delete_room(room)

    monkeypatch.setattr(store, "delete_room", deleted)
    with pytest.raises(Unavailable):
        await at.chat.delete_room("general")
    monkeypatch.setattr(store, "delete_room", delete_room)
    monkeypatch.setattr(fanout, failing, call)
    with pytest.raises(NotFound):
        await at.chat.delete_room("general")
    for tab in (bob, late, alice):
        assert [signal["joined"] for signal in tab.of("room")][-1:] == [False]
    await alice.ok("create", kind="private", room="general")
    await alice.ok("send", room="general", text="among us")
    assert bob.of("message.created") == late.of("message.created") == []


@pytest.mark.parametrize("action", ["join", "invite", "create"])
async def test_who_came_in_without_an_answer_hears_the_room_once_that_is_asked_again(at, alice, monkeypatch, action):
    """Where the store wrote it and could not say so: whoever asks again is told that he is in, and is."""
    await alice.ok("create", kind="public", room="den")
    bob = await at.tab("bob")
    who, fields = {
        "join": (bob, {"room": "den"}),
        "invite": (alice, {"room": "den", "user": "bob"}),
        "create": (bob, {"kind": "direct", "members": ["alice"]}),
    }[action]
    name = "create_room" if action == "create" else "append"
    real = getattr(at.chat.store, name)

    async def unheard(*args, **options):
        await real(*args, **options)
        raise Unavailable

    monkeypatch.setattr(at.chat.store, name, unheard)
    assert await who.refused(action, **fields) == "unavailable"
    monkeypatch.setattr(at.chat.store, name, real)
    again = await who.ok(action, **fields)
    room = again.get("room", "den")
    told = await alice.ok("send", room=room, text="welcome")
    await at.tick()  # the entry that nobody handed out is looked for
    await at.chat.store.ping()
    await settle()
    assert [entry["seq"] for entry in bob.of("message.created")] == [told["seq"]]
    assert [entry["seq"] for entry in alice.of("message.created")] == [told["seq"]]
    if action != "create":
        await alice.ok("kick", room=room, user="bob")
        await alice.ok("send", room=room, text="without him")
        assert len(bob.of("message.created")) == 1


async def test_members_of_a_room_that_is_made_again_while_its_end_is_told_hear_it(at, alice, monkeypatch):
    """Whichever is told first: its end, or its new beginning, of which another process knows."""
    await alice.ok("create", kind="public", room="general", members=["bob", "carol"])
    bob, carol = await at.tab("bob"), await at.tab("carol")
    real = at.chat.fanout.unfollow

    async def late(user, room, after=None):
        monkeypatch.setattr(at.chat.fanout, "unfollow", real)
        await alice.ok("create", kind="private", room="general", members=["bob"])
        await real(user, room, after)

    monkeypatch.setattr(at.chat.fanout, "unfollow", late)
    await at.chat.delete_room("general")
    await alice.ok("send", room="general", text="among us")
    assert [len(tab.of("message.created")) for tab in (alice, bob, carol)] == [1, 1, 0]
    assert [tab.of("room")[-1]["joined"] for tab in (alice, bob, carol)] == [True, True, False]
