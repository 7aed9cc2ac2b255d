"""A way to a server that a test can cut, as a network does: without a word."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import Self

from hubbub.listening import close_server

Passes = Callable[[bytes], bool]
"""Whether what came is passed on; where it is not, the connection breaks."""

CHUNK = 1 << 16


class Way(enum.Enum):
    """A direction."""

    THERE = "there"
    BACK = "back"


class Cuttable:
    """A TCP proxy on this machine whose connections a test can cut, and that leaves none open behind it.

    Args:
        port: where it leads, on this machine.
        path: of the WebSocket there.
        at: the port that it listens on; a free one by default.

    Attributes:
        accepted: how many connections there have been.

    """

    def __init__(self, port: int, path: str = "/ws", *, at: int = 0) -> None:
        self._to = port
        self._path = path
        self._at = at
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.accepted = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} to {self._to}>"

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.shut()

    async def listen(self) -> None:
        """Let connections through."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._at)

    async def shut(self) -> None:
        """End every connection without a word, also those that are just being made, and refuse new ones."""
        server, self._server = self._server, None
        if server is None:
            return
        close_server(server)
        while server.is_serving():
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # who was accepted in the last turn is known now
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # sockets are closed the turn after they are cut

    @property
    def port(self) -> int:
        """Where clients connect to be led there."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """The same, of the WebSocket."""
        return f"ws://127.0.0.1:{self.port}{self._path}"

    def cut(self) -> None:
        """Break every connection, without a word."""
        for writer in list(self._writers):
            writer.transport.abort()

    def redirect(self, port: int) -> None:
        """Lead to another port from now on."""
        self._to = port

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.get_running_loop().create_task(self._lead(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = {writer}
        self._writers |= ends
        try:
            try:
                inner_reader, inner_writer = await self._connect()
            except OSError:  # nobody is there just now
                return
            ends.add(inner_writer)
            self._writers |= ends
            asks, answers = self._sieves()
            await asyncio.gather(
                self._pump(Way.THERE, reader, inner_writer, asks), self._pump(Way.BACK, inner_reader, writer, answers)
            )
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The way on for a new connection."""
        return await asyncio.open_connection("127.0.0.1", self._to)

    def _sieves(self) -> tuple[Passes, Passes]:
        """What a new connection passes on to the server, and back: everything."""
        return lambda data: True, lambda data: True

    async def _pump(self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter, passes: Passes) -> None:
        """Hand on what comes one way, until its source ends."""
        try:
            while data := await source.read(CHUNK):
                if not passes(data):
                    sink.transport.abort()
                    break
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()
