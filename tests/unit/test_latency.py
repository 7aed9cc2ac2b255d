"""How latencies are taken and summed up."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import pytest
from bench.latency import WARM, Hall, measure, percentile
from bench.native import Audience, Publisher, Run


class SlowCrowd(Audience):
    """One whose every message takes 40 ms, as it says itself."""

    def __init__(self) -> None:
        self.runs: list[int] = []

    async def run(self, publishers: Sequence[Publisher], count: int, in_flight: int, least: int) -> Run:
        """Take the time for one message."""
        self.runs.append(count)
        if count == 1:
            await asyncio.sleep(0.04)
        return Run(0.04, count, 0.0)


async def test_who_is_kept_waiting_by_the_message_before_is_late_from_when_he_was_due() -> None:
    """At 50 a second and 40 ms each, each message comes some 20 ms later than the one before it, and is counted so."""
    crowd = SlowCrowd()

    took = await measure(Hall(crowd, Publisher(0, 1, "x")), messages=4, rate=50)

    assert crowd.runs == [WARM, 1, 1, 1, 1]
    assert took[0] >= 40
    assert all(later >= sooner + 15 for sooner, later in itertools.pairwise(took))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    """It is the value that this share of all do not exceed, and the greatest for all."""
    assert percentile([float(n) for n in range(100, 0, -1)], share) == expected
