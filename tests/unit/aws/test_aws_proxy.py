"""The way through a proxy: whom an environment sends there, what is said to it, and what comes of its refusals."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme

from endpoint import response
from hubbub.aws.http import HttpClient, Unreached
from hubbub.aws.proxy import MAX_HEAD_BYTES, Proxy, proxy_for
from live import BOUND_S

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Between:
    """A proxy that leads every CONNECT to one port, once it has answered it.

    Attributes:
        answer: what it answers; a way is open only with `ESTABLISHED`.
        heads: what it was asked.
        port: where it listens.

    """

    port: int

    def __init__(self, there: int) -> None:
        self.answer = ESTABLISHED
        self.heads: list[str] = []
        self._there = there

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(self.answer)
            await writer.drain()
            if self.answer == ESTABLISHED:
                there = await asyncio.open_connection("127.0.0.1", self._there)
                await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))
        except ConnectionError:
            pass  # the other side went away
        finally:
            writer.close()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Somebody who signs certificates."""
    return trustme.CA()


@pytest.fixture
async def between(authority: trustme.CA) -> AsyncIterator[Between]:
    """A proxy before a server with a certificate for `there.example`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("there.example").configure_cert(context)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(response(200, b"there"))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side went away
        finally:
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        made = Between(server.sockets[0].getsockname()[1])
        async with await asyncio.start_server(made.talk, "127.0.0.1", 0) as proxy:
            made.port = proxy.sockets[0].getsockname()[1]
            yield made


@asynccontextmanager
async def client(authority: trustme.CA, port: int, fields: str = "") -> AsyncIterator[HttpClient]:
    known = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    async with HttpClient(ssl=known, proxy=Proxy("127.0.0.1", port, fields)) as http:
        yield http


async def get(http: HttpClient, url: str = "https://there.example/") -> bytes:
    return (await http.request("GET", url, timeout_s=BOUND_S)).body


async def test_a_host_is_reached_through_it(authority: trustme.CA, between: Between) -> None:
    """Requests share a connection, and the proxy hears the host's name and what it wants to hear itself."""
    async with client(authority, between.port, "X-Who: me\r\n") as http:
        for _ in range(3):
            assert await get(http) == b"there"
    assert between.heads == ["CONNECT there.example:443 HTTP/1.1\r\nHost: there.example:443\r\nX-Who: me\r\n\r\n"]


async def test_its_host_must_be_who_it_should_be(authority: trustme.CA, between: Between) -> None:
    """A proxy that leads somewhere else is found out."""
    async with client(authority, between.port) as http:
        with pytest.raises(Unreached, match="certificate"):
            await get(http, "https://elsewhere.example/")
        with pytest.raises(Unreached, match="certificate"):
            await get(http, "https://[2001:db8::1]:444/")
    assert [head.split(" ")[1] for head in between.heads] == ["elsewhere.example:443", "[2001:db8::1]:444"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "says 'HTTP/1.1 407 Proxy Authentication Required'"),
        (b"", "the proxy has closed the connection: no answer"),
        (b"HTTP/1.1 200 OK\r\n", "the proxy has closed the connection: no answer"),
        (b"x" * (MAX_HEAD_BYTES + 1), "the proxy does not speak HTTP"),
        (b"hello\r\n\r\n", "says 'hello'"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "cannot be reached"),
    ],
)
async def test_a_refusal_is_told(authority: trustme.CA, between: Between, answer: bytes, words: str) -> None:
    """With the proxy's words; nothing was done."""
    between.answer = answer
    async with client(authority, between.port) as http:
        with pytest.raises(Unreached, match=r"https://there\.example cannot be reached: ") as caught:
            await get(http)
    assert words in str(caught.value)


async def test_one_that_is_not_there_is_told(authority: trustme.CA, unused_tcp_port: int) -> None:
    """As a host would be."""
    async with client(authority, unused_tcp_port) as http:
        with pytest.raises(Unreached, match=f"the proxy 127.0.0.1:{unused_tcp_port} cannot be reached"):
            await get(http)


URL = {"HTTPS_PROXY": "http://proxy.example:3128"}
HERE = Proxy("proxy.example", 3128)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (URL, HERE),
        ({"https_proxy": "proxy.example:3128"}, HERE),
        ({"ALL_PROXY": "http://proxy.example"}, Proxy("proxy.example", 80)),
        ({"HTTP_PROXY": "http://proxy.example"}, None),
        ({**URL, "NO_PROXY": "localhost, .amazonaws.com"}, None),
        ({**URL, "no_proxy": "API.execute-api.eu-west-1.amazonaws.com"}, None),
        ({**URL, "NO_PROXY": "*"}, None),
        ({**URL, "NO_PROXY": "aws.com,api,,[::1]"}, HERE),
        (
            {"HTTPS_PROXY": "http://me%40x:pass@proxy.example:3128"},
            HERE._replace(fields="Proxy-Authorization: Basic bWVAeDpwYXNz\r\n"),
        ),
    ],
)
def test_the_environment_says_who_goes_through_it(environment: dict[str, str], expected: Proxy | None) -> None:
    """`HTTPS_PROXY`, or `ALL_PROXY`, but for those that `NO_PROXY` names or whose domain it names."""
    assert proxy_for("api.execute-api.eu-west-1.amazonaws.com", environment) == expected


@pytest.mark.parametrize("url", ["socks5://me:pass@h:1", "https://me:pass@h", "http://", "http://me:pass@h:port"])
def test_one_that_cannot_be_spoken_with_is_an_error(url: str) -> None:
    """That does not tell its password, as nothing does."""
    with pytest.raises(ValueError, match="HTTPS_PROXY: expected an address such as http://host:port") as caught:
        proxy_for("h", {"HTTPS_PROXY": url})
    assert "pass" not in str(caught.value)
    assert repr(Proxy("h", 1, "Proxy-Authorization: Basic x\r\n")) == "<Proxy h:1>"
