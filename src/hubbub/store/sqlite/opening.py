"""Opening the file: the lock that makes this process its only writer, durability, migrations, and why it cannot be."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import sqlite3
from pathlib import Path

from hubbub.store.migrations import migrations

logger = logging.getLogger("hubbub.store")

APPLICATION = int.from_bytes(b"Hubb", "big")
"""What SQLite calls the application id: it tells our files from other programs'."""

STATEMENTS = 512
"""How many prepared statements a connection keeps: one for each number of rows, of each kind of row, and all others."""


class Database:
    """An open file, or a database in memory.

    Attributes:
        path: where it is.
        in_memory: whether it is gone when closed, and has one connection for all.
        writing: the connection of the writer's thread.
        reading: the connection of the reader's thread; in memory the same as `writing`.
        checkpointing: the connection that moves the write-ahead log into the file; in memory the same as `writing`.
        epoch: the word made when the data was created.

    Raises:
        ValueError: it cannot be opened, is no database of ours, is from a newer version, or is in use by another
            process; the message says which and what to do.

    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.in_memory = path == ":memory:"
        self._lock = None if self.in_memory else _lock(Path(path))
        connections: list[sqlite3.Connection] = []
        try:
            if not self.in_memory:
                _require_writable(Path(path).resolve())
            self.writing = _connect(path)
            connections.append(self.writing)
            self.epoch = _prepare(self.writing, path)
            self.reading = self.checkpointing = self.writing
            if not self.in_memory:
                self.reading = _connect(path)
                connections.append(self.reading)
                self.reading.execute("PRAGMA query_only = ON")
                self.checkpointing = _connect(path)
                connections.append(self.checkpointing)
                self.checkpointing.execute("PRAGMA synchronous = FULL")
        except BaseException as error:
            for connection in connections:
                connection.close()
            self._unlock()
            if isinstance(error, sqlite3.Error):
                raise ValueError(_why_not(path, error)) from error
            raise

    def close(self) -> None:
        """Leave one file behind and let go of it."""
        if not self.in_memory:
            self.reading.close()
            self.checkpointing.close()
            try:
                self.writing.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error as failure:
                logger.warning("the write-ahead log stays beside %s: %s", self.path, failure)
        self.writing.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _connect(path: str) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS)


def _prepare(db: sqlite3.Connection, path: str) -> str:
    """Bring the data to this version; returns its epoch."""
    scripts = migrations(__package__)
    newest = scripts[-1][0]
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    owner: int = db.execute("PRAGMA application_id").fetchone()[0]
    if owner != APPLICATION and db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise ValueError(f"store: {path} is another program's database: choose another file")
    if found > newest:
        raise ValueError(
            f"store: {path} is of version {found}, this Hubbub knows versions up to {newest}: "
            "run the newer Hubbub that made it, or choose another file"
        )
    mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode not in ("wal", "memory"):
        raise ValueError(f"store: {path} is on a file system that cannot do write-ahead logging: choose a local disk")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA secure_delete = FAST")
    db.execute("PRAGMA wal_autocheckpoint = 0")  # see hubbub.store.sqlite.checkpoints
    db.execute("PRAGMA cache_size = -32000")
    for version, script in scripts:
        if version > found:
            db.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {version}; COMMIT;")
    db.execute("BEGIN IMMEDIATE")  # whoever cannot write shall say so now
    db.execute("INSERT INTO meta VALUES ('epoch', ?) ON CONFLICT DO NOTHING", (secrets.token_hex(8),))
    db.execute("COMMIT")
    epoch: str = db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0]
    return epoch


def _require_writable(file: Path) -> None:
    """Refuse what may not be written before SQLite makes files beside it that nobody may write either.

    A missing file is made here, so that only its owner can read what people say; SQLite's others take after it.

    Raises:
        ValueError: the file, or its write-ahead log, may not be written.

    """
    for name, making in ((file.name, os.O_CREAT), (f"{file.name}-wal", 0), (f"{file.name}-shm", 0)):
        try:
            os.close(os.open(file.with_name(name), os.O_RDWR | os.O_CLOEXEC | making, 0o600))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ValueError(f"store: {file.with_name(name)} cannot be written: {error.strerror}") from error


def _lock(file: Path) -> int:
    """Hold `file` for this process; the kernel lets go of it however the process ends.

    Raises:
        ValueError: another process holds it, or its folder cannot be made or written.

    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"store: cannot make the folder {file.parent}: {error.strerror}") from error
    try:
        file = file.resolve()  # whatever name it is called by, it has one lock
        if file.is_dir():
            raise ValueError(f"store: expected a file at {file}, found a folder")
        lock = os.open(file.with_name(f"{file.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ValueError(f"store: cannot write in {file.parent}: {error.strerror}") from error
    except RuntimeError as error:
        raise ValueError(f"store: {file} is a link that leads to itself") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(lock, 32).decode(errors="replace").strip()
        os.close(lock)
        raise ValueError(
            f"store: {file} is in use by process {holder or 'unknown'}; one Hubbub at a time writes to a SQLite file"
        ) from error
    except OSError as error:
        os.close(lock)
        raise ValueError(f"store: cannot lock {file}: {error.strerror}; choose a local disk") from error
    try:
        os.ftruncate(lock, 0)
        os.write(lock, b"%d\n" % os.getpid())
    except OSError as error:  # a full disk; the number is only for people
        logger.warning("cannot note the process id in %s.lock: %s", file, error.strerror)
    return lock


_WHY_NOT = {
    sqlite3.SQLITE_NOTADB: "is not a SQLite database",
    sqlite3.SQLITE_READONLY: "cannot be written: make the file and its folder writable",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: look at its path and permissions",
    sqlite3.SQLITE_FULL: "cannot be written: the disk is full",
    sqlite3.SQLITE_IOERR: "cannot be read and written: the disk is full or fails",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore it from a backup",
    sqlite3.SQLITE_BUSY: "is in use by another program",
    sqlite3.SQLITE_PERM: "cannot be opened: look at its permissions",
}


def _why_not(path: str, error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return f"store: {path} {_WHY_NOT.get(code, 'cannot be opened')} ({error})"
