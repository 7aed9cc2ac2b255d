"""Durations in buckets whose width grows with what they hold, so that a record is cheap and no figure is off by 1%.

Up to 255 microseconds each has a bucket of its own; above, each doubling has 128 of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_EXACT = 256
_PER_DOUBLING = 128
_LARGEST = (1 << 37) - 1
"""A day and a half in microseconds; whatever is longer counts as that."""


def bucket(us: int) -> int:
    """The bucket of a duration."""
    if us < _EXACT:
        return max(us, 0)
    us = min(us, _LARGEST)
    doublings = us.bit_length() - 8
    return (doublings << 7) + (us >> doublings)


def middle(index: int) -> int:
    """The duration in the middle of a bucket."""
    if index < _EXACT:
        return index
    doublings = (index >> 7) - 1
    return (((index & (_PER_DOUBLING - 1)) + _PER_DOUBLING) << doublings) + (1 << doublings >> 1)


_BUCKETS = bucket(_LARGEST) + 1


class Histogram:
    """How often which duration occurred, in microseconds.

    Attributes:
        counts: how many are in each bucket.

    """

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts = [0] * _BUCKETS

    def record(self, us: int) -> None:
        """Count one duration."""
        self.counts[bucket(us)] += 1

    def record_since(self, now_ns: int, begun_ns: Iterable[int]) -> None:
        """Count the time from each of `begun_ns` to now; one of 0 began at an unknown time, and is left out."""
        counts = self.counts
        for begun in begun_ns:
            if begun:
                us = (now_ns - begun) // 1_000
                if _EXACT <= us <= _LARGEST:  # `bucket` without a call: this is done for each delivery
                    doublings = us.bit_length() - 8
                    counts[(doublings << 7) + (us >> doublings)] += 1
                else:
                    counts[bucket(us)] += 1

    def take(self) -> dict[int, int]:
        """The buckets that are not empty; what is counted from now on begins at nothing."""
        taken = {index: count for index, count in enumerate(self.counts) if count}
        for index in taken:
            self.counts[index] = 0
        return taken

    def add(self, taken: Mapping[int, int]) -> None:
        """Count what another has taken."""
        for index, count in taken.items():
            self.counts[index] += count

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.counts)

    def percentiles_ms(self, *wanted: float) -> list[float | None]:
        """For each percentage the duration, in milliseconds, that so many do not exceed; None where nothing is counted.

        Args:
            wanted: ascending, of 0 to 100.

        """
        total = self.total
        if not total:
            return [None] * len(wanted)
        found: list[float | None] = []
        reached, buckets = 0, enumerate(self.counts)
        index = 0
        for percentage in wanted:
            needed = max(1, -(-total * percentage // 100))
            while reached < needed:
                index, count = next(buckets)
                reached += count
            found.append(middle(index) / 1_000)
        return found
