"""Each server of DynamoDB's API once a session, and a table for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from dynamolab import SERVERS, Server, fresh_table, running
from hubbub.aws.table import Table


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str], Server]]:
    """Each from when it is first asked for by its name: every file goes through all of them."""
    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(running(name)))


@pytest.fixture(scope="session", params=SERVERS)
def dynamodb(request: pytest.FixtureRequest, servers: Callable[[str], Server]) -> Server:
    """Moto and DynamoDB Local, one after the other."""
    return servers(request.param)


@pytest.fixture
async def table(dynamodb: Server) -> AsyncIterator[Table]:
    """An empty table that nobody else uses."""
    async with fresh_table(dynamodb) as made:
        yield made
