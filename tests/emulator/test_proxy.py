"""The forward proxy: functions' own addresses lead here, all others to where they were going, and bounds hold."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import connect

from hubbub.apigateway import CONNECT, DEFAULT, Api, Event, Response, Route
from hubbub.emulator.proxy import Proxy, ProxyLimits
from hubbub.emulator.trust import Authority
from hubbub.emulator.upstream import Upstream
from hubbub.gateway import Gateway, Hub
from hubbub.gateway.sites import Sites
from hubbub.listening import bind
from hubbub.listening.listener import TlsServers
from hubbub.sigv4 import Keys
from live import BOUND_S, until

API = "abcdef1234"
HOST = f"{API}.execute-api.us-east-1.amazonaws.com"
NOBODY: dict[str, str] = {}
"""An environment without proxies."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the host, scheme and path that were asked for."""
    host = dict(scope["headers"])[b"host"].decode()
    body = f"{scope['scheme']} {host} {scope['path']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Here:
    """An API on its port, and a proxy that leads there."""

    def __init__(self, authority: Authority, proxy: Proxy, hub: Hub, port: int) -> None:
        self.authority = authority
        self.proxy = proxy
        self.hub = hub
        self.port = port

    async def python(self, script: str, *arguments: str) -> str:
        """What a Python process says, whose environment is that of functions; it must succeed."""
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ}
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", script, *arguments),
            env={**kept, **keys, **self.authority.environment(), **self.proxy.environment()},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), BOUND_S)
        assert process.returncode == 0, said.decode()
        return said.decode()


