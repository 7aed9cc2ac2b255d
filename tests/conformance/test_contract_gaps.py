"""Facts of the contract that are several parts' affair, each once on a real gateway with all of those parts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from gatewaylab import Functions, Lab, running, still_works
from rawpeer import TEXT, Answer, closing, frame, request

from hubbub.apigateway import CONNECT, DEFAULT, Api, Response, Route
from hubbub.emulator.apis import Wiring
from hubbub.gateway.authorizers import MAX_RESULT_BYTES, request_authorizer
from hubbub.gateway.integrations import Integration, Invoked, Services
from hubbub.gateway.integrations.build import Integrations
from integrationlab import FUNCTION, INVOCATION, Lambda
from live import until
from templatelab import stack_of

ARN = "arn:aws:execute-api:us-east-1:123456789012:abcdef1234/prod"
"""What the API of these tests is called in policies, before the route."""


def said(**fields: object) -> bytes:
    """A message."""
    return frame(TEXT, json.dumps(fields).encode())


# Authorizers that are Lambda functions


def policy(effect: str = "Allow", resource: str = f"{ARN}/$connect", **more: Any) -> dict[str, Any]:
    """What an authorizer's function answers."""
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": resource}
    return {"principalId": "ann", "policyDocument": {"Version": "2012-10-17", "Statement": [statement]}, **more}


def without(name: str) -> dict[str, Any]:
    """The same without one of its fields."""
    return {key: value for key, value in policy().items() if key != name}


def filled(size: int) -> dict[str, Any]:
    """An answer of so many bytes."""
    empty = policy(context={"filler": ""})
    return policy(context={"filler": "x" * (size - len(json.dumps(empty)))})


def failing(message: str) -> Lambda:
    """A function that raises."""
    return Lambda({"errorMessage": message, "errorType": "Exception", "stackTrace": []}, "Unhandled")


def behind(invoke: Any, functions: Functions, *sources: str) -> Api:
    """An API whose authorizer is a Lambda function."""
    return Api(
        routes=functions.api().routes,
        id="abcdef1234",
        stage="prod",
        authorizer=request_authorizer(FUNCTION, invoke, identity_sources=sources),
    )


async def answer_to(head: bytes, lab: Lab) -> Answer:
    """How a handshake is answered."""
    async with await lab.dial(head) as peer:
        return await peer.answer()


async def cannot_be_called(function: str, payload: bytes) -> Invoked:
    """A Lambda service that is out of order, or has throttled the function."""
    raise ConnectionError("there is nobody")


DENIED = "User is not authorized to access this resource"
VERDICTS: dict[str, tuple[int, str, Any]] = {
    "the method is allowed": (101, "", Lambda(policy())),
    "everything is allowed": (101, "", Lambda(policy(resource="*"))),
    "the whole stage is allowed": (101, "", Lambda(policy(resource=f"{ARN}/*"))),
    "exactly 8 KB": (101, "", Lambda(filled(MAX_RESULT_BYTES))),
    "what REST APIs have": (403, DENIED, Lambda(policy(resource=f"{ARN}/*/*"))),
    "another stage": (403, DENIED, Lambda(policy(resource=ARN.replace("prod", "dev") + "/$connect"))),
    "nothing is allowed": (
        403,
        f"{DENIED} with an explicit deny in an identity-based policy",
        Lambda(policy("Deny")),
    ),
    "Unauthorized": (401, "Unauthorized", failing("Unauthorized")),
    "another error": (500, "Internal server error", failing("unauthorized")),
    "no policy": (500, "Internal server error", Lambda(without("policyDocument"))),
    "no principal": (500, "Internal server error", Lambda(without("principalId"))),
    "a context with parts": (500, "Internal server error", Lambda(policy(context={"rooms": ["a"]}))),
    "no object": (500, "Internal server error", Lambda("Allow")),
    "one byte over 8 KB": (500, "Internal server error", Lambda(filled(MAX_RESULT_BYTES + 1))),
    "a function that cannot be called": (500, "Internal server error", cannot_be_called),
}


@pytest.mark.parametrize(("status", "words", "invoke"), VERDICTS.values(), ids=VERDICTS.keys())
async def test_what_an_authorizer_function_answers_decides(status: int, words: str, invoke: Any) -> None:
    """Let in, 401, 403 or 500, each with its document; `$connect` is asked only where the client may come in."""
    functions = Functions()
    async with running(functions, behind(invoke, functions)) as lab:
        answer = await answer_to(request(), lab)
    assert answer.status == status
    assert len(functions.of("CONNECT")) == (status == 101)
    if status != 101:
        told = json.loads(answer.body)
        assert told == {"Message" if status == 403 else "message": words}


