"""How often a connection or a user may ask."""

from __future__ import annotations

import math

from hubbub.buckets import Buckets
from hubbub.errors import RateLimited


class Throttle(Buckets):
    """Token buckets by key whose emptiness is an error of the protocol."""

    __slots__ = ()

    def take(self, key: str, now: float) -> float:
        """Take one token from the bucket of `key` at the monotonic time `now`, seconds.

        Raises:
            RateLimited: the bucket is empty; `retry_after_ms` says when it has one.

        """
        wait_s = super().take(key, now)
        if wait_s:
            raise RateLimited(retry_after_ms=max(1, math.ceil(wait_s * 1_000 - 1e-6)))
        return wait_s
