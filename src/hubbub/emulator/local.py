"""`hubbub local`: a stack with a console and signals, until it is interrupted or a command beside it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
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

    Args:
        stack: not yet entered.
        console: where all is shown.
        command: a program and its arguments to run beside it, whose status is the result; empty to run until SIGINT
            or SIGTERM, a second of which ends the process at once.

    """
    with _interrupted() as interrupted:
        try:
            async with stack:
                console.name_functions(function.name for function in stack.stack.functions)
                console.show(stack)
                if command:
                    return await _run(command, stack.environment, interrupted)
                console.say("Ctrl-C ends it.")
                return await _until(interrupted, stack)
        except (TemplateError, CannotStart, CannotCreate, ValueError) as error:
            console.fail(str(error))
            return 1


async def _until(interrupted: asyncio.Future[int], stack: RunningStack) -> int:
    failed = asyncio.get_running_loop().create_task(stack.failed())
    try:
        both: list[asyncio.Future[Any]] = [interrupted, failed]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            failed.result()
        return 0
    finally:
        failed.cancel()
        await asyncio.wait([failed])


async def _run(command: Sequence[str], environment: dict[str, str], interrupted: asyncio.Future[int]) -> int:
    """Run a command in the foreground; its own status, or 128 and its signal's number."""
    try:
        process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **environment})
    except OSError as error:
        raise CannotStart(f"The command {command[0]!r} cannot be run: {error.strerror}.") from error
    ended = asyncio.get_running_loop().create_task(process.wait())
    both: list[asyncio.Future[int]] = [ended, interrupted]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():  # the terminal's Ctrl-C has reached it as well, a SIGTERM has not
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(interrupted.result())
        done, _ = await asyncio.wait([ended], timeout=STOP_WITHIN_S)
        if not done:
            process.kill()
    status = await ended
    return status if status >= 0 else 128 - status


@contextlib.contextmanager
def _interrupted() -> Iterator[asyncio.Future[int]]:
    """The signal that asks for the end, once it has come."""
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[int] = loop.create_future()

    def received(number: int) -> None:
        if asked.done():
            os._exit(128 + number)  # children end with this process: they are on a leash
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
