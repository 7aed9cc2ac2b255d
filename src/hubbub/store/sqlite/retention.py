"""What is removed when time passes: entries beyond what is kept of a room's log, and what deleted rooms left behind.

Little by little, so that nobody's write waits long for it.
"""

from __future__ import annotations

import time
from collections import deque

from hubbub.store.sqlite.batch import SEQ_BITS, Batch, RoomRow

STEP = 1_000
"""How many entries one transaction removes at most."""


class Retention:
    """A work that takes one step, and says whether there is more to do just now.

    Args:
        entries, days: what is kept of a room's log; None for all.

    """

    def __init__(self, entries: int | None, days: float | None) -> None:
        self._entries = entries
        self._days = days
        self._due: deque[str] | None = None  # rooms that this round has still to look at; None between rounds

    def __call__(self, batch: Batch) -> bool:
        """Remove up to `STEP` entries; False when nothing is left to be removed."""
        leftover = batch.db.execute("SELECT min(room) FROM leftovers").fetchone()[0]
        if leftover is not None:
            _clear_away(batch, leftover)
            return True
        if self._entries is None and self._days is None:
            return False
        oldest_ms = None if self._days is None else int((time.time() - self._days * 86_400) * 1_000)
        if self._due is None:
            self._due = self._rooms_due(batch, oldest_ms)
        budget = STEP
        while budget and self._due:
            room = batch.room(self._due[0])
            removed = 0 if room is None or room.deleted else self._shorten(batch, room, oldest_ms, budget)
            budget -= removed
            if budget:
                self._due.popleft()
        if budget:
            self._due = None
        return not budget

    def _rooms_due(self, batch: Batch, oldest_ms: int | None) -> deque[str]:
        rows = batch.db.execute(
            "SELECT r.id FROM rooms r LEFT JOIN entries e ON e.key = (r.no << ?) + r.first"
            " WHERE NOT r.deleted AND (r.head - r.first >= ? OR e.at < ?)",
            (SEQ_BITS, self._entries, oldest_ms),
        ).fetchall()
        return deque(row[0] for row in rows)

    def _shorten(self, batch: Batch, room: RoomRow, oldest_ms: int | None, most: int) -> int:
        """Remove up to `most` entries from the room's low end; returns how many."""
        upto = min(room.first + most - 1, room.head)
        base = room.no << SEQ_BITS
        kept_from = 1 if self._entries is None else room.head - self._entries + 1
        if oldest_ms is not None:
            young = batch.db.execute(
                "SELECT key FROM entries WHERE key BETWEEN ? AND ? AND at >= ? ORDER BY key LIMIT 1",
                (base | room.first, base | upto, oldest_ms),
            ).fetchone()
            kept_from = max(kept_from, upto + 1 if young is None else young[0] - base)
        last = min(upto, kept_from - 1)
        if last < room.first:
            return 0
        removed: int = last - room.first + 1
        room.dropped = batch.ordinal(room, last)
        _remove(batch, room.no, room.first, last)
        room.first = last + 1
        batch.counted(room)
        return removed


def _clear_away(batch: Batch, no: int) -> None:
    """Remove some of what a deleted room left under its number, and in the end the number itself."""
    base = no << SEQ_BITS
    key = batch.db.execute("SELECT min(key) FROM entries WHERE key BETWEEN ? AND ?", (base, base | 2**SEQ_BITS - 1))
    first = key.fetchone()[0]
    if first is not None:
        _remove(batch, no, first - base, first - base + STEP - 1)
        return
    batch.db.execute("DELETE FROM reads WHERE room = ?", (no,))
    batch.db.execute("DELETE FROM leftovers WHERE room = ?", (no,))


def _remove(batch: Batch, no: int, first: int, last: int) -> None:
    """Remove entries, and the reactions to them."""
    base = no << SEQ_BITS
    batch.db.execute("DELETE FROM entries WHERE key BETWEEN ? AND ?", (base | first, base | last))
    batch.db.execute("DELETE FROM reactions WHERE room = ? AND target BETWEEN ? AND ?", (no, first, last))
