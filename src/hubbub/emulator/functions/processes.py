"""Processes that run functions: how they are started, what they hold in memory, and that none outlives us.

Each has a session of its own, so a signal to its group reaches its children and Ctrl-C in a terminal does not reach it;
and a mark in its environment, which finds even those that made themselves a session. A warden, started beside them,
ends all of them when this process is gone, however that came about.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from hubbub.emulator.functions.bootstrap import warden
from hubbub.emulator.functions.bootstrap.warden import MARK, end_marked

PROC = Path("/proc")
"""Linux' own; elsewhere memory is neither measured nor limited, and a process that leaves its group is not found."""

WARDEN_BOUND_S = 10.0
"""How long the warden may take to end."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Process:
    """A running process and whatever it starts.

    Attributes:
        pid: its id, which is its group's and its session's too.

    """

    def __init__(self, process: asyncio.subprocess.Process, mark: str) -> None:
        self._process = process
        self._mark = mark
        self.pid = process.pid

    def __repr__(self) -> str:
        return f"<Process {self.pid}, status {self._process.returncode}>"

    @classmethod
    async def start(
        cls,
        command: Iterable[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        mark: str,
        stdout: int,
        stderr: int,
    ) -> Process:
        """Start a command.

        Args:
            command: the executable and its arguments.
            environment: all of its variables.
            folder: where it runs.
            mark: what no other process is marked with.
            stdout, stderr: file descriptors.

        Raises:
            OSError: it cannot be started.

        """
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env={**environment, MARK: mark},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        started = cls(process, mark)
        started._forbid_core_files()
        return started

    def kill(self) -> None:
        """End it and its group at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # gone; macOS says so of a group of zombies
            os.killpg(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Its status once it has ended, and its group with it: negative for the signal that ended it."""
        status = await self._process.wait()
        self.kill()
        return status

    async def end_family(self) -> None:
        """End what it left behind, where that has left its group."""
        await asyncio.to_thread(end_marked, self._mark)

    def _forbid_core_files(self) -> None:
        """A core file would be written into the user's source folder."""
        if sys.platform == "linux":
            import resource

            with contextlib.suppress(ProcessLookupError, PermissionError):
                resource.prlimit(self.pid, resource.RLIMIT_CORE, (0, 0))


class Warden:
    """Ends every process that was started under it once this one is gone, and removes their folder.

    Args:
        mark: what each process' mark begins with.
        folder: what it removes at the end.

    Attributes:
        takes_over: set once it is about to end all that is left, so that nobody else need look for that.

    """

    def __init__(self, mark: str, folder: Path) -> None:
        self._mark = mark
        self._folder = folder
        self.takes_over = False
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; it ends when our end of the pipe closes."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            str(Path(warden.__file__)),
            self._mark,
            str(self._folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch(self, pid: int) -> None:
        """A process has been started."""
        self._say(b"%d\n" % pid)

    def unwatch(self, pid: int) -> None:
        """It has ended."""
        self._say(b"-%d\n" % pid)

    async def stop(self) -> None:
        """Let it do its work and end."""
        if self._process is None or self._process.stdin is None:
            return
        self._say(b"0\n")
        self._process.stdin.close()
        try:
            async with asyncio.timeout(WARDEN_BOUND_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _say(self, line: bytes) -> None:
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(line)


class Census:
    """Which processes belong to which session: `/proc` is read for what is new since the last time."""

    def __init__(self) -> None:
        self._session_of: dict[str, int] = {}

    def take(self, sessions: set[int]) -> dict[int, list[int]]:
        """The processes of each of `sessions`, as ids."""
        found: dict[int, list[int]] = {session: [] for session in sessions}
        known, self._session_of = self._session_of, {}
        for name in os.listdir(PROC) if PROC.is_dir() else ():  # noqa: PTH208  names are wanted, twenty times a second
            if not name.isdigit():
                continue
            session = known.get(name) or _session_of(name)
            if session == 0:
                continue
            if session in found:
                found[session].append(int(name))
            self._session_of[name] = session
        return found


def resident_bytes(pid: int) -> int:
    """What a process has in memory; 0 if there is none, or no telling."""
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as statm:  # noqa: PTH123  read after each invocation
            return int(statm.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def proportional_bytes(pids: Iterable[int]) -> int:
    """What processes have in memory, what they share counted once: for a forked family much less than the sum."""
    total = 0
    for pid in pids:
        try:
            lines = (PROC / str(pid) / "smaps_rollup").read_bytes().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(b"Pss:"))
    return total


def _session_of(name: str) -> int:
    """A process' session; 0 if it has gone."""
    try:
        with open(f"/proc/{name}/stat", "rb", buffering=0) as stat:  # noqa: PTH123  as above
            return int(stat.read().rpartition(b")")[2].split()[3])
    except (OSError, IndexError):
        return 0
