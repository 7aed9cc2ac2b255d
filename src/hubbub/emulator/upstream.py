"""The proxies that this machine's own environment names: where there is no other way out, ours goes on through them."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import logging
import ssl
from collections.abc import Mapping
from typing import Self
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed does not know it

import msgspec

logger = logging.getLogger("hubbub.emulator")

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

MAX_ANSWER_BYTES = 16 * 1024


class Through(msgspec.Struct, frozen=True):
    """A proxy on the way.

    Attributes:
        url: as the environment has it.
        host, port: where it is.
        secure: whether TLS is spoken with it.
        fields: header lines that it wants with each request.

    """

    url: str
    host: str
    port: int
    secure: bool = False
    fields: bytes = b""

    @classmethod
    def parse(cls, url: str) -> Self | None:
        """The proxy of `http://user:password@host:port`; None, and a word in the log, for what is no such thing."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            host, port, secure = parts.hostname, parts.port, parts.scheme == "https"
        except ValueError:
            host = None
        if not host or parts.scheme not in ("http", "https"):
            logger.warning("the proxy %r of the environment is not used: expected http://host:port", url)
            return None
        fields = b""
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            fields = b"Proxy-Authorization: Basic " + base64.b64encode(user) + b"\r\n"
        return cls(url, host, port or (443 if secure else 80), secure, fields)

    async def open(self) -> Streams:
        """A connection to the proxy itself."""
        tls = ssl.create_default_context() if self.secure else None
        return await asyncio.open_connection(self.host, self.port, ssl=tls, limit=MAX_ANSWER_BYTES)

    async def connect(self, host: str, port: int) -> Streams:
        """A connection through the proxy to a host's port.

        Raises:
            OSError: the proxy cannot be reached, or refuses.

        """
        reader, writer = await self.open()
        try:
            there = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            writer.write(f"CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n".encode() + self.fields + b"\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            line = head.partition(b"\r\n")[0].decode("latin-1")
            if line.split(" ")[1:2] != ["200"]:
                raise ConnectionError(f"the proxy {self.host}:{self.port} says {line!r}")
        except BaseException as error:
            writer.transport.abort()
            if isinstance(error, asyncio.IncompleteReadError | asyncio.LimitOverrunError):
                raise ConnectionError(f"the proxy {self.host}:{self.port} does not speak HTTP") from error
            raise
        return reader, writer


class Upstream:
    """What an environment says of proxies: `https_proxy`, `http_proxy`, `all_proxy` and `no_proxy`, in either case.

    Attributes:
        plain, secure: the proxies for http and https; None to go straight.

    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        def named(name: str) -> str:
            return environment.get(name) or environment.get(name.upper()) or ""

        def proxy(name: str) -> Through | None:
            url = named(name) or named("all_proxy")
            return Through.parse(url) if url else None

        self._no_proxy = named("no_proxy")
        self.plain = proxy("http_proxy")
        self.secure = proxy("https_proxy")

    def way(self, host: str, *, secure: bool) -> Through | None:
        """The proxy on the way to a host; None to go straight."""
        through = self.secure if secure else self.plain
        if through is None or _is_loopback(host) or proxy_bypass_environment(host, {"no": self._no_proxy}):
            return None
        return through


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
