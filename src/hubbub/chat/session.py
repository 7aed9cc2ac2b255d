"""Actions of a connection: start or resume, listen, go on with a newer token, ask the time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from hubbub.chat.access import higher, missing
from hubbub.chat.caller import Caller
from hubbub.chat.paging import fitting
from hubbub.chat.registry import action
from hubbub.errors import BadRequest, Forbidden, NotFound
from hubbub.model import AnyEntry, ConnectionId, Permission, Role, RoomId, RoomKind, RoomState
from hubbub.parallel import FEW_AT_ONCE, every
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
    from hubbub.chat.core import Chat

PAGE = 200


@action("sync")
async def sync(chat: Chat, by: Caller, ask: Sync) -> Synced:
    """Let the connection listen to the user's rooms and return what it missed since `ask.rooms`."""
    connection = _connection(by)
    rooms: set[RoomId] = set()
    while True:
        # Listen first, read after: what is written in between is then kept and joins the reply, and who is taken out
        # of a room in between does not listen. A room that he has come into meanwhile gets another round.
        async with await chat.fanout.listen(connection, sorted(rooms)) as listening:
            states = await _rooms(chat, await _renewed(chat, by), ask)
            added = {state.room for state in states} - rooms
            if not added:
                parts, budget = await _read(chat, ask, states)
                added = await listening.followed() - rooms
            if not added:
                started = await listening.start({part.state.room: part.head for part in parts})
                synced = Synced(
                    epoch=chat.store.epoch,
                    user=by.user,
                    connection_id=connection,
                    rooms=[],
                    entries=[],
                    more=[],
                    reset=[],
                    heartbeat_ms=chat.limits.heartbeat_ms,
                )
                for part in parts:  # nothing is awaited any more: the reply and the joining are one step
                    if part.state.room in started:
                        _tell(part, started[part.state.room], budget, synced)
                return synced
            rooms |= added


async def _renewed(chat: Chat, by: Caller) -> Caller:
    """The caller as he is now: a newer token may have come since he asked."""
    principal = None if by.connection is None else await chat.directory.principal(by.connection, fresh=True)
    return by if principal is None else msgspec.structs.replace(by, principal=principal)


async def _rooms(chat: Chat, by: Caller, ask: Sync) -> list[RoomState]:
    """The rooms to listen to: his own, those his token grants, and the public ones that he names."""
    granted = by.principal.rooms
    named = [room for room in ask.rooms if room not in granted]
    states = await chat.store.rooms_of(by.user, also=[*granted, *named])
    absent = granted.keys() - {state.room for state in states}
    if absent:
        await asyncio.gather(*(chat.access.vouched(by, room) for room in sorted(absent)))
        states = await chat.store.rooms_of(by.user, also=[*granted, *named])
    mine: list[RoomState] = []
    for state in states:
        role = Role.OWNER if by.is_server else higher(state.role, granted.get(state.room))
        if role is Role.READER and state.kind is not RoomKind.PUBLIC and state.room not in granted:
            role = await chat.access.role(by, state.room)  # who is no member has this role too, as the store tells it
        if role is not None:
            mine.append(msgspec.structs.replace(state, role=role))
    return mine


class _Budget:
    """How much one reply may still carry."""

    def __init__(self, entries: int, size: int) -> None:
        self.entries = entries
        self.size = size

    @property
    def is_spent(self) -> bool:
        return self.entries <= 0 or self.size <= 0

    def take(self, entries: Sequence[AnyEntry]) -> list[AnyEntry]:
        """As many of the first entries as it allows."""
        if self.is_spent:
            return []
        taken, size = fitting(entries[: self.entries], self.size)
        self.entries -= len(taken)
        self.size -= size
        return taken


class _Part:
    """What the reply will say of one room, if the connection may listen to it in the end."""

    def __init__(self, state: RoomState, last: int | None) -> None:
        self.state = state
        self.last = last  # how far the client's knowledge goes with this reply; None if it has none
        self.entries: list[AnyEntry] = []
        self.has_more = False
        self.is_reset = False
        self.is_gone = False  # whether there is no such room any more

    def reset(self) -> None:
        """What the client has means nothing any more."""
        self.last, self.entries, self.is_reset = None, [], True

    @property
    def head(self) -> int:
        """Where the room's log ended when it was read."""
        return max(self.state.head, self.last or 0)

    @property
    def lacks(self) -> int:
        """How many entries the client does not have."""
        return 0 if self.last is None else self.state.head - self.last


