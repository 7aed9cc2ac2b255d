"""The promises of the `Fanout`, `Directory` and `Sink` ports, over every adapter in the table of `conftest.py`."""

from __future__ import annotations

import pytest

from doubles import FakeClock, FakeSink, settle
from hubbub.fanout import open_fanout
from hubbub.model import ConnectionId, Principal, RoomId, UserId

ROOM = RoomId("room")


class World:
    """A fan-out with its sink, its clock and the log that it may read."""

    def __init__(self) -> None:
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
        with await self.fanout.listen(ConnectionId(connection), [RoomId(room) for room in rooms]) as listening:
            for room in rooms:
                listening.start(RoomId(room), len(self.log))
        return frames

    async def write(self, *seqs: int) -> None:
        """Write to the log and publish."""
        self.log = sorted({*self.log, *seqs})
        for seq in seqs:
            await self.fanout.publish(ROOM, seq, b"%d" % seq)
        await settle()


@pytest.fixture
async def world(make_fanout):
    made = World()
    async with make_fanout(sink=made.sink, read=made.read, clock=made.clock) as fanout:
        made.fanout = fanout
        fanout.watch(lambda room, user, online: made.presence.append((room, user, online)))
        yield made


async def test_a_connection_gets_a_rooms_entries_in_seq_order_each_at_most_once(world):
    """Whatever the order of publishing, and however often."""
    frames = await world.connect("alice", "a", ROOM)
    await world.write(2, 1, 1, 3, 2)
    assert frames == [b"1", b"2", b"3"]


async def test_an_entry_that_is_published_never_or_late_is_read_from_the_store_and_delivered_in_its_place(world):
    """A hole does not stay one."""
    frames = await world.connect("alice", "a", ROOM)
    world.log = [1, 2]
    await world.write(3)
    await world.clock.advance(1)
    assert frames == [b"1", b"2", b"3"]


async def test_an_announced_head_finds_an_entry_that_was_lost_at_the_end_of_the_log(world):
    """With one read for all listeners, and no word to them but the entry itself."""
    one, two = await world.connect("alice", "a", ROOM), await world.connect("bob", "b", ROOM)
    await world.write(1)
    world.log = [1, 2, 3]
    await world.fanout.announce(ROOM, 3, b"head 3")
    await world.clock.advance(1)
    assert one == two == [b"1", b"2", b"3"]
    assert world.reads == 1


async def test_listeners_are_told_each_head_once(world):
    """Those who have had everything are told where the log ends, and nobody of a room that he does not listen to."""
    frames, others = await world.connect("alice", "a", ROOM), await world.connect("bob", "b", "other")
    await world.write(1, 2)
    for head in (2, 2, 1):
        await world.fanout.announce(ROOM, head, b"head 2")
    await world.write(3)
    await world.fanout.announce(ROOM, 3, b"head 3")
    await world.fanout.announce("nowhere", 3, b"head 3")
    await world.clock.advance(10)
    assert frames == [b"1", b"2", b"head 2", b"3", b"head 3"]
    assert (others, world.reads) == ([], 0)


async def test_a_head_that_the_store_no_longer_has_is_not_looked_for_for_ever(world):
    """An announcement is a hint: what cannot be read is given up, and the next entry is delivered."""
    frames = await world.connect("alice", "a", ROOM)
    await world.fanout.announce(ROOM, 5, b"head 5")
    await world.clock.advance(60)
    assert world.reads == 1
    await world.write(1)
    assert frames == [b"1"]


async def test_a_connection_that_is_taken_out_of_a_room_while_it_is_about_to_listen_does_not_listen(world):
    """Neither one that was to stop itself nor one whose user was to; other rooms are not touched."""
    for end in (world.fanout.unlisten("a", ROOM), world.fanout.unfollow("alice", ROOM)):
        frames = await world.connect("alice", "a")
        with await world.fanout.listen("a", [ROOM, "other"]) as listening:
            assert [each for each, _ in await world.fanout.audience(ROOM)] == ["a"]
            await end
            assert listening.start(ROOM, 0) is None
            assert listening.start("other", 0) == []
        await world.write(1)
        assert (frames, await world.fanout.audience(ROOM)) == ([], [])
        assert world.fanout.listeners(ROOM) == 0
        await world.fanout.disconnect_connection("a")
        world.log = []


