"""Backups, taken and restored by the commands of the how-to, and what clients make of a log that is an older one."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from scripts import servers
from scripts.cluster import Node
from scripts.servers import Nats, Postgres

from documents import ROOT, blocks
from hubbub.client import Client, connect
from hubbub.client.frames import Reset
from hubbub.model import Entry, MessageCreated
from live import SECRET, ServerProcess, Wire, token, until

PAGE = ROOT / "docs" / "how-to" / "back-up-and-restore.md"
HALL = {"hall": "member"}
QUICK: dict[str, Any] = {"backoff_base_s": 0.02, "backoff_cap_s": 0.2}


def commands(purpose: str) -> str:
    """The block of the page whose first line is this remark."""
    [found] = [block.text for block in blocks(PAGE, "bash") if block.text.startswith(f"# {purpose}\n")]
    return found


def run(script: str, server: Postgres, folder: Path, **variables: str) -> str:
    """Let a shell run what the page says, as whoever the server runs as; returns what it printed."""
    if server._user:
        shutil.chown(folder, server._user)
    programs = servers.postgres_program("psql").parent
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGUSER": "hubbub",
        **variables,
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **servers._as(server._user),  # type: ignore[call-overload]
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return str(done.stdout)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user can write into."""
    with tempfile.TemporaryDirectory(prefix="hubbub-backup-") as made:
        yield Path(made)


@contextmanager
def database(**settings: str) -> Iterator[Postgres]:
    """A server of our own: what is restored has the name of what was lost."""
    with Postgres(settings=settings) as server:
        yield server


@asynccontextmanager
async def two_nodes(server: Postgres, folder: Path) -> AsyncIterator[list[Node]]:
    """A cluster's nodes, at addresses that they keep."""
    with Nats() as nats:
        settings = {"store": server.url, "fanout": nats.url, "secret": SECRET, "drain_s": "0.2"}
        nodes = [Node(f"node-{number}", settings, folder=folder) for number in (1, 2)]
        try:
            await started(nodes)
            yield nodes
        finally:
            for node in nodes:
                node.kill()


async def started(nodes: list[Node]) -> None:
    """Start all of them, together."""
    for node in nodes:
        node.begin()
    for node in nodes:
        await asyncio.to_thread(node.wait)


async def stopped(nodes: list[Node]) -> None:
    """Drain all of them."""
    await asyncio.gather(*(asyncio.to_thread(node.stop) for node in nodes))


class Reader:
    """An application that shows a room: what it has, and how often it had to begin anew."""

    def __init__(self, client: Client) -> None:
        self.shown: dict[int, str | None] = {}
        self.resets = 0
        self._client = client
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._heed())]

    @property
    def texts(self) -> list[str]:
        """What it shows people."""
        return [text for _, text in sorted(self.shown.items()) if text is not None]

    async def _read(self) -> None:
        async for entry in self._client.entries():
            if entry.seq <= max(self.shown, default=0):  # the log begins anew
                self.shown.clear()
            self.shown[entry.seq] = words(entry)

    async def _heed(self) -> None:
        async for told in self._client.signals():
            self.resets += isinstance(told, Reset)

    async def leave(self) -> None:
        """Stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def words(entry: Entry) -> str | None:
    """What a message says."""
    return entry.text if isinstance(entry, MessageCreated) else None


@asynccontextmanager
async def reading(node: Node) -> AsyncIterator[Reader]:
    """An application on a node, that comes back to it by itself."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(connect(node.ws_url, token=token("reader", rooms=HALL), **QUICK))
        reader = Reader(client)
        stack.push_async_callback(reader.leave)
        yield reader


async def write(node: Node, *texts: str) -> None:
    """Send messages, and see each acknowledged."""
    async with connect(node.ws_url, token=token("writer", rooms=HALL), **QUICK) as writer:
        for text in texts:
            await writer.send("hall", text)


async def log_of(node: Node) -> dict[int, str | None]:
    """The room's log as somebody who knows nothing yet reads it."""
    async with connect(node.ws_url, token=token("newcomer", rooms=HALL), **QUICK) as newcomer:
        page = await newcomer.history("hall", limit=100)
        return {entry.seq: words(entry) for entry in page.entries}


def position(synced: dict[str, Any]) -> dict[str, Any]:
    """How far a client knows the log that answered its `sync` so."""
    return {"epoch": synced["epoch"], "rooms": {state["room"]: state["head"] for state in synced["rooms"]}}


async def ends_with_the_log(reader: Reader, node: Node) -> None:
    """The reader shows what the log is now."""
    log = await log_of(node)
    await until(lambda: reader.shown == log, f"the log {log}, not {reader.shown}")


