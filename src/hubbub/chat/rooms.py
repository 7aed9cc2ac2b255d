"""Actions on rooms and their members: create, join, leave, invite, kick, change roles, and the lists of both."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hubbub.chat.access import missing
from hubbub.chat.caller import Caller
from hubbub.chat.registry import action
from hubbub.errors import BadRequest, Conflict, Forbidden, HubbubError, NotFound
from hubbub.model import (
    Member,
    MemberJoined,
    MemberLeft,
    MemberUpdated,
    Permission,
    Role,
    Room,
    RoomId,
    RoomKind,
    RoomState,
    UserId,
    direct_room_id,
    may,
    new_ulid,
)
from hubbub.protocol import (
    Create,
    Done,
    Invite,
    Join,
    Joined,
    Kick,
    Leave,
    MemberPage,
    Members,
    RoomPage,
    Rooms,
    SetRole,
)

if TYPE_CHECKING:
    from hubbub.chat.core import Chat

logger = logging.getLogger("hubbub.chat")


@action("create")
async def create(chat: Chat, by: Caller, ask: Create) -> Joined:
    """Make a room with its first members; asking for a direct room that exists returns it."""
    others = [user for user in dict.fromkeys(ask.members) if user != by.user]
    at = chat.clock.now_ms()
    if ask.kind is RoomKind.DIRECT:
        if len(others) != 1 or ask.room is not None:
            raise BadRequest(
                "A direct room has exactly one other member in `members`, and no `room` of one's own choice."
            )
        room_id = direct_room_id(by.user, others[0])
        existed = await chat.store.room(room_id) is not None
        roles = dict.fromkeys((by.user, others[0]), Role.MEMBER)
    else:
        room_id = ask.room or RoomId(f"r-{new_ulid(at).lower()}")
        if room_id.startswith("direct:"):
            raise BadRequest("Room ids that begin with `direct:` belong to direct rooms.")
        existed = False
        # The customer's backend makes rooms for others and is in none itself.
        roles = {} if by.is_server else {by.user: Role.OWNER}
        roles |= dict.fromkeys(others, Role.MEMBER)
    room = await chat.store.create_room(
        room_id,
        ask.kind,
        name=ask.name,
        by=by.user,
        at=at,
        members=[Member(user=user, role=role, joined_at=at) for user, role in roles.items()],
        exist_ok=ask.kind is RoomKind.DIRECT,
    )
    if not existed and room.created_at == at:  # else the other member was quicker
        await _welcome(chat, room, roles)
    elif room.head < room.first + 3:  # nobody has said anything in it: perhaps nobody was told of it
        await asyncio.gather(*(_hear_again(chat, room, user) for user in roles))
    return _joined(room, room.head, roles.get(by.user))


@action("join")
async def join(chat: Chat, by: Caller, ask: Join) -> Joined:
    """Become a member of a public room, or of one that the token grants."""
    granted = by.principal.rooms.get(ask.room)
    if granted is not None:
        await chat.access.require(by, ask.room, Permission.READ)
    room = await chat.access.existing(ask.room)
    member = await chat.store.member(ask.room, by.user)
    if member is not None:
        await _hear_again(chat, room, by.user)
        return _joined(room, room.head, member.role)
    if room.kind is not RoomKind.PUBLIC and granted is None:
        raise missing(ask.room)
    _not_direct(room)
    return await _add(chat, by, room, by.user, granted or Role.MEMBER)


@action("leave")
async def leave(chat: Chat, by: Caller, ask: Leave) -> Joined | Done:
    """Stop being a member; leaving a room one is not in succeeds."""
    room = await chat.store.room(ask.room)
    if room is None:
        return Done()
    if await chat.store.member(ask.room, by.user) is None:
        await _silence(chat, room, by.user)
        return Done()
    _not_direct(room)
    head = await _remove(chat, by, ask.room, by.user)
    return _joined(room, max(head, room.head), None)


@action("invite")
async def invite(chat: Chat, by: Caller, ask: Invite) -> Done:
    """Make a user a member, with a role up to one's own; inviting a member changes nothing."""
    role = await chat.access.require(by, ask.room, Permission.INVITE)
    room = await chat.access.existing(ask.room)
    _not_direct(room)
    if ask.role.rank > role.rank:
        raise Forbidden(f"The role {role.value!r} may not make somebody {ask.role.value!r}.")
    if await chat.store.member(ask.room, ask.user) is None:
        await _add(chat, by, room, ask.user, ask.role)
    else:
        await _hear_again(chat, room, ask.user)
    return Done()


