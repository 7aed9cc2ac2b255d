"""Integrations of every kind on a real gateway: what real endpoints are asked, what clients get, who may connect."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from endpointlab import Endpoint, integrated, listening, say
from rawpeer import Peer, request

from hubbub.gateway.integrations import Integration, IntegrationResponse, Services
from hubbub.gateway.integrations import endpoints as endpoints_module
from hubbub.gateway.integrations.build import Integrations
from integrationlab import INVOCATION, Lambda, an_event
from live import BOUND_S, until

NOBODY = Services(invoke=Lambda())

OPEN = Integration(type="MOCK", request_templates={"$default": '{"statusCode": 200}'})
"""A `$connect` that lets everybody in."""


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """A real HTTP server."""
    async with listening() as endpoint:
        yield endpoint


def http(endpoint: Endpoint, path: str = "/", **fields: Any) -> Integration:
    """An HTTP integration with the endpoint; HTTP_PROXY if it says so."""
    return Integration(**{"type": "HTTP", "uri": f"{endpoint.url}{path}", **fields})


async def failed(peer: Peer) -> None:
    """The message that comes next says that the integration failed."""
    assert (await peer.json())["message"] == "Internal server error"


# HTTP


async def test_an_endpoint_is_asked_what_the_templates_and_parameters_say(endpoint: Endpoint) -> None:
    """Method, path, query, headers and body are mapped, and what it answers is mapped for the client."""
    endpoint.answer = (201, {"Content-Type": "application/json"}, b'{"id": 7}')
    integration = http(
        endpoint,
        "/${stageVariables.version}/rooms/{room}?fixed=1",
        method="PUT",
        request_templates={"$default": '{"by":"$context.connectionId","text":$input.json("$.text")}'},
        request_parameters={
            "integration.request.path.room": "route.request.body.room",
            "integration.request.querystring.stage": "context.stage",
            "integration.request.header.X-Connection": "context.connectionId",
            "integration.request.header.Content-Type": "'application/vnd.chat+json'",
        },
        responses=(IntegrationResponse(key=r"/2\d\d/", templates={"$default": '{"stored":$input.json("$.id")}'}),),
    )
    async with (
        integrated(NOBODY, {"$default": integration}, stage_variables={"version": "v1"}) as lab,
        await Peer.open(lab.port) as peer,
    ):
        await say(peer, '{"room":"a/b","text":"hi"}')
        assert await peer.json() == {"stored": 7}
    asked = await endpoint.take()
    by = asked.header("x-connection")
    assert by is not None and len(by) == 16
    assert (asked.method, asked.path) == ("PUT", "/v1/rooms/a%2Fb?fixed=1&stage=dev")
    assert json.loads(asked.body) == {"by": by, "text": "hi"}
    assert asked.header("content-type") == "application/vnd.chat+json"
    assert asked.header("user-agent") == "AmazonAPIGateway_hubbub0000"


async def test_a_status_selects_what_the_client_gets(endpoint: Endpoint) -> None:
    """Each status has its response; one that has none is a failure, after which the connection goes on."""
    responses = (
        IntegrationResponse(key=r"/2\d\d/", templates={"$default": "fine"}),
        IntegrationResponse(key="/404/"),
    )
    async with (
        integrated(NOBODY, {"$default": http(endpoint, responses=responses)}) as lab,
        await Peer.open(lab.port) as peer,
    ):
        for status, text in ((200, "fine"), (404, "none such")):
            endpoint.answer = (status, {}, b"none such")
            await say(peer, "{}")
            assert await peer.text() == text
        endpoint.answer = (500, {}, b"")
        await say(peer, "{}")
        await failed(peer)
        endpoint.answer = (200, {}, b"")
        await say(peer, "{}")
        assert await peer.text() == "fine"


async def test_nothing_is_sent_to_who_waits_for_nothing(endpoint: Endpoint) -> None:
    """On a one-way route no answer reaches the client, of whatever status, and whether a response is for it or not."""
    endpoint.answer = (500, {}, b"said")
    integration = http(endpoint, responses=(IntegrationResponse(key="/200/"),))
    async with (
        integrated(NOBODY, {"$default": integration}, one_way=True) as lab,
        await Peer.open(lab.port) as peer,
    ):

        async def two_are_asked() -> None:
            for _ in range(2):
                await say(peer, "{}")
                await endpoint.take()
            await lab.hang_on()

        await peer.nothing_until(two_are_asked())


async def test_a_method_without_a_body_has_none(endpoint: Endpoint) -> None:
    """A GET asks with its address alone."""
    integration = http(
        endpoint, method="GET", request_parameters={"integration.request.querystring.q": "route.request.body.q"}
    )
    async with integrated(NOBODY, {"$default": integration}) as lab, await Peer.open(lab.port) as peer:
        await say(peer, '{"q":"a b&c"}')
        assert await peer.text() == "{}"
    asked = await endpoint.take()
    assert (asked.method, asked.query, asked.body) == ("GET", [("q", "a b&c")], b"")
    assert asked.header("content-type") is None


async def test_content_is_converted_on_the_way_out_and_back(endpoint: Endpoint) -> None:
    """Base64 from the client is bytes for the endpoint, and bytes of its are base64 for the client."""
    endpoint.answer = (200, {"Content-Type": "image/png"}, b"\x89PNG\x00\xff")
    integration = http(
        endpoint,
        content_handling="CONVERT_TO_BINARY",
        responses=(IntegrationResponse(key="$default", content_handling="CONVERT_TO_TEXT"),),
    )
    async with integrated(NOBODY, {"$default": integration}) as lab, await Peer.open(lab.port) as peer:
        await say(peer, "AP8=")
        assert await peer.text() == "iVBORwD/"
        assert (await endpoint.take()).body == b"\x00\xff"
        await say(peer, "no base64!")
        await failed(peer)
    assert endpoint.asked.empty()


async def test_a_compressed_answer_is_read(endpoint: Endpoint) -> None:
    """What an endpoint sends in gzip is text for the client."""
    endpoint.answer = (200, {"Content-Encoding": "gzip"}, gzip.compress(b'{"zipped":true}'))
    async with integrated(NOBODY, {"$default": http(endpoint)}) as lab, await Peer.open(lab.port) as peer:
        await say(peer, "{}")
        assert await peer.json() == {"zipped": True}


async def test_an_answer_without_end_is_cut_off(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than an answer may have is a failure."""
    monkeypatch.setattr(endpoints_module, "MAX_ANSWER_BYTES", 100_000)
    async with integrated(NOBODY, {"$default": http(endpoint)}) as lab, await Peer.open(lab.port) as peer:
        endpoint.answer = (200, {}, b"x" * 100_001)
        await say(peer, "{}")
        await failed(peer)
        endpoint.answer = (200, {}, b"x" * 100_000)
        await say(peer, "{}")
        assert await peer.text() == "x" * 100_000


