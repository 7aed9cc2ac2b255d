"""The SQLite store's own promises: commits that are shared and durable, failures that stay where they are."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
from typing import Any

import pytest

from hubbub.errors import Conflict, Unavailable
from hubbub.model import Member, Role
from hubbub.store import SqliteStore
from hubbub.store.sqlite import batch
from hubbub.store.sqlite.cache import Cache
from hubbub.store.sqlite.opening import STATEMENTS
from sqlitelab import BOUND_S, full, held, rows, started, traced
from storelab import (
    ROOM,
    delete,
    edit,
    eventually,
    join,
    leave,
    log,
    make_room,
    say,
    say_many,
    seqs,
    state,
)

# Durable and shared


async def test_the_disk_has_a_write_before_it_is_acknowledged(store, path):
    """Write-ahead log with a full sync at every commit."""
    writing = store._database.writing
    assert writing.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert writing.execute("PRAGMA synchronous").fetchone() == (2,)


async def test_what_is_acknowledged_is_in_the_files_whatever_happens_next(store, path, tmp_path):
    """A copy of the files, as a crash would leave them, has it."""
    await join(store, "alice")
    said = await say(store, client_id="c1")
    for file in tmp_path.glob("chat.db*"):
        if file.suffix != ".lock":
            shutil.copy(file, tmp_path / f"copy-{file.name}")
    async with SqliteStore(str(tmp_path / "copy-chat.db")) as copy:
        assert await copy.entry(ROOM, said.seq) == said
        assert await copy.room(ROOM) == await store.room(ROOM)
        assert await copy.member(ROOM, "alice") == await store.member(ROOM, "alice")
        assert (await say(copy, client_id="c1")).seq == said.seq


@pytest.mark.parametrize(("count", "commits"), [(1, 1), (500, 1), (1_024, 1), (1_025, 2)])
async def test_writes_that_wait_together_share_one_commit(store, count, commits):
    """However many they are, up to a batch."""
    with traced(store._database.writing) as statements:
        async with held(store):
            waiting = started(*(say(store, f"{n}", by=f"user{n}") for n in range(count)))
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
    assert statements.count("COMMIT") == 1 + commits, "the first is that of the work that held the writer"
    assert seqs(await log(store)) == list(range(1, count + 2))


@pytest.mark.parametrize(("count", "most"), [(1, 8), (15, 8), (127, 11), (255, 11), (1_023, 20)])
async def test_a_batch_of_messages_is_a_handful_of_statements(store, count, most):
    """Their number grows with the batch by chunks of hundreds, not by message, and no number is a bad one."""
    with traced(store._database.writing) as statements:
        async with held(store):
            waiting = started(*(say(store, by=f"user{n}", client_id="c1") for n in range(count)))
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
    assert len(statements) <= most
    assert seqs((await log(store))[1:]) == list(range(2, count + 2))
    assert await rows(store, "entries", "reads") == {"entries": count + 1, "reads": count}


async def test_the_statements_of_all_numbers_of_rows_are_prepared_once(store):
    """None of them takes the place of another in the connection's cache, which has room for others too."""
    sizes = {len(values) for count in range(1, 1_025) for _, values in batch._statements("", "", "", [(0,)] * count)}
    forms = 6  # messages, other entries, rooms, rooms with names, marks, what is looked up
    assert len(sizes) * forms <= STATEMENTS // 2


async def test_a_message_alone_writes_three_pages(store, path):
    """Those of its entry, its room's numbers and its author's mark: an index that stays as it is, is not written."""
    log_file = path.with_name(f"{path.name}-wal")
    await say(store)
    before = log_file.stat().st_size
    for _ in range(40):
        await say(store)
    pages = (log_file.stat().st_size - before) // (4_096 + 24)
    assert 120 <= pages < 130, "and now and then a new one"


async def test_what_a_message_consists_of_is_handed_to_sqlite_as_it_is(store, monkeypatch):
    """Nothing is of a type for which an adapter would be looked for, and what is not there is NULL all the same."""
    seen: set[type] = set()
    statements = batch._statements

    def noting(head: str, row: str, tail: str, given: list[tuple[Any, ...]]) -> Any:
        seen.update(type(value) for values in given for value in values)
        return statements(head, row, tail, given)

    monkeypatch.setattr(batch, "_statements", noting)
    plain = await say(store)
    named = await say(store, client_id="0")
    threaded = await say(store, thread=plain.seq)
    edited = await edit(store, plain.seq, "other words")
    assert {int, str, bytearray} <= seen <= {int, str, float, bytearray}
    found = store._database.reading.execute(
        "SELECT key & 0xffffffff, client_id, target, thread, words, typeof(words), typeof(body) FROM entries"
        " ORDER BY key DESC LIMIT 4"
    ).fetchall()
    assert found[::-1] == [
        (plain.seq, None, None, None, 0, "integer", "blob"),
        (named.seq, "0", None, None, 0, "integer", "blob"),
        (threaded.seq, None, None, plain.seq, 0, "integer", "blob"),
        (edited.seq, None, plain.seq, None, 1, "integer", "blob"),
    ]


