"""Reading ahead: items that will surely be asked for are read with one request, before anybody asks.

What serves one request after the other, as a Lambda function does, knows at its beginning most of what it will ask a
table for, one thing after the other. What was read ahead stands for the moment in which the request began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from hubbub.aws.marshalling import Item, Key

Found = dict[Key, Item]

HOLDS_S = 1.0


class Ahead:
    """Items being read ahead, until they are forgotten; of those that this process writes that is at once.

    Args:
        read: reads items, those that are there, with strong consistency.
        holds_s: for how long what was read stands, seconds: a request may take longer than its world stands still.

    """

    def __init__(
        self,
        read: Callable[[Sequence[Key]], Coroutine[Any, Any, Found]],  # Any: what coroutines are sent and yield
        *,
        holds_s: float = HOLDS_S,
    ) -> None:
        self._read = read
        self._holds_s = holds_s
        self._begun = 0.0  # when the reading was, by the loop's time
        self._reading: dict[Key, asyncio.Task[Found]] = {}

    def expect(self, keys: Iterable[Key]) -> None:
        """Begin to read these items, and forget those that were read before."""
        self.clear()
        wanted = list(dict.fromkeys(keys))
        if wanted:
            task = asyncio.create_task(self._read(wanted))
            task.add_done_callback(_seen)  # whoever wants an item is told; perhaps nobody does
            self._reading = dict.fromkeys(wanted, task)
            self._begun = asyncio.get_running_loop().time()

    def forget(self, keys: Iterable[Key]) -> None:
        """These are, or are about to be, another: they are to be read anew."""
        if self._reading:
            for key in keys:
                self._reading.pop(key, None)

    def clear(self) -> None:
        """Forget everything, and read no further."""
        for task in set(self._reading.values()):
            task.cancel()
        self._reading.clear()

    def known(self, keys: Iterable[Key]) -> list[Key]:
        """Those of the keys whose items are being read or were."""
        return [key for key in keys if key in self._reading] if self._reading else []

    async def take(self, key: Key) -> tuple[bool, Item | None]:
        """Whether what was read ahead still holds, and the item, a copy of one's own.

        Raises:
            AwsError: it could not be read.

        """
        task = self._reading.get(key)
        if task is None:
            return False, None
        try:
            found = await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # it was forgotten meanwhile
                return False, None
            raise
        if self._reading.get(key) is not task or asyncio.get_running_loop().time() - self._begun >= self._holds_s:
            return False, None
        item = found.get(key)
        return True, None if item is None else dict(item)


def _seen(task: asyncio.Task[Found]) -> None:
    if not task.cancelled():
        task.exception()
