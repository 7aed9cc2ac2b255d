"""TLS that ends in the process: the chat over `https://` and `wss://`, renewals, and who does not get on with it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from websockets.asyncio.client import connect

from endpoint import Endpoint
from hubbub import app as app_module
from hubbub import client
from hubbub.apigateway import CONNECT, DEFAULT, Api, Event, Response, Route
from hubbub.app import HandlerNode, Node
from hubbub.config import Settings, SettingsError, load
from hubbub.gateway import Gateway, GatewayLimits, Hub
from hubbub.gateway import http as http_module
from hubbub.gateway.door import Door
from hubbub.gateway.http import RequestHead
from hubbub.gateway.hub import Peer
from hubbub.gateway.sockets import Connection
from hubbub.listening import CannotStart, Server, bind
from hubbub.listening.tls import TlsTransport
from live import BOUND_S, SECRET, ServerProcess, Wire, token, until
from tlslab import Issuer, replace


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    made = Issuer(tmp_path)
    made.write()
    return made


def settings_of(issuer: Issuer, **more: Any) -> Settings:
    folder = str(issuer.cert.parent)
    return Settings(port=0, secret=SECRET, data=folder, tls_cert=str(issuer.cert), tls_key=str(issuer.key), **more)


@pytest.fixture
async def node(issuer: Issuer) -> AsyncIterator[Node]:
    async with Node(settings_of(issuer)) as running:
        yield running


def https(issuer: Issuer, **options: Any) -> httpx.AsyncClient:
    """A client that trusts the issuer."""
    return httpx.AsyncClient(verify=issuer.client_context(), trust_env=False, timeout=BOUND_S, **options)


async def serial(port: int, issuer: Issuer) -> str:
    """The serial number of the certificate that is shown to who connects now."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=issuer.client_context())
    shown = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    return str(shown).lstrip("0")


