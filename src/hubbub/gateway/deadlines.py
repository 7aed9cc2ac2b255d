"""Waits that must not take too long, with one timer for all of them.

A timer of the event loop's for each costs more than many a wait, and nearly all are over long before it would ring.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from types import TracebackType


class Deadlines:
    """Tells who waits when his time is over."""

    def __init__(self) -> None:
        self._waits: dict[object, tuple[float, Callable[[], None]]] = {}  # until when, and what is then called
        self._rings_at = math.inf  # when the timer does, monotonic seconds; infinite while there is none
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waits)

    def add(self, wait: object, within_s: float, over: Callable[[], None]) -> None:
        """Call `over` after so many seconds, unless `wait` is removed before."""
        loop = asyncio.get_running_loop()
        at = loop.time() + within_s
        self._waits[wait] = at, over
        if at < self._rings_at:
            self._ring_at(loop, at)

    def remove(self, wait: object) -> None:
        """It is over in time; nothing for one whose time is over."""
        self._waits.pop(wait, None)

    def within(self, seconds: float) -> Within:
        """A block of the current task that raises TimeoutError when it takes longer."""
        return Within(self, seconds)

    def _ring_at(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = at
        self._timer = loop.call_at(at, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._rings_at, self._timer = math.inf, None
        now = loop.time()
        overdue = [wait for wait, (at, _) in self._waits.items() if at <= now]
        for wait in overdue:
            _, over = self._waits.pop(wait)
            over()
        if self._waits:
            self._ring_at(loop, min(at for at, _ in self._waits.values()))


class Within:
    """See `Deadlines.within`; as `asyncio.timeout`, it tells its own cancellation from others'."""

    __slots__ = ("_cancelling", "_deadlines", "_is_over", "_seconds", "_task")

    def __init__(self, deadlines: Deadlines, seconds: float) -> None:
        self._deadlines = deadlines
        self._seconds = seconds
        self._is_over = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("expected a task to wait in, got none")
        self._task = task
        self._cancelling = task.cancelling()
        self._deadlines.add(self, self._seconds, self._over)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.remove(self)
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _over(self) -> None:
        self._is_over = True
        self._task.cancel()
