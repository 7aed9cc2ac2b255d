"""What is done in transactions: entries that change more than the log, rooms made and deleted, users.

Each deed can be done again when its answer was lost, and then finds that it was done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import UNSET

from hubbub.errors import Conflict, HubbubError, NotFound
from hubbub.model import (
    AnyEntry,
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
from hubbub.protocol import encode
from hubbub.store.postgres.link import Rows, Session
from hubbub.store.postgres.text import packed, packed_or_none, unpacked, unpacked_or_none
from hubbub.store.postgres.transaction import Limits, RoomRow, Transaction


class Deed(Protocol):
    """One thing to be done in a transaction.

    Deeds with the same `key` are done in order. `room` is locked for them, then the seats of those who are `seated`.

    """

    @property
    def key(self) -> str:
        """What it is about."""
        ...

    @property
    def room(self) -> RoomId | None:
        """The room that it changes."""
        ...

    @property
    def seated(self) -> Sequence[UserId]:
        """Who may come into the room by it, or go out."""
        ...

    async def __call__(self, transaction: Transaction) -> Any:  # Any: what the caller waits for
        """Do it. It raises a `HubbubError` only before it has changed anything."""
        ...


async def do(session: Session, deeds: Sequence[Deed], limits: Limits) -> tuple[list[Any], Transaction]:
    """Do them in one transaction: what each returned or why it was refused, and what is news.

    Those with the same key are done in their order, and the others so that all nodes take locks in the same order and
    none waits for one that waits for it: rooms, then seats, then rooms that are made, then what is remembered of users,
    each by their ids.
    """
    transaction = Transaction(session, limits)
    outcomes: dict[int, Any] = {}  # Any: what each deed returns
    order = sorted(range(len(deeds)), key=lambda place: (isinstance(deeds[place], ChangeUser), deeds[place].key))
    async with session.transaction():
        rooms = {deed.room for deed in deeds if deed.room is not None}
        if rooms:
            await transaction.lock(rooms)
        emptied = [deed.room for deed in deeds if isinstance(deed, DeleteRoom)]
        await transaction.lock_seats({user for deed in deeds for user in deed.seated}, emptied)
        await _find_sent(transaction, deeds)
        for place in order:
            try:
                outcomes[place] = await deeds[place](transaction)
            except HubbubError as refused:
                outcomes[place] = refused
        await transaction.flush()
    return [outcomes[place] for place in range(len(deeds))], transaction


async def _find_sent(transaction: Transaction, deeds: Sequence[Deed]) -> None:
    """Look up together which of the appends were done before: those that have been tried."""
    keys: list[tuple[int, str, str]] = []
    for deed in deeds:
        if isinstance(deed, Append):
            if deed.tried and (room := transaction.room(deed.entry.room)) is not None:
                keys.append((room.no, deed.entry.by, deed.once))
            deed.tried = True
    if keys:
        await transaction.find_sent(keys)


class Append:
    """Write an entry that is no message, with what it says."""

    def __init__(self, entry: AnyEntry, once: str) -> None:
        self.entry = entry
        self.once = once
        self.key: str = entry.room
        self.room: RoomId = entry.room
        self.seated = [entry.user] if isinstance(entry, MemberJoined | MemberLeft) else []
        self.tried = False
        self._body = encode(entry)

    async def __call__(self, transaction: Transaction) -> AnyEntry:
        """Write it; see `hubbub.ports.Store.append`."""
        entry = self.entry
        room = transaction.living(entry.room)
        done = transaction.sent.get((room.no, entry.by, self.once))
        if done is not None:
            if isinstance(entry, MemberJoined | MemberLeft | MemberUpdated):
                transaction.members[entry.room, entry.user] = None  # what others have made of it since is not known
            return done
        is_news = True
        match entry:
            case MessageEdited():
                await transaction.standing(room, entry.target)
            case MessageDeleted():
                await _redact(transaction, room, entry.target)
            case ReactionAdded() | ReactionRemoved():
                is_news = await _react(transaction, room, entry)
            case MemberJoined() | MemberLeft() | MemberUpdated():
                is_news = await _change_membership(transaction, room, entry)
            case RoomUpdated():
                room.name = room.name if entry.room_name is None else entry.room_name
                room.kind = room.kind if entry.kind is None else entry.kind.value
        entry.seq = transaction.add(room, entry, self._body, self.once) if is_news else 0
        return entry


async def _redact(transaction: Transaction, room: RoomRow, target: int) -> None:
    """Remove the words of the message and of its edits, and the reactions that nobody can change any more."""
    message = await transaction.standing(room, target)
    worded = [message, *await transaction.edits(room, target)]
    for entry in worded:
        if isinstance(entry, MessageCreated | MessageEdited):
            entry.text, entry.data, entry.deleted = None, UNSET, True
    await transaction.rewrite(room, worded)
    await transaction.session.fetch("DELETE FROM hubbub.reactions WHERE room = $1 AND target = $2", room.no, target)


async def _react(transaction: Transaction, room: RoomRow, entry: ReactionAdded | ReactionRemoved) -> bool:
    """Change the reactions; False when there is nothing to change."""
    await transaction.standing(room, entry.target)
    statement = (
        "INSERT INTO hubbub.reactions (room, target, author, reaction) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT DO NOTHING RETURNING 1"
        if isinstance(entry, ReactionAdded)
        else "DELETE FROM hubbub.reactions WHERE room = $1 AND target = $2 AND author = $3 AND reaction = $4"
        " RETURNING 1"
    )
    changed = await transaction.session.fetch(
        statement, room.no, entry.target, packed(entry.by), packed(entry.reaction)
    )
    return bool(changed)


async def _change_membership(
    transaction: Transaction, room: RoomRow, entry: MemberJoined | MemberLeft | MemberUpdated
) -> bool:
    """Change the membership; False when there is nothing to change."""
    known = await transaction.member(room, entry.user)
    if isinstance(entry, MemberLeft):
        if known is None:
            return False
        await transaction.session.fetch(
            "DELETE FROM hubbub.members WHERE room = $1 AND user_id = $2", room.no, packed(entry.user)
        )
        transaction.unseat([entry.user])
        transaction.members[entry.room, entry.user] = None
        room.members -= 1
        return True
    if known is not None and known.role == entry.role:
        return False
    if known is None:
        if isinstance(entry, MemberUpdated):
            raise NotFound(f"{entry.user!r} is not a member of this room.")
        _check_members(room.members + 1, transaction.limits)
        transaction.seat([entry.user])
        room.members += 1
    joined_at = entry.at if known is None else known.joined_at
    await transaction.enter(room, [Member(entry.user, entry.role, joined_at)])
    return True


def _check_members(count: int, limits: Limits) -> None:
    if count > limits.max_members:
        raise Conflict(f"A room has at most {limits.max_members} members.")


class CreateRoom:
    """The deed behind `hubbub.ports.Store.create_room`."""

    def __init__(
        self, room: RoomId, kind: RoomKind, *, name: str, by: UserId, at: int, members: Sequence[Member], exist_ok: bool
    ) -> None:
        self.key: str = room
        self.room: RoomId | None = room
        self._id = room
        self._kind = kind
        self._name = name
        self._by = by
        self._at = at
        self._members = members
        self.seated = list({member.user: None for member in members})
        self._exist_ok = exist_ok
        self._made = new_ulid(at)

    async def __call__(self, transaction: Transaction) -> Room:
        """Make it."""
        room = transaction.room(self._id)
        if room is not None and room.made == self._made:  # by an earlier try, whose answer was lost
            return room.seen() or Room(self._id, self._kind, self._name, self._at, room.head, room.first)
        if room is not None and not room.deleted:
            if self._exist_ok:
                return room.seen()  # type: ignore[return-value]  # it is not deleted
            raise Conflict(f"The room {self._id!r} exists already.")
        users = self.seated
        _check_members(len(users), transaction.limits)
        transaction.seat(users)
        if room is None:
            room = await transaction.make(self._id, self._kind, self._name, self._at, self._made)
        else:
            room.deleted, room.made, room.first = False, self._made, room.head + 1
            room.kind, room.name, room.created_at = self._kind.value, self._name, self._at
        room.members = len(users)
        await self._fill(transaction, room)
        return room.seen()  # type: ignore[return-value]  # it is not deleted

    async def _fill(self, transaction: Transaction, room: RoomRow) -> None:
        """Its first entries, and what they say."""
        at, by = self._at, self._by
        self._add(
            transaction,
            room,
            RoomUpdated(room=self._id, id=new_ulid(at), at=at, by=by, room_name=self._name, kind=self._kind),
        )
        roles: dict[UserId, Role] = {}
        for member in self._members:
            if roles.get(member.user) != member.role:
                roles[member.user] = member.role
                joined = MemberJoined(room=self._id, id=new_ulid(at), at=at, by=by, user=member.user, role=member.role)
                self._add(transaction, room, joined)
        if roles:
            await transaction.enter(room, [Member(user, role, at) for user, role in roles.items()])

    @staticmethod
    def _add(transaction: Transaction, room: RoomRow, entry: AnyEntry) -> None:
        transaction.add(room, entry, encode(entry), entry.id)


class DeleteRoom:
    """The deed behind `hubbub.ports.Store.delete_room`.

    The room gets another number, under which there is nothing; what is stored under the old one is removed later and
    little by little, so that a long log does not hold up everybody else's writes.
    """

    seated: Sequence[UserId] = ()  # all its members, whom only the database knows

    def __init__(self, room: RoomId) -> None:
        self.key: str = room
        self.room: RoomId = room
        self._id = room
        self._tried: int | None = None  # the number that the room had when this was tried before
        self._users: list[UserId] = []  # who was in it then

    async def __call__(self, transaction: Transaction) -> bool:
        """Remove it."""
        room = transaction.room(self._id)
        if room is not None and self._tried not in (None, room.no):  # an earlier try's answer was lost
            transaction.members.update(((self._id, user), None) for user in self._users)
            return True
        if room is None or room.deleted:
            return False
        self._tried = room.no
        await transaction.flush()  # what was noted of it has the old number
        rows = await transaction.session.fetch("DELETE FROM hubbub.members WHERE room = $1 RETURNING user_id", room.no)
        self._users = [UserId(unpacked(row["user_id"])) for row in rows]
        transaction.unseat(self._users)
        transaction.members.update(((self._id, user), None) for user in self._users)
        await transaction.session.fetch("INSERT INTO hubbub.leftovers VALUES ($1)", room.no)
        [number] = await transaction.session.fetch("SELECT nextval('hubbub.room_numbers')")
        room.no = number[0]
        room.deleted, room.members, room.dropped = True, 0, room.messages
        transaction.changed(room)
        return True


class ChangeUser:
    """The deed behind `hubbub.ports.Store.change_user`; `given` is what changes."""

    room: RoomId | None = None
    seated: Sequence[UserId] = ()

    def __init__(self, user: UserId, given: dict[str, Any]) -> None:  # Any: values of the fields of `User`
        self.key: str = user
        self._user = user
        self._given = given
        self._id = new_ulid(0)
        self._tried = False

    async def __call__(self, transaction: Transaction) -> User:
        """Remember it."""
        given = self._given
        rows: Rows = []
        if self._tried:  # then others may have changed more since, which is not to be undone
            rows = await transaction.session.fetch(
                "SELECT name, avatar, revoked_before, banned_until FROM hubbub.users"
                " WHERE user_id = $1 AND $2 = ANY (changes)",
                packed(self._user),
                self._id,
            )
        self._tried = True
        rows = rows or await transaction.session.fetch(
            "INSERT INTO hubbub.users AS u (user_id, name, avatar, revoked_before, banned_until, changes)"
            " VALUES ($1, $2, $3, $4, $5, ARRAY[$10::text]) ON CONFLICT (user_id) DO UPDATE SET"
            " changes = u.changes[greatest(1, cardinality(u.changes) - 6):] || excluded.changes,"
            " name = CASE WHEN $6 THEN excluded.name ELSE u.name END,"
            " avatar = CASE WHEN $7 THEN excluded.avatar ELSE u.avatar END,"
            " revoked_before = CASE WHEN $8 THEN excluded.revoked_before ELSE u.revoked_before END,"
            " banned_until = CASE WHEN $9 THEN excluded.banned_until ELSE u.banned_until END"
            " RETURNING name, avatar, revoked_before, banned_until",
            packed(self._user),
            packed_or_none(given.get("name")),
            packed_or_none(given.get("avatar")),
            given.get("revoked_before", 0),
            given.get("banned_until", 0),
            *(field in given for field in ("name", "avatar", "revoked_before", "banned_until")),
            self._id,
        )
        name, avatar, revoked_before, banned_until = rows[0]
        known = User(self._user, unpacked_or_none(name), unpacked_or_none(avatar), revoked_before, banned_until)
        transaction.users[self._user] = known
        return known
