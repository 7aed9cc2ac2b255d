"""The promises of the `Store` port on reading the log: stretches both ways, threads, what became of messages."""

from __future__ import annotations

import asyncio

import pytest

from hubbub.errors import NotFound
from hubbub.model import (
    MAX_SEQ,
    MessageDeleted,
    MessageEdited,
    ReactionAdded,
    ReactionRemoved,
    RoomUpdated,
)
from storelab import ROOM, delete, edit, make_room, react, say, say_many, seqs, write

SEQS = list(range(1, 31))


@pytest.fixture
async def thirty(store):
    """A store with a room of thirty entries."""
    await make_room(store)
    await say_many(store, 29)
    return store


async def test_pages_are_in_seq_order_and_without_holes(thirty):
    """Whatever is asked for, a page is a stretch of the log, and the room's head is told with it."""
    for before in (None, 1, 2, 15, 30, 31, 99):
        for limit in (1, 2, 7, 30, 200):
            page = await thirty.page(ROOM, before=before, limit=limit)
            below = SEQS if before is None else [seq for seq in SEQS if seq < before]
            assert seqs(page.entries) == below[-limit:]
            assert (page.has_more, page.head) == (len(below) > limit, 30)
    for after in (0, 1, 15, 29, 30, 99):
        for limit in (1, 2, 7, 30, 200):
            page = await thirty.page(ROOM, after=after, limit=limit)
            above = [seq for seq in SEQS if seq > after]
            assert seqs(page.entries) == above[:limit]
            assert (page.has_more, page.head) == (len(above) > limit, 30)


async def test_a_page_around_a_seq_has_it_in_the_middle(thirty):
    """As far as the log's ends allow; it is full whenever the log is long enough, and says whether there is more."""
    for around in (0, 1, 2, 15, 29, 30, 31, 99):
        for limit in (1, 2, 3, 4, 9, 29, 30, 31, 200):
            page = await thirty.page(ROOM, around=around, limit=limit)
            found = seqs(page.entries)
            assert found == SEQS[found[0] - 1 : found[-1]]
            assert len(found) == min(limit, 30)
            assert (page.has_more, page.head) == (len(found) < 30, 30)
            if around in SEQS:
                earlier, later = found.index(around), len(found) - found.index(around) - 1
                assert abs(earlier - later) <= 1 or found[0] == 1 or found[-1] == 30


async def test_the_last_entries_are_what_is_returned_without_a_seq(thirty):
    """Fifty of them unless told."""
    assert seqs((await thirty.page(ROOM)).entries) == SEQS
    await say_many(thirty, 40)
    page = await thirty.page(ROOM)
    assert seqs(page.entries) == list(range(21, 71))
    assert page.has_more


@pytest.mark.parametrize("edge", ["before", "after", "around"])
@pytest.mark.parametrize("seq", [0, -1, 2**31, 2**36, 2**36 + 5, MAX_SEQ])
async def test_a_seq_beyond_the_log_is_not_an_error(thirty, edge, seq):
    """Nothing is after the head or before the beginning, and no other room is looked into."""
    await make_room(thirty, "other")
    page = await thirty.page(ROOM, **{edge: seq}, limit=3)
    expected = {
        "before": SEQS[-3:] if seq > 0 else [],
        "after": [] if seq > 0 else SEQS[:3],
        "around": SEQS[-3:] if seq > 0 else SEQS[:3],
    }
    assert seqs(page.entries) == expected[edge]
    assert page.head == 30


async def test_a_room_with_one_entry_has_one_page(store):
    """Every room has its first entry; asked beyond it there is nothing, and nothing more."""
    await make_room(store)
    for edges in ({}, {"before": 2}, {"after": 0}, {"around": 1}):
        page = await store.page(ROOM, **edges)
        assert (seqs(page.entries), page.head, page.has_more, page.changes) == ([1], 1, False, [])
        assert isinstance(page.entries[0], RoomUpdated)
    page = await store.page(ROOM, after=1)
    assert (page.entries, page.head, page.has_more) == ([], 1, False)


async def test_a_page_of_a_room_that_is_not_there_is_not_found(store):
    """Neither of one that never was nor of one that was deleted."""
    await make_room(store)
    await store.delete_room(ROOM)
    for room in (ROOM, "never"):
        with pytest.raises(NotFound):
            await store.page(room)
        assert await store.entry(room, 1) is None


