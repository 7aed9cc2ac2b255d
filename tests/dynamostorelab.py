"""Stores on tables of real DynamoDB servers, and what can go wrong between the two."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from dynamolab import Server, service
from hubbub.aws.http import HttpClient
from hubbub.aws.service import AwsError, Unanswered
from hubbub.aws.table import Table
from hubbub.store import DynamoStore

WRITES = ("PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems")


@asynccontextmanager
async def table_named(
    server: Server, name: str, *, create: bool = True, deadline_s: float = 10.0
) -> AsyncIterator[Table]:
    """The table of that name, made if it is not there, with an HTTP client of its own."""
    async with HttpClient() as http:
        table = Table(service(http, server), name, deadline_s=deadline_s)
        if create:
            await table.create()
        yield table


def store_at(server: Server, folder: Path, **options: Any) -> DynamoStore:
    """A store on the table that stands for a folder."""
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:24]
    return DynamoStore(table_named(server, f"test-{name}"), **options)


class Shifted:
    """The machine's time, from which the time of day may be set off.

    Attributes:
        ahead_ms: by how much.

    """

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Hasty(Shifted):
    """Time that passes by being waited for, at once.

    Attributes:
        slept: how often it was.

    """

    def __init__(self) -> None:
        super().__init__()
        self.slept = 0
        self._now_s = 0.0

    def monotonic(self) -> float:
        return self._now_s

    async def sleep(self, seconds: float) -> None:
        self.slept += 1
        self._now_s += seconds
        await asyncio.sleep(0)


THROTTLED = AwsError("ProvisionedThroughputExceededException", "too much", status=400)
LOST = Unanswered("Broken", "the connection broke", is_in_doubt=True)
UNREACHED = Unanswered("Unreached", "no connection")

Call = Callable[[], Any]
Fault = Callable[[str, Call], Any]
"""Given an operation and what does it: awaits the latter or not, and raises what it likes."""


@contextmanager
def faulty(store: DynamoStore, fault: Fault) -> Iterator[None]:
    """Put `fault` between the store and DynamoDB, after all that is tried again by itself."""
    asked = store.table._service
    call = asked.call

    async def meddled(operation: str, request: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        return await fault(operation, lambda: call(operation, request, **options))

    asked.call = meddled
    try:
        yield
    finally:
        asked.call = call


@contextmanager
def unwritable(store: DynamoStore) -> Iterator[None]:
    """DynamoDB takes no writes of the store, as when it has had too many for a while."""

    async def refuse(operation: str, call: Call) -> Any:
        if operation in WRITES:
            raise THROTTLED
        return await call()

    with faulty(store, refuse):
        yield


class Nth:
    """A fault that strikes once, at the n-th write: it is not done, or done and its answer lost.

    Attributes:
        seen: how many writes there were.

    """

    def __init__(self, n: int, error: AwsError, *, after: bool = False) -> None:
        self.seen = 0
        self._n = n
        self._error = error
        self._after = after

    async def __call__(self, operation: str, call: Call) -> Any:
        if operation not in WRITES:
            return await call()
        self.seen += 1
        if self.seen != self._n:
            return await call()
        if self._after:
            await call()
        raise self._error


async def items(table: Table) -> list[dict[str, Any]]:
    """Everything in the table, by keys."""
    found: list[dict[str, Any]] = []
    start: dict[str, Any] | None = None
    while True:
        asked = {"ConsistentRead": True, **({"ExclusiveStartKey": start} if start else {})}
        answer = await table._call("Scan", asked)
        found += [
            {name: next(iter(value.values())) for name, value in packed.items()} for packed in answer.get("Items", ())
        ]
        start = answer.get("LastEvaluatedKey")
        if not start:
            return sorted(found, key=lambda item: (item["pk"], item["sk"]))
