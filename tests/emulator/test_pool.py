"""All functions together: which environment takes an invocation, how many there may be, what becomes of old code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from functionlab import PYTHON, Lab, Source, gone, is_running, running

from hubbub.emulator.definition import Function
from hubbub.emulator.functions import Functions, Phase, Throttled, UnknownFunction, fleet
from live import BOUND_S, until

RETURNS_PID = """
import os

def handler(event, context):
    return os.getpid()
"""

MEETS = """
import os, time
from pathlib import Path

def handler(event, context):
    Path(f"{context.aws_request_id}.here").touch()
    while not os.path.exists(event):
        time.sleep(0.005)
    return os.getpid()
"""
"""Waits until there is a file of the event's name."""


class Meeting:
    """Invocations of a function of `MEETS`, which run until they are let go."""

    def __init__(self, lab: Lab, folder: Path, name: str = "worker") -> None:
        self._lab = lab
        self._folder = folder
        self._name = name
        self._tasks: dict[str, asyncio.Task[Any]] = {}

    async def begin(self, *ids: str) -> None:
        """Begin invocations, and wait until their handlers run."""
        for one in ids:
            asked = self._lab.result(f"{one}.go", name=self._name, request_id=one)
            self._tasks[one] = asyncio.create_task(asked)
        await until(lambda: all((self._folder / f"{one}.here").exists() for one in ids), f"the begin of {ids}")

    async def end(self, one: str) -> int:
        """Let an invocation go; the process that it ran in."""
        (self._folder / f"{one}.go").touch()
        async with asyncio.timeout(BOUND_S):
            pid: int = await self._tasks.pop(one)
        return pid


def pids(lab: Lab, phase: Phase | None = None, name: str = "worker") -> set[int | None]:
    """The processes of a function's environments, or of those in a phase."""
    return {one.pid for one in lab.functions.environments(name) if phase in (None, one.phase)}


async def idle(lab: Lab, count: int, name: str = "worker") -> None:
    """Wait until so many environments are idle, and there are no others."""

    def settled() -> bool:
        environments = lab.functions.environments(name)
        return len(environments) == count and all(one.phase is Phase.IDLE for one in environments)

    await until(settled, f"{count} idle environments")


async def test_an_environment_is_used_again(source: Source) -> None:
    """One invocation after the other runs in one process, and only the first is cold."""
    async with running(source.function(RETURNS_PID)) as lab:
        outcomes = [await lab.invoke() for _ in range(100)]
    assert len({outcome.payload for outcome in outcomes}) == 1
    assert outcomes[0].init_ms is not None
    assert all(outcome.init_ms is None for outcome in outcomes[1:])


async def test_invocations_at_a_time_have_environments_of_their_own(source: Source) -> None:
    """Three invocations that all run have three processes; the one that was used last is the next to be used."""
    async with running(source.function(MEETS, timeout_s=60)) as lab:
        meeting = Meeting(lab, source.folder)
        await meeting.begin("a", "b", "c")
        ended: list[int] = []
        for one in ("b", "c", "a"):
            ended.append(await meeting.end(one))
            await until(lambda pid=ended[-1]: pid in pids(lab, Phase.IDLE), "its return")  # type: ignore[misc]
        assert len(set(ended)) == 3
        await idle(lab, 3)
        await meeting.begin("d", "e")
        assert pids(lab, Phase.IDLE) == {ended[0]}
        assert {await meeting.end("d"), await meeting.end("e")} == set(ended[1:])


async def test_an_environment_that_idles_too_long_ends(source: Source) -> None:
    """After its idle time the process is gone, and the next invocation is cold."""
    async with running(source.function(RETURNS_PID), idle_s=0.2) as lab:
        first = await lab.result()
        await gone(first)
        assert pids(lab) == set()
        assert await lab.result() != first


async def test_a_burst_does_not_start_a_process_for_each(source: Source) -> None:
    """Where one environment may start at a time, it serves the burst that arrived while it came up."""
    async with running(source.function(RETURNS_PID, timeout_s=20), starts=1) as lab:
        outcomes = await asyncio.gather(*(lab.invoke() for _ in range(200)))
        assert {outcome.error for outcome in outcomes} == {None}
        assert len({outcome.payload for outcome in outcomes}) < 20
        assert sum(outcome.init_ms is not None for outcome in outcomes) < 20


