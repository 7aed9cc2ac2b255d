"""The HTTP client against servers in this process: what it keeps, bounds and notices, and how it fails."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from endpoint import Call, Endpoint, response
from hubbub.aws import connection, pool
from hubbub.aws.http import Broken, HttpClient, HttpResponse, Unreached, trusting
from hubbub.aws.pool import Pool
from live import BOUND_S

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

SOON_S = 0.05
"""A bound that is meant to be reached."""


@asynccontextmanager
async def serving(talk: Talk, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that speaks as `talk` does on each connection, and closes it then; its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side went away
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        scheme = "https" if context else "http"
        yield f"{scheme}://localhost:{server.sockets[0].getsockname()[1]}/"


def saying(*parts: bytes) -> Talk:
    """Answers the first request with these bytes, each in a segment of its own, and ends."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return talk


async def get(http: HttpClient, url: str, *, repeat: bool = False, timeout_s: float = BOUND_S) -> HttpResponse:
    return await http.request("GET", url, timeout_s=timeout_s, repeat=repeat)


async def called(endpoint: Endpoint, count: int) -> None:
    """Return once the endpoint has got that many requests."""
    async with asyncio.timeout(BOUND_S):
        while len(endpoint.calls) < count:
            await asyncio.sleep(0.001)


# Requests and answers


async def test_a_request_is_sent_and_its_answer_is_whole(endpoint: Endpoint, http: HttpClient) -> None:
    """Method, target, headers and body arrive; status, headers and body come back."""
    endpoint.answer = lambda call: response(201, b"made", X_Kind="a")
    answer = await http.request(
        "POST", f"{endpoint.url}?a=b%20c", headers=[("X-One", "1")], body=b"\x00body", timeout_s=BOUND_S
    )
    assert (answer.status, answer.body, answer.headers["x-kind"]) == (201, b"made", "a")
    [call] = endpoint.calls
    assert call.line == "POST /events?a=b%20c HTTP/1.1"
    assert call.body == b"\x00body"
    assert call.headers["x-one"] == "1"
    assert call.headers["host"] == f"127.0.0.1:{endpoint.port}"


