"""The examples, and the client code of the documents, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from documents import ROOT, Block, runnable
from hubbub.app import Node
from live import SECRET, ServerProcess, Wire, token, until


def example(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def polls(tmp_path: Path):
    """A server that runs the polls example, found by its name as the documents say."""
    (tmp_path / "polls.py").write_text((ROOT / "examples" / "polls.py").read_text("utf-8"), "utf-8")
    server = ServerProcess(tmp_path, "polls:chat")
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


async def test_polls_are_opened_voted_in_and_counted(polls: ServerProcess) -> None:
    """Votes in the polls example are counted once for each user, also after he changed his mind."""
    alice_opens = Wire.open(polls.ws_url, token("alice", name="Alice"))
    async with await alice_opens as alice, await Wire.open(polls.ws_url, token("bob")) as bob:
        await alice.ok("create", kind="public", room="lunch")
        await bob.ok("join", room="lunch")
        opened = await alice.ok("poll", room="lunch", question="Where?", options=["Here", "There"])
        assert (await alice.ok("vote", room="lunch", poll=opened["seq"], option=0))["votes"] == [1, 0]
        assert (await bob.ok("vote", room="lunch", poll=opened["seq"], option=0))["votes"] == [2, 0]
        assert (await bob.ok("vote", room="lunch", poll=opened["seq"], option=1))["votes"] == [1, 1]
        assert (await bob.ok("vote", room="lunch", poll=opened["seq"], option=1))["votes"] == [1, 1]
        refused = await bob.ask("vote", room="lunch", poll=opened["seq"], option=2)
        assert refused["code"] == "bad_request"
        assert (await bob.ask("vote", room="lunch", poll=1, option=0))["code"] == "not_found"


async def test_hooks_of_the_polls_example_refuse_change_and_react(polls: ServerProcess) -> None:
    """The example's hooks refuse shouting, replace an old smiley, and welcome whoever joins."""
    alice_opens = Wire.open(polls.ws_url, token("alice"))
    async with await alice_opens as alice, await Wire.open(polls.ws_url, token("bob", name="Bob")) as bob:
        await alice.ok("create", kind="public", room="lunch")
        await bob.ok("join", room="lunch")
        welcome = await alice.wait_for("message.created")
        assert (welcome["by"], welcome["text"]) == ("system", "Welcome, Bob!")
        refused = await bob.ask("send", room="lunch", text="IS ANYBODY HUNGRY AT ALL")
        assert refused["code"] == "forbidden"
        await bob.ok("send", room="lunch", text="Hungry :-)")
        assert (await alice.wait_for("message.created"))["text"] == "Hungry 🙂"


async def test_a_token_of_the_backend_example_is_let_in(node: Node) -> None:
    """A token that the example makes with PyJWT is accepted, with its name and with the room that it grants."""
    made = example("backend_tokens").make_chat_token(SECRET, "42", "Ada", {"order-815": "member"})
    async with await Wire.open(node.ws_url, made) as ada:
        synced = await ada.ok("sync")
        assert synced["user"] == "42"
        assert [(room["room"], room["role"]) for room in synced["rooms"]] == [("order-815", "member")]
        sent = await ada.ok("send", room="order-815", text="Where is it?")
        page = await ada.ok("history", room="order-815", after=sent["seq"] - 1)
        assert page["entries"][0]["name"] == "Ada"


async def test_the_bot_answers(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bot of the example joins the room and answers a command with a reply to it."""
    bot = example("bot")
    monkeypatch.setenv("HUBBUB_TOKEN", token("robot"))
    monkeypatch.setattr(bot, "URL", node.ws_url)
    async with await Wire.open(node.ws_url, token("alice")) as alice:
        await alice.ok("create", kind="public", room="general")
        running = asyncio.create_task(bot.main("general"))
        try:
            await alice.wait_for("member.joined")
            asked = await alice.ok("send", room="general", text="!echo good morning")
            while (heard := await alice.wait_for("message.created"))["by"] != "robot":
                pass
            assert (heard["text"], heard["reply_to"]) == ("good morning", asked["seq"])
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


@pytest.mark.parametrize("block", runnable("client"), ids=lambda block: block.where)
async def test_clients_in_documents_run(block: Block, node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    """A client as the documents show it connects, sends, and prints what it said and what others say."""
    names: dict[str, Any] = {"__name__": "document"}
    text = block.text.replace("ws://127.0.0.1:8000/ws", node.ws_url).replace('TOKEN = "the token"', "")
    names["TOKEN"] = token("reader")
    body, _, _ = text.rpartition("\nasyncio.run(")
    exec(compile(body, block.where, "exec"), names)
    async with await Wire.open(node.ws_url, token("alice")) as alice:
        await alice.ok("create", kind="public", room="general")
        arguments = names["main"].__code__.co_argcount
        running = asyncio.create_task(names["main"](*[names["TOKEN"]][:arguments]))
        try:
            assert (await alice.wait_for("message.created"))["text"].startswith("Hello")
            await alice.ok("send", room="general", text="Nice to meet you")
            shown: list[str] = []

            def answered() -> bool:
                assert not running.done(), running
                shown.append(capsys.readouterr().out)
                return "Nice to meet you" in "".join(shown)

            await until(answered, "what the client prints of others")
            assert "Hello" in "".join(shown)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
