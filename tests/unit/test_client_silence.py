"""A client in a silent room keeps its connection to API Gateway, which ends what is idle for ten minutes."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from hubbub.gateway.quotas import PROFILES
from hubbub.lambdas.place import HEARTBEAT_MS
from vectors import Runner

IDLE_MS = round((PROFILES["aws"].idle_s or 0) * 1_000)
LIFETIME_MS = round((PROFILES["aws"].lifetime_s or 0) * 1_000)
TICK_MS = 1_000


def live() -> Runner:
    """A session that stands, at a server that wants to be asked as seldom as functions do."""
    runner = Runner({"options": {}})
    synced = {
        "type": "ok",
        "ref": "1",
        "epoch": "e",
        "user": "alice",
        "connection_id": "c",
        "heartbeat_ms": HEARTBEAT_MS,
    }
    lists: dict[str, Any] = {"rooms": [], "entries": [], "more": [], "reset": []}
    for event in (
        {"on": "start"},
        {"on": "token", "token": "T"},
        {"on": "opened"},
        {"on": "frame", "frame": {**synced, **lists}},
    ):
        runner.step({"in": event})
    return runner


def pauses(runner: Runner, spoken_at: set[int], answer_ms: int) -> list[int]:
    """How long there was no message in either direction, each time, in the life of a connection.

    Args:
        runner: a session that stands.
        spoken_at: when something is said in a room, in seconds since.
        answer_ms: how long the server thinks before it answers.

    """
    began = runner.now
    last, found = began, []
    answers: dict[int, str] = {}
    for now in range(began, began + LIFETIME_MS, TICK_MS):
        said = [step for step in runner.step({"advance": TICK_MS}) if step["do"] == "send"]
        assert {step["frame"]["action"] for step in said} <= {"ping"}
        heard = []
        if (now - began) // 1_000 in spoken_at:
            heard.append({"type": "typing", "room": "r", "by": "bob", "on": True})
        if (ref := answers.pop(now, None)) is not None:
            heard.append({"type": "ok", "ref": ref, "at": now})
        for frame in heard:
            runner.step({"in": {"on": "frame", "frame": frame}})
        for step in said:
            answers[now + answer_ms] = step["frame"]["ref"]
        if said or heard:
            found.append(now - last)
            last = now
    return [*found, began + LIFETIME_MS - last]


def test_functions_want_to_be_asked_at_least_twice_in_the_time_that_ends_a_connection() -> None:
    """So one question that is late, or answered late, does not lose the connection."""
    assert IDLE_MS == 600_000
    assert 2 * (HEARTBEAT_MS + 10_000) < IDLE_MS


@pytest.mark.parametrize("answer_ms", [1_000, 9_000])
def test_a_client_that_hears_nothing_is_never_idle_for_too_long(answer_ms: int) -> None:
    """Two hours without a word from anybody: it asks every four minutes, and no more often."""
    silences = pauses(live(), set(), answer_ms)
    assert max(silences) <= HEARTBEAT_MS + 2 * TICK_MS
    assert len(silences) <= 2 * LIFETIME_MS // HEARTBEAT_MS + 2


@pytest.mark.parametrize("seed", range(5))
def test_nor_is_one_that_hears_something_now_and_then(seed: int) -> None:
    """Whatever is said at whatever time, a silence ends before the gateway ends the connection."""
    rand = Random(seed)
    spoken_at = {rand.randrange(LIFETIME_MS // 1_000) for _ in range(rand.randrange(1, 60))}
    assert max(pauses(live(), spoken_at, 1_000)) < IDLE_MS
