"""What an integration is sent: a message or a handshake, made into a body, headers, a query and parts of a path.

Source: developer guide, "Setting up data mapping for WebSocket APIs", "Setting up data transformations for WebSocket
APIs" and "Integration passthrough behaviors".
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

from hubbub.apigateway import Event
from hubbub.apigateway.selection import Variables, evaluate
from hubbub.gateway.integrations.definition import Integration
from hubbub.gateway.integrations.failures import IntegrationFailed
from hubbub.gateway.integrations.mapping import Context, MappingTemplate
from hubbub.gateway.integrations.velocity import text_of

_TARGET = re.compile(r"integration\.request\.(header|querystring|path)\.([a-zA-Z0-9._$\-]+)")

_STAGE_VARIABLE = re.compile(r"\$\{stageVariables\.(\w+)\}")

_PATH_PARAMETER = re.compile(r"\{(\w+)\}")


class Outgoing(NamedTuple):
    """What is sent.

    Attributes:
        body: as it goes out.
        headers, query, path: names and values that the integration or its template maps; nothing else.

    """

    body: bytes
    headers: dict[str, str]
    query: dict[str, str]
    path: dict[str, str]


class RequestMapping:
    """Makes what an integration is sent.

    Args:
        integration: its definition.

    Raises:
        ValueError: a parameter is mapped to or from what there is not.

    """

    def __init__(self, integration: Integration) -> None:
        self._integration = integration
        self._templates = {
            key: MappingTemplate(f"request template {key!r}", text)
            for key, text in integration.request_templates.items()
        }
        self._parameters = [_parameter(*pair) for pair in integration.request_parameters.items()]

    def outgoing(self, variables: Variables, context: Context, *, with_template: bool = True) -> Outgoing:
        """What is sent for an event.

        Args:
            variables: of the event.
            context: for templates, which may override parameters in it.
            with_template: whether templates count, as they do not for proxies.

        Raises:
            IntegrationFailed: a template failed, or the body is not what content handling or passthrough wants.

        """
        event = variables.event
        assert event is not None  # noqa: S101  integrations are called with events
        payload = _payload(event, self._integration.content_handling)
        template = self._template(variables) if with_template else None
        if template is not None:
            if isinstance(payload, bytes):
                raise IntegrationFailed(f"the {template.name} cannot take a binary body")
            payload = template.render(payload, context, variables)
        mapped: dict[str, dict[str, str]] = {"header": {}, "querystring": {}, "path": {}}
        for kind, name, source in self._parameters:
            if (value := variables.value_of(source)) is not None:
                mapped[kind][name] = value
        _override(mapped, context)
        body = payload.encode("utf-8", "surrogatepass") if isinstance(payload, str) else payload
        return Outgoing(body, mapped["header"], mapped["querystring"], mapped["path"])

    def _template(self, variables: Variables) -> MappingTemplate | None:
        """The template that takes the body; None to pass it on as it is."""
        template = choose_template(self._templates, self._integration.template_selection_expression, variables)
        if template is not None:
            return template
        passthrough = self._integration.passthrough
        if passthrough == "NEVER" or (passthrough == "WHEN_NO_TEMPLATES" and self._templates):
            keys = ", ".join(map(repr, self._templates)) or "none"
            raise IntegrationFailed(
                f"no request template was selected, and PassthroughBehavior is {passthrough}; templates: {keys}"
            )
        return None


def choose_template(
    templates: Mapping[str, MappingTemplate], expression: str | None, variables: Variables
) -> MappingTemplate | None:
    """The template of the expression's value, else that of `$default`; None for none.

    Where there is no expression, one for `application/json` does as well: so it is written in AWS's own examples.
    """
    if expression is None:
        return templates.get("$default") or templates.get("application/json")
    return templates.get(evaluate(expression, variables.value_of)) or templates.get("$default")


def resolve_uri(uri: str, event: Event, path: Mapping[str, str]) -> str:
    """An address with its `${stageVariables.x}` and `{x}` filled in.

    Raises:
        IntegrationFailed: the stage, or the integration's parameters, have no such thing.

    """

    def stage_variable(found: re.Match[str]) -> str:
        value = (event.stage_variables or {}).get(found[1])
        if value is None:
            stage = event.request_context.stage
            raise IntegrationFailed(f"the stage {stage!r} has no variable {found[1]!r}, which {uri} needs")
        return value

    def parameter(found: re.Match[str]) -> str:
        value = path.get(found[1])
        if value is None:
            raise IntegrationFailed(f"integration.request.path.{found[1]} is not mapped, which {uri} needs")
        return quote(value, safe="")

    return _PATH_PARAMETER.sub(parameter, _STAGE_VARIABLE.sub(stage_variable, uri))


def _parameter(target: str, source: str) -> tuple[str, str, str]:
    match = _TARGET.fullmatch(target)
    if match is None:
        raise ValueError(
            "expected integration.request.header.NAME, .querystring.NAME or .path.NAME as what a request parameter is "
            f"mapped to, got {target!r}"
        )
    try:
        Variables().value_of(source)
    except ValueError as error:
        raise ValueError(f"{target}: {error}") from None
    return match[1], match[2], source


def _payload(event: Event, content_handling: str | None) -> str | bytes:
    """The body as text or as bytes; a handshake has an empty one."""
    body = event.body or ""
    if event.is_base64_encoded is True:  # a binary frame, which AWS has not
        return body if content_handling == "CONVERT_TO_TEXT" else base64.b64decode(body)
    if content_handling != "CONVERT_TO_BINARY":
        return body
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise IntegrationFailed(
            f"ContentHandlingStrategy is CONVERT_TO_BINARY, and the body is no base64: {error}"
        ) from error


def _override(mapped: dict[str, dict[str, str]], context: Context) -> None:
    """What the template has put into `$context.requestOverride` counts more than what is mapped."""
    overrides = context.get("requestOverride")
    for kind, values in mapped.items():
        wanted = overrides.get(kind) if isinstance(overrides, dict) else None
        for name, value in wanted.items() if isinstance(wanted, dict) else ():
            for known in [known for known in values if known.lower() == name.lower()]:
                del values[known]
            values[name] = text_of(value)
