"""The promises of the `Fanout`, `Directory` and `Sink` ports, over every adapter in the table of `conftest.py`."""

from __future__ import annotations

import pytest

from doubles import FakeClock, FakeSink
from hubbub.fanout import open_fanout
from hubbub.model import ConnectionId, Principal, RoomId, UserId

ROOM = RoomId("room")


def connection(name: str) -> ConnectionId:
    """A connection's id of the form that gateways give them."""
    return ConnectionId(f"{name:A<15}=")


A, A1, A2, B, C = map(connection, ("a", "a1", "a2", "b", "c"))


class World:
    """A fan-out with its sink, its clock and the log that it may read."""

    def __init__(self, adapter) -> None:
        self.adapter = adapter
        self.sink = FakeSink()
        self.clock = FakeClock()
        self.log: list[int] = []
        self.presence: list[tuple[str, str, bool]] = []
        self.reads = 0

    async def read(self, room: RoomId, after: int) -> list[tuple[int, bytes]]:
        self.reads += 1
        return [(seq, b"%d" % seq) for seq in self.log if seq > after]

    async def connect(self, user: str, connection: str, *rooms: str, expires_at: int = 2**40) -> list[bytes]:
        frames = self.sink.open(connection)
        await self.fanout.connect(ConnectionId(connection), Principal(UserId(user), expires_at))
        async with await self.fanout.listen(ConnectionId(connection), [RoomId(room) for room in rooms]) as listening:
            await listening.start({RoomId(room): len(self.log) for room in rooms})
        return frames

    async def write(self, *seqs: int) -> None:
        """Write to the log and publish."""
        self.log = sorted({*self.log, *seqs})
        for seq in seqs:
            await self.fanout.publish(ROOM, seq, b"%d" % seq)
        await self.settle()

    async def announce(self, room: str, head: int, frame: bytes) -> None:
        """Announce where the log ends."""
        await self.fanout.announce(RoomId(room), head, frame)
        await self.settle()

    async def signal(self, room: str, frame: bytes, **options) -> None:
        """Hand out a signal."""
        await self.fanout.signal(RoomId(room), frame, **options)
        await self.settle()

    async def settle(self) -> None:
        """Let what was handed over be done."""
        await self.adapter.settle(self.fanout)

    async def advance(self, seconds: float) -> None:
        """Let time pass."""
        await self.clock.advance(seconds)
        await self.settle()


@pytest.fixture
async def world(fanout_adapter):
    made = World(fanout_adapter)
    async with fanout_adapter.make(sink=made.sink, read=made.read, clock=made.clock) as fanout:
        made.fanout = fanout
        fanout.watch(lambda room, user, online: made.presence.append((room, user, online)))
        yield made


async def test_a_connection_gets_a_rooms_entries_in_seq_order_each_at_most_once(world):
    """Whatever the order of publishing, and however often."""
    frames = await world.connect("alice", A, ROOM)
    await world.write(2, 1, 1, 3, 2)
    assert frames == [b"1", b"2", b"3"]


async def test_an_entry_that_is_published_never_or_late_is_read_from_the_store_and_delivered_in_its_place(world):
    """A hole does not stay one."""
    frames = await world.connect("alice", A, ROOM)
    world.log = [1, 2]
    await world.write(3)
    await world.advance(1)
    assert frames == [b"1", b"2", b"3"]


async def test_an_announced_head_finds_an_entry_that_was_lost_at_the_end_of_the_log(world):
    """With one read for all listeners, and no word to them but the entry itself."""
    one, two = await world.connect("alice", A, ROOM), await world.connect("bob", B, ROOM)
    await world.write(1)
    world.log = [1, 2, 3]
    reads = world.reads
    await world.announce(ROOM, 3, b"head 3")
    await world.advance(1)
    assert one == two == [b"1", b"2", b"3"]
    assert world.reads == reads + 1


async def test_listeners_are_told_each_head_once(world):
    """Those who have had everything are told where the log ends, and nobody of a room that he does not listen to."""
    frames, others = await world.connect("alice", A, ROOM), await world.connect("bob", B, "other")
    await world.write(1, 2)
    reads = world.reads
    for head in (2, 2, 1):
        await world.announce(ROOM, head, b"head 2")
    await world.write(3)
    await world.announce(ROOM, 3, b"head 3")
    await world.announce("nowhere", 3, b"head 3")
    await world.advance(10)
    assert frames == [b"1", b"2", b"head 2", b"3", b"head 3"]
    assert (others, world.reads) == ([], reads)


async def test_a_head_that_the_store_no_longer_has_is_not_looked_for_for_ever(world):
    """An announcement is a hint: what cannot be read is given up, and the next entry is delivered."""
    frames = await world.connect("alice", A, ROOM)
    reads = world.reads
    await world.announce(ROOM, 5, b"head 5")
    await world.advance(60)
    assert world.reads == reads + 1
    await world.write(1)
    assert frames == [b"1"]


