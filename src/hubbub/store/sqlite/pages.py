"""Stretches of a room's log, read by key: a page costs what is on it, however long the log or the thread is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import msgspec

from hubbub.errors import NotFound
from hubbub.model import AnyEntry, MessageCreated, Page
from hubbub.protocol import entry_decoder
from hubbub.store.sqlite.batch import SEQ_BITS

MAX_CHANGES = 1_000
TOP = (1 << SEQ_BITS) - 1
"""The greatest seq there can be."""

Stretch = Callable[[int, int, int, bool], list[bytes]]
"""The first or last `count` bodies with low <= seq <= high, ascending: called with (low, high, count, last)."""


def read_page(
    db: sqlite3.Connection,
    room: str,
    *,
    before: int | None,
    after: int | None,
    around: int | None,
    limit: int,
    thread: int | None,
    changes: bool,
) -> Page:
    """A page as `hubbub.ports.Store.page` describes it, within the caller's transaction."""
    row = db.execute("SELECT no, head FROM rooms WHERE id = ? AND NOT deleted", (room,)).fetchone()
    if row is None:
        raise NotFound(f"There is no room {room!r}.")
    no, head = row
    stretch = _log(db, no) if thread is None else _thread(db, no, thread)
    if around is not None:
        bodies, has_more = _around(stretch, around, limit)
    elif after is not None:
        bodies = stretch(after + 1, TOP, limit + 1, False)
        bodies, has_more = bodies[:limit], len(bodies) > limit
    else:
        bodies = stretch(0, TOP if before is None else before - 1, limit + 1, True)
        has_more = len(bodies) > limit
        bodies = bodies[1:] if has_more else bodies
    entries = [entry_decoder.decode(body) for body in bodies]
    later: list[AnyEntry] = []
    if changes and entries:
        # A log's page has every change up to its last entry itself; a thread's page has none.
        later = _changes(db, no, entries, entries[-1].seq if thread is None else 0)
    return Page(entries, head, has_more, later)


def _log(db: sqlite3.Connection, no: int) -> Stretch:
    base = no << SEQ_BITS

    def stretch(low: int, high: int, count: int, last: bool) -> list[bytes]:
        low, high = max(low, 0), min(high, TOP)
        if low > high:
            return []
        found = db.execute(
            "SELECT body FROM entries WHERE key BETWEEN ? AND ?"  # noqa: S608
            f" ORDER BY key {'DESC' if last else 'ASC'} LIMIT ?",
            (base | low, base | high, count),
        )
        bodies = [body for (body,) in found]
        return bodies[::-1] if last else bodies

    return stretch


def _thread(db: sqlite3.Connection, no: int, root: int) -> Stretch:
    base = no << SEQ_BITS

    def stretch(low: int, high: int, count: int, last: bool) -> list[bytes]:
        low, high = max(low, 0), min(high, TOP)
        if low > high:
            return []
        answers = db.execute(
            "SELECT body FROM entries WHERE room = ? AND thread = ? AND key BETWEEN ? AND ?"  # noqa: S608
            f" ORDER BY key {'DESC' if last else 'ASC'} LIMIT ?",
            (no, root, base | low, base | high, count),
        )
        bodies = [body for (body,) in answers]
        if last:
            bodies.reverse()
        if low <= root <= high:  # it comes before all its answers
            beginning = [body for (body,) in db.execute("SELECT body FROM entries WHERE key = ?", (base | root,))]
            bodies = beginning + bodies
            bodies = bodies[-count:] if last else bodies[:count]
        return bodies

    return stretch


def _around(stretch: Stretch, seq: int, limit: int) -> tuple[list[bytes], bool]:
    """The page with `seq` in its middle, or as near to it as the log's ends allow."""
    earlier = stretch(0, seq - 1, limit + 1, True)
    later = stretch(seq, TOP, limit + 1, False)
    later_count = min(len(later), limit - min(len(earlier), limit // 2))
    earlier_count = min(len(earlier), limit - later_count)
    bodies = earlier[len(earlier) - earlier_count :] + later[:later_count]
    return bodies, earlier_count < len(earlier) or later_count < len(later)


def _changes(db: sqlite3.Connection, no: int, entries: list[AnyEntry], after: int) -> list[AnyEntry]:
    """What has become of the messages in `entries` after the seq `after`; see `hubbub.model.Page`."""
    messages = [entry.seq for entry in entries if isinstance(entry, MessageCreated)]
    targets = msgspec.json.encode(messages).decode()
    key = no << SEQ_BITS | after
    words = db.execute(
        "SELECT body FROM entries WHERE key IN (SELECT max(key) FROM entries WHERE room = ? AND words = 1"
        " AND target IN (SELECT value FROM json_each(?)) AND key > ? GROUP BY target)",
        (no, targets, key),
    ).fetchall()
    reactions = db.execute(
        "SELECT body FROM entries WHERE key IN (SELECT key FROM entries WHERE room = ? AND words = 0"
        " AND target IN (SELECT value FROM json_each(?)) AND key > ? ORDER BY key DESC LIMIT ?)",
        (no, targets, key, MAX_CHANGES - len(words)),
    ).fetchall()
    return sorted((entry_decoder.decode(body) for (body,) in words + reactions), key=lambda entry: entry.seq)
