"""Users and connections between nodes: who is told, let in, taken out and closed, wherever he is connected."""

from __future__ import annotations

import asyncio

import pytest

from hubbub.errors import Unavailable
from hubbub.fanout.nats import wire
from hubbub.model import ConnectionId, RoomId, UserId
from live import until
from natslab import Nodes, frame

ROOM = RoomId("dev.talk:1")
STRANGE = "zoë.* > \n/" + "x" * 100


def entries(first: int, last: int) -> list[bytes]:
    return [frame(ROOM, seq) for seq in range(first, last + 1)]


async def test_what_is_told_to_a_user_reaches_his_connections_at_all_nodes(nodes: Nodes):
    """Whatever characters his id has, and nobody else's connections."""
    one, two, three = await nodes.several(3)
    here, there = await one.connect(STRANGE, "a1"), await two.connect(STRANGE, "a2", ROOM)
    other = await three.connect("bob", "b", ROOM)
    await one.fanout.tell(UserId(STRANGE), b"t")
    await three.fanout.tell(UserId(STRANGE), b"u", exclude=ConnectionId("a1"))
    await until(lambda: here == [b"t"] and sorted(there) == [b"t", b"u"], "the signals")
    assert other == []


async def test_a_connection_is_told_and_closed_from_any_node(nodes: Nodes):
    """Also taken out of a room."""
    one, two = await nodes.several(2)
    frames = await two.connect("bob", "b", ROOM)
    await one.fanout.unlisten(ConnectionId("b"), ROOM)
    await one.fanout.send(ConnectionId("b"), b"you are out")
    await until(lambda: frames == [b"you are out"], "the signal")
    await one.write(ROOM)
    await one.fanout.close(ConnectionId("b"), 4401, "token expired")
    await one.fanout.close(ConnectionId("nobody"), 4401, "token expired")
    await until(lambda: two.sink.closed == {"b": (4401, "token expired")}, "its end")
    assert frames == [b"you are out"]


async def test_a_users_connections_are_closed_at_all_nodes(nodes: Nodes):
    """A ban is felt everywhere."""
    every = await nodes.several(3)
    for node in every:
        await node.connect("alice", "a")
        await node.connect("bob", "b")
    await every[1].fanout.disconnect(UserId("alice"), 4403, "banned")
    await until(lambda: all(node.sink.closed == {"a": (4403, "banned")} for node in every), "the closing")


async def test_a_user_follows_a_room_on_all_his_connections(nodes: Nodes):
    """From the entry after the given one on, also at nodes that did not hear of the room before, until he unfollows."""
    one, two, three = await nodes.several(3)
    frames = [await node.connect("alice", "a") for node in (one, two, three)]
    await two.connect("bob", "b", ROOM)
    await one.write(ROOM)
    await one.fanout.follow(UserId("alice"), ROOM, 0)
    await two.write(ROOM)
    await three.write(ROOM)
    await until(lambda: all(each == entries(1, 3) for each in frames), "the entries")
    await three.fanout.unfollow(UserId("alice"), ROOM)
    await until(lambda: not any(node.fanout._local.listens(ConnectionId("a"), ROOM) for node in (one, two)), "the end")
    await one.write(ROOM)
    await one.fanout.signal(ROOM, b"s")
    await asyncio.sleep(0.1)
    assert all(each == entries(1, 3) for each in frames)


async def test_who_follows_late_gets_what_he_missed_first_and_in_order(nodes: Nodes):
    """The node's stream has long passed where the user is to begin, and goes on while the store is read."""
    one, two = await nodes.several(2)
    others = await two.connect("bob", "b", ROOM)
    frames = await two.connect("alice", "a")
    for _ in range(450):
        await one.write(ROOM)
    await until(lambda: len(others) == 450, "the entries so far")

    async def write_meanwhile() -> None:
        await one.write(ROOM)
        await until(lambda: len(others) == nodes.log.entries[ROOM], "what is written meanwhile")

    nodes.log.gate = write_meanwhile
    await one.fanout.follow(UserId("alice"), ROOM, 10)
    await until(lambda: two.fanout._local.listens(ConnectionId("a"), ROOM), "the joining")
    nodes.log.gate = None
    await one.write(ROOM)
    await until(lambda: frames == entries(11, nodes.log.entries[ROOM]), "all entries, in order")


async def test_who_follows_a_room_that_nobody_here_listens_to_misses_nothing(nats, stack):
    """What was told before the order came is looked for at once, not only in the rounds."""
    nodes = Nodes(nats.url, stack, heads_s=600)
    one, two = await nodes.several(2)
    frames = await two.connect("alice", "a", "other")
    await two.connect("bob", "b", ROOM)
    await two.gone("b")  # the room is still heard of
    for _ in range(3):
        await one.write(ROOM)
    await one.fanout.follow(UserId("alice"), ROOM, 1)
    await until(lambda: frames == entries(2, 3), "the entries")


