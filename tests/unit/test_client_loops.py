"""The Python client's loops: several at once, slow ones, those that are left, and rooms that come and go."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hubbub import errors
from hubbub.client import Client, Reset
from hubbub.client.streams import EntryStream
from hubbub.model import Entry, RoomId
from scripted import BOUND_S, Scripted, message, page, quick, within

GENERAL = RoomId("general")
SIDE = RoomId("side")


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    """A running scripted server."""
    async with Scripted() as server:
        yield server


async def take(stream: EntryStream, count: int) -> list[int]:
    """The seqs of so many entries."""
    return [(await asyncio.wait_for(anext(stream), BOUND_S)).seq for _ in range(count)]


def log(*seqs: int, size: int = 200) -> Any:
    """An answer to `history`: pages of a log with these messages."""

    def answer(frame: dict[str, Any]) -> dict[str, Any]:
        after = [seq for seq in seqs if seq > frame["after"]]
        return page(*after[:size], head=seqs[-1], more=len(after) > size)

    return answer


async def arrived(chat: Client, seq: int, room: RoomId = GENERAL) -> None:
    """Wait until the client has the entry."""
    await within(lambda: chat.position(room) == seq, f"entry {seq}")


async def test_every_reader_gets_every_entry(scripted: Scripted) -> None:
    """Several loops on one room do not take from each other, wherever they begin."""
    scripted.answers["history"] = log(1, 2, 3)
    async with quick(scripted) as chat:
        early = [chat.room("general"), chat.room("general"), chat.entries()]
        for seq in (1, 2, 3):
            await scripted.say(message(seq))
        await arrived(chat, 3)
        late = [chat.room("general"), chat.room("general", after=1)]
        assert [await take(stream, 3) for stream in early] == [[1, 2, 3]] * 3
        assert await take(late[0], 3) == [1, 2, 3]
        assert await take(late[1], 2) == [2, 3]


async def test_two_loops_on_one_stream_share_its_entries(scripted: Scripted) -> None:
    """Each entry goes to one of them, also when both find that they lag behind."""
    scripted.answers["history"] = log(*range(1, 21), size=5)
    async with quick(scripted, max_held=2) as chat:
        stream = chat.room("general")
        for seq in range(1, 21):
            await scripted.say(message(seq))
        await arrived(chat, 20)
        seen: list[int] = []

        async def loop() -> None:
            while len(seen) < 20:
                seen.append((await anext(stream)).seq)
                await asyncio.sleep(0)

        loops = [asyncio.create_task(loop()) for _ in range(2)]
        await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED, timeout=BOUND_S)
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        assert seen == list(range(1, 21))


async def test_a_slow_reader_holds_up_nobody_and_misses_nothing(scripted: Scripted) -> None:
    """It buffers as much as it may, and reads the rest from history when it comes to that."""
    scripted.answers["history"] = log(*range(1, 31), size=7)
    async with quick(scripted, max_held=3) as chat:
        slow, fast = chat.room("general"), chat.room("general")
        for seq in range(1, 31):
            await scripted.say(message(seq))
            assert await take(fast, 1) == [seq]
        assert scripted.asked("history") == []
        assert await take(slow, 30) == list(range(1, 31))
        assert [frame["after"] for frame in scripted.asked("history")] == [3, 10, 17, 24]
        await scripted.say(message(31))
        assert await take(slow, 1) == [31]


async def test_a_history_that_fails_for_now_is_asked_again(scripted: Scripted) -> None:
    """A loop that catches up waits as long as the server says, and goes on."""
    outcomes: list[Any] = [errors.Unavailable(retry_after_ms=1), log(1, 2)]
    scripted.answers["history"] = lambda frame: outcomes.pop(0)
    scripted.rooms[0]["head"] = 2
    async with quick(scripted) as chat:
        assert await take(chat.room("general", after=0), 2) == [1, 2]


async def test_a_loop_that_was_left_goes_on_where_it_stood(scripted: Scripted) -> None:
    """`break` ends a loop, not its stream."""
    async with quick(scripted) as chat:
        stream = chat.room("general")
        for seq in (1, 2):
            await scripted.say(message(seq))
        async for entry in stream:
            assert entry.seq == 1
            break
        await scripted.say(message(3))
        assert await take(stream, 2) == [2, 3]


async def test_a_stream_that_nobody_has_any_more_is_forgotten(scripted: Scripted) -> None:
    """A loop that is left over and over again leaves nothing behind."""
    async with quick(scripted) as chat:
        await scripted.say(message(1))
        await arrived(chat, 1)
        left: list[weakref.ref[EntryStream]] = []
        for _ in range(3):
            stream = chat.room("general", after=0)
            left.append(weakref.ref(stream))
            del stream
        gc.collect()
        assert [one() for one in left] == [None, None, None]


async def test_a_loop_that_waits_is_kept(scripted: Scripted) -> None:
    """Nobody but the loop itself has the stream; what comes reaches it all the same."""
    async with quick(scripted) as chat:
        seen: list[Entry] = []

        async def loop() -> None:
            async for entry in chat.room("general"):
                seen.append(entry)  # noqa: PERF401  looked at meanwhile

        reading = asyncio.create_task(loop())
        await asyncio.sleep(0)
        gc.collect()
        await scripted.say(message(1))
        await within(lambda: len(seen) == 1, "the entry")
    await asyncio.wait_for(reading, BOUND_S)


async def test_a_closed_stream_ends_its_loops(scripted: Scripted) -> None:
    """`aclose` wakes whoever waits, and nothing comes any more."""
    async with quick(scripted) as chat:
        entries, signals = chat.room("general"), chat.signals()
        waiting = [asyncio.create_task(anext(entries)), asyncio.create_task(anext(signals))]
        await asyncio.sleep(0)
        await entries.aclose()
        await signals.aclose()
        for ended in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(ended, StopAsyncIteration)
        await scripted.say(message(1))
        await arrived(chat, 1)
        with pytest.raises(StopAsyncIteration):
            await anext(entries)


async def test_a_room_may_be_read_before_it_is_joined(scripted: Scripted) -> None:
    """The loop begins where the client does: with what comes after joining."""
    async with quick(scripted) as chat:
        stream = chat.room("side")
        scripted.answers["join"] = {"room": "side", "kind": "public", "name": "", "head": 7, "role": "member"}
        await chat.join("side")
        await scripted.say({**message(8), "room": "side"})
        assert await take(stream, 1) == [8]


async def test_nothing_is_missed_between_history_and_the_beginning_of_a_subscription(scripted: Scripted) -> None:
    """What was written after the last page and before the client listened is read when it listens."""
    asked: list[dict[str, Any]] = []
    scripted.answers["subscribe"] = lambda frame: asked.append(frame)
    scripted.answers["history"] = lambda frame: page(*range(frame["after"] + 1, frame["after"] + 2), room="side")
    async with quick(scripted) as chat:
        stream = chat.room("side", after=0, subscribe=True)
        assert await take(stream, 1) == [1]
        second = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        await scripted.answer(asked[0], {"room": "side", "head": 2})
        assert (await asyncio.wait_for(second, BOUND_S)).seq == 2


async def test_a_room_that_starts_anew_does_so_in_a_loop_that_lags(scripted: Scripted) -> None:
    """What the loop had buffered comes first, then the new log; what was between them is not looked for."""
    async with quick(scripted, max_held=2) as chat:
        signals, stream = chat.signals(), chat.room("general")
        for seq in (1, 2, 3, 4):
            await scripted.say(message(seq))
        await arrived(chat, 4)
        scripted.answers["history"] = page(1, 2)
        synced = {"epoch": "other", "user": "alice", "connection_id": "c", "entries": [], "more": []}
        scripted.answers["sync"] = {**synced, "rooms": [{**scripted.rooms[0], "head": 2}], "reset": ["general"]}
        scripted.sockets[-1].transport.abort()
        assert await asyncio.wait_for(anext(signals), BOUND_S) == Reset(room=GENERAL)
        assert await take(stream, 2) == [1, 2]
        await arrived(chat, 2)
        await scripted.say(message(3))
        scripted.answers["history"] = log(1, 2, 3)
        assert await take(stream, 3) == [1, 2, 3]


async def test_a_loop_over_all_rooms_outlives_one_of_them(scripted: Scripted) -> None:
    """What it lacked of a room that one has been removed from is lost; the other rooms go on."""
    scripted.rooms.append({**scripted.rooms[0], "room": "side"})
    scripted.answers["history"] = errors.NotFound()
    async with quick(scripted, max_held=1) as chat:
        everything = chat.entries()
        for seq in (1, 2, 3):
            await scripted.say({**message(seq), "room": "side"})
        await arrived(chat, 3, SIDE)
        await scripted.say({"type": "room", "room": "side", "joined": False})
        await within(lambda: SIDE not in chat.rooms, "the removal")
        assert await take(everything, 1) == [1]
        following = asyncio.create_task(anext(everything))
        await within(lambda: len(scripted.asked("history")) == 1, "the question for more of the room")
        await scripted.say(message(1))
        assert (await asyncio.wait_for(following, BOUND_S)).room == GENERAL
