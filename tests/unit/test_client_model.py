"""Both clients' sessions against a model server that loses, repeats, reorders, cuts off and forgets at will."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from nodejs import NODE
from vectors import Runner

JS = Path(__file__).resolve().parents[2] / "clients" / "js"
ROOMS = ("red", "blue", "green")
COMING = "green"
"""The room that one comes into and leaves by others' hands."""
OPTIONS = {"maxHeld": 3, "maxNamed": 1, "answerMs": 5_000, "heartbeatMs": 7_000, "sendDeadlineMs": 10**9}
SYNC_BUDGET = 3
PAGE = 4


class World:
    """The Python client and its server, with a clock that only steps move.

    Attributes:
        steps: all that went into the session and came out, as the vectors write it.
        logs: what the server has stored, by room.
        delivered: what the application got, by room, since its room began anew.
        acknowledged: the calls of sends that the client was told of.
        asked: frames that the server has not answered yet.
        thought: answers that are made and have not come yet, as where functions answer.
        members: the rooms one is in, as the server knows.

    """

    def __init__(self, randoms: list[float]) -> None:
        self.options = {**OPTIONS, "random": randoms}
        self.runner = Runner({"options": self.options})
        self.steps: list[dict[str, Any]] = []
        self.logs: dict[str, list[dict[str, Any]]] = {room: [] for room in ROOMS}
        self.first = dict.fromkeys(ROOMS, 1)  # the lowest seq that retention has left
        self.delivered: dict[str, list[int]] = {room: [] for room in ROOMS}
        self.calls = 0
        self.acknowledged: set[int] = set()
        self.asked: list[dict[str, Any]] = []
        self.late: list[dict[str, Any]] = []
        self.thought: list[dict[str, Any]] = []
        self.members = set(ROOMS) - {COMING}
        self.live = False
        self.feed({"on": "start"})
        self.answer()  # the first sync: what comes before it is for the cuts

    # The client's side

    def feed(self, event: dict[str, Any]) -> None:
        """Feed an event and do what the session wants."""
        self.step({"in": event})

    def step(self, step: dict[str, Any]) -> None:
        out = self.runner.step(step)
        self.steps.append({**step, "out": out})
        for action in out:
            self.perform(action)

    def perform(self, action: dict[str, Any]) -> None:
        match action:
            case {"do": "token"}:
                self.feed({"on": "token", "token": "T"})
            case {"do": "connect"}:
                self.feed({"on": "opened"})
            case {"do": "disconnect"}:
                self.hang_up()
            case {"do": "send", "frame": frame}:
                self.asked.append(frame)
            case {"do": "entry", "entry": {"room": room, "seq": seq}}:
                before = self.delivered[room]
                assert not before or seq == before[-1] + 1, f"{seq} after {before[-3:]}"
                before.append(seq)
            case {"do": "reset", "room": room}:
                self.delivered[room].clear()
            case {"do": "resolve", "call": call}:
                self.acknowledged.add(call)
            case {"do": "reject"}:
                raise AssertionError(f"nothing here may be refused: {action}")

    def hang_up(self) -> None:
        self.live = False
        self.asked.clear()
        self.late.clear()
        self.thought.clear()

    def tell(self, frame: dict[str, Any]) -> None:
        """The client gets this frame."""
        self.feed({"on": "frame", "frame": frame})

    def send(self, room: str) -> None:
        """The application says something."""
        self.calls += 1
        fields = {"room": room, "text": "x", "client_id": f"k{self.calls}"}
        self.feed({"on": "call", "call": self.calls, "action": "send", "fields": fields})

    # The server's side

    def write(self, room: str, client_id: str | None = None) -> dict[str, Any]:
        log = self.logs[room]
        for entry in log:
            if client_id is not None and entry.get("client_id") == client_id:
                return entry
        seq = len(log) + 1
        entry = {
            "type": "message.created",
            "room": room,
            "seq": seq,
            "id": f"E{seq}",
            "at": 1,
            "by": "bob",
            "text": "x",
        }
        log.append(entry if client_id is None else {**entry, "client_id": client_id})
        return log[-1]

    def publish(self, entry: dict[str, Any], fate: str) -> None:
        """Let the live stream do with an entry what fate has chosen."""
        if not self.live or fate == "lost" or entry["room"] not in self.members:
            return
        if fate == "late":
            self.late.append(entry)
            return
        self.tell(entry)
        if fate == "twice" and self.live:
            self.tell(entry)

    def answer(self, which: int = 0) -> None:
        """Answer one of the questions."""
        if self.asked:
            self.tell(self.think(which))

    def think(self, which: int) -> dict[str, Any]:
        """The answer to one of the questions, as it is now."""
        ask = self.asked.pop(which % len(self.asked))
        return {"type": "ok", "ref": ask["ref"], **getattr(self, f"on_{ask['action']}")(ask)}

    def come(self) -> None:
        """Somebody takes the user into a room, or out of it."""
        if COMING in self.members:
            self.members.remove(COMING)
            self.delivered[COMING].clear()
            signal = {"type": "room", "room": COMING, "joined": False}
        else:
            self.members.add(COMING)
            signal = {"type": "room", "room": COMING, "joined": True, "state": self.state(COMING)}
        if self.live:
            self.tell(signal)

    def state(self, room: str) -> dict[str, Any]:
        known = {"room": room, "kind": "public", "name": "", "role": "member"}
        return {**known, "head": len(self.logs[room]), "read": 0, "unread": 0}

    def on_sync(self, ask: dict[str, Any]) -> dict[str, Any]:
        self.live = True
        entries: list[dict[str, Any]] = []
        more, reset, states = [], [], []
        for room, log in self.logs.items():
            if room not in self.members:
                continue
            states.append(self.state(room))
            last = ask["rooms"].get(room)
            if last is None:
                continue
            if last < self.first[room] - 1:
                reset.append(room)
                continue
            missed = log[last:]
            room_left = SYNC_BUDGET - len(entries)
            entries += missed[:room_left]
            if len(missed) > room_left:
                more.append(room)
        known = {"epoch": "e", "user": "alice", "connection_id": "c"}
        return {**known, "rooms": states, "entries": entries, "more": more, "reset": reset}

    def on_history(self, ask: dict[str, Any]) -> dict[str, Any]:
        room = ask["room"]
        log = self.logs[room]
        if room not in self.members:
            return {"type": "error", "code": "not_found", "message": "There is no such room.", "retry": False}
        kept = [entry for entry in log if entry["seq"] >= self.first[room]]
        following = [entry for entry in kept if entry["seq"] > ask.get("after", 0)]
        entries = following[:PAGE] if "after" in ask else kept[-PAGE:]
        return {"room": room, "entries": entries, "head": len(log), "has_more": False, "changes": []}

    def on_send(self, ask: dict[str, Any]) -> dict[str, Any]:
        entry = self.write(ask["room"], ask["client_id"])
        return {"room": ask["room"], "seq": entry["seq"], "id": entry["id"], "at": 1, "client_id": ask["client_id"]}

    def on_ping(self, ask: dict[str, Any]) -> dict[str, Any]:
        return {"at": 1}

    # What can happen

    def happen(self, what: tuple[Any, ...]) -> None:
        match what:
            case ("say", room, fate):
                self.publish(self.write(room), fate)
            case ("send", room):
                self.send(room)
            case ("answer", which):
                self.answer(which)
            case ("come late",):
                late, self.late = self.late, []
                for entry in reversed(late):
                    self.tell(entry)
            case ("think", which) if self.asked:
                self.thought.append(self.think(which))
            case ("tell", which) if self.thought:
                self.tell(self.thought.pop(which % len(self.thought)))
            case ("die",) if any(ask["action"] == "history" for ask in self.asked):
                self.asked.remove(next(ask for ask in self.asked if ask["action"] == "history"))
            case ("come",):
                self.come()
            case ("overtake", fate):  # the answer to a sync, by what happens after it was made
                for step in (("cut",), ("wait", 20_000), ("think", 0), ("come",), ("say", COMING, fate), ("tell", 0)):
                    self.happen(step)
            case ("end", code, is_told):
                self.tell({"type": "notice", "code": "closing", "message": "bye", "close": code})
                if is_told and self.live:
                    self.hang_up()
                    self.feed({"on": "closed", "code": 1000})
            case ("lose in the gateway",) if self.asked:
                self.asked.pop(0)
                self.tell({"message": "Internal server error", "connectionId": "c", "requestId": "r"})
            case ("cut",):
                self.hang_up()
                self.feed({"on": "closed", "code": 1006})
            case ("forget", room, count):
                self.first[room] = min(len(self.logs[room]) + 1, self.first[room] + count)
            case ("wait", ms):
                self.step({"advance": ms})

    def heal(self) -> None:
        """From now on all goes well, until nothing is left to be done."""
        for _ in range(60):
            self.step({"advance": 1_000})
            while self.asked or self.thought:
                self.happen(("tell", 0))
                self.answer()
            for room in self.members:
                log = self.logs[room]
                if self.live:
                    self.tell({"type": "head", "room": room, "head": len(log)})
            position = self.runner.session.logs.position
            done = all(position(room) == len(self.logs[room]) for room in self.members)  # type: ignore[arg-type]
            if (
                done
                and set(self.runner.session.rooms) == self.members
                and not self.asked
                and len(self.acknowledged) == self.calls
            ):
                return
        raise AssertionError(f"it does not heal: {self.runner.session.phase}, {self.asked}, {self.delivered}")


