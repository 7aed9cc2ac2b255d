"""Who asks, on which connection, and what he may do in a room."""

from __future__ import annotations

import msgspec

from hubbub.model import ConnectionId, Principal, RoomId, UserId


class Caller(msgspec.Struct, frozen=True):
    """A principal in the act of asking.

    Attributes:
        principal: whose token it is.
        connection: where he asks; None when he asks over HTTP.
        request_id: for the log; None when nobody gave one.

    """

    principal: Principal
    connection: ConnectionId | None = None
    request_id: str | None = None

    @property
    def user(self) -> UserId:
        """The user's id."""
        return self.principal.user

    @property
    def name(self) -> str | None:
        """His display name."""
        return self.principal.name

    @property
    def is_server(self) -> bool:
        """Whether it is the customer's backend, which may do everything."""
        return self.principal.is_server

    def grants(self, room: RoomId) -> bool:
        """Whether his token grants him a role in `room`."""
        return room in self.principal.rooms
