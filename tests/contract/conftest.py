"""The one table of adapters: every contract test runs over each row of its port, and a new adapter is a new row."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hubbub.fanout import open_fanout
from hubbub.store import SqliteStore


@dataclass(frozen=True)
class StoreAdapter:
    """How the tests get at a store.

    Attributes:
        make: a store on the data in a folder, not yet entered; called again it is a store on the same data.
        keeps: whether the data outlives the store.
        unwritable: while this lasts the store cannot write.

    """

    make: Callable[..., Any]
    keeps: bool
    unwritable: Callable[[Any], Any]


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
}

FANOUTS = {"local": lambda **parts: open_fanout("local", **parts)}


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


@pytest.fixture(params=STORES, scope="session")
def store_adapter(request: pytest.FixtureRequest) -> StoreAdapter:
    """One row of the table."""
    return STORES[request.param]


@pytest.fixture
async def stores(store_adapter: StoreAdapter, tmp_path: Path) -> AsyncIterator[Stores]:
    """For tests that choose a store's limits."""
    async with AsyncExitStack() as stack:
        yield Stores(store_adapter, tmp_path, stack)


@pytest.fixture(params=[name for name, adapter in STORES.items() if adapter.keeps])
async def lasting_stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    """For tests that open the same data again."""
    async with AsyncExitStack() as stack:
        yield Stores(STORES[request.param], tmp_path, stack)


@pytest.fixture
async def store(stores: Stores) -> Any:
    """An open store with nothing in it."""
    return await stores.open()


@pytest.fixture(params=FANOUTS)
def make_fanout(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """How one adapter of the fan-out is opened."""
    return FANOUTS[request.param]
