"""What waits to be done in one room: its line, whose front is an entry to be written or a deed.

Entries that stand together may be written together. Who is told something early, for it needs no writing, stays in his
place until those before him are done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from hubbub.errors import HubbubError
from hubbub.model import Entry, MessageCreated
from hubbub.store.dynamodb.effects import footprint
from hubbub.store.dynamodb.failures import Patience
from hubbub.store.dynamodb.items import Tail

MOST_ENTRIES = 25
"""How many entries one transaction writes; of those that wait, in their order."""


class Append:
    """An entry that waits to be written.

    Attributes:
        entry: it.
        future: gets what the caller is told.
        is_settled: whether he has been.
        is_suspected: whether it may have been sent before, so that this is to be read first.

    """

    __slots__ = ("entry", "future", "is_settled", "is_suspected")

    def __init__(self, entry: Entry, future: asyncio.Future[Entry]) -> None:
        self.entry = entry
        self.future = future
        self.is_settled = False
        # Who sends again gets his answer also when what he replied to is gone.
        self.is_suspected = isinstance(entry, MessageCreated) and entry.client_id is not None and bool(self.reads)

    @property
    def reads(self) -> bool:
        """Whether anything is to be read before it is written."""
        return bool(footprint(self.entry).wanted) or not isinstance(self.entry, MessageCreated)

    def settle(self, result: Entry | Exception) -> None:
        """Tell the caller, if he still waits."""
        self.is_settled = True
        if self.future.done():
            return
        if isinstance(result, Exception):
            self.entry.seq = 0
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


Deed = tuple[Callable[[], Awaitable[Any]], "asyncio.Future[Any]"]  # Any: whatever the deed returns


class Turn:
    """A turn at the front of a line, until something there is settled.

    Attributes:
        patience: how long it may take.
        most: how many entries its next transaction may have.
        tail: where the log ended at the last try; None where that is of no use.
        has_lost: whether something was there already.

    """

    __slots__ = ("has_lost", "most", "patience", "tail")

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.most = MOST_ENTRIES
        self.tail: Tail | None = None
        self.has_lost = False


class Line:
    """What waits to be done in one room.

    Attributes:
        waiting: it, in order.
        task: what does it.

    """

    __slots__ = ("task", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Append | Deed] = deque()
        self.task: asyncio.Task[None] | None = None

    def front(self, most: int) -> list[Append]:
        """The entries at the front that are not settled."""
        front: list[Append] = []
        for work in self.waiting:
            if not isinstance(work, Append) or len(front) == most:
                break
            if not work.is_settled:
                front.append(work)
        return front

    def take_settled(self) -> int:
        """Take what is settled from the front; returns how many those were."""
        done = 0
        while self.waiting and isinstance(self.waiting[0], Append) and self.waiting[0].is_settled:
            self.waiting.popleft()
            done += 1
        return done


def settle_all(batch: Sequence[Append], error: Exception) -> None:
    """Tell each that is not settled yet, with an error of his own."""
    for append in batch:
        if not append.is_settled:
            own = error
            if isinstance(error, HubbubError):
                own = type(error)(error.message, retry_after_ms=error.retry_after_ms)
            append.settle(own)


def fail(future: asyncio.Future[Any], error: Exception) -> None:  # Any: as `Deed`
    """Tell the caller, if he still waits."""
    if not future.done():
        future.set_exception(error)
