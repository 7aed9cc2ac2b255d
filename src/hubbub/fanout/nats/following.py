"""A user who is let into a room late: what his connections have missed is read and sent, and then they listen live."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack

from hubbub.clock import Clock
from hubbub.errors import HubbubError
from hubbub.fanout.local import LocalFanout
from hubbub.model import MAX_PAGE, ConnectionId, RoomId
from hubbub.ports import Listening, ReadAfter, Sink

logger = logging.getLogger("hubbub.fanout.nats")

MAX_MISSED = 1_000
"""Entries that are read for somebody who comes late."""

MAX_CATCHING_UP = 1_000
"""How many may be on their way; further ones have a hole, which their clients find by `seq`."""

TRIES = 5


class Following:
    """Lets connections catch up.

    Args:
        local: the node's listeners.
        sink: its connections.
        read: reads a room's entries after a seq.
        clock: time.

    """

    retry_s = 0.5

    def __init__(self, local: LocalFanout, *, sink: Sink, read: ReadAfter, clock: Clock) -> None:
        self._local = local
        self._sink = sink
        self._read = read
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    async def catch_up(self, room: RoomId, after: int, connections: Sequence[ConnectionId]) -> asyncio.Future[None]:
        """Let these connections of a user listen from the entry after `after` on, though that was delivered before.

        When this returns they are about to listen, so they can be taken out again; the future is done when they do.
        """
        late = [connection for connection in connections if not self._local.listens(connection, room)]
        stack = AsyncExitStack()
        listenings: dict[ConnectionId, Listening] = {}
        for connection in late:
            listening = await self._local.listen(connection, [room])
            listenings[connection] = await stack.enter_async_context(listening)
        tries = TRIES if len(self._tasks) < MAX_CATCHING_UP else 0
        catching_up = self._catch_up(room, after, listenings, stack, tries)
        task = asyncio.get_running_loop().create_task(catching_up)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return asyncio.shield(task)

    async def aclose(self) -> None:
        """Give up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _catch_up(
        self, room: RoomId, after: int, listenings: dict[ConnectionId, Listening], stack: AsyncExitStack, tries: int
    ) -> None:
        async with stack:
            for _ in range(tries if listenings else 0):
                try:
                    known, frames = await self._missed(room, after)
                    for connection in list(listenings):
                        await self._start(connection, listenings[connection], room, known, frames)
                        del listenings[connection]
                    break
                except HubbubError as error:  # the store is away, or more was written meanwhile than was kept
                    logger.info("cannot read what a new member of room %s missed: %s", room, error)
                    await self._clock.sleep(self.retry_s)
            if listenings:
                logger.warning("a new member of room %s has missed entries after seq %d", room, after)
            for connection in listenings:
                self._local.admit(connection, room, after)

    async def _missed(self, room: RoomId, after: int) -> tuple[int, list[bytes]]:
        frames: list[bytes] = []
        known = after
        while len(frames) < MAX_MISSED:
            page = await self._read(room, known)
            frames += [frame for _, frame in page]
            known = page[-1][0] if page else known
            if len(page) < MAX_PAGE:  # what is written from now on is kept by the listening
                break
        return known, frames

    async def _start(
        self, connection: ConnectionId, listening: Listening, room: RoomId, known: int, frames: list[bytes]
    ) -> None:
        """Join; what comes live follows what is sent here, for nothing is awaited between the two."""
        if self._local.listens(connection, room):
            return  # it has begun to by itself, and read what there was
        started = await listening.start({room: known})
        if room in started:
            self._local.admitted(connection, room)
            for frame in [*frames, *started[room]]:
                self._sink.send(connection, frame)
