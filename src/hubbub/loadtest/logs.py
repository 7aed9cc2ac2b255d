"""What one connection got of one room, held against the promise: every `seq` once, and in order."""

from __future__ import annotations

from collections.abc import Sequence

from hubbub.loadtest.frames import Run

_FARTHEST = 1_000_000
"""Beyond a hole of so many entries they are lost, and not waited for: each that is fills memory."""


class Tally:
    """What all connections of a process together got of one room.

    Attributes:
        room: which.
        delivered: entries that came, each connection's counted; those that came twice are counted once.
        resumed: of them those that came as the answer to a resuming `sync` or to `history`.
        doubled: entries that came once more than once.
        disordered: entries that came after one that follows them.
        lost: entries that had not come when the load test ended, or were too many to wait for.

    """

    __slots__ = ("delivered", "disordered", "doubled", "lost", "resumed", "room")

    def __init__(self, room: str) -> None:
        self.room = room
        self.delivered = 0
        self.resumed = 0
        self.doubled = 0
        self.disordered = 0
        self.lost = 0


class Log:
    """Where one connection stands in one room's log.

    Attributes:
        last: the highest `seq` that came, or the head when it began to listen.
        missing: those below that did not come (yet).
        held: what comes while it is not known yet where the log begins or goes on; None when it is known.
        tally: the room's.

    """

    __slots__ = ("held", "last", "missing", "tally")

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.last = 0
        self.missing: set[int] = set()
        self.held: list[Run] | None = []

    def begin(self, head: int) -> None:
        """Listen from behind `head`, whatever there was before."""
        self.last = head
        self.missing.clear()

    def go_on(self) -> list[Run]:
        """It is known where the log stands: what was held and is not known by that, which is to be taken now."""
        held, self.held = self.held or [], None
        fresh: list[Run] = []
        for run in held:
            if run.first > self.last:
                fresh.append(run)
            elif run.last > self.last:
                known = self.last + 1 - run.first
                fresh.append(Run(run.room, self.last + 1, run.last, run.dues[known:]))
        return fresh

    def take(self, run: Run) -> Sequence[int]:
        """Count entries that came live; returns when those that came for the first time were to be sent."""
        if run.first == self.last + 1:
            self.last = run.last
            self.tally.delivered += run.last - run.first + 1
            return run.dues
        fresh = [due for seq, due in enumerate(run.dues, run.first) if self._take(seq)]
        self.tally.delivered += len(fresh)
        return fresh

    @property
    def known(self) -> int:
        """Up to where there is no hole: what a client says when it resumes."""
        return min(self.missing) - 1 if self.missing else self.last

    def resume(self, entries: Sequence[tuple[int, int]], after: int) -> Sequence[int]:
        """Count entries that came as the answer to what follows `after`, each with when it was to be sent.

        Returns when those that came for the first time were. What came live beyond a hole is in such an answer again
        by right; what stands at or below `after`, or in it twice, is not.
        """
        fresh: list[int] = []
        answered: set[int] = set()
        for seq, due in entries:
            if seq <= after or seq in answered:
                self.tally.doubled += 1
            elif (seq > self.last or seq in self.missing) and self._take(seq):
                fresh.append(due)
            answered.add(seq)
        self.tally.delivered += len(fresh)
        self.tally.resumed += len(fresh)
        return fresh

    def _take(self, seq: int) -> bool:
        """Count one; False when it came before."""
        if seq > self.last:
            if seq - self.last > _FARTHEST:
                self.tally.lost += seq - self.last - 1
            else:
                self.missing.update(range(self.last + 1, seq))
            self.last = seq
            return True
        if seq in self.missing:
            self.missing.discard(seq)
            self.tally.disordered += 1
            return True
        self.tally.doubled += 1
        return False

    def lacks(self, head: int) -> int:
        """How many entries up to the room's head have not come."""
        return len(self.missing) + max(0, head - self.last)