async def test_without_an_identity_source_the_authorizer_is_not_asked() -> None:
    """All must be there and not empty, else 401; the function hears nothing of it."""
    functions, auth = Functions(), Lambda(policy())
    api = behind(auth, functions, "route.request.header.Auth", "route.request.querystring.room")
    async with running(functions, api) as lab:
        for head in (request(), request(Auth="x"), request("/ws?room=7"), request("/ws?room=", Auth="x")):
            answer = await answer_to(head, lab)
            assert (answer.status, answer.message) == (401, "Unauthorized")
        assert auth.calls == functions.events == []
        assert (await answer_to(request("/ws?room=7", aUTH="x"), lab)).status == 101
    assert len(auth.calls) == 1


async def test_what_an_authorizer_function_said_holds_for_the_connections_life() -> None:
    """It is asked once; its context is in all events of the connection."""
    functions, auth = Functions(), Lambda(policy(context={"level": 3, "name": "Ann", "trusted": True, "ratio": 0.5}))
    async with running(functions, behind(auth, functions)) as lab, await lab.open() as peer:
        for _ in range(3):
            await still_works(peer)
        await peer.send(closing(1000))
        await functions.wait_for("DISCONNECT")
    ((function, event),) = auth.calls
    assert function == FUNCTION
    assert (event["type"], event["methodArn"]) == ("REQUEST", f"{ARN}/$connect")
    told = [event["requestContext"]["authorizer"] for event in functions.events]
    assert len(told) == 5
    assert type(told[0].pop("integrationLatency")) is int
    assert told[0] == {"level": 3, "name": "Ann", "trusted": True, "ratio": 0.5, "principalId": "ann"}
    assert all({**each, "integrationLatency": 0} == {**told[0], "integrationLatency": 0} for each in told)


@pytest.mark.parametrize(
    "head",
    [
        request(),
        request(Connection="keep-alive, Upgrade"),
        request(Connection="UPGRADE", Upgrade="WebSocket", Content_Length="0"),
        request(extra=("connection: keep-alive",)),
    ],
    ids=["as most clients", "as Firefox", "in capitals", "on two lines"],
)
async def test_an_authorizer_sees_the_upgrade_however_it_was_asked_for(head: bytes) -> None:
    """`Connection: upgrade`, `Upgrade: websocket` and `content-length: 0`, spelled as AWS spells them, once each."""
    functions = Functions()
    async with running(functions, functions.api(authorizer=functions.authorize)) as lab:
        assert (await answer_to(head, lab)).status == 101
    (asked,), (connect,) = functions.authorizations, functions.of("CONNECT")
    hop = {"Connection": "upgrade", "Upgrade": "websocket", "content-length": "0"}
    assert {name: value for name, value in asked["headers"].items() if name.lower() in map(str.lower, hop)} == hop
    assert {name: asked["multiValueHeaders"][name] for name in hop} == {name: [value] for name, value in hop.items()}
    assert not {name.lower() for name in connect["headers"]} & set(map(str.lower, hop))


# Lambda functions behind routes


async def test_a_function_that_cannot_be_called_is_answered_for() -> None:
    """Throttled or gone: a message gets the document of a failure, a handshake 502."""
    handler = Integrations(Services(invoke=cannot_be_called)).handler(Integration(type="AWS_PROXY", uri=INVOCATION))
    functions = Functions()
    async with running(functions, functions.api(default=Route(handler))) as lab, await lab.open() as peer:
        await peer.send(said(text="hi"))
        document = await peer.json()
        assert list(document) == ["message", "connectionId", "requestId"]
        assert (document["message"], document["connectionId"]) == ("Internal server error", peer.id)
        await peer.send(said(action="who"))
        assert await peer.text() == peer.id
    async with running(functions, functions.api(connect=handler)) as lab:
        answer = await answer_to(request(), lab)
        assert (answer.status, answer.message) == (502, "Internal server error")


# Routes


SELECTED = [
    ("$request.body.action", {"action": "send"}, "send"),
    ("${request.body.action}", {"action": "send"}, "send"),
    ("${request.body.service}/${request.body.action}", {"service": "chat", "action": "send"}, "chat/send"),
    ("$request.body.to[0].kind", {"to": [{"kind": "send"}]}, "send"),
    ("${request.body.to[?(@.id==2)].kind}", {"to": [{"id": 1, "kind": "a"}, {"id": 2, "kind": "b"}]}, '["b"]'),
    ("${request.body.tags}", {"tags": ["a", 1]}, '["a",1]'),
    ("${request.body.n}", {"n": 7}, "7"),
    ("join-${request.body.room}", {}, "join-"),
    ("always", {"action": "send"}, "always"),
    (r"\$request.body.action", {"action": "send"}, "$request.body.action"),
    (r"\$default", {"action": "send"}, DEFAULT),
    ("$request.body.action", {"action": "$request.body.next", "next": "send"}, "$request.body.next"),
    ("$request.body.action", {"action": "SEND"}, DEFAULT),
    ("$request.body.action", {"action": CONNECT}, DEFAULT),
    ("$request.body.action", {}, DEFAULT),
]
KEYS = {key for _, _, key in SELECTED}


