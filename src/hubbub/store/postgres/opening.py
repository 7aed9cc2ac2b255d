"""Opening the database: migrations that many nodes may begin at once, durability, and why it cannot be opened."""

from __future__ import annotations

import logging
import secrets
import zlib

from hubbub.clock import Clock
from hubbub.errors import Unavailable
from hubbub.store.migrations import migrations
from hubbub.store.postgres.address import SAFE_COMMITS, Address
from hubbub.store.postgres.failures import DRIVER, Verdict, described, verdict, wait_s
from hubbub.store.postgres.link import Link, Session

logger = logging.getLogger("hubbub.store")

OURS = int.from_bytes(b"Hubb", "big")
"""The first half of the keys of our advisory locks."""

OLDEST = 120_000
"""The oldest version of PostgreSQL whose SQL is ours: `WITH … AS MATERIALIZED`."""

MIGRATED_WITHIN_S = 3_600.0
"""How long a migration may take, with the waiting for another node that does it."""


def lock_key(address: Address, purpose: str) -> tuple[int, int]:
    """The two halves of an advisory lock's key."""
    second = zlib.crc32(f"{address.options.schema} {purpose}".encode())
    return OURS, second - 2**32 if second >= 2**31 else second


async def open_database(link: Link, address: Address, clock: Clock) -> str:
    """Bring the database to this version, waiting for a server that is not there; returns its epoch.

    Raises:
        ValueError: it cannot be used; the message says why and what to do.
        Unavailable: the server did not come within the address's patience.

    """
    ends_at = clock.monotonic() + address.options.patience_s
    tries = 0
    while True:
        try:
            session = await link.session()
            epoch = await _prepare(session, address)
            await _check_commits(session, address)
        except DRIVER as error:
            link.drop()
            tries += 1
            match verdict(error):
                case Verdict.DENIED | Verdict.DEFECT:
                    raise ValueError(_why_not(address, error)) from error
            if clock.monotonic() >= ends_at:
                raise Unavailable(
                    f"store: {address.shown} did not answer within {address.options.patience_s:g} s: {described(error)}"
                ) from error
            if tries == 1:
                logger.warning("waiting for %s: %s", address.shown, described(error))
            await clock.sleep(wait_s(tries))
        else:
            return epoch


async def _prepare(session: Session, address: Address) -> str:
    async with session.transaction():
        await _check_server(session, address)
        found = await _version(session, address.options.schema)
    newest = migrations(__package__)[-1][0]
    if found < newest:
        async with session.transaction():
            await _migrate(session, address)
    elif found > newest:
        raise ValueError(
            f"store: {address.shown} is of version {found}, this Hubbub knows versions up to {newest}: "
            "run the newer Hubbub that made it, or choose another database or schema"
        )
    [row] = await session.alone("SELECT value FROM hubbub.meta WHERE key = 'epoch'")
    epoch: str = row["value"]
    return epoch


async def _check_server(session: Session, address: Address) -> None:
    [row] = await session.fetch(
        "SELECT current_setting('server_version_num')::int AS version, current_setting('server_encoding') AS encoding,"
        " current_setting('fsync', true) AS fsync, current_setting('plan_cache_mode', true) AS plans"
    )
    if row["version"] < OLDEST:
        raise ValueError(
            f"store: {address.shown}: expected PostgreSQL {OLDEST // 10_000} or newer, got {row['version'] // 10_000}"
        )
    if row["encoding"] != "UTF8":
        raise ValueError(
            f"store: {address.shown}: expected a database with the encoding UTF8, got {row['encoding']}: "
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )
    if row["fsync"] == "off":
        logger.warning("%s has fsync off: what it acknowledges is lost when its machine fails", address.shown)


async def _check_commits(session: Session, address: Address) -> None:
    """See that commits are on the disk before they are acknowledged.

    Raises:
        ValueError: they are not.

    """
    [row] = await session.alone("SELECT current_setting('synchronous_commit') AS setting")
    if row["setting"] not in SAFE_COMMITS:
        raise ValueError(
            f"store: {address.shown}: expected synchronous_commit to be one of {', '.join(SAFE_COMMITS)}, "
            f"got {row['setting']!r}: ALTER ROLE … SET synchronous_commit = on"
        )


async def _version(session: Session, schema: str) -> int:
    """Of the tables that are there; 0 for none."""
    # Asked of the catalog's tables: `to_regclass` may remember from before a lock was waited for that there are none.
    [row] = await session.fetch(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND c.relname = 'meta') AS there",
        schema,
    )
    if not row["there"]:
        return 0
    rows = await session.fetch("SELECT value::int AS version FROM hubbub.meta WHERE key = 'version'")
    return rows[0]["version"] if rows else 0


async def _migrate(session: Session, address: Address) -> None:
    """Run what is missing; one node does, and the others wait for it and find it done."""
    most_ms = int(MIGRATED_WITHIN_S * 1_000)
    await session.script(f"SET LOCAL statement_timeout = {most_ms}; SET LOCAL lock_timeout = {most_ms}")
    first, second = lock_key(address, "migrations")
    await session.script(f"SELECT pg_advisory_xact_lock({first}, {second})", MIGRATED_WITHIN_S)
    found = await _version(session, address.options.schema)
    if found == 0:
        await session.script(
            "CREATE SCHEMA IF NOT EXISTS hubbub_schema;".replace("hubbub_schema", address.options.schema)
            + "CREATE TABLE IF NOT EXISTS hubbub.meta (key text PRIMARY KEY, value text NOT NULL);"
        )
    scripts = migrations(__package__)
    for version, text in scripts:
        if version > found:
            await session.script(text, MIGRATED_WITHIN_S)
    await session.fetch(
        "INSERT INTO hubbub.meta VALUES ('version', $1) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        str(scripts[-1][0]),
    )
    await session.fetch("INSERT INTO hubbub.meta VALUES ('epoch', $1) ON CONFLICT DO NOTHING", secrets.token_hex(8))


_ADVICE = {
    "28P01": "look at its user and password",
    "28000": "look at its user, its password and the server's pg_hba.conf",
    "3D000": "create the database first: CREATE DATABASE …",
    "42501": "let the user make a schema there: GRANT CREATE ON DATABASE … TO …",
}


def _why_not(address: Address, error: BaseException) -> str:
    state = getattr(error, "sqlstate", None) or ""
    advice = _ADVICE.get(state)
    return f"store: cannot open {address.shown} ({described(error)})" + (f": {advice}" if advice else "")
