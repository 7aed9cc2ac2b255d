"""What is removed when time passes: entries beyond what is kept of a room's log, and what deleted rooms left behind.

Little by little, so that nobody's write waits long for it, and by one node at a time.
"""

from __future__ import annotations

import logging

from hubbub.clock import Clock
from hubbub.store.postgres.address import Address
from hubbub.store.postgres.failures import DRIVER, described
from hubbub.store.postgres.link import Link, Session
from hubbub.store.postgres.opening import lock_key
from hubbub.store.postgres.transaction import ROOM, RoomRow

logger = logging.getLogger("hubbub.store")

STEP = 1_000
"""How many entries one transaction removes at most."""

ROOMS = 2_000
"""How many rooms are looked at in one query."""

PAUSE_S = 0.02
"""Between two steps, so that they take turns with those who wait."""

DUE = """
WITH these AS MATERIALIZED (
    SELECT no, id, head, first, deleted FROM hubbub.rooms WHERE no > $1 ORDER BY no LIMIT $2
)
SELECT s.no, s.id, NOT s.deleted AND (s.head - s.first >= $3 OR e.at < $4) IS TRUE AS due FROM these s
LEFT JOIN LATERAL (
    SELECT e.at FROM hubbub.entries e WHERE e.room = s.no AND e.seq = s.first AND $4::bigint IS NOT NULL LIMIT 1
) e ON true
ORDER BY s.no
"""


class Retention:
    """A node's share of the sweeping.

    Args:
        link: its connection, which its maker closes.
        address: of the server.
        clock: time.
        entries, days: what is kept of a room's log; None for all.
        every_s: how often a round begins.

    """

    def __init__(
        self, link: Link, address: Address, clock: Clock, *, entries: int | None, days: float | None, every_s: float
    ) -> None:
        self._link = link
        self._clock = clock
        self._entries = entries
        self._days = days
        self._every_s = every_s
        self._lock = "SELECT pg_try_advisory_xact_lock({}, {}) AS mine".format(*lock_key(address, "sweep"))

    async def run(self) -> None:
        """Sweep round after round until cancelled."""
        while True:
            try:
                await self._round()
            except DRIVER as error:
                logger.warning("could not sweep: %s", described(error))
                self._link.drop()
            await self._clock.sleep(self._every_s)

    async def _round(self) -> None:
        """Remove all that is to be removed now, unless another node is at it."""
        while (more := await self._step_of_leftovers()) is not False:
            if more is None:
                return
            await self._clock.sleep(PAUSE_S)
        if self._entries is None and self._days is None:
            return
        oldest_ms = None if self._days is None else int(self._clock.now_ms() - self._days * 86_400_000)
        last = 0
        while True:
            session = await self._link.session()
            rows = await session.alone(DUE, last, ROOMS, self._entries, oldest_ms)
            for row in rows:
                removed = STEP
                while row["due"] and removed == STEP:
                    count = await self._step_of_room(row["id"], oldest_ms)
                    if count is None:
                        return
                    removed = count
                    await self._clock.sleep(PAUSE_S)
            if len(rows) < ROOMS:
                return
            last = rows[-1]["no"]
            await self._clock.sleep(PAUSE_S)

    async def _is_mine(self, session: Session) -> bool:
        """Whether no other node is at it; then none is until the transaction ends."""
        [row] = await session.fetch(self._lock)
        mine: bool = row["mine"]
        return mine

    async def _step_of_leftovers(self) -> bool | None:
        """Remove some of what a deleted room left under its number, and in the end the number itself.

        Returns whether there was something; None when another node is at it.
        """
        session = await self._link.session()
        async with session.transaction():
            if not await self._is_mine(session):
                return None
            rows = await session.fetch("SELECT room FROM hubbub.leftovers ORDER BY room LIMIT 1")
            if not rows:
                return False
            room = rows[0]["room"]
            for table, key in (("entries", "seq"), ("reads", "user_id")):
                removed = await session.fetch(
                    f"WITH these AS MATERIALIZED (SELECT {key} FROM hubbub.{table} WHERE room = $1"  # noqa: S608
                    f" ORDER BY {key} LIMIT $2), gone AS (DELETE FROM hubbub.{table} t USING these s"
                    f" WHERE t.room = $1 AND t.{key} = s.{key} RETURNING 1) SELECT count(*) FROM gone",
                    room,
                    STEP,
                )
                if removed[0][0]:
                    return True
            await session.fetch("DELETE FROM hubbub.reactions WHERE room = $1", room)
            await session.fetch("DELETE FROM hubbub.leftovers WHERE room = $1", room)
        return True

    async def _step_of_room(self, room: str, oldest_ms: int | None) -> int | None:
        """Remove up to `STEP` entries from the room's low end; how many, or None when another node is at it."""
        session = await self._link.session()
        async with session.transaction():
            if not await self._is_mine(session):
                return None
            rows = await session.fetch(
                f"SELECT {ROOM} FROM hubbub.rooms WHERE id = $1 AND NOT deleted FOR NO KEY UPDATE",  # noqa: S608
                room,
            )
            return await self._shorten(session, RoomRow(*rows[0]), oldest_ms) if rows else 0

    async def _shorten(self, session: Session, room: RoomRow, oldest_ms: int | None) -> int:
        upto = min(room.first + STEP - 1, room.head)
        kept_from = 1 if self._entries is None else room.head - self._entries + 1
        if oldest_ms is not None:
            young = await session.fetch(
                "SELECT seq FROM hubbub.entries WHERE room = $1 AND seq BETWEEN $2 AND $3 AND at >= $4"
                " ORDER BY seq LIMIT 1",
                room.no,
                room.first,
                upto,
                oldest_ms,
            )
            kept_from = max(kept_from, young[0]["seq"] if young else upto + 1)
        last = min(upto, kept_from - 1)
        if last < room.first:
            return 0
        await session.fetch(
            "UPDATE hubbub.rooms SET first = $2 + 1,"
            " dropped = (SELECT messages FROM hubbub.entries WHERE room = no AND seq = $2) WHERE no = $1",
            room.no,
            last,
        )
        await session.fetch(
            "DELETE FROM hubbub.entries WHERE room = $1 AND seq BETWEEN $2 AND $3", room.no, room.first, last
        )
        await session.fetch(
            "DELETE FROM hubbub.reactions WHERE room = $1 AND target BETWEEN $2 AND $3", room.no, room.first, last
        )
        return last - room.first + 1