@pytest.fixture
async def here() -> AsyncIterator[Here]:
    events: list[Any] = []

    async def keep(event: Event) -> Response:
        events.append(json.loads(msgspec.json.encode(event)))
        return Response(body=event.body)

    api = Api(id=API, stage="prod", routes={CONNECT: Route(keep), DEFAULT: Route(keep, two_way=True)})
    hub = Hub()
    gateway = Gateway(Sites({"/prod": api}), hub=hub, keys=Keys({"test": "test"}))
    sockets = bind("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    with Authority(["chat.example.com"]) as authority:
        servers = TlsServers(lambda: authority.server_context)
        await servers.listen(gateway.config(app, timeout_graceful_shutdown=1), sockets)
        address = ("127.0.0.1", port)
        async with Proxy({API: address}, hosts={"chat.example.com": address}, environment=NOBODY) as proxy:
            yield Here(authority, proxy, hub, port)
        servers.stop_accepting()
        await gateway.drain(0.0)
        await servers.end()


@asynccontextmanager
async def listening(answer: Callable[[Streams], Awaitable[None]]) -> AsyncIterator[int]:
    """The port of a server that does that with each connection."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(streams: Streams) -> None:
        try:
            await answer(streams)
        finally:
            streams[1].close()

    def connected(*streams: Any) -> None:
        task = asyncio.get_running_loop().create_task(serve(streams))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def echo(streams: Streams) -> None:
    """Sends back what comes, and its end."""
    reader, writer = streams
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


@asynccontextmanager
async def proxying(**options: Any) -> AsyncIterator[Proxy]:
    """A proxy without APIs, which leaves no connection behind."""
    async with Proxy({}, **{"environment": NOBODY, **options}) as proxy:
        yield proxy
    assert repr(proxy) == "<Proxy not started, 0 connections>"


@asynccontextmanager
async def dialled(proxy: Proxy, head: str = "") -> AsyncIterator[Streams]:
    """A connection to a proxy, over which that has been sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(head.encode("latin-1"))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@asynccontextmanager
async def tunnel(proxy: Proxy, port: int, host: str = "127.0.0.1") -> AsyncIterator[Streams]:
    """A tunnel through a proxy."""
    async with dialled(proxy, f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n") as streams:
        head = await asyncio.wait_for(streams[0].readuntil(b"\r\n\r\n"), BOUND_S)
        assert head.startswith(b"HTTP/1.1 200 "), head
        yield streams


async def said(proxy: Proxy, head: str) -> str:
    """All that a proxy says to that before it closes."""
    async with dialled(proxy, head) as (reader, _):
        return (await asyncio.wait_for(reader.read(), BOUND_S)).decode()


# What leads here

BOTO3 = f"""
import boto3, sys
from botocore.exceptions import ClientError
client = boto3.client("apigatewaymanagementapi", endpoint_url="https://{HOST}/prod")
client.post_to_connection(ConnectionId=sys.argv[1], Data=b"from boto3")
print(client.get_connection(ConnectionId=sys.argv[1])["Identity"]["SourceIp"])
client.delete_connection(ConnectionId=sys.argv[1])
try:
    client.post_to_connection(ConnectionId=sys.argv[1], Data=b"too late")
except client.exceptions.GoneException as error:
    print("gone", error.response["ResponseMetadata"]["HTTPStatusCode"])
"""


async def test_boto3_reaches_an_api_at_its_address_on_aws(here: Here) -> None:
    """Unchanged code with `https://{api}.execute-api.{region}.amazonaws.com/{stage}` posts, asks and deletes."""
    async with connect(f"ws://127.0.0.1:{here.port}/prod", proxy=None) as client:
        await until(lambda: len(here.hub) == 1, "the client is there")
        id_ = here.hub.peers()[0].id
        assert (await here.python(BOTO3, id_)).split() == ["127.0.0.1", "gone", "410"]
        assert await client.recv() == "from boto3"
        await asyncio.wait_for(client.wait_closed(), BOUND_S)
        assert client.close_code == 1000


MANAGEMENT_CLIENT = f"""
import asyncio, sys
from hubbub import ManagementClient, management

async def main(peer):
    async with ManagementClient("https://{HOST}/prod") as client:
        await client.post(peer, "from our client")
        print((await client.get(peer)).source_ip)
        await client.close(peer)
        try:
            await client.post(peer, "too late")
        except management.Gone as error:
            print("gone", error.status)

asyncio.run(main(sys.argv[1]))
"""


async def test_our_own_client_reaches_an_api_at_its_address_on_aws(here: Here) -> None:
    """So does `hubbub.ManagementClient`."""
    async with connect(f"ws://127.0.0.1:{here.port}/prod", proxy=None) as client:
        await until(lambda: len(here.hub) == 1, "the client is there")
        id_ = here.hub.peers()[0].id
        assert (await here.python(MANAGEMENT_CLIENT, id_)).split() == ["127.0.0.1", "gone", "410"]
        assert await client.recv() == "from our client"


LIBRARIES = {
    "httpx": "import sys, httpx; print(httpx.get(sys.argv[1]).text)",
    "requests": "import sys, requests; print(requests.get(sys.argv[1]).text)",
    "urllib": "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())",
    "urllib3": "import os, sys, urllib3; e = os.environ; print(urllib3.ProxyManager(e['HTTPS_PROXY'],"
    " ca_certs=e['SSL_CERT_FILE']).request('GET', sys.argv[1]).data.decode())",
}


@pytest.mark.parametrize("library", LIBRARIES)
async def test_python_s_libraries_reach_it(here: Here, library: str) -> None:
    """Any library that follows HTTPS_PROXY gets there, in any region, and at custom domains."""
    for host in (HOST, f"{API.upper()}.execute-api.ap-southeast-2.amazonaws.com", "chat.example.com"):
        answer = (await here.python(LIBRARIES[library], f"https://{host}/hello")).strip()
        assert answer.lower() == f"https {host} /hello".lower()


async def test_a_websocket_goes_through(here: Here) -> None:
    """A WebSocket to the address on AWS is a WebSocket to the API here."""
    tls = here.authority.client_context()
    async with connect(f"wss://{HOST}/prod", proxy=here.proxy.url, ssl=tls) as client:
        for words in ("hello", "x" * 30_000):
            await client.send(words)
            assert await asyncio.wait_for(client.recv(), BOUND_S) == words


async def test_this_machine_is_reached_without_the_proxy(here: Here) -> None:
    """What functions call on the loopback, such as our AWS endpoints, does not go through the proxy."""
    script = "import sys, requests; print(requests.get(sys.argv[1]).text)"
    for name in ("127.0.0.1", "localhost"):
        answer = await here.python(script, f"http://{name}:{here.port}/a")
        assert answer.strip() == f"http {name}:{here.port} /a"
        assert (await here.python(script, f"https://{name}:{here.port}/a")).startswith("https")
    assert "0 connections" in repr(here.proxy)


async def test_an_api_that_is_not_here_is_named_with_those_that_are(
    here: Here, caplog: pytest.LogCaptureFixture
) -> None:
    """An unknown API is refused, and both sides of the mistake are in our log, and in the error of most libraries."""
    unknown = HOST.replace(API, "zzzz999999")
    words = f"there is no API zzzz999999 here; those there are: {API}"
    script = """
import sys, requests
try:
    requests.get(sys.argv[1])
except requests.ConnectionError as error:
    print(error)
"""
    assert words in await here.python(script, f"https://{unknown}/prod")
    assert words in caplog.text
    async with proxying() as proxy:
        answer = await said(proxy, f"CONNECT {HOST}:443 HTTP/1.1\r\n\r\n")
        assert answer.startswith(f"HTTP/1.1 502 there is no API {API} here; those there are: none\r\n")


async def test_an_api_speaks_tls_on_port_443_alone(here: Here) -> None:
    """What would not work on AWS does not work here, and says why."""
    answer = await said(here.proxy, f"GET http://{HOST}/prod HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
    assert answer.startswith(f"HTTP/1.1 502 {HOST} speaks TLS only, as on AWS: use https\r\n")
    answer = await said(here.proxy, f"CONNECT {HOST}:80 HTTP/1.1\r\n\r\n")
    assert answer.startswith(f"HTTP/1.1 502 {HOST} listens on port 443, as on AWS, not on 80\r\n")


# What leads elsewhere


async def test_other_hosts_are_tunnelled_untouched() -> None:
    """Bytes arrive as they were sent, in both directions, however many and whatever they are."""
    payload = bytes(range(256)) * 8_192  # 2 MB
    async with proxying() as proxy, listening(echo) as port:
        for host in ("127.0.0.1", "localhost"):
            async with tunnel(proxy, port, host) as (reader, writer):
                sending = asyncio.create_task(_send(writer, payload))
                assert await asyncio.wait_for(reader.readexactly(len(payload)), BOUND_S) == payload
                await sending
        await until(lambda: "0 connections" in repr(proxy), "nothing is left")


async def _send(writer: asyncio.StreamWriter, payload: bytes) -> None:
    writer.write(payload)
    await writer.drain()


async def test_what_is_sent_with_the_request_arrives() -> None:
    """A client that does not wait for the answer to CONNECT loses nothing."""
    async with (
        proxying() as proxy,
        listening(echo) as port,
        dialled(proxy, f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\nearly") as (reader, writer),
    ):
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), BOUND_S)
    assert answer.endswith(b"\r\n\r\nearly")


async def test_one_direction_may_end_before_the_other() -> None:
    """A client that has said everything still gets the whole answer, which comes after its end."""

    async def answer(streams: Streams) -> None:
        request = await streams[0].read()
        streams[1].write(request.upper() * 100_000)
        await streams[1].drain()

    async with proxying() as proxy, listening(answer) as port, tunnel(proxy, port) as (reader, writer):
        writer.write(b"say it")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), BOUND_S) == b"SAY IT" * 100_000
        await until(lambda: "0 connections" in repr(proxy), "nothing is left")


