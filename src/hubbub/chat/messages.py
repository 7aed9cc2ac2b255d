"""Actions on messages: send, edit, delete, react, read, and the room's history."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from hubbub.chat.paging import by_target, fitting, fitting_around
from hubbub.chat.registry import action
from hubbub.errors import BadRequest, Conflict, Forbidden, NotFound, TooLarge
from hubbub.model import (
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    Permission,
    ReactionAdded,
    ReactionRemoved,
    RoomId,
    may,
)
from hubbub.protocol import (
    Appended,
    Delete,
    Done,
    Edit,
    History,
    HistoryPage,
    Online,
    Presence,
    React,
    Read,
    ReadSignal,
    Send,
    Sent,
    Typing,
    TypingSignal,
    Unreact,
    encode,
)

if TYPE_CHECKING:
    from hubbub.chat.caller import Caller
    from hubbub.chat.core import Chat

MAX_DATA_DEPTH = 100
"""How deep `data` may be nested; what is deeper, some reader's JSON parser would not read."""

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


@action("send")
async def send(chat: Chat, by: Caller, ask: Send) -> Sent:
    """Store a message and hand it to the room's listeners."""
    await chat.access.require(by, ask.room, Permission.SEND, recent=True)
    _check_words(chat, ask)
    message = MessageCreated(
        room=ask.room,
        by=by.user,
        name=by.name,
        text=ask.text,
        data=ask.data,
        client_id=ask.client_id,
        reply_to=ask.reply_to,
        thread=ask.thread,
    )
    entry = await chat.write(message)
    return Sent(room=entry.room, seq=entry.seq, id=entry.id, at=entry.at, client_id=ask.client_id)


@action("edit")
async def edit(chat: Chat, by: Caller, ask: Edit) -> Appended:
    """Give one's own message other words."""
    await chat.access.require(by, ask.room, Permission.SEND, recent=True)
    _check_words(chat, ask)
    message = await _message(chat, ask.room, ask.target)
    if message.by != by.user and not by.is_server:
        raise Forbidden("Only its author may edit a message.")
    if message.deleted:
        raise Conflict("The message has been deleted.")
    entry = MessageEdited(room=ask.room, by=by.user, name=by.name, target=ask.target, text=ask.text, data=ask.data)
    return _appended(await chat.write(entry))


@action("delete")
async def delete(chat: Chat, by: Caller, ask: Delete) -> Appended:
    """Remove a message's words; deleting a deleted message succeeds and changes nothing."""
    role = await chat.access.require(by, ask.room, Permission.READ, recent=True)
    message = await _message(chat, ask.room, ask.target)
    if message.by != by.user and not may(role, Permission.MODERATE):
        raise Forbidden("Only its author or a moderator may delete a message.")
    if message.deleted:
        return Appended(room=ask.room, seq=0)
    try:
        return _appended(await chat.write(MessageDeleted(room=ask.room, by=by.user, name=by.name, target=ask.target)))
    except Conflict:  # somebody else has deleted it meanwhile
        return Appended(room=ask.room, seq=0)


@action("react")
async def react(chat: Chat, by: Caller, ask: React) -> Appended:
    """Add a reaction; twice the same is once."""
    await chat.access.require(by, ask.room, Permission.REACT, recent=True)
    entry = ReactionAdded(room=ask.room, by=by.user, name=by.name, target=ask.target, reaction=ask.reaction)
    return _appended(await chat.write(entry))


@action("unreact")
async def unreact(chat: Chat, by: Caller, ask: Unreact) -> Appended:
    """Take a reaction back; one that is not there is taken back already."""
    await chat.access.require(by, ask.room, Permission.REACT, recent=True)
    entry = ReactionRemoved(room=ask.room, by=by.user, name=by.name, target=ask.target, reaction=ask.reaction)
    return _appended(await chat.write(entry))


