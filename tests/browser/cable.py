"""A network cable between a page and its server that a test can pull and put back."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType

from scripts.servers import free_port

CUT = ("net::ERR_", "WebSocket connection to")
"""What the browser itself says on the console of a network that is not there."""


class Cable:
    """A TCP proxy on 127.0.0.1 to `port`.

    Attributes:
        url: where the page finds the server through it.

    """

    url: str

    def __init__(self, port: int) -> None:
        self._target = port
        self._port = free_port()  # where no connection begins: a page that tries again does not take it
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def __aenter__(self) -> Cable:
        await self.plug()
        self.url = f"http://127.0.0.1:{self._port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.pull()

    async def plug(self) -> None:
        """Let connections through, on the same port as before."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)

    async def pull(self) -> None:
        """Cut every connection without a word, and refuse new ones."""
        self._flowing.set()
        if self._server is not None:
            self._server.close()
        while self._tasks:
            for writer in self._writers:
                writer.transport.abort()
            # Whoever was just being let through has no end to be cut yet: so look again.
            await asyncio.wait(self._tasks, timeout=0.05)
        if self._server is not None:
            await self._server.wait_closed()
        self._server = None

    def hold(self) -> None:
        """Let nothing through any more, without a word to either end, as when a machine has slept."""
        self._flowing.clear()

    def let_go(self) -> None:
        """Let through again what was held and what comes."""
        self._flowing.set()

    def redirect(self, port: int) -> None:
        """Lead to another port from now on."""
        self._target = port

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._join(reader, writer)
        finally:
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, there}
        try:
            await asyncio.gather(self._copy(reader, there), self._copy(there_reader, writer))
        finally:
            self._writers -= {writer, there}
            for end in (writer, there):
                end.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
