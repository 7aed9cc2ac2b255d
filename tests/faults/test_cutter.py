"""The ways between servers that tests break: what passes, what waits, what is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from history.cutter import BOTH, Link, NatsLink
from hypothesis import given
from hypothesis import strategies as st

from cuttable import Way
from live import BOUND_S


class Echo:
    """A server that says again what it is told.

    Attributes:
        heard: all that it was told.

    """

    def __init__(self) -> None:
        self.heard = b""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                self.heard += data
                writer.write(data)
        finally:
            writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    """A running one."""
    echo = Echo()
    async with await asyncio.start_server(echo.serve, "127.0.0.1", 0) as server:
        echo.port = server.sockets[0].getsockname()[1]
        yield echo


async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, words: bytes) -> bytes:
    writer.write(words)
    async with asyncio.timeout(BOUND_S):
        return await reader.readexactly(len(words))


async def test_what_is_silenced_comes_when_it_is_healed(echo: Echo) -> None:
    """A way that is silent in one direction keeps what it is told, stands, and hands it on later."""
    async with Link(echo.port) as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        assert await say(reader, writer, b"one") == b"one"
        link.silence(frozenset({Way.BACK}))
        answer = asyncio.create_task(say(reader, writer, b"two"))
        async with asyncio.timeout(BOUND_S):
            while echo.heard != b"onetwo":
                await asyncio.sleep(0.005)
        assert not answer.done()
        link.heal()
        assert await answer == b"two"
        link.silence(BOTH)
        writer.write(b"three")
        await asyncio.sleep(0)
        assert echo.heard == b"onetwo"
        writer.close()


async def test_what_is_cut_breaks_and_is_refused_until_it_is_healed(echo: Echo) -> None:
    """Connections that stand end without a word, new ones at once, and after healing all is as before."""
    async with Link(echo.port) as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        assert await say(reader, writer, b"one") == b"one"
        link.cut()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await say(reader, writer, b"two")
        writer.close()
        again, to_it = await asyncio.open_connection("127.0.0.1", link.port)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await say(again, to_it, b"two")
        to_it.close()
        link.heal()
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        assert await say(reader, writer, b"three") == b"three"
        writer.close()


PIECES = st.lists(
    st.sampled_from(
        (
            b'INFO {"server_id":"x"}\r\n',
            b"PING\r\n",
            b"+OK\r\n",
            b"SUB a.> 1\r\n",
            b"PUB a.b 5\r\nhello\r\n",
            b"pub a.b reply 0\r\n\r\n",
            b"MSG a.b 1 4\r\n\r\n\r\n\r\n",
            b"HMSG a.b 1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
        )
    )
)


@given(PIECES, st.integers(1, 30))
def test_a_link_to_nats_loses_whole_messages_and_nothing_else(pieces: list[bytes], size: int) -> None:
    """However the bytes are cut up, all of the protocol but the lost messages passes as it is."""
    stream = b"".join(pieces)
    for share in (0.0, 1.0):
        link = NatsLink(0, random.Random(1))
        link.lose(share)
        sieve = link._sieve(Way.BACK)
        passed = b"".join(sieve.passes(stream[place : place + size]) for place in range(0, len(stream), size))
        messages = [piece for piece in pieces if piece.split(b" ")[0].upper() in (b"PUB", b"MSG", b"HMSG")]
        assert passed == b"".join(piece for piece in pieces if not share or piece not in messages)
        assert link.lost.total() == (len(messages) if share else 0)
