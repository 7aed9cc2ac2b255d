"""The promises of the `Store` port on read marks, unread counts and what retention does to them."""

from __future__ import annotations

import asyncio
import time

import pytest

from hubbub.errors import NotFound
from hubbub.model import MessageCreated, Role, RoomKind, RoomState
from storelab import (
    ROOM,
    delete,
    edit,
    eventually,
    join,
    leave,
    log,
    make_room,
    react,
    say,
    say_many,
    seqs,
    state,
    unread,
)

LONG_AGO = 1_000


async def test_a_message_moves_its_authors_read_mark_to_its_own_seq(store):
    """So nobody has unread messages of his own, nor any before them."""
    await make_room(store, ROOM, "alice", "bob")
    await say_many(store, 3, by="bob")
    assert await unread(store, "alice") == 3
    said = await say(store, by="alice")
    assert (await state(store, "alice")).read == said.seq
    assert await unread(store, "alice") == 0
    assert await unread(store, "bob") == 1
    await say(store, by="bob")
    assert await unread(store, "alice") == 1


async def test_read_marks_only_move_forward(store):
    """To the head at most; the answer is where the mark then is."""
    await make_room(store)
    await say_many(store, 9)
    marks = [await store.mark_read(ROOM, "bob", seq) for seq in (5, 3, 0, -1, 7, 7, 99, 2)]
    assert marks == [5, 5, 5, 5, 7, 7, 10, 10]
    assert (await state(store, "bob")).read == 10
    await say(store)
    assert (await state(store, "bob")).read == 10
    assert await unread(store, "bob") == 1


async def test_read_marks_moved_at_once_end_at_the_furthest(store):
    """Also when they and messages are committed together."""
    await make_room(store)
    await say_many(store, 9)
    marks = await asyncio.gather(*(store.mark_read(ROOM, "bob", seq) for seq in (4, 8, 6)))
    assert marks == [4, 8, 8]
    _, mark, _, last = await asyncio.gather(
        say(store, by="carol"), store.mark_read(ROOM, "bob", 99), say(store, by="bob"), store.mark_read(ROOM, "bob", 9)
    )
    assert (mark, last) == (11, 12)
    assert (await state(store, "bob")).read == 12


async def test_a_mark_in_a_room_that_is_not_there_is_not_found(store):
    """And leaves nothing behind."""
    with pytest.raises(NotFound):
        await store.mark_read(ROOM, "bob", 1)
    await make_room(store)
    await say(store)
    assert (await state(store, "bob")).read == 0


async def test_unread_is_the_number_of_messages_after_the_mark(store):
    """Neither edits nor reactions, nor who came and went, count; a deleted message keeps its place and its count."""
    await make_room(store, ROOM, "alice", "bob")
    first, second = await say_many(store, 2)
    await edit(store, first.seq, "edited")
    await react(store, second.seq)
    await join(store, "carol")
    third = await say(store)
    await leave(store, "carol")
    assert await unread(store, "bob") == 3
    await delete(store, third.seq)
    assert await unread(store, "bob") == 3
    assert await store.mark_read(ROOM, "bob", first.seq) == first.seq
    assert await unread(store, "bob") == 2
    for seq, left in ((second.seq, 1), (second.seq + 1, 1), (third.seq - 1, 1), (third.seq, 0)):
        await store.mark_read(ROOM, "bob", seq)
        assert await unread(store, "bob") == left


async def test_a_mark_may_be_set_at_a_message_committed_with_it(store):
    """It counts what the room had up to there."""
    await make_room(store)
    results = await asyncio.gather(
        *(say(store) for _ in range(6)), store.mark_read(ROOM, "bob", 4), *(say(store) for _ in range(3))
    )
    assert results[6] == 4
    assert await unread(store, "bob") == 6


async def test_rooms_of_a_user_are_those_he_is_a_member_of_by_id(store):
    """As he sees them."""
    await make_room(store, "b", "alice", "bob", name="B", kind=RoomKind.PRIVATE)
    await make_room(store, "a", "alice", role=Role.OWNER)
    await make_room(store, "c", "bob")
    await say(store, by="bob", room="b")
    assert await store.rooms_of("alice") == [
        RoomState("a", RoomKind.PUBLIC, "", Role.OWNER, 2, 0, 0),
        RoomState("b", RoomKind.PRIVATE, "B", Role.MEMBER, 4, 0, 1),
    ]
    assert await store.rooms_of("nobody") == []


async def test_rooms_asked_for_beside_his_own_are_there_if_they_exist(store):
    """With role reader, each once, whatever is asked for."""
    await make_room(store, "mine", "alice")
    await make_room(store, "open")
    await make_room(store, "gone")
    await store.delete_room("gone")
    await say_many(store, 2, room="open", by="bob")
    await store.mark_read("open", "alice", 2)
    also = ["open", "never", "gone", "mine", "open", "", "x'; --", *(f"never{n}" for n in range(2_000))]
    found = await store.rooms_of("alice", also=also)
    assert [(each.room, each.role, each.read, each.unread) for each in found] == [
        ("mine", Role.MEMBER, 0, 0),
        ("open", Role.READER, 2, 1),
    ]


