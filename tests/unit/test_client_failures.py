"""The Python client when something is wrong: tokens, addresses, garbage, cancellation, an end at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hubbub import errors
from hubbub.client import Client, Disconnected, TimedOut, connect
from hubbub.client.session import Session
from scripted import BOUND_S, Scripted, message, quick, within


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    """A running scripted server."""
    async with Scripted() as server:
        yield server


async def back(scripted: Scripted, chat: Client) -> None:
    """Wait until the client is live on its second connection."""
    await within(lambda: len(scripted.sockets) == 2 and chat.state == "live", "a new connection")


@pytest.mark.parametrize("nothing", [None, b"T", "", "two words", "a\r\nX-Evil: 1"])
async def test_what_is_no_token_is_asked_for_again(scripted: Scripted, nothing: Any) -> None:
    """A function that gives nothing useful delays the connection; nothing of it gets into the handshake."""
    given = [nothing, "T"]
    async with quick(scripted, lambda: given.pop(0)):
        assert scripted.handshakes == ["hubbub.v1, jwt.T"]


async def test_a_plain_text_that_is_no_token_stops_the_client(scripted: Scripted) -> None:
    """It cannot become one."""
    with pytest.raises(Disconnected, match="none") as caught:
        await quick(scripted, "two words").__aenter__()
    assert caught.value.close_code == 4401
    assert scripted.handshakes == []


@pytest.mark.parametrize("token", [None, 5, b"T"])
def test_a_token_is_a_text_or_a_function(token: Any) -> None:
    """Anything else is refused before anything is done."""
    with pytest.raises(TypeError, match="a JWT, or a function"):
        connect("ws://127.0.0.1:1/ws", token=token)


async def test_a_token_function_that_is_cancelled_is_asked_again(scripted: Scripted) -> None:
    """What happens inside it does not end the client's own work."""
    outcomes: list[Any] = [asyncio.CancelledError, None]

    async def token() -> str:
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome
        return "T"

    async with quick(scripted, token) as chat:
        assert chat.state == "live"


async def test_an_address_that_is_none_is_told_at_once() -> None:
    """Nobody waits for what cannot succeed."""
    with pytest.raises(Disconnected, match="nowhere") as caught:
        await connect("nowhere", token="T", open_timeout_s=None).__aenter__()
    assert caught.value.close_code == 4400


async def test_a_refused_handshake_is_told_in_the_servers_words(scripted: Scripted) -> None:
    """The body says which of the many things about a token is wrong."""
    scripted.statuses = [401]
    scripted.bodies = ['{"type":"error","code":"token_expired","message":"The token has expired.","retry":false}']
    with pytest.raises(Disconnected, match=r"HTTP 401: The token has expired\."):
        await quick(scripted, "T").__aenter__()


@pytest.mark.parametrize(
    "garbage",
    ["[" * 100_000, '{"type":"message.created","seq":1,"id":"E1"}', "\x00", b"\xff\xfe", ""],
    ids=["nested", "an entry of nothing", "a control character", "bytes", "nothing"],
)
async def test_garbage_makes_the_client_reconnect(scripted: Scripted, garbage: str | bytes) -> None:
    """Whatever a server sends that is no frame, the client does not guess, and does not stop."""
    async with quick(scripted) as chat:
        await scripted.sockets[-1].send(garbage)
        await back(scripted, chat)


async def test_text_that_is_no_utf8_makes_the_client_reconnect(scripted: Scripted) -> None:
    """The client then ends the connection with 1007 itself, which is no word of the server's to stop for good."""
    async with quick(scripted) as chat:
        await scripted.sockets[-1].send(b"\xff", text=True)
        await back(scripted, chat)


async def test_an_answer_that_cannot_be_read_is_an_error_of_the_table(scripted: Scripted) -> None:
    """Calls raise nothing else, whatever the server answers."""
    scripted.answers["send"] = {"room": "general", "seq": "first"}
    scripted.answers["history"] = {"room": "general", "entries": [{"type": "message.created"}], "head": 0}
    async with quick(scripted) as chat:
        with pytest.raises(errors.Internal, match="cannot be read"):
            await chat.send("general", "hi")
        with pytest.raises(errors.Internal, match="cannot be read"):
            await chat.history("general")


