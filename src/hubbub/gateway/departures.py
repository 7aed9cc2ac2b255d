"""When what is to be sent leaves: at the end of the turn of the loop, or with what comes next where that is cheaper.

To write one frame to a thousand connections takes milliseconds, and to write sixteen to each hardly longer. So where
more than one message goes on, what is for many first lets the loop read what has arrived, and while functions are under
way it waits for what they will say: until the next turn in which anything is to be sent, and for a part of the time
that the sending takes at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

MANY = 100
"""For so many connections it pays: a loop's timers are as fine as a millisecond."""

WAITS_S_EACH = 2e-6
"""How long is waited at most, for each connection that is to be written to: a third to half of what that takes."""

MOST_S = 0.005
"""How long is waited at most, however many they are."""


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
        self._has_read = False  # whether the loop is reading, or has read, what had arrived
        self.is_called = False
        self._latest: asyncio.TimerHandle | None = None  # writes if no turn does before; None while none is waited for

    def wanted(self) -> None:
        """There is something to write."""
        if not self.is_called:
            self.is_called = True
            asyncio.get_running_loop().call_soon(self._turn_ends)

    def left(self) -> None:
        """All is written, whoever wanted it."""
        self._has_read = False
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
        if self._latest is None and (self.under_way or was_busy or self._is_busy):
            if not self._has_read:
                self._has_read = True
                self.wanted()  # sockets are read between this and that
                return
            if self.under_way:
                # uvloop takes less than half a millisecond for none.
                wait_s = min(max(connections * WAITS_S_EACH, 0.001), MOST_S)
                self._latest = asyncio.get_running_loop().call_later(wait_s, self._write)
                return
        self._write()
