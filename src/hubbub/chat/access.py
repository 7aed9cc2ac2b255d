"""Who may do what in which room: stored membership, roles that tokens grant, and rooms open to all."""

from __future__ import annotations

from hubbub.chat.caller import Caller
from hubbub.clock import Clock
from hubbub.errors import Forbidden, NotAMember, NotFound
from hubbub.model import Permission, Role, Room, RoomId, RoomKind, may
from hubbub.ports import Store


class Access:
    """Answers questions of permission from a store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def role(self, by: Caller, room: RoomId, *, recent: bool = False) -> Role | None:
        """The caller's role: the higher of his membership's and his token's; the customer's backend is an owner.

        With `recent`, his membership's of a moment ago (`Store.member`): for what is asked at every message.
        """
        if by.is_server:
            return Role.OWNER
        member = await self._store.member(room, by.user, recent=recent)
        return higher(member.role if member else None, by.principal.rooms.get(room))

    async def require(self, by: Caller, room: RoomId, permission: Permission, *, recent: bool = False) -> Role:
        """The caller's role, if it allows `permission`; `recent` as with `role`.

        Anybody may read a public room. A private or direct room does not exist for those who are not in it: whether two
        people have talked is nobody else's business.

        Raises:
            NotFound: no such room, or not for him.
            NotAMember: the room is public, and this needs membership.
            Forbidden: his role does not allow it.

        """
        role = await self.role(by, room, recent=recent)
        if role is None:
            if (await self.existing(room)).kind is not RoomKind.PUBLIC:
                raise missing(room)
            if permission is not Permission.READ:
                raise NotAMember
            return Role.READER
        if not may(role, permission):
            raise Forbidden(f"The role {role.value!r} may not {permission.value} here.")
        if await self._store.room(room) is None:
            if not by.grants(room):  # the customer's backend, to which everything is allowed that is there
                raise missing(room)
            await self.vouched(by, room)
        return role

    async def may_listen(self, by: Caller, room: RoomId) -> bool:
        """Whether the caller may hear what is said in the room; a room that is not there is heard by nobody."""
        known = await self._store.room(room)
        return known is not None and (known.kind is RoomKind.PUBLIC or await self.role(by, room) is not None)

    async def existing(self, room: RoomId) -> Room:
        """The room.

        Raises:
            NotFound: there is none.

        """
        known = await self._store.room(room)
        if known is None:
            raise missing(room)
        return known

    async def vouched(self, by: Caller, room: RoomId) -> Room:
        """A room that a token grants exists from the first time it is needed: the customer's backend vouches for it."""
        return await self._store.create_room(
            room, RoomKind.PRIVATE, name=room, by=by.user, at=self._clock.now_ms(), members=[], exist_ok=True
        )


def higher(one: Role | None, other: Role | None) -> Role | None:
    """The one that allows more; None is no role."""
    if one is None or other is None:
        return one or other
    return one if one.rank >= other.rank else other


def missing(room: RoomId) -> NotFound:
    """What is said of a room that is not there, or not for the one who asks."""
    return NotFound(f"There is no room {room!r} for you.")
