"""The link to a NATS server: what it is subscribed to, and what that takes."""

from __future__ import annotations

import tracemalloc

import pytest
from scripts.servers import Nats

from hubbub.fanout.nats.address import parse_address
from hubbub.fanout.nats.link import Link
from hubbub.fanout.nats.stats import NatsStats
from live import until

MANY = 2_000


class Ear:
    """What came, by subject."""

    def __init__(self, nats: Nats) -> None:
        self.heard: dict[str, list[bytes]] = {}
        self.link = Link(
            parse_address(nats.url),
            name="test",
            receive=lambda subject, data: self.heard.setdefault(subject, []).append(data),
            connected=lambda: None,
            lost=lambda: None,
            stats=NatsStats(),
        )

    async def __aenter__(self) -> Ear:
        await self.link.open(10.0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.link.aclose()


@pytest.mark.parametrize("table", ["_subs", "of another nats-py"])
async def test_each_subscription_is_heard_until_it_ends_and_no_longer(nats: Nats, monkeypatch, table: str) -> None:
    """Whether they share what nats-py keeps of them, or it keeps that elsewhere."""
    if table != "_subs":
        monkeypatch.setattr("hubbub.fanout.nats.link.TABLE", table)
    async with Ear(nats) as ear, Ear(nats) as mouth:
        made = {subject: await ear.link.subscribe(subject) for subject in ("t.a", "t.b", "t.c", "t.end")}
        await ear.link.unsubscribe(made["t.b"])
        await ear.link.flush(5.0)
        for round_ in (b"1", b"2"):
            for subject in made:
                await mouth.link.publish(subject, round_)
            await until(lambda round_=round_: round_ in ear.heard.get("t.end", ()), "the last is heard")
            await ear.link.unsubscribe(made["t.a"])
            await ear.link.flush(5.0)
        assert ear.heard == {"t.a": [b"1"], "t.c": [b"1", b"2"], "t.end": [b"1", b"2"]}


async def test_a_subscription_takes_little(nats: Nats) -> None:
    """A node has one for each of its users and rooms: what differs between them is the subject alone."""
    async with Ear(nats) as ear:
        await ear.link.subscribe("t.first")
        await ear.link.flush(5.0)
        tracemalloc.start()
        kept = [await ear.link.subscribe(f"t.{number}") for number in range(MANY)]
        await ear.link.flush(5.0)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(kept) == MANY
        assert size / MANY < 250  # with all that nats-py has for each: 3,700
