"""The hub over sockets that write down what they are given, and against a plain model of lists."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from doubles import FakeSocket
from examples import examples
from hubbub.gateway import hub as hub_module
from hubbub.gateway.connection import CLOSE, COMPRESSED, PING, PONG, TEXT, Close, Life, Rules
from hubbub.gateway.deflate import MAX_BYTES, compress
from hubbub.gateway.hub import LATE_AFTER_S, MAX_HEAD_BYTES, Hub, Peer, control_frame, text_frame

OUTBOX_BYTES = 100


@pytest.fixture(autouse=True)
def nothing_wrong():
    """No test passes in which the hub did to a socket what it must not."""
    FakeSocket.wrongs.clear()
    yield
    assert not FakeSocket.wrongs


class WatchedLife(Life):
    """A life that counts how often it was asked what time brings."""

    __slots__ = ("looks",)

    def __init__(self, now: float, *, deflates: bool = False) -> None:
        super().__init__(now, deflates=deflates)
        self.looks = 0

    def passed(self, now: float, message_out_at: float, rules: Rules, early: bool = False) -> Any:
        self.looks += 1
        return super().passed(now, message_out_at, rules, early)


class Node:
    """A hub, its clock and its sockets by connection."""

    def __init__(self, **rules: Any) -> None:
        self.now = 1_000.0
        self.hub = Hub(Rules(**{"ping_after_s": 25.0, **rules}), outbox_bytes=OUTBOX_BYTES, clock=lambda: self.now)
        self.sockets: dict[str, FakeSocket] = {}

    def add(self, connection: str, *groups: str, deflates: bool = False) -> FakeSocket:
        socket = self.sockets[connection] = FakeSocket()
        self.hub.add(Peer(connection, WatchedLife(self.now, deflates=deflates), socket, socket.write))
        for group in groups:
            assert self.hub.join(group, connection)
        return socket

    def peer(self, connection: str) -> Peer:
        peer = self.hub.get(connection)
        assert peer is not None
        return peer

    def stick(self, connection: str) -> None:
        """The client reads nothing more, and the socket asks for a pause."""
        self.sockets[connection].stuck = True
        self.hub.congested(self.peer(connection), True)

    def unstick(self, connection: str) -> None:
        """The client has read everything."""
        self.sockets[connection].stuck = False
        self.sockets[connection].waits = 0
        self.hub.congested(self.peer(connection), False)

    def receive(self, connection: str, opcode: int, payload: bytes = b"") -> None:
        """A frame comes from the client."""
        peer = self.peer(connection)
        self.hub.act(peer, peer.life.received(opcode, True, False, payload, self.now, self.hub.rules))

    def sweep(self, seconds: int) -> None:
        """Let time pass, sweeping each second."""
        for _ in range(seconds):
            self.now += 1
            self.hub.sweep()

    def looks(self, connection: str) -> int:
        life = self.peer(connection).life
        assert isinstance(life, WatchedLife)
        return life.looks


@pytest.fixture
def node() -> Node:
    return Node()


async def turn() -> None:
    """Let this turn of the loop end."""
    await asyncio.sleep(0)


# Who gets what


async def test_a_frame_reaches_the_members_of_its_group(node):
    """And nobody else; a group without members is none."""
    a, b, c = node.add("a", "g"), node.add("b", "g"), node.add("c", "other")
    node.hub.publish("g", b"1")
    node.hub.publish("nobody's", b"2")
    await turn()
    assert (a.texts, b.texts, c.texts) == (["1"], ["1"], [])


async def test_a_frame_is_encoded_once(node):
    """All members are given the same bytes object, whether one frame was published in the turn or several."""
    sockets = [node.add(f"c{n}", "g") for n in range(5)]
    node.hub.publish("g", b"1")
    await turn()
    node.hub.publish("g", b"2")
    node.hub.publish("g", b"3")
    await turn()
    assert sockets[0].texts == ["1", "2", "3"]
    for socket in sockets[1:]:
        assert [one is other for one, other in zip(socket.writes, sockets[0].writes, strict=True)] == [True, True]


async def test_frames_of_one_turn_are_one_write(node):
    """However many are published to a group, sent to a connection, or both."""
    a, b = node.add("a", "g"), node.add("b", "g")
    for n in range(3):
        node.hub.publish("g", b"%d" % n)
    node.hub.send("b", b"own")
    node.hub.send("b", b"too")
    await turn()
    assert (len(a.writes), len(b.writes)) == (1, 1)
    assert (a.texts, b.texts) == (["0", "1", "2"], ["0", "1", "2", "own", "too"])


async def test_frames_of_several_groups_are_one_write_in_the_order_of_the_calls(node):
    """Also to a connection that is in some of the groups only, and those in the same groups share the bytes."""
    both, same, first, second = (
        node.add("both", "g", "h"),
        node.add("same", "g", "h"),
        node.add("a", "g"),
        node.add("b"),
    )
    node.hub.join("h", "b")
    for frame, group in ((b"1", "g"), (b"2", "h"), (b"3", "g"), (b"4", "h")):
        node.hub.publish(group, frame)
    await turn()
    assert both.texts == ["1", "2", "3", "4"]
    assert (first.texts, second.texts) == (["1", "3"], ["2", "4"])
    assert [len(socket.writes) for socket in (both, same, first, second)] == [1, 1, 1, 1]
    assert same.writes[0] is both.writes[0]


@pytest.mark.parametrize("groups", [["g"], ["g", "h"]])
async def test_what_is_sent_and_published_keeps_the_order_of_the_calls(node, groups):
    """Frames to one connection stand where they were sent among those of its groups, signals likewise."""
    a, b = node.add("a", *groups), node.add("b", *groups)
    node.hub.send("a", b"1")
    node.hub.publish(groups[0], b"2")
    node.hub.publish(groups[-1], b"3")
    node.hub.send("a", b"4")
    node.hub.publish(groups[0], b"5", droppable=True)
    node.hub.publish(groups[-1], b"6")
    node.hub.publish(groups[-1], b"7", exclude="b")
    await turn()
    assert (a.texts, b.texts) == (["1", "2", "3", "4", "5", "6", "7"], ["2", "3", "5", "6"])
    assert (len(a.writes), len(b.writes)) == (1, 1)


async def test_a_newcomer_gets_exactly_what_is_published_after_it_joined(node):
    """Also within one turn; joining twice is joining once."""
    a = node.add("a", "g")
    b = node.add("b")
    node.hub.publish("g", b"1")
    assert node.hub.join("g", "b")
    node.hub.publish("g", b"2")
    assert node.hub.join("g", "b")
    await turn()
    assert (a.texts, b.texts) == (["1", "2"], ["2"])


async def test_a_leaver_gets_exactly_what_was_published_before_it_left(node):
    """Also within one turn; leaving twice is leaving once, and leaving what one is not in is nothing."""
    a, b = node.add("a", "g"), node.add("b", "g")
    node.hub.publish("g", b"1")
    node.hub.publish("g", b"2", droppable=True)
    node.hub.leave("g", "b")
    node.hub.publish("g", b"3")
    node.hub.leave("g", "b")
    node.hub.leave("h", "b")
    node.hub.leave("g", "nobody")
    await turn()
    assert (a.texts, b.texts) == (["1", "2", "3"], ["1", "2"])


async def test_one_member_can_be_left_out(node):
    """`exclude` names the connection that a frame comes from."""
    a, b = node.add("a", "g"), node.add("b", "g")
    node.hub.publish("g", b"1", exclude="a")
    node.hub.publish("g", b"2", exclude="nobody")
    await turn()
    assert (a.texts, b.texts) == (["2"], ["1", "2"])


async def test_a_broadcast_reaches_every_open_connection(node):
    """In a group or not; those that are being closed are past it."""
    a, b, c = node.add("a", "g"), node.add("b"), node.add("c")
    node.hub.close("c", 1000, "")
    node.hub.broadcast(b"1")
    await turn()
    assert (a.texts, b.texts, c.texts) == (["1"], ["1"], [])


async def test_unknown_connections_are_ignored(node):
    """Each call says that there is no such connection, and does nothing."""
    assert not node.hub.join("g", "nobody")
    assert not node.hub.send("nobody", b"1")
    assert not node.hub.close("nobody", 1000, "")
    assert node.hub.get("nobody") is None
    assert repr(node.hub) == "<Hub 0 connections in 0 groups>"


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_text_frames_are_those_of_rfc_6455(size):
    """With the shortest form of each length."""
    encoded = text_frame(b"x" * size)
    socket = FakeSocket()
    socket.write(encoded)
    assert socket.frames == [(TEXT, b"x" * size)]
    assert len(encoded) - size == (2 if size < 126 else 4 if size < 65_536 else 10)


# Connections that do not read


async def test_a_connection_that_does_not_read_loses_signals_first(node):
    """Droppable frames are shed while it is congested; entries wait for it, and others notice nothing."""
    a, b = node.add("a", "g"), node.add("b", "g")
    node.stick("a")
    node.hub.publish("g", b"signal", droppable=True)
    node.hub.publish("g", b"entry")
    await turn()
    assert (a.texts, b.texts) == (["entry"], ["signal", "entry"])
    assert node.hub.stats.signals_shed == 1
    node.unstick("a")
    node.hub.publish("g", b"signal", droppable=True)
    await turn()
    assert a.texts == ["entry", "signal"]


async def test_a_signal_is_shed_for_whoever_does_not_read_in_its_group(node):
    """Whether he has not read since before he was there, and whoever else does not read elsewhere."""
    a, b, c = node.add("a", "g"), node.add("b", "g", "h"), FakeSocket()
    node.stick("a")
    late = Peer("c", WatchedLife(node.now), c, c.write)
    late.congested = c.stuck = True
    node.hub.add(late)
    node.hub.join("h", "c")
    for group in ("g", "h"):
        node.hub.publish(group, b"signal of %b" % group.encode(), droppable=True)
    await turn()
    assert (a.texts, b.texts, c.texts) == ([], ["signal of g", "signal of h"], [])
    assert node.hub.stats.signals_shed == 2
    c.stuck = False
    node.hub.congested(late, False)
    for group in ("g", "h"):
        node.hub.publish(group, b"more of %b" % group.encode(), droppable=True)
    await turn()
    assert (a.texts, c.texts, node.hub.stats.signals_shed) == ([], ["more of h"], 3)


def test_who_does_not_read_is_not_held_when_he_is_gone(node):
    """Also where his socket asks for a pause at its very end."""
    node.add("a", "g")
    peer = node.peer("a")
    node.stick("a")
    node.hub.remove(peer)
    node.hub.congested(peer, True)
    del node.sockets["a"]
    assert sys.getrefcount(peer) == 2


async def test_it_is_known_beforehand_whether_there_is_room(node):
    """What waits counts, and what was sent and published in this turn; what is said to have room closes nothing."""
    a = node.add("a", "g", "h")
    peer = node.peer("a")
    assert node.hub.has_room(peer, 10 * OUTBOX_BYTES)  # it reads: let it try
    node.stick("a")
    node.hub.send("a", b"x" * 20)
    await turn()
    assert a.waits == 22
    assert node.hub.has_room(peer, OUTBOX_BYTES - 22 - MAX_HEAD_BYTES)
    assert not node.hub.has_room(peer, OUTBOX_BYTES - 22 - MAX_HEAD_BYTES + 1)
    node.hub.publish("g", b"x" * 10)
    node.hub.publish("h", b"x" * 10)
    node.hub.send("a", b"x" * 10)
    left = OUTBOX_BYTES - 22 - 3 * 12
    assert not node.hub.has_room(peer, left - MAX_HEAD_BYTES + 1)
    assert node.hub.has_room(peer, left - MAX_HEAD_BYTES)
    node.hub.send("a", b"x" * (left - MAX_HEAD_BYTES))
    await turn()
    assert (len(a.texts), a.closed) == (5, None)
    node.unstick("a")
    assert node.hub.has_room(peer, 10 * OUTBOX_BYTES)


async def test_members_of_a_group_can_be_looked_at(node):
    """Those there are just now; of a group that nobody is in, nobody."""
    node.add("a", "g")
    node.add("b", "g", "h")
    assert {peer.id for peer in node.hub.members("g")} == {"a", "b"}
    node.hub.leave("g", "a")
    assert [peer.id for peer in node.hub.members("g")] == ["b"]
    assert node.peer("b") in node.hub.members("h")
    node.hub.remove(node.peer("b"))
    assert len(node.hub.members("g")) == len(node.hub.members("nobody's")) == 0


async def test_it_is_known_when_a_message_was_last_sent(node):
    """By itself or by a group that it is in, or was."""
    node.add("a", "g")
    peer = node.peer("a")
    assert peer.message_out_at == 0.0
    for say in (lambda: node.hub.send("a", b"x"), lambda: node.hub.publish("g", b"x")):
        node.now += 10
        say()
        await turn()
        assert peer.message_out_at == node.now
    node.hub.leave("g", "a")
    assert peer.message_out_at == node.now


async def test_a_connection_for_which_too_much_waits_is_closed_with_4408(node):
    """Nothing is written to it then, also when it reads again; others notice nothing."""
    a, b = node.add("a", "g", "h"), node.add("b", "g")
    node.stick("a")
    for n in range(10):
        node.hub.publish("g", b"%020d" % n)
        await turn()
    assert a.closed == (4408, "slow consumer")
    assert (len(a.texts), len(b.texts)) == (4, 10)
    node.unstick("a")
    node.hub.publish("g", b"more")
    node.hub.publish("h", b"more")
    assert not node.hub.send("a", b"more")
    assert not node.hub.join("h", "a")
    await turn()
    assert len(a.texts) == 4
    assert node.hub.stats.slow_closed == 1
    assert node.hub.remove(node.peer("a")) == (4408, "slow consumer")


@pytest.mark.parametrize(("size", "fits"), [(OUTBOX_BYTES - 2, True), (OUTBOX_BYTES - 1, False)])
@pytest.mark.parametrize("how", ["send", "publish", "both"])
async def test_the_outbox_has_a_bound(node, size, fits, how):
    """As much may wait as was set, and not a byte more."""
    a = node.add("a", "g")
    node.add("b", "g")
    node.stick("a")
    if how == "publish":
        node.hub.publish("g", b"x" * size)
    elif how == "send":
        node.hub.send("a", b"x" * size)
    else:
        node.hub.publish("g", b"x" * (size - 12))
        node.hub.send("a", b"x" * 10)
    await turn()
    assert (a.closed is None) == fits
    assert a.waiting() == (OUTBOX_BYTES if fits else 0)


async def test_pongs_too_are_bounded(node):
    """A client that pings and does not read is closed like any other."""
    a = node.add("a")
    node.stick("a")
    for _ in range(20):
        node.receive("a", PING, b"12345678")
    assert a.closed == (4408, "slow consumer")
    assert a.waiting() == OUTBOX_BYTES


async def test_a_connection_that_is_closed_in_the_middle_of_a_flush_holds_up_nobody(node):
    """Members before and after it get the frame, of one group and of several."""
    sockets = {name: node.add(name, "g", "h") for name in "abc"}
    node.stick("b")
    sockets["b"].waits = OUTBOX_BYTES
    node.hub.publish("g", b"1")
    await turn()
    node.hub.publish("g", b"2")
    node.hub.publish("h", b"3")
    await turn()
    assert sockets["b"].closed == (4408, "slow consumer")
    assert [sockets[name].texts for name in "abc"] == [["1", "2", "3"], [], ["1", "2", "3"]]


async def test_a_group_whose_last_member_is_closed_by_a_joins_flush_takes_the_newcomer(node):
    """The newcomer is in the group that is published to afterwards."""
    node.add("slow", "g")
    node.stick("slow")
    node.sockets["slow"].waits = OUTBOX_BYTES
    b = node.add("b")
    node.hub.publish("g", b"1")
    assert node.hub.join("g", "b")
    node.hub.publish("g", b"2")
    await turn()
    assert node.sockets["slow"].closed == (4408, "slow consumer")
    assert b.texts == ["2"]


async def test_a_connection_that_is_closed_by_its_own_join_or_leave_is_in_no_group(node):
    """What it did not read before counts first."""
    for name in ("joiner", "leaver"):
        node.add(name, "mine")
        node.stick(name)
        node.sockets[name].waits = OUTBOX_BYTES
    node.add("other", "g")
    node.hub.publish("g", b"1")
    node.hub.send("joiner", b"1")
    assert not node.hub.join("g", "joiner")
    node.hub.publish("mine", b"1")
    node.hub.leave("mine", "leaver")
    assert node.sockets["joiner"].closed == node.sockets["leaver"].closed == (4408, "slow consumer")
    assert repr(node.hub) == "<Hub 3 connections in 1 groups>"
    node.unstick("joiner")
    node.hub.publish("g", b"2")
    await turn()
    assert node.sockets["joiner"].texts == []


async def test_a_socket_whose_write_raises_ends_alone(node, caplog):
    """The others get their frames, in this turn and later, and the broken one is reported as 1006."""
    for name in ("grouped", "sent", "both", "twice"):
        node.add(name)
        node.sockets[name].broken = True
    others = [node.add("x", "g", "h"), node.add("y", "g")]
    for name, group in (("grouped", "g"), ("both", "g"), ("twice", "g"), ("twice", "h")):
        node.hub.join(group, name)
    with caplog.at_level(logging.CRITICAL):
        node.hub.send("sent", b"1")
        node.hub.send("both", b"1")
        node.hub.send("x", b"1")
        node.hub.publish("g", b"2")
        await turn()
        node.hub.publish("g", b"3")
        node.hub.publish("h", b"4")
        node.hub.send("y", b"5")
        await turn()
    assert [socket.texts for socket in others] == [["1", "2", "3", "4"], ["2", "3", "5"]]
    for name in ("grouped", "sent", "both", "twice"):
        assert node.sockets[name].dropped is True
        assert not node.hub.send(name, b"6")
        assert node.hub.remove(node.peer(name)) == (1006, "Connection closed abnormally")


async def test_a_socket_that_cannot_be_closed_politely_is_cut_off(node, caplog):
    """Whoever closed it notices nothing."""
    a = node.add("a", "g")
    a.broken = True
    with caplog.at_level(logging.CRITICAL):
        assert node.hub.close("a", 4403, "banned")
    assert a.dropped is True
    assert node.hub.remove(node.peer("a")) == (4403, "banned")


# Closing


async def test_what_was_published_before_goes_out_before_close(node):
    """And nothing after it: the groups are left before CLOSE is written."""
    a = node.add("a", "g", "h")
    node.add("b", "g")
    seen: list[tuple[list[str], str]] = []
    a.on_close = lambda: seen.append((a.texts, repr(node.hub)))
    node.hub.publish("g", b"1")
    node.hub.send("a", b"2")
    assert node.hub.close("a", 4403, "removed")
    node.hub.publish("g", b"3")
    assert not node.hub.send("a", b"4")
    assert not node.hub.join("g", "a")
    await turn()
    assert seen == [(["1", "2"], "<Hub 2 connections in 1 groups>")]
    assert (a.texts, a.closed, a.dropped) == (["1", "2"], (4403, "removed"), None)


async def test_a_congested_connection_gets_what_fits_before_its_close(node):
    """What does not fit is left out, and the code stays the one it was closed with."""
    for name, waits in (("room", 0), ("full", OUTBOX_BYTES)):
        node.add(name, "g")
        node.stick(name)
        node.sockets[name].waits = waits
    node.hub.publish("g", b"1")
    node.hub.close("room", 1012, "Service restart")
    assert node.sockets["room"].texts == ["1"]
    assert node.sockets["room"].closed == (1012, "Service restart")
    assert node.sockets["full"].closed == (4408, "slow consumer")
    late = node.add("late")
    node.stick("late")
    late.waits = OUTBOX_BYTES
    node.hub.send("late", b"1")
    node.hub.close("late", 1012, "Service restart")
    assert (late.texts, late.closed) == ([], (1012, "Service restart"))
    assert node.hub.stats.slow_closed == 1


async def test_closing_twice_is_closing_once(node):
    """The second call finds the connection and changes nothing."""
    a = node.add("a")
    assert node.hub.close("a", 4401, "expired")
    assert node.hub.close("a", 1012, "Service restart")
    assert a.closed == (4401, "expired")


async def test_a_clients_close_is_answered_and_the_socket_closed(node):
    """After what was published before."""
    a = node.add("a", "g")
    node.hub.publish("g", b"1")
    node.receive("a", CLOSE, (4000).to_bytes(2, "big"))
    assert (a.texts, a.closed, a.dropped) == (["1"], (4000, ""), False)


async def test_a_connection_that_is_gone_leaves_nothing(node):
    """Its groups, its place in the sweep and its socket are let go of at once; removing it again is nothing."""
    socket = node.add("a", "g", "h")
    node.hub.publish("g", b"1")
    node.hub.send("a", b"1")
    peer = node.peer("a")
    assert node.hub.remove(peer) == node.hub.remove(peer) == (1006, "Connection closed abnormally")
    node.hub.act(peer, Close(1000, "too late", drop=False))
    assert repr(node.hub) == "<Hub 0 connections in 0 groups>"
    await turn()
    assert socket.writes == []
    watched = weakref.ref(node.sockets.pop("a"))
    del socket, peer
    gc.collect()
    assert watched() is None
    assert (node.hub.stats.connections, node.hub.stats.opened, node.hub.stats.closed) == (0, 1, 1)
    assert node.hub.stats.closed_by_code == {1006: 1}


async def test_short_lived_connections_take_no_memory(node):
    """Thousands that came and went, some of them closed, leave nothing for the sweeper."""
    for n in range(2_000):
        node.add(f"c{n}", f"g{n}")
        node.hub.publish(f"g{n}", b"1")
        if n % 2:
            node.hub.close(f"c{n}", 1000, "")
        node.hub.remove(node.peer(f"c{n}"))
    await turn()
    assert (len(node.hub._looks), node.hub._groups, node.hub._outs, node.hub._dirty) == (0, {}, [], [])


# Time


async def test_the_silent_are_pinged_and_the_dead_cut_off(node):
    """A ping after 25 s, the end after 20 more, within a sweep or two."""
    a, b = node.add("a", "g"), node.add("b", "g")
    node.sweep(27)
    assert a.frames == [(PING, b"")]
    node.receive("b", PONG)
    node.hub.send("a", b"1")
    node.sweep(22)
    node.hub.publish("g", b"2")
    await turn()
    assert (a.dropped, b.dropped) == (True, None)
    assert (a.texts, b.texts) == ([], ["2"])
    assert node.hub.remove(node.peer("a")) == (1006, "no answer to ping")


def pinged_in(node: Node, seconds: int) -> list[int]:
    """How many pings go out in each of the next seconds; each is answered at once."""
    counts = []
    for _ in range(seconds):
        for socket in node.sockets.values():
            socket.writes.clear()
        node.sweep(1)
        pinged = [name for name, socket in node.sockets.items() if socket.writes]
        for name in pinged:
            node.receive(name, PONG)
        counts.append(len(pinged))
    return counts


async def test_who_came_together_is_not_pinged_together():
    """After a cut all come within a second: their pings are spread, some sooner than they must be, and none later."""
    node = Node(ping_after_s=25.0, ping_early_s=5.0)
    for number in range(1_200):
        node.add(f"c{number}")
    first = pinged_in(node, 30)
    assert sum(first[:20]) == 0
    assert sum(first[:26]) == 1_200
    assert max(first) <= 1_200 / 5
    later = pinged_in(node, 270)[-25:]
    assert max(later) <= 100  # all even would be 48 a second
    assert 0.95 * 1_200 <= sum(later) <= 1.3 * 1_200


async def test_few_are_pinged_when_it_is_time():
    """Nothing is spread where nobody would notice."""
    node = Node(ping_after_s=25.0, ping_early_s=5.0)
    for number in range(50):
        node.add(f"c{number}")
    counts = pinged_in(node, 27)
    assert counts[24:26] in ([50, 0], [0, 50])
    assert sum(counts) == 50


async def test_one_that_fails_keeps_no_other_from_being_looked_at(monkeypatch):
    """What a sweep did not come to because of it, the next one does."""
    node = Node(lifetime_s=1_000.0)  # with more than pings to be due, each is asked by itself
    sockets = [node.add(f"c{number}") for number in range(20)]
    passed, real = [], Life.passed

    def passes(life, *given):
        passed.append(life)
        if len(passed) == 6:
            raise RuntimeError("this one is broken")
        return real(life, *given)

    monkeypatch.setattr(Life, "passed", passes)
    with pytest.raises(RuntimeError):
        node.sweep(30)
    assert sum(bool(socket.frames) for socket in sockets) == 5
    node.sweep(1)
    assert sum(bool(socket.frames) for socket in sockets) == 19


async def test_pings_are_answered(node):
    """With their own payload."""
    a = node.add("a")
    node.receive("a", PING, b"hello")
    assert a.frames == [(PONG, b"hello")]
    assert control_frame(PONG, b"hello") == a.writes[0]


async def test_the_sweeper_looks_only_when_something_may_be_due():
    """Not every second, and once per connection however much it has heard."""
    node = Node(lifetime_s=1_000.0)  # with more than pings to be due, each is asked by itself
    node.add("a")
    node.sweep(25)
    assert node.looks("a") == 0
    node.sweep(2)
    assert node.looks("a") == 1
    for _ in range(18):
        node.receive("a", PONG)
        node.sweep(1)
    assert node.looks("a") == 1
    node.sweep(30)
    assert node.looks("a") <= 4


async def test_an_unanswered_close_is_cut_off_within_its_time(node):
    """The sweeper looks sooner than it had meant to."""
    a = node.add("a")
    node.sweep(1)
    node.hub.close("a", 1012, "Service restart")
    node.sweep(5)
    assert a.dropped is None
    node.sweep(2)
    assert a.dropped is True


async def test_a_node_that_was_held_up_takes_nobody_for_dead(node):
    """The first sweep after a pause lets the sockets be read before anybody is judged."""
    a, b = node.add("a"), node.add("b")
    node.sweep(27)
    node.now += LATE_AFTER_S + 30
    node.hub.sweep()
    assert (a.dropped, b.dropped) == (None, None)
    node.receive("b", PONG)
    node.sweep(1)
    assert (a.dropped, b.dropped) == (True, None)


async def test_a_node_that_is_always_late_still_sweeps(node):
    """Every other sweep acts, however long each takes to come."""
    a = node.add("a")
    for _ in range(12):
        node.now += LATE_AFTER_S + 1
        node.hub.sweep()
    assert a.dropped is True


@pytest.mark.parametrize("way", ["publish", "signal", "send", "in", "left"])
async def test_messages_in_either_direction_keep_a_connection_from_being_idle(way):
    """Published to its group, also to one that it has left since, sent to it alone, or received from it."""
    node = Node(idle_s=60.0, ping_after_s=1_000.0)
    a, quiet = node.add("a", "g"), node.add("quiet")
    node.sweep(40)
    if way == "send":
        node.hub.send("a", b"1")
    elif way == "in":
        node.receive("a", TEXT, b"1")
    else:
        node.hub.publish("g", b"1", droppable=way == "signal")
    await turn()
    if way == "left":
        node.hub.leave("g", "a")
    node.sweep(59)
    assert (a.closed, quiet.closed) == (None, (1001, "Going away"))
    node.sweep(3)
    assert a.closed == (1001, "Going away")


async def test_pings_and_pongs_keep_no_connection_from_being_idle():
    """They are no messages, whoever sends them."""
    node = Node(idle_s=60.0, ping_after_s=10.0)
    a = node.add("a")
    for _ in range(62):
        node.receive("a", PONG)
        node.receive("a", PING)
        node.sweep(1)
    assert a.closed == (1001, "Going away")


async def test_a_connection_ends_with_its_lifetime():
    """However busy it is."""
    node = Node(lifetime_s=30.0)
    a = node.add("a")
    for _ in range(32):
        node.receive("a", TEXT, b"1")
        node.sweep(1)
    assert a.closed == (1001, "Going away")


def test_a_connection_costs_no_task_and_no_timer():
    """Connections come, join, are swept, closed and go without a loop anywhere near."""
    node = Node()
    for n in range(100):
        node.add(f"c{n}", "g")
    node.sweep(27)
    for n in range(100):
        node.hub.close(f"c{n}", 1000, "")
    node.sweep(7)
    assert all(socket.dropped for socket in node.sockets.values())


async def test_a_turn_is_one_call_of_the_loop(node, monkeypatch):
    """Whoever sends and publishes how much to how many, one callback writes it all."""
    calls: list[Any] = []
    loop = asyncio.get_running_loop()
    for n in range(100):
        node.add(f"c{n}", "g", f"g{n}")
    monkeypatch.setattr(loop, "call_soon", lambda callback, *args, **kw: calls.append(callback))
    for n in range(100):
        node.hub.publish("g", b"1")
        node.hub.publish(f"g{n}", b"2")
        node.hub.send(f"c{n}", b"3")
    node.hub.close("c0", 1000, "")
    node.hub.publish("g", b"4")
    monkeypatch.undo()
    assert len(calls) == 1
    calls[0]()
    assert all(socket.texts[-1] == "4" for name, socket in node.sockets.items() if name != "c0")


async def test_frames_and_bytes_are_counted_as_they_are_written(node):
    """The counters say what the sockets were given."""
    for n in range(5):
        node.add(f"c{n}", "g", *(["h"] if n % 2 else []))
    node.hub.publish("g", b"one")
    await turn()
    node.hub.publish("g", b"two")
    node.hub.publish("h", b"three")
    node.hub.send("c1", b"four")
    node.hub.publish("h", b"five", exclude="c1")
    await turn()
    node.hub.send("c0", b"six")
    node.hub.publish("g", b"seven")
    node.receive("c0", PING)
    await turn()
    sockets = node.sockets.values()
    assert node.hub.stats.frames_out == sum(len(socket.texts) for socket in sockets) == 20
    assert node.hub.stats.bytes_out == sum(len(data) for socket in sockets for data in socket.writes)


def test_hubs_and_peers_say_what_they_are(node):
    """Their reprs show what one looks for in a debugger."""
    node.add("a", "g")
    node.stick("a")
    assert (len(node.hub), node.hub.peers()) == (1, [node.peer("a")])
    assert repr(node.hub) == "<Hub 1 connections in 1 groups>"
    assert repr(node.peer("a")) == "<Peer a <Life OPEN> congested>"


# Compression

LONG = b"one and the same, " * 20


@pytest.fixture
def compressing() -> Node:
    return Node(deflate_min_bytes=50)


def is_compressed(write: bytes) -> bool:
    return bool(write[0] & COMPRESSED)


async def test_a_frame_is_compressed_once(compressing, monkeypatch):
    """All who have agreed to it get the same bytes object, the others the plain one, in the order of the calls.

    Whatever way it goes in a turn: to a group, to all, or to one.
    """
    calls = []
    monkeypatch.setattr(hub_module, "compress", lambda frame: (calls.append(frame), compress(frame))[1])
    plain = [compressing.add(f"p{n}", "g") for n in range(3)]
    packed = [compressing.add(f"c{n}", "g", deflates=True) for n in range(3)]
    compressing.hub.publish("g", LONG)
    await turn()
    assert calls == [LONG]
    assert {id(socket.writes[0]) for socket in plain} == {id(plain[0].writes[0])}
    assert {id(socket.writes[0]) for socket in packed} == {id(packed[0].writes[0])}
    assert [is_compressed(socket.writes[0]) for socket in (plain[0], packed[0])] == [False, True]
    assert len(packed[0].writes[0]) < len(LONG) / 4
    compressing.hub.publish("g", LONG)
    compressing.hub.publish("g", b"short")
    compressing.hub.send("c0", LONG)
    compressing.hub.broadcast(LONG)
    await turn()
    assert calls == [LONG, LONG]
    assert [len(socket.writes) for socket in (*plain, *packed)] == [2] * 6
    for socket in (*plain, *packed):
        mine = [LONG] if socket is packed[0] else []
        assert [text.encode() for text in socket.texts] == [LONG, LONG, b"short", *mine, LONG]


async def test_what_goes_to_several_groups_is_compressed_once(compressing, monkeypatch):
    """Also where it does not get shorter, and nothing of it is kept after the turn."""
    calls = []
    monkeypatch.setattr(hub_module, "compress", lambda frame: (calls.append(frame), compress(frame))[1])
    noise = bytes(random.Random(1).choices(range(33, 127), k=50))
    a, b = compressing.add("a", "g", "h", deflates=True), compressing.add("b", "h", deflates=True)
    for frame in (LONG, noise):
        for group in ("g", "h"):
            compressing.hub.publish(group, frame)
            compressing.hub.publish(group, frame, exclude="b")
        compressing.hub.send("b", frame)
    await turn()
    assert calls == [LONG, noise]
    assert [text.encode() for text in a.texts] == [LONG] * 4 + [noise] * 4
    assert [text.encode() for text in b.texts] == [LONG] * 2 + [noise] * 2
    assert not compressing.hub._packed


async def test_nothing_is_compressed_for_nobody(compressing, monkeypatch):
    """Nor what is short, nor while it is off."""
    monkeypatch.setattr(hub_module, "compress", None)
    a = compressing.add("a", "g")
    compressing.hub.publish("g", LONG)
    await turn()
    b = compressing.add("b", "g", deflates=True)
    compressing.hub.publish("g", b"short")
    compressing.hub.broadcast(b"short")
    await turn()
    assert (a.texts, b.texts) == ([LONG.decode(), "short", "short"], ["short", "short"])


async def test_what_does_not_get_shorter_goes_out_plain(compressing):
    """As its length says, and not as it was meant."""
    noise = bytes(random.Random(1).choices(range(33, 127), k=50))
    a, b = compressing.add("a", "g"), compressing.add("b", "g", deflates=True)
    compressing.hub.publish("g", noise)
    await turn()
    assert a.writes == b.writes
    assert not is_compressed(b.writes[0])


async def test_what_is_very_long_goes_out_plain(compressing):
    """Nobody waits for a page of history that somebody else has asked for."""
    a = compressing.add("a", "g", deflates=True)
    for size in (MAX_BYTES, MAX_BYTES + 1):
        compressing.hub.publish("g", b"x" * size)
        await turn()
    assert [is_compressed(write) for write in a.writes] == [True, False]


async def test_members_of_both_kinds_are_members(compressing):
    """Who is asked for them gets all, in signals too, and a group ends with the last of either."""
    a, b = compressing.add("a", "g"), compressing.add("b", "g", deflates=True)
    assert {peer.id for peer in compressing.hub.members("g")} == {"a", "b"}
    compressing.stick("b")
    compressing.hub.publish("g", LONG, droppable=True)
    compressing.hub.publish("g", LONG, exclude="a")
    await turn()
    assert (len(a.texts), len(b.texts), compressing.hub.stats.signals_shed) == (1, 1, 1)
    compressing.hub.leave("g", "a")
    assert {peer.id for peer in compressing.hub.members("g")} == {"b"}
    compressing.hub.leave("g", "b")
    assert "0 groups" in repr(compressing.hub)


# Any calls in any order


class Turns:
    """A loop of which the test ends each turn."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def end(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()


