"""Handshakes as the wire brings them: in pieces, too slowly, too large, too early, too many, among other requests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import Any

import pytest
from gatewaylab import Functions, Lab, hello, running, still_works
from rawpeer import PING, PONG, TEXT, Frame, Peer, closing, frame, request

from hubbub.apigateway import Event, Response
from hubbub.gateway import sockets
from hubbub.gateway.queueing import RETRY_AFTER_S
from live import BOUND_S, until
from loops import held_up

GET = b"GET /page HTTP/1.1\r\nHost: chat.example\r\n"


async def test_a_handshake_that_trickles_in_works() -> None:
    """A handshake that comes byte by byte within its time is answered like any other."""
    async with running(handshake_timeout_s=15.0) as lab, await lab.dial() as peer:
        await peer.trickle(request("/ws?a=b", extra=("X-Long: " + "x" * 300,)))
        assert (await peer.answer()).status == 101
        await still_works(peer)


async def test_a_handshake_is_the_same_at_once_and_in_pieces(lab: Lab) -> None:
    """Functions are told the same of both, and frames that follow it at once are taken from both."""
    head = request("/ws?a=b&a=c", extra=("X-Two: 1", "x-two: 2", "Cookie: a=b"), User_Agent="somebody")
    for cut in (len(head), 10):
        async with await lab.dial(head[:cut]) as peer:
            await lab.hang_on()
            await peer.send(head[cut:] + frame(TEXT, b"early"))
            assert (await peer.answer()).status == 101
            assert await peer.text() == "early"
    whole, pieces = await lab.functions.wait_for("CONNECT", count=1), lab.functions.of("CONNECT")[1]
    for told in (whole, pieces):
        for headers in (told["headers"], told["multiValueHeaders"]):
            assert headers.pop("X-Amzn-Trace-Id")
        context = told.pop("requestContext")
        assert context["identity"] == {"sourceIp": "127.0.0.1", "userAgent": "somebody"}
    assert whole == pieces
    assert whole["multiValueHeaders"]["X-Two"] == ["1", "2"]


@pytest.mark.parametrize("step", ["before it is known", "when it is added"])
async def test_a_socket_that_cannot_be_handed_over_ends_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    """Whichever step fails after `$connect` has agreed: `$disconnect` is told once, and one line is logged."""

    def fail(*arguments: Any, **fields: Any) -> None:
        raise OSError("a defect")

    with monkeypatch.context() as patched:
        if step == "when it is added":
            patched.setattr(lab.hub, "add", fail)
        else:
            patched.setattr(sockets, "Life", fail)
        async with await lab.dial(request()):
            await lab.functions.wait_for("DISCONNECT", count=1)
            await lab.hang_on()
    assert len(lab.functions.of("DISCONNECT")) == 1
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "a socket could not be handed over"
    ]
    async with await lab.open() as peer:
        await still_works(peer)


@pytest.mark.parametrize(
    "begin", [b"G", request()[:-1], request()[:30], b"\r\n\r\n"], ids=lambda begin: f"{len(begin)}"
)
async def test_a_handshake_that_takes_too_long_is_cut_with_408(begin: bytes) -> None:
    """A head that has begun and is not here in time is answered with 408, and others notice nothing."""
    async with (
        running(times_faster=5, handshake_timeout_s=1.0) as lab,
        await lab.open() as witness,
        await lab.dial(begin) as peer,
    ):
        answer = await peer.answer()
        assert (answer.status, answer.message) == (408, "The request took too long to arrive.")
        await peer.ended()
        await still_works(witness)


async def test_a_head_that_goes_on_and_on_is_cut_too() -> None:
    """Bytes that keep coming do not win time: a head has its whole time and no more."""
    async with running(times_faster=5, handshake_timeout_s=1.0) as lab, await lab.dial(request()[:-2]) as peer:

        async def drip() -> None:
            while True:
                await peer.send(b"X-Drip: 1\r\n")
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        assert (await peer.answer()).status == 408
        dripping.cancel()
        await asyncio.wait({dripping})


async def test_who_says_nothing_is_hung_up_on() -> None:
    """A connection on which nothing comes is closed without a word."""
    async with running(times_faster=5, handshake_timeout_s=1.0) as lab, await lab.dial() as peer:
        await peer.ended()


async def test_who_asks_in_time_is_answered_though_the_process_is_held_up() -> None:
    """What he has said is here, and was not read: that is looked at before he is taken for too slow."""
    async with running(times_faster=5, handshake_timeout_s=0.5) as lab:
        with socket.create_connection(("127.0.0.1", lab.port)) as client:
            client.settimeout(BOUND_S)
            await until(lambda: bool(lab.gateway._watched), "it is accepted")
            with held_up(1.0, lambda: client.sendall(request())):
                assert (await asyncio.to_thread(client.recv, 100)).startswith(b"HTTP/1.1 101 ")


async def test_a_sweep_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong in one look at the clock, the next one comes, and who is too slow is found."""
    async with running(times_faster=5, handshake_timeout_s=1.0) as lab:
        failed = asyncio.Event()

        def fail() -> None:
            failed.set()
            monkeypatch.undo()
            raise LookupError("a defect")

        monkeypatch.setattr(lab.hub, "sweep", fail)
        peer = await lab.dial(b"G")
        await failed.wait()
        assert (await peer.answer()).status == 408
        await (await lab.dial()).ended()


