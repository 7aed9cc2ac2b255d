"""What can be done in a transaction: entries and what they say, rooms made and deleted, marks, users.

A work that is refused has changed nothing: it asks everything first. So it takes no other work of its batch with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from hubbub.errors import Conflict, NotFound
from hubbub.model import (
    AnyEntry,
    Entry,
    Member,
    MemberJoined,
    MemberLeft,
    MemberUpdated,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    ReactionAdded,
    ReactionRemoved,
    Role,
    Room,
    RoomId,
    RoomKind,
    RoomUpdated,
    User,
    UserId,
    new_ulid,
)
from hubbub.protocol import entry_decoder
from hubbub.store.sqlite.batch import Batch, RoomRow, Work, select_many


@dataclass(frozen=True)
class Limits:
    """How many members a room has at most, and how many rooms a user is in."""

    max_members: int
    max_rooms: int


class Append(msgspec.Struct, eq=False, gc=False):
    """An append waiting to be written; a class, so that `find_sent` can look at what waits before it begins."""

    entry: Entry
    limits: Limits

    def __call__(self, batch: Batch) -> Entry:
        """Write the entry with what it says; see `hubbub.ports.Store.append`."""
        entry = self.entry
        room = batch.living(entry.room)
        match entry:
            case MessageCreated():
                if entry.client_id is not None:
                    first = batch.sent.get((room.no, entry.by, entry.client_id))
                    if first is not None:
                        return first
                for seq in (entry.reply_to, entry.thread):
                    if seq is not None:
                        batch.message(room, seq)
            case MessageEdited():
                _standing(batch, room, entry.target)
            case MessageDeleted():
                _redact(batch, room, entry.target)
            case ReactionAdded() | ReactionRemoved():
                if not _react(batch, room, entry):
                    return entry
            case MemberJoined() | MemberLeft() | MemberUpdated():
                if not _change_membership(batch, room, entry, self.limits):
                    return entry
            case RoomUpdated():
                room.name = room.name if entry.room_name is None else entry.room_name
                room.kind = room.kind if entry.kind is None else entry.kind.value
                batch.changed(room)
        return batch.add(room, entry)


class Post(Append, eq=False, gc=False):
    """The append of a message whose frame is wanted as well, as it is written."""

    def __call__(self, batch: Batch) -> tuple[Entry, bytes | None]:  # type: ignore[override]  # a work returns anything
        """Write it; the frame is None where the entry was there already."""
        stored = Append.__call__(self, batch)  # `super()` is an object more
        return stored, batch.body if stored is self.entry else None


def find_sent(batch: Batch, works: Sequence[Work]) -> None:
    """Look up, in few statements, which of the waiting messages are there already."""
    keys: list[tuple[int, str, str]] = []
    for work in works:
        if isinstance(work, Append):
            entry = work.entry
            if isinstance(entry, MessageCreated) and entry.client_id is not None:
                room = batch.room(entry.room)
                if room is not None:
                    keys.append((room.no, entry.by, entry.client_id))
    rows = select_many(
        batch.db,
        "SELECT e.room, e.author, e.client_id, e.body FROM (VALUES ",
        "(?,?,?)",
        ") k JOIN entries e ON e.room = k.column1 AND e.author = k.column2 AND e.client_id = k.column3"
        " WHERE e.client_id IS NOT NULL",
        keys,
    )
    for room_no, author, client_id, body in rows:
        batch.sent[room_no, author, client_id] = entry_decoder.decode(body)


def _standing(batch: Batch, room: RoomRow, seq: int) -> MessageCreated:
    """The message at `seq`, which must not be deleted."""
    message = batch.message(room, seq)
    if message.deleted:
        raise Conflict("The message has been deleted.")
    return message


def _redact(batch: Batch, room: RoomRow, target: int) -> None:
    """Remove the words of the message and of its edits, and the reactions that nobody can change any more."""
    message = _standing(batch, room, target)
    batch.flush()
    rows = batch.db.execute(
        "SELECT body FROM entries WHERE room = ? AND target = ? AND words = 1", (room.no, target)
    ).fetchall()
    worded: list[AnyEntry] = [message, *(entry_decoder.decode(body) for (body,) in rows)]
    for entry in worded:
        if isinstance(entry, MessageCreated | MessageEdited):
            entry.text, entry.data, entry.deleted = None, msgspec.UNSET, True
    batch.rewrite(room, worded)
    batch.db.execute("DELETE FROM reactions WHERE room = ? AND target = ?", (room.no, target))
    if message.client_id is not None:  # whoever sends it again in this batch gets it as it is now
        batch.sent[room.no, message.by, message.client_id] = message


def _react(batch: Batch, room: RoomRow, entry: ReactionAdded | ReactionRemoved) -> bool:
    """Change the reactions; False when there is nothing to change."""
    _standing(batch, room, entry.target)
    key = (room.no, entry.target, entry.by, entry.reaction)
    if isinstance(entry, ReactionAdded):
        done = batch.db.execute("INSERT OR IGNORE INTO reactions VALUES (?, ?, ?, ?)", key)
    else:
        done = batch.db.execute(
            "DELETE FROM reactions WHERE room = ? AND target = ? AND author = ? AND reaction = ?", key
        )
    return done.rowcount > 0


def _change_membership(
    batch: Batch, room: RoomRow, entry: MemberJoined | MemberLeft | MemberUpdated, limits: Limits
) -> bool:
    """Change the membership; False when there is nothing to change."""
    known = batch.member(room, entry.user)
    if isinstance(entry, MemberLeft):
        if known is None:
            return False
        batch.db.execute("DELETE FROM members WHERE room = ? AND user = ?", (room.no, entry.user))
        batch.members[room.id, entry.user] = None
        room.members -= 1
        batch.counted(room)
        return True
    if known is not None and known.role == entry.role:
        return False
    if known is None:
        if isinstance(entry, MemberUpdated):
            raise NotFound(f"{entry.user!r} is not a member of this room.")
        if room.members >= limits.max_members:
            raise Conflict(f"A room has at most {limits.max_members} members.")
        _check_rooms_of(batch, entry.user, limits)
    _enter(batch, room, known, entry.user, entry.role, entry.at)
    return True


def _check_rooms_of(batch: Batch, user: UserId, limits: Limits) -> None:
    count = batch.db.execute("SELECT count(*) FROM members WHERE user = ?", (user,)).fetchone()[0]
    if count >= limits.max_rooms:
        raise Conflict(f"A user is in at most {limits.max_rooms} rooms.")


def _enter(batch: Batch, room: RoomRow, known: Member | None, user: UserId, role: Role, at: int) -> None:
    """Make `user` a member with `role`, who is `known` so far."""
    member = Member(user, role, at if known is None else known.joined_at)
    batch.db.execute("INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?)", (room.no, user, role, member.joined_at))
    batch.members[room.id, user] = member
    room.members += known is None
    batch.counted(room)


def create_room(
    room: RoomId,
    kind: RoomKind,
    *,
    name: str,
    by: UserId,
    at: int,
    members: Sequence[Member],
    exist_ok: bool,
    limits: Limits,
) -> Work:
    """The work behind `hubbub.ports.Store.create_room`."""

    def work(batch: Batch) -> Room:
        made = batch.room(room)
        if made is not None and not made.deleted:
            if exist_ok:
                return made.seen()  # type: ignore[return-value]  # it is not deleted
            raise Conflict(f"The room {room!r} exists already.")
        users = {member.user for member in members}
        if len(users) > limits.max_members:
            raise Conflict(f"A room has at most {limits.max_members} members.")
        for user in users:
            _check_rooms_of(batch, user, limits)
        if made is None:
            made = batch.make(room, kind, name, at)
        else:
            made.deleted, made.kind, made.name, made.created_at = 0, kind.value, name, at
            made.first = made.head + 1
            batch.changed(made)
        batch.add(made, RoomUpdated(room=room, id=new_ulid(at), at=at, by=by, room_name=name, kind=kind))
        for member in members:
            joined = MemberJoined(room=room, id=new_ulid(at), at=at, by=by, user=member.user, role=member.role)
            Append(joined, limits)(batch)
        return made.seen()  # type: ignore[return-value]  # it is not deleted

    return work


def delete_room(room: RoomId) -> Work:
    """The work behind `hubbub.ports.Store.delete_room`.

    The room gets another number, under which there is nothing; what is stored under the old one is removed later and
    little by little, so that a long log does not hold up everybody else's writes.
    """

    def work(batch: Batch) -> bool:
        known = batch.room(room)
        if known is None or known.deleted:
            return False
        for (user,) in batch.db.execute("SELECT user FROM members WHERE room = ?", (known.no,)):
            batch.members[room, user] = None
        batch.db.execute("DELETE FROM members WHERE room = ?", (known.no,))
        batch.db.execute("INSERT INTO leftovers VALUES (?)", (known.no,))
        batch.litter = True
        # Rows of rooms are never removed, so the greatest number is greater than every one that was ever used.
        [(known.no,)] = batch.db.execute(
            "UPDATE rooms SET no = (SELECT max(no) + 1 FROM rooms) WHERE no = ? RETURNING no", (known.no,)
        ).fetchall()
        known.deleted, known.members, known.dropped = 1, 0, known.messages
        batch.changed(known)
        return True

    return work


def mark_read(room: RoomId, user: UserId, seq: int) -> Work:
    """The work behind `hubbub.ports.Store.mark_read`."""

    def work(batch: Batch) -> int:
        known = batch.living(room)
        goal: int = min(seq, known.head)
        mark = batch.mark(known, user)
        if goal <= mark:
            return mark
        batch.move_mark(known, user, goal)
        return goal

    return work


def change_user(user: UserId, given: dict[str, Any]) -> Work:  # Any: values of the fields of `User`
    """The work behind `hubbub.ports.Store.change_user`; `given` is what changes."""

    def work(batch: Batch) -> User:
        row = batch.db.execute("SELECT * FROM users WHERE user = ?", (user,)).fetchone()
        changed = msgspec.structs.replace(User(user) if row is None else User(*row), **given)
        batch.db.execute("INSERT OR REPLACE INTO users VALUES (?, ?, ?, ?, ?)", msgspec.structs.astuple(changed))
        batch.users[user] = changed
        return changed

    return work
