"""Each server of DynamoDB's API once a session, and a table for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from dynamolab import SERVERS, Server, fresh_table, running
from hubbub.aws.table import Table


@pytest.fixture(scope="session", params=SERVERS)
def dynamodb(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Moto and DynamoDB Local, one after the other."""
    with running(request.param) as server:
        yield server


@pytest.fixture
async def table(dynamodb: Server) -> AsyncIterator[Table]:
    """An empty table that nobody else uses."""
    async with fresh_table(dynamodb) as made:
        yield made
