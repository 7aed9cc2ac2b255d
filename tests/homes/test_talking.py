"""Talking, in every home: what is said arrives everywhere, once and in order, and stays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from homelab import Home, entry, fresh, heard, signal_of
from live import BOUND_S, Wire


class Talk(NamedTuple):
    """Two users in a public room, both of whom listen."""

    home: Home
    room: str
    ann: Wire
    bob: Wire
    names: tuple[str, str]


@asynccontextmanager
async def talk(home: Home) -> AsyncIterator[Talk]:
    """Ann, who made the room, and Bob, who came."""
    room, names = fresh("tea"), (fresh("ann"), fresh("bob"))
    async with await home.connect(names[0], name="Ann") as ann, await home.connect(names[1], name="Bob") as bob:
        await ann.ok("sync")
        await ann.ok("create", kind="public", room=room, name="Tea")
        await bob.ok("sync")
        joined = await bob.ok("join", room=room)
        await entry(ann, room, joined["head"])
        yield Talk(home, room, ann, bob, names)


async def test_what_one_says_everybody_hears(home: Home) -> None:
    """An entry is the same object live, for the sender too, and in history; the `ok` says where it stands."""
    async with talk(home) as (_, room, ann, bob, names):
        before = time.time()
        sent = await ann.ok("send", room=room, text="Hello!", data={"mood": [1, None]}, client_id="c-1")
        assert (sent["room"], sent["client_id"]) == (room, "c-1")
        assert before - 60 < sent["at"] / 1_000 < time.time() + 60
        mine, theirs = await entry(ann, room, sent["seq"]), await entry(bob, room, sent["seq"])
        assert mine == theirs
        assert mine["id"] == sent["id"]
        fields = {"type": "message.created", "by": names[0], "name": "Ann", "text": "Hello!", "client_id": "c-1"}
        assert fields.items() <= mine.items()
        assert mine["data"] == {"mood": [1, None]}
        assert (await bob.ok("history", room=room, limit=1))["entries"] == [mine]


async def test_a_room_is_one_log_for_all(home: Home) -> None:
    """Two who write at the same time get seqs without gaps, and both hear all of it in the same order."""
    async with talk(home) as (_, room, ann, bob, _names):
        head = (await ann.ok("history", room=room, limit=1))["head"]

        async def say(wire: Wire, name: str) -> list[int]:
            return [(await wire.ok("send", room=room, text=f"{name} {n}"))["seq"] for n in range(8)]

        of_ann, of_bob = await asyncio.gather(say(ann, "a"), say(bob, "b"))
        assert sorted(of_ann + of_bob) == list(range(head + 1, head + 17))
        for wire in (ann, bob):
            await entry(wire, room, head + 16)
            assert [each["seq"] for each in heard(wire, room) if each["seq"] > head] == list(range(head + 1, head + 17))
        page = await ann.ok("history", room=room, after=head)
        assert page["entries"] == [each for each in heard(bob, room) if each["seq"] > head]


async def test_a_message_is_stored_once(home: Home) -> None:
    """The same `client_id` of the same user, again and from two connections at once, returns the first result."""
    async with talk(home) as (_, room, ann, bob, names), await home.connect(names[0]) as other:
        asks = [wire.ok("send", room=room, text=f"try {n}", client_id="once") for n, wire in enumerate((ann, other))]
        first, second = await asyncio.gather(*asks)
        third = await ann.ok("send", room=room, text="later", client_id="once")
        assert {(each["seq"], each["id"]) for each in (first, second, third)} == {(first["seq"], first["id"])}
        theirs = await bob.ok("send", room=room, text="mine", client_id="once")
        assert theirs["seq"] > first["seq"]
        page = await bob.ok("history", room=room)
        assert [each["seq"] for each in page["entries"] if each.get("client_id") == "once"] == [
            first["seq"],
            theirs["seq"],
        ]


async def test_messages_are_changed_by_entries(home: Home) -> None:
    """Edits, reactions and deletions are heard and are on the page; a deletion takes the words out of the log."""
    async with talk(home) as (_, room, ann, bob, names):
        first = await ann.ok("send", room=room, text="one")
        edited = await ann.ok("edit", room=room, target=first["seq"], text="two")
        added = await bob.ok("react", room=room, target=first["seq"], reaction="👍")
        assert (await bob.ok("react", room=room, target=first["seq"], reaction="👍"))["seq"] == 0
        assert (await entry(ann, room, edited["seq"]))["text"] == "two"
        assert (await entry(ann, room, added["seq"]))["by"] == names[1]
        page = await bob.ok("history", room=room, before=edited["seq"], limit=1)
        assert [each["type"] for each in page["changes"]] == ["message.edited", "reaction.added"]
        taken = await bob.ok("unreact", room=room, target=first["seq"], reaction="👍")
        assert (await entry(ann, room, taken["seq"]))["type"] == "reaction.removed"
        deleted = await ann.ok("delete", room=room, target=first["seq"])
        assert (await entry(bob, room, deleted["seq"]))["target"] == first["seq"]
        assert (await ann.ok("delete", room=room, target=first["seq"]))["seq"] == 0
        entries = (await bob.ok("history", room=room))["entries"]
        gone = [each for each in entries if each["seq"] in (first["seq"], edited["seq"])]
        assert [(each["deleted"], each.get("text")) for each in gone] == [(True, None), (True, None)]
        assert (await ann.ask("edit", room=room, target=first["seq"], text="x"))["code"] == "conflict"
        assert (await bob.ask("edit", room=room, target=added["seq"], text="x"))["type"] == "error"


async def test_replies_and_threads_belong_together(home: Home) -> None:
    """`reply_to` and `thread` are kept, and a thread can be read by itself."""
    async with talk(home) as (_, room, ann, bob, _names):
        root = (await ann.ok("send", room=room, text="root"))["seq"]
        await ann.ok("send", room=room, text="between")
        one = (await bob.ok("send", room=room, text="in it", thread=root, reply_to=root))["seq"]
        two = (await ann.ok("send", room=room, text="in it too", thread=root))["seq"]
        assert (await entry(ann, room, one))["reply_to"] == root
        page = await bob.ok("history", room=room, thread=root)
        assert [each["seq"] for each in page["entries"] if each["seq"] != root] == [one, two]


async def test_history_is_read_in_pages(home: Home) -> None:
    """The end, before, after and around a seq; pages follow on one another, and say whether there is more."""
    async with talk(home) as (_, room, ann, _bob, _names):
        for n in range(10):
            await ann.ok("send", room=room, text=str(n))

        async def page(**where: Any) -> tuple[list[int], bool]:
            found = await ann.ok("history", room=room, **where)
            assert found["head"] == 13
            return [each["seq"] for each in found["entries"]], found["has_more"]

        assert await page(limit=3) == ([11, 12, 13], True)
        assert await page(before=10, limit=3) == ([7, 8, 9], True)
        assert await page(before=3) == ([1, 2], False)
        assert await page(after=11) == ([12, 13], False)
        assert await page(after=2, limit=2) == ([3, 4], True)
        assert (await page(around=6, limit=5))[0] == [4, 5, 6, 7, 8]


async def test_reading_is_remembered(home: Home) -> None:
    """A read mark counts what is unread, moves forward only, and is told to those in the room."""
    async with talk(home) as (_, room, ann, bob, names):
        seqs = [(await ann.ok("send", room=room, text=str(n)))["seq"] for n in range(3)]

        async def unread() -> tuple[int, int]:
            (state,) = (await bob.ok("sync"))["rooms"]
            return state["read"], state["unread"]

        assert (await unread())[1] == 3
        await bob.ok("read", room=room, seq=seqs[1])
        told = await signal_of(ann, "read", room=room)
        assert (told["user"], told["seq"]) == (names[1], seqs[1])
        assert await unread() == (seqs[1], 1)
        await bob.ok("read", room=room, seq=seqs[0])
        assert await unread() == (seqs[1], 1)


async def test_typing_is_told_and_not_kept(home: Home) -> None:
    """Those in the room hear who types; it leaves no entry."""
    async with talk(home) as (_, room, ann, bob, names):
        head = (await ann.ok("history", room=room, limit=1))["head"]
        await bob.ok("typing", room=room)
        told = await signal_of(ann, "typing", room=room)
        assert (told["by"], told["name"], told["on"]) == (names[1], "Bob", True)
        assert (await ann.ok("history", room=room, limit=1))["head"] == head


async def test_presence_counts_users(home: Home) -> None:
    """Who listens is online, once however many connections he has; who has left for a while is not."""
    async with talk(home) as (_, room, ann, bob, names):
        async with await home.connect(names[1]) as second:
            await second.ok("sync")
            online = await ann.ok("presence", room=room)
            assert (sorted(online["online"]), online["count"]) == (sorted(names), 2)
        assert (await signal_of(ann, "presence", room=room, user=names[1], online=True))["count"] == 2
        await bob.socket.close()

        async def gone() -> bool:
            await home.minute()
            return bool((await ann.ok("presence", room=room))["count"] == 1)

        async with asyncio.timeout(2 * BOUND_S):
            while not await gone():
                await asyncio.sleep(0.5)
        told = await signal_of(ann, "presence", room=room, user=names[1], online=False)
        assert told["count"] == 1
        assert (await ann.ok("presence", room=room))["online"] == [names[0]]
