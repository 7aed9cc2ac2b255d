"""Token buckets."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hubbub.chat.throttle import Throttle
from hubbub.errors import RateLimited


def take(throttle: Throttle, key: str, now: float) -> bool:
    try:
        throttle.take(key, now)
    except RateLimited:
        return False
    return True


def test_a_full_bucket_gives_its_burst_and_then_its_rate():
    """A hundred at once, then fifty a second."""
    throttle = Throttle(50, 100)
    assert [take(throttle, "a", 0) for _ in range(101)] == [True] * 100 + [False]
    assert sum(take(throttle, "a", 1.0) for _ in range(100)) == 50


def test_who_is_refused_is_told_when_to_come_back():
    """`retry_after_ms` is when the bucket has a token again."""
    throttle = Throttle(10, 1)
    throttle.take("a", 0)
    with pytest.raises(RateLimited) as refused:
        throttle.take("a", 0.02)
    assert refused.value.retry_after_ms == 80
    assert take(throttle, "a", 0.1)


def test_buckets_are_apart():
    """One key's use does not touch another's."""
    throttle = Throttle(1, 1)
    assert take(throttle, "a", 0) and take(throttle, "b", 0)
    assert not take(throttle, "a", 0)
    throttle.forget("a")
    assert take(throttle, "a", 0)


def test_no_rate_is_no_limit():
    """A rate of 0 lets everything through."""
    throttle = Throttle(0, 0)
    assert all(take(throttle, "a", 0) for _ in range(1000))


def test_full_buckets_take_no_memory():
    """Buckets that have filled up again are dropped."""
    throttle = Throttle(10, 10)
    for n in range(10_000):
        throttle.take(f"user{n}", n)
    assert len(throttle._full_at) <= 1_001


@given(times=st.lists(st.floats(0, 20), max_size=200), rate=st.integers(1, 20), burst=st.integers(1, 20))
def test_no_stretch_of_time_sees_more_than_burst_and_rate_allow(times: list[float], rate: int, burst: int):
    """In any interval at most burst + rate x length are let through."""
    throttle = Throttle(rate, burst)
    taken = [now for now in sorted(times) if take(throttle, "a", now)]
    for start, first in enumerate(taken):
        for end in range(start, len(taken)):
            assert end - start + 1 <= burst + rate * (taken[end] - first) + 1e-6


@given(rate=st.floats(0.1, 1_000), burst=st.integers(1, 20), start=st.floats(0, 1e6), later=st.floats(0, 1))
@example(rate=255.71875, burst=19, start=524_288.0, later=0.0)
def test_who_waits_as_long_as_he_is_told_is_taken(rate: float, burst: int, start: float, later: float):
    """`retry_after_ms` is never a moment too short."""
    throttle = Throttle(rate, burst)
    for _ in range(burst):
        throttle.take("a", start)
    try:
        throttle.take("a", start + later)
    except RateLimited as refused:
        assert refused.retry_after_ms is not None
        assert take(throttle, "a", start + later + refused.retry_after_ms / 1_000)
