"""A chat in a process that is one of many and is halted after every event: nothing waits for a background task."""

from __future__ import annotations

import asyncio

import pytest

from chatlab import lab
from hubbub.chat import Chat
from hubbub.errors import Unavailable


async def test_who_came_is_told_when_the_event_is_settled():
    """Without a tick."""
    async with lab() as at:
        bob = await at.tab("bob", rooms={"general": "member"})
        await at.chat.settle()
        bob.raw.clear()
        await at.tab("alice", rooms={"general": "member"})
        assert bob.of("presence") == []
        await at.chat.settle()
        assert [(each["user"], each["online"]) for each in bob.of("presence")] == [("alice", True)]


async def test_settling_waits_for_the_hooks_of_the_event_and_no_longer_than_it_may():
    """What takes longer goes on afterwards."""
    chat = Chat()
    gate, heard = asyncio.Event(), []

    @chat.on("message.created")
    async def hook(chat, entry):
        if entry.text == "slow":
            await gate.wait()
        heard.append(entry.text)

    async with lab(chat) as at:
        alice = await at.tab("alice", rooms={"general": "member"})
        for text in ("quick", "slow"):
            await alice.ok("send", room="general", text=text)
        await at.chat.settle(within_s=0.01)
        assert heard == ["quick"]
        gate.set()
        await at.chat.settle()
        assert heard == ["quick", "slow"]


async def test_who_comes_into_many_rooms_is_told_in_them_beside_each_other(monkeypatch):
    """His answer waits for it: it takes no longer for a hundred rooms than for a few."""
    rooms = {f"room-{n}": "member" for n in range(40)}
    async with lab() as at:
        bob = await at.tab("bob", rooms=rooms)
        await at.chat.settle()
        bob.raw.clear()
        real, gate, asked = at.chat.fanout.signal, asyncio.Event(), []

        async def signal(room, frame, *, exclude=None):
            asked.append(room)
            if len(asked) == 10:
                gate.set()
            await gate.wait()
            await real(room, frame, exclude=exclude)

        monkeypatch.setattr(at.chat.fanout, "signal", signal)
        await at.tab("alice", rooms=rooms)
        await at.chat.settle()
        assert sorted(each["room"] for each in bob.of("presence")) == sorted(rooms)


async def test_an_answer_waits_for_presence_no_longer_than_it_may(monkeypatch, caplog):
    """A signal may be lost; who asked is answered."""
    async with lab() as at:
        await at.tab("alice", rooms={"general": "member"})

        async def stuck(*args, **fields):
            await asyncio.Event().wait()

        monkeypatch.setattr(at.chat.fanout, "signal", stuck)
        async with asyncio.timeout(20):
            await at.chat.settle(within_s=0.01)
        assert "cannot tell of presence" in caplog.text


async def test_settling_stands_a_fan_out_that_is_away(monkeypatch, caplog):
    """The event is answered all the same, and the log says what was not told."""
    async with lab() as at:
        await at.tab("alice", rooms={"general": "member"})

        async def away(*args, **fields):
            raise Unavailable

        monkeypatch.setattr(at.chat.fanout, "signal", away)
        await at.chat.settle()
        assert "cannot tell of presence" in caplog.text


async def test_an_entry_is_as_long_as_it_may_be_and_no_longer():
    """What would not fit into a frame afterwards is refused before it is stored."""
    async with lab(max_entry_bytes=1_000, max_text_chars=10_000) as at:
        alice = await at.tab("alice", rooms={"general": "member"})
        await alice.ok("send", room="general", text="x" * 500)
        assert await alice.refused("send", room="general", text="x" * 990) == "too_large"
        assert await alice.refused("send", room="general", data={"key": "ü" * 600}) == "too_large"
        assert [entry["type"] for entry in alice.entries] == ["message.created"]


@pytest.mark.parametrize("listeners", [2, 5])
async def test_a_crowd_may_be_told_nothing_that_others_may_have_told_it(listeners):
    """Without an interval neither typing nor numbers are told in a room above the crowd's size; below it they are."""
    async with lab(crowd=3, crowded_every_s=None, typing_every_s=None) as at:
        tabs = [await at.tab(f"user{n}", rooms={"general": "member"}) for n in range(listeners)]
        await at.chat.settle()
        for tab in tabs:
            tab.raw.clear()
        await tabs[0].ok("typing", room="general")
        late = await at.tab("late", rooms={"general": "member"})
        await at.tick(10)
        await late.leave()
        await at.tick(10)
        told = [frame["type"] for frame in tabs[1].of("typing", "presence")]
        assert told == (["typing", "presence", "presence"] if listeners < 3 else [])
