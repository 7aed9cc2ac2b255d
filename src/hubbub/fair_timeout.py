"""A time limit for who is at the other end of a socket: time in which this process did not read does not count.

uvloop looks at its timers before it reads, and asyncio wakes who has read after those whose time is over. After a
process was held up, a plain `asyncio.timeout` would end a wait for what lies in the kernel already.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

ONE_LOOK_S = 0.01
"""How much later than its limit a wait ends at least: the loop has then been at its sockets once more."""


@contextlib.asynccontextmanager
async def fair_timeout(seconds: float) -> AsyncIterator[None]:
    """Raise TimeoutError in a block that takes longer.

    Args:
        seconds: how long it may take; where the process was held up at their end, as long again as it was.

    """
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    timer: asyncio.TimerHandle
    async with asyncio.timeout(None) as limit:

        def rings() -> None:
            nonlocal timer
            timer = loop.call_later(max(ONE_LOOK_S, loop.time() - due), over)

        def over() -> None:
            limit.reschedule(loop.time())  # the task is told after those whom the last look has woken

        timer = loop.call_at(due, rings)
        try:
            yield
        finally:
            timer.cancel()
