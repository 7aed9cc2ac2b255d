"""Connections whose end nobody told: the sweeper finds them within ten minutes, though their rooms are silent."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from directorylab import ALICE, BOB, OTHER, ROOM, A, B, C, connection
from doubles import FakeClock, FakeSink
from dynamolab import Server
from fanoutlab import Home, apigateway
from hubbub.aws.service import AwsError
from hubbub.errors import Unavailable
from hubbub.fanout.apigateway.keys import LOOK_EVERY_MIN, look_key
from hubbub.fanout.apigateway.posts import Outcome
from hubbub.model import ConnectionId, Principal, RoomId, UserId

TIME_ENOUGH_S = 60.0


class Lab:
    """A fan-out whose rooms are silent, the gateway's sink, and what watchers were told."""

    def __init__(self) -> None:
        self.sink = FakeSink()
        self.clock = FakeClock(time.time_ns() // 1_000_000)  # a server removes what has outlived its time
        self.told: list[tuple[RoomId, UserId, bool]] = []
        self.home: Home

    async def read(self, room: RoomId, after: int) -> list[tuple[int, bytes]]:
        return []

    async def connect(self, user: UserId, connection: ConnectionId, *rooms: RoomId) -> None:
        self.sink.open(connection)
        await self.home.connect(connection, Principal(user, 2**40))
        async with await self.home.listen(connection, rooms) as listening:
            await listening.start(dict.fromkeys(rooms, 0))

    async def minutes(self, count: int, within_s: float = TIME_ENOUGH_S) -> int:
        """Let minutes pass with a sweep in each; how many connections were found gone."""
        gone = 0
        for _ in range(count):
            await self.clock.advance(60)
            gone += await self.home.stale.sweep(self.clock.now_ms(), within_s)
        return gone

    async def turn(self, connection: ConnectionId) -> None:
        """Let time pass until it is a connection's turn to be looked at, in a minute after it came."""
        await self.clock.advance(60)
        while look_key(connection)[0].split("#")[1] != str(self.clock.now_ms() // 60_000 % LOOK_EVERY_MIN):
            await self.clock.advance(60)


@pytest.fixture
async def lab(dynamodb: Server) -> AsyncIterator[Lab]:
    made = Lab()
    async with apigateway(dynamodb, sink=made.sink, read=made.read, clock=made.clock) as made.home:
        made.home.directory.watch(lambda room, user, online: made.told.append((room, user, online)))
        yield made


async def test_who_went_without_a_word_is_forgotten_within_ten_minutes(lab: Lab) -> None:
    """All of his items are gone and his end is told, though nobody says anything; who is there stays."""
    await lab.connect(ALICE, A, ROOM, OTHER)
    await lab.connect(BOB, B, ROOM)
    lab.sink.gone(A)
    lab.told.clear()
    assert await lab.minutes(LOOK_EVERY_MIN) == 1
    assert sorted(lab.told) == [(OTHER, ALICE, False), (ROOM, ALICE, False)]
    assert await lab.home.directory.online(ROOM, 10) == ([BOB], 1)
    assert await lab.home.directory.connections(ALICE) == []
    lab.sink.gone(B)
    assert await lab.minutes(LOOK_EVERY_MIN) == 1
    assert await lab.home.directory.online(ROOM, 10) == ([], 0)
    assert await lab.home.table.get(look_key(A)) is None
    assert await lab.home.items() <= 1  # how many shards the room has


async def test_connections_that_stay_cost_no_write(lab: Lab) -> None:
    """An hour of looks at them reads, and writes nothing."""
    for name in ("a", "b", "c", "d", "e"):
        await lab.connect(ALICE, connection(name), ROOM)
    lab.home.table.used.requests.clear()
    assert await lab.minutes(60) == 0
    assert lab.home.table.used.requests.keys() == {"Query"}
    assert lab.home.table.used.requests["Query"] == 60 * 8


async def test_one_that_ended_as_it_should_is_not_looked_at(lab: Lab) -> None:
    """Its turn does not come any more."""
    await lab.connect(ALICE, A, ROOM)
    assert await lab.home.table.get(look_key(A)) is not None
    await lab.home.directory.disconnect_connection(A)
    assert await lab.home.table.get(look_key(A)) is None


async def test_one_that_is_just_arriving_is_left_alone(lab: Lab) -> None:
    """For API Gateway it is not there until `$connect` is done."""
    await lab.home.connect(A, Principal(ALICE, 2**40))
    now_ms = lab.clock.now_ms()
    for minute in range(LOOK_EVERY_MIN):
        assert await lab.home.stale.sweep(now_ms - now_ms % 60_000 - minute * 60_000, TIME_ENOUGH_S) == 0
    assert await lab.home.directory.principal(A) is not None
    assert await lab.minutes(LOOK_EVERY_MIN + 1) == 1
    assert await lab.home.directory.principal(A) is None


async def test_a_sweeper_that_dies_leaves_it_to_the_next(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the table did not take of the end is done in the next round, and told then."""
    await lab.connect(ALICE, A, ROOM)
    lab.sink.gone(A)
    lab.told.clear()
    await lab.turn(A)

    async def refused(*about: object, **options: object) -> None:
        raise AwsError("ThrottlingException", "too much", status=400)

    with monkeypatch.context() as patched:
        patched.setattr(lab.home.table, "write_many", refused)
        with pytest.raises(Unavailable):
            await lab.home.stale.sweep(lab.clock.now_ms(), TIME_ENOUGH_S)
    assert lab.told == []
    assert await lab.minutes(LOOK_EVERY_MIN) == 1
    assert lab.told == [(ROOM, ALICE, False)]
    assert await lab.minutes(LOOK_EVERY_MIN) == 0


async def test_two_sweepers_at_once_find_what_one_finds(lab: Lab) -> None:
    """Nothing is left, and the end is told."""
    await lab.connect(ALICE, A, ROOM)
    lab.sink.gone(A)
    lab.told.clear()
    await lab.turn(A)
    now_ms = lab.clock.now_ms()
    assert await lab.home.stale.sweep(now_ms, TIME_ENOUGH_S) + await lab.home.stale.sweep(now_ms, TIME_ENOUGH_S) == 1
    assert lab.told == [(ROOM, ALICE, False)]


async def test_an_item_without_its_connection_is_removed(lab: Lab) -> None:
    """A function died between the two writes of an end."""
    await lab.connect(ALICE, A)
    lab.sink.gone(A)
    await lab.home.table.delete((f"conn#{A}", "conn"))
    assert await lab.minutes(LOOK_EVERY_MIN + 1) == 1
    assert await lab.home.table.get(look_key(A)) is None


async def test_one_whose_gateway_does_not_answer_is_not_taken_for_gone(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a 410 says so."""
    await lab.connect(ALICE, A, ROOM)
    lab.sink.gone(A)
    with monkeypatch.context() as patched:
        patched.setattr(lab.home.stale._posts, "_origin", "http://127.0.0.1:9")
        assert await lab.minutes(LOOK_EVERY_MIN) == 0
    assert await lab.home.directory.is_online(ROOM, ALICE)
    assert await lab.minutes(LOOK_EVERY_MIN) == 1


async def test_a_sweep_without_time_begins_no_look(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """The rest is left to a later round, and the log says so."""
    await lab.connect(ALICE, C, ROOM)
    lab.sink.gone(C)
    await lab.turn(C)
    assert await lab.home.stale.sweep(lab.clock.now_ms(), 0) == 0
    assert "time was over" in caplog.text
    assert await lab.home.directory.is_online(ROOM, ALICE)


async def test_every_page_of_a_turn_is_looked_at_wherever_the_round_begins(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each connection once, though pages are small and rounds begin at different places."""
    monkeypatch.setattr("hubbub.fanout.apigateway.stale.PAGE", 2)
    names = [connection(f"c{n}") for n in range(10)] + [connection(f"Z{n}") for n in range(10)]
    for name in names:
        await lab.connect(ALICE, name)
    seen: list[ConnectionId] = []
    real = lab.home.stale._posts.look

    async def look(connection: ConnectionId, *, patience_s: float | None) -> Outcome:
        seen.append(connection)
        outcome: Outcome = await real(connection, patience_s=patience_s)
        return outcome

    monkeypatch.setattr(lab.home.stale._posts, "look", look)
    for _ in range(3):
        seen.clear()
        await lab.minutes(LOOK_EVERY_MIN)
        assert sorted(seen) == sorted(names)