async def test_who_unfollows_while_he_catches_up_hears_nothing(nodes: Nodes):
    """And who is let in again after that, hears it all."""
    one, two = await nodes.several(2)
    others = await two.connect("bob", "b", ROOM)
    frames = await two.connect("alice", "a")
    for _ in range(5):
        await one.write(ROOM)
    await until(lambda: len(others) == 5, "the entries so far")
    reading, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        reading.set()
        await go_on.wait()

    nodes.log.gate = hold
    await one.fanout.follow(UserId("alice"), ROOM, 0)
    await asyncio.wait_for(reading.wait(), 20)
    await one.fanout.unfollow(UserId("alice"), ROOM)
    await until(lambda: not is_about_to_listen(two, "a"), "the order")
    go_on.set()
    nodes.log.gate = None
    await until(lambda: not two.fanout._following._tasks, "the end of catching up")
    await one.write(ROOM)
    await until(lambda: len(others) == 6, "the next entry")
    assert frames == []
    await one.fanout.follow(UserId("alice"), ROOM, 3)
    await until(lambda: frames == entries(4, 6), "the entries")


def is_about_to_listen(node, connection: str) -> bool:
    """Whether the connection is still about to listen to something."""
    return any(listening.rooms for listening in node.fanout._local._opened.get(ConnectionId(connection), ()))


async def test_the_store_may_be_away_while_somebody_catches_up(nodes: Nodes):
    """It is tried again."""
    one, two = await nodes.several(2)
    others = await two.connect("bob", "b", ROOM)
    frames = await two.connect("alice", "a")
    for _ in range(3):
        await one.write(ROOM)
    await until(lambda: len(others) == 3, "the entries so far")
    two.fanout._following.retry_s = 0.05
    failures = iter([Unavailable(), Unavailable()])

    async def fail() -> None:
        if (failure := next(failures, None)) is not None:
            raise failure

    nodes.log.gate = fail
    await one.fanout.follow(UserId("alice"), ROOM, 0)
    await until(lambda: frames == entries(1, 3), "the entries")


async def test_a_lost_order_is_had_again_before_the_next_one_is_carried_out(nodes: Nodes):
    """Somebody who was taken out and let in again is in, though the first order came last."""
    one, two = await nodes.several(2)
    frames = await two.connect("alice", "a", ROOM)
    lost: list[object] = []

    def is_first_unfollow(subject: str, packet: wire.Packet) -> bool:
        found = [thing for thing in packet.things if isinstance(thing, wire.Order)]
        if not lost and found:
            lost.extend(found)
            return True
        return False

    one.lose(is_first_unfollow)
    await one.fanout.unfollow(UserId("alice"), ROOM)
    await until(lambda: bool(lost), "the loss")
    await one.fanout.follow(UserId("alice"), ROOM, 0)
    await one.fanout.send(ConnectionId("a"), b"done")
    await until(lambda: b"done" in frames, "the last order")
    assert two.fanout._local.listens(ConnectionId("a"), ROOM)
    await one.write(ROOM)
    await until(lambda: frame(ROOM, 1) in frames, "the entry")


async def test_a_lost_last_order_is_noticed_by_the_heartbeat(nodes: Nodes):
    """Nobody stays in a room because a message got lost."""
    one, two = await nodes.several(2)
    await two.connect("alice", "a", ROOM)
    lost: list[bool] = []
    one.lose(
        lambda subject, packet: (
            not lost and any(isinstance(thing, wire.Order) for thing in packet.things) and not lost.append(True)
        )
    )
    await one.fanout.unfollow(UserId("alice"), ROOM)
    await until(lambda: not two.fanout._local.listens(ConnectionId("a"), ROOM), "the order")
    assert lost == [True]


async def test_the_audience_is_that_of_all_nodes(nodes: Nodes):
    """Those who are about to listen included."""
    one, two, three = await nodes.several(3)
    await one.connect("alice", "a", ROOM)
    for n in range(2_000):
        await two.connect(f"u{n}", f"c{n}", ROOM)
    await three.connect("carol", "c", "other")
    async with await three.fanout.listen(ConnectionId("c"), [ROOM]):
        audience = dict(await one.fanout.audience(ROOM))
    assert len(audience) == 2_002
    assert audience[ConnectionId("a")].user == "alice" and audience[ConnectionId("c1999")].user == "u1999"
    assert await one.fanout.audience(RoomId("nowhere")) == []


async def test_an_audience_that_a_node_does_not_tell_is_unavailable(nodes: Nodes):
    """None is passed over, as somebody might hear on who must not."""
    one, two = await nodes.several(2)
    one.fanout._audiences._answer_s = 0.2
    two.lose(lambda subject, packet: any(isinstance(thing, wire.Audience) for thing in packet.things))
    with pytest.raises(Unavailable):
        await one.fanout.audience(ROOM)
