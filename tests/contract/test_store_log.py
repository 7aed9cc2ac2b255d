"""The promises of the `Store` port on the log: places, durability, sending twice, and what entries do."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from hubbub.errors import Conflict, NotFound, Unavailable
from hubbub.model import (
    MAX_SEQ,
    MemberJoined,
    MemberUpdated,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    ReactionAdded,
    ReactionRemoved,
    Role,
    RoomKind,
    RoomUpdated,
)
from storelab import ROOM, delete, edit, join, leave, log, make_room, react, say, say_many, seqs, state, write


async def test_entries_of_a_room_get_seq_1_2_3_without_gaps_and_without_reuse_also_with_many_writers_at_once(store):
    """Whoever writes in whichever room, each room counts for itself."""
    await asyncio.gather(*(make_room(store, room) for room in ("tea", "milk")))

    async def writer(user: str) -> list[int]:
        rooms = ("tea", "milk", "tea") * 7
        return [(await say(store, f"{user} {n}", by=user, room=room)).seq for n, room in enumerate(rooms)]

    given = await asyncio.gather(*(writer(f"user{n}") for n in range(20)))
    assert all(places[::3] == sorted(places[::3]) for places in given)
    assert seqs(await log(store, "tea")) == list(range(1, 20 * 14 + 2))
    assert seqs(await log(store, "milk")) == list(range(1, 20 * 7 + 2))


async def test_an_append_returns_after_it_is_durable(lasting_stores):
    """What was returned is there when the data is opened again."""
    async with lasting_stores.make() as store:
        await make_room(store)
        said = await say(store, "for ever")
    store = await lasting_stores.open()
    assert await store.entry(ROOM, said.seq) == said


async def test_an_append_with_a_client_id_that_the_same_user_has_used_in_the_same_room_returns_the_first_entry(store):
    """For as long as that one is kept, however often and whatever else is said."""
    await make_room(store)
    first = await say(store, "hello", client_id="c1")
    await say(store, "between")
    for text in ("hello", "something else"):
        again = await say(store, text, client_id="c1")
        assert again == first
    assert seqs(await log(store)) == [1, 2, 3]


async def test_a_client_id_sent_several_times_at_once_is_written_once(store):
    """Also when they are committed together."""
    await make_room(store)
    entries = await asyncio.gather(*(say(store, f"try {n}", client_id="c1") for n in range(50)))
    assert {entry.seq for entry in entries} == {2}
    assert {entry.text for entry in entries} == {"try 0"}
    assert seqs(await log(store)) == [1, 2]


async def test_a_client_id_belongs_to_one_user_in_one_room(store):
    """Another user's, and the same user's in another room, is another."""
    await asyncio.gather(make_room(store), make_room(store, "other"))
    mine, his, elsewhere = await asyncio.gather(
        say(store, "mine", client_id="c1"),
        say(store, "his", client_id="c1", by="bob"),
        say(store, "elsewhere", client_id="c1", room="other"),
    )
    assert (mine.seq, his.seq, elsewhere.seq) == (2, 3, 2)


async def test_an_entry_may_be_given_to_append_again(store):
    """What it got the first time says nothing about the second."""
    await make_room(store)
    said = await say(store)
    liked = ReactionAdded(room=ROOM, by="bob", target=said.seq, reaction="+1")
    assert (await store.append(liked)).seq == 3
    assert (await store.append(liked)).seq == 0


async def test_a_client_id_sent_again_asks_nothing_of_what_it_answers(store):
    """The first result is returned although what it replied to is deleted since."""
    await make_room(store)
    root = await say(store)
    first = await say(store, client_id="c1", reply_to=root.seq)
    await delete(store, root.seq)
    assert await say(store, client_id="c1", reply_to=root.seq) == first


async def test_a_message_sent_again_after_its_deletion_is_returned_without_its_words(store):
    """Also when the deletion and the repetition are committed together."""
    await make_room(store)
    first = await say(store, "secret", client_id="c1")
    _, together = await asyncio.gather(delete(store, first.seq), say(store, "secret", client_id="c1"))
    later = await say(store, "secret", client_id="c1")
    for again in (together, later):
        assert (again.seq, again.text, again.deleted) == (first.seq, None, True)


async def test_appends_of_one_caller_that_are_started_in_order_get_their_seq_in_that_order(store):
    """Without waiting for one before the next."""
    await make_room(store)
    entries = await say_many(store, 3_000)
    assert [entry.seq for entry in entries] == list(range(2, 3_002))
    assert [entry.text for entry in await log(store) if isinstance(entry, MessageCreated)] == [
        f"message {n}" for n in range(3_000)
    ]


async def test_what_is_returned_is_what_is_read(store):
    """An entry has the same shape everywhere, with all that was given."""
    await make_room(store)
    root = await say(store)
    entry = await say(
        store,
        "with \x00, \u2028 and 👋",
        data=msgspec.Raw(b'{"a":[1,2.5,null]}'),
        client_id="c1",
        reply_to=root.seq,
        thread=root.seq,
        name="Alice",
    )
    assert await store.entry(ROOM, entry.seq) == entry
    assert (await store.page(ROOM)).entries[-1] == entry
    assert len(entry.id) == 26


async def test_what_an_entry_says_takes_effect_in_the_same_commit(store):
    """Who joined is a member, what a room is now called it is called, what is deleted is gone: when append returns."""
    await make_room(store)
    await join(store, "alice")
    assert (await store.member(ROOM, "alice")).role is Role.MEMBER
    await write(store, MemberUpdated, user="alice", role=Role.MODERATOR)
    assert (await store.member(ROOM, "alice")).role is Role.MODERATOR
    await leave(store, "alice")
    assert await store.member(ROOM, "alice") is None
    await write(store, RoomUpdated, room_name="Tea", kind=RoomKind.PRIVATE)
    room = await store.room(ROOM)
    assert (room.name, room.kind, room.head) == ("Tea", RoomKind.PRIVATE, 5)
    said = await say(store, "secret")
    await delete(store, said.seq)
    assert (await store.entry(ROOM, said.seq)).text is None


async def test_a_room_updated_entry_changes_only_what_it_names(store):
    """A new name keeps the kind, a new kind keeps the name."""
    await make_room(store, name="Tea")
    await write(store, RoomUpdated, kind=RoomKind.PRIVATE)
    await write(store, RoomUpdated, room_name="")
    room = await store.room(ROOM)
    assert (room.name, room.kind) == ("", RoomKind.PRIVATE)


async def test_a_deletion_removes_the_words_of_its_message_and_of_that_messages_edits(store):
    """From the entries and from the changes; their places, ids and authors stay."""
    await make_room(store)
    other = await say(store, "other")
    said = await say(store, "secret", data=msgspec.Raw(b'"secret"'), client_id="c1")
    edited = await edit(store, said.seq, "secret, edited", data=msgspec.Raw(b'"secret"'))
    kept = await edit(store, other.seq, "other, edited")
    gone = await delete(store, said.seq)
    entries = {entry.seq: entry for entry in await log(store)}
    assert b"secret" not in msgspec.json.encode(list(entries.values()))
    now = entries[said.seq]
    assert (now.id, now.by, now.client_id, now.deleted, now.data) == (said.id, "alice", "c1", True, msgspec.UNSET)
    assert (entries[edited.seq].target, entries[edited.seq].deleted) == (said.seq, True)
    assert entries[kept.seq] == kept
    assert entries[gone.seq] == gone
    page = await store.page(ROOM, around=said.seq, limit=1)
    assert b"secret" not in msgspec.json.encode(page.changes)
    assert page.changes == [gone]


async def test_a_message_and_its_edit_and_deletion_may_be_committed_together(store):
    """The words are gone all the same."""
    await make_room(store)
    await asyncio.gather(
        say(store, "secret"), edit(store, 2, "secret"), delete(store, 2), say(store, "open"), edit(store, 5, "free")
    )
    assert b"secret" not in msgspec.json.encode(await log(store))
    assert (await store.entry(ROOM, 6)).text == "free"


@pytest.mark.parametrize("change", [edit, react, delete])
async def test_a_deleted_message_can_be_changed_no_more(store, change):
    """An edit, a reaction and another deletion are conflicts and write nothing."""
    await make_room(store)
    said = await say(store)
    await react(store, said.seq, by="bob")
    await delete(store, said.seq)
    arguments = ("words",) if change is edit else ()
    with pytest.raises(Conflict):
        await change(store, said.seq, *arguments)
    with pytest.raises(Conflict):
        await write(store, ReactionRemoved, target=said.seq, reaction="+1", by="bob")
    assert (await store.room(ROOM)).head == 4


async def test_the_same_reaction_twice_is_once(store):
    """One that is there, and one to remove that is not, are returned with seq 0; also when they come together."""
    await make_room(store)
    said = await say(store)
    together = await asyncio.gather(*(react(store, said.seq) for _ in range(3)))
    assert [entry.seq for entry in together] == [3, 0, 0]
    assert (await react(store, said.seq)).seq == 0
    assert (await react(store, said.seq, "-1")).seq == 4
    assert (await react(store, said.seq, by="bob")).seq == 5
    removals = [await write(store, ReactionRemoved, target=said.seq, reaction="+1") for _ in range(2)]
    assert [entry.seq for entry in removals] == [6, 0]
    assert (await write(store, ReactionRemoved, target=said.seq, reaction="+1", by="carol")).seq == 0
    assert (await react(store, said.seq)).seq == 7
    assert (await store.room(ROOM)).head == 7


@pytest.mark.parametrize("seq", [-1, 0, 1, 3, 4, 10, 2**31, 2**36 + 2, (2 << 36) | 2, MAX_SEQ])
async def test_a_target_that_is_no_message_of_the_room_is_not_found(store, seq):
    """Whether it is another kind of entry, not there, or would be one of another room."""
    await make_room(store)
    await make_room(store, "other")
    await say(store, room="other")
    await say(store)
    await edit(store, 2, "edited")
    for kind, fields in (
        (MessageEdited, {"target": seq, "text": "x"}),
        (MessageDeleted, {"target": seq}),
        (ReactionAdded, {"target": seq, "reaction": "+1"}),
        (ReactionRemoved, {"target": seq, "reaction": "+1"}),
        (MessageCreated, {"reply_to": seq}),
        (MessageCreated, {"thread": seq}),
    ):
        with pytest.raises(NotFound):
            await write(store, kind, **fields)
    assert (await store.room(ROOM)).head == 3


async def test_nothing_can_be_written_in_a_room_that_is_not_there(store):
    """Neither in one that never was nor in one that was deleted."""
    await make_room(store, "gone")
    await store.delete_room("gone")
    for room in ("never", "gone"):
        for kind, fields in (
            (MessageCreated, {"text": "x", "client_id": "c1"}),
            (MemberJoined, {"user": "alice", "role": Role.MEMBER}),
            (RoomUpdated, {"room_name": "x"}),
        ):
            with pytest.raises(NotFound):
                await write(store, kind, room=room, **fields)


async def test_a_write_that_is_refused_has_changed_nothing(stores):
    """Not even when it is committed together with others, which all succeed."""
    store = await stores.open(max_members=2, max_rooms=2)
    await make_room(store, ROOM, "alice", "bob")
    await make_room(store, "tea", "alice")
    said = await say(store)
    await delete(store, said.seq)
    before = await log(store), await store.members(ROOM), await store.rooms()
    refused = [
        (join(store, "carol"), Conflict),
        (edit(store, said.seq, "x"), Conflict),
        (react(store, said.seq), Conflict),
        (delete(store, said.seq), Conflict),
        (delete(store, 99), NotFound),
        (say(store, "a reply to nothing", reply_to=99, client_id="c1"), NotFound),
        (say(store, "an answer to nothing", thread=99), NotFound),
        (write(store, MemberUpdated, user="carol", role=Role.OWNER), NotFound),
        (make_room(store, ROOM, "carol"), Conflict),
        (make_room(store, "new", "carol", "alice"), Conflict),
        (make_room(store, "big", "carol", "dave", "erin"), Conflict),
        (store.mark_read("nowhere", "alice", 1), NotFound),
    ]
    kept, *errors, last = await asyncio.gather(
        say(store, "before", room="tea"),
        *(attempt for attempt, _ in refused),
        say(store, "after", room="tea"),
        return_exceptions=True,
    )
    assert [type(error) for error in errors] == [error for _, error in refused]
    assert (kept.seq, last.seq) == (3, 4)
    assert (await store.rooms())[0][1].head == 4
    rooms, _ = before[2]
    assert (await log(store), await store.members(ROOM)) == before[:2]
    assert [room.id for room in (await store.rooms())[0]] == [room.id for room in rooms]
    assert await store.room("new") is await store.room("big") is None
    assert await store.member(ROOM, "carol") is None
    assert (await say(store, "a reply after all", client_id="c1")).text == "a reply after all"
    assert (await join(store, "carol", room="tea")).seq == 5


async def test_a_caller_who_is_cancelled_takes_nothing_from_others(store):
    """His write is done or not; theirs notice nothing, before and after him, and the log has no gap."""
    await make_room(store)
    tasks = [asyncio.create_task(say(store, f"message {n}", by=f"user{n}")) for n in range(60)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    later = await say(store, "later")
    entries = await log(store)
    assert seqs(entries) == list(range(1, later.seq + 1))
    for n, result in enumerate(results):
        if n % 3:
            assert entries[result.seq - 1].text == f"message {n}"
        else:
            assert isinstance(result, asyncio.CancelledError)


async def test_a_caller_cancelled_before_he_began_has_written_nothing(store):
    """A task that never ran asks for nothing."""
    await make_room(store)
    task = asyncio.create_task(say(store))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await say(store)).seq == 2


async def test_a_store_that_cannot_write_raises_unavailable_keeps_what_it_had_and_works_again(stores):
    """When the cause is gone; what was refused meanwhile is not there, and what is remembered is still right."""
    store = await stores.open()
    await make_room(store, ROOM, "alice")
    said = await say(store, client_id="c1")
    with stores.unwritable(store):
        for _ in range(2):
            with pytest.raises(Unavailable):
                await say(store, "lost", client_id="c2")
        for attempt in (
            edit(store, said.seq, "lost"),
            join(store, "bob"),
            leave(store, "alice"),
            make_room(store, "lost", "bob"),
            store.delete_room(ROOM),
            store.mark_read(ROOM, "bob", 1),
            store.ping(),
        ):
            with pytest.raises(Unavailable):
                await attempt
    await store.ping()
    assert await log(store) == (await store.page(ROOM)).entries
    assert (await store.room(ROOM)).head == said.seq
    assert await store.room("lost") is None
    assert await store.member(ROOM, "bob") is None
    assert (await store.member(ROOM, "alice")).role is Role.MEMBER
    assert (await state(store, "alice")).head == said.seq
    assert await say(store, client_id="c1") == said
    assert (await say(store, "found", client_id="c2")).seq == said.seq + 1


async def test_a_closed_store_is_unavailable(stores):
    """For reading and for writing, whatever it remembers."""
    async with stores.make() as store:
        await make_room(store, ROOM, "alice")
        epoch = store.epoch
    for ask in (
        say(store),
        store.page(ROOM),
        store.entry(ROOM, 1),
        store.rooms(),
        store.members(ROOM),
        store.rooms_of("alice"),
        store.ping(),
        store.room("unknown"),
    ):
        with pytest.raises(Unavailable):
            await ask
    assert store.epoch == epoch


async def test_a_store_can_be_pinged_and_has_an_epoch(store):
    """The epoch is a word that stays the same."""
    await store.ping()
    epoch = store.epoch
    await make_room(store)
    await say(store)
    assert store.epoch == epoch
    assert len(epoch) >= 8


async def test_the_epoch_stays_with_the_data(lasting_stores, tmp_path):
    """Opened again it is the same, and other data has another."""
    async with lasting_stores.make() as store:
        first = store.epoch
    async with lasting_stores.make() as store:
        assert store.epoch == first
    async with lasting_stores.make(folder=tmp_path / "other") as store:
        assert store.epoch != first
