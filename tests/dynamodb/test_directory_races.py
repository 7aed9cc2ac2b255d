"""A chat on a table while everything happens at once: users come, go, resume, are invited, removed, as a room talks."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

import pytest

from chatlab import FakeTokens, Lab, Tab
from directorylab import ALICE, ROOM, A
from doubles import FakeClock, FakeSink
from dynamolab import Server, fresh_table
from fanoutlab import Home, apigateway
from hubbub.aws.table import Table
from hubbub.chat import Chat, ChatLimits
from hubbub.fanout import ApiGatewayDirectory
from hubbub.fanout.apigateway.keys import connection_key
from hubbub.model import MAX_PAGE, Principal, RoomId
from hubbub.protocol import encode
from hubbub.store import DynamoStore

USERS = ("bob", "carol", "dave")


@asynccontextmanager
async def running(dynamodb: Server) -> AsyncIterator[tuple[Lab, Home]]:
    """A chat whose store and directory are tables."""
    clock = FakeClock(time.time_ns() // 1_000_000)  # a server removes what has outlived its time
    sink, chat = FakeSink(), Chat()
    async with fresh_table(dynamodb) as table, DynamoStore(nullcontext(table)) as store:

        async def read(room: RoomId, after: int) -> list[tuple[int, bytes]]:
            page = await store.page(room, after=after, limit=MAX_PAGE, changes=False)
            return [(entry.seq, encode(entry)) for entry in page.entries]

        async with apigateway(dynamodb, sink=sink, read=read, clock=clock, grown=store.grown) as home:
            chat.bind(
                store=store,
                fanout=home,
                directory=home,
                tokens=FakeTokens(clock),
                clock=clock,
                limits=ChatLimits(rate=0, user_rate=0, presence_grace_s=0.0),
            )
            yield Lab(chat, clock, sink), home
            await chat.aclose()


async def act(rng: random.Random, alice: Tab, tabs: list[Tab]) -> Tab | None:
    """Do one thing; the tab if it was a `sync`."""
    tab, user = rng.choice(tabs), rng.choice(USERS)
    does = rng.choices(("send", "invite", "kick", "leave", "subscribe", "sync"), (6, 3, 3, 1, 1, 4))[0]
    if does == "send":
        await alice.ask("send", room="den", text="x")
    elif does in ("invite", "kick"):
        await alice.ask(does, room="den", user=user)
    elif does in ("leave", "subscribe"):
        await tab.ask(does, room="den")
    else:
        await tab.ok("sync", rooms=rng.choice(({}, {"den": 2})))
        return tab
    return None


@pytest.mark.parametrize("seed", range(6))
async def test_in_the_end_those_and_only_those_hear_a_room_who_may(dynamodb, seed):
    """In order, whatever came twice; members who have resumed hear it, and who was removed does not."""
    rng = random.Random(seed)
    async with running(dynamodb) as (at, home):
        alice = await at.tab("alice")
        await alice.ok("create", kind="private", room="den")
        tabs = [await at.tab(user, sync=False) for user in USERS for _ in range(rng.randint(1, 2))]
        synced: set[str] = set()
        for _ in range(4):
            done = await asyncio.gather(*(act(rng, alice, tabs) for _ in range(rng.randint(1, 8))))
            synced |= {tab.connection for tab in done if tab is not None}
        await home.settle()
        last = (await alice.ok("send", room="den", text="the end"))["seq"]
        await home.settle()
        members = {member["user"] for member in (await alice.ok("members", room="den"))["members"]}
        audience = {connection for connection, _ in await home.audience(RoomId("den"))}
        for tab in tabs:
            heard = list(dict.fromkeys(entry["seq"] for entry in tab.entries))
            assert heard == sorted(heard)
            assert (tab.connection in audience) == (last in heard)
            assert tab.user in members or tab.connection not in audience
            if tab.connection in synced and tab.user in members:
                assert tab.connection in audience


async def test_who_reads_ahead_still_sees_what_others_do_once_he_is_about_to_listen(table):
    """Rooms that the user has come into, or was taken out of, and a newer token, are those of now."""
    another = Table(table._service, table.name)
    clock = FakeClock(time.time_ns() // 1_000_000)

    async def read(room, after):
        return []

    here = ApiGatewayDirectory(table, clock=clock, read=read)
    there = ApiGatewayDirectory(another, clock=clock, read=read)
    await there.connect(A, Principal(ALICE, 2**40))
    table.ahead.expect([connection_key(A), ("room#room", "room")])
    assert (await here.principal(A)).expires_at == 2**40  # it is read, as every answer does
    assert await table.get(("room#room", "room")) is None
    async with await here.listen(A, []) as listening:
        await there.follow(ALICE, ROOM, 0)
        assert await listening.followed() == {ROOM}
    await there.connect(A, Principal(ALICE, 2**41))
    assert (await here.principal(A, fresh=True)).expires_at == 2**41
    await another.put({"pk": "room#room", "sk": "room", "kind": "private"})
    async with await here.listen(A, [ROOM]):
        assert (await table.get(("room#room", "room")))["kind"] == "private"
    table.ahead.clear()
