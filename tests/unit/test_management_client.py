"""The management client over a transport that answers what a test says: signatures, errors, tries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from hubbub.management import (
    BadRequest,
    Connection,
    Forbidden,
    Gone,
    LimitExceeded,
    ManagementClient,
    ManagementError,
    TooLarge,
    Unreachable,
)
from hubbub.sigv4 import Credentials, Keys, Signer, verify

BACKEND = Credentials("AKIDBACKEND", "a-secret-of-the-backend")
ENDPOINT = "https://api.example/prod"
PEER = "R0oXAdfD0kwCH6w="
NOW_S = 1_700_000_000.0

Answered = httpx.Response | Exception


class Wire:
    """A transport that answers in turn, and keeps what it was asked.

    Attributes:
        answers: what is answered, an exception is raised; the last one again and again.
        requests: what was asked.

    """

    def __init__(self) -> None:
        self.answers: list[Answered] = [httpx.Response(200)]
        self.requests: list[httpx.Request] = []
        self.http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, endpoint: str = ENDPOINT, **options: Any) -> ManagementClient:
        """A client on this wire."""
        given = {"credentials": BACKEND, "region": "eu-west-1", "backoff_s": 0.0, "clock": lambda: NOW_S}
        return ManagementClient(endpoint, http=self.http, **{**given, **options})

    def signer(self) -> Signer:
        """Who has signed the last request."""
        request = self.requests[-1]
        path, _, query = request.url.raw_path.decode().partition("?")
        return verify(
            Keys({BACKEND.access_key: BACKEND.secret_key}),
            method=request.method,
            path=path,
            query=query,
            fields=list(request.headers.items()),
            body=request.content,
            service="execute-api",
            now_s=NOW_S,
        )


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """A wire that is closed afterwards."""
    made = Wire()
    yield made
    await made.http.aclose()


CALLS: list[tuple[Callable[[ManagementClient], Coroutine[Any, Any, Any]], str, bytes]] = [
    (lambda c: c.post(PEER, b"hello"), "POST /prod/@connections/R0oXAdfD0kwCH6w%3D", b"hello"),
    (lambda c: c.post("a+b/c d", "grüße"), "POST /prod/@connections/a%2Bb%2Fc%20d", "grüße".encode()),
    (lambda c: c.close(PEER), "DELETE /prod/@connections/R0oXAdfD0kwCH6w%3D", b""),
    (lambda c: c.close(PEER, 4000), "DELETE /prod/@connections/R0oXAdfD0kwCH6w%3D?code=4000", b""),
    (
        lambda c: c.close(PEER, 4000, "a+b &ä"),
        "DELETE /prod/@connections/R0oXAdfD0kwCH6w%3D?code=4000&reason=a%2Bb%20%26%C3%A4",
        b"",
    ),
    (lambda c: c.close(PEER, reason=""), "DELETE /prod/@connections/R0oXAdfD0kwCH6w%3D?reason=", b""),
    (
        lambda c: c.join("room#1", PEER),
        "PUT /prod/@groups/room%231/connections/R0oXAdfD0kwCH6w%3D",
        b"",
    ),
    (lambda c: c.leave("a@b", PEER), "DELETE /prod/@groups/a%40b/connections/R0oXAdfD0kwCH6w%3D", b""),
]


@pytest.mark.parametrize(("call", "asked", "body"), CALLS)
async def test_a_call_is_written_and_signed(
    wire: Wire, call: Callable[[ManagementClient], Coroutine[Any, Any, Any]], asked: str, body: bytes
) -> None:
    """Its path and query are encoded once, and what is signed is what is sent."""
    assert await call(wire.client()) is None
    (request,) = wire.requests
    assert f"{request.method} {request.url.raw_path.decode()}" == asked
    assert request.content == body
    assert wire.signer() == Signer(BACKEND.access_key, "eu-west-1", True)


async def test_a_connection_is_described(wire: Wire) -> None:
    """Times are times; an agent may be unknown."""
    wire.answers = [
        httpx.Response(
            200,
            json={
                "connectedAt": "2020-04-30T20:10:33.236Z",
                "lastActiveAt": "2020-04-30T20:10:42.997Z",
                "identity": {"sourceIp": "192.0.2.1", "userAgent": None},
            },
        )
    ]
    assert await wire.client().get(PEER) == Connection(
        datetime(2020, 4, 30, 20, 10, 33, 236_000, UTC),
        datetime(2020, 4, 30, 20, 10, 42, 997_000, UTC),
        "192.0.2.1",
        None,
    )


async def test_publishing_says_how_many_got_it(wire: Wire) -> None:
    """And asks for what it was told, no more."""
    wire.answers = [httpx.Response(200, json={"sent": 3, "dropped": 1})]
    client = wire.client()
    assert await client.publish("lobby", "hello") == 3
    assert await client.publish("lobby", "hello", PEER, droppable=True) == 3
    first, second = wire.requests
    assert first.url.raw_path == b"/prod/@groups/lobby"
    assert second.url.raw_path == b"/prod/@groups/lobby?exclude=R0oXAdfD0kwCH6w%3D&droppable=true"
    assert wire.signer().checked


async def test_members_are_fetched_as_they_are_asked_for(wire: Wire) -> None:
    """Page by page, and no page before it is needed."""
    wire.answers = [
        httpx.Response(200, json={"count": 3, "connections": ["a", "b"], "nextToken": "b="}),
        httpx.Response(200, json={"count": 3, "connections": ["c"]}),
    ]
    found = wire.client().members("lobby", page=2)
    assert [await anext(found), await anext(found)] == ["a", "b"]
    assert len(wire.requests) == 1
    assert [connection async for connection in found] == ["c"]
    asked = [request.url.raw_path.decode() for request in wire.requests]
    assert asked == ["/prod/@groups/lobby?limit=2", "/prod/@groups/lobby?limit=2&nextToken=b%3D"]


# Errors


@pytest.mark.parametrize(
    ("status", "header", "body", "kind", "name", "words"),
    [
        (410, "GoneException", b"", Gone, "GoneException", "GoneException"),
        (410, "", b"", Gone, "", "Gone"),
        (413, "PayloadTooLargeException", b'{"message":"too long"}', TooLarge, "PayloadTooLargeException", "too long"),
        (
            429,
            "LimitExceededException:http://x/",
            b'{"message":"slow"}',
            LimitExceeded,
            "LimitExceededException",
            "slow",
        ),
        (403, "ForbiddenException", b'{"Message":"no"}', Forbidden, "ForbiddenException", "no"),
        (400, "ns#BadRequestException", b"{}", BadRequest, "BadRequestException", "BadRequestException"),
        (404, "NotFoundException", b'{"message":"No method"}', ManagementError, "NotFoundException", "No method"),
        (500, "", b"<html>\xff", ManagementError, "", "Internal Server Error"),
        (502, "", b"[1]", ManagementError, "", "Bad Gateway"),
    ],
)
async def test_each_refusal_has_an_error(
    wire: Wire, status: int, header: str, body: bytes, kind: type[ManagementError], name: str, words: str
) -> None:
    """With status, type and what was said, whatever shape that has."""
    headers = {"x-amzn-ErrorType": header} if header else {}
    wire.answers = [httpx.Response(status, headers=headers, content=body)]
    with pytest.raises(ManagementError) as caught:
        await wire.client(retries=0).post(PEER, b"x")
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.type, caught.value.message) == (status, name, words)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"\xff", b'{"sent":"many"}'])
async def test_an_answer_that_is_none_is_an_error(wire: Wire, body: bytes) -> None:
    """Some other server is at the endpoint."""
    wire.answers = [httpx.Response(200, content=body)]
    with pytest.raises(ManagementError, match="none of the management API's"):
        await wire.client().publish("lobby", "x")
    with pytest.raises(ManagementError, match="none of the management API's"):
        await wire.client().get(PEER)


# Tries


def too_many() -> httpx.Response:
    return httpx.Response(429, headers={"x-amzn-ErrorType": "LimitExceededException"})


async def test_what_is_refused_for_now_is_tried_again(wire: Wire) -> None:
    """And what has not reached the gateway; each try is signed anew."""
    wire.answers = [
        too_many(),
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout(""),
        too_many(),
        httpx.Response(200),
    ]
    times = iter([NOW_S + n for n in range(5)])
    await wire.client(clock=lambda: next(times)).post(PEER, b"x")
    assert [request.headers["x-amz-date"][-3:] for request in wire.requests] == ["20Z", "21Z", "22Z", "23Z", "24Z"]


async def test_tries_come_to_an_end(wire: Wire) -> None:
    """After as many as were asked for, with the last error."""
    wire.answers = [too_many()]
    with pytest.raises(LimitExceeded):
        await wire.client(retries=2).post(PEER, b"x")
    assert len(wire.requests) == 3
    wire.answers = [httpx.ConnectError("refused")]
    with pytest.raises(Unreachable, match=r"https://api\.example/prod cannot be reached: refused"):
        await wire.client(retries=1).post(PEER, b"x")
    assert len(wire.requests) == 5


@pytest.mark.parametrize(
    "answer", [httpx.Response(410), httpx.Response(403), httpx.Response(500), httpx.ReadTimeout("")]
)
async def test_what_may_have_been_done_is_not_done_twice(wire: Wire, answer: Answered) -> None:
    """Nor what trying again cannot mend."""
    wire.answers = [answer]
    with pytest.raises(ManagementError):
        await wire.client().post(PEER, b"x")
    assert len(wire.requests) == 1


async def test_no_answer_is_said_to_be_none(wire: Wire) -> None:
    """It is not known whether the message was sent."""
    wire.answers = [httpx.ReadTimeout("")]
    with pytest.raises(Unreachable, match="did not answer: ReadTimeout") as caught:
        await wire.client().post(PEER, b"x")
    assert (caught.value.status, caught.value.type) == (None, "")


# What it is made of


async def test_credentials_are_those_of_the_environment(wire: Wire) -> None:
    """As Lambda sets them, the session token with them."""
    environment = {
        "AWS_ACCESS_KEY_ID": BACKEND.access_key,
        "AWS_SECRET_ACCESS_KEY": BACKEND.secret_key,
        "AWS_SESSION_TOKEN": "a token",
        "AWS_REGION": "eu-north-1",
    }
    await wire.client(credentials=None, region=None, environment=environment).post(PEER, b"x")
    assert wire.requests[0].headers["x-amz-security-token"] == "a token"
    assert wire.signer() == Signer(BACKEND.access_key, "eu-north-1", True)


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_without_credentials_there_is_no_client(wire: Wire, missing: str) -> None:
    """It says what it would have needed."""
    environment = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", missing: ""}
    with pytest.raises(ValueError, match="expected some, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to be set"):
        wire.client(credentials=None, environment=environment)


@pytest.mark.parametrize(
    ("endpoint", "region", "environment", "expected"),
    [
        ("https://abc.execute-api.eu-west-3.amazonaws.com/prod", None, {"AWS_REGION": "us-west-2"}, "eu-west-3"),
        ("https://abc.execute-api.cn-north-1.amazonaws.com.cn/prod", None, {}, "cn-north-1"),
        ("https://abc.execute-api.eu-west-3.amazonaws.com/prod", "ap-east-1", {}, "ap-east-1"),
        (ENDPOINT, None, {"AWS_REGION": "us-west-2", "AWS_DEFAULT_REGION": "us-west-1"}, "us-west-2"),
        (ENDPOINT, None, {"AWS_DEFAULT_REGION": "us-west-1"}, "us-west-1"),
        (ENDPOINT, None, {}, "us-east-1"),
    ],
)
async def test_the_region_is_the_endpoints_or_the_environments(
    wire: Wire, endpoint: str, region: str | None, environment: dict[str, str], expected: str
) -> None:
    """Unless it is given."""
    await wire.client(endpoint, region=region, environment=environment).post(PEER, b"x")
    assert wire.signer().region == expected


@pytest.mark.parametrize("endpoint", ["", "api.example/prod", "wss://api.example/prod", "https://", "https://h/p?q=1"])
def test_an_endpoint_is_an_address(wire: Wire, endpoint: str) -> None:
    """Anything else is refused when the client is made, and named."""
    with pytest.raises(ValueError, match="endpoint: expected an address such as https://host/stage") as caught:
        wire.client(endpoint)
    assert repr(endpoint) in str(caught.value)


@pytest.mark.parametrize("endpoint", ["https://api.example", "https://api.example/", "http://127.0.0.1:8000/"])
async def test_an_endpoint_needs_no_stage(wire: Wire, endpoint: str) -> None:
    """A custom domain has none, and a slash at the end is nothing."""
    await wire.client(endpoint).post(PEER, b"x")
    assert wire.requests[0].url.raw_path == b"/@connections/R0oXAdfD0kwCH6w%3D"
    assert wire.signer().checked


async def test_an_http_client_that_was_given_stays_open(wire: Wire) -> None:
    """One of its own is closed with it."""
    async with wire.client() as client:
        await client.post(PEER, b"x")
    assert not wire.http.is_closed
    async with ManagementClient(ENDPOINT, BACKEND) as client:
        own = client._http
    assert own.is_closed


def test_the_secret_is_not_shown(wire: Wire) -> None:
    """The endpoint and the key are."""
    assert repr(wire.client()) == f"<ManagementClient of {ENDPOINT} as AKIDBACKEND>"


def test_it_loads_no_server_and_no_aws() -> None:
    """A Lambda function's cold start pays for httpx and msgspec, and nothing else of the kind."""
    listing = "import sys, hubbub.management; print(*[m for m in sys.modules if m.split('.')[0] in sys.argv[1:]])"
    heavy = [
        "boto3",
        "botocore",
        "uvicorn",
        "starlette",
        "picows",
        "uvloop",
        "joserfc",
        "typer",
        "websockets",
        "sqlite3",
    ]
    shown = subprocess.run(
        [sys.executable, "-c", listing, *heavy], capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.split() == []