async def test_a_connection_that_is_gone_before_it_listens_leaves_nothing_behind(world):
    """Also when the room's newest entry is still on its way."""
    await world.connect("bob", "b", ROOM)
    await world.connect("alice", "a")
    with await world.fanout.listen("a", [ROOM]) as listening:
        world.sink.gone("a")
        await world.fanout.disconnect_connection("a")
        assert listening.start(ROOM, 1) is None
    assert world.fanout.listeners(ROOM) == 1


async def test_a_room_that_the_user_follows_meanwhile_is_told_to_who_is_about_to_listen(world):
    """A connection that is about to listen learns of it, unless its user is out of it again."""
    frames = await world.connect("alice", "a")
    with await world.fanout.listen("a", [ROOM]) as listening:
        await world.fanout.follow("alice", "other", 0)
        await world.fanout.follow("alice", "third", 0)
        await world.fanout.unfollow("alice", "third")
        assert listening.followed == {"other"}
        await world.fanout.unfollow("alice", ROOM)
        await world.fanout.follow("alice", ROOM, 0)
        assert listening.start(ROOM, 0) == []
    await world.write(1)
    assert frames == [b"1"]


async def test_a_slow_or_dead_listener_never_delays_the_others(world):
    """A connection that is gone is passed over."""
    await world.connect("alice", "a", ROOM)
    frames = await world.connect("bob", "b", ROOM)
    world.sink.gone("a")
    await world.write(1)
    assert frames == [b"1"]


async def test_a_connection_that_stopped_listening_gets_nothing_more_of_the_room(world):
    """Neither entries nor signals."""
    frames = await world.connect("alice", "a", ROOM, "other")
    await world.write(1)
    await world.fanout.unlisten("a", ROOM)
    await world.fanout.unlisten("a", ROOM)
    await world.write(2)
    await world.fanout.signal(ROOM, b"s")
    assert frames == [b"1"]


async def test_signals_reach_the_room_but_not_the_one_they_come_from(world):
    """`exclude` leaves one connection out."""
    alice, bob = await world.connect("alice", "a", ROOM), await world.connect("bob", "b", ROOM)
    await world.fanout.signal(ROOM, b"s", exclude="a")
    assert (alice, bob) == ([], [b"s"])


async def test_what_is_told_to_a_user_reaches_all_his_connections(world):
    """And nobody else's."""
    one, two = await world.connect("alice", "a1"), await world.connect("alice", "a2")
    other = await world.connect("bob", "b")
    await world.fanout.tell("alice", b"t")
    await world.fanout.tell("alice", b"u", exclude="a1")
    await world.fanout.tell("nobody", b"t")
    assert (one, two, other) == ([b"t"], [b"t", b"u"], [])


async def test_a_user_who_follows_a_room_hears_it_on_all_his_connections(world):
    """From the entry after the given one on, until he unfollows."""
    one, two = await world.connect("alice", "a1"), await world.connect("alice", "a2")
    await world.fanout.follow("alice", ROOM, 0)
    await world.write(1)
    await world.fanout.unfollow("alice", ROOM)
    await world.write(2)
    assert one == two == [b"1"]


async def test_a_users_connections_are_closed_together(world):
    """`disconnect` closes all of them with that code, `close` one."""
    for connection in ("a1", "a2"):
        await world.connect("alice", connection)
    await world.connect("bob", "b")
    await world.fanout.disconnect("alice", 4403, "banned")
    await world.fanout.close("b", 4401, "token expired")
    assert world.sink.closed == {"a1": (4403, "banned"), "a2": (4403, "banned"), "b": (4401, "token expired")}


