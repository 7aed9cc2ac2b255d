"""When what is published to many leaves: with what is here already, and with what functions under way say soon."""

from __future__ import annotations

import asyncio
import socket

import pytest

from doubles import FakeSocket
from hubbub.gateway import departures
from hubbub.gateway.connection import Life
from hubbub.gateway.departures import MANY
from hubbub.gateway.hub import Hub, Peer
from live import until
from loops import LOOPS, LoopFactory, run

SOON_S = 3_600.0
"""As long as no test takes."""


@pytest.fixture(autouse=True)
def nothing_wrong():
    FakeSocket.wrongs.clear()
    yield
    assert not FakeSocket.wrongs


@pytest.fixture
def patient(monkeypatch):
    """Only what comes next ends the wait."""
    monkeypatch.setattr(departures, "WAITS_S_EACH", SOON_S)
    monkeypatch.setattr(departures, "MOST_S", SOON_S)


class Node:
    """A hub with a room of so many, of which one is looked at, and one of two."""

    def __init__(self, many: int = MANY) -> None:
        self.hub = Hub()
        self.one = self._add("one", "room")
        for number in range(many - 1):
            self._add(f"c{number}", "room")
        self.few = self._add("few", "small")
        self._add("other", "small")

    def _add(self, connection: str, group: str) -> FakeSocket:
        made = FakeSocket()
        self.hub.add(Peer(connection, Life(0.0), made, made.write))
        assert self.hub.join(group, connection)
        return made

    @property
    def writes(self) -> list[list[str]]:
        """The texts of each write to the one."""
        found = []
        for data in self.one.writes:
            write = FakeSocket()
            write.write(data)
            found.append(write.texts)
        return found


@LOOPS
@pytest.mark.usefixtures("patient")
def test_what_is_for_few_leaves_at_the_end_of_the_turn(factory: LoopFactory) -> None:
    """Whatever is under way."""

    async def test() -> None:
        node = Node(MANY - 1)
        node.hub.departures.under_way = 1
        node.hub.publish("room", b"1")
        await asyncio.sleep(0)
        assert node.writes == [["1"]]

    run(factory, test)


@LOOPS
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("why", ["two frames", "two frames the last time", "a function"])
def test_what_is_for_many_leaves_once_what_had_arrived_is_read(factory: LoopFactory, why: str) -> None:
    """Where more than one message goes on. What that brings goes along, and with nothing under way that is all."""

    async def test() -> None:
        node, loop, (ours, theirs) = Node(), asyncio.get_running_loop(), socket.socketpair()
        with ours, theirs:

            def read() -> None:
                loop.remove_reader(ours)
                node.hub.departures.under_way = 0
                node.hub.publish("room", b"last")

            if why == "two frames the last time":
                node.hub.publish("room", b"1")
                node.hub.publish("room", b"2")
                await until(lambda: bool(node.one.writes), "they have left")
                node.one.writes.clear()
            loop.add_reader(ours, read)
            await asyncio.sleep(0.01)  # it is watched
            theirs.send(b"now")
            node.hub.publish("room", b"1")
            if why == "two frames":
                node.hub.publish("room", b"2")
            node.hub.departures.under_way = why == "a function"
            await until(lambda: bool(node.one.writes), "it has left")
        assert node.writes == [["1", "2", "last"] if why == "two frames" else ["1", "last"]]

    run(factory, test)


@LOOPS
@pytest.mark.usefixtures("patient")
def test_a_message_that_comes_alone_leaves_at_the_end_of_the_turn(factory: LoopFactory) -> None:
    """As does the next, when the one before it was alone."""

    async def test() -> None:
        node = Node()
        for number in range(3):
            node.hub.publish("room", b"%d" % number)
            await asyncio.sleep(0)
        assert node.writes == [["0"], ["1"], ["2"]]

    run(factory, test)


@LOOPS
@pytest.mark.usefixtures("patient")
def test_what_is_for_many_waits_for_the_next_turn_that_says_anything(factory: LoopFactory) -> None:
    """All that the turn says goes along, to whomever, in the order of the calls; nothing waits a second time."""

    async def test() -> None:
        node = Node()
        node.hub.departures.under_way = 3
        node.hub.publish("room", b"1")
        for _ in range(10):
            await asyncio.sleep(0)
        assert node.writes == []
        node.hub.publish("small", b"for few")
        node.hub.publish("room", b"2")
        node.hub.send("one", b"own")
        await asyncio.sleep(0)
        assert node.writes == [["1", "2", "own"]]
        assert node.few.texts == ["for few"]

    run(factory, test)


@LOOPS
def test_it_leaves_though_nothing_is_said(factory: LoopFactory) -> None:
    """A function that is under way may take long, and say nothing."""

    async def test() -> None:
        node = Node()
        node.hub.departures.under_way = 1
        node.hub.publish("room", b"1")
        await until(lambda: bool(node.one.writes), "it has left")
        node.hub.publish("room", b"2")
        await until(lambda: len(node.one.writes) == 2, "the next has left")
        assert node.writes == [["1"], ["2"]]

    run(factory, test)


@LOOPS
@pytest.mark.usefixtures("patient")
def test_who_comes_while_it_waits_lets_it_leave_without_him(factory: LoopFactory) -> None:
    """As does who goes, and who is closed; what is published later waits anew."""

    async def test() -> None:
        node = Node()
        node.hub.departures.under_way = 1
        node.hub.publish("room", b"1")
        await asyncio.sleep(0.01)
        assert node.hub.join("room", "few")
        assert (node.writes, node.few.texts) == ([["1"]], [])
        node.hub.publish("room", b"2")
        await asyncio.sleep(0.01)
        assert len(node.one.writes) == 1
        node.hub.leave("room", "few")
        assert (node.writes, node.few.texts) == ([["1"], ["2"]], ["2"])
        node.hub.publish("room", b"3")
        node.hub.departures.under_way = 0
        await until(lambda: len(node.one.writes) == 3, "the last has left")
        await asyncio.sleep(0.01)
        assert node.writes == [["1"], ["2"], ["3"]]

    run(factory, test)
