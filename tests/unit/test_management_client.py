"""The management client over a wire that answers what a test says, and over sockets: signatures, errors, tries."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from awslab import said
from endpoint import Endpoint, response
from hubbub.aws.credentials import NoCredentials
from hubbub.aws.http import Broken, HttpClient, HttpResponse, Unreached
from hubbub.emulator.proxy import Proxy
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
from live import BOUND_S

BACKEND = Credentials("AKIDBACKEND", "a-secret-of-the-backend")
ENDPOINT = "https://api.example/prod"
HOST = "abcdef1234.execute-api.eu-west-1.amazonaws.com"
PEER = "R0oXAdfD0kwCH6w="
NOW_S = 1_700_000_000.0

REFUSED = Unreached("refused")
SILENT = Broken("no answer in time")


class Request(NamedTuple):
    """What was asked; `target` is the path with the query."""

    method: str
    origin: str
    target: str
    headers: dict[str, str]
    body: bytes
    timeout_s: float
    repeat: bool


class Wire:
    """In place of an HTTP client: answers in turn, and keeps what it was asked.

    Attributes:
        answers: what is answered, an exception is raised; the last one again and again.
        requests: what was asked.

    """

    def __init__(self) -> None:
        self.answers: list[HttpResponse | Exception] = [said(200)]
        self.requests: list[Request] = []

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        timeout_s: float,
        repeat: bool = False,
    ) -> HttpResponse:
        scheme, _, rest = url.partition("://")
        host, _, target = rest.partition("/")
        fields = {"host": host} | {name.lower(): value for name, value in headers}
        self.requests.append(Request(method, f"{scheme}://{host}", f"/{target}", fields, body, timeout_s, repeat))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, endpoint: str = ENDPOINT, **options: Any) -> ManagementClient:
        """A client on this wire."""
        given = {"credentials": BACKEND, "region": "eu-west-1", "backoff_s": 0.0, "clock": lambda: NOW_S}
        return ManagementClient(endpoint, http=self, **{**given, **options})

    def signer(self) -> Signer:
        """Who has signed the last request."""
        request = self.requests[-1]
        path, _, query = request.target.partition("?")
        return verify(
            Keys({BACKEND.access_key: BACKEND.secret_key}),
            method=request.method,
            path=path,
            query=query,
            fields=list(request.headers.items()),
            body=request.body,
            service="execute-api",
            now_s=NOW_S,
        )


@pytest.fixture
def wire() -> Wire:
    """A wire."""
    return Wire()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """A server that answers as a test tells it."""
    async with Endpoint() as made:
        yield made


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
    assert f"{request.method} {request.target}" == asked
    assert (request.origin, request.body, request.timeout_s) == ("https://api.example", body, 10.0)
    assert wire.signer() == Signer(BACKEND.access_key, "eu-west-1", True)


async def test_a_connection_is_described(wire: Wire) -> None:
    """Times are times; an agent may be unknown."""
    wire.answers = [
        said(
            200,
            {
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
    wire.answers = [said(200, {"sent": 3, "dropped": 1})]
    client = wire.client()
    assert await client.publish("lobby", "hello") == 3
    assert await client.publish("lobby", "hello", PEER, droppable=True) == 3
    first, second = wire.requests
    assert first.target == "/prod/@groups/lobby"
    assert second.target == "/prod/@groups/lobby?exclude=R0oXAdfD0kwCH6w%3D&droppable=true"
    assert wire.signer().checked


async def test_members_are_fetched_as_they_are_asked_for(wire: Wire) -> None:
    """Page by page, and no page before it is needed."""
    wire.answers = [
        said(200, {"count": 3, "connections": ["a", "b"], "nextToken": "b="}),
        said(200, {"count": 3, "connections": ["c"]}),
    ]
    found = wire.client().members("lobby", page=2)
    assert [await anext(found), await anext(found)] == ["a", "b"]
    assert len(wire.requests) == 1
    assert [connection async for connection in found] == ["c"]
    asked = [request.target for request in wire.requests]
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
        (599, "", b"", ManagementError, "", "HTTP status 599"),
        (302, "", b"", ManagementError, "", "Found"),
    ],
)
async def test_each_refusal_has_an_error(
    wire: Wire, status: int, header: str, body: bytes, kind: type[ManagementError], name: str, words: str
) -> None:
    """With status, type and what was said, whatever shape that has."""
    fields = [(b"x-amzn-ErrorType", header.encode())] if header else []
    wire.answers = [HttpResponse(status, fields, body)]
    with pytest.raises(ManagementError) as caught:
        await wire.client(retries=0).post(PEER, b"x")
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.type, caught.value.message) == (status, name, words)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"\xff", b'{"sent":"many"}'])
async def test_an_answer_that_is_none_is_an_error(wire: Wire, body: bytes) -> None:
    """Some other server is at the endpoint."""
    wire.answers = [HttpResponse(200, [], body)]
    with pytest.raises(ManagementError, match="none of the management API's"):
        await wire.client().publish("lobby", "x")
    with pytest.raises(ManagementError, match="none of the management API's"):
        await wire.client().get(PEER)


# Tries


def too_many() -> HttpResponse:
    return said(429, x_amzn_ErrorType="LimitExceededException")


async def test_what_is_refused_for_now_is_tried_again(wire: Wire) -> None:
    """And what has not reached the gateway; each try is signed anew."""
    wire.answers = [
        too_many(),
        REFUSED,
        Unreached("no connection got free in time"),
        too_many(),
        said(200),
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
    wire.answers = [REFUSED]
    with pytest.raises(Unreachable, match=r"a call to https://api\.example/prod was not sent: refused"):
        await wire.client(retries=1).post(PEER, b"x")
    assert len(wire.requests) == 5


@pytest.mark.parametrize("answer", [said(410), said(403), said(500), SILENT])
async def test_what_may_have_been_done_is_not_done_twice(wire: Wire, answer: HttpResponse | Exception) -> None:
    """Nor what trying again cannot mend; and the HTTP client is not allowed to, either."""
    wire.answers = [answer]
    for call, _, _ in CALLS:
        wire.requests.clear()
        with pytest.raises(ManagementError):
            await call(wire.client())
        assert [request.repeat for request in wire.requests] == [False]


async def test_no_answer_is_said_to_be_none(wire: Wire) -> None:
    """It is not known whether the message was sent."""
    wire.answers = [SILENT]
    with pytest.raises(Unreachable, match=r"https://api\.example/prod did not answer: no answer in time") as caught:
        await wire.client().post(PEER, b"x")
    assert (caught.value.status, caught.value.type) == (None, "")


@pytest.mark.slow
async def test_a_try_has_its_time(endpoint: Endpoint) -> None:
    """A server that is silent for longer is `Unreachable`, and is not asked again."""
    endpoint.gate.clear()
    async with ManagementClient(endpoint.url, BACKEND, timeout_s=0.5) as client:
        with pytest.raises(Unreachable, match="no answer in time"):
            await client.post(PEER, b"x")
    assert len(endpoint.calls) == 1


async def test_a_call_that_is_cancelled_spoils_no_other(endpoint: Endpoint) -> None:
    """Its answer, which may still come, is nobody else's."""
    endpoint.gate.clear()
    endpoint.answer = lambda call: response(200, json.dumps({"sent": len(call.body)}))
    async with asyncio.timeout(BOUND_S), ManagementClient(endpoint.url, BACKEND) as client:
        given_up = asyncio.create_task(client.publish("lobby", b"12345"))
        while not endpoint.calls:
            await asyncio.sleep(0.001)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        endpoint.gate.set()
        assert await client.publish("lobby", b"1") == 1


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


