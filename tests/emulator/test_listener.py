"""One port for plain and TLS: a real gateway behind it, real clients in front, and those who do not get on with it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hubbub.apigateway import CONNECT, DEFAULT, DISCONNECT, Api, Event, Response, Route
from hubbub.emulator.trust import Authority
from hubbub.gateway import Gateway, GatewayLimits, Hub
from hubbub.listening import bind, listener
from hubbub.listening.listener import ListenerLimits, TlsListener, TlsServer
from live import BOUND_S, until
from loops import held_up

SPEEDY = ListenerLimits(silent_s=1.0, handshake_s=1.0)
"""For those who are to be given up."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the scheme and path that were asked for."""
    body = f"{scope['scheme']} {scope['path']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Here:
    """A gateway on a port that speaks both.

    Attributes:
        port, authority, hub, server: what they are called.
        events: what its functions were told, in order.

    """

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.port = 0
        self.hub = Hub()
        self.server: TlsServer
        self.events: list[dict[str, Any]] = []

    async def keep(self, event: Event) -> Response:
        self.events.append(json.loads(msgspec.json.encode(event)))
        return Response(body=event.body)

    @property
    def listener(self) -> TlsListener:
        found = self.server.servers[0]
        assert isinstance(found, TlsListener)
        return found

    def open(self, scheme: str, path: str = "/ws", **options: Any) -> connect:
        """A WebSocket client."""
        tls = self.authority.client_context() if scheme == "wss" else None
        return connect(f"{scheme}://localhost:{self.port}{path}", ssl=tls, proxy=None, max_size=None, **options)

    async def dial(self, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A stream to the port."""
        return await asyncio.open_connection("127.0.0.1", self.port, **options)

    async def get(self, path: str, **options: Any) -> str:
        """The body of an answer over HTTP."""
        reader, writer = await self.dial(**options)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), BOUND_S)
        writer.close()
        await writer.wait_closed()
        return answer.decode().partition("\r\n\r\n")[2]


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    with Authority() as made:
        yield made


@asynccontextmanager
async def running(authority: Authority, limits: ListenerLimits | None = None) -> AsyncIterator[Here]:
    """A gateway for the length of a block, which leaves nothing behind."""
    here = Here(authority)
    api = Api(routes={CONNECT: Route(here.keep), DISCONNECT: Route(here.keep), DEFAULT: Route(here.keep, two_way=True)})
    gateway = Gateway(api, hub=here.hub, limits=GatewayLimits(max_message_bytes=128 * 1024))
    sockets = bind("127.0.0.1", 0)
    here.port = sockets[0].getsockname()[1]
    config = gateway.config(app, timeout_graceful_shutdown=1)
    here.server = TlsServer(config, tls=lambda: authority.server_context, limits=limits)
    serving = asyncio.create_task(here.server.serve(sockets=sockets))
    try:
        async with asyncio.timeout(BOUND_S):
            await here.server.accepting.wait()
        yield here
    finally:
        here.server.stop_accepting()
        await gateway.drain(0.0)
        here.server.should_exit = True
        await asyncio.wait_for(serving, BOUND_S)
    assert not here.server.server_state.connections
    assert "closed, 0 undecided" in repr(here.listener)


@pytest.fixture
async def here(authority: Authority) -> AsyncIterator[Here]:
    async with running(authority) as made:
        yield made


async def echoes(socket: ClientConnection, words: str) -> None:
    """What is sent comes back."""
    await socket.send(words)
    assert await asyncio.wait_for(socket.recv(), BOUND_S) == words


async def ended(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the other side closes."""
    try:
        return await asyncio.wait_for(reader.read(), BOUND_S)
    except ConnectionError:
        return b""


# What is spoken


async def test_plain_and_tls_are_spoken_on_one_port(here: Here) -> None:
    """HTTP, HTTPS, ws:// and wss:// all reach the same gateway on the same port, and know which they are."""
    tls = {"ssl": here.authority.client_context(), "server_hostname": "localhost"}
    assert await here.get("/a") == "http /a"
    assert await here.get("/b", **tls) == "https /b"
    async with here.open("ws") as plain, here.open("wss") as secret:
        for words in ("hello", "x" * 127_000):
            await asyncio.gather(echoes(plain, words), echoes(secret, words))
    connects = [event for event in here.events if event["requestContext"]["eventType"] == "CONNECT"]
    assert sorted(event["headers"]["X-Forwarded-Proto"] for event in connects) == ["http", "https"]
    assert {event["requestContext"]["domainName"] for event in connects} == {f"localhost:{here.port}"}
    await until(lambda: not len(here.hub), "both are gone")


async def test_a_connection_over_tls_is_closed_from_either_side(here: Here) -> None:
    """Close codes reach the other side over TLS, and `$disconnect` is told them."""
    async with here.open("wss") as leaving:
        await leaving.close(4001, "enough")
    async with here.open("wss") as closed:
        await echoes(closed, "hello")
        here.hub.close(here.hub.peers()[0].id, 4002, "go")
        with pytest.raises(ConnectionClosed) as caught:
            await asyncio.wait_for(closed.recv(), BOUND_S)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4002, "go")
    async with here.open("wss") as cut:
        await echoes(cut, "hello")
        cut.transport.abort()

    def codes() -> list[int]:
        contexts = [event["requestContext"] for event in here.events]
        return [each["disconnectStatusCode"] for each in contexts if each["eventType"] == "DISCONNECT"]

    await until(lambda: len(codes()) == 3, "the ends are told")
    assert codes() == [4001, 4002, 1006]


