"""A real server over HTTP and WebSocket at once: what the customer's backend does, users see."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from hubbub.app import Node, load_chat
from hubbub.config import Settings, SettingsError
from hubbub.listening import CannotStart
from live import BOUND_S, SECRET, ServerProcess, Wire, backend, token


async def test_what_the_backend_does_reaches_who_is_connected(node: Node) -> None:
    """A user hears at once that he is in a room, what is said there in whose name, and that the room is gone."""
    async with backend(node.url) as http, await Wire.open(node.ws_url, token("ann")) as ann:
        await ann.ok("sync")
        assert (await http.post("/v1/rooms", json={"room": "tea", "kind": "private"})).status_code == 201
        assert (await http.put("/v1/rooms/tea/members/ann", json={"role": "reader"})).status_code == 200
        entered = await ann.wait_for("room")
        assert (entered["room"], entered["joined"], entered["state"]["role"]) == ("tea", True, "reader")
        posted = (await http.post("/v1/rooms/tea/messages", json={"user": "bob", "text": "Hello, Ann."})).json()
        heard = await ann.wait_for("message.created")
        assert (heard["seq"], heard["id"], heard["by"], heard["text"]) == (
            posted["seq"],
            posted["id"],
            "bob",
            "Hello, Ann.",
        )
        unread = (await http.get("/v1/users/ann/unread")).json()
        assert (unread["unread"], [room["room"] for room in unread["rooms"]]) == (1, ["tea"])
        assert (await http.delete("/v1/rooms/tea")).status_code == 204
        assert (await ann.wait_for("room"))["joined"] is False


async def test_a_message_of_a_user_is_read_by_the_backend(node: Node) -> None:
    """What a user sends over his WebSocket is in the history that the backend reads, the same object."""
    async with backend(node.url) as http, await Wire.open(node.ws_url, token("ann", name="Ann")) as ann:
        await ann.ok("create", kind="public", room="tea")
        sent = await ann.ok("send", room="tea", text="Anybody?", client_id="c1")
        entries = (await http.get("/v1/rooms/tea/messages", params={"limit": 1})).json()["entries"]
        assert [(e["seq"], e["by"], e["name"], e["text"]) for e in entries] == [(sent["seq"], "ann", "Ann", "Anybody?")]


async def test_a_banned_user_is_out_until_he_has_a_new_token(node: Node) -> None:
    """A ban closes all connections of the user with 4403 and keeps his tokens out; others notice nothing."""
    old = token("ann")
    async with backend(node.url) as http, await Wire.open(node.ws_url, token("bob")) as bob:
        first, second = await Wire.open(node.ws_url, old), await Wire.open(node.ws_url, old)
        assert (await http.put("/v1/users/ann/ban", json={})).status_code == 200
        assert await asyncio.gather(first.closed(), second.closed()) == [4403, 4403]
        with pytest.raises(InvalidStatus) as refused:
            await Wire.open(node.ws_url, old)
        assert refused.value.response.status_code == 403
        assert (await http.delete("/v1/users/ann/ban")).status_code == 200
        with pytest.raises(InvalidStatus) as refused:
            await Wire.open(node.ws_url, old)
        assert refused.value.response.status_code == 401
        await bob.ok("ping")


async def test_a_disconnected_user_may_come_back(node: Node) -> None:
    """Disconnecting closes the user's connections with 4403, and his token still lets him in."""
    bearer = token("ann")
    async with backend(node.url) as http:
        ann = await Wire.open(node.ws_url, bearer)
        assert (await http.post("/v1/users/ann/disconnect", json={"reason": "too loud"})).status_code == 204
        assert await ann.closed() == 4403
        assert ann.socket.close_reason == "too loud"
        async with await Wire.open(node.ws_url, bearer) as again:
            await again.ok("ping")


async def test_a_users_token_does_not_open_the_backends_door(node: Node) -> None:
    """Neither a user's token nor a forged one opens `/v1`."""
    forged = token("backend", scopes=("server",)).rsplit(".", 1)[0] + ".AAAA"
    async with httpx.AsyncClient(base_url=node.url, trust_env=False) as http:
        for bearer, status in ((token("ann"), 403), (forged, 401), ("nonsense", 401)):
            response = await http.get("/v1/rooms", headers={"Authorization": f"Bearer {bearer}"})
            assert response.status_code == status


async def test_health_metrics_and_documents_are_there(node: Node) -> None:
    """A monitor finds health, readiness and metrics, and a developer the documents."""
    async with (
        httpx.AsyncClient(base_url=node.url, trust_env=False) as http,
        backend(node.url) as trusted,
        await Wire.open(node.ws_url, token("ann")) as ann,
    ):
        await ann.ok("create", kind="public", room="tea")
        await ann.ok("send", room="tea", text="hi")
        await ann.ask("send", room="none", text="hi")
        await trusted.get("/v1/rooms")
        assert (await http.get("/healthz")).status_code == (await http.get("/readyz")).status_code == 200
        assert (await http.get("/v1/docs")).status_code == (await http.get("/v1/openapi.json")).status_code == 200
        text = (await http.get("/metrics")).text
        for line in (
            "hubbub_connections 1.0",
            'hubbub_actions_total{action="send"} 1.0',
            'hubbub_errors_total{code="not_found"} 1.0',
            'hubbub_entries_total{type="message.created"} 1.0',
            'hubbub_http_requests_total{method="GET",path="/v1/rooms",status="200"} 1.0',
        ):
            assert f"\n{line}\n" in text, text
        assert "\nprocess_resident_memory_bytes " in text