async def test_a_containers_credentials_are_asked_for_and_renewed(wire: Wire, endpoint: Endpoint) -> None:
    """Where a task's role gives them out, calls go on when the first ones have ended."""
    ends = iter([time.time() + 60, time.time() + 3_600])
    keys = iter(["AKID1", "AKID2"])

    def given_out(call: object) -> bytes:
        until = datetime.fromtimestamp(next(ends), UTC).isoformat()
        return response(
            200, json.dumps({"AccessKeyId": next(keys), "SecretAccessKey": "s", "Token": "t", "Expiration": until})
        )

    endpoint.answer = given_out
    environment = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": endpoint.url}
    client = wire.client(credentials=None, environment=environment)
    for _ in range(3):
        await client.post(PEER, b"x")
    signed = [request.headers["authorization"].partition("Credential=")[2][:5] for request in wire.requests]
    assert signed == ["AKID1", "AKID2", "AKID2"]


async def test_credentials_may_be_anybodys_who_knows_them(wire: Wire) -> None:
    """Who is asked at each call, and is told on when there are none."""

    class Roles:
        known: Credentials | None = BACKEND

        async def get(self) -> Credentials:
            if self.known is None:
                raise NoCredentials("the role is gone")
            return self.known

    roles = Roles()
    client = wire.client(credentials=roles)
    await client.post(PEER, b"x")
    assert wire.signer().checked
    roles.known = None
    with pytest.raises(ManagementError, match="the role is gone"):
        await client.post(PEER, b"x")
    assert len(wire.requests) == 1


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


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "api.example/prod",
        "wss://api.example/prod",
        "https://",
        "https://h/p?q=1",
        "https://h/p#q",
        "https://user:word@h/p",
        "https://h:port/p",
        "https://grüße.example/p",
    ],
)
def test_an_endpoint_is_an_address(wire: Wire, endpoint: str) -> None:
    """Anything else is refused when the client is made, and named."""
    with pytest.raises(ValueError, match="endpoint: expected an address such as https://host/stage") as caught:
        wire.client(endpoint)
    assert repr(endpoint) in str(caught.value)


