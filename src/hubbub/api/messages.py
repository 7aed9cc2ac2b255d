"""The rows on messages and a room's history."""

from __future__ import annotations

from typing import Annotated

import msgspec

from hubbub.api.endpoint import Endpoint, Fields
from hubbub.api.rooms import SERVER, acting_for, existing
from hubbub.chat import Chat
from hubbub.errors import NotFound, TooLarge
from hubbub.model import SYSTEM, ClientId, Name, Page, RoomId, Seq, UserId
from hubbub.protocol import Delete, History, HistoryPage, Limit, Room_, Send, Sent, Target, User_


class PostMessage(Fields):
    """A message; without `user` it is the system's. The same `client_id` of the same user is stored once."""

    room: Room_
    user: User_ = SYSTEM
    name: Annotated[Name | None, msgspec.Meta(description="the author's display name; else the last one known")] = None
    text: str | None = None
    data: Annotated[msgspec.Raw | msgspec.UnsetType, msgspec.Meta(description="any JSON")] = msgspec.UNSET
    client_id: ClientId | None = None
    reply_to: Target | None = None
    thread: Target | None = None


class ReadHistory(Fields):
    """Which entries: the last `limit` ones, or those `before`, `after` or `around` a seq; of one `thread` or of all."""

    room: Room_
    before: Seq | None = None
    after: Seq | None = None
    around: Seq | None = None
    limit: Limit = 50
    thread: Target | None = None


class OneMessage(Fields):
    """Which message, by its place in the room's log."""

    room: Room_
    seq: Target


class Posted(msgspec.Struct, omit_defaults=True):
    """Where the message stands in the room's log."""

    room: RoomId
    seq: int
    id: str
    at: int
    by: UserId
    client_id: str | None = None


async def post_message(chat: Chat, ask: PostMessage) -> Posted:
    """Post a message as a user, or as the system.

    It is stored for good when the answer comes. Send a `client_id` to make trying again safe.
    """
    await existing(chat, ask.room)
    name = ask.name
    if name is None and ask.user != SYSTEM:
        known = await chat.store.user(ask.user)
        name = known.name if known else None
    send = Send(
        room=ask.room,
        text=ask.text,
        data=ask.data,
        client_id=ask.client_id,
        reply_to=ask.reply_to,
        thread=ask.thread,
    )
    sent = await chat.perform("send", send, acting_for(ask.user, name))
    assert isinstance(sent, Sent)  # noqa: S101  what `send` returns
    return Posted(sent.room, sent.seq, sent.id, sent.at, ask.user, sent.client_id)


async def read_history(chat: Chat, ask: ReadHistory) -> Page:
    """Read a stretch of a room's log.

    A reply carries about 256 KiB of entries at most; `has_more` says whether the log goes on in the asked direction.
    """
    await existing(chat, ask.room)
    history = History(
        room=ask.room, before=ask.before, after=ask.after, around=ask.around, limit=ask.limit, thread=ask.thread
    )
    page = await chat.perform("history", history, SERVER)
    assert isinstance(page, HistoryPage)  # noqa: S101  what `history` returns
    return Page(page.entries, page.head, page.has_more, page.changes)


async def delete_message(chat: Chat, ask: OneMessage) -> None:
    """Remove a message's words; its place in the log stays. Doing it twice is doing it once."""
    await existing(chat, ask.room)
    await chat.perform("delete", Delete(room=ask.room, target=ask.seq), SERVER)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/rooms/{room}/messages",
        post_message,
        ask=PostMessage,
        result=Posted,
        status=201,
        errors=(NotFound, TooLarge),
    ),
    Endpoint("GET", "/v1/rooms/{room}/messages", read_history, ask=ReadHistory, result=Page, errors=(NotFound,)),
    Endpoint(
        "DELETE",
        "/v1/rooms/{room}/messages/{seq}",
        delete_message,
        ask=OneMessage,
        result=None,
        status=204,
        errors=(NotFound,),
    ),
)
"""The rows of this subject."""
