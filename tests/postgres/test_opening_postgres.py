"""Opening: many nodes at once, databases that cannot be used and why, and what the URL says."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from scripts.servers import free_port

from hubbub.errors import Unavailable
from hubbub.store import PostgresStore, open_store
from postgreslab import connected, running, schema_of, store_at
from storelab import ROOM, log, make_room, say


async def test_nodes_may_open_an_empty_database_all_at_once(server, tmp_path):
    """One makes the tables, the others wait for it; all have the same epoch and work."""
    async with AsyncExitStack() as stack:
        opening = (stack.enter_async_context(store_at(server, tmp_path)) for _ in range(8))
        stores = await asyncio.gather(*opening)
        assert len({store.epoch for store in stores}) == 1
        await make_room(stores[0])
        await asyncio.gather(*(say(store) for store in stores))
        assert len(await log(stores[3])) == 9


async def test_tables_of_a_newer_version_are_refused(server, tmp_path):
    """The message says which version is known, and leaves them as they are."""
    async with store_at(server, tmp_path):
        pass
    async with connected(server, schema_of(tmp_path)) as connection:
        await connection.execute("UPDATE meta SET value = '99' WHERE key = 'version'")
    with pytest.raises(ValueError, match=r"is of version 99, this Hubbub knows versions up to 1: run the newer Hubbub"):
        await store_at(server, tmp_path).__aenter__()


async def test_a_database_may_have_other_tables(server, tmp_path):
    """Also of the same names: ours are in a schema of their own, and nothing else is touched."""
    server.create_database("shared")
    server.run_sql("CREATE TABLE rooms (id int); CREATE TABLE meta (key int); INSERT INTO meta VALUES (7)", "shared")
    async with PostgresStore(server.url_of("shared")) as store:
        await make_room(store)
        await say(store)
    assert server.run_sql("SELECT key FROM public.meta", "shared") == "7"
    assert server.run_sql("SELECT count(*) FROM hubbub.entries", "shared") == "2"


async def test_a_server_that_is_not_there_is_waited_for(tmp_path):
    """As long as patience lasts; then it is told what was tried, without the password."""
    url = f"postgresql://hubbub:secret@127.0.0.1:{free_port()}/hubbub"
    with pytest.raises(Unavailable, match=r"hubbub@127\.0\.0\.1:\d+/hubbub did not answer within 0\.3 s") as failure:
        await PostgresStore(url, patience_s=0.3).__aenter__()
    assert "secret" not in str(failure.value)


async def test_a_server_that_starts_a_moment_later_is_soon_enough(tmp_path):
    """Nodes and the database may be started in any order."""
    with running() as server:
        server.stop()
        opening = asyncio.create_task(store_at(server, tmp_path).__aenter__())
        await asyncio.to_thread(server.start)
        store = await opening
        await store.ping()
        await store.__aexit__(None, None, None)


async def test_what_waiting_does_not_mend_is_told_at_once(server):
    """A database that is not there, a user who is unknown or may not make the schema."""
    server.create_database("owned")
    server.run_sql("CREATE ROLE poor LOGIN; REVOKE CREATE ON DATABASE owned FROM PUBLIC")
    nowhere = server.url_of("nowhere")
    for url, words in (
        (nowhere, 'database "nowhere" does not exist.*create the database first'),
        (server.url.replace("hubbub@", "nobody@"), 'role "nobody" does not exist'),
        (server.url_of("owned").replace("hubbub@", "poor@"), "permission denied.*GRANT CREATE ON DATABASE"),
    ):
        with pytest.raises(ValueError, match=words):
            await PostgresStore(url, patience_s=60).__aenter__()


async def test_commits_that_do_not_wait_for_the_disk_are_refused(server, tmp_path):
    """Whatever the role's default is, ours is on; where it cannot be set, as in the URL, it is refused."""
    server.run_sql("CREATE ROLE hasty SUPERUSER LOGIN; ALTER ROLE hasty SET synchronous_commit = off")
    url = server.url.replace("hubbub@", "hasty@")
    async with store_at(server, tmp_path, url=url) as store:
        session = await store._writer._lanes[0]._link.session()
        assert await session.connection.fetchval("SHOW synchronous_commit") == "on"
    for weak in ("off", "local"):
        with pytest.raises(ValueError, match=f"expected synchronous_commit to be one of on, .* got '{weak}'"):
            PostgresStore(f"{server.url}?synchronous_commit={weak}")
    through_a_pooler = store_at(server, tmp_path, url=url, prepared_statements=True)
    through_a_pooler._address.pooled = True
    with pytest.raises(ValueError, match=r"got 'off': ALTER ROLE … SET synchronous_commit = on"):
        await through_a_pooler.__aenter__()


