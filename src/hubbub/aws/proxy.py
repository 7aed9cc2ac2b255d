"""The proxy that an environment names for `https`, and how a host is reached through it.

Nothing of a call is seen by the proxy but the name of the host: TLS is spoken with the host itself.
Source: RFC 9110, section 9.3.6 (CONNECT).
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Mapping
from typing import NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

MAX_HEAD_BYTES = 16 * 1024
"""The longest head of an answer to CONNECT."""

ProtocolT = TypeVar("ProtocolT", bound=asyncio.Protocol)


class Proxy(NamedTuple):
    """A proxy.

    Attributes:
        host, port: where it is.
        fields: header lines that it wants with each request, each with its end.

    """

    host: str
    port: int
    fields: str = ""

    def __repr__(self) -> str:  # without what it wants to be told
        return f"<Proxy {self.host}:{self.port}>"

    async def connect(self, protocol: ProtocolT, host: str, port: int, context: ssl.SSLContext) -> ProtocolT:
        """Connect a protocol to a host through the proxy, with TLS.

        Raises:
            OSError: the proxy cannot be reached, or refuses, or the host is not who it should be.

        """
        loop = asyncio.get_running_loop()
        try:
            transport, opening = await loop.create_connection(_Opening, self.host, self.port)
        except OSError as error:
            raise ConnectionError(f"the proxy {self.host}:{self.port} cannot be reached: {error}") from error
        try:
            there = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            transport.write(f"CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n{self.fields}\r\n".encode("latin-1"))
            line = (await opening.head).partition(b"\r\n")[0].decode("latin-1")
            if line.split(" ")[1:2] != ["200"]:
                raise ConnectionError(f"the proxy {self.host}:{self.port} says {line!r}")
            secure = await loop.start_tls(transport, protocol, context, server_hostname=host)
            if secure is None:  # so asyncio says that it was cut meanwhile
                raise ConnectionError(f"the proxy {self.host}:{self.port} has closed the connection")
        except BaseException:
            transport.abort()
            raise
        protocol.connection_made(secure)
        return protocol


class _Opening(asyncio.Protocol):
    """Waits for the answer to CONNECT.

    Attributes:
        head: its head, once it is there.

    """

    def __init__(self) -> None:
        self.head: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self.head.done():
            return
        if b"\r\n\r\n" in self._received:
            self.head.set_result(self._received)
        elif len(self._received) > MAX_HEAD_BYTES:
            self.head.set_exception(ConnectionError("the proxy does not speak HTTP"))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.head.done():
            self.head.set_exception(ConnectionError(f"the proxy has closed the connection: {error or 'no answer'}"))


def proxy_for(host: str, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy on the way to a host; None to go straight.

    Args:
        host: its name or address.
        environment: where `HTTPS_PROXY` (or `ALL_PROXY`) and `NO_PROXY` are, in either case.

    Raises:
        ValueError: the proxy is none that we can speak with; the message does not say it, since it may have a password.

    """

    def named(name: str) -> str:
        return environment.get(name) or environment.get(name.upper()) or ""

    url = named("https_proxy") or named("all_proxy")
    if not url or any(_covers(entry.strip().lower(), host.lower()) for entry in named("no_proxy").split(",")):
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        name, port = parts.hostname, parts.port or 80
    except ValueError:
        name = None
    if not name or parts.scheme != "http":
        raise ValueError("HTTPS_PROXY: expected an address such as http://host:port")
    if parts.username is None:
        return Proxy(name, port)
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return Proxy(name, port, f"Proxy-Authorization: Basic {base64.b64encode(user).decode()}\r\n")


def _covers(entry: str, host: str) -> bool:
    """Whether an entry of `NO_PROXY` means a host: it names it, a domain that it is in, or all."""
    name = entry.lstrip(".").strip("[]")
    return bool(name) and (name in ("*", host) or host.endswith(f".{name}"))
