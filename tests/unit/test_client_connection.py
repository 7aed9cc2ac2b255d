"""The Python client's outer half against a scripted WebSocket server: handshakes, tokens, loops, the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from hubbub import errors
from hubbub.client import Disconnected, OtherEntry, OtherSignal, Reset, TimedOut, connect
from hubbub.model import Entry
from hubbub.protocol import TypingSignal
from scripted import BOUND_S, Scripted, message, quick, within


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    """A running scripted server."""
    async with Scripted() as server:
        yield server


async def test_an_async_token_function_is_asked_at_each_attempt(scripted: Scripted) -> None:
    """Each handshake offers a token that was got for it, also after refusals."""
    scripted.statuses = [401, 503]
    count = 0

    async def token() -> str:
        nonlocal count
        count += 1
        return f"T{count}"

    async with quick(scripted, token):
        assert scripted.handshakes == [f"hubbub.v1, jwt.T{n}" for n in (1, 2, 3)]


async def test_a_token_function_that_fails_is_asked_again(scripted: Scripted) -> None:
    """What the application's function raises only delays the connection."""
    outcomes: list[str | Exception] = [RuntimeError("no network"), "T"]

    def token() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async with quick(scripted, token) as chat:
        assert chat.state == "live"


async def test_a_plain_token_that_is_refused_stops_the_client(scripted: Scripted) -> None:
    """There is no better one to be had."""
    scripted.statuses = [401]
    with pytest.raises(Disconnected) as caught:
        await quick(scripted, "T").__aenter__()
    assert caught.value.close_code == 4401


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    """Entering gives up after its time-out and says why."""
    async with Scripted() as server:
        url = server.url
    with pytest.raises(errors.Unavailable, match="could not be reached"):
        await connect(url, token="T", open_timeout_s=0.05, backoff_base_s=0.01).__aenter__()


async def test_errors_are_those_of_the_table(scripted: Scripted) -> None:
    """Each wire code raises its class, with the server's words, but the one by which the client goes itself."""
    async with quick(scripted) as chat:
        for error in [error for error in errors.ERRORS if error is not errors.TokenExpired]:
            scripted.answers["edit"] = error()
            with pytest.raises(error):
                await chat.edit("general", 1, "x")
    scripted.answers["edit"] = None
    async with quick(scripted, deadline_s=0.05) as chat:
        with pytest.raises(TimedOut):
            await chat.edit("general", 1, "x")


async def test_a_cut_send_is_repeated_with_its_client_id(scripted: Scripted) -> None:
    """The server sees the same id twice, and the call returns once it answers."""
    async with quick(scripted) as chat:
        sending = asyncio.create_task(chat.send("general", "hi"))
        await within(lambda: any(frame["action"] == "send" for frame in scripted.frames), "the first try")
        scripted.answers["send"] = {"room": "general", "seq": 1, "id": "E1", "at": 5}
        scripted.sockets[-1].transport.abort()
        assert (await asyncio.wait_for(sending, BOUND_S)).seq == 1
        tries = [frame["client_id"] for frame in scripted.frames if frame["action"] == "send"]
        assert len(tries) == 2
        assert len(set(tries)) == 1


async def test_a_cancelled_call_is_forgotten(scripted: Scripted) -> None:
    """Nobody waits for it, so it is not repeated."""
    async with quick(scripted) as chat:
        sending = asyncio.create_task(chat.send("general", "hi"))
        await within(lambda: any(frame["action"] == "send" for frame in scripted.frames), "the first try")
        sending.cancel()
        await asyncio.wait([sending])
        scripted.sockets[-1].transport.abort()
        await within(lambda: len(scripted.sockets) == 2 and chat.state == "live", "the new connection")
        await chat.ping()
        assert len([frame for frame in scripted.frames if frame["action"] == "send"]) == 1


