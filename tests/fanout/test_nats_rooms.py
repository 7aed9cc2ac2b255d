"""Entries and signals between nodes: everybody gets them in order and once; what NATS loses comes from the store."""

from __future__ import annotations

import asyncio
import random

import pytest

from hubbub.fanout.nats import wire
from hubbub.model import ConnectionId, RoomId
from live import until
from natslab import Nodes, frame, looked

ROOM = RoomId("dev.talk:1")


def expected(room: str, first: int, last: int) -> list[bytes]:
    return [frame(room, seq) for seq in range(first, last + 1)]


async def test_entries_of_many_nodes_come_to_every_listener_in_order_and_once(nodes: Nodes):
    """Whoever writes where, and in whichever order they are handed out."""
    every = await nodes.several(3)
    heard = [await node.connect(f"u{n}", f"c{n}", ROOM) for n, node in enumerate(every)]

    async def publish(node, seq: int) -> None:
        await asyncio.sleep(random.random() / 50)
        await node.fanout.publish(ROOM, seq, frame(ROOM, seq))

    await asyncio.gather(*(publish(random.choice(every), nodes.log.write(ROOM)) for _ in range(300)))
    await until(lambda: all(len(frames) == 300 for frames in heard), "all entries")
    assert all(frames == expected(ROOM, 1, 300) for frames in heard)


async def test_signals_reach_the_listeners_of_all_nodes_but_not_who_is_excluded(nodes: Nodes):
    """Once each, also at the node where they are made."""
    one, two = await nodes.several(2)
    alice, bob = await one.connect("alice", "a", ROOM), await two.connect("bob", "b", ROOM)
    carol = await two.connect("carol", "c", "other")
    await one.fanout.signal(ROOM, b"typing", exclude=ConnectionId("b"))
    await one.fanout.signal(ROOM, b"s", exclude=ConnectionId("a"))
    await one.fanout.signal_here(ROOM, b"here")
    await until(lambda: bob == [b"s"] and alice == [b"typing", b"here"], "the signals")
    assert carol == []


async def test_a_listener_is_told_what_is_published_after_he_began_to_listen(nodes: Nodes):
    """When `listen` returns, the subscription stands: nothing has to be repaired."""
    one, two = await nodes.several(2)
    heard = []
    for n in range(30):
        heard.append(await two.connect("bob", f"b{n}", f"room{n}"))
        await one.write(f"room{n}")
        await until(lambda: all(heard), "the entry")
    assert heard == [[frame(f"room{n}", 1)] for n in range(30)]
    assert nodes.log.reads == 0


async def test_what_nats_loses_in_the_middle_is_read_once_for_a_thousand_listeners(nodes: Nodes):
    """The next entry shows the hole, and one read fills it for all."""
    one, two = await nodes.several(2)
    heard = [await two.connect(f"u{n}", f"c{n}", ROOM) for n in range(1_000)]
    one.lose(lambda subject, packet: any(isinstance(thing, wire.Entry) and thing.seq == 2 for thing in packet.things))
    for _ in range(3):
        await one.write(ROOM)
        await asyncio.sleep(0.02)  # packets of their own
    await until(lambda: all(len(frames) == 3 for frames in heard), "the entries")
    assert all(frames == expected(ROOM, 1, 3) for frames in heard)
    assert nodes.log.reads == 1


async def test_a_lost_tail_is_found_in_the_rounds(nats, stack):
    """An entry with no next one is found by looking where the logs end, with one question for many rooms."""
    nodes = Nodes(nats.url, stack, heads_s=1)
    one, two = await nodes.several(2)
    rooms = [f"room{n}" for n in range(200)]
    heard = await two.connect("bob", "b", *rooms)
    await looked(two)
    one.lose(lambda subject, packet: any(isinstance(thing, wire.Entry) for thing in packet.things))
    for room in rooms:
        await one.write(room)
    asked = nodes.log.heads_read
    await until(lambda: len(heard) == 200, "the lost entries")
    assert nodes.log.heads_read - asked < 60
    assert two.fanout.stats.repairs > 0


async def test_an_entry_too_long_for_nats_is_read_from_the_store(nodes: Nodes):
    """Its seq is told at once; a signal that is too long is let go, and counted."""
    one, two = await nodes.several(2)
    heard = await two.connect("bob", "b", ROOM)
    seq = nodes.log.write(ROOM)
    await one.fanout.publish(ROOM, seq, b"x" * (1024 * 1024 + 1))
    await one.fanout.signal(ROOM, b"y" * (1024 * 1024 + 1))
    await until(lambda: heard == [frame(ROOM, 1)], "the entry")
    assert one.fanout.stats.dropped == 2


async def test_long_entries_of_one_tick_are_split(nodes: Nodes):
    """No message is longer than the server allows."""
    one, two = await nodes.several(2)
    heard = await two.connect("bob", "b", ROOM)
    for _ in range(8):
        seq = nodes.log.write(ROOM)
        await one.fanout.publish(ROOM, seq, b"%d" % seq + b"x" * 400_000)
    await until(lambda: len(heard) == 8, "the entries")
    assert [each[:1] for each in heard] == [b"%d" % seq for seq in range(1, 9)]
    assert nodes.log.reads == 0


