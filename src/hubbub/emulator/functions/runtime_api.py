"""The Runtime API of one execution environment: how its process asks for invocations and answers them.

Each environment has an address of its own, so a process that outlives its environment cannot answer for another.
Source: docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html; error documents as AWS's runtime emulator has them.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Protocol

import httptools
import msgspec

from hubbub.listening import close_server

MAX_PAYLOAD_BYTES = 6_291_556
"""How long a response may be: 6 MB and 100 bytes."""

MAX_HEAD_BYTES = 2 * 1024 * 1024
"""How long the head of a request, or its trailers, may be: AWS's client puts up to 1 MB of a fault into a header."""

_PREFIX = b"/2018-06-01/runtime/"
_SAID_NEXT = "a runtime that has asked for the next invocation"


class Delivery(msgspec.Struct, frozen=True):
    """An invocation as a runtime gets it: `deadline_ms` in epoch milliseconds, `client_context` as JSON."""

    request_id: str
    payload: bytes
    arn: str
    deadline_ms: int
    trace_id: str
    client_context: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """What a runtime answered: `error_type` is None where it is the function's response, not an error."""

    payload: bytes
    error_type: str | None = None


class Host(Protocol):
    """What stands behind a Runtime API."""

    def asked(self) -> None:
        """The runtime waits for an invocation."""

    def answered(self, answer: Answer) -> None:
        """The runtime has answered the one that it was given."""

    def init_failed(self, answer: Answer) -> None:
        """The runtime could not come up."""


