"""The thread that writes: works that wait together share one transaction and one commit, in the order they came."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from hubbub.errors import HubbubError, Unavailable
from hubbub.model import Room
from hubbub.store.sqlite.batch import Batch, RoomRow, Work
from hubbub.store.sqlite.opening import Database

logger = logging.getLogger("hubbub.store")

MAX_BATCH = 1_024
MAX_ROOMS = 100_000
"""How many rooms the writer remembers before it starts anew."""

PAUSE_S = 0.02
"""Between two steps of the sweep, so that it takes turns with those who wait."""

Waiting = tuple[Work, "asyncio.Future[Any] | None"]  # None for the writer's own
Outcome = tuple["asyncio.Future[Any] | None", Any, Exception | None]


class Writer:
    """Does works in a thread of its own and answers on the event loop that made it.

    Args:
        database: whose `writing` connection is the thread's alone, once started.
        before: looks at the works of a transaction before the first is done.
        settled: told on the loop what a transaction has changed, before those who wait for it.
        sweep: a work for every `sweep_s` seconds, and again while it returns True.
        max_pending: works that may wait; more are refused.

    """

    def __init__(
        self,
        database: Database,
        *,
        before: Callable[[Batch, Sequence[Work]], None],
        settled: Callable[[Batch, dict[str, Room | None]], None],
        sweep: Callable[[Batch], bool],
        sweep_s: float,
        max_pending: int,
    ) -> None:
        self._db = database.writing
        self._path = database.path
        self._loop = asyncio.get_running_loop()
        self._before = before
        self._settled = settled
        self._sweep = sweep
        self._sweep_s = sweep_s
        self._max_pending = max_pending
        self._pending = 0  # works whose future is not yet done; counted on the loop
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()  # None: the last work has been given
        self._rooms: dict[str, RoomRow] = {}  # the rooms that batches have used, as they are
        self._failing = False  # the last transaction could not be written
        self._next_sweep = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="hubbub-write", daemon=True)
        self._thread.start()

    def submit(self, work: Work) -> asyncio.Future[Any]:
        """Have `work` done; the future has what it returned or raised, once that is on disk.

        Raises:
            Unavailable: too many are waiting.

        """
        if self._pending >= self._max_pending:
            raise Unavailable("Too many writes are waiting; try again.", retry_after_ms=500)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending += 1
        self._queue.put((work, future))
        return future

    def finish(self) -> None:
        """Return when all that was submitted is done; nothing is to be submitted after. Not for the loop's thread."""
        self._queue.put(None)
        self._thread.join()

    # The thread

    def _run(self) -> None:
        more = True
        while more:
            works, more = self._gather(max(0.0, self._next_sweep - time.monotonic()))
            if works:
                self._commit(works)
            if more and time.monotonic() >= self._next_sweep:
                outcomes = self._commit([(self._sweep, None)])
                swept_some = outcomes[-1][1] is True
                self._next_sweep = time.monotonic() + (PAUSE_S if swept_some else self._sweep_s)
            if len(self._rooms) > MAX_ROOMS:
                self._rooms.clear()

    def _gather(self, within_s: float) -> tuple[list[Waiting], bool]:
        """What waits, or comes `within_s`; and whether there will be more."""
        works: list[Waiting] = []
        try:
            item = self._queue.get(timeout=within_s)
            while item is not None:
                works.append(item)
                if len(works) == MAX_BATCH:
                    return works, True
                item = self._queue.get_nowait()
        except queue.Empty:
            return works, True
        return works, False

    def _commit(self, works: Sequence[Waiting]) -> list[Outcome]:
        """Do all of it in one transaction and tell the loop."""
        batch = Batch(self._db, self._rooms)
        changes = self._db.total_changes
        try:
            outcomes = self._transact(batch, works)
        except Exception as error:
            self._rooms.clear()
            self._roll_back()
            if not _is_outage(error) and len(works) > 1:
                # One of them is to blame. Whoever it is shall be alone with it.
                middle = len(works) // 2
                return self._commit(works[:middle]) + self._commit(works[middle:])
            outcomes = [(future, None, self._failure(error)) for _, future in works]
            batch = Batch(self._db, self._rooms)
        else:
            if self._failing and self._db.total_changes > changes:  # one that writes nothing proves nothing
                logger.warning("writing to %s works again", self._path)
                self._failing = False
        if batch.litter:
            self._next_sweep = time.monotonic()
        try:
            self._loop.call_soon_threadsafe(self._settle, outcomes, batch, batch.news_of_rooms())
        except RuntimeError:  # the loop has ended; nobody is left to be told
            logger.warning("the event loop ended before %d writes were answered", len(outcomes))
        return outcomes

    def _transact(self, batch: Batch, works: Sequence[Waiting]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        self._db.execute("BEGIN IMMEDIATE")
        self._before(batch, [work for work, _ in works])
        for work, future in works:
            try:
                outcomes.append((future, work(batch), None))
            except HubbubError as refused:
                outcomes.append((future, None, refused))
        batch.flush()
        self._db.execute("COMMIT")
        return outcomes

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error as error:
                logger.error("cannot roll back in %s: %s", self._path, error)

    def _failure(self, error: Exception) -> Exception:
        """What those are told whose works `error` ended."""
        if not _is_outage(error):
            logger.error("a work of the store's writer failed", exc_info=error)
            return error
        if not self._failing:
            logger.error("cannot write to %s: %s", self._path, error)
        self._failing = True
        return Unavailable(retry_after_ms=1_000)

    def _settle(self, outcomes: list[Outcome], batch: Batch, rooms: dict[str, Room | None]) -> None:
        """On the loop: what was written is known first, then its writers are told, in order."""
        self._settled(batch, rooms)
        for future, result, error in outcomes:
            if future is None:
                continue
            self._pending -= 1
            if future.done():  # nobody waits any more
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


def _is_outage(error: Exception) -> bool:
    """Whether the database cannot just now, rather than that it was asked for something it will never do."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError
