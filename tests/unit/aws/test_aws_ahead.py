"""Reading ahead: what was read before it is asked for, and until when that holds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from doubles import settle
from hubbub.aws.ahead import Ahead, Found
from hubbub.aws.marshalling import Item, Key

ONE: Key = ("a", "1")
TWO: Key = ("b", "2")


class Reader:
    """Items, how often they were read, and a gate before each reading."""

    def __init__(self) -> None:
        self.items: dict[Key, Item] = {ONE: {"pk": "a", "sk": "1", "n": 1}}
        self.read: list[list[Key]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    async def __call__(self, keys: Sequence[Key]) -> Found:
        self.read.append(list(keys))
        await self.gate.wait()
        if self.failure:
            raise self.failure
        return {key: self.items[key] for key in keys if key in self.items}


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def ahead(reader: Reader) -> Ahead:
    return Ahead(reader)


async def test_what_is_expected_is_read_once_and_taken_as_often_as_one_likes(ahead, reader):
    """With one reading for all; what is not there is known not to be; a copy is one's own to change."""
    ahead.expect([ONE, TWO, ONE])
    known, item = await ahead.take(ONE)
    assert (known, item) == (True, reader.items[ONE])
    item["n"] = 2
    assert await ahead.take(ONE) == (True, {"pk": "a", "sk": "1", "n": 1})
    assert await ahead.take(TWO) == (True, None)
    assert reader.read == [[ONE, TWO]]


async def test_what_is_not_expected_is_not_known(ahead, reader):
    """Before anything is expected, and beside it."""
    assert await ahead.take(ONE) == (False, None)
    ahead.expect([TWO])
    assert await ahead.take(ONE) == (False, None)
    assert ahead.known([ONE, TWO]) == [TWO]
    ahead.expect([])
    assert ahead.known([ONE, TWO]) == []


async def test_what_was_read_long_ago_holds_no_more(reader):
    """A request that takes long, because a hook of it does, goes by what is so then."""
    ahead = Ahead(reader, holds_s=0.0)
    ahead.expect([ONE])
    assert await ahead.take(ONE) == (False, None)


@pytest.mark.parametrize("is_read", [True, False])
async def test_what_is_written_is_read_anew(ahead, reader, is_read):
    """Also by who waits for the reading just then; what was read beside it still holds."""
    if not is_read:
        reader.gate.clear()
    ahead.expect([ONE, TWO])
    taking = asyncio.create_task(ahead.take(ONE))
    await settle()
    ahead.forget([ONE])
    reader.gate.set()
    assert (await taking)[0] is is_read
    assert await ahead.take(ONE) == (False, None)
    assert await ahead.take(TWO) == (True, None)


async def test_the_next_expectation_takes_the_place_of_the_last(ahead, reader):
    """Who waited for what is given up reads for himself."""
    reader.gate.clear()
    ahead.expect([ONE])
    taking = asyncio.create_task(ahead.take(ONE))
    await settle()
    ahead.expect([TWO])
    assert await taking == (False, None)
    reader.gate.set()
    assert await ahead.take(ONE) == (False, None)
    assert await ahead.take(TWO) == (True, None)
    ahead.clear()


async def test_who_takes_what_could_not_be_read_is_told_why(ahead, reader):
    """And nobody else; who gives up waiting takes nothing from others."""
    reader.failure = OSError("away")
    ahead.expect([ONE])
    with pytest.raises(OSError, match="away"):
        await ahead.take(ONE)
    ahead.expect([TWO])
    await settle()
    reader.failure = None
    reader.gate.clear()
    ahead.expect([ONE])
    first, second = (asyncio.create_task(ahead.take(ONE)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    reader.gate.set()
    assert await second == (True, reader.items[ONE])
    with pytest.raises(asyncio.CancelledError):
        await first
