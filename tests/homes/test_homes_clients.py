"""Both client libraries, in every home: the same stories in Python and JavaScript, through cuts and restarts."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit

import pytest

from cuttable import Cuttable
from homelab import Home, fresh, in_minutes
from hubbub.client import Client, Disconnected, connect
from hubbub.errors import NotFound
from hubbub.model import Entry, MessageCreated, RoomKind
from live import BOUND_S, until
from nodejs import run_js

QUICK: dict[str, Any] = {"backoff_base_s": 0.02, "backoff_cap_s": 0.2}

TALK = """
  const alice = await open(tokens[0]);
  const bob = await open(tokens[1]);
  const [name, room] = [tokens[2], tokens[3]];
  await alice.create({ kind: "private", room, name: "Two", members: [name] });
  const heard = [];
  const reading = (async () => {
    for await (const entry of bob.room(room, { after: 0 })) {
      if (entry.type === "message.created") heard.push(entry.text);
      if (entry.text === "end") break;
    }
  })();
  const sent = await alice.send(room, { text: "one", data: { n: 1 } });
  print((await alice.edit(room, sent.seq, "two")).seq - sent.seq);
  await alice.react(room, sent.seq, "x");
  await alice.unreact(room, sent.seq, "x");
  await alice.delete(room, sent.seq);
  await alice.invite(room, `${name}-2`, "reader");
  await alice.role(room, `${name}-2`, "member");
  print((await alice.members(room)).members.length);
  await alice.kick(room, `${name}-2`);
  await alice.typing(room);
  await alice.read(room);
  print((await alice.presence(room)).count);
  print((await alice.history(room, { limit: 2 })).entries.length);
  print((await alice.ping()) > 0);
  print((await alice.auth(tokens[0])).expires_at > 0);
  await alice.create({ kind: "public", room: `${room}-street` });
  print((await alice.subscribe(`${room}-street`)).room === `${room}-street`);
  await alice.unsubscribe(`${room}-street`);
  await alice.leave(`${room}-street`);
  print(await bob.edit(room, 999, "x").catch(({ code }) => code));
  await alice.send(room, "end");
  await reading;
  print(heard);
  alice.close();
  bob.close();
"""

CUTS = """
  const [alice, bob] = [await open(tokens[0]), await open(tokens[1])];
  const room = tokens[2];
  const [seqs, said] = [[], []];
  const reading = (async () => {
    for await (const { seq, type, text } of bob.room(room, { after: 0 })) {
      seqs.push(seq);
      if (type === "message.created") said.push(text);
      if (text === "end") break;
    }
  })();
  let reconnects = 0;
  bob.on("state", ({ state }) => { if (state === "live") reconnects += 1; });
  for (let n = 0; n < 15 || reconnects < 3; n += 1) await alice.send(room, String(n));
  await alice.send(room, "end");
  await reading;
  print(seqs);
  print(said);
  alice.close();
  bob.close();
