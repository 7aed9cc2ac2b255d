"""An API: its routes and what guards them, which of them takes a message, and what is said where none does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from hubbub.apigateway.events import AuthorizerContext, Event, Response
from hubbub.apigateway.selection import evaluate_selection

CONNECT = "$connect"
DISCONNECT = "$disconnect"
DEFAULT = "$default"


_OF_ALL_MESSAGES = frozenset({CONNECT, DISCONNECT, DEFAULT})
"""With no other routes than these there is nothing to choose between."""

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


_PLAIN = (str, int, float, bool)


def checked_context(context: object) -> AuthorizerContext:
    """What an authorizer answered, if it is what it may answer: a `principalId`, and no value with parts.

    Raises:
        ValueError: it is not.

    """
    if not isinstance(context, dict) or not context.get("principalId"):
        raise ValueError("expected an authorizer's context with a principalId")
    for key, value in context.items():
        if not isinstance(value, _PLAIN):
            raise ValueError(f"expected a string, a number or a boolean as {key!r}, got {type(value).__name__}")
    return context


class Rate(msgspec.Struct, frozen=True):
    """A token bucket: `per_s` requests a second flow in, `burst` of them it holds."""

    per_s: float
    burst: int


class ApiKey(msgspec.Struct, frozen=True):
    """An API key: its id and its value, which clients send."""

    id: str
    value: str


Shortcut = Callable[[str, str, Callable[[bytes | None], None]], bool]
"""A way beside a handler for messages that need no event and no task of their own.

Called with a connection's id, a message's text, and what is to be called with the answer: once, in a later step, with
None where there is nothing to say. False when the message is none of those, and nothing was done: it is the handler's.
"""


class Route(msgspec.Struct, frozen=True):
    """What takes a message, and under which conditions.

    Attributes:
        handler: the function or other integration.
        two_way: whether its response's body is sent to the client (a route response exists).
        timeout_s: how long it may take; None for the gateway's own limit.
        accepts: whether a body is what the route's model says; None for no model.
        rate: how often it may be called in all; None for no limit of its own.
        api_key_required: whether a client must send one of the API's keys; `$connect` only.
        required_parameters: what a handshake must have, as `route.request.querystring.NAME`; `$connect` only.
        shortcut: what is asked before the handler; None for nothing. It holds what the handler would.

    """

    handler: Handler
    two_way: bool = False
    timeout_s: float | None = None
    accepts: Callable[[str], bool] | None = None
    rate: Rate | None = None
    api_key_required: bool = False
    required_parameters: tuple[str, ...] = ()
    shortcut: Shortcut | None = None


class Api(msgspec.Struct, frozen=True, kw_only=True):
    """One WebSocket API, deployed to one stage.

    Attributes:
        id: the API's id, ten lower-case letters and digits on AWS.
        stage: the stage's name.
        routes: by route key.
        route_selection_expression: see `select_route`.
        authorizer: runs before `$connect`; None lets everybody through.
        iam: whether a handshake must be signed (Signature Version 4) for `execute-api`.
        api_keys: those that `Route.api_key_required` asks for.
        api_key_selection_expression: where a client's key is found.
        stage_variables: added to events when there are any.
        rate: how often the stage's routes may be called in all; None for no limit of its own.
        domain_name: what events say; None for what the client called the host, with its port.
        region, account: where and whose the API is said to be, in ARNs.

    """

    routes: dict[str, Route]
    id: str = "hubbub0000"
    stage: str = "local"
    route_selection_expression: str = "$request.body.action"
    authorizer: Authorizer | None = None
    iam: bool = False
    api_keys: tuple[ApiKey, ...] = ()
    api_key_selection_expression: str = "$request.header.x-api-key"
    stage_variables: dict[str, str] = {}
    rate: Rate | None = None
    domain_name: str | None = None
    region: str = "us-east-1"
    account: str = "123456789012"

    @property
    def arn(self) -> str:
        """The API's ARN at its stage, as it stands before the route in an authorizer's `methodArn`."""
        return f"arn:aws:execute-api:{self.region}:{self.account}:{self.id}/{self.stage}"


def select_route(api: Api, body: str) -> str | None:
    """The key of the route that takes a message: the exact match, else `$default`, else None.

    A body that is not JSON goes to `$default`, and no body can select `$connect` or `$disconnect`.
    """
    default = DEFAULT if DEFAULT in api.routes else None
    if api.routes.keys() <= _OF_ALL_MESSAGES:
        return default  # so nothing is parsed
    key = evaluate_selection(api.route_selection_expression, body)
    if key is None or key in (CONNECT, DISCONNECT) or key not in api.routes:
        return default
    return key
