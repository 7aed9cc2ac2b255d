"""Somebody who is let into a room late, at a node that has delivered more of it already."""

from __future__ import annotations

import asyncio

import pytest

from doubles import FakeClock, FakeSink, settle
from hubbub.errors import Unavailable
from hubbub.fanout.local import LocalFanout
from hubbub.fanout.nats import following
from hubbub.fanout.nats.following import TRIES, Following
from hubbub.model import ConnectionId, Principal, RoomId, UserId

ROOM = RoomId("den")
KIT = UserId("kit")
LATE = ConnectionId("k")


class World:
    """A node where bob listens and kit is connected, and three entries were delivered."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.sink = FakeSink()
        self.entries = [(seq, str(seq).encode()) for seq in (1, 2, 3)]
        self.is_away = False
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.local = LocalFanout(sink=self.sink, read=self.read, clock=self.clock)
        self.following = Following(self.local, sink=self.sink, read=self.read, clock=self.clock)
        self.frames: list[bytes] = []

    async def read(self, room: RoomId, after: int) -> list[tuple[int, bytes]]:
        await self.may_read.wait()
        if self.is_away:
            raise Unavailable
        return [entry for entry in self.entries if entry[0] > after]

    async def open(self) -> None:
        self.sink.open("b")
        self.frames = self.sink.open("k")
        await self.local.connect(ConnectionId("b"), Principal(UserId("bob"), 2**40))
        await self.local.connect(LATE, Principal(KIT, 2**40))
        async with await self.local.listen(ConnectionId("b"), [ROOM]) as listening:
            await listening.start({ROOM: 3})

    async def give_up(self) -> None:
        """Let all tries to read pass."""
        for _ in range(TRIES + 1):
            await self.clock.advance(self.following.retry_s)
            await settle()


@pytest.fixture
async def world():
    made = World()
    await made.open()
    yield made
    await made.following.aclose()
    await made.local.__aexit__(None, None, None)


async def test_who_is_put_out_while_nothing_can_be_read_is_not_let_in_in_the_end(world):
    """Giving up leaves a hole to those alone who are still to be let in."""
    world.is_away = True
    await world.following.catch_up(ROOM, 1, [LATE])
    await settle()
    await world.local.unfollow(KIT, ROOM)
    await world.give_up()
    world.local.deliver(ROOM, 4, b"4")
    assert world.frames == []


async def test_who_cannot_be_told_what_he_missed_hears_what_comes(world):
    """His client finds the hole."""
    world.is_away = True
    await world.following.catch_up(ROOM, 1, [LATE])
    await world.give_up()
    world.local.deliver(ROOM, 4, b"4")
    assert world.frames == [b"4"]


async def test_where_too_many_catch_up_he_is_let_in_at_once(world, monkeypatch):
    """He is not forgotten for it."""
    monkeypatch.setattr(following, "MAX_CATCHING_UP", 0)
    await (await world.following.catch_up(ROOM, 1, [LATE]))
    world.local.deliver(ROOM, 4, b"4")
    assert world.frames == [b"4"]


async def test_who_is_about_to_listen_learns_that_he_follows_one_room_more(world):
    """Else the answer to his connection would lack a room that he hears."""
    async with await world.local.listen(LATE, []) as listening:
        await (await world.following.catch_up(ROOM, 1, [LATE]))
        assert await listening.followed() == {ROOM}
        await world.local.unfollow(KIT, ROOM)
        assert await listening.followed() == set()
    assert world.frames == [b"2", b"3"]


async def test_who_has_begun_to_listen_by_himself_is_told_nothing_twice(world):
    """He has read the log meanwhile."""
    async with await world.local.listen(LATE, [ROOM]) as listening:
        world.may_read.clear()
        caught_up = await world.following.catch_up(ROOM, 1, [LATE])
        assert await listening.start({ROOM: 3}) == {ROOM: []}
        world.may_read.set()
        await caught_up
    world.local.deliver(ROOM, 4, b"4")
    assert world.frames == [b"4"]