"""


def said(entries: list[Entry]) -> list[str]:
    """What was said."""
    return [entry.text or "" for entry in entries if isinstance(entry, MessageCreated)]


async def collect(chat: Client, room: str, into: list[Entry], **options: Any) -> None:
    """Keep what a reader of the room gets."""
    async for each in chat.room(room, **options):
        into.append(each)  # noqa: PERF401  the test looks at the list meanwhile


def cuttable(home: Home) -> Cuttable:
    """A way to the home that can be cut."""
    where = urlsplit(home.ws_url)
    assert where.port is not None
    return Cuttable(where.port, where.path)


async def test_the_python_client_does_all_that_there_is(home: Home) -> None:
    """Each of its methods is understood, and what one says the other reads."""
    room, ann, bob = fresh("two"), fresh("ann"), fresh("bob")
    async with (
        connect(home.ws_url, token=home.token(ann)) as alice,
        connect(home.ws_url, token=home.token(bob)) as other,
    ):
        await alice.create(RoomKind.PRIVATE, room=room, name="Two", members=[bob])
        await until(lambda: room in other.rooms, "bob's room")
        heard: list[Entry] = []
        reading = asyncio.create_task(collect(other, room, heard, after=0))
        sent = await alice.send(room, "one", data={"n": 1})
        assert (await alice.edit(room, sent.seq, "two")).seq == sent.seq + 1
        await alice.react(room, sent.seq, "x")
        await alice.unreact(room, sent.seq, "x")
        await alice.delete(room, sent.seq)
        await alice.invite(room, "carol", "reader")
        await alice.role(room, "carol", "member")
        assert {member.user for member in (await alice.members(room)).members} == {ann, bob, "carol"}
        await alice.kick(room, "carol")
        await alice.typing(room)
        await alice.read(room)
        assert (await alice.presence(room)).count == 2
        assert (await alice.ping()).at > 0
        assert (await alice.auth(home.token(ann, ttl_s=7_200))).expires_at > time.time() + 3_700
        await alice.sync()
        street = f"{room}-street"
        await alice.create("public", room=street)
        assert (await alice.subscribe(street)).room == street
        await alice.unsubscribe(street)
        await alice.leave(street)
        with pytest.raises(NotFound):
            await other.edit(room, 999, "nothing")
        last = await alice.send(room, "end")
        await until(lambda: heard and heard[-1].seq == last.seq, "the end")
        assert [each.seq for each in heard] == list(range(1, last.seq + 1))
        reading.cancel()
        await asyncio.wait([reading])


async def test_the_javascript_client_does_all_that_there_is(home: Home) -> None:
    """Likewise."""
    ann, bob = fresh("ann"), fresh("bob")
    printed = await run_js(TALK, home.ws_url, home.token(ann), home.token(bob), bob, fresh("two"))
    assert printed == [1, 3, 2, 2, True, True, True, "not_found", printed[-1]]
    assert printed[-1][-1] == "end"


async def test_cuts_lose_and_double_nothing_in_python(home: Home) -> None:
    """With connections cut again and again, every acknowledged message is read exactly once and in order."""
    room, ann, bob = fresh("general"), fresh("ann"), fresh("bob")
    async with (
        cuttable(home) as way,
        connect(way.url, token=lambda: home.token(ann), **QUICK) as alice,
        connect(way.url, token=lambda: home.token(bob), **QUICK) as other,
    ):
        await alice.create("public", room=room, members=[bob])
        heard: list[Entry] = []
        reading = asyncio.create_task(collect(other, room, heard, after=0))
        for cycle in range(4):
            sends = [asyncio.create_task(alice.send(room, f"{cycle}.{n}")) for n in range(5)]
            await asyncio.wait(sends, timeout=BOUND_S, return_when=asyncio.FIRST_COMPLETED)
            way.cut()
            await asyncio.wait_for(asyncio.gather(*sends), 2 * BOUND_S)
        await until(lambda: len(said(heard)) >= 20, "everything", bound_s=2 * BOUND_S)
        assert [each.seq for each in heard] == list(range(1, len(heard) + 1))
        assert sorted(said(heard)) == sorted(f"{cycle}.{n}" for cycle in range(4) for n in range(5))
        assert way.accepted > 4
        reading.cancel()
        await asyncio.wait([reading])


async def test_cuts_lose_and_double_nothing_in_javascript(home: Home) -> None:
    """Likewise."""
    room, ann, bob = fresh("general"), fresh("ann"), fresh("bob")
    async with await home.connect(ann) as wire:
        await wire.ok("create", kind="public", room=room, members=[bob])
    async with cuttable(home) as way:
        script = run_js(CUTS, way.url, home.token(ann), home.token(bob), room, bound_s=4 * BOUND_S)
        running = asyncio.create_task(script)
        await until(lambda: way.accepted >= 2 or running.done(), "both connections")
        for _ in range(6):
            await asyncio.wait([running], timeout=2.0)
            way.cut()
            accepted = way.accepted
            await until(lambda: way.accepted >= accepted + 2 or running.done(), "reconnections")  # noqa: B023
        seqs, texts = await running
    assert seqs == list(range(1, len(seqs) + 1))
    assert texts == [*(str(n) for n in range(len(texts) - 1)), "end"]


async def test_a_home_that_is_started_anew_is_found_again(home: Home) -> None:
    """A send begun while the home is away is acknowledged when it is back, and read once by who came through it."""
    room, ann, bob = fresh("general"), fresh("ann"), fresh("bob")
    async with (
        connect(home.ws_url, token=lambda: home.token(ann), deadline_s=120, **QUICK) as alice,
        connect(home.ws_url, token=lambda: home.token(bob), **QUICK) as other,
    ):
        await alice.create("public", room=room, members=[bob])
        await alice.send(room, "before")
        heard: list[Entry] = []
        reading = asyncio.create_task(collect(other, room, heard, after=0))
        await until(lambda: said(heard) == ["before"], "the first")
        await asyncio.to_thread(home.stop)
        await until(lambda: alice.state != "live", "the loss")
        sending = asyncio.create_task(alice.send(room, "meanwhile"))
        await asyncio.to_thread(home.start)
        await asyncio.wait_for(sending, 3 * BOUND_S)
        await alice.send(room, "after")
        await in_minutes(home, lambda: said(heard)[-1:] == ["after"], "the last")
        assert said(heard) == ["before", "meanwhile", "after"]
        reading.cancel()
        await asyncio.wait([reading])


async def test_a_bad_token_stops_a_client(home: Home) -> None:
    """A token that can never do stops the client with 4401."""
    with pytest.raises(Disconnected) as caught:
        async with connect(home.ws_url, token="nonsense"):
            pass
    assert caught.value.close_code == 4401


async def test_a_removed_user_does_not_come_back_by_himself(home: Home) -> None:
    """A client whose user is disconnected by the backend stops with 4403."""
    user = fresh("ann")
    async with home.backend() as http, connect(home.ws_url, token=lambda: home.token(user)) as chat:
        reading = asyncio.create_task(collect(chat, "nowhere", []))
        await http.post(f"/v1/users/{user}/disconnect", json={})
        with pytest.raises(Disconnected) as caught:
            await asyncio.wait_for(reading, BOUND_S)
        assert caught.value.close_code == 4403