async def test_quick_functions_need_few_environments(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invocations that are over in a moment, as long as that is on this machine, wait for each other."""
    monkeypatch.setattr(fleet, "FREE_WITHIN_S", BOUND_S)
    async with running(source.function(RETURNS_PID, timeout_s=20), starts=1) as lab:

        async def keep_calling() -> None:
            for _ in range(100):
                await lab.result()

        await asyncio.gather(*(keep_calling() for _ in range(24)))
        assert len(lab.functions.environments("worker")) < 8


async def test_what_is_slow_to_start_does_not_hold_up_others(source: Source, tmp_path: Path) -> None:
    """A function that takes long to come up delays another by no more than a moment."""
    slow = source.function("import time; time.sleep(600)", name="slow")
    quick = Source(tmp_path / "quick").function(RETURNS_PID, name="quick")
    async with running(slow, quick, starts=1, init_s=60) as lab:
        waiting = asyncio.create_task(lab.invoke(name="slow"))
        await until(lambda: bool(lab.functions.environments("slow")), "the slow one's start")
        async with asyncio.timeout(BOUND_S):
            assert await lab.result(name="quick")
        assert not waiting.done()
    assert (await waiting).error == "Unhandled"


@pytest.mark.parametrize(
    ("reserved", "account", "at_once", "reason"),
    [
        (0, 1_000, 0, "ReservedFunctionConcurrentInvocationLimitExceeded"),
        (2, 1_000, 2, "ReservedFunctionConcurrentInvocationLimitExceeded"),
        (None, 5, 2, "ConcurrentInvocationLimitExceeded"),
    ],
)
async def test_concurrency_has_limits(
    source: Source, tmp_path: Path, reserved: int | None, account: int, at_once: int, reason: str
) -> None:
    """A function runs as often as it has reserved; what reserved nothing shares what the account has left."""
    function = source.function(MEETS, reserved_concurrency=reserved, timeout_s=60)
    beside = Source(tmp_path / "beside").function(RETURNS_PID, name="beside", reserved_concurrency=3)
    async with running(function, beside, account_concurrency=account) as lab:
        meeting = Meeting(lab, source.folder)
        await meeting.begin(*map(str, range(at_once)))
        with pytest.raises(Throttled) as refused:
            await lab.invoke("x")
        assert refused.value.reason == reason
        assert await lab.result(name="beside"), "what others have reserved is theirs"
        for one in range(at_once):
            await meeting.end(str(one))
        if at_once:
            await meeting.begin("again")
            await meeting.end("again")


async def test_new_code_runs_in_new_environments_and_the_old_ends_its_invocation(source: Source) -> None:
    """After a reload the invocation under way ends with the old code, then its process is gone; others get the new."""
    async with running(source.function(MEETS, timeout_s=60)) as lab:
        meeting = Meeting(lab, source.folder)
        await meeting.begin("old", "idle")
        resting = await meeting.end("idle")
        source.write("app.py", "def handler(event, context): return 'new'")
        await lab.functions.reload("worker")
        await gone(resting)
        assert await lab.result() == "new"
        old = await meeting.end("old")
        await gone(old)
        assert await lab.result() == "new"


async def test_invocations_that_wait_when_code_changes_run_with_the_new(source: Source) -> None:
    """What has not begun runs with the code that there is when it does."""
    function = source.function("import time; open('begun', 'w').close(); time.sleep(600)", timeout_s=60)
    async with running(function, starts=1, init_s=60) as lab:
        first = asyncio.create_task(lab.invoke())
        second = asyncio.create_task(lab.result())
        await until((source.folder / "begun").exists, "the start")
        source.write("app.py", "def handler(event, context): return 'new'")
        await lab.functions.reload("worker")
        assert await second == "new"
        assert not first.done()
    await first


async def test_an_invocation_does_not_fail_for_old_code_that_does_not_come_up(source: Source) -> None:
    """What waits for old code that fails to start runs with the new code instead."""
    function = source.function(
        """
        import os, time
        open("begun", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.005)
        import half_written
        """,
        timeout_s=60,
    )
    async with running(function, init_s=60) as lab:
        asked = asyncio.create_task(lab.result())
        await until((source.folder / "begun").exists, "the start")
        source.write("app.py", "def handler(event, context): return 'new'")
        await lab.functions.reload("worker")
        source.write("go", "")
        assert await asked == "new"


async def test_a_definition_can_be_replaced_added_and_removed(source: Source) -> None:
    """A new definition holds for the next invocation; a function that was taken away is unknown."""
    code = "import os\ndef handler(event, context): return os.environ.get('COLOUR')"
    async with running(source.function(code)) as lab:
        assert await lab.result() is None
        await lab.functions.replace(source.function(environment={"COLOUR": "blue"}))
        assert await lab.result() == "blue"
        await lab.functions.replace(source.function(name="other", environment={"COLOUR": "red"}))
        assert await lab.result(name="other") == "red"
        assert set(lab.functions.names()) == {"worker", "other"}
        running_in = pids(lab)
        await lab.functions.remove("worker")
        with pytest.raises(UnknownFunction, match="no function 'worker'; there are: other"):
            await lab.invoke()
        await gone(*[pid for pid in running_in if pid is not None])


@pytest.mark.parametrize(
    ("reference", "invoked"),
    [
        ("my-fn_1", "arn:aws:lambda:us-east-1:123456789012:function:my-fn_1"),
        ("my-fn_1:live", "arn:aws:lambda:us-east-1:123456789012:function:my-fn_1:live"),
        ("my-fn_1:$LATEST", "arn:aws:lambda:us-east-1:123456789012:function:my-fn_1:$LATEST"),
        ("function:my-fn_1", "arn:aws:lambda:us-east-1:123456789012:function:my-fn_1"),
        ("123456789012:function:my-fn_1", "arn:aws:lambda:us-east-1:123456789012:function:my-fn_1"),
        (
            "arn:aws:lambda:us-east-1:123456789012:function:my-fn_1:7",
            "arn:aws:lambda:us-east-1:123456789012:function:my-fn_1:7",
        ),
    ],
)
async def test_a_function_is_found_by_every_form_of_its_name(source: Source, reference: str, invoked: str) -> None:
    """Names, partial and whole ARNs, with and without a qualifier, lead to the function, which sees the qualifier."""
    function = source.function("def handler(event, context): return context.invoked_function_arn", name="my-fn_1")
    async with running(function) as lab:
        assert lab.functions.get(reference) is function
        assert lab.functions.arn(reference) == "arn:aws:lambda:us-east-1:123456789012:function:my-fn_1"
        assert await lab.result(name=reference) == invoked


@pytest.mark.parametrize(
    "reference", ["", "nobody", "arn:aws:sqs:us-east-1:123456789012:worker", "worker:a:b", "wörker"]
)
async def test_an_unknown_function_is_named(source: Source, reference: str) -> None:
    """A name that leads nowhere is told with those that do."""
    async with running(source.function(RETURNS_PID)) as lab:
        with pytest.raises(UnknownFunction) as unknown:
            await lab.functions.invoke(reference, b"{}")
        assert str(unknown.value) == f"There is no function {reference!r}; there are: worker."


async def test_the_end_ends_what_runs(source: Source) -> None:
    """When functions end, an invocation under way fails and no process is left; afterwards nothing can be invoked."""
    async with running(source.function(MEETS, timeout_s=60)) as lab:
        under_way = asyncio.create_task(lab.invoke("never", request_id="it"))
        await until((source.folder / "it.here").exists, "the begin")
        running_in = pids(lab)
    document = json.loads((await under_way).payload)
    assert document["errorType"] == "Runtime.ExitError"
    assert not any(is_running(pid) for pid in running_in if pid is not None)
    with pytest.raises(RuntimeError, match="within `async with`"):
        await lab.invoke()


async def test_functions_that_cannot_start_leave_nothing(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while functions come up ends what had come up by then."""
    folders: list[Path] = []
    plan: Callable[..., Any] = Functions._plan

    async def fails(self: Functions, function: Function) -> None:
        folders.append(self.folder or Path())
        raise ZeroDivisionError

    monkeypatch.setattr(Functions, "_plan", fails)
    with pytest.raises(ZeroDivisionError):
        async with Functions([source.function(RETURNS_PID)]):
            pass
    monkeypatch.setattr(Functions, "_plan", plan)
    assert not folders[0].exists()


async def test_nobody_waits_for_an_environment_that_does_not_come_back(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime that answers and then takes its time holds up no other invocation, and is ended at its time-out."""
    monkeypatch.setattr(fleet, "RETURNS_WITHIN_S", 0.1)
    function = source.custom(
        """
        while True:
            id, body = next()
            answer(id, str(os.getpid()))
            if body == b'"linger"':
                time.sleep(600)
        """,
        timeout_s=5.0,
    )
    async with running(function) as lab:
        lingering = await lab.result("linger")
        assert await lab.result() != lingering
        assert is_running(lingering)
        await gone(lingering)
        assert await lab.result() != lingering


async def test_an_invocation_for_a_process_that_goes_runs_in_another(source: Source) -> None:
    """A runtime that exits after its answer takes no other invocation with it."""
    function = source.custom(
        """
        id, body = next()
        answer(id, str(os.getpid()))
        """
    )
    async with running(function) as lab:
        assert len({await lab.result() for _ in range(5)}) == 5


async def test_event_loops_are_not_needed_twice(source: Source) -> None:
    """Functions can be made before there is a loop to run them on, and again from the same definitions."""
    function = source.function(RETURNS_PID)
    for _ in range(2):
        async with running(function) as lab:
            assert await lab.result()
    assert function.runtime == PYTHON
