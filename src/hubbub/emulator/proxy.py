"""A forward proxy for functions: `https://{api}.execute-api.{region}.amazonaws.com` leads to the API on this machine.

Code that builds that address needs no change, and nothing on the machine does either: functions are told of the proxy
by environment variables. TLS is not opened here; the bytes go to the gateway's port, which has a certificate for the
name (`hubbub.emulator.trust`). All other hosts are connected to as they would be without us.
Source: RFC 9110, section 9.3.6 (CONNECT) and section 7.6 (forwarding); RFC 9112, section 3.2.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Coroutine, Mapping
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import msgspec

from hubbub.emulator.upstream import Streams, Upstream
from hubbub.listening import close_server

logger = logging.getLogger("hubbub.emulator")

NOT_PROXIED = ("localhost", "127.0.0.1", "::1")
"""What functions reach without the proxy; httpx does not read the last one in brackets."""

PIECE_BYTES = 64 * 1024

LINGER_S = 2.0
"""How long a client may take to read that it is refused."""

_EXECUTE_API = re.compile(r"([a-z0-9-]+)\.execute-api\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?")

_HOP_BY_HOP = {b"connection", b"keep-alive", b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"upgrade"}


class Address(NamedTuple):
    """Where something listens."""

    host: str
    port: int


class ProxyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for a proxy's connections; times in seconds.

    Attributes:
        head_s, max_head_bytes: how long a request's head may take, and be.
        connect_s: how long connecting on may take.
        half_open_s: how long the second direction may be silent when the first has ended.
        max_connections: how many there may be at a time.

    """

    head_s: float = 10.0
    max_head_bytes: int = 16 * 1024
    connect_s: float = 10.0
    half_open_s: float = 120.0
    max_connections: int = 1_024