async def test_a_connection_that_is_taken_out_of_a_room_while_it_is_about_to_listen_does_not_listen(world):
    """Neither one that was to stop itself nor one whose user was to; other rooms are not touched."""
    for end in (world.fanout.unlisten(A, ROOM), world.fanout.unfollow("alice", ROOM)):
        frames = await world.connect("alice", A)
        async with await world.fanout.listen(A, [ROOM, "other"]) as listening:
            assert [each for each, _ in await world.fanout.audience(ROOM)] == [A]
            await end
            assert await listening.start({ROOM: 0, "other": 0}) == {"other": []}
        await world.write(1)
        assert (frames, await world.fanout.audience(ROOM)) == ([], [])
        assert await world.fanout.listeners(ROOM) == 0
        await world.fanout.disconnect_connection(A)
        world.log = []


async def test_a_connection_that_is_gone_before_it_listens_leaves_nothing_behind(world):
    """Also when the room's newest entry is still on its way."""
    await world.connect("bob", B, ROOM)
    await world.connect("alice", A)
    async with await world.fanout.listen(A, [ROOM]) as listening:
        world.sink.gone(A)
        await world.fanout.disconnect_connection(A)
        assert await listening.start({ROOM: 1}) == {}
    assert await world.fanout.listeners(ROOM) == 1


async def test_a_room_that_the_user_follows_meanwhile_is_told_to_who_is_about_to_listen(world):
    """A connection that is about to listen learns of it, unless its user is out of it again."""
    frames = await world.connect("alice", A)
    async with await world.fanout.listen(A, [ROOM]) as listening:
        await world.fanout.follow("alice", "other", 0)
        await world.fanout.follow("alice", "third", 0)
        await world.fanout.unfollow("alice", "third")
        assert await listening.followed() == {"other"}
        await world.fanout.unfollow("alice", ROOM)
        await world.fanout.follow("alice", ROOM, 0)
        assert await listening.start({ROOM: 0}) == {ROOM: []}
    await world.write(1)
    assert frames == [b"1"]


async def test_a_slow_or_dead_listener_never_delays_the_others(world):
    """A connection that is gone is passed over."""
    await world.connect("alice", A, ROOM)
    frames = await world.connect("bob", B, ROOM)
    world.sink.gone(A)
    await world.write(1)
    assert frames == [b"1"]


async def test_a_connection_that_stopped_listening_gets_nothing_more_of_the_room(world):
    """Neither entries nor signals."""
    frames = await world.connect("alice", A, ROOM, "other")
    await world.write(1)
    await world.fanout.unlisten(A, ROOM)
    await world.fanout.unlisten(A, ROOM)
    await world.write(2)
    await world.signal(ROOM, b"s")
    assert frames == [b"1"]


async def test_signals_reach_the_room_but_not_the_one_they_come_from(world):
    """`exclude` leaves one connection out."""
    alice, bob = await world.connect("alice", A, ROOM), await world.connect("bob", B, ROOM)
    await world.signal(ROOM, b"s", exclude=A)
    assert (alice, bob) == ([], [b"s"])


async def test_what_a_process_learns_by_itself_it_tells_its_own_listeners(world):
    """Where there is but one process, these are all."""
    alice, bob = await world.connect("alice", A, ROOM), await world.connect("bob", B, "other")
    await world.fanout.signal_here(ROOM, b"s")
    await world.settle()
    assert (alice, bob) == ([b"s"], [])


async def test_what_is_told_to_a_user_reaches_all_his_connections(world):
    """And nobody else's."""
    one, two = await world.connect("alice", A1), await world.connect("alice", A2)
    other = await world.connect("bob", B)
    await world.fanout.tell("alice", b"t")
    await world.fanout.tell("alice", b"u", exclude=A1)
    await world.fanout.tell("nobody", b"t")
    assert (one, two, other) == ([b"t"], [b"t", b"u"], [])


async def test_a_user_who_follows_a_room_hears_it_on_all_his_connections(world):
    """From the entry after the given one on, until he unfollows."""
    one, two = await world.connect("alice", A1), await world.connect("alice", A2)
    await world.fanout.follow("alice", ROOM, 0)
    await world.write(1)
    await world.fanout.unfollow("alice", ROOM)
    await world.write(2)
    assert one == two == [b"1"]


async def test_a_users_connections_are_closed_together(world):
    """`disconnect` closes all of them with that code, `close` one."""
    for connection in (A1, A2):
        await world.connect("alice", connection)
    await world.connect("bob", B)
    await world.fanout.disconnect("alice", 4403, "banned")
    await world.fanout.close(B, 4401, "token expired")
    assert world.sink.closed == {A1: (4403, "banned"), A2: (4403, "banned"), B: (4401, "token expired")}


