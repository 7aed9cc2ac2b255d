"""NATS servers that die, hang and come back, nodes that are halted: the chat goes on, and all agree again."""

from __future__ import annotations

import asyncio
import logging

import pytest
from scripts.servers import Nats, NatsCluster, free_port

from hubbub.errors import Unavailable
from hubbub.fanout import open_fanout
from hubbub.fanout.nats import wire
from hubbub.fanout.nats.link import _transport
from hubbub.model import ConnectionId, RoomId, UserId
from live import until
from natslab import FanoutNode, Nodes, frame, looked, no_digests

ROOM = RoomId("dev.talk:1")


def entries(first: int, last: int) -> list[bytes]:
    return [frame(ROOM, seq) for seq in range(first, last + 1)]


def server_of(node: FanoutNode, cluster: NatsCluster) -> Nats:
    """Where the node is connected."""
    url = node.fanout._exchange._link._connection().client.connected_url
    assert url is not None
    return next(server for server in cluster.servers if server.port == url.port)


def is_up(*nodes: FanoutNode) -> bool:
    return all(node.fanout.stats.connected for node in nodes)


async def through(one: FanoutNode, two: FanoutNode, heard: list[bytes]) -> None:
    """An entry of one node comes to the listener of the other."""
    seq = await one.write(ROOM)
    await until(lambda: heard[-1:] == [frame(ROOM, seq)], "an entry")


@pytest.mark.parametrize("fault", ["kill", "pause"])
async def test_a_server_that_dies_or_hangs_is_left_for_another(nats_cluster, stack, fault):
    """Nothing is lost to listeners, and presence is the same as before."""
    nodes = Nodes(nats_cluster.url, stack)
    one, two, three = await nodes.several(3)
    heard = [await node.connect(f"u{n}", f"c{n}", ROOM) for n, node in enumerate((one, two, three))]
    server = server_of(one, nats_cluster)
    getattr(server, fault)()
    try:
        for _ in range(20):
            await one.write(ROOM)
            await two.write(ROOM)
            await asyncio.sleep(0.02)
        await until(lambda: one.fanout.stats.reconnects > 0, "another server")
        await until(lambda: all(each == entries(1, 40) for each in heard), "all entries")
        await nodes.meet(one, two, three)
        presence = one.fanout._presence
        await until(lambda: presence.online(ROOM, 9)[0] == ["u0", "u1", "u2"], "presence")
    finally:
        server.resume()
        server.kill()
        server.start()


async def test_without_nats_a_node_serves_its_own_clients_and_all_agree_when_it_is_back(stack):
    """Listening and sending need no NATS; what was said meanwhile comes from the store."""
    with Nats() as server:
        nodes = Nodes(server.url, stack)
        one, two = await nodes.several(2)
        no_digests(one, two)
        ones, twos = await one.connect("alice", "a", ROOM), await two.connect("bob", "b", ROOM)
        await through(one, two, twos)
        server.kill()
        await until(lambda: not is_up(one) and not is_up(two), "the loss")
        seq = await one.write(ROOM)
        assert ones[-1] == frame(ROOM, seq)
        for n in range(100):
            others = await one.connect("carol", f"c{n}", ROOM)
        await one.write(ROOM)
        assert others == [frame(ROOM, 3)]
        await one.fanout.ping()
        with pytest.raises(Unavailable):
            await one.fanout.audience(ROOM)
        await until(lambda: one.fanout._presence.online(ROOM, 9)[0] == ["alice", "carol"], "the end of the lease")
        server.start()
        await until(lambda: is_up(one, two), "NATS")
        await until(lambda: twos == entries(1, 3), "what was missed")
        await nodes.meet(one, two)
        await until(lambda: two.fanout._presence.online(ROOM, 9)[0] == ["alice", "bob", "carol"], "presence")
        await through(one, two, twos)
        await through(two, one, ones)


@pytest.mark.parametrize("heads_s", [1, 600])
async def test_what_was_written_while_one_node_had_no_nats_is_found_when_it_is_back(stack, heads_s):
    """At once when the connection is there, and in the rounds while it is not."""
    with Nats() as first, Nats() as second:
        nodes = Nodes(second.url, stack, heads_s=heads_s)
        one, two = await nodes.add(), await nodes.add(url=nodes.url.replace(second.url, first.url))
        heard = await two.connect("bob", "b", ROOM)
        await looked(two)
        first.kill()
        await until(lambda: not is_up(two), "the loss")
        await one.write(ROOM)
        if heads_s == 600:
            first.start()
        await until(lambda: heard == entries(1, 1), "the entry")


