"""The simulation of `bench.broadcast`: what it says of the quota is held to, by every way of handing jobs over."""

from __future__ import annotations

import pytest
from bench.broadcast import Setting, Way, simulate, simulate_hot


@pytest.mark.slow
@pytest.mark.parametrize("way", ["invoke", "sqs", "fifo"])
def test_a_broadcast_takes_as_long_as_the_quota_makes_it_and_little_more(way: Way):
    """6,000 members who take more requests than the bucket's share holds; jobs come twice, members are gone or slow."""
    result = simulate(Setting(members=6_000, way=way, messages=2, twice=0.2, gone=0.01, slow=0.002))
    assert (result.floor_s, result.share_floor_s) == (0.1, pytest.approx(2_500 / 7_000))
    for message in result.messages:
        assert message.missed == 0
        assert result.floor_s < message.last_s < result.share_floor_s + 2
        assert message.write_units < 100
    warm = result.messages[1]
    assert (warm.cold, warm.throttled) == (0, 0)
    assert warm.posts == 6_000, "jobs that come twice post nothing twice"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["invoke", "sqs", "fifo"])
def test_a_hot_room_is_delivered_whole_in_order_and_once(way: Way):
    """Entries come faster than they are delivered, and jobs come twice."""
    hot = simulate_hot(Setting(members=30, way=way, messages=60, apart_s=0.02, twice=0.1))
    assert (hot.missed, hot.disordered, hot.repeated) == (0, 0, 0)
    assert hot.passes < 0.7
