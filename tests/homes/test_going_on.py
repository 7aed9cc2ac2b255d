"""Going on, in every home: when tokens run out, connections come to their end, and the home itself is started anew."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed

from homelab import MINUTES_S, Home, entry, fresh, heard, in_minutes, signal_of
from live import BOUND_S, Wire, until


async def closes(home: Home, wire: Wire) -> int:
    """The close code, once the connection ends; a minute's work is done meanwhile, as often as it takes."""
    ending = asyncio.create_task(home.closed(wire, MINUTES_S))
    try:
        while not ending.done():
            await home.minute()
            await asyncio.wait([ending], timeout=1.0)
    finally:
        ending.cancel()
        await asyncio.wait([ending])
    return ending.result()


async def test_a_connection_ends_with_its_token(home: Home) -> None:
    """When the token has run out the connection is closed with 4401."""
    wire = await home.connect(fresh("ann"), ttl_s=7)
    await wire.ok("sync")
    assert await closes(home, wire) == 4401


async def test_a_newer_token_keeps_it_going(home: Home) -> None:
    """`auth` with a newer token of the same user goes on; one of somebody else changes nothing."""
    user = fresh("ann")
    async with await home.connect(user, ttl_s=8) as wire:
        await wire.ok("sync")
        assert (await wire.ask("auth", token=home.token(fresh("eve"))))["type"] == "error"
        renewed = await wire.ok("auth", token=home.token(user, ttl_s=600))
        await asyncio.sleep(9)
        await home.minute()
        assert renewed["expires_at"] * 1_000 > (await wire.ok("ping"))["at"]


async def test_who_is_removed_from_the_token_hears_no_more(home: Home) -> None:
    """A newer token that does not grant a room ends listening to it, and a signal says so."""
    room, user = fresh("order"), fresh("ann")
    async with (
        await home.connect(user, rooms={room: "member"}) as wire,
        await home.connect(fresh("bob"), rooms={room: "member"}) as other,
    ):
        await wire.ok("sync")
        await other.ok("sync")
        first = await other.ok("send", room=room, text="heard")
        await entry(wire, room, first["seq"])
        await wire.ok("auth", token=home.token(user))
        await signal_of(wire, "room", room=room, joined=False)
        unheard = await other.ok("send", room=room, text="unheard")
        async with asyncio.timeout(BOUND_S):  # with many processes the newer token is known to all in a second
            while (await wire.ask("history", room=room)).get("code") != "not_found":
                await asyncio.sleep(0.2)
        assert unheard["seq"] not in [each["seq"] for each in heard(wire, room)]


async def test_what_a_newer_token_grants_is_there_with_the_next_sync(home: Home) -> None:
    """`auth` and then `sync`: the room that only the newer token has is among the rooms, and is listened to."""
    room, user = fresh("order"), fresh("ann")
    async with (
        await home.connect(user) as wire,
        await home.connect(fresh("bob"), rooms={room: "member"}) as other,
    ):
        await wire.ok("sync")
        await other.ok("sync")
        for n in range(8):
            await wire.socket.send(json.dumps({"action": "ping", "ref": f"p{n}"}))  # so that many processes know him
        await wire.ok("auth", token=home.token(user, rooms={room: "member"}))
        assert [each["room"] for each in (await wire.ok("sync"))["rooms"]] == [room]
        sent = await other.ok("send", room=room, text="welcome")
        assert (await entry(wire, room, sent["seq"]))["text"] == "welcome"


async def test_a_restart_loses_nothing(home: Home) -> None:
    """Connections are closed with 1012; what was acknowledged until then is there, and goes on from there."""
    room, ann, bob = fresh("tea"), fresh("ann"), fresh("bob")
    wires = [await home.connect(ann), await home.connect(bob)]
    await wires[0].ok("create", kind="public", room=room, members=[bob])
    epochs = [(await wire.ok("sync"))["epoch"] for wire in wires]
    seen = (await wires[0].ok("send", room=room, text="before"))["seq"]
    await entry(wires[1], room, seen)

    async def send() -> None:
        for n in range(10_000):
            ask = {"action": "send", "ref": f"s{n}", "room": room, "text": "hi", "client_id": f"c{n}"}
            await wires[0].socket.send(json.dumps(ask))
            await asyncio.sleep(0.05)

    ends = [asyncio.create_task(home.closed(wire)) for wire in wires]
    sending = asyncio.create_task(send())
    await until(lambda: sum(frame["type"] == "ok" for frame in wires[0].frames) > 5, "acknowledgements")
    await home.restart()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert await asyncio.wait_for(asyncio.gather(*ends), BOUND_S) == [1012, 1012]
    acknowledged = {frame["ref"]: frame["seq"] for frame in wires[0].frames if frame["type"] == "ok"}
    assert len(acknowledged) > 5
    async with await home.connect(ann) as one, await home.connect(bob) as two:
        synced = await two.ok("sync", epoch=epochs[1], rooms={room: seen})
        assert synced["reset"] == []
        entries = synced["entries"]
        assert [each["seq"] for each in entries] == list(range(seen + 1, seen + 1 + len(entries)))
        stored = {each["client_id"]: each["seq"] for each in entries}
        assert {f"c{ref[1:]}": seq for ref, seq in acknowledged.items()}.items() <= stored.items()
        again = await one.ok("send", room=room, text="again", client_id="c0")
        assert again["seq"] == stored["c0"]
        after = await one.ok("send", room=room, text="after")
        hearing = asyncio.create_task(entry(two, room, after["seq"], within_s=MINUTES_S))
        await in_minutes(home, hearing.done, "the entry")
        assert hearing.result()["text"] == "after"


@pytest.fixture(scope="module")
def short(home: Home) -> Iterator[Home]:
    """The home with connections that live for nine seconds, and for five without a message; it is as before later."""
    home.stop()
    home.start(lifetime_s="9", idle_s="5")
    yield home
    home.stop()
    home.start()


async def test_a_silent_connection_is_closed_and_one_that_asks_now_and_then_is_not(short: Home) -> None:
    """Idle for too long is 1001; clients are told to ask before API Gateway's ten minutes are over, and so are kept."""
    silent = await short.connect(fresh("ann"))
    assert (await silent.ok("sync")).get("heartbeat_ms", 0) < 600_000
    async with await short.connect(fresh("bob")) as talker:
        talking = asyncio.create_task(never_idle(talker))
        assert await short.closed(silent) == 1001
        await talker.ok("ping")
    await talking


async def never_idle(wire: Wire) -> None:
    """Ask the time twice a second, until the connection ends."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await wire.socket.send('{"action": "ping"}')
            await asyncio.sleep(0.5)


async def test_a_connection_lives_for_so_long(short: Home) -> None:
    """At the end of its lifetime a connection is closed with 1001; the next one goes on where it was."""
    room, bob = fresh("tea"), fresh("bob")
    async with await short.connect(bob) as first:
        await first.ok("create", kind="public", room=room)
        synced = await first.ok("sync")
        talking = asyncio.create_task(never_idle(first))
        assert await short.closed(first) == 1001
        await talking
    async with await short.connect(fresh("ann")) as ann:
        await ann.ok("join", room=room)
        sent = await ann.ok("send", room=room, text="meanwhile")
        async with await short.connect(bob) as second:
            seen = {room: synced["rooms"][0]["head"]}
            found = await second.ok("sync", epoch=synced["epoch"], rooms=seen)
            assert found["entries"][-1]["seq"] == sent["seq"]
