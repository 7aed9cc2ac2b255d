"""`hubbub local` as a process of its own, what it says, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
from functionlab import is_running
from stacklab import clean_environment

from live import BOUND_S, until


class Local:
    """A running, or ended, `hubbub local`.

    Attributes:
        process: it.
        temporary: the folder that it has for temporary files.

    """

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self.temporary = folder / "tmp"
        self._folder = folder
        self._family: set[psutil.Process] = set()

    @property
    def said(self) -> str:
        """Standard error so far."""
        return (self._folder / "stderr").read_text(errors="replace")

    @property
    def printed(self) -> str:
        """Standard output so far: what a command beside the stack prints."""
        return (self._folder / "stdout").read_text(errors="replace")

    async def says(self, words: str, times: int = 1) -> str:
        """All that it has said, once these words are in it."""

        def is_said() -> bool:
            self.look()
            assert self.process.returncode is None or self.said.count(words) >= times, f"it ended:\n{self.said}"
            return self.said.count(words) >= times

        await until(is_said, f"{words!r}", bound_s=2 * BOUND_S)
        return self.said

    async def ready(self) -> str:
        """The address of its first API, once it runs."""
        return re.findall(r"ws://\S+", await self.says("Ctrl-C ends it."))[0]

    async def ended(self) -> int:
        """The status that it ends with; negative for a signal."""
        async with asyncio.timeout(2 * BOUND_S):
            return await self.process.wait()

    def look(self) -> list[list[str]]:
        """Note who descends from it now: their command lines."""
        commands = []
        for process in psutil.Process(self.process.pid).children(recursive=True) if self.is_alive else []:
            try:
                commands.append(process.cmdline())
                self._family.add(process)
            except psutil.Error:
                continue
        return commands

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None and is_running(self.process.pid)

    async def leaves_nothing(self) -> None:
        """Wait until all that descended from it, as far as was seen, is gone, and its temporary files with it."""
        await until(lambda: not any(is_running(each.pid) for each in self._family), f"the end of {self._family}")
        await until(lambda: not list(self.temporary.iterdir()), f"an empty {self.temporary}")


@asynccontextmanager
async def hubbub_local(
    folder: Path,
    *arguments: str,
    command: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> AsyncIterator[Local]:
    """`hubbub local` with arguments, and with a command after `--`; whatever is left is killed afterwards."""
    folder.mkdir(exist_ok=True)
    (folder / "tmp").mkdir()
    beside = ("--", *command) if command else ()
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hubbub", "local", *arguments, *beside),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd or folder,
            env=clean_environment(TMPDIR=str(folder / "tmp"), **(environment or {})),
            start_new_session=True,
        )
    local = Local(process, folder)
    try:
        yield local
        if local.process.returncode is not None:
            await local.leaves_nothing()
    finally:
        local.look()
        if process.returncode is None:
            process.kill()
            await process.wait()
        for each in local._family:
            if is_running(each.pid):
                each.kill()
