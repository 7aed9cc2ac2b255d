"""What a server does wrong is in the verdict, as what it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from hubbub.loadtest.coordinating import CannotRun
from hubbub.loadtest.result import Second
from liar import Liar, coordinator, failures, load
from live import until

PERSONS = 4
MESSAGES = 20


@pytest_asyncio.fixture
async def liar() -> AsyncIterator[Liar]:
    """A server that is honest so far."""
    async with Liar().serving() as server:
        yield server


async def test_an_honest_server_passes(liar: Liar) -> None:
    """With a server that keeps its promises everything is delivered to everybody, and nothing is said against it."""
    result = await load(liar.url)
    assert result.reasons == []
    assert result.passed
    assert (result.counts.sent, result.counts.acked) == (MESSAGES, MESSAGES)
    assert result.counts.delivered == PERSONS * MESSAGES
    assert result.ack.count == MESSAGES
    assert result.delivery.count == PERSONS * MESSAGES


async def test_losses_in_the_middle_and_at_the_end_are_counted(liar: Liar) -> None:
    """An entry that no listener gets is lost to each of them, also when nothing follows by which one could see it."""
    liar.drop = {5, 6, MESSAGES}
    result = await load(liar.url)
    assert result.faults.lost == 3 * PERSONS
    assert [(room.lost, room.doubled, room.disordered) for room in result.faults.rooms] == [(3 * PERSONS, 0, 0)]
    assert result.faults.unseen == 3
    assert not result.passed
    assert failures(result)[0] == "12 deliveries lost"


async def test_doubles_are_counted(liar: Liar) -> None:
    """An entry that comes twice is doubled, and its durations are counted once."""
    liar.double = {7, 9}
    result = await load(liar.url)
    assert result.reasons == ["8 deliveries doubled"]
    assert result.delivery.count == PERSONS * MESSAGES


async def test_what_is_allowed_is_told_and_does_not_fail_it(liar: Liar) -> None:
    """Doubles, disorder and refusals may be borne: then they are notes. A loss is one all the same."""
    liar.double, liar.swap, liar.error, liar.drop = {7}, {3}, {9: "unavailable"}, {12}
    result = await load(liar.url, allow="doubled,disordered,refused")
    assert failures(result)[0] == "4 deliveries lost"
    assert not any(words in reason for reason in result.reasons for words in ("doubled", "order", "refused"))
    assert [note for note in result.notes if note.startswith("allowed: ")] == [
        "allowed: 4 deliveries doubled",
        "allowed: 4 deliveries out of order",
        "allowed: 1 message refused: unavailable",
    ]


async def test_disorder_is_counted_and_is_no_loss(liar: Liar) -> None:
    """An entry that comes after the next one is out of order, and not lost."""
    liar.swap = {3}
    result = await load(liar.url)
    assert result.reasons == ["4 deliveries out of order"]
    assert result.counts.delivered == PERSONS * MESSAGES


async def test_a_message_that_is_stored_twice_is_noticed(liar: Liar) -> None:
    """Two entries with one message of a client are one too many."""
    liar.store_twice = {4}
    result = await load(liar.url)
    assert result.faults.stored_twice == 1
    assert "1 message stored twice" in result.reasons


async def test_an_acknowledged_message_that_becomes_something_else_is_noticed(liar: Liar) -> None:
    """An acknowledgement of what then is not in the log is no acknowledgement."""
    liar.deaf = {4}
    result = await load(liar.url)
    assert result.reasons == ["1 acknowledged message not delivered, or as another entry"]


async def test_missing_answers_are_counted(liar: Liar) -> None:
    """A message without an answer is one, however well it was delivered."""
    liar.mute = {2, 3}
    result = await load(liar.url)
    assert result.reasons == ["2 messages never answered"]


async def test_refusals_are_counted_by_code(liar: Liar) -> None:
    """Errors are told with their code, and a rate limit with the settings that lift it."""
    liar.error = {2: "rate_limited", 5: "unavailable"}
    result = await load(liar.url)
    assert result.counts.refused == {"rate_limited": 1, "unavailable": 1}
    assert sorted(result.reasons) == ["1 message refused: rate_limited", "1 message refused: unavailable"]
    assert any("user_rate" in note for note in result.notes)


async def test_closed_connections_come_back_and_miss_nothing(liar: Liar) -> None:
    """Connections that the server closes come back, resume, and send again what was not answered."""
    liar.cut = {10}
    result = await load(liar.url)
    assert result.reasons == []
    assert result.counts.closed == {"1012": PERSONS}
    assert result.counts.delivered == PERSONS * MESSAGES
    assert any("1012: 4" in note for note in result.notes)


async def test_what_a_sync_leaves_out_is_read_page_by_page(liar: Liar) -> None:
    """Who missed more than a `sync` brings reads the rest from history, while what is said goes on coming."""
    liar.lock_out, liar.more_after = (10, 40), 1
    result = await load(liar.url, rate=40, duration="2")
    assert result.reasons == []
    assert result.counts.closed == {"1012": 1}
    assert result.counts.delivered == PERSONS * 80
    assert result.resumed >= 30
    pages = [ask["after"] for ask in liar.actions if ask["action"] == "history"]
    assert len(pages) >= 9
    assert pages == sorted(pages)


async def test_what_api_gateway_does_not_hand_over_is_told(liar: Liar) -> None:
    """A message that ends at API Gateway is never answered, and its words are repeated."""
    liar.in_gateway = {3}
    result = await load(liar.url)
    assert result.reasons == ["1 message never answered"]
    assert "API Gateway said 1 times: Too Many Requests" in result.notes


async def test_a_process_that_dies_is_told(liar: Liar) -> None:
    """When a process of the load test ends before its time, so does the load test, and says so."""
    seconds: list[Second] = []
    running = coordinator(liar.url, {"connections": 4, "duration": "60", "processes": 2}, seconds)
    task = asyncio.create_task(running.run())
    await until(lambda: any(second.acked for second in seconds), "the first acknowledgements", bound_s=90)
    victim = next(child for child in psutil.Process().children() if "hubbub.loadtest.worker" in child.cmdline())
    victim.kill()
    with pytest.raises(CannotRun, match="a process of the load test ended with status -9"):
        await task


async def test_a_log_that_begins_anew_is_told(liar: Liar) -> None:
    """When a resuming connection is told that a room's log holds no more, that is a failure."""
    liar.cut = {10}
    liar.forgets = True
    result = await load(liar.url)
    assert result.faults.resets == PERSONS
    assert "4 logs began anew on the server" in result.reasons


