"""What a delivery costs beside the bare broadcaster stays where it is: ratios of processor time, with wide bounds."""

from __future__ import annotations

import pytest
import uvloop
from bench import flushes
from bench.delivery import SHAPES, bare, hubbub
from bench.native import broadcaster

THOUSAND = next(shape for shape in SHAPES if shape.listeners == 1_000)


async def least_ratio(in_flight: int, messages: int, rounds: int = 3) -> float:
    """The server's processor time for a delivery, over the bare broadcaster's: the best of some rounds."""
    ratios = []
    for _ in range(rounds):
        theirs = await bare(broadcaster, THOUSAND, messages, in_flight)
        ours = await hubbub(THOUSAND, messages, in_flight)
        ratios.append(ours.cpu_us / theirs.cpu_us)
    return min(ratios)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("in_flight", "messages", "bound"),
    [(1, 50, 2.5), (16, 160, 0.6)],
    ids=["one message at a time", "sixteen in flight"],
)
async def test_a_delivery_costs_little_more_than_a_send(in_flight, messages, bound):
    """The whole chat path to 1,000 listeners; where messages follow each other, joined frames cost a part of it.

    The bounds leave room for a busy machine: what exceeds them is a write for each message and not for each turn, or
    a loop over listeners that costs more than a write does. Smaller things are for the counts of instructions.
    """
    assert await least_ratio(in_flight, messages) < bound


@pytest.mark.timeout(120)
def test_the_end_of_a_turn_costs_little_more_than_a_bare_loop():
    """On the same sockets and in turns, which says more on a busy machine: one extra system call each exceeds it."""
    found = uvloop.run(flushes.measure(500, 339, 20))
    assert found["accelerator"] < 1.5 * found["bare"]
    assert found["python"] < 2 * found["bare"]