async def test_a_user_is_online_in_a_room_while_at_least_one_of_his_connections_listens_to_it(world):
    """Users are counted, not connections."""
    await world.connect("alice", "a1", ROOM)
    await world.connect("alice", "a2", ROOM)
    await world.connect("bob", "b", ROOM)
    assert await world.fanout.online(ROOM, 10) == (["alice", "bob"], 2)
    assert await world.fanout.online(ROOM, 1) == (["alice"], 2)
    assert world.fanout.listeners(ROOM) == 3
    await world.fanout.disconnect_connection("a1")
    assert await world.fanout.is_online(ROOM, "alice")
    await world.fanout.disconnect_connection("a2")
    assert await world.fanout.disconnect_connection("a2") is None
    assert not await world.fanout.is_online(ROOM, "alice")


async def test_beginnings_and_ends_are_told_once_each_however_many_connections_a_user_has(world):
    """The first connection that listens begins, and the last that does not any more ends."""
    await world.connect("alice", "a1", ROOM)
    await world.connect("alice", "a2", ROOM)
    await world.fanout.unlisten("a1", ROOM)
    await world.connect("bob", "b", ROOM)
    assert world.presence == [(ROOM, "alice", True), (ROOM, "bob", True)]
    await world.fanout.disconnect_connection("a2")
    await world.fanout.disconnect_connection("a1")
    assert world.presence[2:] == [(ROOM, "alice", False)]


async def test_a_connections_principal_is_known_and_renewed(world):
    """The newest token counts."""
    await world.connect("alice", "a", expires_at=100)
    assert (await world.fanout.principal("a")).expires_at == 100
    await world.fanout.connect("a", Principal("alice", 200))
    assert (await world.fanout.principal("a")).expires_at == 200
    assert await world.fanout.principal("nobody") is None


async def test_ends_of_tokens_are_told_once_per_token(world):
    """First that the end is near, then that it has come; a renewed token starts anew."""
    await world.connect("alice", "a", expires_at=100)
    await world.connect("bob", "b", expires_at=100)
    await world.connect("carol", "c", expires_at=100)
    assert await world.fanout.lapsing(30, 60) == ([], [])
    soon, over = await world.fanout.lapsing(40, 60)
    assert (sorted(soon), over) == (["a", "b", "c"], [])
    assert await world.fanout.lapsing(41, 60) == ([], [])
    await world.fanout.connect("a", Principal("alice", 200))
    await world.fanout.disconnect_connection("c")
    assert await world.fanout.lapsing(100, 60) == ([], ["b"])
    assert await world.fanout.lapsing(101, 60) == ([], [])
    assert await world.fanout.lapsing(140, 60) == (["a"], [])


async def test_a_token_end_is_told_once_however_many_come_and_go_meanwhile(world):
    """Who has been told that his token ends soon is not told again, and is told of the end once."""
    await world.connect("alice", "a", expires_at=100)
    assert await world.fanout.lapsing(50, 60) == (["a"], [])
    for n in range(2_000):
        await world.connect("bob", f"c{n}")
        world.sink.gone(f"c{n}")
        await world.fanout.disconnect_connection(f"c{n}")
    assert await world.fanout.lapsing(51, 60) == ([], [])
    assert await world.fanout.lapsing(100, 60) == ([], ["a"])
    assert await world.fanout.lapsing(101, 60) == ([], [])


async def test_the_audience_of_a_room_is_who_listens_and_whose_connections_they_are(world):
    """Connections, each with its principal; those of other rooms are not among them."""
    await world.connect("alice", "a1", ROOM)
    await world.connect("alice", "a2", "other")
    await world.connect("bob", "b", ROOM)
    audience = {connection: principal.user for connection, principal in await world.fanout.audience(ROOM)}
    assert audience == {"a1": "alice", "b": "bob"}
    assert await world.fanout.audience("nowhere") == []


async def test_token_ends_of_connections_long_gone_take_no_memory(world):
    """Many short connections with long tokens leave nothing behind."""
    for n in range(5_000):
        await world.connect("alice", f"c{n}")
        world.sink.gone(f"c{n}")
        await world.fanout.disconnect_connection(f"c{n}")
    assert len(world.fanout._ends) <= 1_001


async def test_an_unknown_fanout_is_refused_by_name():
    """The error says what was expected and what came."""
    with pytest.raises(ValueError, match="expected `local`, got 'redis://'"):
        open_fanout("redis://", sink=FakeSink(), read=None, clock=FakeClock())
