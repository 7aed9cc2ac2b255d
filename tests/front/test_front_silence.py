"""An hour in which nobody says anything, through the proxies of deploy/; the hour is 90 seconds long.

The proxies' time-outs are the shipped ones, and the nodes' times the defaults, each as many times shorter.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

from frontlab import FILES, Front, fronted
from hubbub.app import Node
from hubbub.config import Settings
from live import Wire

TIMES_FASTER = 40
HOUR_S = 3_600
PROXIES_PATIENCE_S = 75
NEVER = {"ping_after_s": 1e9}


def now() -> float:
    """The time of an hour that is soon over."""
    return time.monotonic() * TIMES_FASTER


async def seconds_pass(nodes: list[Node], count: int) -> None:
    """Let so many seconds pass, and every node look at its connections each second."""
    end = now() + count
    while now() < end:
        await asyncio.sleep(1 / TIMES_FASTER)
        for node in nodes:
            node.hub.sweep()


async def test_no_proxy_drops_a_silent_connection_that_nodes_ping(tmp_path: Path) -> None:
    """After an hour every connection is the one it was; without the nodes' pings nginx and HAProxy end it soon."""
    assert Settings().ping_after_s * 3 <= PROXIES_PATIENCE_S
    async with AsyncExitStack() as stack:

        async def silent(kind: str, name: str, **settings: float) -> tuple[Front, Node, Wire]:
            front, (node,) = await stack.enter_async_context(
                fronted(kind, tmp_path / name / kind, settings, hurry=TIMES_FASTER, clock=now)
            )
            return front, node, await stack.enter_async_context(await front.open("ann"))

        pinged = [await silent(kind, "pinged") for kind in FILES]
        forgotten = [await silent(kind, "forgotten", **NEVER) for kind in ("nginx", "haproxy")]
        nodes = [node for _, node, _ in [*pinged, *forgotten]]
        before = [node.hub.peers()[0].id for _, node, _ in pinged]

        await seconds_pass(nodes, 4 * PROXIES_PATIENCE_S)
        assert [await wire.closed() for _, _, wire in forgotten] == [1006, 1006]

        await seconds_pass(nodes, HOUR_S - 4 * PROXIES_PATIENCE_S)
        assert [node.hub.peers()[0].id for _, node, _ in pinged] == before
        for _, _, wire in pinged:
            await wire.ok("ping")
