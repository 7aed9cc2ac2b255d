"""Stores on a real PostgreSQL server, each with tables in a schema of its own, and what can go wrong between them."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest
from scripts.servers import Missing, Postgres, Server, free_port

from cuttable import Cuttable, Passes
from hubbub.store import PostgresStore

PATIENCE_S = 60.0
"""How long a call waits for the server: a busy machine is no defect."""


@contextmanager
def running(**settings: str) -> Iterator[Postgres]:
    """A server; fails the test, and says what is missing, if there is none."""
    try:
        server = Postgres(settings=settings)
    except Missing as missing:
        pytest.fail(str(missing))
    with server:
        yield server


def schema_of(folder: Path) -> str:
    """The schema that stands for a folder."""
    return f"t{hashlib.sha256(str(folder).encode()).hexdigest()[:24]}"


def store_at(server: Postgres | Pooled, folder: Path, *, url: str = "", **options: Any) -> PostgresStore:
    """A store on the tables that stand for a folder; by another URL, where there is something in between."""
    chosen = {"patience_s": PATIENCE_S, "timeout_s": 20.0, "schema": schema_of(folder), **options}
    return PostgresStore(url or server.url, **chosen)


@asynccontextmanager
async def connected(server: Postgres, schema: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection that finds the tables of a schema without its name."""
    connection = await asyncpg.connect(server.url, server_settings={"search_path": schema})
    try:
        yield connection
    finally:
        await connection.close()


# A disk that is full

TABLES = ("entries", "reactions", "members", "reads", "leftovers", "rooms", "users", "meta", "seats")

FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END$$;
""" + "".join(
    f"CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE OR DELETE ON {table} EXECUTE FUNCTION full_disk();"
    for table in TABLES
)


@contextmanager
def unwritable(store: PostgresStore) -> Iterator[None]:
    """The server refuses every write, as one whose disk is full, and nobody has patience."""
    patience_s = store._writer._patience_s
    store._writer._patience_s = 0.05
    _run_sql(store, FULL)
    yield
    _run_sql(store, "DROP FUNCTION full_disk() CASCADE")
    store._writer._patience_s = patience_s


def _run_sql(store: PostgresStore, text: str) -> None:
    """Run statements on the store's tables while nothing else here runs."""

    async def run() -> None:
        connection = await asyncpg.connect(store._address._url, statement_cache_size=0)
        await connection.execute(f"SET LOCAL search_path = {store._address.options.schema}; {text}")
        await connection.close()

    _in_a_thread(run())


def _in_a_thread(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run it to its end on a loop of another thread."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(coroutine)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


# What is in between


class Wire(Cuttable):
    """A way to a server that can also lose answers.

    Attributes:
        lost: how often something was lost.

    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._marks: list[bytes] = []
        self.lost = 0

    def url_of(self, server: Postgres) -> str:
        """The server's, by this way."""
        return server.url.replace(str(server.port), str(self.port))

    def lose_the_answer_to(self, mark: bytes) -> None:
        """Break the connection when the server answers the next request that has `mark` in it."""
        self._marks.append(mark)

    def _sieves(self) -> tuple[Passes, Passes]:
        is_deaf = False

        def asks(data: bytes) -> bool:
            nonlocal is_deaf
            mark = next((mark for mark in self._marks if mark in data), None)
            if mark is not None:
                self._marks.remove(mark)
                is_deaf = True
            return True

        def answers(data: bytes) -> bool:
            self.lost += is_deaf  # the server has done it
            return not is_deaf

        return asks, answers


class Pooled(NamedTuple):
    """A server behind a pooler.

    Attributes:
        url: of the pooler.

    """

    url: str


@contextmanager
def running_pooled() -> Iterator[Pooled]:
    """A server, and PgBouncer in transaction mode before it with few connections."""
    with running() as server, pooling(server) as url:
        yield Pooled(url)


@contextmanager
def pooling(server: Postgres, mode: str = "transaction", size: int = 4) -> Iterator[str]:
    """A PgBouncer before the server; the URL that leads through it."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="hubbub-pgbouncer-") as name:
        folder = Path(name)
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\nhubbub = host=127.0.0.1 port={server.port} user=hubbub\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = {mode}\ndefault_pool_size = {size}\nmax_client_conn = 200\n",
            encoding="utf-8",
        )
        settings.chmod(0o644)
        folder.chmod(0o755)
        user = "postgres" if server._user else None
        bouncer = Server(["/usr/sbin/pgbouncer", "-q", str(settings)], port=port, log=folder / "log", user=user)
        with bouncer:
            yield server.url.replace(str(server.port), str(port))
