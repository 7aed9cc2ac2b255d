"""The ordered streams of a node, against a log that the tests hold."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from doubles import FakeClock, FakeSink, settle
from examples import examples
from hubbub import stream as stream_module
from hubbub.errors import Unavailable
from hubbub.stream import MAX_HELD, MAX_RECENT, StreamListening, Streams


class Log:
    """A room's entries as a store has them."""

    def __init__(self) -> None:
        self.reads = 0
        self.fail = False
        self.length = 0
        self.page = 1_000_000  # how many entries one read brings

    async def read(self, room: str, after: int) -> list[tuple[int, bytes]]:
        self.reads += 1
        if self.fail:
            raise Unavailable
        return [(seq, frame(seq)) for seq in range(after + 1, min(self.length, after + self.page) + 1)]


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


def listen(streams: Streams, connection: str, after: int) -> list[bytes] | None:
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
    assert listen(streams, "nobody", 0) is None
    assert streams.listeners("r") == 0
    assert repr(streams) == "<Streams of 0 rooms>"


async def test_more_early_entries_than_are_held_are_read_from_the_store(streams, sink, log, clock):
    """What does not fit behind a hole is delivered too, without waiting for another entry."""
    log.page = 200
    got = sink.open("a")
    listen(streams, "a", 0)
    publish(streams, log, *range(2, MAX_HELD + 100))
    await clock.advance(1)
    assert numbers(got) == list(range(1, MAX_HELD + 100))


async def test_what_is_published_while_the_store_is_read_is_delivered_once(streams, sink, log, clock, monkeypatch):
    """A hole that fills itself meanwhile is filled once."""
    got = sink.open("a")
    listen(streams, "a", 0)

    async def slow(room: str, after: int) -> list[tuple[int, bytes]]:
        entries = await log.read(room, after)
        await clock.sleep(1)
        return entries

    monkeypatch.setattr(streams, "_read", slow)
    publish(streams, log, 2)
    await clock.advance(0.1)
    assert log.reads == 1
    publish(streams, log, 1, 3)
    await clock.advance(5)
    assert numbers(got) == [1, 2, 3]


async def test_what_is_held_is_not_read_again(streams, sink, log, clock):
    """When the hole is filled, the entries behind it follow at once."""
    log.page = 1
    got = sink.open("a")
    listen(streams, "a", 0)
    publish(streams, log, 2, 3, 4)
    await clock.advance(1)
    assert numbers(got) == [1, 2, 3, 4]
    assert log.reads == 1


async def test_who_listens_already_gets_nothing_twice(streams, sink, log):
    """A second start on the same connection changes nothing."""
    got = sink.open("a")
    listen(streams, "a", 0)
    with streams.listening("a", ["r"]) as listening:
        publish(streams, log, 1)
        assert listening.start("r", 0) == []
    publish(streams, log, 2)
    assert numbers(got) == [1, 2]


async def test_a_room_that_somebody_is_about_to_listen_to_is_kept(streams, sink, log):
    """Also when its last listener leaves meanwhile; afterwards nothing is remembered for joiners."""
    sink.open("first")
    listen(streams, "first", 0)
    sink.open("a")
    with streams.listening("a", ["r"]) as listening:
        publish(streams, log, 1)
        assert streams.leave("r", "first")
        publish(streams, log, 2)
        assert numbers(listening.start("r", 0)) == [1, 2]
    assert streams.listeners("r") == 1
    assert not streams._streams["r"].recent


async def test_who_left_before_it_was_let_in_gets_nothing(streams, sink, log):
    """A connection that waits for the stream and leaves is not let in."""
    sink.open("first")
    listen(streams, "first", 0)
    got = sink.open("a")
    listen(streams, "a", 1)
    assert streams.leave("r", "a")
    publish(streams, log, 1, 2)
    assert got == []


