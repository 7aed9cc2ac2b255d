"""Appends to one room on DynamoDB: `python -m bench.dynamodb`, against moto or DynamoDB Local on this machine.

What an entry of each kind costs in write units, by DynamoDB's rules, and what happens when 1, 10 or 50
processes write in one room at once: each is a store with connections of its own, as a function's environment is, and
sends its next message when the last was acknowledged. Both servers share this machine's processors with the writers
and do one call at a time or little more, so attempts per message say more than messages per second do.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import count
from typing import Any

import uvloop

from bench import saving
from hubbub.aws.credentials import Fixed
from hubbub.aws.http import HttpClient
from hubbub.aws.service import Service
from hubbub.aws.table import Table
from hubbub.model import (
    Entry,
    MemberJoined,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    ReactionAdded,
    Role,
    RoomId,
    RoomKind,
    UserId,
    new_ulid,
)
from hubbub.sigv4 import Credentials
from hubbub.store.dynamodb import DynamoStore

ROOM = RoomId("bench")
TEXT = "x" * 200

_numbers = count(1)


class Counted(Service):
    """Counts calls, also those that are refused."""

    def __init__(self, http: HttpClient, endpoint: str) -> None:
        super().__init__(
            http, "dynamodb", region="us-east-1", credentials=Fixed(Credentials("test", "test")), endpoint=endpoint
        )
        self.calls: Counter[str] = Counter()
        self.units = 0

    async def call(self, operation: str, request: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        """One call."""
        self.calls[operation] += 1
        if operation == "TransactWriteItems":
            self.units += sum(units(action) for action in request["TransactItems"])
        return await super().call(operation, request, **options)


def units(action: Mapping[str, Any]) -> int:
    """The write units of one action of a transaction: two for each KB of its item, by DynamoDB's rules.

    An update's item is taken for what the update says of it.
    """
    [about] = action.values()
    says = about.get("Item") or {**about["Key"], **about.get("ExpressionAttributeValues", {})}
    size = sum(len(name) + len(str(next(iter(value.values())))) for name, value in says.items())
    return 2 * -(-size // 1_024)


@asynccontextmanager
async def counted_table(endpoint: str, name: str, services: list[Counted]) -> AsyncIterator[Table]:
    """A table with connections of its own."""
    async with HttpClient() as http:
        service = Counted(http, endpoint)
        services.append(service)
        table = Table(service, name, measure=True, deadline_s=60)
        await table.create()
        yield table


@contextmanager
def server(name: str) -> Any:
    """The address of moto or DynamoDB Local, running for the length of a block."""
    from dynamolab import running as run

    with run(name) as running:
        yield running.url


def message(by: str, **fields: Any) -> Entry:
    """A message of 200 characters."""
    now_ms = time.time_ns() // 1_000_000
    return MessageCreated(room=ROOM, by=UserId(by), id=new_ulid(now_ms), at=now_ms, text=TEXT, **fields)


async def crowd(endpoint: str, writers: int, each: int) -> tuple[float, float, float, float]:
    """Messages per second, transactions and reads per message, and the longest wait of a message in seconds."""
    services: list[Counted] = []
    name = f"bench-{os.getpid()}-{next(_numbers)}"
    async with AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(DynamoStore(counted_table(endpoint, name, services), patience_s=120))
            for _ in range(writers)
        ]
        await stores[0].create_room(ROOM, RoomKind.PUBLIC, name="", by=UserId("maker"), at=0, members=[])
        for service in services:
            service.calls.clear()
        longest = 0.0

        async def write(n: int) -> None:
            nonlocal longest
            for m in range(each):
                began = time.perf_counter()
                await stores[n].append(message(f"user{n}", client_id=f"c{m}"))
                longest = max(longest, time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*(write(n) for n in range(writers)))
        took_s = time.perf_counter() - began
        calls = sum((service.calls for service in services), Counter())
        sent = writers * each
        room = await stores[0].room(ROOM)
        assert room is not None and room.head == sent + 1, f"expected {sent + 1} entries, got {room}"
        reads = calls["Query"] + calls["GetItem"] + calls["BatchGetItem"]
        return sent / took_s, calls["TransactWriteItems"] / sent, reads / sent, longest


async def burst(endpoint: str, messages: int) -> tuple[float, float]:
    """Messages per second and messages per transaction of one process that is given many at once."""
    services: list[Counted] = []
    table = counted_table(endpoint, f"bench-{os.getpid()}-{next(_numbers)}", services)
    async with DynamoStore(table) as store:
        await store.create_room(ROOM, RoomKind.PUBLIC, name="", by=UserId("maker"), at=0, members=[])
        services[0].calls.clear()
        began = time.perf_counter()
        await asyncio.gather(*(store.append(message(f"user{n % 20}", client_id=f"c{n}")) for n in range(messages)))
        took_s = time.perf_counter() - began
    return messages / took_s, messages / services[0].calls["TransactWriteItems"]


async def costs(endpoint: str) -> list[tuple[str, float, float]]:
    """Kinds of entries, each with the write and read units of one written alone."""
    services: list[Counted] = []
    table = counted_table(endpoint, f"bench-{os.getpid()}-{next(_numbers)}", services)
    async with DynamoStore(table) as store:
        await store.create_room(ROOM, RoomKind.PUBLIC, name="", by=UserId("maker"), at=0, members=[])
        root = await store.append(message("alice"))
        about: dict[str, Any] = {"room": ROOM, "by": UserId("alice"), "at": 0, "target": root.seq}
        kinds: list[tuple[str, Entry]] = [
            ("message", message("alice")),
            ("message with client_id", message("alice", client_id="c1")),
            ("message with client_id in a thread", message("alice", client_id="c2", thread=root.seq)),
            ("message of 4 KB with client_id", message("alice", client_id="c3", data=b'"' + b"x" * 3_700 + b'"')),
            ("edit", MessageEdited(id="1", text=TEXT, **about)),
            ("reaction", ReactionAdded(id="2", reaction="+1", **about)),
            ("join", MemberJoined(room=ROOM, by=UserId("bob"), at=0, id="3", user=UserId("bob"), role=Role.MEMBER)),
            ("deletion of a message with one edit", MessageDeleted(id="4", **about)),
        ]
        figures = []
        for kind, entry in kinds:
            read, written = store.table.used.read_units, services[0].units
            await store.append(entry)
            figures.append((kind, services[0].units - written, store.table.used.read_units - read))
        return figures


async def main(name: str, each: int) -> dict[str, object]:
    """Print tables, and return what they say."""
    said: dict[str, list[dict[str, object]]] = {"units": [], "writers": []}
    with server(name) as endpoint:
        if name == "dynamodb-local":
            print(f"{'write units':>11}  {'read units':>10}  kind")
            for kind, written, read in await costs(endpoint):
                print(f"{written:>11g}  {read:>10g}  {kind}")
                said["units"].append({"kind": kind, "write_units": written, "read_units": read})
        rate, size = await burst(endpoint, 1_000)
        print(f"one process, 1,000 at once: {rate:,.0f} messages/s, {size:.0f} in a transaction")
        print(
            f"{'writers':>7}  {'messages/s':>10}  {'transactions':>12}  {'reads':>6}  {'longest s':>9}  (per message)"
        )
        for writers in (1, 10, 50):
            figures = await crowd(endpoint, writers, max(4, each // writers))
            print("{:>7}  {:>10.1f}  {:>12.2f}  {:>6.2f}  {:>9.2f}".format(writers, *figures), flush=True)
            names = ("per_s", "transactions", "reads", "longest_s")
            said["writers"].append({"writers": writers, **dict(zip(names, figures, strict=True))})
    return {"server": name, "burst_per_s": rate, "burst_in_a_transaction": size, **said}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=["moto", "dynamodb-local"], default="dynamodb-local")
    parser.add_argument("--each", type=int, default=200, help="messages of the only writer, or of all together")
    saving.add_argument(parser)
    chosen = parser.parse_args()
    found = uvloop.run(main(chosen.server, chosen.each))
    if chosen.save:
        saving.save("dynamodb", found)