def open_files() -> int:
    """How many this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


# What is spoken


async def test_the_chat_works_over_tls(node: Node, issuer: Issuer) -> None:
    """A message goes from one client to another, and addresses say how to come."""
    assert node.url.startswith("https://127.0.0.1:")
    assert node.ws_url.startswith("wss://127.0.0.1:")
    tls = issuer.client_context()
    async with (
        await Wire.open(node.ws_url, token("alice"), ssl=tls) as alice,
        await Wire.open(node.ws_url, token("bob"), ssl=tls) as bob,
    ):
        await alice.ok("create", room="tea", kind="public")
        await bob.ok("join", room="tea")
        await alice.ok("send", room="tea", text="x" * 7_000)
        while (await bob.wait_for("message.created"))["text"] != "x" * 7_000:
            pass


async def test_the_python_client_speaks_wss(
    node: Node, issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the authorities that this machine trusts."""
    authority = tmp_path / "authority.pem"
    authority.write_bytes(issuer.certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    async with client.connect(node.ws_url, token=token("alice")) as alice:
        await alice.create("public", room="tea")
        assert (await alice.send("tea", "hello")).room == "tea"


async def test_http_is_served_over_tls_on_both_ports(issuer: Issuer) -> None:
    """The page and the probes on the public port, metrics on the other one."""
    async with Node(settings_of(issuer, admin_port=0)) as node, https(issuer) as http:
        assert node.admin_url.startswith("https://")
        assert (await http.get(f"{node.url}/readyz")).json()["status"] == "ok"
        assert "<html" in (await http.get(f"{node.url}/")).text
        metrics = (await http.get(f"{node.admin_url}/metrics")).text
        assert node.certificates is not None
        expires = re.search(r"^hubbub_certificate_expires_seconds ([\d.e+]+)$", metrics, re.MULTILINE)
        assert expires is not None, metrics
        assert float(expires[1]) == node.certificates.pair.expires.timestamp()


async def test_the_page_gets_its_tokens_over_tls(issuer: Issuer) -> None:
    """`--dev` gives them to its own page, whose origin begins with https."""
    async with Node(settings_of(issuer, dev=True)) as node, https(issuer) as http:
        headers = {"Origin": node.url, "Sec-Fetch-Site": "same-origin"}
        answer = await http.post(f"{node.url}/dev/token", json={"user": "alice"}, headers=headers)
        assert answer.status_code == 200
        async with await Wire.open(
            node.ws_url, answer.json()["token"], ssl=issuer.client_context(), origin=node.url
        ) as wire:
            await wire.ok("ping")


async def test_versions_and_protocols_are_todays(node: Node, issuer: Issuer) -> None:
    """TLS 1.2 is the least, and HTTP/1.1 is what is agreed to, also where HTTP/2 is offered."""
    tls = issuer.client_context()
    tls.set_alpn_protocols(["h2", "http/1.1"])
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    _, writer = await asyncio.open_connection("127.0.0.1", node.port, ssl=tls)
    spoken = writer.get_extra_info("ssl_object")
    assert (spoken.version(), spoken.selected_alpn_protocol()) == ("TLSv1.2", "http/1.1")
    writer.close()
    with pytest.warns(DeprecationWarning):
        tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", node.port, ssl=tls)


async def test_who_speaks_plain_is_told_what_to_speak(node: Node) -> None:
    """And gets nothing else."""
    async with httpx.AsyncClient(trust_env=False, timeout=BOUND_S) as http:
        answer = await http.get(f"http://127.0.0.1:{node.port}/readyz")
    assert answer.status_code == 400
    assert answer.json() == {"message": "This port speaks TLS: its addresses begin with https:// and wss://."}


async def test_events_say_that_the_client_came_over_tls(issuer: Issuer, tmp_path: Path) -> None:
    """`X-Forwarded-Proto` is https, as on API Gateway."""
    async with Endpoint() as endpoint:
        settings = settings_of(issuer, handler=endpoint.url, dev=True)
        async with HandlerNode(settings) as node:
            async with connect(node.ws_url, ssl=issuer.client_context(), proxy=None):
                pass
            first = json.loads(endpoint.calls[0].body)
    assert first["headers"]["X-Forwarded-Proto"] == "https"


# Certificates


async def test_a_bad_certificate_keeps_it_from_starting(issuer: Issuer) -> None:
    """And is said."""
    replace(issuer.key, b"no key")
    with pytest.raises(CannotStart, match="tls_key: expected a private key"):
        async with Node(settings_of(issuer)):
            pass


def test_settings_that_do_not_go_together_are_refused(issuer: Issuer) -> None:
    """A key alone, and a header of the PROXY protocol in front of TLS."""
    with pytest.raises(SettingsError, match="tls_cert: expected a certificate beside tls_key"):
        load({"tls_key": "k.pem"}, {})
    with pytest.raises(SettingsError, match="proxy_protocol: expected false beside tls_cert"):
        load({"tls_cert": "c.pem", "proxy_protocol": True}, {})


async def test_sighup_renews_and_connections_go_on(issuer: Issuer, tmp_path: Path) -> None:
    """A process that is told to shows the new certificate to who comes; a bad one is refused; who is there stays."""
    process = ServerProcess(tmp_path, "--tls-cert", str(issuer.cert), "--tls-key", str(issuer.key))
    try:
        await process.start()
        assert process.ws_url.startswith("wss://")
        async with await Wire.open(process.ws_url, token("alice"), ssl=issuer.client_context()) as wire:
            fresh = issuer.write()
            process.signal(signal.SIGHUP)
            await until(lambda: "a renewed certificate" in process.output.read_text(), "said")
            assert await serial(process.port, issuer) == fresh
            replace(issuer.cert, b"garbage")
            process.signal(signal.SIGHUP)
            await until(lambda: "is used on" in process.output.read_text(), "refused")
            assert await serial(process.port, issuer) == fresh
            await wire.ok("ping")
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
    finally:
        await process.stop()


# Who does not get on with it


async def test_failed_handshakes_leave_nothing_behind(node: Node) -> None:
    """Neither files nor objects that only the garbage collector would find."""

    async def fail() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(b"\x16\x03\x01\x00\x05nonsense")
        await asyncio.wait_for(reader.read(), BOUND_S)
        writer.close()
        await writer.wait_closed()
        _, gone = await asyncio.open_connection("127.0.0.1", node.port)
        gone.write(b"\x16\x03\x01")
        gone.transport.abort()

    def kept() -> int:
        return sum(type(each) in (Door, RequestHead, TlsTransport, ssl.SSLObject) for each in gc.get_objects())

    await fail()
    gc.collect()
    files, before = open_files(), kept()
    gc.disable()
    try:
        for _ in range(5):
            await fail()
        await until(lambda: open_files() <= files, "closed")
        await until(lambda: kept() <= before, "freed")
    finally:
        gc.enable()


@pytest.mark.parametrize("how", ["goodbye", "cut", "closed by the server"])
async def test_a_connection_that_ended_is_freed_without_a_collector(node: Node, issuer: Issuer, how: str) -> None:
    """Its transport and all that was above it."""

    async def come_and_go() -> None:
        async with await Wire.open(node.ws_url, token("alice"), ssl=issuer.client_context()) as wire:
            await wire.ok("sync")
            if how == "cut":
                wire.socket.transport.abort()
            elif how == "closed by the server":
                node.hub.close(node.hub.peers()[0].id, 4001, "go")
                await wire.socket.wait_closed()
        await until(lambda: not len(node.hub), "gone")

    def kept() -> int:
        return sum(type(each) in (RequestHead, TlsTransport, Connection, Peer) for each in gc.get_objects())

    await come_and_go()
    gc.collect()
    before = kept()
    gc.disable()
    try:
        for _ in range(3):
            await come_and_go()
        await until(lambda: kept() <= before, "freed")
    finally:
        gc.enable()


async def test_who_does_not_read_is_closed(issuer: Issuer) -> None:
    """What TLS holds back for it counts as waiting, and the others get everything."""
    limits = {"outbox_bytes": 128 * 1024, "rate": 0.0, "user_rate": 0.0, "burst": 1_000, "user_burst": 1_000}
    tls = issuer.client_context()
    async with (
        Node(settings_of(issuer, **limits)) as node,
        await Wire.open(node.ws_url, token("alice"), ssl=tls) as alice,
    ):
        await alice.ok("create", room="tea", kind="public")
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port, ssl=tls, limit=1_024)
        head = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        head += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n"
        writer.write(f"{head}Authorization: Bearer {token('bob')}\r\n\r\n".encode())
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND_S)
        ask = b'{"action":"subscribe","ref":"s","room":"tea"}'
        writer.write(bytes([0x81, 0x80 | len(ask)]) + bytes(4) + ask)
        await asyncio.wait_for(reader.readuntil(b'"ref":"s"'), BOUND_S)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a transport that also reads
        for number in range(2_000):
            sent = await alice.ok("send", room="tea", text=f"{number}".ljust(7_000, "x"))
            if node.hub.stats.slow_closed:
                break
        assert node.hub.stats.slow_closed == 1
        writer.transport.abort()
        heard = [frame["seq"] for frame in alice.frames if frame["type"] == "message.created"]
        while sent["seq"] not in heard:
            heard.append((await alice.wait_for("message.created"))["seq"])
        assert sorted(set(heard)) == list(range(heard[0], sent["seq"] + 1))


