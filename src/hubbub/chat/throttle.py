"""How often a connection or a user may ask: token buckets, one float each (the generic cell rate algorithm)."""

from __future__ import annotations

import math

from hubbub.errors import RateLimited


class Throttle:
    """Token buckets by key.

    Args:
        rate: tokens per second that flow into each bucket; 0 for no limit.
        burst: how many a bucket holds.

    """

    __slots__ = ("_burst_s", "_cost_s", "_full_at", "_prune_at")

    def __init__(self, rate: float, burst: int) -> None:
        self._cost_s = 1 / rate if rate else 0.0
        self._burst_s = burst * self._cost_s
        self._full_at: dict[str, float] = {}  # when each bucket will be full again; absent means it is
        self._prune_at = 1_000

    def take(self, key: str, now: float) -> None:
        """Take one token from the bucket of `key` at the monotonic time `now`, seconds.

        Raises:
            RateLimited: the bucket is empty; `retry_after_ms` says when it has one.

        """
        if not self._cost_s:
            return
        full_at = max(self._full_at.get(key, now), now) + self._cost_s
        wait_s = full_at - now - self._burst_s
        if wait_s > 1e-9:
            raise RateLimited(retry_after_ms=max(1, math.ceil(wait_s * 1_000 - 1e-6)))
        self._full_at[key] = full_at
        if len(self._full_at) > self._prune_at:
            self._full_at = {known: at for known, at in self._full_at.items() if at > now}
            self._prune_at = max(1_000, 2 * len(self._full_at))

    def forget(self, key: str) -> None:
        """Drop the bucket of `key`."""
        self._full_at.pop(key, None)
