"""When the write-ahead log is moved into the file: beside the writer, in a thread and on a connection of its own.

SQLite would do it within a commit, and everybody whose message waits for that commit would wait for all of it. So the
thread moves what there is while the writer goes on, and the writer moves only the little that was written meanwhile,
between two transactions: then nothing of the log is needed any more, and the next transaction begins it anew.
"""

from __future__ import annotations

import logging
import sqlite3
import threading

from hubbub.store.sqlite.opening import Database

logger = logging.getLogger("hubbub.store")

BEGIN_BYTES = 8 * 1024 * 1024
"""About how long the log is when it is moved."""

MOST_BYTES = 8 * BEGIN_BYTES
"""About how long it may become; the writer then waits until it was moved."""

PASSES, FEW_PAGES = 4, 64
"""The thread moves, again and again, what came while it moved: so often at most, or until that is so few pages."""

WAIT_S = 30.0
"""How long the writer waits for a thread that is behind, at most; then it goes on, and waits again."""

_MOVE = "PRAGMA wal_checkpoint(PASSIVE)"


class Checkpoints:
    """The thread, and what the writer tells it. In memory there is no log and nothing to do.

    Args:
        database: whose log it is.

    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._size = 0  # about how many bytes the log has; the writer's
        self._asked = threading.Event()  # there is something to move, or nothing ever will be
        self._idle = threading.Event()  # the thread has done what it was asked for
        self._idle.set()
        self._moved = False  # the thread has moved what there was, and the writer has not yet moved the rest
        self._ending = False
        self._failing = False  # the last attempt of the thread could not move it
        self._thread: threading.Thread | None = None
        if not database.in_memory:
            self._thread = threading.Thread(target=self._run, name="hubbub-checkpoint", daemon=True)
            self._thread.start()

    def wrote(self, size: int) -> None:
        """The writer has committed what is about `size` bytes of the log; it is between two transactions now."""
        if self._thread is None:
            return
        self._size += size
        if self._size < BEGIN_BYTES:
            return
        if self._size >= MOST_BYTES:
            self._idle.wait(WAIT_S)
        if self._moved:
            self._move_the_rest()
        elif self._idle.is_set():
            self._idle.clear()
            self._asked.set()

    def finish(self) -> None:
        """Return when nothing is being moved any more, nor will be."""
        if self._thread is not None:
            self._ending = True
            self._asked.set()
            self._thread.join()

    def _move_the_rest(self) -> None:
        """Move what was written while the thread moved; it is little, unless the thread could do nothing."""
        self._moved = False
        try:
            _, frames, moved = self._database.writing.execute(_MOVE).fetchone()
        except sqlite3.Error as error:
            self._failed(error)
            return
        # A reader may need what is in the log: then it grows on, and is moved when as much again has come.
        self._size = 0 if frames == moved else self._size - BEGIN_BYTES

    def _run(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()  # before it looks: who ends it after that look wakes it again
            if self._ending:
                return
            try:
                self._move()
                self._moved = True
                self._failing = False
            except sqlite3.Error as error:
                self._failed(error)
            finally:
                self._idle.set()

    def _move(self) -> None:
        """Move what there is, so that little is left to the writer."""
        before = 0
        for _ in range(PASSES):
            _, pages, _ = self._database.checkpointing.execute(_MOVE).fetchone()
            if pages - before <= FEW_PAGES:
                return
            before = pages

    def _failed(self, error: sqlite3.Error) -> None:
        if not self._failing:
            logger.error("the write-ahead log of %s cannot be moved into it: %s", self._database.path, error)
        self._failing = True
