"""`--handler`: an HTTP endpoint as the function behind real WebSockets, and what there is beside it."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from standardwebhooks.webhooks import Webhook as Verifier
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from endpoint import Call, Endpoint, response
from hubbub import ManagementClient
from hubbub.app import HandlerNode, Node
from hubbub.config import Settings, SettingsError
from hubbub.management import Forbidden
from hubbub.sigv4 import Credentials
from live import BOUND_S, SECRET, ServerProcess, Wire, token, until

WHSEC = "whsec_" + base64.b64encode(bytes(range(32))).decode()
KEY = "chat:a-secret-of-forty-characters-0123456789"


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with Endpoint() as running:
        yield running


@asynccontextmanager
async def serving(endpoint: Endpoint, **settings: Any) -> AsyncIterator[HandlerNode]:
    """A node in front of the endpoint."""
    given = {"handler": endpoint.url, "handler_secret": [WHSEC], "management_keys": [KEY], **settings}
    async with HandlerNode(Settings(port=0, **given)) as node:
        yield node


def client(node: HandlerNode, query: str = "", **options: Any) -> connect:
    return connect(node.ws_url + query, proxy=None, **options)


async def heard(socket: ClientConnection) -> str:
    """The next message."""
    async with asyncio.timeout(BOUND_S):
        return str(await socket.recv())


def answering(**by_kind: bytes) -> Any:
    """Answers by the type of an event; the others with nothing."""
    return lambda call: by_kind.get(call.kind, response())


# Handshakes


async def test_who_connects_is_told_to_the_view(endpoint: Endpoint):
    """The event has the handshake's cookies, headers and query; the call is signed, and named in headers."""
    async with serving(endpoint) as node:
        async with client(node, "?room=tea", additional_headers={"Cookie": "sessionid=abc"}):
            call = await endpoint.wait_for("CONNECT")
        event = Verifier(WHSEC).verify(call.body, call.headers)
    assert event["headers"]["Cookie"] == "sessionid=abc"
    assert event["queryStringParameters"] == {"room": "tea"}
    context = event["requestContext"]
    assert context["domainName"] == f"127.0.0.1:{node.port}"
    assert context["stage"] == "ws"
    assert context["identity"]["sourceIp"] == "127.0.0.1"
    assert call.headers["hubbub-route-key"] == context["routeKey"] == "$connect"
    assert call.headers["hubbub-connection-id"] == context["connectionId"]


async def test_the_handshake_waits_for_the_view(endpoint: Endpoint):
    """Nobody is connected before it has agreed."""
    endpoint.gate.clear()
    async with serving(endpoint) as node:
        opening = asyncio.create_task(client(node).__aenter__())
        await endpoint.wait_for("CONNECT")
        assert not opening.done()
        assert len(node.hub) == 0
        endpoint.gate.set()
        socket = await opening
        await socket.close()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 503])
async def test_another_status_refuses_the_handshake_with_its_body(endpoint: Endpoint, status: int):
    """As from a function on AWS."""
    endpoint.answer = answering(CONNECT=response(status, '{"message": "Not you."}'))
    async with serving(endpoint) as node:
        with pytest.raises(InvalidStatus) as refused:
            async with client(node):
                pass
    assert (refused.value.response.status_code, refused.value.response.body) == (status, b'{"message": "Not you."}')
    assert [call.kind for call in endpoint.calls] == ["CONNECT"]


@pytest.mark.parametrize(
    "answer",
    [response(302, location="/login"), b"garbage\r\n\r\n", response(200, b"x" * 200_000), response(99)],
)
async def test_what_is_no_answer_is_502(endpoint: Endpoint, answer: bytes):
    """A redirect among it."""
    endpoint.answer = answering(CONNECT=answer)
    async with serving(endpoint, handler_timeout_s=5.0) as node:
        with pytest.raises(InvalidStatus) as refused:
            async with client(node):
                pass
        assert node.hub.stats.failures == 1
    assert refused.value.response.status_code == 502


