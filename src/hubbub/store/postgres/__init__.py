"""The store on PostgreSQL: many nodes write into one log, and each writes together what arrives together.

`store` is the port. `address` is the URL, `link` a connection that is made anew when it broke, `failures` what the
server's failures mean, `opening` the migrations. `writer` has the `lane`s in which works wait; `messages` and `marks`
are done many in one statement, `deeds` in a `transaction`, `proof` tries whether anything can be done. `reader` runs
queries, `lookups` asks of many at once, `finding` and `pages` say what. `retention` is what is done when time passes,
`text` is about what PostgreSQL does not keep as it is.
"""

from __future__ import annotations

from hubbub.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
