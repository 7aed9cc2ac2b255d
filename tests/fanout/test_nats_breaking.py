"""Connections to NATS that break while something is on its way: each is noticed, and the next one is made."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scripts.servers import Nats

from cuttable import Cuttable, Passes, Way
from hubbub.fanout.nats.address import parse_address
from hubbub.fanout.nats.link import Down, Link, Pauses, _transport
from hubbub.fanout.nats.stats import NatsStats
from live import until


class Valve(Cuttable):
    """A TCP proxy that can stop to read, and end its connections with a reset."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.open = asyncio.Event()
        self.open.set()

    async def listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        listener.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=4_096)

    def reset(self) -> None:
        for writer in self._writers:
            if not writer.is_closing():
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.cut()

    async def _pump(self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter, passes: Passes) -> None:
        with contextlib.suppress(OSError):
            while True:
                await self.open.wait()
                data = await source.read(4_096)
                if not data:
                    return
                await self.open.wait()
                sink.write(data)
                await sink.drain()


@asynccontextmanager
async def linked(way: Valve, pauses: Pauses) -> AsyncIterator[tuple[Link, NatsStats]]:
    stats = NatsStats()
    link = Link(
        parse_address(f"nats://127.0.0.1:{way.port}"),
        name="test",
        receive=lambda subject, data: None,
        connected=lambda: None,
        lost=lambda: None,
        stats=stats,
        pauses=pauses,
    )
    await link.open(10.0)
    try:
        yield link, stats
    finally:
        await link.aclose()


async def test_a_connection_that_is_reset_with_something_unsent_is_made_anew(nats: Nats):
    """nats-py's own last word fails then, and it tells nobody that this was the end."""
    async with Valve(nats.port) as way, linked(way, Pauses(ping_s=0.2)) as (link, stats):
        client = link._connection().client
        client._pending.append(b"PUB tea 0\r\n\r\n")
        client._pending_data_size += 13
        way.reset()
        await until(lambda: stats.reconnects == 1 and link.is_up, "a new connection")


async def test_who_subscribes_to_much_is_not_held_by_a_server_that_takes_nothing(nats: Nats):
    """It is left, and whoever waited to tell it something learns that it is gone."""
    async with Valve(nats.port) as way, linked(way, Pauses(ping_s=0.2, end_s=0.2)) as (link, stats):
        transport = _transport(link._connection().client)
        assert transport is not None
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        way.open.clear()

        async def subscribe() -> None:
            with contextlib.suppress(Down):
                for number in range(20_000):
                    await link.subscribe(f"room.{number}.of-a-name-that-is-neither-short-nor-long")

        subscribing = asyncio.create_task(subscribe())
        try:
            await until(lambda: not link.is_up or stats.reconnects == 1, "that the server is left")
            way.open.set()
            await until(lambda: stats.reconnects == 1 and link.is_up, "a new connection")
            await until(subscribing.done, "the word for who waited")
        finally:
            subscribing.cancel()
            await asyncio.gather(subscribing, return_exceptions=True)