async def test_a_view_that_is_late_is_502(endpoint: Endpoint):
    """After `handler_timeout_s`."""
    endpoint.gate.clear()
    async with serving(endpoint, handler_timeout_s=0.1) as node:
        with pytest.raises(InvalidStatus) as refused:
            async with client(node):
                pass
        await until(lambda: node.webhook.calls == {"timeout": 1}, "the call's own end")
    assert refused.value.response.status_code == 502


async def test_the_subprotocol_is_the_one_that_the_view_names(endpoint: Endpoint):
    """If the client has offered it."""
    endpoint.answer = answering(CONNECT=response(200, sec_websocket_protocol="v2"))
    async with serving(endpoint) as node, client(node, subprotocols=["v1", "v2"]) as socket:
        assert socket.subprotocol == "v2"


async def test_pages_of_other_origins_may_not_connect_unless_they_are_named(endpoint: Endpoint):
    """Browsers send cookies from every page; the view is not asked."""
    async with serving(endpoint) as node:
        with pytest.raises(InvalidStatus) as refused:
            async with client(node, origin="https://evil.example"):
                pass
        assert refused.value.response.status_code == 403
    assert endpoint.calls == []
    async with (
        serving(endpoint, allowed_origins=["https://app.example"]) as node,
        client(node, origin="https://app.example"),
    ):
        pass


# Messages


async def test_what_the_view_answers_goes_to_the_client(endpoint: Endpoint):
    """A body is the answer; none is none."""

    def answer(call: Call) -> bytes:
        asked = call.event.get("body")
        return response(204) if asked in (None, "quiet") else response(200, f"you said {asked}")

    endpoint.answer = answer
    async with serving(endpoint) as node, client(node) as socket:
        await socket.send("quiet")
        await endpoint.wait_for("MESSAGE")
        await socket.send("hällo")
        assert await heard(socket) == "you said hällo"
    call = await endpoint.wait_for("MESSAGE")
    assert call.event["isBase64Encoded"] is False
    assert call.headers["hubbub-route-key"] == "$default"


@pytest.mark.parametrize(
    "answer", [response(400, "no"), response(404), response(500, "oh"), response(302, location="/"), b"", b"x\r\n\r\n"]
)
async def test_a_failure_is_told_as_aws_tells_it_and_the_connection_lives(endpoint: Endpoint, answer: bytes):
    """The client gets the document and no page of an error; the next message is answered."""
    answers = [answer, response(200, "better")]
    endpoint.answer = lambda call: answers.pop(0) if call.kind == "MESSAGE" else response()
    async with serving(endpoint, handler_timeout_s=5.0) as node, client(node) as socket:
        await socket.send("one")
        connection = (await endpoint.wait_for("MESSAGE")).event["requestContext"]
        assert await heard(socket) == (
            f'{{"message": "Internal server error", "connectionId":"{connection["connectionId"]}",'
            f' "requestId":"{connection["requestId"]}"}}'
        )
        await socket.send("two")
        assert await heard(socket) == "better"


async def test_a_view_that_is_late_is_a_failure(endpoint: Endpoint):
    """The client is told once, also if the answer comes in the end."""
    async with serving(endpoint, handler_timeout_s=1.0) as node, client(node) as socket:
        endpoint.gate.clear()
        await socket.send("one")
        assert "Internal server error" in await heard(socket)
        endpoint.gate.set()
        endpoint.answer = answering(MESSAGE=response(200, "two"))
        await socket.send("two")
        assert await heard(socket) == "two"


async def test_a_view_that_is_gone_is_a_failure_until_it_is_back(endpoint: Endpoint):
    """Connections outlive a restart of the view's server."""
    async with serving(endpoint) as node, client(node) as socket:
        await endpoint.__aexit__()
        await socket.send("one")
        assert "Internal server error" in await heard(socket)
        assert node.webhook.calls["unreachable"] == 1
        endpoint.answer = answering(MESSAGE=response(200, "two"))
        await endpoint.__aenter__()
        await socket.send("two")
        assert await heard(socket) == "two"


