"""An hour in which nobody says anything, through the proxies of deploy/; the hour is two minutes long.

The proxies' time-outs are the shipped ones, and the nodes' times the defaults, each as many times shorter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from frontlab import FILES, Front, fronted
from hubbub.app import Node
from hubbub.config import Settings
from hubbub.gateway.quotas import GatewayLimits
from live import Wire

TIMES_FASTER = 30
HOUR_S = 3_600
PROXIES_PATIENCE_S = 75
NEVER = {"ping_after_s": 1e9}


def now() -> float:
    """The time of an hour that is soon over."""
    return time.monotonic() * TIMES_FASTER


@asynccontextmanager
async def sweeping(nodes: list[Node]) -> AsyncIterator[None]:
    """Let every node look at its connections each second."""

    async def sweep() -> None:
        while True:
            await seconds_pass(1)
            for node in nodes:
                node.hub.sweep()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(sweep())
        yield
        task.cancel()


async def seconds_pass(count: int) -> None:
    """Let so many seconds pass."""
    await asyncio.sleep(count / TIMES_FASTER)


async def test_no_proxy_drops_a_silent_connection_that_nodes_ping(tmp_path: Path) -> None:
    """After an hour every connection is the one it was; without the nodes' pings nginx and HAProxy end it soon."""
    # So that it is a node that finds the dead, and on what lives something comes in good time.
    assert Settings().ping_after_s + GatewayLimits().pong_within_s < PROXIES_PATIENCE_S
    nodes: list[Node] = []
    async with AsyncExitStack() as stack, sweeping(nodes):

        async def silent(kind: str, name: str, **settings: float) -> tuple[Front, Node, Wire]:
            front, (node,) = await stack.enter_async_context(
                fronted(kind, tmp_path / name / kind, settings, hurry=TIMES_FASTER, clock=now)
            )
            nodes.append(node)
            return front, node, await stack.enter_async_context(await front.open("ann"))

        pinged = [await silent(kind, "pinged") for kind in FILES]
        forgotten = [await silent(kind, "forgotten", **NEVER) for kind in ("nginx", "haproxy")]
        before = [node.hub.peers()[0].id for _, node, _ in pinged]

        await seconds_pass(4 * PROXIES_PATIENCE_S)
        assert [await wire.closed() for _, _, wire in forgotten] == [1006, 1006]

        await seconds_pass(HOUR_S - 4 * PROXIES_PATIENCE_S)
        assert [node.hub.peers()[0].id for _, node, _ in pinged] == before
        for _, _, wire in pinged:
            await wire.ok("ping")