# Refusals, defects, failures


async def test_a_work_that_fails_for_good_fails_alone(store, caplog):
    """What no database can hold is told to whoever asked for it; those who were committed with it notice nothing."""
    async with held(store):
        waiting = started(
            say(store, "before"),
            make_room(store, "new", "bob"),
            say(store, "not text: \ud800"),
            store.change_user("bob", banned_until=2**70),
            join(store, "bob"),
            say(store, "after"),
        )
        await asyncio.sleep(0)
    before, made, lone, big, joined, after = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in (lone, big)] == [UnicodeEncodeError, OverflowError]
    assert (before.seq, made.head, joined.seq, after.seq) == (2, 2, 3, 4)
    assert seqs(await log(store)) == [1, 2, 3, 4]
    assert await store.user("bob") is None
    assert (await store.room(ROOM)).head == 4
    assert sum("failed" in record.message for record in caplog.records) == 2


async def test_a_full_database_is_unavailable_until_there_is_space(store, caplog):
    """Nothing is half written, what is remembered is what is stored, and the log says once what is wrong."""
    await join(store, "alice")
    said = await say(store, client_id="c1")
    with full(store):
        for _ in range(2):
            async with held(store):
                waiting = started(
                    say(store, "small", client_id="c2"),
                    join(store, "bob"),
                    leave(store, "alice"),
                    make_room(store, "new", "alice"),
                    delete(store, said.seq),
                    store.change_user("alice", name="Alice"),
                    store.mark_read(ROOM, "bob", 2),
                    store.delete_room(ROOM),
                    say(store, "large " * 10_000, room="new"),
                )
                await asyncio.sleep(0)
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(result) for result in results} == {Unavailable}
            # What is refused, or changes nothing, is answered all the same and proves nothing.
            with pytest.raises(Conflict):
                await make_room(store)
            assert (await leave(store, "nobody")).seq == 0
            # Reading goes on.
            assert await store.entry(ROOM, said.seq) == said
            assert (await store.page(ROOM)).entries[-1] == said
            assert [(each.head, each.read) for each in await store.rooms_of("alice")] == [(said.seq, said.seq)]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert (await say(store, "small", client_id="c2")).seq == said.seq + 1
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "works again" in caplog.records[-1].message
    assert await store.member(ROOM, "bob") is None
    assert await store.member(ROOM, "alice") == Member("alice", Role.MEMBER, said.at)
    assert await store.user("alice") is None
    assert await store.room("new") is None
    assert (await store.room(ROOM)).members == 1
    assert (await state(store, "bob")).read == 0
    assert seqs(await log(store)) == [1, 2, 3, 4]


async def test_what_could_not_be_rolled_back_is_not_committed_with_what_comes_next(store, monkeypatch):
    """It is rolled back then, since whoever asked for it was told that it was not done."""

    def fails(batch: Any) -> None:
        batch.db.execute("INSERT INTO meta VALUES ('half', 'done')")
        raise RuntimeError("a defect")

    monkeypatch.setattr(store._writer, "_roll_back", lambda: None)
    with pytest.raises(RuntimeError, match="a defect"):
        await store._submit(fails)
    assert store._database.writing.in_transaction
    assert (await say(store)).seq == 2
    assert not store._database.writing.in_transaction
    reading = store._database.reading
    assert reading.execute("SELECT count(*) FROM meta WHERE key = 'half'").fetchone() == (0,)
    assert seqs(await log(store)) == [1, 2]


async def test_after_a_failure_the_writer_knows_the_rooms_as_they_are_stored(store):
    """Also those that the failed transaction had changed before it failed."""
    with full(store):
        async with held(store):
            waiting = started(*(say(store, f"{n}") for n in range(20)), say(store, "large " * 10_000))
            await asyncio.sleep(0)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in results} == {Unavailable}
    assert [(await say(store, by="bob")).seq for _ in range(2)] == [2, 3]
    assert (await state(store, "alice")).unread == 2


async def test_a_read_that_fails_is_unavailable(store):
    """The chat is told so, and the next one is tried."""
    store._database.reading.execute("PRAGMA query_only = OFF")
    store._database.reading.execute("CREATE TEMP TABLE entries (none_of_it)")
    with pytest.raises(Unavailable):
        await store.page(ROOM)
    store._database.reading.execute("DROP TABLE temp.entries")
    assert seqs((await store.page(ROOM)).entries) == [1]


# Waiting


