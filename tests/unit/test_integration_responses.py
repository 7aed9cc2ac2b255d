"""What becomes of integrations' answers: selection, templates, headers, content handling, proxy responses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hubbub.apigateway import Response
from hubbub.apigateway.selection import Answer, Variables
from hubbub.gateway.integrations import Integration, IntegrationResponse
from hubbub.gateway.integrations.failures import IntegrationFailed
from hubbub.gateway.integrations.mapping import context_of
from hubbub.gateway.integrations.responses import ResponseMapping, proxy_response
from integrationlab import an_event


def responded(answer: Answer, *responses: IntegrationResponse, body: str = "{}", **integration: Any) -> Response:
    """What becomes of an HTTP endpoint's answer."""
    variables = Variables(an_event(body), answer=answer)
    mapping = ResponseMapping(
        Integration(type="HTTP", uri="http://localhost", responses=responses, **integration),
        "$integration.response.statuscode",
    )
    return mapping.response(answer, variables, context_of(variables))


PART = IntegrationResponse(key="/2|4|5/", templates={"$default": "a part"})
OK = IntegrationResponse(key=r"/2\d\d/", templates={"$default": "ok"})
BAD = IntegrationResponse(key=r"/4\d\d|500/", templates={"$default": "bad"})
OTHER = IntegrationResponse(key="$default", templates={"$default": "other"})


@pytest.mark.parametrize(("status", "body"), [(200, "ok"), (204, "ok"), (404, "bad"), (500, "bad"), (503, "other")])
def test_a_response_is_selected_by_the_status(status: int, body: str) -> None:
    """By the first key whose expression matches all of the status, else `$default`; the status stays what it was."""
    response = responded(Answer(status=status, body=b"said"), OTHER, PART, OK, BAD)
    assert (response.status_code, response.body) == (status, body)


def test_a_response_is_selected_by_what_the_definition_says() -> None:
    """A selection expression of its own counts more than the kind's; a key without slashes is a value."""
    answer = Answer(headers=[("X-Kind", "a")], body=b'{"errorMessage":"Not found: room 7"}')
    by_error = {"response_selection_expression": "$integration.response.body.errorMessage"}
    found = IntegrationResponse(key="/Not found.*/", templates={"$default": "none"})
    assert responded(answer, OTHER, found, **by_error).body == "none"
    by_kind = {"response_selection_expression": "${integration.response.header.x-kind}"}
    assert responded(answer, OTHER, IntegrationResponse(key="a"), **by_kind).body == answer.body.decode()


def test_an_answer_that_no_response_is_for_is_a_failure() -> None:
    """What was looked for, and what there is, are named; where there are no responses the answer passes."""
    with pytest.raises(IntegrationFailed, match=r"statuscode = '503'.*\$default; there are: '/2\\\\d\\\\d/'"):
        responded(Answer(status=503), OK)
    assert responded(Answer(status=503, body="ü".encode())) == Response(status_code=503, body="ü")


def test_a_key_that_is_no_expression_is_refused_at_once() -> None:
    """An integration response that can never be selected is an error of the definition."""
    with pytest.raises(ValueError, match=r"'/\(/' is no regular expression"):
        responded(Answer(), IntegrationResponse(key="/(/"))
    with pytest.raises(ValueError, match=r"expected route\.response\.header\.NAME"):
        responded(Answer(), IntegrationResponse(key="$default", parameters={"method.response.header.a": "'b'"}))
    with pytest.raises(ValueError, match=r"route\.response\.header\.a: expected"):
        responded(Answer(), IntegrationResponse(key="$default", parameters={"route.response.header.a": "b"}))


def test_a_response_template_has_the_answer_as_its_input() -> None:
    """`$input` is the answer, `$context.status` its status; which template depends on the answer or on the message."""
    answer = Answer(status=201, headers=[("X-Kind", "b")], body=b'{"id": 7, "tags": ["x"]}')
    templates = {"a": "A", "b": '{"id":$input.path("$.id"),"tags":$input.json("$.tags"),"status":$context.status}'}
    by_header = IntegrationResponse(
        key="$default", templates=templates, template_selection_expression="${integration.response.header.x-kind}"
    )
    assert responded(answer, by_header).body == '{"id":7,"tags":["x"],"status":201}'
    by_message = IntegrationResponse(
        key="$default", templates=templates, template_selection_expression="${request.body.kind}"
    )
    assert responded(answer, by_message, body='{"kind":"a"}').body == "A"
    assert responded(answer, by_message, body='{"kind":"z"}').body == answer.body.decode()


