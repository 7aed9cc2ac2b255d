"""A way to a server that a test can cut, as a network does: without a word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

Passes = Callable[[bytes], bool]
"""Whether what came is passed on; where it is not, the connection breaks."""


class Cuttable:
    """A TCP proxy on a free port whose connections a test can cut.

    Args:
        port: where it leads, on this machine.
        path: of the WebSocket there.

    Attributes:
        accepted: how many connections there have been.

    """

    def __init__(self, port: int, path: str = "/ws") -> None:
        self._to = port
        self._path = path
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.accepted = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._pumps, return_exceptions=True)

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

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:  # nobody is there just now
            writer.transport.abort()
            return
        self._writers |= {writer, inner_writer}
        asks, answers = self._sieves()
        for source, sink, passes in ((reader, inner_writer, asks), (inner_reader, writer, answers)):
            pump = asyncio.create_task(self._pump(source, sink, passes))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    def _sieves(self) -> tuple[Passes, Passes]:
        """What a new connection passes on to the server, and back: everything."""
        return lambda data: True, lambda data: True

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, passes: Passes) -> None:
        try:
            while data := await source.read(1 << 20):
                if not passes(data):
                    sink.transport.abort()
                    break
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()