async def test_too_many_waiting_writes_are_refused_at_once(path):
    """Those that wait are done, and then there is room again."""
    async with SqliteStore(str(path), max_pending=4) as store:
        await make_room(store)
        async with held(store):
            waiting = started(*(say(store) for _ in range(3)))
            await asyncio.sleep(0)
            for _ in range(2):
                with pytest.raises(Unavailable, match="Too many writes") as refused:
                    await say(store)
                assert refused.value.retry_after_ms
            waiting[0].cancel()
            await asyncio.sleep(0)
            with pytest.raises(Unavailable):
                await say(store)
        await asyncio.gather(*waiting, return_exceptions=True)
        for _ in range(10):
            await asyncio.gather(*(say(store) for _ in range(4)))
        assert (await store.room(ROOM)).head == 44


async def test_too_many_waiting_reads_are_refused_at_once(path):
    """Those that wait are answered, and then there is room again."""
    async with SqliteStore(str(path), max_pending=3) as store:
        await make_room(store)
        released = threading.Event()
        store._reader.submit(released.wait, BOUND_S)
        waiting = started(*(store.page(ROOM) for _ in range(3)))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="Too many reads"):
            await store.page(ROOM)
        assert (await say(store)).seq == 2
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        waiting += started(store.page(ROOM))
        await asyncio.sleep(0)
        released.set()
        assert [seqs(page.entries) for page in await asyncio.gather(*waiting[1:])] == [[1, 2]] * 3


async def test_closing_commits_what_waits(path):
    """Whoever asked before is answered; whoever asks now is told that the chat is shutting down."""
    store = await SqliteStore(str(path)).__aenter__()
    await make_room(store)
    async with held(store):
        waiting = started(*(say(store, f"{n}") for n in range(2_500)))
        await asyncio.sleep(0)
        closing = asyncio.create_task(store.__aexit__(None, None, None))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="shutting down"):
            await say(store)
    await closing
    assert [entry.seq for entry in await asyncio.gather(*waiting)] == list(range(2, 2_502))
    async with SqliteStore(str(path)) as again:
        assert (await again.room(ROOM)).head == 2_501


async def test_closing_leaves_one_file(path):
    """The write-ahead log is in the database, and the lock holds nothing."""
    async with SqliteStore(str(path)) as store:
        await make_room(store)
        await say_many(store, 100)
    assert sorted(file.name for file in path.parent.iterdir()) == ["chat.db", "chat.db.lock"]
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM entries").fetchone() == (101,)
    db.close()


async def test_closing_that_is_cancelled_goes_on(path):
    """What was accepted is written and the file is let go of all the same."""
    store = await SqliteStore(str(path)).__aenter__()
    await make_room(store)
    released = threading.Event()
    store._reader.submit(released.wait, BOUND_S)
    waiting = started(*(say(store) for _ in range(10)))
    await asyncio.sleep(0)
    closing = asyncio.create_task(store.__aexit__(None, None, None))
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    released.set()
    await asyncio.gather(*waiting)

    async def free() -> bool:
        try:
            async with SqliteStore(str(path)) as again:
                return (await again.room(ROOM)).head == 11
        except ValueError:
            return False

    await eventually(free, "the file is free")


# What is remembered


def test_a_read_that_began_before_a_write_does_not_overwrite_what_the_write_left():
    """Nor does one of several reads that failed; without a write the last read that began counts."""
    cache: Cache[int] = Cache(8)
    early = cache.begin("key")
    cache.put("key", 2)
    cache.end("key", early, 1)
    assert cache.get("key") == (True, 2)
    assert cache.get("other") == (False, None)
    one, two = cache.begin("other"), cache.begin("other")
    cache.fail("other", one)
    cache.end("other", one, 1)
    assert cache.get("other") == (False, None)
    cache.end("other", two, 2)
    assert cache.get("other") == (True, 2)
    assert not cache._loading


def test_a_cache_forgets_the_oldest_when_it_is_full():
    """And nothing else; what is being read then is still remembered."""
    cache: Cache[int] = Cache(16)
    for n in range(17):
        cache.put(n, n)
    assert [n for n in range(17) if not cache.get(n)[0]] == [0, 1]
    assert len(cache.values) == 15


async def test_a_membership_that_changes_while_it_is_read_is_remembered_as_it_is(store):
    """Although the answer that was read says what it was."""
    released = threading.Event()
    store._reader.submit(released.wait, BOUND_S)
    [looking] = started(store.member(ROOM, "alice"))
    await asyncio.sleep(0)
    await join(store, "alice", Role.OWNER)
    released.set()
    await looking
    assert (await store.member(ROOM, "alice")).role is Role.OWNER


async def test_what_is_read_in_one_query_is_of_one_moment(store):
    """Whatever is committed meanwhile."""
    begun, released = threading.Event(), threading.Event()

    def query(db: sqlite3.Connection) -> list[Any]:
        heads = db.execute("SELECT head FROM rooms").fetchall()
        begun.set()
        assert released.wait(BOUND_S)
        return heads + db.execute("SELECT head FROM rooms").fetchall()

    [reading] = started(store._read(query))
    assert await asyncio.to_thread(begun.wait, BOUND_S)
    await say(store)
    released.set()
    assert await reading == [(1,), (1,)]
