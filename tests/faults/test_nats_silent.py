"""A NATS server that says nothing for a while leaves no node deaf."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from history.cutter import NatsLink
from scripts.servers import Nats

from cuttable import Way
from hubbub.fanout.nats.address import parse_address
from hubbub.fanout.nats.link import Down, Link, Pauses
from hubbub.fanout.nats.stats import NatsStats
from live import until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Nats]:
    """A running one."""
    with Nats(folder=tmp_path) as running:
        yield running


async def test_an_answer_that_comes_too_late_leaves_nobody_deaf(server: Nats) -> None:
    """Who was not answered in time makes a new connection: the late answer would end the reading of the old one."""
    heard: list[bytes] = []
    connected = asyncio.Event()
    async with NatsLink(server.port, random.Random(1)) as way:
        link = Link(
            parse_address(f"nats://127.0.0.1:{way.port}"),
            name="test",
            receive=lambda subject, data: heard.append(data),
            connected=connected.set,
            lost=lambda: None,
            stats=NatsStats(),
            pauses=Pauses(ping_s=60.0),  # what these would find, they are not to find here
        )
        other = Link(
            parse_address(server.url),
            name="other",
            receive=lambda subject, data: None,
            connected=lambda: None,
            lost=lambda: None,
            stats=NatsStats(),
        )
        await link.open(10.0)
        await other.open(10.0)
        try:
            connected.clear()
            way.silence(frozenset({Way.BACK}))
            with pytest.raises(Down):
                await link.flush(0.2)
            way.heal()
            async with asyncio.timeout(20.0):
                await connected.wait()
            await link.subscribe("tea")
            await link.flush(10.0)
            await other.publish("tea", b"word")
            await until(lambda: heard == [b"word"], "the word")
        finally:
            await link.aclose()
            await other.aclose()
