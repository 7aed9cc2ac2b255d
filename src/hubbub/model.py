"""What the chat is about: rooms, members, entries, principals, their ids and their limits.

An `Entry` is one line of a room's log and has exactly the shape that clients see, live and in history alike.
"""

from __future__ import annotations

import enum
import hashlib
from typing import Annotated, ClassVar, NewType

import msgspec

from hubbub.entropy import random_word

RoomId = NewType("RoomId", str)
UserId = NewType("UserId", str)
ConnectionId = NewType("ConnectionId", str)

ROOM_ID_PATTERN = r"^[A-Za-z0-9._:\-]{1,64}\Z"
MAX_USER_ID_CHARS = 128
MAX_NAME_CHARS = 128
MAX_CLIENT_ID_CHARS = 64
MAX_REF_CHARS = 64
MAX_REACTION_CHARS = 32
MAX_PAGE = 200
MAX_SEQ = 2**53 - 1
"""JavaScript's largest exact integer, so that every client can hold a `seq`."""

Seq = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARS)]
ClientId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_CLIENT_ID_CHARS)]
Reaction = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_REACTION_CHARS)]

SYSTEM = UserId("system")
"""The author of entries that the customer's backend writes in nobody's name."""


class Role(enum.StrEnum):
    """What a member may do in a room; see `may`."""

    OWNER = "owner"
    MODERATOR = "moderator"
    MEMBER = "member"
    READER = "reader"

    @property
    def rank(self) -> int:
        """Higher outranks lower: nobody changes or removes a member of a rank at or above his own, owners excepted."""
        return _RANKS[self]


_RANKS = {Role.READER: 0, Role.MEMBER: 1, Role.MODERATOR: 2, Role.OWNER: 3}


class RoomKind(enum.StrEnum):
    """Who can come in: anybody, only the invited, or exactly two."""

    PUBLIC = "public"
    PRIVATE = "private"
    DIRECT = "direct"


class Permission(enum.Enum):
    """One thing a role allows."""

    READ = "read"
    SEND = "send"
    REACT = "react"
    INVITE = "invite"
    MODERATE = "moderate"
    MANAGE = "manage"


_PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.READER: frozenset({Permission.READ}),
    Role.MEMBER: frozenset({Permission.READ, Permission.SEND, Permission.REACT, Permission.INVITE}),
    Role.MODERATOR: frozenset(Permission) - {Permission.MANAGE},
    Role.OWNER: frozenset(Permission),
}


def may(role: Role, permission: Permission) -> bool:
    """Whether `role` allows `permission`.

    Readers read; members also send, react and invite; moderators also delete others' messages and remove members;
    owners also change roles and the room itself.
    """
    return permission in _PERMISSIONS[role]