async def test_an_endpoint_that_takes_too_long_is_given_up(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """After the integration's time-out the client is told, the log says what took how long, and the call is dropped."""
    endpoint.held.clear()
    async with (
        integrated(NOBODY, {"$default": http(endpoint, timeout_ms=1_000)}) as lab,
        await Peer.open(lab.port) as peer,
    ):
        await say(peer, "{}")
        await failed(peer)
        # Who looks once a second for functions that take too long may be the first to say so, without the address.
        await until(lambda: f"POST {endpoint.url}/ took longer than 1 s" in caplog.text, "the address in the log")
        async with asyncio.timeout(BOUND_S):
            await endpoint.dropped.wait()
        endpoint.held.set()
        await say(peer, "{}")
        assert await peer.text() == "{}"


async def test_an_endpoint_that_is_not_there_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """Messages are told, handshakes get 502, and the log has the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listened on
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        gone = Integration(type="HTTP", uri=uri)
        async with integrated(NOBODY, {"$default": gone}) as lab, await Peer.open(lab.port) as peer:
            await say(peer, "{}")
            await failed(peer)
            assert f"POST {uri} failed: ConnectError" in caplog.text
        async with integrated(NOBODY, {"$connect": gone}) as lab, await lab.dial(request()) as peer:
            assert (await peer.answer()).status == 502


async def test_a_template_that_fails_is_named_in_the_log(endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    """The client is told that something failed, the log which template, on which line, and why; nobody is asked."""
    integration = http(
        endpoint,
        request_templates={"broken": "\n#if($x)", "$default": '{"a": 1,\n"b": $util.parseJson($input.path("$.j"))}'},
        template_selection_expression="${request.body.kind}",
    )
    async with integrated(NOBODY, {"$default": integration}) as lab, await Peer.open(lab.port) as peer:
        with caplog.at_level(logging.ERROR):
            await say(peer, '{"kind":"broken"}')
            await failed(peer)
            assert "the request template 'broken', line 2: #if has no #end" in caplog.text
            await say(peer, '{"j":"{"}')
            await failed(peer)
            assert (
                "the request template '$default', line 2: .parseJson(…) failed: expected JSON, got '{'" in caplog.text
            )
        await say(peer, '{"j":"[1]"}')
        assert await peer.text() == "{}"
    assert (await endpoint.take()).body == b'{"a": 1,\n"b": [1]}'
    assert endpoint.asked.empty()


# HTTP_PROXY


async def test_a_proxy_passes_messages_on_as_they_are(endpoint: Endpoint) -> None:
    """The body is sent as it came, the connection's id only where it is mapped, and the answer comes back as it is."""
    endpoint.answer = (500, {}, "prüfe".encode())
    mapped = http(
        endpoint,
        type="HTTP_PROXY",
        request_templates={"$default": "not used"},
        request_parameters={"integration.request.header.connectionId": "context.connectionId"},
        responses=(IntegrationResponse(key="$default", templates={"$default": "not used"}),),
    )
    plain = http(endpoint, type="HTTP_PROXY")
    async with integrated(NOBODY, {"$default": plain, "mapped": mapped}) as lab, await Peer.open(lab.port) as peer:
        await say(peer, "plain text, ü")
        assert await peer.text() == "prüfe"
        asked = await endpoint.take()
        assert (asked.method, asked.body) == ("POST", "plain text, ü".encode())
        assert asked.header("connectionId") is None
        await say(peer, '{"action": "mapped"}')
        assert await peer.text() == "prüfe"
        asked = await endpoint.take()
        assert asked.body == b'{"action": "mapped"}'
        assert len(asked.header("connectionId") or "") == 16


async def test_a_proxy_decides_who_may_connect(endpoint: Endpoint) -> None:
    """It gets the handshake's headers and query; its status and its subprotocol are the handshake's."""
    proxy = http(
        endpoint,
        "/connect",
        type="HTTP_PROXY",
        request_parameters={"integration.request.header.connectionId": "context.connectionId"},
    )
    async with integrated(NOBODY, {"$connect": proxy}) as lab:
        endpoint.answer = (200, {"Sec-WebSocket-Protocol": "chat.v2", "X-Other": "kept back"}, b"")
        head = request("/ws?room=a&room=b%20c", authorization="Bearer t", sec_websocket_protocol="chat.v1, chat.v2")
        async with await lab.dial(head) as peer:
            answer = await peer.answer()
            assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, "chat.v2")
            assert "x-other" not in answer.headers
        asked = await endpoint.take()
        assert asked.query == [("room", "a"), ("room", "b c")]
        assert asked.header("authorization") == "Bearer t"
        assert asked.header("x-forwarded-for") == "127.0.0.1"
        assert asked.header("host") == endpoint.url.removeprefix("http://")
        assert asked.header("upgrade") is None
        assert len(asked.header("connectionId") or "") == 16
        for status in (403, 302, 500):
            endpoint.answer = (status, {"Location": f"{endpoint.url}/elsewhere"}, b'{"why":"not you"}')
            async with await lab.dial(request()) as peer:
                answer = await peer.answer()
                assert (answer.status, answer.body) == (status, b'{"why":"not you"}')
            assert (await endpoint.take()).path == "/connect"
    assert endpoint.asked.empty()


