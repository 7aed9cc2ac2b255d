"""What the application's loops read from: bounded buffers that lose no entry, for the log has what they cannot hold."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from hubbub.client.frames import Reset
from hubbub.client.logs import AGAIN_MS
from hubbub.errors import HubbubError
from hubbub.model import Entry, RoomId
from hubbub.protocol import Signal

ItemT = TypeVar("ItemT")


class Log(Protocol):
    """What a stream needs of its client."""

    waiting: set[Stream[Any]]
    """Streams in which a loop waits: the client knows the others only weakly, but these must not be forgotten."""

    def position(self, room: RoomId) -> int | None:
        """The `seq` up to which the client has delivered the room; None when it does not listen to it."""
        ...

    async def page(self, room: RoomId, after: int) -> LogPage:
        """The entries after a seq."""
        ...

    def lost(self, room: RoomId) -> None:
        """A reader lacks entries that retention has taken: tell the application."""
        ...


class LogPage(msgspec.Struct):
    """A stretch of a room's log."""

    entries: list[Entry]
    head: int
    has_more: bool


class Stream(Generic[ItemT]):
    """An async iterator over what a client delivers.

    A loop that was left (`break`) can be taken up again where it stood; a stream that nobody has any more is forgotten.
    It raises `Disconnected` when the client has stopped for another reason than its own `close`.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._buffer: deque[ItemT] = deque()
        self._wake = asyncio.Event()
        self._ended = False
        self._failure: HubbubError | None = None

    def end(self, failure: HubbubError | None) -> None:
        """Nothing more comes; with a `failure`, the loop gets it after what is buffered."""
        self._ended = True
        self._failure = failure
        self._wake.set()

    async def aclose(self) -> None:
        """Stop reading."""
        self.end(None)

    def __aiter__(self) -> AsyncIterator[ItemT]:
        return self

    async def __anext__(self) -> ItemT:
        while not self._buffer:
            if self._ended:
                if self._failure is not None:
                    raise self._failure
                raise StopAsyncIteration
            if not await self._fetch():
                await self._wait()
        return self._buffer.popleft()

    async def _fetch(self) -> bool:
        """Get what need not be waited for; False if there is nothing of the kind."""
        return False

    async def _wait(self) -> None:
        self._wake.clear()
        self._log.waiting.add(self)
        try:
            await self._wake.wait()
        finally:
            self._log.waiting.discard(self)


class _Place:
    """Where a stream stands in one room."""

    __slots__ = ("adrift", "lagging", "restarts", "tail")

    def __init__(self, tail: int, *, lagging: bool) -> None:
        self.tail: int | None = tail  # the last seq buffered; None after a restart
        self.lagging = lagging  # what follows is to be read from history
        self.adrift = False  # all that history had is read, but what comes live does not begin yet
        self.restarts = 0


class EntryStream(Stream[Entry]):
    """An async iterator over a room's entries, or all rooms': each once, in the room's order, without gaps.

    It buffers at most `bound` entries. A loop that lags behind further reads the rest again from history, so nothing
    is lost and nothing grows.
    """

    def __init__(self, log: Log, room: RoomId | None, after: int | None, bound: int) -> None:
        super().__init__(log)
        self._room = room
        self._bound = bound
        self._places: dict[RoomId, _Place] = {}
        if room is not None and after is not None:
            self._places[room] = _Place(after, lagging=after != log.position(room))

    def offer(self, entry: Entry) -> None:
        """Take an entry that the client delivers."""
        if self._ended or (self._room is not None and entry.room != self._room):
            return
        place = self._places.get(entry.room)
        if place is None:
            place = self._places[entry.room] = _Place(entry.seq - 1, lagging=False)
        if place.tail is None:
            place.tail = entry.seq - 1
        if place.lagging or entry.seq <= place.tail:
            return
        if len(self._buffer) >= self._bound or entry.seq != place.tail + 1:
            place.lagging = True
        else:
            place.tail = entry.seq
            self._buffer.append(entry)
        self._wake.set()

    def anchor(self) -> None:
        """The client may have begun to listen: what was written before that and after the last page is lacking."""
        for room, place in self._places.items():
            position = self._log.position(room)
            if place.adrift and position is not None:
                place.adrift = False
                place.lagging = place.tail is not None and place.tail < position
                self._wake.set()

    def restart(self, room: RoomId) -> None:
        """The room starts anew; what is buffered of it stays."""
        place = self._places.get(room)
        if place is not None:
            place.tail, place.lagging, place.adrift = None, False, False
            place.restarts += 1

    async def _fetch(self) -> bool:
        lagging = next((room for room, place in self._places.items() if place.lagging), None)
        if lagging is None:
            return False
        await self._catch_up(lagging)
        return True

    async def _catch_up(self, room: RoomId) -> None:
        place = self._places[room]
        restarts, after = place.restarts, place.tail or 0
        try:
            page = await self._log.page(room, after)
        except HubbubError as error:
            if self._ended:
                return
            if error.retry:
                await asyncio.sleep((AGAIN_MS if error.retry_after_ms is None else error.retry_after_ms) / 1000)
            elif self._room is not None or self._log.position(room) is not None:
                raise
            else:  # a room that one has left meanwhile is nothing to the loop over all of one's rooms
                self._places.pop(room, None)
            return
        if place.restarts != restarts or (place.tail or 0) != after:
            return  # it started anew, or another loop was faster
        if (page.entries[0].seq if page.entries else page.head + 1) > after + 1:
            self._log.lost(room)
        self._buffer += page.entries
        place.tail = page.entries[-1].seq if page.entries else max(page.head, after)
        # What came while the answer was under way was not taken: only at the client's own place is it complete.
        position = self._log.position(room)
        place.lagging = page.has_more or place.tail < (position or 0)
        place.adrift = position is None and not place.lagging


class SignalStream(Stream[Signal]):
    """An async iterator over signals. It buffers at most `bound`: beyond, the oldest is lost (but never a `Reset`)."""

    def __init__(self, log: Log, bound: int) -> None:
        super().__init__(log)
        self._bound = bound

    def offer(self, signal: Signal) -> None:
        """Take a signal that the client delivers."""
        if self._ended or (isinstance(signal, Reset) and signal in self._buffer):
            return
        if len(self._buffer) >= self._bound:
            oldest = next((place for place, one in enumerate(self._buffer) if not isinstance(one, Reset)), None)
            if oldest is not None:
                del self._buffer[oldest]
        self._buffer.append(signal)
        self._wake.set()