async def test_marks_outlive_a_membership(store):
    """Who comes back finds read what he had read."""
    await make_room(store, ROOM, "bob")
    await say_many(store, 3)
    await store.mark_read(ROOM, "bob", 3)
    await leave(store, "bob")
    await join(store, "bob")
    assert ((await state(store, "bob")).read, await unread(store, "bob")) == (3, 2)


async def swept(store, first: int, room: str = ROOM) -> None:
    """Wait until retention has come as far as `first`."""

    async def there() -> bool:
        known = await store.room(room)
        assert known.first <= first, "retention has removed too much"
        return known.first == first

    await eventually(there, f"retention up to {first}")


async def test_what_retention_has_removed_is_below_the_rooms_first_seq_it_is_no_hole_and_nothing_unread(stores):
    """By the number of entries kept: the last ones stay, marks and counts are of what is left."""
    store = await stores.open(retain_entries=10, sweep_s=0.01)
    await make_room(store, ROOM, "bob")
    await say_many(store, 30)
    await swept(store, 23)
    assert seqs(await log(store)) == list(range(23, 33))
    for edges in ({"before": 25}, {"after": 0, "limit": 2}, {"around": 3, "limit": 2}):
        page = await store.page(ROOM, **edges)
        assert (seqs(page.entries), page.head) == ([23, 24], 32)
    assert await store.entry(ROOM, 22) is None
    assert await unread(store, "bob") == 10
    assert await store.mark_read(ROOM, "bob", 5) == 5
    assert await unread(store, "bob") == 10
    assert await store.mark_read(ROOM, "bob", 24) == 24
    assert await unread(store, "bob") == 8
    for change in (edit(store, 22, "x"), react(store, 22), delete(store, 22), say(store, reply_to=22)):
        with pytest.raises(NotFound):
            await change
    said = await say(store)
    assert said.seq == 33
    await swept(store, 24)


async def test_retention_by_age_removes_what_is_older(stores):
    """From the beginning of a room's log up to the first entry that is young enough."""
    store = await stores.open(retain_days=365 * 20, sweep_s=0.01)
    for room, ages in (("old", "ooo"), ("mixed", "oyoy"), ("young", "y")):
        at = {"o": LONG_AGO, "y": int(time.time() * 1_000)}
        await make_room(store, room, at=at[ages[0]])
        for age in ages[1:]:
            await store.append(MessageCreated(room=room, by="alice", at=at[age]))
    await swept(store, 4, "old")
    await swept(store, 2, "mixed")
    assert await log(store, "old") == []
    assert (await store.page("old", after=0)).head == 3
    assert await unread(store, "bob", "old") == 0
    assert await unread(store, "bob", "mixed") == 3
    assert (await store.room("young")).first == 1
    assert (await say(store, room="old")).seq == 4
    assert seqs(await log(store, "old")) == [4]


async def test_entries_of_a_message_that_retention_removed_stay_without_it(stores):
    """Edits and reactions that are young enough keep their place, and threads lose their root."""
    store = await stores.open(retain_entries=4, sweep_s=0.01)
    await make_room(store)
    root = await say(store)
    answer = await say(store, thread=root.seq)
    edited = await edit(store, root.seq, "edited")
    liked = await react(store, answer.seq)
    last = await say(store, thread=root.seq)
    await swept(store, 3)
    page = await store.page(ROOM, thread=root.seq)
    assert seqs(page.entries) == [answer.seq, last.seq]
    assert page.changes == [liked]
    assert seqs(await log(store)) == [answer.seq, edited.seq, liked.seq, last.seq]


async def test_a_client_id_is_known_as_long_as_its_entry_is_kept(stores):
    """Then it is new again."""
    store = await stores.open(retain_entries=5, sweep_s=0.01)
    await make_room(store)
    first = await say(store, client_id="c1")
    await say_many(store, 3)
    assert await say(store, client_id="c1") == first
    await say_many(store, 3)
    await swept(store, 4)
    again = await say(store, client_id="c1")
    assert again.seq == 9
    assert await say(store, client_id="c1") == again


async def test_retention_reaches_every_room(stores):
    """However many there are and however long they are."""
    store = await stores.open(retain_entries=3, sweep_s=0.01)
    rooms = [f"room{n}" for n in range(30)]
    await asyncio.gather(*(make_room(store, room) for room in rooms))
    await asyncio.gather(*(say_many(store, 9, room=room) for room in rooms), say_many(store, 2_500, room="room7"))
    for room in rooms:
        await swept(store, 2_508 if room == "room7" else 8, room)
    assert {len(await log(store, room)) for room in rooms} == {3}