async def test_a_joiner_gets_what_was_repaired_while_it_read(streams, sink, log, clock):
    """An entry that came from the store meanwhile is returned like one that was published."""
    sink.open("other")
    listen(streams, "other", 0)
    sink.open("a")
    with streams.listening("a", ["r"]) as listening:
        publish(streams, log, 2)
        await clock.advance(1)
        assert numbers(listening.start("r", 0)) == [1, 2]


async def test_who_waits_for_an_entry_that_is_no_more_misses_nothing_after_it(streams, sink, clock, monkeypatch, log):
    """Where the store has forgotten what a listener knows, it gets the first entry that is left."""
    sink.open("first")
    listen(streams, "first", 0)
    got = sink.open("a")
    listen(streams, "a", 3)

    async def forgetful(room: str, after: int) -> list[tuple[int, bytes]]:
        return [(7, frame(7))] if after < 7 else []

    monkeypatch.setattr(streams, "_read", forgetful)
    await clock.advance(1)
    assert numbers(got) == numbers(sink.frames["first"]) == [7]


async def test_who_is_gone_before_it_was_let_in_leaves_nothing_behind(streams, sink, log, clock):
    """A connection that waits for the stream and goes is no listener."""
    sink.open("first")
    listen(streams, "first", 0)
    sink.open("a")
    listen(streams, "a", 2)
    sink.gone("a")
    assert streams.leave("r", "first")
    publish(streams, log, 1, 2)
    assert streams.listeners("r") == 0
    assert repr(streams) == "<Streams of 0 rooms>"
    await clock.advance(1)


async def test_a_head_that_is_announced_before_anybody_stands_anywhere_is_remembered(streams, sink, log, clock):
    """The first listener gets the end of the log that was lost while it read."""
    got = sink.open("a")
    with streams.listening("a", ["r"]) as listening:
        log.length = 2  # written, and the publishing lost
        assert not streams.announce("r", 2)
        assert listening.start("r", 1) == []
    await clock.advance(1)
    assert numbers(got) == [2]


async def test_who_follows_gets_what_was_published_while_others_read(streams, sink, log):
    """A room that somebody is about to listen to delivers to a follower at once what it knows."""
    got = sink.open("a")
    sink.open("b")
    with streams.listening("b", ["r"]) as listening:
        publish(streams, log, 1, 2)
        assert streams.join("r", "a", 0)
        publish(streams, log, 3)
        assert numbers(got) == [1, 2, 3]
        assert numbers(listening.start("r", 1)) == [2, 3]


async def test_nobody_starts_where_everything_has_ended(streams, sink, log):
    """A start after the streams were closed says that there is no listening."""
    sink.open("a")
    with streams.listening("a", ["r"]) as listening:
        await streams.aclose()
        assert not listening.start("r", 0)


@settings(max_examples=examples(150), deadline=None)
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


PAGE = 3
"""How many entries one read of the store brings in the test below."""

CONNECTIONS = st.sampled_from(["a", "b", "c"])


class Listener:
    """A connection as the test below knows it.

    Attributes:
        id: its own, and no other's after it.
        got: the live frames it was given, as its sink has them.
        opened: its `Listening`; None while it is not about to listen.
        known: how far the store was read for it since; None while it was not.
        after: from which entry on it listens; None while it does not.
        caught_up: what its start returned.

    """

    def __init__(self, connection: str, sink: FakeSink) -> None:
        self.id = connection
        self.got = sink.open(connection)
        self.opened: StreamListening | None = None
        self.known: int | None = None
        self.after: int | None = None
        self.caught_up: list[int] = []
        self.begins = 0  # how many live frames it had got before it listened

    @property
    def entries(self) -> list[int]:
        """Everything it was given since it listens."""
        return self.caught_up + numbers(self.got[self.begins :])