class _Narrow(Proxy):
    """A proxy of whose bytes the kernel keeps hardly any, so that it keeps them itself."""

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        super()._connected(reader, writer)


async def test_the_last_words_reach_a_slow_reader() -> None:
    """What the other side has sent before it closed arrives, though the client reads it only afterwards."""
    size = 60_000
    closed = asyncio.Event()

    async def answer(streams: Streams) -> None:
        await streams[0].read()
        streams[1].write(b"x" * size)
        streams[1].close()
        await streams[1].wait_closed()
        closed.set()

    loop = asyncio.get_running_loop()
    async with asyncio.timeout(BOUND_S), _Narrow({}, environment=NOBODY) as proxy, listening(answer) as port:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", proxy.port))
            await loop.sock_sendall(client, f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())
            client.shutdown(socket.SHUT_WR)
            await closed.wait()
            got = 0
            while data := await loop.sock_recv(client, 4_096):
                got += len(data)
    assert got == size + len("HTTP/1.1 200 Connection established\r\n\r\n")


async def test_a_cut_on_either_side_cuts_the_other() -> None:
    """When one side breaks off, so does the other, and nothing is left."""
    ended = asyncio.Event()

    async def watched(streams: Streams) -> None:
        try:
            while await streams[0].read(100):
                pass
        except ConnectionError:
            pass
        ended.set()

    async with proxying() as proxy:
        async with listening(watched) as port, tunnel(proxy, port) as (_, writer):
            writer.transport.abort()
            await asyncio.wait_for(ended.wait(), BOUND_S)

        async def cuts(streams: Streams) -> None:
            await streams[0].read(1)
            streams[1].transport.abort()

        async with listening(cuts) as port, tunnel(proxy, port) as (reader, writer):
            writer.write(b"x")
            assert await asyncio.wait_for(_rest(reader), BOUND_S) == b""
        await until(lambda: "0 connections" in repr(proxy), "nothing is left")


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def test_who_does_not_read_holds_back_who_sends() -> None:
    """A sender is not faster than the receiver reads: what is under way has a bound."""
    sent = 0

    async def flood(streams: Streams) -> None:
        nonlocal sent
        while True:
            streams[1].write(b"x" * 65_536)
            await streams[1].drain()
            sent += 65_536
            assert sent < 200_000_000, "nothing holds it back"

    async with proxying() as proxy, listening(flood) as port, tunnel(proxy, port) as (reader, _):
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        before = -1
        while sent != before:  # until no more can be sent for a while
            before = sent
            await asyncio.sleep(0.3)
        assert sent < 50_000_000


