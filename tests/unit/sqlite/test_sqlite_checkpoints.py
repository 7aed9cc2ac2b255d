"""The write-ahead log is moved into the file beside the writer, and does not grow however long it is written."""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hubbub.model import new_ulid
from hubbub.store import SqliteStore
from hubbub.store.sqlite import checkpoints
from hubbub.store.sqlite.opening import Database
from sqlitelab import traced
from storelab import eventually, log, make_room, say, seqs

KIB = 1024


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is moved often."""
    monkeypatch.setattr(checkpoints, "BEGIN_BYTES", 256 * KIB)
    monkeypatch.setattr(checkpoints, "MOST_BYTES", 1024 * KIB)


async def fill(store: SqliteStore, rounds: int) -> None:
    """Write about 300 KiB a round."""
    for _ in range(rounds):
        await asyncio.gather(*(say(store, "x" * 2 * KIB, by=f"user{n}") for n in range(64)))


@pytest.mark.slow
async def test_the_log_is_moved_and_begun_anew_while_messages_come(small, path):
    """Its file stays as small as it was, whatever is written; nothing is lost by it."""
    log_file = path.with_name(f"{path.name}-wal")
    async with SqliteStore(str(path)) as store:
        await make_room(store)
        await fill(store, 60)
        assert log_file.stat().st_size < 4 * 1024 * KIB, "60 rounds are about 18 MiB"
        assert path.stat().st_size > 4 * 1024 * KIB
        assert seqs(await log(store)) == list(range(1, 60 * 64 + 2))


@pytest.mark.parametrize(
    ("rooms", "users", "with_ids"),
    [
        (1, 256, False),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in [(1, 256, True), (100, 500, False), (300, 900, True)]
        ),
    ],
)
async def test_it_is_known_how_long_the_log_is(path, monkeypatch, rooms, users, with_ids):
    """In one room or in many, where each has pages of its own: within half and double of what its file says."""
    monkeypatch.setattr(checkpoints, "BEGIN_BYTES", 2**40)
    dice = random.Random(7)
    log_file = path.with_name(f"{path.name}-wal")
    async with SqliteStore(str(path)) as store:
        names = [f"room{n}" for n in range(rooms)]
        for name in names:
            await make_room(store, name)

        def somebody() -> dict[str, Any]:
            client_id = new_ulid(1) if with_ids else None
            return {"room": dice.choice(names), "by": f"user{dice.randrange(users)}", "client_id": client_id}

        for n in range(40):
            if n == 10:
                moving = store._writer._checkpoints
                size, guessed = log_file.stat().st_size, moving._size
            await asyncio.gather(*(say(store, "x" * 200, **somebody()) for _ in range(128)))
        grown = log_file.stat().st_size - size
        assert grown / 2 < moving._size - guessed < grown * 2


@pytest.mark.slow
async def test_no_commit_moves_the_log(small, store):
    """The writer moves the rest between two transactions, and the thread all else on a connection of its own."""
    database = store._database
    assert database.writing.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    with traced(database.writing) as by_writer, traced(database.checkpointing) as by_thread:
        await fill(store, 12)
        await eventually(lambda: _true(bool(by_thread)), "the thread has moved something")
        await fill(store, 4)
    moves = [place for place, statement in enumerate(by_writer) if "wal_checkpoint" in statement]
    assert moves, "the writer has moved the rest"
    for place in moves:
        assert by_writer[place - 1] == "COMMIT"


async def _true(yes: bool) -> bool:
    return yes


@pytest.mark.slow
async def test_a_reader_that_stays_does_not_stop_the_writer(small, path):
    """What it needs stays in the log, which is moved when it is gone."""
    async with SqliteStore(str(path)) as store:
        await make_room(store)
        reader = sqlite3.connect(path)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM entries").fetchone()
        await fill(store, 20)
        reader.close()
        await fill(store, 20)
        assert path.stat().st_size > 8 * 1024 * KIB
        assert seqs(await log(store)) == list(range(1, 40 * 64 + 2))


async def test_a_log_that_cannot_be_moved_is_told_of_once_and_writing_goes_on(small, store, monkeypatch, caplog):
    """It grows until it can be moved."""
    monkeypatch.setattr(checkpoints, "_MOVE", "SELECT 1 FROM nothing_of_that_name")
    await fill(store, 12)
    lines = [record for record in caplog.records if "cannot be moved" in record.message]
    assert len(lines) == 1
    assert lines[0].levelno == logging.ERROR
    assert seqs(await log(store)) == list(range(1, 12 * 64 + 2))


class Scripted:
    """A connection whose log has so many pages, as it is asked to move it time after time."""

    def __init__(self, *pages: int) -> None:
        self.pages = list(pages)

    def execute(self, statement: str) -> Scripted:
        assert "wal_checkpoint" in statement
        return self

    def fetchone(self) -> tuple[int, int, int]:
        return 0, self.pages[0], self.pages.pop(0)


@pytest.mark.parametrize(
    ("pages", "not_asked"),
    [
        ([2_000, 2_300, 2_320, 2_330], 1),
        ([2_000, 2_000, 2_000], 1),
        ([10, 10], 1),
        ([1_000, 2_000, 3_000, 4_000, 5_000], 1),
    ],
)
def test_the_thread_moves_what_came_while_it_moved_until_that_is_little(pages: list[int], not_asked: int):
    """Or nothing, as when a reader needs it; and not for ever where more comes all the time."""
    connection = Scripted(*pages)
    moving = checkpoints.Checkpoints(SimpleNamespace(in_memory=False, checkpointing=connection))
    moving._move()
    moving.finish()
    assert len(connection.pages) == not_asked


def test_the_thread_ends_although_it_is_told_so_just_as_it_begins_to_move(path: Path):
    """Whoever closes the store waits for it, so no end may be missed."""
    database = Database(str(path))
    moving = checkpoints.Checkpoints(database)

    class Late(threading.Event):
        """Asked to end in the moment in which the thread takes note of what it was asked before."""

        def clear(self) -> None:
            moving._ending = True
            self.set()
            super().clear()

    asked, moving._asked = moving._asked, Late()
    asked.set()
    assert moving._thread is not None
    moving._thread.join(10)
    ended = not moving._thread.is_alive()
    moving._asked.set()
    moving._thread.join(10)
    database.close()
    assert ended
