"""Where the directory's items are in the table, and what a listener's item says.

A user id in a key has its `%` and `#` percent-quoted, so that no id can reach into another's items; room and connection
ids have neither. A room's listeners are spread over shards, so that no partition has to bear a large room alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import msgspec

from hubbub.aws.marshalling import Key, quoted, unquoted
from hubbub.model import ConnectionId, RoomId, UserId

MAX_SHARDS = 128
"""Over how many partitions a room's listeners are spread at most; shards are a power of two."""

DUE_SHARDS = 4
"""Over how many partitions what is due in one minute is spread: a thousand writes a second each."""


def connection_key(connection: ConnectionId) -> Key:
    """The item of a connection: whose it is and what it listens to."""
    return f"conn#{connection}", "conn"


def user_pk(user: UserId) -> str:
    """The partition of a user, where his connections are beside what the store keeps of him."""
    return f"user#{quoted(user)}"


def link_key(user: UserId, connection: ConnectionId) -> Key:
    """The item by which a user's connection is found."""
    return user_pk(user), f"{LINK_PREFIX}{connection}"


LINK_PREFIX = "conn#"
"""What the sort keys of a user's connections begin with."""


def listeners_pk(room: RoomId, shard: int) -> str:
    """The partition of one shard of a room's listeners."""
    return f"listen#{room}#{shard}"


def listener_key(room: RoomId, shard: int, user: UserId, connection: ConnectionId) -> Key:
    """The item of one connection that listens to a room."""
    return listeners_pk(room, shard), f"{listeners_of(user)}{connection}"


def listeners_of(user: UserId) -> str:
    """What the sort keys of a user's listeners begin with."""
    return f"{quoted(user)}#"


def delivery_key(room: RoomId, shard: int = 0) -> Key:
    """The item of what was delivered to a shard of a room; that of shard 0 has the numbers of shards and listeners."""
    return f"delivery#{room}", f"delivery#{shard}" if shard else "delivery"


def asked_key(room: RoomId) -> Key:
    """The item that counts how often somebody asked for all who listen to the room."""
    return f"delivery#{room}", "audience"


PACE_KEY: Key = ("pace", "pace")
"""The item of the account's quota: up to when its requests are given away, and how fast they may go."""


def due_pk(minute: int, shard: int) -> str:
    """One partition of what is due in a minute, epoch minutes."""
    return f"due#{minute}#{shard}"


def due_key(minute: int, kind: str, what: str) -> Key:
    """The item of something that is due: `kind` says why, `what` is an id."""
    return due_pk(minute, zlib.crc32(what.encode()) % DUE_SHARDS), f"{kind}#{what}"


LOOK_EVERY_MIN = 10
"""Every how many minutes a connection is looked at, whether it is still there."""

LOOK_SHARDS = 4
"""Over how many partitions the connections are spread whose turn is in one of these minutes."""


def look_pk(minute: int, shard: int) -> str:
    """One partition of the connections that are looked at in a minute of every `LOOK_EVERY_MIN`."""
    return f"look#{minute}#{shard}"


def look_key(connection: ConnectionId) -> Key:
    """The item by which a connection's turn to be looked at comes."""
    shard, minute = divmod(zlib.crc32(connection.encode()) % (LOOK_EVERY_MIN * LOOK_SHARDS), LOOK_EVERY_MIN)
    return look_pk(minute, shard), connection


def shard_of(user: UserId, shards: int) -> int:
    """Where a user's listeners are, in a room with that many shards."""
    return zlib.crc32(user.encode()) % shards


def shards_of(user: UserId, shards: int) -> list[int]:
    """Where they can be, whatever number of shards the room had when the user came: it only ever doubles."""
    found = []
    size = 1
    while size <= shards:
        found.append(shard_of(user, size))
        size *= 2
    return sorted(set(found))


class Listener(msgspec.Struct, frozen=True, omit_defaults=True):
    """A connection that listens to a room, as its item says.

    Attributes:
        room, shard: where it is found.
        user, connection: who listens.
        after: it gets the entries with a greater `seq`.
        expires_at: when its token runs out, epoch seconds; it gets nothing from then on.
        ttl: when its item is void, epoch seconds, whatever became of the connection.
        left: when its connection ended, epoch milliseconds; 0 while it has not. It then gets nothing, and only counts
            as online until the end is told.
        is_behind: whether it may lack entries that the others were served with before it came.

    """

    room: RoomId
    shard: int
    user: UserId
    connection: ConnectionId
    after: int
    expires_at: int
    ttl: int
    left: int = 0
    is_behind: bool = False

    @property
    def key(self) -> Key:
        """Where its item is."""
        return listener_key(self.room, self.shard, self.user, self.connection)

    def item(self) -> dict[str, Any]:  # Any: the values of an item
        """The item."""
        pk, sk = self.key
        said = {"after": self.after, "expires_at": self.expires_at, "ttl": self.ttl}
        seldom = {"left": self.left, "behind": self.is_behind}
        return {"pk": pk, "sk": sk, **said, **{name: value for name, value in seldom.items() if value}}

    def knows(self, delivered: int) -> int:
        """Up to where it needs nothing more, where the shard's listeners were served up to `delivered`."""
        return self.after if self.is_behind else max(self.after, delivered)

    def hears(self, now_s: int) -> bool:
        """Whether it is to get what is said now, epoch seconds."""
        return not self.left and now_s < self.expires_at and now_s < self.ttl


class _ListenerItem(msgspec.Struct):
    pk: str
    sk: str
    after: int
    expires_at: int
    ttl: int
    left: int = 0
    behind: bool = False


def listener_of(item: Mapping[str, Any]) -> Listener:  # Any: the values of an item
    """The listener of whom an item of `listeners_pk` tells.

    Raises:
        msgspec.ValidationError: it is no such item.

    """
    found = msgspec.convert(item, _ListenerItem)
    _, room, shard = found.pk.split("#")
    user, connection = found.sk.split("#")
    return Listener(
        RoomId(room),
        int(shard),
        UserId(unquoted(user)),
        ConnectionId(connection),
        found.after,
        found.expires_at,
        found.ttl,
        found.left,
        found.behind,
    )
