"""Idle clients in numbers: as little as possible for each, so that what is measured is the server's side of them.

They come from several of this machine's addresses, since one has ports for 28,000; a process may have as many open
files as `ulimit -Hn` says, the server's as the clients', and so many connections can be held.
"""

from __future__ import annotations

import asyncio
import random
import re
import resource
import time
from collections.abc import Sequence
from typing import Any

from bench.crowd import client_frame
from bench.load import Server

SOURCES = 16
"""From how many addresses they come."""

ANSWER_S = 30.0
"""How long any of them waits for an answer before the bench fails."""

SYNC = client_frame(b'{"action":"sync","ref":"1"}')

_PING = 0x89


def most_connections(spare: int = 200) -> int:
    """How many connections one process can hold here; it allows itself as many files as it may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - spare


class Idler(asyncio.Protocol):
    """One client: shakes hands, perhaps syncs, and then only answers pings.

    Attributes:
        answered: done when it is answered what it asked last.
        pings: how often it was pinged.
        closed: whether the connection has ended.

    """

    __slots__ = ("_transport", "answered", "closed", "pings")

    def __init__(self) -> None:
        self._transport: Any = None  # uvloop's transports have none of asyncio's classes
        self.answered: asyncio.Future[bytes] | None = None
        self.closed = False
        self.pings = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data[0] == _PING:
            self.pings += 1
            self._transport.write(client_frame(b"", 0xA))
        elif self.answered is not None and not self.answered.done():
            self.answered.set_result(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self.answered is not None and not self.answered.done():
            self.answered.set_exception(ConnectionError("the server ended the connection"))

    async def ask(self, data: bytes) -> bytes:
        """Send something, and return the first bytes of the answer."""
        self.answered = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        try:
            return await asyncio.wait_for(self.answered, ANSWER_S)
        finally:
            self.answered = None

    def cut(self) -> None:
        """Be gone without a word."""
        if self._transport is not None:
            self._transport.abort()


class Horde:
    """Idle clients of one server.

    Args:
        server: to which they connect.
        at_once: how many may be about to at a time.

    Attributes:
        idlers: those that are connected.
        took_s: how long each waited until it was let in, from the first packet on, in seconds.
        refused: how often one was told to come back later, which it then did.

    """

    def __init__(self, server: Server, at_once: int = 64) -> None:
        self._server = server
        self._gate = asyncio.Semaphore(at_once)
        self.idlers: list[Idler] = []
        self.took_s: list[float] = []
        self.refused = 0

    async def arrive(self, tokens: Sequence[str]) -> None:
        """Connect one for each token."""
        await asyncio.gather(*(self._arrive(number, token) for number, token in enumerate(tokens)))

    async def _arrive(self, number: int, token: str) -> None:
        async with self._gate:
            began = time.perf_counter()
            source = (f"127.0.1.{1 + number % SOURCES}", 0)
            loop = asyncio.get_running_loop()
            while True:
                _, idler = await loop.create_connection(Idler, "127.0.0.1", self._server.port, local_addr=source)
                answer = await idler.ask(handshake(token))
                if not answer.startswith(b"HTTP/1.1 503 "):
                    break
                self.refused += 1
                idler.cut()
                await asyncio.sleep(_pause_s(answer) + random.random())
            if not answer.startswith(b"HTTP/1.1 101 "):
                raise RuntimeError(f"expected 101, got {answer[:200]!r}")
            self.took_s.append(time.perf_counter() - began)
            self.idlers.append(idler)

    async def listen(self) -> None:
        """Let all begin to listen to their rooms."""

        async def one(idler: Idler) -> None:
            async with self._gate:
                await idler.ask(SYNC)

        await asyncio.gather(*(one(idler) for idler in self.idlers))

    async def leave(self) -> None:
        """All are gone at once."""
        for idler in self.idlers:
            idler.cut()
        self.idlers.clear()
        await asyncio.sleep(0)


def _pause_s(answer: bytes) -> float:
    """What a refusal says of when to come back."""
    found = re.search(rb"^Retry-After: (\d+)\r$", answer, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"expected Retry-After, got {answer[:200]!r}")
    return float(found[1])


def handshake(token: str) -> bytes:
    """A request for a WebSocket, with the headers that a browser sends."""
    return (
        "GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 "
        "Safari/537.36\r\nUpgrade: websocket\r\nOrigin: http://127.0.0.1\r\nSec-WebSocket-Version: 13\r\n"
        "Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Sec-WebSocket-Protocol: hubbub.v1, jwt.{token}\r\n\r\n"
    ).encode("latin-1")
