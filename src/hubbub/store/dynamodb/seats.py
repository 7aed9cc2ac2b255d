"""What users have of rooms: memberships, read marks, and the rooms of one user with what he has not read."""

from __future__ import annotations

from collections.abc import Sequence

from hubbub.aws.marshalling import Item
from hubbub.aws.table import ConditionFailed, Table
from hubbub.errors import NotFound
from hubbub.model import Member, Role, RoomId, RoomState, UserId
from hubbub.store.dynamodb import keys
from hubbub.store.dynamodb.effects import is_seq
from hubbub.store.dynamodb.items import (
    LIVE,
    Place,
    RoomItem,
    Tail,
    is_end,
    no_room,
    number,
    place_of,
    read_room,
    read_seat,
)
from hubbub.store.dynamodb.tails import read_tail, read_tails


async def read_seats(table: Table, user: UserId) -> dict[RoomId, Item]:
    """All seats of the user, also those of rooms that are gone."""
    seats: dict[RoomId, Item] = {}
    start = None
    while True:
        page = await table.query(keys.user_pk(user), prefix=keys.SEATS, start=start)
        seats.update((RoomId(str(item["sk"]).removeprefix(keys.SEATS)), item) for item in page.items)
        start = page.next
        if start is None:
            return seats


async def count_rooms(table: Table, user: UserId, most: int) -> int:
    """In how many rooms the user is; memberships of rooms that are gone are counted out only where there are `most`."""
    seats = {room: item for room, item in (await read_seats(table, user)).items() if "role" in item}
    if len(seats) < most:
        return len(seats)
    found = await table.get_many([keys.room_key(room) for room in seats])
    rooms = [read_room(room, found.get(keys.room_key(room))) for room in seats]
    return sum(room.state == LIVE and room.life == seats[room.id].get("life") for room in rooms)


async def read_member(table: Table, room: RoomId, user: UserId) -> Member | None:
    """The user's membership."""
    room_key, seat_key = keys.room_key(room), keys.seat_key(user, room)
    found = await table.get_many([room_key, seat_key])
    item = read_room(room, found.get(room_key))
    if item.state != LIVE:
        return None
    return read_seat(user, found.get(seat_key), item.life).member


async def list_members(table: Table, room: RoomId, after: str, limit: int) -> tuple[list[Member], int, bool]:
    """Members by user id, with what is remembered of them; see `hubbub.ports.Store.members`."""
    try:
        tail = await read_tail(table, room)
    except NotFound:
        return [], 0, False
    items: list[Item] = []
    low = after or None
    while len(items) <= limit:
        # What is asked for after is not wanted itself, so one more than to know whether there is more.
        page = await table.query(keys.roll_pk(room, tail.room.life), low=low, limit=limit + 2 - len(items))
        items += [item for item in page.items if str(item["sk"]) > after]
        if page.next is None:
            break
        low = page.next + "\0"
    members = [
        Member(UserId(str(item["sk"])), Role(str(item["role"])), number(item, "joined")) for item in items[:limit]
    ]
    users = await table.get_many([keys.user_key(member.user) for member in members])
    named = [_named(member, users.get(keys.user_key(member.user))) for member in members]
    return named, tail.place.members, len(items) > limit


def _named(member: Member, item: Item | None) -> Member:
    if item is None:
        return member
    return Member(member.user, member.role, member.joined_at, text(item, "name"), text(item, "avatar"))


def text(item: Item, name: str) -> str | None:
    """An attribute that is a text or missing."""
    value = item.get(name)
    return None if value is None else str(value)


async def read_states(table: Table, user: UserId, also: Sequence[RoomId]) -> list[RoomState]:
    """The user's rooms; see `hubbub.ports.Store.rooms_of`."""
    seats = await read_seats(table, user)
    mine = [room for room, item in seats.items() if "role" in item]
    tails = await read_tails(table, [*mine, *also])
    asked = set(also)
    states = [_state(user, tail, seats.get(room), asked) for room, tail in tails.items()]
    return sorted((state for state in states if state is not None), key=lambda state: state.room)


def _state(user: UserId, tail: Tail, item: Item | None, also: set[RoomId]) -> RoomState | None:
    """The room as the user sees it; None if he is no member and has not asked for it."""
    room, place = tail
    seat = read_seat(user, item, room.life)
    if seat.member is None and room.id not in also:
        return None
    role = Role.READER if seat.member is None else seat.member.role
    unread = max(0, place.messages - max(seat.read_messages, room.dropped))
    return RoomState(room.id, room.kind, room.name, role, place.seq, seat.read, unread)


async def move_mark(table: Table, room: RoomId, user: UserId, seq: int) -> int:
    """Move the read mark forward; see `hubbub.ports.Store.mark_read`."""
    room_key, entry_key, seat_key = keys.room_key(room), keys.entry_key(room, seq), keys.seat_key(user, room)
    found = await table.get_many([room_key, seat_key, *([entry_key] if is_seq(seq) else [])])
    item = read_room(room, found.get(room_key))
    if item.state != LIVE:
        raise no_room(room)
    seat = read_seat(user, found.get(seat_key), item.life)
    if seq <= seat.read:
        return seat.read
    goal = await _goal(table, item, seq, found.get(entry_key))
    if goal.seq <= seat.read:
        return seat.read
    try:
        await table.update(
            seat_key,
            "SET #read = :seq, read_n = :n, read_life = :life",
            # Lives are greater the later they are: a mark of an earlier one does not come back.
            condition="attribute_not_exists(#read) OR read_life < :life OR (read_life = :life AND #read < :seq)",
            values={"seq": goal.seq, "n": goal.messages, "life": goal.life},
            repeat=True,
        )
    except ConditionFailed as failed:
        return read_seat(user, failed.item, item.life).read
    return goal.seq


async def _goal(table: Table, room: RoomItem, seq: int, item: Item | None) -> Place:
    """The place at `seq`, or at the end of the log if that comes before it."""
    if item is not None and not is_end(item) and item.get("life") == room.life:
        return place_of(item)
    if seq < room.first:  # of what is not kept any number will do
        return Place(seq, room.dropped, 0, room.life)
    place = (await read_tail(table, room.id)).place
    if seq >= place.seq:
        return place
    written = await table.get(keys.entry_key(room.id, seq))  # it was, since the item was asked for
    return Place(seq, room.dropped, 0, room.life) if written is None else place_of(written)
