"""Bad input, in every home: the error that the protocol names, or a close code; nobody else notices."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from homelab import Home, entry, fresh
from live import Wire

NO_FRAMES = ("", "hi", "{", "[]", '["ping"]', "5", "null", '"ping"', "{}", '{"action": null}', '{"action": ["ping"]}')
NO_FRAMES += ('{"action": "ping", "ref": 5}', f'{{"action": "ping", "ref": "{"r" * 65}"}}', "[" * 10_000, "\x00")


async def answer(wire: Wire, body: str) -> dict[str, Any]:
    """What a frame is answered with that is written as it is."""
    await wire.socket.send(body)
    while (frame := await wire.receive())["type"] not in ("ok", "error"):
        wire.frames.append(frame)
    return frame


async def test_what_is_no_action_is_a_bad_request(home: Home) -> None:
    """Whatever it is, it gets `bad_request`, and the connection goes on."""
    async with await home.connect(fresh("mallory")) as wire:
        for body in NO_FRAMES:
            reply = await answer(wire, body)
            assert (reply["type"], reply["code"], reply["retry"]) == ("error", "bad_request", False), body
        await wire.ok("ping")


@pytest.mark.parametrize("name", ["fly", "PING", "$connect", "$disconnect", "$default", "__init__", "x" * 20_000])
async def test_an_action_that_nobody_knows_is_unknown(home: Home, name: str) -> None:
    """A name of a route or of Python is no action either."""
    async with await home.connect(fresh("mallory")) as wire:
        assert (await wire.ask(name))["code"] == "unknown_action"
        await wire.ok("ping")


BAD_FIELDS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("send", {"room": "ROOM", "text": 5}, "bad_request"),
    ("send", {"room": "ROOM"}, "bad_request"),
    ("send", {"text": "x"}, "bad_request"),
    ("send", {"room": "no room", "text": "x"}, "bad_request"),
    ("send", {"room": "ROOM", "text": "x" * 8_001}, "too_large"),
    ("send", {"room": "ROOM", "text": "x", "client_id": "c" * 65}, "bad_request"),
    ("send", {"room": "ROOM", "text": "x", "reply_to": 999}, "not_found"),
    ("send", {"room": "nowhere", "text": "x"}, "not_found"),
    ("edit", {"room": "ROOM", "target": 0, "text": "x"}, "bad_request"),
    ("edit", {"room": "ROOM", "target": 10**16, "text": "x"}, "bad_request"),
    ("react", {"room": "ROOM", "target": 1, "reaction": ""}, "bad_request"),
    ("history", {"room": "ROOM", "limit": 201}, "bad_request"),
    ("history", {"room": "ROOM", "before": 1, "after": 1}, "bad_request"),
    ("create", {"kind": "open"}, "bad_request"),
    ("create", {"kind": "public", "room": "r" * 65}, "bad_request"),
    ("role", {"room": "ROOM", "user": "nobody", "role": "king"}, "bad_request"),
    ("read", {"room": "ROOM", "seq": -1}, "bad_request"),
    ("auth", {"token": "nonsense"}, "unauthorized"),
    ("sync", {"rooms": {"ROOM": "x"}}, "bad_request"),
)


async def test_fields_that_are_wrong_are_told(home: Home) -> None:
    """Each gets its code with its `ref`, and nothing of it is stored."""
    room = fresh("tea")
    async with await home.connect(fresh("mallory")) as wire:
        await wire.ok("create", kind="public", room=room)
        head = (await wire.ok("history", room=room, limit=1))["head"]
        for action, fields, code in BAD_FIELDS:
            told = await wire.ask(action, **json.loads(json.dumps(fields).replace("ROOM", room)))
            assert told.get("code") == code, (action, fields, told)
            assert told.keys() <= {"type", "ref", "code", "message", "retry", "retry_after_ms"}
        assert (await wire.ok("history", room=room, limit=1))["head"] == head


@pytest.mark.parametrize(("body", "code"), [("x" * 40_000, 1009), (b"\x00\x01", 1003)], ids=["large", "binary"])
async def test_frames_that_may_not_be_end_the_connection(home: Home, body: str | bytes, code: int) -> None:
    """More than 32 KB is 1009 and a binary frame 1003; who shares a room with the sender goes on talking."""
    room = fresh("tea")
    async with await home.connect(fresh("ann")) as ann:
        await ann.ok("sync")
        await ann.ok("create", kind="public", room=room)
        mallory = await home.connect(fresh("mallory"))
        await mallory.ok("join", room=room)
        await mallory.socket.send(body)
        assert await mallory.closed() == code
        sent = await ann.ok("send", room=room, text="still here")
        assert (await entry(ann, room, sent["seq"]))["text"] == "still here"


async def test_a_message_may_be_as_large_as_is_said(home: Home) -> None:
    """30 KB of data, and what other alphabets write, arrive whole."""
    room = fresh("tea")
    async with await home.connect(fresh("ann")) as ann, await home.connect(fresh("bob")) as bob:
        await ann.ok("create", kind="public", room=room)
        await bob.ok("sync")
        await bob.ok("join", room=room)
        data = {"large": "x" * 30_000, "words": 'ä 你好 👋 \u2028 " \\ \x01'}
        sent = await ann.ok("send", room=room, data=data)
        assert (await entry(bob, room, sent["seq"]))["data"] == data


async def test_who_asks_too_often_is_refused(home: Home) -> None:
    """Of 400 actions at once some are refused, to be tried again later; others go on, and so does he in a while."""
    async with await home.connect(fresh("mallory")) as wire, await home.connect(fresh("ann")) as ann:
        await wire.ok("ping")
        for n in range(400):
            await wire.socket.send(json.dumps({"action": "ping", "ref": str(n)}))
        replies = [await wire.receive() for _ in range(400)]
        refused = [each for each in replies if each.get("type") != "ok"]
        assert refused
        assert [each for each in refused if not home.is_too_often(each)] == []
        await ann.ok("ping")
        async with asyncio.timeout(20):
            while (await wire.ask("ping"))["type"] != "ok":
                await asyncio.sleep(0.1)
