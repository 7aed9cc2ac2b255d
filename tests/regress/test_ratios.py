"""What a delivery costs beside the bare broadcaster stays where it is: ratios of processor time, with wide bounds."""

from __future__ import annotations

import pytest
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

    The bounds are twice what a quiet machine shows: an extra write, copy or loop over listeners exceeds them.
    """
    assert await least_ratio(in_flight, messages) < bound