class Principal(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who a connection or a request belongs to: the verified claims of a token.

    Attributes:
        user: the token's `sub`.
        expires_at: from when on the token is not accepted any more, epoch seconds.
        issued_at: when it was issued, epoch seconds; 0 when it does not say (then any revocation hits it).
        name, avatar: shown to others.
        rooms: roles that the token itself grants, by room; they hold as long as the token.
        scopes: `server` marks the customer's backend.

    """

    user: UserId
    expires_at: int
    issued_at: int = 0
    name: str | None = None
    avatar: str | None = None
    rooms: dict[RoomId, Role] = {}
    scopes: tuple[str, ...] = ()

    SERVER: ClassVar[str] = "server"

    @property
    def is_server(self) -> bool:
        """Whether this is the customer's backend, which may do everything."""
        return self.SERVER in self.scopes


class Room(msgspec.Struct, frozen=True, omit_defaults=True):
    """A room as the store knows it.

    Attributes:
        id: 1 to 64 characters of `A-Za-z0-9._:-`.
        kind: who can come in.
        name: shown to people; may be empty.
        created_at: epoch milliseconds.
        head: the `seq` of the last entry, 0 for none.
        first: the lowest `seq` still kept (1 until retention has removed entries).
        members: how many members it has.

    """

    id: RoomId
    kind: RoomKind
    name: str = ""
    created_at: int = 0
    head: int = 0
    first: int = 1
    members: int = 0


class RoomState(msgspec.Struct, frozen=True):
    """A room as one user sees it in `sync`: what it is, who he is in it, and what he has not read.

    Attributes:
        read: the highest `seq` the user has marked as read.
        unread: messages after it, his own not counted as unread when they moved his mark.

    """

    room: RoomId
    kind: RoomKind
    name: str
    role: Role
    head: int
    read: int
    unread: int


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """One user's membership of one room."""

    user: UserId
    role: Role
    joined_at: int = 0
    name: str | None = None
    avatar: str | None = None


class User(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the chat remembers of a user beyond memberships.

    Attributes:
        name, avatar: as his latest token said.
        revoked_before: tokens issued before this are refused, epoch seconds; 0 for none.
        banned_until: no token is accepted before this, epoch seconds; 0 for not banned.

    """

    user: UserId
    name: str | None = None
    avatar: str | None = None
    revoked_before: int = 0
    banned_until: int = 0


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="type"):
    """One line of a room's log.

    Attributes:
        room: whose log.
        seq: its place: 1, 2, 3, … without gaps; 0 until the store has given it one.
        id: a ULID, unique everywhere.
        at: when the chat took it, epoch milliseconds; informative, `seq` is the order.
        by: the user who caused it, or `system`.
        name: the author's display name at that time, absent when he has none.

    """

    room: RoomId
    seq: int = 0
    id: str = ""
    at: int = 0
    by: UserId
    name: str | None = None


class MessageCreated(Entry, tag="message.created", gc=False):
    """Somebody said something. A deleted message keeps its place and loses `text` and `data`."""

    text: str | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    client_id: str | None = None
    reply_to: int | None = None
    thread: int | None = None
    deleted: bool = False


class MessageEdited(Entry, tag="message.edited"):
    """The message at `target` now reads so."""

    target: int
    text: str | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    deleted: bool = False


class MessageDeleted(Entry, tag="message.deleted"):
    """The message at `target` is gone: its words have been removed from the log."""

    target: int


class ReactionAdded(Entry, tag="reaction.added"):
    """`by` reacts to the message at `target`; twice the same is once."""

    target: int
    reaction: str


class ReactionRemoved(Entry, tag="reaction.removed"):
    """`by` takes that reaction back."""

    target: int
    reaction: str


class MemberJoined(Entry, tag="member.joined"):
    """`user` is now a member with `role`; `by` is himself or who invited him."""

    user: UserId
    role: Role
    user_name: str | None = None


class MemberLeft(Entry, tag="member.left"):
    """`user` is no longer a member; `by` is himself or who removed him."""

    user: UserId


class MemberUpdated(Entry, tag="member.updated"):
    """`user` now has `role`."""

    user: UserId
    role: Role


class RoomUpdated(Entry, tag="room.updated"):
    """The room's name or kind changed; also the first entry of every room, written at its creation."""

    room_name: str | None = None
    kind: RoomKind | None = None


AnyEntry = (
    MessageCreated
    | MessageEdited
    | MessageDeleted
    | ReactionAdded
    | ReactionRemoved
    | MemberJoined
    | MemberLeft
    | MemberUpdated
    | RoomUpdated
)
"""Every kind of entry: the union that JSON entries decode to, told apart by `type`."""

ENTRY_TYPES: tuple[type[Entry], ...] = (
    MessageCreated,
    MessageEdited,
    MessageDeleted,
    ReactionAdded,
    ReactionRemoved,
    MemberJoined,
    MemberLeft,
    MemberUpdated,
    RoomUpdated,
)


def type_of(entry: Entry | type[Entry]) -> str:
    """The wire name of an entry's type, such as `message.created`."""
    tag = entry.__struct_config__.tag
    assert isinstance(tag, str)  # noqa: S101  every entry class above names its tag
    return tag


class Page(msgspec.Struct, frozen=True):
    """A stretch of a room's log in `seq` order.

    Attributes:
        entries: ascending by `seq`, without holes (with a `thread`, only that thread's).
        head: the room's last `seq` at the time of reading.
        has_more: whether there is more in the direction that was asked (either one, for `around`).
        changes: what has become of the messages in `entries` by entries that are not in it themselves: of each the last
            edit or the deletion, and the reactions. In `seq` order and at most 1,000, the oldest reactions left out
            first: with them a client shows the messages as they are now.

    """

    entries: list[AnyEntry]
    head: int
    has_more: bool
    changes: list[AnyEntry]


_CROCKFORD = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LAST_OF_TIME = [first + second for first in _CROCKFORD.decode() for second in _CROCKFORD.decode()]
"""The last two characters of a time, by its last ten bits."""

_written: tuple[int, str] = (-1, "")  # a time's other bits and how ids write them, replaced as one: any thread may ask


def new_ulid(at_ms: int) -> str:
    """A fresh ULID (github.com/ulid/spec) for the time `at_ms`, epoch milliseconds: 26 characters, sorting by time."""
    global _written
    known, prefix = _written
    if known != at_ms >> 10:
        prefix = "".join([chr(_CROCKFORD[(at_ms >> shift) & 31]) for shift in range(45, 5, -5)])
        _written = (at_ms >> 10, prefix)
    return prefix + _LAST_OF_TIME[at_ms & 1023] + random_word()


def direct_room_id(one: UserId, other: UserId) -> RoomId:
    """The id of the direct room of two users: the same whoever asks, and safe whatever their ids contain."""
    first, second = sorted((one, other))
    digest = hashlib.sha256(f"{len(first)}\0{first}{second}".encode()).hexdigest()
    return RoomId(f"direct:{digest[:32]}")
