"""What the store promises when DynamoDB refuses, does not answer, or answers get lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any

import pytest

from dynamolab import Server, fresh_table
from dynamostorelab import LOST, THROTTLED, UNREACHED, WRITES, Call, Hasty, Nth, faulty, items, table_named
from hubbub.aws.service import AwsError
from hubbub.aws.table import Table
from hubbub.errors import TooLarge, Unavailable
from hubbub.model import MessageCreated, Role
from hubbub.store import DynamoStore
from storelab import ROOM, edit, join, log, make_room, react, say, say_many, seqs, state


@pytest.fixture
async def other(dynamodb: Server, table: Table) -> AsyncIterator[DynamoStore]:
    """Another process's store on the same table."""
    async with DynamoStore(table_named(dynamodb, table.name, create=False)) as opened:
        yield opened


@pytest.fixture
async def store(table: Table) -> AsyncIterator[DynamoStore]:
    """An open store on an empty table, whose patience passes by being used."""
    async with DynamoStore(nullcontext(table), clock=Hasty()) as opened:
        yield opened


async def test_an_answer_that_is_lost_is_asked_after(store):
    """Whether the write was done or not, what is acknowledged is in the log, once."""
    await make_room(store)
    for n, after in enumerate((True, False)):
        for m, error in enumerate((LOST, AwsError("InternalServerError", "oh", status=500, is_in_doubt=True))):
            with faulty(store, Nth(1, error, after=after)):
                said = await say(store, client_id=f"{n}{m}")
            assert said.seq == 2 + 2 * n + m
            assert await store.entry(ROOM, said.seq) == said
            assert await say(store, client_id=f"{n}{m}") == said
    assert seqs(await log(store)) == [1, 2, 3, 4, 5]


async def test_a_lost_answer_to_a_deletion_is_asked_after(store, other):
    """It deletes what it was to delete, and not what was made under the same id since."""
    for after in (True, False):
        await make_room(store)
        with faulty(store, Nth(1, LOST, after=after)):
            assert await store.delete_room(ROOM) is True
        assert await other.delete_room(ROOM) is False

    async def slow(operation: str, call: Call) -> Any:
        if operation == "TransactWriteItems" and not made:
            await call()
            made.append(await make_room(other, name="new"))
            raise LOST
        return await call()

    made: list[Any] = []
    await make_room(store)
    with faulty(store, slow):
        assert await store.delete_room(ROOM) is True
    assert (await store.room(ROOM)) == made[0]


async def test_a_lost_answer_to_the_making_of_a_room_is_asked_after(store):
    """It is made once, and whoever made it is told so."""
    for n, after in enumerate((True, False)):
        with faulty(store, Nth(1, LOST, after=after)):
            if after:
                assert (await make_room(store, f"{n}", "alice")).members == 1
            else:
                with pytest.raises(Unavailable):
                    await make_room(store, f"{n}", "alice")
                assert await store.room(f"{n}") is None
                await make_room(store, f"{n}", "alice")
        assert seqs(await log(store, f"{n}")) == [1, 2]


async def test_an_answer_that_is_lost_while_another_writes_is_told_from_his_entry(store, other):
    """Who finds another's entry in his place tries the next one."""
    await make_room(store)

    async def beaten(operation: str, call: Call) -> Any:
        if operation == "TransactWriteItems" and not said:
            said.append(await say(other, "first", by="bob"))
            raise LOST
        return await call()

    said: list[MessageCreated] = []
    with faulty(store, beaten):
        mine = await say(store, "second", client_id="c1")
    assert [said[0].seq, mine.seq] == [2, 3]
    assert [entry.id for entry in (await log(store))[1:]] == [said[0].id, mine.id]


async def test_a_table_that_cannot_be_reached_is_unavailable_and_nothing_is_written(store, table):
    """What was refused is not there, and when the table is back everything goes on."""
    await make_room(store, ROOM, "alice")
    before = await items(table)

    async def gone(operation: str, call: Call) -> Any:
        raise UNREACHED

    with faulty(store, gone):
        for ask in (
            say(store, client_id="c1"),
            store.room(ROOM),
            store.page(ROOM),
            store.member(ROOM, "alice"),
            store.rooms_of("alice"),
            store.mark_read(ROOM, "bob", 1),
            make_room(store, "new"),
            store.delete_room(ROOM),
            store.user("alice"),
            store.change_user("alice", name="Alice"),
            store.ping(),
        ):
            with pytest.raises(Unavailable):
                await ask
    assert await items(table) == before
    assert (await say(store, client_id="c1")).seq == 3


@pytest.mark.parametrize("code", ["ThrottlingError", "ProvisionedThroughputExceeded", "TransactionConflict"])
async def test_a_transaction_that_was_too_much_is_tried_again(store, code):
    """A few of them are no reason to bother anybody."""
    await make_room(store)

    async def busy(operation: str, call: Call) -> Any:
        if operation == "TransactWriteItems" and len(refused) < 3:
            refused.append(operation)
            cancelled = AwsError("TransactionCanceledException", "no", status=400)
            cancelled.document = {"CancellationReasons": [{"Code": code}, {"Code": "None"}, {"Code": "None"}]}
            raise cancelled
        return await call()

    refused: list[str] = []
    with faulty(store, busy):
        assert (await say(store, client_id="c1")).seq == 2
    assert len(refused) == 3


async def test_a_table_that_takes_no_more_for_now_says_when_to_come_again(store):
    """The caller is told, and what he wanted is not there."""
    await make_room(store)

    async def throttled(operation: str, call: Call) -> Any:
        if operation in WRITES:
            raise THROTTLED
        return await call()

    with faulty(store, throttled), pytest.raises(Unavailable) as told:
        await say(store)
    assert told.value.retry_after_ms == 1_000
    assert seqs(await log(store)) == [1]


