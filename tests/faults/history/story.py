"""Histories of a chat that does everything right, made up to try the checker on: to be believed, or spoilt first."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

from history.record import (
    Answered,
    AnyEvent,
    Asked,
    Content,
    Followed,
    Known,
    Log,
    Lost,
    Paged,
    Quiet,
    Saw,
    Standing,
    Synced,
)

CLIENTS = {"wire-1": "ann", "wire-2": "ann", "wire-3": "bob"}
STREAM = "library-1"
ROOMS = ("tea", "milk")


class Story:
    """A chat in memory, and what happens in it.

    Args:
        seed: of what is left to chance.

    Attributes:
        events: what has happened.
        logs: of each room, all entries.

    """

    def __init__(self, seed: int = 1) -> None:
        self._chance = random.Random(seed)
        self.events: list[AnyEvent] = []
        self.logs: dict[str, list[Content]] = {room: [] for room in ROOMS}
        self._t = 0.0
        self._ops = 0
        self._numbers: dict[str, int] = {}
        self._marks: dict[tuple[str, str], int] = defaultdict(int)
        self._seen: dict[tuple[str, str], int] = defaultdict(int)
        self._connections: dict[str, int] = defaultdict(int)
        for room in ROOMS:
            self._append(room, {"type": "room.updated", "by": "host"})
        for client in CLIENTS:
            self.reconnect(client)
        self._happen(Followed(t=self._now(), client=STREAM, rooms=list(ROOMS)))

    def _now(self) -> float:
        self._t = round(self._t + 0.001, 6)
        return self._t

    def _happen(self, event: AnyEvent) -> None:
        self.events.append(event)

    def _append(self, room: str, entry: Content) -> Content:
        seq = len(self.logs[room]) + 1
        stored = {"room": room, "seq": seq, "id": f"{room}-{seq}", "at": round(self._t * 1_000), **entry}
        self.logs[room].append(stored)
        return stored

    def _number(self, entry: Content) -> int:
        key = repr(sorted(entry.items()))
        if key not in self._numbers:
            self._numbers[key] = len(self._numbers)
            self._happen(Known(t=self._now(), number=self._numbers[key], entry=dict(entry)))
        return self._numbers[key]

    # What clients do

    def ask(self, client: str, action: str, room: str, fields: dict[str, Any]) -> int:
        """Begin to ask for something; returns the number of it."""
        self._ops += 1
        user = CLIENTS[client]
        self._happen(
            Asked(t=self._now(), client=client, user=user, op=self._ops, action=action, room=room, fields=fields)
        )
        return self._ops

    def answer(self, client: str, op: int, outcome: str = "ok", **result: Any) -> None:
        """What has become of it."""
        self._happen(Answered(t=self._now(), client=client, op=op, outcome=outcome, result=result))

    def send(self, client: str, room: str, fate: str = "ok") -> None:
        """A message: acknowledged; or in doubt and `stored`, or not (`dropped`); or `refused`."""
        fields = {"text": f"word {self._ops + 1}", "client_id": f"id {self._ops + 1}"}
        op = self.ask(client, "send", room, fields)
        if fate in ("ok", "stored"):
            entry = self._append(room, {"type": "message.created", "by": CLIENTS[client], **fields})
            place = room, CLIENTS[client]
            self._marks[place] = max(self._marks[place], entry["seq"])
        if fate == "ok":
            self.answer(client, op, seq=entry["seq"], id=entry["id"], at=entry["at"], client_id=fields["client_id"])
        else:
            self.answer(client, op, "refused" if fate == "refused" else "in doubt")

    def again(self, client: str, room: str) -> None:
        """An acknowledged message of his once more."""
        own = self._own(client, room)
        if own is not None:
            op = self.ask(client, "send", room, {"text": own["text"], "client_id": own["client_id"]})
            self.answer(client, op, seq=own["seq"], id=own["id"], at=own["at"], client_id=own["client_id"])

    def edit(self, client: str, room: str) -> None:
        """Other words for a message of his."""
        own = self._own(client, room)
        if own is not None:
            fields = {"target": own["seq"], "text": f"edit {self._ops + 1}"}
            op = self.ask(client, "edit", room, fields)
            entry = self._append(room, {"type": "message.edited", "by": CLIENTS[client], **fields})
            self.answer(client, op, seq=entry["seq"])

    def delete(self, client: str, room: str) -> None:
        """A message of his is no more; not one that was edited, as edits are known by their words."""
        own = self._own(client, room)
        if own is not None and not any(entry.get("target") == own["seq"] for entry in self.logs[room]):
            op = self.ask(client, "delete", room, {"target": own["seq"]})
            entry = self._append(room, {"type": "message.deleted", "by": CLIENTS[client], "target": own["seq"]})
            rest = {name: value for name, value in own.items() if name != "text"}
            self.logs[room][own["seq"] - 1] = {**rest, "deleted": True}
            self.answer(client, op, seq=entry["seq"])

    def read(self, client: str, room: str) -> None:
        """His mark moves somewhere up to where he stands, if it is not there yet."""
        if position := self._seen[client, room]:
            seq = self._chance.randint(1, position)
            op = self.ask(client, "read", room, {"seq": seq})
            place = room, CLIENTS[client]
            self._marks[place] = max(self._marks[place], seq)
            self.answer(client, op)

    def hear(self, client: str, room: str) -> None:
        """The next entry comes live, if there is one."""
        position = self._seen[client, room]
        if position < len(self.logs[room]):
            how = "stream" if client == STREAM else "live"
            self._see(client, self.logs[room][position], how)

    def page(self, client: str, room: str) -> None:
        """He reads some of the log."""
        after, began = self._chance.randint(0, len(self.logs[room])), self._now()
        entries = self.logs[room][after : after + 3]
        for entry in entries:
            number = self._number(entry)
            self._happen(Saw(t=self._now(), client=client, room=room, seq=entry["seq"], how="page", content=number))
        self._happen(
            Paged(
                t=self._now(),
                client=client,
                room=room,
                after=after,
                began=began,
                head=len(self.logs[room]),
                seqs=[entry["seq"] for entry in entries],
                has_more=after + len(entries) < len(self.logs[room]),
            )
        )

    def reconnect(self, client: str) -> None:
        """He is cut off and comes back, to what he has missed."""
        if self._connections[client]:
            self._happen(Lost(t=self._now(), client=client, connection=self._connections[client], why="cut"))
        self._connections[client] += 1
        began, user = self._now(), CLIENTS[client]
        rooms = {
            room: Standing(after=self._seen[client, room], head=len(log), read=self._marks[room, user])
            for room, log in self.logs.items()
        }
        connection = self._connections[client]
        self._happen(Synced(t=self._now(), client=client, user=user, connection=connection, began=began, rooms=rooms))
        for room, log in self.logs.items():
            for entry in log[self._seen[client, room] :]:
                self._see(client, entry, "sync")

    def _see(self, client: str, entry: Content, how: str) -> None:
        room, number = entry["room"], self._number(entry)
        self._seen[client, room] = entry["seq"]
        self._happen(
            Saw(
                t=self._now(),
                client=client,
                connection=self._connections[client],
                room=room,
                seq=entry["seq"],
                how=how,
                content=number,
            )
        )

    def _own(self, client: str, room: str) -> Content | None:
        """A message of his that was not deleted and whose writing was acknowledged."""
        acknowledged = {event.result.get("id") for event in self.events if isinstance(event, Answered)}
        own = [
            entry
            for entry in self.logs[room]
            if entry["type"] == "message.created"
            and entry["by"] == CLIENTS[client]
            and entry["id"] in acknowledged
            and not entry.get("deleted")
        ]
        return self._chance.choice(own) if own else None

    # The end

    def finish(self) -> list[AnyEvent]:
        """All is quiet, everybody catches up, and the logs are read; returns everything that happened."""
        self._happen(Quiet(t=self._now()))
        for client in (*CLIENTS, STREAM):
            for room, log in self.logs.items():
                while self._seen[client, room] < len(log):
                    self.hear(client, room)
        for room, log in self.logs.items():
            contents = [self._number(entry) for entry in log]
            marks = {user: mark for (there, user), mark in self._marks.items() if there == room}
            self._happen(Log(t=self._now(), room=room, contents=contents, marks=marks))
        return self.events

    @classmethod
    def long(cls, seed: int = 1, steps: int = 150) -> Story:
        """Everything happens in it, several times; not finished."""
        story = cls(seed)
        chance = random.Random(seed)
        for _ in range(steps):
            client, room = chance.choice(list(CLIENTS)), chance.choice(ROOMS)
            match chance.randrange(12):
                case 0 | 1 | 2:
                    story.send(client, room)
                case 3:
                    story.send(client, room, chance.choice(("stored", "dropped", "refused")))
                case 4:
                    story.again(client, room)
                case 5:
                    story.edit(client, room)
                case 6:
                    story.read(client, room)
                case 7:
                    story.page(client, room)
                case 8:
                    story.reconnect(client)
                case 9:
                    story.hear(STREAM, room)
                case 10:
                    story.delete(client, room)
                case _:
                    story.hear(client, room)
        return story