async def test_routes_are_chosen_by_the_message(endpoint: Endpoint):
    """Those that are named have their own key; all others are the default, and none fires `$connect`."""
    endpoint.answer = lambda call: response(200, call.headers["hubbub-route-key"] if call.kind == "MESSAGE" else "")
    async with (
        serving(endpoint, handler_routes=["join", "say"], route_selection_expression="$request.body.do") as node,
        client(node) as socket,
    ):
        for sent, key in [
            ('{"do": "join"}', "join"),
            ('{"do": "say"}', "say"),
            ('{"do": "other"}', "$default"),
            ('{"action": "say"}', "$default"),
            ('{"do": "$connect"}', "$default"),
            ("no JSON", "$default"),
        ]:
            await socket.send(sent)
            assert await heard(socket) == key


async def test_calls_at_a_time_are_bounded(endpoint: Endpoint):
    """Further ones wait, and are then answered."""
    endpoint.answer = lambda call: response(200, call.event.get("body", ""))
    async with serving(endpoint, handler_calls=2) as node, client(node) as socket:
        endpoint.gate.clear()
        for number in range(6):
            await socket.send(str(number))
        await until(lambda: endpoint.at_once == 2, "two calls")
        endpoint.gate.set()
        assert sorted([await heard(socket) for _ in range(6)]) == list("012345")
    assert endpoint.most_at_once == 2


# The end of a connection


async def test_the_end_is_told_with_code_and_reason(endpoint: Endpoint):
    """What the view answers then is nobody's affair."""
    endpoint.answer = answering(DISCONNECT=response(500, "too late"))
    async with serving(endpoint) as node:
        async with client(node) as socket:
            await socket.close(4001, "enough")
        call = await endpoint.wait_for("DISCONNECT")
        await until(lambda: node.webhook.calls["500"] == 1, "the answer")
    context = call.event["requestContext"]
    assert (context["disconnectStatusCode"], context["disconnectReason"]) == (4001, "enough")
    assert "body" not in call.event


async def test_a_drain_tells_the_view_of_every_end(endpoint: Endpoint):
    """Before the node has gone."""
    async with serving(endpoint, handler_calls=3) as node:
        sockets = [await client(node) for _ in range(10)]
        await node.drain(0.1)
        ended = [call for call in endpoint.calls if call.kind == "DISCONNECT"]
        assert len({call.headers["hubbub-connection-id"] for call in ended}) == 10
        assert {call.event["requestContext"]["disconnectStatusCode"] for call in ended} == {1012}
        for socket in sockets:
            with pytest.raises(ConnectionClosed):
                await heard(socket)


# What there is beside it


def aws(url: str, key: str = KEY) -> Any:
    """boto3's client of the gateway, which gives up quickly."""
    access_key, _, secret = key.partition(":")
    return boto3.client(
        "apigatewaymanagementapi",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=5, proxies={}),
    )


async def test_a_view_sends_to_connections_with_boto3(endpoint: Endpoint):
    """By the address that the events have, as on AWS, and without the stage."""
    async with serving(endpoint) as node, client(node) as socket:
        context = (await endpoint.wait_for("CONNECT")).event["requestContext"]
        for url in (node.url, f"http://{context['domainName']}/{context['stage']}"):
            gateway = aws(url)
            send = gateway.post_to_connection
            await asyncio.to_thread(send, ConnectionId=context["connectionId"], Data=url.encode())
            assert await heard(socket) == url
            with pytest.raises(gateway.exceptions.GoneException):
                await asyncio.to_thread(send, ConnectionId="TXzPWdnOjoECGjA=", Data=b"x")


