"""What is looked up: of many at once where many ask at once, each query one snapshot."""

from __future__ import annotations

from collections.abc import Sequence

from hubbub.model import Entry, Member, Role, Room, RoomId, RoomKind, RoomState, User, UserId
from hubbub.store.postgres.link import Session
from hubbub.store.postgres.text import packed, unpacked, unpacked_or_none
from hubbub.store.postgres.transaction import ROOM, RoomRow, read_entry

Asker = tuple[UserId, tuple[RoomId, ...]]
"""A user, and the rooms that are asked for beside his own."""

MOST_ROOMS = 100_000
"""Of one user: more than any limit lets him be in."""

GREATEST = 2**62
"""A greater seq than there can be, and small enough for PostgreSQL."""


async def rooms(session: Session, ids: Sequence[RoomId]) -> dict[RoomId, Room]:
    """Those of the rooms that exist."""
    rows = await session.alone(
        f"SELECT {ROOM} FROM hubbub.rooms WHERE id = ANY ($1::text[]) AND NOT deleted",  # noqa: S608
        [packed(room) for room in ids],
    )
    return {room.id: room for row in rows if (room := RoomRow(*row).seen()) is not None}


ALL_ROOMS = f"SELECT {ROOM} FROM hubbub.rooms WHERE NOT deleted AND id > $1 ORDER BY id LIMIT $2"  # noqa: S608
ROOMS_OF_KIND = ALL_ROOMS.replace("AND id", "AND kind = $3 AND id")


async def rooms_after(session: Session, *, after: str, limit: int, kind: RoomKind | None) -> tuple[list[Room], bool]:
    """Rooms by id, and whether there are more."""
    if kind is None:
        rows = await session.alone(ALL_ROOMS, packed(after), limit + 1)
    else:
        rows = await session.alone(ROOMS_OF_KIND, packed(after), limit + 1, kind.value)
    seen = [RoomRow(*row).seen() for row in rows[:limit]]
    return [room for room in seen if room is not None], len(rows) > limit


async def heads(session: Session, *, rooms: Sequence[RoomId]) -> dict[RoomId, int]:
    """The last seq of each of the rooms that exist."""
    rows = await session.alone(
        "SELECT id, head FROM hubbub.rooms WHERE id = ANY ($1::text[]) AND NOT deleted",
        [packed(room) for room in rooms],
    )
    return {RoomId(room): head for room, head in rows}


async def entry(session: Session, *, room: RoomId, seq: int) -> Entry | None:
    """One entry."""
    rows = await session.alone(
        "SELECT e.body FROM hubbub.rooms r JOIN hubbub.entries e ON e.room = r.no AND e.seq = $2"
        " WHERE r.id = $1 AND NOT r.deleted",
        packed(room),
        max(0, min(seq, GREATEST)),
    )
    return read_entry(seq, rows[0]["body"]) if rows else None


# Each LATERAL … LIMIT 1 is one step down one index, whatever the planner believes of the tables' sizes.
STATES = """
SELECT m.user_id, true AS own, r.id, r.kind, r.name, m.role, r.head, coalesce(d.seq, 0),
    greatest(0, r.messages - greatest(coalesce(d.messages, 0), r.dropped))
FROM unnest($1::text[]) AS asked (user_id)
CROSS JOIN LATERAL (SELECT * FROM hubbub.members WHERE user_id = asked.user_id LIMIT $4) m
CROSS JOIN LATERAL (SELECT * FROM hubbub.rooms WHERE no = m.room LIMIT 1) r
LEFT JOIN LATERAL (SELECT * FROM hubbub.reads WHERE room = m.room AND user_id = m.user_id LIMIT 1) d ON true
UNION ALL
SELECT also.user_id, false, r.id, r.kind, r.name, '', r.head, coalesce(d.seq, 0),
    greatest(0, r.messages - greatest(coalesce(d.messages, 0), r.dropped))
FROM unnest($2::text[], $3::text[]) AS also (user_id, room)
CROSS JOIN LATERAL (SELECT * FROM hubbub.rooms WHERE id = also.room AND NOT deleted LIMIT 1) r
LEFT JOIN LATERAL (SELECT * FROM hubbub.reads WHERE room = r.no AND user_id = also.user_id LIMIT 1) d ON true
"""


