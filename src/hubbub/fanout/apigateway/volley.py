"""Posts to many at once: each recipient's frames one after the other, recipients beside each other.

A recipient who is not to be had at the first try goes on in a task of his own, so that nobody waits for him. What comes
for him meanwhile is put behind what he still lacks.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from hubbub.aws.service import AwsError
from hubbub.clock import Clock
from hubbub.errors import HubbubError
from hubbub.fanout.apigateway.pace import Pace, TooLate
from hubbub.fanout.apigateway.posts import BACKOFF_S, Frame, Outcome, Posts
from hubbub.fanout.apigateway.tally import Tally
from hubbub.model import ConnectionId

logger = logging.getLogger(__name__)

TARDY_S = 0.25
"""For how long no post of a batch may be answered before the next batch begins beside those that are under way."""

MAX_LATE = 200
"""How many recipients are tried again at a time; when there are more, nobody new is tried: then it is not they."""

PATIENT = 10
"""How much longer and less often a recipient is tried while it is the account's quota that keeps him waiting."""

GIVEN_UP_S = 60.0
"""For how long somebody who was given up is tried once only."""

MAX_GIVEN_UP = 10_000

MAX_WAITING = 100
"""How many frames wait for one recipient; he lacks what is beyond, and repairs it from the log."""

Forget = Callable[[ConnectionId], Awaitable[object]]
"""Takes a connection that is gone out of the directory."""


class Mail(NamedTuple):
    """What one recipient is to get."""

    connection: ConnectionId
    frames: Sequence[Frame]


