"""Where the logs of rooms end, announced: how an entry at the end of a log that nobody handed out is missed.

An entry lost in the middle is noticed by the next one. The last one has no next, so some time after something was
written in a room, its head is read from the store and announced. An idle room costs nothing, a busy one is announced
at most every `every_s` less a second, and what was lost is so noticed soon after `every_s`.
"""

from __future__ import annotations

from collections.abc import Callable

from hubbub.clock import Clock
from hubbub.model import RoomId
from hubbub.parallel import FEW_AT_ONCE, every
from hubbub.ports import Directory, Fanout, Store
from hubbub.protocol import HeadSignal, encode

BATCH = 100
"""Rooms whose heads are read with one question."""

MAX_NOTED = 10_000
"""Rooms remembered as being looked after; forgetting one costs a needless word to the directory."""


class HeadBoard:
    """Announces the heads of rooms in which something was written.

    Args:
        store, fanout, directory, clock: the ports of the same name.

    """

    every_s = 5.0
    margin_s = 1.0  # who writes this long before the announcement may be done after it, and asks for another

    def __init__(self, *, store: Store, fanout: Fanout, directory: Directory, clock: Clock) -> None:
        self._store = store
        self._fanout = fanout
        self._directory = directory
        self._clock = clock
        self._noted: dict[RoomId, float] = {}  # rooms looked after, and until when (monotonic)
        self._due: dict[RoomId, None] = {}  # rooms that are being announced, or were when a look was broken off

    async def writing(self, room: RoomId) -> None:
        """Take note that something is about to be written: whatever becomes of the writer, the room is looked after.

        Raises:
            Unavailable: that cannot be promised just now.

        """
        now = self._clock.monotonic()
        if self.covers(room, now):
            return
        await self._directory.look_after(room, self._clock.now_ms() + round(self.every_s * 1_000))
        self._note(room, now)

    def covers(self, room: RoomId, now: float) -> bool:
        """Whether `writing` would have nothing to do at the monotonic time `now`."""
        return self._noted.get(room, now) > now

    def cover(self, room: RoomId, look_after: Callable[[RoomId, int], None]) -> None:
        """As `writing`, with a directory that is told by `look_after`, at once."""
        look_after(room, self._clock.now_ms() + round(self.every_s * 1_000))
        self._note(room, self._clock.monotonic())

    def took_long(self, began: float) -> bool:
        """Whether what was begun at `began` (monotonic) took so long that `written` has something to do."""
        return self._clock.monotonic() - began > self.margin_s

    async def written(self, room: RoomId, began: float) -> None:
        """What was about to be written at `began` (monotonic) is stored; that may have taken longer than was foreseen.

        Raises:
            Unavailable: that it is looked after cannot be promised just now.

        """
        if self.took_long(began):
            self._noted.pop(room, None)
            await self.writing(room)

    async def flush(self) -> None:
        """Announce what is due; to be called from time to time.

        Raises:
            Unavailable: the store does not say where a log ends, for instance; what could not be announced stays due.

        """
        self._forget(self._clock.monotonic())
        if not self._due:
            self._due = dict.fromkeys(await self._directory.due(self._clock.now_ms()))
        due = list(self._due)
        batches = [due[begin : begin + BATCH] for begin in range(0, len(due), BATCH)]
        await every(self._announce_all, batches, at_once=2)

    async def _announce_all(self, rooms: list[RoomId]) -> None:
        try:
            heads = await self._store.heads(rooms)
        except Exception:  # whatever it is, none of them is forgotten
            for room in rooms:
                await self._put_off(room)
            raise

        async def announce(room: RoomId) -> None:
            head = heads.get(room)
            try:
                if head is not None:
                    await self._fanout.announce(room, head, encode(HeadSignal(room=room, head=head)))
            except Exception:  # as above, and none waits for it
                await self._put_off(room)
                raise
            del self._due[room]

        await every(announce, rooms, at_once=FEW_AT_ONCE)

    async def _put_off(self, room: RoomId) -> None:
        await self._directory.look_after(room, self._clock.now_ms())
        del self._due[room]

    def _note(self, room: RoomId, now: float) -> None:
        self._noted.pop(room, None)
        self._noted[room] = now + self.every_s - self.margin_s
        if len(self._noted) > MAX_NOTED:
            self._forget(now)

    def _forget(self, now: float) -> None:
        """Forget what covers nothing any more; all, where that is not enough."""
        self._noted = {room: until for room, until in self._noted.items() if until > now}
        if len(self._noted) > MAX_NOTED:
            self._noted.clear()
