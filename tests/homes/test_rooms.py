"""Rooms, in every home: who sees them, who may do what in them, and what becomes of those who are removed."""

from __future__ import annotations

import pytest

from homelab import Home, entry, fresh, heard, signal_of
from live import Wire


async def code(wire: Wire, action: str, **fields: object) -> str:
    """The error code that an action gets; `ok` for none."""
    return str((await wire.ask(action, **fields)).get("code", "ok"))


async def test_a_public_room_is_open(home: Home) -> None:
    """It is listed and read by everybody; one joins to write, and leaves."""
    room, ann, bob = fresh("square"), fresh("ann"), fresh("bob")
    async with await home.connect(ann) as owner, await home.connect(bob) as guest:
        await owner.ok("sync")
        made = await owner.ok("create", kind="public", room=room, name="Square")
        assert (made["role"], made["kind"], made["name"]) == ("owner", "public", "Square")
        assert await code(owner, "create", kind="public", room=room) == "conflict"
        listed = (await guest.ok("rooms", after=room[:-1], limit=200))["rooms"]
        assert room in [each["id"] for each in listed]
        assert (await guest.ok("history", room=room))["head"] == made["head"]
        assert await code(guest, "send", room=room, text="hi") == "not_a_member"
        joined = await guest.ok("join", room=room)
        assert (joined["role"], (await entry(owner, room, joined["head"]))["type"]) == ("member", "member.joined")
        await guest.ok("send", room=room, text="hi")
        members = await guest.ok("members", room=room)
        assert {each["user"]: each["role"] for each in members["members"]} == {ann: "owner", bob: "member"}
        left = await guest.ok("leave", room=room)
        assert (await entry(owner, room, left["head"]))["type"] == "member.left"
        assert await code(guest, "leave", room=room) == "ok"
        assert await code(guest, "send", room=room, text="hi") == "not_a_member"


async def test_one_can_listen_without_joining(home: Home) -> None:
    """`subscribe` hears a public room on that connection and makes no member; `unsubscribe` ends it."""
    room = fresh("stage")
    async with await home.connect(fresh("ann")) as ann, await home.connect(fresh("bob")) as bob:
        await ann.ok("create", kind="public", room=room)
        await bob.ok("sync")
        head = (await bob.ok("subscribe", room=room))["head"]
        first = await ann.ok("send", room=room, text="welcome")
        assert first["seq"] == head + 1
        assert (await entry(bob, room, first["seq"]))["text"] == "welcome"
        assert (await bob.ok("members", room=room))["count"] == 1
        await bob.ok("unsubscribe", room=room)
        second = await ann.ok("send", room=room, text="unheard")
        await bob.ok("join", room=room)
        third = await ann.ok("send", room=room, text="heard")
        await entry(bob, room, third["seq"])
        assert second["seq"] not in [each["seq"] for each in heard(bob, room)]


async def test_a_private_room_does_not_exist_for_others(home: Home) -> None:
    """Who is not invited gets `not_found` for all; who is hears of it and listens at once, until he is kicked."""
    room, ann, bob = fresh("vault"), fresh("ann"), fresh("bob")
    async with await home.connect(ann) as owner, await home.connect(bob) as guest:
        await guest.ok("sync")
        await owner.ok("create", kind="private", room=room, name="Vault")
        for action, fields in (
            ("history", {}),
            ("send", {"text": "x"}),
            ("join", {}),
            ("subscribe", {}),
            ("members", {}),
            ("presence", {}),
            ("invite", {"user": bob}),
        ):
            assert await code(guest, action, room=room, **fields) == "not_found", action
        assert room not in [each["id"] for each in (await guest.ok("rooms", after=room[:-1]))["rooms"]]
        await owner.ok("invite", room=room, user=bob)
        told = await signal_of(guest, "room", room=room, joined=True)
        assert (told["state"]["name"], told["state"]["role"]) == ("Vault", "member")
        said = await owner.ok("send", room=room, text="for us")
        assert (await entry(guest, room, said["seq"]))["text"] == "for us"
        await owner.ok("kick", room=room, user=bob)
        await signal_of(guest, "room", room=room, joined=False)
        unheard = await owner.ok("send", room=room, text="for me")
        assert await code(guest, "history", room=room) == "not_found"
        assert unheard["seq"] not in [each["seq"] for each in heard(guest, room)]
        assert room not in [each["room"] for each in (await guest.ok("sync"))["rooms"]]