room = st.sampled_from(ROOMS)
happening = st.one_of(
    st.tuples(st.just("say"), room, st.sampled_from(["on time", "on time", "lost", "late", "twice"])),
    st.tuples(st.just("send"), room),
    st.tuples(st.sampled_from(["answer", "answer", "think", "tell"]), st.integers(0, 3)),
    st.tuples(st.sampled_from(["come late", "lose in the gateway", "cut", "come", "come", "die"])),
    st.tuples(st.just("end"), st.sampled_from([4401, 4408]), st.booleans()),
    st.tuples(st.just("overtake"), st.sampled_from(["on time", "lost", "late"])),
    st.tuples(st.just("forget"), room, st.integers(1, 3)),
    st.tuples(st.just("wait"), st.sampled_from([100, 1_000, 6_000])),
)


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(happening, min_size=10, max_size=60), st.lists(st.floats(0, 0.999), min_size=1, max_size=5))
def test_every_entry_comes_once_and_in_order_whatever_happens(happenings: list[Any], randoms: list[float]) -> None:
    """Entries never come twice, out of order or with a hole, but for a reset; in the end nothing is missing."""
    world = World(randoms)
    for what in happenings:
        world.happen(what)
    world.heal()
    for name, log in world.logs.items():
        ids = [entry["client_id"] for entry in log if "client_id" in entry]
        assert len(ids) == len(set(ids)), "stored twice"
        if name not in world.members:
            continue
        assert (world.runner.room(name) or {})["head"] == len(log)
        if world.delivered[name]:
            assert world.delivered[name][-1] == len(log)
    stored = {entry["client_id"] for log in world.logs.values() for entry in log if "client_id" in entry}
    assert stored == {f"k{number}" for number in world.acknowledged}


