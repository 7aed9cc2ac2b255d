"""What integrations are sent: parameters, templates, passthrough, content handling, addresses."""

from __future__ import annotations

from typing import Any

import pytest

from hubbub.apigateway import Event
from hubbub.apigateway.selection import Variables
from hubbub.gateway.integrations import Integration
from hubbub.gateway.integrations.failures import IntegrationFailed
from hubbub.gateway.integrations.mapping import context_of
from hubbub.gateway.integrations.requests import Outgoing, RequestMapping, resolve_uri
from integrationlab import an_event


def sent(event: Event | None = None, *, with_template: bool = True, **integration: Any) -> Outgoing:
    """What an HTTP integration is sent."""
    variables = Variables(event or an_event('{"action":"send","kind":"b","n":[1]}'))
    mapping = RequestMapping(Integration(type="HTTP", uri="http://localhost", **integration))
    return mapping.outgoing(variables, context_of(variables), with_template=with_template)


def test_parameters_are_mapped_to_headers_query_and_path() -> None:
    """From the context, the body, the handshake, stage variables and static text; what is absent is left out."""
    parameters = {
        "integration.request.header.connectionId": "context.connectionId",
        "integration.request.header.X-Static": "'static text'",
        "integration.request.header.X-Level": "context.authorizer.level",
        "integration.request.header.X-Absent": "route.request.header.X-Token",
        "integration.request.querystring.n": "route.request.body.n[0]",
        "integration.request.querystring.all": "route.request.body",
        "integration.request.path.kind": "route.request.body.kind",
        "integration.request.path.env": "stageVariables.env",
    }
    event = an_event('{"kind":"b","n":[1]}', stage_variables={"env": "test"})
    outgoing = sent(event, request_parameters=parameters)
    assert outgoing.headers == {"connectionId": "C=", "X-Static": "static text", "X-Level": "3"}
    assert outgoing.query == {"n": "1", "all": '{"kind":"b","n":[1]}'}
    assert outgoing.path == {"kind": "b", "env": "test"}
    handshake = {
        "integration.request.header.token": "route.request.header.x-token",
        "integration.request.header.accepts": "route.request.multivalueheader.Accept",
        "integration.request.querystring.room": "route.request.querystring.room",
        "integration.request.querystring.rooms": "route.request.multivaluequerystring.room",
    }
    outgoing = sent(an_event(connect=True), request_parameters=handshake)
    assert outgoing.headers == {"token": "t", "accepts": "a,b"}
    assert outgoing.query == {"room": "two", "rooms": "one,two"}
    assert outgoing.body == b""


@pytest.mark.parametrize(
    ("target", "source", "problem"),
    [
        ("integration.request.cookie.a", "'x'", "got 'integration.request.cookie.a'"),
        ("integration.request.header.", "'x'", "got 'integration.request.header.'"),
        ("integration.request.header.a", "x", "integration.request.header.a: expected"),
        ("integration.request.header.a", "route.request.cookie.a", "got 'route.request.cookie.a'"),
    ],
)
def test_a_mapping_of_what_there_is_not_is_refused_at_once(target: str, source: str, problem: str) -> None:
    """The error says which parameter and what was expected, before anything is served."""
    with pytest.raises(ValueError, match="expected") as caught:
        RequestMapping(Integration(type="HTTP", uri="http://localhost", request_parameters={target: source}))
    assert problem in str(caught.value)


TEMPLATES = {"a": "first", "b": "second", "$default": "fallback"}


