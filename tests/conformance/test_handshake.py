"""The opening handshake: what is let in, what is refused with which status, and that others notice nothing of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from gatewaylab import Functions, Lab, running, still_works
from rawpeer import KEY, Answer, accept_of, closing, request

from hubbub.apigateway import Event, Refused, Response, Unauthorized
from hubbub.gateway.queueing import RETRY_AFTER_S
from live import until


async def refused(lab: Lab, head: bytes) -> Answer:
    """The answer to a handshake that is to be refused; then the server must end the connection."""
    async with await lab.dial(head) as peer:
        answer = await peer.answer()
        assert answer.headers["connection"].endswith("close")
        await peer.ended()
        return answer


async def answered(head: bytes, functions: Functions, **options: Any) -> Answer:
    """The answer of a gateway of its own."""
    async with running(functions, **options) as lab, await lab.dial(head) as peer:
        answer = await peer.answer()
        if answer.status != 101:
            await peer.ended()
            await until(lambda: not len(lab.hub), "no connection")
            assert functions.of("DISCONNECT") == []
        return answer


@pytest.mark.usefixtures("witness")
async def test_the_answer_is_a_101_with_the_accept_of_the_key(lab: Lab) -> None:
    """A proper request is answered with 101, the accept value of RFC 6455, and nothing that was not asked for."""
    async with await lab.dial(request()) as peer:
        answer = await peer.answer()
        assert answer.status == 101
        assert {name: value.lower() for name, value in answer.headers.items()} == {
            "upgrade": "websocket",
            "connection": "upgrade",
            "sec-websocket-accept": accept_of(KEY).lower(),
        }
        assert answer.headers["sec-websocket-accept"] == accept_of(KEY)
        await still_works(peer)
    assert accept_of("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, section 1.3


async def test_nothing_is_answered_before_authorizer_and_connect_have_agreed() -> None:
    """The client hears nothing while the authorizer thinks, nor while `$connect` does; the authorizer comes first."""
    functions = Functions()
    thinking, thought = asyncio.Event(), asyncio.Event()

    async def authorize(event: Event) -> Any:
        thinking.set()
        await thought.wait()
        return await functions.authorize(event)

    functions.held.clear()
    async with running(functions, functions.api(authorizer=authorize)) as lab, await lab.dial(request()) as peer:
        await peer.nothing_until(thinking.wait())
        assert functions.events == []
        thought.set()
        await peer.nothing_until(functions.wait_for("CONNECT"))
        assert not len(lab.hub), "it is no connection yet"
        functions.held.set()
        assert (await peer.answer()).status == 101
        await still_works(peer)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
async def test_any_2xx_of_connect_lets_the_client_in(status: int) -> None:
    """A status from 200 to 299 is answered with 101."""

    async def connect(event: Event) -> Response:
        return Response(status_code=status, body="nobody reads this", headers={"X-Own": "nor this"})

    functions = Functions()
    answer = await answered(request(), functions, api=functions.api(connect=connect))
    assert answer.status == 101
    assert "x-own" not in answer.headers


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 418, 429, 500, 501, 503, 599])
async def test_any_other_status_of_connect_is_that_of_the_refusal(status: int) -> None:
    """Any other status is the handshake's, with the body; no `$disconnect` follows, since nothing was connected."""

    async def connect(event: Event) -> Response:
        return Response(status_code=status, body='{"why":"ä"}')

    functions = Functions()
    answer = await answered(request(), functions, api=functions.api(connect=connect))
    assert (answer.status, answer.body) == (status, '{"why":"ä"}'.encode())


async def raises(event: Event) -> Response:
    raise LookupError("a defect")


async def returns_nothing(event: Event) -> Response:
    return None  # type: ignore[return-value]


async def dawdles(event: Event) -> Response:
    await asyncio.sleep(1.0)
    return Response()


def returning(**fields: Any) -> Any:
    async def connect(event: Event) -> Response:
        return Response(**fields)

    return connect


