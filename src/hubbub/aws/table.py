"""One DynamoDB table of items with keys `pk` and `sk`: its calls, without DynamoDB's own way of writing values.

Expressions are DynamoDB's. Names that are reserved words are written `#name`; values are written `:name` and given as
`values={"name": …}`. Numbers are whole. Source: the DynamoDB API reference, and "Expressions" in its developer guide.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from hubbub.aws.ahead import Ahead
from hubbub.aws.expressions import (
    NO_VALUES,
    Action,
    Check,
    Delete,
    Put,
    Update,
    action_of,
    conditional,
    projection,
    range_of,
)
from hubbub.aws.marshalling import Item, Key, Value, item_of, key_of, pack_key, unpack_item
from hubbub.aws.refusals import Cancelled, ConditionFailed, Reason, TableMissing, translated
from hubbub.aws.service import AwsError, Service
from hubbub.entropy import random_bytes
from hubbub.parallel import FEW_AT_ONCE, each

__all__ = [
    "Action",
    "Cancelled",
    "Check",
    "ConditionFailed",
    "Delete",
    "Item",
    "Key",
    "Put",
    "QueryPage",
    "Reason",
    "Table",
    "TableMissing",
    "Update",
    "Usage",
    "Value",
]

GET_AT_ONCE = 100
"""How many items one BatchGetItem may ask for."""

WRITE_AT_ONCE = 25
"""How many items one BatchWriteItem may write."""

TRANSACT_AT_ONCE = 100
"""How many actions one transaction may have."""

ResultT = TypeVar("ResultT")


class Usage:
    """What a table's calls have used.

    Attributes:
        requests: how many, by operation; tries that AWS refused are not among them.
        read_units, write_units: capacity units, if they are measured.

    """

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.read_units = 0.0
        self.write_units = 0.0

    def __repr__(self) -> str:
        return f"<Usage {dict(self.requests)}, {self.read_units:g} read, {self.write_units:g} written>"


class QueryPage(msgspec.Struct, frozen=True):
    """What one query found.

    Attributes:
        items: in order of `sk`; none if they were only counted.
        count: how many.
        next: the `sk` after which there may be more; None at the end.

    """

    items: list[Item]
    count: int
    next: str | None


class Table:
    """A table.

    All methods raise `TableMissing` if it is not there, and `AwsError` for what else AWS refuses or does not answer.

    Args:
        service: DynamoDB.
        name: the table's.
        measure: whether AWS is asked for the capacity that each call uses.
        deadline_s: until when tries of one call are made.

    Attributes:
        used: what calls have used so far.
        ahead: what is read before it is asked for; `get` and `get_many` take it from there.

    """

    def __init__(self, service: Service, name: str, *, measure: bool = False, deadline_s: float = 10.0) -> None:
        self.name = name
        self.used = Usage()
        self.ahead = Ahead(self._get_many)
        self._service = service
        self._measure = measure
        self._deadline_s = deadline_s

    def __repr__(self) -> str:
        return f"<Table {self.name}, {self.used}>"

    # Reading

    async def get(self, key: Key, *, consistent: bool = True, only: Sequence[str] = ()) -> Item | None:
        """An item; None if there is none.

        Args:
            key: its.
            consistent: whether every write that was acknowledged before is seen.
            only: the names of the attributes that are wanted; all by default, and where it was read ahead.

        """
        is_known, item = await self.ahead.take(key)
        if is_known:
            return item
        request = {"Key": pack_key(key), "ConsistentRead": consistent, **projection(only)}
        answer = await self._call("GetItem", request)
        return unpack_item(answer["Item"]) if "Item" in answer else None

    async def get_many(
        self, keys: Sequence[Key], *, consistent: bool = True, only: Sequence[str] = ()
    ) -> dict[Key, Item]:
        """Those of the items that are there, by key.

        Args:
            keys: any number; several times the same one is once.
            consistent, only: as `get`; `only` has the keys beside what it names.

        """
        wanted = dict.fromkeys(keys)
        found: dict[Key, Item] = {}
        for key in self.ahead.known(wanted):
            is_known, item = await self.ahead.take(key)
            if is_known:
                del wanted[key]
                if item is not None:
                    found[key] = item
        return {**found, **await self._get_many(list(wanted), consistent=consistent, only=only)}

    async def _get_many(
        self, wanted: Sequence[Key], *, consistent: bool = True, only: Sequence[str] = ()
    ) -> dict[Key, Item]:
        options = {"ConsistentRead": consistent, **projection(only and [*dict.fromkeys(("pk", "sk", *only))])}
        found: dict[Key, Item] = {}

        async def fetch(part: Sequence[Key]) -> None:
            asked = [pack_key(key) for key in part]
            async for answer in self._batches("BatchGetItem", lambda left: {**options, "Keys": left}, asked):
                for packed in answer.get("Responses", {}).get(self.name, ()):
                    item = unpack_item(packed)
                    found[key_of(item)] = item

        await each(fetch, _parts(wanted, GET_AT_ONCE), at_once=FEW_AT_ONCE)
        return found

    async def query(
        self,
        pk: str,
        *,
        low: str | None = None,
        high: str | None = None,
        prefix: str | None = None,
        limit: int | None = None,
        descending: bool = False,
        consistent: bool = True,
        start: str | None = None,
        only: Sequence[str] = (),
        count_only: bool = False,
    ) -> QueryPage:
        """Items with one `pk` in order of `sk`: as many as one request returns, which is at most 1 MB.

        Args:
            pk: theirs.
            low, high: the least and the greatest `sk`; both belong to it.
            prefix: what `sk` begins with.
            limit: the most items.
            descending: whether the greatest `sk` comes first.
            consistent: whether every write that was acknowledged before is seen.
            start: the `sk` after which to begin, as `QueryPage.next` has it; it need not be there.
            only: the names of the attributes that are wanted; all by default.
            count_only: whether only their number is wanted.

        """
        within = range_of(low, high, prefix, start, descending=descending)
        if within is None:
            return QueryPage([], 0, None)
        request: dict[str, Any] = {  # Any: JSON
            "KeyConditionExpression": f"pk = :pk{within.condition}",
            "ExpressionAttributeValues": {":pk": {"S": pk}, **within.values},
            "ConsistentRead": consistent,
            **projection(only),
        }
        if descending:
            request["ScanIndexForward"] = False
        if limit is not None:
            request["Limit"] = limit
        if within.start is not None:
            request["ExclusiveStartKey"] = pack_key((pk, within.start))
        if count_only:
            request["Select"] = "COUNT"
        answer = await self._call("Query", request)
        last = answer.get("LastEvaluatedKey")
        items = [unpack_item(packed) for packed in answer.get("Items", ())]
        return QueryPage(items, answer["Count"], last["sk"]["S"] if last else None)

    # Writing

    async def put(self, item: Item, *, condition: str | None = None, values: Mapping[str, Value] = NO_VALUES) -> None:
        """Write an item in place of what is there.

        It may be written twice when an answer was lost. With a condition that is noticed: what is there then is the
        very item.

        Raises:
            ConditionFailed: the condition does not hold.

        """
        self.ahead.forget([key_of(item)])
        request = {"Item": item_of(item), **conditional(condition, values)}
        try:
            await self._call("PutItem", request)
        except ConditionFailed as failed:
            if not (failed.is_in_doubt and failed.item == item):
                raise

    async def update(
        self,
        key: Key,
        expression: str,
        *,
        condition: str | None = None,
        values: Mapping[str, Value] = NO_VALUES,
        returns: Literal["NONE", "ALL_NEW", "ALL_OLD"] = "NONE",
        repeat: bool = False,
    ) -> Item:
        """Change an item, which is made if it is not there.

        Args:
            key: its.
            expression: such as `SET #name = :name REMOVE old`.
            condition: what must hold of what is there.
            values: those in both.
            returns: whether the item is returned as it is then, or was.
            repeat: whether doing it twice does what doing it once does. Else it is not tried again where it may have
                been done, and `is_in_doubt` of the error says so.

        Raises:
            ConditionFailed: the condition does not hold.

        """
        self.ahead.forget([key])
        request = {"Key": pack_key(key), "ReturnValues": returns, **conditional(condition, values, expression)}
        answer = await self._call("UpdateItem", request, repeat=repeat)
        return unpack_item(answer.get("Attributes", {}))

    async def delete(
        self,
        key: Key,
        *,
        condition: str | None = None,
        values: Mapping[str, Value] = NO_VALUES,
        returns_old: bool = False,
    ) -> Item | None:
        """Delete an item; one that is not there is no error.

        With a condition, or if what was there is wanted, it is not tried again where it may have been done.

        Args:
            key: its.
            condition: what must hold of what is there.
            values: those in it.
            returns_old: whether what was there is returned.

        Raises:
            ConditionFailed: the condition does not hold.

        """
        self.ahead.forget([key])
        # DynamoDB Local tells each of two deletes at the same time what was there, unless they have conditions.
        must_be_there = "attribute_exists(pk)" if returns_old else None
        request = {"Key": pack_key(key), **conditional(condition or must_be_there, values)}
        if returns_old:
            request["ReturnValues"] = "ALL_OLD"
        try:
            answer = await self._call("DeleteItem", request, repeat=condition is None and not returns_old)
        except ConditionFailed:
            if condition is None:
                return None
            raise
        return unpack_item(answer["Attributes"]) if "Attributes" in answer else None

    async def write_many(self, puts: Sequence[Item] = (), deletes: Sequence[Key] = ()) -> None:
        """Write and delete items, each for itself: where it fails, some are done.

        Raises:
            ValueError: several of them are about one item.

        """
        requests: list[dict[str, Any]] = [{"PutRequest": {"Item": item_of(item)}} for item in puts]  # Any: JSON
        requests += [{"DeleteRequest": {"Key": pack_key(key)}} for key in deletes]
        keys = Counter([*map(key_of, puts), *deletes])
        if len(keys) < len(requests):
            raise ValueError(f"write_many: expected each key once, got {keys.most_common(1)[0][0]} several times")

        self.ahead.forget(keys)

        async def write(part: Sequence[dict[str, Any]]) -> None:  # Any: JSON
            async for _ in self._batches("BatchWriteItem", lambda left: left, part):
                pass

        await each(write, _parts(requests, WRITE_AT_ONCE), at_once=FEW_AT_ONCE)

    async def transact(self, *actions: Action) -> None:
        """Do all of the actions or none; each is about another item.

        A lost answer is no harm: it is tried again under the same token, by which AWS knows it for ten minutes.

        Raises:
            Cancelled: a condition does not hold, or others are at work on the items.
            ValueError: there are no actions, or more than `TRANSACT_AT_ONCE`.

        """
        if not 1 <= len(actions) <= TRANSACT_AT_ONCE:
            raise ValueError(f"transact: expected 1 to {TRANSACT_AT_ONCE} actions, got {len(actions)}")
        self.ahead.forget(key_of(action.item) if isinstance(action, Put) else action.key for action in actions)
        request = {
            "TransactItems": [action_of(action, self.name) for action in actions],
            "ClientRequestToken": random_bytes(16).hex(),
        }
        await self._call("TransactWriteItems", request, has_table=False)

    # The table itself

    async def create(self, *, within_s: float = 60.0) -> None:
        """Make the table, on demand and with `ttl` as the time at which items expire, and return when it is there.

        For tests and tools. What is there already is left as it is.

        Raises:
            AwsError: it cannot be made, or is not there in time.

        """
        keys = ("pk", "HASH"), ("sk", "RANGE")
        try:
            await self._call(
                "CreateTable",
                {
                    "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name, _ in keys],
                    "KeySchema": [{"AttributeName": name, "KeyType": kind} for name, kind in keys],
                    "BillingMode": "PAY_PER_REQUEST",
                },
            )
        except AwsError as error:
            if error.type != "ResourceInUseException":
                raise
        await self._stands(within_s)
        lasting = await self._call("DescribeTimeToLive", {})
        if lasting["TimeToLiveDescription"].get("TimeToLiveStatus") in ("ENABLED", "ENABLING"):
            return
        await self._call("UpdateTimeToLive", {"TimeToLiveSpecification": {"Enabled": True, "AttributeName": "ttl"}})

    async def drop(self) -> None:
        """Delete the table with all that is in it; one that is not there is no error. For tests and tools."""
        with contextlib.suppress(TableMissing):
            await self._call("DeleteTable", {})

    async def _stands(self, within_s: float) -> None:
        clock = self._service.clock
        ends_at = clock.monotonic() + within_s
        while (state := (await self._call("DescribeTable", {}))["Table"]["TableStatus"]) not in ("ACTIVE", "UPDATING"):
            if clock.monotonic() >= ends_at:
                raise AwsError("TableNotActive", f"{self.name} is {state} after {within_s:g} s")
            await clock.sleep(0.5)

    # Calls

    async def _call(
        self, operation: str, request: Mapping[str, Any], *, repeat: bool = True, has_table: bool = True
    ) -> dict[str, Any]:  # Any: JSON
        whole = dict(request)
        if has_table:
            whole["TableName"] = self.name
        if self._measure and operation in _MEASURED:
            whole["ReturnConsumedCapacity"] = "TOTAL"
        try:
            answer = await self._service.call(operation, whole, deadline_s=self._deadline_s, repeat=repeat)
        except AwsError as error:
            raise translated(error) from error.__cause__
        self.used.requests[operation] += 1
        if self._measure:
            self._count(operation, answer.get("ConsumedCapacity", ()))
        return answer

    def _count(self, operation: str, consumed: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:  # Any: JSON
        tables = [consumed] if isinstance(consumed, Mapping) else consumed
        units = sum(float(one.get("CapacityUnits", 0)) for one in tables)
        if operation in _READS:
            self.used.read_units += units
        else:
            self.used.write_units += units

    async def _batches(
        self, operation: str, ask: Callable[[list[Any]], Any], wanted: Sequence[Any]
    ) -> AsyncIterator[dict[str, Any]]:  # Any: JSON, here and above
        """The answers to a batch and to what of it was left undone."""
        clock = self._service.clock
        ends_at = clock.monotonic() + self._deadline_s
        left, tries = list(wanted), 0
        while left:
            answer = await self._call(operation, {"RequestItems": {self.name: ask(left)}}, has_table=False)
            yield answer
            undone = answer.get("UnprocessedKeys" if operation == "BatchGetItem" else "UnprocessedItems", {})
            again = undone.get(self.name, [])
            left = list(again["Keys"] if isinstance(again, Mapping) else again)
            if left:
                await self._service.pause(tries, ends_at, f"{operation}: {len(left)} of {len(wanted)} are left undone")
                tries += 1


_READS = frozenset({"GetItem", "BatchGetItem", "Query"})
_MEASURED = _READS | {"PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems"}


def _parts(whole: Sequence[ResultT], size: int) -> list[Sequence[ResultT]]:
    return [whole[begin : begin + size] for begin in range(0, len(whole), size)]
