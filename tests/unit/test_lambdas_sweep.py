"""The sweeper: every step of a minute's background work is tried, and a failed one is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from hubbub.lambdas.handlers import sweep
from hubbub.lambdas.invocation import InvocationFailed
from lambdahome import Context, LabHome, Written, living, written

SCHEDULED = {
    "version": "0",
    "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
    "detail-type": "Scheduled Event",
    "source": "aws.events",
    "account": "123456789012",
    "time": "2024-01-01T00:00:00Z",
    "region": "eu-west-1",
    "resources": ["arn:aws:events:eu-west-1:123456789012:rule/sweep"],
    "detail": {},
}


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[LabHome]:
    with living(monkeypatch, LabHome()) as home:
        yield home


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    with written(monkeypatch) as log:
        yield log


def test_time_takes_its_course(home: LabHome):
    """Whose token has run out is closed, and every chore is done."""
    done: list[str] = []

    async def chore(within_s: float) -> None:
        assert 0 < within_s < 30
        done.append("chore")

    home.sweeps = [("chore", chore)]
    assert sweep(SCHEDULED, Context()) is None
    tab = home.run(home.lab.tab("ann", ttl_s=90))
    home.run(home.lab.clock.advance(91))
    sweep(SCHEDULED, Context())
    assert home.lab.sink.closed[tab.connection][0] == 4401
    assert done == ["chore", "chore"]


def test_a_failed_step_keeps_no_other_from_being_done(home: LabHome, log: Written):
    """The rest is done, the log names the step, and the invocation fails for somebody to look."""
    done: list[str] = []

    async def broken(within_s: float) -> None:
        raise RuntimeError("no luck")

    async def whole(within_s: float) -> None:
        done.append("whole")

    home.sweeps = [("broken", broken), ("whole", whole)]
    with pytest.raises(InvocationFailed):
        sweep(SCHEDULED, Context())
    assert done == ["whole"]
    assert "the step broken failed" in [line["message"] for line in log.words]


@pytest.mark.slow
def test_a_step_that_takes_too_long_leaves_time_for_the_others(home: LabHome, log: Written):
    """However long the first would go on, each has its turn."""
    given: list[float] = []

    async def endless(within_s: float) -> None:
        await asyncio.Event().wait()

    async def quick(within_s: float) -> None:
        given.append(within_s)

    home.sweeps = [("endless", endless), ("quick", quick), ("last", quick)]
    with pytest.raises(InvocationFailed):
        sweep(SCHEDULED, Context(left_ms=3_000))
    assert len(given) == 2 and min(given) > 0.1


def test_a_step_that_takes_too_long_is_given_up(home: LabHome, log: Written):
    """It fails before Lambda ends the invocation, and goes on in the next minute."""

    async def endless(within_s: float) -> Any:
        await asyncio.Event().wait()

    home.sweeps = [("endless", endless)]
    with pytest.raises(InvocationFailed):
        sweep(SCHEDULED, Context(left_ms=2_150))
    assert "TimeoutError" in json.dumps(log.words)
