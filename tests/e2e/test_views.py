"""Views of Flask and Django as functions: the examples and what docs/handler.md shows, under their own servers."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from scripts.servers import free_port
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from documents import ROOT, Block, runnable
from hubbub.app import HandlerNode
from hubbub.config import Settings
from live import BOUND_S, until

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
ACCESS_KEY, SECRET_KEY = "chat", "a-secret-of-forty-characters-0123456789"
EXAMPLES = ROOT / "examples"
Json = dict[str, Any]


def environment(**more: str) -> dict[str, str]:
    """The variables of a view's process."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HUBBUB_", "AWS_"))}
    own = {
        "HUBBUB_HANDLER_SECRET": SECRET,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "NO_PROXY": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return {**kept, **own, **more}


@asynccontextmanager
async def started(folder: Path, *arguments: str, cwd: Path | None = None, **variables: str) -> AsyncIterator[str]:
    """A view's server as a process of its own, which has said where it is: its address."""
    output = folder / "view.log"
    with output.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=asyncio.subprocess.STDOUT,
            cwd=cwd or folder,
            env=environment(**variables),
        )
    try:
        found: list[str] = []

        def announced() -> bool:
            words = output.read_text(errors="replace")
            assert process.returncode is None, f"the view's server ended:\n{words}"
            found[:] = re.findall(r"http://127\.0\.0\.1:\d+", words)
            return bool(found)

        await until(announced, "the view's server")
        yield found[0]
    finally:
        if process.returncode is None:
            process.kill()
        async with asyncio.timeout(BOUND_S):
            await process.wait()


async def ended(*arguments: str, cwd: Path, **variables: str) -> None:
    """Run a command to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=cwd,
        env=environment(**variables),
    )
    async with asyncio.timeout(BOUND_S * 3):
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


@asynccontextmanager
async def gateway(view: str, **settings: Any) -> AsyncIterator[HandlerNode]:
    """A node in front of a view."""
    given = {"port": 0, "handler_secret": [SECRET], "management_keys": [f"{ACCESS_KEY}:{SECRET_KEY}"], **settings}
    async with HandlerNode(Settings(handler=f"{view}/events", **given)) as node:
        yield node


def client(node: HandlerNode, query: str = "", **options: Any) -> connect:
    return connect(node.ws_url + query, proxy=None, **options)


async def heard(socket: ClientConnection) -> str:
    """The next message."""
    async with asyncio.timeout(BOUND_S):
        return str(await socket.recv())


async def news(socket: ClientConnection) -> Json:
    """The next message's document."""
    document: Json = json.loads(await heard(socket))
    return document


# Flask's example


@pytest.fixture
async def flask_chat(tmp_path: Path) -> AsyncIterator[HandlerNode]:
    """The example with a gateway before it."""
    port = free_port()
    async with (
        started(
            tmp_path,
            *("-m", "flask", "--app", str(EXAMPLES / "flask_view.py"), "run", "--port", "0"),
            GATEWAY_URL=f"http://127.0.0.1:{port}",
            CHAT_DATABASE=str(tmp_path / "chat.db"),
        ) as view,
        gateway(view, port=port) as node,
    ):
        node.view = view  # type: ignore[attr-defined]
        yield node


async def test_people_talk_through_a_flask_view(flask_chat: HandlerNode):
    """Everybody hears who comes, what is said and who leaves; a mistake is told to the one who made it."""
    async with client(flask_chat, "?name=Ann") as ann:
        async with client(flask_chat, "?name=Bob") as bob:
            assert await news(ann) == {"type": "come", "name": "Bob"}
            await bob.send('{"text": "hello"}')
            for each in (ann, bob):
                assert await news(each) == {"type": "said", "name": "Bob", "text": "hello"}
            for wrong in ("hello", "[]", "{}", "5"):
                await bob.send(wrong)
                assert await news(bob) == {"error": 'expected {"text": "…"}'}
        assert await news(ann) == {"type": "left", "name": "Bob"}
        await ann.send('{"text": "alone"}')
        assert await news(ann) == {"type": "said", "name": "Ann", "text": "alone"}


