"""Presence over nodes: users are counted once, told once, and those of a node that dies go with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from doubles import settle
from hubbub.fanout.nats import wire
from hubbub.model import RoomId, UserId
from live import BOUND_S, until
from natslab import FanoutNode, Nodes, looked, no_digests

ROOM = RoomId("dev.talk:1")


async def online(node: FanoutNode, room: str = ROOM) -> list[str]:
    return [str(user) for user in (await node.fanout.online(RoomId(room), 1_000))[0]]


async def until_online(node: FanoutNode, *users: str) -> None:
    """Wait until the replica says so."""
    await until(lambda: node.fanout._presence.online(ROOM, 1_000)[0] == sorted(users), f"online: {users}")


async def test_a_user_is_online_once_at_however_many_nodes_he_is(nodes: Nodes):
    """His beginning and his end are told once at each node that has listeners, and nowhere else."""
    one, two, three = await nodes.several(3)
    await one.connect("alice", "a", ROOM)
    await three.connect("carol", "c", "other")
    await until(lambda: bool(one.presence and three.presence), "the first two")
    one.presence.clear()
    await two.connect("bob", "b1", ROOM)
    await until_online(one, "alice", "bob")
    assert await online(two) == ["alice", "bob"]
    await one.connect("bob", "b2", ROOM)
    await until(lambda: two.fanout._presence.elsewhere(ROOM) == 2, "the second connection")
    await two.gone("b1")
    await until(lambda: one.fanout._presence.elsewhere(ROOM) == 0, "the end of the first")
    assert one.presence == [(ROOM, "bob", True)]
    await one.gone("b2")
    await until_online(one, "alice")
    assert one.presence == [(ROOM, "bob", True), (ROOM, "bob", False)]
    assert three.presence == [("other", "carol", True)]


async def test_who_was_there_before_is_not_told_to_have_come(nodes: Nodes):
    """A node that begins to look at a room learns silently who is there; its own users are told, unless they were."""
    one, two = await nodes.several(2)
    for user in ("alice", "bob"):
        await one.connect(user, user[0], ROOM)
    await two.connect("bob", "b2", ROOM)
    await two.connect("carol", "c", ROOM)
    assert await online(two) == ["alice", "bob", "carol"]
    await until(lambda: two.presence == [(ROOM, "carol", True)], "carol's coming")
    await until(lambda: one.presence[2:] == [(ROOM, "carol", True)], "carol's coming, told at the other node")


async def test_who_comes_while_a_node_still_asks_who_is_there_is_told(nodes: Nodes):
    """His coming is heard, the answers are not: they get lost, and are given up after a while."""
    one, two = await nodes.several(2)
    one.lose(lambda subject, packet: any(isinstance(thing, wire.AskPresence) for thing in packet.things))
    await one.connect("alice", "a", ROOM)
    await two.connect("bob", "b", ROOM)
    await until(lambda: (ROOM, "bob", True) in one.presence, "bob's coming")
    await until_online(one, "alice", "bob")
    assert sorted(one.presence) == [(ROOM, "alice", True), (ROOM, "bob", True)]


async def test_who_comes_after_one_was_let_into_a_room_is_told(nodes: Nodes, monkeypatch: pytest.MonkeyPatch):
    """Letting in ends when the other nodes have answered: what they tell from then on is heard, and is news."""
    monkeypatch.setattr("hubbub.fanout.nats.fanout.FOLLOWED_WITHIN_S", BOUND_S)
    one, two = await nodes.several(2)
    await one.connect("alice", "a")
    link = one.fanout._exchange._link
    subscribe, may_subscribe = link.subscribe, asyncio.Event()

    async def late(subject: str) -> Any:
        await may_subscribe.wait()
        return await subscribe(subject)

    monkeypatch.setattr(link, "subscribe", late)
    letting_in = asyncio.create_task(one.fanout.follow(UserId("alice"), ROOM, 0))
    await settle()
    assert not letting_in.done()
    may_subscribe.set()
    await letting_in
    assert one.fanout._presence.is_settled(ROOM)
    await two.connect("bob", "b", ROOM)
    await until(lambda: one.presence == [(ROOM, "alice", True), (ROOM, "bob", True)], "both comings")


async def test_what_was_missing_in_an_answer_is_told(nodes: Nodes, monkeypatch: pytest.MonkeyPatch):
    """Who asked before the others had answered has a list without their users, and nothing else would mend it."""
    monkeypatch.setattr("hubbub.fanout.nats.fanout.KNOWN_WITHIN_S", 0.0)
    one, two = await nodes.several(2)
    await two.connect("bob", "b", ROOM)
    reports = one.fanout._reports
    reports._asking = True  # as if its questions were about to be put
    await one.connect("alice", "a", ROOM)
    assert await online(one) == ["alice"]
    reports._put_questions()
    await until(lambda: (ROOM, "bob", True) in one.presence, "bob")


async def test_presence_is_answered_by_a_node_without_listeners(nodes: Nodes):
    """It asks the others, and waits for them."""
    one, two, three = await nodes.several(3)
    await one.connect("alice", "a", ROOM)
    await two.connect("bob", "b", ROOM)
    assert await online(three) == ["alice", "bob"]
    assert await three.fanout.is_online(ROOM, UserId("bob"))
    assert not await three.fanout.is_online(ROOM, UserId("carol"))
    assert await three.fanout.listeners(ROOM) == 2
    assert three.presence == []


async def test_a_large_room_comes_in_parts(nodes: Nodes):
    """Twenty thousand users are more than one message."""
    one, two = await nodes.several(2)
    for n in range(20_000):
        await one.connect(f"user-{n:06d}", f"c{n}", ROOM)
    await two.connect("bob", "b", ROOM)
    users, count = await two.fanout.online(ROOM, 3)
    assert (users, count) == (["bob", "user-000000", "user-000001"], 20_001)
    assert await two.fanout.listeners(ROOM) == 20_001


async def test_a_lost_change_is_noticed_by_the_next_one(nodes: Nodes):
    """The room is then asked for anew, and what differs is told."""
    one, two = await nodes.several(2)
    await one.connect("alice", "a", ROOM)
    await two.connect("bob", "b", ROOM)
    await until_online(one, "alice", "bob")
    one.lose(lambda subject, packet: any(isinstance(thing, wire.Presence) for thing in packet.things))
    await one.connect("carol", "c", ROOM)
    await one.gone("a")
    await asyncio.sleep(0.05)
    one.lose(lambda subject, packet: False)
    two.presence.clear()
    await one.connect("dave", "d", ROOM)
    await until_online(two, "bob", "carol", "dave")
    assert sorted(two.presence) == [(ROOM, "alice", False), (ROOM, "carol", True), (ROOM, "dave", True)]


async def test_lost_changes_without_a_next_one_are_found_by_digests(nodes: Nodes):
    """Comings, goings, and the going of the last."""
    one, two = await nodes.several(2)
    for node in (one, two):
        node.fanout._reports._digests_s = 1.0
    await one.connect("alice", "a", ROOM, "second")
    await two.connect("bob", "b", ROOM, "second", "third")
    await until_online(two, "alice", "bob")
    one.lose(lambda subject, packet: any(isinstance(thing, wire.Presence) for thing in packet.things))
    await one.connect("carol", "c", ROOM, "third")
    await one.gone("a")
    await until_online(two, "bob", "carol")
    presence = two.fanout._presence
    await until(lambda: presence.online(RoomId("second"), 9)[0] == ["bob"], "the going of the last")
    await until(lambda: presence.online(RoomId("third"), 9)[0] == ["bob", "carol"], "the coming of the first")


async def test_the_users_of_a_node_that_ends_are_gone_at_once(nodes: Nodes):
    """It says goodbye; nobody waits for its lease."""
    one, two = await nodes.several(2)
    await one.connect("alice", "a", ROOM)
    await two.connect("bob", "b", ROOM)
    await until_online(one, "alice", "bob")
    one.fanout._exchange.peers._lease_s = 1e9
    for peer in one.fanout._exchange.peers._alive.values():
        peer.until = 1e9
    await two.fanout._exchange.aclose()
    await until_online(one, "alice")
    assert one.presence[-1] == (ROOM, "bob", False)


async def test_the_users_of_a_node_that_falls_silent_are_gone_with_its_lease_and_come_back_with_it(nodes: Nodes):
    """A node that was only halted is taken up again, with what changed meanwhile."""
    one, two = await nodes.several(2)
    no_digests(one, two)
    await one.connect("alice", "a", ROOM)
    await two.connect("bob", "b", ROOM)
    await until_online(one, "alice", "bob")
    two.lose(lambda subject, packet: True)
    await until_online(one, "alice")
    await two.connect("carol", "c", ROOM)
    await two.fanout._exchange.outbox.sent(BOUND_S)
    assert await one.fanout.listeners(ROOM) == 1
    two.lose(lambda subject, packet: False)
    await until_online(one, "alice", "bob", "carol")
    await until_online(two, "alice", "bob", "carol")
    told = [each for each in one.presence if each[1] == "bob"]
    assert told == [(ROOM, "bob", True), (ROOM, "bob", False), (ROOM, "bob", True)]


async def test_what_a_dead_node_wrote_last_is_found_when_its_lease_ends(nats, stack):
    """It had written it, and told nobody; nobody waits for the rounds."""
    nodes = Nodes(nats.url, stack, heads_s=600)
    one, two = await nodes.several(2)
    heard = await one.connect("alice", "a", ROOM)
    await looked(one)
    two.lose(lambda subject, packet: True)
    await two.write(ROOM)
    await until(lambda: len(heard) == 1, "the entry")
    assert one.fanout.stats.repairs == 1
