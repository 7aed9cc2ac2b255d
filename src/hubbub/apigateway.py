"""The contract of AWS API Gateway's WebSocket APIs: events, responses, route selection, documents and close codes.

This is all that the gateway and the chat know of each other. Field names and shapes are AWS's: see docs/contract.md.
Source: docs.aws.amazon.com/apigateway/latest/developerguide, "WebSocket APIs".
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal

import msgspec

from hubbub.entropy import random_bytes

CONNECT = "$connect"
DISCONNECT = "$disconnect"
DEFAULT = "$default"


class Identity(msgspec.Struct, rename="camel", omit_defaults=True):
    """Where a connection comes from; `user_agent` is absent when the client sent none."""

    source_ip: str
    user_agent: str | None = None


AuthorizerContext = dict[str, str | int | float | bool]
"""What an authorizer adds to every later event: `principalId`, `integrationLatency` and its own keys."""


class RequestContext(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """What API Gateway says about an event; the same shape for all three event types.

    Attributes:
        route_key: the selected route.
        event_type: CONNECT, MESSAGE or DISCONNECT.
        extended_request_id, request_id: equal, and shaped like a connection id.
        request_time: in common log format, UTC.
        request_time_epoch, connected_at: epoch milliseconds.
        domain_name: the host, with the port where it is not the scheme's own.
        authorizer: absent when no authorizer ran.
        message_id: MESSAGE only.
        disconnect_status_code, disconnect_reason: DISCONNECT only.

    """

    route_key: str
    event_type: Literal["CONNECT", "MESSAGE", "DISCONNECT"]
    extended_request_id: str
    request_time: str
    message_direction: str = msgspec.field(default_factory=lambda: "IN")
    stage: str
    connected_at: int
    request_time_epoch: int
    identity: Identity
    request_id: str
    domain_name: str
    connection_id: str
    api_id: str
    authorizer: AuthorizerContext | None = None
    message_id: str | None = None
    disconnect_status_code: int | None = None
    disconnect_reason: str | None = None


class Event(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """What a function is given. Absent fields are None here and absent, not null, in JSON.

    `method_arn` and `type` are there for REQUEST authorizers only; `body` for MESSAGE only.
    """

    type: str | None = None
    method_arn: str | None = None
    headers: dict[str, str] | None = None
    multi_value_headers: dict[str, list[str]] | None = None
    query_string_parameters: dict[str, str] | None = None
    multi_value_query_string_parameters: dict[str, list[str]] | None = None
    stage_variables: dict[str, str] | None = None
    request_context: RequestContext
    body: str | None = None
    is_base64_encoded: bool | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="isBase64Encoded")


class Response(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """What a function returns.

    `body` reaches the client only on a two-way route (one with a route response). `status_code` rules the handshake on
    `$connect` and nothing else; of `headers` only `Sec-WebSocket-Protocol` on `$connect` is used.
    """

    status_code: int = 200
    headers: dict[str, str] | None = None
    body: str | bytes | None = None


Handler = Callable[[Event], Awaitable[Response]]
"""A function behind a route, wherever it runs: in this process, behind HTTP, in Lambda."""


class Refused(Exception):
    """What an authorizer raises to refuse a handshake with `status`; `body` is a JSON document for the client.

    An extension: AWS makes 500 of whatever an authorizer raises that is not `Unauthorized`.
    """

    def __init__(self, status: int, body: bytes, message: str = "Refused") -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class Unauthorized(Refused):
    """What an authorizer raises to refuse a handshake with 401.

    AWS compares the error string with exactly `Unauthorized` and sends its own document; our gateway sends `body`.
    """

    def __init__(self, body: bytes = b'{"message":"Unauthorized"}') -> None:
        super().__init__(401, body, "Unauthorized")


Authorizer = Callable[[Event], Awaitable[AuthorizerContext]]
"""A REQUEST authorizer that has already been reduced to its outcome: the context to add, or `Refused`."""


def checked_context(context: object) -> AuthorizerContext:
    """What an authorizer answered, if it is what it may answer: a `principalId`, and no value with parts.

    Raises:
        ValueError: it is not.

    """
    if not isinstance(context, dict) or not context.get("principalId"):
        raise ValueError("expected an authorizer's context with a principalId")
    for key, value in context.items():
        if not isinstance(value, str | int | float | bool):
            raise ValueError(f"expected a string, a number or a boolean as {key!r}, got {type(value).__name__}")
    return context


class Route(msgspec.Struct, frozen=True):
    """A handler and whether its response's body is sent to the client (a route response exists)."""

    handler: Handler
    two_way: bool = False


