"""What the clients do while the cluster is broken: several users, some of them twice, write, read and reconnect."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import deque
from collections.abc import Sequence
from typing import Any

from history.asking import Client, InDoubtError, RefusedError
from history.library import LibraryClient
from history.record import Answered, Asked, Present, Recorder
from history.wire import WireClient

ROOMS = ("tea", "milk", "sugar")
USERS = ("ann", "bob", "cyd", "dee")
SLEEPER = "eve"
"""Who is away most of the time, and has missed much each time she comes back."""

AWAY_S = 40.0
"""How long she is away at most."""

LATECOMERS = ("fay", "gus", "hal")
"""Who come when all is over, and read everything from the beginning."""

REPEATABLE = frozenset(("send", "react", "unreact", "delete", "read"))
"""What can be asked again when nobody knows what has become of it; an edit cannot."""

MIX = {"send": 60, "again": 5, "edit": 8, "delete": 4, "react": 8, "unreact": 4, "read": 6, "history": 5}
"""How often a client does what, in hundredths; `again` sends a message that was acknowledged once more."""

REMEMBERED = 40
"""How many of its own last messages a client may edit, delete or send again."""

AGAIN_S = 0.3
"""How long until something that was refused for now, or is in doubt, is asked again."""

WITHIN_S = 20.0
"""How long a client's attempt may take before it is another's turn."""

PAGE = 50


class Writer:
    """Lets a client do one thing after the other.

    Args:
        client: so.
        number: of this writer, of which a client may have several.
        recorder: the history.
        chance: what is left to it.
        pause_s: between two things, on average.

    Attributes:
        done: how many things came to an end.

    """

    def __init__(
        self, client: Client, number: int, *, recorder: Recorder, chance: random.Random, pause_s: float
    ) -> None:
        self.client = client
        self.done = 0
        self._name = f"{client.name}.{number}"
        self._recorder = recorder
        self._chance = chance
        self._pause_s = pause_s
        self._said: deque[tuple[str, int, dict[str, Any]]] = deque(maxlen=REMEMBERED)  # room, seq, fields of a send
        self._reactions: deque[tuple[str, int, str]] = deque(maxlen=REMEMBERED)
        self._words = 0

    def __repr__(self) -> str:
        return f"<Writer {self._name}, {self.done} done>"

    async def run(self, stop: asyncio.Event, give_up: asyncio.Event) -> None:
        """Write until `stop`; finish what is under way until `give_up`."""
        while not stop.is_set():
            await asyncio.sleep(self._chance.random() * 2 * self._pause_s)
            action = self._chance.choices(list(MIX), list(MIX.values()))[0]
            room = self._chance.choice(ROOMS)
            await self._do(action, room, give_up)
            self.done += 1

    async def _do(self, action: str, room: str, give_up: asyncio.Event) -> None:
        """One thing of a kind, or a message if there is nothing that it could be done to."""
        position = self.client.position(room)
        if action == "history":
            await self._look(room, max(0, position - self._chance.randrange(PAGE)))
        elif action == "read" and position:
            await self._perform("read", room, {"seq": self._chance.randint(max(1, position - 20), position)}, give_up)
        elif action == "again" and self._said:
            there, _, fields = self._chance.choice(self._said)
            await self._perform("send", there, fields, give_up)
        elif action in ("edit", "delete") and len(self._said) > 1:
            there, target, _ = self._said.popleft()  # so nothing is edited or deleted twice, and nothing edited deleted
            fields = {"target": target} | ({"text": self._next("edits")} if action == "edit" else {})
            await self._perform(action, there, fields, give_up)
        elif action == "react" and self._said:
            there, target, _ = self._chance.choice(self._said)
            reaction = self._next("r")
            if await self._perform("react", there, {"target": target, "reaction": reaction}, give_up) is not None:
                self._reactions.append((there, target, reaction))
        elif action == "unreact" and self._reactions:
            there, target, reaction = self._reactions.popleft()
            await self._perform("unreact", there, {"target": target, "reaction": reaction}, give_up)
        else:
            client_id = self._next("says")
            said = {"text": f"{client_id} in {room}", "client_id": client_id}
            result = await self._perform("send", room, said, give_up)
            if result is not None:
                self._said.append((room, result["seq"], said))

    def _next(self, word: str) -> str:
        self._words += 1
        return f"{self._name} {word} {self._words}"

    async def _look(self, room: str, after: int) -> None:
        try:
            async with asyncio.timeout(WITHIN_S):
                await self.client.attempt("history", room, {"after": after, "limit": PAGE})
        except (InDoubtError, RefusedError, TimeoutError):
            pass  # a reading that was not answered shows nothing

    async def _perform(
        self, action: str, room: str, fields: dict[str, Any], give_up: asyncio.Event
    ) -> dict[str, Any] | None:
        """Ask until it is known what has become of it, as far as that may be asked again; None if it never was."""
        op = self._recorder.op()
        now = self._recorder.now()
        user = self.client.user
        asked = Asked(t=now, client=self.client.name, user=user, op=op, action=action, room=room, fields=fields)
        self._recorder.write(asked)
        tries, outcome, result = 0, "in doubt", dict[str, Any]()
        while outcome == "in doubt" and not give_up.is_set():
            tries += 1
            try:
                async with asyncio.timeout(WITHIN_S):
                    result = await self.client.attempt(action, room, fields)
                outcome = "ok"
            except RefusedError as error:
                outcome = "in doubt" if error.retry else "refused"
                result = {"code": error.code}
            except (InDoubtError, TimeoutError):
                pass
            if outcome == "in doubt":
                if action not in REPEATABLE:
                    break
                await asyncio.sleep(AGAIN_S)
        if isinstance(self.client, LibraryClient):
            tries = 0  # it tries again by itself, and does not say how often
        result = {name: value for name, value in result.items() if name not in ("type", "ref", "room")}
        self._recorder.write(
            Answered(
                t=self._recorder.now(), client=self.client.name, op=op, outcome=outcome, result=result, tries=tries
            )
        )
        return result if outcome == "ok" else None


class Crowd:
    """All clients and their writers.

    Args:
        url: of the balancer.
        recorder: the history.
        seed: of all that is left to chance.
        pause_s: between two things that a writer does, on average.
        break_s: between two connections that clients break off by themselves.

    Attributes:
        clients: they.

    """

    def __init__(self, url: str, recorder: Recorder, *, seed: int, pause_s: float = 0.3, break_s: float = 3.0) -> None:
        self._chance = random.Random(f"crowd {seed}")
        self._recorder = recorder
        self._break_s = break_s
        self._url = url
        self._wires = [self._wire(f"wire-{n}", user) for n, user in enumerate((*USERS, *USERS[:2]), 1)]
        self._sleeper = self._wire("sleeper", SLEEPER, back_s=AWAY_S)
        libraries = [
            LibraryClient(f"library-{n}", user, rooms=list(ROOMS), url=url, recorder=recorder)
            for n, user in enumerate(USERS[1:], 1)
        ]
        self.clients: list[WireClient | LibraryClient] = [*self._wires, *libraries, self._sleeper]
        self.writers = [
            Writer(client, number, recorder=recorder, chance=self._chance, pause_s=pause_s)
            for client in (*self._wires, *libraries)
            for number in range(2 if client is self._wires[0] else 1)
        ]
        self._stop = asyncio.Event()
        self._give_up = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by the names of clients
        self._writing: list[asyncio.Task[None]] = []

    def _wire(self, name: str, user: str, **options: float) -> WireClient:
        rooms, chance = list(ROOMS), self._chance
        return WireClient(name, user, rooms=rooms, url=self._url, recorder=self._recorder, chance=chance, **options)

    def begin(self) -> None:
        """Let all connect and write."""
        self._tasks = {client.name: asyncio.create_task(client.run()) for client in self.clients}
        self._tasks[""] = asyncio.create_task(self._break_off())
        self._writing = [asyncio.create_task(writer.run(self._stop, self._give_up)) for writer in self.writers]

    async def finish_writing(self, within_s: float) -> int:
        """Begin nothing more, and wait for what is under way; returns how much had to be given up."""
        self._stop.set()
        self._sleeper.wake()
        _, late = await asyncio.wait(self._writing, timeout=within_s)
        self._give_up.set()
        await asyncio.wait(self._writing, timeout=2 * WITHIN_S)
        for task in self._writing:
            task.result()
        return len(late)

    def arrive(self) -> None:
        """Let those come who were never there before."""
        late = [self._wire(f"late-{n}", user) for n, user in enumerate(LATECOMERS, 1)]
        self.clients += late
        self._tasks |= {client.name: asyncio.create_task(client.run()) for client in late}

    async def leave(self, user: str) -> None:
        """Let all of a user's clients go."""
        gone = [client.name for client in self.clients if client.user == user]
        self.clients = [client for client in self.clients if client.user != user]
        tasks = [self._tasks.pop(name) for name in gone]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def presence(self, within_s: float) -> None:
        """Ask all who is online until all are told what is so, or the time is over; record what they are told then."""
        online = sorted({client.user for client in self.clients})
        told: dict[tuple[str, str], list[str]] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not told or any(them != online for them in told.values()):
                    for client, room in itertools.product(self.clients, ROOMS):
                        with contextlib.suppress(InDoubtError, RefusedError):
                            answer = await client.attempt("presence", room, {})
                            told[client.name, room] = sorted(answer["online"])
                    await asyncio.sleep(AGAIN_S)
        for (name, room), them in told.items():
            event = Present(t=self._recorder.now(), client=name, room=room, told=them, online=online)
            self._recorder.write(event)

    def check(self) -> None:
        """Raise what ended a client that should not have ended."""
        for task in (*self._tasks.values(), *self._writing):
            if task.done() and not task.cancelled():
                task.result()

    def lacking(self, heads: dict[str, int]) -> dict[str, dict[str, int]]:
        """Where the views of clients end that do not reach these heads."""
        views = {client.name: {room: client.position(room) for room in heads} for client in self.clients}
        return {name: view for name, view in views.items() if any(view[room] < heads[room] for room in heads)}

    async def end(self) -> None:
        """Disconnect all."""
        tasks = [*self._tasks.values(), *self._writing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _break_off(self) -> None:
        while not self._stop.is_set():
            await asyncio.sleep(self._chance.random() * 2 * self._break_s)
            self._chance.choice(self._wires).break_off()
            self._sleeper.break_off()


def users() -> Sequence[str]:
    """Who is to be a member of the rooms."""
    return (*USERS, SLEEPER, *LATECOMERS)
