"""How connections end (RFC 6455, sections 5.5.1 and 7), and what `$disconnect` is told of it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from gatewaylab import Functions, Lab, running, still_works
from rawpeer import CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, Peer, closing, frame, request

from hubbub.gateway import server
from live import until


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999])
async def test_a_client_that_closes_gets_its_code_back(lab: Lab, code: int) -> None:
    """A client's CLOSE is answered with the same code, the server ends the connection, and `$disconnect` gets both."""
    async with await lab.open() as peer:
        await peer.send(closing(code, "I am off: ä"))
        assert await peer.closed() == Frame(CLOSE, code.to_bytes(2, "big"))
        assert await lab.end(peer) == (code, "I am off: ä")


@pytest.mark.usefixtures("witness")
async def test_a_client_that_closes_without_a_code_gets_none(lab: Lab) -> None:
    """An empty CLOSE is answered with an empty one, and `$disconnect` is told 1005 in API Gateway's words."""
    async with await lab.open() as peer:
        await peer.send(frame(CLOSE))
        assert await peer.closed() == Frame(CLOSE, b"")
        assert await lab.end(peer) == (1005, "Client-side close frame status not set")


async def test_a_reason_may_fill_its_frame(lab: Lab) -> None:
    """A reason of 123 bytes, which is all that a CLOSE has room for, is taken whole."""
    async with await lab.open() as peer:
        await peer.send(closing(4000, "x" * 123))
        assert (await peer.closed()).code == 4000
        assert await lab.end(peer) == (4000, "x" * 123)


NEVER_SENT = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("code", NEVER_SENT)
async def test_a_code_that_may_not_be_sent_is_a_breach(lab: Lab, code: int) -> None:
    """Codes that are reserved or out of every range are answered with 1002."""
    assert (await lab.fails(closing(code)))[0] == 1002


@pytest.mark.usefixtures("witness")
async def test_a_close_of_one_byte_is_a_breach(lab: Lab) -> None:
    """A CLOSE has no payload or at least two bytes; one byte is answered with 1002."""
    assert (await lab.fails(frame(CLOSE, b"\x03")))[0] == 1002


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("reason", [b"\xff", b"cut \xce", b"\xed\xa0\x80"])
async def test_a_reason_that_is_not_utf8_closes_with_1007(lab: Lab, reason: bytes) -> None:
    """The reason of a CLOSE must be UTF-8 too."""
    assert (await lab.fails(closing(1000, reason)))[0] == 1007


async def test_a_client_may_close_within_a_fragmented_message(lab: Lab) -> None:
    """A CLOSE between fragments ends the connection, and what was there of the message reaches nobody."""
    async with await lab.open() as peer:
        await peer.send(frame(TEXT, b"half a ", bits=0), closing(1000))
        assert (await peer.closed()).code == 1000
        await lab.end(peer)
    assert lab.functions.of("MESSAGE") == []


AFTER_CLOSE = {
    "a text": frame(TEXT, b"too late"),
    "a ping": frame(PING, b"too late"),
    "another close": closing(1000),
    "a close with another code": closing(4000, "no"),
    "a bad close": closing(1005),
    "a frame of no known kind": frame(3),
    "an unmasked frame": frame(TEXT, b"hi", mask=None),
    "a frame that is too long": frame(TEXT, bytes(70_000))[:14],
    "garbage": b"\xff" * 500,
    "half a frame": frame(TEXT, b"hello")[:4],
}


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("behind", [False, True], ids=["", "after a message"])
@pytest.mark.parametrize("rest", AFTER_CLOSE.values(), ids=AFTER_CLOSE.keys())
async def test_what_follows_a_clients_close_is_ignored(lab: Lab, rest: bytes, behind: bool) -> None:
    """Whatever comes behind a CLOSE, the CLOSE is answered as if nothing had, and no function hears of it."""
    async with await lab.open() as peer:
        await peer.send((frame(PING, b"before") if behind else b"") + closing(3001, "done") + rest)
        if behind:
            assert await peer.receive() == Frame(PONG, b"before")
        assert await peer.closed() == Frame(CLOSE, (3001).to_bytes(2, "big"))
        assert await lab.end(peer) == (3001, "done")
    assert lab.functions.of("MESSAGE", peer.id) == []


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("code", [1000, 4403])
async def test_a_server_that_closes_waits_for_the_answer(lab: Lab, code: int) -> None:
    """The server sends CLOSE, takes the client's as the answer and ends the connection; its own words are reported."""
    async with await lab.open() as peer:
        assert lab.hub.close(peer.id, code, "removed")
        close = await peer.receive()
        assert (close.opcode, close.code, close.reason) == (CLOSE, code, "removed")
        await peer.send(closing(code, "as you wish"))
        await peer.ended()
        assert await lab.end(peer) == (code, "removed")


