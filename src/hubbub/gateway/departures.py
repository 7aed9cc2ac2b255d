"""When what is to be sent leaves: at the end of the turn of the loop, or with what comes next where that is cheaper.

To write one frame to a thousand connections takes milliseconds, and to write sixteen to each hardly longer. So where
more than one message goes on, what is for many first lets the loop read what has arrived, and while functions are under
way it waits for what they will say: until the next turn in which anything is to be sent, and for a part of the time
that the sending takes at most.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable

MANY = 100
"""For so many connections it pays: a loop's timers are as fine as a millisecond."""

WAITS_S_EACH = 2e-6
"""How long is waited at most, for each connection that is to be written to: a third to half of what that takes."""

MOST_S = 0.005
"""How long is waited at most, however many they are."""


class _Stage(enum.Enum):
    FRESH = enum.auto()  # nothing has been tried
    HAS_READ = enum.auto()  # the loop is reading, or has read, what had arrived
    WAITS = enum.auto()  # the next turn in which anything is to be sent is the last


class Departures:
    """Lets a hub write what it has, in time.

    Args:
        write: writes all; it tells `left`.
        due: how many frames are for groups, and how many connections are in those, about.

    Attributes:
        under_way: how many functions are, whose answers may come soon.
        is_called: whether it will look at the end of the turn; while it is not, it wants to be told of what there is.

    """

    def __init__(self, write: Callable[[], None], due: Callable[[], tuple[int, int]]) -> None:
        self.under_way = 0
        self._write = write
        self._due = due
        self._is_busy = False  # whether more than one frame was for many the last time
        self._stage = _Stage.FRESH
        self.is_called = False
        self._latest: asyncio.TimerHandle | None = None  # calls when nothing else has; None where nothing waits so long

    def wanted(self) -> None:
        """There is something to write."""
        if not self.is_called:
            self.is_called = True
            asyncio.get_running_loop().call_soon(self._turn_ends)

    def left(self) -> None:
        """All is written, whoever wanted it."""
        self._stage = _Stage.FRESH
        if self._latest is not None:
            self._latest.cancel()
            self._latest = None

    def _turn_ends(self) -> None:
        self.is_called = False
        frames, connections = self._due()
        if connections < MANY:
            self._write()
            return
        was_busy, self._is_busy = self._is_busy, frames > 1
        if self._stage is _Stage.WAITS or not (self.under_way or was_busy or self._is_busy):
            self._write()
        elif self._stage is _Stage.FRESH:
            self._stage = _Stage.HAS_READ
            self.wanted()  # sockets are read between this and that
        elif self.under_way:
            self._stage = _Stage.WAITS
            wait_s = min(max(connections * WAITS_S_EACH, 0.001), MOST_S)  # uvloop takes less than half of one for none
            self._latest = asyncio.get_running_loop().call_later(wait_s, self._write)
        else:
            self._write()