async def test_a_flask_view_refuses_who_has_no_name(flask_chat: HandlerNode):
    """With its own status and words, with and without a query."""
    for query in ("", "?name=", "?name=%20", "?x=y"):
        with pytest.raises(InvalidStatus) as refused:
            async with client(flask_chat, query):
                pass
        assert refused.value.response.status_code == 400
        assert json.loads(refused.value.response.body or b"")["message"].startswith("Say who you are")
    assert flask_chat.webhook.calls == {"400": 4}


async def test_a_flask_view_takes_calls_of_the_gateway_only(flask_chat: HandlerNode):
    """What is not signed, or not with its secret, is 403."""
    event = {"requestContext": {"eventType": "CONNECT", "connectionId": "x"}, "queryStringParameters": {"name": "Eve"}}
    signed = {"webhook-id": "a", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
    async with httpx.AsyncClient(trust_env=False) as http:
        for headers in ({}, signed, {**signed, "webhook-signature": "nonsense"}):
            answer = await http.post(f"{flask_chat.view}/events", json=event, headers=headers)  # type: ignore[attr-defined]
            assert answer.status_code == 403


# Django's example


@pytest.fixture
async def django_chat(tmp_path: Path) -> AsyncIterator[tuple[HandlerNode, str]]:
    """The example with a gateway before it, and the address of its page; Ann and Bob have a password each."""
    port, folder = free_port(), EXAMPLES / "django_view"
    variables = {"GATEWAY_URL": f"http://127.0.0.1:{port}", "CHAT_DATABASE": str(tmp_path / "chat.sqlite3")}
    await ended("manage.py", "migrate", "--run-syncdb", cwd=folder, **variables)
    for name in ("ann", "bob"):
        arguments = ("createsuperuser", "--noinput", "--username", name, "--email", f"{name}@example.com")
        await ended("manage.py", *arguments, cwd=folder, DJANGO_SUPERUSER_PASSWORD=f"{name}'s word", **variables)
    arguments = ("manage.py", "runserver", "--noreload", "127.0.0.1:0")
    async with (
        started(tmp_path, *arguments, cwd=folder, **variables) as view,
        gateway(view, port=port, handler_routes=["join", "say"], allowed_origins=[view]) as node,
    ):
        yield node, view


async def logged_in(view: str, name: str) -> str:
    """The cookies of somebody who has logged in on the page."""
    async with httpx.AsyncClient(base_url=view, trust_env=False) as browser:
        page = await browser.get("/")
        assert 'name="password"' in page.text
        form = {"username": name, "password": f"{name}'s word", "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        assert (await browser.post("/login", data=form)).status_code == 302
        assert "new WebSocket" in (await browser.get("/")).text
        return "; ".join(f"{key}={value}" for key, value in browser.cookies.items())


async def test_users_of_django_talk_by_their_sessions(django_chat: tuple[HandlerNode, str]):
    """Whoever is logged in on the page is let in as who he is, joins the room, and hears what is said there."""
    node, view = django_chat

    def browser(cookies: str) -> connect:
        return client(node, origin=view, additional_headers={"Cookie": cookies})

    async with (
        browser(await logged_in(view, "ann")) as ann,
        browser(f"theme=dark; {await logged_in(view, 'bob')}") as bob,
    ):
        for each, name in ((ann, "ann"), (bob, "bob")):
            await each.send('{"action": "join"}')
            assert await news(each) == {"type": "joined", "as": name}
        await ann.send('{"action": "say", "text": "<b>hello</b>"}')
        for each in (ann, bob):
            assert await news(each) == {"type": "said", "by": "ann", "text": "<b>hello</b>"}
        await bob.send("what?")
        assert await news(bob) == {"error": "expected an action: join or say"}
        await ann.close()
        await until(lambda: len(node.hub) == 1, "ann's end")
        await bob.send('{"action": "say", "text": "alone"}')
        assert (await news(bob))["text"] == "alone"


async def test_django_refuses_who_is_not_logged_in(django_chat: tuple[HandlerNode, str]):
    """No cookie, somebody else's, a broken one: 401. And a page of another origin is not even asked about."""
    node, view = django_chat
    for cookies in ("", "sessionid=0123456789abcdef0123456789abcdef", "sessionid=", "sessionid", "a=b; ;"):
        with pytest.raises(InvalidStatus) as refused:
            async with client(node, origin=view, additional_headers={"Cookie": cookies}):
                pass
        assert refused.value.response.status_code == 401
    with pytest.raises(InvalidStatus) as refused:
        cookies = await logged_in(view, "ann")
        async with client(node, origin="https://evil.example", additional_headers={"Cookie": cookies}):
            pass
    assert refused.value.response.status_code == 403
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.post(f"{view}/events", json={})).status_code == 403
        assert (await http.get(f"{view}/events")).status_code == 405


# What the page shows


DJANGO = """
import sys
from django.conf import settings

if not settings.configured:
    settings.configure(
        DEBUG=True,
        SECRET_KEY="of a test",
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF="site_of_a_test",
        MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"],
    )

from django.urls import path
from views import events

urlpatterns = [path("events", events)]

if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    execute_from_command_line([sys.argv[0], "runserver", "--noreload", "127.0.0.1:0"])
"""


def view_of(block: Block, kind: str, folder: Path) -> tuple[str, ...]:
    """The command that serves the view of a block."""
    if kind == "flask":
        (folder / "echo.py").write_text(block.text)
        return ("-m", "flask", "--app", "echo", "run", "--port", "0")
    (folder / "views.py").write_text(block.text)
    (folder / "site_of_a_test.py").write_text(DJANGO)
    return ("site_of_a_test.py",)


VIEWS = [(block, kind) for kind in ("flask", "django") for block in runnable(kind)]


@pytest.mark.parametrize(("block", "kind"), VIEWS, ids=[block.where for block, _ in VIEWS])
async def test_views_in_documents_answer(block: Block, kind: str, tmp_path: Path):
    """A view as the page shows it lets a client in and answers it."""
    async with (
        started(tmp_path, *view_of(block, kind, tmp_path)) as view,
        gateway(view) as node,
        client(node) as socket,
    ):
        await socket.send("hello")
        expected = "MESSAGE" if "calls.verify" in block.text else "You said hello"
        assert await heard(socket) == expected


ECHO = next(block for block, kind in VIEWS if kind == "flask")


@pytest.mark.parametrize("block", runnable("gateway"), ids=lambda block: block.where)
async def test_replies_in_documents_arrive(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What the page shows of sending by oneself sends, with the key that the gateway knows."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with (
        started(tmp_path, *view_of(ECHO, "flask", tmp_path)) as view,
        gateway(view) as node,
        client(node) as socket,
    ):
        names: Json = {}
        exec(compile(block.text.replace("http://127.0.0.1:8000", node.url), block.where, "exec"), names)
        (peer,) = node.hub.peers()
        if "send" in names:
            assert await asyncio.to_thread(names["send"], peer.id, "by yourself") is True
            assert await heard(socket) == "by yourself"
            assert await asyncio.to_thread(names["send"], "TXzPWdnOjoECGjA=", "nobody") is False
        else:
            await names["welcome"](peer.id)
            assert await heard(socket) == "Somebody has come."


def test_the_page_shows_every_kind_of_view():
    """Two frameworks, and both ways to reply."""
    assert {kind for _, kind in VIEWS} == {"flask", "django"}
    assert len(VIEWS) == 3
    assert len(runnable("gateway")) == 2
