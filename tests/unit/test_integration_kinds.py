"""Handlers of each kind of integration that needs no socket: functions, mocks, and what is no integration."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from hubbub.apigateway import Response
from hubbub.gateway.integrations import Integration, IntegrationResponse, Services
from hubbub.gateway.integrations.build import Integrations
from hubbub.gateway.integrations.failures import FunctionFailed, IntegrationFailed
from integrationlab import FUNCTION, INVOCATION, Lambda, an_event

OK = IntegrationResponse(key=r"/2\d\d/", templates={"$default": "ok"})
OTHER = IntegrationResponse(key="$default", templates={"$default": "other"})


async def test_a_proxy_function_gets_the_whole_event() -> None:
    """The event's JSON goes to the function of the uri, and its answer is the response."""
    functions = Lambda({"statusCode": 200, "body": "hi"})
    event = an_event('{"action":"send"}')
    assert await functions.handler(type="AWS_PROXY")(event) == Response(body="hi")
    assert functions.calls == [(FUNCTION, json.loads(msgspec.json.encode(event)))]


@pytest.mark.parametrize(
    ("uri", "function"),
    [
        (INVOCATION, FUNCTION),
        (FUNCTION, FUNCTION),
        (f"{FUNCTION}:live", f"{FUNCTION}:live"),
        ("chat", "chat"),
        (INVOCATION.replace("chat", "${stageVariables.fn}"), FUNCTION.replace("chat", "other")),
        (FUNCTION.replace("chat", "${stageVariables.fn}"), FUNCTION.replace("chat", "other")),
        (INVOCATION.replace("arn:aws:api", "arn:aws-cn:api"), FUNCTION),
    ],
)
async def test_the_function_of_a_uri_is_called(uri: str, function: str) -> None:
    """An invocation's ARN, a function's own, a name; stage variables are those of the event."""
    functions = Lambda({})
    await functions.handler(type="AWS_PROXY", uri=uri)(an_event(stage_variables={"fn": "other"}))
    await functions.handler(type="AWS", uri=uri)(an_event(stage_variables={"fn": "other"}))
    assert [name for name, _ in functions.calls] == [function, function]


async def test_a_function_that_failed_says_how() -> None:
    """The error has the function, the error's type, message and trace."""
    said = {"errorType": "KeyError", "errorMessage": "'room'", "stackTrace": ["  line one\n", "  line two\n"]}
    with pytest.raises(FunctionFailed) as caught:
        await Lambda(said, "Unhandled").handler(type="AWS_PROXY")(an_event())
    assert (caught.value.error_type, caught.value.error_message) == ("KeyError", "'room'")
    assert str(caught.value) == f"{FUNCTION} failed with KeyError: 'room'\n  line one\n  line two"
    with pytest.raises(FunctionFailed, match=r"failed with Unhandled: $"):
        await Lambda("odd", "Unhandled").handler(type="AWS_PROXY")(an_event())


async def test_a_proxy_function_gets_text_as_binary_if_that_is_wanted() -> None:
    """With CONVERT_TO_BINARY the event says that its body is base64."""
    functions = Lambda({})
    await functions.handler(type="AWS_PROXY", content_handling="CONVERT_TO_BINARY")(an_event("AP8="))
    assert functions.calls[0][1]["isBase64Encoded"] is True
    with pytest.raises(IntegrationFailed, match="no base64"):
        await functions.handler(type="AWS_PROXY", content_handling="CONVERT_TO_BINARY")(an_event("{}"))


async def test_a_function_gets_what_a_template_makes() -> None:
    """AWS with a function sends the template's document, and its answer is selected by its errorMessage."""
    functions = Lambda({"errorMessage": "Not found: 7", "errorType": "NotFound"}, "Unhandled")
    handler = functions.handler(
        type="AWS",
        request_templates={"$default": '{"id":"$context.connectionId","text":$input.json("$.text")}'},
        responses=(
            IntegrationResponse(key="$default", templates={"$default": "fine"}),
            IntegrationResponse(key="/Not found.*/", templates={"$default": '{"error":$input.json("$.errorMessage")}'}),
        ),
    )
    assert await handler(an_event('{"text":"hi"}')) == Response(body='{"error":"Not found: 7"}')
    assert functions.calls == [(FUNCTION, {"id": "C=", "text": "hi"})]


async def test_a_function_without_templates_gets_the_body_and_answers_as_it_is() -> None:
    """A body that is JSON passes both ways; none at all is an empty object; other text is refused."""
    functions = Lambda([1, 2])
    handler = functions.handler(type="AWS")
    assert await handler(an_event('{"a":1}')) == Response(body="[1, 2]")
    await handler(an_event(connect=True))
    assert [payload for _, payload in functions.calls] == [{"a": 1}, {}]
    with pytest.raises(IntegrationFailed, match="expected JSON for"):
        await handler(an_event("plain text"))


