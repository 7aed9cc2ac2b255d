"""Killed at any moment, the server loses nothing that it has acknowledged."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from live import ServerProcess, Wire, token, until

ROUNDS = 20
ROOMS = ("tea", "milk", "sugar")
WRITERS_PER_ROOM = 2
IN_FLIGHT = 8
"""Messages that a writer sends without waiting for the acknowledgement of the first."""


class Writer:
    """A user who sends numbered messages to one room, several at a time, and keeps account of the answers.

    Attributes:
        acknowledged: the seq of each client_id that was acknowledged.
        pending: the texts of those that were sent and not acknowledged, by client_id.

    """

    def __init__(self, room: str, user: str) -> None:
        self.room = room
        self.user = user
        self.acknowledged: dict[str, int] = {}
        self.pending: dict[str, str] = {}
        self.sent = 0

    async def write(self, ws_url: str) -> None:
        """Send again what is pending, then go on until the server is gone."""
        window = asyncio.Semaphore(IN_FLIGHT)
        async with await Wire.open(ws_url, token(self.user)) as wire:
            answers = asyncio.create_task(self._take_answers(wire, window))
            try:
                for client_id in list(self.pending):
                    await self._send(wire, window, client_id)
                while True:
                    client_id = f"{self.user}-{self.sent}"
                    self.sent += 1
                    self.pending[client_id] = f"{self.user} says {client_id}"
                    await self._send(wire, window, client_id)
            except ConnectionClosed:
                pass  # the kill
            finally:
                await answers

    async def _send(self, wire: Wire, window: asyncio.Semaphore, client_id: str) -> None:
        await window.acquire()
        text = self.pending[client_id]
        message = {"action": "send", "ref": client_id, "room": self.room, "text": text, "client_id": client_id}
        await wire.socket.send(json.dumps(message))

    async def _take_answers(self, wire: Wire, window: asyncio.Semaphore) -> None:
        try:
            async for raw in wire.socket:
                frame: dict[str, Any] = json.loads(raw)
                if "ref" not in frame:
                    continue
                assert frame["type"] == "ok", frame
                self.acknowledged[frame["ref"]] = frame["seq"]
                self.pending.pop(frame["ref"])
                window.release()
        except ConnectionClosed:
            pass  # the kill
        finally:
            for _ in range(IN_FLIGHT):
                window.release()  # whoever waits for an answer finds the connection closed


async def read_log(wire: Wire, room: str) -> list[dict[str, Any]]:
    """A room's whole log."""
    entries: list[dict[str, Any]] = []
    more = True
    while more:
        page = await wire.ok("history", room=room, after=len(entries), limit=200)
        entries += page["entries"]
        more = page["has_more"]
    return entries


async def check(ws_url: str, writers: list[Writer]) -> tuple[int, int]:
    """Compare the logs with what the writers know.

    Returns how many messages there are, and how many of them nobody was told of.
    """
    messages = untold = 0
    async with await Wire.open(ws_url, token("auditor")) as wire:
        for room in ROOMS:
            entries = await read_log(wire, room)
            assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1)), f"{room} has gaps"
            said = [entry for entry in entries if entry["type"] == "message.created"]
            messages += len(said)
            places = {entry["client_id"]: entry["seq"] for entry in said}
            assert len(places) == len(said), f"a message is in {room} twice"
            for writer in writers:
                if writer.room == room:
                    lost = writer.acknowledged.items() - places.items()
                    assert not lost, f"acknowledged and not there: {sorted(lost)[:5]}"
                    untold += len(writer.pending.keys() & places.keys())
            for entry in said:
                assert entry["text"] == f"{entry['by']} says {entry['client_id']}"
    return messages, untold


@pytest.mark.timeout(170)
async def test_kill_minus_nine_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """After each of 20 kills under load every acknowledged message is there, once, with seqs free of gaps.

    What was not acknowledged is sent again under its client_id after the restart, and nothing is there twice.
    """
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    print(f"seed {seed}")  # noqa: T201  pytest shows it when the test fails
    server = ServerProcess(tmp_path, HUBBUB_RATE="0", HUBBUB_USER_RATE="0")
    writers = [Writer(room, f"{room}-{n}") for room in ROOMS for n in range(WRITERS_PER_ROOM)]
    starts: list[float] = []
    resent = untold = messages = 0
    try:
        await server.start()
        async with await Wire.open(server.ws_url, token("host")) as wire:
            for room in ROOMS:
                members = [writer.user for writer in writers if writer.room == room]
                await wire.ok("create", kind="public", room=room, members=[*members, "auditor"])
        for _ in range(ROUNDS):
            before = sum(len(writer.acknowledged) for writer in writers)
            wanted = before + chance.randint(1, 150)
            resent += sum(len(writer.pending) for writer in writers)
            writing = [asyncio.create_task(writer.write(server.ws_url)) for writer in writers]
            try:
                await until(
                    lambda wanted=wanted, writing=writing: (  # type: ignore[misc]  mypy knows no lambda's defaults
                        sum(len(writer.acknowledged) for writer in writers) >= wanted
                        or any(task.done() for task in writing)
                    ),
                    "acknowledgements",
                )
                assert not any(task.done() for task in writing), "a writer ended before the kill"
                await asyncio.sleep(chance.random() * 0.02)  # not a wait for anything: the moment of the kill
                server.signal(signal.SIGKILL)
                assert await server.ended() == -signal.SIGKILL
            finally:
                for task in writing:
                    if server.process.returncode is None:
                        task.cancel()
                outcomes = await asyncio.gather(*writing, return_exceptions=True)
            assert [outcome for outcome in outcomes if outcome is not None] == []
            await server.start()
            starts.append(server.started_in_s)
            messages, untold_now = await check(server.ws_url, writers)
            untold += untold_now
    finally:
        await server.stop()
    assert resent, "no kill hit a message under way: this showed less than it claims"
    starts.sort()
    print(f"{messages} messages, {resent} sent again, {untold} of them stored already")  # noqa: T201
    print(f"median start {starts[len(starts) // 2]:.2f} s")  # noqa: T201
