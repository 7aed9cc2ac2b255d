"""Events that AWS has sent, and ours of the same occurrence: they are the same, field by field and value by value.

`recorded/README.md` says where they come from. What is another each time (ids, times, traces) has the same form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from gatewaylab import Functions, Json, Lab, running
from rawpeer import CLOSE, TEXT, Peer, closing, frame, request

from hubbub.apigateway import CONNECT, DISCONNECT, Api, ApiKey, Event, Route, request_time

FOLDER = Path(__file__).parent / "recorded"
SHAPES = {shape["name"]: shape["fields"] for shape in json.loads((FOLDER / "shapes.json").read_text(encoding="utf-8"))}
RECORDED = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(FOLDER.glob("*.json"))
    if path.name != "shapes.json"
}

ID = r"[A-Za-z0-9_-]{15}="
FORMS = {
    "connectionId": ID,
    "requestId": ID,
    "extendedRequestId": ID,
    "messageId": ID,
    "requestTime": r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000",
    "connectedAt": r"\d{13}",
    "requestTimeEpoch": r"\d{13}",
    "X-Amzn-Trace-Id": r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}",
}
"""What is another each time, by name, and the form that it has."""

DIFFERENCES = {
    "authorizer": ["headers.Sec-WebSocket-Key"],  # AWS sent it; it was lost between the log and the repository
}
"""Fields of our events that the recorded ones lack."""

ADDED = ("host", "x-amzn-trace-id", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto")
HOP = ("connection", "upgrade", "content-length")


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The event's values in their order, each with where it is; an empty object is a value."""
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from leaves(each, f"{path}.{name}" if path else name)
    else:
        yield path, value


def likened(event: Json) -> dict[str, Any]:
    """The event's values by where they are; what is another each time is replaced by its form, which it must have."""
    found: dict[str, Any] = {}
    for path, value in leaves(event):
        form = FORMS.get(path.rpartition(".")[2])
        if form is not None:
            for each in value if isinstance(value, list) else [value]:
                assert re.fullmatch(form, str(each)), f"{path}: {each!r}"
                assert isinstance(each, int) == form.startswith(r"\d{"), f"{path}: {each!r}"
        found[path] = value if form is None else [form] if isinstance(value, list) else form
    return found


def order(event: Json) -> list[str]:
    """Where the event's values are, in their order; `identity`, whose order tells nothing, in alphabetical order."""
    paths = [path for path, _ in leaves(event)]
    who = [path for path in paths if path.startswith("requestContext.identity.")]
    return [sorted(who)[who.index(path)] if path in who else path for path in paths]


def handshake(event: Json) -> bytes:
    """What the client asked for and the proxy in front said, as far as an event tells."""
    context = event["requestContext"]
    identity = context["identity"]
    told = event["multiValueHeaders"] if context["routeKey"] == CONNECT else {"User-Agent": [identity.get("userAgent")]}
    own = {name: value for name, (value,) in told.items() if name.lower() not in (*ADDED, *HOP) and value is not None}
    return request(
        Host=event.get("headers", {}).get("Host", context["domainName"]),
        X_Forwarded_For=identity["sourceIp"],
        X_Forwarded_Proto="https",
        **{name.replace("-", "_"): value for name, value in own.items()},
    )


def api_of(event: Json, functions: Functions) -> Api:
    """The API that an event is about."""
    context = event["requestContext"]
    routes = {CONNECT: functions.connect, DISCONNECT: functions.disconnect}
    if context["eventType"] == "MESSAGE":
        routes[context["routeKey"]] = functions.echo
    return Api(
        routes={key: Route(handler) for key, handler in routes.items()},
        authorizer=functions.authorize if event.get("type") == "REQUEST" else None,
        id=context["apiId"],
        stage=context["stage"],
        domain_name=context["domainName"],
    )


async def again(event: Json) -> Json:
    """Our event of what a recorded one tells of."""
    functions = Functions()
    context = event["requestContext"]
    kind = context["eventType"]
    async with running(functions, api_of(event, functions)) as lab, await lab.open(handshake(event)) as peer:
        if kind == "MESSAGE":
            await peer.send(frame(TEXT, event["body"].encode()))
        elif kind == "DISCONNECT":
            await leave(peer, context["disconnectStatusCode"], context["disconnectReason"])
        if event.get("type") == "REQUEST":
            return functions.authorizations[0]
        return await functions.wait_for(kind)


async def leave(peer: Peer, code: int, reason: str) -> None:
    """Close as the client did of whose end AWS has told."""
    await peer.send(frame(CLOSE) if code == 1005 else closing(code, reason))