class Expected:
    """What a connection should have got, in plain lists."""

    def __init__(self) -> None:
        self.frames: list[str] = []
        self.groups: set[str] = set()
        self.is_open = True
        self.unread = 0  # bytes for it since it stopped reading


CONNECTIONS = st.sampled_from(["a", "b", "c", "d", "e", "nobody"])
COMPRESSING = ("d", "e")
"""Those of them who have agreed to that. What they get has fewer bytes, and never more."""

GROUPS = st.sampled_from(["g", "h", "i"])


class AnyCalls(RuleBasedStateMachine):
    """Every connection gets exactly its frames in the order of the calls, or is closed with 4408 when it may be."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = Turns()
        asyncio._set_running_loop(self.turns)  # type: ignore[arg-type]  # all that the hub asks of a loop
        self.node = Node(deflate_min_bytes=20)
        self.expected: dict[str, Expected] = {}
        self.count = 0
        self.shed = 0

    def teardown(self) -> None:
        """Whatever is still to be written is written, and then everything is gone."""
        try:
            self.end_of_turn()
            for name in list(self.expected):
                self.remove(name)
        finally:
            asyncio._set_running_loop(None)
        assert repr(self.node.hub) == "<Hub 0 connections in 0 groups>"
        assert len(self.node.hub._looks) == 0

    @rule(name=CONNECTIONS.filter(lambda name: name != "nobody"))
    def add(self, name: str) -> None:
        """A connection comes, if it is not there."""
        if name not in self.expected:
            self.node.add(name, deflates=name in COMPRESSING)
            self.expected[name] = Expected()

    @rule(name=CONNECTIONS)
    def remove(self, name: str) -> None:
        """A connection's socket is gone; what was not yet written to it is lost with it."""
        if name in self.expected:
            code, _ = self.node.hub.remove(self.node.peer(name))
            socket = self.node.sockets[name]
            assert code == (socket.closed[0] if socket.closed else 1006)
            assert socket.texts == self.expected[name].frames[: len(socket.texts)]
            del self.expected[name], self.node.sockets[name]

    @rule(name=CONNECTIONS, group=GROUPS)
    def join(self, name: str, group: str) -> None:
        """A connection joins a group."""
        joined = self.node.hub.join(group, name)
        self.look_for_the_slow()
        assert joined == (name in self.expected and self.expected[name].is_open)
        if joined:
            self.expected[name].groups.add(group)

    @rule(name=CONNECTIONS, group=GROUPS)
    def leave(self, name: str, group: str) -> None:
        """A connection leaves a group."""
        self.node.hub.leave(group, name)
        if name in self.expected:
            self.expected[name].groups.discard(group)

    @rule(group=GROUPS, size=st.sampled_from([3, 3, 40]))
    def publish(self, group: str, size: int) -> None:
        """An entry is published."""
        frame = self.frame(size)
        self.node.hub.publish(group, frame)
        self.reaches(frame, lambda name, its: group in its.groups)

    @rule(group=GROUPS, droppable=st.booleans(), exclude=st.none() | CONNECTIONS)
    def signal(self, group: str, droppable: bool, exclude: str | None) -> None:
        """A signal is published, which a connection that does not read loses, or that one is not meant to get."""
        frame = self.frame(3)
        self.node.hub.publish(group, frame, droppable=droppable, exclude=exclude)
        for name, its in self.expected.items():
            is_meant = group in its.groups and name != exclude
            self.shed += is_meant and droppable and self.node.sockets[name].stuck
        sockets = self.node.sockets
        self.reaches(
            frame,
            lambda name, its: group in its.groups and name != exclude and not (droppable and sockets[name].stuck),
        )

    @rule(name=CONNECTIONS, size=st.sampled_from([3, 3, 40]))
    def send(self, name: str, size: int) -> None:
        """A frame is sent to one connection."""
        frame = self.frame(size)
        assert self.node.hub.send(name, frame) == (name in self.expected and self.expected[name].is_open)
        self.reaches(frame, lambda known, its: known == name)

    @rule()
    def broadcast(self) -> None:
        """A frame is sent to all."""
        frame = self.frame(3)
        self.node.hub.broadcast(frame)
        self.reaches(frame, lambda name, its: True)

    @rule(name=CONNECTIONS)
    def close(self, name: str) -> None:
        """A connection is closed; what was for it before has gone out, unless it did not fit."""
        assert self.node.hub.close(name, 4403, "removed") == (name in self.expected)
        self.look_for_the_slow()
        if name in self.expected and self.expected[name].is_open:
            assert self.node.sockets[name].closed == (4403, "removed")
            self.ended(name)

    @rule(name=CONNECTIONS)
    def client_closes(self, name: str) -> None:
        """A client closes."""
        if name in self.expected and self.expected[name].is_open:
            self.node.receive(name, CLOSE)
            self.look_for_the_slow(but=name)
            assert self.node.sockets[name].closed == (1005, "")
            self.ended(name)

    @rule(name=CONNECTIONS)
    def client_pings(self, name: str) -> None:
        """A client pings, which changes nothing."""
        if name in self.expected:
            self.node.receive(name, PING)
            if self.expected[name].is_open and self.node.sockets[name].stuck:
                self.expected[name].unread += 2

    @rule(name=CONNECTIONS, stuck=st.booleans())
    def congest(self, name: str, stuck: bool) -> None:
        """A client stops reading, or reads everything."""
        if name in self.expected and stuck and not self.node.sockets[name].stuck:
            self.node.stick(name)
            written = sum(len(text_frame(text.encode())) for text in self.node.sockets[name].texts)
            meant = sum(len(text_frame(text.encode())) for text in self.expected[name].frames)
            self.expected[name].unread = meant - written
        elif name in self.expected and not stuck:
            self.node.unstick(name)

    @rule()
    def end_of_turn(self) -> None:
        """The turn ends: everything is written."""
        self.turns.end()
        self.look_for_the_slow()
        for name, its in self.expected.items():
            assert self.node.sockets[name].texts == its.frames

    @invariant()
    def consistent(self) -> None:
        """No connection is ahead of the calls, no outbox over its bound, and nothing is kept that nobody is in."""
        assert not FakeSocket.wrongs
        self.look_for_the_slow()
        groups = {group for its in self.expected.values() for group in its.groups}
        assert repr(self.node.hub) == f"<Hub {len(self.expected)} connections in {len(groups)} groups>"
        assert len(self.node.hub._looks) == len(self.expected)
        assert self.node.hub.stats.signals_shed == self.shed
        assert len(self.turns.soon) <= 1
        for name, its in self.expected.items():
            socket = self.node.sockets[name]
            assert socket.texts == its.frames[: len(socket.texts)]
            assert socket.waits <= OUTBOX_BYTES

    def frame(self, size: int) -> bytes:
        self.count += 1
        return str(self.count).encode().rjust(size, b"0")

    def reaches(self, frame: bytes, whom: Callable[[str, Expected], bool]) -> None:
        for name, its in self.expected.items():
            if its.is_open and whom(name, its):
                its.frames.append(frame.decode())
                its.unread += len(text_frame(frame))

    def look_for_the_slow(self, but: str | None = None) -> None:
        """Who was closed with 4408 did not read, and had more to read than the bound."""
        for name, its in self.expected.items():
            socket = self.node.sockets[name]
            if its.is_open and name != but and socket.closed is not None and socket.closed[0] == 4408:
                assert socket.stuck
                assert its.unread > OUTBOX_BYTES
                self.ended(name)

    def ended(self, name: str) -> None:
        its = self.expected[name]
        its.is_open = False
        its.groups.clear()
        texts = self.node.sockets[name].texts
        assert texts == its.frames[: len(texts)]
        if not self.node.sockets[name].stuck:
            assert texts == its.frames
        its.frames = texts


TestAnyCalls = AnyCalls.TestCase
TestAnyCalls.settings = settings(max_examples=examples(60), stateful_step_count=40, deadline=None)