async def test_time_for_the_head_begins_anew_with_each_request() -> None:
    """A request on a connection that is kept alive has its own time; what its first byte begins must end."""
    async with running(times_faster=5, handshake_timeout_s=1.0) as lab, await lab.dial(GET + b"\r\n") as peer:
        assert (await peer.answer()).body == b"/page"
        await peer.send(request()[:20])
        assert (await peer.answer()).status == 408


def heads_that_are_too_large() -> dict[str, bytes]:
    many = "".join(f"X-{n}: {'a' * 50}\r\n" for n in range(1_000)).encode()
    return {
        "64 KB in one header": request(X_Long="a" * 65_536),
        "64 KB in many headers": request()[:-2] + many + b"\r\n",
        "64 KB in the target": request("/ws?" + "a" * 65_536),
        "just over the limit": request(X_Long="a" * 16_384),
        "64 KB without an end": request()[:-2] + b"X-Long: " + b"a" * 65_536,
        "64 KB in one name": request()[:-2] + b"X" * 65_536,
        "a plain request's": GET + many + b"\r\n",
    }


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("head", heads_that_are_too_large().values(), ids=heads_that_are_too_large().keys())
async def test_a_head_that_is_too_large_is_refused_with_431(lab: Lab, head: bytes) -> None:
    """More than 16 KB of head is refused with 431, in whatever it consists, whole or in pieces; nobody is asked."""
    async with await lab.dial(head) as peer:
        answer = await peer.answer()
        assert (answer.status, answer.message) == (431, "The head of a request has at most 16384 bytes.")
        await peer.ended()
    async with await lab.dial() as peer:
        for n in range(0, len(head), 1_000):
            await peer.send(head[n : n + 1_000])
        assert (await peer.answer()).status == 431
    assert len(lab.functions.of("CONNECT")) == 1  # the witness's


async def test_a_refusal_reaches_a_client_in_the_midst_of_sending(lab: Lab) -> None:
    """A client that is refused for its endless head can go on sending and then still reads why."""
    async with await lab.dial(request()[:-2] + b"X-Long: ") as peer:
        for _ in range(128):
            await peer.send(b"a" * 65_536)
        assert (await peer.answer()).status == 431


async def test_a_head_of_nearly_the_limit_is_taken(lab: Lab) -> None:
    """A long token in a header or a query is no trouble."""
    for head in (request(Authorization="Bearer " + "a" * 15_000), request("/ws?token=" + "a" * 15_000)):
        await still_works(await lab.open(head))


