"""The server goes away and comes back: callers wait, nothing acknowledged is lost and nothing is there twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from scripts.servers import Postgres

from hubbub.errors import Unavailable
from hubbub.model import MemberJoined, MessageCreated
from hubbub.store import PostgresStore
from live import until
from postgreslab import connected, schema_of, store_at
from storelab import ROOM, join, log, make_room, react, say, seqs, state

Nemesis = Callable[[Postgres, str], Awaitable[None]]

KILL_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hubbub' AND pid <> pg_backend_pid()
"""


async def sessions_killed(server: Postgres, schema: str) -> None:
    async with connected(server, schema) as connection:
        await connection.execute(KILL_SESSIONS)


async def killed(server: Postgres, schema: str) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


async def restarted(server: Postgres, schema: str) -> None:
    await asyncio.to_thread(server.restart)


async def paused(server: Postgres, schema: str) -> None:
    """For longer than a statement may take, so that what was sent is done on a connection that nobody has any more."""
    server.pause()
    await asyncio.sleep(2.5)
    server.resume()


@pytest.fixture
async def nodes(victim, tmp_path) -> AsyncIterator[list[PostgresStore]]:
    """Two stores on the same data, which do not wait long for one statement."""
    async with store_at(victim, tmp_path, timeout_s=2.0) as one, store_at(victim, tmp_path, timeout_s=2.0) as other:
        yield [one, other]


@pytest.mark.parametrize(("nemesis", "times"), [(sessions_killed, 8), (killed, 2), (restarted, 2), (paused, 1)])
async def test_writes_outlive_a_server_that_goes_away_and_comes_back(victim, nodes, tmp_path, nemesis, times):
    """Callers on two nodes wait, each is told the place of what he wrote, and it is there once."""
    rooms = ["one", "two", "three"]
    for room in rooms:
        await make_room(nodes[0], room)
    done = asyncio.Event()
    given: dict[tuple[str, str], int] = {}
    struck: list[int] = []

    async def writer(n: int) -> None:
        turn = 0
        while not done.is_set():
            room, store, text = rooms[(n + turn) % 3], nodes[n % 2], f"{n} {turn}"
            again = {"client_id": f"c{turn}"} if turn % 2 else {}
            given[room, text] = (await say(store, text, room=room, by=f"user{n}", **again)).seq
            if turn % 5 == 4:
                given[room, f"by {n} {turn}"] = (await join(store, f"by {n} {turn}", room=room)).seq
            turn += 1

    async def strike() -> None:
        for _ in range(times):
            before = len(given)
            await until(lambda: len(given) >= before + 30, "writes before the next strike", bound_s=60)  # noqa: B023
            await nemesis(victim, schema_of(tmp_path))
            struck.append(len(given))
        before = len(given)
        await until(lambda: len(given) >= before + 30, "writes after the last strike", bound_s=60)
        done.set()

    await asyncio.gather(*(writer(n) for n in range(8)), strike())
    assert len(struck) == times
    for room in rooms:
        entries = await log(nodes[1], room)
        assert seqs(entries) == list(range(1, len(entries) + 1))
        there = {
            (room, entry.text if isinstance(entry, MessageCreated) else entry.by): entry.seq
            for entry in entries
            if isinstance(entry, MessageCreated | MemberJoined)
        }
        assert len(there) == len(entries) - 1, Counter(type(entry) for entry in entries)
        assert there == {key: seq for key, seq in given.items() if key[0] == room}
        assert (await nodes[0].room(room)).members == sum(isinstance(entry, MemberJoined) for entry in entries)


async def test_who_has_waited_as_long_as_his_patience_is_told_unavailable(victim, tmp_path):
    """For writing and for reading, what is under way and what waits behind it; then all works again."""
    async with store_at(victim, tmp_path, patience_s=1.0, timeout_s=1.0) as store:
        await make_room(store, ROOM, "alice")
        said = await say(store)
        await asyncio.to_thread(victim.stop)
        try:
            asked = [
                *(say(store, f"lost {n}") for n in range(30)),
                join(store, "bob"),
                store.mark_read(ROOM, "bob", 1),
                store.ping(),
                store.page(ROOM),
                *(store.entry(ROOM, n) for n in range(20)),
                store.rooms_of("alice"),
                store.member(ROOM, "carol"),
                store.heads([ROOM]),
            ]
            results = await asyncio.gather(*asked, return_exceptions=True)
        finally:
            await asyncio.to_thread(victim.start)
        assert {type(result) for result in results} == {Unavailable}

        async def works() -> bool:
            try:
                await store.ping()
            except Unavailable:
                return False
            return True

        for _ in range(20):
            if await works():
                break
        assert (await say(store, "found")).seq == said.seq + 1
        assert (await state(store, "bob")).unread == 2


async def test_a_server_that_says_nothing_any_more_is_noticed(victim, tmp_path):
    """Who waits for a paused server is told so; it does what it was asked when it goes on, at most once."""
    async with store_at(victim, tmp_path, patience_s=0.6, timeout_s=0.6) as store:
        await make_room(store, ROOM)
        await say(store)
        victim.pause()
        try:
            results = await asyncio.gather(
                say(store, "unheard", client_id="c1"), store.page(ROOM), react(store, 2), return_exceptions=True
            )
        finally:
            victim.resume()
        assert {type(result) for result in results} == {Unavailable}
    async with store_at(victim, tmp_path) as store:
        said = await say(store, "unheard", client_id="c1")
        entries = await log(store)
        assert seqs(entries) == list(range(1, len(entries) + 1))
        assert [entry.seq for entry in entries if getattr(entry, "text", "") == "unheard"] == [said.seq]


async def test_a_closed_store_has_done_what_it_was_given(victim, tmp_path):
    """Closing waits for it, also where the server has to come back first."""
    async with store_at(victim, tmp_path) as store:
        await make_room(store)
        await asyncio.to_thread(victim.stop)
        writing = [asyncio.create_task(say(store, f"said {n}")) for n in range(20)]
        await asyncio.sleep(0)
        starting = asyncio.create_task(asyncio.to_thread(victim.start))
    await starting
    assert [entry.seq for entry in await asyncio.gather(*writing)] == list(range(2, 22))
    async with store_at(victim, tmp_path) as store:
        assert len(await log(store)) == 21


async def test_what_waits_is_bounded(victim, tmp_path):
    """Beyond that, writes and reads are refused at once."""
    async with store_at(victim, tmp_path, max_pending=50) as store:
        await make_room(store)
        written = await asyncio.gather(*(say(store, f"said {n}") for n in range(60)), return_exceptions=True)
        assert [type(result) for result in written] == [MessageCreated] * 50 + [Unavailable] * 10
        read = await asyncio.gather(*(store.entry(ROOM, n % 7) for n in range(60)), return_exceptions=True)
        assert [isinstance(result, Unavailable) for result in read] == [False] * 50 + [True] * 10
        assert len(await log(store)) == 51