class RuntimeApi:
    """Serves one process.

    Args:
        host: told of what it asks and answers.

    Attributes:
        address: `host:port`, once open.

    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.address = ""
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._asking: _Connection | None = None  # waits for an invocation
        self._current: str | None = None  # the invocation that is not answered

    async def open(self) -> None:
        """Listen at a free port of this machine's own address."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    def close(self) -> None:
        """Stop, and drop connections."""
        if self._server is not None:
            close_server(self._server)
            self._server = None
        for connection in list(self._connections):
            connection.abort()

    def is_asked(self) -> bool:
        """Whether the runtime waits for an invocation."""
        return self._asking is not None

    def give(self, delivery: Delivery) -> None:
        """Hand an invocation to the runtime, which waits for it."""
        asking, self._asking = self._asking, None
        if asking is None:
            raise RuntimeError(f"expected {_SAID_NEXT}")
        self._current = delivery.request_id
        asking.deliver(delivery)

    def opened(self, connection: _Connection) -> None:
        """A process has connected."""
        if self._server is None:
            connection.abort()  # it was accepted just before the end, and is told of just after it
        else:
            self._connections.add(connection)

    def lost(self, connection: _Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        if self._asking is connection:
            self._asking = None

    def handle(self, connection: _Connection, request: _Request) -> None:
        """Do what a request asks."""
        verb, path = request.verb, request.path
        if not path.startswith(_PREFIX):
            connection.reply(404, b"404 page not found", b"text/plain")
            return
        match verb, path[len(_PREFIX) :].split(b"/"):
            case b"GET", [b"invocation", b"next"]:
                self._next(connection)
            case b"POST", [b"invocation", request_id, b"response"]:
                self._response(connection, request_id.decode(), request)
            case b"POST", [b"invocation", request_id, b"error"]:
                self._error(connection, request_id.decode(), request)
            case b"POST", [b"init" | b"restore", b"error"]:
                connection.reply(202, _ACCEPTED)
                self.host.init_failed(_error_of(request))
            case b"GET", [b"restore", b"next"]:
                connection.reply(200, b"")
            case _:
                connection.reply(404, b"404 page not found", b"text/plain")

    def _next(self, connection: _Connection) -> None:
        if self._current is not None:
            connection.refuse(403, "InvalidStateTransition", "The invocation before this has not been answered")
        elif self._asking is not None:
            connection.refuse(403, "InvalidStateTransition", "There is another request for the next invocation")
        else:
            self._asking = connection
            self.host.asked()

    def _response(self, connection: _Connection, request_id: str, request: _Request) -> None:
        if not self._may_answer(connection, request_id):
            return
        if request.body_bytes > MAX_PAYLOAD_BYTES:
            message = f"Exceeded maximum allowed payload size ({MAX_PAYLOAD_BYTES} bytes)."
            connection.refuse(413, "RequestEntityTooLarge", message)
            self.host.answered(_too_large())
            return
        connection.reply(202, _ACCEPTED)
        self.host.answered(_trailing_error_of(request) or Answer(request.body()))

    def _error(self, connection: _Connection, request_id: str, request: _Request) -> None:
        if self._may_answer(connection, request_id):
            connection.reply(202, _ACCEPTED)
            self.host.answered(_error_of(request))

    def _may_answer(self, connection: _Connection, request_id: str) -> bool:
        if request_id != self._current:
            connection.refuse(400, "InvalidRequestID", "Invalid request ID")
            return False
        self._current = None
        return True


_ACCEPTED = b'{"status":"OK"}\n'
_REASONS = {
    200: b"OK",
    202: b"Accepted",
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    413: b"Request Entity Too Large",
}


class _ErrorDocument(msgspec.Struct, rename="camel", omit_defaults=True):
    error_message: str = ""
    error_type: str = ""


def _too_large() -> Answer:
    words = f"Response payload size exceeded maximum allowed payload size ({MAX_PAYLOAD_BYTES} bytes)."
    document = {"errorType": "Function.ResponseSizeTooLarge", "errorMessage": words}
    return Answer(msgspec.json.encode(document), "Function.ResponseSizeTooLarge")


def _error_of(request: _Request) -> Answer:
    """The error that a runtime posts; its type from the document, else from the header, else `Unhandled`."""
    said = request.headers.get(b"lambda-runtime-function-error-type", b"").decode(errors="replace")
    if request.body_bytes > MAX_PAYLOAD_BYTES:
        return _too_large()
    try:
        named = msgspec.json.decode(request.body(), type=_ErrorDocument).error_type
    except (msgspec.DecodeError, msgspec.ValidationError):
        named = ""
    error_type = named or said or "Unhandled"
    return Answer(request.body() or msgspec.json.encode({"errorType": error_type, "errorMessage": ""}), error_type)


def _trailing_error_of(request: _Request) -> Answer | None:
    """The error that ends a streamed response, as trailers say it: a type, and a document in base64."""
    error_type = request.headers.get(b"lambda-runtime-function-error-type")
    if error_type is None:
        return None
    try:
        document = base64.b64decode(request.headers.get(b"lambda-runtime-function-error-body", b""), validate=True)
    except ValueError:
        document = b""
    named = error_type.decode(errors="replace")
    return Answer(document or msgspec.json.encode({"errorType": named, "errorMessage": ""}), named)


class _Request:
    """One request, as it arrives: the body of one that is too long is counted and not kept."""

    __slots__ = ("body_bytes", "chunks", "headers", "path", "verb")

    def __init__(self) -> None:
        self.verb = b""
        self.path = b""
        self.headers: dict[bytes, bytes] = {}
        self.chunks: list[bytes] = []
        self.body_bytes = 0

    def body(self) -> bytes:
        return b"".join(self.chunks)


class _Connection(asyncio.Protocol):
    """One connection of a process; requests follow each other on it."""

    __slots__ = ("_api", "_head_bytes", "_keeps_alive", "_parser", "_request", "_transport")

    def __init__(self, api: RuntimeApi) -> None:
        self._api = api
        self._parser = httptools.HttpRequestParser(self)
        self._request = _Request()
        self._transport: asyncio.Transport | None = None
        self._head_bytes = 0  # that have come since a head ended, or a piece of a body came
        self._keeps_alive = True  # whether the connection stays after the answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A process has connected."""
        self._transport = transport  # type: ignore[assignment]  # of a socket
        self._api.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._transport = None
        self._api.lost(self)

    def data_received(self, data: bytes) -> None:
        """Part of a request."""
        try:
            self._head_bytes += len(data)
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            self.abort()
            raise  # our own mistake, not the runtime's
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.abort()
        if self._head_bytes > MAX_HEAD_BYTES:
            self.abort()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._request = _Request()

    def on_url(self, url: bytes) -> None:
        """Part of its target."""
        self._request.path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer after the body."""
        self._request.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Its head is here."""
        self._head_bytes = 0
        self._request.verb = self._parser.get_method()
        self._request.path = self._request.path.partition(b"?")[0]
        if self._request.headers.get(b"expect", b"").lower() == b"100-continue":
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Part of its body."""
        self._head_bytes = 0
        request = self._request
        request.body_bytes += len(body)
        if request.body_bytes <= MAX_PAYLOAD_BYTES:
            request.chunks.append(body)
        else:
            request.chunks.clear()

    def on_message_complete(self) -> None:
        """All of it is here."""
        self._head_bytes = 0
        self._keeps_alive = self._parser.should_keep_alive()
        self._api.handle(self, self._request)

    def deliver(self, delivery: Delivery) -> None:
        """Answer a request for the next invocation."""
        context = ""
        if delivery.client_context is not None:
            context = f"Lambda-Runtime-Client-Context: {delivery.client_context.translate(_ONE_LINE)}\r\n"
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(delivery.payload)}\r\n"
            f"Lambda-Runtime-Aws-Request-Id: {delivery.request_id}\r\n"
            f"Lambda-Runtime-Deadline-Ms: {delivery.deadline_ms}\r\n"
            f"Lambda-Runtime-Invoked-Function-Arn: {delivery.arn}\r\n"
            f"Lambda-Runtime-Trace-Id: {delivery.trace_id.translate(_ONE_LINE)}\r\n{context}\r\n"
        )
        self._write(head.encode() + delivery.payload)
        self._close_if_asked()

    def refuse(self, status: int, error_type: str, message: str) -> None:
        """Answer with an error."""
        self.reply(status, msgspec.json.encode({"errorMessage": message, "errorType": error_type}))

    def reply(self, status: int, body: bytes, content_type: bytes = b"application/json") -> None:
        """Answer."""
        head = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
        self._write(head % (status, _REASONS[status], content_type, len(body)) + body)
        self._close_if_asked()

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _close_if_asked(self) -> None:
        if not self._keeps_alive and self._transport is not None:
            self._transport.close()


_ONE_LINE = {ord("\r"): " ", ord("\n"): " "}
