"""A look at a server for those who run it: which it is, whether its commits are safe, whether our tables are there."""

from __future__ import annotations

from typing import NamedTuple

from hubbub.errors import Unavailable
from hubbub.store.postgres.address import Address, Options, split_options
from hubbub.store.postgres.failures import DRIVER, Verdict, described, verdict
from hubbub.store.postgres.link import Link
from hubbub.store.postgres.opening import _check_commits, _check_server, _version, _why_not


class Look(NamedTuple):
    """What was found.

    Attributes:
        server: its version, as it writes it.
        synchronous_commit: when a commit of ours is acknowledged.
        has_fsync: whether what it acknowledges is on its disk.
        tables: the version of our tables; 0 for none.

    """

    server: str
    synchronous_commit: str
    has_fsync: bool
    tables: int


async def look(url: str) -> Look:
    """Look at the server of a store's URL, once, and change nothing.

    Raises:
        ValueError: it cannot be used as it is; the message says why and what to do.
        Unavailable: it does not answer.

    """
    bare, given = split_options(url)
    address = Address(bare, Options(**given))
    link = Link(address)
    try:
        session = await link.session()
        async with session.transaction():
            await _check_server(session, address)
            await _check_commits(session, address)
            tables = await _version(session, address.options.schema)
            [row] = await session.fetch(
                "SELECT current_setting('server_version') AS version, current_setting('fsync', true) AS fsync,"
                " current_setting('synchronous_commit') AS commits"
            )
        return Look(row["version"], row["commits"], row["fsync"] != "off", tables)
    except DRIVER as error:
        if verdict(error) in (Verdict.DENIED, Verdict.DEFECT):
            raise ValueError(_why_not(address, error)) from error
        raise Unavailable(f"store: {address.shown} does not answer: {described(error)}") from error
    finally:
        await link.close()