@pytest.mark.parametrize(
    ("templates", "expression", "passthrough", "body"),
    [
        (TEMPLATES, "a", "NEVER", b"first"),
        (TEMPLATES, "${request.body.kind}", "NEVER", b"second"),
        (TEMPLATES, "${request.body.action}", "NEVER", b"fallback"),
        (TEMPLATES, r"\$default", "NEVER", b"fallback"),
        (TEMPLATES, None, "NEVER", b"fallback"),
        ({"application/json": "typed"}, None, "NEVER", b"typed"),
        ({"application/json": "typed"}, r"\$default", "WHEN_NO_MATCH", None),
        ({"a": "first"}, "other", "WHEN_NO_MATCH", None),
        ({"a": "first"}, "other", "WHEN_NO_TEMPLATES", IntegrationFailed),
        ({"a": "first"}, "other", "NEVER", IntegrationFailed),
        ({}, None, "WHEN_NO_MATCH", None),
        ({}, None, "WHEN_NO_TEMPLATES", None),
        ({}, None, "NEVER", IntegrationFailed),
    ],
)
def test_a_template_is_selected_or_the_body_passes_through(
    templates: dict[str, str], expression: str | None, passthrough: Any, body: bytes | type[Exception] | None
) -> None:
    """By the expression, else `$default`; else the body passes if its passthrough behaviour lets it."""
    options = {
        "request_templates": templates,
        "template_selection_expression": expression,
        "passthrough": passthrough,
    }
    if isinstance(body, type):
        with pytest.raises(body, match=f"PassthroughBehavior is {passthrough}"):
            sent(**options)
    else:
        assert sent(**options).body == (body if body is not None else b'{"action":"send","kind":"b","n":[1]}')
    assert sent(**options, with_template=False).body == b'{"action":"send","kind":"b","n":[1]}'


def test_a_template_overrides_what_is_mapped() -> None:
    """`$context.requestOverride` sets headers, whatever their case, and query parameters."""
    template = (
        "#set($context.requestOverride.header.X-Amz-Target = 'AWSEvents.PutEvents')"
        "#set($name = 'n')#set($context.requestOverride.querystring[$name] = 1)"
        "$context.requestOverride.querystring.put('m', 'two')"
        "#set($context['requestOverride'].path['p'] = 'x')body"
    )
    outgoing = sent(
        request_templates={"$default": template},
        request_parameters={"integration.request.header.x-amz-target": "'mapped'", "integration.request.path.p": "'y'"},
    )
    assert outgoing == Outgoing(b"body", {"X-Amz-Target": "AWSEvents.PutEvents"}, {"n": "1", "m": "two"}, {"p": "x"})


@pytest.mark.parametrize(
    ("body", "binary", "handling", "sent_body"),
    [
        ("AP8=", False, None, b"AP8="),
        ("AP8=", False, "CONVERT_TO_TEXT", b"AP8="),
        ("AP8=", False, "CONVERT_TO_BINARY", b"\x00\xff"),
        ("AP8=", True, None, b"\x00\xff"),
        ("AP8=", True, "CONVERT_TO_TEXT", b"AP8="),
        ("AP8=", True, "CONVERT_TO_BINARY", b"\x00\xff"),
    ],
)
def test_content_is_handled_both_ways(body: str, binary: bool, handling: Any, sent_body: bytes) -> None:
    """CONVERT_TO_BINARY takes text for base64 of what is sent, CONVERT_TO_TEXT makes base64 of a binary message."""
    event = an_event(body)
    event.is_base64_encoded = binary
    assert sent(event, content_handling=handling).body == sent_body
    assert sent(event, content_handling=handling, with_template=False).body == sent_body


def test_what_is_no_base64_is_not_converted() -> None:
    """CONVERT_TO_BINARY of other text fails, and so does a template of a binary body."""
    with pytest.raises(IntegrationFailed, match="CONVERT_TO_BINARY, and the body is no base64"):
        sent(an_event("no base64"), content_handling="CONVERT_TO_BINARY")
    with pytest.raises(IntegrationFailed, match=r"the request template '\$default' cannot take a binary body"):
        sent(an_event("AP8="), content_handling="CONVERT_TO_BINARY", request_templates={"$default": "x"})


def test_an_address_is_filled_in() -> None:
    """Stage variables and path parameters, the latter encoded; one that there is not is named."""
    event = an_event(stage_variables={"host": "example.test", "fn": "chat"})
    uri = "https://${stageVariables.host}/rooms/{room}?v=1"
    assert resolve_uri(uri, event, {"room": "a/b ü"}) == "https://example.test/rooms/a%2Fb%20%C3%BC?v=1"
    with pytest.raises(IntegrationFailed, match=r"integration\.request\.path\.room is not mapped"):
        resolve_uri(uri, event, {})
    with pytest.raises(IntegrationFailed, match="the stage 'dev' has no variable 'other'"):
        resolve_uri("${stageVariables.other}", event, {})
