"""The ordered live streams of one node: every listener of a room gets its entries in `seq` order, each once.

For each room with a listener here a stream remembers the last `seq` it delivered. What comes early is held, a hole is
read from the store, what comes again is dropped. A connection joins a stream exactly where its own knowledge ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from hubbub.clock import Clock
from hubbub.errors import HubbubError, Unavailable
from hubbub.few import Few, added, removed
from hubbub.model import MAX_PAGE, RoomId
from hubbub.ports import ReadAfter, Sink, Store
from hubbub.protocol import encode

logger = logging.getLogger(__name__)

MAX_HELD = 1_000
"""Early entries held in one room; more are left to the repair, which reads them from the store anyway."""

MAX_RECENT = 1_000
"""Entries remembered while a connection is joining; a joiner who takes longer than that many starts over."""


_NO_FRAMES: dict[int, bytes] = {}
_NOBODY: list[tuple[int, str]] = []
"""What nearly all streams share, that nothing is amiss with; they stay empty."""


class _Stream:
    """What one node knows of one room that somebody here listens to, or is about to."""

    __slots__ = (
        "cursor",
        "head",
        "held",
        "joiners",
        "listeners",
        "recent",
        "repairing",
        "waiting",
    )

    def __init__(self) -> None:
        self.cursor: int | None = None  # the last seq delivered; None until the first listener said where he stands
        self.head = 0  # the highest end of the log that was announced or not held; beyond the cursor, something is lost
        self.held = _NO_FRAMES  # entries beyond a hole, by seq
        self.recent = _NO_FRAMES  # delivered, or published before anybody listened, while somebody is joining
        self.joiners = 0  # how many `Listening`s are open on this room
        self.listeners: Few[str] = ()  # connections that listen, those in `waiting` included
        self.waiting = _NOBODY  # (seq, connection): knows more than the stream, joins when it is there
        self.repairing: asyncio.Task[None] | None = None  # reads the hole from the store; None while there is no hole

    def lacks_something(self) -> bool:
        """Whether something that is known to be there was not delivered."""
        return bool(self.held or self.waiting) or (self.cursor is not None and self.head > self.cursor)

    def hold(self, seq: int, frame: bytes) -> None:
        """Keep an entry beyond a hole."""
        if self.held is _NO_FRAMES:
            self.held = {}
        self.held[seq] = frame

    def remember(self, seq: int, frame: bytes) -> None:
        """Keep an entry while somebody is joining."""
        if not self.joiners:
            return
        if self.recent is _NO_FRAMES:
            self.recent = {}
        self.recent[seq] = frame
        if len(self.recent) > MAX_RECENT:
            del self.recent[min(self.recent)]

    def wait(self, seq: int, connection: str) -> None:
        """Let the connection in once it has come so far."""
        if self.waiting is _NOBODY:
            self.waiting = []
        self.waiting.append((seq, connection))


class Streams:
    """All streams of a node.

    Args:
        sink: the node's live connections; a room's group there has the room's id.
        read: reads a room's entries after a seq from the store.
        clock: for the patience below.
        patience_s: how long a hole may fill itself before the store is asked.
        begun, ended: told of a room when somebody here begins to care for it, and when nobody does any more.

    """

    def __init__(
        self,
        sink: Sink,
        read: ReadAfter,
        clock: Clock,
        *,
        patience_s: float = 0.05,
        begun: Callable[[RoomId], None] | None = None,
        ended: Callable[[RoomId], None] | None = None,
    ) -> None:
        self._sink = sink
        self._read = read
        self._clock = clock
        self._patience_s = patience_s
        self._begun = begun
        self._ended = ended
        self._streams: dict[RoomId, _Stream] = {}

    def __repr__(self) -> str:
        return f"<Streams of {len(self._streams)} rooms>"

    def publish(self, room: RoomId, seq: int, frame: bytes) -> None:
        """Deliver the entry now if it is the next one, hold it if it is early, drop it if it was delivered."""
        stream = self._streams.get(room)
        if stream is None:
            return
        cursor = stream.cursor
        if cursor is not None and seq == cursor + 1:
            self._deliver(room, stream, seq, frame)
            if stream.held:
                self._advance(room, stream)
        elif cursor is None:
            stream.remember(seq, frame)
        elif seq > cursor:
            if len(stream.held) < MAX_HELD:
                stream.hold(seq, frame)
            else:
                stream.head = max(stream.head, seq)
            self._repair_soon(room, stream)

    def announce(self, room: RoomId, head: int) -> bool:
        """The room's log ends at `head`: what was lost of it is read from the store, without waiting for a next entry.

        True when listeners are to be told: they have had everything up to it, and were not told before.
        """
        stream = self._streams.get(room)
        if stream is None or head <= stream.head:
            return False
        stream.head = head
        if stream.cursor is None:
            return False  # who is about to listen will say where he stands
        if stream.cursor < head:
            self._repair_soon(room, stream)
            return False
        return True

    def expect(self, room: RoomId, head: int) -> bool:
        """The room's log ends at `head` or later, as somebody has seen; True when something of it is lacking here.

        Nobody is told of it, other than by `announce`.
        """
        stream = self._streams.get(room)
        if stream is None or stream.cursor is None or head <= stream.cursor:
            return False
        stream.head = max(stream.head, head)
        self._repair_soon(room, stream)
        return True

    def has_passed(self, room: RoomId, seq: int) -> bool:
        """Whether something after `seq` was delivered here, so that who knows no more has missed it."""
        stream = self._streams.get(room)
        return stream is not None and stream.cursor is not None and stream.cursor > seq

    def listening(self, connection: str, rooms: Sequence[RoomId]) -> StreamListening:
        """Prepare `connection` to listen to `rooms`; see `hubbub.ports.Listening`."""
        return StreamListening(self, connection, rooms)

    def leave(self, room: RoomId, connection: str) -> bool:
        """Stop the connection's listening; False when it did not listen."""
        stream = self._streams.get(room)
        if stream is None or connection not in stream.listeners:
            return False
        stream.listeners = removed(stream.listeners, connection)
        if stream.waiting:
            stream.waiting = [(seq, waiting) for seq, waiting in stream.waiting if waiting != connection] or _NOBODY
        self._sink.leave(room, connection)
        self._forget_if_idle(room, stream)
        return True

    def listeners(self, room: RoomId) -> int:
        """How many connections listen to the room here."""
        stream = self._streams.get(room)
        return len(stream.listeners) if stream else 0

    async def aclose(self) -> None:
        """Stop repairing."""
        repairs = [stream.repairing for stream in self._streams.values() if stream.repairing]
        self._streams.clear()
        for repair in repairs:
            repair.cancel()
        await asyncio.gather(*repairs, return_exceptions=True)

    def join(self, room: RoomId, connection: str, after: int) -> bool:
        """Let the connection listen from the entry after `after` on; False when there is no such connection.

        For a room whose stream has passed `after` this needs an open `Listening`, which knows what came between.
        """
        stream = self._stream(room)
        if connection in stream.listeners:
            return True
        cursor = self._begin(stream, after)
        if after > cursor:
            stream.wait(after, connection)
        elif not self._sink.join(room, connection):
            self._forget_if_idle(room, stream)
            return False
        stream.listeners = added(stream.listeners, connection)
        self._advance(room, stream)
        if stream.lacks_something():
            self._repair_soon(room, stream)
        return True

    def _open(self, room: RoomId) -> None:
        self._stream(room).joiners += 1

    def _stream(self, room: RoomId) -> _Stream:
        stream = self._streams.get(room)
        if stream is None:
            stream = self._streams[room] = _Stream()
            if self._begun is not None:
                self._begun(room)
        return stream

    def _shut(self, room: RoomId) -> None:
        stream = self._streams.get(room)
        if stream is None:
            return
        stream.joiners -= 1
        if not stream.joiners:
            stream.recent = _NO_FRAMES
        self._forget_if_idle(room, stream)

    def _start(self, room: RoomId, connection: str, after: int) -> list[bytes] | None:
        """Join and return what came after `after`; None when there is no such connection, or no more listening."""
        stream = self._streams.get(room)
        if stream is None:
            return None
        cursor = self._begin(stream, after)
        while stream.held.pop(cursor + 1, None) is not None:  # nobody listened yet but the one who starts
            cursor += 1
        stream.cursor = cursor
        missed = range(after + 1, cursor + 1)
        if connection in stream.listeners:
            return []
        frames = [stream.recent[seq] for seq in missed if seq in stream.recent]
        if len(frames) != len(missed):
            raise Unavailable("The room is too busy to catch up with just now; try again.", retry_after_ms=250)
        return frames if self.join(room, connection, after) else None

    @staticmethod
    def _begin(stream: _Stream, after: int) -> int:
        """Where the stream stands; the first listener says so, and what was published before he did is yet to pass."""
        if stream.cursor is None:
            stream.cursor = after
            stream.held = {seq: frame for seq, frame in stream.recent.items() if seq > after} or _NO_FRAMES
        return stream.cursor

    def _deliver(self, room: RoomId, stream: _Stream, seq: int, frame: bytes) -> None:
        """Deliver an entry, and let in who was waiting: for it, or for one that there is no more."""
        if stream.waiting:
            self._let_in(room, stream, seq - 1)
        stream.remember(seq, frame)
        stream.cursor = seq
        self._sink.publish(room, frame)
        if stream.waiting:
            self._let_in(room, stream, seq)

    def _let_in(self, room: RoomId, stream: _Stream, seq: int) -> None:
        """Let in who knows no more than what was delivered up to `seq`."""
        for known, connection in stream.waiting:
            if known <= seq and not self._sink.join(room, connection):
                stream.listeners = removed(stream.listeners, connection)  # it is gone
        stream.waiting = [(known, connection) for known, connection in stream.waiting if known > seq] or _NOBODY
        self._forget_if_idle(room, stream)

    def _advance(self, room: RoomId, stream: _Stream) -> None:
        """Deliver what was held and now follows."""
        while stream.cursor is not None and (frame := stream.held.pop(stream.cursor + 1, None)) is not None:
            self._deliver(room, stream, stream.cursor + 1, frame)

    def _repair_soon(self, room: RoomId, stream: _Stream) -> None:
        if stream.repairing is None:
            stream.repairing = asyncio.get_running_loop().create_task(self._repair(room, stream))

    async def _repair(self, room: RoomId, stream: _Stream) -> None:
        """Read the hole from the store and deliver it, until nothing is held and nobody waits."""
        delay = self._patience_s
        try:
            while True:
                await self._clock.sleep(delay)
                delay = self._patience_s
                if self._streams.get(room) is not stream or not stream.lacks_something():
                    return
                assert stream.cursor is not None  # noqa: S101  who lacks something has a cursor
                try:
                    entries = await self._read(room, stream.cursor)
                except HubbubError as error:
                    logger.warning("cannot repair room %s after seq %d: %s", room, stream.cursor, error)
                    delay = 1.0
                    continue
                if not entries:
                    delay = 1.0  # published but not readable: the store knows best, ask again
                    stream.head = stream.cursor  # what was only announced may be gone since
                for seq, frame in entries:
                    if seq > stream.cursor:
                        stream.held.pop(seq, None)
                        # Retention may have removed what is missing: the store's next entry is then the next one.
                        self._deliver(room, stream, seq, frame)
                stream.held = {seq: frame for seq, frame in stream.held.items() if seq > stream.cursor} or _NO_FRAMES
                self._advance(room, stream)
        finally:
            stream.repairing = None

    def _forget_if_idle(self, room: RoomId, stream: _Stream) -> None:
        if not stream.listeners and not stream.joiners and self._streams.get(room) is stream:
            del self._streams[room]
            if stream.repairing is not None:
                stream.repairing.cancel()
            if self._ended is not None:
                self._ended(room)


async def read_after(store: Store, room: RoomId, after: int) -> list[tuple[int, bytes]]:
    """A page of the room's entries after a seq, as frames: the `ReadAfter` of a store."""
    page = await store.page(room, after=after, limit=MAX_PAGE, changes=False)
    return [(entry.seq, encode(entry)) for entry in page.entries]


class StreamListening:
    """One connection's joining of some rooms: what of `hubbub.ports.Listening` streams know of."""

    __slots__ = ("_connection", "_rooms", "_streams")

    def __init__(self, streams: Streams, connection: str, rooms: Sequence[RoomId]) -> None:
        self._streams = streams
        self._connection = connection
        self._rooms = list(dict.fromkeys(rooms))
        for room in self._rooms:
            streams._open(room)

    def start(self, room: RoomId, after: int) -> list[bytes] | None:
        """Join `room`; the frames that the port's `start` returns for it, None where there are none."""
        return self._streams._start(room, self._connection, after)

    def __enter__(self) -> StreamListening:
        return self

    def __exit__(self, *exc_info: object) -> None:
        rooms, self._rooms = self._rooms, []
        for room in rooms:
            self._streams._shut(room)
