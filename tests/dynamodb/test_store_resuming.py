"""What takes more than one write, begun by somebody who dies in the middle: nobody sees half of it, all ends well."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, nullcontext
from typing import Any

import pytest

from dynamostorelab import LOST, UNREACHED, Call, Nth, Shifted, faulty, items
from hubbub.aws.table import Table
from hubbub.errors import HubbubError, NotFound, Unavailable
from hubbub.model import MessageCreated
from hubbub.store import DynamoStore
from storelab import ROOM, delete, edit, join, leave, log, make_room, react, say, say_many, seqs, state

MEMBERS = [f"user{n:03}" for n in range(60)]


async def open_stores(stack: AsyncExitStack, table: Table, count: int, **options: Any) -> list[DynamoStore]:
    """Stores on one table."""
    return [await stack.enter_async_context(DynamoStore(nullcontext(table), **options)) for _ in range(count)]


@pytest.mark.parametrize("after", [False, True])
async def test_a_large_room_whose_maker_dies_is_not_there_until_it_is_made_again(table, after):
    """Wherever he dies; then it has the new beginning, and nothing of the old one."""
    n, died = 0, True
    while died:
        n += 1
        room, clock = f"room{n}", Shifted()
        async with AsyncExitStack() as stack:
            one, two = await open_stores(stack, table, 2, clock=clock, patience_s=1)
            died = False
            with faulty(one, Nth(n, LOST if after else UNREACHED, after=after)):
                try:
                    await make_room(one, room, *MEMBERS, name="old")
                except Unavailable:
                    died = True
            if died and await two.room(room) is None:
                assert await two.members(room) == ([], 0, False)
                assert await two.rooms_of(MEMBERS[0]) == []
                for ask in (two.page(room), say(two, room=room), two.mark_read(room, "bob", 1)):
                    with pytest.raises(NotFound):
                        await ask
                clock.ahead_ms = 60_000
                await make_room(two, room, *MEMBERS[30:], "bob", name="new")
                assert await two.room(room) == await one.room(room)
                assert seqs(await log(two, room)) == list(range(1, 33))
                listed, count, _ = await two.members(room, limit=200)
                assert [member.user for member in listed] == ["bob", *MEMBERS[30:]]
                assert count == 31
                assert await two.member(room, MEMBERS[0]) is None
            await two.delete_room(room)
            clock.ahead_ms = 120_000
            while await two.sweep():
                pass
    assert n > 6
    left = {item["pk"] for item in await items(table) if "role" in item or item["pk"].startswith(("member#", "left"))}
    assert left == set()


async def test_a_large_room_whose_maker_died_is_cleared_away_by_the_sweep(table):
    """Also if nobody ever makes it again."""
    clock = Shifted()
    async with DynamoStore(nullcontext(table), clock=clock, patience_s=1) as store:
        before = await items(table)
        with faulty(store, Nth(7, UNREACHED)), pytest.raises(Unavailable):
            await make_room(store, ROOM, *MEMBERS)
        await store.sweep()
        assert len(await items(table)) > len(before) + 100
        clock.ahead_ms = 60_000
        await store.sweep()
        left = [item for item in await items(table) if item["sk"] not in ("epoch", f"room#{ROOM}")]
        assert [(item["pk"], item["state"]) for item in left] == [(f"room#{ROOM}", "gone")]
        assert await store.room(ROOM) is None
        made = await make_room(store, ROOM, "alice")
        assert (made.first, made.head) == (1, 2)


async def test_a_room_that_is_deleted_leaves_nothing_however_often_removing_it_fails(table):
    """And what is made under its id meanwhile keeps everything."""
    async with DynamoStore(nullcontext(table), patience_s=1) as store:
        for room in (ROOM, "other"):
            await make_room(store, room, "alice", "bob")
            said = await say(store, "secret", room=room, client_id="c1")
            await say(store, "secret", room=room, thread=said.seq)
            await edit(store, said.seq, "secret", room=room)
            await react(store, said.seq, room=room)
        assert await store.delete_room(ROOM)
        await make_room(store, ROOM, "bob")
        said = await say(store, "kept")
        await react(store, said.seq)
        n = 0
        while True:
            n += 1
            fault = Nth(n, UNREACHED)
            with faulty(store, fault):
                try:
                    await store.sweep()
                except HubbubError:
                    continue
            if fault.seen < n:
                break
        assert n > 4
        words = [item for item in await items(table) if "secret" in item.get("body", "")]
        assert {item["pk"] for item in words} == {"log#other"}
        assert seqs(await log(store)) == [8, 9, 10, 11]
        assert [member.user for member in (await store.members(ROOM))[0]] == ["bob"]
        assert not [item for item in await items(table) if item["pk"] == "leftover"]
        assert len(await log(store, "other")) == 7


async def test_a_deletion_hides_all_edits_at_once_however_many_there_are(table):
    """Also from those who read while their words are still being removed, and after whoever removed them has died."""
    clock = Shifted()
    async with AsyncExitStack() as stack:
        one, two = await open_stores(stack, table, 2, clock=clock)
        await make_room(one)
        said = await say(one, "secret")
        other = await say(one, "other")
        await asyncio.gather(*(edit(one, said.seq, f"secret {n}") for n in range(130)))
        kept = await edit(one, other.seq, "kept")

        async def dies(operation: str, call: Call) -> Any:
            if operation == "UpdateItem":
                strips.append(operation)
                if len(strips) > 40:
                    raise UNREACHED
            return await call()

        strips: list[str] = []
        with faulty(one, dies):
            gone = await delete(one, said.seq)
        stored = [item for item in await items(table) if "secret" in item.get("body", "")]
        assert len(stored) > 50
        await _sees_no_secret(two, said.seq, gone)
        clock.ahead_ms = 10_000
        await two.sweep()
        assert not [item for item in await items(table) if "secret" in item.get("body", "")]
        assert [item for item in await items(table) if "redacting" in item]
        clock.ahead_ms = 120_000
        await two.sweep()
        assert not [item for item in await items(table) if "redacting" in item or item["pk"] == "leftover"]
        await _sees_no_secret(two, said.seq, gone)
        assert await two.entry(ROOM, kept.seq) == kept


async def _sees_no_secret(store: DynamoStore, target: int, gone: Any) -> None:
    entries = await log(store)
    assert "secret" not in repr(entries)
    assert "secret" not in repr([await store.entry(ROOM, seq) for seq in (target, 4, 100)])
    page = await store.page(ROOM, around=target, limit=1)
    assert page.changes == [gone]


async def test_retention_that_dies_in_the_middle_goes_on_where_it_was(table):
    """Nobody sees a hole meanwhile, and in the end nothing is left of what was removed."""
    async with DynamoStore(nullcontext(table), retain_entries=3, patience_s=1) as store:
        await make_room(store)
        root = await say(store, "old", client_id="c1")
        await say_many(store, 40, thread=root.seq)
        await edit(store, root.seq, "old")
        await react(store, root.seq)
        n = 0
        while True:
            n += 1
            fault = Nth(n, UNREACHED)
            with faulty(store, fault):
                try:
                    await store.sweep([ROOM])
                except HubbubError:
                    known = await store.room(ROOM)
                    assert seqs(await log(store)) == list(range(known.first, 45))
                    continue
            if fault.seen < n:
                break
        assert n >= 4
        assert seqs(await log(store)) == [42, 43, 44]
        kept = [item["sk"] for item in await items(table) if item["pk"] == f"log#{ROOM}"]
        assert kept == [f"{seq:012}" for seq in (42, 43, 44)]
        about = [item for item in await items(table) if item["pk"].split("#")[0] in ("about", "reacted", "thread")]
        assert [item["sk"][-12:] for item in about] == [f"{42:012}"]


async def test_a_log_of_which_nothing_is_kept_goes_on_at_the_next_seq(table):
    """Its last entry's words are gone; what it counted is not."""
    clock = Shifted()
    async with DynamoStore(nullcontext(table), retain_days=1, clock=clock) as store:
        await make_room(store, ROOM, "alice", at=clock.now_ms())
        await store.append(_message(clock))
        clock.ahead_ms = 2 * 86_400_000
        assert await store.sweep([ROOM]) is False
        assert await log(store) == []
        assert not [item for item in await items(table) if "secret" in item.get("body", "")]
        assert (await state(store, "bob")).unread == 0
        known = await store.room(ROOM)
        assert (known.first, known.head, known.members) == (4, 3, 1)
        said = await store.append(_message(clock))
        assert said.seq == 4
        assert (await state(store, "bob")).unread == 1
        assert (await leave(store, "alice")).seq == 5
        assert (await join(store, "alice")).seq == 6
        await store.sweep([ROOM])
        kept = [item["sk"] for item in await items(table) if item["pk"] == f"log#{ROOM}"]
        assert kept[-1] == f"{6:012}"


