"""A node that takes connections and says nothing, behind nginx, which has no checks: not all newcomers wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

from frontlab import Front, fronted
from live import Wire, until

IMPATIENCE_S = 1.0
"""When clients here give up: long before nginx does."""

TRIES = 12


async def newcomer(front: Front, number: int) -> Wire | None:
    """Somebody who connects, if he comes in before his patience ends."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(IMPATIENCE_S):
            return await front.open(f"newcomer-{number}")
    return None


async def test_newcomers_who_give_up_on_a_hanging_node_come_to_another(tmp_path: Path) -> None:
    """Those who gave up count as the hanging node's for a while, so it does not look like the one with most room."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as hanging:
        async with fronted("nginx", tmp_path, {}) as (_, [node]):
            front = Front("nginx", [hanging.getsockname()[1], node.port], tmp_path / "both")
            await asyncio.to_thread(front.start)
            try:
                wires = [await newcomer(front, number) for number in range(TRIES)]
                came = [wire for wire in wires if wire is not None]
                assert len(came) > 2, f"{len(came)} of {TRIES} came in"
                for wire in came:
                    await wire.ok("ping")
                    wire.socket.transport.abort()
                await until(lambda: len(node.hub) == 0, "the end of connections whose clients are gone")
            finally:
                await asyncio.to_thread(front.stop)