async def test_a_dump_is_restored_with_a_new_epoch_and_clients_begin_anew(folder: Path, tmp_path: Path):
    """What was written after the dump is gone, its seqs are given again, and who had seen them ends with the log."""
    with database() as server:
        async with two_nodes(server, tmp_path) as nodes, reading(nodes[0]) as reader:
            await write(nodes[1], "one", "two")
            run(commands("back up"), server, folder)
            await write(nodes[1], "lost", "lost too")
            await until(lambda: "lost too" in reader.texts, "what is to be lost")
            before = server.run_sql("SELECT value FROM hubbub.meta WHERE key = 'epoch'", "hubbub")
            await stopped(nodes)
            said = run(commands("restore"), server, folder) + run(commands("begin a new epoch"), server, folder)
            await started(nodes)
            after = server.run_sql("SELECT value FROM hubbub.meta WHERE key = 'epoch'", "hubbub")
            assert after != before
            assert after in said
            await write(nodes[1], "three", "four", "five")
            await ends_with_the_log(reader, nodes[1])
            assert reader.texts == ["one", "two", "three", "four", "five"]
            assert reader.resets == 1


async def test_without_a_new_epoch_nobody_could_tell_that_seqs_mean_something_else(folder: Path, tmp_path: Path):
    """Why it is needed: a client that had seen more is told nothing of what stands in the places that it has seen."""
    with database() as server:
        async with two_nodes(server, tmp_path) as nodes:
            await write(nodes[0], "one")
            run(commands("back up"), server, folder)
            await write(nodes[0], "lost")
            async with await Wire.open(nodes[0].ws_url, token("reader", rooms=HALL)) as wire:
                seen = position(await wire.ok("sync"))
            await stopped(nodes)
            run(commands("restore"), server, folder)
            await started(nodes)
            await write(nodes[1], "two", "three")
            async with await Wire.open(nodes[0].ws_url, token("reader", rooms=HALL)) as wire:
                synced = await wire.ok("sync", **seen)
            assert synced["reset"] == []
            assert [entry["text"] for entry in synced["entries"]] == [
                "three"
            ]  # and "two" is seen by nobody who was there
            await stopped(nodes)
            run(commands("begin a new epoch"), server, folder)
            await started(nodes)
            async with await Wire.open(nodes[0].ws_url, token("reader", rooms=HALL)) as wire:
                synced = await wire.ok("sync", **seen)
            assert synced["reset"] == ["hall"]


async def test_the_database_is_brought_back_to_a_moment(folder: Path, tmp_path: Path):
    """A base backup and the archived log restore what was there at any moment since, and nothing that came after it."""
    archive = folder / "archive"
    archive.mkdir()
    settings = {
        "wal_level": "replica",
        "archive_mode": "on",
        "archive_command": f"test ! -f {archive}/%f && cp %p {archive}/%f",
    }
    with database(**settings) as server:
        if server._user:
            shutil.chown(archive, server._user)
        async with two_nodes(server, tmp_path) as nodes, reading(nodes[0]) as reader:
            await write(nodes[1], "one")
            run(commands("take a base backup"), server, folder, BACKUPS=str(folder))
            await write(nodes[1], "two")
            moment = server.run_sql("SELECT clock_timestamp()")
            await write(nodes[1], "lost")
            await until(lambda: "lost" in reader.texts, "what is to be lost")
            server.run_sql("SELECT pg_switch_wal()")
            await until(lambda: _is_archived(server), "the log in the archive")
            await stopped(nodes)
            server.stop()
            variables = {"BACKUPS": str(folder), "PGDATA": str(server.folder / "data"), "MOMENT": moment}
            run(commands("restore to a moment"), server, folder, **variables)
            server.start()
            await until(lambda: server.run_sql("SELECT pg_is_in_recovery()") == "f", "a server that takes writes")
            run(commands("begin a new epoch"), server, folder)
            await started(nodes)
            await write(nodes[1], "three")
            await ends_with_the_log(reader, nodes[1])
            assert reader.texts == ["one", "two", "three"]
            assert reader.resets == 1


def _is_archived(server: Postgres) -> bool:
    """Whether all that was written before the last switch is in the archive."""
    waiting = server.run_sql("SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'")
    return waiting == "0"


async def test_the_file_of_one_node_is_restored_with_a_new_epoch(tmp_path: Path):
    """A copy of SQLite's file, taken while the server runs, brings back what it had; clients begin anew."""
    server = ServerProcess(tmp_path, "--drain-s", "0", HUBBUB_DATA=str(tmp_path / "hubbub-data"))
    await server.start()
    try:
        async with await Wire.open(server.ws_url, token("ann", rooms=HALL)) as wire:
            await wire.ok("send", room="hall", text="one")
            _run(commands("back up the file"), tmp_path)
            await wire.ok("send", room="hall", text="lost")
            seen = position(await wire.ok("sync"))
        server.signal(signal.SIGTERM)
        assert await server.ended() == 0
        epoch = _run(commands("restore the file"), tmp_path).strip()
        await server.start()
        async with await Wire.open(server.ws_url, token("ann", rooms=HALL)) as wire:
            await wire.ok("send", room="hall", text="two")
            after = await wire.ok("sync", **seen)
            page = await wire.ok("history", room="hall")
        assert after["epoch"] == epoch != seen["epoch"]
        assert after["reset"] == ["hall"]
        assert [entry["text"] for entry in page["entries"] if "text" in entry] == ["one", "two"]
    finally:
        await server.stop()


def _run(script: str, folder: Path) -> str:
    """Let a shell run what the page says."""
    return subprocess.run(["bash", "-euc", script], cwd=folder, capture_output=True, text=True, check=True).stdout
