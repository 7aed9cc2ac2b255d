"""Where everything is in the table: partition and sort keys, made so that what is read together lies together.

Every seq stands in a key with twelve digits, so that keys sort as numbers do. A user id that something follows has its
`%` and `#` percent-quoted; where nothing follows, and its order counts, it stands as it is. Room ids have neither.
"""

from __future__ import annotations

from hubbub.aws.marshalling import Key, quoted
from hubbub.model import RoomId, RoomKind, UserId

TOP = 10**12 - 1
"""The greatest seq there can be: twelve digits."""

EPOCH: Key = ("meta", "epoch")
PING: Key = ("meta", "ping")
ROUND: Key = ("meta", "sweep")
"""How far the round has come in which retention looks at every room."""

LEFTOVERS = "leftover"
"""The partition of what deleted rooms and rooms never finished have left behind."""


def digits(seq: int) -> str:
    """A seq as it stands in a key."""
    return f"{seq:012d}"


def room_key(room: RoomId) -> Key:
    """What the room is."""
    return f"room#{room}", "room"


def index_pk(kind: RoomKind) -> str:
    """The list of the rooms of one kind, by room id."""
    return f"rooms#{kind.value}"


def log_pk(room: RoomId) -> str:
    """A room's log, by seq."""
    return f"log#{room}"


def entry_key(room: RoomId, seq: int) -> Key:
    """One entry, and the lock that who writes it takes."""
    return log_pk(room), digits(seq)


def sent_key(room: RoomId, user: UserId, client_id: str) -> Key:
    """That the user has used this client_id in the room."""
    return f"sent#{room}#{quoted(user)}", client_id


def user_pk(user: UserId) -> str:
    """Everything of a user."""
    return f"user#{quoted(user)}"


def user_key(user: UserId) -> Key:
    """What is remembered of a user."""
    return user_pk(user), "user"


SEATS = "room#"
"""What the sort keys of a user's seats begin with."""


def seat_key(user: UserId, room: RoomId) -> Key:
    """What a user has of a room: his role in it, and his read mark."""
    return user_pk(user), f"{SEATS}{room}"


def roll_pk(room: RoomId, life: str) -> str:
    """The list of a room's members in one of its lives, by user id."""
    return f"member#{room}#{life}"


def thread_pk(room: RoomId) -> str:
    """The messages of a room's threads, by root and seq."""
    return f"thread#{room}"


def thread_sk(root: int, seq: int) -> str:
    """One message of a thread."""
    return f"{digits(root)}#{digits(seq)}"


def about_pk(room: RoomId) -> str:
    """What has become of a room's messages, by message: edits, deletions, reactions."""
    return f"about#{room}"


def words_prefix(target: int) -> str:
    """What the sort keys of a message's edits and deletion begin with."""
    return f"{digits(target)}#w#"


def words_sk(target: int, seq: int) -> str:
    """That the entry `seq` changes the message's words."""
    return f"{words_prefix(target)}{digits(seq)}"


def reactions_prefix(target: int) -> str:
    """What the sort keys of a message's reactions begin with; they come before those of its words."""
    return f"{digits(target)}#r#"


def reaction_sk(target: int, seq: int) -> str:
    """That the entry `seq` adds or takes back a reaction."""
    return f"{reactions_prefix(target)}{digits(seq)}"


def reacted_pk(room: RoomId) -> str:
    """The reactions that are there now, by message."""
    return f"reacted#{room}"


def reacted_key(room: RoomId, target: int, by: UserId, reaction: str) -> Key:
    """That the user's reaction to the message is there; the id's length makes clear where it ends."""
    return reacted_pk(room), f"{digits(target)}#{len(by)}#{by}#{reaction}"


def leftover_key(room: RoomId, life: str) -> Key:
    """What one of a room's lives has left behind."""
    return LEFTOVERS, f"{room}#{life}"
