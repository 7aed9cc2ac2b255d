"""The account's request quota, shared by all broadcasters: a ledger in the table says who may post when.

API Gateway gives an account 10,000 requests a second from a bucket of 5,000, and callbacks draw on it like everything
else. The ledger is the same bucket over a share of it, as one number: up to when the share's requests are given away
(the generic cell rate algorithm). Whoever wants to post to many takes the next stretch of time, one write for many
posts, and posts in it at an even pace. Posts that the account's quota refuses all the same lower the pace for
everybody; it rises again by itself. Source: "Quotas for configuring and running a WebSocket API" in API Gateway's
developer guide.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from types import TracebackType
from typing import Self

from hubbub.aws.marshalling import Item
from hubbub.aws.service import AwsError
from hubbub.aws.table import ConditionFailed, Table
from hubbub.clock import Clock
from hubbub.fanout.apigateway.keys import PACE_KEY
from hubbub.model import ConnectionId

logger = logging.getLogger(__name__)

HORIZON_S = 30.0
"""How far ahead of now requests are given away; who comes when that much is given away waits before he asks again."""

OFF_S = 5.0
"""A ledger further ahead than the horizon and this was written by a clock that is off: it is set right."""

LATE_S = 1.0
"""How long is waited before somebody is told that it is too late: his successor will be there the sooner."""

GRAIN_S = 0.002
"""Waits shorter than this are not worth a timer."""

WINDOW_S = 0.5
"""For how long posts that were throttled are looked at together."""

MANY = 5
"""That many connections throttled within the window, and a tenth of its posts, are no slow clients but the quota."""

LOWERED = 0.5
"""What the pace is multiplied with when the quota is met."""

LEAST = 0.05
"""Below which part of it the pace is never lowered."""

RISE_PER_S = 0.05
"""How much of the whole pace comes back in a second."""

ALONE = 0.1
"""Which part of the pace one broadcaster goes at while the ledger cannot be reached."""


class TooLate(Exception):
    """No request is free before the time at which its taker has to be done."""


class Pace:
    """Gives out the share of the account's requests that broadcasts may use.

    Attributes:
        whole: how many requests a second broadcasts may use when nothing is amiss.

    Args:
        table: where the ledger is.
        clock: time.
        per_s, burst: the account's quota: requests a second, and how many at once.
        share: which part of it broadcasts may use; the rest is for events, replies and small rooms.
        chunk: how many requests are taken at once.
        free: up to how many recipients a broadcast takes none, unless the quota has just been met.

    """

    def __init__(
        self,
        table: Table,
        *,
        clock: Clock,
        per_s: float = 10_000,
        burst: int = 5_000,
        share: float = 0.7,
        chunk: int = 250,
        free: int = 50,
    ) -> None:
        if not 0 < share <= 1 or per_s <= 0 or chunk < 1:
            raise ValueError(f"pace: expected a share of (0, 1] of a rate, in chunks, got {share}, {per_s}, {chunk}")
        self._table = table
        self._clock = clock
        self.whole = per_s * share
        self._burst_us = round(burst / per_s * 1e6)
        self._chunk = chunk
        self._free = free
        self._low = self.whole  # the pace when it was lowered last, by the ledger as it was seen last
        self._lowered_ms = 0
        self._given_us = 0  # up to when requests were given away then
        self._alone_us = 0  # likewise, by this broadcaster's own count while the ledger cannot be reached
        self._window_s = 0.0  # when the window of throttled posts began, monotonic
        self._accepted = 0
        self._throttled: set[ConnectionId] = set()

    def __repr__(self) -> str:
        return f"<Pace {self.rate():.0f} of {self.whole:.0f} requests/s>"

    def rate(self) -> float:
        """How many requests a second may go just now."""
        risen_s = max(0.0, (self._clock.now_ms() - self._lowered_ms) / 1_000)
        return min(self.whole, self._low + risen_s * RISE_PER_S * self.whole)

    def is_lowered(self) -> bool:
        """Whether the quota was met not long ago."""
        return self.rate() < self.whole

    def allotment(self, count: int, *, until: float) -> Allotment:
        """Requests for `count` posts that are about to be made.

        Args:
            count: how many.
            until: when they have to be done, monotonic.

        """
        is_free = count <= self._free and not self.is_lowered()
        return Allotment(self, self._clock, 0 if is_free else count, until)

    # How posts fare

    def accepted(self) -> None:
        """A post was not throttled."""
        self._accepted += 1

    async def throttled(self, connection: ConnectionId) -> None:
        """A post to this connection was throttled; if many are, the pace is lowered."""
        now = self._clock.monotonic()
        if now - self._window_s > WINDOW_S:
            self._window_s, self._accepted = now, 0
            self._throttled.clear()
        self._throttled.add(connection)
        many = len(self._throttled)
        if many >= MANY and many * 10 >= many + self._accepted:
            self._throttled.clear()
            await self._lower()

    async def _lower(self) -> None:
        """Lower the pace for everybody, at most once a second whoever finds cause to."""
        now_ms = self._clock.now_ms()
        low = round(max(self.rate() * LOWERED, self.whole * LEAST))
        self._low, self._lowered_ms = low, now_ms
        try:
            await self._table.update(
                PACE_KEY,
                "SET #low = :low, #lowered = :now",
                condition="attribute_not_exists(#lowered) OR #lowered < :before",
                values={"low": low, "now": now_ms, "before": now_ms - 1_000},
                repeat=True,
            )
        except ConditionFailed as failed:
            self._learn(failed.item or {})
        except AwsError as error:
            logger.warning("the pace was lowered here alone: %s", error)
        else:
            logger.warning("the account's quota is used up: broadcasts go on with %d requests/s", low)

    # The ledger

    async def take(self, most: int, until: float) -> tuple[float, float, int]:
        """Take the next requests: from when on (epoch seconds), how far apart (seconds), and how many, at most `most`.

        Raises:
            TooLate: there are none before `until`, monotonic.

        """
        count = min(most, self._chunk)
        while True:
            now_us = self._clock.now_ms() * 1_000
            left_us = round((until - self._clock.monotonic()) * 1e6)
            if left_us <= 0:
                raise TooLate
            cost_us = round(count / self.rate() * 1e6)
            latest_us = now_us + min(left_us, round(HORIZON_S * 1e6))
            try:
                given_us = await self._give(now_us - self._burst_us, latest_us, cost_us)
            except AwsError as error:
                logger.warning("the ledger of requests cannot be reached: %s", error)
                self._alone_us = max(self._alone_us, now_us) + round(cost_us / ALONE)
                return (self._alone_us - cost_us / ALONE) / 1e6, cost_us / ALONE / count / 1e6, count
            if given_us is not None:
                return (given_us - cost_us) / 1e6, cost_us / count / 1e6, count
            await self._wait(latest_us, left_us)

    async def _give(self, least_us: int, latest_us: int, cost_us: int) -> int | None:
        """Move the ledger on and return where it then is; None if it is beyond `latest_us`.

        A ledger that was left behind is brought up to `least_us` first: what was not used is lost but for a burst.
        """
        for _ in range(10):
            is_behind = self._given_us < least_us
            try:
                item = await self._table.update(
                    PACE_KEY,
                    "SET #given = :to" if is_behind else "SET #given = #given + :cost",
                    condition=(
                        "attribute_not_exists(#given) OR #given < :least"
                        if is_behind
                        else "#given >= :least AND #given <= :latest"
                    ),
                    values=(
                        {"to": least_us + cost_us, "least": least_us}
                        if is_behind
                        else {"cost": cost_us, "least": least_us, "latest": latest_us}
                    ),
                    returns="ALL_NEW",
                )
            except ConditionFailed as failed:
                self._learn(failed.item or {})
                if self._given_us > latest_us:
                    return None
            else:
                self._learn(item)
                return self._given_us
        return None

    def _learn(self, item: Item) -> None:
        """What the ledger says."""
        given, low, lowered = (item.get(name, 0) for name in ("given", "low", "lowered"))
        if not (isinstance(given, int) and isinstance(low, int) and isinstance(lowered, int)):
            raise TypeError(f"ledger: expected numbers, got {item!r}")
        self._given_us = given
        if lowered:
            self._low, self._lowered_ms = float(low), lowered

    async def _wait(self, latest_us: int, left_us: int) -> None:
        """Wait until requests may be free again.

        Raises:
            TooLate: that is too late.

        """
        now_us = self._clock.now_ms() * 1_000
        ahead_us = self._given_us - now_us
        if ahead_us > (HORIZON_S + OFF_S) * 1e6:
            logger.error("the ledger of requests is %.0f s ahead: a clock is off", ahead_us / 1e6)
            await self._set_right(now_us)
            return
        wait_us = max(self._given_us - latest_us, 0) + random.randrange(100_000)  # noqa: S311  no secret
        if wait_us >= left_us or self._given_us - now_us >= left_us:
            await self._clock.sleep(min(left_us / 1e6, LATE_S))
            raise TooLate
        await self._clock.sleep(wait_us / 1e6)

    async def _set_right(self, now_us: int) -> None:
        try:
            await self._table.update(
                PACE_KEY,
                "SET #given = :now",
                condition="#given = :seen",
                values={"now": now_us, "seen": self._given_us},
                repeat=True,
            )
        except ConditionFailed as failed:
            self._learn(failed.item or {})
        else:
            self._given_us = now_us


class Allotment:
    """Requests for one batch of posts: `one` returns when the next may be made. Used as `async with`.

    The next chunk is taken while the last one is used, and no more than are needed.
    """

    def __init__(self, pace: Pace, clock: Clock, count: int, until: float) -> None:
        self._pace = pace
        self._clock = clock
        self._is_free = not count
        self._untaken = count
        self._until = until
        self._times: deque[float] = deque()  # when each request that was taken may be made, epoch seconds
        self._taking: asyncio.Task[None] | None = None  # None while no chunk is being taken
        self._low = 0  # with how many left the next chunk is taken
        self._is_late = False  # whether there are no more in time

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.gather(self._taking, return_exceptions=True)

    async def one(self) -> None:
        """Return when the next post may be made.

        Raises:
            TooLate: that is not before the batch has to be done.

        """
        if self._is_free:
            return
        while not self._times:
            if self._is_late:
                raise TooLate
            if self._taking is None:
                self._taking = asyncio.create_task(self._take())
            await asyncio.shield(self._taking)
        at = self._times.popleft()
        if self._untaken and self._taking is None and len(self._times) <= self._low:
            self._taking = asyncio.create_task(self._take())
        wait_s = at - self._clock.now_ms() / 1_000
        if wait_s > GRAIN_S:
            await self._clock.sleep(wait_s)

    async def _take(self) -> None:
        try:
            start_s, apart_s, count = await self._pace.take(max(self._untaken, 1), self._until)
        except TooLate:
            self._is_late = True
            return
        finally:
            self._taking = None
        self._untaken = max(0, self._untaken - count)
        self._times.extend([start_s + n * apart_s for n in range(count)])
        self._low = count // 2