class _Batch:
    """How far a batch of mail has come.

    Attributes:
        begun: how many of its recipients somebody has taken.
        end: which one is the first that is not to be posted to, for there is no time.
        queued: how many of those begun wait for requests.
        moves: how many posts were answered.

    """

    __slots__ = ("begun", "end", "moves", "queued", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.begun = self.queued = self.moves = 0
        self.end = size

    def goes_on(self) -> bool:
        """Whether there are recipients left to begin with."""
        return self.begun < self.size and self.end == self.size

    def begin(self) -> int:
        """Take the next one."""
        self.begun += 1
        self.queued += 1
        return self.begun - 1

    def ends_before(self, number: int) -> None:
        """There is no time for this one."""
        self.end = min(self.end, number)


class Lines:
    """Who is being posted to in this process, and what waits for him; shared by all volleys, so that order holds.

    Attributes:
        waiting: the frames of each recipient that is under way, the one being posted first.
        given_up: recipients who did not read for as long as they were tried, and until when (monotonic) they are
            tried once only: a function is paid for while it waits for them.
        gate: bounds how many posts are under way.

    """

    def __init__(self, at_once: int) -> None:
        self.waiting: dict[ConnectionId, deque[Frame]] = {}
        self.given_up: dict[ConnectionId, float] = {}
        self.gate = asyncio.Semaphore(at_once)
        self.at_once = at_once


class Volley:
    """The posts of one job.

    Args:
        posts: makes them.
        pace: gives out requests.
        lines: those of the process.
        clock: time.
        forget: called for each connection that is gone.
        tally: where they are counted.
        until: when no new ones are begun, monotonic.
        patience_s: how long a recipient is tried who does not read.
        grace_s: for how long after `until` one is.

    """

    def __init__(
        self,
        posts: Posts,
        pace: Pace,
        lines: Lines,
        *,
        clock: Clock,
        forget: Forget,
        tally: Tally,
        until: float,
        patience_s: float,
        grace_s: float,
    ) -> None:
        self._posts = posts
        self._pace = pace
        self._lines = lines
        self._clock = clock
        self._forget = forget
        self._tally = tally
        self._until = until
        self._patience_s = patience_s
        self._grace_s = grace_s
        self._late: set[asyncio.Task[None]] = set()  # recipients that are tried again
        self._places = asyncio.Semaphore(MAX_LATE)  # for those
        self._tardy: set[asyncio.Task[None]] = set()  # workers that their batch did not wait for
        self._forgetting: set[asyncio.Task[None]] = set()

    def is_over(self) -> bool:
        """Whether no new posts are to be begun."""
        return self._clock.monotonic() >= self._until

    async def fire(self, mail: Sequence[Mail], goes_on: Callable[[], bool] = lambda: True) -> int:
        """Post to each recipient; to how many it was begun: all, unless time ran out or `goes_on()` was false.

        Returns when each has been tried, but for stragglers.
        """
        if not mail:
            return 0
        while len(self._tardy) >= self._lines.at_once:
            await asyncio.wait(self._tardy, return_when=asyncio.FIRST_COMPLETED)
        batch = _Batch(len(mail))

        async def work() -> None:
            while batch.goes_on() and goes_on() and not self.is_over():
                number = batch.begin()
                try:
                    for _ in mail[number].frames:
                        await allotment.one()
                except TooLate:
                    batch.ends_before(number)
                    return
                finally:
                    batch.queued -= 1
                await self._give(mail[number], batch)

        count = sum(len(each.frames) for each in mail)
        async with self._pace.allotment(count, until=self._until) as allotment:
            workers = {asyncio.create_task(work()) for _ in range(min(self._lines.at_once, len(mail)))}
            try:
                await self._all_but_stragglers(workers, batch)
            except BaseException:
                await _cancel(workers)
                raise
        return min(batch.begun, batch.end)

    async def shout(self, connections: Sequence[ConnectionId], frame: Frame) -> None:
        """Post a frame to each once, without trying again; who is busy goes without."""
        recipients = iter([each for each in connections if each not in self._lines.waiting])

        async def work() -> None:
            for connection in recipients:
                if self.is_over():
                    return
                await allotment.one()
                await self._attempt(connection, frame)

        async with self._pace.allotment(len(connections), until=self._until) as allotment:
            workers = {asyncio.create_task(work()) for _ in range(min(self._lines.at_once, len(connections)))}
            try:
                for worker in workers:
                    await worker
            except TooLate:
                logger.info("a signal had no requests left in time")
            finally:
                await _cancel(workers)

    async def finish(self) -> None:
        """Wait for the stragglers and for what is being forgotten; each wait has its bound."""
        while tasks := self._late | self._tardy | self._forgetting:
            await asyncio.wait(tasks)

    async def abandon(self) -> None:
        """Stop at once."""
        await _cancel(self._late | self._tardy | self._forgetting)

    async def _all_but_stragglers(self, workers: set[asyncio.Task[None]], batch: _Batch) -> None:
        """Wait for all workers; but once there is nothing more to begin, not for long for those that do not move.

        Raises whatever one of them raised.
        """
        pending = set(workers)
        seen = -1
        tick = asyncio.create_task(self._clock.sleep(TARDY_S))
        try:
            while pending:
                done, _ = await asyncio.wait({*pending, tick}, return_when=asyncio.FIRST_COMPLETED)
                pending -= done
                for worker in done & workers:
                    worker.result()
                if tick in done:
                    if not batch.goes_on() and not batch.queued and batch.moves == seen:
                        break
                    seen = batch.moves
                    tick = asyncio.create_task(self._clock.sleep(TARDY_S))
        finally:
            tick.cancel()
        for worker in pending:
            self._own(worker, self._tardy)

    async def _give(self, mail: Mail, batch: _Batch) -> None:
        """Post a recipient's frames one after the other; behind those that are under way, if some are."""
        connection = mail.connection
        waiting = self._lines.waiting.get(connection)
        if waiting is not None:
            lacking = max(0, len(waiting) + len(mail.frames) - MAX_WAITING)
            waiting.extend(mail.frames[: len(mail.frames) - lacking])
            self._tally.failed += lacking
            return
        waiting = self._lines.waiting[connection] = deque(mail.frames)
        is_handed_on = False
        try:
            while waiting:
                outcome = await self._attempt(connection, waiting[0])
                batch.moves += 1
                if outcome is Outcome.FAILED:  # as a rule that is over at once, and order is kept if it is
                    await self._clock.sleep(random.random() * BACKOFF_S)  # noqa: S311  no secret
                    outcome = await self._attempt(connection, waiting[0])
                if outcome.may_pass and self._was_given_up(connection):
                    self._tally.failed += len(waiting)
                    return
                if outcome.may_pass:
                    await self._places.acquire()
                    self._own(asyncio.create_task(self._insist(connection, waiting, outcome)), self._late)
                    is_handed_on = True
                    return
                self._settle(waiting, outcome)
        finally:
            if not is_handed_on:
                self._lines.waiting.pop(connection, None)

    async def _insist(self, connection: ConnectionId, waiting: deque[Frame], outcome: Outcome) -> None:
        """Try a recipient again until he has all that waits for him, or patience ends."""
        try:
            while True:
                self._tally.retried += 1
                many = PATIENT if self._pace.is_lowered() else 1
                outcome = await self._posts.insist(
                    connection,
                    waiting[0],
                    outcome,
                    patience_s=min(self._patience_s * many, self._until + self._grace_s - self._clock.monotonic()),
                    backoff_s=BACKOFF_S * many,
                )
                if outcome.may_pass:
                    self._tally.failed += len(waiting)
                    self._give_up(connection)
                    logger.info("%s is left out of %d frames: %s", connection, len(waiting), outcome.value)
                    return
                self._count(connection, waiting[0], outcome)
                self._settle(waiting, outcome)
                while waiting and not outcome.may_pass:
                    outcome = await self._attempt(connection, waiting[0])
                    if not outcome.may_pass:
                        self._settle(waiting, outcome)
                if not waiting:
                    return
        finally:
            self._lines.waiting.pop(connection, None)
            self._places.release()

    def _was_given_up(self, connection: ConnectionId) -> bool:
        return self._lines.given_up.get(connection, 0.0) > self._clock.monotonic()

    def _give_up(self, connection: ConnectionId) -> None:
        if self._pace.is_lowered():
            return  # it may not be his fault
        given_up = self._lines.given_up
        given_up.pop(connection, None)
        given_up[connection] = self._clock.monotonic() + GIVEN_UP_S
        if len(given_up) > MAX_GIVEN_UP:
            del given_up[next(iter(given_up))]

    async def _attempt(self, connection: ConnectionId, frame: Frame) -> Outcome:
        async with self._lines.gate:
            outcome = await self._posts.attempt(connection, frame)
        self._count(connection, frame, outcome)
        return outcome

    @staticmethod
    def _settle(waiting: deque[Frame], outcome: Outcome) -> None:
        """Take what was settled out of the line: one frame, or all for who is gone."""
        if outcome is Outcome.GONE:
            waiting.clear()
        else:
            waiting.popleft()

    def _count(self, connection: ConnectionId, frame: Frame, outcome: Outcome) -> None:
        match outcome:
            case Outcome.DELIVERED:
                self._tally.posted += 1
                self._tally.bytes += len(frame.body)
            case Outcome.GONE:
                self._tally.gone += 1
                self._own(asyncio.create_task(self._take_out(connection)), self._forgetting)
            case Outcome.REFUSED:
                self._tally.refused += 1
            case Outcome.THROTTLED:
                self._tally.throttled += 1
            case Outcome.FAILED:
                self._tally.broken += 1

    async def _take_out(self, connection: ConnectionId) -> None:
        try:
            await self._forget(connection)
        except (AwsError, HubbubError) as error:
            logger.warning("a connection that is gone is still in the directory: %s", error)

    @staticmethod
    def _own(task: asyncio.Task[None], tasks: set[asyncio.Task[None]]) -> None:
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
