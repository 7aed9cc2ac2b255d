"""The rows on rooms and their members."""

from __future__ import annotations

from typing import Annotated

import msgspec

from hubbub.api.endpoint import Endpoint, Fields
from hubbub.chat import Chat
from hubbub.errors import BadRequest, Conflict, NotFound
from hubbub.model import MAX_SEQ, SYSTEM, Member, Name, Principal, Role, Room, RoomId, RoomKind, UserId
from hubbub.protocol import Create, Invite, Joined, Kick, Limit, Room_, SetRole, User_

MAX_FIRST_MEMBERS = 200
"""How many members a room can be made with; more are added one by one."""


def acting_for(user: UserId, name: str | None = None) -> Principal:
    """The customer's backend acting in the name of `user`, or of the system."""
    return Principal(user=user, name=name, scopes=(Principal.SERVER,), expires_at=MAX_SEQ)


SERVER = acting_for(SYSTEM)


class FirstMember(msgspec.Struct, forbid_unknown_fields=True):
    """A member that a room begins with."""

    user: User_
    role: Role = Role.MEMBER


class CreateRoom(Fields):
    """A room to be made; without `room` it gets an id of its own, and a direct room always does."""

    kind: RoomKind
    room: Room_ | None = None
    name: Name = ""
    members: Annotated[list[FirstMember], msgspec.Meta(max_length=MAX_FIRST_MEMBERS)] = msgspec.field(
        default_factory=list
    )


class ListRooms(Fields):
    """Which rooms: those with ids greater than `after`, of one `kind` or of all."""

    after: str = ""
    limit: Limit = 100
    kind: RoomKind | None = None


class OneRoom(Fields):
    """Which room."""

    room: Room_


class ChangeRoom(Fields):
    """What the room is to be from now on; what is absent stays."""

    room: Room_
    name: Name | None = None
    kind: RoomKind | None = None


class PutMember(Fields):
    """The role the user is to have."""

    room: Room_
    user: User_
    role: Role = Role.MEMBER


class OneMember(Fields):
    """Which member."""

    room: Room_
    user: User_


class ListMembers(Fields):
    """Which members: those with user ids greater than `after`."""

    room: Room_
    after: str = ""
    limit: Limit = 100


class RoomList(msgspec.Struct):
    """A page of rooms, by id."""

    rooms: list[Room]
    has_more: bool


class MemberList(msgspec.Struct):
    """A page of members, by user id, and how many there are in all."""

    members: list[Member]
    count: int
    has_more: bool


async def existing(chat: Chat, room: RoomId) -> Room:
    """The room.

    Raises:
        NotFound: there is none.

    """
    known = await chat.store.room(room)
    if known is None:
        raise NotFound(f"There is no room {room!r}.")
    return known


async def create_room(chat: Chat, ask: CreateRoom) -> Room:
    """Make a room with its first members.

    A direct room has exactly two members and no id of one's own choice; making it again returns the one that exists.
    Members with a role other than `member` are added right after the room is there.
    """
    users = [member.user for member in ask.members]
    if len(set(users)) != len(users):
        raise BadRequest("`members` names a user twice.")
    if ask.kind is RoomKind.DIRECT:
        if len(users) != 2 or any(member.role is not Role.MEMBER for member in ask.members):
            raise BadRequest("A direct room has exactly two `members`, both with the role `member`.")
        create = Create(kind=ask.kind, room=ask.room, name=ask.name, members=users[1:])
        result = await chat.perform("create", create, acting_for(users[0]))
    else:
        plain = [member.user for member in ask.members if member.role is Role.MEMBER]
        result = await chat.perform(
            "create", Create(kind=ask.kind, room=ask.room, name=ask.name, members=plain), SERVER
        )
    assert isinstance(result, Joined)  # noqa: S101  what `create` returns
    for member in ask.members:
        if member.role is not Role.MEMBER:
            await chat.perform("invite", Invite(room=result.room, user=member.user, role=member.role), SERVER)
    return await existing(chat, result.room)