class Refusal(Exception):
    """A request is not carried out; the message is for who reads a function's log."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Proxy:
    """A forward proxy on a free port of the loopback: `async with Proxy({"abcdef1234": ("127.0.0.1", 3001)}) as proxy`.

    Args:
        apis: where APIs listen, for TLS too, by their ids.
        hosts: the same for custom domains, by name.
        limits: what holds for connections.
        environment: whose proxies are used for all other hosts; ours by default.

    Attributes:
        port: where it listens; set in the block.

    """

    port: int

    def __init__(
        self,
        apis: Mapping[str, tuple[str, int]],
        *,
        hosts: Mapping[str, tuple[str, int]] | None = None,
        limits: ProxyLimits | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._apis = {name.lower(): Address(*address) for name, address in apis.items()}
        self._hosts = {name.lower(): Address(*address) for name, address in (hosts or {}).items()}
        self._limits = limits or ProxyLimits()
        self._upstream = Upstream(environment)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def __repr__(self) -> str:
        return f"<Proxy {self.url if self._server else 'not started'}, {len(self._tasks)} connections>"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", 0, limit=self._limits.max_head_bytes, backlog=128
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        server, self._server = self._server, None
        if server is not None:
            close_server(server)
            while self._tasks:
                for task in self._tasks:
                    task.cancel()
                await asyncio.wait(self._tasks)
            await server.wait_closed()

    @property
    def url(self) -> str:
        """Where it is, for `HTTPS_PROXY`."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """What leads functions' HTTPS through it, and plain HTTP where that needs a proxy here anyway.

        This environment's own `no_proxy` is not passed on: it may name `amazonaws.com`. We keep to it ourselves.
        """
        apart = ",".join(NOT_PROXIED)
        found = {"HTTPS_PROXY": self.url, "https_proxy": self.url, "NO_PROXY": apart, "no_proxy": apart}
        if self._upstream.plain is not None:
            found |= {"HTTP_PROXY": self.url, "http_proxy": self.url}
        return found

    # Connections

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            writer.transport.abort()  # it was accepted just before the end
            return
        task = asyncio.get_running_loop().create_task(self._serve((reader, writer)), name="hubbub proxied connection")
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, writer))

    def _ended(self, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        # Here, since a task that is cancelled before it has begun does nothing. Nothing is left to be sent.
        writer.transport.abort()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a proxied connection failed: %r", error, exc_info=error)

    async def _serve(self, client: Streams) -> None:
        """One connection, from its request to its end."""
        try:
            if len(self._tasks) > self._limits.max_connections:
                raise Refusal(503, f"the proxy has at most {self._limits.max_connections} connections")
            head = await self._head(client[0])
            if head:
                await self._carry_out(client, head)
        except Refusal as refusal:
            logger.warning("proxy: %s", refusal)  # botocore keeps to itself why it could not connect
            await _refuse(client, refusal)
        except OSError as error:
            logger.debug("proxy: a connection was cut: %s", error)

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        """A request's head with the empty line after it; nothing where the client has closed.

        Raises:
            Refusal: it is too long or too slow.

        """
        try:
            async with asyncio.timeout(self._limits.head_s):
                return await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""
        except asyncio.LimitOverrunError as error:
            words = f"the head of a request has at most {self._limits.max_head_bytes} bytes"
            raise Refusal(431, words) from error
        except TimeoutError as error:
            raise Refusal(408, f"the head of a request takes at most {self._limits.head_s:g} s") from error

    async def _carry_out(self, client: Streams, head: bytes) -> None:
        line, _, fields = head.partition(b"\r\n")
        method, _, rest = line.decode("latin-1").partition(" ")
        target = rest.rpartition(" ")[0]
        there = await (self._begin_tunnel(target) if method == "CONNECT" else self._forward(method, target, fields))
        try:
            if method == "CONNECT":
                client[1].write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await _Tunnel(client, there, self._limits.half_open_s).run()
        finally:
            there[1].transport.abort()  # nothing is left to be sent, or nobody to send it to

    async def _begin_tunnel(self, target: str) -> Streams:
        """Connect to the authority of a CONNECT.

        Raises:
            Refusal: it is none, there is no such API here, or nobody answers.

        """
        host, port = _authority(target)
        here = self._here(host, port)
        if here is not None:
            return await self._open(host, asyncio.open_connection(*here))
        through = self._upstream.way(host, secure=True)
        if through is not None:
            return await self._open(host, through.connect(host, port))
        return await self._open(host, asyncio.open_connection(host, port))

    async def _forward(self, method: str, target: str, fields: bytes) -> Streams:
        """Send a request for plain HTTP on; one for each connection, so what follows is bytes in both directions.

        Raises:
            Refusal: its target is none, or nobody answers.

        """
        host, port, path = _absolute(target)
        if _EXECUTE_API.fullmatch(host.lower()):
            raise Refusal(502, f"{host} speaks TLS only, as on AWS: use https")
        through = self._upstream.way(host, secure=False)
        opening = asyncio.open_connection(host, port) if through is None else through.open()
        there = await self._open(host, opening)
        line = f"{method} {path if through is None else target} HTTP/1.1\r\n".encode("latin-1")
        there[1].write(line + (b"" if through is None else through.fields) + _forwarded(fields))
        return there

    def _here(self, host: str, port: int) -> Address | None:
        """Where a host is on this machine; None for those that are elsewhere.

        Raises:
            Refusal: it would be an API of ours, and there is no such API.

        """
        name = host.lower()
        api = _EXECUTE_API.fullmatch(name)
        found = self._apis.get(api[1]) if api is not None else self._hosts.get(name)
        if api is not None and found is None:
            known = ", ".join(self._apis) or "none"
            raise Refusal(502, f"there is no API {api[1]} here; those there are: {known}")
        if found is not None and port != 443:
            raise Refusal(502, f"{host} listens on port 443, as on AWS, not on {port}")
        return found

    async def _open(self, host: str, opening: Coroutine[Any, Any, Streams]) -> Streams:
        """What opens a connection, with its bound and its failures made refusals."""
        try:
            async with asyncio.timeout(self._limits.connect_s):
                return await opening
        except TimeoutError as error:
            raise Refusal(504, f"no connection to {host} within {self._limits.connect_s:g} s") from error
        except (OSError, UnicodeError) as error:  # the latter for names that no resolver takes
            raise Refusal(502, f"no connection to {host}: {error}") from error


class _Tunnel:
    """Bytes in both directions until both have ended, or one breaks."""

    def __init__(self, client: Streams, there: Streams, half_open_s: float) -> None:
        self._client = client
        self._there = there
        self._half_open_s = half_open_s
        self._bound = asyncio.timeout(None)  # set when one direction has ended, put off by what comes in the other

    async def run(self) -> None:
        """Return when it is over, and what was to be sent is sent; who calls aborts what is left.

        Raises:
            OSError: a connection broke.

        """
        first = asyncio.ensure_future(self._pump(self._client[0], self._there[1]))
        second = asyncio.ensure_future(self._pump(self._there[0], self._client[1]))
        try:
            async with self._bound:
                await asyncio.wait({first, second}, return_when=asyncio.FIRST_EXCEPTION)
                if not any(each.exception() for each in (first, second) if each.done()):
                    await self._flush()
        except TimeoutError:
            logger.debug("proxy: a tunnel was half open and silent for %g s", self._half_open_s)
        finally:
            for each in (first, second):
                each.cancel()
            await asyncio.wait({first, second})
        for each in (first, second):
            if not each.cancelled():
                each.result()

    async def _flush(self) -> None:
        """Let both sides have what is still on its way to them."""
        for _, writer in (self._client, self._there):
            writer.close()
            await writer.wait_closed()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """One direction, at the pace of who reads; its end is passed on."""
        while data := await source.read(PIECE_BYTES):
            sink.write(data)
            await sink.drain()
            if self._bound.when() is not None:
                self._put_off()
        if sink.can_write_eof():
            sink.write_eof()
        self._put_off()

    def _put_off(self) -> None:
        if not self._bound.expired():
            self._bound.reschedule(asyncio.get_running_loop().time() + self._half_open_s)


def _authority(target: str) -> Address:
    """The `host:port` of a CONNECT.

    Raises:
        Refusal: it is none.

    """
    host, _, port = target.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65_536:
        raise Refusal(400, f"expected CONNECT host:port, got {target!r}")
    return Address(host, int(port))


def _absolute(target: str) -> tuple[str, int, str]:
    """The host, port and path of `http://host:port/path`.

    Raises:
        Refusal: it is none.

    """
    try:
        parts = urlsplit(target)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if not host or parts.scheme != "http":
        raise Refusal(400, f"this is a proxy: expected CONNECT host:port or http://host/path, got {target!r}")
    return host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _forwarded(fields: bytes) -> bytes:
    """A head's fields as they go on: without those for this hop, and with the wish to close afterwards.

    An upgrade is asked for on each hop anew, so that stays (RFC 9110, section 7.8).
    """
    lines = [line for line in fields.split(b"\r\n") if line]
    names = {line.partition(b":")[0].strip().lower(): line.partition(b":")[2].strip() for line in lines}
    options = {each.strip().lower() for each in names.get(b"connection", b"").split(b",")}
    dropped = (_HOP_BY_HOP | options) - ({b"upgrade"} if b"upgrade" in options else set())
    kept = [line for line in lines if line.partition(b":")[0].strip().lower() not in dropped]
    kept.append(b"Connection: upgrade" if b"upgrade" in options else b"Connection: close")
    return b"\r\n".join([*kept, b"", b""])


async def _refuse(client: Streams, refusal: Refusal) -> None:
    """Answer with a status and why; clients of CONNECT show no more than the first line, so it is there as well."""
    reader, writer = client
    words = str(refusal).encode("ascii", "replace").decode()
    line = re.sub(r"[^ -~]+", " ", words)[:300]
    body = f"{words}\n"
    writer.write(
        f"HTTP/1.1 {refusal.status} {line}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        f"Connection: close\r\n\r\n{body}".encode()
    )
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(LINGER_S):
            await writer.drain()
            writer.write_eof()
            while await reader.read(PIECE_BYTES):
                pass  # a socket that is closed with something unread is reset, and its last words with it
