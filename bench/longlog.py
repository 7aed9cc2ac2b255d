"""A room whose log is millions of entries long, made by SQL in a minute and not by sending for hours.

The rows are as the store writes them: a message that was sent tells what the columns hold, and only `seq`, id and
`client_id` differ from one to the next.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from hubbub.store.sqlite.batch import SEQ_BITS

STEP = 500_000
"""Entries in one transaction."""


def lengthen(path: Path, room: str, to: int) -> None:
    """Let the room's log, which has a message by now, end at the seq `to`; nobody else has the file open.

    Raises:
        ValueError: there is no such room in the file, or its log does not end with a message that has a `client_id`.

    """
    db = sqlite3.connect(path, isolation_level=None)
    try:
        row = db.execute("SELECT no, head, messages FROM rooms WHERE id = ?", (room,)).fetchone()
        if row is None:
            raise ValueError(f"expected a room {room!r} in {path}, got none")
        no, head, messages = row
        author, client_id, at, body = db.execute(
            "SELECT author, client_id, at, body FROM entries WHERE key = ?", (no << SEQ_BITS | head,)
        ).fetchone()
        if client_id is None:
            raise ValueError(f"expected the log of {room!r} to end with a message that has a client_id, got {body!r}")
        db.execute("PRAGMA journal_mode = OFF")  # what breaks off is made anew
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -200000")
        pattern = _pattern(body.decode(), head, client_id)
        for begin in range(head + 1, to + 1, STEP):
            end = min(begin + STEP - 1, to)
            db.execute("BEGIN")
            db.execute(
                "WITH RECURSIVE seqs(seq) AS (SELECT ? UNION ALL SELECT seq + 1 FROM seqs WHERE seq < ?)"
                " INSERT INTO entries (key, room, author, client_id, words, messages, at, body)"
                " SELECT ? | seq, ?, ?, printf('c%012d', seq), 0, ? + seq, ?,"
                " CAST(printf(?, printf('c%012d', seq), seq, seq) AS BLOB) FROM seqs",
                (begin, end, no << SEQ_BITS, no, author, messages - head, at, pattern),
            )
            db.execute("UPDATE rooms SET head = ?, messages = ? WHERE no = ?", (end, messages - head + end, no))
            db.execute("COMMIT")
        db.execute("PRAGMA journal_mode = WAL")
    finally:
        db.close()


def _pattern(body: str, seq: int, client_id: str) -> str:
    """The body of a message as a pattern for `printf`, into which `client_id`, `seq` and the id's number go."""
    before, id_and_after = body.replace("%", "%%").split('"id":"', 1)
    prefix, after = id_and_after[:14], id_and_after[26:]
    before = before.replace(f'"client_id":"{client_id}"', '"client_id":"%s"').replace(f'"seq":{seq}', '"seq":%d')
    return f'{before}"id":"{prefix}%012d{after}'
