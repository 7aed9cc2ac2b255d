"""The HTTP API's handler: requests of payload format 2.0 become answers of `/v1`."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import Response

from hubbub.errors import Unavailable
from hubbub.lambdas.asgi import HttpEvent, request
from hubbub.lambdas.backend import Backend
from hubbub.lambdas.invocation import Function
from lambdahome import SECRET, Context, LabHome, Written, living, written
from tokens import forged


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[LabHome]:
    with living(monkeypatch, LabHome()) as home:
        yield home


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    with written(monkeypatch) as log:
        yield log


@pytest.fixture
def backend() -> Any:
    served = Backend()
    return Function(served.answer, takes=HttpEvent, warm=served.warm)


def token(**claims: Any) -> str:
    return forged(SECRET, {"sub": "shop", "exp": int(time.time()) + 600, "scope": "server", **claims})


def event(method: str, path: str, body: Any = None, **fields: Any) -> dict[str, Any]:
    """A request as an HTTP API hands it over."""
    stage = fields.pop("stage", "$default")
    raw_path = path if stage == "$default" else f"/{stage}{path}"
    headers = {
        "host": "abc.execute-api.eu-west-1.amazonaws.com",
        "x-forwarded-proto": "https",
        "authorization": f"Bearer {token()}",
    }
    if body is not None:
        headers["content-type"] = "application/json"
    made = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": raw_path,
        "rawQueryString": "",
        "headers": {**headers, **fields.pop("headers", {})},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "abc",
            "domainName": "abc.execute-api.eu-west-1.amazonaws.com",
            "http": {
                "method": method,
                "path": raw_path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "agent",
            },
            "requestId": "JKJaXmPLvHcESHA=",
            "routeKey": "$default",
            "stage": stage,
            "time": "12/Mar/2020:19:03:58 +0000",
            "timeEpoch": 1583348638390,
        },
        "isBase64Encoded": False,
        **fields,
    }
    return made if body is None else {"body": json.dumps(body), **made}


def test_a_system_message_is_posted(home: LabHome, backend: Any):
    """The customer's backend makes a room and posts into it, as in every home."""
    made = backend(event("POST", "/v1/rooms", {"room": "tea", "kind": "public"}), Context())
    assert made["statusCode"] in (200, 201), made
    posted = backend(event("POST", "/v1/rooms/tea/messages", {"text": "Welcome."}), Context())
    assert (posted["statusCode"], posted["headers"]["content-type"]) == (201, "application/json")
    assert posted["isBase64Encoded"] is False
    assert json.loads(posted["body"])["by"] == "system"
    read = backend(event("GET", "/v1/rooms/tea/messages", rawQueryString="limit=1"), Context())
    assert [entry["text"] for entry in json.loads(read["body"])["entries"]] == ["Welcome."]


def test_a_stage_is_no_part_of_the_path(home: LabHome, backend: Any):
    """Behind a stage with a name, paths begin after it."""
    assert backend(event("GET", "/healthz", stage="live"), Context())["statusCode"] == 200


@pytest.mark.parametrize("headers", [{"authorization": ""}, {"authorization": f"Bearer {token(scope='')}"}])
def test_strangers_are_refused(home: LabHome, backend: Any, headers: dict[str, str]):
    """Without a token of the customer's backend nothing is done."""
    answer = backend(event("POST", "/v1/rooms/tea/messages", {"text": "x"}, headers=headers), Context())
    assert answer["statusCode"] in (401, 403)


def test_a_body_in_base64_is_read(home: LabHome, backend: Any):
    """What an HTTP API does not take for text comes in Base64."""
    encoded = base64.b64encode(json.dumps({"room": "tea", "kind": "public"}).encode()).decode()
    asked = event("POST", "/v1/rooms", {}) | {"body": encoded, "isBase64Encoded": True}
    assert backend(asked, Context())["statusCode"] in (200, 201)


def test_a_table_that_is_away_is_a_503(home: LabHome, backend: Any, log: Written):
    """The caller is told to try again; when the table is back, it works."""
    home.away = Unavailable("The table does not answer.")
    answer = backend(event("GET", "/healthz"), Context())
    assert (answer["statusCode"], answer["headers"]["retry-after"]) == (503, "1")
    assert json.loads(answer["body"])["error"]["code"] == "unavailable"
    home.away = None
    assert backend(event("GET", "/readyz"), Context())["statusCode"] == 200


async def answered(app: Any, **fields: Any) -> Any:
    return await request(app, msgspec.convert(event("GET", "/x", **fields), HttpEvent))


async def test_a_path_comes_decoded_and_is_not_decoded_again():
    """HTTP APIs decode the path, so a `%` in it is one; the query is as it was sent."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await Response("ok")(scope, receive, send)

    await answered(app, rawPath="/v1/users/50%25 ä", rawQueryString="a=%20b&a=2", cookies=["x=1", "y=2"])
    (scope,) = seen
    assert scope["path"] == "/v1/users/50%25 ä"
    assert scope["query_string"] == b"a=%20b&a=2"
    heard = Request(scope)
    assert heard.cookies == {"x": "1", "y": "2"}
    assert scope["raw_path"] == b"/v1/users/50%2525%20%C3%A4"
    assert (heard.url.scheme, heard.url.hostname) == ("https", "abc.execute-api.eu-west-1.amazonaws.com")
    assert heard.client is not None
    assert heard.client.host == "192.0.2.1"


async def test_octets_go_out_in_base64_and_cookies_apart():
    """What is no text is sent in Base64; cookies have a list of their own, other headers are joined."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        response = Response(b"\xff\x00", media_type="image/png")
        response.headers.append("vary", "origin")
        response.headers.append("vary", "cookie")
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        await response(scope, receive, send)

    answer = await answered(app)
    assert (answer["body"], answer["isBase64Encoded"]) == ("/wA=", True)
    assert answer["headers"]["vary"] == "origin, cookie"
    assert [cookie.partition(";")[0] for cookie in answer["cookies"]] == ["a=1", "b=2"]


async def test_a_defect_of_the_application_is_raised():
    """It is the invocation's failure, and nothing of it is sent."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("no good")

    with pytest.raises(RuntimeError):
        await answered(app)