class AnyOrder(RuleBasedStateMachine):
    """Entries lost, late and doubled, listeners that come, start over and go, a store that fails, forgets and recovers.

    Bounds are made small, so that they are met.
    """

    def __init__(self) -> None:
        super().__init__()
        stream_module.MAX_HELD, stream_module.MAX_RECENT = 4, 5
        self.loop = asyncio.new_event_loop()
        self.clock, self.sink = FakeClock(), FakeSink()
        self.length, self.first, self.fails, self.takes_s = 0, 1, False, 0.0
        self.ids = itertools.count()
        self.listeners = {name: self.newcomer() for name in "abc"}
        self.run(self.make)

    def run(self, function, *arguments):
        """Call it as the loop would, and let what it began go on."""

        async def call():
            result = function(*arguments)
            await settle()
            return result

        return self.loop.run_until_complete(call())

    def newcomer(self) -> Listener:
        return Listener(f"connection {next(self.ids)}", self.sink)

    def make(self) -> None:
        self.streams = Streams(self.sink, self.read, self.clock)

    async def read(self, room: str, after: int) -> list[tuple[int, bytes]]:
        if self.fails:
            raise Unavailable
        seqs = range(max(after + 1, self.first), self.length + 1)
        await self.clock.sleep(self.takes_s)
        return [(seq, frame(seq)) for seq in seqs[:PAGE]]

    @rule(count=st.integers(1, 7), published=st.sets(st.integers(0, 6)))
    def write(self, count: int, published: set[int]) -> None:
        """Entries are written, and some of them published in order."""
        for n in range(count):
            self.length += 1
            if n in published:
                self.run(self.streams.publish, "r", self.length, frame(self.length))

    @rule(back=st.integers(0, 9))
    def publish(self, back: int) -> None:
        """An entry is published late, or again."""
        if self.length:
            seq = max(self.length - back, 1)
            self.run(self.streams.publish, "r", seq, frame(seq))

    @rule()
    def announce(self) -> None:
        """The head is announced; if the listeners are to be told, they have everything."""
        told = self.run(self.streams.announce, "r", self.length)
        for listener in self.listeners.values():
            if told and listener.after is not None:
                self.has_everything(listener)

    @rule(name=CONNECTIONS)
    def listen(self, name: str) -> None:
        """A connection goes one step on its way to listening: it opens, the store is read, it starts or starts over."""
        listener = self.listeners[name]
        if listener.after is not None:
            return
        if listener.opened is None:
            listener.opened = self.run(self.streams.listening, listener.id, ["r"])
        elif listener.known is None:
            listener.known = None if self.fails else self.length
        else:
            with contextlib.suppress(Unavailable):
                listener.caught_up = numbers(self.run(listener.opened.start, "r", listener.known))
                listener.after = listener.known
            self.run(listener.opened.__exit__)
            listener.opened = listener.known = None

    @rule(name=CONNECTIONS, back=st.integers(0, 3))
    def follow(self, name: str, back: int) -> None:
        """It listens from near the end of the log on, without having been about to."""
        listener = self.listeners[name]
        stream = self.streams._streams.get("r")
        after = max(self.length - back, 0)
        has_passed = stream is not None and stream.cursor is not None and stream.cursor > after
        if listener.opened is None and listener.after is None and not has_passed:
            listener.after, listener.caught_up = after, []
            assert self.run(self.streams.join, "r", listener.id, after)

    @rule(name=CONNECTIONS)
    def leave(self, name: str) -> None:
        """It stops listening, and gets nothing more."""
        listener = self.listeners[name]
        assert self.run(self.streams.leave, "r", listener.id) == (listener.after is not None)
        listener.after, listener.begins = None, len(listener.got)

    @rule(name=CONNECTIONS, starts=st.booleans())
    def go(self, name: str, starts: bool) -> None:
        """It is gone, wherever it was; somebody else comes."""
        listener = self.listeners[name]
        self.sink.gone(listener.id)
        self.run(self.streams.leave, "r", listener.id)
        if listener.opened is not None:
            if starts and listener.known == self.length:
                self.run(listener.opened.start, "r", self.length)
            self.run(listener.opened.__exit__)
        self.listeners[name] = self.newcomer()

    @rule(fails=st.booleans(), takes_s=st.sampled_from([0.0, 0.5]))
    def store(self, fails: bool, takes_s: float) -> None:
        """The store fails, or is back; it answers at once, or with what was there half a second ago."""
        self.fails, self.takes_s = fails, takes_s

    @rule(kept=st.integers(1, 5))
    def forget(self, kept: int) -> None:
        """The store forgets the oldest entries."""
        self.first = max(self.first, self.length - kept + 1)

    @rule(seconds=st.sampled_from([0.01, 0.06, 1.5]))
    def time(self, seconds: float) -> None:
        """Time passes."""
        self.loop.run_until_complete(self.clock.advance(seconds))

    @invariant()
    def in_order(self) -> None:
        """Nobody ever gets an entry twice, out of order, around one that is still there, or without listening."""
        for listener in self.listeners.values():
            if listener.after is not None:
                self.follows(listener, listener.entries)
            else:
                assert len(listener.got) == listener.begins

    def follows(self, listener: Listener, entries: list[int]) -> None:
        before = listener.after
        for seq in entries:
            assert seq > before
            assert all(lacking < self.first for lacking in range(before + 1, seq))
            before = seq

    def has_everything(self, listener: Listener) -> None:
        self.follows(listener, [*listener.entries, self.length + 1])

    def teardown(self) -> None:
        """When the store answers again and the head is announced, every listener has everything."""
        try:
            self.fails = False
            for listener in self.listeners.values():
                if listener.opened is not None:
                    self.run(listener.opened.__exit__)
            self.announce()
            self.loop.run_until_complete(self.clock.advance(30))
            for listener in self.listeners.values():
                if listener.after is not None:
                    self.has_everything(listener)
            assert not [stream for stream in self.streams._streams.values() if stream.repairing]
            for listener in self.listeners.values():
                self.run(self.streams.leave, "r", listener.id)
            assert repr(self.streams) == "<Streams of 0 rooms>"
        finally:
            stream_module.MAX_HELD, stream_module.MAX_RECENT = MAX_HELD, MAX_RECENT
            self.loop.run_until_complete(self.streams.aclose())
            self.loop.run_until_complete(settle())
            self.loop.close()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=examples(80), stateful_step_count=30, deadline=None)


