"""A network cable between a page and its server that a test can pull and put back."""

from __future__ import annotations

import asyncio
import contextlib

from scripts.servers import free_port

from cuttable import CHUNK, Cuttable, Passes, Way

CUT = ("net::ERR_", "WebSocket connection to")
"""What the browser itself says on the console of a network that is not there."""


class Cable(Cuttable):
    """A TCP proxy on 127.0.0.1 to `port`, always on the same port of its own."""

    def __init__(self, port: int) -> None:
        super().__init__(port, at=free_port())  # where no connection begins: a page that tries again does not take it
        self._flowing = asyncio.Event()
        self._flowing.set()

    @property
    def url(self) -> str:
        """Where the page finds the server through it."""
        return f"http://127.0.0.1:{self._at}"

    async def plug(self) -> None:
        """Let connections through, on the same port as before."""
        await self.listen()

    async def pull(self) -> None:
        """Cut every connection without a word, and refuse new ones."""
        self._flowing.set()
        await self.shut()

    def hold(self) -> None:
        """Let nothing through any more, without a word to either end, as when a machine has slept."""
        self._flowing.clear()

    def let_go(self) -> None:
        """Let through again what was held and what comes."""
        self._flowing.set()

    async def _pump(self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter, passes: Passes) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(CHUNK):
                await self._flowing.wait()
                sink.write(data)
                await sink.drain()
        sink.transport.abort()