@action("history")
async def history(chat: Chat, by: Caller, ask: History) -> HistoryPage:
    """A page of the room's log, as much of it as one reply may carry."""
    await chat.access.require(by, ask.room, Permission.READ, recent=True)
    if sum(edge is not None for edge in (ask.before, ask.after, ask.around)) > 1:
        raise BadRequest("Expected one of `before`, `after` and `around`, got several.")
    page = await chat.store.page(
        ask.room, before=ask.before, after=ask.after, around=ask.around, limit=ask.limit, thread=ask.thread
    )
    size, changes = chat.limits.max_reply_bytes, by_target(page.changes)
    if ask.around is not None:
        entries = fitting_around(page.entries, size, ask.around, changes)
    elif ask.after is not None:
        entries, _ = fitting(page.entries, size, changes)
    else:
        entries = fitting(page.entries[::-1], size, changes)[0][::-1]
    kept = {entry.seq for entry in entries}
    if len(kept) < len(page.entries):  # what was cut off may be a change of what was not
        cut = [entry for entry in page.entries if entry.seq not in kept]
        changes = by_target(sorted([*cut, *page.changes], key=lambda entry: entry.seq))
    return HistoryPage(
        room=ask.room,
        entries=entries,
        head=page.head,
        has_more=page.has_more or len(entries) < len(page.entries),
        changes=sorted((change for seq in kept for change in changes.get(seq, ())), key=lambda change: change.seq),
    )


@action("read")
async def read(chat: Chat, by: Caller, ask: Read) -> Done:
    """Move the user's read mark; his other connections and, if it is not crowded, the room are told."""
    await chat.access.require(by, ask.room, Permission.READ, recent=True)
    if await chat.access.role(by, ask.room, recent=True) is None:
        return Done()  # a passer-by in a public room: a hundred thousand of them must leave no rows behind
    mark = await chat.store.mark_read(ask.room, by.user, ask.seq)
    if mark <= ask.seq:  # else it was further already; a seq beyond the head marks what there is
        signal = ReadSignal(room=ask.room, user=by.user, seq=mark)
        if await chat.directory.listeners(ask.room) <= chat.limits.crowd:
            await chat.signal(ask.room, signal, exclude=by.connection)
        else:
            await chat.fanout.tell(by.user, encode(signal), exclude=by.connection)
    return Done()


@action("typing")
async def typing(chat: Chat, by: Caller, ask: Typing) -> Done:
    """Tell the room that the user is typing, or stopped."""
    await chat.access.require(by, ask.room, Permission.SEND, recent=True)
    await chat.presence.type(ask.room, TypingSignal(room=ask.room, by=by.user, name=by.name, on=ask.on), by.connection)
    return Done()


@action("presence")
async def presence(chat: Chat, by: Caller, ask: Presence) -> Online:
    """Who is online in the room."""
    await chat.access.require(by, ask.room, Permission.READ, recent=True)
    users, count = await chat.presence.online(ask.room)
    return Online(room=ask.room, online=users, count=count)


def _check_words(chat: Chat, ask: Send | Edit) -> None:
    if isinstance(ask.data, msgspec.Raw):
        if _is_too_deep(bytes(ask.data)):
            raise BadRequest(f"`data` is nested too deeply: at most {MAX_DATA_DEPTH} levels.")
    elif not (ask.text and ask.text.strip()):
        raise BadRequest("A message needs `text` that is not blank, or `data`.")
    if ask.text is not None and len(ask.text) > chat.limits.max_text_chars:
        raise TooLarge(f"A text has at most {chat.limits.max_text_chars} characters, this one {len(ask.text)}.")


def _is_too_deep(data: bytes) -> bool:
    """Whether a JSON text is nested deeper than `MAX_DATA_DEPTH`."""
    if data.count(b"[") + data.count(b"{") <= MAX_DATA_DEPTH:
        return False
    brackets = _STRINGS.sub(b"", data).translate(_AS_SQUARE, _NO_BRACKETS)
    for _ in range(MAX_DATA_DEPTH):  # each time the innermost go
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


async def _message(chat: Chat, room: RoomId, seq: int) -> MessageCreated:
    entry = await chat.store.entry(room, seq)
    if not isinstance(entry, MessageCreated):
        raise NotFound(f"There is no message {seq} in this room.")
    return entry


def _appended(entry: object) -> Appended:
    assert isinstance(entry, MessageEdited | MessageDeleted | ReactionAdded | ReactionRemoved)  # noqa: S101  as written
    return Appended(room=entry.room, seq=entry.seq)
