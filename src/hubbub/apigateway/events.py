"""What happens on a connection, as functions are told, and what they return. Field names and shapes are AWS's.

Source: docs.aws.amazon.com/apigateway/latest/developerguide, "WebSocket APIs"; see docs/contract.md row by row.
"""

from __future__ import annotations

import binascii
import time
from typing import Literal

import msgspec

from hubbub.entropy import random_bytes


class Identity(msgspec.Struct, rename="camel", omit_defaults=True):
    """Where a connection comes from and what it showed; what it did not is absent.

    Attributes:
        source_ip: the client's address.
        user_agent: what it calls itself.
        api_key, api_key_id: the API key that it sent, where the API asks for one.
        access_key, account_id, caller, user, user_arn: who signed the handshake, where the API asks for that.

    """

    source_ip: str
    user_agent: str | None = None
    api_key: str | None = None
    api_key_id: str | None = None
    access_key: str | None = None
    account_id: str | None = None
    caller: str | None = None
    user: str | None = None
    user_arn: str | None = None


AuthorizerContext = dict[str, str | int | float | bool]
"""What an authorizer adds to every later event: `principalId`, `integrationLatency` and its own keys."""


class RequestContext(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """What API Gateway says about an event; the same shape for all three event types, its fields in AWS's order.

    Attributes:
        route_key: the selected route.
        authorizer: absent when no authorizer ran.
        message_id: MESSAGE only.
        disconnect_status_code, disconnect_reason: DISCONNECT only.
        event_type: CONNECT, MESSAGE or DISCONNECT.
        extended_request_id, request_id: equal, and shaped like a connection id.
        request_time: in common log format, UTC.
        request_time_epoch, connected_at: epoch milliseconds.
        domain_name: the host, with the port where it is not the scheme's own.

    """

    route_key: str
    authorizer: AuthorizerContext | None = None
    message_id: str | None = None
    disconnect_status_code: int | None = None
    event_type: Literal["CONNECT", "MESSAGE", "DISCONNECT"]
    extended_request_id: str
    request_time: str
    message_direction: str = msgspec.field(default_factory=lambda: "IN")
    disconnect_reason: str | None = None
    stage: str
    connected_at: int
    request_time_epoch: int
    identity: Identity
    request_id: str
    domain_name: str
    connection_id: str
    api_id: str


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


def new_id() -> str:
    """A connection, request or message id of AWS's shape: 15 URL-safe base64 characters and `=`, 11 random bytes."""
    return binascii.b2a_base64(random_bytes(11), newline=False).translate(_URL_SAFE).decode("ascii")


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def request_time(epoch_s: float) -> str:
    """`epoch_s` in the common log format that events carry, UTC: `19/Feb/2024:07:11:42 +0000`."""
    parts = time.gmtime(epoch_s)
    month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[parts.tm_mon - 1]
    return (
        f"{parts.tm_mday:02d}/{month}/{parts.tm_year}:{parts.tm_hour:02d}:{parts.tm_min:02d}:{parts.tm_sec:02d} +0000"
    )
