"""The promises of the `Store` port where several nodes have the same data open."""

from __future__ import annotations

import asyncio
from itertools import chain

from hubbub.errors import Conflict
from hubbub.model import Member, MessageCreated, Role, RoomKind
from storelab import AT, ROOM, delete, edit, join, leave, log, make_room, react, say, seqs, state, unread


async def test_entries_get_seqs_without_gaps_whichever_nodes_write_them(nodes):
    """Messages, reactions and who comes, from all nodes at once; each caller's in his order."""
    await make_room(nodes[0])
    said = await say(nodes[0])

    async def writer(n: int) -> list[int]:
        store = nodes[n % len(nodes)]
        given = [(await say(store, f"{n} {turn}", by=f"user{n}")).seq for turn in range(5)]
        given.append((await react(store, said.seq, by=f"user{n}")).seq)
        given.append((await join(store, f"user{n}")).seq)
        return given

    given = await asyncio.gather(*(writer(n) for n in range(6)))
    assert all(places == sorted(places) for places in given)
    assert sorted(chain.from_iterable(given)) == list(range(3, 3 + 42))
    for store in nodes:
        assert seqs(await log(store)) == list(range(1, 45))
    assert (await nodes[0].room(ROOM)).members == 6
    assert await unread(nodes[1], "nobody") == 31


async def test_a_client_id_sent_through_several_nodes_at_once_is_written_once(nodes):
    """Everybody is told the same entry, whoever was first."""
    await make_room(nodes[0])
    for turn in range(5):
        tries = (say(store, f"from node {n}", client_id=f"c{turn}") for n, store in enumerate(nodes * 3))
        entries = await asyncio.gather(*tries)
        assert {entry.seq for entry in entries} == {turn + 2}
        assert len({entry.text for entry in entries}) == 1
    assert seqs(await log(nodes[0])) == [1, 2, 3, 4, 5, 6]


async def test_what_one_node_has_written_the_others_read(nodes):
    """As soon as it is acknowledged: the room, the log, what is unread, who is a member."""
    first, second, third = nodes
    assert await second.room(ROOM) is None
    await make_room(first)
    assert (await second.room(ROOM)).head == 1
    assert await third.member(ROOM, "alice") is None
    await join(second, "alice", Role.OWNER)
    assert await third.member(ROOM, "alice") == Member("alice", Role.OWNER, AT)
    said = await say(second, "hello", by="bob")
    assert await third.entry(ROOM, said.seq) == said
    assert (await first.heads([ROOM])) == {ROOM: said.seq}
    assert await unread(first, "alice") == 1
    assert await first.mark_read(ROOM, "alice", said.seq) == said.seq
    assert await unread(third, "alice") == 0
    answered = await say(third, "a reply", reply_to=said.seq)
    assert (await first.page(ROOM, after=said.seq)).entries == [answered]


async def test_of_several_nodes_that_make_a_room_at_once_one_succeeds(nodes):
    """The others are told that it exists, or get it as it is."""
    results = await asyncio.gather(
        *(make_room(store, ROOM, f"user{n}") for n, store in enumerate(nodes)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["Conflict", "Conflict", "Room"]
    made = await asyncio.gather(*(make_room(store, "other", "alice", exist_ok=True) for store in nodes))
    assert {(room.id, room.head) for room in made} == {("other", 2)}
    assert seqs(await log(nodes[0])) == [1, 2]


async def test_what_is_so_already_is_written_once_whichever_nodes_write_it(nodes):
    """A reaction, a membership and its end; all others are told that they wrote nothing."""
    await make_room(nodes[0])
    said = await say(nodes[0])
    liked = await asyncio.gather(*(react(store, said.seq) for store in nodes * 2))
    assert sorted(entry.seq for entry in liked) == [0, 0, 0, 0, 0, 3]
    joined = await asyncio.gather(*(join(store, "alice") for store in nodes * 2))
    assert sorted(entry.seq for entry in joined) == [0, 0, 0, 0, 0, 4]
    left = await asyncio.gather(*(leave(store, "alice") for store in nodes))
    assert sorted(entry.seq for entry in left) == [0, 0, 5]
    assert (await nodes[1].room(ROOM)).members == 0


async def test_a_message_is_deleted_once_and_nothing_said_of_it_stays(nodes):
    """Edits that come from other nodes at the same time lose their words or are refused."""
    await make_room(nodes[0])
    said = await say(nodes[0], "secret")
    edits = (edit(store, said.seq, "secret") for store in nodes * 3)
    deletions = (delete(store, said.seq) for store in nodes)
    results = await asyncio.gather(*edits, *deletions, return_exceptions=True)
    assert [type(result) for result in results[9:]].count(Conflict) == 2
    assert all(isinstance(result, Conflict) or result.seq for result in results)
    entries = await log(nodes[1])
    assert seqs(entries) == list(range(1, len(entries) + 1))
    assert not any(getattr(entry, "text", None) for entry in entries)


async def test_rooms_may_be_deleted_and_made_anew_while_other_nodes_write_in_them(nodes):
    """No seq is used twice, and what is there in the end is one room's log."""
    await make_room(nodes[0])

    async def writer(store) -> list[int]:
        given = []
        for _ in range(12):
            result = (await asyncio.gather(say(store), return_exceptions=True))[0]
            given += [result.seq] if isinstance(result, MessageCreated) else []
        return given

    async def remaker(store) -> None:
        for _ in range(4):
            await store.delete_room(ROOM)
            await store.create_room(ROOM, RoomKind.PUBLIC, name="", by="maker", at=AT, members=[])

    *given, _ = await asyncio.gather(*(writer(store) for store in nodes), remaker(nodes[0]))
    places = sorted(chain.from_iterable(given))
    assert len(places) == len(set(places))
    room = await nodes[1].room(ROOM)
    assert seqs(await log(nodes[1])) == list(range(room.first, room.head + 1))
    assert (await state(nodes[2], "alice")).head == room.head
