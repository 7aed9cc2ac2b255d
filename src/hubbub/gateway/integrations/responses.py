"""What becomes of an integration's answer: an integration response is selected, and maps it for the client.

Source: developer guide, "Setting up a WebSocket API integration responses in API Gateway".
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping

import msgspec

from hubbub.apigateway import Response
from hubbub.apigateway.selection import Answer, Variables, evaluate
from hubbub.gateway.integrations.definition import Integration, IntegrationResponse
from hubbub.gateway.integrations.failures import IntegrationFailed
from hubbub.gateway.integrations.mapping import Context, MappingTemplate
from hubbub.gateway.integrations.requests import choose_template
from hubbub.gateway.integrations.velocity import text_of

_DEFAULT = "$default"

_TARGET = re.compile(r"route\.response\.header\.([a-zA-Z0-9._$\-]+)")


class ResponseMapping:
    """Makes a route's response of an integration's answer.

    Args:
        integration: its definition.
        selected_by: what the keys of its responses are matched against, unless it says so itself.

    Raises:
        ValueError: a key is no regular expression, or a parameter is mapped to or from what there is not.

    """

    def __init__(self, integration: Integration, selected_by: str) -> None:
        self._expression = integration.response_selection_expression or selected_by
        self._responses = [_Mapped(response) for response in integration.responses]

    def response(self, answer: Answer, variables: Variables, context: Context) -> Response:
        """The route's response.

        Its status is the answer's, unless a template sets `$context.responseOverride.status`.

        Args:
            answer: the integration's.
            variables: of the event, and of the answer.
            context: for templates: the one that the request's had.

        Raises:
            IntegrationFailed: no response is for this answer, or its template failed.

        """
        if not self._responses:
            return Response(status_code=answer.status, body=text_from(answer.body, None))
        value = evaluate(self._expression, variables.value_of)
        mapped = next((each for each in self._responses if each.matches(value)), None)
        mapped = mapped or next((each for each in self._responses if each.key == _DEFAULT), None)
        if mapped is None:
            keys = ", ".join(repr(each.key) for each in self._responses)
            raise IntegrationFailed(
                f"no integration response is for {self._expression} = {value!r}, and there is none for $default; "
                f"there are: {keys}"
            )
        return mapped.response(answer, variables, context)


class _Mapped:
    """One integration response."""

    def __init__(self, definition: IntegrationResponse) -> None:
        self.key = definition.key
        self.matches = _matcher(definition.key)
        self._definition = definition
        self._templates = {
            key: MappingTemplate(f"response template {key!r} of {definition.key!r}", text)
            for key, text in definition.templates.items()
        }
        self._headers = [_header(*pair) for pair in definition.parameters.items()]

    def response(self, answer: Answer, variables: Variables, context: Context) -> Response:
        body = text_from(answer.body, self._definition.content_handling)
        context["status"] = str(answer.status)
        template = choose_template(self._templates, self._definition.template_selection_expression, variables)
        if template is not None:
            body = template.render(body, context, variables)
        headers = {name: value for name, source in self._headers if (value := variables.value_of(source)) is not None}
        overrides = context.get("responseOverride")
        status = overrides.get("status") if isinstance(overrides, dict) else None
        wanted = overrides.get("header") if isinstance(overrides, dict) else None
        if isinstance(wanted, dict):
            headers |= {name: text_of(value) for name, value in wanted.items()}
        return Response(
            status_code=status if type(status) is int and 100 <= status <= 599 else answer.status,
            headers=headers or None,
            body=body,
        )


def _matcher(key: str) -> Callable[[str], bool]:
    """Whether a value is what a key is for: all of it matches `/a regular expression/`, or it is the key itself."""
    if len(key) < 2 or key[0] != "/" or key[-1] != "/":
        return lambda value: value == key and key != _DEFAULT
    try:
        pattern = re.compile(key[1:-1])
    except re.error as error:
        raise ValueError(f"the integration response key {key!r} is no regular expression: {error}") from None
    return lambda value: pattern.fullmatch(value) is not None


def _header(target: str, source: str) -> tuple[str, str]:
    match = _TARGET.fullmatch(target)
    if match is None:
        raise ValueError(
            f"expected route.response.header.NAME as what a response parameter is mapped to, got {target!r}"
        )
    try:
        Variables().value_of(source)
    except ValueError as error:
        raise ValueError(f"{target}: {error}") from None
    return match[1], source


def text_from(body: bytes, content_handling: str | None) -> str:
    """An answer's body as the text that a client gets, since API Gateway sends nothing else.

    CONVERT_TO_TEXT makes base64 of it, CONVERT_TO_BINARY takes it for base64; what is no UTF-8 is replaced.

    Raises:
        IntegrationFailed: CONVERT_TO_BINARY, and it is no base64.

    """
    if content_handling == "CONVERT_TO_TEXT":
        return base64.b64encode(body).decode()
    if content_handling == "CONVERT_TO_BINARY":
        try:
            body = base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError) as error:
            raise IntegrationFailed(
                f"ContentHandlingStrategy is CONVERT_TO_BINARY, and the answer is no base64: {error}"
            ) from error
    return body.decode("utf-8", "replace")


_FIELDS = {"statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"}


def proxy_response(payload: bytes) -> Response:
    """What a Lambda function behind AWS_PROXY has answered.

    An object of `statusCode` (a number, or one in a string; 200 if absent), `headers`, `multiValueHeaders`, `body` and
    `isBase64Encoded`. AWS takes nothing else, neither null nor a field more, also where nobody waits for an answer:
    found to be so with a route that is one-way.

    Args:
        payload: JSON.

    Raises:
        IntegrationFailed: it is malformed; says what was expected and what came.

    """
    try:
        answer = msgspec.json.decode(payload or b"null")
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _malformed(f"it is no JSON: {error}") from error
    if not isinstance(answer, dict):
        raise _malformed(f'expected an object such as {{"statusCode": 200}}, got {_shown(answer)}')
    if unknown := answer.keys() - _FIELDS:
        raise _malformed(f"expected nothing but {', '.join(sorted(_FIELDS))}, got {', '.join(sorted(unknown))} as well")
    body = answer.get("body")
    if body is not None and not isinstance(body, str):
        raise _malformed(f"expected a string as body, such as JSON, got {_shown(body)}")
    if body is not None and answer.get("isBase64Encoded") is True:
        body = text_from(body.encode(), "CONVERT_TO_BINARY")
    return Response(status_code=_status(answer.get("statusCode")), headers=_headers(answer), body=body)


def _status(value: object) -> int:
    if value is None:
        return 200
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _malformed(f"expected a number as statusCode, got {_shown(value)}")
    try:
        return int(value)
    except (ValueError, OverflowError):
        raise _malformed(f"expected a number as statusCode, got {_shown(value)}") from None


def _headers(answer: Mapping[str, object]) -> dict[str, str] | None:
    """Names and values; of several values of one name the last."""
    headers: dict[str, str] = {}
    single, several = answer.get("headers") or {}, answer.get("multiValueHeaders") or {}
    if not isinstance(single, dict) or not isinstance(several, dict):
        raise _malformed(f"expected objects as headers, got {_shown(single)} and {_shown(several)}")
    for name, values in [*single.items(), *several.items()]:
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, dict | list):
                raise _malformed(f"expected a string as header {name!r}, got {_shown(value)}")
            if value is not None:
                headers[name] = text_of(value)
    return headers or None


def _malformed(why: str) -> IntegrationFailed:
    return IntegrationFailed(f"malformed Lambda proxy response: {why}")


def _shown(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."
