"""The promises of the `Sink` port, over the hub and over the double that stands for it elsewhere."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

import pytest

from doubles import FakeSink, FakeSocket
from hubbub.gateway.connection import Life
from hubbub.gateway.hub import Hub, Peer
from hubbub.ports import Sink

OUTBOX_BYTES = 1_000


class Node(ABC):
    """A sink and the far ends of its connections."""

    sink: Sink

    @abstractmethod
    def open(self, connection: str, *groups: str) -> None:
        """A connection comes and joins some groups."""

    @abstractmethod
    def gone(self, connection: str) -> None:
        """It is no more."""

    @abstractmethod
    def stops_reading(self, connection: str) -> None:
        """Its client reads nothing any more."""

    @abstractmethod
    def reads_again(self, connection: str) -> None:
        """Its client has read everything."""

    @abstractmethod
    def got(self, connection: str) -> list[str]:
        """What its client was sent."""

    @abstractmethod
    def closed(self, connection: str) -> tuple[int, str] | None:
        """How it was closed."""


class HubNode(Node):
    """The hub, with sockets that write down what they get."""

    def __init__(self) -> None:
        self.sink = self.hub = Hub(outbox_bytes=OUTBOX_BYTES)
        self.sockets: dict[str, FakeSocket] = {}

    def open(self, connection: str, *groups: str) -> None:
        socket = self.sockets[connection] = FakeSocket()
        self.hub.add(Peer(connection, Life(self.hub.now()), socket, socket.write))
        for group in groups:
            assert self.hub.join(group, connection)

    def gone(self, connection: str) -> None:
        peer = self.hub.get(connection)
        assert peer is not None
        self.hub.remove(peer)

    def stops_reading(self, connection: str) -> None:
        self._congested(connection, True)

    def reads_again(self, connection: str) -> None:
        self.sockets[connection].waits = 0
        self._congested(connection, False)

    def _congested(self, connection: str, yes: bool) -> None:
        self.sockets[connection].stuck = yes
        peer = self.hub.get(connection)
        assert peer is not None
        self.hub.congested(peer, yes)

    def got(self, connection: str) -> list[str]:
        return self.sockets[connection].texts

    def closed(self, connection: str) -> tuple[int, str] | None:
        return self.sockets[connection].closed


class FakeNode(Node):
    """The double."""

    def __init__(self) -> None:
        self.sink = self.fake = FakeSink(outbox_bytes=OUTBOX_BYTES)
        self._got: dict[str, list[bytes]] = {}

    def open(self, connection: str, *groups: str) -> None:
        self._got[connection] = self.fake.open(connection)
        for group in groups:
            assert self.fake.join(group, connection)

    def gone(self, connection: str) -> None:
        self.fake.gone(connection)

    def stops_reading(self, connection: str) -> None:
        self.fake.stops_reading(connection)

    def reads_again(self, connection: str) -> None:
        self.fake.reads_again(connection)

    def got(self, connection: str) -> list[str]:
        return [frame.decode() for frame in self._got[connection]]

    def closed(self, connection: str) -> tuple[int, str] | None:
        return self.fake.closed.get(connection)


SINKS: dict[str, type[Node]] = {"hub": HubNode, "double": FakeNode}
"""Every sink; a new one is a new row."""


@pytest.fixture(params=SINKS)
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    """A sink without connections, which must do nothing to a socket that is closed."""
    FakeSocket.wrongs.clear()
    yield SINKS[request.param]()
    assert not FakeSocket.wrongs


async def turn() -> None:
    """Let what was called take effect."""
    await asyncio.sleep(0)


async def test_frames_reach_a_connection_in_the_order_of_the_calls(node):
    """Published to any of its groups, as entries or signals, or sent to itself, in one turn of the loop or several."""
    node.open("a", "g", "h")
    node.open("b", "h")
    node.sink.publish("g", b"1")
    node.sink.publish("h", b"2")
    node.sink.send("a", b"3")
    node.sink.publish("g", b"4", droppable=True)
    node.sink.publish("g", b"5")
    await turn()
    node.sink.send("a", b"6")
    node.sink.publish("h", b"7", exclude="b")
    node.sink.publish("h", b"8", exclude="nobody")
    await turn()
    assert node.got("a") == ["1", "2", "3", "4", "5", "6", "7", "8"]
    assert node.got("b") == ["2", "8"]


async def test_a_connection_that_joins_gets_exactly_the_frames_published_after(node):
    """One that leaves gets none published after; joining and leaving twice is doing it once."""
    node.open("a", "g")
    node.open("b")
    node.sink.publish("g", b"1")
    assert node.sink.join("g", "b")
    assert node.sink.join("g", "b")
    node.sink.publish("g", b"2")
    node.sink.leave("g", "a")
    node.sink.leave("g", "a")
    node.sink.leave("nobody's", "a")
    node.sink.publish("g", b"3")
    assert node.sink.join("g", "a")
    node.sink.publish("g", b"4")
    await turn()
    assert (node.got("a"), node.got("b")) == (["1", "2", "4"], ["2", "3", "4"])


async def test_a_connection_that_does_not_read_loses_signals_first(node):
    """It is then closed with 4408; others notice nothing, and one that reads again in time gets everything."""
    for name in ("slow", "late", "quick"):
        node.open(name, "g")
    node.stops_reading("slow")
    node.stops_reading("late")
    for n in range(4):
        node.sink.publish("g", b"signal", droppable=True)
        node.sink.publish("g", b"%d" % n * 240)
        await turn()
    node.reads_again("late")
    for n in range(4, 8):
        node.sink.publish("g", b"signal", droppable=True)
        node.sink.publish("g", b"%d" % n * 240)
        await turn()
    entries = [str(n) * 240 for n in range(8)]
    assert node.got("slow") == entries[:4]
    assert node.closed("slow") == (4408, "slow consumer")
    assert node.got("late") == [*entries[:4], *(frame for entry in entries[4:] for frame in ("signal", entry))]
    assert node.got("quick") == [frame for entry in entries for frame in ("signal", entry)]
    assert node.closed("late") is node.closed("quick") is None


async def test_a_connection_that_is_closed_gets_what_was_for_it_before(node):
    """And nothing after; the code is the first one's."""
    node.open("a", "g")
    node.open("b", "g")
    node.sink.publish("g", b"1")
    node.sink.send("a", b"2")
    assert node.sink.close("a", 4403, "removed")
    assert node.sink.close("a", 1012, "Service restart")
    node.sink.publish("g", b"3")
    assert not node.sink.send("a", b"4")
    await turn()
    assert (node.got("a"), node.closed("a")) == (["1", "2"], (4403, "removed"))
    assert (node.got("b"), node.closed("b")) == (["1", "3"], None)


async def test_unknown_connections_are_ignored_and_so_are_those_that_are_being_closed(node):
    """They cannot join, are sent nothing, and closing is once."""
    node.open("closing", "g")
    node.open("gone", "g")
    node.sink.close("closing", 1000, "")
    node.gone("gone")
    for name in ("closing", "gone", "nobody"):
        assert not node.sink.join("g", name)
        assert not node.sink.send(name, b"1")
        node.sink.leave("g", name)
    assert [node.sink.close(name, 1000, "") for name in ("closing", "gone", "nobody")] == [True, False, False]
    node.sink.publish("g", b"2")
    node.sink.publish("nobody's", b"3")
    await turn()
    assert node.got("closing") == []


async def test_a_signal_from_somebody_is_not_for_him(node):
    """`exclude` leaves one member out, of signals and of entries."""
    node.open("a", "g")
    node.open("b", "g")
    node.sink.publish("g", b"1", exclude="a")
    node.sink.publish("g", b"2", droppable=True, exclude="a")
    await turn()
    assert (node.got("a"), node.got("b")) == ([], ["1", "2"])