async def test_a_direct_room_is_the_same_from_both_sides(home: Home) -> None:
    """Its id is made of its two members, whoever creates it; for a third it does not exist."""
    ann, bob = fresh("ann"), fresh("bob")
    async with (
        await home.connect(ann) as one,
        await home.connect(bob) as two,
        await home.connect(fresh("eve")) as third,
    ):
        await one.ok("sync")
        await two.ok("sync")
        made = await one.ok("create", kind="direct", members=[bob])
        assert (await two.ok("create", kind="direct", members=[ann]))["room"] == made["room"]
        said = await two.ok("send", room=made["room"], text="just us")
        assert (await entry(one, made["room"], said["seq"]))["by"] == bob
        assert await code(third, "history", room=made["room"]) == "not_found"
        assert await code(one, "create", kind="direct", members=[ann]) == "bad_request"
        assert await code(one, "create", kind="direct", members=[bob, "x"]) == "bad_request"


@pytest.mark.parametrize("kind", ["public", "private"])
async def test_a_role_says_what_one_may(home: Home, kind: str) -> None:
    """Readers read, members write and invite, moderators remove words and people below them, owners give roles."""
    room = fresh("board")
    ann, ben, cat, dan = (fresh(name) for name in ("ann", "ben", "cat", "dan"))
    async with (
        await home.connect(ann) as owner,
        await home.connect(ben) as moderator,
        await home.connect(cat) as member,
        await home.connect(dan) as reader,
    ):
        await owner.ok("create", kind=kind, room=room)
        for user, role in ((ben, "moderator"), (cat, "member"), (dan, "reader")):
            await owner.ok("invite", room=room, user=user, role=role)
        said = await member.ok("send", room=room, text="rude")
        assert (await reader.ok("history", room=room, limit=1))["entries"][0]["text"] == "rude"
        assert await code(reader, "send", room=room, text="x") == "forbidden"
        assert await code(reader, "react", room=room, target=said["seq"], reaction="x") == "forbidden"
        assert await code(member, "kick", room=room, user=dan) == "forbidden"
        assert await code(member, "invite", room=room, user="e", role="moderator") == "forbidden"
        assert await code(moderator, "role", room=room, user=cat, role="moderator") == "forbidden"
        assert await code(moderator, "edit", room=room, target=said["seq"], text="nice") == "forbidden"
        await moderator.ok("delete", room=room, target=said["seq"])
        assert (await member.ok("history", room=room, around=said["seq"], limit=1))["entries"][0]["deleted"]
        assert await code(moderator, "kick", room=room, user=ann) == "forbidden"
        await moderator.ok("kick", room=room, user=cat)
        await owner.ok("role", room=room, user=dan, role="member")
        page = await owner.ok("history", room=room, limit=1)
        assert {"type": "member.updated", "user": dan, "role": "member"}.items() <= page["entries"][0].items()
        await reader.ok("send", room=room, text="now I may")


async def test_a_token_can_grant_a_room(home: Home) -> None:
    """A room in the token is there without any call before, for those whose tokens have it, with the role it says."""
    room = fresh("order")
    async with (
        await home.connect(fresh("ann"), rooms={room: "member"}) as ann,
        await home.connect(fresh("bob"), rooms={room: "reader"}) as bob,
        await home.connect(fresh("eve")) as eve,
    ):
        assert [(each["room"], each["role"]) for each in (await ann.ok("sync"))["rooms"]] == [(room, "member")]
        await bob.ok("sync")
        sent = await ann.ok("send", room=room, text="where is it?")
        assert (await entry(bob, room, sent["seq"]))["text"] == "where is it?"
        assert await code(bob, "send", room=room, text="x") == "forbidden"
        assert await code(eve, "history", room=room) == "not_found"