async def test_a_defect_of_the_client_is_seen(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops, every loop and call learns why, and the event loop's handler gets the exception."""
    seen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: seen.append(context))
    async with quick(scripted) as chat:
        stream = chat.room("general")
        monkeypatch.setattr(Session, "frame", lambda *ignored: 1 // 0)
        await scripted.say(message(1))
        with pytest.raises(Disconnected, match="ZeroDivisionError") as caught:
            await anext(stream)
        assert caught.value.close_code == 1011
        with pytest.raises(Disconnected):
            await chat.ping()
    assert [type(context["exception"]) for context in seen] == [ZeroDivisionError]


async def test_data_may_be_null(scripted: Scripted) -> None:
    """JSON's null is something, in messages and in actions of one's own; what is not given is not sent."""
    scripted.answers |= {"send": {"room": "general", "seq": 1, "id": "E1", "at": 5}, "vote": {}}
    async with quick(scripted) as chat:
        await chat.send("general", data=None, client_id="k")
        await chat.send("general", "hi", client_id="l")
        await chat.request("vote", choice=None)
        bare = [{name: value for name, value in frame.items() if name != "ref"} for frame in scripted.frames[1:]]
        assert bare == [
            {"action": "send", "room": "general", "data": None, "client_id": "k"},
            {"action": "send", "room": "general", "text": "hi", "client_id": "l"},
            {"action": "vote", "choice": None},
        ]


async def test_a_deadline_ends_a_call_that_waits_for_a_connection(scripted: Scripted) -> None:
    """The time without a connection counts."""
    async with quick(scripted, deadline_s=0.05) as chat:
        scripted.statuses = [503] * 1000
        scripted.sockets[-1].transport.abort()
        await within(lambda: chat.state != "live", "the loss")
        with pytest.raises(TimedOut):
            await chat.ping()
        with pytest.raises(TimeoutError):
            await chat.send("general", "hi")


async def test_patience_without_end(scripted: Scripted) -> None:
    """Infinite deadlines are long ones."""
    async with quick(scripted, deadline_s=float("inf"), heartbeat_s=float("inf")) as chat:
        assert (await chat.ping()).at == 1


async def test_the_applications_own_time_limit_cancels_a_call(scripted: Scripted) -> None:
    """The call is forgotten, a late answer is dropped, and the client goes on."""
    late: list[dict[str, Any]] = []
    scripted.answers["edit"] = lambda frame: late.append(frame)
    async with quick(scripted) as chat:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await chat.edit("general", 1, "x")
        await within(lambda: len(late) == 1, "the question")
        await scripted.answer(late[0], {"room": "general", "seq": 2})
        await chat.ping()


async def test_closing_ends_what_is_under_way(scripted: Scripted) -> None:
    """While a token is awaited, while connecting, while waiting to: a client that is closed leaves nothing behind."""
    never = asyncio.Event()

    async def no_token() -> str:
        await never.wait()
        return "T"

    scripted.statuses = [503] * 1000

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as deaf:
        address = f"ws://127.0.0.1:{deaf.sockets[0].getsockname()[1]}/ws"
        clients = [
            connect(scripted.url, token=no_token),
            connect(address, token="T"),
            connect(scripted.url, token="T", backoff_base_s=1000, backoff_cap_s=1000),
        ]
        entering = [asyncio.create_task(client.__aenter__()) for client in clients]
        await within(lambda: clients[2].state == "waiting", "the refusal")
        before = asyncio.all_tasks() - {*entering}
        pending = asyncio.create_task(clients[2].send("general", "hi"))
        await asyncio.sleep(0)
        for client in clients:
            await client.close()
        with pytest.raises(Disconnected):
            await pending
        await asyncio.wait(entering, timeout=BOUND_S)
        assert asyncio.all_tasks() <= before


async def test_entering_can_be_cancelled(scripted: Scripted) -> None:
    """Whoever stops waiting for the first connection leaves none behind."""
    scripted.answers["sync"] = None
    client = quick(scripted)
    entering = asyncio.create_task(client.__aenter__())
    await within(lambda: len(scripted.sockets) == 1, "the connection")
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert client.state == "closed"
    await asyncio.wait_for(scripted.sockets[0].wait_closed(), BOUND_S)


async def test_closing_twice_is_closing(scripted: Scripted) -> None:
    """Also from within the loop that it ends."""
    async with quick(scripted) as chat:
        await scripted.say(message(1))
        async for entry in chat.room("general", after=None):
            assert entry.seq == 1
            await chat.close()
        await chat.close()
    assert chat.state == "closed"