async def test_loops_end_with_the_reason(scripted: Scripted) -> None:
    """A stop by the server raises in every loop and every later call; what was buffered comes first."""
    async with quick(scripted) as chat:
        entries, signals = chat.entries(), chat.signals()
        await scripted.say(message(1))
        await within(lambda: chat.position(next(iter(chat.rooms))) == 1, "the entry")
        await scripted.sockets[-1].close(4403, "banned")
        assert (await anext(entries)).seq == 1
        for loop in (entries, signals):
            with pytest.raises(Disconnected) as caught:
                await anext(loop)
            assert (caught.value.close_code, caught.value.reason) == (4403, "banned")
        with pytest.raises(Disconnected):
            await chat.ping()
        with pytest.raises(Disconnected):
            await anext(chat.room("general"))


async def test_leaving_the_client_ends_loops_quietly(scripted: Scripted) -> None:
    """A loop that runs elsewhere ends, and its pending calls raise."""
    async with quick(scripted) as chat:
        seen: list[Entry] = []

        async def loop() -> None:
            async for entry in chat.room("general"):
                seen.append(entry)  # noqa: PERF401  looked at meanwhile

        reading = asyncio.create_task(loop())
        sending = asyncio.create_task(chat.send("general", "hi"))
        await scripted.say(message(1))
        await within(lambda: len(seen) == 1, "the entry")
    await asyncio.wait_for(reading, BOUND_S)
    with pytest.raises(Disconnected):
        await sending


async def test_types_that_are_not_known_are_delivered(scripted: Scripted) -> None:
    """A newer server's entries and an application's signals come with all their fields."""
    async with quick(scripted) as chat:
        entries, signals = chat.room("general"), chat.signals()
        await scripted.say({**message(1), "type": "poll.opened", "question": "?"})
        await scripted.say({"type": "typing", "room": "general", "by": "bob", "on": True})
        await scripted.say({"type": "fireworks", "room": "general", "colour": "red"})
        entry = await anext(entries)
        assert isinstance(entry, OtherEntry)
        assert (entry.type, json.loads(bytes(entry.json))["question"]) == ("poll.opened", "?")
        assert isinstance(await anext(signals), TypingSignal)
        signal = await anext(signals)
        assert isinstance(signal, OtherSignal)
        assert json.loads(bytes(signal.json))["colour"] == "red"


async def test_signals_have_a_bound_but_resets_are_kept(scripted: Scripted) -> None:
    """A loop that takes nothing loses the oldest signals, never the word that a room starts anew."""
    async with quick(scripted, max_held=3) as chat:
        signals = chat.signals()
        chat.lost(next(iter(chat.rooms)))
        for n in range(6):
            await scripted.say({"type": "typing", "room": "general", "by": str(n), "on": True})
        await chat.ping()
        taken = [await anext(signals) for _ in range(3)]
        assert isinstance(taken[0], Reset)
        assert [signal.by for signal in taken[1:] if isinstance(signal, TypingSignal)] == ["4", "5"]


async def test_a_frame_that_is_none_makes_the_client_reconnect(scripted: Scripted) -> None:
    """It does not guess what was meant."""
    async with quick(scripted) as chat:
        await scripted.sockets[-1].send("{")
        await within(lambda: len(scripted.sockets) == 2 and chat.state == "live", "a new connection")


async def test_a_reader_that_lacks_what_is_not_kept_is_told(scripted: Scripted) -> None:
    """Reading from further back than retention keeps gives a Reset and what is left."""
    scripted.rooms[0]["head"] = 9
    page = {"room": "general", "entries": [message(8), message(9)], "head": 9, "has_more": False, "changes": []}
    scripted.answers["history"] = page
    async with quick(scripted) as chat:
        signals, entries = chat.signals(), chat.room("general", after=2)
        assert [(await anext(entries)).seq, (await anext(entries)).seq] == [8, 9]
        assert await anext(signals) == Reset(room=next(iter(chat.rooms)))
