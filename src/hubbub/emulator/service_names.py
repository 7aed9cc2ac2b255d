"""AWS's own names for its services, led to where the services are here: for SDKs that heed no `AWS_ENDPOINT_URL`.

Version 2 of the AWS SDK for JavaScript and early releases of version 3 call `https://dynamodb.{region}.amazonaws.com`
whatever the environment says. Node.js functions' connections to such names come here (see `network.mjs` among the
bootstraps): TLS ends, the name in the request's `Host` says which service is meant, and the bytes go on to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
from collections.abc import Callable, Coroutine
from functools import partial
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from hubbub.listening import close_server

logger = logging.getLogger("hubbub.emulator")

HEAD_WITHIN_S = 10.0
"""How long the head of the first request may take."""

MAX_HEAD_BYTES = 64 * 1024

PIECE_BYTES = 64 * 1024

_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]{1,2}")


def service_of(host: str) -> str | None:
    """The service that a name of AWS's is for, as in `dynamodb.eu-west-1.amazonaws.com`; None for other names.

    What is before the service (a bucket, `streams.`) is not part of it.
    """
    name = host.lower().partition(":")[0].removesuffix(".cn")
    if not name.endswith(".amazonaws.com"):
        return None
    labels = [label for label in name.removesuffix(".amazonaws.com").split(".") if not _REGION.fullmatch(label)]
    return labels[-1] if labels and labels[-1] else None


class ServiceNames:
    """Ends TLS for AWS's names and hands what comes on: `async with ServiceNames(context, endpoint) as names: …`.

    Args:
        tls: has certificates for the names.
        endpoint: where a service is, as a URL of plain HTTP.

    Attributes:
        address: `host:port`, where it listens; set in the block.

    """

    address: str

    def __init__(self, tls: ssl.SSLContext, endpoint: Callable[[str], str]) -> None:
        self._tls = tls
        self._endpoint = endpoint
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", 0, ssl=self._tls, limit=MAX_HEAD_BYTES, backlog=128
        )
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        server, self._server = self._server, None
        if server is not None:
            close_server(server)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            writer.transport.abort()  # it was accepted just before the end
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="hubbub service name")
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, writer))

    def _ended(self, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        writer.transport.abort()  # here, since a task that is cancelled before it has begun does nothing

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(HEAD_WITHIN_S):
                head = await reader.readuntil(b"\r\n\r\n")
            host = _host_in(head)
            service = service_of(host)
            if service is None:
                logger.warning("a function called %r as if it were AWS's", host)
                return
            url = urlsplit(self._endpoint(service))
            back, there = await asyncio.open_connection(url.hostname, url.port or 80)
            there.write(head)
            await _both(_pump(reader, there), _pump(back, writer))
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            logger.debug("a function's connection to a service ended: %r", error)
        finally:
            if there is not None:
                there.transport.abort()


def _host_in(head: bytes) -> str:
    """What a request's head says of the host; empty for nothing."""
    fields = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    found: bytes = next((value for name, _, value in fields if name.strip().lower() == b"host"), b"")
    return found.strip().decode("latin-1")


async def _both(*pumps: Coroutine[None, None, None]) -> None:
    """Return when one direction has ended: HTTP's connections have no use when they are half open."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await task


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(PIECE_BYTES):
        sink.write(data)
        await sink.drain()
