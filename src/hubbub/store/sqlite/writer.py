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
from hubbub.store.sqlite.checkpoints import Checkpoints
from hubbub.store.sqlite.opening import Database

logger = logging.getLogger("hubbub.store")

MAX_BATCH = 1_024
MAX_ROOMS = 100_000
"""How many rooms the writer remembers before it starts anew."""

PAUSE_S = 0.02
"""Between two steps of the sweep, so that it takes turns with those who wait."""

Told = Callable[[Any, Exception | None], None]
"""Told on the loop what a work has returned, or why it was not done."""

Waiting = tuple[Work, "asyncio.Future[Any] | Told | None"]  # None for the writer's own
Outcome = tuple["asyncio.Future[Any] | Told | None", Any, Exception | None]


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
        self._checkpoints = Checkpoints(database)
        self._db = database.writing
        self._path = database.path
        self._loop = asyncio.get_running_loop()
        self._before = before
        self._settled = settled
        self._sweep = sweep
        self._sweep_s = sweep_s
        self._max_pending = max_pending
        self._pending = 0  # works whose waiter was not yet told; counted on the loop
        self._given: list[Waiting] = []  # works of this turn of the loop, which the thread gets at its end
        self._waking = 0  # how many times waiters that need another turn were woken and have not run yet
        self._queue: queue.SimpleQueue[list[Waiting] | None] = queue.SimpleQueue()  # None: the last work was given
        self._rest: list[Waiting] = []  # what the last batch had no room for; the thread's
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
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self.put(work, future):
            raise Unavailable("Too many writes are waiting; try again.", retry_after_ms=500)
        return future

    def put(self, work: Work, waiter: asyncio.Future[Any] | Told) -> bool:
        """Have `work` done and tell `waiter`, once that is on disk; False, with nothing done, while too many wait."""
        if self._pending >= self._max_pending:
            return False
        self._pending += 1
        given = self._given
        if not given:
            # What comes in one turn is given at once: waking the thread costs more than many works do.
            self._loop.call_soon(self.give)
        given.append((work, waiter))
        return True

    def give(self) -> None:
        """Give the thread what was put in this turn."""
        if self._given:
            given, self._given = self._given, []
            self._queue.put(given)

    def finish(self) -> None:
        """Return when all that was given is done; nothing is to be put after. Not for the loop's thread."""
        self._queue.put(None)
        self._thread.join()
        self._checkpoints.finish()

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
        works, more = self._rest, True
        try:
            while len(works) < MAX_BATCH:
                given = self._queue.get_nowait() if works else self._queue.get(timeout=within_s)
                if given is None:
                    more = False
                    break
                works = works + given if works else given
        except queue.Empty:
            pass
        works, self._rest = works[:MAX_BATCH], works[MAX_BATCH:]
        if self._rest and not more:
            self._queue.put(None)  # what was given before it comes first
            more = True
        return works, more

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
            outcomes = [(waiter, None, self._failure(error)) for _, waiter in works]
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
        self._checkpoints.wrote(batch.log_bytes(self._db.total_changes - changes))
        return outcomes

    def _transact(self, batch: Batch, works: Sequence[Waiting]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        # As statements, the beginning and the end would let go of the interpreter five times each, and so only once.
        if self._db.in_transaction:  # the last could not be rolled back, and a script would commit it
            self._db.rollback()
        self._db.executescript("BEGIN IMMEDIATE")
        self._before(batch, [work for work, _ in works])
        for work, waiter in works:
            try:
                outcomes.append((waiter, work(batch), None))
            except HubbubError as refused:
                outcomes.append((waiter, None, refused))
        batch.flush()
        self._db.commit()
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
        """On the loop: what was written is known first, then its waiters are told, in order."""
        self._settled(batch, rooms)
        self._pending -= len(outcomes)
        for place, (waiter, result, error) in enumerate(outcomes):
            if waiter is None:
                self._pending += 1  # the writer's own was never counted
            elif self._waking or isinstance(waiter, asyncio.Future):
                # Who awaits a future goes on in another turn. What follows him in the order follows him there too.
                self._tell_later(outcomes[place:])
                return
            else:
                self._tell(waiter, result, error)

    def _tell_later(self, outcomes: list[Outcome]) -> None:
        """Tell these in order, each after those before him have gone on."""
        soon = self._loop.call_soon
        for waiter, result, error in outcomes:
            if isinstance(waiter, asyncio.Future):
                if not waiter.done():  # else nobody waits any more
                    waiter.set_result(result) if error is None else waiter.set_exception(error)
            elif waiter is None:
                self._pending += 1
            else:
                soon(self._tell, waiter, result, error)
        self._waking += 1
        soon(self._woken)

    def _woken(self) -> None:
        self._waking -= 1

    def _tell(self, waiter: Told, result: Any, error: Exception | None) -> None:  # Any: what the work returned
        try:
            waiter(result, error)
        except Exception:
            logger.exception("who was told of a write failed")


def _is_outage(error: Exception) -> bool:
    """Whether the database cannot just now, rather than that it was asked for something it will never do."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError
