"""All of a node's reading: queries take turns on a few connections, and those that ask the same share the next one.

Whoever asks while a query runs is never answered by it: what it says may be older than his question. He waits for the
one after it, with all others who came meanwhile; so a crowd that asks the same costs one query at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from hubbub.clock import Clock
from hubbub.errors import HubbubError, Unavailable
from hubbub.store.postgres.address import Address
from hubbub.store.postgres.failures import Verdict, defect, described, unavailable, verdict, wait_s
from hubbub.store.postgres.link import Link, Session

logger = logging.getLogger("hubbub.store")

T = TypeVar("T")

Query = Callable[[Session], Awaitable[T]]

LOOK_S = 0.25
"""How often those are looked for whose patience has ended while they wait for their turn."""


class _Asked:
    """A query and who waits for it.

    Attributes:
        key: what is asked, where others who ask it may share the answer; None for a query of one caller.

    """

    __slots__ = ("future", "key", "query", "until")

    def __init__(self, query: Query[Any], key: Hashable | None, future: asyncio.Future[Any], until: float) -> None:
        self.query = query
        self.key = key
        self.future = future
        self.until = until


class Reader:
    """Connections on which queries are run.

    Args:
        address: of the server.
        clock: time.
        max_pending: callers that may wait; more are refused.

    """

    def __init__(self, address: Address, clock: Clock, *, max_pending: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._max_pending = max_pending
        self._patience_s = address.options.patience_s
        self._pending = 0
        self._queue: deque[_Asked] = deque()
        self._idle: list[asyncio.Future[None]] = []  # connections that wait for something to do
        self._next: dict[Hashable, _Asked] = {}  # by key, what has not begun
        self._running: set[Hashable] = set()
        self._failing = False
        self._links = [Link(address) for _ in range(address.options.readers)]
        self._tasks = [asyncio.create_task(self._run(link)) for link in self._links]
        self._tasks.append(asyncio.create_task(self._look()))

    async def ask(self, query: Query[T]) -> T:
        """What `query` returns, which may be run several times.

        Raises:
            Unavailable: too many are waiting, or there is no server for too long.

        """
        asked = self._asked(query, None)
        self._put(asked)
        return await self._waited_for(asked.future)

    async def shared(self, key: Hashable, query: Query[T]) -> T:
        """The same for what several may ask at once: they share an answer that is younger than each one's question."""
        asked = self._next.get(key)
        if asked is None:
            asked = self._asked(query, key)
            asked.future.add_done_callback(_heard)
            self._next[key] = asked
            if key not in self._running:
                self._put(asked)
        asked.until = self._clock.monotonic() + self._patience_s  # of the last who came; each has his own besides
        return await self._waited_for(asyncio.shield(asked.future))

    async def close(self) -> None:
        """Stop; whoever still waits is told that there is nothing to be had."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for asked in [*self._queue, *self._next.values()]:
            if not asked.future.done():
                asked.future.set_exception(Unavailable("The chat is shutting down."))
        for link in self._links:
            await link.close()

    def _asked(self, query: Query[Any], key: Hashable | None) -> _Asked:
        if self._pending >= self._max_pending:
            raise self._too_many()
        return _Asked(query, key, self._loop.create_future(), self._clock.monotonic() + self._patience_s)

    async def _waited_for(self, future: asyncio.Future[T]) -> T:
        if self._pending >= self._max_pending:
            raise self._too_many()
        self._pending += 1
        try:
            async with asyncio.timeout(self._patience_s):
                return await future
        except TimeoutError:
            raise unavailable() from None
        finally:
            self._pending -= 1

    @staticmethod
    def _too_many() -> Unavailable:
        return Unavailable("Too many reads are waiting; try again.", retry_after_ms=500)

    def _put(self, asked: _Asked) -> None:
        self._queue.append(asked)
        while self._idle:
            idle = self._idle.pop()
            if not idle.done():
                idle.set_result(None)
                break

    async def _run(self, link: Link) -> None:
        while True:
            while not self._queue:
                idle: asyncio.Future[None] = self._loop.create_future()
                self._idle.append(idle)
                await idle
            asked = self._queue.popleft()
            try:
                await self._answer(asked, link)
            except asyncio.CancelledError:
                if not asked.future.done():
                    asked.future.set_exception(Unavailable("The chat is shutting down."))
                raise
            finally:
                self._ended(asked)

    async def _answer(self, asked: _Asked, link: Link) -> None:
        """Run the query until it succeeds or nobody waits for it any more."""
        tries = 0
        while not self._is_over(asked):
            try:
                session = await link.session()
                self._begun(asked)
                result = await asked.query(session)
            except Exception as error:
                meaning = verdict(error)
                if meaning is Verdict.DEFECT:
                    if not asked.future.done():
                        asked.future.set_exception(_for_the_caller(error))
                    return
                if not self._failing:
                    logger.error("cannot read: %s", described(error))
                self._failing = True
                if meaning in (Verdict.LOST, Verdict.DENIED):
                    link.drop(error)
                tries += 1
                await self._clock.sleep(wait_s(tries))
            else:
                self._failing = False
                if not asked.future.done():
                    asked.future.set_result(result)
                return

    def _is_over(self, asked: _Asked) -> bool:
        if not asked.future.done() and asked.until <= self._clock.monotonic():
            asked.future.set_exception(unavailable())
        return asked.future.done()

    def _begun(self, asked: _Asked) -> None:
        """From now on its answer is too old for those who come."""
        if asked.key is not None and self._next.get(asked.key) is asked:
            del self._next[asked.key]
            self._running.add(asked.key)

    def _ended(self, asked: _Asked) -> None:
        """Let those who came meanwhile have theirs."""
        if asked.key is None:
            return
        self._running.discard(asked.key)
        later = self._next.get(asked.key)
        if later is asked:  # it never began
            del self._next[asked.key]
        elif later is not None:
            self._put(later)

    async def _look(self) -> None:
        while True:
            await self._clock.sleep(LOOK_S)
            while self._queue and self._is_over(self._queue[0]):
                self._ended(self._queue.popleft())


def _for_the_caller(error: Exception) -> Exception:
    return error if isinstance(error, HubbubError) else defect("a query", error)


def _heard(future: asyncio.Future[Any]) -> None:
    """A failure that nobody is left to hear of is none."""
    if not future.cancelled():
        future.exception()
