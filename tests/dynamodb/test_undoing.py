"""A transaction that is cancelled has changed nothing, on Amazon's server and on ours, which undoes it item by item."""

from __future__ import annotations

import pytest

from dynamostorelab import items
from hubbub.aws.table import Cancelled, Check, Delete, Put, Table, Update


@pytest.mark.parametrize("last", ["nothing", "taken"])
async def test_a_cancelled_transaction_has_changed_nothing(table: Table, last: str):
    """Neither what was put, changed or deleted before its condition failed, nor what is inside of it."""
    for sk in ("changed", "deleted", "replaced", "taken"):
        await table.put({"pk": "p", "sk": sk, "words": {"a": ["b"]}, "count": 1})
    before = await items(table)
    conditions = {"nothing": "attribute_exists(pk)", "taken": "attribute_not_exists(pk)"}
    with pytest.raises(Cancelled) as cancelled:
        await table.transact(
            Put({"pk": "p", "sk": "put"}),
            Put({"pk": "p", "sk": "replaced", "count": 2}),
            Update(("p", "changed"), "SET words.a[0] = :c ADD #count :one", values={"c": "d", "one": 1}),
            Update(("p", "made"), "SET #count = :one", values={"one": 1}),
            Delete(("p", "deleted")),
            Check(("p", last), conditions[last]),
        )
    assert [reason.code for reason in cancelled.value.reasons] == [None] * 5 + ["ConditionalCheckFailed"]
    assert await items(table) == before
    await table.transact(Put({"pk": "p", "sk": "put"}), Delete(("p", "deleted")))
    assert [item["sk"] for item in await items(table)] == ["changed", "put", "replaced", "taken"]
