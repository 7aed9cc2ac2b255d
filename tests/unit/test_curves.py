"""How growth is judged, and the long log that it is measured on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from bench.curves import curve_names, exponent, judge, numbers, sizes_of
from bench.longlog import lengthen
from bench.pretend import pretended_node

from hubbub.model import MessageCreated, RoomId


@pytest.mark.parametrize(
    ("power", "grows"), [(0, "constant"), (0.5, "less than linear"), (1, "linear"), (1.5, "worse")]
)
def test_the_exponent_says_how_a_cost_grows(power: float, grows: str) -> None:
    """A cost that is a power of the size gets that power as its exponent."""
    points = [(size, 7.0 * size**power) for size in (10, 100, 1_000)]

    assert exponent(points) == pytest.approx(power)
    assert judge("x", points, "it must").grows == grows


def test_only_the_largest_sizes_count() -> None:
    """What each operation costs anyway hides no growth: small sizes are left out of the fit."""
    points = [(10, 1_000.0), (100, 1_000.0), (1_000, 100.0), (10_000, 1_000.0), (100_000, 10_000.0)]

    assert exponent(points) == pytest.approx(1.0)


def test_growth_worse_than_linear_is_not_fine_whatever_the_reason() -> None:
    """A reason excuses linear growth, and nothing beyond it."""
    quadratic = [(size, float(size**2)) for size in (10, 100, 1_000)]
    linear = [(size, float(size)) for size in (10, 100, 1_000)]

    assert not judge("x", quadratic, "each is looked at").is_fine
    assert judge("x", linear, "each is looked at").is_fine
    assert not judge("x", linear, "").is_fine


def test_one_size_tells_nothing() -> None:
    """Without two sizes there is no verdict."""
    assert judge("x", [(10, 1.0)], "").grows == "unknown"


def test_a_curve_that_is_not_there_is_refused() -> None:
    """The message says which there are, and what came."""
    with pytest.raises(Exception, match=r"expected some of room, rooms, .*; got 'speed'"):
        curve_names("room,speed")


def test_sizes_that_no_number_is_are_refused() -> None:
    """The message says what is expected, and what came."""
    assert numbers("10,100") == [10, 100]
    with pytest.raises(Exception, match="expected numbers separated by commas, got '10,many'"):
        numbers("10,many")


def test_sizes_that_a_curve_has_not_are_refused() -> None:
    """Before anything is measured; the message says which there are."""
    assert sizes_of("room", [100, 10, 7]) == [10, 100]
    with pytest.raises(ValueError, match=r"history: expected some of the sizes 10000, .*; got 10, 100"):
        sizes_of("history", [10, 100])


async def test_a_lengthened_log_reads_as_if_it_had_been_sent(tmp_path: Path) -> None:
    """Entries made by SQL are pages, follow each other without a gap, and the next message follows them."""
    path = tmp_path / "log.db"
    async with pretended_node(f"sqlite:///{path}") as node:
        one = await node.listener("author", ["log"])
        await node.ask(one, action="send", room="log", text='100 % \\ "of it"', client_id="c000000000001")

    lengthen(path, "log", 2_000)

    async with pretended_node(f"sqlite:///{path}") as node:
        one = await node.listener("author", ["log"])
        page = await node.store.page(RoomId("log"), after=1_000, limit=50)
        assert [entry.seq for entry in page.entries] == list(range(1_001, 1_051))
        assert page.head == 2_000
        entry = page.entries[0]
        assert isinstance(entry, MessageCreated)
        assert (entry.text, entry.client_id, entry.by) == ('100 % \\ "of it"', "c000000001001", "author")
        assert len({each.id for each in page.entries}) == 50
        again = await node.ask(one, action="send", room="log", text='100 % \\ "of it"', client_id="c000000001500")
        assert again["seq"] == 1_500
        sent = await node.ask(one, action="send", room="log", text="next", client_id="new")
        assert sent["seq"] == 2_001


async def test_a_log_that_is_not_there_is_not_lengthened(tmp_path: Path) -> None:
    """The message says what was expected."""
    path = tmp_path / "log.db"
    async with pretended_node(f"sqlite:///{path}"):
        pass

    with pytest.raises(ValueError, match="expected a room 'log'"):
        lengthen(path, "log", 10)


async def test_a_pretended_node_is_a_whole_one() -> None:
    """What one sends is written to the socket of another, once, and who has gone is written nothing."""
    async with pretended_node() as node:
        sender = await node.listener("one", ["room"])
        heard = await node.listener("two", ["room"])
        gone = await node.listener("three", ["room"])
        await node.go(gone)
        before = heard.socket.writes, gone.socket.writes

        await node.ask(sender, action="send", room="room", text="hello")
        await node.fanout.ping()
        await _turns()

        assert (heard.socket.writes, gone.socket.writes) == (before[0] + 1, before[1])
        with pytest.raises(RuntimeError, match="was answered by"):
            await node.ask(sender, action="send", room="elsewhere", text="hello")


async def test_a_pretended_node_takes_a_message_by_the_way_that_a_gateway_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once all about its sender is remembered it is no event for the chat's function, which still has all else."""
    async with pretended_node() as node:
        sender = await node.listener("one", ["room"])
        await node.ask(sender, action="send", room="room", text="first")

        async def fail(event: object) -> object:
            raise ZeroDivisionError

        monkeypatch.setattr(node, "_route", msgspec.structs.replace(node._route, handler=fail))
        assert (await node.ask(sender, action="send", room="room", text="second"))["seq"] == 3
        with pytest.raises(RuntimeError, match="was answered by"):
            await node.ask(sender, action="history", room="room")


async def _turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)