@pytest.mark.parametrize("endpoint", ["https://api.example", "https://api.example/", "http://127.0.0.1:8000/"])
async def test_an_endpoint_needs_no_stage(wire: Wire, endpoint: str) -> None:
    """A custom domain has none, and a slash at the end is nothing."""
    await wire.client(endpoint).post(PEER, b"x")
    assert wire.requests[0].target == "/@connections/R0oXAdfD0kwCH6w%3D"
    assert wire.signer().checked


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("https://Bücher.example/prod", "https://xn--bcher-kva.example/prod"),
        ("https://h:443/a b", "https://h:443/a%20b"),
        ("http://[::1]:8000/a%20b/", "http://[::1]:8000/a%20b"),
        ("HTTPS://H/$default", "https://H/$default"),
    ],
)
async def test_an_endpoint_is_encoded_as_it_is_sent(wire: Wire, endpoint: str, url: str) -> None:
    """Names of other scripts in IDNA, paths in percent-encoding, once."""
    await wire.client(endpoint).post("a", b"x")
    assert wire.requests[0].origin + wire.requests[0].target == f"{url}/@connections/a"


async def test_an_http_client_that_was_given_stays_open(endpoint: Endpoint) -> None:
    """And serves on; one of its own is closed with it, and says so."""
    async with HttpClient() as http:
        async with ManagementClient(endpoint.url, BACKEND, http=http) as client:
            await client.post(PEER, b"x")
        await client.post(PEER, b"x")
        assert endpoint.connections == 1
    async with ManagementClient(endpoint.url, BACKEND) as client:
        await client.post(PEER, b"x")
    with pytest.raises(RuntimeError, match="the ManagementClient is closed"):
        await client.post(PEER, b"x")
    assert len(endpoint.calls) == 3