async def test_what_one_tick_brings_for_a_room_is_one_message(nodes: Nodes):
    """Batching is per subject."""
    one, two = await nodes.several(2)
    heard = await two.connect("bob", "b", ROOM)
    one.fanout._exchange.peers.sweep(0)
    packets: list[int] = []
    one.lose(lambda subject, packet: bool(".room." in subject and packets.append(len(packet.things))))
    for _ in range(50):
        await one.write(ROOM)
    await until(lambda: len(heard) == 50, "the entries")
    assert packets == [50]


@pytest.mark.parametrize("single", [0, 20, 16_384])
async def test_rooms_are_heard_one_by_one_or_in_groups(nats, stack, single):
    """Nobody notices which, but the number of subscriptions."""
    nodes = Nodes(nats.url, stack, single=single)
    one, two = await nodes.several(2)
    rooms = [f"room.{n}" for n in range(600)]
    heard = await two.connect("bob", "b", *rooms)
    for room in rooms:
        await one.write(room)
        await one.fanout.signal(RoomId(room), b"s")
    await until(lambda: len(heard) == 1_200, "entries and signals")
    assert sorted(heard) == sorted([frame(room, 1) for room in rooms] + [b"s"] * 600)
    assert nodes.log.reads == 0
    subscriptions = two.fanout.stats.subscriptions
    assert subscriptions > 600 if single == 16_384 else subscriptions < 300


async def test_no_signal_comes_twice_or_gets_lost_while_subscriptions_change(nats, stack):
    """From single rooms to groups and back, under way all the time."""
    nodes = Nodes(nats.url, stack, single=20)
    one, two = await nodes.several(2)
    two.fanout._exchange.interest._linger_s = 0.2
    heard = await two.connect("bob", "b", ROOM)
    told = 0

    async def keep_telling() -> None:
        nonlocal told
        while True:
            await one.fanout.signal(ROOM, b"%d" % told)
            told += 1
            await asyncio.sleep(0.001)

    telling = asyncio.create_task(keep_telling())
    kind = two.fanout._exchange.rooms
    for turn in range(3):
        others = [f"r{turn}.{n}" for n in range(100)]
        await two.connect("carol", f"c{turn}", *others)
        await until(lambda: kind.is_grouped and two.fanout.stats.subscriptions > 50, "groups")
        await asyncio.sleep(0.05)
        await two.gone(f"c{turn}")
        await until(lambda: not kind.is_grouped and not two.fanout._exchange.interest.is_changing, "single rooms")
        await asyncio.sleep(0.05)
    telling.cancel()
    await until(lambda: len(heard) >= told, "all signals")
    assert heard == [b"%d" % n for n in range(told)]


async def test_interest_outlives_a_short_absence(nodes: Nodes):
    """Who comes back within the grace costs no subscription."""
    _, two = await nodes.several(2)
    rooms = [f"room{n}" for n in range(100)]
    await two.connect("bob", "b", *rooms)
    made = dict(two.fanout._exchange.interest._made)
    await two.gone("b")
    await two.connect("bob", "b2", *rooms)
    assert two.fanout._exchange.interest._made == made


async def test_interest_ends_after_the_grace(nodes: Nodes):
    """A room that nobody listens to any more is not heard of, and nothing of it is kept."""
    one, two = await nodes.several(2)
    two.fanout._exchange.interest._linger_s = 0.1
    before = two.fanout.stats.subscriptions
    await two.connect("bob", "b", ROOM)
    await until(lambda: two.fanout.stats.subscriptions == before + 2, "subscriptions")
    await two.gone("b")
    await until(lambda: two.fanout.stats.subscriptions == before, "their end")
    assert not two.fanout._presence._rooms
    ignored = two.fanout.stats.received
    await one.write(ROOM)
    await one.fanout.tell("bob", b"t")
    await one.connect("carol", "c", "other")
    assert two.fanout.stats.received - ignored < 10


async def test_rubbish_from_nats_harms_nobody(nodes: Nodes, nats):
    """It is counted, and the next packet is read."""
    from nats.aio.client import Client

    one, two = await nodes.several(2)
    heard = await two.connect("bob", "b", ROOM)
    stranger = Client()
    await stranger.connect(nats.url)
    subject = two.fanout._exchange.rooms.subjects[ROOM]
    packets = [
        b"",
        b"\xff" * 100,
        b"\x91" * 100_000,
        wire.encode(wire.Packet(99, "x", 1, [])),
        wire.encode(wire.Packet(wire.VERSION, "x", 2, [wire.Leaving()])),
        wire.encode(wire.Packet(wire.VERSION, "x", 3, [wire.Entry(1, frame(ROOM, 1))]))[:-3],
    ]
    for packet in packets:
        await stranger.publish(subject, packet)
        await stranger.publish(two.fanout._exchange._subjects.nodes, packet)
    bad = wire.encode(wire.Packet(wire.VERSION, "y", 4, [wire.Digest(10**6, 0, {})]))
    await stranger.publish(two.fanout._exchange._subjects.nodes, bad)
    await stranger.close()
    await until(lambda: two.fanout.stats.malformed >= 12, "rubbish that is counted")
    await one.write(ROOM)
    await until(lambda: heard == [frame(ROOM, 1)], "the entry")
