"""Short reads that are asked for in one turn of the event loop go to the reader's thread and back together.

Handing work to a thread and the outcome back costs several times what looking up one row does. When many connect at
once each of them is looked up, and what a busy turn has collected is one job.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

Query = Callable[[sqlite3.Connection], Any]
"""Reads something, quickly: those beside it wait for it."""

_Outcome = tuple["asyncio.Future[Any]", Any, Exception | None]


class Lookups:
    """Short reads, in a thread.

    Args:
        executor: has the thread.
        run: runs a query there.

    """

    __slots__ = ("_asked", "_executor", "_loop", "_run")

    def __init__(self, executor: Executor, run: Callable[[Query], Any]) -> None:
        self._executor = executor
        self._run = run
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
        for query, future in asked:
            if future.cancelled():
                continue
            try:
                outcomes.append((future, self._run(query), None))
            except Exception as error:
                outcomes.append((future, None, error))
        try:
            self._loop.call_soon_threadsafe(_settle, outcomes)
        except RuntimeError:
            return  # the loop has ended, and with it everybody who asked


def _settle(outcomes: Sequence[_Outcome]) -> None:
    for future, found, error in outcomes:
        if future.done():  # whoever asked has gone away
            continue
        if error is None:
            future.set_result(found)
        else:
            future.set_exception(error)
