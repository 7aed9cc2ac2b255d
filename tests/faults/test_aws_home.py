"""What may befall the home on AWS: killed functions, events that come twice, a table that is not well.

In each test users talk through it; afterwards the log is complete, and everybody has all of it, in order.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest

from dynamolab import running
from homelab import Stack, entry, fresh, heard, staged
from homelab import stack as started
from hubbub.client import Client, connect
from hubbub.model import Entry, MessageCreated
from live import BOUND_S, Wire, until
from weather import Weather

QUICK: dict[str, Any] = {"backoff_base_s": 0.05, "backoff_cap_s": 0.5, "deadline_s": 120}


@pytest.fixture(scope="module")
def weather() -> Iterator[Weather]:
    """The way to the table."""
    with running("moto") as tables, Weather(tables.url) as weather:
        yield weather


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, weather: Weather) -> Iterator[Stack]:
    """The stack of deploy/sam whose table is there."""
    template = staged(tmp_path_factory.mktemp("staged")) / "sam" / "template.yaml"
    folder = tmp_path_factory.mktemp("run")
    with started("faults", template, folder, tables="moto", endpoints={"dynamodb": weather.url}) as home:
        yield home


@pytest.fixture(autouse=True)
def fair(weather: Weather) -> Iterator[None]:
    """Whatever a test has done to the weather ends with it."""
    yield
    weather.mood, weather.share = "fair", 1.0


@asynccontextmanager
async def listeners(home: Stack, room: str, count: int) -> AsyncIterator[list[Wire]]:
    """Connections that listen to a public room, each of a user of its own."""
    wires: list[Wire] = []
    try:
        for _ in range(count):
            wires.append(await home.connect(fresh("listener")))
            await wires[-1].ok("sync")
            await wires[-1].ok("subscribe", room=room)
        yield wires
    finally:
        await asyncio.gather(*(wire.socket.close() for wire in wires))


def seqs(wire: Wire, room: str) -> list[int]:
    """The seqs of a room as a client takes them: what is not above the last one is dropped."""
    taken: list[int] = []
    for each in heard(wire, room):
        if not taken or each["seq"] > taken[-1]:
            taken.append(each["seq"])
    return taken


async def has_all(home: Stack, wire: Wire, room: str, first: int, last: int, *, bound_s: float = 3 * BOUND_S) -> None:
    """Wait until a connection has heard these entries, in order and without a hole; the sweeper runs meanwhile."""
    deadline = time.monotonic() + bound_s
    wanted = list(range(first, last + 1))
    while [seq for seq in seqs(wire, room) if seq >= first] != wanted:
        assert time.monotonic() < deadline, (seqs(wire, room), wanted)
        try:
            async with asyncio.timeout(1.0):
                wire.frames.append(json.loads(await wire.socket.recv()))
        except TimeoutError:
            await home.minute()


def environments(home: Stack, suffix: str) -> list[psutil.Process]:
    """The processes in which a function runs."""
    name = home.function(suffix)
    found = []
    for process in psutil.Process(home.pid).children(recursive=True):
        try:
            if process.environ().get("AWS_LAMBDA_FUNCTION_NAME") == name:
                found.append(process)
        except psutil.Error:
            continue
    return found


async def test_a_broadcaster_that_is_killed_loses_nothing(home: Stack) -> None:
    """Killed at any moment, again and again, what was written is delivered in order by whoever comes next."""
    room, chance = fresh("tea"), random.Random(4)
    async with await home.connect(fresh("ann")) as ann:
        await ann.ok("create", kind="public", room=room)
        async with listeners(home, room, 12) as wires:
            first = (await ann.ok("send", room=room, text="first"))["seq"]
            await entry(wires[-1], room, first)
            last = first
            killed = home.said.count("signal: killed")
            deadline = time.monotonic() + 3 * BOUND_S
            while home.said.count("signal: killed") < killed + 4:
                assert time.monotonic() < deadline, "no broadcast was hit"
                last = (await ann.ok("send", room=room, text="again"))["seq"]
                await asyncio.sleep(chance.uniform(0.0, 0.08))
                for process in environments(home, "-broadcaster"):
                    process.kill()
            last = (await ann.ok("send", room=room, text="last"))["seq"]
            for wire in wires:
                await has_all(home, wire, room, first, last)
            page = await ann.ok("history", room=room, after=first - 1, limit=200)
            assert [each["seq"] for each in page["entries"]] == list(range(first, last + 1))


async def test_an_event_that_comes_twice_is_heard_once(home: Stack) -> None:
    """The same job again, later, and several times at once, changes nothing for those who listen."""
    room = fresh("tea")
    async with await home.connect(fresh("ann")) as ann:
        await ann.ok("create", kind="public", room=room)
        async with listeners(home, room, 3) as wires:
            one = (await ann.ok("send", room=room, text="one"))["seq"]
            frames = [await entry(wire, room, one) for wire in wires]
            two = (await ann.ok("send", room=room, text="two"))["seq"]
            await entry(wires[0], room, two)
            job = {"job": "deliver", "id": str(uuid.uuid4()), "room": room, "seq": one, "frame": json.dumps(frames[0])}
            again = [asyncio.to_thread(invoke, home, job) for _ in range(4)]
            await asyncio.gather(*again)
            three = (await ann.ok("send", room=room, text="three"))["seq"]
            for wire in wires:
                await entry(wire, room, three)
                assert [each["seq"] for each in heard(wire, room)] == [one, two, three]


def invoke(home: Stack, job: dict[str, Any]) -> None:
    """Have the broadcaster do a job."""
    client = home.aws("lambda")
    try:
        answer = client.invoke(FunctionName=home.function("-broadcaster"), Payload=json.dumps(job).encode())
        assert "FunctionError" not in answer, answer["Payload"].read()
    finally:
        client.close()


def said(entries: list[Entry]) -> list[str]:
    """What was said."""
    return [each.text or "" for each in entries if isinstance(each, MessageCreated)]


async def collect(chat: Client, room: str, into: list[Entry]) -> None:
    """Keep what a reader of the room gets."""
    async for each in chat.room(room, after=0):
        into.append(each)  # noqa: PERF401  the test looks at the list meanwhile


@pytest.mark.parametrize(
    ("mood", "share", "length_s"),
    [("throttled", 0.5, 6.0), ("throttled", 1.0, 4.0), ("failing", 0.3, 4.0), ("lost", 0.2, 4.0), ("away", 1.0, 4.0)],
)
async def test_a_table_that_is_not_well_for_a_while_costs_time_only(
    home: Stack, weather: Weather, mood: str, share: float, length_s: float
) -> None:
    """Throttled, failing, unanswered or away: what clients send meanwhile is stored once, and read once by all."""
    room, ann, bob = fresh("tea"), fresh("ann"), fresh("bob")
    async with (
        connect(home.ws_url, token=lambda: home.token(ann), **QUICK) as alice,
        connect(home.ws_url, token=lambda: home.token(bob), **QUICK) as other,
    ):
        await alice.create("public", room=room, members=[bob])
        await until(lambda: room in other.rooms, "bob's room")
        hearing: list[Entry] = []
        reading = asyncio.create_task(collect(other, room, hearing))
        await alice.send(room, "before")
        met = weather.met[mood]
        weather.share, weather.mood = share, mood
        sends = [asyncio.create_task(chat.send(room, f"{n}")) for n, chat in enumerate([alice, other] * 8)]
        await asyncio.sleep(length_s)
        weather.mood = "fair"
        assert weather.met[mood] > met
        await asyncio.wait_for(asyncio.gather(*sends), 4 * BOUND_S)
        last = await alice.send(room, "after")
        await until(lambda: bool(hearing) and hearing[-1].seq == last.seq, "the end", bound_s=4 * BOUND_S)
        assert [each.seq for each in hearing] == list(range(1, last.seq + 1))
        texts = said(hearing)
        assert (texts[0], texts[-1]) == ("before", "after")
        assert sorted(texts[1:-1], key=int) == [str(n) for n in range(16)]
        reading.cancel()
        await asyncio.wait([reading])


async def test_a_table_that_is_missing_is_said_and_not_half_done(home: Stack, weather: Weather) -> None:
    """While there is no table nobody gets in, and who is in is told to try again later; then all goes on."""
    room = fresh("tea")
    async with await home.connect(fresh("ann")) as ann:
        await ann.ok("create", kind="public", room=room)
        before = (await ann.ok("send", room=room, text="before"))["seq"]
        weather.mood = "missing"
        told = await ann.ask("send", room=room, text="meanwhile", client_id="m")
        assert (told["type"], told["code"], told["retry"]) == ("error", "unavailable", True)
        weather.mood = "fair"
        again = await ann.ok("send", room=room, text="meanwhile", client_id="m")
        assert again["seq"] == before + 1


async def test_who_comes_and_goes_during_broadcasts_disturbs_nobody(home: Stack) -> None:
    """While others connect, listen, and are cut off without a word, those who stay hear everything once."""
    room = fresh("tea")

    async def pass_by() -> None:
        wire = await home.connect(fresh("passer-by"))
        await wire.ok("subscribe", room=room)
        await wire.wait_for("message.created")
        wire.socket.transport.abort()

    async with await home.connect(fresh("ann")) as ann:
        await ann.ok("create", kind="public", room=room)
        async with listeners(home, room, 3) as wires:
            passing = [asyncio.create_task(pass_by()) for _ in range(6)]
            first = last = (await ann.ok("send", room=room, text="first"))["seq"]
            deadline = time.monotonic() + 3 * BOUND_S
            while not all(each.done() for each in passing):
                assert time.monotonic() < deadline
                last = (await ann.ok("send", room=room, text="on and on"))["seq"]
            await asyncio.gather(*passing)
            for wire in wires:
                await entry(wire, room, last)
                assert [each["seq"] for each in heard(wire, room) if each["seq"] >= first] == list(
                    range(first, last + 1)
                )


async def test_a_connection_whose_items_are_gone_is_told_so_and_comes_back(home: Stack) -> None:
    """A connection that the table has forgotten is closed when it asks to listen, and a new one has all it missed."""
    room, bob = fresh("tea"), fresh("bob")
    async with await home.connect(fresh("ann")) as ann, await home.connect(bob) as old:
        await ann.ok("create", kind="public", room=room, members=[bob])
        synced = await old.ok("sync")
        await asyncio.to_thread(forget, home, synced["connection_id"])
        await asyncio.sleep(1.2)  # for so long a process goes by what it knows of a connection
        missed = (await ann.ok("send", room=room, text="missed"))["seq"]
        await old.socket.send('{"action": "sync", "ref": "s"}')
        assert await home.closed(old) == 4401
        async with await home.connect(bob) as new:
            again = await new.ok("sync", epoch=synced["epoch"], rooms={room: missed - 1})
            assert [each["seq"] for each in again["entries"]] == [missed]


def forget(home: Stack, connection: str) -> None:
    """Delete all items of a connection, as the table does when their time is over."""
    client = home.aws("dynamodb")
    try:
        (name,) = client.list_tables()["TableNames"]
        for page in client.get_paginator("scan").paginate(TableName=name):
            for item in page["Items"]:
                pk, sk = item["pk"]["S"], item["sk"]["S"]
                if connection in pk or connection in sk:
                    client.delete_item(TableName=name, Key={"pk": {"S": pk}, "sk": {"S": sk}})
    finally:
        client.close()
