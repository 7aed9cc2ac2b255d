"""A disk that is full, fails or may not be written, and a file that somebody else has: told, and survived."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from hubbub.errors import Unavailable
from hubbub.store import SqliteStore
from live import ServerProcess, Wire, backend, token
from sqlitelab import full
from storelab import ROOM, join, log, make_room, say, say_many, seqs, state

SMALL = 16 * 1024 * 1024
"""Room for a write-ahead log, which is emptied into the database only now and then."""

LARGE = "x" * 20_000


class SmallDisk:
    """A small file system; where none may be mounted, a database that may not grow."""

    def __init__(self, folder: Path, *, mounted: bool) -> None:
        self.folder = folder
        self.mounted = mounted
        self._ballast = folder / "ballast"

    @contextmanager
    def filled(self, store: SqliteStore) -> Iterator[None]:
        """While it has no space left."""
        if not self.mounted:
            with full(store):
                yield
            return
        with self._ballast.open("wb", buffering=0) as ballast, suppress(OSError):
            while True:
                ballast.write(b"\0" * 4096)
        yield
        self._ballast.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    try:
        yield SmallDisk(folder, mounted=mounted.returncode == 0)
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(folder)], check=True)


async def until_full(store: SqliteStore) -> int:
    """Write until it is refused; returns how many were acknowledged."""
    for count in range(1_000):
        try:
            await say(store, LARGE, client_id=f"large-{count}")
        except Unavailable:
            return count
    raise AssertionError("the disk took everything")


async def test_a_full_disk_is_unavailable_until_there_is_space(small_disk):
    """What was acknowledged can be read meanwhile, nothing else is there, and then the log goes on without a gap."""
    path = str(small_disk.folder / "chat.db")
    async with SqliteStore(path) as store:
        await make_room(store, ROOM, "alice")
        said = await say(store, client_id="c1")
        with small_disk.filled(store):
            taken = await until_full(store)
            head = said.seq + taken
            results = await asyncio.gather(
                *(say(store, LARGE, client_id=f"lost-{n}") for n in range(20)),
                join(store, "bob"),
                make_room(store, "new", name=LARGE),
                return_exceptions=True,
            )
            assert {type(result) for result in results} == {Unavailable}
            assert seqs(await log(store)) == list(range(1, head + 1))
            assert (await state(store, "alice")).head == head
            assert (await store.room(ROOM)).head == head
            assert await store.room("new") is None
            assert await store.member(ROOM, "bob") is None
        assert (await say(store, "found", client_id="lost-0")).seq == head + 1
        assert (await say(store, client_id="c1")) == said
        assert (await join(store, "bob")).seq == head + 2
    async with SqliteStore(path) as again:
        entries = await log(again)
        assert seqs(entries) == list(range(1, head + 3))
        assert entries[-2].text == "found"
        assert await again.room("new") is None
        assert (await again.room(ROOM)).members == 2


async def test_a_disk_that_fills_up_under_load_loses_nothing_acknowledged(small_disk):
    """Whoever was answered is in the log, once; whoever was not sends again when there is space, and then he is."""
    path = str(small_disk.folder / "chat.db")
    acknowledged: dict[str, int] = {}
    refused: list[str] = []

    async def send(store: SqliteStore, client_id: str) -> bool:
        try:
            entry = await say(store, "x" * 1_000, by=client_id.partition("-")[0], client_id=client_id)
        except Unavailable:
            return False
        acknowledged[client_id] = entry.seq
        return True

    async def writer(store: SqliteStore, user: str) -> None:
        refused.extend([client_id for n in range(40) if not await send(store, client_id := f"{user}-{n}")])

    async with SqliteStore(path) as store:
        await make_room(store)
        await say_many(store, 50)
        with small_disk.filled(store):
            await asyncio.gather(*(writer(store, f"user{n}") for n in range(10)))
            assert refused
        for client_id in refused:
            assert await send(store, client_id)
    async with SqliteStore(path) as again:
        entries = await log(again)
    assert seqs(entries) == list(range(1, 452))
    assert {entry.client_id: entry.seq for entry in entries if getattr(entry, "client_id", None)} == acknowledged


async def test_a_disk_that_is_full_at_the_start_is_said_to_be(small_disk):
    """Neither a new file nor an old one is opened, the words say why, and with space both are."""
    if not small_disk.mounted:
        pytest.skip("this machine lets nobody mount a file system")
    old, new = (str(small_disk.folder / name) for name in ("old.db", "new.db"))
    async with SqliteStore(old) as store:
        await make_room(store)
    with small_disk.filled(store):
        for path in (old, new):
            with pytest.raises(ValueError, match=r"^store: .*the disk is full"):
                await SqliteStore(path).__aenter__()
    for path in (old, new):
        async with SqliteStore(path) as store:
            await make_room(store, exist_ok=True)
            assert (await say(store)).seq == 2


@contextmanager
def failing_disk(server: ServerProcess, folder: Path) -> Iterator[None]:
    """While this lasts the server's writes beyond what its files hold fail, which SQLite calls a disk I/O error."""
    limit = (folder / "hubbub.db-wal").stat().st_size
    before = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (limit, before[1]))
    yield
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, before)