async def test_a_function_that_fails_lets_nobody_in() -> None:
    """On `$connect` an error of the function's is a failure, also where it is not a proxy's."""
    functions = Lambda({"errorMessage": "no"}, "Unhandled")
    with pytest.raises(FunctionFailed, match="no"):
        await functions.handler(type="AWS", responses=(OTHER,))(an_event(connect=True))
    assert (await functions.handler(type="AWS", responses=(OTHER,))(an_event())).body == "other"


@pytest.mark.parametrize(
    ("template", "status"),
    [
        ('{"statusCode": 200}', 200),
        ('{"statusCode": 403, "more": [1]}', 403),
        ('{"statusCode": "204"}', 204),
        ("{statusCode: 200}", 200),
        ("{ 'statusCode' : 201, }", 201),
        ('#if($input.path("$.ok")){"statusCode": 200}#else{"statusCode": 500}#end', 500),
    ],
)
async def test_a_mock_has_the_status_of_its_template(template: str, status: int) -> None:
    """The request template's status selects the response, also where the template is no proper JSON."""
    handler = Lambda().handler(
        type="MOCK",
        uri="",
        request_templates={"$default": template},
        responses=(IntegrationResponse(key="$default", templates={"$default": "$context.status:$input.body"}),),
    )
    assert await handler(an_event('{"ok":false}')) == Response(status_code=status, body=f"{status}:{{}}")


@pytest.mark.parametrize("templates", [{}, {"$default": "no"}, {"$default": '{"status":200}'}, {"$default": "[200]"}])
async def test_a_mock_without_a_status_is_a_failure(templates: dict[str, str]) -> None:
    """A template that gives none, and a message that passes through, have no status."""
    with pytest.raises(IntegrationFailed, match=r"a request template that gives .* for MOCK"):
        await Lambda().handler(type="MOCK", uri="", request_templates=templates)(an_event('{"a":1}'))


async def test_nobody_maps_an_answer_that_nobody_waits_for() -> None:
    """A one-way message's answer needs no integration response; a handshake's does, whose status decides."""
    options: dict[str, Any] = {
        "type": "MOCK",
        "uri": "",
        "request_templates": {"$default": '{"statusCode": 500}'},
        "responses": (OK,),
    }
    assert await Lambda().handler(two_way=False, **options)(an_event()) == Response(status_code=500)
    with pytest.raises(IntegrationFailed, match="no integration response"):
        await Lambda().handler(two_way=False, **options)(an_event(connect=True))
    with pytest.raises(IntegrationFailed, match="no integration response"):
        await Lambda().handler(two_way=True, **options)(an_event())


async def test_templates_of_request_and_response_share_a_context() -> None:
    """What the request's template puts into `$context`, the response's finds; the next event does not."""
    handler = Lambda().handler(
        type="MOCK",
        uri="",
        request_templates={
            "$default": '[$context.responseOverride.seen]#set($context.responseOverride.seen = "x"){"statusCode": 200}'
        },
        responses=(IntegrationResponse(key="$default", templates={"$default": "$context.responseOverride.seen"}),),
    )
    assert [(await handler(an_event())).body for _ in range(2)] == ["x", "x"]


@pytest.mark.parametrize(
    ("integration", "problem"),
    [
        ({"type": "AWS_PROXY", "uri": "http://localhost/"}, "expected the ARN of a Lambda function"),
        ({"type": "AWS_PROXY", "uri": "arn:aws:apigateway:us-east-1:sqs:path/1/q"}, "expected the ARN of a Lambda"),
        ({"type": "AWS", "uri": "http://localhost/"}, "expected arn:aws:apigateway:REGION:SERVICE"),
        ({"type": "HTTP", "uri": "localhost"}, "expected an http or https address as the uri of HTTP"),
        ({"type": "HTTP_PROXY", "uri": ""}, "expected an http or https address as the uri of HTTP_PROXY"),
    ],
)
def test_a_uri_that_is_none_is_refused_at_once(integration: dict[str, Any], problem: str) -> None:
    """The error says what the kind wants and what it got."""
    with pytest.raises(ValueError, match="expected") as caught:
        Lambda().handler(**integration)
    assert problem in str(caught.value)
    assert repr(integration["uri"]) in str(caught.value)


async def test_a_service_without_an_endpoint_says_how_to_name_one() -> None:
    """The error has the service, the uri and what there is."""
    handler = Integrations(Services(invoke=Lambda(), endpoints={"sqs": "http://127.0.0.1:1"})).handler(
        Integration(type="AWS", uri="arn:aws:apigateway:us-east-1:dynamodb:action/PutItem")
    )
    with pytest.raises(IntegrationFailed, match=r"'dynamodb', which arn.*Services\.endpoints; there are: sqs"):
        await handler(an_event())
