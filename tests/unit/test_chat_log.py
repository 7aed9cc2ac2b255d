"""What the chat's log says: which connection and request, and none of the words of a client."""

from __future__ import annotations

import json
import logging

import pytest

from chatlab import lab
from doubles import settle
from hubbub.chat import Chat


async def test_every_line_about_a_message_names_its_connection_and_request(caplog: pytest.LogCaptureFixture):
    """A refusal, a failed action and a failed hook after it all carry both ids, and a hook those of the message."""
    chat = Chat()

    @chat.on("message.created")
    async def broken(chat, entry):
        raise RuntimeError("a defect")

    @chat.before("typing")
    async def broken_too(chat, by, ask):
        raise RuntimeError("another")

    caplog.set_level(logging.DEBUG, "hubbub")
    async with lab(chat) as at:
        alice = await at.tab("alice")
        await alice.ok("create", kind="public", room="general")
        await alice.refused("join", room="nowhere")
        await alice.refused("typing", room="general")
        await alice.ok("send", room="general", text="hello")
        await settle()
    lines = [record for record in caplog.records if record.name == "hubbub.chat"]
    assert [line.message.partition(",")[0] for line in lines] == [
        "join refused: not_found",
        "action typing failed",
        "typing refused: internal",
        "a hook on message.created failed",
    ]
    assert {line.connection_id for line in lines} == {alice.connection}  # type: ignore[attr-defined]
    assert len({line.request_id for line in lines}) == 3  # type: ignore[attr-defined]


async def test_no_words_of_a_client_are_logged(caplog: pytest.LogCaptureFixture):
    """Neither a text nor the name of an action that does not exist stands in the log."""
    caplog.set_level(logging.DEBUG, "hubbub")
    async with lab() as at:
        alice = await at.tab("alice")
        await alice.say(json.dumps({"action": "my password", "text": "my secret"}))
        await alice.say('{"action": "my pass')
        await alice.refused("send", room="nowhere", text="my secret")
    assert len(caplog.records) == 3
    assert "my" not in caplog.text


async def test_who_sends_too_fast_does_not_fill_the_log(caplog: pytest.LogCaptureFixture):
    """What is refused for its rate is counted, and not logged line by line: nothing else bounds how often that is."""
    caplog.set_level(logging.INFO, "hubbub")
    async with lab(rate=1, burst=3) as at:
        alice = await at.tab("alice", sync=False)
        replies = [await alice.ask("ping") for _ in range(20)]
        refused = [reply["code"] for reply in replies if reply["type"] == "error"]
        assert set(refused) == {"rate_limited"}
        assert at.chat.stats.errors["rate_limited"] == len(refused) > 10
    assert not [record for record in caplog.records if record.name == "hubbub.chat"]