async def states(session: Session, askers: Sequence[Asker]) -> dict[Asker, list[RoomState]]:
    """The rooms of each of the users, and those he asks for beside; by id."""
    pairs: list[tuple[UserId, RoomId]] = list(dict.fromkeys((user, room) for user, also in askers for room in also))
    rows = await session.alone(
        STATES,
        [packed(user) for user in dict.fromkeys(user for user, _ in askers)],
        [packed(user) for user, _ in pairs],
        [packed(room) for _, room in pairs],
        MOST_ROOMS,
    )
    own: dict[str, dict[str, RoomState]] = {}
    others: dict[str, dict[str, RoomState]] = {}
    for user, is_own, room, kind, name, role, head, read, unread in rows:
        state = RoomState(RoomId(room), RoomKind(kind), unpacked(name), Role(role or Role.READER), head, read, unread)
        (own if is_own else others).setdefault(unpacked(user), {})[room] = state
    found: dict[Asker, list[RoomState]] = {}
    for user, also in askers:
        mine, beside = own.get(user, {}), others.get(user, {})
        seen: dict[str, RoomState] = {room: beside[room] for room in also if room in beside} | mine
        found[user, also] = [seen[room] for room in sorted(seen)]
    return found


async def members(session: Session, keys: Sequence[tuple[RoomId, UserId]]) -> dict[tuple[RoomId, UserId], Member]:
    """Those of the memberships that exist."""
    rows = await session.alone(
        """
        SELECT k.place, m.role, m.joined_at
        FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (room, user_id, place)
        CROSS JOIN LATERAL (SELECT no FROM hubbub.rooms WHERE id = k.room LIMIT 1) r
        CROSS JOIN LATERAL (
            SELECT role, joined_at FROM hubbub.members WHERE room = r.no AND user_id = k.user_id LIMIT 1
        ) m
        """,
        [packed(room) for room, _ in keys],
        [packed(user) for _, user in keys],
    )
    return {keys[place - 1]: Member(keys[place - 1][1], Role(role), joined_at) for place, role, joined_at in rows}


async def members_after(session: Session, *, room: RoomId, after: str, limit: int) -> tuple[list[Member], int, bool]:
    """Members by user id; how many in all; whether there are more."""
    rows = await session.alone(
        """
        SELECT r.members, m.user_id, m.role, m.joined_at, u.name, u.avatar FROM hubbub.rooms r
        LEFT JOIN LATERAL (
            SELECT * FROM hubbub.members WHERE room = r.no AND user_id > $2 ORDER BY user_id LIMIT $3
        ) m ON true
        LEFT JOIN LATERAL (SELECT * FROM hubbub.users WHERE user_id = m.user_id LIMIT 1) u ON true
        WHERE r.id = $1 ORDER BY m.user_id
        """,
        packed(room),
        packed(after),
        limit + 1,
    )
    if not rows:
        return [], 0, False
    found = [
        Member(UserId(unpacked(user)), Role(role), joined_at, unpacked_or_none(name), unpacked_or_none(avatar))
        for _, user, role, joined_at, name, avatar in rows
        if user is not None
    ]
    return found[:limit], rows[0]["members"], len(found) > limit


async def users(session: Session, ids: Sequence[UserId]) -> dict[UserId, User]:
    """What is remembered of each; those of whom nothing is are missing."""
    rows = await session.alone(
        "SELECT user_id, name, avatar, revoked_before, banned_until FROM hubbub.users WHERE user_id = ANY ($1::text[])",
        [packed(user) for user in ids],
    )
    found = {}
    for user_id, name, avatar, revoked_before, banned_until in rows:
        user = UserId(unpacked(user_id))
        found[user] = User(user, unpacked_or_none(name), unpacked_or_none(avatar), revoked_before, banned_until)
    return found
