"""Who listens changes while the broadcaster works: nobody who listens lacks an entry, nobody who left gets more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from directorylab import ALICE, ROOM, A, B, C, connection
from doubles import FakeClock, FakeSink
from dynamolab import Server
from fanoutlab import Home, apigateway
from hubbub.clock import SystemClock
from hubbub.fanout.apigateway.keys import delivery_key
from hubbub.fanout.apigateway.lease import Lease
from hubbub.fanout.apigateway.listening import Seats
from hubbub.fanout.apigateway.posts import Outcome, Posts
from hubbub.model import ConnectionId, Principal, RoomId, UserId


class Lab:
    """A fan-out, its sink, and a log."""

    def __init__(self) -> None:
        self.sink = FakeSink()
        self.clock = FakeClock(time.time_ns() // 1_000_000)  # a server removes what has outlived its time
        self.log: list[int] = []
        self.home: Home

    async def read(self, room: RoomId, after: int) -> list[tuple[int, bytes]]:
        await asyncio.sleep(0)
        return [(seq, b"%d" % seq) for seq in self.log if seq > after]

    async def connect(self, user: str, connection: ConnectionId) -> list[bytes]:
        await self.home.connect(connection, Principal(UserId(user), 2**40))
        return self.sink.open(connection)

    async def join(self, user: str, connection: ConnectionId) -> tuple[int, list[bytes], list[bytes]]:
        """Connect and listen; the head it knew, what it was told in the answer, and what is posted to it."""
        frames = await self.connect(user, connection)
        async with await self.home.listen(connection, [ROOM]) as listening:
            head = len(self.log)
            await asyncio.sleep(0)
            return head, (await listening.start({ROOM: head}))[ROOM], frames

    async def write(self) -> None:
        seq = len(self.log) + 1
        self.log.append(seq)
        await self.home.publish(ROOM, seq, b"%d" % seq)


@pytest.fixture
async def lab(dynamodb: Server) -> AsyncIterator[Lab]:
    made = Lab()
    async with apigateway(dynamodb, sink=made.sink, read=made.read, clock=made.clock) as made.home:
        yield made


async def test_whoever_joins_while_messages_are_broadcast_lacks_none(lab):
    """What came with the answer and what was posted are the whole log after what was known, whatever came first."""
    joined = []
    for n in range(15):
        join = asyncio.create_task(lab.join(f"user-{n}", connection(f"c{n}")))
        while not join.done():
            await lab.write()
            await asyncio.wait({join}, timeout=0.002 * n)
            if len(lab.log) > 6 * n:
                break
        joined.append(await join)
        await lab.home.settle()
    await lab.write()
    await lab.home.settle()
    for head, answer, frames in joined:
        posted = list(dict.fromkeys(frames))
        assert posted == sorted(posted, key=int)
        assert sorted({*map(int, answer), *map(int, frames)}) == list(range(head + 1, len(lab.log) + 1))


async def test_a_room_may_be_spread_over_more_shards_while_members_come(lab):
    """Those who come meanwhile are served as well, wherever they are put."""
    joined = [await lab.join(f"user-{n}", connection(f"c{n}")) for n in range(6)]
    await lab.write()
    await lab.home.settle()
    await lab.home.table.update(delivery_key(ROOM), "SET shards = :shards", values={"shards": 4})
    joined += [await lab.join(f"late-{n}", connection(f"l{n}")) for n in range(6)]
    await lab.write()
    await lab.home.settle()
    lab.clock._pass(lab.clock.monotonic() + 61)
    joined += [await lab.join(f"later-{n}", connection(f"m{n}")) for n in range(6)]
    await lab.write()
    await lab.home.settle()
    for head, answer, frames in joined:
        assert [*answer, *frames] == [b"%d" % seq for seq in range(head + 1, 4)]


async def test_a_list_of_recipients_that_changes_meanwhile_fails_nobody_else(lab):
    """Some leave, some are cut, some come; those who stay get everything, in order."""
    stays = [await lab.join(f"stays-{n}", connection(f"s{n}")) for n in range(5)]
    leaves = [await lab.join(f"leaves-{n}", connection(f"l{n}")) for n in range(5)]
    for n in range(5):
        await lab.join(f"cut-{n}", connection(f"x{n}"))

    async def comes_and_goes() -> None:
        for n in range(5):
            await lab.home.unlisten(connection(f"l{n}"), ROOM)
            lab.sink.gone(connection(f"x{n}"))
            await lab.join(f"comes-{n}", connection(f"k{n}"))

    async def writes() -> None:
        for _ in range(30):
            await lab.write()
            await asyncio.sleep(0.002)

    await asyncio.gather(comes_and_goes(), writes())
    await lab.home.settle()
    before = [len(frames) for _, _, frames in leaves]
    await lab.write()
    await lab.home.settle()
    whole = [b"%d" % seq for seq in range(1, 32)]
    assert all(frames == whole for _, _, frames in stays)
    assert [len(frames) for _, _, frames in leaves] == before
    audience = {principal.user for _, principal in await lab.home.audience(ROOM)}
    assert audience == {f"{kind}-{n}" for kind in ("stays", "comes") for n in range(5)}


async def test_signals_to_users_find_connections_that_are_gone_and_forget_them(lab):
    """Telling, sending and closing: each is how it may be noticed."""
    for n, notice in enumerate(("tell", "send", "close")):
        gone = connection(f"g{n}")
        await lab.join("alice", gone)
        lab.sink.gone(gone)
        calls = {
            "tell": lab.home.tell(ALICE, b"t"),
            "send": lab.home.send(gone, b"t"),
            "close": lab.home.close(gone, 4401, "token expired"),
        }
        for name, call in calls.items():
            await call if name == notice else call.close()
        assert await lab.home.principal(gone) is None
    assert await lab.home.audience(ROOM) == []


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.THROTTLED, Outcome.REFUSED, Outcome.GONE])
async def test_whoever_is_to_be_closed_hears_no_more_whether_or_not_the_gateway_can_close_him(
    lab, monkeypatch, outcome
):
    """A user who is removed: also where his connection stays, or is just coming in."""
    _, _, frames = await lab.join("alice", A)
    await lab.home.follow(ALICE, RoomId("other"), 0)

    async def close(self, connection, code, reason):
        return outcome

    monkeypatch.setattr(Posts, "close", close)
    await lab.home.disconnect(ALICE, 4403, "banned")
    await lab.write()
    await lab.home.settle()
    assert frames == []
    assert await lab.home.audience(ROOM) == await lab.home.audience(RoomId("other")) == []
    monkeypatch.undo()
    async with await lab.home.listen(A, [ROOM]) as listening:
        assert await listening.start({ROOM: 0}) == {}
    assert A in lab.sink.closed


async def test_a_connection_that_is_not_known_any_more_is_closed_when_it_asks_to_listen(lab):
    """Its items have outlived their time, or were lost: its client comes anew instead of hearing nothing for ever."""
    await lab.join("alice", A)
    lab.clock._pass(lab.clock.monotonic() + 8_000)
    async with await lab.home.listen(A, [ROOM]) as listening:
        assert await listening.start({ROOM: 0}) == {}
    assert lab.sink.closed == {A: (4401, "the connection is not known any more")}
    async with await lab.home.listen(B, [ROOM]) as listening:
        assert await listening.start({ROOM: 0}) == {}


async def test_a_user_who_follows_a_room_gets_what_was_written_while_he_came_in(lab):
    """The membership was written, and then more, before his connections listened."""
    alice, bob = await lab.connect("alice", A), await lab.connect("bob", B)
    lab.log = [1, 2, 3]
    await lab.home.follow(ALICE, ROOM, 1)
    await lab.home.settle()
    assert (alice, bob) == ([b"2", b"3"], [])
    await lab.write()
    await lab.home.settle()
    assert alice == [b"2", b"3", b"4"]


async def test_who_comes_into_a_room_that_goes_on_talking_hears_it_in_order(lab, monkeypatch):
    """What was said before he listened was handed out to the others already; the next word must not overtake it."""
    alice, (_, _, bob) = await lab.connect("alice", A), await lab.join("bob", B)
    for _ in range(3):
        await lab.write()
    await lab.home.settle()
    look = Seats.grown_to

    async def look_late(self, room, after):
        has = await look(self, room, after)
        await lab.write()  # before he is served what he has missed
        await lab.home.settle()
        return has

    monkeypatch.setattr(Seats, "grown_to", look_late)
    await lab.home.follow(ALICE, ROOM, 2)
    await lab.home.settle()
    await lab.write()
    await lab.home.settle()
    assert alice == [b"3", b"4", b"5"]
    assert bob == [b"1", b"2", b"3", b"4", b"5"]


async def test_who_comes_into_a_room_while_it_is_served_is_served_before_that_ends(lab):
    """The holder of the lease has read who listens already: he goes through them once more."""
    alice, (_, _, bob) = await lab.connect("alice", A), await lab.join("bob", B)
    await lab.write()
    await lab.home.settle()
    async with Lease(lab.home.directory._table, clock=SystemClock(), room=ROOM, shard=0) as lease:
        lab.log.append(2)
        assert await lease.acquire(2)
        await lab.home.follow(ALICE, ROOM, 1)
        await lab.home.settle()
        assert alice == []
        assert not await lease.release(2, 2, listeners=1)
    await lab.write()
    await lab.home.settle()
    assert alice == bob[1:] == [b"2", b"3"]


async def test_who_comes_into_a_spread_room_is_served_by_his_own_shard(lab):
    """The others of the room get nothing twice."""
    async with Lease(lab.home.directory._table, clock=SystemClock(), room=ROOM, shard=0) as lease:
        assert await lease.acquire(0)
        await lease.spread(4, 0)
    heard = {user: (await lab.join(user, each))[2] for user, each in {"bob": B, "carol": C}.items()}
    await lab.write()
    await lab.home.settle()
    alice = await lab.connect("alice", A)
    await lab.home.follow(ALICE, ROOM, 0)
    await lab.home.settle()
    assert (alice, heard) == ([b"1"], {"bob": [b"1"], "carol": [b"1"]})