async def test_a_key_that_is_not_known_sends_nothing(endpoint: Endpoint):
    """With `--dev` it does: nobody else reaches that port."""
    other = Credentials("somebody", "else")
    async with serving(endpoint) as node, client(node):
        connection = (await endpoint.wait_for("CONNECT")).headers["hubbub-connection-id"]
        async with ManagementClient(node.url, other) as gateway:
            with pytest.raises(Forbidden):
                await gateway.post(connection, "x")
    async with serving(endpoint, management_keys=[], dev=True) as node, client(node) as socket:
        connection = (await endpoint.wait_for("CONNECT", 2)).headers["hubbub-connection-id"]
        async with ManagementClient(node.url, other) as gateway:
            await gateway.post(connection, "x")
        assert await heard(socket) == "x"


async def test_without_keys_there_is_no_management(endpoint: Endpoint):
    """Its address is as empty as any."""
    async with serving(endpoint, management_keys=[]) as node, httpx.AsyncClient(trust_env=False) as http:
        for path in ("/@connections/TXzPWdnOjoECGjA=", "/ws/@connections/TXzPWdnOjoECGjA=", "/@groups/a"):
            assert (await http.post(node.url + path, content=b"x")).status_code == 404


async def test_a_chat_has_the_management_of_connections_if_keys_are_set(tmp_path: Path):
    """A backend can send to one connection; without keys nobody can."""
    settings = {"port": 0, "secret": SECRET, "data": str(tmp_path)}
    credentials = Credentials(*KEY.split(":"))
    async with (
        Node(Settings(**settings, management_keys=[KEY])) as node,
        await Wire.open(node.ws_url, token("ann")) as ann,
    ):
        await ann.ok("sync")
        (peer,) = node.hub.peers()
        async with ManagementClient(node.url, credentials) as gateway:
            await gateway.post(peer.id, '{"type": "hello"}')
        assert (await ann.wait_for("hello")) == {"type": "hello"}
    async with Node(Settings(**settings)) as node, httpx.AsyncClient(trust_env=False) as http:
        assert (await http.post(f"{node.url}/@connections/{peer.id}")).status_code == 404


async def test_health_metrics_and_nothing_else_are_beside_it(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """No page, no API of the chat, no file."""
    monkeypatch.chdir(tmp_path)
    async with serving(endpoint) as node, httpx.AsyncClient(base_url=node.url, trust_env=False) as http:
        async with client(node):
            pass
        await endpoint.wait_for("DISCONNECT")
        await until(lambda: node.webhook.calls["200"] == 2, "both answers")
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        assert (await http.get("/readyz")).json() == {"status": "ok"}
        metrics = (await http.get("/metrics")).text
        assert 'hubbub_handler_calls_total{outcome="200"} 2.0' in metrics
        assert "hubbub_connections_opened_total 1.0" in metrics
        assert "hubbub_actions" not in metrics
        for path in ("/", "/v1/rooms", "/dev/token"):
            assert (await http.get(path)).status_code == 404
    assert list(tmp_path.iterdir()) == []


async def test_a_node_whose_view_is_gone_is_not_ready(endpoint: Endpoint):
    """And does not say where that would be."""
    async with serving(endpoint) as node, httpx.AsyncClient(base_url=node.url, trust_env=False) as http:
        await endpoint.__aexit__()
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
        assert str(endpoint.port) not in answer.text
        assert (await http.get("/healthz")).status_code == 200
        await endpoint.__aenter__()


async def test_metrics_may_be_on_a_port_of_their_own(endpoint: Endpoint):
    """And are then not on the public one."""
    async with serving(endpoint, admin_port=0) as node, httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(f"{node.admin_url}/metrics")).status_code == 200
        assert (await http.get(f"{node.url}/metrics")).status_code == 404
        assert (await http.get(f"{node.url}/healthz")).status_code == 200


