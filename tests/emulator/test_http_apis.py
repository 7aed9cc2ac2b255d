"""HTTP APIs of a stack under `hubbub local`: requests reach functions as on AWS, and their answers come back."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from lambdalab import moto_server
from locallab import hubbub_local
from stacklab import Sketch, background

from hubbub.emulator import BackgroundStack
from live import BOUND_S

ACT = """\
    import json, os, time, urllib.request

    def handler(event, context):
        if event.get("ask") == "variables":
            return [name for name in os.environ if name.startswith("HUBBUB_")]
        if "rawPath" not in event:
            return {"statusCode": 200, "body": os.environ.get("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", "")}
        wanted = (event.get("queryStringParameters") or {}).get("do")
        if wanted == "raise":
            raise ValueError("no")
        if wanted == "sleep":
            time.sleep(9)
        if wanted == "nonsense":
            return {"statusCode": "no"}
        if wanted == "large":
            return {"statusCode": 200, "body": "x" * 6_300_000}
        if wanted == "ask":
            with urllib.request.urlopen(os.environ["BACKEND"] + "/made") as answer:
                return {"statusCode": 200, "body": answer.read().decode()}
        if event["rawPath"].endswith("/made"):
            return {"statusCode": 201, "headers": {"x-made": "yes"}, "cookies": ["a=1", "b=2"], "body": "made"}
        return event
"""


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """An emulator of AWS for both stacks."""
    with moto_server() as url:
        yield url


def http_api(sketch: Sketch, name: str, stage: str, **routes: str) -> None:
    """An HTTP API whose routes, written with `_` for blanks, call functions."""
    sketch.resources[name] = {"Type": "AWS::ApiGatewayV2::Api", "Properties": {"Name": name, "ProtocolType": "HTTP"}}
    sketch.resources[f"{name}Stage"] = {
        "Type": "AWS::ApiGatewayV2::Stage",
        "Properties": {"ApiId": {"Ref": name}, "StageName": stage, "StageVariables": {"colour": "blue"}},
    }
    for number, (key, function) in enumerate(routes.items()):
        sketch.resources[f"{name}I{number}"] = {
            "Type": "AWS::ApiGatewayV2::Integration",
            "Properties": {
                "ApiId": {"Ref": name},
                "IntegrationType": "AWS_PROXY",
                "IntegrationUri": {"Fn::GetAtt": [function, "Arn"]},
                "PayloadFormatVersion": "2.0",
                "TimeoutInMillis": 6_000,
            },
        }
        sketch.resources[f"{name}R{number}"] = {
            "Type": "AWS::ApiGatewayV2::Route",
            "Properties": {
                "ApiId": {"Ref": name},
                "RouteKey": key,
                "Target": {"Fn::Sub": f"integrations/${{{name}I{number}}}"},
            },
        }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two WebSocket APIs and two HTTP APIs, one with a stage of a name, all of which call the same code."""
    sketch = Sketch(tmp_path_factory.mktemp("http") / "shop")
    address = {"Fn::Sub": "https://${Backend}.execute-api.${AWS::Region}.amazonaws.com/v"}
    http_api(sketch, "Site", "$default", **{"GET /rooms/{room}": "Act", "ANY /any/{proxy+}": "Act", "GET /made": "Act"})
    sketch.function("Act", ACT, Variables={"BACKEND": address}, MemorySize=512)
    http_api(sketch, "Backend", "v", **{"$default": "Act"})
    sketch.function("Other", ACT, Variables={"MINE": {"Fn::Sub": "https://${Second}.execute-api.x.amazonaws.com"}})
    sketch.function("Third", ACT).api("First", default="Third").api("Second", default="Act")
    sketch.document["Outputs"] = {
        "Backend": {"Value": address},
        "Site": {"Value": {"Fn::GetAtt": ["Site", "ApiEndpoint"]}},
    }
    return sketch.write().parent


@pytest.fixture(scope="module")
def stack(folder: Path, moto: str) -> Iterator[BackgroundStack]:
    """The stack, running."""
    with background(folder, endpoints={"*": moto}) as (running, _):
        yield running


def call(stack: BackgroundStack, api: str, path: str, **options: Any) -> httpx.Response:
    """A request to an API at a path."""
    with httpx.Client(timeout=BOUND_S, trust_env=False) as http:
        return http.request(options.pop("method", "GET"), f"{stack.environment[f'HUBBUB_URL_{api}']}{path}", **options)


def test_a_request_is_an_event_and_what_is_returned_is_the_answer(stack: BackgroundStack) -> None:
    """A function is told route, path, query and headers in small letters; a JSON value that it returns is the body."""
    answer = call(stack, "Site", "/rooms/tea?a=1&a=2", headers={"X-Two": "3", "User-Agent": "me"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    event = answer.json()
    assert (event["version"], event["routeKey"], event["rawPath"]) == ("2.0", "GET /rooms/{room}", "/rooms/tea")
    assert (event["pathParameters"], event["queryStringParameters"]) == ({"room": "tea"}, {"a": "1,2"})
    assert event["headers"]["x-two"] == "3"
    assert event["headers"]["x-forwarded-for"] == event["requestContext"]["http"]["sourceIp"] == "127.0.0.1"
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}", event["headers"]["x-amzn-trace-id"])
    assert event["requestContext"]["stage"] == "$default"
    assert event["requestContext"]["requestId"] == answer.headers["apigw-requestid"]
    assert event["stageVariables"] == {"colour": "blue"}
    assert "body" not in event


def test_a_whole_response_is_taken_as_it_is(stack: BackgroundStack) -> None:
    """Status, headers and cookies are the function's."""
    answer = call(stack, "Site", "/made")
    assert (answer.status_code, answer.text, answer.headers["x-made"]) == (201, "made", "yes")
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]


