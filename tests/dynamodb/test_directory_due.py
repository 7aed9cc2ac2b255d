"""What is due at a time, told once, whichever functions ask: ends of tokens, and rooms to look after."""

from __future__ import annotations

import asyncio

import pytest

from directorylab import A, B, Functions, connection
from hubbub.aws.table import Table
from hubbub.model import RoomId


@pytest.fixture
def functions(table: Table) -> Functions:
    return Functions(table)


async def test_a_room_to_look_after_is_told_by_another_function_than_the_one_that_died(functions):
    """What was promised is in the table."""
    await functions.one.look_after(RoomId("room"), functions.clock.now_ms() + 5_000)
    await functions.clock.advance(120)
    assert await functions.another().due(functions.clock.now_ms()) == ["room"]


async def test_a_room_is_told_once_though_two_functions_ask_at_once(functions):
    """Each of many rooms, to one of them."""
    rooms = [RoomId(f"room-{n}") for n in range(30)]
    for room in rooms:
        await functions.one.look_after(room, functions.clock.now_ms())
        await functions.two.look_after(room, functions.clock.now_ms())
    await functions.clock.advance(60)
    now = functions.clock.now_ms()
    one, two = await asyncio.gather(functions.one.due(now), functions.two.due(now))
    assert sorted(one + two) == sorted(rooms)


async def test_a_room_that_is_written_to_again_and_again_costs_one_write_a_minute(functions, table):
    """Who has asked in a minute need not ask again in it."""
    before = table.used.requests["PutItem"]
    for _ in range(60):
        await functions.one.look_after(RoomId("room"), functions.clock.now_ms())
        await functions.clock.advance(1)
    assert table.used.requests["PutItem"] == before + 1
    await functions.one.look_after(RoomId("room"), functions.clock.now_ms())
    assert table.used.requests["PutItem"] == before + 2
    assert await functions.two.due(functions.clock.now_ms()) == ["room"]
    assert await functions.two.due(functions.clock.now_ms() + 60_000) == ["room"]


async def test_a_function_that_looks_every_minute_asks_for_the_newest_minutes_alone(functions, table):
    """The first time it looks back; then it goes on from there."""
    await functions.one.due(functions.clock.now_ms())
    queries = table.used.requests["Query"]
    for _ in range(10):
        await functions.clock.advance(60)
        assert await functions.one.due(functions.clock.now_ms()) == []
    assert table.used.requests["Query"] - queries <= 10 * 8


async def test_a_look_that_failed_is_made_up_for_by_the_next(functions, table, monkeypatch):
    """What could not be taken is not forgotten."""
    from hubbub.aws.service import AwsError

    rooms = [RoomId("room-1"), RoomId("room-2")]
    for room in rooms:
        await functions.one.look_after(room, functions.clock.now_ms())
    await functions.clock.advance(240)
    real = table.update

    async def update(key, *about, **options):
        if "room-2" in key[1]:
            raise AwsError("ThrottlingException", "too much", status=400)
        return await real(key, *about, **options)

    monkeypatch.setattr(table, "update", update)
    assert await functions.one.due(functions.clock.now_ms()) == ["room-1"]
    monkeypatch.undo()
    assert await functions.one.due(functions.clock.now_ms()) == ["room-2"]
    assert await functions.one.due(functions.clock.now_ms()) == []


async def test_rooms_that_were_told_to_one_who_died_are_told_to_another(functions, table):
    """A minute later; those that he has seen to, because he asked for more, are gone."""
    await functions.one.look_after(RoomId("room"), functions.clock.now_ms())
    await functions.clock.advance(60)
    assert await functions.one.due(functions.clock.now_ms()) == ["room"]
    assert await functions.two.due(functions.clock.now_ms()) == []
    await functions.clock.advance(60)
    assert await functions.another().due(functions.clock.now_ms()) == ["room"]
    await functions.clock.advance(60)
    three = functions.another()
    assert await three.due(functions.clock.now_ms()) == ["room"]
    assert await three.due(functions.clock.now_ms()) == []
    assert (await table._call("Scan", {"Select": "COUNT"}))["Count"] == 0


async def test_a_connection_that_could_not_be_closed_when_its_token_ended_is_told_of_again(functions):
    """A minute later; one that is gone is not."""
    await functions.connect("alice", A, ttl_s=30)
    await functions.connect("bob", B, ttl_s=30)
    await functions.clock.advance(60)
    assert sorted((await functions.one.lapsing(functions.clock.now_ms() // 1_000, 0))[1]) == [A, B]
    await functions.two.disconnect_connection(B)
    await functions.clock.advance(60)
    assert await functions.one.lapsing(functions.clock.now_ms() // 1_000, 0) == ([], [A])


async def test_the_end_of_a_token_is_told_once_whichever_functions_look(functions):
    """First that it is near, then that it has come."""
    for n in range(20):
        await functions.connect("alice", connection(f"c{n}"), ttl_s=90)
    now_s = functions.clock.now_ms() // 1_000
    assert await functions.one.lapsing(now_s, 60) == ([], [])
    looks = await asyncio.gather(functions.one.lapsing(now_s + 30, 60), functions.two.lapsing(now_s + 30, 60))
    soon = [each for near, _ in looks for each in near]
    assert sorted(soon) == sorted(connection(f"c{n}") for n in range(20))
    assert await functions.another().lapsing(now_s + 31, 60) == ([], [])
    looks = await asyncio.gather(functions.one.lapsing(now_s + 90, 60), functions.two.lapsing(now_s + 90, 60))
    over = [each for _, ended in looks for each in ended]
    assert sorted(over) == sorted(soon)
    assert await functions.another().lapsing(now_s + 91, 60) == ([], [])


async def test_a_token_that_was_renewed_or_whose_connection_ended_is_not_told_of(functions):
    """What is due for it is found to be void, and removed."""
    await functions.connect("alice", A, ttl_s=50)
    await functions.connect("bob", B, ttl_s=50)
    await functions.two.connect(A, functions.principal("alice", ttl_s=3_000))
    await functions.two.disconnect_connection(B)
    now_s = functions.clock.now_ms() // 1_000
    assert await functions.one.lapsing(now_s, 60) == ([], [])
    assert await functions.one.lapsing(now_s + 120, 60) == ([], [])
    assert await functions.one.lapsing(now_s + 2_940, 60) == ([A], [])


async def test_a_token_that_outlives_its_connection_is_not_kept_watch_over(functions, table):
    """API Gateway ends the connection before."""
    await functions.connect("alice", A, ttl_s=86_400)
    answer = await table._call("Scan", {"ProjectionExpression": "pk"})
    assert [item for item in answer["Items"] if item["pk"]["S"].startswith("due#")] == []