async def _read(chat: Chat, ask: Sync, states: list[RoomState]) -> tuple[list[_Part], _Budget]:
    """Read what was missed in these rooms; and what the reply may still carry."""
    budget = _Budget(chat.limits.sync_entries, chat.limits.max_reply_bytes)
    same_epoch = ask.epoch is None or ask.epoch == chat.store.epoch
    parts: list[_Part] = []
    for state in states:
        last = ask.rooms.get(state.room)
        parts.append(_Part(state, last if last is None or same_epoch else -1))
    # Who has all there is has it, however far back that goes.
    behind = [part for part in parts if part.lacks]
    await every(partial(_look_for, chat), behind)
    waiting = [part for part in behind if part.lacks and not part.is_gone]
    while waiting and not budget.is_spent:
        together = _read_together(waiting, budget)
        pages = await every(partial(_next_page, chat, budget.entries), together, at_once=FEW_AT_ONCE)
        for part, page in zip(together, pages, strict=True):
            await _take(chat, part, page, budget)
        del waiting[: len(together)]
    for part in waiting:
        part.has_more = True
    return [part for part in parts if not part.is_gone], budget


def _read_together(waiting: list[_Part], budget: _Budget) -> list[_Part]:
    """The first of them, as many as may be read at once: no more than the reply may carry, one that lacks much last."""
    count = lacking = 0
    for part in waiting:
        count += 1
        lacking += part.lacks
        if lacking >= budget.entries or part.lacks > PAGE:
            break
    return waiting[:count]


async def _look_for(chat: Chat, part: _Part) -> None:
    """See whether there still is such a room, and whether what the client says is a place in its log."""
    room = await chat.store.room(part.state.room)
    if room is None:
        part.is_gone = True
    elif part.last is not None and not room.first - 1 <= part.last <= part.state.head:
        part.reset()


async def _next_page(chat: Chat, most: int, part: _Part) -> list[AnyEntry] | None:
    """The entries that follow what the client has, at most `most` and `PAGE`; None when there is no such room."""
    limit = min(PAGE, most, part.lacks)
    try:
        return (await chat.store.page(part.state.room, after=part.last, limit=limit, changes=False)).entries
    except NotFound:
        return None


async def _take(chat: Chat, part: _Part, page: list[AnyEntry] | None, budget: _Budget) -> None:
    """Take the entries that the client lacks, of which `page` has the first, as many as the reply may carry."""
    while part.lacks and not budget.is_spent:
        if page is None:
            part.is_gone = True
            return
        if not page or page[0].seq != (part.last or 0) + 1:  # retention was quicker
            part.reset()
            return
        taken = budget.take(page)
        part.entries += taken
        part.last = taken[-1].seq
        if part.lacks and not budget.is_spent:
            page = await _next_page(chat, budget.entries, part)
    part.has_more = part.lacks > 0


def _tell(part: _Part, frames: list[bytes], budget: _Budget, synced: Synced) -> None:
    """Say in the reply what the connection missed of a room to which it listens from there on."""
    state = part.state
    head = part.head
    if frames:
        entries: list[AnyEntry] = [entry_decoder.decode(frame) for frame in frames]
        head = entries[-1].seq
        if part.last is not None and not part.has_more:
            taken = budget.take(entries)
            part.entries += taken
            part.has_more = len(taken) < len(entries)
    synced.rooms.append(state if head == state.head else msgspec.structs.replace(state, head=head))
    synced.entries += part.entries
    if part.has_more:
        synced.more.append(state.room)
    if part.is_reset:
        synced.reset.append(state.room)


@action("subscribe")
async def subscribe(chat: Chat, by: Caller, ask: Subscribe) -> Subscribed:
    """Let the connection listen to a public room, or to one of the user's own."""
    async with await chat.fanout.listen(_connection(by), [ask.room]) as listening:
        await chat.access.require(await _renewed(chat, by), ask.room, Permission.READ)
        room = await chat.access.existing(ask.room)
        started = await listening.start({ask.room: room.head})
    if ask.room not in started:
        raise missing(ask.room)
    return Subscribed(room=ask.room, head=room.head + len(started[ask.room]))


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
    before = await chat.directory.principal(connection, fresh=True)
    if before is None:
        raise NotFound("The connection is gone.")
    if before.is_server and not principal.is_server:
        raise Forbidden(
            f"The token lacks the scope {principal.SERVER!r} that this connection has; connect with it anew."
        )
    await chat.directory.connect(connection, principal)
    for room in sorted(before.rooms.keys() - principal.rooms.keys()):
        if not await chat.access.may_listen(Caller(principal, connection), room):
            await chat.expel(connection, room)
    return Renewed(expires_at=principal.expires_at)


@action("ping")
async def ping(chat: Chat, by: Caller, ask: Ping) -> Pong:
    """Tell the server's time."""
    return Pong(at=chat.clock.now_ms())


def _connection(by: Caller) -> ConnectionId:
    if by.connection is None:
        raise BadRequest("This action belongs to a connection.")
    return by.connection