async def test_a_client_has_a_hundred_connections(endpoint: Endpoint) -> None:
    """More calls at a time wait for their turn."""
    endpoint.gate.clear()
    async with asyncio.timeout(BOUND_S), ManagementClient(endpoint.url, BACKEND) as client:
        posts = [asyncio.create_task(client.post(PEER, b"x")) for _ in range(120)]
        while endpoint.at_once < 100:
            await asyncio.sleep(0.001)
        endpoint.gate.set()
        await asyncio.gather(*posts)
    assert (endpoint.connections, endpoint.most_at_once, len(endpoint.calls)) == (100, 100, 120)


# TLS


class Secure:
    """A server with a certificate for `localhost` and for an API's own name, that answers anything with 200.

    Attributes:
        port: where it listens.
        bundle: the file of those who vouch for it.
        hosts: what it was called.

    """

    port: int

    def __init__(self, folder: Path) -> None:
        self.bundle = folder / "bundle.pem"
        self.hosts: list[str] = []
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.bundle)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", HOST).configure_cert(self._context)

    async def __aenter__(self) -> Secure:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            self.hosts.append(head.partition("\r\nhost: ")[2].partition("\r\n")[0])
            writer.write(response(200))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side went away
        finally:
            writer.close()


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[Secure]:
    """It runs for the test."""
    async with Secure(tmp_path) as made:
        yield made


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
async def test_whom_to_trust_is_told_by_the_environment(secure: Secure, variable: str) -> None:
    """With a bundle of one's own a private authority is trusted, without it is not."""
    url = f"https://localhost:{secure.port}/prod"
    async with ManagementClient(url, BACKEND, environment={variable: str(secure.bundle)}) as client:
        await client.post(PEER, b"x")
    async with ManagementClient(url, BACKEND, environment={}, retries=0) as client:
        with pytest.raises(Unreachable, match="certificate verify failed"):
            await client.post(PEER, b"x")


async def test_whom_to_trust_may_be_told_by_a_client(secure: Secure) -> None:
    """That has a context of its own."""
    context = ssl.create_default_context(cafile=str(secure.bundle))
    async with HttpClient(ssl=context) as http:
        await ManagementClient(f"https://localhost:{secure.port}", BACKEND, http=http).post(PEER, b"x")
    assert secure.hosts == [f"localhost:{secure.port}"]


def test_a_bundle_that_is_none_is_told_at_once(tmp_path: Path) -> None:
    """When the client is made, and not with its first call; plain HTTP needs none."""
    environment = {"SSL_CERT_FILE": str(tmp_path / "missing")}
    with pytest.raises(ValueError, match=r"SSL_CERT_FILE: expected a file of certificates, got .*missing"):
        ManagementClient(ENDPOINT, BACKEND, environment=environment)
    ManagementClient("http://api.example", BACKEND, environment=environment)


async def test_an_api_is_reached_by_its_own_name_through_a_proxy(secure: Secure) -> None:
    """As functions on a machine of one's own are led to the API there, and backends out of their network."""
    async with Proxy({HOST.partition(".")[0]: ("127.0.0.1", secure.port)}, environment={}) as proxy:
        environment = {**proxy.environment(), "SSL_CERT_FILE": str(secure.bundle)}
        async with ManagementClient(f"https://{HOST}/prod", BACKEND, environment=environment) as client:
            await client.post(PEER, b"x")
    assert secure.hosts == [HOST]


def test_the_secret_is_not_shown(wire: Wire) -> None:
    """The endpoint and the key are."""
    assert repr(wire.client()) == f"<ManagementClient of {ENDPOINT} as <Fixed AKIDBACKEND>>"


@pytest.mark.slow
def test_it_loads_no_server_and_no_aws() -> None:
    """A Lambda function's cold start pays for msgspec and httptools, and nothing else of the kind."""
    listing = "import sys, hubbub.management; print(*[m for m in sys.modules if m.split('.')[0] in sys.argv[1:]])"
    heavy = [
        "boto3",
        "botocore",
        "httpx",
        "httpcore",
        "uvicorn",
        "starlette",
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
