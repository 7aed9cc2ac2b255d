"""REQUEST authorizers: a Lambda function is asked whether a handshake may go on, and its policy is evaluated.

Source: developer guide, "Control access to WebSocket APIs with AWS Lambda REQUEST authorizers", and for what the
function answers "Output from an API Gateway Lambda authorizer".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from hubbub.apigateway import Authorizer, AuthorizerContext, Event, Refused, Unauthorized, checked_context
from hubbub.gateway.integrations import Invoke, Invoked
from hubbub.gateway.integrations.lambdas import failure_of
from hubbub.gateway.policies import Verdict, judge

ACTION = "execute-api:Invoke"
"""What a policy must allow."""

MAX_RESULT_BYTES = 8 * 1024
"""The longest answer of an authorizer (developer guide, quotas for WebSocket APIs)."""

_REFUSALS = {
    Verdict.DENIED: b'{"Message":"User is not authorized to access this resource'
    b' with an explicit deny in an identity-based policy"}',
    Verdict.NOT_ALLOWED: b'{"Message":"User is not authorized to access this resource"}',
}
"""What a client is told with 403: captured from REST APIs. That WebSocket APIs say the same is inferred."""


def request_authorizer(function: str, invoke: Invoke, *, identity_sources: Sequence[str]) -> Authorizer:
    """An authorizer that asks a Lambda function.

    It raises `Unauthorized` where an identity source is missing or empty, without asking, and where the function's
    error is the text `Unauthorized`; `Refused` with 403 where its policy does not allow `execute-api:Invoke` on the
    event's `methodArn`. Whatever else is wrong with the answer is a ValueError, a function's own error
    is `FunctionFailed`: API Gateway makes 500 of both. The context that it returns has the answer's
    `usageIdentifierKey` too.

    Args:
        function: its ARN or name.
        invoke: calls it.
        identity_sources: `route.request.header.NAME`, `route.request.querystring.NAME`, `stageVariables.NAME` or
            `context.NAME`; the last as in an event's `requestContext`, with dots to go deeper.

    Raises:
        ValueError: an identity source is none of these.

    """
    sources = [_identity_source(text) for text in identity_sources]

    async def authorize(event: Event) -> AuthorizerContext:
        if not all(source(event) for source in sources):
            raise Unauthorized
        return _outcome(function, await invoke(function, msgspec.json.encode(event)), event)

    return authorize


def _identity_source(text: str) -> Callable[[Event], object]:
    """What finds the value that an identity source names; nothing, or an empty text, if there is none."""
    for prefix, find in _PLACES.items():
        if text.startswith(prefix) and text != prefix:
            name = text.removeprefix(prefix)
            return lambda event: find(event, name)
    raise ValueError(
        "identity source: expected route.request.header.NAME, route.request.querystring.NAME, stageVariables.NAME"
        f" or context.NAME, got {text!r}"
    )


def _header(event: Event, name: str) -> str | None:
    known = event.headers or {}
    return next((value for key, value in known.items() if key.lower() == name.lower() and value), None)


def _from_context(event: Event, name: str) -> object:
    found: Any = msgspec.to_builtins(event.request_context)  # Any: whatever JSON has there
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


_PLACES: dict[str, Callable[[Event, str], object]] = {
    "route.request.header.": _header,
    "route.request.querystring.": lambda event, name: (event.query_string_parameters or {}).get(name),
    "stageVariables.": lambda event, name: (event.stage_variables or {}).get(name),
    "context.": _from_context,
}


def _outcome(function: str, invoked: Invoked, event: Event) -> AuthorizerContext:
    if invoked.function_error is not None:
        failure = failure_of(function, invoked)
        raise Unauthorized if failure.error_message == "Unauthorized" else failure
    if len(invoked.payload) > MAX_RESULT_BYTES:
        raise ValueError(f"expected at most {MAX_RESULT_BYTES} bytes from an authorizer, got {len(invoked.payload)}")
    answer = _document(invoked.payload)
    if not isinstance(answer, dict):
        raise ValueError(f"expected an object from an authorizer, got {invoked.payload[:100]!r}")
    context = _context(answer)
    verdict = judge(answer.get("policyDocument"), action=ACTION, resource=event.method_arn or "", facts=_facts(event))
    if verdict is not Verdict.ALLOWED:
        raise Refused(403, _REFUSALS[verdict], f"the authorizer's policy says {verdict.value}")
    return context


def _document(payload: bytes) -> Any:  # Any: JSON of any kind
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise ValueError(f"expected JSON from an authorizer, got {payload[:100]!r}") from None


def _context(answer: dict[str, Any]) -> AuthorizerContext:  # Any: JSON
    """The answer's context, checked: what later events show of it."""
    principal, context, key = (answer.get(name) for name in ("principalId", "context", "usageIdentifierKey"))
    if not isinstance(principal, str):
        raise ValueError(f"expected a text as an authorizer's principalId, got {principal!r}")
    if not isinstance(context, dict | None):
        raise ValueError(f"expected an object as an authorizer's context, got {type(context).__name__}")
    if not isinstance(key, str | None):
        raise ValueError(f"expected a text as an authorizer's usageIdentifierKey, got {type(key).__name__}")
    return checked_context(
        {**(context or {}), "principalId": principal} | ({"usageIdentifierKey": key} if key is not None else {})
    )


def _facts(event: Event) -> dict[str, str]:
    """What a policy's conditions can ask for, by key in small letters.

    Source: developer guide, "AWS condition keys that can be used in API Gateway resource policies", those that need
    neither IAM nor a private API. API Gateway speaks TLS and nothing else, so `aws:SecureTransport` is true here too.
    """
    now_s = time.time()
    identity = event.request_context.identity
    facts = {
        "aws:currenttime": datetime.fromtimestamp(now_s, UTC).isoformat(timespec="seconds"),
        "aws:epochtime": str(int(now_s)),
        "aws:securetransport": "true",
        "aws:sourceip": identity.source_ip,
        "aws:useragent": identity.user_agent,
        "aws:referer": _header(event, "referer"),
    }
    return {key: value for key, value in facts.items() if value is not None}
