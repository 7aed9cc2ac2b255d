"""All of a node's writing: each work goes to its room's lane, and what it changed is known before that is told."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from hubbub.clock import Clock
from hubbub.errors import Unavailable
from hubbub.store.postgres import deeds, marks, messages, proof
from hubbub.store.postgres.address import Address
from hubbub.store.postgres.lane import Lane, Waiting, Work
from hubbub.store.postgres.link import Link, Session
from hubbub.store.postgres.marks import Mark
from hubbub.store.postgres.messages import Message
from hubbub.store.postgres.proof import Ping
from hubbub.store.postgres.transaction import Limits, Transaction

LOOK_S = 0.25
"""How often those are looked for whose patience has ended while they wait for their turn."""


class Writer:
    """Lanes of works; those of one room, or one user, share one and are done in order.

    Args:
        address: of the server.
        clock: time.
        limits: see `Limits`.
        learn: told what a transaction has changed, and when it began, before those who wait for it.
        max_pending: works that may wait; more are refused.

    """

    def __init__(
        self,
        address: Address,
        clock: Clock,
        limits: Limits,
        *,
        learn: Callable[[Transaction, float], None],
        max_pending: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._limits = limits
        self._learn = learn
        self._max_pending = max_pending
        self._patience_s = address.options.patience_s
        self._pending = 0
        self._lanes = [Lane(Link(address), self._do, self._count_down, clock) for _ in range(address.options.writers)]
        self._tasks = [asyncio.create_task(lane.run()) for lane in self._lanes]
        self._looking = asyncio.create_task(self._look())

    def submit(self, work: Work) -> asyncio.Future[Any]:  # Any: what the work becomes
        """Have `work` done; the future has what it became, once that is durable.

        Raises:
            Unavailable: too many are waiting.

        """
        if self._pending >= self._max_pending:
            raise Unavailable("Too many writes are waiting; try again.", retry_after_ms=500)
        self._pending += 1
        future: asyncio.Future[Any] = self._loop.create_future()
        lane = self._lanes[zlib.crc32(work.key.encode("utf-8", "surrogatepass")) % len(self._lanes)]
        lane.put(Waiting(work, future, self._clock.monotonic() + self._patience_s))
        return future

    async def close(self) -> None:
        """Return when all that was submitted is done; nothing is to be submitted after."""
        for lane in self._lanes:
            lane.close()
        await asyncio.gather(*self._tasks)
        self._looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._looking

    async def _look(self) -> None:
        while True:
            await self._clock.sleep(LOOK_S)
            for lane in self._lanes:
                lane.expire()

    def _count_down(self) -> None:
        self._pending -= 1

    async def _do(self, session: Session, kind: type[Any], works: Sequence[Any]) -> list[Any]:
        """Do works of one kind."""
        if kind is Message:
            return list(await messages.write(session, works))
        if kind is Mark:
            return list(await marks.move(session, works))
        if kind is Ping:
            return list(await proof.write(session, works))
        began = self._clock.monotonic()
        outcomes, transaction = await deeds.do(session, works, self._limits)
        self._learn(transaction, began)
        return outcomes
