"""Short reads that are asked for in one turn of the event loop go to the reader's thread and back together.

Handing work to a thread and the outcome back costs several times what looking up one row does, and a transaction costs
as much again. When many connect at once each of them is looked up, and what a busy turn has collected is one job on one
state of the database.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from typing import Any

Query = Callable[[sqlite3.Connection], Any]
"""Reads something, quickly: those beside it wait for it."""

_Outcome = tuple["asyncio.Future[Any]", Any, Exception | None]


class Lookups:
    """Short reads, in a thread.

    Args:
        executor: has the thread.
        snapshot: holds a state of the database there, and has the connection to read it with.

    """

    __slots__ = ("_asked", "_executor", "_loop", "_snapshot")

    def __init__(self, executor: Executor, snapshot: Callable[[], AbstractContextManager[sqlite3.Connection]]) -> None:
        self._executor = executor
        self._snapshot = snapshot
        self._loop = asyncio.get_running_loop()
        self._asked: list[tuple[Query, asyncio.Future[Any]]] = []  # in this turn

    def ask(self, query: Query) -> asyncio.Future[Any]:
        """What the query finds, or raises."""
        if not self._asked:
            self._loop.call_soon(self.flush)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._asked.append((query, future))
        return future

    def flush(self) -> None:
        """Hand over what was asked until now: at the end of the turn, and before the executor ends."""
        asked, self._asked = self._asked, []
        if asked:
            self._executor.submit(self._work, asked)

    def _work(self, asked: Sequence[tuple[Query, asyncio.Future[Any]]]) -> None:
        outcomes: list[_Outcome] = []
        failed: Exception | None = None
        try:
            with self._snapshot() as db:
                for query, future in asked:
                    outcomes.append((future, *_found(query, future, db)))
        except Exception as error:  # nothing can be read just now
            failed = error
        outcomes += [(future, None, failed) for _, future in asked[len(outcomes) :]]
        try:
            self._loop.call_soon_threadsafe(_settle, outcomes)
        except RuntimeError:
            return  # the loop has ended, and with it everybody who asked


def _found(query: Query, future: asyncio.Future[Any], db: sqlite3.Connection) -> tuple[Any, Exception | None]:
    """What a query finds, and what it raises; nothing for one whose outcome nobody waits for."""
    if future.cancelled():
        return None, None
    try:
        return query(db), None
    except Exception as error:  # whatever it is, it is that of who asked
        return None, error


def _settle(outcomes: Sequence[_Outcome]) -> None:
    for future, found, error in outcomes:
        if future.done():  # whoever asked has gone away
            continue
        if error is None:
            future.set_result(found)
        else:
            future.set_exception(error)
