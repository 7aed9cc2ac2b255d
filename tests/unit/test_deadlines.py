"""Waits that must not take too long, with one timer for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from doubles import settle
from hubbub.gateway.deadlines import Deadlines


class Loop:
    """What of a loop deadlines ask for, at a time of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []
        self.made = 0

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, callback: Callable[..., None], *arguments: object) -> Timer:
        timer = Timer(self, at, lambda: callback(*arguments))
        self.timers.append(timer)
        self.made += 1
        return timer

    def pass_until(self, at: float) -> None:
        while due := [timer for timer in self.timers if timer.at <= at]:
            first = min(due, key=lambda timer: timer.at)
            self.timers.remove(first)
            self.now = first.at
            first.callback()
        self.now = at


class Timer:
    def __init__(self, loop: Loop, at: float, callback: Callable[[], None]) -> None:
        self._loop = loop
        self.at = at
        self.callback = callback

    def cancel(self) -> None:
        self._loop.timers.remove(self)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    made = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: made)
    return made


def test_each_is_told_in_its_time_and_once(loop: Loop) -> None:
    """In whatever order they came, and nobody whose wait was over before."""
    deadlines, told = Deadlines(), []
    for name, within_s in (("c", 3.0), ("a", 1.0), ("in time", 2.0), ("b", 2.0), ("also a", 1.0)):
        deadlines.add(name, within_s, lambda name=name: told.append((loop.now, name)))  # type: ignore[misc]  # mypy sees no default
    deadlines.remove("in time")
    loop.pass_until(0.9)
    assert told == []
    loop.pass_until(10.0)
    assert told == [(1.0, "a"), (1.0, "also a"), (2.0, "b"), (3.0, "c")]
    assert (len(deadlines), loop.timers) == (0, [])
    deadlines.remove("a")


def test_there_is_one_timer_however_many_wait(loop: Loop) -> None:
    """And one that is set is not set anew for each who comes and goes."""
    deadlines = Deadlines()
    for number in range(1_000):
        loop.now = number / 1_000
        deadlines.add(number, 29.0, lambda: None)
        deadlines.remove(number)
    assert (loop.made, len(loop.timers)) == (1, 1)
    deadlines.add("last", 29.0, lambda: None)
    loop.pass_until(29.5)
    assert (loop.made, len(loop.timers)) == (2, 1)
    loop.pass_until(60.0)
    assert (len(deadlines), loop.timers) == (0, [])


async def test_a_block_that_takes_too_long_ends() -> None:
    """With TimeoutError, and what follows it in the task goes on; one in time returns."""
    deadlines = Deadlines()
    with deadlines.within(60.0):
        await settle()
    with pytest.raises(TimeoutError), deadlines.within(0.001):
        await asyncio.Event().wait()
    await settle()
    assert len(deadlines) == 0
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancellation_from_without_is_none_of_time() -> None:
    """It goes on as what it is, also when time is over in the same moment."""
    deadlines = Deadlines()

    async def wait(within_s: float) -> None:
        with deadlines.within(within_s):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait(60.0))
    await settle()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    both = asyncio.create_task(wait(60.0))
    await settle()
    (over,) = [over for _, over in deadlines._waits.values()]
    both.cancel()
    over()
    with pytest.raises(asyncio.CancelledError):
        await both
    assert len(deadlines) == 0


async def test_an_error_in_a_block_stays_what_it_is() -> None:
    """Also one of a block whose time was over, which held on to its own."""
    deadlines = Deadlines()
    with pytest.raises(KeyError), deadlines.within(60.0):
        raise KeyError("mine")
    with pytest.raises(KeyError), deadlines.within(0.001):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise KeyError("mine") from None
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
