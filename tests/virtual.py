"""An event loop in which time passes only when nothing else can happen, and then at once: hours take milliseconds.

Everything that waits by the loop's time is virtual there: sleeps, time-outs, timers. It has no sockets and no threads,
and the same program always does the same in the same order.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")

NOW_MS = 1_700_000_000_000
"""The time of day when a virtual loop begins, epoch milliseconds."""


class Stuck(Exception):
    """Everybody waits for something that cannot happen any more."""


class _Skipping(selectors.SelectSelector):
    """A selector that never waits: it moves the loop's time on instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise Stuck("nothing is under way, and there is no timer")
        if not ready and timeout:
            self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; `clock` is its time as a `Clock`."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)
        self.clock = VirtualClock(self)

    def time(self) -> float:
        return self._skipping.now_s


class VirtualClock:
    """A `Clock` on a virtual loop.

    Args:
        loop: whose time it tells.
        ahead_s: how far it is off.

    """

    def __init__(self, loop: VirtualLoop, ahead_s: float = 0.0) -> None:
        self._loop = loop
        self._began_s = loop.time()
        self.ahead_s = ahead_s

    def now_ms(self) -> int:
        return NOW_MS + int((self._loop.time() - self._began_s + self.ahead_s) * 1_000)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run_virtually(main: Coroutine[Any, Any, ResultT], loop: VirtualLoop) -> ResultT:
    """What `main` returns, run on a virtual loop that is closed then."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)
