"""The server's processor time and memory, where its processes can be seen: on this machine, by /proc.

Whoever listens on the URL's port is the server, with all that descends from him. In front of a server stands often a
proxy: then `--pid` says who is meant.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

_WORD = re.compile(r"[\w./:+](?:[\w.:+-]|/(?!/))*")
"""What may be shown of how a server was called: a name, a path, a module with its attribute."""

_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_LISTENING = "0A"
_ENDED = "Z"
"""The state of a process that has ended, and that nobody has taken note of yet."""

_LONGEST_NAME = 60


class Usage(msgspec.Struct):
    """What the server's processes have used.

    Attributes:
        cpu_s: processor time of all that were seen so far, in seconds.
        rss_bytes: resident memory of those that run.
        processes: how many run.

    """

    cpu_s: float
    rss_bytes: int
    processes: int


class Observed:
    """The server's processes, followed over time.

    Args:
        pids: where to begin; their descendants count too.
        port: where to look for others once all of them have ended; None for nowhere.

    Attributes:
        pids: where it began, and those that took over.
        name: what the first is called.

    """

    def __init__(self, pids: Sequence[int], port: int | None = None) -> None:
        self.pids = list(pids)
        self.name = name_of(pids[0]) if pids else ""
        self._port = port
        self._cpu: dict[tuple[int, int], float] = {}  # by pid and when it started, also of those that have ended

    def look(self) -> Usage:
        """What they have used until now."""
        usage = self._look()
        if usage.processes or self._port is None:
            return usage
        self.pids += [pid for pid in listeners(self._port) if pid not in self.pids]  # it was started again
        return self._look()

    def _look(self) -> Usage:
        parents = _parents()
        rss, running = 0, 0
        for pid in _descendants(self.pids, parents):
            try:
                fields = _stat(pid)
                pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
            except (OSError, IndexError, ValueError):
                continue  # it has just ended
            self._cpu[pid, int(fields[19])] = (int(fields[11]) + int(fields[12])) / _TICKS
            rss += pages * _PAGE
            running += fields[0] != _ENDED
        return Usage(sum(self._cpu.values()), rss, running)


def listeners(port: int) -> list[int]:
    """The processes of this machine that listen on a port, as far as they can be seen; the oldest first."""
    sockets = set()
    for table in ("tcp", "tcp6"):
        try:
            rows = (_PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{fields[9]}]")
    found = [pid for pid in _pids() if sockets and sockets & set(_open_sockets(pid))]
    parents = _parents()
    # A process and its children may have the same socket: those below are counted with it.
    return sorted(pid for pid in found if not any(above in found for above in _ancestors(pid, parents)))


def _pids() -> list[int]:
    try:
        return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]
    except OSError:
        return []  # a system without /proc


def _open_sockets(pid: int) -> list[str]:
    found = []
    try:
        for entry in (_PROC / str(pid) / "fd").iterdir():
            try:
                target = str(entry.readlink())
            except OSError:
                continue
            if target.startswith("socket:"):
                found.append(target)
    except OSError:
        pass  # another user's, or just ended
    return found


def _stat(pid: int) -> list[str]:
    """The fields of a process behind its name, which may contain anything."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _parents() -> dict[int, int]:
    found = {}
    for pid in _pids():
        try:
            found[pid] = int(_stat(pid)[1])
        except (OSError, IndexError, ValueError):
            continue
    return found


def _descendants(roots: Iterable[int], parents: dict[int, int]) -> list[int]:
    wanted = set(roots)
    found = [pid for pid in wanted if pid in parents]
    while True:
        more = [pid for pid, parent in parents.items() if parent in wanted and pid not in wanted]
        if not more:
            return found
        wanted.update(more)
        found += more


def _ancestors(pid: int, parents: dict[int, int]) -> list[int]:
    found: list[int] = []
    while (pid := parents.get(pid, 0)) > 0 and pid not in found:
        found.append(pid)
    return found


def name_of(pid: int) -> str:
    """How a process was called: its program and what follows it, up to the first flag.

    What comes then may be anything, as passwords of databases are; and this goes into reports that are passed on.
    """
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    shown = [Path(words[0].split(" ")[0]).name.rstrip(":")]  # some rewrite it all into one
    if shown[0].startswith("python"):
        words = [word for number, word in enumerate(words) if number == 0 or not re.fullmatch(r"-[A-Za-z]", word)]
    plain = itertools.takewhile(_WORD.fullmatch, words[1:])
    shown += [Path(word).name if word.startswith("/") else word for word in plain]
    return " ".join(shown)[:_LONGEST_NAME].strip()
