"""Nodes that come, go and meet each other late."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from scripts.servers import Nats, free_port

from hubbub.errors import Unavailable
from hubbub.fanout.nats import wire
from hubbub.fanout.nats.link import Pauses
from hubbub.model import ConnectionId, Principal, RoomId, UserId
from live import BOUND_S, until
from natslab import Nodes, no_digests

ROOM = RoomId("dev.talk:1")


async def test_what_a_new_node_orders_reaches_one_that_was_cut_off_when_it_came(nodes: Nodes):
    """Nobody hears on for having been at a node that could not hear of the other."""
    one = await nodes.add()
    await one.connect("alice", "a", ROOM)
    link = one.fanout._exchange._link
    servers, link._servers = link._servers, [f"127.0.0.1:{free_port()}"]
    assert link._now is not None
    link._now.ended.set()
    await until(lambda: not one.fanout.stats.connected, "the cut")
    two = await nodes.add()
    await two.fanout.unfollow(UserId("alice"), ROOM)
    link._servers = servers
    await until(lambda: not one.fanout._local.listens(ConnectionId("a"), ROOM), "the order")
    assert one.fanout.stats.orders_missed == 0


async def test_a_node_that_said_goodbye_is_gone_whatever_comes_of_it_yet(nodes: Nodes):
    """Nobody waits for it, nor takes it for there until its lease ends."""
    one, two = await nodes.several(2)
    one.fanout._exchange.to_all(wire.Leaving())
    one.fanout._exchange.to_all(wire.Alive(0))
    await until(lambda: one.name not in two.fanout._exchange.peers.alive, "its end")
    assert await two.fanout.audience(ROOM) == []


async def test_who_is_told_of_before_his_node_is_known_goes_with_it(nodes: Nodes):
    """Its first word may be that of a user: he is not online for ever."""
    one, two = await nodes.several(2)
    no_digests(one, two)
    await two.connect("bob", "b", ROOM)
    presence = two.fanout._presence
    await until(lambda: presence.is_settled(ROOM), "the room")
    packet = wire.Packet(wire.VERSION, "strange", 1, [wire.Presence(UserId("eve"), True, 0, 1, 1)])
    two.fanout._exchange._receive(two.fanout._exchange._subjects.room(ROOM), wire.encode(packet))
    assert presence.is_online(ROOM, UserId("eve"))
    await until(lambda: not presence.is_online(ROOM, UserId("eve")), "her end")


async def test_after_an_outage_an_audience_is_not_told_before_all_can_have_come_back(stack: AsyncExitStack):
    """Whoever was taken for dead meanwhile may be alive, and have listeners who must not hear on."""
    with Nats() as server:
        nodes = Nodes(server.url, stack)
        one, two = await nodes.several(2)
        await two.connect("bob", "b", ROOM)
        server.kill()
        await until(lambda: not one.fanout._exchange.peers.alive, "that two is taken for dead")
        two.fanout._exchange._link._pauses = Pauses(first_s=1.0, most_s=1.0)  # it comes back after the other
        server.start()
        await until(lambda: one.fanout._exchange.is_up, "the connection")
        audience: list[tuple[ConnectionId, Principal]] = []
        refused = 0
        async with asyncio.timeout(BOUND_S):
            while not audience:
                try:
                    audience = await one.fanout.audience(ROOM)
                    assert audience, "nobody listens"
                except Unavailable:
                    refused += 1
                    await asyncio.sleep(0.02)
        assert [connection for connection, _ in audience] == ["b"] and refused
