"""What waits to be sent when a connection breaks under it, or when the next server takes less in a message."""

from __future__ import annotations

import asyncio

import pytest

from doubles import settle
from hubbub.fanout.nats import wire
from hubbub.fanout.nats.link import Down
from hubbub.fanout.nats.outbox import Outbox
from hubbub.fanout.nats.stats import NatsStats


class BreakingLink:
    """A link that takes so many messages and then breaks."""

    def __init__(self) -> None:
        self.is_up = False
        self.max_payload = 1024 * 1024
        self.takes = 1_000
        self.may_take = asyncio.Event()
        self.may_take.set()
        self.sent: list[wire.AnyThing] = []

    async def publish(self, subject: str, data: bytes) -> None:
        await self.may_take.wait()
        if not self.takes:
            self.is_up = False
            raise Down
        self.takes -= 1
        self.sent += wire.decode(data).things


class World:
    """An outbox over such a link."""

    def __init__(self) -> None:
        self.link = BreakingLink()
        self.stats = NatsStats()
        self.outbox = Outbox(self.link, node="n", stats=self.stats, most_bytes=2**20)  # type: ignore[arg-type]
        self.running = asyncio.create_task(self.outbox.run())

    async def connect(self, *, takes: int = 1_000, max_payload: int = 1024 * 1024) -> None:
        self.link.is_up, self.link.takes, self.link.max_payload = True, takes, max_payload
        self.outbox.connected()
        await settle()


@pytest.fixture
async def world():
    made = World()
    yield made
    made.running.cancel()
    await asyncio.gather(made.running, return_exceptions=True)


async def test_entries_and_orders_outlive_a_connection_that_breaks_under_them(world):
    """Signals do not, for they would be stale."""
    order = wire.Order(1, wire.Unfollow("u", "r"))
    await world.connect(takes=1)
    world.outbox.put("a", wire.Entry(1, b"1"))
    world.outbox.put("b", wire.Entry(2, b"2"))
    world.outbox.put("c", wire.Signal(b"s"))
    world.outbox.put("d", order)
    await settle()
    assert world.link.sent == [wire.Entry(1, b"1")]
    await world.connect()
    assert world.link.sent == [wire.Entry(1, b"1"), order, wire.Entry(2, b"2")]
    assert (world.stats.dropped, world.outbox._bytes) == (1, 0)


async def test_an_entry_that_is_too_long_for_the_next_server_goes_as_its_seq(world):
    """What else is too long for it is counted as dropped."""
    world.outbox.put("a", wire.Entry(1, b"x" * 8_192))
    world.outbox.put("a", wire.Entry(2, b"2"))
    world.outbox.put("a", wire.Order(1, wire.Send("c", b"x" * 8_192)))
    await world.connect(max_payload=4_096)
    assert (world.link.sent, world.stats.dropped) == ([wire.Entry(1), wire.Entry(2, b"2")], 2)


async def test_what_waits_for_a_slow_server_is_bounded_as_a_whole(world):
    """What is about to be sent counts until it is."""
    world.link.may_take.clear()
    await world.connect()
    for number in range(16):
        world.outbox.put(f"r{number}", wire.Entry(1, b"x" * 60_000))
    await settle()
    world.outbox.put("s", wire.Entry(1, b"x" * 200_000))
    assert world.stats.dropped == 1
    world.link.may_take.set()
    await settle()
    assert (len(world.link.sent), world.link.sent[-1], world.outbox._bytes) == (17, wire.Entry(1), 0)
