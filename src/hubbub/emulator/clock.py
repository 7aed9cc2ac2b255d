"""Time, as retries and schedules need it: something that tests can make pass."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """The time of day, and waiting for it."""

    def now(self) -> float:
        """The time of day, epoch seconds."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...


class SystemClock:
    """This machine's."""

    def now(self) -> float:
        """The time of day, epoch seconds."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)
