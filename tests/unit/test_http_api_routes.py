"""Which route of an HTTP API takes a request, and what payloads and responses look like in both formats."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from hubbub.emulator.definition import HttpRouteDefinition
from hubbub.emulator.http.payloads import HttpRequest, HttpResponse, NoResponse, Place, event, response
from hubbub.emulator.http.routing import Routes

FROM_THE_GUIDE = ("GET /pets/dog/1", "GET /pets/dog/{id}", "GET /pets/{proxy+}", "ANY /{proxy+}", "$default")


def routes(*keys: str) -> Routes:
    return Routes(HttpRouteDefinition(key=key, function="f") for key in keys)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("method", "path", "key", "parameters"),
    [
        ("GET", "/pets/dog/1", "GET /pets/dog/1", {}),
        ("GET", "/pets/dog/2", "GET /pets/dog/{id}", {"id": "2"}),
        ("GET", "/pets/cat/1", "GET /pets/{proxy+}", {"proxy": "cat/1"}),
        ("POST", "/test/5", "ANY /{proxy+}", {"proxy": "test/5"}),
        ("GET", "/", "$default", {}),
    ],
)
def test_the_most_specific_route_takes_a_request(
    order: int, method: str, path: str, key: str, parameters: dict[str, str]
) -> None:
    """The developer guide's own examples, whatever order the routes are in."""
    found = routes(*FROM_THE_GUIDE[::order]).find(method, path)
    assert found is not None
    assert (found.route.key, found.parameters) == (key, parameters)


def test_a_method_comes_before_any(tmp_path: Path) -> None:
    """Of two routes of the same path the one with the method is taken; other methods go to ANY."""
    known = routes("ANY /a", "GET /a")
    assert [found.route.key for method in ("GET", "PUT") if (found := known.find(method, "/a"))] == ["GET /a", "ANY /a"]


@pytest.mark.parametrize(("method", "path"), [("POST", "/a"), ("GET", "/b"), ("GET", "/a/b"), ("GET", "/xay")])
def test_what_no_route_takes_is_not_found(method: str, path: str) -> None:
    """Another method, another path, a longer one: there is no such route, and a full stop is just that."""
    assert routes("GET /a", "GET /x.y").find(method, path) is None


PLACE = Place(
    account="123456789012",
    api="abc",
    domain="abc.example:8001",
    stage="$default",
    variables={"colour": "blue"},
    route="POST /rooms/{room}",
    parameters={"room": "tea"},
    request_id="R0oXAdfD0kwCH6w=",
    time="19/Feb/2024:07:11:42 +0000",
    time_ms=1_708_326_702_000,
)


def request(body: bytes = b"", kind: str = "application/json", **more: str) -> HttpRequest:
    headers = [("x-a", "1"), ("x-a", "2"), ("cookie", "a=b; c=d"), ("user-agent", "me"), *more.items()]
    return HttpRequest(
        method="POST",
        path="/rooms/tea",
        query="a=1&a=2&b=%C3%A4",
        headers=[*headers, ("content-type", kind)] if kind else headers,
        body=body,
        protocol="HTTP/1.1",
        source_ip="192.0.2.1",
    )


def test_format_2_joins_what_is_there_twice() -> None:
    """Headers and query are single values with commas; cookies have a list of their own; the context is AWS's."""
    assert event(request(b"{}"), PLACE, "2.0") == {
        "version": "2.0",
        "routeKey": "POST /rooms/{room}",
        "rawPath": "/rooms/tea",
        "rawQueryString": "a=1&a=2&b=%C3%A4",
        "cookies": ["a=b", "c=d"],
        "headers": {"x-a": "1,2", "user-agent": "me", "content-type": "application/json"},
        "queryStringParameters": {"a": "1,2", "b": "ä"},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "abc",
            "domainName": "abc.example:8001",
            "domainPrefix": "abc",
            "http": {
                "method": "POST",
                "path": "/rooms/tea",
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "me",
            },
            "requestId": "R0oXAdfD0kwCH6w=",
            "routeKey": "POST /rooms/{room}",
            "stage": "$default",
            "time": "19/Feb/2024:07:11:42 +0000",
            "timeEpoch": 1_708_326_702_000,
        },
        "pathParameters": {"room": "tea"},
        "stageVariables": {"colour": "blue"},
        "body": "{}",
        "isBase64Encoded": False,
    }