async def test_who_always_comes_second_is_told_so_in_the_end_and_has_written_nothing(table, other):
    """The log has what the others wrote, and only that."""
    clock = Hasty()
    async with DynamoStore(nullcontext(table), clock=clock, patience_s=5) as store:
        await make_room(store)

        async def overtaken(operation: str, call: Call) -> Any:
            if operation == "TransactWriteItems":
                await say(other, "first", by="bob")
            return await call()

        with faulty(store, overtaken), pytest.raises(Unavailable, match="Too many write here") as told:
            await say(store, "never", client_id="c1")
        assert told.value.retry_after_ms == 1_000
        assert 3 <= clock.slept <= 200
        entries = await log(store)
        assert seqs(entries) == list(range(1, len(entries) + 1))
        assert {entry.text for entry in entries[1:]} == {"first"}
        assert (await say(store, "at last", client_id="c1")).seq == len(entries) + 1


async def test_a_table_that_is_not_there_is_refused_with_what_makes_it(dynamodb: Server):
    """The error names the table, its keys and its time-to-live attribute."""
    with pytest.raises(ValueError, match=r"there is no table 'nowhere'.*pk.*sk.*ttl"):
        await DynamoStore(table_named(dynamodb, "nowhere", create=False)).__aenter__()


async def test_a_table_with_other_keys_is_refused(dynamodb: Server):
    """It is another program's."""
    async with table_named(dynamodb, "other-keys", create=False) as table:
        await table._call(
            "CreateTable",
            {
                "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
                "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
                "BillingMode": "PAY_PER_REQUEST",
            },
        )
        with pytest.raises(ValueError, match="'other-keys' has other keys than pk and sk"):
            await DynamoStore(nullcontext(table)).__aenter__()


async def test_a_server_without_transactions_is_refused(table: Table):
    """When the store is opened, and not when somebody says something."""

    async def plain(operation: str, call: Call) -> Any:
        if operation == "TransactWriteItems":
            raise AwsError("UnknownOperationException", "Unsupported operation TransactWriteItems", status=400)
        return await call()

    store = DynamoStore(nullcontext(table))
    store._table = table
    with faulty(store, plain), pytest.raises(ValueError, match="expected a server with transactions"):
        await store.__aenter__()


async def test_a_table_that_is_deleted_while_the_store_is_open_is_unavailable(dynamodb: Server):
    """Whoever made a mistake there can still make it good."""
    async with fresh_table(dynamodb) as table, DynamoStore(nullcontext(table), clock=Hasty()) as store:
        await make_room(store)
        await table.drop()
        for ask in (say(store), store.page(ROOM), store.ping()):
            with pytest.raises(Unavailable):
                await ask


async def test_long_entries_are_kept_whole_and_too_long_ones_are_refused(store, table):
    """Up to what an item of a table can hold; beyond it nothing is written, and others notice nothing."""
    await make_room(store)
    sizes = [40_000, 300_000, 389_000]
    entries = [await say(store, "x" * size, client_id=f"{size}") for size in sizes]
    await edit(store, entries[1].seq, "y" * 300_000)
    before = await items(table)
    results = await asyncio.gather(
        say(store, "x" * 391_000, client_id="big"),
        edit(store, entries[0].seq, "x" * 391_000),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [TooLarge, TooLarge]
    assert await items(table) == before
    page = await store.page(ROOM)
    assert [len(entry.text) for entry in page.entries[1:]] == [*sizes, 300_000]
    assert seqs((await store.page(ROOM, after=1, limit=2)).entries) == [2, 3]
    assert (await store.page(ROOM, before=4)).changes[0].text == "y" * 300_000


async def test_a_page_of_more_than_one_request_can_carry_is_whole(store):
    """Both ways, in order, without a hole."""
    await make_room(store)
    texts = [f"{n}" * 70_000 for n in range(1, 10)]
    await asyncio.gather(*(say(store, text, by=f"user{n}") for n, text in enumerate(texts * 4)))
    for page in (await store.page(ROOM, limit=36), await store.page(ROOM, after=1, limit=200)):
        assert [entry.text for entry in page.entries] == texts * 4
    assert (await store.page(ROOM, around=20, limit=35)).has_more


async def test_what_cannot_be_written_with_others_does_not_take_them_along(store):
    """A transaction's limits are kept by how many share it."""
    await make_room(store)
    results = await asyncio.gather(
        *(say(store, "x" * 380_000, by=f"user{n}", client_id="c1") for n in range(12)),
        *(join(store, f"user{n}", Role.MEMBER) for n in range(40)),
        *(say(store, by=f"user{n}", client_id="c2", thread=2) for n in range(40)),
    )
    assert seqs(results) == list(range(2, 94))
    assert (await store.room(ROOM)).members == 40
    assert (await state(store, "user39")).read == 93
    assert len((await store.page(ROOM, thread=2, limit=100)).entries) == 41


async def test_of_messages_that_much_has_become_of_a_page_shows_the_last(store):
    """However many edits and reactions one of them has, the others' are there too."""
    await make_room(store)
    first, busy, last = await say_many(store, 3)
    await asyncio.gather(*(edit(store, busy.seq, f"{n}") for n in range(1_050)))
    early = await react(store, first.seq)
    liked = await asyncio.gather(*(react(store, busy.seq, by=f"user{n}") for n in range(1_010)))
    late = await react(store, last.seq)
    page = await store.page(ROOM, before=last.seq + 1)
    assert len(page.changes) == 1_000
    assert page.changes[0].text == "1049"
    assert page.changes[-1] == late
    assert page.changes[1:-1] == liked[-998:]
    page = await store.page(ROOM, before=busy.seq)
    assert page.changes == [early]
