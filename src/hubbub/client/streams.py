"""What the application's loops read from: bounded buffers that lose no entry, for the log has what they cannot hold."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import msgspec

from hubbub.client.session import Reset
from hubbub.errors import HubbubError
from hubbub.model import Entry, RoomId
from hubbub.protocol import Signal


class Log(Protocol):
    """What a stream needs of its client."""

    def position(self, room: RoomId) -> int | None:
        """The `seq` up to which the client has delivered the room."""
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


class _Place:
    """Where a stream stands in one room."""

    __slots__ = ("lagging", "restarts", "tail")

    def __init__(self, tail: int, *, lagging: bool) -> None:
        self.tail: int | None = tail  # the last seq buffered; None after a restart
        self.lagging = lagging  # what follows is to be read from history
        self.restarts = 0


class EntryStream:
    """An async iterator over a room's entries, or all rooms': each once, in the room's order, without gaps.

    It buffers at most `bound` entries. A loop that lags behind further reads the rest again from history, so nothing
    is lost and nothing grows. Leaving the loop (`break`) and `aclose` end it; it raises `Disconnected` when the client
    has stopped for another reason than its own `close`.
    """

    def __init__(
        self, log: Log, room: RoomId | None, after: int | None, bound: int, done: Callable[[EntryStream], None]
    ) -> None:
        self._log = log
        self._room = room
        self._bound = bound
        self._done = done
        self._places: dict[RoomId, _Place] = {}
        self._buffer: deque[Entry] = deque()
        self._wake = asyncio.Event()
        self._ended = False
        self._failure: HubbubError | None = None
        if room is not None and after is not None:
            self._places[room] = _Place(after, lagging=after != log.position(room))

    def offer(self, entry: Entry) -> None:
        """Take an entry that the client delivers."""
        if self._room is not None and entry.room != self._room:
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

    def restart(self, room: RoomId) -> None:
        """The room starts anew; what is buffered of it stays."""
        place = self._places.get(room)
        if place is not None:
            place.tail, place.lagging = None, False
            place.restarts += 1

    def end(self, failure: HubbubError | None) -> None:
        """Nothing more comes; with a `failure`, the loop gets it after what is buffered."""
        self._ended = True
        self._failure = failure
        self._wake.set()

    def __aiter__(self) -> AsyncIterator[Entry]:
        return self

    async def __anext__(self) -> Entry:
        while not self._buffer:
            if self._ended:
                self._done(self)
                if self._failure is not None:
                    raise self._failure
                raise StopAsyncIteration
            lagging = next((room for room, place in self._places.items() if place.lagging), None)
            if lagging is not None:
                await self._catch_up(lagging)
                continue
            self._wake.clear()
            await self._wake.wait()
        return self._buffer.popleft()

    async def aclose(self) -> None:
        """Stop reading."""
        self.end(None)
        self._done(self)

    async def _catch_up(self, room: RoomId) -> None:
        place = self._places[room]
        restarts, after = place.restarts, place.tail or 0
        try:
            page = await self._log.page(room, after)
        except HubbubError as error:
            if self._ended:
                return
            if not error.retry:
                raise
            await asyncio.sleep((1000 if error.retry_after_ms is None else error.retry_after_ms) / 1000)
            return
        if place.restarts != restarts:
            return
        if (page.entries[0].seq if page.entries else page.head + 1) > after + 1:
            self._log.lost(room)
        self._buffer += page.entries
        place.tail = page.entries[-1].seq if page.entries else max(page.head, after)
        # What came while the answer was under way was not taken: only at the client's own place is it complete.
        place.lagging = page.has_more or place.tail < (self._log.position(room) or 0)


class SignalStream:
    """An async iterator over signals. It buffers at most `bound`: beyond, the oldest is lost (but never a `Reset`)."""

    def __init__(self, bound: int, done: Callable[[SignalStream], None]) -> None:
        self._bound = bound
        self._done = done
        self._buffer: deque[Signal] = deque()
        self._wake = asyncio.Event()
        self._ended = False
        self._failure: HubbubError | None = None

    def offer(self, signal: Signal) -> None:
        """Take a signal that the client delivers."""
        if len(self._buffer) >= self._bound:
            oldest = next((one for one in self._buffer if not isinstance(one, Reset)), None)
            if oldest is not None:
                self._buffer.remove(oldest)
        if signal not in self._buffer or not isinstance(signal, Reset):
            self._buffer.append(signal)
        self._wake.set()

    def end(self, failure: HubbubError | None) -> None:
        """Nothing more comes."""
        self._ended = True
        self._failure = failure
        self._wake.set()

    def __aiter__(self) -> AsyncIterator[Signal]:
        return self

    async def __anext__(self) -> Signal:
        while not self._buffer:
            if self._ended:
                self._done(self)
                if self._failure is not None:
                    raise self._failure
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._buffer.popleft()

    async def aclose(self) -> None:
        """Stop reading."""
        self.end(None)
        self._done(self)