# The command


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"handler": "example.com/events"}, "handler: expected an http or https address such as http://127.0.0.1:5000"),
        ({"handler": "ftp://example.com"}, "handler: expected an http or https address"),
        ({"handler": "http://ann:hunter2@example.com"}, "handler: expected an address without a user or password"),
        ({"handler": "http://x", "handler_secret": ["whsec_?!"]}, "handler_secret: expected whsec_ and at least 24"),
        (
            {"handler": "http://x", "handler_secret": ["whsec_YWJj"]},
            "handler_secret: expected at least 24 bytes, got 3",
        ),
    ],
)
async def test_a_handler_that_cannot_be_one_is_named_before_anything_begins(settings: dict[str, Any], words: str):
    """What is secret is not shown."""
    with pytest.raises(SettingsError) as refused:
        async with HandlerNode(Settings(port=0, **settings)):
            pass
    assert words in str(refused.value)
    assert "hunter2" not in str(refused.value)


async def test_the_command_serves_a_handler(endpoint: Endpoint, tmp_path: Path):
    """It says where and what, needs no secret for tokens, and tells the view of every end when it is stopped."""
    endpoint.answer = answering(MESSAGE=response(200, "hello"))
    server = ServerProcess(
        tmp_path, "--handler", endpoint.url, HUBBUB_SECRET="", HUBBUB_HANDLER_SECRET=WHSEC, HUBBUB_MANAGEMENT_KEYS=KEY
    )
    try:
        await server.start()
        async with connect(server.ws_url, proxy=None) as socket:
            await socket.send("hi")
            assert await heard(socket) == "hello"
            async with ManagementClient(server.url, Credentials(*KEY.split(":"))) as gateway:
                await gateway.post((await endpoint.wait_for("CONNECT")).headers["hubbub-connection-id"], "posted")
            assert await heard(socket) == "posted"
            server.signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                await heard(socket)
        assert await server.ended() == 0
    finally:
        await server.stop()
    end = await endpoint.wait_for("DISCONNECT")
    assert end.event["requestContext"]["disconnectStatusCode"] == 1012
    for call in endpoint.calls:
        Verifier(WHSEC).verify(call.body, call.headers)
    said = server.output.read_text()
    assert f"Clients connect to {server.ws_url}\n" in said
    assert f"Events go to {endpoint.url}, signed\n" in said
    assert f"Messages to them come through {server.url}/@connections/ID, with the management keys\n" in said
    assert "warning" not in said
    assert not list(tmp_path.glob("hubbub*"))


async def test_calls_that_are_not_signed_are_warned_of(endpoint: Endpoint, tmp_path: Path):
    """Except in development."""
    for arguments, warned in (([], True), (["--dev"], False)):
        server = ServerProcess(tmp_path, "--handler", endpoint.url, *arguments)
        try:
            await server.start()
            server.signal(signal.SIGINT)
            await server.ended()
        finally:
            await server.stop()
        said = server.output.read_text()
        assert f"Events go to {endpoint.url}, not signed\n" in said
        assert ("the handler cannot tell our calls from anybody else's" in said) is warned


def refused(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    """How `hubbub serve` ends that is asked for wrongly, and what it says."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HUBBUB_")}
    run = subprocess.run(
        [sys.executable, "-m", "hubbub", "serve", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=kept,
        timeout=BOUND_S,
        check=False,
    )
    return run.returncode, run.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--handler", "nowhere"], "hubbub: handler: expected an http or https address such as http://127.0.0.1:5000"),
        (["--handler", "http://x", "myapp:chat"], "hubbub: handler: expected either a handler or an app, got both"),
        (["--handler", "http://x", "--handler-secret", "abc"], "hubbub: handler_secret: expected"),
        (["--handler-routes", "say"], "hubbub: handler: expected the address of an endpoint beside handler_routes"),
    ],
)
def test_a_handler_that_is_asked_for_wrongly_ends_the_command(tmp_path: Path, arguments: list[str], words: str):
    """With status 2 and one message."""
    status, said = refused(tmp_path, *arguments)
    assert status == 2
    assert said.startswith(words)
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
