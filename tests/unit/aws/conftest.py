"""What speaks over sockets runs on both kinds of event loop: a server's, and that of functions without uvloop."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import uvloop

from endpoint import Endpoint
from hubbub.aws.http import HttpClient
from loops import LoopFactory, new_event_loop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, LoopFactory]:
    """The loops that a test runs on, one after the other."""
    factories: dict[str, LoopFactory] = {"asyncio": new_event_loop}
    if item.path.name in ("test_aws_http.py", "test_aws_proxy.py"):
        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """An HTTP server that answers as a test tells it."""
    async with Endpoint() as made:
        yield made


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    """A client with the defaults."""
    async with HttpClient() as made:
        yield made
