"""A gateway for each test, on either kind of event loop, and a witness: a connection that must notice nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import uvloop
from gatewaylab import Lab, running, still_works
from rawpeer import Peer

from loops import LoopFactory, new_event_loop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, LoopFactory]:
    """The loops that a test runs on, one after the other.

    `hubbub serve` runs on uvloop, and who mounts the gateway in a server of his own may not. Tables of cases run on
    uvloop alone: what differs between the loops is how sockets are handed over, paused and closed, not their bytes.
    """
    factories: dict[str, LoopFactory] = {"uvloop": uvloop.new_event_loop}
    if item.get_closest_marker("parametrize") is None:
        factories["asyncio"] = new_event_loop
    return factories


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """A gateway with the default limits."""
    async with running() as made:
        yield made


@pytest.fixture
async def witness(lab: Lab) -> AsyncIterator[Peer]:
    """A connection to the same gateway that works before the test and after it, and gets nothing in between."""
    async with await lab.open() as peer:
        await still_works(peer)
        yield peer
        await still_works(peer)