NOT_HTTP = {
    "TLS": bytes.fromhex("16030100f5010000f10303") + bytes(range(240)),
    "zeros": bytes(100),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a frame": frame(TEXT, b"hello"),
    "no version": b"GET\r\n\r\n",
    "a name with a blank": GET + b"A b: c\r\n\r\n",
    "a value with a control character": GET + b"A: \x01\r\n\r\n",
    "a target with a blank": request("/w s"),
    "a folded line": request(extra=("X-A: a\r\n b",)),
    "two lengths": GET + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("data", NOT_HTTP.values(), ids=NOT_HTTP.keys())
async def test_what_is_not_http_is_answered_with_400(lab: Lab, data: bytes) -> None:
    """Bytes that are no HTTP request are answered with 400 and the end of the connection."""
    async with await lab.dial(data) as peer:
        answer = await peer.answer()
        assert (answer.status, answer.message) == (400, "This is not HTTP.")
        await peer.ended()


async def test_a_client_that_is_gone_during_connect_is_disconnected() -> None:
    """Where `$connect` agrees to a client that is gone, `$disconnect` follows with 1006, and nothing is left."""
    functions = Functions()
    functions.held.clear()
    async with running(functions) as lab:
        for end in (Peer.cut, Peer.end):
            async with await lab.dial(request()) as peer:
                connect = await functions.wait_for("CONNECT", count=len(functions.of("CONNECT")) + 1)
                end(peer)
                functions.held.set()
                peer.id = connect["requestContext"]["connectionId"]
                assert await lab.end(peer) == (1006, "Connection closed abnormally")
                functions.held.clear()
        functions.held.set()
        await until(lambda: not len(lab.hub), "no connection is left")
        await still_works(await lab.open())


async def test_no_more_connections_than_allowed() -> None:
    """Beyond `max_connections` a client is refused with 503 and told when to come again; a free place is given."""
    functions = Functions()
    async with running(functions, max_connections=2) as lab:
        first, second = await lab.open(), await lab.open()
        async with await lab.dial(request()) as third:
            answer = await third.answer()
            assert (answer.status, int(answer.headers["retry-after"]) in RETRY_AFTER_S) == (503, True)
            await third.ended()
        await first.send(closing(1000))
        await first.closed()
        await until(lambda: len(lab.hub) == 1, "one is gone")
        await still_works(await lab.open())
        await still_works(second)
        assert len(functions.of("CONNECT")) == 3


async def test_handshakes_under_way_count_as_connections() -> None:
    """Clients that wait for `$connect` take places, so that no rush gets in beyond the limit; refused ones do not."""
    functions = Functions()
    functions.held.clear()
    async with running(functions, max_connections=1) as lab:
        first = await lab.dial(request())
        await functions.wait_for("CONNECT")
        assert (await (await lab.dial(request())).answer()).status == 503
        assert (await (await lab.dial(request("/other"))).answer()).status == 404
        functions.held.set()
        assert (await first.answer()).status == 101
        assert (await (await lab.dial(request())).answer()).status == 503


async def test_handshakes_are_decided_a_few_at_a_time() -> None:
    """Beyond `max_handshakes` that wait for their answer a client is refused at once; connections do not count."""
    functions = Functions()
    async with running(functions, max_handshakes=2) as lab:
        for _ in range(3):
            await still_works(await lab.open())
        functions.held.clear()
        waiting = [await lab.dial(request()) for _ in range(2)]
        await functions.wait_for("CONNECT", count=5)
        for _ in range(3):
            answer = await (await lab.dial(request())).answer()
            assert (answer.status, int(answer.headers["retry-after"]) in RETRY_AFTER_S) == (503, True)
        assert len(functions.of("CONNECT")) == 5
        functions.held.set()
        assert [(await peer.answer()).status for peer in waiting] == [101, 101]
        await still_works(await lab.open())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how long a socket's queue is")
async def test_who_has_not_been_accepted_counts_as_well() -> None:
    """Clients in the kernel's queue take places too, where they wait under a rush; one in four is let in even so."""
    with contextlib.ExitStack() as stack:
        queue = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        closed = socket.create_server(("127.0.0.1", 0))
        closed.close()
        async with running(max_handshakes=3, listeners=[queue, closed]) as lab:
            for _ in range(3):
                await still_works(await lab.open())
                stack.enter_context(socket.create_connection(queue.getsockname()))
            statuses = [(await (await lab.dial(request())).answer()).status for _ in range(8)]
            assert (statuses.count(503), statuses.count(101)) == (6, 2)
            queue.accept()[0].close()
            await still_works(await lab.open())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how long a socket's queue is")
async def test_a_long_queue_is_sent_away_before_it_is_accepted() -> None:
    """Who waits in it gets 503 as ever; who asks for something else, or has not yet asked, is served."""
    async with contextlib.AsyncExitStack() as stack:
        queue = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=20))

        async def wait(asks: bytes) -> Peer:
            peer = await stack.enter_async_context(await Peer.dial(queue.getsockname()[1]))
            await peer.send(asks)
            return peer

        async with running(max_handshakes=3, listeners=[queue]) as lab:
            await still_works(await lab.open())
            asking = [await wait(request()) for _ in range(8)]
            page = await wait(GET + b"Connection: close\r\n\r\n")
            elsewhere = await wait(request("/elsewhere"))
            silent = await wait(b"")
            assert (await (await lab.dial(request())).answer()).status == 503
            for peer in asking:
                answer = await peer.answer()
                assert answer.line == "HTTP/1.1 503 Service Unavailable"
                assert answer.body == b'{"message":"No more connections just now."}'
                assert int(answer.headers["retry-after"]) in RETRY_AFTER_S
                await peer.ended()
            assert (await page.answer()).body == b"/page"
            await page.ended()
            assert (await elsewhere.answer()).line.startswith("HTTP/1.1 404 ")
            await elsewhere.ended()
            await silent.send(request())
            assert (await silent.answer()).line.startswith("HTTP/1.1 101 ")
            assert lab.hub.stats.refused == {503: 9, 404: 1}
            await lab.functions.wait_for("CONNECT", count=2)
            await still_works(await lab.open())
            silent.cut()


