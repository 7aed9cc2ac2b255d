"""One WebSocket of the load test: the handshake, what is sent, and bytes that come handed to the reader.

It speaks on asyncio's protocols and not through a library, since thousands of listeners in one process leave a few
microseconds for each; what is rare (frames to the server) is the library's.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import socket
import ssl
import sys
from collections.abc import Sequence
from typing import Protocol, cast
from urllib.parse import urlsplit

import msgspec
from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Close, Frame, Opcode
from websockets.headers import build_extension, parse_extension
from websockets.utils import accept_key

from hubbub.loadtest.frames import BadFrame, Control, Item, Reader
from hubbub.protocol import SUBPROTOCOL, TOKEN_SUBPROTOCOL_PREFIX

_IP_BIND_ADDRESS_NO_PORT = 24
"""Linux: the port is chosen when the target is known, so that an address has all its ports for each target."""

_SLOW_BUFFER = 4096
"""Bytes that the kernel receives for a connection that does not read: the server is to notice soon."""

_LONGEST_HEAD = 64 * 1024
_MOST_ADDRESSES = 64
_LISTENS_WITHIN_S = 3.0

Address = tuple[int, str, int]
"""A family of addresses, one of them, and a port."""

_DEFLATE = ClientPerMessageDeflateFactory(
    server_no_context_takeover=True, client_no_context_takeover=True, client_max_window_bits=None
)
_OFFER = build_extension([(_DEFLATE.name, list(_DEFLATE.get_request_params()))])


class NotConnected(Exception):
    """No connection came to be.

    Attributes:
        status: of the HTTP response, if there was one.
        retry_after_s: what it says of when to come again.

    """

    def __init__(self, words: str, status: int | None = None, retry_after_s: float = 0.0) -> None:
        super().__init__(words)
        self.status = status
        self.retry_after_s = retry_after_s


class Owner(Protocol):
    """Who is told what a connection brings."""

    def got(self, items: Sequence[Item], size: int) -> None:
        """Frames came, in so many bytes."""
        ...

    def ended(self, code: int, reason: str) -> None:
        """It stood, and has ended."""
        ...


class Target(msgspec.Struct, frozen=True):
    """Where to connect.

    Attributes:
        host, path, secure: the parts of the URL; the path with its query.
        header: the value of `Host`.
        deflates: whether permessage-deflate is offered there.
        addresses: what the host's name means, and somebody listens at.

    """

    host: str
    path: str
    secure: bool
    header: str
    deflates: bool
    addresses: list[Address]

    def address_of(self, member: int) -> Address:
        """Where a connection goes: to all addresses in turn."""
        return self.addresses[member % len(self.addresses)]


async def find(url: str, *, deflates: bool = True, v4: bool = False) -> Target:
    """Where a URL leads.

    A name may have several addresses, as `localhost` has one of IPv6, and nobody listen at some of them.

    Args:
        url: of the WebSocket.
        deflates: whether to offer permessage-deflate.
        v4: whether only addresses of IPv4 are of use.

    Raises:
        NotConnected: its host is not known.

    """
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    family = socket.AF_INET if v4 else socket.AF_UNSPEC
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
    except OSError as error:
        raise NotConnected(f"the host {host!r} is not known: {error.strerror or error}") from None
    addresses = list(dict.fromkeys((int(family), str(where[0]), int(where[1])) for family, _, _, _, where in found))
    if len(addresses) > 1:
        answers = await asyncio.gather(*map(_listens, addresses[:_MOST_ADDRESSES]))
        heard = [each for each, answered in zip(addresses, answers, strict=False) if answered] or addresses
        addresses = [each for each in heard if each[0] == heard[0][0]]
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(host, path, secure, parts.netloc.rpartition("@")[2], deflates, addresses)


async def _listens(address: Address) -> bool:
    plain = socket.socket(address[0], socket.SOCK_STREAM)
    plain.setblocking(False)
    with plain, contextlib.suppress(OSError):
        async with asyncio.timeout(_LISTENS_WITHIN_S):
            await asyncio.get_running_loop().sock_connect(plain, address[1:])
            return True
    return False


def trust(ca: str | None) -> ssl.SSLContext:
    """Whom to trust over TLS: whom the system does, and a file of certificates.

    Raises:
        NotConnected: the certificates cannot be read.

    """
    found = ssl.create_default_context()
    if ca is not None:
        try:
            found.load_verify_locations(ca)
        except (OSError, ssl.SSLError) as error:
            raise NotConnected(f"ca: expected certificates in PEM form in {ca}: {error}") from None
    return found


class Wire(asyncio.Protocol):
    """A connection, from the handshake to its end.

    Attributes:
        deflates: whether permessage-deflate was agreed to.

    """

    def __init__(self, owner: Owner, reader: Reader, inflating: Reader, target: Target, token: str) -> None:
        self.deflates = False
        self._owner: Owner | None = owner
        self._target = target
        self._reader = reader
        self._inflating = inflating  # is the reader where compression is agreed to
        self._key = base64.b64encode(os.urandom(16)).decode()
        self._request = _head(target, self._key, token)
        self._transport: asyncio.Transport | None = None
        self._opened: asyncio.Future[None] | None = None  # while the handshake is under way
        self._rest = b""
        self._size = 0  # bytes that came since the owner was last told
        self._end: tuple[int, str] | None = None  # what the server's close frame said, or what was wrong with its bytes

    async def open(
        self, address: Address, tls: ssl.SSLContext | None, source: str | None, within_s: float, *, slow: bool
    ) -> None:
        """Connect and shake hands.

        Args:
            address: where to.
            tls: how to trust the server; None where there is no TLS.
            source: the address to come from; None for any.
            within_s: how long it may take.
            slow: whether it is going not to read.

        Raises:
            NotConnected: the server is not there, does not answer in time, or refuses.

        """
        loop = asyncio.get_running_loop()
        self._opened = opened = loop.create_future()
        plain = _socket(address[0], source, slow=slow)
        try:
            async with asyncio.timeout(within_s):
                await loop.sock_connect(plain, address[1:])
                await loop.create_connection(
                    lambda: self, sock=plain, ssl=tls, server_hostname=self._target.host if tls else None
                )
                await opened
        except TimeoutError:
            self._drop(plain)
            raise NotConnected(f"no answer within {within_s:g} s") from None
        except ssl.SSLError as error:
            self._drop(plain)
            raise NotConnected(f"TLS: {_NO_TLS.get(error.reason) or _words(error)}") from None
        except OSError as error:
            self._drop(plain)
            raise NotConnected(os.strerror(error.errno) if error.errno else str(error)) from None
        except BaseException:
            self._drop(plain)
            raise

    def _drop(self, plain: socket.socket) -> None:
        if self._opened is not None:
            self._opened.cancel()
            self._opened = None
        if self._transport is not None:
            self._transport.abort()
        else:
            plain.close()

    def send(self, payload: bytes) -> None:
        """Send a text frame."""
        if self._transport is not None:
            self._transport.write(Frame(Opcode.TEXT, payload).serialize(mask=True))

    def close(self) -> None:
        """Say goodbye."""
        if self._transport is not None:
            with contextlib.suppress(RuntimeError):  # not reading
                self._transport.resume_reading()
            self._transport.write(Frame(Opcode.CLOSE, Close(1000, "").serialize()).serialize(mask=True))

    def cut(self) -> None:
        """End it without a word."""
        if self._transport is not None:
            self._transport.abort()

    def abandon(self) -> None:
        """End it, and tell nobody."""
        self._owner = None
        self.cut()

    def stop_reading(self) -> None:
        """Leave what comes to the kernel's buffers, and then to the server."""
        if self._transport is not None:
            self._transport.pause_reading()

    def read_again(self) -> None:
        """Take what waited, and what comes."""
        if self._transport is not None:
            self._transport.resume_reading()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is connected: shake hands."""
        self._transport = cast("asyncio.Transport", transport)  # of a stream, it is one that reads and writes
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._opened is not None:
            self._rest += data
            self._shake(self._opened)
            return
        self._read(self._rest + data if self._rest else data, len(data))

    def _read(self, data: bytes, size: int) -> None:
        try:
            items, used = self._reader.read(data)
        except BadFrame as error:
            self._end = 1002, str(error)
            self.cut()
            return
        self._rest = data[used:]
        self._size += size
        if items and self._owner is not None:
            size, self._size = self._size, 0
            self._owner.got(items, size)

    def answer(self, control: Control) -> None:
        """Do what a ping or a close frame asks for."""
        if self._transport is None or control.opcode == Opcode.PONG:
            return
        if control.opcode == Opcode.PING:
            self._transport.write(Frame(Opcode.PONG, control.payload).serialize(mask=True))
        elif control.opcode == Opcode.CLOSE:
            said = control.payload
            code = int.from_bytes(said[:2], "big") if len(said) >= 2 else 1005
            self._end = self._end or (code, said[2:].decode(errors="replace"))
            self._transport.write(Frame(Opcode.CLOSE, said[:2]).serialize(mask=True))
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """It ended."""
        self._transport = None
        if self._opened is not None:
            if not self._opened.done():
                self._opened.set_exception(NotConnected("the connection was closed during the handshake"))
            return
        if self._owner is not None:
            self._owner.ended(*(self._end or (1006, "")))

    def _agree(self, extensions: str) -> str:
        """Take the extensions that the server has chosen; returns what is wrong with them."""
        if not extensions:
            return ""
        try:
            for name, parameters in parse_extension(extensions):
                if name != _DEFLATE.name or not self._target.deflates or self.deflates:
                    return f"the server chose the extension {name}, which was not offered"
                _DEFLATE.process_response_params(parameters, [])
                self.deflates, self._reader = True, self._inflating
        except (InvalidHeader, NegotiationError) as error:
            return f"the server's permessage-deflate is not as it was offered: {error}; --no-deflate does without"
        return ""

    def _shake(self, opened: asyncio.Future[None]) -> None:
        head, found, rest = self._rest.partition(b"\r\n\r\n")
        if opened.done() or (not found and len(head) <= _LONGEST_HEAD):
            return
        lines = head.decode("latin-1").split("\r\n")
        status = re.match(r"HTTP/1\.[01] (\d{3})", lines[0])
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        if not found or status is None:
            opened.set_exception(NotConnected(f"what answers there is no HTTP server: {lines[0][:80]!r}"))
        elif status[1] != "101":
            length = headers.get("content-length", "")
            if length.isdecimal() and len(rest) < min(int(length), _LONGEST_HEAD):
                return
            opened.set_exception(_refusal(int(status[1]), headers, rest))
        elif headers.get("sec-websocket-accept") != accept_key(self._key):
            opened.set_exception(NotConnected("what answers there is no WebSocket server: its handshake is wrong"))
        elif headers.get("sec-websocket-protocol") != SUBPROTOCOL:
            opened.set_exception(
                NotConnected(f"what answers there is not the chat: it did not choose the subprotocol {SUBPROTOCOL}")
            )
        elif wrong := self._agree(headers.get("sec-websocket-extensions", "")):
            opened.set_exception(NotConnected(wrong))
        else:
            opened.set_result(None)
            self._opened, self._rest = None, b""
            if rest:
                self._read(rest, len(rest))


def _head(target: Target, key: str, token: str) -> bytes:
    """The request of a handshake."""
    lines = [
        f"GET {target.path} HTTP/1.1",
        f"Host: {target.header}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}, {TOKEN_SUBPROTOCOL_PREFIX}{token}",
    ]
    if target.deflates:
        lines.append(f"Sec-WebSocket-Extensions: {_OFFER}")
    return "\r\n".join([*lines, "", ""]).encode()


def _socket(family: int, source: str | None, *, slow: bool) -> socket.socket:
    plain = socket.socket(family, socket.SOCK_STREAM)
    try:
        plain.setblocking(False)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if slow:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BUFFER)
        if source is not None:
            if sys.platform == "linux":
                plain.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            plain.bind((source, 0))
    except OSError as error:
        plain.close()
        raise NotConnected(f"the source address {source}: {error.strerror}") from None
    return plain


_REDIRECTS = (301, 302, 303, 307, 308)


_NO_TLS = {
    reason: f"what answers there does not speak it ({reason}); ws:// is without"
    for reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
}


def _words(error: ssl.SSLError) -> str:
    return str(getattr(error, "verify_message", "") or error.reason or error)


class _Words(msgspec.Struct):
    message: str


def _refusal(status: int, headers: dict[str, str], body: bytes) -> NotConnected:
    words = f"the server refused the handshake with status {status}"
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        words += f": {msgspec.json.decode(body, type=_Words).message}".rstrip(".")
    if status in _REDIRECTS and "location" in headers:
        words += f": what was at this path is at {headers['location'].partition('?')[0][:200]}"
    if status == 404:
        words += "; a server of Hubbub has its WebSocket at /ws, API Gateway at the stage"
    after = headers.get("retry-after", "")
    return NotConnected(words, status, float(after) if re.fullmatch(r"\d{1,6}", after) else 0.0)
