"""What is asked at every message, of many at once: those who wait share one query, and its answer is kept a moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from itertools import islice
from typing import Generic, TypeVar

from hubbub.clock import Clock
from hubbub.store.postgres.link import Session
from hubbub.store.postgres.reader import Reader

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lookup(Generic[K, V]):
    """Values by key.

    Args:
        reader: what runs the queries.
        find: the values of some keys; those without one are missing in it.
        clock: time.
        keep_s: how long an answer is given again; 0 for never.
        keep_missing: whether that also goes for keys that have no value.
        most: keys of one query.
        size: how many answers are kept.

    """

    def __init__(
        self,
        reader: Reader,
        find: Callable[[Session, Sequence[K]], Awaitable[dict[K, V]]],
        clock: Clock,
        *,
        keep_s: float = 0.0,
        keep_missing: bool = True,
        most: int = 1_000,
        size: int = 100_000,
    ) -> None:
        self._reader = reader
        self._find = find
        self._clock = clock
        self._keep_s = keep_s
        self._keep_missing = keep_missing
        self._most = most
        self._size = size
        self._kept: dict[K, tuple[float, V | None]] = {}  # until when, and what
        self._wanted: dict[K, None] | None = None  # keys of the query that has not begun
        self._news: set[K] = set()  # keys written while a query runs

    async def get(self, key: K, *, recent: bool = False) -> V | None:
        """The value as it is, or with `recent` as it was at most `keep_s` ago; None where there is none."""
        kept = self._kept.get(key) if recent else None
        if kept is not None and self._clock.monotonic() < kept[0]:
            return kept[1]
        if self._wanted is None:
            self._wanted = {}
        wanted = self._wanted
        wanted[key] = None
        found = await self._reader.shared(self, partial(self._look, wanted))
        return found.get(key)

    def learn(self, key: K, value: V | None, since: float) -> None:
        """What a write of this node, which began at `since`, has left."""
        self._news.add(key)
        self._keep(key, value, since)

    async def _look(self, wanted: dict[K, None], session: Session) -> dict[K, V]:
        if self._wanted is wanted:
            self._wanted = None
        began = self._clock.monotonic()
        self._news.clear()
        keys = list(wanted)
        found: dict[K, V] = {}
        for start in range(0, len(keys), self._most):
            found.update(await self._find(session, keys[start : start + self._most]))
        if self._keep_s:
            for key in keys:
                if key not in self._news:
                    self._keep(key, found.get(key), began)
        return found

    def _keep(self, key: K, value: V | None, since: float) -> None:
        if not self._keep_s or (value is None and not self._keep_missing):
            self._kept.pop(key, None)
            return
        self._kept.pop(key, None)  # so that the oldest come first
        self._kept[key] = (since + self._keep_s, value)
        if len(self._kept) > self._size:
            for old in list(islice(self._kept, self._size // 8)):
                del self._kept[old]