ANSWERS = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", 200, b"hello"),
    "trailers": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: b\r\n\r\n", 200, b"x"),
    "until it closes": (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello", 200, b"hello"),
    "old": (b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nhello", 200, b"hello"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "first it will come": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, b"x"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_answers_of_every_form_are_read(name: str, http: HttpClient) -> None:
    """An answer is read whatever says where it ends, in one piece or byte by byte."""
    said, status, body = ANSWERS[name]
    for parts in ([said], [said[n : n + 1] for n in range(len(said))]):
        async with serving(saying(*parts)) as url:
            answer = await get(http, url)
            assert (answer.status, answer.body) == (status, body)


async def test_headers_that_come_several_times_are_joined(http: HttpClient) -> None:
    """The values of one name are joined by commas, whatever its case."""
    async with serving(saying(b"HTTP/1.1 200 OK\r\nA: 1\r\na: 2\r\nContent-Length: 0\r\n\r\n")) as url:
        assert (await get(http, url)).headers == {"a": "1, 2", "content-length": "0"}


WRONG = {
    "no HTTP": (b"SSH-2.0-OpenSSH\r\n\r\n", "is no HTTP"),
    "another protocol": (b"HTTP/1.1 101 X\r\nUpgrade: y\r\nConnection: upgrade\r\n\r\n", "changes the protocol"),
    "nothing": (b"", "closed before the answer was whole"),
    "half a head": (b"HTTP/1.1 200 OK\r\nA: b\r\n", "closed before the answer was whole"),
    "half a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "closed before the answer was whole"),
    "half a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf", "closed before the answer"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_an_answer_that_is_none_leaves_one_in_doubt(name: str, http: HttpClient) -> None:
    """What is no answer, or only the beginning of one, is `Broken`."""
    said, words = WRONG[name]
    async with serving(saying(said)) as url:
        with pytest.raises(Broken, match=words):
            await get(http, url)


async def test_an_answer_has_a_bound(http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is longer than what anybody sends is given up."""
    monkeypatch.setattr(connection, "MAX_ANSWER_BYTES", 1_000)
    for said in (response(200, b"x" * 1_001), response(200, b"", X="y" * 1_001)):
        async with serving(saying(said)) as url:
            with pytest.raises(Broken, match="more than 1000 bytes"):
                await get(http, url)


@pytest.mark.parametrize(
    "method, target, headers",
    [
        ("GET", "/", [("A", "b\r\nC: d")]),
        ("GET", "/", [("A\nB", "c")]),
        ("GET", "/a b", []),
        ("GET", "/\r\nA: b", []),
        ("GET / HTTP/1.1\r\nA:", "/", []),
        ("HEAD", "/", []),
        ("GET", "/#part", []),
    ],
)
async def test_nothing_can_be_smuggled_into_a_head(
    method: str, target: str, headers: list[tuple[str, str]], endpoint: Endpoint, http: HttpClient
) -> None:
    """What would make another request than was meant is refused, and nothing is sent."""
    with pytest.raises(ValueError, match="expected"):
        await http.request(method, f"http://127.0.0.1:{endpoint.port}{target}", headers=headers, timeout_s=BOUND_S)
    assert endpoint.calls == []


@pytest.mark.parametrize(
    "url", ["ftp://host/", "host/path", "http:///path", "http://a@b/", "http://host:x/", "http://h?q"]
)
async def test_only_urls_of_http_are_taken(url: str, http: HttpClient) -> None:
    """A URL without a scheme of HTTP, a host or a path is an error that says what was expected."""
    with pytest.raises(ValueError, match="url: expected"):
        await get(http, url)


# Connections


async def test_connections_are_kept(endpoint: Endpoint, http: HttpClient) -> None:
    """One request after another goes over one connection."""
    for _ in range(3):
        await get(http, endpoint.url)
    assert (len(endpoint.calls), endpoint.connections) == (3, 1)


async def test_a_connection_that_is_to_be_closed_is_not_used_again(endpoint: Endpoint, http: HttpClient) -> None:
    """After `Connection: close` the next request takes a new one."""
    endpoint.answer = lambda call: response(Connection="close")
    await get(http, endpoint.url)
    await get(http, endpoint.url)
    assert endpoint.connections == 2


async def test_connections_have_a_bound(endpoint: Endpoint) -> None:
    """However many requests there are, no more connections are open than are allowed, and all get through."""
    async with HttpClient(max_connections=2) as http:
        endpoint.answer = lambda call: response(200, call.body)
        endpoint.gate.clear()
        bodies = [b"%d" % n for n in range(20)]
        asked = [
            asyncio.create_task(http.request("POST", endpoint.url, body=body, timeout_s=BOUND_S)) for body in bodies
        ]
        await called(endpoint, 2)
        endpoint.gate.set()
        assert [(await answer).body for answer in asked] == bodies
    assert endpoint.connections == 2
    assert endpoint.most_at_once == 2


async def test_waiting_for_a_connection_has_a_bound(endpoint: Endpoint) -> None:
    """Who gets none in time is told that nothing was done; who waits longer gets it."""
    async with HttpClient(max_connections=1) as http:
        endpoint.gate.clear()
        first = asyncio.create_task(get(http, endpoint.url))
        await called(endpoint, 1)
        patient = asyncio.create_task(get(http, endpoint.url))
        with pytest.raises(Unreached, match="none of 1 connections got free in time"):
            await get(http, endpoint.url, timeout_s=SOON_S)
        endpoint.gate.set()
        assert (await first).status == (await patient).status == 200
    assert len(endpoint.calls) == 2


async def test_a_connection_that_ends_makes_room_for_who_waits(endpoint: Endpoint) -> None:
    """When the only connection ends, the next request gets one of its own."""
    async with HttpClient(max_connections=1) as http:
        endpoint.answer = lambda call: response(Connection="close")
        answers = await asyncio.gather(*[get(http, endpoint.url) for _ in range(5)])
        assert [answer.status for answer in answers] == [200] * 5
    assert endpoint.connections == 5


async def test_a_wait_that_is_given_up_costs_the_others_nothing(endpoint: Endpoint) -> None:
    """Who is cancelled while waiting takes no connection along."""
    async with HttpClient(max_connections=1) as http:
        endpoint.gate.clear()
        first = asyncio.create_task(get(http, endpoint.url))
        waiting = [asyncio.create_task(get(http, endpoint.url)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        endpoint.gate.set()
        await first
        waiting[1].cancel()
        assert (await waiting[2]).status == 200
        await asyncio.gather(*waiting[:2], return_exceptions=True)
        assert (await get(http, endpoint.url)).status == 200


async def test_nobody_there_is_surely_not_done(http: HttpClient) -> None:
    """Where nobody listens, or the name is none, the request was surely not done."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Unreached, match=f"http://127.0.0.1:{port} cannot be reached"):
        await get(http, f"http://127.0.0.1:{port}/")
    with pytest.raises(Unreached):
        await get(http, "http://nowhere.invalid/")


async def test_connecting_has_a_bound() -> None:
    """A server that does not take connections is not waited for."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        with socket.create_connection(deaf.getsockname()), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(deaf.getsockname())  # fills what is left of its queue
            async with HttpClient(connect_timeout_s=SOON_S) as http:
                with pytest.raises(Unreached, match="no connection in time"):
                    await get(http, f"http://127.0.0.1:{deaf.getsockname()[1]}/")


async def test_no_answer_in_time_leaves_one_in_doubt(endpoint: Endpoint, http: HttpClient) -> None:
    """A request without an answer in time is `Broken`, and its connection is not used again."""
    await get(http, endpoint.url)
    endpoint.gate.clear()
    with pytest.raises(Broken, match="no answer in time"):
        await get(http, endpoint.url, timeout_s=SOON_S, repeat=True)
    endpoint.gate.set()
    assert (await get(http, endpoint.url)).status == 200
    assert endpoint.connections == 2


async def test_a_request_that_is_given_up_leaves_no_answer_behind(endpoint: Endpoint, http: HttpClient) -> None:
    """The answer to a request that was cancelled is never taken for that to the next one."""
    endpoint.answer = lambda call: response(200, call.body)
    endpoint.gate.clear()
    given_up = asyncio.create_task(http.request("POST", endpoint.url, body=b"old", timeout_s=BOUND_S))
    await called(endpoint, 1)
    given_up.cancel()
    endpoint.gate.set()
    assert (await http.request("POST", endpoint.url, body=b"new", timeout_s=BOUND_S)).body == b"new"
    with pytest.raises(asyncio.CancelledError):
        await given_up


async def test_what_nobody_asked_for_ends_a_connection(http: HttpClient) -> None:
    """A second answer to one request is nobody's, and the connection is not used again."""
    ends = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response(200, b"first") + response(200, b"second"))
        await reader.read()  # until it is closed
        ends.set()

    async with serving(talk) as url:
        assert (await get(http, url)).body == b"first"
        async with asyncio.timeout(BOUND_S):
            await ends.wait()


async def test_idle_connections_are_closed() -> None:
    """A connection that is not used is closed from our side."""
    ends = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response())
        await reader.read()
        ends.set()

    async with HttpClient(idle_s=0.01) as http, serving(talk) as url:
        await get(http, url)
        async with asyncio.timeout(BOUND_S):
            await ends.wait()


async def test_old_connections_are_not_used(
    endpoint: Endpoint, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that grew too old while the process was frozen, and no timer ran, is not used again."""
    await get(http, endpoint.url)
    later = connection.time.time() + 3_600
    monkeypatch.setattr(connection.time, "time", lambda: later)
    await get(http, endpoint.url)
    assert endpoint.connections == 2


# Connections that broke


class Frozen:
    """A server in a thread, so that it goes on while this process' loop stands still.

    Attributes:
        served: how many requests it has answered.

    """

    def __init__(self) -> None:
        self.served = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._closes = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Frozen:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closes.set()
        self._thread.join()
        self._listener.close()

    def close_its_connection(self) -> None:
        """Let it close the first connection, and return when that is done; the loop stands still meanwhile."""
        self._closes.set()
        assert self._closed.wait(BOUND_S)

    def _run(self) -> None:
        self._listener.settimeout(BOUND_S)
        for _ in range(2):
            accepted, _ = self._listener.accept()
            with accepted:
                accepted.recv(65_536)
                self.served += 1
                accepted.sendall(response())
                assert self._closes.wait(BOUND_S)
            self._closed.set()


async def test_what_was_closed_while_the_process_was_frozen_is_noticed(
    http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that was closed meanwhile is not used, so that even what must not be sent twice gets through."""
    monkeypatch.setattr(pool, "STALE_S", 0.0)  # as if it had been a while
    with Frozen() as server:
        await get(http, server.url)
        server.close_its_connection()
        assert (await get(http, server.url, repeat=False)).status == 200
        assert server.served == 2


def ends_after(count: int, endpoint: Endpoint) -> None:
    """Let the endpoint's connections end without an answer to what comes after the first `count` calls, once."""
    endpoint.answer = lambda call: b"" if len(endpoint.calls) == count + 1 else response()


async def test_what_may_be_repeated_is(endpoint: Endpoint, http: HttpClient) -> None:
    """A kept connection that breaks under a request is replaced, and the request is sent again if it may be."""
    ends_after(1, endpoint)
    assert not (await get(http, endpoint.url)).is_second
    again = await get(http, endpoint.url, repeat=True)
    assert (again.status, again.is_second) == (200, True)
    assert (len(endpoint.calls), endpoint.connections) == (3, 2)


async def test_who_cannot_be_reached_a_second_time_may_have_done_it_the_first(
    endpoint: Endpoint, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is not known whether it was done, although no second connection came about."""
    ends_after(1, endpoint)
    await get(http, endpoint.url)

    async def unreachable(*args: object, **fields: object) -> None:
        raise Unreached("nobody there")

    monkeypatch.setattr(Pool, "connection", unreachable)
    with pytest.raises(Broken, match="nobody there"):
        await get(http, endpoint.url, repeat=True)


async def test_what_must_not_be_repeated_is_not(endpoint: Endpoint, http: HttpClient) -> None:
    """A kept connection that breaks under a request leaves one in doubt if that must not be sent twice."""
    ends_after(1, endpoint)
    await get(http, endpoint.url)
    with pytest.raises(Broken):
        await get(http, endpoint.url, repeat=False)
    assert len(endpoint.calls) == 2


async def test_a_new_connection_that_breaks_is_no_matter_of_age(endpoint: Endpoint, http: HttpClient) -> None:
    """What breaks a new connection would break the next: it is not tried here again."""
    endpoint.answer = lambda call: b""
    with pytest.raises(Broken):
        await get(http, endpoint.url, repeat=True)
    assert len(endpoint.calls) == 1


async def test_a_broken_answer_is_not_asked_for_again(http: HttpClient) -> None:
    """Of a kept connection that breaks within an answer, nothing is sent again: the other side was there."""
    calls = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        for said in (response(), b"HTTP/1.1 200 OK\r\nContent-Le"):
            await reader.readuntil(b"\r\n\r\n")
            calls += 1
            writer.write(said)

    async with serving(talk) as url:
        await get(http, url)
        with pytest.raises(Broken):
            await get(http, url, repeat=True)
    assert calls == 2


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_happens_no_connection_is_lost_count_of(seed: int, endpoint: Endpoint) -> None:
    """After answers, breaks, cancellations and waits in vain, every connection is free and all may be used."""
    chance = random.Random(seed)

    def answer(call: Call) -> bytes:
        kind = chance.random()
        return b"" if kind < 0.2 else response(Connection="close") if kind < 0.4 else response(200, call.body)

    endpoint.answer = answer
    async with HttpClient(max_connections=3) as http:

        async def ask(n: int) -> None:
            body = b"%d" % n
            with contextlib.suppress(Broken, Unreached):
                got = await http.request(
                    "POST", endpoint.url, body=body, timeout_s=chance.choice([0.0, 0.001, BOUND_S]), repeat=n % 2 == 0
                )
                assert got.body in (b"", body)

        asked = [asyncio.create_task(ask(n)) for n in range(150)]
        for task in asked:
            if chance.random() < 0.3:
                task.cancel()
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        ends = await asyncio.gather(*asked, return_exceptions=True)
        assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ends)
        endpoint.answer = lambda call: response(200, call.body)
        assert [answer.status for answer in await asyncio.gather(*[get(http, endpoint.url) for _ in range(3)])] == [
            200
        ] * 3
        [opened, free] = re.findall(r"(\d+) open, (\d+) free, 0 waited for", repr(http))[0]
        assert 1 <= int(opened) == int(free) <= 3


async def test_closing_ends_what_is_under_way(endpoint: Endpoint) -> None:
    """Closing the client breaks requests that are under way, tells those that wait, and refuses new ones."""
    endpoint.gate.clear()
    http = HttpClient(max_connections=1)
    async with http:
        under_way = asyncio.create_task(get(http, endpoint.url))
        await called(endpoint, 1)
        waiting = asyncio.create_task(get(http, endpoint.url))
        await asyncio.sleep(0)
    with pytest.raises(Broken):
        await under_way
    with pytest.raises(Unreached, match="closed"):
        await waiting
    for url in (endpoint.url, "http://another.invalid/"):
        with pytest.raises(Unreached, match="closed"):
            await get(http, url)


def test_a_bound_of_none_is_none() -> None:
    """There must be a connection at least."""
    with pytest.raises(ValueError, match="max_connections: expected at least 1, got 0"):
        HttpClient(max_connections=0)


# Certificates


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Somebody who signs certificates, whom nobody knows."""
    return trustme.CA()


@asynccontextmanager
async def secure(authority: trustme.CA, name: str = "localhost") -> AsyncIterator[str]:
    """A server with a certificate for a name; its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(response(200, b"secure"))

    async with serving(talk, context) as url:
        yield url


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
async def test_who_is_trusted_is_told_by_the_environment(
    variable: str, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certificates are checked with those in the file that a variable names."""
    bundle = tmp_path / "bundle.pem"
    authority.cert_pem.write_to_path(bundle)
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    monkeypatch.setenv(variable, str(bundle))
    async with secure(authority) as url, HttpClient() as http:
        for _ in range(2):
            assert (await get(http, url)).body == b"secure"


async def test_strangers_are_not_trusted(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that nobody known has signed, or that is for another name, is nobody we speak to."""
    for variable in ("AWS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(variable, raising=False)
    async with secure(authority) as url, HttpClient() as http:
        with pytest.raises(Unreached, match="certificate verify failed"):
            await get(http, url)
    known = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    async with secure(authority, "elsewhere.example") as url, HttpClient(ssl=known) as http:
        with pytest.raises(Unreached, match="certificate"):
            await get(http, url)


def test_a_bundle_that_is_none_is_named(tmp_path: Path) -> None:
    """A variable that names no file of certificates is an error that names both."""
    with pytest.raises(ValueError, match=r"AWS_CA_BUNDLE: expected a file of certificates, got .*missing"):
        trusting({"AWS_CA_BUNDLE": str(tmp_path / "missing"), "SSL_CERT_FILE": "ignored"})
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(ValueError, match=r"SSL_CERT_FILE: expected a file of certificates, got .*empty"):
        trusting({"SSL_CERT_FILE": str(empty)})
