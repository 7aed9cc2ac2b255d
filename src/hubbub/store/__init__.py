"""Stores, opened by URL; one module and one foreign library each."""

from __future__ import annotations

from hubbub.store.sqlite import SqliteStore

__all__ = ["SqliteStore", "open_store"]


def open_store(url: str, *, retain_entries: int | None = None, retain_days: float | None = None) -> SqliteStore:
    """The store at `url`: `sqlite:///folder/file.db` (relative), `sqlite:////folder/file.db` or `sqlite://:memory:`.

    It is opened by entering it.

    Args:
        url: which store.
        retain_entries: how many of a room's last entries are kept; None for all.
        retain_days: how long entries are kept, in days; None for ever.

    Raises:
        ValueError: no such kind of store, or no path in the URL.

    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme != "sqlite":
        raise ValueError(f"store: expected sqlite:///PATH or sqlite://:memory:, got {url!r}")
    path = rest if rest == ":memory:" else rest.removeprefix("/")
    if not path:
        raise ValueError(f"store: expected a path after sqlite:///, got {url!r}")
    return SqliteStore(path, retain_entries=retain_entries, retain_days=retain_days)
