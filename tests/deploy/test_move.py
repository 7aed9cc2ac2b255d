"""Moving from SQLite to DynamoDB: what clients see there is what they saw here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from deploylab import ROOT, script
from dynamolab import Server, fresh_table, running
from hubbub.model import (
    ClientId,
    Entry,
    Member,
    MemberJoined,
    MemberLeft,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    ReactionAdded,
    ReactionRemoved,
    Role,
    RoomId,
    RoomKind,
    RoomUpdated,
    UserId,
)
from hubbub.store.dynamodb import DynamoStore
from hubbub.store.sqlite import SqliteStore

moving = script("move_to_dynamodb")

ANN, BOB, EVE = UserId("ann"), UserId("bob"), UserId("eve")
TALK, NEWS = RoomId("talk"), RoomId("news")


@pytest.fixture(scope="module")
def dynamodb() -> Iterator[Server]:
    """A server of DynamoDB's API."""
    with running("moto") as server:
        yield server


@pytest.fixture
async def target(dynamodb: Server) -> AsyncIterator[DynamoStore]:
    """An empty table's store."""
    async with fresh_table(dynamodb) as table, DynamoStore(nullcontext(table)) as store:
        yield store


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A store with a room in which everything has happened, and a public one."""
    async with SqliteStore(str(tmp_path / "hubbub.db")) as store:
        members = [Member(ANN, Role.OWNER), Member(BOB, Role.MEMBER)]
        await store.create_room(TALK, RoomKind.PRIVATE, name="Talk", by=ANN, at=1_000, members=members)
        await store.create_room(NEWS, RoomKind.PUBLIC, name="", by=EVE, at=1_001, members=[])
        for number, entry in enumerate(happened()):
            entry.id, entry.at = f"01HZZZZZZZZZZZZZZZZZZZZZ{number:02d}", 2_000 + number
            assert (await store.append(entry)).seq > 0, entry
        await store.mark_read(TALK, BOB, 6)
        await store.change_user(ANN, name="Ann", avatar="https://example.com/ann.png")
        await store.change_user(EVE, banned_until=5_000, revoked_before=4_000)
        yield store


def happened() -> Iterator[Entry]:
    """One entry of every kind; the room's own three are before them."""
    hello = ClientId("c1")
    yield MessageCreated(room=TALK, by=ANN, name="Ann", text="hello", client_id=hello)  # 4
    yield MessageCreated(room=TALK, by=BOB, text="to be deleted", reply_to=4, thread=4)  # 5
    yield MessageEdited(room=TALK, by=BOB, target=5, text="edited before")
    yield ReactionAdded(room=TALK, by=ANN, target=4, reaction="+1")
    yield ReactionAdded(room=TALK, by=BOB, target=4, reaction="+1")
    yield ReactionRemoved(room=TALK, by=ANN, target=4, reaction="+1")
    yield MessageDeleted(room=TALK, by=ANN, target=5)
    yield MemberJoined(room=TALK, by=ANN, user=EVE, role=Role.MEMBER)
    yield MessageEdited(room=TALK, by=ANN, target=4, text="hello, all")
    yield RoomUpdated(room=TALK, by=ANN, room_name="Much talk", kind=RoomKind.PUBLIC)
    yield MemberLeft(room=TALK, by=ANN, user=EVE)
    yield MessageCreated(room=NEWS, by=EVE, text="news")


async def seen(store: SqliteStore | DynamoStore) -> dict[str, object]:
    """All that clients can see of a store; a room's first entry without its id."""
    rooms, _ = await store.rooms()
    made: dict[str, object] = {"rooms": [(room.id, room.kind, room.name, room.created_at, room.head) for room in rooms]}
    for room in rooms:
        page = await store.page(room.id, limit=200)
        page.entries[0].id = ""
        made[f"log of {room.id}"] = page
        made[f"members of {room.id}"] = await store.members(room.id)
    for user in (ANN, BOB, EVE):
        made[f"rooms of {user}"] = await store.rooms_of(user, [NEWS])
        made[f"what is known of {user}"] = await store.user(user)
    return made


async def test_everything_is_there_as_it_was(source: SqliteStore, target: DynamoStore) -> None:
    """Rooms, logs, members, read marks and users are the same afterwards, entry by entry."""
    moved = await moving.move(source, target)
    assert moved.left == {}
    assert moved.rooms == {TALK: 14, NEWS: 2}
    ours, theirs = await seen(source), await seen(target)
    for what, value in ours.items():
        assert theirs[what] == value, what


async def test_what_was_moved_can_be_gone_on_with(source: SqliteStore, target: DynamoStore) -> None:
    """Moved twice, nothing is there twice; what has been said since comes after what was moved."""
    await moving.move(source, target)
    await source.append(MessageCreated(room=NEWS, by=EVE, id="01HZZZZZZZZZZZZZZZZZZZZZ99", at=9_000, text="more"))
    again = await moving.move(source, target)
    assert again.left == {}
    assert await seen(source) == await seen(target)
    written = await target.append(MessageCreated(room=NEWS, by=EVE, id="x", at=9_001, text="there"))
    assert written.seq == 4


async def test_a_room_without_its_beginning_is_left_and_named(source: SqliteStore, target: DynamoStore) -> None:
    """A room that was deleted and made anew is not moved, since its seqs could not stay; the others are."""
    await source.delete_room(NEWS)
    await source.create_room(NEWS, RoomKind.PUBLIC, name="", by=EVE, at=9_000, members=[])
    moved = await moving.move(source, target)
    assert set(moved.rooms) == {TALK}
    assert "deleted and made anew" in moved.left[NEWS] or "begins with seq" in moved.left[NEWS]
    assert await target.room(NEWS) is None


async def test_another_room_of_that_name_is_not_written_to(source: SqliteStore, target: DynamoStore) -> None:
    """Where a room of that id is there already and is another one, it stays as it is, and is named."""
    await target.create_room(NEWS, RoomKind.PUBLIC, name="Ours", by=BOB, at=1, members=[])
    moved = await moving.move(source, target)
    assert "another room has its id there" in moved.left[NEWS]
    room = await target.room(NEWS)
    assert room is not None
    assert (room.name, room.head) == ("Ours", 1)


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    """Without a database, the command says what it expected, and makes none."""
    command = [sys.executable, str(ROOT / "scripts" / "move_to_dynamodb.py"), str(tmp_path / "none.db"), "table"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "expected a database of Hubbub's" in done.stderr
    assert not list(tmp_path.iterdir())