@pytest.mark.usefixtures("witness")
async def test_messages_that_cross_the_servers_close_are_ignored(lab: Lab) -> None:
    """After its CLOSE the server answers neither messages nor pings, and waits on for the client's CLOSE."""
    async with await lab.open() as peer:
        lab.hub.close(peer.id, 4001, "")
        await peer.send(frame(TEXT, b"crossing"), frame(PING, b"?"), frame(TEXT, b"half", bits=0))
        assert (await peer.receive()).code == 4001
        await peer.send(closing(4001))
        await peer.ended()
        assert await lab.end(peer) == (4001, "")
    assert lab.functions.of("MESSAGE", peer.id) == []


@pytest.mark.usefixtures("witness")
async def test_a_breach_after_the_servers_close_gets_no_second_close(lab: Lab) -> None:
    """A connection never gets two CLOSE frames, even if what comes after the first cannot be read."""
    async with await lab.open() as peer:
        lab.hub.close(peer.id, 4001, "first")
        await peer.send(frame(3), b"\xff" * 100)
        assert (await peer.closed()).reason == "first"
        peer.cut()
        assert await lab.end(peer) == (4001, "first")


async def test_both_may_close_at_once(lab: Lab) -> None:
    """When CLOSE frames cross, each is the answer to the other, and what ended the connection is who was first here."""
    async with await lab.open() as peer:
        lab.hub.close(peer.id, 4001, "server")
        await peer.send(closing(4002, "client"))
        assert (await peer.closed()).code == 4001
        assert await lab.end(peer) == (4001, "server")


async def test_a_reason_of_the_servers_that_is_too_long_is_cut(lab: Lab) -> None:
    """A CLOSE of the server's is never longer than a control frame may be, and never ends within a character."""
    async with await lab.open() as peer:
        lab.hub.close(peer.id, 4001, "ä" * 200)
        close = await peer.receive()
        assert (len(close.payload), close.reason) == (124, "ä" * 61)


async def test_what_was_sent_before_the_close_arrives_before_it(lab: Lab) -> None:
    """Frames published and sent in the same turn as a CLOSE come before it."""
    async with await lab.open() as peer:
        assert lab.hub.join("room", peer.id)
        lab.hub.publish("room", b"one")
        lab.hub.send(peer.id, b"two")
        lab.hub.close(peer.id, 4001, "")
        lab.hub.publish("room", b"never")
        assert [await peer.text(), await peer.text()] == ["one", "two"]
        assert (await peer.receive()).code == 4001


async def test_a_client_that_never_answers_a_close_is_dropped() -> None:
    """A client that leaves the server's CLOSE unanswered is cut off after a while, however much it sends."""
    async with running(times_faster=5) as lab, await lab.open() as silent, await lab.open() as busy:
        lab.hub.rules = lab.hub.rules._replace(close_within_s=1.5)

        async def chatter() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    await busy.send(frame(TEXT, b"I do not listen"))
                    await asyncio.sleep(0.001)

        chattering = asyncio.create_task(chatter())
        for peer in (silent, busy):
            lab.hub.close(peer.id, 4001, "go")
            assert (await peer.closed(skip=True)).code == 4001
            assert await lab.end(peer) == (4001, "go")
        await chattering


async def test_a_client_that_never_goes_after_a_breach_is_dropped() -> None:
    """A client that keeps its socket open after the server's last word is cut off after a while, whatever it sends."""
    async with running(times_faster=5) as lab, await lab.open() as peer:
        lab.hub.rules = lab.hub.rules._replace(close_within_s=1.5)
        await peer.send(frame(3))
        assert (await peer.closed()).code == 1002
        with pytest.raises(ConnectionError):
            for _ in range(100_000):
                await peer.send(bytes(1_000))
                await asyncio.sleep(0.001)
        assert (await lab.end(peer))[0] == 1002


