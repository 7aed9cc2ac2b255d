"""Coming back, in every home: what was missed is there, or the room is named."""

from __future__ import annotations

from typing import Any

from homelab import Home, entry, fresh, heard
from live import Wire


async def in_room(home: Home, kind: str = "public") -> tuple[Wire, Wire, str, str]:
    """Ann and Bob in a room, both synced; the room, and Bob's name."""
    room, bob = fresh("tea"), fresh("bob")
    one, two = await home.connect(fresh("ann")), await home.connect(bob)
    await one.ok("sync")
    await one.ok("create", kind=kind, room=room, members=[bob])
    await two.ok("sync")
    return one, two, room, bob


async def test_what_was_missed_comes_with_sync(home: Home) -> None:
    """After a break without a word, `sync` has all entries since, in order, and live ones follow on them."""
    ann, bob, room, name = await in_room(home, "private")
    async with ann:
        before = await ann.ok("send", room=room, text="before")
        await entry(bob, room, before["seq"])
        epoch = (await bob.ok("sync"))["epoch"]
        bob.socket.transport.abort()
        missed = [(await ann.ok("send", room=room, text=f"missed {n}"))["seq"] for n in range(5)]
        async with await home.connect(name) as again:
            synced = await again.ok("sync", epoch=epoch, rooms={room: before["seq"]})
            assert synced["epoch"] == epoch
            assert [each["seq"] for each in synced["entries"]] == missed
            assert [each["text"] for each in synced["entries"]] == [f"missed {n}" for n in range(5)]
            assert (synced["more"], synced["reset"]) == ([], [])
            (state,) = synced["rooms"]
            assert (state["head"], state["unread"]) == (missed[-1], 6)
            after = await ann.ok("send", room=room, text="after")
            await entry(again, room, after["seq"])
            assert [each["seq"] for each in heard(again, room)] == [after["seq"]]


async def test_a_room_without_news_has_none(home: Home) -> None:
    """Who has everything gets nothing, and is told where the room is."""
    ann, bob, room, _ = await in_room(home)
    async with ann, bob:
        head = (await ann.ok("send", room=room, text="all"))["seq"]
        synced = await bob.ok("sync", epoch=(await bob.ok("sync"))["epoch"], rooms={room: head})
        assert (synced["entries"], synced["more"], synced["reset"]) == ([], [], [])
        assert [each["head"] for each in synced["rooms"]] == [head]


async def test_what_is_too_much_for_one_answer_goes_on_in_history(home: Home) -> None:
    """An answer carries so much; the room is in `more`, and `history` goes on from the last entry to the head."""
    ann, bob, room, _ = await in_room(home)
    async with ann, bob:
        epoch = (await bob.ok("sync"))["epoch"]
        start = (await ann.ok("history", room=room, limit=1))["head"]
        for n in range(45):
            await ann.ok("send", room=room, text=f"{n:04d}" + "x" * 7_900)
        synced = await bob.ok("sync", epoch=epoch, rooms={room: start})
        assert synced["more"] == [room]
        seqs = [each["seq"] for each in synced["entries"]]
        assert 0 < len(seqs) < 45
        more = True
        while more:
            page = await bob.ok("history", room=room, after=seqs[-1], limit=200)
            seqs += [each["seq"] for each in page["entries"]]
            more = page["has_more"]
        assert seqs == list(range(start + 1, start + 46))


async def test_what_means_nothing_any_more_is_reset(home: Home) -> None:
    """Another epoch, or a place ahead of the log: the room is in `reset`, and no entries come of it."""
    ann, bob, room, _ = await in_room(home)
    async with ann, bob:
        epoch = (await bob.ok("sync"))["epoch"]
        head = (await ann.ok("send", room=room, text="x"))["seq"]
        cases: list[dict[str, Any]] = [
            {"epoch": "of-another-time", "rooms": {room: head - 1}},
            {"epoch": epoch, "rooms": {room: head + 1_000}},
        ]
        for asked in cases:
            synced = await bob.ok("sync", **asked)
            assert (synced["reset"], synced["entries"]) == ([room], [])


async def test_a_room_that_is_ones_own_no_more_is_not_there(home: Home) -> None:
    """Who was removed while he was away finds the room neither in `rooms` nor among the entries."""
    ann, bob, room, name = await in_room(home, "private")
    async with ann:
        synced = await bob.ok("sync")
        bob.socket.transport.abort()
        await ann.ok("kick", room=room, user=name)
        async with await home.connect(name) as again:
            found = await again.ok("sync", epoch=synced["epoch"], rooms={room: synced["rooms"][0]["head"]})
            assert (found["rooms"], found["entries"]) == ([], [])


async def test_a_room_that_is_only_watched_is_watched_again(home: Home) -> None:
    """A public room that is named in `sync` is listened to without a membership, and what was missed comes."""
    room = fresh("stage")
    async with await home.connect(fresh("ann")) as ann:
        made = await ann.ok("create", kind="public", room=room)
        one = await ann.ok("send", room=room, text="one")
        async with await home.connect(fresh("bob")) as bob:
            first = await bob.ok("sync")
            synced = await bob.ok("sync", epoch=first["epoch"], rooms={room: made["head"]})
            assert [each["seq"] for each in synced["entries"]] == [one["seq"]]
            two = await ann.ok("send", room=room, text="two")
            assert (await entry(bob, room, two["seq"]))["text"] == "two"