async def test_what_somebody_has_seen_of_a_log_is_looked_for(sink, log, clock):
    """Without a word to the listeners but what was missing, and without a second look."""
    streams = Streams(sink, log.read, clock)
    frames = sink.open("a")
    streams.join("room", "a", 0)
    log.length = 2
    assert not streams.expect("elsewhere", 2)
    assert streams.expect("room", 2)
    assert streams.has_passed("room", 0) is False
    await clock.advance(1)
    assert numbers(frames) == [1, 2]
    assert streams.has_passed("room", 1) and not streams.has_passed("room", 2)
    assert not streams.expect("room", 2)
    assert streams.announce("room", 3) is False
    assert streams.announce("room", 2) is False
    await streams.aclose()


async def test_rooms_begin_and_end_with_those_who_care_for_them(sink, log, clock):
    """Each is told once, whether somebody listens or is about to."""
    told: list[str] = []
    streams = Streams(
        sink, log.read, clock, begun=lambda room: told.append(f"+{room}"), ended=lambda room: told.append(f"-{room}")
    )
    sink.open("a")
    with streams.listening("a", ["r", "s"]) as listening:
        assert told == ["+r", "+s"]
        listening.start("r", 0)
    assert told == ["+r", "+s", "-s"]
    streams.join("r", "a", 0)
    streams.leave("r", "a")
    streams.join("r", "gone", 0)
    assert told == ["+r", "+s", "-s", "-r", "+r", "-r"]