async def test_a_refused_handshake_is_answered_over_tls(here: Here) -> None:
    """Who asks for a WebSocket at the wrong place hears so over TLS too."""
    with pytest.raises(InvalidStatus) as caught:
        async with here.open("wss", "/elsewhere"):
            pass
    assert caught.value.response.status_code == 404
    await echo_still_works(here)


async def test_many_at_a_time_are_served(here: Here) -> None:
    """A crowd of plain and TLS connections at the same moment all get through."""
    async with AsyncExitStack() as stack:
        opening = [stack.enter_async_context(here.open(("ws", "wss")[n % 2])) for n in range(60)]
        sockets = await asyncio.gather(*opening)
        for words in ("one", "two"):
            await asyncio.gather(*(echoes(each, f"{words} {n}") for n, each in enumerate(sockets)))


async def test_bytes_may_come_one_by_one(here: Here) -> None:
    """A first byte that comes alone decides, and is not lost: neither HTTP's nor TLS's."""
    reader, writer = await here.dial()
    for byte in b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    assert (await ended(reader)).endswith(b"http /slow")
    writer.close()

    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = here.authority.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    reader, writer = await here.dial()
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            for byte in outgoing.read():
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            incoming.write(await asyncio.wait_for(reader.read(65_536), BOUND_S))
    assert tls.selected_alpn_protocol() == "http/1.1"
    writer.transport.abort()


async def echo_still_works(here: Here) -> None:
    """The gateway has taken no harm."""
    async with here.open("ws") as plain, here.open("wss") as secret:
        await asyncio.gather(echoes(plain, "still here"), echoes(secret, "still here"))


# Who does not get on with it


async def test_who_says_nothing_is_closed(authority: Authority) -> None:
    """A connection without a byte is closed after its time."""
    async with running(authority, SPEEDY) as here:
        reader, writer = await here.dial()
        assert await ended(reader) == b""
        writer.close()
        await echo_still_works(here)