def test_a_response_maps_headers_and_may_override_itself() -> None:
    """From the answer, the context or static text; a template may set the status and headers."""
    answer = Answer(status=200, headers=[("X-Protocol", "chat.v2")], body=b"{}")
    mapped = IntegrationResponse(
        key="$default",
        templates={
            "$default": "#set($context.responseOverride.status = 403)"
            "#set($context.responseOverride.header.X-Why = 'no')"
        },
        parameters={
            "route.response.header.Sec-WebSocket-Protocol": "integration.response.header.x-protocol",
            "route.response.header.X-Absent": "integration.response.header.absent",
            "route.response.header.X-Static": "'text'",
        },
    )
    assert responded(answer, mapped) == Response(
        status_code=403,
        headers={"Sec-WebSocket-Protocol": "chat.v2", "X-Static": "text", "X-Why": "no"},
        body="",
    )
    for nonsense in ("'403'", "99", "600", "true"):
        template = f"#set($context.responseOverride.status = {nonsense})a"
        ignored = IntegrationResponse(key="$default", templates={"$default": template})
        assert responded(answer, ignored).status_code == 200


@pytest.mark.parametrize(
    ("body", "handling", "text"),
    [
        (b"\x00\xff", None, "\x00�"),
        (b"\x00\xff", "CONVERT_TO_TEXT", "AP8="),
        (b"w7w=", "CONVERT_TO_BINARY", "ü"),
    ],
)
def test_an_answer_becomes_text(body: bytes, handling: Any, text: str) -> None:
    """CONVERT_TO_TEXT makes base64 of it, CONVERT_TO_BINARY undoes it."""
    assert responded(Answer(body=body), IntegrationResponse(key="$default", content_handling=handling)).body == text


def test_an_answer_that_is_no_base64_is_not_converted() -> None:
    """CONVERT_TO_BINARY of anything else is a failure."""
    with pytest.raises(IntegrationFailed, match="the answer is no base64"):
        responded(Answer(body=b"!"), IntegrationResponse(key="$default", content_handling="CONVERT_TO_BINARY"))


@pytest.mark.parametrize(
    ("payload", "response"),
    [
        ({"statusCode": 200}, Response()),
        ({"statusCode": 201, "body": "hi"}, Response(status_code=201, body="hi")),
        ({"statusCode": "403"}, Response(status_code=403)),
        ({}, Response()),
        ({"body": "hi", "statusCode": None, "headers": None}, Response(body="hi")),
        (
            {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "chat", "n": 1, "b": True, "x": None}},
            Response(headers={"Sec-WebSocket-Protocol": "chat", "n": "1", "b": "true"}),
        ),
        ({"multiValueHeaders": {"a": ["1", "2"]}}, Response(headers={"a": "2"})),
        ({"body": "w7w=", "isBase64Encoded": True}, Response(body="ü")),
        ({"body": "w7w=", "isBase64Encoded": False}, Response(body="w7w=")),
    ],
)
def test_a_proxy_response_is_read(payload: Any, response: Response) -> None:
    """A status that is a number in a string counts, and one that is absent is 200."""
    assert proxy_response(json.dumps(payload).encode()) == response


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"", 'expected an object such as {"statusCode": 200}, got null'),
        (b"null", "got null"),
        (b'"hello"', 'got "hello"'),
        (b"[1]", "got [1]"),
        (b"{", "it is no JSON"),
        (b'{"statusCode":200,"ConnectionId":"C=","Data":"x"}', "got ConnectionId, Data as well"),
        (b'{"statusCode":200,"body":{"a":1}}', 'expected a string as body, such as JSON, got {"a":1}'),
        (b'{"statusCode":"abc"}', 'expected a number as statusCode, got "abc"'),
        (b'{"statusCode":true}', "expected a number as statusCode, got true"),
        (b'{"statusCode":[]}', "expected a number as statusCode, got []"),
        (b'{"headers":[]}', None),
        (b'{"headers":"a"}', "expected objects as headers"),
        (b'{"headers":{"a":{}}}', "expected a string as header 'a', got {}"),
        (b'{"body":"!","isBase64Encoded":true}', "no base64"),
    ],
)
def test_a_malformed_proxy_response_says_what_was_expected(payload: bytes, problem: str | None) -> None:
    """null, other JSON, more fields than there are, and a body that is no string are no responses."""
    if problem is None:
        proxy_response(payload)
        return
    with pytest.raises(IntegrationFailed) as caught:
        proxy_response(payload)
    assert problem in str(caught.value)
