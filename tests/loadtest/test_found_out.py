"""What a server does wrong is in the verdict, as what it is."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import pytest_asyncio
from websockets.utils import accept_key

from hubbub.loadtest.coordinating import CannotRun
from hubbub.loadtest.member import Member
from hubbub.loadtest.plan import plan
from hubbub.loadtest.result import Second
from hubbub.loadtest.tokens import Tokens
from hubbub.loadtest.wire import NotConnected, find
from hubbub.loadtest.worker import Worker
from liar import Liar, coordinator, failures, load
from live import SECRET, until

PERSONS = 4
MESSAGES = 20


AGREED = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: ACCEPT\r\n"
CHAT = b"Sec-WebSocket-Protocol: hubbub.v1\r\n"
SYNCED = b'\x81\x18{"type":"ok","ref":"a1"}'


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


async def test_what_is_waited_for_in_vain_is_no_part_of_the_rates(liar: Liar) -> None:
    """Messages a second are those of the time in which there were any, and not of the waiting for an answer."""
    liar.mute = {2}
    result = await load(liar.url, settle="8")
    assert result.counts.acked / result.per_s.acked < result.load_s + 8


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


async def test_what_comes_by_resuming_has_its_own_durations(liar: Liar) -> None:
    """How late entries are that are asked for after a reconnect is told, and apart from those that came live."""
    liar.lock_out = (10, 30)
    result = await load(liar.url, rate=40, duration="2")
    assert result.resumed > 0
    assert result.delivery_resumed.count == result.resumed
    assert result.delivery.count + result.delivery_resumed.count == result.counts.delivered == PERSONS * 80


async def test_a_hole_that_is_filled_by_resuming_is_out_of_order(liar: Liar) -> None:
    """What was passed over live, and came only because the connection was closed later, is told of."""
    liar.drop, liar.cut = {5}, {10}
    result = await load(liar.url)
    assert result.reasons == ["4 deliveries out of order"]
    assert result.counts.delivered == PERSONS * MESSAGES


async def test_what_a_resume_brings_again_is_doubled(liar: Liar) -> None:
    """An answer to `sync` that begins before the `seq` that was named has too much."""
    liar.cut, liar.repeats = {10}, 2
    result = await load(liar.url)
    assert result.reasons == ["8 deliveries doubled"]
    assert result.counts.delivered == PERSONS * MESSAGES


async def test_what_comes_to_the_wrong_room_is_noticed(liar: Liar) -> None:
    """An entry that somebody gets who is not in its room is a failure, however well all others got it."""
    liar.stray = {5}
    result = await load(liar.url, rooms="2")
    assert result.reasons == ["4 deliveries to who is not in the room"]
    assert result.counts.delivered == MESSAGES * PERSONS // 2


async def test_an_acknowledgement_without_a_place_is_noticed(liar: Liar) -> None:
    """Who says `ok` and not which `seq` has acknowledged nothing that could be looked for."""
    liar.nowhere = {4}
    result = await load(liar.url)
    assert result.reasons == ["1 acknowledged message not delivered, or as another entry"]


async def test_rooms_are_entered_as_fast_as_they_may(liar: Liar) -> None:
    """Who is told that he enters rooms too often waits, and goes on where he was."""
    liar.too_often = 7
    result = await load(liar.url, rooms="5", rooms_each="5")
    assert result.reasons == []
    assert result.counts.failed == {}


async def test_a_log_is_not_read_from_its_beginning_because_the_first_try_failed(liar: Liar) -> None:
    """A connection that ends while it enters its rooms begins again at their ends."""
    liar.keep("old", 50)
    liar.hang_up = {4}  # the first to try out, then the first of those that stay, each in two rooms
    result = await load(liar.url, connections="1", room="new,old", rooms_each="2")
    assert result.reasons == []
    assert sum(result.counts.failed.values()) == 1
    assert (result.resumed, result.counts.delivered) == (0, MESSAGES)


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


async def test_the_rate_is_kept_however_senders_are_shared(liar: Liar) -> None:
    """Where processes have unequally many senders and readers, or none, what is due is neither more nor less."""
    for senders in ("2", "5"):
        result = await load(liar.url, connections=7, processes=3, senders=senders, slow=2, rate=31, history=13)
        assert result.reasons == []
        assert (result.counts.sent, result.counts.pages) == (31, 13)


async def test_history_is_read_beside(liar: Liar) -> None:
    """Pages of history are asked for at their own rate, and timed."""
    result = await load(liar.url, history="10")
    assert result.counts.pages == 10
    assert result.history.count == 10


async def test_pages_that_never_come_are_a_failure(liar: Liar) -> None:
    """A question for history without an answer is one, as a message is."""
    liar.unread = {3, 4}
    result = await load(liar.url, history="10")
    assert result.counts.pages == 8
    assert result.reasons == ["2 pages of history never came"]


async def test_pages_are_due_also_while_the_connection_is_away(liar: Liar) -> None:
    """What was to be read while nobody was connected is read afterwards, and took as long as that."""
    liar.cut, liar.unread = {10}, {3, 4, 5}
    result = await load(liar.url, history="20")
    assert result.counts.pages + len(liar.unread) >= 20
    assert sum(ask["action"] == "history" for ask in liar.actions) >= 20
    assert result.faults.unread + result.counts.pages == 20


async def test_compressed_messages_are_taken(liar: Liar) -> None:
    """Compression is offered as browsers do, and where it is agreed less is received; --no-deflate does without."""
    liar.deflates = True
    result = await load(liar.url, size="4000")
    plain = await load(liar.url, size="4000", no_deflate=True)
    for each in (result, plain):
        assert each.reasons == []
        assert each.counts.delivered == PERSONS * MESSAGES
    assert (result.counts.deflated, plain.counts.deflated) == (PERSONS, 0)
    assert plain.counts.received_bytes > 4_000 * PERSONS * MESSAGES > 1.5 * result.counts.received_bytes


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
    ("flags", "words"),
    [
        (
            {"token_url": "http://127.0.0.1:{port}/token?key=hunter2&user={{user}}"},
            r"no answer from http://\S+/token: ",
        ),
        ({"token_url": "http://[::hunter2/?user={{user}}"}, r"token-url: no answer from http://"),
        ({"token_url": "https://x.invalid/", "ca": "{file}"}, r"ca: expected certificates in PEM form"),
    ],
)
async def test_where_tokens_cannot_be_had_is_told_without_secrets(
    flags: dict[str, str], words: str, liar: Liar, tmp_path: Path, unused_tcp_port: int
) -> None:
    """What is wrong with where tokens come from is said in a line, without the query that may have a key."""
    (tmp_path / "ca.pem").write_text("no certificate", encoding="ascii")
    given = {name: text.format(port=unused_tcp_port, file=tmp_path / "ca.pem") for name, text in flags.items()}
    with pytest.raises(CannotRun, match=words) as told:
        await load(liar.url, **given)
    assert "key=" not in str(told.value)


async def test_a_name_with_several_addresses_leads_to_those_that_answer(
    liar: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where `localhost` is first an address at which nobody listens, as it often is, the next is taken."""
    port = urlsplit(liar.url).port
    with socket.create_server(("127.0.0.2", 0)) as silent:
        nobody = silent.getsockname()[1]

    async def getaddrinfo(host: str, port: int, **more: object) -> list[tuple[object, ...]]:
        found = [("127.0.0.2", nobody), ("127.0.0.1", port), ("127.0.0.1", port)]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", each) for each in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    target = await find(f"ws://localhost:{port}/ws")
    assert target.addresses == [(socket.AF_INET, "127.0.0.1", port)]
    assert (target.header, target.host) == (f"localhost:{port}", "localhost")


