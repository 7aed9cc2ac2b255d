"""What is asked at every message, remembered in the process; exact, because this process is the only writer."""

from __future__ import annotations

from itertools import islice
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Cache(Generic[T]):
    """What was last read or written, by key; lives on the event loop.

    A read that began before a write of the same key does not overwrite what the write left here.

    Attributes:
        values: what is known; to be looked at, not to be changed.

    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.values: dict[Any, T] = {}
        self._loading: dict[Any, object] = {}  # by key, the token of the read that may still put its value

    def get(self, key: Any) -> tuple[bool, T | None]:
        """Whether it is known, and what."""
        if key in self.values:
            return True, self.values[key]
        return False, None

    def put(self, key: Any, value: T) -> None:
        """What a write has left."""
        self._loading.pop(key, None)
        self.values[key] = value
        if len(self.values) > self._size:
            for old in list(islice(self.values, self._size // 8)):
                del self.values[old]

    def begin(self, key: Any) -> object:
        """A read of it begins."""
        token = self._loading[key] = object()
        return token

    def end(self, key: Any, token: object, value: T) -> None:
        """The read has ended with `value`."""
        if self._loading.get(key) is token:
            self.put(key, value)

    def fail(self, key: Any, token: object) -> None:
        """The read has failed."""
        if self._loading.get(key) is token:
            del self._loading[key]
