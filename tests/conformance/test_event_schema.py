"""One JSON schema for all events: what three independent clients bring about is valid, and so is what AWS has sent.

`event_schema.json` lets nothing through that API Gateway does not send: no further field, and no null.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import pytest
from clientlab import End, Plan, visit
from gatewaylab import Functions, Json, running
from jsonschema import Draft202012Validator
from rawpeer import CLOSE, TEXT, closing, frame, request

from hubbub.apigateway import Api, ApiKey, Event, Response, Route
from hubbub.sigv4 import Credentials, Keys, sign

SCHEMA: Json = json.loads((Path(__file__).parent / "event_schema.json").read_text(encoding="utf-8"))
KINDS = ("connect", "message", "disconnect", "authorizer")
VALIDATORS = {kind: Draft202012Validator({**SCHEMA, "$ref": f"#/$defs/{kind}"}) for kind in KINDS}
RECORDED = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))["event"]
    for path in sorted((Path(__file__).parent / "recorded").glob("*.json"))
    if path.name != "shapes.json"
}


def kind_of(event: Json) -> str:
    """Which of the schemas an event is to be valid against."""
    return "authorizer" if "type" in event else str(event["requestContext"]["eventType"]).lower()


def faults(event: Json, kind: str | None = None) -> list[str]:
    """What is wrong with an event; nothing if it is valid."""
    found = [f"{error.json_path}: {error.message}" for error in VALIDATORS[kind or kind_of(event)].iter_errors(event)]
    if found:
        return found
    single, several = event.get("headers", {}), event.get("multiValueHeaders", {})
    for name, value in single.items():  # which a schema cannot say
        if value != several.get(name, [None])[-1]:
            found.append(f"{name}: {value!r} is not the last of {several.get(name)}")
    return found


def test_the_schema_is_one() -> None:
    """It is a schema of draft 2020-12, and each kind of event has its own."""
    Draft202012Validator.check_schema(SCHEMA)
    assert set(KINDS) < set(SCHEMA["$defs"])


@pytest.mark.parametrize("name", RECORDED)
def test_what_aws_has_sent_is_valid(name: str) -> None:
    """The schema is no wish: AWS's own events are valid against it."""
    assert faults(RECORDED[name]) == []


# That the schema is strict


