"""The contract of AWS API Gateway's WebSocket APIs: all that a gateway and the functions behind it know of each other.

Field names and shapes are AWS's; docs/contract.md has it row by row, with what shows each.
Source: docs.aws.amazon.com/apigateway/latest/developerguide, "WebSocket APIs".
"""

from hubbub.apigateway.api import (
    CONNECT,
    DEFAULT,
    DISCONNECT,
    Api,
    ApiKey,
    Authorizer,
    Handler,
    Rate,
    Refused,
    Route,
    Unauthorized,
    checked_context,
    select_route,
)
from hubbub.apigateway.documents import (
    bad_body_document,
    forbidden_document,
    server_error_document,
    too_many_requests_document,
)
from hubbub.apigateway.events import (
    AuthorizerContext,
    Event,
    Identity,
    RequestContext,
    Response,
    new_id,
    request_time,
)
from hubbub.apigateway.selection import evaluate_selection

__all__ = [
    "CONNECT",
    "DEFAULT",
    "DISCONNECT",
    "Api",
    "ApiKey",
    "Authorizer",
    "AuthorizerContext",
    "Event",
    "Handler",
    "Identity",
    "Rate",
    "Refused",
    "RequestContext",
    "Response",
    "Route",
    "Unauthorized",
    "bad_body_document",
    "checked_context",
    "evaluate_selection",
    "forbidden_document",
    "new_id",
    "request_time",
    "select_route",
    "server_error_document",
    "too_many_requests_document",
]
