"""Actions of a connection: start or resume, listen, go on with a newer token, ask the time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from hubbub.chat.access import missing
from hubbub.chat.paging import fitting
from hubbub.chat.registry import action
from hubbub.errors import BadRequest, Forbidden
from hubbub.model import AnyEntry, ConnectionId, Permission, RoomKind, RoomState
from hubbub.protocol import (
    Auth,
    Done,
    Ping,
    Pong,
    Renewed,
    Subscribe,
    Subscribed,
    Sync,
    Synced,
    Unsubscribe,
    entry_decoder,
)

if TYPE_CHECKING:
    from hubbub.chat.caller import Caller
    from hubbub.chat.core import Chat
    from hubbub.ports import Listening

PAGE = 200


@action("sync")
async def sync(chat: Chat, by: Caller, ask: Sync) -> Synced:
    """Let the connection listen to the user's rooms and return what it missed since `ask.rooms`."""
    connection = _connection(by)
    same_epoch = ask.epoch is None or ask.epoch == chat.store.epoch
    states = await _rooms(chat, by, ask)
    # Listen first, read after: what is written in between is then kept and joins the reply.
    with await chat.fanout.listen(connection, [state.room for state in states]) as listening:
        states = await _rooms(chat, by, ask)
        synced = Synced(
            epoch=chat.store.epoch,
            user=by.user,
            connection_id=connection,
            rooms=[],
            entries=[],
            more=[],
            reset=[],
        )
        budget = _Budget(chat.limits.sync_entries, chat.limits.max_reply_bytes)
        behind: list[tuple[RoomState, int | None]] = []
        for state in states:
            last = ask.rooms.get(state.room)
            if last is not None and (not same_epoch or last > state.head):
                synced.reset.append(state.room)
                last = None
            if last is not None and last < state.head:
                last = await _missed(chat, state, last, synced, budget)
            behind.append((state, last))
        # From here on nothing is awaited: the reply and the joining are one step.
        for state, last in behind:
            synced.rooms.append(_start(listening, state, last, synced))
    return synced


class _Budget:
    """How much one reply may still carry."""

    def __init__(self, entries: int, size: int) -> None:
        self.entries = entries
        self.size = size


async def _rooms(chat: Chat, by: Caller, ask: Sync) -> list[RoomState]:
    """The rooms to listen to: his own, those his token grants, and the public ones that he names."""
    granted = by.principal.rooms
    named = [room for room in ask.rooms if room not in granted]
    states = await chat.store.rooms_of(by.user, also=[*granted, *named])
    absent = granted.keys() - {state.room for state in states}
    for room in sorted(absent):
        await chat.access.vouched(by, room)
    if absent:
        states = await chat.store.rooms_of(by.user, also=[*granted, *named])
    mine: list[RoomState] = []
    for state in states:
        role = await chat.access.role(by, state.room)
        if role is not None:
            mine.append(msgspec.structs.replace(state, role=role))
        elif state.kind is RoomKind.PUBLIC:
            mine.append(state)
    return mine


async def _missed(chat: Chat, state: RoomState, last: int, synced: Synced, budget: _Budget) -> int | None:
    """Add the room's entries after `last` to the reply; returns the last one's seq, or None if the seqs do not hold."""
    room = await chat.store.room(state.room)
    if room is not None and last < room.first - 1:
        synced.reset.append(state.room)
        return None
    while last < state.head:
        if budget.entries <= 0 or budget.size <= 0:
            synced.more.append(state.room)
            return last
        page = await chat.store.page(state.room, after=last, limit=min(PAGE, budget.entries), changes=False)
        entries, size = fitting(page.entries, budget.size)
        if not entries:
            return last
        synced.entries += entries
        budget.entries -= len(entries)
        budget.size -= size
        last = entries[-1].seq
    return last


def _start(listening: Listening, state: RoomState, last: int | None, synced: Synced) -> RoomState:
    """Let the connection listen from where the reply ends; returns the state as it is at that moment."""
    complete = last is not None and state.room not in synced.more
    after = max(state.head, last or 0)
    frames = listening.start(state.room, after)
    if not frames:
        return state if after == state.head else msgspec.structs.replace(state, head=after)
    entries: list[AnyEntry] = [entry_decoder.decode(frame) for frame in frames]
    if complete:
        synced.entries += entries
    elif state.room not in synced.more and last is not None:
        synced.more.append(state.room)
    return msgspec.structs.replace(state, head=entries[-1].seq)


@action("subscribe")
async def subscribe(chat: Chat, by: Caller, ask: Subscribe) -> Subscribed:
    """Let the connection listen to a public room, or to one of the user's own."""
    connection = _connection(by)
    await chat.access.require(by, ask.room, Permission.READ)
    with await chat.fanout.listen(connection, [ask.room]) as listening:
        room = await chat.store.room(ask.room)
        if room is None:
            raise missing(ask.room)
        frames = listening.start(ask.room, room.head)
        return Subscribed(room=ask.room, head=room.head + len(frames))


@action("unsubscribe")
async def unsubscribe(chat: Chat, by: Caller, ask: Unsubscribe) -> Done:
    """Stop the connection's listening to a room."""
    await chat.fanout.unlisten(_connection(by), ask.room)
    return Done()


@action("auth")
async def auth(chat: Chat, by: Caller, ask: Auth) -> Renewed:
    """Let the connection live on with a newer token of the same user."""
    connection = _connection(by)
    principal = await chat.tokens.verify(ask.token)
    if principal.user != by.user:
        raise Forbidden("The token belongs to another user.")
    await chat.admit(principal)
    await chat.directory.connect(connection, principal)
    for room in by.principal.rooms.keys() - principal.rooms.keys():
        if await chat.store.member(room, by.user) is None:
            await chat.fanout.unlisten(connection, room)
    return Renewed(expires_at=principal.expires_at)


@action("ping")
async def ping(chat: Chat, by: Caller, ask: Ping) -> Pong:
    """Tell the server's time."""
    return Pong(at=chat.clock.now_ms())


def _connection(by: Caller) -> ConnectionId:
    if by.connection is None:
        raise BadRequest("This action belongs to a connection.")
    return by.connection