@pytest.mark.parametrize("name", RECORDED)
async def test_our_event_is_the_recorded_one(name: str) -> None:
    """Told the same, the gateway tells the same: every field and every value, and none besides, in the same order."""
    recorded = RECORDED[name]["event"]
    ours = await again(recorded)
    expected, found = likened(recorded), likened(ours)
    lacking = DIFFERENCES.get(name, [])
    assert {path: value for path, value in found.items() if path not in lacking} == expected
    assert [path for path in order(ours) if path not in lacking] == order(recorded)
    assert all(path in found for path in lacking), "a difference that is none any more"


@pytest.mark.parametrize("name", RECORDED)
async def test_the_values_of_an_event_agree_with_each_other(name: str) -> None:
    """In AWS's events as in ours: one request id, one time in two forms, and the connection is not younger."""
    recorded = RECORDED[name]["event"]
    for event in (recorded, await again(recorded)):
        context = event["requestContext"]
        assert context["requestId"] == context["extendedRequestId"] != context["connectionId"]
        assert context["requestTime"] == request_time(context["requestTimeEpoch"] // 1_000)
        assert context["connectedAt"] <= context["requestTimeEpoch"]
        single, several = event.get("headers", {}), event.get("multiValueHeaders", {})
        assert single == {header: values[-1] for header, values in several.items() if header in single}


def shape(event: Json, part: str) -> list[str]:
    """The names in a part of an event, in their order."""
    found: Any = event
    for name in part.split("."):
        found = found[name] if name else found
    return sorted(found) if part.endswith("identity") else list(found)


def has_shape(event: Json, name: str) -> None:
    """An event has the fields that AWS's had."""
    for part, names in SHAPES[name].items():
        assert shape(event, part) == (sorted(names) if part.endswith("identity") else names), part


async def told(running_lab: AbstractAsyncContextManager[Lab], *lines: str, target: str = "/ws") -> Json:
    """What `$connect` is told of a client's handshake with these header lines."""
    async with running_lab as lab, await lab.open(request(target, extra=lines)):
        return lab.functions.of("CONNECT")[0]


EXTENSIONS = "Sec-WebSocket-Extensions: permessage-deflate"


async def test_a_connect_with_an_api_key_has_the_shape_of_awss() -> None:
    """The key is a header, and `identity` has it and its id besides the address."""
    functions = Functions()
    routes = functions.api(connect=Route(functions.connect, api_key_required=True)).routes
    lab = running(functions, Api(routes=routes, api_keys=(ApiKey("id1", "k" * 20),)))
    has_shape(await told(lab, f"x-api-key: {'k' * 20}"), "CONNECT with an API key")


async def test_a_connect_with_a_query_and_an_authorizer_has_the_shape_of_awss() -> None:
    """The query stands before `requestContext`, what the authorizer said behind `routeKey`, the latency last."""
    functions = Functions()

    async def authorize(event: Event) -> Any:
        return {"tenant_id": "t1", "principalId": "ann"}

    lab = running(functions, functions.api(authorizer=authorize))
    event = await told(lab, EXTENSIONS, target="/ws?Authorization=abc&AuthId=7")
    has_shape(event, "CONNECT with a query and an authorizer")
    assert type(event["requestContext"]["authorizer"]["integrationLatency"]) is int


async def test_a_browsers_headers_have_the_order_of_awss() -> None:
    """Whatever order a browser sends them in, they come in alphabetical order, and all of them come."""
    host = "chat.example"
    lines = (
        "Pragma: no-cache",
        "Accept: */*",
        "Sec-WebSocket-Protocol: actioncable-v1-json, actioncable-unsupported",
        EXTENSIONS,
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Mode: websocket",
        "Sec-Fetch-Dest: websocket",
        "Cache-Control: no-cache",
        f"Origin: http://{host}",
        "User-Agent: a browser",
        "Accept-Language: en",
        "Accept-Encoding: gzip",
    )
    event = await told(running(), *lines)
    has_shape(event, "CONNECT of a browser that offers subprotocols")
    assert event["headers"]["Sec-WebSocket-Protocol"] == "actioncable-v1-json, actioncable-unsupported"


def test_every_recorded_event_says_where_it_comes_from() -> None:
    """Each file names repository, path, commit, licence and what was changed; the README names each file."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert len(RECORDED) == 6
    for name, recorded in RECORDED.items():
        origin = recorded["origin"]
        assert set(origin) == {"repository", "path", "commit", "licence", "changed"}
        assert re.fullmatch(r"[0-9a-f]{40}", origin["commit"])
        assert all(each in text for each in (f"`{name}.json`", origin["repository"], origin["path"], origin["licence"]))
    assert "`shapes.json`" in text
