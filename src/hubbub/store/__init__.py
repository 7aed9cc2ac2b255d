"""Stores, opened by URL; one module and one foreign library each, imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from hubbub.store.dynamodb import DynamoStore
    from hubbub.store.postgres import PostgresStore
    from hubbub.store.sqlite import SqliteStore

__all__ = ["DynamoStore", "PostgresStore", "SqliteStore", "open_store"]

SWEEP_S = 60.0
"""How often a node looks for what is not kept any more."""


def open_store(
    url: str, *, retain_entries: int | None = None, retain_days: float | None = None
) -> SqliteStore | DynamoStore | PostgresStore:
    """The store at `url`, which is opened by entering it.

    `sqlite:///folder/file.db` (relative), `sqlite:////folder/file.db`, `sqlite://:memory:`;
    `dynamodb://TABLE?region=REGION&endpoint=URL`, where both parameters may be missing: then the environment says; or
    `postgresql://USER:PASSWORD@HOST:PORT,HOST:PORT/DATABASE`, whose parameters docs/reference/postgresql.md lists.

    Args:
        url: which store.
        retain_entries: how many of a room's last entries are kept; None for all.
        retain_days: how long entries are kept, in days; None for ever.

    Raises:
        ValueError: no such kind of store, something is missing or unknown in the URL, or what is needed for it is not
            installed; the message says what to do.

    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "sqlite":
        return _sqlite(url, rest, retain_entries, retain_days)
    if separator and scheme == "dynamodb":
        return _dynamodb(url, rest, retain_entries, retain_days)
    if separator and scheme in ("postgresql", "postgres"):
        return _postgres(url, retain_entries, retain_days)
    shown = f"{scheme}://…" if "@" in url else url  # which may have a password in it
    raise ValueError(
        "store: expected sqlite:///PATH, sqlite://:memory:, postgresql://HOST/DATABASE or dynamodb://TABLE, "
        f"got {shown!r}"
    )


def _sqlite(url: str, rest: str, retain_entries: int | None, retain_days: float | None) -> SqliteStore:
    from hubbub.store.sqlite import SqliteStore

    path = rest if rest == ":memory:" else rest.removeprefix("/")
    if not path:
        raise ValueError(f"store: expected a path after sqlite:///, got {url!r}")
    return SqliteStore(path, retain_entries=retain_entries, retain_days=retain_days)


def _dynamodb(url: str, rest: str, retain_entries: int | None, retain_days: float | None) -> DynamoStore:
    from hubbub.store.dynamodb import DynamoStore, table_at

    name, _, query = rest.partition("?")
    asked = dict(parse_qsl(query, keep_blank_values=True))
    if not name or asked.keys() - {"region", "endpoint"}:
        raise ValueError(f"store: expected dynamodb://TABLE?region=REGION&endpoint=URL, got {url!r}")
    table = table_at(name, region=asked.get("region") or None, endpoint=asked.get("endpoint") or None)
    return DynamoStore(table, retain_entries=retain_entries, retain_days=retain_days, sweep_s=SWEEP_S)


def _postgres(url: str, retain_entries: int | None, retain_days: float | None) -> PostgresStore:
    try:
        from hubbub.store.postgres import PostgresStore
    except ModuleNotFoundError as missing:
        if missing.name != "asyncpg":
            raise
        raise ValueError("store: postgresql:// needs asyncpg: pip install 'hubbub[postgres]'") from missing
    return PostgresStore(url, retain_entries=retain_entries, retain_days=retain_days, sweep_s=SWEEP_S)


def __getattr__(name: str) -> Any:  # Any: a class of one of the stores, each imported when it is asked for
    if name == "SqliteStore":
        from hubbub.store.sqlite import SqliteStore

        return SqliteStore
    if name == "DynamoStore":
        from hubbub.store.dynamodb import DynamoStore

        return DynamoStore
    if name == "PostgresStore":
        from hubbub.store.postgres import PostgresStore

        return PostgresStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