async def test_orders_given_while_nats_was_away_are_carried_out(stack):
    """Who was taken out of a room hears it no more as soon as the nodes see each other again."""
    with Nats() as server:
        nodes = Nodes(server.url, stack)
        one, two = await nodes.several(2)
        await two.connect("alice", "a", ROOM)
        server.kill()
        await until(lambda: not is_up(one) and not is_up(two), "the loss")
        await one.fanout.unfollow(UserId("alice"), ROOM)
        server.start()
        await until(lambda: not two.fanout._local.listens(ConnectionId("a"), ROOM), "the order")


async def test_what_waits_for_nats_is_bounded(stack):
    """Beyond the bound an entry is but its seq, signals are let go, and it is counted."""
    with Nats() as server:
        nodes = Nodes(server.url, stack, pending_bytes=65_536)
        one, two = await nodes.several(2)
        heard = await two.connect("bob", "b", ROOM)
        server.kill()
        await until(lambda: not is_up(one), "the loss")
        for _ in range(1_000):
            seq = nodes.log.write(ROOM)
            await one.fanout.publish(ROOM, seq, frame(ROOM, seq) + b" " * 1_000)
            await one.fanout.signal(ROOM, b"s")
        assert one.fanout._exchange.outbox._bytes <= 65_536 * 9 // 8
        assert one.fanout.stats.dropped > 1_900
        server.start()
        await until(lambda: len(heard) == 1_000, "all entries")
        assert [each.strip() for each in heard] == entries(1, 1_000)


async def test_problems_are_logged_once(stack, caplog):
    """A server that is away for a while fills no log."""
    caplog.set_level(logging.WARNING)
    with Nats() as server:
        nodes = Nodes(server.url, stack)
        one = await nodes.add()
        server.kill()
        await until(lambda: not is_up(one), "the loss")
        await asyncio.sleep(2)
        server.start()
        await until(lambda: is_up(one), "NATS")
    assert 0 < len(caplog.records) < 8, caplog.text


async def test_a_node_that_was_halted_takes_nobody_for_dead(nodes: Nodes):
    """It asks for what it missed instead."""
    clock = JumpingClock()
    one = await nodes.add()
    two = await nodes.add(clock=clock)
    await nodes.meet(one, two)
    await one.connect("alice", "a", ROOM)
    heard = await two.connect("bob", "b", ROOM)
    await until(lambda: two.fanout._presence.online(ROOM, 9)[0] == ["alice", "bob"], "presence")
    await looked(two)
    one.lose(lambda subject, packet: any(isinstance(thing, wire.Entry) for thing in packet.things))
    await one.write(ROOM)
    two.presence.clear()
    clock.ahead_s = 100
    await until(lambda: heard == entries(1, 1), "what it missed")
    assert two.presence == []


async def test_a_node_that_reads_too_slowly_is_cut_off_and_catches_up(stack, tmp_path):
    """The server keeps so much for it and no more; the others notice nothing."""
    settings = tmp_path / "nats.conf"
    settings.write_text("max_pending: 1MB\nmax_payload: 1MB\n")
    with Nats(arguments=["-c", str(settings)]) as server:
        nodes = Nodes(server.url, stack)
        one, two, three = await nodes.several(3)
        heard = await two.connect("bob", "b", ROOM)
        others = await three.connect("carol", "c", ROOM)
        transport = _transport(two.fanout._exchange._link._connection().client)
        assert transport is not None
        transport.pause_reading()
        for n in range(1, 201):
            seq = nodes.log.write(ROOM)
            await one.fanout.publish(ROOM, seq, frame(ROOM, seq) + b" " * 100_000)
            await until(lambda seen=n: len(others) == seen, "the others' entries")  # type: ignore[misc]
        assert one.fanout.stats.reconnects == three.fanout.stats.reconnects == 0
        transport.resume_reading()
        await until(lambda: two.fanout.stats.reconnects > 0, "its end, and a new connection")
        await until(lambda: [each.strip() for each in heard] == entries(1, 200), "all entries")


class JumpingClock:
    """The machine's time, and what is added to it."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now_ms(self) -> int:
        return 0

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def test_a_node_that_finds_no_server_does_not_start(stack):
    """The error names the server, and nothing of the login."""
    url = f"nats://chat:hunter2@127.0.0.1:{free_port()}?connect_s=0.5"
    fanout = open_fanout(url, sink=None, read=None, heads=lambda rooms: None, clock=None)
    with pytest.raises(Unavailable, match=r"no NATS server at 127\.0\.0\.1") as raised:
        await stack.enter_async_context(fanout)
    assert "hunter2" not in str(raised.value)