FAILING = {
    "it raises": raises,
    "it returns no response": returns_nothing,
    "it takes too long": dawdles,
    "its status is 101": returning(status_code=101),
    "its status is 0": returning(status_code=0),
    "its status is 1000": returning(status_code=1000),
    "its status is a string": returning(status_code="403"),
    "its body cannot be written": returning(status_code=403, body="\ud800"),
}


@pytest.mark.parametrize("connect", FAILING.values(), ids=FAILING.keys())
async def test_a_connect_that_fails_refuses_with_502(connect: Any) -> None:
    """A `$connect` that raises, hangs or returns what cannot be sent refuses with 502, without the cause."""
    functions = Functions()
    answer = await answered(request(), functions, api=functions.api(connect=connect), handler_timeout_s=0.1)
    assert (answer.status, answer.message) == (502, "Internal server error")


async def test_a_connect_that_agrees_too_late_gets_its_disconnect() -> None:
    """Whatever it has noted of the connection it can then forget; one that refuses late gets none."""
    functions = Functions()
    functions.held.clear()
    async with running(functions, functions.api(), handler_timeout_s=0.1) as lab, await lab.dial(request()) as peer:
        assert (await peer.answer()).status == 502
        assert functions.of("DISCONNECT") == []
        functions.held.set()
        ended = await functions.wait_for("DISCONNECT")
        assert ended["requestContext"]["disconnectStatusCode"] == 1006
        assert ended["requestContext"]["connectionId"] == functions.of("CONNECT")[0]["requestContext"]["connectionId"]


async def test_an_api_without_connect_lets_everybody_in() -> None:
    """`$connect` and `$disconnect` are optional."""
    functions = Functions()
    api = functions.api(connect=None, disconnect=None)
    async with running(functions, api) as lab, await lab.dial(request()) as peer:
        assert (await peer.answer()).status == 101
        await still_works(peer)
        await peer.send(closing(1000))
        await peer.closed()


async def test_an_authorizer_that_says_unauthorized_refuses_with_401() -> None:
    """`Unauthorized` refuses with 401 and the authorizer's own document, and `$connect` is not asked."""

    async def authorize(event: Event) -> Any:
        raise Unauthorized(b'{"code":"token_expired"}')

    functions = Functions()
    answer = await answered(request(), functions, api=functions.api(authorizer=authorize))
    assert (answer.status, json.loads(answer.body)) == (401, {"code": "token_expired"})
    assert functions.events == []


async def test_an_authorizer_refuses_with_a_status_of_its_own() -> None:
    """`Refused` is an extension: its status and document are sent, with 503 also when to come back."""

    async def authorize(event: Event) -> Any:
        raise Refused(503, b'{"code":"unavailable"}')

    functions = Functions()
    answer = await answered(request(), functions, api=functions.api(authorizer=authorize))
    assert (answer.status, json.loads(answer.body)) == (503, {"code": "unavailable"})
    assert int(answer.headers["retry-after"]) in RETRY_AFTER_S
    assert functions.events == []


def answering(context: Any) -> Any:
    async def authorize(event: Event) -> Any:
        return context

    return authorize


MALFORMED = {
    "it raises": raises,
    "it takes too long": dawdles,
    "it answers nothing": answering(None),
    "it answers without a principal": answering({"level": 3}),
    "its principal is empty": answering({"principalId": ""}),
    "a value has parts": answering({"principalId": "ann", "roles": ["owner"]}),
    "a value is null": answering({"principalId": "ann", "level": None}),
}


@pytest.mark.parametrize("authorizer", MALFORMED.values(), ids=MALFORMED.keys())
async def test_an_authorizer_that_fails_refuses_with_500(authorizer: Any) -> None:
    """An authorizer that raises, hangs or answers what it may not refuses with 500, and `$connect` is not asked."""
    functions = Functions()
    answer = await answered(request(), functions, api=functions.api(authorizer=authorizer), handler_timeout_s=0.1)
    assert (answer.status, answer.message) == (500, "Internal server error")
    assert functions.events == []


