"""How a SQLite file is opened, brought up to date, or refused with words that say what to do."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hubbub.store import SqliteStore, open_store
from hubbub.store.sqlite import opening
from sqlitelab import BOUND_S, rows
from storelab import ROOM, make_room, say


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite://:memory:", ":memory:"),
        ("sqlite:///chat.db", "chat.db"),
        ("sqlite:///data/chat.db", "data/chat.db"),
        ("sqlite:////var/lib/chat.db", "/var/lib/chat.db"),
    ],
)
def test_a_store_is_named_by_a_url(url, path):
    """Three slashes for a relative path, four for an absolute one."""
    assert repr(open_store(url)) == f"<SqliteStore {path}>"


@pytest.mark.parametrize("url", ["", "chat.db", "redis://localhost", "sqlite:///", "sqlite://", "sqlite:chat.db"])
def test_another_url_is_refused(url):
    """The error says what was expected and what came."""
    with pytest.raises(ValueError, match=r"store: expected .*got "):
        open_store(url)


SCRIPT = opening.migrations("hubbub.store.sqlite")[0][1]


def tables(path: Path) -> set[str]:
    """What is in a file."""
    with closing(sqlite3.connect(path)) as db:
        return {row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def version(path: Path) -> int:
    """The number of the last migration."""
    with closing(sqlite3.connect(path)) as db:
        found: int = db.execute("PRAGMA user_version").fetchone()[0]
    return found


async def test_an_empty_file_becomes_a_database_of_the_newest_version(path):
    """Also in folders that do not exist yet."""
    deep = path.parent / "a" / "b" / "chat.db"
    path.touch()
    for file in (path, deep):
        async with SqliteStore(str(file)) as store:
            await make_room(store)
        assert version(file) == max(number for number, _ in opening.migrations("hubbub.store.sqlite"))
        assert tables(file) >= {"entries", "rooms"}


async def test_only_its_owner_reads_it(tmp_path):
    """The folder and every file that a new store makes are closed to other users of the machine."""
    folder = tmp_path / "data"
    async with SqliteStore(str(folder / "hubbub.db")) as store:
        await store.ping()
        modes = {each.name: each.stat().st_mode & 0o777 for each in (folder, *folder.iterdir())}
    assert modes.pop("data") == 0o700
    assert modes == dict.fromkeys(("hubbub.db", "hubbub.db-wal", "hubbub.db-shm", "hubbub.db.lock"), 0o600)


async def test_migrations_are_numbered_from_one_without_gaps():
    """Each leads from the version before."""
    numbers = [number for number, _ in opening.migrations("hubbub.store.sqlite")]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_what_has_been_migrated_is_not_migrated_again(path):
    """Opening a second time runs no script."""
    async with SqliteStore(str(path)) as store:
        await make_room(store)
        epoch = store.epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "migrations", lambda package: [(1, "this is not SQL")])
        async with SqliteStore(str(path)) as store:
            assert store.epoch == epoch
            assert await store.room(ROOM)


async def test_a_file_of_an_older_version_is_brought_up_to_date_in_order(path, monkeypatch):
    """With all that is in it, over as many versions as it lacks."""
    async with SqliteStore(str(path)) as store:
        await make_room(store)
        said, epoch = await say(store), store.epoch
    later = [(2, "CREATE TABLE news (word TEXT)"), (3, "INSERT INTO news VALUES ('third')")]
    monkeypatch.setattr(opening, "migrations", lambda package: [(1, SCRIPT), *later])
    async with SqliteStore(str(path)) as store:
        assert store.epoch == epoch
        assert await store.entry(ROOM, said.seq) == said
        assert await rows(store, "news") == {"news": 1}
    assert version(path) == 3


async def test_a_migration_that_fails_changes_nothing(path, monkeypatch):
    """The file stays as the last one left it, and can be opened when the script is mended."""
    async with SqliteStore(str(path)) as store:
        await make_room(store)
    broken = [(2, "CREATE TABLE second (word TEXT)"), (3, "CREATE TABLE third (word TEXT); DROP TABLE nowhere")]
    monkeypatch.setattr(opening, "migrations", lambda package: [(1, SCRIPT), *broken])
    with pytest.raises(ValueError, match=r"chat\.db cannot be opened \(no such table: nowhere\)"):
        await SqliteStore(str(path)).__aenter__()
    assert version(path) == 2
    assert "second" in tables(path)
    assert "third" not in tables(path)
    monkeypatch.setattr(
        opening, "migrations", lambda package: [(1, SCRIPT), broken[0], (3, "CREATE TABLE third (word TEXT)")]
    )
    async with SqliteStore(str(path)) as store:
        assert await store.room(ROOM)
    assert version(path) == 3


async def refused(path: Path | str, words: str) -> None:
    """It is not opened, and says why in those words."""
    with pytest.raises(ValueError, match=r"^store: ") as error:
        await SqliteStore(str(path)).__aenter__()
    assert words in str(error.value)


async def test_a_database_of_a_newer_version_is_left_alone(path):
    """The words name both versions, and no byte of the file changes."""
    async with SqliteStore(str(path)) as store:
        await make_room(store)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    await refused(path, "is of version 99, this Hubbub knows versions up to 1")
    assert path.read_bytes() == before


async def test_another_programs_database_is_left_alone(path):
    """Whatever its version, and no byte of the file changes."""
    for number in (0, 1):
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"CREATE TABLE users_{number} (name TEXT)")
            db.execute(f"PRAGMA user_version = {number}")
        before = path.read_bytes()
        await refused(path, "is another program's database: choose another file")
        assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_left_alone(path):
    """Whether it is long or short."""
    for words in ("hello\n", "hello\n" * 10_000):
        path.write_text(words)
        await refused(path, "is not a SQLite database")
        assert path.read_text() == words


async def test_a_damaged_database_is_refused(path):
    """With what can be done about it."""
    async with SqliteStore(str(path)) as store:
        await make_room(store)
    data = bytearray(path.read_bytes())
    data[100:4096] = b"\xff" * 3996
    path.write_bytes(data)
    await refused(path, "is damaged: restore it from a backup")


async def test_a_path_that_cannot_be_a_file_is_refused(path):
    """A folder, one in a folder that is a file, a name too long, a link that leads to itself."""
    path.mkdir()
    await refused(path, "found a folder")
    file = path / "file"
    file.touch()
    await refused(file / "chat.db", "cannot make the folder")
    await refused(path / ("x" * 300), "cannot write in")
    (path / "ring.db").symlink_to("ring.db")
    await refused(path / "ring.db", "ring.db")


async def test_a_file_that_is_open_is_not_opened_again(path):
    """By whatever name; after closing it can be, and what was refused has locked nothing."""
    other_name = path.parent / "link.db"
    other_name.symlink_to(path.name)
    store = SqliteStore(str(path))
    async with store:
        for name in (path, other_name, path.parent / "." / "chat.db"):
            await refused(name, f"is in use by process {os.getpid()}")
        await make_room(store)
    async with SqliteStore(str(other_name)) as again:
        assert await again.room(ROOM)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    for _ in range(2):
        await refused(path, "is of version 99")


async def test_a_lock_file_that_nobody_holds_is_no_obstacle(path):
    """Whatever is written in it."""
    for words in ("", "1\n", "99999999\n" * 9):
        path.with_name("chat.db.lock").write_text(words)
        async with SqliteStore(str(path)) as store:
            await store.ping()
        assert path.with_name("chat.db.lock").read_text() == f"{os.getpid()}\n"


async def test_a_database_that_another_program_holds_is_refused(path, monkeypatch):
    """One that keeps a transaction open; the words say so."""
    async with SqliteStore(str(path)):
        pass
    monkeypatch.setattr(opening, "_connect", lambda path: sqlite3.connect(path, timeout=0, isolation_level=None))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        await refused(path, "is in use by another program")


async def test_opening_that_is_cancelled_leaves_nothing_open(path, monkeypatch):
    """The file can be opened at once."""
    begun, released = threading.Event(), threading.Event()
    prepare = opening._prepare

    def slow(*arguments: Any) -> str:
        begun.set()
        assert released.wait(BOUND_S)
        return prepare(*arguments)

    monkeypatch.setattr(opening, "_prepare", slow)
    task = asyncio.create_task(SqliteStore(str(path)).__aenter__())
    assert await asyncio.to_thread(begun.wait, BOUND_S)
    task.cancel()
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with SqliteStore(str(path)) as store:
        await store.ping()


async def test_each_store_in_memory_is_its_own():
    """Nothing is shared, and nothing is locked."""
    async with SqliteStore(":memory:") as one, SqliteStore(":memory:") as other:
        await make_room(one)
        assert await other.room(ROOM) is None
        assert one.epoch != other.epoch