async def test_a_database_of_another_encoding_is_refused(server):
    """It could not keep everything that people write."""
    server.run_sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(ValueError, match="expected a database with the encoding UTF8, got LATIN1"):
        await PostgresStore(server.url_of("latin")).__aenter__()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("colour=red", "unknown parameter 'colour' in the URL; expected one of application_name, host"),
        ("writers=many", "expected writers to be a number, got 'many'"),
        ("writers=0", "expected 1 to 100 writers, got 0"),
        ("readers=101", "expected 1 to 100 readers, got 101"),
        ("patience=soon", "expected patience to be seconds, got 'soon'"),
        ("patience=-1", "expected a patience of more than 0 and at most 3600 seconds, got -1"),
        ("timeout=nan", "expected a timeout of more than 0 and at most 3600 seconds, got nan"),
        ("prepared_statements=maybe", "expected prepared_statements to be on or off, got 'maybe'"),
        ("schema=Chat", "expected a schema of at most 41 letters a-z, digits and _, got 'Chat'"),
    ],
)
def test_a_parameter_that_is_none_is_refused(query, words):
    """The message says what was expected and what came, and not the password."""
    with pytest.raises(ValueError, match=words) as failure:
        open_store(f"postgresql://hubbub:secret@localhost/hubbub?{query}")
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize("hosts", ["a:b", "a:0", "a:99999", "a,,b", "[::1", "a b:1:2"])
def test_hosts_that_are_none_are_refused(hosts):
    """Each is a name or an address, with or without a port."""
    with pytest.raises(ValueError, match=r"expected HOST or HOST:PORT, several with commas between"):
        open_store(f"postgresql://hubbub@{hosts}/hubbub")


async def test_the_url_says_how_the_server_is_used(server, tmp_path):
    """Its own parameters, and those of PostgreSQL."""
    url = (
        f"{server.url}?writers=2&readers=1&patience=3&timeout=1.5&schema={schema_of(tmp_path)}"
        "&application_name=chat&synchronous_commit=remote_apply"
    )
    async with PostgresStore(url.replace("postgresql://", "postgres://")) as store:
        await make_room(store)
        assert (await store.heads([ROOM, "nowhere"])) == {ROOM: 1}
        assert (len(store._writer._lanes), len(store._reader._links)) == (2, 1)
        session = await store._writer._lanes[0]._link.session()
        settings = {
            name: await session.connection.fetchval(f"SHOW {name}")
            for name in ("synchronous_commit", "statement_timeout", "idle_in_transaction_session_timeout")
        }
        assert settings.pop("synchronous_commit") == "remote_apply"
        assert set(settings.values()) == {"1350ms"}  # nobody waits longer for what another node holds
    assert "remote" not in repr(store)


async def test_of_several_hosts_the_one_that_takes_writes_is_used(server, tmp_path):
    """One that is not there is passed over."""
    url = server.url.replace("127.0.0.1", f"127.0.0.1:{free_port()},127.0.0.1")
    async with store_at(server, tmp_path, url=url) as store:
        await make_room(store)
        assert (await say(store)).seq == 2
