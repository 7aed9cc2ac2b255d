"""One connection of HTTP/1.1 that carries one exchange at a time, and what can come of an exchange.

The one home of `httptools`' response parser. Source: RFC 9110 and RFC 9112.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import cast

import httptools

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""The longest answer that is read: twice what a DynamoDB call can return."""

STALE_S = 1.0
"""After how long without use it had better be looked whether a connection still stands."""


class Unreached(Exception):
    """The request was surely not done: there was no connection to send it on."""


class Broken(Exception):
    """It is not known whether the request was done: the connection broke, or no answer came in time."""


class Lost(Broken):
    """The connection broke while a request was under way on it.

    Attributes:
        answered: whether any of the answer had come.

    """

    def __init__(self, message: str, *, answered: bool) -> None:
        super().__init__(message)
        self.answered = answered


class HttpResponse:
    """An answer, whole.

    Attributes:
        status: the HTTP status.
        body: decoded from its transfer coding.
        is_second: whether the request was sent twice, and may have been done by the first time.

    """

    __slots__ = ("_fields", "_headers", "body", "is_second", "status")

    def __init__(self, status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        self.status = status
        self.body = body
        self.is_second = False
        self._fields = fields
        self._headers: dict[str, str] | None = None  # made when asked for: most callers look at the status alone

    def __repr__(self) -> str:
        return f"<HttpResponse {self.status}, {len(self.body)} bytes>"

    @property
    def headers(self) -> dict[str, str]:
        """By lower-case name; what came several times is joined by commas (RFC 9110, section 5.3)."""
        if self._headers is None:
            found: dict[str, str] = {}
            for name, value in self._fields:
                key, text = name.decode("latin-1").lower(), value.decode("latin-1")
                found[key] = f"{found[key]}, {text}" if key in found else text
            self._headers = found
        return self._headers


class Connection(asyncio.Protocol):
    """A connection.

    One timer serves both bounds, that of the exchange under way and that of idleness, and is moved when it fires and
    not with each request: that costs less than a timer for each.

    Args:
        idle_s: after how long without use it is closed.
        on_free: called when another exchange may begin on it.
        on_gone: called when it is no more.

    Attributes:
        exchanges: how many have begun on it.

    """

    __slots__ = (
        "_answer",
        "_answered",
        "_body",
        "_ends_at",
        "_fields",
        "_has_length",
        "_idle_s",
        "_is_alive",
        "_loop",
        "_on_free",
        "_on_gone",
        "_parser",
        "_size",
        "_timer",
        "_transport",
        "_used_at",
        "_used_at_s",
        "exchanges",
    )

    def __init__(
        self, idle_s: float, on_free: Callable[[Connection], None], on_gone: Callable[[Connection], None]
    ) -> None:
        self._idle_s = idle_s
        self._on_free = on_free
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None  # None before there is one, and when it is no more
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[HttpResponse] | None = None  # None while no exchange is under way
        self._answered = False  # whether anything of the answer has come
        self._is_alive = True  # whether it may carry another exchange
        self._has_length = False  # whether the answer says where it ends
        self._fields: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._size = 0
        self._ends_at = 0.0  # the loop's time at which the exchange, or idleness, has taken too long
        self._timer: asyncio.TimerHandle | None = None
        self._used_at = 0.0  # the loop's time of the last exchange's end
        self._used_at_s = 0.0  # likewise by the clock on the wall, which goes on while the process is frozen
        self.exchanges = 0

    def __repr__(self) -> str:
        state = "under way" if self._answer else "free" if self.is_open else "closed"
        return f"<Connection {state}, {self.exchanges} exchanges>"

    @property
    def is_open(self) -> bool:
        """Whether another exchange can begin on it, as far as is known."""
        return self._is_alive and self._transport is not None and not self._transport.is_closing()

    @property
    def unused_s(self) -> float:
        """How long it has not been used; 0 if it never was."""
        if not self.exchanges:
            return 0.0
        return max(self._loop.time() - self._used_at, time.time() - self._used_at_s)

    async def exchange(self, message: bytes, ends_at: float) -> HttpResponse:
        """Send a request and return its answer.

        Args:
            message: the request's bytes.
            ends_at: the loop's time until when the answer must be there.

        Raises:
            Unreached: nothing was sent.
            Lost: the connection broke meanwhile.
            Broken: there is no answer in time, or none of HTTP.

        """
        transport = self._transport
        self.exchanges += 1
        if transport is None or transport.is_closing():
            raise Unreached("the connection was closed")
        answer: asyncio.Future[HttpResponse] = self._loop.create_future()
        self._answer = answer
        self._answered = False
        self._end_at(ends_at)
        transport.write(message)
        try:
            return await answer
        except asyncio.CancelledError:
            self.drop()  # an answer that nobody waits for would be taken for the next one's
            raise

    def drop(self) -> None:
        """Close it at once."""
        self._is_alive = False
        if self._transport is not None:
            self._transport.abort()

    def _end_at(self, at: float) -> None:
        """Set the bound of what goes on now; a timer that fires before it is moved when it does."""
        self._ends_at = at
        if self._timer is not None and self._timer.when() > at:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(at, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if self._loop.time() < self._ends_at:
            self._end_at(self._ends_at)
            return
        self._fail(Broken("no answer in time"))

    def _fail(self, error: Broken) -> None:
        """End the exchange, if one is under way, and the connection."""
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error)
        self.drop()

    # What asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There is a socket."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._used_at, self._used_at_s = self._loop.time(), time.time()

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        if self._answer is None:
            self.drop()  # nothing was asked
            return
        self._answered = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(Broken("the answer changes the protocol, which was not asked for"))
        except httptools.HttpParserError as error:
            self._fail(Broken(f"the answer is no HTTP: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is no more."""
        self._transport = None
        self._is_alive = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._answered and self._fields and not self._has_length and error is None:
            self._finish()  # an answer without a length ends with its connection (RFC 9112, section 6.3)
        said = f"the connection broke: {error}" if error else "the connection was closed before the answer was whole"
        self._fail(Lost(said, answered=self._answered))
        self._on_gone(self)

    # What the parser tells

    def on_message_begin(self) -> None:
        """A status line begins."""
        self._fields = []
        self._body = []
        self._size = 0
        self._has_length = True  # until its whole head is there

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._grow(len(name) + len(value))
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._has_length = any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self._fields)
        if not self._parser.should_keep_alive():
            self._is_alive = False

    def on_body(self, part: bytes) -> None:
        """A part of the body."""
        self._grow(len(part))
        self._body.append(part)

    def on_message_complete(self) -> None:
        """The answer is whole, unless it is one that only says that it will come (RFC 9110, section 15.2)."""
        if self._parser.get_status_code() >= 200:
            self._finish()

    def _grow(self, by: int) -> None:
        self._size += by
        if self._size > MAX_ANSWER_BYTES:
            self._fail(Broken(f"the answer has more than {MAX_ANSWER_BYTES} bytes"))

    def _finish(self) -> None:
        answer, self._answer = self._answer, None
        if answer is None or answer.done():
            self.drop()  # it was given up, or is a second one
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        answer.set_result(HttpResponse(self._parser.get_status_code(), self._fields, body))
        if not self.is_open:
            self.drop()
            return
        self._used_at, self._used_at_s = self._loop.time(), time.time()
        self._end_at(self._used_at + self._idle_s)
        self._on_free(self)
