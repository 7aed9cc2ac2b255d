"""A SQLite store's insides: its writer held still, its statements written down, its disk full."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from hubbub.store import SqliteStore

BOUND_S = 20
"""How long anything may be held before the test fails."""


@asynccontextmanager
async def held(store: SqliteStore) -> AsyncIterator[None]:
    """The writer waits: what is asked for meanwhile is committed together."""
    begun, released = threading.Event(), threading.Event()

    def work(batch: Any) -> None:
        begun.set()
        assert released.wait(BOUND_S)

    holding = store._submit(work)
    assert await asyncio.to_thread(begun.wait, BOUND_S)
    try:
        yield
    finally:
        released.set()
    await holding


@contextmanager
def traced(*connections: sqlite3.Connection) -> Iterator[list[str]]:
    """The statements that are run meanwhile."""
    statements: list[str] = []
    noting = True

    def note(statement: str) -> None:
        if noting:
            statements.append(statement)

    for connection in connections:
        connection.set_trace_callback(note)
    yield statements
    # It stays. Taking it away waits for a thread that runs a statement, and keeps the interpreter, which that
    # thread waits for in order to call it: the writer may be moving its log though all that was asked for is answered.
    noting = False


@contextmanager
def full(store: SqliteStore) -> Iterator[None]:
    """The database may not grow: SQLite answers as if the disk were full."""
    db = store._database.writing
    db.execute("PRAGMA max_page_count = 1")
    yield
    db.execute("PRAGMA max_page_count = 4294967294")


def started(*calls: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """The calls as tasks, which begin in that order at the next turn of the loop."""
    return [asyncio.create_task(call) for call in calls]


async def rows(store: SqliteStore, *tables: str) -> dict[str, int]:
    """How many rows there are in tables, without a name in all that hold what rooms have."""
    tables = tables or ("entries", "reactions", "members", "reads", "leftovers")
    return await store._read(
        lambda db: {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
    )