# MOCK


async def test_a_mock_answers_without_a_backend() -> None:
    """A ping gets its pong, filled in from the message; another kind of ping another answer."""
    ping = Integration(
        type="MOCK",
        request_templates={"$default": '{"statusCode": #if($input.path("$.n") == 1)200#{else}400#end}'},
        responses=(
            IntegrationResponse(
                key="/200/",
                template_selection_expression="${request.body.kind}",
                templates={"short": "pong", "$default": '{"pong":true,"for":"$context.messageId"}'},
            ),
            IntegrationResponse(key="$default", templates={"$default": "bad ping"}),
        ),
    )
    async with integrated(NOBODY, {"$connect": OPEN, "ping": ping}) as lab, await Peer.open(lab.port) as peer:
        await say(peer, '{"action":"ping","n":1,"kind":"short"}')
        assert await peer.text() == "pong"
        await say(peer, '{"action":"ping","n":1}')
        answer = await peer.json()
        assert answer["pong"] is True and len(answer["for"]) == 16
        await say(peer, '{"action":"ping"}')
        assert await peer.text() == "bad ping"


@pytest.mark.parametrize(
    ("integration", "status"),
    [
        (OPEN, 101),
        (Integration(type="MOCK", request_templates={"$default": '{"statusCode": 403}'}), 403),
        (
            Integration(
                type="MOCK",
                request_templates={"$default": '{"statusCode": #if($input.params("key") == "k")200#{else}401#end}'},
            ),
            401,
        ),
        (Integration(type="MOCK"), 502),
        (Integration(type="MOCK", request_templates={"$default": "{"}), 502),
    ],
)
async def test_a_mock_decides_who_may_connect(integration: Integration, status: int) -> None:
    """The status of its template is the handshake's; without one nobody gets in."""
    async with integrated(NOBODY, {"$connect": integration}) as lab, await lab.dial(request()) as peer:
        assert (await peer.answer()).status == status


