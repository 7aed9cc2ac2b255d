"""A private room whose host lets guests in and puts them out while everything breaks: who hears it in the end.

What they hear meanwhile has holes, as it should, and is recorded in a history of its own that nobody checks. In the
end, those hear a word in the room who are its members, and nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

from history.asking import InDoubtError, RefusedError
from history.record import Heard, Recorder
from history.wire import WireClient

DEN = "den"
HOST = "zoe"
GUESTS = ("ned", "oda", "pip", "quin", "ray", "sue", "tom", "una")
AGAIN_S = 0.3
LISTEN_S = 1.0
"""How long it is waited for who might hear what he may not."""


class Guest(WireClient):
    """One connection of a guest.

    Attributes:
        heard: the seqs of what it was given.

    """

    def __init__(self, name: str, user: str, **options: Any) -> None:
        super().__init__(name, user, rooms=[DEN], **options)
        self.heard: set[int] = set()

    def _saw(self, entry: dict[str, Any], how: str) -> None:
        self.heard.add(entry["seq"])
        super()._saw(entry, how)


class Den:
    """The room, its host and guests.

    Args:
        url: of the balancer.
        recorder: of their own history.
        seed: of what is left to chance.
        pause_s: between two things that the host does, on average.

    Attributes:
        done: how often somebody was let in or put out.

    """

    def __init__(self, url: str, recorder: Recorder, *, seed: int, pause_s: float = 0.3) -> None:
        self._chance = random.Random(f"den {seed}")
        self._pause_s = pause_s
        self.done = 0
        options: dict[str, Any] = {"url": url, "recorder": recorder, "chance": self._chance}
        self._hosts = [WireClient(f"host-{n}", HOST, rooms=[DEN], **options) for n in (1, 2)]
        self._guests = [Guest(f"{user}-{n}", user, **options) for n, user in enumerate(GUESTS)]
        self._tasks: list[asyncio.Task[None]] = []
        self._churning: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()

    def begin(self) -> None:
        """Let all connect, and the host begin."""
        self._tasks = [asyncio.create_task(client.run()) for client in (*self._hosts, *self._guests)]
        self._churning = asyncio.create_task(self._churn())

    async def finish(self, within_s: float) -> None:
        """Let the host end what he is about."""
        self._stop.set()
        assert self._churning is not None
        async with asyncio.timeout(within_s):
            await self._churning

    def check(self) -> None:
        """Raise what ended a client that should not have ended."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def listen(self, recorder: Recorder, members: set[str], within_s: float) -> None:
        """Say a word in the room, and record who hears it; members are given the time to."""
        seq = (await self._ask("send", text="who hears this?", client_id="who"))["seq"]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while any(seq not in guest.heard for guest in self._guests if guest.user in members):
                    await asyncio.sleep(AGAIN_S)
        await asyncio.sleep(LISTEN_S)
        for guest in self._guests:
            may, does = guest.user in members, seq in guest.heard
            recorder.write(Heard(t=recorder.now(), client=guest.name, room=DEN, seq=seq, may=may, does=does))

    async def end(self) -> None:
        """Disconnect all."""
        tasks = [*self._tasks, *([self._churning] if self._churning else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _churn(self) -> None:
        """Let in and put out one guest after the other, by either of the host's connections."""
        members: set[str] = set()
        while not self._stop.is_set():
            user = self._chance.choice(GUESTS)
            for _ in range(self._chance.randint(1, 3)):  # by two nodes, perhaps, which are not heard of in this order
                await self._ask("kick" if user in members else "invite", user=user)
                members ^= {user}
                self.done += 1
            if self._chance.random() < 0.3:
                await self._ask("send", text="a word among us")
            await asyncio.sleep(self._chance.random() * 2 * self._pause_s)

    async def _ask(self, action: str, **fields: Any) -> dict[str, Any]:
        """Ask until it is done."""
        while True:
            try:
                return await self._chance.choice(self._hosts).attempt(action, DEN, fields)
            except RefusedError as error:
                if not error.retry:
                    raise
            except InDoubtError:
                pass
            await asyncio.sleep(AGAIN_S)
