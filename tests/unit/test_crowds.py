"""The clients that benches bring along do as clients do."""

from __future__ import annotations

import asyncio

from bench.crowd import client_frame
from bench.horde import Idler
from bench.quiet import QuietCrowd

PING, PONG = b"\x89\x00", client_frame(b"", 0xA)


class Written:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)


async def test_an_idler_answers_pings_and_takes_none_for_an_answer() -> None:
    """Also while it waits for an answer, which is what comes after."""
    idler, transport = Idler(), Written()
    idler.connection_made(transport)
    asked = asyncio.create_task(idler.ask(b"a question"))
    await asyncio.sleep(0)
    idler.data_received(PING)
    idler.data_received(b"an answer")
    assert await asked == b"an answer"
    idler.data_received(PING)
    assert transport.writes == [b"a question", PONG, PONG]
    assert idler.pings == 2


async def test_a_quiet_crowd_is_pinged_and_stays() -> None:
    """Every one of it within the time that a silence may last, whoever came and went before."""
    crowd = QuietCrowd()
    for _ in range(300):
        await crowd.come()
    for _ in range(100):
        await crowd.go()
        await crowd.come()
    for second in range(1, 43):
        crowd.now = float(second)
        crowd.hub.sweep()
        crowd.answer()
    assert len(crowd.hub) == 300
    assert {peer.wire.pings for peer in crowd.hub.peers()} == {1}  # type: ignore[attr-defined]  # a bench's socket
