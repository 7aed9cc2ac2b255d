"""A time limit in which time when the process did not read does not count."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from hubbub.fair_timeout import fair_timeout
from live import BOUND_S
from loops import LOOPS, LoopFactory, held_up, run


@LOOPS
def test_what_came_in_time_counts_though_it_is_read_late(factory: LoopFactory) -> None:
    async def test() -> None:
        reading, writing = socket.socketpair()
        with reading, writing:
            reading.setblocking(False)
            with held_up(0.4, lambda: writing.send(b"here")):
                async with fair_timeout(0.2):
                    assert await asyncio.get_running_loop().sock_recv(reading, 100) == b"here"

    run(factory, test)


@LOOPS
def test_who_needs_another_turn_has_as_long_again_as_the_process_was_held_up(factory: LoopFactory) -> None:
    async def test() -> None:
        loop, due = asyncio.get_running_loop(), 0.1
        async with fair_timeout(due):
            time.sleep(0.5)
            began = loop.time()
            await asyncio.sleep(0.2)  # a round trip
            assert loop.time() - began > due

    run(factory, test)


@LOOPS
def test_who_takes_too_long_is_ended_and_only_he(factory: LoopFactory) -> None:
    async def test() -> None:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with fair_timeout(0.05):
                await asyncio.Event().wait()
        assert time.monotonic() - began >= 0.05
        async with fair_timeout(0.05):
            pass
        await asyncio.sleep(0.15)  # its timer does not ring

    run(factory, test)


@LOOPS
def test_who_is_cancelled_by_others_is_cancelled(factory: LoopFactory) -> None:
    async def test() -> None:
        async def wait() -> None:
            async with fair_timeout(BOUND_S):
                await asyncio.Event().wait()

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(factory, test)