async def test_those_who_are_refused_together_are_told_to_come_back_one_by_one() -> None:
    """Of many refusals each names one of several times to come back."""
    async with running(max_connections=1) as lab:
        await lab.open()
        told = set()
        for _ in range(60):
            async with await lab.dial(request()) as peer:
                told.add(int((await peer.answer()).headers["retry-after"]))
        assert len(told) > 1
        assert told <= set(RETRY_AFTER_S)


async def test_what_comes_behind_a_handshake_waits_in_the_clients_socket() -> None:
    """While `$connect` thinks, a client can send only what the sockets' own buffers hold; then all of it is taken."""
    functions = Functions()
    got = 0

    async def count(event: Event) -> Response:
        nonlocal got
        got += len(event.body or "")
        return Response()

    functions.held.clear()
    piece, pieces = frame(TEXT, b"x" * 32_000), 1_500
    async with running(functions, functions.api(default=count)) as lab, await lab.dial(request() + piece) as peer:

        async def send() -> None:
            for _ in range(pieces - 1):
                await peer.send(piece)

        sending = asyncio.create_task(send())
        await functions.wait_for("CONNECT")
        await peer.nothing_until(lab.hang_on())
        await asyncio.wait({sending}, timeout=0.5)
        assert not sending.done(), "48 MB went somewhere"
        functions.held.set()
        assert (await peer.answer()).status == 101
        await sending
        await until(lambda: got == 32_000 * pieces, "all of it is taken")


async def test_a_websocket_may_follow_other_requests_on_the_connection(lab: Lab) -> None:
    """A connection that was kept alive after HTTP requests can become a WebSocket."""
    async with await lab.dial(GET + b"\r\n") as peer:
        assert (await peer.answer()).body == b"/page"
        await peer.send(b"POST /form HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n" + bytes(70_000))
        assert (await peer.answer()).body == b"/form"
        await peer.send(request())
        assert (await peer.answer()).status == 101
        await still_works(peer)


async def test_a_websocket_is_asked_for_in_turn() -> None:
    """A handshake that is sent behind unanswered requests is taken up when these are answered, what follows it too."""
    answers = asyncio.Semaphore(0)

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await answers.acquire()
        await hello(scope, receive, send)

    async with running(app=slow) as lab:
        peer = await lab.dial(GET + b"\r\n" + GET + b"\r\n" + request() + frame(TEXT, b"one"), frame(TEXT, b"two"))
        await peer.nothing_until(lab.hang_on())
        assert lab.functions.events == []
        answers.release()
        assert (await peer.answer()).body == b"/page"
        await peer.send(frame(TEXT, b"three"))
        await peer.nothing_until(lab.hang_on())
        assert lab.functions.events == []
        answers.release()
        assert (await peer.answer()).body == b"/page"
        assert (await peer.answer()).status == 101
        assert sorted([await peer.text() for _ in range(3)]) == ["one", "three", "two"]


