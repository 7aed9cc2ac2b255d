"""Event loops that forget nobody: what asyncio has accepted for a server that was closed meanwhile is closed as well.

asyncio before Python 3.12 leaves that socket open (gh-109564), for the collector to find in the middle of another test.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from asyncio import base_events
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvloop

from live import BOUND_S

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class Loop(asyncio.SelectorEventLoop):
    """asyncio's, with the end of a server that later versions have."""

    async def _accept_connection2(
        self,
        protocol_factory: Any,
        conn: socket.socket,
        extra: Any,
        sslcontext: Any = None,
        server: base_events.Server | None = None,
        *bounds: float,
    ) -> None:
        if server is not None and not server.sockets:
            conn.close()
            return
        await super()._accept_connection2(protocol_factory, conn, extra, sslcontext, server, *bounds)  # type: ignore[misc]


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop of asyncio's for a test."""
    return Loop() if sys.version_info < (3, 12) else asyncio.new_event_loop()


LOOPS = pytest.mark.parametrize("factory", [uvloop.new_event_loop, new_event_loop], ids=["uvloop", "asyncio"])
"""For a test that runs itself on each, by `run`."""


def run(factory: LoopFactory, test: Callable[[], Awaitable[None]]) -> None:
    """Run a test on a loop of the factory's, within bounds."""

    async def within_bounds() -> None:
        async with asyncio.timeout(BOUND_S):
            await test()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(within_bounds())


@contextlib.contextmanager
def held_up(seconds: float, first: Callable[[], object]) -> Iterator[None]:
    """Once the block waits, the running loop is held up for so long, after it has done that.

    It is so by what a socket brings: uvloop then looks at its timers before it reads others.
    """
    loop, (ours, theirs) = asyncio.get_running_loop(), socket.socketpair()

    def hold_up() -> None:
        loop.remove_reader(ours)
        first()
        time.sleep(seconds)

    with ours, theirs:
        loop.add_reader(ours, hold_up)
        theirs.send(b"now")
        yield
