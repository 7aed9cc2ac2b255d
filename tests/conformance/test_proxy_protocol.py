"""The PROXY protocol at a gateway: a listed proxy says who its client is, and nobody else comes in."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from typing import Any

import pytest
from gatewaylab import Lab, running, still_works
from rawpeer import Peer, request

from hubbub.gateway.server import TURNED_AWAY_SAID
from live import until

V1 = b"PROXY TCP4 203.0.113.7 127.0.0.1 56324 443\r\n"
TCP4 = socket.inet_aton("203.0.113.7") + socket.inet_aton("127.0.0.1") + struct.pack("!HH", 56_324, 443)
OVER_TLS = b"\x20\x00\x05\x01\x00\x00\x00\x00"


def v2(body: bytes, command: int = 0x21, family: int = 0x11) -> bytes:
    """A header of version 2."""
    return b"\r\n\r\n\x00\r\nQUIT\n" + struct.pack("!BBH", command, family, len(body)) + body


async def echo_scope(scope: Any, receive: Any, send: Any) -> None:
    """The HTTP application: says where a request comes from and by which scheme."""
    body = f"{scope['client'][0]} {scope['scheme']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def told(lab: Lab, peer: Peer) -> Any:
    """What `$connect` was told of the one connection."""
    assert (await peer.answer()).status == 101
    await still_works(peer)
    return await lab.functions.wait_for("CONNECT")


HEADERS = {
    "v1": (V1, "203.0.113.7", "http"),
    "v2": (v2(TCP4), "203.0.113.7", "http"),
    "v2 over TLS": (v2(TCP4 + OVER_TLS), "203.0.113.7", "https"),
    "v1 of the proxy itself": (b"PROXY UNKNOWN\r\n", "127.0.0.1", "http"),
    "v2 of the proxy itself": (v2(b"", command=0x20), "127.0.0.1", "http"),
}


@pytest.mark.parametrize("in_pieces", [False, True])
@pytest.mark.parametrize("name", HEADERS)
async def test_the_source_is_who_the_proxy_names(name: str, in_pieces: bool) -> None:
    """Events have the client's address and scheme, whether the header comes whole or byte by byte."""
    header, source, scheme = HEADERS[name]
    async with running(proxy_protocol=True) as lab, await lab.dial() as peer:
        await (peer.trickle if in_pieces else peer.send)(header + request())
        connect = await told(lab, peer)
        assert connect["requestContext"]["identity"]["sourceIp"] == source
        assert connect["headers"]["X-Forwarded-For"] == source
        assert connect["headers"]["X-Forwarded-Proto"] == scheme


@pytest.mark.parametrize("name", HEADERS)
async def test_requests_beside_it_come_from_there_too(name: str) -> None:
    """The HTTP application sees the same address and scheme, with every request of the connection."""
    header, source, scheme = HEADERS[name]
    async with running(proxy_protocol=True, app=echo_scope) as lab, await lab.dial(header) as peer:
        for _ in range(2):
            await peer.send(b"GET /hello HTTP/1.1\r\nHost: chat.example\r\n\r\n")
            assert (await peer.answer()).body.decode() == f"{source} {scheme}"


async def test_a_client_so_named_is_believed_nothing_more() -> None:
    """What it claims in X-Forwarded-* counts only if it is itself a listed proxy."""
    claims = request(X_Forwarded_For="198.51.100.1", X_Forwarded_Proto="https")
    listed = "127.0.0.1, 203.0.113.0/24"
    for trusted, source, scheme in (("127.0.0.1", "203.0.113.7", "http"), (listed, "198.51.100.1", "https")):
        async with running(proxy_protocol=True, forwarded_allow_ips=trusted) as lab, await lab.dial(V1, claims) as peer:
            connect = await told(lab, peer)
            assert connect["requestContext"]["identity"]["sourceIp"] == source
            assert connect["headers"]["X-Forwarded-Proto"] == scheme


def turned_away(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of connections that were closed."""
    return [record.message for record in caplog.records if "is closed" in record.message]


BAD = {
    "none": request(),
    "a wrong one": b"PROXY TCP4 203.0.113.7 nowhere 56324 443\r\n" + request(),
    "one of another version": v2(TCP4, command=0x31) + request(),
    "one without end": b"PROXY UNKNOWN " + b"x" * 5_000,
}


@pytest.mark.parametrize("name", BAD)
async def test_without_a_proper_header_it_is_closed(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The connection is closed without an answer and with one line in the log, which repeats nothing of what came."""
    async with running(proxy_protocol=True) as lab, await lab.dial(BAD[name]) as peer:
        await until(lambda: len(turned_away(caplog)) == 1, "a line in the log")
        await is_cut(peer)
        assert turned_away(caplog)[0].startswith("a connection from 127.0.0.1 is closed: expected ")
        assert not {"nowhere", "xxx", "GET"} & set(turned_away(caplog)[0].split())
        assert not lab.functions.events


async def is_cut(peer: Peer) -> None:
    """Nothing comes any more, and nothing came."""
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)) as end:
        await peer.answer()
    assert not getattr(end.value, "partial", b"")


async def test_nobody_but_a_listed_proxy_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    """A proper header of somebody else closes the connection as well."""
    async with running(proxy_protocol=True, forwarded_allow_ips="10.0.0.0/8") as lab, await lab.dial() as peer:
        await is_cut(peer)
        assert turned_away(caplog) == ["a connection from 127.0.0.1 is closed: it is none of the listed proxies"]


async def test_strangers_do_not_fill_the_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those who come in one minute a few are named, and the others are counted in the next."""
    async with running(proxy_protocol=True, forwarded_allow_ips="10.0.0.0/8") as lab:
        now = [60.0]
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0], raising=False)
        for _ in range(TURNED_AWAY_SAID + 5):
            lab.gateway.turned_away("203.0.113.7", "it is a stranger")
        now[0] += 60
        lab.gateway.turned_away("203.0.113.7", "it is a stranger")
        monkeypatch.undo()
    assert len(turned_away(caplog)) == TURNED_AWAY_SAID + 1
    assert "5 more connections were closed at once" in caplog.text


async def test_a_header_that_does_not_come_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """A connection on which the header, or its rest, is not there in time is closed with a line in the log."""
    async with running(proxy_protocol=True, times_faster=5, handshake_timeout_s=0.2) as lab:
        for beginning in (b"", V1[:20], v2(TCP4)[:15]):
            caplog.clear()
            async with await lab.dial(beginning) as peer:
                await is_cut(peer)
                assert [line.rpartition(": ")[2] for line in turned_away(caplog)] == [
                    "the header of the PROXY protocol took too long to arrive"
                ]


async def test_where_it_is_not_spoken_a_header_is_no_http(caplog: pytest.LogCaptureFixture) -> None:
    """By default a client cannot name itself with one."""
    caplog.set_level(logging.INFO)
    async with running() as lab, await lab.dial(V1 + request()) as peer:
        assert (await peer.answer()).status == 400
