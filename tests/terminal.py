"""`hubbub` as a person runs it: the installed command, in a folder, on a terminal or not."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

BOUND_S = 60.0
HUBBUB = str(Path(sys.executable).with_name("hubbub"))
CTRL_C = b"\x03"

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def environment(**variables: str) -> dict[str, str]:
    """The environment of a fresh shell: nothing set for Hubbub, and nothing that changes how it prints."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HUBBUB_") and name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
    }
    return {**kept, "TERM": "xterm-256color", **variables}


def hubbub(
    folder: Path, *arguments: str, before: tuple[str, ...] = (), bound_s: float = BOUND_S, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, with no terminal.

    Args:
        folder: the current folder.
        arguments: after `hubbub`.
        bound_s: how long it may take.
        before: a command that runs it, such as setpriv.
        variables: more of the environment.

    """
    return subprocess.run(
        [*before, HUBBUB, *arguments],
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=bound_s,
        check=False,
    )


class Terminal:
    """The command on a pseudo-terminal of its own.

    Attributes:
        shown: everything that was shown so far.

    """

    def __init__(self, folder: Path, *arguments: str, columns: int = 80, **variables: str) -> None:
        self.shown = ""
        self._deadline = time.monotonic() + BOUND_S
        self._fd, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        # setsid makes it the terminal's own program, so that Ctrl-C reaches it as a signal.
        command = ["setsid", "--ctty", HUBBUB, *arguments]
        # Whoever runs the tests in the background of a script ignores SIGINT, and that would be inherited.
        heeded = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self._process = subprocess.Popen(
                command, cwd=folder, env=environment(**variables), stdin=slave, stdout=slave, stderr=slave
            )
        finally:
            signal.signal(signal.SIGINT, heeded)
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)

    @property
    def text(self) -> str:
        """What was shown, without colours."""
        return _CONTROL.sub("", self.shown).replace("\r\n", "\n")

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._fd, keys)

    def until(self, pattern: str) -> str:
        """Wait for words; returns the first group, or all that matches."""
        while (found := re.search(pattern, self.text)) is None:
            assert self._read(), f"it ended without {pattern!r}:\n{self.text}"
        return found[found.re.groups]

    def ends(self) -> int:
        """Wait for its end; returns the exit status."""
        while self._read():
            pass
        return self._process.wait(BOUND_S)

    def _read(self) -> bool:
        left_s = self._deadline - time.monotonic()
        ready, _, _ = select.select([self._fd], [], [], max(0.0, left_s))
        assert ready, f"not within {BOUND_S} s:\n{self.text}"
        try:
            octets = os.read(self._fd, 65_536)
        except OSError:  # Linux says so when the other side has closed
            return False
        self.shown += octets.decode(errors="replace")
        return bool(octets)
