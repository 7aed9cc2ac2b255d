"""The one table of adapters: every contract test runs over each row of its port, and a new adapter is a new row."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from scripts.servers import Nats

import fanoutlab
import natslab
import postgreslab
from doubles import settle
from dynamolab import Server, running
from dynamostorelab import store_at, unwritable
from hubbub.fanout import open_fanout
from hubbub.store import SqliteStore


@dataclass(frozen=True)
class StoreAdapter:
    """How the tests get at a store.

    Attributes:
        make: a store on the data in a folder, not yet entered; called again it is a store on the same data. Where the
            data is on a server, it is called with that first, and the folder is no more than a name.
        keeps: whether the data outlives the store.
        shares: whether several stores, on several machines, may have the same data open.
        unwritable: while this lasts the store cannot write.
        server: the server that has the data; None where none does.

    """

    make: Callable[..., Any]
    keeps: bool
    unwritable: Callable[[Any], Any]
    server: str | None = None
    shares: bool = False


@contextmanager
def _sqlite_unwritable(store: SqliteStore) -> Iterator[None]:
    """SQLite itself refuses to write, as with a file that has become read-only."""
    db: sqlite3.Connection = store._database.writing
    db.execute("PRAGMA query_only = ON")
    yield
    db.execute("PRAGMA query_only = OFF")


STORES = {
    "sqlite-memory": StoreAdapter(
        lambda folder, **options: SqliteStore(":memory:", **options), keeps=False, unwritable=_sqlite_unwritable
    ),
    "sqlite-file": StoreAdapter(
        lambda folder, **options: SqliteStore(str(folder / "chat.db"), **options),
        keeps=True,
        unwritable=_sqlite_unwritable,
    ),
    "dynamodb-moto": StoreAdapter(store_at, keeps=True, unwritable=unwritable, server="moto", shares=True),
    "dynamodb-local": StoreAdapter(store_at, keeps=True, unwritable=unwritable, server="dynamodb-local", shares=True),
    "postgres": StoreAdapter(
        postgreslab.store_at, keeps=True, unwritable=postgreslab.unwritable, server="postgres", shares=True
    ),
    "postgres-pgbouncer": StoreAdapter(
        postgreslab.store_at, keeps=True, unwritable=postgreslab.unwritable, server="postgres-pgbouncer", shares=True
    ),
}


@dataclass(frozen=True)
class FanoutAdapter:
    """How the tests get at a fan-out that is a directory too.

    Attributes:
        make: one that is not yet entered; where it needs a server, it is called with that first.
        settle: returns when what was handed over is done.
        leftovers: how much is kept of connections.
        bound: how much of it may be kept of those that are gone.
        many: how many connections are many.
        server: the fixture that is the server it needs; None where it needs none.

    """

    make: Callable[..., Any]
    settle: Callable[[Any], Any]
    leftovers: Callable[[Any], Any]
    bound: int
    many: int
    server: str | None = None


async def _token_ends(fanout: Any) -> int:
    """How many token ends the local fan-out knows."""
    return len(fanout._ends)


FANOUTS = {
    "local": FanoutAdapter(
        lambda **parts: open_fanout("local", **parts),
        settle=lambda fanout: settle(),
        leftovers=_token_ends,
        bound=1_001,
        many=2_000,
    ),
    "apigateway": FanoutAdapter(
        fanoutlab.apigateway,
        settle=fanoutlab.Home.settle,
        leftovers=fanoutlab.Home.items,
        bound=0,
        many=20,
        server="moto",
    ),
    "nats": FanoutAdapter(
        natslab.alone,
        settle=natslab.settled,
        leftovers=natslab.token_ends,
        bound=1_001,
        many=2_000,
        server="nats",
    ),
}

SLOW = {"apigateway", "dynamodb-moto", "dynamodb-local", "nats", "postgres", "postgres-pgbouncer"}
"""Adapters that need a server."""


def rows(table: Iterable[str]) -> list[Any]:
    """The table's rows as parameters, those that need a server marked as slow."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in table]


class Stores:
    """Stores of one adapter, on one set of data for each test."""

    def __init__(self, adapter: StoreAdapter, folder: Path, stack: AsyncExitStack) -> None:
        self.unwritable = adapter.unwritable
        self._make = adapter.make
        self._folder = folder
        self._stack = stack

    def make(self, *, folder: Path | None = None, **options: Any) -> Any:
        """A store, to be entered."""
        return self._make(folder or self._folder, **options)

    async def open(self, **options: Any) -> Any:
        """A store that is open until the test ends."""
        return await self._stack.enter_async_context(self.make(**options))


STARTERS: dict[str, Callable[[], Any]] = {
    "postgres": postgreslab.running,
    "postgres-pgbouncer": postgreslab.running_pooled,
}
"""What starts servers that are not DynamoDB's."""


class Servers:
    """The servers that rows of the table need, each started when it is first asked for."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._running: dict[str, Any] = {}

    def with_server(self, adapter: StoreAdapter) -> StoreAdapter:
        """The row with its server running; skips the test, and says what is missing, if there is none."""
        if adapter.server is None:
            return adapter
        if adapter.server not in self._running:
            start = STARTERS.get(adapter.server) or partial(running, adapter.server)
            self._running[adapter.server] = self._stack.enter_context(start())
        make = partial(adapter.make, self._running[adapter.server])
        return replace(adapter, make=make)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """For the whole session."""
    with ExitStack() as stack:
        yield Servers(stack)


@pytest.fixture(params=rows(STORES), scope="session")
def store_adapter(request: pytest.FixtureRequest, servers: Servers) -> StoreAdapter:
    """One row of the table."""
    return servers.with_server(STORES[request.param])


@pytest.fixture
async def stores(store_adapter: StoreAdapter, tmp_path: Path) -> AsyncIterator[Stores]:
    """For tests that choose a store's limits."""
    async with AsyncExitStack() as stack:
        yield Stores(store_adapter, tmp_path, stack)


@pytest.fixture(params=rows(name for name, adapter in STORES.items() if adapter.keeps))
async def lasting_stores(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> AsyncIterator[Stores]:
    """For tests that open the same data again."""
    async with AsyncExitStack() as stack:
        yield Stores(servers.with_server(STORES[request.param]), tmp_path, stack)


@pytest.fixture(params=rows(name for name, adapter in STORES.items() if adapter.shares))
async def nodes(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> AsyncIterator[list[Any]]:
    """Three open stores on the same data, as three nodes have them."""
    async with AsyncExitStack() as stack:
        shared = Stores(servers.with_server(STORES[request.param]), tmp_path, stack)
        yield [await shared.open() for _ in range(3)]


@pytest.fixture
async def store(stores: Stores) -> Any:
    """An open store with nothing in it."""
    return await stores.open()


@pytest.fixture(scope="session")
def moto() -> Iterator[Server]:
    """Moto's DynamoDB, for the adapters that need one."""
    with running("moto") as server:
        yield server


@pytest.fixture(scope="session")
def nats() -> Iterator[Nats]:
    """A NATS server, for the adapters that need one."""
    with Nats() as server:
        yield server


@pytest.fixture(params=rows(FANOUTS))
def fanout_adapter(request: pytest.FixtureRequest) -> FanoutAdapter:
    """One row of the table."""
    adapter = FANOUTS[request.param]
    if adapter.server is None:
        return adapter
    return replace(adapter, make=partial(adapter.make, request.getfixturevalue(adapter.server)))
