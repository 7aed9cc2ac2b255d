"""One of a node's ways to write: what waits in it is written together, in order, one batch after the other.

What fails because the server is not there is done again on another connection, for as long as those who wait have
patience; every kind of work can be done twice and has happened once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from hubbub.clock import Clock
from hubbub.store.postgres.deeds import Deed
from hubbub.store.postgres.failures import Verdict, defect, described, unavailable, verdict, wait_s
from hubbub.store.postgres.link import Link, Session
from hubbub.store.postgres.marks import Mark
from hubbub.store.postgres.messages import Message
from hubbub.store.postgres.proof import Ping

logger = logging.getLogger("hubbub.store")

MAX_BATCH = 512
"""How many works are taken at a time."""

MAX_DEEDS = 64
"""How many of them are done in one transaction at most: each is a step or more, and holds its room until the last."""

MAX_BYTES = 2_000_000
"""Of messages in one statement, about."""

MAX_HEADS = 50_000
"""Of how many rooms the lane remembers how far it has seen their logs, before it starts anew."""

Work = Message | Mark | Ping | Deed
Doing = Callable[
    [Session, type[Any], Sequence[Any]], Awaitable[list[Any]]
]  # Any: one kind of work; what became of each
"""Given a session and works of one kind, does them and returns for each what it became, or the refusal."""


class Waiting:
    """A work and who waits for it.

    Attributes:
        work: what is to be done.
        future: has what became of it.
        until: when his patience ends, on the clock.

    """

    __slots__ = ("future", "until", "work")

    def __init__(self, work: Work, future: asyncio.Future[Any], until: float) -> None:
        self.work = work
        self.future = future
        self.until = until


class Lane:
    """A queue of works and the connection on which they are done.

    Args:
        link: the connection.
        do: does works of one kind.
        settled: told of each work that is answered.
        clock: time.

    """

    def __init__(self, link: Link, do: Doing, settled: Callable[[], None], clock: Clock) -> None:
        self._link = link
        self._do = do
        self._settled = settled
        self._clock = clock
        self._queue: deque[Waiting] = deque()
        self._taken: list[Waiting] = []  # what is being done, or comes next
        self._is_closing = False
        self._wake = asyncio.Event()
        self._heads: dict[str, int] = {}  # seqs up to which logs are known to be written
        self._failing = False  # the last try could not be written

    def put(self, waiting: Waiting) -> None:
        """Have it done after all that was put before."""
        self._queue.append(waiting)
        self._wake.set()

    def close(self) -> None:
        """Let `run` return when all is done."""
        self._is_closing = True
        self._wake.set()

    def expire(self) -> None:
        """Tell those whose patience has ended; what is being done for some of them may be done all the same."""
        now = self._clock.monotonic()
        for waiting in self._taken:
            if waiting.until > now:
                break
            if not waiting.future.done():
                waiting.future.set_exception(unavailable())
        while self._queue and self._queue[0].until <= now:
            self._answer(self._queue.popleft(), unavailable())

    async def run(self) -> None:
        """Do what is put, until it is closed and empty."""
        while True:
            if not self._queue:
                if self._is_closing:
                    break
                self._wake.clear()
                await self._wake.wait()
                continue
            self._taken = self._take()
            for stage in self._stages(self._taken):
                await self._complete(stage)
            self._taken = []
            if len(self._heads) > MAX_HEADS:
                self._heads.clear()
        await self._link.close()

    def _take(self) -> list[Waiting]:
        """The next of the queue, without those for whom nobody waits any more."""
        taken: list[Waiting] = []
        size = 0
        while self._queue and len(taken) < MAX_BATCH and size < MAX_BYTES:
            waiting = self._queue.popleft()
            if waiting.future.done():
                self._settled()
                continue
            taken.append(waiting)
            if isinstance(waiting.work, Message):
                size += len(waiting.work.body)
        return taken

    def _stages(self, taken: Sequence[Waiting]) -> list[list[Waiting]]:
        """Batches to be done one after the other, each of one kind of work, that keep the order of what has one key."""
        stages: list[list[Waiting]] = []
        kinds: list[type[Any]] = []
        last: dict[str, int] = {}  # by key, the last stage that has something of it
        for waiting in taken:
            key, kind = waiting.work.key, _kind(waiting.work)
            place = last.get(key, 0)
            if key in last and self._depends(waiting.work):
                place += 1
            most = MAX_DEEDS if kind is object else MAX_BATCH
            while place < len(stages) and (kinds[place] is not kind or len(stages[place]) >= most):
                place += 1
            if place == len(stages):
                stages.append([])
                kinds.append(kind)
            stages[place].append(waiting)
            last[key] = place
        return stages

    def _depends(self, work: Work) -> bool:
        """Whether it is about a message that may be one of those before it in its batch."""
        if not isinstance(work, Message):
            return False
        entry = work.entry
        about = max(entry.reply_to or 0, entry.thread or 0)
        return about > self._heads.get(entry.room, 0)

    async def _complete(self, stage: list[Waiting]) -> None:
        """Have works of one kind done, and answer all who wait for them."""
        kind = _kind(stage[0].work)
        tries = 0
        while stage := [waiting for waiting in stage if not self._is_over(waiting)]:
            try:
                session = await self._link.session()
                outcomes = await self._do(session, kind, [waiting.work for waiting in stage])
            except Exception as error:
                meaning = verdict(error)
                if meaning is Verdict.DEFECT:
                    await self._blame(stage, error)
                    return
                tries += 1
                if meaning is not Verdict.AGAIN:
                    self._note(error)
                if meaning in (Verdict.LOST, Verdict.DENIED):
                    self._link.drop(error)
                await self._clock.sleep(wait_s(tries))
            else:
                self._failing = False
                for waiting, outcome in zip(stage, outcomes, strict=True):
                    self._answer(waiting, outcome)
                return

    async def _blame(self, stage: list[Waiting], error: Exception) -> None:
        """One of them is to blame. Whoever it is shall be alone with it."""
        if len(stage) > 1:
            middle = len(stage) // 2
            await self._complete(stage[:middle])
            await self._complete(stage[middle:])
            return
        self._answer(stage[0], defect("a write", error))

    def _is_over(self, waiting: Waiting) -> bool:
        """Whether nobody waits for it any more; if his patience has ended, he is told."""
        if waiting.future.done():
            self._settled()
            return True
        if waiting.until <= self._clock.monotonic():
            self._answer(waiting, unavailable())
            return True
        return False

    def _answer(self, waiting: Waiting, outcome: Any) -> None:  # Any: what the work became
        self._settled()
        if isinstance(waiting.work, Message) and not isinstance(outcome, BaseException):
            entry = waiting.work.entry
            self._heads[entry.room] = max(outcome.seq, self._heads.get(entry.room, 0))
        if waiting.future.done():
            return
        if isinstance(outcome, BaseException):
            waiting.future.set_exception(outcome)
        else:
            waiting.future.set_result(outcome)

    def _note(self, error: BaseException) -> None:
        """Say once that nothing can be written."""
        if not self._failing:
            logger.error("cannot write: %s", described(error))
        self._failing = True


def _kind(work: Work) -> type[Any]:
    """What can be done together: messages, marks, pings, or anything else."""
    return type(work) if isinstance(work, Message | Mark | Ping) else object