async def list_rooms(chat: Chat, ask: ListRooms) -> RoomList:
    """List rooms, by id."""
    rooms, has_more = await chat.store.rooms(after=ask.after, limit=ask.limit, kind=ask.kind)
    return RoomList(rooms, has_more)


async def get_room(chat: Chat, ask: OneRoom) -> Room:
    """Look at a room."""
    return await existing(chat, ask.room)


async def change_room(chat: Chat, ask: ChangeRoom) -> Room:
    """Change a room's name or kind."""
    if ask.name is None and ask.kind is None:
        raise BadRequest("Nothing to change: give `name` or `kind`.")
    return await chat.update_room(ask.room, SYSTEM, name=ask.name, kind=ask.kind)


async def delete_room(chat: Chat, ask: OneRoom) -> None:
    """Remove a room with its members and its whole log."""
    await chat.delete_room(ask.room)


async def put_member(chat: Chat, ask: PutMember) -> Member:
    """Make a user a member, or change his role; doing it twice is doing it once."""
    room = await existing(chat, ask.room)
    known = await chat.store.member(ask.room, ask.user)
    if known is not None and known.role is not ask.role:
        await chat.perform("role", SetRole(room=ask.room, user=ask.user, role=ask.role), SERVER)
    elif known is None or room.kind is not RoomKind.DIRECT:  # also a member, of whom a first try could not tell
        await chat.perform("invite", Invite(room=ask.room, user=ask.user, role=ask.role), SERVER)
    return await _member(chat, ask.room, ask.user)


async def get_member(chat: Chat, ask: OneMember) -> Member:
    """Look at a user's membership of a room."""
    await existing(chat, ask.room)
    return await _member(chat, ask.room, ask.user)


async def delete_member(chat: Chat, ask: OneMember) -> None:
    """End a user's membership; ending one that is not there succeeds."""
    await existing(chat, ask.room)
    await chat.perform("kick", Kick(room=ask.room, user=ask.user), SERVER)


async def list_members(chat: Chat, ask: ListMembers) -> MemberList:
    """List a room's members, by user id."""
    await existing(chat, ask.room)
    members, count, has_more = await chat.store.members(ask.room, after=ask.after, limit=ask.limit)
    return MemberList(members, count, has_more)


async def _member(chat: Chat, room: RoomId, user: UserId) -> Member:
    member = await chat.store.member(room, user)
    if member is None:
        raise NotFound(f"{user!r} is not a member of this room.")
    return member


ENDPOINTS = (
    Endpoint("POST", "/v1/rooms", create_room, ask=CreateRoom, result=Room, status=201, errors=(Conflict,)),
    Endpoint("GET", "/v1/rooms", list_rooms, ask=ListRooms, result=RoomList),
    Endpoint("GET", "/v1/rooms/{room}", get_room, ask=OneRoom, result=Room, errors=(NotFound,)),
    Endpoint("PATCH", "/v1/rooms/{room}", change_room, ask=ChangeRoom, result=Room, errors=(NotFound,)),
    Endpoint("DELETE", "/v1/rooms/{room}", delete_room, ask=OneRoom, result=None, status=204, errors=(NotFound,)),
    Endpoint("GET", "/v1/rooms/{room}/members", list_members, ask=ListMembers, result=MemberList, errors=(NotFound,)),
    Endpoint("GET", "/v1/rooms/{room}/members/{user}", get_member, ask=OneMember, result=Member, errors=(NotFound,)),
    Endpoint(
        "PUT",
        "/v1/rooms/{room}/members/{user}",
        put_member,
        ask=PutMember,
        result=Member,
        errors=(NotFound, Conflict),
    ),
    Endpoint(
        "DELETE",
        "/v1/rooms/{room}/members/{user}",
        delete_member,
        ask=OneMember,
        result=None,
        status=204,
        errors=(NotFound, Conflict),
    ),
)
"""The rows of this subject."""