async def test_who_is_to_come_later_leaves_his_turn_to_others(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that wants to be left alone for a while is, and meanwhile others may knock."""
    what = plan(liar.url, {"connections": "2"}, secret=SECRET)
    async with Tokens(what) as tokens:
        worker = Worker(what, 0, await find(liar.url), tokens)

        async def refused(member: Member, since: int | None = None) -> None:
            raise NotConnected("later", 503, 3_600)

        monkeypatch.setattr(Member, "open", refused)
        monkeypatch.setattr(worker, "_opening", asyncio.Semaphore(1))
        assert [await worker._try(member, 0) for member in worker.members] == [30, 30]
        assert worker.counts.failed == {"later": 2}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "no HTTP server"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404; a server of Hubbub has its WebSocket at /ws"),
        (b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: nonsense\r\n\r\n", "no WebSocket server"),
        (b"HTTP/1.0 503 Later\r\nContent-Length: 0\r\n\r\n", "status 503"),
        (
            b"HTTP/1.1 308 There\r\nLocation: https://chat.example.com/ws?a=b\r\nContent-Length: 0\r\n\r\n",
            "status 308: what was at this path is at https://chat.example.com/ws$",
        ),
        (AGREED + b"\r\n", "did not choose the subprotocol hubbub.v1"),
        (AGREED + CHAT + b"Sec-WebSocket-Extensions: x-other\r\n\r\n", "extension x-other, which was not offered"),
        (
            AGREED + CHAT + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            "expected server_no_context_takeover; --no-deflate does without",
        ),
        (AGREED + CHAT + b"\r\n" + SYNCED, "an answer is not the chat's: .*`epoch`"),
        (b"", "closed during the handshake"),
    ],
)
async def test_what_is_no_chat_is_told(answer: bytes, words: str) -> None:
    """Whatever else answers at the URL is named for what it is."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = next(line for line in request.split("\r\n") if line.startswith("Sec-WebSocket-Key: "))[19:]
        head, end, reply = answer.replace(b"ACCEPT", accept_key(key).encode()).partition(b"\r\n\r\n")
        writer.write(head + end)
        if reply:
            await reader.readexactly(1)  # of what it asks first
            writer.write(reply)
            await reader.read()
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


async def test_ending_it_before_anybody_answered_ends_it(unused_tcp_port: int) -> None:
    """A server that takes connections and says nothing can be given up at once."""
    asked = asyncio.Event()

    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(keep_silent, "127.0.0.1", unused_tcp_port)
    async with server:
        running = coordinator(f"ws://127.0.0.1:{unused_tcp_port}/ws", {}, [])
        task = asyncio.create_task(running.run())
        await asked.wait()
        running.stop()
        with pytest.raises(CannotRun, match="ended by hand") as told:
            await task
        assert told.value.by_hand


async def test_ending_it_twice_waits_for_nothing(liar: Liar) -> None:
    """Who says stop again gets no report, and is told so."""
    seconds: list[Second] = []
    liar.mute = {*range(1, 1_000)}
    running = coordinator(liar.url, {"connections": 4, "rate": 20, "duration": "60"}, seconds)
    task = asyncio.create_task(running.run())
    await until(lambda: any(second.delivered for second in seconds), "the first deliveries", bound_s=90)
    running.stop()
    running.stop()
    with pytest.raises(CannotRun, match="ended by hand") as told:
        await task
    assert told.value.by_hand


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


async def test_who_comes_before_the_load_is_no_part_of_its_rate(liar: Liar, tmp_path: Path) -> None:
    """Entries of those who come into the rooms are delivered, and not in the time that rates are of."""
    file = tmp_path / "tokens"
    file.write_text("\n".join(f"a.b.c{number}" for number in range(4)), encoding="ascii")
    await _create_allowed(liar)
    liar.greets = 1_000
    result = await load(liar.url, tokens=str(file), senders=1)
    assert result.counts.delivered >= 1_000
    assert result.per_s.delivered * result.load_s <= PERSONS * MESSAGES


async def test_rooms_are_made_by_those_who_are_in_them(liar: Liar, tmp_path: Path) -> None:
    """Nobody makes, and is then a member of, more rooms than he listens to."""
    file = tmp_path / "tokens"
    file.write_text("\n".join(f"a.b.c{number}" for number in range(4)), encoding="ascii")
    await _create_allowed(liar)
    result = await load(liar.url, tokens=str(file), rooms="8", rooms_each="2")
    assert result.reasons == []
    assert sorted(liar.creators) == ["jwt.a.b.c0", "jwt.a.b.c1", "jwt.a.b.c2", "jwt.a.b.c3"]


async def _create_allowed(liar: Liar) -> None:
    async def create(connection: Any, ask: dict[str, Any]) -> None:
        liar.creators.add(connection.request.headers["Sec-WebSocket-Protocol"].split(", ")[1])
        await liar._ok(connection, ask, room=ask["room"], head=0)

    liar._create = create  # type: ignore[attr-defined]  # a server that makes rooms


async def test_it_connects_no_more_than_it_says(liar: Liar) -> None:
    """Beside its connections there is one, to try out what is asked for; and who has left comes back no more."""
    result = await load(liar.url)
    assert result.reasons == []
    assert sum(ask["action"] == "sync" for ask in liar.actions) == PERSONS + 1
