"""Looking where logs end: everything in its time, many at once, and no storm."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from doubles import FakeClock
from hubbub.errors import Unavailable
from hubbub.fanout.nats.heads import BATCH, HeadRounds
from hubbub.fanout.nats.stats import NatsStats
from hubbub.model import RoomId


class World:
    """Rounds over a store that the tests hold."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.stats = NatsStats()
        self.asked: list[tuple[float, list[RoomId]]] = []
        self.fails = False
        self.heads: dict[RoomId, int] = {}
        self.told: list[tuple[RoomId, int]] = []
        self.rounds = HeadRounds(
            read=self.read, expect=self.expect, clock=self.clock, stats=self.stats, every_s=10, spread_s=2
        )

    async def read(self, rooms):
        if self.fails:
            raise Unavailable
        self.asked.append((self.clock.monotonic(), list(rooms)))
        return {room: self.heads[room] for room in rooms if room in self.heads}

    def expect(self, room: RoomId, head: int) -> bool:
        self.told.append((room, head))
        return True

    def times(self, room: str) -> list[float]:
        return [at for at, rooms in self.asked if room in rooms]


@pytest.fixture
async def world():
    made = World()
    task = asyncio.create_task(made.rounds.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_every_room_has_its_turn_within_the_stated_time(world):
    """In few questions, spread over the time, and no more often than need be."""
    rooms = [RoomId(f"room{n}") for n in range(1_000)]
    for room in rooms:
        world.rounds.add(room)
    await world.clock.advance(60)
    for room in rooms[::100]:
        times = [1_000.0, *world.times(room)]
        assert all(b - a <= 10.2 for a, b in itertools.pairwise(times)) and len(times) <= 8
    assert len(world.asked) <= 66  # one a second, and not one at each tick


@pytest.mark.parametrize("every_s", [0.5, 1.0, 600.0])
async def test_turns_may_be_close_or_far(every_s):
    """Whatever the stated time is, a round ends, and the next one comes in time."""
    world = World()
    world.rounds = HeadRounds(
        read=world.read, expect=world.expect, clock=world.clock, stats=world.stats, every_s=every_s
    )
    rooms = [RoomId(f"room{n}") for n in range(100)]
    for room in rooms:
        world.rounds.add(room)
    task = asyncio.create_task(world.rounds.run())
    await world.clock.advance(4 * every_s)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for room in rooms:
        times = [1_000.0, *world.times(room)]
        assert all(b - a <= every_s + 0.2 for a, b in itertools.pairwise(times))
        assert 4 <= len(times) <= 7


async def test_a_head_is_handed_on_and_rooms_that_are_not_there_are_passed_over(world):
    """What was missing is counted."""
    world.heads = {RoomId("a"): 7}
    world.rounds.add(RoomId("a"))
    world.rounds.add(RoomId("b"))
    world.rounds.soon(["a", "b"], 1)
    await world.clock.advance(1.2)
    assert (world.told, world.stats.repairs, world.stats.heads_read) == ([("a", 7)], 1, 2)


async def test_rooms_without_listeners_are_not_looked_at(world):
    """Neither in turn nor soon."""
    world.rounds.add(RoomId("a"))
    world.rounds.soon(["a", "b"], 1)
    world.rounds.remove(RoomId("a"))
    await world.clock.advance(30)
    assert world.asked == []


async def test_looks_soon_are_besides_the_turn(world):
    """And there are never very many of them."""
    world.rounds.add(RoomId("a"))
    for _ in range(100):
        world.rounds.soon(["a"], 1)
    world.rounds.soon(["a"], 2)
    await world.clock.advance(4)
    assert 1 <= len(world.times("a")) <= 3
    await world.clock.advance(30)
    assert len(world.times("a")) >= 4


async def test_a_look_that_was_asked_for_does_not_come_sooner(world):
    """However many turns come before their time: what it is to find may not be there yet."""
    for n in range(200):
        world.rounds.add(RoomId(f"room{n}"))
    world.rounds.add(RoomId("a"))
    world.rounds.checked(RoomId("a"))  # its turn is the last
    await world.clock.advance(5.5)
    assert world.asked and world.times("a") == []
    world.rounds.soon(["a"], 0.9)
    await world.clock.advance(0.8)
    assert world.times("a") == []
    await world.clock.advance(0.3)
    assert len(world.times("a")) == 1


async def test_a_look_at_all_is_spread_and_not_repeated_while_it_lasts(world):
    """Thousands of rooms come in questions of a bounded size."""
    for n in range(3_000):
        world.rounds.add(RoomId(f"room{n}"))
    for _ in range(5):
        world.rounds.all_soon()
    await world.clock.advance(2.2)
    asked = [room for _, rooms in world.asked for room in rooms]
    assert len(asked) == len(set(asked)) == 3_000
    assert max(len(rooms) for _, rooms in world.asked) <= BATCH
    assert len({at for at, _ in world.asked}) > 10


async def test_looks_at_very_many_are_spread(world):
    """All rooms that are subscribed to anew, for instance, are no storm."""
    rooms = [RoomId(f"room{n}") for n in range(3_000)]
    for room in rooms:
        world.rounds.add(room)
    world.rounds.soon(rooms, 1)
    await world.clock.advance(3.2)
    assert {room for _, asked in world.asked for room in asked} == set(rooms)
    assert len({at for at, _ in world.asked}) > 10


async def test_what_could_not_be_looked_at_is_looked_at_again(world):
    """A store that is away is asked once a second, not more."""
    world.rounds.add(RoomId("a"))
    world.fails = True
    world.rounds.soon(["a"], 0.5)
    await world.clock.advance(3)
    world.fails = False
    await world.clock.advance(1.2)
    assert world.times("a")


async def test_what_is_remembered_is_bounded_by_the_rooms(world):
    """However often somebody else looks at them."""
    world.rounds.add(RoomId("a"))
    for _ in range(50_000):
        world.rounds.checked(RoomId("a"))
    assert len(world.rounds._due) < 2_000
