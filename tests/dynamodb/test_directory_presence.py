"""Beginnings and ends that several functions see, at once or one after the other."""

from __future__ import annotations

import asyncio

import pytest

from directorylab import A1, A2, ALICE, OTHER, ROOM, A, B, Functions
from hubbub.aws.table import Table


@pytest.fixture
def functions(table: Table) -> Functions:
    return Functions(table)


@pytest.fixture
def lingering(table: Table) -> Functions:
    return Functions(table, linger_s=5.0)


async def test_a_users_connections_count_as_one_whichever_function_sees_them(functions):
    """The first begins, the last ends."""
    await functions.connect("alice", A1, ROOM)
    await functions.connect("alice", A2, ROOM, OTHER)
    assert functions.told == [(ROOM, "alice", True), (OTHER, "alice", True)]
    await functions.two.disconnect_connection(A1)
    assert len(functions.told) == 2
    await functions.one.disconnect_connection(A2)
    assert sorted(functions.told[2:]) == [(OTHER, "alice", False), (ROOM, "alice", False)]


async def test_two_that_come_at_once_are_told_of(functions):
    """At least once, and at the end nobody takes the user for present who is not."""
    for connection in (A1, A2):
        await functions.one.connect(connection, functions.principal("alice"))
    await asyncio.gather(
        functions.listen(functions.one, A1, ROOM),
        functions.listen(functions.two, A2, ROOM),
    )
    assert functions.told.count((ROOM, "alice", True)) in (1, 2)
    await asyncio.gather(functions.one.disconnect_connection(A1), functions.two.disconnect_connection(A2))
    assert functions.told[-1] == (ROOM, "alice", False)
    assert await functions.items() == []


async def test_who_comes_back_within_the_time_to_linger_was_never_away(lingering):
    """Neither his end is told nor his beginning, and meanwhile he counts as online, but gets nothing."""
    await lingering.connect("alice", A1, ROOM)
    await lingering.one.disconnect_connection(A1)
    assert await lingering.two.is_online(ROOM, ALICE)
    assert await lingering.two.online(ROOM, 10) == (["alice"], 1)
    assert await lingering.two.audience(ROOM) == []
    assert await lingering.two.connections(ALICE) == []
    await lingering.clock.advance(3)
    await lingering.connect("alice", A2, ROOM)
    await lingering.clock.advance(60)
    await lingering.two.sweep(lingering.clock.now_ms())
    assert lingering.told == [(ROOM, "alice", True)]
    assert await lingering.one.online(ROOM, 10) == (["alice"], 1)


async def test_who_does_not_come_back_is_told_of_once_his_time_is_over(lingering):
    """Once, though two sweepers look, and though he had two connections; then nothing is left of him."""
    await lingering.connect("alice", A1, ROOM)
    await lingering.connect("alice", A2, ROOM)
    await lingering.one.disconnect_connection(A1)
    await lingering.two.disconnect_connection(A2)
    await lingering.one.sweep(lingering.clock.now_ms())
    assert lingering.told == [(ROOM, "alice", True)]
    await lingering.clock.advance(5)
    now = lingering.clock.now_ms()
    await lingering.one.sweep(now)
    await lingering.two.sweep(now)
    assert lingering.told == [(ROOM, "alice", True), (ROOM, "alice", False)]
    assert await lingering.items() == []


async def test_an_end_that_nobody_looked_for_is_found_by_who_looks_later(lingering):
    """A sweeper that was away for ten minutes, and one that has never looked."""
    await lingering.one.sweep(lingering.clock.now_ms())
    await lingering.connect("alice", A, ROOM)
    await lingering.one.disconnect_connection(A)
    await lingering.connect("bob", B, ROOM)
    await lingering.clock.advance(600)
    await lingering.one.disconnect_connection(B)
    await lingering.one.sweep(lingering.clock.now_ms())
    assert lingering.told[-1] == (ROOM, "alice", False)
    await lingering.clock.advance(600)
    await lingering.another().sweep(lingering.clock.now_ms())
    assert lingering.told[-1] == (ROOM, "bob", False)


async def test_a_room_that_a_user_leaves_is_told_at_once(lingering):
    """Lingering is for connections that are cut, not for who goes by his own will."""
    await lingering.connect("alice", A, ROOM, OTHER)
    await lingering.one.unlisten(A, ROOM)
    await lingering.two.unfollow(ALICE, OTHER)
    assert lingering.told[2:] == [(ROOM, "alice", False), (OTHER, "alice", False)]


async def test_a_connection_without_rooms_leaves_no_trace_when_it_ends(lingering):
    """There is no end to tell of."""
    await lingering.connect("alice", A)
    await lingering.one.disconnect_connection(A)
    assert await lingering.items() == []
