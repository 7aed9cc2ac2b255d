"""What the items of connections say: whose each is, what it listens to, and how it is found from its user."""

from __future__ import annotations

from typing import Any

import msgspec

from hubbub.aws.marshalling import Key
from hubbub.errors import Unavailable
from hubbub.fanout.apigateway.keys import LINK_PREFIX, connection_key, link_key
from hubbub.model import ConnectionId, Principal, RoomId, UserId

MAX_OUTS = 30
"""Of how many rooms it is remembered that the connection was taken out of them."""


class Seat(msgspec.Struct, frozen=True, array_like=True):
    """A connection's place among a room's listeners.

    Attributes:
        shard: where its listener's item is.
        version: of the connection's item, from which on it has the place.
        at: since when, epoch microseconds; in one process no two are the same.
        followed: whether it came because the user follows the room.

    """

    shard: int
    version: int
    at: int
    followed: bool = False


class Connected(msgspec.Struct, frozen=True):
    """A connection, as its item says.

    Attributes:
        connection: its id.
        principal: whose it is.
        version: grows with every change.
        ttl: when its items are void, epoch seconds, whatever became of it.
        at: since when it is there, epoch milliseconds.
        seats: the rooms it listens to.
        outs: the version with which it was taken out of a room; of the last few rooms.
        outs_from: from which version on `outs` knows of all.
        is_ended: whether it is gone, and its items are being removed.

    """

    connection: ConnectionId
    principal: Principal
    version: int
    ttl: int
    at: int
    seats: dict[RoomId, Seat] = {}
    outs: dict[RoomId, int] = {}
    outs_from: int = 0
    is_ended: bool = False

    @property
    def key(self) -> Key:
        """Where its item is."""
        return connection_key(self.connection)

    @property
    def user(self) -> UserId:
        """Whose it is."""
        return self.principal.user

    def item(self) -> dict[str, Any]:  # Any: the values of an item
        """The item."""
        pk, sk = self.key
        return {
            "pk": pk,
            "sk": sk,
            "principal": msgspec.json.encode(self.principal).decode(),
            "version": self.version,
            "ttl": self.ttl,
            "at": self.at,
            "seats": msgspec.to_builtins(self.seats),
            "outs": dict(self.outs),
            "outs_from": self.outs_from,
        }

    def seated(self, seats: dict[RoomId, Seat]) -> Connected:
        """It, once it has these places too."""
        return self._next(
            seats={**self.seats, **seats}, outs={room: at for room, at in self.outs.items() if room not in seats}
        )

    def without(self, room: RoomId) -> Connected:
        """It, once it was taken out of a room."""
        version = self.version + 1
        outs = {each: at for each, at in self.outs.items() if each != room}
        outs[room] = version
        outs_from = self.outs_from
        if len(outs) > MAX_OUTS:
            oldest = min(outs, key=lambda each: outs[each])
            outs_from = outs.pop(oldest)
        seats = {each: seat for each, seat in self.seats.items() if each != room}
        return self._next(seats=seats, outs=outs, outs_from=outs_from)

    def renewed(self, principal: Principal, ttl: int) -> Connected:
        """It, once it has a newer token."""
        return self._next(principal=principal, ttl=ttl)

    def was_taken_out(self, room: RoomId, since: int) -> bool:
        """Whether it was taken out of the room after the version `since`.

        Raises:
            Unavailable: that is not known any more.

        """
        if since < self.outs_from:
            raise Unavailable("The rooms of this connection have changed much; try again.", retry_after_ms=250)
        return self.outs.get(room, 0) > since

    def _next(self, **changes: Any) -> Connected:  # Any: values of the fields
        return msgspec.structs.replace(self, version=self.version + 1, **changes)


class _ConnectionItem(msgspec.Struct):
    pk: str
    principal: str
    version: int
    ttl: int
    at: int
    seats: dict[RoomId, Seat]
    outs: dict[RoomId, int]
    outs_from: int
    ended: int = 0


_principals = msgspec.json.Decoder(Principal)


def connected_of(item: dict[str, Any]) -> Connected:  # Any: the values of an item
    """The connection of which an item tells."""
    found = msgspec.convert(item, _ConnectionItem)
    return Connected(
        ConnectionId(found.pk.partition("#")[2]),
        _principals.decode(found.principal),
        found.version,
        found.ttl,
        found.at,
        found.seats,
        found.outs,
        found.outs_from,
        bool(found.ended),
    )


class Link(msgspec.Struct, frozen=True, omit_defaults=True):
    """By what a user's connection is found.

    Attributes:
        connection: its id.
        ttl: as that of the connection.
        left: when it ended, epoch milliseconds, if that is yet to be told; else 0.
        rooms: with `left`, the shards of the rooms that it listened to.

    """

    connection: ConnectionId
    ttl: int
    left: int = 0
    rooms: dict[RoomId, int] = {}

    def item(self, user: UserId) -> dict[str, Any]:  # Any: the values of an item
        """The item."""
        pk, sk = link_key(user, self.connection)
        item = {"pk": pk, "sk": sk, "ttl": self.ttl}
        return item | ({"left": self.left, "rooms": dict(self.rooms)} if self.left else {})


class _LinkItem(msgspec.Struct):
    sk: str
    ttl: int
    left: int = 0
    rooms: dict[RoomId, int] = {}


def link_of(item: dict[str, Any]) -> Link:  # Any: the values of an item
    """The link of which an item tells."""
    found = msgspec.convert(item, _LinkItem)
    return Link(ConnectionId(found.sk.removeprefix(LINK_PREFIX)), found.ttl, found.left, found.rooms)
