"""The store on one SQLite file: one writer thread that commits together what arrives together.

`store` is the port, `opening` the file, `writer` the thread; `batch` is one transaction of it, `works` what can be done
in one, `retention` what is done when time passes; `pages` reads the log, `cache` remembers what is asked often.
"""

from __future__ import annotations

from hubbub.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
