"""The end of a room's log, which is where its lock is: read anew, for one room or for many."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from hubbub.aws.table import Table
from hubbub.errors import NotFound, Unavailable
from hubbub.model import RoomId
from hubbub.parallel import both, each
from hubbub.store.dynamodb.items import LIVE, Place, RoomItem, Tail, is_end, no_room, place_of, read_room
from hubbub.store.dynamodb.keys import log_pk, room_key

TRIES = 20
"""How often a room is read that is deleted or made while it is read."""


async def read_item(table: Table, room: RoomId) -> RoomItem:
    """What the table says of the room, whatever its state."""
    return read_room(room, await table.get(room_key(room)))


async def read_tail(table: Table, room: RoomId) -> Tail:
    """The room and the end of its log.

    Raises:
        NotFound: there is no such room.
        Unavailable: it is deleted and made again all the time.

    """
    for _ in range(TRIES):
        item, place = await both(read_item(table, room), _last(table, room))
        if item.state != LIVE:
            raise no_room(room)
        if place is not None and place.life == item.life:
            return Tail(item, place)
        table.ahead.forget([room_key(room)])
    raise Unavailable(retry_after_ms=500)


async def read_on(table: Table, known: Tail) -> Tail:
    """The end of a log that was read a moment ago, where it is now; the room is taken for what it was then."""
    place = await _last(table, known.room.id)
    if place is not None and place.life == known.room.life:
        return Tail(known.room, place)
    return await read_tail(table, known.room.id)


async def read_tails(table: Table, rooms: Iterable[RoomId]) -> dict[RoomId, Tail]:
    """The same of many rooms, of those that are there."""
    keys = {room_key(room): room for room in rooms}
    found = await table.get_many(list(keys))
    items = [read_room(room, found.get(key)) for key, room in keys.items()]
    tails: dict[RoomId, Tail] = {}

    async def look(item: RoomItem) -> None:
        place = await _last(table, item.id)
        if place is not None and place.life == item.life:
            tails[item.id] = Tail(item, place)
            return
        with contextlib.suppress(NotFound):
            tails[item.id] = await read_tail(table, item.id)

    await each(look, [item for item in items if item.state == LIVE])
    return tails


async def _last(table: Table, room: RoomId) -> Place | None:
    """How far the log has come; None where it has ended or not begun."""
    page = await table.query(log_pk(room), limit=1, descending=True)
    if not page.items or is_end(page.items[0]):
        return None
    return place_of(page.items[0])