async def test_a_refusal_disturbs_nobody() -> None:
    """While one client is refused in each of these ways, another's connection works and gets nothing of it."""

    async def connect(event: Event) -> Response:
        await functions.keep(event)
        status = (event.query_string_parameters or {}).get("status", "200")
        if status == "raise":
            raise LookupError
        return Response(status_code=int(status))

    functions = Functions()
    async with running(functions, functions.api(connect=connect)) as lab, await lab.open() as witness:
        for status in (403, "raise", 101, 429):
            assert (await refused(lab, request(f"/ws?status={status}"))).status in (403, 429, 502)
            await still_works(witness)
        assert lab.hub.stats.refused == {403: 1, 429: 1, 502: 2}


SUBPROTOCOLS: list[tuple[tuple[str, ...], dict[str, str] | None, str | None]] = [
    (("chat.v1, jwt.abc",), {"Sec-WebSocket-Protocol": "chat.v1"}, "chat.v1"),
    (("chat.v1", "chat.v2"), {"sec-websocket-PROTOCOL": "chat.v2"}, "chat.v2"),
    (("chat.v1",), {"Sec-WebSocket-Protocol": "chat.v9"}, None),
    (("chat.v1",), {"Sec-WebSocket-Protocol": ""}, None),
    (("chat.v1",), {"X-Own": "chat.v1"}, None),
    (("chat.v1",), None, None),
    ((), {"Sec-WebSocket-Protocol": "chat.v1"}, None),
]


@pytest.mark.parametrize(("offered", "returned", "chosen"), SUBPROTOCOLS)
async def test_a_subprotocol_is_selected_by_connect(
    offered: tuple[str, ...], returned: dict[str, str] | None, chosen: str | None
) -> None:
    """The subprotocol that `$connect` returns is selected if the client offered it; else none is."""
    functions = Functions()
    head = request(extra=tuple(f"Sec-WebSocket-Protocol: {each}" for each in offered))
    answer = await answered(head, functions, api=functions.api(connect=returning(headers=returned)))
    assert answer.status == 101
    assert answer.headers.get("sec-websocket-protocol") == chosen