async def test_a_websocket_does_not_overtake_an_answer_that_is_not_read() -> None:
    """What is published waits behind 101, and 101 behind what was asked before: nothing gets into the midst of it."""
    page = b"page" * 2_000_000  # more than the socket of a client that does not read takes

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"%d" % len(page))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": page})

    async with running(app=app) as lab, await lab.dial() as peer:
        lab.hub.configure(lab.hub.rules, 2 * len(page))
        peer.stop_reading()
        await peer.send(GET, b"\r\n", request())
        await until(lambda: len(lab.hub) == 1, "the client is connected")
        for text in (b"one", b"two"):
            lab.hub.broadcast(text)
            await asyncio.sleep(0)
        (live,) = lab.hub.peers()
        assert live.congested
        peer.read_again()
        assert (await peer.answer()).body == page
        assert (await peer.answer()).status == 101
        assert (await peer.text(), await peer.text()) == ("one", "two")
        await until(lambda: not live.congested, "the client has read all")
        await still_works(peer)


async def test_a_websocket_outlives_the_time_that_http_is_kept_alive() -> None:
    """The clock that ends an idle HTTP connection does not run for a WebSocket, even one that came behind a request."""
    options = {"timeout_keep_alive": 1}
    async with running(server_options=options, times_faster=5, ping_after_s=4.0) as lab:
        peers = [await lab.dial(GET + b"\r\n" + request()), await lab.dial(GET + b"\r\n")]
        for peer in peers:
            assert (await peer.answer()).body == b"/page"
        await peers[1].send(request())
        for peer in peers:
            assert (await peer.answer()).status == 101
        for _ in range(2):
            for peer in peers:
                assert await peer.receive() == Frame(PING, b"")
                await peer.send(frame(PONG))
        for peer in peers:
            await still_works(peer)


async def test_no_websocket_on_a_connection_that_is_to_end(lab: Lab) -> None:
    """Behind a request with `Connection: close` there is no WebSocket: the connection ends with that answer."""
    async with await lab.dial(GET + b"Connection: close\r\n\r\n" + request()) as peer:
        assert (await peer.answer()).body == b"/page"
        await peer.ended()
    assert lab.functions.events == []


async def test_http_goes_on_after_a_refused_protocol(lab: Lab) -> None:
    """An upgrade to something else than WebSocket is ignored: the request is answered, and so is the next."""
    async with await lab.dial(GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n") as peer:
        assert (await peer.answer()).body == b"/page"
        await peer.send(GET + b"\r\n")
        assert (await peer.answer()).body == b"/page"


async def test_a_draining_gateway_lets_nobody_in() -> None:
    """A handshake that comes within a drain is refused with 503, and so is one that `$connect` was pondering."""
    functions = Functions()
    functions.held.clear()
    async with running(functions) as lab:
        early, late = await lab.dial(request()), await lab.dial()
        connect = await functions.wait_for("CONNECT")
        draining = asyncio.create_task(lab.gateway.drain(0.0))
        await until(lambda: lab.gateway.draining, "the drain")
        await late.send(request())
        assert (await late.answer()).status == 503
        functions.held.set()
        assert (await early.answer()).status == 503
        early.id = connect["requestContext"]["connectionId"]
        assert await lab.end(early) == (1006, "Connection closed abnormally")
        early.cut()
        late.cut()
        await draining


async def test_a_server_that_shuts_down_does_not_answer_101() -> None:
    """A handshake under way when uvicorn shuts down is waited for, and refused instead of let in and cut."""
    functions = Functions()
    functions.held.clear()
    async with running(functions, server_options={"timeout_graceful_shutdown": 10}) as lab:
        peer = await lab.dial(request())
        connect = await functions.wait_for("CONNECT")
        lab.server.should_exit = True
        await until(lambda: not lab.server.servers[0].is_serving(), "uvicorn shuts down")
        functions.held.set()
        assert (await peer.answer()).status == 503
        peer.id = connect["requestContext"]["connectionId"]
        assert (await lab.end(peer))[0] == 1006