@pytest.mark.parametrize("query", ["", "?a=1&b=%20"])
async def test_plain_http_is_forwarded(query: str) -> None:
    """An absolute request becomes one for its host, without what is meant for the proxy, and is the only one."""

    async def answer(streams: Streams) -> None:
        head = await streams[0].readuntil(b"\r\n\r\n")
        body = await streams[0].readexactly(5)
        streams[1].write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + head + body)
        await streams[1].drain()

    async with proxying() as proxy, listening(answer) as port:
        fields = (
            f"Host: 127.0.0.1:{port}\r\nProxy-Connection: keep-alive\r\nConnection: keep-alive, X-Mine\r\n"
            "X-Mine: 1\r\nX-Other: 2\r\nProxy-Authorization: Basic x\r\nContent-Length: 5\r\n"
        )
        told = await said(proxy, f"POST http://127.0.0.1:{port}/path{query} HTTP/1.1\r\n{fields}\r\nhello")
    assert told.partition("\r\n\r\n")[2] == (
        f"POST /path{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Other: 2\r\nContent-Length: 5\r\n"
        "Connection: close\r\n\r\nhello"
    )


async def test_an_upgrade_over_plain_http_goes_on() -> None:
    """An upgrade is asked for on the next hop too, and then bytes flow both ways."""

    async def answer(streams: Streams) -> None:
        head = await streams[0].readuntil(b"\r\n\r\n")
        assert b"Upgrade: own" in head
        assert b"Connection: upgrade" in head
        streams[1].write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        await echo(streams)

    async with proxying() as proxy, listening(answer) as port:
        fields = f"Host: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: own\r\n"
        async with dialled(proxy, f"GET http://127.0.0.1:{port} HTTP/1.1\r\n{fields}\r\n") as (reader, writer):
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND_S)
            writer.write(b"hello")
            assert await asyncio.wait_for(reader.readexactly(5), BOUND_S) == b"hello"


async def test_a_host_that_cannot_be_reached_is_named() -> None:
    """A refused connection and an unknown name are 502 with the host."""
    async with proxying() as proxy, listening(echo) as port:
        pass  # nobody listens there any more
    async with proxying() as proxy:
        for target in (f"127.0.0.1:{port}", "no-such-host.invalid:443", f"{'x' * 70}.example:443"):
            host = target.rpartition(":")[0]
            answer = await said(proxy, f"CONNECT {target} HTTP/1.1\r\n\r\n")
            assert answer.startswith(f"HTTP/1.1 502 no connection to {host}: "), answer


# The way out through other proxies


