"""An HTTP API's event (payload format 2.0) becomes one request to an ASGI application, its response the answer.

Our own, for the application has to run on the environment's one loop and within the invocation's time; Mangum turns the
loop by itself. Sources: docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
and the ASGI specification, "HTTP & WebSocket ASGI message format".
"""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.types import ASGIApp, Message, Scope

Document = dict[str, Any]  # Any: JSON


class Http(msgspec.Struct, rename="camel"):
    """The request's line, and who sent it."""

    method: str
    source_ip: str = ""


class HttpContext(msgspec.Struct, rename="camel"):
    """What API Gateway says of the request."""

    http: Http
    stage: str = "$default"
    request_id: str = ""
    domain_name: str = ""


class HttpEvent(msgspec.Struct, rename="camel", kw_only=True):
    """A request. Header names are small letters, several values joined by commas, cookies apart from them."""

    raw_path: str
    raw_query_string: str = ""
    headers: dict[str, str] = {}
    cookies: list[str] = []
    request_context: HttpContext
    body: str | None = None
    is_base64_encoded: bool = False

    @property
    def octets(self) -> bytes:
        """The body.

        Raises:
            ValueError: it is not the Base64 that it is said to be.

        """
        if self.body is None:
            return b""
        return base64.b64decode(self.body, validate=True) if self.is_base64_encoded else self.body.encode()


def scope_of(event: HttpEvent) -> Scope:
    """The request as ASGI has it.

    The path comes decoded, unlike a function URL's and a REST API's, and behind the stage unless that is `$default`.
    """
    context = event.request_context
    path = event.raw_path
    if context.stage != "$default":
        path = path.removeprefix(f"/{context.stage}") or "/"
    headers = [(name.lower().encode("latin-1", "replace"), value.encode()) for name, value in event.headers.items()]
    if event.cookies:
        headers.append((b"cookie", "; ".join(event.cookies).encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": context.http.method,
        "scheme": event.headers.get("x-forwarded-proto", "https"),
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": event.raw_query_string.encode(),
        "root_path": "",
        "headers": headers,
        "client": (context.http.source_ip, 0),
        "server": (context.domain_name, 443),
    }


class _Exchange:
    """One request on its way into an application, and the response on its way out."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body  # None once it was taken
        self.status = 500
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()

    async def receive(self) -> Message:
        body, self._body = self._body, None
        if body is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")


async def request(app: ASGIApp, event: HttpEvent) -> Document:
    """Have `app` answer the request.

    Raises:
        ValueError: the body is not the Base64 that it is said to be.

    """
    exchange = _Exchange(event.octets)
    await app(scope_of(event), exchange.receive, exchange.send)
    return _document(exchange)


def _document(exchange: _Exchange) -> Document:
    """The response as an HTTP API reads it: text as it is, all else in Base64."""
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for raw_name, raw_value in exchange.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name == "set-cookie":
            cookies.append(value)
        else:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    document: Document = {"statusCode": exchange.status, "headers": headers, "isBase64Encoded": False}
    if cookies:
        document["cookies"] = cookies
    try:
        document["body"] = exchange.body.decode()
    except UnicodeDecodeError:
        document |= {"body": base64.b64encode(exchange.body).decode(), "isBase64Encoded": True}
    return document
