"""Both client libraries against a real server: the same story in Python and JavaScript, through cuts and restarts."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from scripts.servers import free_port

from cuttable import Cuttable
from hubbub.app import Node
from hubbub.client import Client, Disconnected, connect
from hubbub.config import Settings
from hubbub.errors import NotFound
from hubbub.model import Entry, MessageCreated, RoomId, RoomKind
from live import BOUND_S, SECRET, token, until
from nodejs import run_js

ROOT = Path(__file__).resolve().parents[2]
STAGE = RoomId("stage")


def ws(node: Node) -> str:
    """The node's WebSocket address."""
    return f"ws://127.0.0.1:{node.port}/ws"


def texts(entries: list[Entry]) -> list[str]:
    """What was said."""
    return [entry.text or "" for entry in entries if isinstance(entry, MessageCreated)]


async def collect(chat: Client, room: str, into: list[Entry], **options: Any) -> None:
    """Keep what a reader of the room gets."""
    async for entry in chat.room(room, **options):
        into.append(entry)  # noqa: PERF401  the test looks at the list meanwhile


async def test_two_clients_talk(node: Node) -> None:
    """What one says, the other reads; rooms, roles and unread counts follow."""
    async with connect(ws(node), token=token("alice")) as alice, connect(ws(node), token=token("bob")) as bob:
        await alice.create(RoomKind.PUBLIC, room="general", name="General")
        await bob.join("general")
        heard: list[Entry] = []
        reading = asyncio.create_task(collect(bob, "general", heard))
        await until(lambda: "general" in bob.rooms, "bob's room")
        sent = await alice.send("general", "hi", data={"mood": 1})
        await until(lambda: texts(heard) == ["hi"], "the message")
        assert heard[-1].seq == sent.seq == bob.rooms[heard[-1].room].head
        assert bob.rooms[heard[-1].room].unread == 1
        await bob.read("general")
        assert bob.rooms[heard[-1].room].unread == 0
        await bob.react("general", sent.seq, "+1")
        assert (await alice.history("general", limit=1)).head == sent.seq + 1
        assert (await alice.presence("general")).count == 2
        with pytest.raises(NotFound):
            await bob.edit("general", 999, "nothing")
        reading.cancel()


async def test_every_method_of_the_python_client_is_understood_by_the_server(node: Node) -> None:
    """Each action has a method whose fields the server takes and whose answer the client reads."""
    async with connect(ws(node), token=token("alice")) as alice, connect(ws(node), token=token("bob")):
        made = await alice.create("private", name="Two", members=["bob"])
        room = made.room
        sent = await alice.send(room, "one")
        assert (await alice.edit(room, sent.seq, "two")).seq == sent.seq + 1
        await alice.react(room, sent.seq, "x")
        await alice.unreact(room, sent.seq, "x")
        await alice.delete(room, sent.seq)
        await alice.invite(room, "carol", "reader")
        await alice.role(room, "carol", "member")
        assert {member.user for member in (await alice.members(room)).members} == {"alice", "bob", "carol"}
        await alice.kick(room, "carol")
        await alice.typing(room)
        await alice.read(room)
        assert (await alice.ping()).at > 0
        assert (await alice.auth(token("alice", ttl_s=7200))).expires_at > time.time() + 3700
        await alice.sync()
        await alice.create("public", room="street")
        assert [one.id for one in (await alice.public_rooms()).rooms] == ["street"]
        await alice.leave("street")
        assert (await alice.subscribe("street")).room == "street"
        await alice.unsubscribe("street")
        assert (await alice.request("ping"))["at"] > 0