class OtherProxy:
    """Somebody's proxy, which wants a password and writes down what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refuses = False

    async def serve(self, streams: Streams) -> None:
        head = (await streams[0].readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        user = base64.b64encode(b"ann:p w").decode()
        assert f"Proxy-Authorization: Basic {user}\r\n" in head
        if self.refuses:
            streams[1].write(b"HTTP/1.1 403 Not for you\r\n\r\n")
        elif head.startswith("CONNECT"):
            streams[1].write(b"HTTP/1.1 200 Go on\r\n\r\n")
            await echo(streams)
        else:
            streams[1].write(b"HTTP/1.1 200 OK\r\n\r\nfrom the proxy")
            await streams[1].drain()


async def test_the_way_out_goes_through_the_user_s_own_proxy() -> None:
    """Where this machine has proxies, other hosts are reached through them; this machine and exceptions are not."""
    other = OtherProxy()
    async with listening(other.serve) as outside, listening(echo) as port:
        url = f"http://ann:p%20w@127.0.0.1:{outside}"
        environment = {"https_proxy": url, "HTTP_PROXY": url, "NO_PROXY": "amazonaws.com, .no-such-host.invalid"}
        async with proxying(environment=environment) as proxy:
            async with tunnel(proxy, 443, "example.com") as (reader, writer):
                writer.write(b"hello")
                assert await asyncio.wait_for(reader.readexactly(5), BOUND_S) == b"hello"
            async with tunnel(proxy, port):
                pass
            answer = await said(proxy, "GET http://example.com/x HTTP/1.1\r\nHost: example.com\r\n\r\n")
            assert answer.endswith("from the proxy")
            answer = await said(proxy, "CONNECT a.no-such-host.invalid:443 HTTP/1.1\r\n\r\n")
            assert answer.startswith("HTTP/1.1 502 ")
            other.refuses = True
            answer = await said(proxy, "CONNECT example.org:443 HTTP/1.1\r\n\r\n")
            assert "says 'HTTP/1.1 403 Not for you'" in answer
            given = proxy.environment()
    lines = [asked.splitlines()[0] for asked in other.asked]
    assert lines == [
        "CONNECT example.com:443 HTTP/1.1",
        "GET http://example.com/x HTTP/1.1",
        "CONNECT example.org:443 HTTP/1.1",
    ]
    assert given["HTTP_PROXY"] == given["http_proxy"] == given["HTTPS_PROXY"] == proxy.url
    assert "amazonaws" not in given["NO_PROXY"]


async def test_a_proxy_that_speaks_no_http_is_named() -> None:
    """What is no proxy on the way out is an error that says so."""

    async def nonsense(streams: Streams) -> None:
        await streams[0].read(10)

    async with (
        listening(nonsense) as outside,
        proxying(environment={"ALL_PROXY": f"127.0.0.1:{outside}"}) as proxy,
    ):
        answer = await said(proxy, "CONNECT example.com:443 HTTP/1.1\r\n\r\n")
    assert f"the proxy 127.0.0.1:{outside} does not speak HTTP" in answer


def test_proxies_of_other_kinds_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """A proxy that we do not speak is not used, and the log says so."""
    for url in ("socks5://127.0.0.1:1080", "http://", "http://host:port"):
        assert Upstream({"https_proxy": url}).way("example.com", secure=True) is None
        assert repr(url) in caplog.text
    tls = Upstream({"https_proxy": "https://proxy.example"}).way("example.com", secure=True)
    assert tls is not None
    assert (tls.host, tls.port, tls.secure) == ("proxy.example", 443, True)


def test_functions_are_told_no_more_than_they_need() -> None:
    """Without proxies here, HTTPS goes through ours and plain HTTP does not."""
    proxy = Proxy({}, environment=NOBODY)
    proxy.port = 1234
    assert proxy.environment() == {
        "HTTPS_PROXY": "http://127.0.0.1:1234",
        "https_proxy": "http://127.0.0.1:1234",
        "NO_PROXY": "localhost,127.0.0.1,::1",
        "no_proxy": "localhost,127.0.0.1,::1",
    }


# Bounds and nonsense


@pytest.mark.parametrize(
    ("head", "line"),
    [
        (
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "400 this is a proxy: expected CONNECT host:port or http://host/path, got '/'",
        ),
        ("GET https://x/ HTTP/1.1\r\n\r\n", "400 this is a proxy: .* got 'https://x/'"),
        ("GET http://x:y/ HTTP/1.1\r\n\r\n", "400 this is a proxy: .* got 'http://x:y/'"),
        ("nonsense\r\n\r\n", "400 this is a proxy: .* got ''"),
        ("CONNECT nowhere HTTP/1.1\r\n\r\n", "400 expected CONNECT host:port, got 'nowhere'"),
        ("CONNECT x:0 HTTP/1.1\r\n\r\n", "400 expected CONNECT host:port, got 'x:0'"),
        ("CONNECT x:99999 HTTP/1.1\r\n\r\n", "400 expected CONNECT host:port, got 'x:99999'"),
        ("CONNECT x:\xb2 HTTP/1.1\r\n\r\n", "400 expected CONNECT host:port, got 'x:.'"),
        (f"CONNECT x:1 HTTP/1.1\r\nX: {'y' * 20_000}\r\n\r\n", "431 the head of a request has at most 16384 bytes"),
    ],
)
async def test_nonsense_is_refused_with_words(head: str, line: str) -> None:
    """What is no request for a proxy gets an answer that says what was expected and what came."""
    async with proxying() as proxy:
        answer = await said(proxy, head)
    first, _, rest = answer.partition("\r\n")
    assert re.fullmatch(f"HTTP/1.1 {line}", first), first
    assert rest.endswith(f"{first.partition(' ')[2].partition(' ')[2]}\n")


async def test_a_refusal_arrives_though_more_is_sent() -> None:
    """Who goes on sending after a request that is refused still gets to read why."""
    async with proxying() as proxy, dialled(proxy, "CONNECT nowhere HTTP/1.1\r\n\r\n") as (reader, writer):
        for _ in range(20):
            writer.write(b"x" * 100_000)
            await writer.drain()
        writer.write_eof()
        assert b"got 'nowhere'" in await asyncio.wait_for(reader.read(), BOUND_S)


async def test_a_head_that_does_not_come_is_not_waited_for() -> None:
    """A request that does not get on is answered 408; one that is broken off is let go."""
    async with proxying(limits=ProxyLimits(head_s=0.2)) as proxy:
        assert (await said(proxy, "CONN")).startswith("HTTP/1.1 408 ")
    async with proxying() as proxy, dialled(proxy, "CONN") as (reader, writer):
        writer.write_eof()
        assert await asyncio.wait_for(_rest(reader), BOUND_S) == b""


async def test_a_host_that_does_not_answer_is_not_waited_for() -> None:
    """A proxy on the way out that says nothing is 504 after its time."""

    async def silent(streams: Streams) -> None:
        while await streams[0].read(100):
            pass

    limits = ProxyLimits(connect_s=0.2)
    async with (
        listening(silent) as outside,
        proxying(limits=limits, environment={"https_proxy": f"http://127.0.0.1:{outside}"}) as proxy,
    ):
        answer = await said(proxy, "CONNECT example.com:443 HTTP/1.1\r\n\r\n")
    assert answer.startswith("HTTP/1.1 504 no connection to example.com within 0.2 s\r\n")


async def test_connections_have_a_bound() -> None:
    """Beyond the bound a connection gets 503, and works again when one has gone."""
    async with proxying(limits=ProxyLimits(max_connections=1)) as proxy, listening(echo) as port:
        async with tunnel(proxy, port):
            answer = await said(proxy, f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n")
            assert answer.startswith("HTTP/1.1 503 the proxy has at most 1 connections\r\n")
        await until(lambda: "0 connections" in repr(proxy), "the first has gone")
        async with tunnel(proxy, port):
            pass


async def test_a_half_open_tunnel_ends_in_time() -> None:
    """When one side has ended and the other says nothing any more, the tunnel ends; while it speaks it does not."""

    async def lingers(streams: Streams) -> None:
        while await streams[0].read(100):
            pass
        for _ in range(5):
            streams[1].write(b"x")
            await asyncio.sleep(0.5)
        await asyncio.sleep(BOUND_S)

    async with (
        proxying(limits=ProxyLimits(half_open_s=2.0)) as proxy,
        listening(lingers) as port,
        tunnel(proxy, port) as (reader, writer),
    ):
        writer.write_eof()
        assert await asyncio.wait_for(reader.readexactly(5), BOUND_S) == b"xxxxx"
        assert await asyncio.wait_for(_rest(reader), BOUND_S) == b""


async def test_the_end_cuts_what_is_left() -> None:
    """Tunnels, half requests and connections that say nothing all end with the proxy."""
    async with listening(echo) as port:
        async with proxying() as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            silent, other = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND_S)
        for stream, its in ((reader, writer), (silent, other)):
            assert await asyncio.wait_for(_rest(stream), BOUND_S) == b""
            its.close()


@pytest.mark.parametrize("ticks", range(8))
def test_who_comes_at_the_very_end_is_dropped(ticks: int) -> None:
    """A connection that is accepted just before the end is closed as well, whatever has begun for it."""

    async def story() -> None:
        async with proxying() as proxy:
            client = socket.create_connection(("127.0.0.1", proxy.port), BOUND_S)
            for _ in range(ticks):
                await asyncio.sleep(0)
        client.close()

    asyncio.run(story())
    gc.collect()  # what was left open is found now, and fails this test