def places(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where something is in an event: each field of each object."""
    for name in value if isinstance(value, dict) else ():
        yield (*path, name)
        yield from places(value[name], (*path, name))


def within(event: Json, path: tuple[str, ...]) -> Json:
    """The object in which the last of a path's names is."""
    found = event
    for name in path[:-1]:
        found = found[name]
    return found


FREE = ("queryStringParameters", "multiValueQueryStringParameters", "stageVariables")
OPTIONAL = ("userAgent", "Authorization")


@pytest.mark.parametrize("name", RECORDED)
def test_no_event_may_lack_anything_or_have_null(name: str) -> None:
    """Taken from AWS's events, each field that is not the client's own affair is missed, and null is noticed."""
    kind = kind_of(RECORDED[name])
    for path in places(RECORDED[name]):
        if path[-1].startswith("Sec-") or path[-1] in OPTIONAL:
            continue
        event = copy.deepcopy(RECORDED[name])
        within(event, path)[path[-1]] = None
        assert faults(event, kind), f"{path} may be null"
        del within(event, path)[path[-1]]
        assert faults(event, kind), f"{path} may be absent"


@pytest.mark.parametrize("name", RECORDED)
def test_no_event_may_have_anything_more(name: str) -> None:
    """A field that API Gateway does not send is noticed in every object but the client's own headers and query."""
    kind = kind_of(RECORDED[name])
    for path in [(), *places(RECORDED[name])]:
        event = copy.deepcopy(RECORDED[name])
        found = within(event, (*path, ""))
        if not isinstance(found, dict) or (path and path[-1] in FREE):
            continue
        if path and path[-1].lower().endswith("headers") and kind != "disconnect":
            found["Surplus"] = 1  # a header's value is a text, or a list of them
        else:
            found["surplus"] = "surplus"
        assert faults(event, kind), f"{path} may have more"


# Three clients


class Scene(NamedTuple):
    """A connection: the API's settings, what the client does, and what `$disconnect` is to be told.

    Attributes:
        query: what stands behind the path.
        said: what the authorizer says; None for no authorizer.
        variables: the stage's.
        agreed: the subprotocol that `$connect` chooses.
        told: code and reason.
        plan: the rest of what the client does; its address is the gateway's.
        clients: who can do that.

    """

    told: tuple[int, str]
    plan: Plan = Plan("")
    query: str = ""
    said: dict[str, Any] | None = None
    variables: dict[str, str] = {}  # noqa: RUF012  nobody changes it
    agreed: str = ""
    clients: tuple[str, ...] = ("websockets", "aiohttp", "node")


TWO = ("hello", '{"action":"who","text":"grüße \U0001f600"}')
SCENES = {
    "nothing special": Scene((1000, ""), Plan("", TWO)),
    "a query": Scene((1000, ""), query="?room=7&room=8&name=J%C3%BCrgen%20%26%20co&flag="),
    "subprotocols": Scene((1000, ""), Plan("", TWO, subprotocols=("chat.v2", "chat.v1")), agreed="chat.v1"),
    "headers": Scene((1000, ""), Plan("", headers={"X-Room": "seven", "Authorization": "Bearer abc", "Cookie": "a=b"})),
    "an authorizer": Scene(
        (1000, ""), Plan("", TWO), said={"principalId": "ann", "level": 3, "ratio": 0.5, "trusted": True, "who": "Änn"}
    ),
    "stage variables": Scene((1000, ""), Plan("", TWO), variables={"table": "rooms", "url": "lb.example/x?y=z"}),
    "everything": Scene(
        (4321, "enough"),
        Plan("", TWO, End("close", 4321, "enough"), ("chat.v1",), {"X-Room": "seven"}),
        query="?token=a.b-c_d%3D",
        said={"principalId": "ann"},
        variables={"table": "rooms"},
        agreed="chat.v1",
    ),
    "a code and a reason": Scene((3000, "I am off: ä"), Plan("", TWO, End("close", 3000, "I am off: ä"))),
    "no code": Scene(
        (1005, "Client-side close frame status not set"),
        Plan("", TWO, End("close without a code")),
        clients=("websockets", "node"),  # aiohttp always sends one
    ),
    "a cut": Scene((1006, "Connection closed abnormally"), Plan("", TWO, End("cut")), said={"principalId": "ann"}),
    "the server closes": Scene((1001, "Going away"), Plan("", TWO, End("bye")), query="?a=b", variables={"a": "b"}),
    "no agent": Scene((1000, ""), Plan("", TWO, has_agent=False), clients=("websockets", "aiohttp")),
}
VISITS = [(client, name) for name, scene in SCENES.items() for client in scene.clients]


def api_of(scene: Scene, functions: Functions, close: Callable[[str], object]) -> Api:
    """The API of a scene, whose functions write down what they are given; who says `bye` is closed."""

    async def connect(event: Event) -> Response:
        await functions.keep(event)
        return Response(headers={"Sec-WebSocket-Protocol": scene.agreed} if scene.agreed else None)

    async def authorize(event: Event) -> Any:
        await functions.authorize(event)
        return scene.said

    async def answer(event: Event) -> Response:
        if event.body != "bye":
            return await functions.echo(event)
        await functions.keep(event)
        close(event.request_context.connection_id)
        return Response()

    two_way = Route(answer, two_way=True)
    plain = functions.api(connect=connect, default=two_way, who=two_way)
    return Api(
        routes=plain.routes,
        authorizer=None if scene.said is None else authorize,
        stage="prod",
        stage_variables=scene.variables,
    )


@pytest.mark.parametrize(("client", "name"), VISITS, ids=[f"{client}: {name}" for client, name in VISITS])
async def test_every_event_that_a_client_brings_about_is_valid(client: str, name: str) -> None:
    """Whoever connects in whatever way: all events are valid, say what happened, and the client sees the same."""
    scene, functions = SCENES[name], Functions()
    says_bye = scene.plan.end.how == "bye"
    api = api_of(scene, functions, lambda connection: lab.hub.close(connection, *scene.told))
    async with running(functions, api) as lab:
        plan = scene.plan._replace(url=f"ws://127.0.0.1:{lab.port}/ws{scene.query}")
        seen = await visit(client, plan)
        await functions.wait_for("DISCONNECT")
    assert seen.subprotocol == scene.agreed
    assert seen.heard == list(plan.says)
    assert seen.closed == (None if plan.end.how == "cut" else (scene.told[0], scene.told[1] if says_bye else ""))
    tell_the_same(scene, functions, [*plan.says, *(["bye"] if says_bye else [])])


def tell_the_same(scene: Scene, functions: Functions, bodies: list[str]) -> None:
    """All events of a scene are there and valid, and say what happened."""
    events = functions.events
    assert [event["requestContext"]["eventType"] for event in events] == [
        "CONNECT",
        *["MESSAGE"] * len(bodies),
        "DISCONNECT",
    ]
    assert len(functions.authorizations) == (scene.said is not None)
    for event in [*functions.authorizations, *events]:
        assert faults(event) == []
        assert event.get("stageVariables", {}) == scene.variables
    connect, *messages, disconnect = events
    assert [event["body"] for event in messages] == bodies
    told = disconnect["requestContext"]
    assert (told["disconnectStatusCode"], told["disconnectReason"]) == scene.told
    pairs = parse_qsl(scene.query[1:], keep_blank_values=True)
    assert connect.get("queryStringParameters", {}) == dict(pairs)
    assert [
        (key, value) for key, values in connect.get("multiValueQueryStringParameters", {}).items() for value in values
    ] == pairs
    sent = {key.lower(): value for key, value in connect["headers"].items()}
    assert {key.lower(): value for key, value in scene.plan.headers.items()}.items() <= sent.items()
    assert sent.get("sec-websocket-protocol", "").replace(" ", "") == ",".join(scene.plan.subprotocols)
    assert ("user-agent" in sent) == scene.plan.has_agent
    for event in events:
        context = event["requestContext"]
        assert context["identity"].get("userAgent") == sent.get("user-agent")
        said = context.get("authorizer")
        assert (said is None) == (scene.said is None)
        assert said is None or {**said, "integrationLatency": 0} == {**(scene.said or {}), "integrationLatency": 0}
    assert len({event["requestContext"]["connectionId"] for event in events}) == 1


# What those clients do not do


async def test_events_of_a_signed_connection_with_an_api_key_are_valid() -> None:
    """`identity` says who signed and which key was shown, in all events of the connection."""
    functions, alice = Functions(), Credentials("AKIDALICE", "alices-secret")
    api = Api(
        routes=functions.api(connect=Route(functions.connect, api_key_required=True)).routes,
        iam=True,
        api_keys=(ApiKey("key1", "k" * 20),),
    )
    url = "http://chat.example/ws?room=a%20b"
    signed = sign(
        alice, method="GET", url=url, headers={}, body=b"", service="execute-api", region="eu-west-1", now_s=time.time()
    )
    head = request("/ws?room=a%20b", X_Api_Key="k" * 20, extra=tuple(f"{name}: {it}" for name, it in signed.items()))
    keys = Keys({alice.access_key: alice.secret_key})
    async with running(functions, api, keys=keys) as lab, await lab.open(head) as peer:
        await peer.send(frame(TEXT, b"hi"), frame(CLOSE))
        await functions.wait_for("DISCONNECT")
    assert len(functions.events) == 3
    for event in functions.events:
        assert faults(event) == []
        identity = event["requestContext"]["identity"]
        assert (identity["apiKey"], identity["apiKeyId"], identity["accessKey"]) == ("k" * 20, "key1", "AKIDALICE")
        assert identity["userArn"] == "arn:aws:iam::123456789012:user/AKIDALICE"


async def test_events_of_odd_handshakes_are_valid() -> None:
    """Repeated headers, names in odd case, an address as host, a proxy in front, bytes beyond ASCII."""
    functions = Functions()
    heads = (
        request(extra=("X-Twice: 1", "x-TWICE: 2", "x-empty:", "x-umlaut: \xe4")),
        request(Host="[::1]:8443", X_Forwarded_For="2001:db8::1, 203.0.113.7", X_Forwarded_Proto="https"),
        request("/ws?a&a=1&=2&a=%ff", Connection="keep-alive, Upgrade", Content_Length="0"),
    )
    async with running(functions, functions.api(authorizer=functions.authorize)) as lab:
        for head in heads:
            async with await lab.open(head) as peer:
                await peer.send(frame(TEXT, b""), closing(1000))
                await functions.wait_for("DISCONNECT", peer.id)
    assert len(functions.events) == 9
    assert [faults(event) for event in [*functions.authorizations, *functions.events]] == [[]] * 12
    first = functions.of("CONNECT")[0]
    assert (first["headers"]["X-Twice"], first["multiValueHeaders"]["X-Twice"]) == ("2", ["1", "2"])
    assert "x-TWICE" not in first["headers"]


ENDS: dict[str, tuple[int, bytes]] = {
    "a breach of the protocol": (1002, frame(3)),
    "a binary message": (1003, frame(2, b"\x00")),
    "no UTF-8": (1007, frame(TEXT, b"\xff")),
    "a message that is too long": (1009, frame(TEXT, b"x" * 40_000)),
}


@pytest.mark.parametrize(("code", "sent"), ENDS.values(), ids=ENDS.keys())
async def test_events_of_connections_that_the_gateway_ends_are_valid(code: int, sent: bytes) -> None:
    """Whatever a client does wrong, `$disconnect` is told of it in the same shape."""
    async with running() as lab:
        peer = await lab.open()
        await peer.send(sent)
        assert (await peer.receive()).code == code
        peer.cut()
        assert (await lab.end(peer))[0] == code
        assert [faults(event) for event in lab.functions.events] == [[], []]
