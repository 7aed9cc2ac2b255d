"""The directory beside the store, in one table: what the one asks the other when somebody begins to listen."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from directorylab import OTHER, ROOM, A, Functions
from hubbub.aws.table import Table
from hubbub.fanout import ApiGatewayDirectory
from hubbub.model import MAX_PAGE, RoomId
from hubbub.protocol import encode, entry_decoder
from hubbub.store import DynamoStore
from storelab import make_room, say


@pytest.fixture
async def store(table: Table):
    async with DynamoStore(nullcontext(table)) as made:
        yield made


async def test_a_store_tells_of_many_rooms_at_once_whose_logs_have_grown(store, table):
    """One request for a hundred rooms; one that does not exist has not grown."""
    for room in (ROOM, OTHER):
        await make_room(store, room)
    await say(store, room=OTHER)
    known = {RoomId(f"room-{n}"): 0 for n in range(150)} | {ROOM: 1, OTHER: 1}
    before = table.used.requests["BatchGetItem"]
    assert await store.grown(known) == {OTHER}
    assert table.used.requests["BatchGetItem"] == before + 2
    assert await store.grown({OTHER: 2}) == set()
    assert await store.grown({}) == set()


async def test_a_connection_finds_in_the_store_what_was_written_while_it_was_joining(store, table):
    """Only rooms that have grown are read; what is found is what the store has."""
    functions = Functions(table)

    async def read(room: RoomId, after: int) -> list[tuple[int, bytes]]:
        page = await store.page(room, after=after, limit=MAX_PAGE, changes=False)
        return [(entry.seq, encode(entry)) for entry in page.entries]

    directory = ApiGatewayDirectory(table, clock=functions.clock, read=read, grown=store.grown)
    rooms = [RoomId(f"room-{n}") for n in range(10)]
    for room in rooms:
        await make_room(store, room)
    await directory.connect(A, functions.principal("alice"))
    async with await directory.listen(A, rooms) as listening:
        await say(store, "meanwhile", room=rooms[3])
        before = table.used.requests.copy()
        found = await listening.start(dict.fromkeys(rooms, 1))
    spent = table.used.requests - before
    assert {room: [entry_decoder.decode(frame).text for frame in frames] for room, frames in found.items()} == {
        room: ["meanwhile"] if room == rooms[3] else [] for room in rooms
    }
    assert spent["BatchGetItem"] <= 3
    assert spent["TransactWriteItems"] == 1
    await directory.disconnect_connection(A)
