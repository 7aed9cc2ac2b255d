"""HTTP/1.1 as calls to AWS need it: connections that stay open, answers whole, and failures that say what was done.

Made for many small calls in little CPU time, and for processes that are frozen between calls, as Lambda's are: what
broke meanwhile is noticed before it is used. A call fails in two ways only: `Unreached`, then nothing was done, and
`Broken`, then nobody knows.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from hubbub.aws.connection import Broken, HttpResponse, Lost, Unreached
from hubbub.aws.pool import TURNS, Pool
from hubbub.aws.proxy import Proxy

__all__ = ["Broken", "HttpClient", "HttpResponse", "Unreached", "trusting"]


class HttpClient:
    """Connections that are kept open, as many for each origin as are needed at a time, up to a bound.

        async with HttpClient() as http:
            answer = await http.request("GET", "https://host/path", timeout_s=5)

    It belongs to one event loop and serves any number of requests at a time.

    Args:
        max_connections: how many are open to one origin; who finds none free waits.
        connect_timeout_s: how long one may take to stand.
        idle_s: after how long without use a connection is closed: sooner than the other side would.
        ssl: what certificates are checked with; None for the system's, or those in the file that `AWS_CA_BUNDLE` or
            `SSL_CERT_FILE` names. It is made when first needed.
        proxy: through what `https` origins are reached; None to go straight, as to all others.

    """

    def __init__(
        self,
        *,
        max_connections: int = 50,
        connect_timeout_s: float = 3.0,
        idle_s: float = 50.0,
        ssl: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        if max_connections < 1:
            raise ValueError(f"max_connections: expected at least 1, got {max_connections}")
        self._max_connections = max_connections
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._ssl = ssl
        self._proxy = proxy
        self._pools: dict[str, Pool] = {}  # by origin
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<HttpClient {list(self._pools.values())}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections; requests that are under way are `Broken`."""
        self._is_closed = True
        for pool in self._pools.values():
            pool.close()
        for _ in range(TURNS):
            await asyncio.sleep(0)  # until asyncio has let go of the sockets

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        timeout_s: float,
        repeat: bool = False,
    ) -> HttpResponse:
        """Send a request and return its answer, whatever its status.

        A connection that was kept open may be closed by the other side at the very moment at which the request is
        sent on it. Then it is sent once more on a new one, if nothing had been sent or `repeat` allows it; the answer
        says so (`is_second`).

        Args:
            method: any but `HEAD` and `CONNECT`.
            url: absolute, percent-encoded, without a fragment.
            headers: names and values, beside `Host` and `Content-Length`, which are added.
            body: all of it.
            timeout_s: for everything: a free connection, sending, the whole answer.
            repeat: whether doing it twice does what doing it once does.

        Raises:
            Unreached: surely not done.
            Broken: not known whether it was done.
            ValueError: the URL or a header cannot be sent.

        """
        origin, target = split(url)
        pool = self._pools.get(origin) or self._pool(origin)
        message = _message(method, target, pool.host, headers, body)
        ends_at = asyncio.get_running_loop().time() + timeout_s
        connection = pool.free()
        if connection is None:
            connection = await pool.connection(ends_at)
        else:
            connection = await pool.checked(connection, ends_at)
        was_used, is_second = connection.exchanges > 0, False
        try:
            return await connection.exchange(message, ends_at)
        except Unreached:
            if not was_used:
                raise
        except Lost as lost:
            if not was_used or lost.answered or not repeat:
                raise
            is_second = True
        try:
            connection = await pool.connection(ends_at, fresh=True)
            answer = await connection.exchange(message, ends_at)
        except Unreached as error:
            if is_second:
                raise Broken(str(error)) from error
            raise
        answer.is_second = is_second
        return answer

    def _pool(self, origin: str) -> Pool:
        if self._is_closed:
            raise Unreached("the client is closed")
        made = self._pools[origin] = Pool(
            origin,
            most=self._max_connections,
            connect_timeout_s=self._connect_timeout_s,
            idle_s=self._idle_s,
            context=self._context,
            proxy=self._proxy,
        )
        return made

    def _context(self) -> ssl.SSLContext:
        if self._ssl is None:
            self._ssl = trusting(os.environ)
        return self._ssl


def trusting(environment: Mapping[str, str]) -> ssl.SSLContext:
    """What certificates are checked with where nothing else is said: the AWS SDKs' variable, then OpenSSL's.

    Raises:
        ValueError: a variable names a file that holds no certificates; the message says which.

    """
    for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE"):
        if named := environment.get(name):
            try:
                return ssl.create_default_context(cafile=named)
            except OSError as error:  # of which ssl.SSLError is one
                raise ValueError(f"{name}: expected a file of certificates, got {named}: {error}") from error
    return ssl.create_default_context()


def split(url: str) -> tuple[str, str]:
    """The origin of a URL, and what is asked of it.

    Raises:
        ValueError: that is no such URL.

    """
    begin = url.find("://") + 3
    slash = url.find("/", begin)
    origin, target = (url, "/") if slash < 0 else (url[:slash], url[slash:])
    if begin < 3 or "#" in url or "?" in origin:
        raise ValueError(f"url: expected scheme://host/path without a fragment, got {url!r}")
    return origin, target


def _message(method: str, target: str, host: str, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
    """A request's bytes.

    Raises:
        ValueError: its head would be another one than was meant, or its answer has no body where its head says so.

    """
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers])
    head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}Content-Length: {len(body)}\r\n\r\n"
    lines = len(headers) + 4
    if head.count("\n") != lines or head.count("\r") != lines or " " in target or method in ("HEAD", "CONNECT"):
        raise ValueError(f"request: expected a head of one line each, and no HEAD or CONNECT; got {method} {target!r}")
    return head.encode("latin-1") + body
