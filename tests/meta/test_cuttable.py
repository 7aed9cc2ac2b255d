"""The ways that tests cut leave no connection open behind them, whenever they end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket

import pytest

import loops
from cuttable import Cuttable
from live import BOUND_S


@pytest.mark.parametrize("ticks", range(12))
def test_who_comes_at_the_very_end_is_dropped(ticks: int) -> None:
    """Whether just accepted, being led there or led there; also on a loop that forgets."""

    async def story() -> None:
        there = socket.create_server(("127.0.0.1", 0))
        with there:
            async with Cuttable(there.getsockname()[1]) as way:
                client = socket.create_connection(("127.0.0.1", way.port), BOUND_S)
                for _ in range(ticks):
                    await asyncio.sleep(0)
        with client:
            client.settimeout(BOUND_S)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""

    asyncio.run(story())
    gc.collect()  # what was left open is found now, and fails this test


def test_a_loop_of_tests_closes_who_was_accepted_for_a_closed_server() -> None:
    """Whoever came just before the end."""

    async def story() -> None:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname(), BOUND_S) as client:
            await asyncio.sleep(0)
            server.close()
            for _ in range(4):
                await asyncio.sleep(0)
            client.settimeout(BOUND_S)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""

    with asyncio.Runner(loop_factory=loops.Loop) as runner:
        runner.run(story())
    gc.collect()
