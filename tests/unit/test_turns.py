"""When those come back who are sent away in a rush: as many at a time as can be taken, and nobody for ever."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import sys

import pytest

from hubbub.gateway.queueing import (
    FIRST_PACE,
    LONGEST_RETRY_AFTER_S,
    RETRY_AFTER_S,
    SLOWEST_PACE,
    Rush,
    Turns,
    unaccepted,
)


def rush(turns: Turns, clients: int, pace: int) -> tuple[list[int], float]:
    """How often each of them was sent away until all were taken, and after how long that was.

    They all come at once, and then when they were told; `pace` of them are taken in a second, those who come first.
    """
    times = [0] * clients
    names = {0: list(range(clients))}
    second, left = 0, clients
    while left:
        here = names.pop(second, [])
        random.Random(second).shuffle(here)
        for place, client in enumerate(here):
            now = second + place / max(1, len(here))
            if place < pace:
                turns.took(now)
                left -= 1
                continue
            times[client] += 1
            back = second + turns.wait_s(now)
            names.setdefault(back, []).append(client)
        second += 1
        assert second < 10_000
    return times, float(second)


@pytest.mark.parametrize("pace", [20, 100, 400])
def test_a_rush_is_sent_away_few_times_and_taken_about_as_fast_as_can_be(pace: int) -> None:
    """Few are sent away more than a few times, where a fixed wait sends each away in every round."""
    times, took_s = rush(Turns(), 20 * pace, pace)
    assert sum(times) <= 4 * len(times)
    assert took_s <= 3 * 20 + LONGEST_RETRY_AFTER_S


def test_the_first_who_are_sent_away_come_back_soon_and_not_together() -> None:
    """As ever where there is no rush."""
    turns = Turns()
    told = [turns.wait_s(1_000.0) for _ in range(int(FIRST_PACE) * 2)]
    assert set(told) == set(RETRY_AFTER_S)


def test_nobody_is_told_to_wait_for_ever() -> None:
    """However many are sent away, and however slowly they are taken."""
    turns = Turns()
    told = [turns.wait_s(1_000.0) for _ in range(int(FIRST_PACE) * LONGEST_RETRY_AFTER_S + 10_000)]
    assert max(told) == LONGEST_RETRY_AFTER_S
    late = told[int(FIRST_PACE) * LONGEST_RETRY_AFTER_S :]
    assert set(late) == set(range(LONGEST_RETRY_AFTER_S // 2, LONGEST_RETRY_AFTER_S + 1))
    for second in range(1_001, 1_100):
        turns.wait_s(float(second))  # and nobody is taken
    assert repr(turns) == f"<Turns, {SLOWEST_PACE:.0f} a second>"


def test_quiet_times_say_only_that_so_many_can_be_taken() -> None:
    """How many come where nobody is sent away is not how many could be taken, but no fewer can be."""
    turns = Turns()
    for second in range(100):
        turns.took(float(second))
    assert repr(turns) == f"<Turns, {FIRST_PACE:.0f} a second>"
    for number in range(5_001):
        turns.took(100.0 + number / 5_000)
    assert repr(turns) == "<Turns, 5000 a second>"


def test_a_turn_that_has_passed_is_not_waited_for() -> None:
    """After a rush the next one begins anew."""
    turns = Turns()
    for _ in range(5_000):
        turns.wait_s(1_000.0)
    assert turns.wait_s(2_000.0) in RETRY_AFTER_S


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how long a socket's queue is")
async def test_a_rush_in_which_nobody_can_be_accepted_waits_for_the_next_who_comes() -> None:
    """As without open files left: it does not ask in each turn of the loop."""
    asked = 0

    class Exhausted(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            nonlocal asked
            asked += 1
            raise OSError(errno.EMFILE, "Too many open files")

    with Exhausted() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(4)
        clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        assert unaccepted([listener]).is_long
        rush = Rush([listener], lambda asks: b"", lambda client: None)
        rush.begin()
        rush.begin()
        assert rush.goes_on
        for _ in range(10):
            await asyncio.sleep(0)
        assert (asked, rush.goes_on) == (1, False)
        for client in clients:
            client.close()
