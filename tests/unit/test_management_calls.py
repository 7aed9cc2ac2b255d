"""The management API without a socket: what comes too slowly, too long or not at all, and whatever a stranger sends."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import FakeSocket
from hubbub.apigateway import Api, Identity
from hubbub.gateway.connection import Life
from hubbub.gateway.hub import Hub, Peer
from hubbub.gateway.management import MAX_DISCARDED, Management
from hubbub.sigv4 import Credentials, Keys, sign

BACKEND = Credentials("AKIDBACKEND", "secret")
PEER = "R0oXAdfD0kwCH6w="
API = Api(routes={}, id="aaaaaaaaaa", stage="dev")

Message = dict[str, Any]


def chunk(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


class Desk:
    """The management API over one connection, and what it was told and answered.

    Attributes:
        management, hub, socket: what they are called.
        answers: status, headers and body of each answer.

    """

    def __init__(self, **options: Any) -> None:
        self.hub = Hub(clock=lambda: 1_000.0)
        self.socket = FakeSocket()
        context = SimpleNamespace(api=API, identity=Identity("127.0.0.1"), connected_at=1_700_000_000_000)
        self.hub.add(Peer(PEER, Life(1_000.0), self.socket, self.socket.write, context))
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        given = {
            "keys": Keys({BACKEND.access_key: BACKEND.secret_key}),
            "find": lambda host, prefix: API if prefix == "/dev" else None,
            "allow": lambda: True,
        }
        self.management = Management(self.hub, **{**given, **options})

    async def call(
        self,
        *messages: Message,
        method: str = "POST",
        path: str = f"/dev/@connections/{PEER}",
        fields: dict[str, str] | None = None,
        raw_path: bool = True,
        now_s: float | None = None,
    ) -> tuple[int, dict[str, str], bytes] | None:
        """Call, signed; after the messages nothing comes. None for no answer."""
        body = b"".join(message.get("body", b"") for message in messages)
        url, query = (path.partition("?")[0], path.partition("?")[2])
        headers = {"host": "h", **(fields or {})}
        signed = sign(
            BACKEND,
            method=method,
            url=f"http://h{path}",
            headers={"host": "h"},
            body=body,
            service="execute-api",
            region="us-east-1",
            now_s=time.time() if now_s is None else now_s,
        )
        scope = {
            "type": "http",
            "method": method,
            "path": unquote(url),
            "query_string": query.encode(),
            "headers": [
                (name.lower().encode(), value.encode("latin-1")) for name, value in {**headers, **signed}.items()
            ],
        }
        if raw_path:
            scope["raw_path"] = url.encode()
        waiting = list(messages)
        said: list[Message] = []

        async def receive() -> Message:
            if waiting:
                return waiting.pop(0)
            await asyncio.Event().wait()
            raise AssertionError("it waits for ever")

        async def send(message: Message) -> None:
            said.append(message)

        await self.management(scope, receive, send)
        if not said:
            return None
        start, body_said = said
        names = {name.decode(): value.decode() for name, value in start["headers"]}
        return start["status"], names, body_said["body"]

    async def told(self, *messages: Message, **options: Any) -> tuple[int, str, bool]:
        """Status, error type and whether the HTTP connection ends, of what is refused."""
        answer = await self.call(*messages, **options)
        assert answer is not None
        status, names, _ = answer
        return status, names.get("x-amzn-errortype", ""), names.get("connection") == "close"


async def test_a_body_in_pieces_is_one_message():
    """However it comes."""
    desk = Desk()
    answer = await desk.call(chunk(b"hel", more=True), chunk(b"", more=True), chunk(b"lo", more=True), chunk(b""))
    assert answer is not None and answer[0] == 200
    await asyncio.sleep(0)
    assert desk.socket.texts == ["hello"]


async def test_a_body_that_does_not_come_gets_408():
    """After its time, and the HTTP connection ends; nothing was sent to the client."""
    desk = Desk(body_within_s=0.01)
    for messages in ((), (chunk(b"hel", more=True),)):
        assert await desk.told(*messages) == (408, "RequestTimeoutException", True)
    assert desk.socket.texts == []


async def test_who_is_gone_before_the_body_was_here_is_not_answered():
    """And nothing is sent to the client."""
    desk = Desk()
    assert await desk.call(chunk(b"hel", more=True), {"type": "http.disconnect"}) is None
    assert desk.socket.texts == []


async def test_a_body_that_is_too_large_is_read_to_its_end():
    """Thrown away and answered with 413, and the HTTP connection can go on."""
    desk = Desk(max_bytes=10)
    assert await desk.told(chunk(b"x" * 10)) == (200, "", False)
    assert await desk.told(chunk(b"x" * 11)) == (413, "PayloadTooLargeException", False)
    pieces = [chunk(b"x" * 1_000, more=True) for _ in range(20)]
    assert await desk.told(*pieces, chunk(b"x")) == (413, "PayloadTooLargeException", False)


async def test_a_body_without_end_is_not_read_for_ever():
    """Neither one that comes too slowly nor one that is far too large; the HTTP connection ends with 413."""
    desk = Desk(max_bytes=10, body_within_s=0.01)
    assert await desk.told(chunk(b"x" * 11, more=True)) == (413, "PayloadTooLargeException", True)
    desk = Desk(max_bytes=10, body_within_s=1_000.0)
    lots = [chunk(b"x" * (MAX_DISCARDED // 4), more=True) for _ in range(5)]
    async with asyncio.timeout(20.0):
        assert await desk.told(*lots) == (413, "PayloadTooLargeException", True)


async def test_a_server_that_tells_no_raw_path_will_do():
    """ASGI leaves it to servers; the path is then written as SDKs write it."""
    desk = Desk()
    answer = await desk.call(chunk(b"hello"), raw_path=False)
    assert answer is not None and answer[0] == 200


async def test_a_defect_is_a_500_and_is_logged(caplog: pytest.LogCaptureFixture):
    """With the shape that all errors have."""

    def broken(host: str, prefix: str) -> Api:
        raise RuntimeError("a defect")

    desk = Desk(find=broken)
    with caplog.at_level(logging.ERROR, "hubbub.gateway"):
        assert await desk.told(chunk(b"x")) == (500, "InternalServerErrorException", False)
    assert "a defect" in caplog.text


async def test_signatures_may_have_to_be_for_a_region():
    """Where one is given."""
    assert (await Desk(region="us-east-1").told(chunk(b"x")))[0] == 200
    assert (await Desk(region="eu-west-1").told(chunk(b"x")))[1] == "InvalidSignatureException"


async def test_nobody_was_active_before_he_connected():
    """However coarse the loop's own time is beside the clock's."""
    now_s = 1_700_000_000.0 - 0.005
    answer = await Desk(clock=lambda: now_s).call(chunk(b""), method="GET", now_s=now_s)
    assert answer is not None
    found = json.loads(answer[2])
    assert found["lastActiveAt"] == found["connectedAt"] == "2023-11-14T22:13:20.000Z"


async def test_time_is_that_of_the_clock():
    """It decides whether a signature is of now, and when a connection was last active."""
    desk = Desk(clock=lambda: 1_700_000_100.0)
    answer = await desk.call(chunk(b""), method="GET", now_s=1_700_000_100.0)
    assert answer is not None
    assert json.loads(answer[2]) == {
        "connectedAt": "2023-11-14T22:13:20.000Z",
        "lastActiveAt": "2023-11-14T22:15:00.000Z",
        "identity": {"sourceIp": "127.0.0.1", "userAgent": None},
    }
    assert (await desk.told(chunk(b""), method="GET"))[1] == "InvalidSignatureException"


async def test_connections_of_others_are_not_there():
    """One that the hub has for somebody else's sake, with no word of an API."""
    desk = Desk()
    desk.hub.add(Peer("BBBBBBBBBBBBBBB=", Life(1_000.0), FakeSocket(), FakeSocket().write))
    assert (await desk.told(chunk(b"x"), path="/dev/@connections/BBBBBBBBBBBBBBB="))[:2] == (410, "GoneException")


