"""A connection that is made when it is needed, and made anew when it broke; and what is run on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

import asyncpg

from hubbub.store.postgres.address import Address
from hubbub.store.postgres.failures import DRIVER, described

logger = logging.getLogger("hubbub.store")

Rows = list[asyncpg.Record]


@lru_cache(maxsize=4_096)
def in_schema(statement: str, schema: str) -> str:
    """The statement, which says `hubbub.` before every name of ours, for tables in another schema."""
    return statement if schema == "hubbub" else statement.replace("hubbub.", f"{schema}.")


class Session:
    """An open connection, as long as it lasts.

    What takes too long ends it. It is not cancelled: a server that is told to cancel a commit which waits for its
    standby goes on as if the standby had it.
    """

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record], address: Address) -> None:
        self.connection = connection
        self._loop = asyncio.get_running_loop()
        self._timeout_s = address.options.timeout_s
        self._schema = address.options.schema
        self._is_steady = address.prepares  # a statement needs no transaction to find what it was prepared as
        limits = {**address.limits(), "synchronous_commit": address.options.synchronous_commit}
        local = "".join(f"; SET LOCAL {name} = '{value}'" for name, value in limits.items())
        self._begin = f"BEGIN{local if address.pooled else ''}"

    async def fetch(self, statement: str, *values: Any) -> Rows:  # Any: what PostgreSQL's types are in Python
        """Run a statement in the transaction that is under way."""
        ending = self._loop.call_later(self._timeout_s, self.connection.terminate)
        try:
            return await self.connection.fetch(in_schema(statement, self._schema), *values)
        finally:
            ending.cancel()

    async def script(self, statements: str, timeout_s: float | None = None) -> None:
        """Run statements without values."""
        ending = self._loop.call_later(timeout_s or self._timeout_s, self.connection.terminate)
        try:
            await self.connection.execute(in_schema(statements, self._schema))
        finally:
            ending.cancel()

    async def alone(self, statement: str, *values: Any) -> Rows:  # Any: as with `fetch`
        """Run a statement that is a transaction of its own."""
        if self._is_steady:
            return await self.fetch(statement, *values)
        async with self.transaction():
            return await self.fetch(statement, *values)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Everything in it is done together, or nothing."""
        await self.script(self._begin)
        try:
            yield
        except BaseException:
            if not self.connection.is_closed():
                await self._roll_back()
            raise
        await self.script("COMMIT")

    async def _roll_back(self) -> None:
        """End the transaction; a connection on which that cannot be done is given up."""
        try:
            await self.script("ROLLBACK")
        except DRIVER:
            self.connection.terminate()


class Link:
    """A connection, or the making of one; used by one at a time.

    Args:
        address: of the server.

    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._session: Session | None = None
        self._has_failed = False  # the last time that it was to be made

    async def session(self) -> Session:
        """The connection, made if there is none.

        Raises:
            asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError: it cannot be made.

        """
        if self._session is not None:
            if not self._session.connection.is_closed():
                return self._session
            self._session, self._has_failed = None, True
        try:
            connection = await self._address.connect()
        except BaseException:
            self._has_failed = True
            raise
        if self._has_failed:
            logger.info("connected to %s again", self._address.shown)
        self._has_failed = False
        self._session = Session(connection, self._address)
        return self._session

    def drop(self, why: BaseException | None = None) -> None:
        """Give the connection up as it is."""
        if self._session is not None:
            if why is not None:
                logger.warning("lost a connection to %s: %s", self._address.shown, described(why))
                self._has_failed = True
            self._session.connection.terminate()
            self._session = None

    async def close(self, within_s: float = 2.0) -> None:
        """Take leave of the server."""
        session, self._session = self._session, None
        if session is None or session.connection.is_closed():
            return
        try:
            async with asyncio.timeout(within_s):
                await session.connection.close()
        except DRIVER:
            session.connection.terminate()
