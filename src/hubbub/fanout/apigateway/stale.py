"""Connections that are gone without a word: each is looked for once in ten minutes, by the sweeper.

Nothing is written for that after a connection has come: its item stands in a partition whose turn comes every
`LOOK_EVERY_MIN` minutes. So there is nothing that a sweeper who dies could leave undone; the next round has the same
connections, and who was not looked at for want of time is among the first in it or in one soon after.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from hubbub.aws.table import Table
from hubbub.clock import Clock
from hubbub.fanout.apigateway.connections import ARRIVING_MS, Connections
from hubbub.fanout.apigateway.failures import translated
from hubbub.fanout.apigateway.keys import LOOK_EVERY_MIN, LOOK_SHARDS, look_pk
from hubbub.fanout.apigateway.pace import Pace, TooLate
from hubbub.fanout.apigateway.posts import Outcome, Posts
from hubbub.model import ConnectionId
from hubbub.parallel import every

logger = logging.getLogger(__name__)

PAGE = 1_000
"""How many connections are looked at before the table is asked for more."""

_LETTERS = "+/0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_GOLDEN = 2_531  # odd, and near 64 * 64 divided by the golden ratio: rounds begin far from each other


class _Look(msgspec.Struct):
    """A connection to be looked at, which came at `at`, epoch milliseconds."""

    sk: str
    at: int
    ttl: int


class Stale:
    """Looks for connections that are gone, and forgets them.

    Args:
        table: where they are.
        posts: what asks API Gateway for them.
        pace: the account's quota, of which that takes its share.
        forget: what is done about one that is gone; `ApiGatewayDirectory.forget`.
        clock: time.

    """

    def __init__(
        self,
        table: Table,
        *,
        posts: Posts,
        pace: Pace,
        forget: Callable[[ConnectionId], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._table = table
        self._connections = Connections(table, clock)
        self._posts = posts
        self._pace = pace
        self._forget = forget
        self._clock = clock

    @translated
    async def sweep(self, now_ms: int, within_s: float) -> int:
        """Look at the connections whose turn is in this minute; returns how many were gone.

        Args:
            now_ms: epoch milliseconds.
            within_s: for how long looks are begun, in seconds; one takes at most twice `TRY_S` of `posts`.

        Raises:
            Unavailable: the table did not answer for some; the others were looked at.

        """
        ends_at = self._clock.monotonic() + within_s
        around, minute = divmod(now_ms // 60_000, LOOK_EVERY_MIN)
        gone = looked = 0
        for turn in range(LOOK_SHARDS):
            async for page in self._pages(look_pk(minute, (around + turn) % LOOK_SHARDS), around):
                old = [look for look in page if now_ms - look.at >= ARRIVING_MS and look.ttl * 1_000 > now_ms]
                outcomes = await self._look_at(old, ends_at)
                looked += sum(outcome is not None for outcome in outcomes)
                gone += sum(outcome is Outcome.GONE for outcome in outcomes)
                if self._clock.monotonic() >= ends_at:
                    logger.warning("time was over after %d connections: the rest is looked at in a later round", looked)
                    return gone
        return gone

    async def _pages(self, pk: str, around: int) -> AsyncIterator[list[_Look]]:
        """All that is in a partition; where it begins differs from round to round."""
        place = around * _GOLDEN % len(_LETTERS) ** 2
        first = _LETTERS[place // len(_LETTERS)] + _LETTERS[place % len(_LETTERS)]
        for part in ({"start": first}, {"high": first}):
            bounds: dict[str, Any] = dict(part)  # Any: arguments of `query`
            while True:
                page = await self._table.query(pk, limit=PAGE, consistent=False, **bounds)
                yield [msgspec.convert(item, _Look) for item in page.items]
                if page.next is None:
                    break
                bounds["start"] = page.next

    async def _look_at(self, looks: list[_Look], ends_at: float) -> list[Outcome | None]:
        """What became of each; None where time was over before."""
        async with self._pace.allotment(len(looks), until=ends_at) as allotment:

            async def look_at(look: _Look) -> Outcome | None:
                try:
                    await allotment.one()
                except TooLate:
                    return None
                if self._clock.monotonic() >= ends_at:
                    return None
                return await self._look_for(ConnectionId(look.sk))

            return await every(look_at, looks)

    async def _look_for(self, connection: ConnectionId) -> Outcome:
        outcome = await self._posts.look(connection, patience_s=0)
        if outcome is Outcome.GONE:
            await self._forget(connection)
            await self._connections.unwatch(connection)
        return outcome