@pytest.mark.parametrize("seq", [-1, 0, 31, 2**36, 2**36 + 1, MAX_SEQ])
async def test_an_entry_that_is_not_there_is_none(thirty, seq):
    """Whatever its number, and no other room's is found in its place."""
    await make_room(thirty, "other")
    assert await thirty.entry(ROOM, seq) is None


async def test_a_thread_is_its_root_and_the_messages_whose_thread_it_is(store):
    """In every direction, without what else was said meanwhile."""
    await make_room(store)
    root = await say(store, "root")
    other = await say(store, "another root")
    answers = []
    for n in range(10):
        answers.append((await say(store, f"answer {n}", thread=root.seq)).seq)
        await say(store, f"elsewhere {n}", thread=other.seq if n % 2 else None)
    thread = [root.seq, *answers]
    for limit in (1, 2, 5, 10, 11, 50):
        page = await store.page(ROOM, thread=root.seq, limit=limit)
        assert (seqs(page.entries), page.has_more) == (thread[-limit:], limit < 11)
        page = await store.page(ROOM, thread=root.seq, after=0, limit=limit)
        assert (seqs(page.entries), page.has_more) == (thread[:limit], limit < 11)
        page = await store.page(ROOM, thread=root.seq, before=answers[0], limit=limit)
        assert (seqs(page.entries), page.has_more) == ([root.seq], False)
        page = await store.page(ROOM, thread=root.seq, after=root.seq, limit=limit)
        assert (seqs(page.entries), page.has_more) == (answers[:limit], limit < 10)
        page = await store.page(ROOM, thread=root.seq, around=answers[4], limit=limit)
        assert answers[4] in seqs(page.entries)
        assert len(page.entries) == min(limit, 11)
        assert page.has_more == (limit < 11)
    assert seqs((await store.page(ROOM, thread=root.seq, before=root.seq)).entries) == []


@pytest.mark.parametrize("seq", [-1, 0, 99, 2**36 + 1, MAX_SEQ])
async def test_a_thread_that_is_not_there_is_empty(thirty, seq):
    """Whatever its number, and no other room's is found in its place."""
    await make_room(thirty, "other")
    page = await thirty.page(ROOM, thread=seq)
    assert (page.entries, page.head, page.has_more, page.changes) == ([], 30, False, [])


async def test_changes_are_what_has_become_of_the_messages_by_entries_that_are_not_on_the_page(store):
    """Of each message the last edit or the deletion, and the reactions, in seq order."""
    await make_room(store)
    first, second, third = await say_many(store, 3)
    await edit(store, first.seq, "superseded")
    here = await react(store, third.seq)
    edited = await edit(store, first.seq, "edited")
    liked = await react(store, second.seq, by="bob")
    gone = await delete(store, third.seq)
    unliked = await write(store, ReactionRemoved, target=second.seq, reaction="+1", by="bob")
    page = await store.page(ROOM, before=5)
    assert page.changes == [here, edited, liked, gone, unliked]
    page = await store.page(ROOM, after=2, limit=4)
    assert page.entries[-1] == here
    assert page.changes == [liked, gone, unliked]
    assert (await store.page(ROOM)).changes == []
    assert (await store.page(ROOM, before=5, changes=False)).changes == []
    assert (await store.page(ROOM, after=4, limit=1)).changes == []


async def test_a_threads_changes_are_those_of_its_messages_wherever_they_are(store):
    """However much was written about other messages in between."""
    await make_room(store)
    root, other = await say_many(store, 2)
    edited = await edit(store, root.seq, "edited")
    for n in range(30):
        await react(store, other.seq, f"r{n}")
    answer = await say(store, thread=root.seq)
    liked = await react(store, answer.seq)
    page = await store.page(ROOM, thread=root.seq)
    assert seqs(page.entries) == [root.seq, answer.seq]
    assert page.changes == [edited, liked]


async def test_of_too_many_changes_the_oldest_reactions_are_left_out(store):
    """A thousand is the most; how the message reads now is never among what is missing."""
    await make_room(store)
    popular, quiet = await say_many(store, 2)
    edited = await edit(store, popular.seq, "edited")
    gone = await delete(store, quiet.seq)
    await asyncio.gather(*(react(store, popular.seq, by=f"user{n}") for n in range(1_005)))
    page = await store.page(ROOM, before=4)
    assert len(page.changes) == 1_000
    assert page.changes[:2] == [edited, gone]
    assert seqs(page.changes[2:]) == list(range(1_010 - 998 + 1, 1_011))
    assert [type(change) for change in page.changes[:3]] == [MessageEdited, MessageDeleted, ReactionAdded]
