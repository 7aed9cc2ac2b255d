"""The ordered streams of a node, against a log that the tests hold."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles import FakeClock, FakeSink, settle
from hubbub.errors import Unavailable
from hubbub.stream import MAX_RECENT, Streams


class Log:
    """A room's entries as a store has them."""

    def __init__(self) -> None:
        self.reads = 0
        self.fail = False
        self.length = 0

    async def read(self, room: str, after: int) -> list[tuple[int, bytes]]:
        self.reads += 1
        if self.fail:
            raise Unavailable
        return [(seq, frame(seq)) for seq in range(after + 1, self.length + 1)]


def frame(seq: int) -> bytes:
    return str(seq).encode()


def numbers(frames: list[bytes]) -> list[int]:
    return [int(each) for each in frames]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def sink() -> FakeSink:
    return FakeSink()


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
async def streams(sink, log, clock):
    made = Streams(sink, log.read, clock)
    yield made
    await made.aclose()


def publish(streams: Streams, log: Log, *seqs: int) -> None:
    for seq in seqs:
        log.length = max(log.length, seq)
        streams.publish("r", seq, frame(seq))


def listen(streams: Streams, connection: str, after: int) -> list[bytes]:
    with streams.listening(connection, ["r"]) as listening:
        return listening.start("r", after)


async def test_entries_published_in_order_are_delivered_at_once(streams, sink, log):
    """What follows what was delivered is delivered without waiting."""
    got = sink.open("a")
    listen(streams, "a", 0)
    publish(streams, log, 1, 2, 3)
    assert numbers(got) == [1, 2, 3]


async def test_an_early_entry_waits_for_the_one_before_it(streams, sink, log):
    """An entry beyond a hole is held until the hole is filled, and no store is asked for a hole that fills itself."""
    got = sink.open("a")
    listen(streams, "a", 0)
    publish(streams, log, 1, 3, 4)
    assert numbers(got) == [1]
    publish(streams, log, 2)
    assert numbers(got) == [1, 2, 3, 4]
    assert log.reads == 0


async def test_an_entry_published_twice_is_delivered_once(streams, sink, log):
    """A repeated entry is dropped."""
    got = sink.open("a")
    listen(streams, "a", 0)
    publish(streams, log, 1, 1, 2, 1, 2)
    assert numbers(got) == [1, 2]


async def test_a_hole_is_read_from_the_store(streams, sink, log, clock):
    """An entry that is never published is delivered in its place, with one read however many listen."""
    got = [sink.open(f"c{n}") for n in range(50)]
    for n in range(50):
        listen(streams, f"c{n}", 0)
    publish(streams, log, 1, 3, 4)
    await clock.advance(0.1)
    assert all(numbers(each) == [1, 2, 3, 4] for each in got)
    assert log.reads == 1


async def test_a_repair_goes_on_when_the_store_is_back(streams, sink, log, clock):
    """A store that does not answer delays the repair and loses nothing."""
    got = sink.open("a")
    listen(streams, "a", 0)
    log.fail = True
    publish(streams, log, 2)
    await clock.advance(5)
    assert numbers(got) == []
    log.fail = False
    await clock.advance(5)
    assert numbers(got) == [1, 2]


async def test_a_joiner_gets_what_was_published_while_it_read(streams, sink, log):
    """Entries published between listening and starting are returned by the start, and later ones come live."""
    sink.open("other")
    listen(streams, "other", 0)
    got = sink.open("a")
    with streams.listening("a", ["r"]) as listening:
        publish(streams, log, 1, 2)
        known = 1  # the store was read here
        publish(streams, log, 3)
        assert numbers(listening.start("r", known)) == [2, 3]
    publish(streams, log, 4)
    assert numbers(got) == [4]


async def test_the_first_joiner_of_a_room_misses_nothing(streams, sink, log):
    """Also where nobody listened before, what is published while the first one reads is returned to it."""
    got = sink.open("a")
    with streams.listening("a", ["r"]) as listening:
        publish(streams, log, 1, 2)
        assert numbers(listening.start("r", 1)) == [2]
    publish(streams, log, 3)
    assert numbers(got) == [3]


async def test_a_joiner_who_knows_more_than_the_stream_gets_nothing_twice(streams, sink, log):
    """Who has read further than the stream has delivered joins when the stream is there."""
    first = sink.open("first")
    listen(streams, "first", 0)
    got = sink.open("a")
    assert listen(streams, "a", 2) == []
    publish(streams, log, 1, 2, 3)
    assert numbers(first) == [1, 2, 3]
    assert numbers(got) == [3]


async def test_a_joiner_left_too_far_behind_starts_over(streams, sink, log):
    """When more was published than is remembered, the start says so instead of leaving a hole."""
    sink.open("first")
    listen(streams, "first", 0)
    sink.open("a")
    with streams.listening("a", ["r"]) as listening:
        publish(streams, log, *range(1, MAX_RECENT + 10))
        with pytest.raises(Unavailable):
            listening.start("r", 0)


async def test_who_left_gets_nothing_more(streams, sink, log):
    """After leaving, nothing of the room is delivered, and an idle room is forgotten."""
    got = sink.open("a")
    listen(streams, "a", 0)
    publish(streams, log, 1)
    assert streams.leave("r", "a")
    assert not streams.leave("r", "a")
    publish(streams, log, 2)
    assert numbers(got) == [1]
    assert repr(streams) == "<Streams of 0 rooms>"


async def test_a_connection_that_is_gone_cannot_join(streams, sink, log):
    """Starting for a connection that closed meanwhile leaves nothing behind."""
    assert listen(streams, "nobody", 0) == []
    assert streams.listeners("r") == 0
    assert repr(streams) == "<Streams of 0 rooms>"


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 60))
def test_whatever_the_order_of_publishing_every_listener_sees_the_log(seed: int, length: int):
    """Entries shuffled, lost and doubled, listeners coming and going: each sees a stretch of the log in order."""

    async def run() -> None:
        rng = random.Random(seed)
        clock, sink, log = FakeClock(), FakeSink(), Log()
        streams = Streams(sink, log.read, clock)
        order = sorted(range(1, length + 1), key=lambda seq: seq + rng.randint(-4, 4))
        order = [seq for seq in order if rng.random() > 0.15] + rng.choices(range(1, length + 1), k=3)
        joined: dict[str, int] = {}
        for step, seq in enumerate(order):
            if rng.random() < 0.2:
                name = f"c{step}"
                sink.open(name)
                with streams.listening(name, ["r"]) as listening:
                    known = log.length  # the store is read here, before or after more is published
                    publish(streams, log, seq)
                    if rng.random() < 0.5:
                        known = log.length
                    caught_up = numbers(listening.start("r", known))
                assert caught_up == list(range(known + 1, known + 1 + len(caught_up)))
                joined[name] = known + len(caught_up)
            publish(streams, log, seq)
            if rng.random() < 0.2:
                await clock.advance(rng.choice([0.01, 0.2]))
        publish(streams, log, length + 1)
        await clock.advance(5)
        for name, known in joined.items():
            assert numbers(sink.frames[name]) == list(range(known + 1, log.length + 1)), (name, known)
        await streams.aclose()
        await settle()

    asyncio.run(run())