async def test_a_stall_is_charged_to_all_that_was_due_meanwhile(liar: Liar) -> None:
    """Durations count from when a message was due: a second's halt is seen in all messages of that second."""
    liar.stall = {5}
    liar.stall_s = 1.0
    result = await load(liar.url, rate=40, duration="2")
    # Due while the server stood still: 40 of 80 messages, with 1 s, 0.975 s, … to wait; 16 of them more than 0.6 s. Who
    # sends the next when the last is answered would see one.
    assert result.ack.count == 80
    assert result.ack.max is not None
    assert result.ack.max >= 990
    assert result.ack.p90 is not None
    assert result.ack.p90 >= 600
    assert sum(second.ack.count for second in result.seconds) == result.ack.count


async def test_frames_in_parts_are_read(liar: Liar) -> None:
    """A message in several frames, with control frames beside it, is one message."""
    liar.in_parts = True
    result = await load(liar.url)
    assert result.reasons == []
    assert result.counts.delivered == PERSONS * MESSAGES


async def test_a_second_by_second_account_is_given(liar: Liar) -> None:
    """While it runs each second is told, and what they have in common is the whole."""
    seconds: list[Second] = []
    result = await load(liar.url, duration="3", seconds=seconds)
    assert [second.phase for second in seconds if second.phase == "load"]
    assert sum(second.delivered for second in result.seconds) == result.counts.delivered
    assert sum(second.acked for second in result.seconds) == result.counts.acked
    assert max(second.live for second in result.seconds) == PERSONS


async def test_limits_that_were_asked_for_fail_what_is_slower(liar: Liar) -> None:
    """A 99th percentile above what was asked for is a failure that says both."""
    liar.stall = {5}
    liar.stall_s = 0.5
    result = await load(liar.url, max_ack="100", max_delivery="100000")
    assert failures(result) == ["ack p99"]
    assert "at most 100 ms" in result.reasons[0]


