"""What `Table` promises, on real servers of DynamoDB's API."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from dynamolab import REGION, Server, fresh_table, service
from hubbub.aws.credentials import Fixed
from hubbub.aws.http import HttpClient
from hubbub.aws.service import AwsError, Service, Unanswered
from hubbub.aws.table import Cancelled, Check, ConditionFailed, Delete, Item, Key, Put, Table, TableMissing, Update
from hubbub.sigv4 import Credentials

ITEM: Item = {
    "pk": "room#a",
    "sk": "room",
    "name": "Größe",
    "count": 10**30,
    "debt": -7,
    "raw": b"\x00\xff",
    "is_open": True,
    "nothing": None,
    "deep": {"list": [1, "two", {"three": False}], "empty": {}, "none": []},
    "tags": {"x", "y"},
    "empty": "",
}
KEY: Key = ("room#a", "room")


# One item


async def test_what_is_put_is_got(table: Table) -> None:
    """An item comes back with every kind of value as it was put; one that is not there is None."""
    await table.put(ITEM)
    assert await table.get(KEY) == ITEM
    assert await table.get(KEY, consistent=False) == ITEM
    assert await table.get(("room#a", "nothing")) is None


async def test_a_put_takes_the_place_of_what_is_there(table: Table) -> None:
    """Nothing is left of the item that was there."""
    await table.put(ITEM)
    await table.put({"pk": "room#a", "sk": "room", "new": 1})
    assert await table.get(KEY) == {"pk": "room#a", "sk": "room", "new": 1}


async def test_only_some_attributes(table: Table) -> None:
    """`only` names the attributes that come, reserved words too, whether they are there or not."""
    await table.put(ITEM)
    assert await table.get(KEY, only=["name", "count", "missing"]) == {"name": "Größe", "count": 10**30}
    assert await table.get_many([KEY], only=["name"]) == {KEY: {"pk": "room#a", "sk": "room", "name": "Größe"}}
    page = await table.query("room#a", only=["sk", "name"])
    assert page.items == [{"sk": "room", "name": "Größe"}]


async def test_a_condition_that_does_not_hold_tells_what_is_there(table: Table) -> None:
    """A write whose condition does not hold does nothing and raises, with the item that is there if one is."""
    await table.put(ITEM)
    with pytest.raises(ConditionFailed) as failed:
        await table.put({"pk": "room#a", "sk": "room"}, condition="attribute_not_exists(pk)")
    assert failed.value.item == ITEM
    assert not failed.value.is_in_doubt
    with pytest.raises(ConditionFailed) as failed:
        await table.update(("room#b", "room"), "SET x = :x", condition="attribute_exists(pk)", values={"x": 1})
    assert failed.value.item is None
    with pytest.raises(ConditionFailed) as failed:
        await table.delete(KEY, condition="#count < :most", values={"most": 5})
    assert failed.value.item == ITEM
    assert await table.get(KEY) == ITEM
    assert await table.get(("room#b", "room")) is None


async def test_an_update_returns_what_it_is_asked_for(table: Table) -> None:
    """The item as it is then, as it was, or nothing; one that was not there is made."""
    assert await table.update(("a", "1"), "SET #name = :name, n = :n", values={"name": "x", "n": 1}) == {}
    new = await table.update(("a", "1"), "SET n = n + :by REMOVE #name", values={"by": 4}, returns="ALL_NEW")
    assert new == {"pk": "a", "sk": "1", "n": 5}
    old = await table.update(("a", "1"), "ADD n :by", values={"by": -5}, returns="ALL_OLD")
    assert old == new
    assert await table.update(("a", "2"), "ADD tags :tags", values={"tags": {"x"}}, returns="ALL_OLD") == {}
    assert await table.get_many([("a", "1"), ("a", "2")]) == {
        ("a", "1"): {"pk": "a", "sk": "1", "n": 0},
        ("a", "2"): {"pk": "a", "sk": "2", "tags": {"x"}},
    }


async def test_updates_at_once_all_count(table: Table) -> None:
    """Updates of one item at the same time are done one after the other, and each is told its own outcome."""
    for n in range(20):
        key = ("a", str(n))
        told = await asyncio.gather(
            *[table.update(key, "ADD n :one", values={"one": 1}, returns="ALL_NEW") for _ in range(6)]
        )
        assert {item["n"] for item in told} == set(range(1, 7))
        assert await table.get(key) == {"pk": "a", "sk": str(n), "n": 6}


async def test_a_delete_returns_what_was_there_if_asked(table: Table) -> None:
    """What was deleted comes back on request; what is not there is no error."""
    await table.put(ITEM)
    assert await table.delete(KEY, returns_old=True) == ITEM
    assert await table.delete(KEY, returns_old=True) is None
    await table.put(ITEM)
    assert await table.delete(KEY, condition="#name = :name", values={"name": "Größe"}) is None
    assert await table.get(KEY) is None


async def test_what_is_deleted_is_told_once(table: Table) -> None:
    """Of several that delete an item at once and ask what was there, one is told."""
    for n in range(20):
        key = ("a", str(n))
        await table.put({"pk": "a", "sk": str(n)})
        told = await asyncio.gather(*[table.delete(key, returns_old=True) for _ in range(4)])
        assert [old for old in told if old is not None] == [{"pk": "a", "sk": str(n)}]


# Many items


async def test_many_more_than_one_call_takes(table: Table) -> None:
    """Any number of items is written, got and deleted, in as many calls as that takes."""
    items: list[Item] = [{"pk": f"p{n % 7}", "sk": f"{n:04d}", "n": n} for n in range(230)]
    keys = [(str(item["pk"]), str(item["sk"])) for item in items]
    await table.write_many(items)
    assert table.used.requests["BatchWriteItem"] == 10
    assert await table.get_many([*keys, ("none", "none"), keys[0]]) == dict(zip(keys, items, strict=True))
    assert table.used.requests["BatchGetItem"] == 3
    await table.write_many([{"pk": "new", "sk": "new"}], keys)
    assert await table.get_many([*keys, ("new", "new")]) == {("new", "new"): {"pk": "new", "sk": "new"}}


async def test_what_one_answer_does_not_hold_is_asked_for_again(table: Table) -> None:
    """Items that are too many bytes for one answer come all the same."""
    items: list[Item] = [{"pk": "big", "sk": f"{n:02d}", "raw": b"x" * 350_000} for n in range(55)]
    for begin in range(0, len(items), 5):
        await table.write_many(items[begin : begin + 5])
    keys = [("big", str(item["sk"])) for item in items]
    assert await table.get_many(keys) == dict(zip(keys, items, strict=True))


async def test_nothing_is_no_call(table: Table) -> None:
    """No keys and no items are no request."""
    before = table.used.requests.total()
    assert await table.get_many([]) == {}
    await table.write_many()
    assert table.used.requests.total() == before


# Queries

LINE = ["", "a", "b#1", "b#10", "b#2", "b#\uffff", "b#\U0001f600", "b$", "c", "é"]


async def query_all(table: Table, **options: Any) -> tuple[list[str], int]:
    """The `sk` of all items that a query finds, page by page, and how many pages there were."""
    found: list[str] = []
    pages, start = 0, options.pop("start", None)
    while True:
        page = await table.query("line", start=start, **options)
        assert page.count == len(page.items)
        found += [str(item["sk"]) for item in page.items]
        pages += 1
        if page.next is None:
            return found, pages
        start = page.next


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, LINE[1:]),
        ({"prefix": "b#"}, LINE[2:7]),
        ({"prefix": ""}, LINE[1:]),
        ({"low": "b#10"}, LINE[3:]),
        ({"high": "b#10"}, LINE[1:4]),
        ({"low": "b", "high": "c"}, LINE[2:9]),
        ({"low": "c", "high": "b"}, []),
        ({"prefix": "b#", "low": "b#10"}, LINE[3:7]),
        ({"prefix": "b#", "high": "b#10"}, LINE[2:4]),
        ({"prefix": "b#", "low": "a", "high": "z"}, LINE[2:7]),
        ({"prefix": "b#", "low": "c"}, []),
        ({"start": "b#1"}, LINE[3:]),
        ({"start": "b#15"}, LINE[4:]),
        ({"start": "b", "prefix": "b#"}, LINE[2:7]),
        ({"start": "b#1", "prefix": "b#"}, LINE[3:7]),
        ({"start": "c", "prefix": "b#"}, []),
        ({"start": "a", "low": "b#1", "high": "b#10"}, LINE[2:4]),
        ({"start": "b#2", "high": "b#10"}, []),
    ],
)
async def test_queries_find_what_lies_between(table: Table, options: dict[str, Any], expected: Sequence[str]) -> None:
    """Bounds belong to it, a prefix and bounds go together, and `start` need not be there or within."""
    await table.write_many([{"pk": "line", "sk": sk} for sk in LINE if sk])
    await table.put({"pk": "other", "sk": "b#1"})
    assert await query_all(table, **options) == (list(expected), 1)
    found, _ = await query_all(table, limit=2, **options)
    assert found == list(expected)
    counted = await table.query("line", count_only=True, **options)
    assert (counted.items, counted.count) == ([], len(expected))


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, LINE[1:]),
        ({"prefix": "b#"}, LINE[2:7]),
        ({"low": "b", "high": "c"}, LINE[2:9]),
        ({"start": "b#15"}, LINE[1:4]),
        ({"start": "b#1", "prefix": "b#"}, []),
        ({"start": "c", "prefix": "b#"}, LINE[2:7]),
        ({"start": "b#2", "low": "b#10"}, LINE[3:4]),
        ({"start": "a", "low": "b#10"}, []),
    ],
)
async def test_queries_go_backwards(table: Table, options: dict[str, Any], expected: Sequence[str]) -> None:
    """From behind a query finds the same, in the other order, and `start` is where it has come from."""
    await table.write_many([{"pk": "line", "sk": sk} for sk in LINE if sk])
    assert await query_all(table, descending=True, **options) == (list(reversed(expected)), 1)
    found, _ = await query_all(table, descending=True, limit=2, **options)
    assert found == list(reversed(expected))


async def test_a_page_has_at_most_a_megabyte(table: Table) -> None:
    """More than one answer holds comes page by page."""
    await table.write_many([{"pk": "line", "sk": f"{n:02d}", "raw": b"x" * 300_000} for n in range(8)])
    found, pages = await query_all(table)
    assert found == [f"{n:02d}" for n in range(8)]
    assert pages > 1


# Transactions


async def test_a_transaction_is_done_whole(table: Table) -> None:
    """A transaction of every kind of action is done."""
    await table.write_many([{"pk": "a", "sk": "1", "n": 1}, {"pk": "b", "sk": "1"}, {"pk": "c", "sk": "1"}])
    await table.transact(
        Put({"pk": "d", "sk": "1"}, "attribute_not_exists(pk)"),
        Update(("a", "1"), "SET n = n + :one", "#n = :old", {"one": 1, "old": 1}),
        Delete(("b", "1"), "attribute_exists(pk)"),
        Check(("c", "1"), "attribute_exists(pk)"),
    )
    found = await table.get_many([("a", "1"), ("b", "1"), ("d", "1")])
    assert found == {("a", "1"): {"pk": "a", "sk": "1", "n": 2}, ("d", "1"): {"pk": "d", "sk": "1"}}


async def test_a_transaction_is_left_whole(table: Table) -> None:
    """A transaction of which one condition does not hold does nothing, and says which and what is there."""
    await table.put(ITEM)
    with pytest.raises(Cancelled) as cancelled:
        await table.transact(
            Put({"pk": "x", "sk": "x"}),
            Put({"pk": "room#a", "sk": "room"}, "attribute_not_exists(pk)"),
            Check(("y", "y"), "attribute_exists(pk)"),
        )
    failed = "ConditionalCheckFailed"
    assert [reason.code for reason in cancelled.value.reasons] == [None, failed, failed]
    assert [reason.item for reason in cancelled.value.reasons] == [None, ITEM, None]
    assert not cancelled.value.is_conflict
    assert await table.get(("x", "x")) is None


async def test_of_many_that_want_one_place_one_gets_it(table: Table) -> None:
    """Transactions at the same time that each want to be the first are done one at most."""

    async def write(n: int) -> int | None:
        while True:
            try:
                await table.transact(
                    Put({"pk": "log", "sk": "1", "by": n}, "attribute_not_exists(pk)"), Put({"pk": "of", "sk": str(n)})
                )
            except Cancelled as cancelled:
                if not cancelled.is_conflict:
                    assert cancelled.reasons[0].item is not None
                    return None
            else:
                return n

    [winner] = [n for n in await asyncio.gather(*map(write, range(12))) if n is not None]
    assert (await table.get(("log", "1"))) == {"pk": "log", "sk": "1", "by": winner}
    assert [item["sk"] for item in (await table.query("of")).items] == [str(winner)]


async def test_a_hundred_actions_are_one_transaction(table: Table) -> None:
    """As many actions as AWS takes go in one; more are an error, and so are none."""
    puts = [Put({"pk": "many", "sk": f"{n:03d}"}) for n in range(101)]
    await table.transact(*puts[:100])
    assert (await table.query("many", count_only=True)).count == 100
    for wrong in ([], puts):
        with pytest.raises(ValueError, match=f"transact: expected 1 to 100 actions, got {len(wrong)}"):
            await table.transact(*wrong)


# The table


async def test_a_table_is_made_once(dynamodb: Server) -> None:
    """Making a table that is there changes nothing; its items expire by `ttl`."""
    async with fresh_table(dynamodb) as table, HttpClient() as http:
        await table.put(ITEM)
        await table.create()
        assert await table.get(KEY) == ITEM
        asked = await service(http, dynamodb).call("DescribeTimeToLive", {"TableName": table.name})
        assert asked["TimeToLiveDescription"] == {"AttributeName": "ttl", "TimeToLiveStatus": "ENABLED"}
        asked = await service(http, dynamodb).call("DescribeTable", {"TableName": table.name})
        assert asked["Table"]["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"


async def test_a_table_that_is_missing_is_told_from_all_else(dynamodb: Server) -> None:
    """Every call on a table that is not there raises `TableMissing`, but deleting it."""
    async with HttpClient() as http:
        table = Table(service(http, dynamodb), "nowhere")
        for call in (
            table.get(KEY),
            table.get_many([KEY]),
            table.query("room#a"),
            table.put(ITEM),
            table.update(KEY, "SET x = :x", values={"x": 1}),
            table.delete(KEY),
            table.write_many([ITEM]),
            table.transact(Put(ITEM)),
        ):
            with pytest.raises(TableMissing):
                await call
        await table.drop()


async def test_what_is_wrong_is_told_in_dynamodbs_words(table: Table) -> None:
    """An expression that is none is an error with what DynamoDB says about it, and is not tried again."""
    with pytest.raises(AwsError) as failed:
        await table.update(KEY, "NONSENSE x")
    assert failed.value.type == "ValidationException"
    assert "yntax" in failed.value.message or "nvalid" in failed.value.message
    assert failed.value.status == 400


async def test_use_is_counted(dynamodb: Server) -> None:
    """Calls are counted by operation, and capacity units if they are measured."""
    async with fresh_table(dynamodb, measure=True) as table:
        table.used.requests.clear()
        await table.put(ITEM)
        await table.get(KEY)
        await table.query("room#a")
        used = table.used.read_units, table.used.write_units
        await table.transact(Put({"pk": "b", "sk": "1"}))
        assert table.used.requests == {"PutItem": 1, "GetItem": 1, "Query": 1, "TransactWriteItems": 1}
        # Both servers count transactions otherwise than DynamoDB, and moto what is read.
        assert used[1] == 1.0
        assert used[0] == 2.0 if dynamodb.name == "dynamodb-local" else used[0] > 0
        assert "PutItem" in repr(table)


async def test_no_server_is_no_answer(dynamodb: Server) -> None:
    """Where no DynamoDB is, calls end at their deadline, and surely nothing was done."""
    async with HttpClient() as http:
        nobody = Service(
            http,
            "dynamodb",
            region=REGION,
            credentials=Fixed(Credentials("a", "b")),
            endpoint="http://127.0.0.1:1",
            environment={},
        )
        with pytest.raises(Unanswered) as failed:
            await Table(nobody, "any", deadline_s=0.1).put(ITEM)
        assert not failed.value.is_in_doubt


# Reading ahead


async def test_what_was_read_ahead_is_not_read_again_until_this_process_writes_it(table: Table) -> None:
    """By `get` and `get_many` alike, and by whatever way it is written; what it was expected beside still holds."""
    other: Key = ("room#b", "room")
    await table.write_many([ITEM, {"pk": "room#b", "sk": "room", "n": 0}])
    writes = (
        lambda: table.put({"pk": "room#b", "sk": "room", "n": 1}),
        lambda: table.update(other, "SET n = :n", values={"n": 2}),
        lambda: table.transact(Update(other, "SET n = :n", values={"n": 3})),
        lambda: table.write_many([{"pk": "room#b", "sk": "room", "n": 4}]),
    )
    for number, write in enumerate(writes, 1):
        table.ahead.expect([KEY, other, ("room#c", "room")])
        assert await table.get(KEY) == ITEM
        assert (await table.get_many([KEY, other, ("room#c", "room")]))[other]["n"] == number - 1
        before = table.used.requests.total()
        await write()
        assert (await table.get_many([KEY, other]))[other]["n"] == number
        assert await table.get(KEY) == ITEM
        assert table.used.requests.total() - before == 2
    table.ahead.expect([other])
    await table.delete(other)
    assert await table.get(other) is None
    table.ahead.clear()
