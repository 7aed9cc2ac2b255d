"""Whatever falls together: users come, go, resume, are kicked and invited while a room talks, public or private."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from chatlab import Lab, Tab, lab
from doubles import settle
from examples import examples
from hubbub.model import RoomKind

USERS = ("bob", "carol", "dave")


async def act(at: Lab, rng: random.Random, alice: Tab, tabs: list[Tab]) -> tuple[Tab, dict[str, Any]] | None:
    """Do one thing at some moment; the tab and the reply if it was a `sync`."""
    for _ in range(rng.randint(0, 6)):
        await asyncio.sleep(0)
    if rng.random() < 0.3:
        await at.chat.store.ping()
    tab, user = rng.choice(tabs), rng.choice(USERS)
    does = rng.choices(("send", "invite", "kick", "leave", "join", "subscribe", "sync"), (6, 3, 3, 1, 1, 1, 4))[0]
    if does == "send":
        await alice.ask("send", room="den", text="x")
    elif does in ("invite", "kick"):
        await alice.ask(does, room="den", user=user)
    elif does in ("leave", "join", "subscribe"):
        await tab.ask(does, room="den")
    else:
        return tab, await tab.ok("sync", rooms=rng.choice(({}, {"den": rng.randint(1, 3)})))
    return None


def may_hear(log: list[dict[str, Any]], user: str, seq: int) -> bool:
    """Whether somebody who listens may hear the log's entry at `seq`, by what the log says up to there."""
    *before, entry = log[:seq]
    if entry["type"] == "room.updated" or entry.get("user") == user:
        return True  # of a change everybody is told who was there before it or is after it
    kinds = [each["kind"] for each in before if each["type"] == "room.updated"]
    own = [each["type"] for each in before if each.get("user") == user]
    return kinds[-1] == "public" or own[-1:] == ["member.joined"]


async def repaired(at: Lab) -> None:
    """Let everything that lacks something get it."""
    await at.clock.advance(5)
    await at.chat.store.ping()
    await settle()


@settings(max_examples=examples(80), deadline=None)
@given(seed=st.integers(0, 2**32))
def test_everybody_hears_exactly_what_he_may(seed: int) -> None:
    """In seq order and once; nothing without membership unless the room is public, and all of it while he listens."""

    async def run() -> None:
        rng = random.Random(seed)
        async with lab() as at:
            alice = await at.tab("alice")
            await alice.ok("create", kind=rng.choice(("private", "public")), room="den")
            tabs = [await at.tab(user, sync=False) for user in USERS for _ in range(rng.randint(1, 2))]
            synced: set[str] = set()
            for _ in range(rng.randint(1, 5)):
                if rng.random() < 0.3:
                    await at.chat.update_room("den", kind=rng.choice((RoomKind.PRIVATE, RoomKind.PUBLIC)))
                for done in await asyncio.gather(*(act(at, rng, alice, tabs) for _ in range(rng.randint(1, 8)))):
                    if done is not None:
                        tab, reply = done
                        synced.add(tab.connection)
                        seqs = [entry["seq"] for entry in reply["entries"]]
                        assert all(later == seq + 1 for seq, later in pairwise(seqs))
            await repaired(at)
            last = (await alice.ok("send", room="den", text="the end"))["seq"]
            await repaired(at)
            log = (await alice.ok("history", room="den", after=0, limit=200))["entries"]
            assert [entry["seq"] for entry in log] == list(range(1, last + 1))
            members = {member["user"] for member in (await alice.ok("members", room="den"))["members"]}
            listening = {connection for connection, _ in await at.chat.directory.audience("den")}
            for tab in tabs:
                assert [entry for entry in log if entry in tab.entries] == tab.entries
                assert all(may_hear(log, tab.user, entry["seq"]) for entry in tab.entries)
                assert (tab.connection in listening) == (log[-1] in tab.entries)
                if tab.user in members and tab.connection in synced:
                    assert tab.connection in listening

    asyncio.run(run())