class Silent:
    """A client over TLS that says no goodbye, whatever it hears."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext) -> None:
        self._reader, self._writer = reader, writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    async def _hear(self) -> None:
        self._writer.write(self._outgoing.read())
        self._incoming.write(await asyncio.wait_for(self._reader.read(65_536), BOUND_S))

    async def shake(self) -> None:
        """Do the handshake."""
        while True:
            try:
                self._tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                await self._hear()

    async def ask(self, words: bytes, answer: bytes) -> None:
        """Say something, and wait for an answer with these words in it."""
        self._tls.write(words)
        heard = b""
        while answer not in heard:
            try:
                heard += self._tls.read(65_536)
            except ssl.SSLWantReadError:
                await self._hear()

    async def is_cut(self) -> None:
        """Return when the connection is no more."""
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(self._reader.read(), BOUND_S)
        self._writer.close()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (b"this is no HTTP\r\n\r\n", b"400 Bad Request"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b'{"status":"ok"}'),
    ],
    ids=["refused", "pooled"],
)
async def test_the_end_of_a_node_waits_for_no_goodbye(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, words: bytes, answer: bytes
) -> None:
    """Neither of who was refused, nor of a client that keeps its connection for later."""
    for module in (app_module, http_module):
        monkeypatch.setattr(module, "LINGER_S", 10 * BOUND_S)
    monkeypatch.setattr(app_module, "HTTP_SHUTDOWN_S", 1)
    async with Node(settings_of(issuer)) as node:
        client = Silent(*await asyncio.open_connection("127.0.0.1", node.port), issuer.client_context())
        await client.shake()
        await client.ask(words, answer)
    await client.is_cut()


async def test_the_end_of_a_node_waits_for_nobody_who_was_told_what_is_spoken(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has heard that it is TLS and does not go is cut off."""
    monkeypatch.setattr(app_module, "LINGER_S", 10 * BOUND_S)
    async with Node(settings_of(issuer)) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(b"GET / HTTP/1.1\r\n")
        assert b"400 Bad Request" in await asyncio.wait_for(reader.read(), BOUND_S)

    def is_cut() -> bool:
        writer.write(b"x")
        return writer.transport.is_closing()

    await until(is_cut, "cut")


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_gateway_in_a_server_with_tls_of_its_own_bounds_what_waits(issuer: Issuer, run: Any) -> None:
    """That TLS says nothing of 64 KB below it, which are counted as if all were there."""

    async def story() -> None:
        async def keep(event: Event) -> Response:
            return Response()

        hub = Hub()
        api = Api(routes={CONNECT: Route(keep), DEFAULT: Route(keep)})
        gateway = Gateway(api, hub=hub, limits=GatewayLimits(outbox_bytes=256 * 1024))
        sockets = bind("127.0.0.1", 0)
        config = gateway.config(None, ssl_certfile=str(issuer.cert), ssl_keyfile=str(issuer.key))
        server = Server(config)
        serving = asyncio.create_task(server.serve(sockets=sockets))
        await asyncio.wait_for(server.accepting.wait(), BOUND_S)
        url = f"wss://127.0.0.1:{sockets[0].getsockname()[1]}/ws"
        async with connect(url, ssl=issuer.client_context(), proxy=None, max_queue=1, close_timeout=0.1) as client:
            await until(lambda: len(hub) == 1, "there")
            (peer,) = hub.peers()
            hub.send(peer.id, b"hello")
            assert await asyncio.wait_for(client.recv(), BOUND_S) == "hello"
            client.transport.pause_reading()
            while not peer.congested:
                hub.send(peer.id, b"x" * 10_000)
                await asyncio.sleep(0)
            while not hub.stats.slow_closed:
                assert 64 * 1024 < peer.wire.waiting() <= 256 * 1024
                hub.send(peer.id, b"x" * 10_000)
                await asyncio.sleep(0)
            client.transport.abort()
        await gateway.drain(0.0)
        server.should_exit = True
        await asyncio.wait_for(serving, BOUND_S)

    run(story())


@asynccontextmanager
async def crowded(issuer: Issuer, most: int) -> AsyncIterator[Node]:
    """A node that lets so many be at their handshakes."""
    async with Node(settings_of(issuer, max_handshakes=most, handshake_timeout_s=30.0)) as node:
        yield node


async def test_who_dawdles_gives_way(issuer: Issuer) -> None:
    """Where as many as may be are at their handshakes, who begins and does not go on is given up for who comes."""
    async with crowded(issuer, 4) as node, https(issuer) as http:
        begun = [await asyncio.open_connection("127.0.0.1", node.port) for _ in range(4)]
        for _, writer in begun:
            writer.write(b"\x16\x03\x01")
        assert (await http.get(f"{node.url}/healthz")).status_code == 200
        for _, writer in begun:
            writer.transport.abort()
    gc.collect()  # what was left open is found now, and fails this test
