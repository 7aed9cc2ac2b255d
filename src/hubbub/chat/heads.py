"""Where the logs of rooms end, announced: how an entry at the end of a log that nobody handed out is missed.

An entry lost in the middle is noticed by the next one. The last one has no next, so some time after something was
written in a room, its head is read from the store and announced. An idle room costs nothing, a busy one is announced
at most every `every_s`, and what was lost is so noticed within `every_s` and the second between two flushes.
"""

from __future__ import annotations

from hubbub.model import RoomId
from hubbub.ports import Clock, Fanout, Store
from hubbub.protocol import HeadSignal, encode


class HeadBoard:
    """Announces the heads of rooms in which something was written.

    Args:
        store, fanout, clock: the ports of the same name.

    """

    every_s = 5.0

    def __init__(self, *, store: Store, fanout: Fanout, clock: Clock) -> None:
        self._store = store
        self._fanout = fanout
        self._clock = clock
        self._due: dict[RoomId, float] = {}  # rooms to announce, and from which monotonic time on; in its order

    def writing(self, room: RoomId) -> None:
        """Take note that something is about to be written: whatever becomes of the writer, the room is looked after."""
        self._due.setdefault(room, self._clock.monotonic() + self.every_s)

    async def flush(self) -> None:
        """Announce what is due; to be called about once a second.

        Raises:
            Unavailable: the store does not say where a log ends; what is due stays so.

        """
        now = self._clock.monotonic()
        while self._due:
            room, at = next(iter(self._due.items()))
            if at > now:
                return
            known = await self._store.room(room)
            self._due.pop(room, None)
            if known is not None:
                await self._fanout.announce(room, known.head, encode(HeadSignal(room=room, head=known.head)))
