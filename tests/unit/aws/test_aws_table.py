"""What `Table` does about answers that servers of DynamoDB's API on this machine never give."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from awslab import Clock, Wire, refused, said, service
from hubbub.aws.http import Broken, HttpResponse
from hubbub.aws.service import AwsError
from hubbub.aws.table import Cancelled, ConditionFailed, Item, Put, Table, TableMissing

ITEM: Item = {"pk": "a", "sk": "1", "n": 1}
PACKED = {"pk": {"S": "a"}, "sk": {"S": "1"}, "n": {"N": "1"}}
KEY = ("a", "1")


def table(*answers: HttpResponse | Exception, **options: Any) -> tuple[Table, Wire, Clock]:
    """A table on a wire that answers so."""
    wire, clock = Wire(*answers), Clock()
    return Table(service(wire, clock=clock), "chat", **options), wire, clock


# What is left undone


async def test_keys_that_were_left_out_are_asked_for_again() -> None:
    """Keys that DynamoDB had no time for are asked for again after a wait, with what is wanted of them."""
    other = {"pk": {"S": "b"}, "sk": {"S": "1"}}
    left = {"chat": {"Keys": [{"pk": {"S": "a"}, "sk": {"S": "1"}}], "ConsistentRead": False}}
    made, wire, clock = table(
        said(200, {"Responses": {"chat": [other]}, "UnprocessedKeys": left}),
        said(200, {"Responses": {"chat": []}, "UnprocessedKeys": left}),
        said(200, {"Responses": {"chat": [PACKED]}, "UnprocessedKeys": {}}),
    )
    found = await made.get_many([KEY, ("b", "1"), ("c", "1")], consistent=False)
    assert found == {KEY: ITEM, ("b", "1"): {"pk": "b", "sk": "1"}}
    assert [len(asked.document["RequestItems"]["chat"]["Keys"]) for asked in wire.asked] == [3, 1, 1]
    assert all(asked.document["RequestItems"]["chat"]["ConsistentRead"] is False for asked in wire.asked)
    assert len(clock.waits) == 2


async def test_writes_that_were_left_out_are_tried_again() -> None:
    """Writes that DynamoDB had no time for are sent again after a wait, and no others."""
    left = {"chat": [{"DeleteRequest": {"Key": {"pk": {"S": "b"}, "sk": {"S": "1"}}}}]}
    made, wire, clock = table(said(200, {"UnprocessedItems": left}), said(200, {"UnprocessedItems": {}}))
    await made.write_many([ITEM], [("b", "1")])
    assert wire.asked[0].document["RequestItems"]["chat"] == [{"PutRequest": {"Item": PACKED}}, *left["chat"]]
    assert wire.asked[1].document["RequestItems"] == left
    assert len(clock.waits) == 1


async def test_what_stays_undone_is_a_throttle() -> None:
    """When the time is over and something is still left undone, the error says how much."""
    left = {"chat": [{"PutRequest": {"Item": PACKED}}]}
    made, _, clock = table(said(200, {"UnprocessedItems": left}), deadline_s=2.0)
    began = clock.monotonic()
    with pytest.raises(AwsError, match="BatchWriteItem: 1 of 2 are left undone") as failed:
        await made.write_many([ITEM], [("b", "1")])
    assert failed.value.is_throttle
    assert clock.monotonic() < began + 2


async def test_one_part_that_fails_is_the_failure_of_all() -> None:
    """Of many calls of which some fail, the error is that of the first and no group of errors."""
    made, _, _ = table(refused("ResourceNotFoundException"))
    with pytest.raises(TableMissing):
        await made.get_many([("a", str(n)) for n in range(450)])


async def test_many_calls_are_made_at_a_time_and_not_all() -> None:
    """What takes many calls is done with a bounded number of them at a time."""
    at_once = most_at_once = 0

    class Slow(Wire):
        async def request(self, *args: Any, **options: Any) -> HttpResponse:
            nonlocal at_once, most_at_once
            at_once += 1
            most_at_once = max(at_once, most_at_once)
            await asyncio.sleep(0)
            at_once -= 1
            return await super().request(*args, **options)

    made = Table(service(Slow(said(200, {}))), "chat")
    await made.write_many([{"pk": "a", "sk": str(n)} for n in range(1_000)])
    assert most_at_once == 16


async def test_a_key_is_written_once_a_call() -> None:
    """Two writes of one item in one batch are an error, since nobody knows which comes last."""
    made, wire, _ = table(said(200, {}))
    with pytest.raises(ValueError, match=r"write_many: expected each key once, got \('a', '1'\) several times"):
        await made.write_many([ITEM], [("b", "1"), KEY])
    assert wire.asked == []


# Doubt


async def test_a_put_that_was_done_after_all_has_succeeded() -> None:
    """A put with a condition whose first answer was lost, and that finds its own item there, is done."""
    failed = said(400, {"__type": "x#ConditionalCheckFailedException", "message": "no", "Item": PACKED})
    made, wire, _ = table(Broken("gone"), failed)
    await made.put(ITEM, condition="attribute_not_exists(pk)")
    assert len(wire.asked) == 2


async def test_a_put_that_finds_another_item_has_failed() -> None:
    """If another item is there, or there was no doubt, the condition has failed."""
    other = said(400, {"__type": "x#ConditionalCheckFailedException", "Item": {**PACKED, "n": {"N": "2"}}})
    made, _, _ = table(Broken("gone"), other)
    with pytest.raises(ConditionFailed) as failed:
        await made.put(ITEM, condition="attribute_not_exists(pk)")
    assert failed.value.item == {**ITEM, "n": 2}
    assert failed.value.is_in_doubt
    made, _, _ = table(said(400, {"__type": "x#ConditionalCheckFailedException", "Item": PACKED}))
    with pytest.raises(ConditionFailed):
        await made.put(ITEM, condition="attribute_not_exists(pk)")


async def test_writes_that_cannot_be_told_apart_are_not_repeated() -> None:
    """An update, or a delete that tells what was there, is not sent again where it may have been done."""
    for call in (
        lambda made: made.update(KEY, "ADD n :one", values={"one": 1}),
        lambda made: made.delete(KEY, returns_old=True),
        lambda made: made.delete(KEY, condition="attribute_exists(pk)"),
    ):
        made, wire, _ = table(Broken("gone"), said(200, {}))
        with pytest.raises(AwsError) as failed:
            await call(made)
        assert failed.value.is_in_doubt
        assert len(wire.asked) == 1


async def test_writes_that_may_be_done_twice_are_repeated() -> None:
    """A put, a plain delete, an update that says so, and everything that reads is sent again."""
    for call in (
        lambda made: made.put(ITEM),
        lambda made: made.delete(KEY),
        lambda made: made.update(KEY, "SET n = :one", values={"one": 1}, repeat=True),
        lambda made: made.write_many([ITEM]),
        lambda made: made.get(KEY),
        lambda made: made.get_many([KEY]),
    ):
        made, wire, _ = table(Broken("gone"), said(200, {}))
        await call(made)
        assert len(wire.asked) == 2


async def test_a_transaction_is_repeated_under_its_token() -> None:
    """A transaction whose answer was lost is sent again with the same token; the next one has another."""
    made, wire, _ = table(Broken("gone"), said(200, {}))
    await made.transact(Put(ITEM))
    await made.transact(Put(ITEM))
    first, again, other = [asked.document["ClientRequestToken"] for asked in wire.asked]
    assert first == again != other
    assert 1 <= len(first) <= 36


# Refusals


def cancelled(*reasons: dict[str, Any]) -> HttpResponse:
    """A transaction that was cancelled for these reasons."""
    return said(400, {"__type": "x#TransactionCanceledException", "Message": "no", "CancellationReasons": reasons})


async def test_a_conflict_is_told_from_a_condition() -> None:
    """A transaction that only others stood in the way of may be tried again; one with a condition in its way not."""
    conflict, throttle = {"Code": "TransactionConflict", "Message": "x"}, {"Code": "ThrottlingError"}
    failed = {"Code": "ConditionalCheckFailed", "Item": PACKED}
    for reasons, is_conflict in (
        ([{"Code": "None"}, conflict], True),
        ([conflict, throttle], True),
        ([throttle, {"Code": "None"}], True),
        ([conflict, failed], False),
        ([failed], False),
        ([{"Code": "ValidationError"}, conflict], False),
    ):
        made, wire, _ = table(cancelled(*reasons))
        with pytest.raises(Cancelled) as told:
            await made.transact(Put(ITEM))
        assert told.value.is_conflict is is_conflict
        assert len(wire.asked) == 1
    assert told.value.reasons[0].code == "ValidationError"


# The table


async def test_a_table_is_waited_for() -> None:
    """`create` returns when the table takes calls, and turns on what makes items expire."""
    creating, active = ({"Table": {"TableStatus": status}} for status in ("CREATING", "ACTIVE"))
    lasting = {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}
    made, wire, clock = table(said(200, {}), said(200, creating), said(200, active), said(200, lasting), said(200, {}))
    await made.create()
    names = [asked.headers["X-Amz-Target"].partition(".")[2] for asked in wire.asked]
    assert names == ["CreateTable", "DescribeTable", "DescribeTable", "DescribeTimeToLive", "UpdateTimeToLive"]
    assert wire.asked[-1].document["TimeToLiveSpecification"] == {"Enabled": True, "AttributeName": "ttl"}
    assert len(clock.waits) == 1


async def test_a_table_that_does_not_come_is_not_waited_for_for_ever() -> None:
    """A table that is not there in time is an error that says what it is doing instead."""
    made, _, _ = table(said(200, {}), said(200, {"Table": {"TableStatus": "CREATING"}}))
    with pytest.raises(AwsError, match="chat is CREATING after 3 s"):
        await made.create(within_s=3)


async def test_a_table_that_may_not_be_made_is_an_error() -> None:
    """A refusal to make it is raised."""
    made, _, _ = table(refused("AccessDeniedException"))
    with pytest.raises(AwsError, match="AccessDeniedException"):
        await made.create()
