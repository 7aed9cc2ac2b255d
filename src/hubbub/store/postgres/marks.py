"""Read marks, many at a time, in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hubbub.errors import HubbubError, NotFound
from hubbub.model import RoomId, UserId
from hubbub.store.postgres.link import Session
from hubbub.store.postgres.text import packed

MOVE = """
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY AS a (room, user_id, seq, place)
), judged AS MATERIALIZED (
    SELECT a.place, a.user_id, r.no, r.head, r.messages, r.dropped, coalesce(d.seq, 0) AS was,
        least(a.seq, r.head) AS goal
    FROM asked a
    LEFT JOIN LATERAL (
        SELECT no, head, messages, dropped FROM hubbub.rooms WHERE id = a.room AND NOT deleted LIMIT 1
    ) r ON true
    LEFT JOIN LATERAL (
        SELECT d.seq FROM hubbub.reads d WHERE d.room = r.no AND d.user_id = a.user_id LIMIT 1
    ) d ON true
), moved AS (
    INSERT INTO hubbub.reads (room, user_id, seq, messages)
    SELECT j.no, j.user_id, j.goal, CASE WHEN j.goal = j.head THEN j.messages ELSE coalesce(e.messages, j.dropped) END
    FROM judged j LEFT JOIN LATERAL (
        SELECT e.messages FROM hubbub.entries e WHERE e.room = j.no AND e.seq = j.goal LIMIT 1
    ) e ON true
    WHERE j.no IS NOT NULL AND j.goal > j.was ORDER BY j.no, j.user_id
    ON CONFLICT (room, user_id) DO UPDATE SET seq = excluded.seq, messages = excluded.messages
    WHERE reads.seq < excluded.seq
)
SELECT no IS NOT NULL, was, head FROM judged ORDER BY place
"""

GREATEST = 2**62
"""More than any seq, and something that PostgreSQL can add to."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A read mark to be moved."""

    key: RoomId
    user: UserId
    seq: int


async def move(session: Session, marks: Sequence[Mark]) -> list[int | HubbubError]:
    """Move them in their order; where each then is, or why it is nowhere."""
    goals: dict[tuple[RoomId, UserId], int] = {}
    for mark in marks:
        goals[mark.key, mark.user] = max(mark.seq, goals.get((mark.key, mark.user), 0))
    rows = await session.alone(
        MOVE,
        [room for room, _ in goals],
        [packed(user) for _, user in goals],
        [min(seq, GREATEST) for seq in goals.values()],
    )
    found = dict(zip(goals, rows, strict=True))
    stands: dict[tuple[RoomId, UserId], int] = {}
    outcomes: list[int | HubbubError] = []
    for mark in marks:
        is_there, was, head = found[mark.key, mark.user]
        if not is_there:
            outcomes.append(NotFound(f"There is no room {mark.key!r}."))
            continue
        at = max(stands.get((mark.key, mark.user), was), min(mark.seq, head))
        stands[mark.key, mark.user] = at
        outcomes.append(at)
    return outcomes