@pytest.mark.parametrize(
    ("path", "yes"),
    [
        ("/dev/@connections/x", True),
        ("/@connections", True),
        ("/a/b/%40groups/x", True),
        ("/@groups/x/connections/y", True),
        ("/dev/@connectionsx/y", False),
        ("/dev@connections/x", False),
        ("/@Connections/x", False),
        ("@connections/x", False),
        ("/", False),
        ("", False),
    ],
)
def test_it_knows_its_paths(path: str, yes: bool):
    """Decoded or not; a segment must be exactly its own."""
    assert Management.concerns(path) is yes


@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"]),
    st.lists(st.text(max_size=6), max_size=4),
    st.sampled_from(["@connections", "%40groups"]),
    st.binary(max_size=20),
    st.binary(max_size=30),
)
async def test_whatever_is_asked_is_answered_in_order(
    method: str, parts: list[str], kind: str, query: bytes, body: bytes
) -> None:
    """No path, query or body of a known backend makes it fail; a defect would be a 500."""
    desk = Desk()
    rest = "/".join(part.encode("utf-8", "replace").decode() for part in parts)
    path = f"/dev/{kind}/" + "".join(c if c.isalnum() and c.isascii() else f"%{ord(c) % 256:02X}" for c in rest)
    asked = "".join(chr(byte) if 32 < byte < 127 and byte not in b"#" else f"%{byte:02X}" for byte in query)
    answer = await desk.call(chunk(body), method=method, path=f"{path}?{asked}")
    assert answer is not None
    assert answer[0] in (200, 204, 400, 404, 410), answer