@action("kick")
async def kick(chat: Chat, by: Caller, ask: Kick) -> Done:
    """End the membership of somebody of a lower rank; owners may end anybody's."""
    role = await chat.access.require(by, ask.room, Permission.MODERATE)
    room = await chat.access.existing(ask.room)
    _not_direct(room)
    member = await chat.store.member(ask.room, ask.user)
    if member is None:
        await _silence(chat, room, ask.user)
        return Done()
    if member.role.rank >= role.rank and not may(role, Permission.MANAGE):
        raise Forbidden(f"The role {role.value!r} may not remove somebody who is {member.role.value!r}.")
    await _remove(chat, by, ask.room, ask.user)
    return Done()


@action("role")
async def role(chat: Chat, by: Caller, ask: SetRole) -> Done:
    """Change a member's role."""
    await chat.access.require(by, ask.room, Permission.MANAGE)
    _not_direct(await chat.access.existing(ask.room))
    member = await chat.store.member(ask.room, ask.user)
    if member is None:
        raise NotFound(f"{ask.user!r} is not a member of this room.")
    if member.role is not ask.role:
        await chat.write(MemberUpdated(room=ask.room, by=by.user, name=by.name, user=ask.user, role=ask.role))
    return Done()


@action("members")
async def members(chat: Chat, by: Caller, ask: Members) -> MemberPage:
    """A page of the room's members."""
    await chat.access.require(by, ask.room, Permission.READ, recent=True)
    found, count, has_more = await chat.store.members(ask.room, after=ask.after or "", limit=ask.limit)
    return MemberPage(room=ask.room, members=found, count=count, has_more=has_more)


@action("rooms")
async def rooms(chat: Chat, by: Caller, ask: Rooms) -> RoomPage:
    """A page of the public rooms."""
    found, has_more = await chat.store.rooms(after=ask.after or "", limit=ask.limit, kind=RoomKind.PUBLIC)
    return RoomPage(rooms=found, has_more=has_more)


async def _add(chat: Chat, by: Caller, room: Room, user: UserId, role: Role) -> Joined:
    """Write the membership, and let the new member hear the room from then on."""
    known = await chat.store.user(user)
    name = by.name if user == by.user else (known.name if known else None)
    entry = await chat.write(MemberJoined(room=room.id, by=by.user, name=by.name, user=user, role=role, user_name=name))
    now = await chat.store.room(room.id) or room
    await _welcome(chat, now, {user: role})
    await chat.agree(user, room.id, hears=True)
    return _joined(now, max(now.head, entry.seq), role)


async def _welcome(chat: Chat, room: Room, roles: Mapping[UserId, Role]) -> None:
    """New members hear the room from its head on, and have read what was there before them."""
    for user, role in roles.items():
        await chat.enter_live(user, RoomState(room.id, room.kind, room.name, role, room.head, room.head, 0))
    try:
        await asyncio.gather(*(chat.store.mark_read(room.id, user, room.head) for user in roles))
    except HubbubError as error:  # they are members all the same
        logger.warning("cannot mark as read what was in room %s before its new members: %s", room.id, error)


async def _hear_again(chat: Chat, room: Room, user: UserId) -> None:
    """Let a member hear the room from `room.head` on, who may have become one in a first try whose answer was lost.

    Whoever hears it already notices nothing.
    """
    await chat.fanout.follow(user, room.id, room.head)
    await chat.agree(user, room.id, hears=True)


async def _remove(chat: Chat, by: Caller, room: RoomId, user: UserId) -> int:
    """Write the end of the membership, then let nobody hear on who has none: in this order nobody slips in between."""
    entry = await chat.write(MemberLeft(room=room, by=by.user, name=by.name, user=user))
    await chat.leave_live(user, room, entry.seq or None)
    await chat.agree(user, room, hears=False)
    return entry.seq


async def _silence(chat: Chat, room: Room, user: UserId) -> None:
    """Let those of the user's connections hear the room no more that listen to it and may not.

    He may have ceased to be a member in a first try, of which the fan-out could not be told.
    """
    if room.kind is RoomKind.PUBLIC:
        return
    for connection, principal in await chat.directory.audience(room.id):
        if principal.user == user and not await chat.access.may_listen(Caller(principal, connection), room.id):
            await chat.expel(connection, room.id)


def _not_direct(room: Room) -> None:
    if room.kind is RoomKind.DIRECT:
        raise Conflict("A direct room keeps its two members.")


def _joined(room: Room, head: int, role: Role | None) -> Joined:
    return Joined(room=room.id, kind=room.kind, name=room.name, head=head, role=role)