def test_a_stage_with_a_name_is_part_of_the_path(stack: BackgroundStack) -> None:
    """It is in `rawPath`, and beside it there is nothing; `$default` takes whatever is left."""
    answer = call(stack, "Backend", "/x/y", method="PATCH", json={"a": 1})
    event = answer.json()
    assert (event["rawPath"], event["routeKey"], event["requestContext"]["stage"]) == ("/v/x/y", "$default", "v")
    assert (json.loads(event["body"]), event["isBase64Encoded"]) == ({"a": 1}, False)
    root = stack.environment["HUBBUB_URL_Backend"].removesuffix("/v")
    assert httpx.get(f"{root}/other", trust_env=False).json() == {"message": "Not Found"}


def test_a_path_reaches_functions_without_its_encoding(stack: BackgroundStack) -> None:
    """As on AWS `rawPath` is not raw: an encoded slash is a slash, and from an encoded question mark on it is cut."""
    assert call(stack, "Site", "/any/a%2Fb%20c").json()["pathParameters"] == {"proxy": "a/b c"}
    assert call(stack, "Site", "/any/a%3Fb?c=d").json()["rawPath"] == "/any/a"


@pytest.mark.parametrize(
    ("path", "method", "status", "said"),
    [
        ("/nowhere", "GET", 404, "Not Found"),
        ("/made", "POST", 404, "Not Found"),
        ("/any/a?do=raise", "GET", 500, "Internal Server Error"),
        ("/any/a?do=nonsense", "GET", 500, "Internal Server Error"),
        ("/any/a?do=large", "GET", 500, "Internal Server Error"),
        ("/any/a?do=sleep", "GET", 503, "Service Unavailable"),
    ],
)
def test_refusals_are_those_of_aws(stack: BackgroundStack, path: str, method: str, status: int, said: str) -> None:
    """No route is 404; a function that fails, or returns what is no response, is 500; one that is too slow is 503."""
    answer = call(stack, "Site", path, method=method)
    assert (answer.status_code, answer.json()) == (status, {"message": said})


@pytest.mark.parametrize("size", [6_300_000, 11_000_000])
def test_what_is_too_large_is_not_taken(stack: BackgroundStack, size: int) -> None:
    """A request of more than 10 MB, or whose event is more than Lambda's 6 MB, is 413; the next one is served."""
    answer = call(stack, "Site", "/any/a", method="POST", content=b"x" * size, headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()) == (413, {"message": "Request Entity Too Large"})
    assert call(stack, "Site", "/made").status_code == 201


def test_head_has_no_body(stack: BackgroundStack) -> None:
    """The length is told, and the body is not."""
    answer = call(stack, "Site", "/any/made", method="HEAD")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (201, b"", "4")


def test_functions_reach_it_by_its_name_on_aws(stack: BackgroundStack) -> None:
    """`https://{id}.execute-api.{region}.amazonaws.com` leads to the API's port, with TLS."""
    assert call(stack, "Site", "/any/a?do=ask").text == "made"


def test_each_function_finds_the_callbacks_of_its_own_websocket_api(stack: BackgroundStack) -> None:
    """Of several it is the one that its variables name, else the one whose routes call it, else the first."""
    found = {name: json.loads(stack.invoke(name, {}).payload)["body"] for name in ("Act", "Other", "Third")}
    first, second = (f"https://{api.host}/test" for api in stack.apis)
    assert found == {"Act": second, "Other": second, "Third": first}


def test_functions_have_no_variables_that_hubbub_would_take_for_settings(stack: BackgroundStack) -> None:
    """What the emulator tells its own parts there is named otherwise, so that Hubbub itself runs as a function."""
    assert json.loads(stack.invoke("Third", {"ask": "variables"}).payload) == []


async def test_it_is_shown_and_a_command_finds_it(folder: Path, moto: str, tmp_path: Path) -> None:
    """The table has its address, after those of the WebSocket APIs, its routes, and what its outputs mean here."""
    code = "import os, urllib.request as r; print(r.urlopen(os.environ['HUBBUB_URL_Site'] + '/made').read().decode())"
    arguments = (str(folder), "--port", "0", "--endpoint", f"*={moto}", "--once")
    async with hubbub_local(tmp_path, *arguments, command=(sys.executable, "-c", code)) as local:
        assert await local.ended() == 0
        assert local.printed == "made\n"
        addresses = re.findall(r"((?:ws|http)://\S+) +(first|second|Site|Backend)$", local.said, re.MULTILINE)
        assert [name for _, name in addresses] == ["first", "second", "Site", "Backend"]
        where = {name: url for url, name in addresses}
        assert re.search(r"^ +GET /made +Act$", local.said, re.MULTILINE)
        assert re.search(rf"^output +Backend +https://\S+/v, here {where['Backend']}$", local.said, re.MULTILINE)
        assert re.search(rf"^ +Site +https://{where['Site'].removeprefix('http://')}$", local.said, re.MULTILINE)