ACCEPTED = {
    "Firefox": request(Connection="keep-alive, Upgrade"),
    "lists without blanks": request(Connection="keep-alive,upgrade"),
    "two lines of Connection": request(extra=("Connection: keep-alive",)),
    "two lines, the other way round": request(Connection="keep-alive", extra=("Connection: Upgrade",)),
    "a list in Upgrade": request(Upgrade="h2c, websocket"),
    "odd case": request(Connection="UPGRADE", Upgrade="WebSocket")
    .replace(b"Sec-WebSocket-Key", b"SEC-WEBSOCKET-KEY")
    .replace(b"Sec-WebSocket-Version", b"sec-websocket-version")
    .replace(b"Host:", b"hOST:"),
    "no blanks after colons": request().replace(b": ", b":"),
    "many blanks after colons": request().replace(b": ", b":  \t "),
    "a query": request("/ws?token=abc&x=%20"),
    "an empty query": request("/ws?"),
    "a slash at the end": request("/ws/?x=1"),
    "the target in absolute form": request("http://chat.example/ws"),
    "extensions": request(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits"),
    "a content length of nothing": request(Content_Length="0"),
}


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("head", ACCEPTED.values(), ids=ACCEPTED.keys())
async def test_every_proper_spelling_is_taken(lab: Lab, head: bytes) -> None:
    """A handshake may be spelled as HTTP allows; an extension that is offered is not agreed to."""
    async with await lab.open(head) as peer:
        await still_works(peer)
    async with await lab.dial(head) as peer:
        assert "sec-websocket-extensions" not in (await peer.answer()).headers


REFUSED = {
    "no key": (400, request(drop=("Sec-WebSocket-Key",))),
    "an empty key": (400, request(Sec_WebSocket_Key="")),
    "a key that is too short": (400, request(Sec_WebSocket_Key="AAAAAAAAAAAAAAAAAAAA")),
    "a key that is too long": (400, request(Sec_WebSocket_Key="AAAAAAAAAAAAAAAAAAAAAAAAAAAA")),
    "a key that is not base64": (400, request(Sec_WebSocket_Key="!!!!!!!!!!!!!!!!!!!!!!==")),
    "two keys": (400, request(extra=(f"Sec-WebSocket-Key: {KEY}",))),
    "no host": (400, request(drop=("Host",))),
    "an empty host": (400, request(Host="", Origin="null")),
    "two hosts": (400, request(extra=("Host: evil.example",))),
    "no version": (426, request(drop=("Sec-WebSocket-Version",))),
    "version 8": (426, request(Sec_WebSocket_Version="8")),
    "a list of versions": (426, request(Sec_WebSocket_Version="13, 8")),
    "POST": (405, request(method="POST")),
    "POST with a body": (405, request(method="POST", Content_Length="5") + b"hello"),
    "HEAD": (405, request(method="HEAD")),
    "another path": (404, request("/")),
    "a path below": (404, request("/ws/more")),
    "another case": (404, request("/WS")),
    "a path that is no path": (404, request("//[")),
    "a host in the path": (404, request("//chat.example/ws")),
    "an absolute target elsewhere": (404, request("http://chat.example/other")),
}


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize(("status", "head"), REFUSED.values(), ids=REFUSED.keys())
async def test_an_improper_handshake_is_refused(lab: Lab, status: int, head: bytes) -> None:
    """What RFC 6455 demands of a handshake and is not there is said with a status and a sentence; nobody is asked."""
    answer = await refused(lab, head)
    assert answer.status == status
    assert answer.message
    assert len(lab.functions.of("CONNECT")) == 1  # the witness's
    if status == 426:
        assert answer.headers["sec-websocket-version"] == "13"
        assert answer.headers["upgrade"] == "websocket"


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize(
    "head",
    [
        b"GET /ws HTTP/1.1\r\nHost: chat.example\r\n\r\n",
        request(drop=("Connection",)),
        request(drop=("Upgrade",)),
        request(Upgrade="h2c"),
        request().replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=["a browser's", "no Connection", "no Upgrade", "another protocol", "HTTP/1.0"],
)
async def test_who_does_not_ask_for_a_websocket_gets_426_at_its_path(lab: Lab, head: bytes) -> None:
    """A request at the WebSocket's path that does not ask for one is told to, with 426; elsewhere it is plain HTTP."""
    async with await lab.dial(head) as peer:
        answer = await peer.answer()
        assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")
        assert "Upgrade: websocket" in answer.message
    async with await lab.dial(head.replace(b" /ws ", b" /other ")) as peer:
        assert (await peer.answer()).body == b"/other"


ORIGINS = [
    # allowed origins, the page's origin, the host it asks, the status
    (None, None, "chat.example", 101),
    (None, "http://chat.example", "chat.example", 101),
    (None, "https://Chat.Example", "chat.example", 101),
    (None, "http://localhost:8000", "localhost:8000", 101),
    (None, "http://localhost:9000", "localhost:8000", 403),
    (None, "http://evil.example", "chat.example", 403),
    (None, "http://chat.example.evil.example", "chat.example", 403),
    (None, "http://evil.example/chat.example", "chat.example", 403),
    (None, "null", "chat.example", 403),
    (None, "", "chat.example", 403),
    (None, "http://", "chat.example", 403),
    (None, "http://[", "chat.example", 403),
    (None, "chat.example", "chat.example", 403),
    (["http://a.example", "https://b.example"], "https://b.example", "chat.example", 101),
    (["http://a.example", "https://b.example"], "http://b.example", "chat.example", 403),
    (["http://a.example"], "http://chat.example", "chat.example", 403),
    (["http://a.example"], None, "chat.example", 101),
    ([], "http://chat.example", "chat.example", 403),
    (["*"], "null", "chat.example", 101),
]


@pytest.mark.parametrize(("allowed", "origin", "host", "status"), ORIGINS)
async def test_only_pages_of_allowed_origins_connect(
    allowed: list[str] | None, origin: str | None, host: str, status: int
) -> None:
    """A page connects if its origin is listed, or is this host where nothing is listed; who sends none is no page."""
    functions = Functions()
    fields = {"Host": host} if origin is None else {"Host": host, "Origin": origin}
    assert (await answered(request(**fields), functions, allowed_origins=allowed)).status == status
    assert len(functions.of("CONNECT")) == (1 if status == 101 else 0)
