"""NATS servers, and nodes that share them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
from scripts.servers import Nats, NatsCluster

from natslab import Nodes


@pytest.fixture(scope="session")
def nats() -> Iterator[Nats]:
    """One server, which nobody stops."""
    with Nats() as server:
        yield server


@pytest.fixture(scope="module")
def nats_cluster() -> Iterator[NatsCluster]:
    """Three servers that know each other; a test that stops one starts it again."""
    with NatsCluster() as cluster:
        yield cluster


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Ended after the test."""
    async with AsyncExitStack() as ended:
        yield ended


@pytest.fixture
def nodes(nats: Nats, stack: AsyncExitStack) -> Nodes:
    """Nodes to be added, on one server."""
    return Nodes(nats.url, stack)
