"""A chat through the proxies of deploy/: everything goes through that should, and nothing that should not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from frontlab import FILES, Front, fronted
from hubbub.app import Node
from live import BOUND_S, token, until

ROOMY = {"max_message_bytes": 1024 * 1024, "max_text_chars": 400_000}


@pytest.fixture(params=list(FILES))
async def front(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Front, Node]]:
    """A proxy in front of one node."""
    async with fronted(request.param, tmp_path, ROOMY) as (proxy, (node,)):
        yield proxy, node


async def test_messages_go_both_ways(front: tuple[Front, Node]) -> None:
    """A token in the subprotocol lets in, the protocol is chosen, and messages short and long come back whole."""
    proxy, _ = front
    async with await proxy.open("ann") as ann, await proxy.open("bob") as bob:
        assert ann.socket.subprotocol == "hubbub.v1"
        await ann.ok("create", kind="public", room="tea")
        await bob.ok("join", room="tea")
        for text in ("hello", "x" * 100, "y" * 65_600, "ü" * 100_000):
            await ann.ok("send", room="tea", text=text)
            came = await bob.wait_for("message.created")
            assert came["text"] == text


async def test_a_refusal_comes_through(front: tuple[Front, Node]) -> None:
    """Who has no valid token gets the node's own 401 and its words."""
    proxy, _ = front
    with pytest.raises(InvalidStatus) as refused:
        await connect(proxy.ws_url, subprotocols=["hubbub.v1", "jwt.none"], ssl=proxy.trusted, proxy=None)  # type: ignore[list-item]
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body)["code"] == "unauthorized"


@pytest.mark.parametrize("code", [1001, 1012, 4401, 4403, 4408])
async def test_close_codes_come_through(front: tuple[Front, Node], code: int) -> None:
    """The code and reason that a node closes with are those that the client sees."""
    proxy, node = front
    async with await proxy.open("ann") as ann:
        (peer,) = node.hub.peers()
        node.hub.close(peer.id, code, "because")
        with pytest.raises(ConnectionClosed) as end:
            await ann.receive()
        assert end.value.rcvd is not None
        assert (end.value.rcvd.code, end.value.rcvd.reason) == (code, "because")


async def test_a_clients_end_comes_through(front: tuple[Front, Node]) -> None:
    """The node hears a client's own close code, and of one that is cut off."""
    proxy, node = front
    ann, bob = await proxy.open("ann"), await proxy.open("bob")
    await ann.socket.close(4000, "enough")
    await until(lambda: node.hub.stats.closed_by_code[4000] == 1, "the close code")
    bob.socket.transport.abort()
    await until(lambda: node.hub.stats.closed_by_code[1006] == 1, "the cut")


async def test_the_node_sees_the_clients_address(front: tuple[Front, Node]) -> None:
    """The address that a connection comes from is the client's and not the proxy's."""
    proxy, node = front
    async with await proxy.open("ann", source="127.0.0.77"):
        (peer,) = node.hub.peers()
        assert peer.context.identity.source_ip == "127.0.0.77"


async def test_a_client_cannot_claim_an_address(front: tuple[Front, Node]) -> None:
    """What a client itself says about where it comes from does not reach the node."""
    proxy, node = front
    claimed = {"X-Forwarded-For": "10.9.9.9, 127.0.0.1", "Forwarded": "for=10.9.9.9", "X-Real-IP": "10.9.9.9"}
    async with await proxy.open("ann", source="127.0.0.77", additional_headers=claimed):
        (peer,) = node.hub.peers()
        assert peer.context.identity.source_ip == "127.0.0.77"


async def test_outsiders_reach_the_chat_and_nothing_else(front: tuple[Front, Node]) -> None:
    """The page is there; the API, numbers, health and the management API answer 404, however they are written."""
    proxy, _ = front
    async with proxy.http() as http:
        page = await http.get("/")
        assert (page.status_code, "text/html" in page.headers["content-type"]) == (200, True)
        assert (await http.get("/web/chat.js")).status_code == 200
        assert (await http.get("/js/hubbub.js?v=1")).status_code == 200
        for path in HIDDEN:
            assert (await http.get(path)).status_code == 404, path
            assert (await http.post(path)).status_code == 404, path
        assert (await http.post("/web/chat.js")).status_code in (403, 404, 405)


HIDDEN = (
    *("/v1/rooms", "/metrics", "/readyz", "/healthz", "/dev/token", "/ws/@connections/abc", "/ws/", "/%76%31/rooms"),
    *("/web/%2e%2e/v1/rooms", "/v1/rooms/%2e%2e/%2e%2e/web/chat.js", "//v1/rooms", "/./metrics"),
)


async def test_the_backend_reaches_the_api_from_within(front: tuple[Front, Node]) -> None:
    """On the inner port /v1 works with a token of scope server, and numbers and the page are not there."""
    proxy, _ = front
    headers = {"Authorization": f"Bearer {token('backend', scopes=('server',))}"}
    async with proxy.http(inner=True) as http:
        made = await http.post("/v1/rooms", json={"room": "tea", "kind": "public"}, headers=headers)
        assert made.status_code in (200, 201), made.text
        assert (await http.get("/v1/rooms/tea", headers=headers)).status_code == 200
        assert (await http.get("/v1/rooms/tea")).status_code == 401
        assert (await http.get("/readyz")).status_code == 200
        assert (await http.get("/metrics")).status_code == 404


async def test_nothing_but_a_websocket_is_upgraded_to(front: tuple[Front, Node]) -> None:
    """A request to switch to HTTP/2 without TLS is none that a node would see as one."""
    proxy, node = front
    async with proxy.http() as http:
        asked = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
        assert (await http.get("/ws", headers=asked)).status_code == 426
    assert not node.hub.peers()


async def test_plain_http_is_sent_to_tls(tmp_path: Path) -> None:
    """Port 80 only says where to go."""
    for kind in ("nginx", "haproxy"):
        async with fronted(kind, tmp_path / kind, {}) as (proxy, _), proxy.http() as http:
            answer = await http.get(f"http://127.0.0.1:{proxy.redirect_port}/web/chat.js", timeout=BOUND_S)
            assert answer.status_code == 308
            assert answer.headers["location"].startswith("https://127.0.0.1")
            assert answer.headers["location"].endswith("/web/chat.js")
