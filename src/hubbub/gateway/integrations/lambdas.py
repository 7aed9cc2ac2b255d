"""Lambda functions behind routes: given the whole event by AWS_PROXY, or what a template makes of it by AWS."""

from __future__ import annotations

import base64
import binascii
import re

import msgspec

from hubbub.apigateway import CONNECT, Event, Response
from hubbub.apigateway.selection import Answer
from hubbub.gateway.integrations.definition import Integration, Invoke, Invoked
from hubbub.gateway.integrations.failures import FunctionFailed, IntegrationFailed
from hubbub.gateway.integrations.requests import Outgoing, resolve_uri
from hubbub.gateway.integrations.responses import proxy_response

_INVOCATION = re.compile(r"arn:[\w-]+:apigateway:[^:]*:lambda:path/[\d-]+/functions/(?P<function>.+)/invocations")

_FUNCTION = re.compile(r"arn:[\w-]+:lambda:[^:]*:[^:]*:function:.+|[\w-]{1,64}(?::[\w$-]+)?")


def function_of(uri: str) -> str | None:
    """The ARN or name of the function that an integration's `uri` is about; None where it is about none.

    `arn:aws:apigateway:{region}:lambda:path/2015-03-31/functions/{ARN}/invocations`, or the function's own ARN.
    """
    if invocation := _INVOCATION.fullmatch(uri):
        return invocation["function"]
    return uri if _FUNCTION.fullmatch(uri) else None


class LambdaProxy:
    """AWS_PROXY: the function gets the event, and its answer is the route's.

    Args:
        integration: its definition.
        invoke: calls functions.

    Raises:
        ValueError: the `uri` is about no function.

    """

    def __init__(self, integration: Integration, invoke: Invoke) -> None:
        if function_of(integration.uri) is None:
            raise ValueError(f"expected the ARN of a Lambda function as the uri of AWS_PROXY, got {integration.uri!r}")
        self._uri = integration.uri
        self._as_binary = integration.content_handling == "CONVERT_TO_BINARY"
        self._invoke = invoke

    async def __call__(self, event: Event) -> Response:
        """Call the function.

        Raises:
            IntegrationFailed: it failed, or answered what is no response.

        """
        function = function_of(resolve_uri(self._uri, event, {})) or self._uri
        invoked = await self._invoke(function, msgspec.json.encode(self._event(event)))
        if invoked.function_error is not None:
            raise failure_of(function, invoked)
        return proxy_response(invoked.payload)

    def _event(self, event: Event) -> Event:
        """With CONVERT_TO_BINARY the text that a client sends is base64 of what it means (inferred)."""
        if not self._as_binary or event.body is None:
            return event
        try:
            base64.b64decode(event.body, validate=True)
        except (binascii.Error, ValueError) as error:
            raise IntegrationFailed(
                f"ContentHandlingStrategy is CONVERT_TO_BINARY, and the body is no base64: {error}"
            ) from error
        return msgspec.structs.replace(event, is_base64_encoded=True)


class LambdaFunction:
    """AWS with a function: it gets a document, and its answer is one, an error's among them.

    Args:
        integration: its definition.
        invoke: calls functions.

    """

    def __init__(self, integration: Integration, invoke: Invoke) -> None:
        self._uri = integration.uri
        self._invoke = invoke

    async def __call__(self, outgoing: Outgoing, event: Event) -> Answer:
        """Call the function; its status is 200 whatever it does.

        Raises:
            FunctionFailed: it failed on `$connect`. Nothing says what AWS does then; a failure must let nobody in.
            IntegrationFailed: the document is no JSON.

        """
        function = function_of(resolve_uri(self._uri, event, outgoing.path)) or self._uri
        payload = outgoing.body or b"{}"
        try:
            msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise IntegrationFailed(f"expected JSON for {function}, got {payload[:80]!r}: {error}") from error
        invoked = await self._invoke(function, payload)
        if invoked.function_error is not None and event.request_context.route_key == CONNECT:
            raise failure_of(function, invoked)
        return Answer(status=200, headers=[("Content-Type", "application/json")], body=invoked.payload)


def failure_of(function: str, invoked: Invoked) -> FunctionFailed:
    """What a function that ended with an error said of it."""
    try:
        said = msgspec.json.decode(invoked.payload)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        said = None
    said = said if isinstance(said, dict) else {}
    trace = said.get("stackTrace")
    return FunctionFailed(
        function,
        str(said.get("errorType") or invoked.function_error),
        str(said.get("errorMessage") or ""),
        tuple(str(line).rstrip("\n") for line in trace) if isinstance(trace, list) else (),
    )
