"""The chat with compression switched on: clients that offer it, in their own ways, and those that do not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hubbub.app import Node
from hubbub.client import connect
from hubbub.config import Settings
from hubbub.model import MessageCreated
from live import SECRET, Wire, token

LONG = "What is said at length is said in fewer bytes. " * 100


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with Node(Settings(port=0, secret=SECRET, data=str(tmp_path), deflate=True, deflate_min_bytes=100)) as made:
        yield made


async def test_those_who_compress_and_those_who_do_not_talk_to_one_another(node: Node) -> None:
    """Each hears all, in the same order; what goes out to those who compress has far fewer bytes."""
    async with (
        await Wire.open(node.ws_url, token("alice")) as alice,  # the library offers it with a window of 4 KB
        await Wire.open(node.ws_url, token("bob")) as bob,
        await Wire.open(node.ws_url, token("carol"), compression=None) as carol,
    ):
        answers = [each.socket.response for each in (alice, bob, carol)]
        offers = [answer.headers.get("Sec-WebSocket-Extensions") for answer in answers if answer is not None]
        assert [offer is not None and offer.startswith("permessage-deflate") for offer in offers] == [True, True, False]
        await alice.ok("create", room="tea", kind="public")
        for wire in (bob, carol):
            await wire.ok("subscribe", room="tea")
        before = node.hub.stats.bytes_out
        for wire in (alice, carol):
            if wire is carol:
                await wire.ok("join", room="tea")
            await wire.ok("send", room="tea", text=LONG)
            await wire.ok("send", room="tea", text="short")
        heard = []
        for wire in (alice, bob, carol):
            entries = [await wire.wait_for("message.created") for _ in range(4)]
            heard.append([(entry["seq"], entry["text"]) for entry in entries])
        assert heard[0] == heard[1] == heard[2]
        assert [text for _, text in heard[0]] == [LONG, "short"] * 2
        sent = node.hub.stats.bytes_out - before
        assert 2 * len(LONG) < sent < 3 * len(LONG)  # carol's are plain
        page = await bob.ok("history", room="tea")
        assert [entry["text"] for entry in page["entries"] if "text" in entry] == [LONG, "short"] * 2


async def test_the_python_client_works_as_ever(node: Node) -> None:
    """It need not know."""
    async with connect(node.ws_url, token=token("alice")) as alice:
        await alice.create("public", room="tea")
        await alice.send("tea", LONG)
        page = await alice.history("tea")
        assert [entry.text for entry in page.entries if isinstance(entry, MessageCreated)] == [LONG]
