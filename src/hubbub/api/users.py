"""The rows on users: what they have not read, their connections, and whether they may come in."""

from __future__ import annotations

from typing import Annotated

import msgspec

from hubbub.api.endpoint import Endpoint, Fields
from hubbub.chat import Chat
from hubbub.errors import BadRequest
from hubbub.model import MAX_SEQ, RoomState, User, UserId
from hubbub.protocol import User_

FOREVER_S = MAX_SEQ // 1_000
"""The end of a ban without an end, epoch seconds: far, and still exact in JavaScript as milliseconds."""


class OneUser(Fields):
    """Which user."""

    user: User_


class Disconnect(Fields):
    """Whose connections to close, and what to tell them."""

    user: User_
    # RFC 6455, section 5.5: a control frame carries 125 bytes, two of them the code; UTF-8 takes up to four each.
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=30)] = "disconnected by the server"


class Ban(Fields):
    """Until when, epoch seconds; without it, for good."""

    user: User_
    until: Annotated[int, msgspec.Meta(ge=0, le=FOREVER_S, description="epoch seconds")] = FOREVER_S


class Unread(msgspec.Struct):
    """How many messages a user has not read: in all, and room by room."""

    user: UserId
    unread: int
    rooms: list[RoomState]


async def get_user(chat: Chat, ask: OneUser) -> User:
    """Look at what is remembered of a user: name, ban, revocation."""
    return await _known(chat, ask.user)


async def get_unread(chat: Chat, ask: OneUser) -> Unread:
    """Count what a user has not read, room by room."""
    rooms = await chat.store.rooms_of(ask.user)
    return Unread(ask.user, sum(room.unread for room in rooms), rooms)


async def disconnect(chat: Chat, ask: Disconnect) -> None:
    """Close all of a user's connections, with 4403; his client does not come back by itself, but he may."""
    await chat.disconnect(ask.user, ask.reason)


async def ban(chat: Chat, ask: Ban) -> User:
    """Keep a user out: close his connections with 4403 and void the tokens he has.

    They stay void when the ban is over or taken back, so he needs a new one then.
    """
    if ask.until <= chat.clock.now_ms() // 1_000:
        raise BadRequest("`until` has passed already.")
    await chat.ban(ask.user, ask.until)
    return await _known(chat, ask.user)


async def unban(chat: Chat, ask: OneUser) -> User:
    """Let a banned user in again, with a token issued after the ban began; unbanning anybody else changes nothing."""
    await chat.unban(ask.user)
    return await _known(chat, ask.user)


async def revoke(chat: Chat, ask: OneUser) -> User:
    """Void the tokens that a user has and close his connections with 4401; with a new token he is welcome."""
    await chat.revoke(ask.user)
    return await _known(chat, ask.user)


async def _known(chat: Chat, user: UserId) -> User:
    return await chat.store.user(user) or User(user)


ENDPOINTS = (
    Endpoint("GET", "/v1/users/{user}/unread", get_unread, ask=OneUser, result=Unread),
    Endpoint("POST", "/v1/users/{user}/disconnect", disconnect, ask=Disconnect, result=None, status=204),
    Endpoint("PUT", "/v1/users/{user}/ban", ban, ask=Ban, result=User),
    Endpoint("DELETE", "/v1/users/{user}/ban", unban, ask=OneUser, result=User),
    Endpoint("POST", "/v1/users/{user}/revoke", revoke, ask=OneUser, result=User),
    Endpoint("GET", "/v1/users/{user}", get_user, ask=OneUser, result=User),
)
"""The rows of this subject, the most exact paths first: a user id may contain slashes."""
