"""What is removed for good: what a room's life, an attempt to make one, or retention has left; little by little.

None of it can be seen any more when it is removed here, so a failure in the middle does no harm: it is done again.
"""

from __future__ import annotations

from hubbub.aws.marshalling import Item, Key
from hubbub.aws.table import ConditionFailed, Table
from hubbub.model import MessageCreated, RoomId, UserId
from hubbub.parallel import each
from hubbub.store.dynamodb import keys
from hubbub.store.dynamodb.items import CLEARING, GONE, MAKING, RoomItem, number, read_entry

CHUNK = 200
"""How many items are read at a time to be removed."""


async def clear_attempt(table: Table, item: RoomItem) -> None:
    """Remove what an attempt to make the room has left, and let the next one begin.

    First it is made sure that whoever made the attempt, if he is still at it, cannot go on.
    """
    room_key = keys.room_key(item.id)
    values = {"making": MAKING, "clearing": CLEARING, "life": item.life}
    held = "life = :life AND (#state = :making OR #state = :clearing)"
    try:
        await table.update(room_key, "SET #state = :clearing", condition=held, values=values, repeat=True)
        await clear_entries(table, item.id, item.following + 1, keys.TOP, life=item.life)
        await clear_roll(table, item.id, item.life)
        await table.update(
            room_key,
            "SET #state = :gone REMOVE life, #until",
            condition="life = :life AND #state = :clearing",
            values={"gone": GONE, "clearing": CLEARING, "life": item.life},
            repeat=True,
        )
    except ConditionFailed:  # somebody else has done it
        return
    await table.delete(keys.leftover_key(item.id, item.life))


async def clear_roll(table: Table, room: RoomId, life: str) -> None:
    """Remove the members of one of the room's lives, from the list and from their seats."""

    async def unseat(item: Item) -> None:
        try:
            await table.update(
                keys.seat_key(UserId(str(item["sk"])), room),
                "REMOVE #role, joined, life",
                condition="life = :life",
                values={"life": life},
                repeat=True,
            )
        except ConditionFailed:  # he has another one by now
            return

    while True:
        page = await table.query(keys.roll_pk(room, life), limit=CHUNK)
        await each(unseat, page.items)
        await table.write_many(deletes=_keys(page.items))
        if page.next is None:
            return


async def clear_entries(table: Table, room: RoomId, first: int, last: int, *, life: str | None = None) -> None:
    """Remove entries and what is about them.

    Args:
        table: the store's.
        room: theirs.
        first, last: their seqs.
        life: only those of this life, each checked as it is removed; else all of them.

    """
    low, high = keys.digits(max(first, 0)), keys.digits(min(last, keys.TOP))

    async def remove(item: Item) -> None:
        try:
            await table.delete((str(item["pk"]), str(item["sk"])), condition="life = :life", values={"life": life})
        except ConditionFailed:
            return

    start = None
    while True:
        page = await table.query(keys.log_pk(room), low=low, high=high, limit=CHUNK, start=start)
        if life is not None:
            await each(remove, [item for item in page.items if item.get("life") == life])
        else:
            await table.write_many(deletes=[*_keys(page.items), *_thread_keys(room, page.items)])
        start = page.next
        if start is None:
            break
    for pk in (keys.about_pk(room), keys.reacted_pk(room)):
        await _clear(table, pk, low, f"{high}#\U0010ffff")


def _thread_keys(room: RoomId, items: list[Item]) -> list[Key]:
    """Where the messages of threads among the entries are listed."""
    entries = [read_entry(item) for item in items]
    return [
        (keys.thread_pk(room), keys.thread_sk(entry.thread, entry.seq))
        for entry in entries
        if isinstance(entry, MessageCreated) and entry.thread is not None
    ]


async def _clear(table: Table, pk: str, low: str, high: str) -> None:
    while True:
        page = await table.query(pk, low=low, high=high, limit=CHUNK, only=["pk", "sk"])
        await table.write_many(deletes=_keys(page.items))
        if page.next is None:
            return


def _keys(items: list[Item]) -> list[Key]:
    return [(str(item["pk"]), str(item["sk"])) for item in items]


async def clear_life(table: Table, room: RoomId, left: Item) -> None:
    """Remove what a deleted room's life has left."""
    life = str(left["life"])
    await clear_roll(table, room, life)
    await clear_entries(table, room, number(left, "first"), number(left, "last"))