async def test_several_processes_share_the_work(liar: Liar) -> None:
    """With more processes every connection and message is there once."""
    result = await load(liar.url, connections=7, processes=3, rooms=2, rate=30)
    assert result.reasons == []
    assert result.counts.opened == 7
    assert (result.counts.sent, result.counts.acked) == (30, 30)
    assert len(result.generator.cpu) == 3
    assert len({ask["client_id"] for ask in liar.actions if ask["action"] == "send"}) == 30


async def test_history_is_read_beside(liar: Liar) -> None:
    """Pages of history are asked for at their own rate, and timed."""
    result = await load(liar.url, history="10")
    assert result.counts.pages == 10
    assert result.history.count == 10


async def test_a_refused_token_is_told_with_the_servers_words(liar: Liar) -> None:
    """What a refused handshake says is what is told, before anything is started."""
    liar.refuse = (401, "The token has expired.")
    with pytest.raises(CannotRun, match="status 401: The token has expired"):
        await load(liar.url)


async def test_a_server_that_is_not_there_is_told(unused_tcp_port: int) -> None:
    """Nobody listening is said so, with the URL."""
    with pytest.raises(CannotRun, match=rf"ws://127.0.0.1:{unused_tcp_port}/ws: .*refused"):
        await load(f"ws://127.0.0.1:{unused_tcp_port}/ws?token=secret")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "no HTTP server"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404: nothing is at this path"),
        (b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: nonsense\r\n\r\n", "no WebSocket server"),
        (b"", "closed during the handshake"),
    ],
)
async def test_what_is_no_chat_is_told(answer: bytes, words: str) -> None:
    """Whatever else answers at the URL is named for what it is."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        with pytest.raises(CannotRun, match=words):
            await load(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws")


async def test_ending_it_early_tells_what_there_was(liar: Liar) -> None:
    """A stop in the middle gives the report of what was done until then, and accuses nobody."""
    seconds: list[Second] = []
    running = coordinator(liar.url, {"connections": 4, "rate": 20, "duration": "60"}, seconds)
    task = asyncio.create_task(running.run())
    await until(lambda: any(second.acked for second in seconds), "the first acknowledgements", bound_s=90)
    running.stop()
    result = await task
    assert result.interrupted
    assert 0 < result.load_s < 60
    assert result.counts.acked == result.counts.sent > 0
    assert result.reasons == []
    assert "ended by hand" in result.notes[0]


async def test_ending_it_while_it_connects_tells_so(liar: Liar) -> None:
    """A stop before anything was sent ends too, with nothing counted and nobody accused."""
    seconds: list[Second] = []
    running = coordinator(liar.url, {"connections": 500, "ramp": "1"}, seconds)
    task = asyncio.create_task(running.run())
    await until(lambda: any(second.live for second in seconds), "the first connection", bound_s=90)
    running.stop()
    result = await task
    assert result.interrupted
    assert result.counts.sent == 0
    assert result.reasons == []


async def test_tokens_come_from_a_file(liar: Liar, tmp_path: Path) -> None:
    """Connections take a file's tokens in turn; without rights in them those who send become members, others listen."""
    file = tmp_path / "tokens"
    file.write_text("a.b.c\nd.e.f\n", encoding="ascii")
    await _create_allowed(liar)
    result = await load(liar.url, tokens=str(file), senders=1)
    assert result.reasons == []
    asked = [ask["action"] for ask in liar.actions]
    assert (asked.count("join"), asked.count("subscribe")) == (2, 3)  # the first connects once more, to try it out
    assert asked.count("create") == 1


async def _create_allowed(liar: Liar) -> None:
    async def create(connection: Any, ask: dict[str, Any]) -> None:
        await liar._ok(connection, ask, room=ask["room"], head=0)

    liar._create = create  # type: ignore[attr-defined]  # a server that makes rooms


async def test_it_connects_no_more_than_it_says(liar: Liar) -> None:
    """Beside its connections there is one, to try out what is asked for; and who has left comes back no more."""
    result = await load(liar.url)
    assert result.reasons == []
    assert sum(ask["action"] == "sync" for ask in liar.actions) == PERSONS + 1