def traces(count: int) -> list[dict[str, Any]]:
    """So many random stories, as vectors."""
    found = []
    for seed in range(count):
        chance = random.Random(seed)
        world = World([chance.random() for _ in range(7)])
        for _ in range(80):
            kinds = (
                "say",
                "say",
                "say",
                "send",
                "answer",
                "answer",
                "think",
                "tell",
                "other",
                "forget",
                "wait",
                "end",
                "overtake",
            )
            kind = chance.choice(kinds)
            room = chance.choice(ROOMS)
            world.happen(
                {
                    "say": ("say", room, chance.choice(["on time", "on time", "lost", "late", "twice"])),
                    "send": ("send", room),
                    "answer": ("answer", chance.randrange(4)),
                    "think": ("think", chance.randrange(4)),
                    "tell": ("tell", chance.randrange(4)),
                    "overtake": ("overtake", chance.choice(["on time", "lost", "late"])),
                    "end": ("end", chance.choice([4401, 4408]), chance.random() < 0.5),
                    "other": (chance.choice(["come late", "lose in the gateway", "cut", "come", "die"]),),
                    "forget": ("forget", room, chance.randrange(1, 3)),
                    "wait": ("wait", chance.choice([100, 1_000, 6_000])),
                }[kind]
            )
        world.heal()
        found.append({"name": f"story {seed}", "options": world.options, "steps": world.steps})
    return found


@pytest.mark.slow
def test_the_javascript_session_does_the_same_in_random_stories(tmp_path: Path) -> None:
    """Whatever happens, in whatever order, both sessions want exactly the same done."""
    count = 60
    (tmp_path / "stories.json").write_text(json.dumps(traces(count)))
    done = subprocess.run(
        [NODE, "--test", "--test-reporter=tap", str(JS / "test" / "vectors.test.js")],
        env={**os.environ, "HUBBUB_VECTORS": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(rf"^# pass {count}$", done.stdout, re.MULTILINE)