async def test_a_user_is_online_in_a_room_while_at_least_one_of_his_connections_listens_to_it(world):
    """Users are counted, not connections."""
    await world.connect("alice", A1, ROOM)
    await world.connect("alice", A2, ROOM)
    await world.connect("bob", B, ROOM)
    assert await world.fanout.online(ROOM, 10) == (["alice", "bob"], 2)
    assert await world.fanout.online(ROOM, 1) == (["alice"], 2)
    assert await world.fanout.listeners(ROOM) == 3
    await world.fanout.disconnect_connection(A1)
    assert await world.fanout.is_online(ROOM, "alice")
    await world.fanout.disconnect_connection(A2)
    assert await world.fanout.disconnect_connection(A2) is None
    assert not await world.fanout.is_online(ROOM, "alice")


async def test_beginnings_and_ends_are_told_once_each_however_many_connections_a_user_has(world):
    """The first connection that listens begins, and the last that does not any more ends."""
    await world.connect("alice", A1, ROOM)
    await world.connect("alice", A2, ROOM)
    await world.fanout.unlisten(A1, ROOM)
    await world.connect("bob", B, ROOM)
    assert world.presence == [(ROOM, "alice", True), (ROOM, "bob", True)]
    await world.fanout.disconnect_connection(A2)
    await world.fanout.disconnect_connection(A1)
    assert world.presence[2:] == [(ROOM, "alice", False)]


async def test_a_connections_principal_is_known_and_renewed(world):
    """The newest token counts."""
    await world.connect("alice", A, expires_at=100)
    assert (await world.fanout.principal(A)).expires_at == 100
    await world.fanout.connect(A, Principal("alice", 200))
    assert (await world.fanout.principal(A)).expires_at == 200
    assert await world.fanout.principal(connection("nobody")) is None


async def test_ends_of_tokens_are_told_once_per_token(world):
    """First that the end is near, then that it has come; a renewed token starts anew."""
    await world.connect("alice", A, expires_at=100)
    await world.connect("bob", B, expires_at=100)
    await world.connect("carol", C, expires_at=100)
    assert await world.fanout.lapsing(30, 60) == ([], [])
    soon, over = await world.fanout.lapsing(40, 60)
    assert (sorted(soon), over) == ([A, B, C], [])
    assert await world.fanout.lapsing(41, 60) == ([], [])
    await world.fanout.connect(A, Principal("alice", 200))
    await world.fanout.disconnect_connection(C)
    assert await world.fanout.lapsing(100, 60) == ([], [B])
    assert await world.fanout.lapsing(101, 60) == ([], [])
    assert await world.fanout.lapsing(140, 60) == ([A], [])


async def test_a_token_end_is_told_once_however_many_come_and_go_meanwhile(world):
    """Who has been told that his token ends soon is not told again, and is told of the end once."""
    await world.connect("alice", A, expires_at=100)
    assert await world.fanout.lapsing(50, 60) == ([A], [])
    for n in range(world.adapter.many):
        await world.connect("bob", connection(f"c{n}"))
        world.sink.gone(connection(f"c{n}"))
        await world.fanout.disconnect_connection(connection(f"c{n}"))
    assert await world.fanout.lapsing(51, 60) == ([], [])
    assert await world.fanout.lapsing(100, 60) == ([], [A])
    assert await world.fanout.lapsing(101, 60) == ([], [])


async def test_the_audience_of_a_room_is_who_listens_and_whose_connections_they_are(world):
    """Connections, each with its principal; those of other rooms are not among them."""
    await world.connect("alice", A1, ROOM)
    await world.connect("alice", A2, "other")
    await world.connect("bob", B, ROOM)
    audience = {connection: principal.user for connection, principal in await world.fanout.audience(ROOM)}
    assert audience == {A1: "alice", B: "bob"}
    assert await world.fanout.audience("nowhere") == []


async def test_a_room_that_is_to_be_looked_after_is_told_once_when_its_time_has_come(world):
    """However often that was asked; it may be asked again, and for another time."""
    now = world.clock.now_ms()
    for _ in range(3):
        await world.fanout.look_after(ROOM, now + 5_000)
    await world.fanout.look_after(RoomId("other"), now + 600_000)
    assert await world.fanout.due(now) == []
    assert await world.fanout.due(now + 120_000) == [ROOM]
    assert await world.fanout.due(now + 120_000) == []
    await world.fanout.look_after(ROOM, now + 130_000)
    assert sorted(await world.fanout.due(now + 720_000)) == ["other", ROOM]


async def test_token_ends_of_connections_long_gone_take_no_memory(world):
    """Many short connections with long tokens leave nothing behind."""
    for n in range(2 * world.adapter.many):
        await world.connect("alice", connection(f"c{n}"))
        world.sink.gone(connection(f"c{n}"))
        await world.fanout.disconnect_connection(connection(f"c{n}"))
    assert await world.adapter.leftovers(world.fanout) <= world.adapter.bound


async def test_an_unknown_fanout_is_refused_by_name():
    """The error says what was expected and what came."""
    with pytest.raises(ValueError, match="expected `local`, nats://… or tls://…, got 'redis'"):
        open_fanout("redis://", sink=FakeSink(), read=None, clock=FakeClock())