def test_format_1_has_all_values() -> None:
    """Single values are the last, and lists have all; what is not there is null."""
    found = event(request(), PLACE, "1.0")
    assert (found["version"], found["resource"], found["path"]) == ("1.0", "/rooms/{room}", "/rooms/tea")
    assert (found["headers"]["x-a"], found["multiValueHeaders"]["x-a"]) == ("2", ["1", "2"])
    assert found["multiValueQueryStringParameters"] == {"a": ["1", "2"], "b": ["ä"]}
    assert (found["body"], found["isBase64Encoded"]) == (None, False)
    assert found["requestContext"]["resourcePath"] == "/rooms/{room}"


@pytest.mark.parametrize(
    ("kind", "is_text"),
    [
        ("application/json; charset=utf-8", True),
        ("text/csv", True),
        ("application/xml", True),
        ("application/javascript", True),
        ("application/x-www-form-urlencoded", False),
        ("application/octet-stream", False),
        ("", False),
    ],
)
def test_bodies_are_text_or_base64_by_their_type(kind: str, is_text: bool) -> None:
    """As AWS was seen to do it: forms and bodies without a type come in base64."""
    found = event(request(b"a=b", kind), PLACE, "2.0")
    assert (found["body"], found["isBase64Encoded"]) == (
        ("a=b", False) if is_text else (base64.b64encode(b"a=b").decode(), True)
    )


def test_what_is_compressed_is_base64() -> None:
    """A content encoding makes a body binary, whatever its type."""
    more = {"content-encoding": "gzip"}
    assert event(request(b"\x1f\x8b", **more), PLACE, "2.0")["isBase64Encoded"]


JSON = [("content-type", "application/json")]


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ({"a": 1}, HttpResponse(200, JSON, b'{"a": 1}')),
        ("Hello", HttpResponse(200, JSON, b"Hello")),
        (None, HttpResponse(200, JSON, b"null")),
        ([1], HttpResponse(200, JSON, b"[1]")),
        ({"statusCode": 204}, HttpResponse(204, [("content-type", "text/plain; charset=utf-8")], b"")),
        ({"statusCode": "201", "headers": {"Content-Type": "a/b"}}, HttpResponse(201, [("content-type", "a/b")], b"")),
        (
            {"statusCode": 200, "headers": {"X-N": 5, "content-type": "x/y"}, "cookies": ["a=b", "c"], "body": "ä"},
            HttpResponse(
                200,
                [("x-n", "5"), ("content-type", "x/y"), ("set-cookie", "a=b"), ("set-cookie", "c")],
                "ä".encode(),
            ),
        ),
        (
            {"statusCode": 200, "headers": {"content-type": "x/y"}, "body": "AAH/", "isBase64Encoded": True},
            HttpResponse(200, [("content-type", "x/y")], b"\x00\x01\xff"),
        ),
    ],
)
def test_both_forms_of_a_response_are_understood(returned: Any, expected: HttpResponse) -> None:
    """With a statusCode it is the response; without, it is the body of one."""
    assert response(json.dumps(returned).encode(), "2.0") == expected


def test_format_1_has_headers_more_than_once() -> None:
    """`multiValueHeaders` come beside, and instead of, those of the same name."""
    returned = {"statusCode": 200, "headers": {"A": "x", "content-type": "t/t"}, "multiValueHeaders": {"a": ["1", "2"]}}
    found = response(json.dumps(returned).encode(), "1.0")
    assert found.headers == [("content-type", "t/t"), ("a", "1"), ("a", "2")]


@pytest.mark.parametrize(
    ("returned", "version"),
    [
        ({"a": 1}, "1.0"),
        ({"statusCode": "x"}, "2.0"),
        ({"statusCode": 99}, "2.0"),
        ({"statusCode": True}, "2.0"),
        ({"statusCode": 200, "headers": []}, "2.0"),
        ({"statusCode": 200, "headers": {"a": {}}}, "2.0"),
        ({"statusCode": 200, "headers": {"a": "b\r\nc: d"}}, "2.0"),
        ({"statusCode": 200, "headers": {"a b": "c"}}, "2.0"),
        ({"statusCode": 200, "body": {"a": 1}}, "2.0"),
        ({"statusCode": 200, "body": "?", "isBase64Encoded": True}, "2.0"),
    ],
)
def test_what_is_no_response_is_said(returned: Any, version: str) -> None:
    """Status, headers and body must be what they are to be; a header cannot smuggle another in."""
    with pytest.raises(NoResponse):
        response(json.dumps(returned).encode(), version)
