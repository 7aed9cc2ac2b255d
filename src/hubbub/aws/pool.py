"""The connections to one origin: which one is used next, how many there may be, and who waits for one."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable

from hubbub.aws.connection import STALE_S, Connection, Unreached
from hubbub.aws.proxy import Proxy

TURNS = 3
"""How often the loop turns until what has happened to a socket is known: once to see it, once more to be told."""

_PORTS = {"http": 80, "https": 443}


class Pool:
    """The connections to one scheme, host and port.

    Args:
        origin: such as `https://host` or `http://[::1]:8000`.
        most: how many there may be.
        connect_timeout_s: how long one may take to stand.
        idle_s: after how long without use one is closed.
        context: what certificates are checked with; asked when it is needed.
        proxy: through what a secure origin is reached; None to go straight.

    Attributes:
        host: for the `Host` header.

    Raises:
        ValueError: that is no origin.

    """

    def __init__(
        self,
        origin: str,
        *,
        most: int,
        connect_timeout_s: float,
        idle_s: float,
        context: Callable[[], ssl.SSLContext],
        proxy: Proxy | None = None,
    ) -> None:
        self._origin = origin
        self._is_secure, self.host, self._address, self._port = parts_of(origin)
        self._most = most
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._context = context
        self._proxy = proxy
        self._count = 0  # how many stand or are being made
        self._standing: set[Connection] = set()
        self._free: list[Connection] = []  # the one used last is used next, so that those not needed grow old
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Pool {self._origin}: {self._count} open, {len(self._free)} free, {len(self._waiting)} waited for>"

    def free(self) -> Connection | None:
        """A connection that nobody uses and that is not too old, if there is one.

        While this process was frozen it may have been closed from the other side, and nobody was told; see `checked`.
        """
        while self._free:
            found = self._free.pop()
            if found.is_open and found.unused_s < self._idle_s:
                return found
            found.drop()
        return None

    async def checked(self, connection: Connection, ends_at: float) -> Connection:
        """A connection that `free` gave, after what has happened to it is known; another one if it is closed.

        Raises:
            Unreached: there is none in time.

        """
        if connection.unused_s < STALE_S:
            return connection
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return connection if connection.is_open else await self.connection(ends_at)

    async def connection(self, ends_at: float, *, fresh: bool = False) -> Connection:
        """A connection for one exchange: a free one, a new one, or the next that gets free.

        Args:
            ends_at: the loop's time until when it must be there.
            fresh: whether it must be a new one.

        Raises:
            Unreached: there is none in time.

        """
        while not self._is_closed:
            if not fresh and (found := self.free()) is not None:
                return found
            if self._count < self._most:
                return await self._connect(ends_at)
            given = await self._next(ends_at)
            if given is not None and not fresh:
                return given
            if given is not None:
                given.drop()  # makes room for a new one
        raise Unreached(f"{self._origin}: the client is closed")

    async def _next(self, ends_at: float) -> Connection | None:
        """The next connection that gets free, or None when a new one may be made."""
        waiting: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout_at(ends_at):
                return await waiting
        except BaseException as error:
            if waiting.done() and not waiting.cancelled():
                self._return(waiting.result())  # it came too late for us
            if isinstance(error, TimeoutError):
                raise Unreached(f"{self._origin}: none of {self._most} connections got free in time") from None
            raise

    async def _connect(self, ends_at: float) -> Connection:
        loop = asyncio.get_running_loop()
        self._count += 1
        try:
            async with asyncio.timeout_at(min(ends_at, loop.time() + self._connect_timeout_s)):
                connection = await self._open(loop)
        except BaseException as error:
            self._count -= 1
            self._hand_on(None)
            if isinstance(error, OSError):  # of which TimeoutError and ssl.SSLError are two
                raise Unreached(f"{self._origin} cannot be reached: {str(error) or 'no connection in time'}") from error
            raise
        self._standing.add(connection)
        if self._is_closed:
            connection.drop()
        return connection

    async def _open(self, loop: asyncio.AbstractEventLoop) -> Connection:
        """A new connection, straight or through the proxy.

        Raises:
            OSError: there is none.

        """

        def made() -> Connection:
            return Connection(self._idle_s, self._return, self._gone)

        if not self._is_secure:
            return (await loop.create_connection(made, self._address, self._port))[1]
        if self._proxy is not None:
            return await self._proxy.connect(made(), self._address, self._port, self._context())
        _, connection = await loop.create_connection(
            made, self._address, self._port, ssl=self._context(), server_hostname=self._address
        )
        return connection

    def _return(self, connection: Connection | None) -> None:
        """Take back a connection that may be used again, or None: the right to make one."""
        if not self._hand_on(connection) and connection is not None:
            self._free.append(connection)

    def _gone(self, connection: Connection) -> None:
        """Take note that a connection is no more: another one may be."""
        if connection not in self._standing:
            return  # it broke while it was being made, which `_connect` sees
        self._standing.remove(connection)
        self._count -= 1
        if connection in self._free:
            self._free.remove(connection)
        self._hand_on(None)

    def _hand_on(self, connection: Connection | None) -> bool:
        """Give who waits longest a connection, or the right to make one; False if nobody waits."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(connection)
                return True
        return False

    def close(self) -> None:
        """Close all connections; who waits for one is told."""
        self._is_closed = True
        for connection in list(self._standing):
            connection.drop()
        while self._hand_on(None):
            pass


def parts_of(origin: str) -> tuple[bool, str, str, int]:
    """What there is to know of an origin: whether it is secure, what stands in `Host`, the host, the port.

    Raises:
        ValueError: that is no origin.

    """
    scheme, _, authority = origin.partition("://")
    scheme = scheme.lower()
    name, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):  # an address of IPv6 has colons of its own
        name, port = authority, ""
    if scheme not in _PORTS or not name or "@" in authority or not (port or "0").isdecimal():
        raise ValueError(f"url: expected http or https, a host and perhaps a port, got {origin!r}")
    number = int(port) if port else _PORTS[scheme]
    shown = name if number == _PORTS[scheme] else f"{name}:{number}"
    return scheme == "https", shown, name.strip("[]"), number