async def test_the_chat_says_unavailable_while_the_disk_fails_and_recovers(tmp_path):
    """Clients stay connected and may read, the health checks tell, what was acknowledged is there and nothing else."""
    server = ServerProcess(tmp_path)
    try:
        await server.start()
        async with await Wire.open(server.ws_url, token("alice")) as wire, backend(server.url) as http:
            await wire.ok("create", kind="public", room="tea", members=[])
            for n in range(30):
                await wire.ok("send", room="tea", text=LARGE[:8_000], client_id=f"before-{n}")
            head = (await wire.ok("history", room="tea", limit=1))["head"]
            with failing_disk(server, tmp_path):
                for action, fields in (
                    ("send", {"room": "tea", "text": "lost", "client_id": "lost"}),
                    ("create", {"kind": "public", "room": "milk", "members": []}),
                    ("react", {"room": "tea", "target": head, "reaction": "+1"}),
                    ("send", {"room": "tea", "text": "lost", "client_id": "lost"}),
                ):
                    reply = await wire.ask(action, **fields)
                    assert (reply["type"], reply["code"], reply["retry"]) == ("error", "unavailable", True), reply
                    assert str(tmp_path) not in json.dumps(reply)
                page = await wire.ok("history", room="tea", limit=200)
                assert (page["head"], len(page["entries"])) == (head, head)
                assert (await http.get("/readyz")).status_code == 503
                assert (await http.get("/healthz")).status_code == 200
            assert (await http.get("/readyz")).status_code == 200
            assert (await wire.ok("send", room="tea", text="found", client_id="lost"))["seq"] == head + 1
            assert (await wire.ask("create", kind="public", room="milk", members=[]))["type"] == "ok"
        server.signal(signal.SIGKILL)
        await server.ended()
        await server.start()
        async with await Wire.open(server.ws_url, token("alice")) as wire:
            page = await wire.ok("history", room="tea", limit=200)
        assert [entry["seq"] for entry in page["entries"]] == list(range(1, head + 2))
        assert page["entries"][-1]["text"] == "found"
    finally:
        await server.stop()


@contextmanager
def as_nobody() -> Iterator[Path]:
    """In this process permissions hold, also for root; with a folder that everybody can reach."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        inside = folder / "inside"
        inside.mkdir()
        root = os.geteuid() == 0
        if root:
            os.chown(inside, 65534, 65534)
            os.seteuid(65534)
        try:
            yield inside
        finally:
            if root:
                os.seteuid(0)
            inside.chmod(0o755)


async def refused(path: Path, words: str) -> None:
    """It is not opened, and says why in those words."""
    with pytest.raises(ValueError, match=r"^store: ") as error:
        await SqliteStore(str(path)).__aenter__()
    assert words in str(error.value)


async def test_a_file_that_may_not_be_written_is_refused():
    """Nothing is served that could not be kept; made writable it opens, with what was in it."""
    with as_nobody() as folder:
        path = folder / "chat.db"
        async with SqliteStore(str(path)) as store:
            await make_room(store)
        path.chmod(0o444)
        before = path.read_bytes()
        await refused(path, "chat.db cannot be written: Permission denied")
        assert path.read_bytes() == before
        assert not path.with_name("chat.db-wal").exists()
        path.chmod(0o000)
        await refused(path, "chat.db cannot be written: Permission denied")
        path.chmod(0o644)
        async with SqliteStore(str(path)) as store:
            assert (await say(store)).seq == 2


async def test_a_file_system_that_is_mounted_for_reading_is_refused(small_disk):
    """As when the kernel has found an error in it."""
    if not small_disk.mounted:
        pytest.skip("this machine lets nobody mount a file system")
    path = small_disk.folder / "chat.db"
    async with SqliteStore(str(path)) as store:
        await make_room(store)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk.folder)], check=True)
    await refused(path, f"cannot write in {small_disk.folder}: Read-only file system")
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk.folder)], check=True)
    async with SqliteStore(str(path)) as store:
        assert (await say(store)).seq == 2


async def test_a_folder_that_may_not_be_written_or_read_is_refused():
    """Whether the file is in it already, and whether it is the folder or the one that it should be made in."""
    with as_nobody() as folder:
        path = folder / "chat.db"
        async with SqliteStore(str(path)) as store:
            await make_room(store)
        path.with_name("chat.db.lock").unlink()
        folder.chmod(0o555)
        await refused(path, f"cannot write in {folder}: Permission denied")
        await refused(folder / "new" / "chat.db", f"cannot make the folder {folder / 'new'}: Permission denied")
        folder.chmod(0o000)
        await refused(path, "Permission denied")


HOLD = """
import asyncio, sys
from hubbub.model import MessageCreated, RoomKind
from hubbub.store import SqliteStore

async def main(path):
    async with SqliteStore(path) as store:
        await store.create_room("room", RoomKind.PUBLIC, name="", by="a", at=1, members=[])
        print((await store.append(MessageCreated(room="room", by="a", text="kept"))).seq, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main(sys.argv[1]))
"""


@asynccontextmanager
async def another_process(path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """One that has the file open and has written a message."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLD, str(path)), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            assert await process.stdout.readline() == b"2\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_file_that_another_process_has_is_refused_until_it_is_gone(tmp_path):
    """The words name the process; one that ended, or was killed, is no obstacle and has lost nothing acknowledged."""
    path = tmp_path / "chat.db"
    async with another_process(path) as process:
        await refused(path, f"is in use by process {process.pid}")
        process.kill()
        await process.wait()
        assert path.with_name("chat.db.lock").read_text() == f"{process.pid}\n"
        async with SqliteStore(str(path)) as store:
            assert (await store.entry(ROOM, 2)).text == "kept"
            assert (await say(store)).seq == 3