@pytest.mark.parametrize(("expression", "body", "key"), SELECTED, ids=[f"{e} {b}" for e, b, _ in SELECTED])
async def test_the_expression_selects_the_route(expression: str, body: dict[str, Any], key: str) -> None:
    """Each form of expression leads to its route, and `routeKey` says which it was."""
    functions = Functions()
    plain = functions.api(**dict.fromkeys(KEYS - {DEFAULT}, functions.echo))
    api = Api(routes=plain.routes, route_selection_expression=expression)
    async with running(functions, api) as lab, await lab.open() as peer:
        await peer.send(said(**body))
        event = await functions.wait_for("MESSAGE")
    assert event["requestContext"]["routeKey"] == key


def template() -> str:
    """An API in plain CloudFormation with a two-way route, two that lack something to be so, and a one-way one."""
    api = {"ApiId": {"Ref": "Api"}}

    def resource(kind: str, **properties: Any) -> dict[str, Any]:
        return {"Type": f"AWS::ApiGatewayV2::{kind}", "Properties": {**api, **properties}}

    expression = {"RouteResponseSelectionExpression": "$default"}
    target = {"Target": {"Fn::Join": ["/", ["integrations", {"Ref": "Integration"}]]}}
    response = {"RouteResponseKey": "$default"}
    resources = {
        "Api": {
            "Type": "AWS::ApiGatewayV2::Api",
            "Properties": {
                "Name": "x",
                "ProtocolType": "WEBSOCKET",
                "RouteSelectionExpression": "$request.body.action",
            },
        },
        "Integration": resource("Integration", IntegrationType="AWS_PROXY", IntegrationUri=INVOCATION),
        "Both": resource("Route", RouteKey="both", **target, **expression),
        "BothResponse": resource("RouteResponse", RouteId={"Ref": "Both"}, **response),
        "Expression": resource("Route", RouteKey="expression", **target, **expression),
        "Response": resource("Route", RouteKey="response", **target),
        "ResponseResponse": resource("RouteResponse", RouteId={"Ref": "Response"}, **response),
        "Neither": resource("Route", RouteKey="neither", **target),
        "Stage": resource("Stage", StageName="prod", AutoDeploy=True),
    }
    return json.dumps({"Resources": resources})


async def test_a_route_answers_if_it_has_both_expression_and_response(tmp_path: Path) -> None:
    """`RouteResponseSelectionExpression` alone is not enough, nor is a RouteResponse; what is dropped is not told."""
    function = Lambda({"statusCode": 200, "body": "the answer"})
    (definition,) = stack_of(tmp_path, template()).apis
    async with Integrations(Services(invoke=function)) as integrations:
        wiring = Wiring(invoke=function, integrations=integrations, region="us-east-1")
        sites = wiring.sites(definition, host="127.0.0.1")
        async with running(api=sites) as lab, await lab.dial(request("/prod")) as peer:
            assert (await peer.answer()).status == 101
            for action in ("expression", "response", "neither"):
                await peer.send(said(action=action))
            await until(lambda: len(function.calls) == 3, "three calls")
            await peer.send(said(action="both"))
            assert await peer.text() == "the answer"
            await peer.send(said(action="nowhere"))
            assert (await peer.json())["message"] == "Forbidden"
    routes = [event["requestContext"]["routeKey"] for _, event in function.calls]
    assert sorted(routes) == ["both", "expression", "neither", "response"]


# Order


async def test_answers_come_in_the_order_in_which_they_are_ready() -> None:
    """A hundred messages of one connection are at work at once, and the last may be answered first."""
    functions = Functions()
    begun: list[asyncio.Event] = []

    async def work(event: Any) -> Response:
        done = asyncio.Event()
        begun.append(done)
        await done.wait()
        return Response(body=event.body)

    api = functions.api(default=Route(work, two_way=True))
    async with running(functions, api, max_in_flight=1_000) as lab, await lab.open() as peer:
        await peer.send(*[frame(TEXT, str(n).encode()) for n in range(100)])
        await until(lambda: len(begun) == 100, "a hundred at work")
        for n in reversed(range(100)):
            begun[n].set()
            assert await peer.text() == str(n)
