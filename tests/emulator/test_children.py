"""Child processes: what becomes of them when this one is done, and when it is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from hubbub.emulator.children import KEPT_BYTES, Child
from live import BOUND_S, until

WITH_GRANDCHILD = "sleep 600 & echo $$ $!; wait"
"""A shell that says its own process's id and its child's."""

STARTER = """
import asyncio, sys
from hubbub.emulator.children import Child

async def main():
    child = await Child.start("shell", ["sh", "-c", sys.argv[1]])
    while len(child.last_words.split()) < 2:
        await asyncio.sleep(0.01)
    print(child.last_words, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def _started(script: str) -> tuple[Child, list[int]]:
    """A shell, and the ids of processes that it has said."""
    child = await Child.start("shell", ["sh", "-c", script])
    await until(lambda: len(child.last_words.split()) >= 2, "the shell says its processes")
    return child, [int(word) for word in child.last_words.split()]


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _none_runs(pids: list[int]) -> bool:
    return not any(_runs(pid) for pid in pids)


@pytest.fixture
async def loud() -> AsyncIterator[Child]:
    """A child that writes a lot and then waits."""
    script = f"print('x' * {KEPT_BYTES * 3}); print('the end', flush=True); import time; time.sleep(600)"
    child = await Child.start("loud", [sys.executable, "-c", script])
    yield child
    await child.stop()


async def test_a_stopped_child_takes_along_what_it_has_started() -> None:
    """Stopping ends the child and its own children."""
    child, processes = await _started(WITH_GRANDCHILD)
    await child.stop()
    assert not child.is_running
    await until(lambda: _none_runs(processes), "nothing of it is left")
    await child.stop()  # once more does no harm


async def test_a_child_that_ignores_sigterm_is_killed() -> None:
    """Who does not go in time is killed."""
    child, processes = await _started("trap '' TERM; echo $$ $$; while :; do sleep 0.05; done")
    await child.stop(within_s=0.3)
    await until(lambda: _none_runs(processes), "nothing of it is left")


async def test_a_child_may_end_in_good_order() -> None:
    """SIGTERM reaches the command, which may act on it, and its status comes back."""
    child, _ = await _started("trap 'echo bye; exit 7' TERM; echo $$ $$; while :; do sleep 0.05; done")
    await child.stop()
    assert await child.ended() == 7
    assert child.last_words.endswith("bye")


async def test_leftovers_of_a_child_that_has_ended_are_killed() -> None:
    """A command that ends by itself leaves nothing behind either."""
    child, processes = await _started("sleep 600 & echo $$ $!; exit 3")
    assert await child.ended() == 3
    await until(lambda: _none_runs(processes), "nothing of it is left")
    await child.stop()


async def test_a_killed_child_says_by_what() -> None:
    """A child that a signal has ended has the status that shells give it."""
    child, processes = await _started("echo $$ $$; while :; do sleep 0.05; done")
    os.kill(processes[0], signal.SIGKILL)
    async with asyncio.timeout(BOUND_S):
        assert await child.ended() == 128 + signal.SIGKILL
    await child.stop()


async def test_no_child_outlives_a_killed_starter() -> None:
    """When the starter is killed with SIGKILL, its child and what that has started are killed as well."""
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, WITH_GRANDCHILD], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert starter.stdout is not None
        line = await asyncio.to_thread(starter.stdout.readline)
        processes = [int(word) for word in line.split()]
        assert [_runs(pid) for pid in processes] == [True, True]
        leashes = [process.pid for process in psutil.Process(starter.pid).children()]
    finally:
        os.kill(starter.pid, signal.SIGKILL)
        starter.communicate()
    await until(lambda: _none_runs([*processes, *leashes]), "nothing is left")


async def test_a_command_that_is_not_there_ends_with_words() -> None:
    """A missing command is named."""
    child = await Child.start("nothing", ["no-such-command-anywhere"])
    assert await child.ended() == 127
    assert "no-such-command-anywhere" in child.last_words
    await child.stop()


async def test_what_a_child_says_is_kept_to_a_bound(loud: Child) -> None:
    """A child that writes without end does not wait for us, and only its last words are kept."""
    await until(lambda: loud.last_words.endswith("the end"), "all of it is read")
    assert len(loud.last_words) <= KEPT_BYTES


async def test_a_child_runs_in_its_folder_with_its_environment(tmp_path: Path) -> None:
    """Folder and environment are those asked for, and there is nothing to read."""
    environment = {"PATH": os.environ["PATH"], "WORD": "hello"}
    child = await Child.start("shell", ["sh", "-c", "cat; pwd; echo $WORD"], environment=environment, folder=tmp_path)
    assert await child.ended() == 0
    assert child.last_words.split() == [str(tmp_path), "hello"]
    await child.stop()
