"""Runs the scripts of `clients/vectors` on the Python client's session; their README describes the format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec

from hubbub.client.actions import Action, CancelTimer, Deliver, DeliverSignal, Resolve, RoomsChanged, SetTimer
from hubbub.client.frames import OtherEntry, OtherSignal
from hubbub.client.session import Session
from hubbub.client.session import Settings as SessionSettings

FOLDER = Path(__file__).resolve().parents[1] / "clients" / "vectors"


def vectors() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every vector by `file: name`, its `after` replaced by the steps of that one."""
    for path in sorted(FOLDER.glob("*.json")):
        named: dict[str, dict[str, Any]] = {}
        for vector in json.loads(path.read_text()):
            begun = named[vector["after"]] if "after" in vector else {}
            options = {**begun.get("options", {}), **vector.get("options", {})}
            steps = [*begun.get("steps", []), *vector["steps"]]
            named[vector["name"]] = whole = {**vector, "options": options, "steps": steps}
            yield f"{path.stem}: {vector['name']}", whole


class Runner:
    """A session with a clock that only steps move."""

    def __init__(self, vector: dict[str, Any]) -> None:
        options = {"random": [0.5], **vector["options"]}
        randoms = cycle(options.pop("random"))
        self.session = Session(msgspec.convert(options, SessionSettings), rand=lambda: next(randoms))
        self.now = 0
        self.timers: dict[str, int] = {}

    def step(self, step: dict[str, Any]) -> list[dict[str, Any]]:
        """Do one step; returns what came out."""
        if "in" in step:
            self._feed(step["in"])
            return self._drain()
        out: list[dict[str, Any]] = []
        end = self.now + step["advance"]
        while due := [(at, name) for name, at in self.timers.items() if at <= end]:
            at, name = min(due)
            del self.timers[name]
            self.now = max(self.now, at)
            self.session.timer(self.now, name)
            out += self._drain()
        self.now = end
        return out

    def _feed(self, event: dict[str, Any]) -> None:
        session, now = self.session, self.now
        match event:
            case {"on": "start" | "opened" | "online" | "close" as name}:
                getattr(session, name)(now)
            case {"on": "token", "token": token}:
                session.token(now, token)
            case {"on": "token_failed", "message": message}:
                session.token_failed(now, message)
            case {"on": "frame", "frame": frame}:
                session.frame(now, json.dumps(frame))
            case {"on": "closed", "code": code}:
                session.closed(now, code, event.get("reason", ""), event.get("status"))
            case {"on": "call", "call": call, "action": action}:
                session.call(now, call, action, event.get("fields", {}))
            case {"on": "subscribe", "room": room}:
                session.subscribe(now, room)
            case _:
                raise AssertionError(f"unknown event {event}")

    def _drain(self) -> list[dict[str, Any]]:
        out = []
        for action in self.session.take():
            if isinstance(action, SetTimer):
                self.timers[action.name] = self.now + action.ms
            elif isinstance(action, CancelTimer):
                self.timers.pop(action.name, None)
            elif not isinstance(action, RoomsChanged):
                out.append(plain(action))
        return out

    def room(self, room: str) -> dict[str, Any] | None:
        """What the session knows of a room."""
        state = self.session.rooms.get(room)  # type: ignore[call-overload]
        return None if state is None else msgspec.to_builtins(state)


def plain(action: Action) -> dict[str, Any]:
    """An action as the vectors write it."""
    written: dict[str, Any] = json.loads(msgspec.json.encode(action))
    if isinstance(action, Deliver | DeliverSignal):
        kind, what = ("entry", action.entry) if isinstance(action, Deliver) else ("signal", action.signal)
        whole = what.json if isinstance(what, OtherEntry | OtherSignal) else msgspec.json.encode(what)
        written = {"do": kind, kind: json.loads(bytes(whole))}
    elif isinstance(action, Resolve):
        written["result"] = {k: v for k, v in written["result"].items() if k not in ("type", "ref")}
    return written


def run(vector: dict[str, Any]) -> int:
    """Run a vector; returns how many steps were checked."""
    runner = Runner(vector)
    for number, step in enumerate(vector["steps"]):
        where = f"step {number}: {json.dumps(step)[:200]}"
        if "rooms" in step:
            for room, expected in step["rooms"].items():
                state = runner.room(room)
                got = state and {name: state[name] for name in expected or ()}
                assert got == expected, f"{where}\n got {got}"
        else:
            got_out = runner.step(step)
            assert got_out == step.get("out", []), f"{where}\n got {json.dumps(got_out)}"
    return len(vector["steps"])
