"""A server that is told to go goes well: nobody is surprised, nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path

import pytest

from live import BOUND_S, ServerProcess, Wire, backend, token, until

DRAIN_S = 2.0


@pytest.fixture
async def draining(tmp_path: Path):
    """`hubbub serve` with a drain that is long enough to look at."""
    process = ServerProcess(tmp_path, "--drain-s", str(DRAIN_S))
    try:
        await process.start()
        yield process
    finally:
        await process.stop()


@pytest.fixture
async def lasting(tmp_path: Path):
    """`hubbub serve` with a drain that is longer than any wait of a test."""
    process = ServerProcess(tmp_path, "--drain-s", str(3 * BOUND_S))
    try:
        await process.start()
        yield process
    finally:
        await process.stop()


async def test_connections_are_told_and_closed_one_by_one(draining: ServerProcess) -> None:
    """SIGTERM sends every connection a notice, closes them with 1012 spread over the drain period, and exits 0."""
    wires = [await Wire.open(draining.ws_url, token(f"user-{n}")) for n in range(8)]
    draining.signal(signal.SIGTERM)
    began = time.monotonic()

    async def end(wire: Wire) -> tuple[int, float]:
        return await wire.closed(), time.monotonic() - began

    ends = await asyncio.gather(*[end(wire) for wire in wires])
    assert {code for code, _ in ends} == {1012}
    for wire in wires:
        (notice,) = [frame for frame in wire.frames if frame["type"] == "notice"]
        assert (notice["code"], notice["in_ms"]) == ("going_away", DRAIN_S * 1_000)
    times = sorted(at for _, at in ends)
    assert times[-1] - times[0] > DRAIN_S / 4, "they were all closed at once"
    assert await draining.ended() == 0


async def test_nobody_new_is_let_in(draining: ServerProcess) -> None:
    """While it drains, the server accepts no connection, and one that was open hears from /readyz that it goes."""
    async with await Wire.open(draining.ws_url, token("ann")) as wire, backend(draining.url) as http:
        assert (await http.get("/readyz")).status_code == 200
        draining.signal(signal.SIGTERM)
        await wire.wait_for("notice")
        with pytest.raises(OSError):
            await Wire.open(draining.ws_url, token("bob"))
    assert await draining.ended() == 0


async def test_what_was_sent_before_the_end_is_kept(draining: ServerProcess) -> None:
    """Every message that was acknowledged while the server drained is there after its restart."""
    async with await Wire.open(draining.ws_url, token("ann")) as wire:
        await wire.ok("create", kind="public", room="tea")

        async def send() -> None:
            for n in range(10_000):
                client_id = f"c{n}"
                message = {"action": "send", "ref": client_id, "room": "tea", "text": "hi", "client_id": client_id}
                await wire.socket.send(json.dumps(message))
                await asyncio.sleep(0.005)

        sending, closing = asyncio.create_task(send()), asyncio.create_task(wire.closed())
        try:
            await until(lambda: sum(frame["type"] == "ok" for frame in wire.frames) > 20, "acknowledgements")
            draining.signal(signal.SIGTERM)
            assert await closing == 1012
        finally:
            for task in (sending, closing):
                task.cancel()
            await asyncio.gather(sending, closing, return_exceptions=True)
        acknowledged = {frame["ref"]: frame["seq"] for frame in wire.frames if frame["type"] == "ok"}
    assert await draining.ended() == 0
    assert len(acknowledged) > 20
    await draining.start()
    async with await Wire.open(draining.ws_url, token("ann")) as wire:
        stored: dict[str, int] = {}
        after, more = 0, True
        while more:
            page = await wire.ok("history", room="tea", after=after, limit=200)
            stored |= {e["client_id"]: e["seq"] for e in page["entries"] if e["type"] == "message.created"}
            after, more = page["entries"][-1]["seq"], page["has_more"]
    assert acknowledged.items() <= stored.items()


async def test_a_second_signal_ends_it_at_once(lasting: ServerProcess) -> None:
    """A second signal does not wait for the drain, and its exit status is not 0."""
    async with await Wire.open(lasting.ws_url, token("ann")), await Wire.open(lasting.ws_url, token("bob")) as last:
        lasting.signal(signal.SIGTERM)
        await last.wait_for("notice")
        lasting.signal(signal.SIGTERM)
        assert await lasting.ended() == 128 + signal.SIGTERM


async def test_with_nobody_connected_it_ends_soon(lasting: ServerProcess) -> None:
    """A drain waits for connections, not for the clock; SIGINT ends the server as cleanly."""
    lasting.signal(signal.SIGINT)
    assert await lasting.ended() == 0
