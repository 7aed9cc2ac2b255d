"""Child processes that never outlive this one, and whose last words are kept for when they fail.

Each runs on a leash (`leash.py`): killed with everything it started when this process is gone, even by SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

LEASH = Path(__file__).with_name("leash.py")

KEPT_BYTES = 32 * 1024
"""How much of what a child said last is kept."""


class Child:
    """A running child process; made by `start`.

    What it writes to standard output and error is read all the time and kept to a bound, so it never waits for us.
    Its standard input is empty. Signals of the terminal do not reach it: who started it stops it.

    Attributes:
        name: what it is called in messages.

    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, lifeline: int) -> None:
        self.name = name
        self._process = process  # the leash
        self._lifeline = lifeline  # our end of the pipe that holds the leash; -1 when let go
        self._said = bytearray()
        self._reading = asyncio.get_running_loop().create_task(self._read(), name=f"hubbub output of {name}")

    def __repr__(self) -> str:
        return f"<Child {self.name}, {'running' if self.is_running else f'ended: {self._process.returncode}'}>"

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Child:
        """Start a command.

        Args:
            name: what it is called in messages.
            command: the program, looked for on PATH, and its arguments.
            environment: all its variables; None for ours.
            folder: where it runs; None for ours.
            pass_fds: file descriptors that it gets under the same numbers.

        """
        held, lifeline = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(LEASH), str(held), *command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                cwd=folder,
                pass_fds=(held, *pass_fds),
                start_new_session=True,
            )
        except BaseException:
            os.close(lifeline)
            raise
        finally:
            os.close(held)
        return cls(name, process, lifeline)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    @property
    def last_words(self) -> str:
        """The end of what it has written so far."""
        return self._said.decode(errors="replace").strip()

    async def _read(self) -> None:
        output = self._process.stdout
        assert output is not None  # noqa: S101  it was asked for
        while data := await output.read(16 * 1024):
            self._said += data
            del self._said[:-KEPT_BYTES]

    async def ended(self) -> int:
        """Wait until it has ended and its words are here.

        Returns its exit status; 128 and the signal's number if a signal ended it.
        """
        code = await self._process.wait()
        # Who has left the process group may still hold the pipe: not all that it will say is waited for.
        await asyncio.wait({self._reading}, timeout=1.0)
        return code if code >= 0 else 128 - code

    async def stop(self, within_s: float = 3.0) -> None:
        """End it and everything it started: SIGTERM, and SIGKILL for what is left after `within_s`; safe to repeat."""
        try:
            if self.is_running:
                with contextlib.suppress(ProcessLookupError, TimeoutError):
                    self._process.terminate()
                    async with asyncio.timeout(within_s):
                        await self._process.wait()
        finally:
            self._let_go()
        await self.ended()
        self._reading.cancel()
        await asyncio.wait({self._reading})

    def _let_go(self) -> None:
        """End the lifeline: the leash kills what is left."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