class Api(msgspec.Struct, frozen=True, kw_only=True):
    """One WebSocket API: what a gateway serves.

    Attributes:
        id: the API's id, ten lower-case letters and digits on AWS.
        stage: the stage's name.
        routes: by route key.
        route_selection_expression: see `select_route`.
        authorizer: runs before `$connect`; None lets everybody through.
        stage_variables: added to events when there are any.

    """

    routes: dict[str, Route]
    id: str = "hubbub0000"
    stage: str = "local"
    route_selection_expression: str = "$request.body.action"
    authorizer: Authorizer | None = None
    stage_variables: dict[str, str] = {}


def new_id() -> str:
    """A connection, request or message id of AWS's shape: 15 URL-safe base64 characters and `=`, 11 random bytes."""
    return base64.urlsafe_b64encode(random_bytes(11)).decode("ascii")


def request_time(epoch_s: float) -> str:
    """`epoch_s` in the common log format that events carry, UTC: `19/Feb/2024:07:11:42 +0000`."""
    parts = time.gmtime(epoch_s)
    month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[parts.tm_mon - 1]
    return (
        f"{parts.tm_mday:02d}/{month}/{parts.tm_year}:{parts.tm_hour:02d}:{parts.tm_min:02d}:{parts.tm_sec:02d} +0000"
    )


_VARIABLE = re.compile(r"\$\{request\.body(?P<braced>[^}]*)\}|\$request\.body(?P<bare>[\w.\[\]\-]*)|\\(?P<escaped>\$)")

_INDEX = re.compile(r"[0-9]{1,9}")


def evaluate_selection(expression: str, body: str) -> str | None:
    r"""The value of a selection expression for a message's body; None when the body is not JSON.

    `$request.body.action`, `${request.body.a}/${request.body.b[0]}` and static text, `\$` for a literal dollar. A
    missing path is the empty string; what is found is made a string; nothing is evaluated twice.
    Source: developer guide, "WebSocket selection expressions".
    """
    try:
        document = msgspec.json.decode(body)
        return _VARIABLE.sub(partial(_value_of, document), expression)
    except (msgspec.DecodeError, UnicodeError, RecursionError):  # the last for JSON of a thousand levels
        return None


def _value_of(document: Any, variable: re.Match[str]) -> str:  # Any: a JSON document of unknown shape
    if variable["escaped"]:
        return "$"
    return _stringified(_walk(document, variable["braced"] or variable["bare"] or ""))


def _walk(document: Any, path: str) -> Any:  # Any: a JSON document of unknown shape
    for part in re.findall(r"[^.\[\]]+", path):
        if isinstance(document, dict):
            document = document.get(part)
        elif isinstance(document, list) and _INDEX.fullmatch(part) and int(part) < len(document):
            document = document[int(part)]
        else:
            return None
    return document


def _stringified(value: Any) -> str:  # Any: a JSON value
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def select_route(api: Api, body: str) -> str | None:
    """The key of the route that takes a message: the exact match, else `$default`, else None.

    A body that is not JSON goes to `$default`, and no body can select `$connect` or `$disconnect`.
    """
    default = DEFAULT if DEFAULT in api.routes else None
    if api.routes.keys() <= {CONNECT, DISCONNECT, DEFAULT}:
        return default  # nothing to choose between, so nothing to parse
    key = evaluate_selection(api.route_selection_expression, body)
    if key is None or key in (CONNECT, DISCONNECT) or key not in api.routes:
        return default
    return key


def forbidden_document(connection_id: str, request_id: str) -> bytes:
    """What a client gets whose message no route takes, byte for byte."""
    return f'{{"message": "Forbidden", "connectionId":"{connection_id}", "requestId":"{request_id}"}}'.encode()


def server_error_document(connection_id: str, request_id: str) -> bytes:
    """What a client gets whose message's function failed, byte for byte."""
    return (
        f'{{"message": "Internal server error", "connectionId":"{connection_id}", "requestId":"{request_id}"}}'.encode()
    )
