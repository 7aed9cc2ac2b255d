"""A primary dies and its standby is promoted: nodes that know both go on there, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from scripts import servers
from scripts.servers import Postgres

from hubbub.store import PostgresStore
from live import BOUND_S, until
from postgreslab import running
from storelab import log, make_room, say, seqs


@contextmanager
def standby_of(primary: Postgres) -> Iterator[Postgres]:
    """A copy of the primary that follows it, and without which the primary commits nothing."""
    folder = Path(tempfile.mkdtemp(prefix="hubbub-standby-"))
    as_user = servers._as(primary._user)
    if primary._user:
        shutil.chown(folder, primary._user)
    command = [str(servers.postgres_program("pg_basebackup")), "-R", "-X", "stream", "-c", "fast"]
    source = f"host=127.0.0.1 port={primary.port} user=hubbub application_name=standby"
    subprocess.run([*command, "-D", str(folder / "data"), "-d", source], check=True, cwd=folder, **as_user)  # type: ignore[call-overload]
    standby = Postgres(folder, settings={"hot_standby": "on"})
    with standby:
        yield standby


@pytest.fixture
def pair() -> Iterator[tuple[Postgres, Postgres]]:
    """A primary and its synchronous standby."""
    with running(wal_level="replica") as primary, standby_of(primary) as standby:
        primary.run_sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.run_sql("SELECT pg_reload_conf()")
        deadline = time.monotonic() + BOUND_S
        while primary.run_sql("SELECT sync_state FROM pg_stat_replication") != "sync":
            assert time.monotonic() < deadline, "the standby is not synchronous"
            time.sleep(0.02)
        yield primary, standby


async def test_a_promoted_standby_has_all_that_was_acknowledged(pair):
    """Callers wait from the primary's death until the standby takes writes; the log goes on without a gap."""
    primary, standby = pair
    url = primary.url.replace("127.0.0.1", f"127.0.0.1:{standby.port},127.0.0.1")
    done = asyncio.Event()
    given: dict[int, str] = {}

    async def writer(store: PostgresStore, n: int) -> None:
        turn = 0
        while not done.is_set():
            text = f"{n} {turn}"
            given[(await say(store, text, by=f"user{n}")).seq] = text
            turn += 1

    async with PostgresStore(url, patience_s=60, timeout_s=5) as one, PostgresStore(url, patience_s=60) as other:
        assert one._address.shown.endswith(f"{standby.port},127.0.0.1:{primary.port}/hubbub")
        await make_room(one)
        writing = [asyncio.create_task(writer(store, n)) for n, store in enumerate([one, other] * 2)]
        await until(lambda: len(given) > 30, "the first writes", bound_s=60)
        await asyncio.to_thread(primary.kill)
        before = len(given)
        await asyncio.to_thread(standby.run_sql, "SELECT pg_promote()")
        await until(lambda: len(given) > before + 30, "writes to the promoted standby", bound_s=60)
        done.set()
        await asyncio.gather(*writing)
        entries = await log(other)
    assert seqs(entries) == list(range(1, len(entries) + 1))
    assert {entry.seq: entry.text for entry in entries[1:]} == given
