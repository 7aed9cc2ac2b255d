"""Short reads of one turn are one job of the reader's thread, and still each has its own outcome."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from hubbub.store.sqlite.lookups import Lookups, Query

DATABASE = sqlite3.connect(":memory:", check_same_thread=False)


class Counting(ThreadPoolExecutor):
    """Counts the jobs it is given."""

    def __init__(self) -> None:
        super().__init__(1)
        self.jobs = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        self.jobs += 1
        return super().submit(fn, *args, **kwargs)


@pytest.fixture
def executor() -> Iterator[Counting]:
    with Counting() as made:
        yield made


class Snapshots:
    """Counts them; the next one fails with `failure`."""

    def __init__(self) -> None:
        self.count = 0
        self.failure: Exception | None = None

    @contextmanager
    def __call__(self) -> Iterator[sqlite3.Connection]:
        self.count += 1
        if self.failure is not None:
            raise self.failure
        yield DATABASE


@pytest.fixture
def snapshots() -> Snapshots:
    return Snapshots()


def number(n: int) -> Query:
    return lambda db: db.execute("SELECT ?", (n,)).fetchone()[0]


async def test_those_of_one_turn_are_one_job(executor: Counting, snapshots: Snapshots) -> None:
    """However many there are, and each gets what it asked for; those of a later turn are another job."""
    lookups = Lookups(executor, snapshots)
    assert await asyncio.gather(*(lookups.ask(number(n)) for n in range(100))) == list(range(100))
    assert (executor.jobs, snapshots.count) == (1, 1)
    assert await lookups.ask(number(7)) == 7
    assert executor.jobs == 2


async def test_one_that_fails_fails_alone(executor: Counting, snapshots: Snapshots) -> None:
    """Its error is that of who asked, and the others are answered."""
    lookups = Lookups(executor, snapshots)
    good, bad = lookups.ask(number(1)), lookups.ask(lambda db: db.execute("SELECT nonsense"))
    with pytest.raises(sqlite3.OperationalError, match="nonsense"):
        await bad
    assert await good == 1


async def test_where_nothing_can_be_read_all_are_told(executor: Counting, snapshots: Snapshots) -> None:
    """And what is asked later is tried again."""
    lookups = Lookups(executor, snapshots)
    snapshots.failure = sqlite3.OperationalError("disk I/O error")
    asked = [lookups.ask(number(n)) for n in range(3)]
    gone = lookups.ask(number(3))
    gone.cancel()
    for each in asked:
        with pytest.raises(sqlite3.OperationalError, match="disk"):
            await each
    snapshots.failure = None
    assert await lookups.ask(number(4)) == 4


async def test_who_has_gone_away_is_not_answered(executor: Counting, snapshots: Snapshots) -> None:
    """Neither what was given up before its turn nor what was given up meanwhile disturbs the others."""
    lookups = Lookups(executor, snapshots)
    ran: list[str] = []
    early, other = lookups.ask(lambda db: ran.append("early")), lookups.ask(number(2))
    early.cancel()
    assert await other == 2
    assert ran == []
    late = lookups.ask(lambda db: loop.call_soon_threadsafe(late.cancel))
    loop = asyncio.get_running_loop()
    last = lookups.ask(number(3))
    assert await last == 3
    assert late.cancelled()


async def test_what_was_asked_before_the_end_is_answered(executor: Counting, snapshots: Snapshots) -> None:
    """Also in the turn in which the store closes."""
    lookups = Lookups(executor, snapshots)
    asked = lookups.ask(number(4))
    lookups.flush()
    executor.shutdown(wait=False)
    assert await asked == 4
