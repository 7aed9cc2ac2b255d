"""Orders of two nodes that are heard of in another order than they were decided in."""

from __future__ import annotations

from hubbub.fanout.nats import wire
from hubbub.model import ConnectionId, RoomId, UserId
from live import until
from natslab import FanoutNode, Nodes, frame

DEN = RoomId("den")
KIT = UserId("kit")


def lose_orders(node: FanoutNode) -> None:
    node.lose(lambda subject, packet: any(isinstance(thing, wire.Order) for thing in packet.things))


async def find_orders(node: FanoutNode, frames: list[bytes]) -> None:
    """Lose nothing more, and return when kit's node has carried out all that this one ordered."""
    node.lose(lambda subject, packet: False)
    word = f"from {node.name}".encode()
    await node.fanout.send(ConnectionId("k"), word)
    await until(lambda: word in frames, "the last order")
    frames.remove(word)


async def test_who_was_put_out_does_not_hear_on_for_a_letting_in_that_comes_late(nodes: Nodes):
    """He was let in by one node, of which his own did not hear, and put out by another, of which it did."""
    one, two, three = await nodes.several(3)
    frames = await three.connect(KIT, "k")
    others = await three.connect("bob", "b", DEN)
    joined = await one.write(DEN)
    lose_orders(one)
    await one.fanout.follow(KIT, DEN, joined)
    await two.fanout.unfollow(KIT, DEN, await two.write(DEN))
    await find_orders(two, frames)
    await find_orders(one, frames)
    await two.write(DEN)
    await until(lambda: others == [frame(DEN, seq) for seq in (1, 2, 3)], "what he must not hear")
    assert frames == []


async def test_who_was_let_in_again_hears_on_after_a_putting_out_that_comes_late(nodes: Nodes):
    """He was put out by one node, of which his own did not hear, and let in again by another, of which it did."""
    one, two, three = await nodes.several(3)
    frames = await three.connect(KIT, "k", DEN)
    lose_orders(one)
    await one.fanout.unfollow(KIT, DEN, await one.write(DEN))
    await two.fanout.follow(KIT, DEN, await two.write(DEN))
    await find_orders(two, frames)
    await find_orders(one, frames)
    await two.write(DEN)
    await until(lambda: frames == [frame(DEN, seq) for seq in (1, 2, 3)], "what he is to hear")


async def test_what_is_told_without_a_place_in_the_log_holds_at_once(nodes: Nodes):
    """A room that is no more is heard by nobody, wherever its log ended."""
    one, two = await nodes.several(2)
    frames = await two.connect(KIT, "k", DEN)
    await one.fanout.follow(KIT, DEN, await one.write(DEN))
    await one.fanout.unfollow(KIT, DEN)
    await find_orders(one, frames)
    frames.clear()
    await one.write(DEN)
    await one.fanout.send(ConnectionId("k"), b"end")
    await until(lambda: b"end" in frames, "the end")
    assert frames == [b"end"]
