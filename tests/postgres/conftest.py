"""A PostgreSQL server for all tests of the store that do it no harm, and one for those that do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from scripts.servers import Postgres

from hubbub.store import PostgresStore
from postgreslab import running, store_at


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """One that nobody stops."""
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def victim() -> Iterator[Postgres]:
    """One that may be killed, and is to be left running."""
    with running() as server:
        yield server


class Opened:
    """Opens stores on one set of data, which stay open until the test ends."""

    def __init__(self, server: Postgres, folder: Path, stack: AsyncExitStack) -> None:
        self._server = server
        self._folder = folder
        self._stack = stack

    async def __call__(self, **options: Any) -> PostgresStore:
        return await self._stack.enter_async_context(store_at(self._server, self._folder, **options))


@pytest.fixture
async def opened(server: Postgres, tmp_path: Path) -> AsyncIterator[Opened]:
    """Stores on the server that nobody stops."""
    async with AsyncExitStack() as stack:
        yield Opened(server, tmp_path, stack)


@pytest.fixture
async def store(opened: Opened) -> PostgresStore:
    """An open store with nothing in it."""
    return await opened()