# Functions


async def test_a_function_behind_a_proxy_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    """What it returns reaches the client, an error and what is no response do not: the log has them."""
    for payload, error, text in (
        ({"statusCode": 500, "body": "hi"}, None, "hi"),
        ({"errorType": "KeyError", "errorMessage": "'room'", "stackTrace": ["  line 1"]}, "Unhandled", None),
        (None, None, None),
        ({"statusCode": 200, "Data": "x"}, None, None),
    ):
        services = Services(invoke=Lambda(payload, error))
        proxy = Integration(type="AWS_PROXY", uri=INVOCATION)
        async with integrated(services, {"$default": proxy}) as lab, await Peer.open(lab.port) as peer:
            await say(peer, "{}")
            if text is not None:
                assert await peer.text() == text
            else:
                await failed(peer)
    assert "failed with KeyError: 'room'\n  line 1" in caplog.text
    assert 'malformed Lambda proxy response: expected an object such as {"statusCode": 200}, got null' in caplog.text
    assert "got Data as well" in caplog.text


@pytest.mark.parametrize(
    ("payload", "error", "status"),
    [
        ({"statusCode": 200}, None, 101),
        ({"statusCode": "201"}, None, 101),
        ({"statusCode": "403"}, None, 403),
        ({"errorMessage": "no"}, "Unhandled", 502),
        ("yes", None, 502),
        (None, None, 502),
        ({"statusCode": "no"}, None, 502),
    ],
)
@pytest.mark.parametrize("kind", ["AWS_PROXY", "AWS"])
async def test_a_function_decides_who_may_connect(kind: Any, payload: Any, error: str | None, status: int) -> None:
    """A proxy's status is the handshake's, and what is none is 502; any other function only has to succeed."""
    connect = Integration(type=kind, uri=INVOCATION)
    if kind == "AWS":
        status = 101 if error is None else 502
    async with (
        integrated(Services(invoke=Lambda(payload, error)), {"$connect": connect}) as lab,
        await lab.dial(request()) as peer,
    ):
        assert (await peer.answer()).status == status


async def test_a_functions_error_selects_what_the_client_gets() -> None:
    """AWS with a function: its document, or its error's message, are mapped."""
    responses = (
        IntegrationResponse(key="$default", templates={"$default": '{"room":$input.json("$.room")}'}),
        IntegrationResponse(
            key=r"/No room \d+/", templates={"$default": '{"error":"$input.path(\'$.errorMessage\')"}'}
        ),
    )
    for payload, error, answer in (
        ({"room": 7}, None, {"room": 7}),
        ({"errorMessage": "No room 8", "errorType": "E"}, "Unhandled", {"error": "No room 8"}),
        ({"errorMessage": "something else"}, "Unhandled", {"room": ""}),
    ):
        functions = Lambda(payload, error)
        integration = Integration(
            type="AWS",
            uri=INVOCATION,
            request_templates={"$default": '{"ask":$input.json("$.text"),"by":"$context.connectionId"}'},
            responses=responses,
        )
        async with (
            integrated(Services(invoke=functions), {"$default": integration}) as lab,
            await Peer.open(lab.port) as peer,
        ):
            await say(peer, '{"text":"hi"}')
            assert await peer.json() == answer
        assert functions.calls[0][1]["ask"] == "hi"


async def test_integrations_that_are_not_entered_say_so(endpoint: Endpoint) -> None:
    """A handler whose client is not open is a mistake of the program, and says which."""
    integrations = Integrations(NOBODY)
    handler = integrations.handler(http(endpoint))
    with pytest.raises(RuntimeError, match="the integrations are not entered"):
        await handler(an_event())
    async with integrations:
        assert (await handler(an_event())).body == "{}"
    with pytest.raises(RuntimeError, match="the integrations are not entered"):
        await handler(an_event())