async def test_cuts_lose_and_double_nothing(node: Node) -> None:
    """With connections cut again and again, every acknowledged message is read exactly once and in order."""
    async with Cuttable(node.port) as proxy:
        options = {"backoff_base_s": 0.02, "backoff_cap_s": 0.1}
        async with (
            connect(proxy.url, token=lambda: token("alice"), **options) as alice,  # type: ignore[arg-type]
            connect(proxy.url, token=lambda: token("bob"), **options) as bob,  # type: ignore[arg-type]
        ):
            await alice.create("public", room="general", members=["bob"])
            heard: list[Entry] = []
            reading = asyncio.create_task(collect(bob, "general", heard, after=0))
            for cycle in range(8):
                sends = [asyncio.create_task(alice.send("general", f"{cycle}.{n}")) for n in range(10)]
                await asyncio.wait(sends, timeout=BOUND_S, return_when=asyncio.FIRST_COMPLETED)
                proxy.cut()
                await asyncio.wait_for(asyncio.gather(*sends), BOUND_S)
            await until(lambda: len(texts(heard)) >= 80, "everything")
            assert [entry.seq for entry in heard] == list(range(1, len(heard) + 1))
            assert sorted(texts(heard)) == sorted(f"{cycle}.{n}" for cycle in range(8) for n in range(10))
            assert proxy.accepted > 4
            reading.cancel()


async def test_a_reader_that_lags_reads_the_rest_from_history(node: Node) -> None:
    """A loop that takes nothing for a while gets every entry all the same, with a buffer of five."""
    async with connect(ws(node), token=token("alice"), max_held=5) as alice:
        await alice.create("public", room="general")
        stream = alice.room("general", after=0)
        everything = alice.entries()
        for n in range(30):
            await alice.send("general", str(n))
        for reader in (stream, everything):
            seen: list[Entry] = []
            while len(texts(seen)) < 30:
                seen.append(await asyncio.wait_for(anext(reader), BOUND_S))
            assert texts(seen) == [str(n) for n in range(30)]


async def test_every_method_of_the_javascript_client_is_understood_by_the_server(node: Node) -> None:
    """Each action has a method whose fields the server takes and whose answer the client reads."""
    script = """
      const alice = await open(tokens[0]);
      const bob = await open(tokens[1]);
      const { room } = await alice.create({ kind: "private", name: "Two", members: ["bob"] });
      const sent = await alice.send(room, { text: "one", data: { n: 1 } });
      print((await alice.edit(room, sent.seq, "two")).seq - sent.seq);
      await alice.react(room, sent.seq, "x");
      await alice.unreact(room, sent.seq, "x");
      await alice.delete(room, sent.seq);
      await alice.invite(room, "carol", "reader");
      await alice.role(room, "carol", "member");
      print((await alice.members(room)).members.map((member) => member.user));
      await alice.kick(room, "carol");
      await alice.typing(room);
      await alice.read(room);
      print((await alice.presence(room)).online);
      print((await alice.history(room, { limit: 2 })).entries.length);
      print((await alice.ping()) > 0);
      print((await alice.auth(tokens[0])).expires_at > 0);
      await alice.create({ kind: "public", room: "street" });
      print((await alice.publicRooms()).rooms.map(({ id }) => id));
      await alice.leave("street");
      print((await alice.subscribe("street")).room);
      await alice.unsubscribe("street");
      print((await alice.request("ping")).at > 0);
      print(await bob.edit(room, 999, "x").catch(({ code }) => code));
      alice.close();
      bob.close();
    """
    printed = await run_js(script, ws(node), token("alice"), token("bob"))
    people = ["alice", "bob", "carol"]
    assert printed == [1, people, people[:2], 2, True, True, ["street"], "street", True, "not_found"]


