"""Token buckets, one float each (the generic cell rate algorithm): how often somebody may do something."""

from __future__ import annotations

_TOLERANCE_S = 1e-8
"""What adding up a burst may round: a machine that has run for days counts its seconds to 1e-10."""


class Buckets:
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

    def take(self, key: str, now: float) -> float:
        """Take one token from the bucket of `key` at the monotonic time `now`, seconds.

        Returns:
            0 where there was one; else in how many seconds there will be, and none was taken.

        """
        if not self._cost_s:
            return 0.0
        full_at = max(self._full_at.get(key, now), now) + self._cost_s
        wait_s = full_at - now - self._burst_s
        if wait_s > _TOLERANCE_S:
            return wait_s
        self._full_at[key] = full_at
        if len(self._full_at) > self._prune_at:
            self._full_at = {known: at for known, at in self._full_at.items() if at > now}
            self._prune_at = max(1_000, 2 * len(self._full_at))
        return 0.0

    def try_take(self, key: str, now: float) -> bool:
        """As `take`, but False where there was none; the fast way where there is no limit."""
        return not self._cost_s or not Buckets.take(self, key, now)

    def give_back(self, key: str) -> None:
        """Put back a token that was just taken."""
        if self._cost_s and key in self._full_at:
            self._full_at[key] -= self._cost_s

    def forget(self, key: str) -> None:
        """Drop the bucket of `key`."""
        self._full_at.pop(key, None)