async def test_an_admin_port_keeps_the_backend_apart(tmp_path: Path) -> None:
    """With an admin address, `/v1` and `/metrics` are there and nowhere else; the chat is not."""
    settings = Settings(
        port=0,
        admin_host="127.0.0.1",
        admin_port=0,
        secret=SECRET,
        data=str(tmp_path),
        store=f"sqlite:///{tmp_path}/chat.db",
    )
    async with Node(settings) as node, backend(node.url) as public, backend(node.admin_url) as admin:
        assert node.admin_port != node.port
        for path in ("/v1/rooms", "/v1/docs", "/metrics"):
            assert (await public.get(path)).status_code == 404
            assert (await admin.get(path)).status_code == 200
        for http in (public, admin):
            assert (await http.get("/healthz")).status_code == 200
        assert (await admin.get("/")).status_code == 404
        async with await Wire.open(node.ws_url, token("ann")) as ann:
            await ann.ok("ping")
        with pytest.raises(InvalidStatus):
            await Wire.open(f"ws://127.0.0.1:{node.admin_port}/ws", token("ann"))


async def test_dev_lets_the_page_in_by_name(tmp_path: Path) -> None:
    """With --dev a name is enough for a token, and with it one can talk in `general`."""
    settings = Settings(port=0, dev=True, secret=SECRET, data=str(tmp_path))
    async with Node(settings) as node, httpx.AsyncClient(base_url=node.url, trust_env=False) as http:
        answer = (await http.post("/dev/token", json={"user": "ann", "name": "Ann"})).json()
        async with await Wire.open(node.ws_url, answer["token"]) as ann:
            rooms = (await ann.ok("sync"))["rooms"]
            assert [(room["room"], room["role"]) for room in rooms] == [("general", "member")]
            await ann.ok("send", room="general", text="hi")
            assert (await ann.wait_for("message.created"))["name"] == "Ann"


async def test_without_dev_nobody_gets_a_token(node: Node) -> None:
    """Without --dev the door for names is shut."""
    async with httpx.AsyncClient(base_url=node.url, trust_env=False) as http:
        assert (await http.post("/dev/token", json={"user": "ann"})).status_code == 404


async def test_a_port_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    """A taken port, an unknown host and a store that cannot be opened name themselves."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=f"port {port} on 127.0.0.1 is in use"):
            async with Node(Settings(port=port, secret=SECRET, data=str(tmp_path))):
                pass
    with pytest.raises(CannotStart, match=r"no-such-host\.invalid"):
        async with Node(Settings(host="no-such-host.invalid", port=0, secret=SECRET, data=str(tmp_path))):
            pass
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(CannotStart, match=r"folder\.db"):
        async with Node(Settings(port=0, secret=SECRET, data=str(tmp_path), store=f"sqlite:///{tmp_path}/folder.db")):
            pass


APP = """
from hubbub import Ask, Chat, Done, errors

chat = Chat()
other = object()

@chat.before("send")
async def polite(chat, by, ask):
    if "damn" in (ask.text or ""):
        raise errors.Forbidden("Mind your words.")
"""


async def test_the_users_own_chat_is_served(tmp_path: Path) -> None:
    """`hubbub serve myapp:chat` runs the user's chat with his hooks, found in the current folder."""
    (tmp_path / "myapp.py").write_text(APP)
    server = ServerProcess(tmp_path, "myapp:chat")
    try:
        await server.start()
        async with await Wire.open(server.ws_url, token("ann")) as ann:
            await ann.ok("create", kind="public", room="tea")
            refused = await ann.ask("send", room="tea", text="damn")
            assert (refused["code"], refused["message"]) == ("forbidden", "Mind your words.")
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("myapp", "module:attribute"),
        ("nowhere_app:chat", "no module 'nowhere_app'"),
        ("hubbub_test_app:nothing", "has no 'nothing'"),
        ("hubbub_test_app:other", "expected a hubbub.Chat"),
    ],
)
def test_a_chat_that_is_not_there_is_named(
    path: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An app that cannot be found, or is none, says so with its own name."""
    (tmp_path / "hubbub_test_app.py").write_text(APP)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingsError, match=words):
        load_chat(path)


async def test_the_process_says_where_it_is_and_ends_on_ctrl_c(server: ServerProcess) -> None:
    """The announced address answers at once; SIGINT ends the process with 0 and without a traceback."""
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=BOUND_S) as http:
        assert (await http.get("/readyz")).status_code == 200
    server.signal(signal.SIGINT)
    assert await server.ended() == 0
    assert "Traceback" not in server.output.read_text()


async def test_a_hostile_request_hurts_nobody(node: Node) -> None:
    """64 KB of headers, a broken request line and half a request are refused; the others notice nothing."""
    async with await Wire.open(node.ws_url, token("ann")) as ann:
        for raw in (
            b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-Filler: " + b"a" * 65_536 + b"\r\n\r\n",
            b"NONSENSE\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
            writer.write(raw)
            async with asyncio.timeout(BOUND_S):
                answer = await reader.read(65_536)
            assert answer == b"" or answer.split(b" ")[1].startswith(b"4")
            writer.close()
            await writer.wait_closed()
        await ann.ok("ping")
