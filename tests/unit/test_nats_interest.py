"""What a node is subscribed to while wishes change faster than a server is told of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from doubles import FakeClock, settle
from hubbub.fanout.nats.interest import Interest, Kind
from hubbub.fanout.nats.stats import NatsStats
from hubbub.fanout.nats.subjects import Subjects
from hubbub.model import RoomId


class SlowLink:
    """A link that takes what it is told step by step."""

    def __init__(self) -> None:
        self.is_up = True
        self.subscribed: set[str] = set()
        self.steps = asyncio.Semaphore(0)

    async def subscribe(self, subject: str) -> Any:
        await self.steps.acquire()
        self.subscribed.add(subject)
        return subject

    async def unsubscribe(self, subject: str) -> None:
        await self.steps.acquire()
        self.subscribed.discard(subject)

    async def flush(self, within_s: float) -> None:
        await self.steps.acquire()


class World:
    """Interest in rooms over such a link."""

    def __init__(self, *, single: int) -> None:
        self.clock = FakeClock()
        self.link = SlowLink()
        self.interest = Interest(self.link, clock=self.clock, stats=NatsStats(), linger_s=1.0)  # type: ignore[arg-type]
        self.rooms: Kind[RoomId] = self.interest.kind(
            Subjects("t").room, single=single, covered=lambda rooms: None, ended=lambda room: None
        )
        self.running = asyncio.create_task(self.interest.run())

    def want(self, *rooms: str) -> None:
        for room in rooms:
            self.interest.want(self.rooms, RoomId(room))

    async def forget(self, *rooms: str) -> None:
        for room in rooms:
            self.interest.release(self.rooms, RoomId(room))
        await self.clock.advance(2.0)
        self.interest.sweep()

    async def steps(self, count: int) -> None:
        for _ in range(count):
            self.link.steps.release()
        await settle()

    def covers(self, room: str) -> bool:
        """Whether the server tells of it, and the node says so."""
        subject = Subjects("t").room(RoomId(room))
        told = {subject, Subjects.whole_group(subject)} & self.link.subscribed
        return bool(told) and self.interest.is_covered(self.rooms, RoomId(room))


@pytest.fixture
async def world(request):
    made = World(single=getattr(request, "param", 100))
    yield made
    made.running.cancel()
    await asyncio.gather(made.running, return_exceptions=True)


async def test_a_room_that_is_wanted_again_while_its_subscription_ends_is_heard_of(world):
    """However far the ending of many subscriptions has come."""
    world.want("a", "b", "c")
    await world.steps(50)
    await world.forget("a", "b", "c")
    world.link.steps = asyncio.Semaphore(0)
    world.want("d")
    await world.steps(4)  # d, its confirmation, the end of one of the three, and the next one is about to end
    world.want("a", "b", "c")
    await world.steps(50)
    assert all(map(world.covers, ("a", "b", "c", "d")))


async def test_subscriptions_end_though_there_are_always_new_ones(world):
    """Rooms come and go all the time: those that went are not kept for that."""
    world.want("gone")
    await world.steps(50)
    await world.forget("gone")
    world.link.steps = asyncio.Semaphore(0)
    for number in range(20):
        world.want(f"r{number}")
        await world.steps(1)
    assert Subjects("t").room(RoomId("gone")) not in world.link.subscribed


@pytest.mark.parametrize("world", [3], indirect=True)
async def test_what_is_not_wanted_any_more_when_its_turn_comes_is_not_subscribed_to(world):
    """Else it would stay: nobody knows of it."""
    world.want("a", "b", "c")
    await world.steps(1)
    world.want("d")  # now groups are wanted
    await world.steps(50)
    groups = {Subjects.whole_group(Subjects("t").room(RoomId(room))) for room in "abcd"}
    assert world.link.subscribed == groups


async def test_what_failed_is_done_when_it_is_begun_anew(world, monkeypatch):
    """Not when the next room is wanted, which may never be."""
    monkeypatch.setattr(world.link, "subscribe", None)
    world.want("a")
    await settle()
    with pytest.raises(TypeError):
        await world.running
    monkeypatch.undo()
    world.running = asyncio.create_task(world.interest.run())
    await world.steps(50)
    assert world.covers("a")


async def test_a_room_that_is_wanted_again_before_its_subscription_ends_keeps_it(world):
    """It is let go in the next turn, when the server has confirmed what is new; until then it is heard of."""
    world.want("a")
    await world.steps(50)
    world.link.steps = asyncio.Semaphore(0)
    await world.forget("a")
    world.want("a")
    await world.steps(50)
    assert world.covers("a")