def _message(clock: Shifted) -> MessageCreated:
    return MessageCreated(room=ROOM, by="alice", id=f"{clock.now_ms()}", at=clock.now_ms(), text="secret")


async def test_those_who_sweep_share_one_round_through_all_rooms(table):
    """Each room is looked at by one of them, and the next round begins an hour later."""
    clock = Shifted()
    async with AsyncExitStack() as stack:
        stores = await open_stores(stack, table, 3, retain_entries=2, clock=clock)
        async with DynamoStore(nullcontext(table)) as writer:
            for n in range(12):
                await make_room(writer, f"room{n}")
                await say_many(writer, 4, room=f"room{n}")
        for _ in range(2):
            await asyncio.gather(*(store.sweep() for store in stores))
            for store in stores:
                await store.sweep()
        assert {room.first for room in (await stores[0].rooms())[0]} == {4}
        async with DynamoStore(nullcontext(table)) as writer:
            await say(writer, room="room3")
        await asyncio.gather(*(store.sweep() for store in stores))
        assert (await stores[0].room("room3")).first == 4
        clock.ahead_ms = 3_700_000
        for store in stores:
            await store.sweep()
        assert (await stores[0].room("room3")).first == 5


async def test_a_store_that_closes_has_done_what_it_was_given(table):
    """Who waits for an answer gets it."""
    async with DynamoStore(nullcontext(table)) as store:
        await make_room(store)
        asked = [asyncio.create_task(say(store, f"{n}")) for n in range(30)]
        await asyncio.sleep(0)
    assert seqs(await asyncio.gather(*asked)) == list(range(2, 32))