async def test_the_last_word_reaches_a_client_in_the_midst_of_sending(lab: Lab) -> None:
    """A client that is refused its very long message can send all of it and then still reads why."""
    async with await lab.open() as peer:
        head = frame(TEXT, b"", length=b"\x7f" + (2**24).to_bytes(8, "big"))
        await peer.send(head)
        for _ in range(2**24 // 65_536):
            await peer.send(bytes(65_536))
        assert (await peer.closed()).code == 1009
        await still_works(await lab.open())


async def test_a_client_that_is_cut_off_ends_with_1006(lab: Lab) -> None:
    """Without a CLOSE the end is reported with 1006: after a reset, a half close, or in the midst of a message."""
    for end in (Peer.cut, Peer.end):
        for said in (b"", frame(TEXT, b"half", bits=0), frame(TEXT, b"a cut frame")[:7]):
            async with await lab.open() as peer:
                await peer.send(said)
                end(peer)
                assert await lab.end(peer) == (1006, "Connection closed abnormally")
    await until(lambda: not len(lab.hub), "no connection is left")


async def test_a_silent_client_is_pinged_and_stays_if_it_answers() -> None:
    """After every silence the server pings, however long the answer may take; a client that answers stays."""
    async with running(times_faster=5, ping_after_s=2.0, pong_within_s=600.0) as lab, await lab.open() as peer:
        for _ in range(2):
            assert await peer.receive() == Frame(PING, b"")
            await peer.send(frame(PONG))
        await still_works(peer)


@pytest.mark.parametrize(
    "sign",
    [frame(TEXT, b""), frame(PING, b"x"), frame(TEXT, b"part", bits=0), frame(TEXT, b"x" * 100)[:50]],
    ids=["text", "ping", "fragment", "half a frame"],
)
async def test_any_frame_is_a_sign_of_life(sign: bytes) -> None:
    """A client that sends anything at all after a ping is not taken for dead."""
    async with running(times_faster=5, ping_after_s=1.0, pong_within_s=15.0) as lab, await lab.open() as peer:
        assert (await peer.receive()).opcode == PING
        await peer.send(sign)
        while (await peer.receive()).opcode != PING:
            pass
        assert len(lab.hub) == 1


async def test_a_client_that_does_not_answer_pings_is_dropped() -> None:
    """A client that leaves a ping unanswered is cut off, and reported with 1006 and the cause."""
    async with running(times_faster=5, ping_after_s=0.5, pong_within_s=0.5) as lab, await lab.open() as peer:
        assert (await peer.receive()).opcode == PING
        await peer.ended()
        assert await lab.end(peer) == (1006, "no answer to ping")


async def test_a_connection_without_messages_is_closed_with_1001() -> None:
    """With `idle_s` a connection ends after so long without a message, pings and pongs notwithstanding."""
    async with running(times_faster=5, idle_s=3.0) as lab, await lab.open() as peer:
        await peer.send(frame(PING), frame(PONG))
        assert (await peer.receive()).opcode == PONG
        close = await peer.receive()
        assert (close.code, close.reason) == (1001, "Going away")
        await peer.send(closing(1001))
        assert await lab.end(peer) == (1001, "Going away")


async def test_a_connection_ends_with_its_lifetime() -> None:
    """With `lifetime_s` a connection ends after so long, however busy it is."""
    async with running(times_faster=5, lifetime_s=2.5) as lab, await lab.open() as peer:
        while True:
            await peer.send(frame(TEXT, b"busy"))
            came = await peer.receive()
            if came.opcode == CLOSE:
                break
        assert (came.code, came.reason) == (1001, "Going away")


async def test_a_drain_closes_with_1012_and_tells_every_disconnect() -> None:
    """A gateway that drains closes its connections with 1012, and is done when each `$disconnect` has been told."""
    functions = Functions()
    async with running(functions) as lab:
        peers = [await lab.open() for _ in range(3)]
        draining = asyncio.create_task(lab.gateway.drain(0.0))
        for peer in peers:
            close = await peer.receive()
            assert (close.code, close.reason) == (1012, "Service restart")
            await peer.send(closing(1012))
        await draining
        assert [await lab.end(peer) for peer in peers] == [(1012, "Service restart")] * 3


async def test_a_drain_does_not_wait_for_clients_that_do_not_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not answer its CLOSE does not hold up a drain, and its `$disconnect` is told as well."""
    monkeypatch.setattr(server, "ANSWER_CLOSE_WITHIN_S", 0.3)
    async with running() as lab:
        peer = await lab.open()
        broken = await lab.open()
        await broken.send(frame(3))
        assert (await broken.closed()).code == 1002
        await lab.gateway.drain(0.0)
        assert not len(lab.hub)
        assert await lab.end(peer) == (1012, "Service restart")
        assert (await lab.end(broken))[0] == 1002


async def test_a_message_may_end_with_the_close_in_one_segment(lab: Lab) -> None:
    """A message that comes in one segment with the CLOSE behind it reaches its function."""
    async with await lab.dial(
        request() + frame(TEXT, b"last ", bits=0) + frame(CONTINUATION, b"words") + closing(1000)
    ) as peer:
        assert (await peer.answer()).status == 101
        assert (await lab.functions.wait_for("MESSAGE"))["body"] == "last words"
        await lab.functions.wait_for("DISCONNECT")
