"""`hubbub local`: a stack with a console and signals, until it is interrupted or a command beside it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from hubbub.emulator.console import Console
from hubbub.emulator.resources import CannotCreate
from hubbub.emulator.running import RunningStack
from hubbub.emulator.template import TemplateError
from hubbub.listening import CannotStart

STOP_WITHIN_S = 5.0
"""How long a command may take to end after it was told to, before it is killed."""


async def local(stack: RunningStack, console: Console, command: Sequence[str] = ()) -> int:
    """Run a stack, and return the status to exit with.

    That is 0 where a stack that runs is asked to end; 1 where it fails; 128 and the signal's number where it is asked
    to end before it runs; and with a command the command's own, which is 128 and its number for a signal that ended it.

    Args:
        stack: not yet entered.
        console: where all is shown.
        command: a program and its arguments to run beside it; empty to run until SIGINT or SIGTERM, a second of which
            ends the process at once.

    """
    console.attach(stack)
    with _interrupted() as interrupted:
        try:
            if not await _entered(stack, interrupted):
                return 128 + interrupted.result()
            try:
                console.show(stack)
                if command:
                    return await _run(command, stack, interrupted)
                console.say("Ctrl-C ends it.")
                await _first(interrupted, stack.failed())
                return 0
            finally:
                await stack.__aexit__(None, None, None)
        except (TemplateError, CannotStart, CannotCreate, ValueError) as error:
            console.fail(str(error))
            return 1


async def _entered(stack: RunningStack, interrupted: asyncio.Future[int]) -> bool:
    """Start the stack; whether it runs, and was not interrupted before that."""
    starting = asyncio.get_running_loop().create_task(stack.__aenter__())
    waited: list[asyncio.Future[Any]] = [starting, interrupted]
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait([starting])
    if starting.cancelled():
        return False
    starting.result()
    return True


async def _first(interrupted: asyncio.Future[int], *others: Coroutine[Any, Any, Any]) -> None:
    """Wait for the first of them, and end the others; raises what one of these raised."""
    tasks = [asyncio.get_running_loop().create_task(each) for each in others]
    waited: list[asyncio.Future[Any]] = [interrupted, *tasks]
    try:
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


async def _run(command: Sequence[str], stack: RunningStack, interrupted: asyncio.Future[int]) -> int:
    """Run a command in the foreground; its own status, or 128 and its signal's number."""
    try:
        process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **stack.environment})
    except OSError as error:
        raise CannotStart(f"The command {command[0]!r} cannot be run: {error.strerror}.") from error
    try:
        await _first(interrupted, process.wait(), stack.failed())
    finally:
        await _end(process, interrupted.result() if interrupted.done() else signal.SIGTERM)
    status = process.returncode or 0
    return status if status >= 0 else 128 - status


async def _end(process: asyncio.subprocess.Process, number: int) -> None:
    """Tell a command to end, if it has not, and see to it that it does."""
    if process.returncode is None and not (number == signal.SIGINT and _is_in_foreground()):
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
    try:
        async with asyncio.timeout(STOP_WITHIN_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _is_in_foreground() -> bool:
    """Whether a terminal's Ctrl-C reaches us and so our command, which would take a second one for impatience."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def _interrupted() -> Iterator[asyncio.Future[int]]:
    """The signal that asks for the end, once it has come."""
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[int] = loop.create_future()

    def received(number: int) -> None:
        if asked.done():
            os._exit(128 + number)  # children and folders end with this process: they are on a leash
        asked.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, received, number)
    try:
        yield asked
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def named_values(what: str, given: Sequence[str]) -> dict[str, str]:
    """What was written as `NAME=VALUE`.

    Raises:
        ValueError: one was not; it says so with `what` it is.

    """
    pairs = [each.partition("=") for each in given]
    wrong = next(("".join(pair) for pair in pairs if not pair[0] or not pair[1]), None)
    if wrong is not None:
        raise ValueError(f"{what}: expected NAME=VALUE, got {wrong!r}")
    return {name: value for name, _, value in pairs}


def read_env_file(path: Path) -> dict[str, str]:
    """Variables from a file of `NAME=value` lines; blank lines, `#` comments, `export` and quotes are understood.

    Raises:
        ValueError: a line is none of these; it names the file and the line.

    """
    variables: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip().removeprefix("export ").strip()
        if not text or text.startswith("#"):
            continue
        name, separator, value = text.partition("=")
        if not separator or not name.strip().isidentifier():
            raise ValueError(f"{path}, line {number}: expected NAME=value, got {line!r}")
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        variables[name.strip()] = value
    return variables