async def test_cuts_lose_and_double_nothing_in_javascript(node: Node) -> None:
    """With connections cut again and again, the JavaScript client reads each acknowledged message once and in order."""
    script = """
      const [alice, bob] = [await open(tokens[0]), await open(tokens[1])];
      const seqs = [];
      const said = [];
      const reading = (async () => {
        for await (const { seq, type, text } of bob.room("general", { after: 0 })) {
          seqs.push(seq);
          if (type === "message.created") said.push(text);
          if (text === "end") break;
        }
      })();
      let reconnects = 0;
      bob.on("state", ({ state }) => { if (state === "live") reconnects += 1; });
      for (let n = 0; n < 60 || reconnects < 5; n += 1) await alice.send("general", String(n));
      await alice.send("general", "end");
      await reading;
      print(seqs);
      print(said);
      print(reconnects);
      alice.close();
      bob.close();
    """
    async with connect(ws(node), token=token("alice")) as alice:
        await alice.create("public", room="general", members=["bob"])
    async with Cuttable(node.port) as proxy:
        running = asyncio.create_task(run_js(script, proxy.url, token("alice"), token("bob")))
        await until(lambda: proxy.accepted >= 2 or running.done(), "both connections")
        while not running.done():
            await asyncio.wait([running], timeout=0.1)
            proxy.cut()
            accepted = proxy.accepted
            await until(lambda: proxy.accepted >= accepted + 2 or running.done(), "reconnections")  # noqa: B023
        seqs, said, reconnects = await running
    assert seqs == list(range(1, len(seqs) + 1))
    assert said == [*(str(n) for n in range(len(said) - 1)), "end"]
    assert reconnects >= 5


async def test_nothing_is_missed_between_joining_and_reading(node: Node) -> None:
    """A loop that starts after a join, and after a send, begins where the client began to listen."""
    async with connect(ws(node), token=token("alice")) as alice, connect(ws(node), token=token("bob")) as bob:
        await alice.create("public", room="general")
        await bob.join("general")
        await alice.send("general", "one")
        sent = await bob.send("general", "two")
        await until(lambda: bob.position(sent.room) == sent.seq, "both messages")
        stream = bob.room("general")
        said: list[Entry] = []
        while len(texts(said)) < 2:
            said.append(await asyncio.wait_for(anext(stream), BOUND_S))
        assert texts(said) == ["one", "two"]


async def test_a_public_room_can_be_read_without_joining(node: Node) -> None:
    """`subscribe=True` listens to a public room one is no member of."""
    async with connect(ws(node), token=token("alice")) as alice, connect(ws(node), token=token("bob")) as bob:
        await alice.create("public", room="stage")
        stream = bob.room("stage", subscribe=True)
        await until(lambda: bob.position(STAGE) is not None, "the subscription")
        await alice.send("stage", "welcome")
        assert texts([await asyncio.wait_for(anext(stream), BOUND_S)]) == ["welcome"]
        assert [member.user for member in (await alice.members("stage")).members] == ["alice"]


async def test_a_bad_token_is_told_at_once(node: Node) -> None:
    """A token that can never do stops the client with 4401."""
    with pytest.raises(Disconnected) as caught:
        async with connect(ws(node), token="nonsense"):
            pass
    assert caught.value.close_code == 4401


async def test_a_new_server_on_the_same_data_is_found_again(tmp_path: Path) -> None:
    """A send begun while the server is away is acknowledged when it is back, and read once."""
    port = free_port()
    async with Node(Settings(port=port, secret=SECRET, data=str(tmp_path))):
        chat = connect(
            f"ws://127.0.0.1:{port}/ws", token=lambda: token("alice"), backoff_base_s=0.02, backoff_cap_s=0.1
        )
        await chat.__aenter__()
        await chat.create("public", room="general")
        await chat.send("general", "before")
    try:
        await until(lambda: chat.state != "live", "the loss")
        sending = asyncio.create_task(chat.send("general", "meanwhile"))
        async with Node(Settings(port=port, secret=SECRET, data=str(tmp_path))):
            sent = await asyncio.wait_for(sending, BOUND_S)
            page = await chat.history("general", after=sent.seq - 2)
            assert [entry.seq for entry in page.entries] == [sent.seq - 1, sent.seq]
            assert texts(list(page.entries)) == ["before", "meanwhile"]
            await chat.close()
    finally:
        await chat.close()
