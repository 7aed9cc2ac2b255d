"""TLS on a connection: a transport for who speaks on it, and the protocol of the socket's own transport below.

The loops have TLS of their own. This is here for what they keep for each connection: a buffer to read into, and in
OpenSSL's memory as much as the largest thing took that ever went through. Here a listener's connections share a buffer,
and OpenSSL gets small pieces. And all that waits to be written waits in the socket's transport, as it does without TLS:
bounds on it hold to the byte, and who asks for a pause gets it when something waits, not later.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from typing import Any

logger = logging.getLogger("hubbub")

READ_BYTES = 64 * 1024
"""As much as one read of a socket brings at most."""

PIECE_BYTES = 4 * 1024
"""As much of it as OpenSSL gets at a time: its memory keeps room for the largest piece it ever got."""

RECORD_BYTES = 8 * 1024
"""As much as goes out in a record at most (RFC 8446, section 5.1, allows 16 KB); that room is kept as well."""

PLAIN_BYTES = 16 * 1024
"""As much as comes in a record at most."""

MakeProtocol = Callable[[], asyncio.BaseProtocol]


def read_buffer() -> memoryview:
    """What connections of one loop may share to read into, since it reads and decrypts in one go.

    Loops in other threads need others: they read without the interpreter's lock.
    """
    return memoryview(bytearray(READ_BYTES))


class _Phase(IntEnum):
    """Where in its life a connection is."""

    SHAKING = 0  # hands: the handshake is under way
    OPEN = 1
    ENDING = 2  # our goodbye (close_notify) is said, the other's is awaited
    OVER = 3  # nothing more is read or written


_OPEN = _Phase.OPEN  # an enumeration is asked for a member by a function


class TlsTransport(asyncio.Transport, asyncio.BufferedProtocol):
    """The server's side of TLS on a connection.

    A protocol is made when the handshake is done: of one that fails nobody need know.

    Args:
        context: what TLS is spoken with.
        make: makes the protocol.
        end_s: how long the end may take, until the other has read what waits and has said goodbye too.
        buffer: what is read into, see `read_buffer`.

    Attributes:
        shaken: done when the handshake is, with nothing, or has failed, with why.

    """

    __slots__ = (
        "_buffer",
        "_context",
        "_decrypt",
        "_encrypt",
        "_encrypted",
        "_end_s",
        "_incoming",
        "_is_buffered",
        "_is_paused",
        "_late",
        "_make",
        "_outgoing",
        "_phase",
        "_protocol",
        "_raw",
        "_ssl",
        "_too_late",
        "shaken",
    )

    def __init__(self, context: ssl.SSLContext, make: MakeProtocol, end_s: float, buffer: memoryview) -> None:
        self._context = context
        self._make: MakeProtocol | None = make  # None once it has made one, or will not
        self._end_s = end_s
        self._buffer = buffer
        self._raw: Any = None  # the socket's transport, of which uvloop's have none of asyncio's classes; None before
        self._protocol: Any = None  # of one of two kinds; None before there is one, and once it was told the end
        self._is_buffered = False  # of which kind
        self._is_paused = False  # whether the protocol wants nothing for now
        self._late = b""  # what had come when it wanted no more
        self._phase = _Phase.SHAKING
        self._too_late: asyncio.TimerHandle | None = None  # ends an end that takes too long; None while there is none
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl: ssl.SSLObject | None = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._encrypt: Callable[[Any], Any] = self._ssl.write
        self._encrypted: Callable[[], bytes] = self._outgoing.read
        self._decrypt: Callable[..., Any] = self._ssl.read  # Any: bytes, or how many are in the buffer it was given
        self.shaken: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<TlsTransport {self._phase.name}{', paused' if self._is_paused else ''}>"

    # What the socket's transport tells

    def connection_made(self, transport: Any) -> None:  # Any: see _raw
        """The socket is here."""
        if self._phase is _Phase.OVER:
            transport.abort()
        else:
            self._raw = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        self._take(self._buffer[:nbytes])

    def _take(self, came: memoryview) -> None:
        for begin in range(0, len(came), PIECE_BYTES):
            if self._is_paused:
                self._late += came[begin:]
                return
            self._incoming.write(came[begin : begin + PIECE_BYTES])
            if self._phase is _Phase.OPEN:
                self._read()
            elif self._phase is _Phase.SHAKING:
                self._shake()
            elif self._phase is _Phase.ENDING:
                self._say_goodbye()
            else:
                return

    def eof_received(self) -> None:
        """The other has gone without a goodbye; what waits is still written, if it is read in time."""
        if self._phase is _Phase.SHAKING:
            self._fail("the other has closed")
        else:
            self._phase = _Phase.OVER
            self._end_in_time()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._phase = _Phase.OVER
        if self._too_late is not None:
            self._too_late.cancel()
            self._too_late = None
        self._fail(str(exc or "it was closed"))
        protocol = self._protocol
        self._let_go()
        if protocol is not None:
            protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """The socket has enough to write."""
        if self._phase is _Phase.OPEN:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The socket has room again."""
        if self._phase is _Phase.OPEN:
            self._protocol.resume_writing()

    # The handshake

    def _shake(self) -> None:
        assert self._ssl is not None and self._make is not None  # noqa: S101  while the handshake is under way
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._flush()  # why, for the other
            self._fail(str(error))
            return
        self._phase = _Phase.OPEN
        self._flush()
        protocol, self._make = self._make(), None
        self.set_protocol(protocol)
        protocol.connection_made(self)
        if not self.shaken.done():
            self.shaken.set_result("")
        self._read()

    def _fail(self, why: str) -> None:
        """The handshake has failed, if it was not done."""
        if not self.shaken.done():
            self.shaken.set_result(why)
            self.abort()

    # Reading

    def _read(self) -> None:
        """Hand on what can be decrypted, as long as it is wanted."""
        incoming = self._incoming
        while self._phase is _Phase.OPEN and not self._is_paused and (incoming.pending or self._is_decrypted()):
            protocol = self._protocol
            try:
                if self._is_buffered:
                    buffer = protocol.get_buffer(READ_BYTES)
                    came = self._decrypt(len(buffer), buffer)
                else:
                    came = self._decrypt(PLAIN_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:
                self._break(error)
                return
            if not came:
                protocol.eof_received()
                self.close()
            elif self._is_buffered:
                protocol.buffer_updated(came)
            else:
                protocol.data_received(came)
        if self._outgoing.pending and self._phase is _Phase.OPEN:
            self._flush()  # an answer of TLS's own

    def _is_decrypted(self) -> bool:
        return self._ssl is not None and self._ssl.pending() > 0

    def _read_on(self) -> None:
        try:
            self._read()
            self._take_late()
        except Exception as error:
            loop = asyncio.get_running_loop()
            loop.call_exception_handler({"message": "a protocol failed", "exception": error, "transport": self})
            self.abort()

    def _take_late(self) -> None:
        late, self._late = self._late, b""
        self._take(memoryview(late))

    def _break(self, error: ssl.SSLError) -> None:
        """What came is no TLS, or the other has said that ours is not."""
        logger.debug("a connection over TLS ends: %s", error)
        self._flush()
        self.abort()

    # The end

    def _say_goodbye(self) -> None:
        """Throw away what still comes, say goodbye, and close once the other has."""
        assert self._ssl is not None  # noqa: S101  until the socket is gone
        try:
            while self._decrypt(PLAIN_BYTES):
                pass
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        except ssl.SSLError as error:
            self._break(error)
            return
        try:
            self._ssl.unwrap()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._break(error)
            return
        self._flush()
        self._phase = _Phase.OVER
        self._raw.close()

    def _end_in_time(self) -> None:
        if self._too_late is None:
            self._too_late = asyncio.get_running_loop().call_later(self._end_s, self.abort)

    def _let_go(self) -> None:
        """Forget what cannot be used any more: OpenSSL's memory, and who would keep each other."""
        self._make = self._protocol = self._ssl = None
        self._encrypt = self._encrypted = self._decrypt = _nothing
        self._incoming, self._outgoing = _NOTHING, _NOTHING

    def _flush(self) -> None:
        data = self._encrypted()
        if data and self._raw is not None:
            self._raw.write(data)

    # What the protocol asks

    def write(self, data: Any) -> None:  # Any: bytes or what shares its memory
        """Encrypt, and write what the socket takes; the rest waits."""
        if self._phase is not _Phase.OPEN or not data:
            return
        try:
            if len(data) <= RECORD_BYTES:
                self._encrypt(data)
                encrypted = self._encrypted()
            else:
                encrypted = b"".join(self._records(memoryview(data).cast("B")))
        except ssl.SSLError as error:
            self._break(error)
            return
        self._raw.write(encrypted)

    def _records(self, data: memoryview) -> Iterator[bytes]:
        for begin in range(0, len(data), RECORD_BYTES):
            self._encrypt(data[begin : begin + RECORD_BYTES])
            yield self._encrypted()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Write them joined."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Whether only writing can end: not over TLS."""
        return False

    def close(self) -> None:
        """Write what waits, say goodbye, and close when the other has said it too, or time is up."""
        if self._phase is _Phase.SHAKING:
            self.abort()
        elif self._phase is _Phase.OPEN:
            self._phase = _Phase.ENDING
            self._end_in_time()
            if self._is_paused:
                self._is_paused = False
                self._raw.resume_reading()
            self._say_goodbye()
            self._take_late()

    def abort(self) -> None:
        """Close at once; what waits is lost."""
        self._phase = _Phase.OVER
        if self._raw is not None:
            self._raw.abort()
        if self._protocol is None:
            # Nobody is to be told; and where the loop has closed the socket itself, it tells nobody either.
            self._let_go()
            self._raw = None

    def is_closing(self) -> bool:
        """Whether nothing more is written."""
        # It is asked for each write, and to compare takes longer than to see that it is open, as it mostly is.
        return (self._phase is not _OPEN and self._phase > _OPEN) or self._raw.is_closing()

    def is_reading(self) -> bool:
        """Whether what comes is handed on."""
        return self._phase is _Phase.OPEN and not self._is_paused

    def pause_reading(self) -> None:
        """Hand nothing on, and read nothing from the socket."""
        if self.is_reading():
            self._is_paused = True
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Hand on again, first what has come already."""
        if self._is_paused and not self.is_closing():
            self._is_paused = False
            asyncio.get_running_loop().call_soon(self._read_on)
            self._raw.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Tell another one from now on."""
        self._protocol = protocol
        self._is_buffered = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self) -> Any:
        """Who is told."""
        return self._protocol

    def get_write_buffer_size(self) -> int:
        """How many bytes wait, encrypted."""
        return int(self._raw.get_write_buffer_size())

    def get_write_buffer_limits(self) -> Any:
        """See `set_write_buffer_limits`."""
        return self._raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """From when on, and until when, the protocol is asked to pause."""
        self._raw.set_write_buffer_limits(high=high, low=low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The loop's names, and `seal`: how to write past it while nothing waits, see `hubbub.gateway.outlets`."""
        match name:
            case "sslcontext":
                return self._context
            case "ssl_object":
                return self._ssl
            case "seal":
                return self._encrypt, self._encrypted, self._raw.write, RECORD_BYTES
        return self._raw.get_extra_info(name, default)


_NOTHING = ssl.MemoryBIO()
"""What stands for both of OpenSSL's memories once they are gone; nothing is ever in it."""


def _nothing(*_: Any) -> bytes:
    return b""