async def test_half_a_tls_handshake_is_closed(authority: Authority) -> None:
    """A TLS handshake that stops half-way is closed after its time."""
    async with running(authority, SPEEDY) as here:
        for start in (b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
            reader, writer = await here.dial()
            writer.write(start)
            assert await ended(reader) == b""
            writer.close()
        await echo_still_works(here)


async def test_who_speaks_in_time_is_answered_though_the_process_is_held_up(authority: Authority) -> None:
    """What he says is here, and was not read: that is looked at before he is taken for silent."""
    await answered_though_held_up(authority, 0)


async def test_who_goes_on_in_time_is_answered_though_the_process_is_held_up(authority: Authority) -> None:
    """So is what comes of a handshake after its beginning."""
    await answered_though_held_up(authority, 1)


async def answered_though_held_up(authority: Authority, said: int) -> None:
    """A client has said so many bytes; the rest comes while the process reads nothing for longer than it may take."""
    hello = client_hello(authority)
    async with running(authority, ListenerLimits(silent_s=0.5, handshake_s=0.5)) as here:
        with socket.create_connection(("127.0.0.1", here.port)) as client:
            client.settimeout(BOUND_S)
            client.sendall(hello[:said])
            expected = f"1 undecided, {int(not said)} of them silent"
            await until(lambda: expected in repr(here.listener), "it is accepted, and what it said is read")
            with held_up(1.0, lambda: client.sendall(hello[said:])):
                assert (await asyncio.to_thread(client.recv, 100)).startswith(b"\x16")  # its half of the handshake
        await echo_still_works(here)


def client_hello(authority: Authority) -> bytes:
    """What a client says first that speaks TLS."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        authority.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


async def test_what_is_no_tls_after_all_is_closed(here: Here) -> None:
    """Garbage that begins like TLS ends the connection at once, and harms nobody."""
    reader, writer = await here.dial()
    writer.write(b"\x16" + b"nonsense" * 8)
    await ended(reader)
    writer.close()
    await echo_still_works(here)


async def test_who_does_not_trust_us_leaves(here: Here) -> None:
    """A client that does not know the authority refuses, and the gateway goes on."""
    with pytest.raises(ssl.SSLCertVerificationError):
        await here.get("/", ssl=ssl.create_default_context(), server_hostname="localhost")
    await echo_still_works(here)


async def test_who_leaves_at_once_is_let_go(here: Here) -> None:
    """Connections that close or reset without a byte leave nothing behind."""
    for linger in (None, b"\x01\x00\x00\x00\x00\x00\x00\x00"):
        with socket.create_connection(("127.0.0.1", here.port)) as gone:
            if linger is not None:
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    await echo_still_works(here)
    await until(lambda: "0 undecided" in repr(here.listener), "nobody is undecided")


async def test_the_longest_silent_gives_way(authority: Authority) -> None:
    """At the bound the connection that has been silent for longest is closed for a new one, and the others stay."""
    async with running(authority, ListenerLimits(max_undecided=3)) as here:
        silent = []
        for count in range(3):
            silent.append(await here.dial())
            await until(lambda n=count + 1: f"{n} undecided, {n} of them silent" in repr(here.listener), "accepted")
        assert await here.get("/new") == "http /new"
        assert await ended(silent[0][0]) == b""
        for reader, writer in silent[1:]:
            writer.write(b"GET /late HTTP/1.0\r\n\r\n")
            assert b"http /late" in await ended(reader)
            writer.close()
        silent[0][1].close()


async def test_new_ones_wait_while_all_are_at_their_handshakes(authority: Authority) -> None:
    """At the bound nobody who has begun is given up: a new connection waits until one is done."""
    async with running(authority, ListenerLimits(max_undecided=2, handshake_s=1.0)) as here:
        begun = [await here.dial() for _ in range(2)]
        for _, writer in begun:
            writer.write(b"\x16")
        await until(lambda: "2 undecided, 0 of them silent" in repr(here.listener), "both have begun")
        waiting = asyncio.create_task(here.get("/waits"))
        begun[0][1].transport.abort()
        assert await asyncio.wait_for(waiting, BOUND_S) == "http /waits"
        assert await ended(begun[1][0]) == b""
        begun[1][1].close()


class _Exhausted(socket.socket):
    """A listening socket that finds no file for the first connection."""

    refused = 0

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.refused:
            self.refused += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_accepting_goes_on_after_files_ran_out(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without files for a connection that is logged, and tried again a little later."""
    monkeypatch.setattr(listener, "ACCEPT_AGAIN_S", 0.05)
    made: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    class Greeting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.close()
            made.set_result(None)

    listening = _Exhausted()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    dual = TlsListener(
        listening, Greeting, plain=Greeting, tls=lambda: authority.server_context, limits=ListenerLimits()
    )
    try:
        _, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(b"hello")
        await asyncio.wait_for(made, BOUND_S)
        writer.close()
    finally:
        dual.close()
        dual.close()
        await dual.wait_closed()
    assert "Too many open files" in caplog.text


async def test_each_listener_reads_into_a_buffer_of_its_own(authority: Authority) -> None:
    """Or two whose loops are in two threads would read into each other's."""
    async with running(authority) as one, running(authority) as other:
        assert one.listener._buffer.obj is not other.listener._buffer.obj


# The end


@pytest.mark.parametrize("ticks", range(8))
def test_who_comes_at_the_very_end_is_dropped(authority: Authority, ticks: int) -> None:
    """A connection that is accepted just before the end is closed as well, whatever has begun for it."""

    async def story() -> None:
        listening = bind("127.0.0.1", 0)[0]
        listening.listen()
        dual = TlsListener(
            listening,
            asyncio.Protocol,
            plain=asyncio.Protocol,
            tls=lambda: authority.server_context,
            limits=ListenerLimits(),
        )
        with socket.create_connection(listening.getsockname(), BOUND_S):
            for _ in range(ticks):
                await asyncio.sleep(0)
            dual.close()
            await dual.wait_closed()

    asyncio.run(story())
    gc.collect()  # what was left open is found now, and fails this test


@pytest.mark.parametrize("asks", [True, False])
def test_who_does_not_answer_the_end_of_tls_is_cut(authority: Authority, asks: bool) -> None:
    """A client that keeps its connection and reads nothing, as those do that pool them, is not left open."""

    async def story() -> None:
        async with running(authority) as here:
            reader, writer = await here.dial(ssl=authority.client_context(), server_hostname="localhost")
            if asks:
                writer.write(b"GET /pooled HTTP/1.1\r\nHost: localhost\r\n\r\n")
                async with asyncio.timeout(BOUND_S):
                    assert b"200" in await reader.readline()
            await until(lambda: len(here.server.server_state.connections) == 1, "the server's side of it")
            writer.transport.pause_reading()
        writer.transport.abort()

    asyncio.run(story())
    gc.collect()  # what was left open is found now, and fails this test


async def test_connections_go_on_after_accepting_has_stopped(here: Here) -> None:
    """When no more are accepted, those that are there still work."""
    async with here.open("ws") as plain, here.open("wss") as secret:
        here.server.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            await here.dial()
        await asyncio.gather(echoes(plain, "still here"), echoes(secret, "still here"))


async def test_the_end_leaves_nobody_hanging(authority: Authority) -> None:
    """Silent connections and half handshakes are closed when the server ends."""
    async with running(authority) as here:
        peers = [await here.dial() for _ in range(4)]
        for _, writer in peers[2:]:
            writer.write(b"\x16\x03\x01")
        await until(lambda: "4 undecided, 2 of them silent" in repr(here.listener), "all are there")
    for reader, writer in peers:
        assert await ended(reader) == b""
        writer.close()


async def test_a_server_wants_bound_sockets(authority: Authority) -> None:
    """Without sockets it does not start."""
    gateway = Gateway(Api(routes={}), hub=Hub())
    with pytest.raises(ValueError, match="expected bound sockets"):
        await TlsServer(gateway.config(app), tls=lambda: authority.server_context).serve()
