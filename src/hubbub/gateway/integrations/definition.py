"""How an integration is written down in API Gateway's own words, and what it needs of the world to be called.

Source: AWS::ApiGatewayV2::Integration and AWS::ApiGatewayV2::IntegrationResponse in the CloudFormation reference.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec


class IntegrationResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of an integration's answer, if it is the one that is selected.

    Attributes:
        key: `/a regular expression/` or `$default`.
        templates: mapping templates by key.
        template_selection_expression: which of them; None for `$default`.
        parameters: what is mapped to `route.response.header.…`.
        content_handling: CONVERT_TO_TEXT or CONVERT_TO_BINARY; None to leave it.

    """

    key: str
    templates: dict[str, str] = {}
    template_selection_expression: str | None = None
    parameters: dict[str, str] = {}
    content_handling: Literal["CONVERT_TO_TEXT", "CONVERT_TO_BINARY"] | None = None


class Integration(msgspec.Struct, frozen=True, kw_only=True):
    """An integration.

    Attributes:
        type: its kind.
        uri: a Lambda or service ARN (`arn:aws:apigateway:…`), or the address of an HTTP endpoint.
        method: how an HTTP endpoint is called.
        request_templates: mapping templates by key.
        template_selection_expression: which of them; None for `$default`.
        request_parameters: what is mapped to `integration.request.header.…`, `querystring` and `path`.
        passthrough: what happens to a body that no template takes.
        content_handling: CONVERT_TO_TEXT or CONVERT_TO_BINARY of the request; None to leave it.
        timeout_ms: 50 to 29,000.
        responses: for what is no proxy; the first whose key matches.
        response_selection_expression: what their keys are matched against; None for the kind's own.

    """

    type: Literal["AWS_PROXY", "AWS", "HTTP", "HTTP_PROXY", "MOCK"]
    uri: str = ""
    method: str = "POST"
    request_templates: dict[str, str] = {}
    template_selection_expression: str | None = None
    request_parameters: dict[str, str] = {}
    passthrough: Literal["WHEN_NO_MATCH", "WHEN_NO_TEMPLATES", "NEVER"] = "WHEN_NO_MATCH"
    content_handling: Literal["CONVERT_TO_TEXT", "CONVERT_TO_BINARY"] | None = None
    timeout_ms: int = 29_000
    responses: tuple[IntegrationResponse, ...] = ()
    response_selection_expression: str | None = None


class Invoked(msgspec.Struct, frozen=True):
    """How a Lambda function's invocation ended.

    Attributes:
        payload: JSON: what the function returned, or its error's `errorMessage`, `errorType`, `stackTrace`.
        function_error: `Unhandled` where it failed; None where it did not.

    """

    payload: bytes
    function_error: str | None = None


Invoke = Callable[[str, bytes], Awaitable[Invoked]]
"""Calls the function of an ARN or name with a JSON payload and waits for its end; raises where it cannot be called."""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What integrations call.

    Attributes:
        invoke: Lambda functions.
        endpoints: where the services are, by their name in service ARNs (`sqs`, `dynamodb`, `states`, …), `*` for
            those that have none of their own; `lambda` is called for invocations that nobody waits for.
        access_key, secret_key: what calls to them are signed with.

    """

    invoke: Invoke
    endpoints: dict[str, str] = {}
    access_key: str = "test"
    secret_key: str = "test"  # noqa: S105  an emulator's
