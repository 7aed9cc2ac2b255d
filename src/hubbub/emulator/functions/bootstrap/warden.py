"""Waits until whoever started it is gone, then ends the processes that it left, and removes their folder.

Run as `python -I -S warden.py MARK FOLDER`; stdin has a line `PID` for each process that begins, `-PID` as it ends, and
`0` as a last one where all have.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time

MARK = "_HUBBUB_ENVIRONMENT"
"""The variable that marks a process: the pool's name and the environment's number."""

PAUSE_S = 0.05
PATIENCE_S = 10.0
"""How long to go on for processes that do not die."""


def end_marked(mark: str) -> int:
    """Kill the processes whose mark is, or begins with, `mark`; one whose environment cannot be read is not ours.

    Returns:
        How many there were.

    """
    found = 0
    wanted = b"\0" + f"{MARK}={mark}".encode()
    if not mark.endswith("."):
        wanted += b"\0"
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():  # noqa: PTH112, PTH208  pathlib loads slowly
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as environ:  # noqa: PTH123  as above
                is_marked = wanted in b"\0" + environ.read()
        except OSError:
            continue
        if is_marked:
            found += 1
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(name), signal.SIGKILL)
    return found


def wait_for_end() -> tuple[set[int], bool]:
    """Wait until stdin ends.

    Returns:
        The processes that have not ended by then, and whether none can be about to start.

    """
    running: set[int] = set()
    orderly = False
    for line in sys.stdin.buffer:
        pid = int(line)
        if pid > 0:
            running.add(pid)
        else:
            running.discard(-pid)
            orderly = pid == 0
    return running, orderly


def main(mark: str, folder: str) -> None:
    """Wait, end what is left, and look again until nothing is."""
    running, orderly = wait_for_end()
    for pid in running:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    patient_until = time.monotonic() + PATIENCE_S
    if not orderly:
        end_marked(mark)
        time.sleep(PAUSE_S)
    while end_marked(mark) and time.monotonic() < patient_until:
        time.sleep(PAUSE_S)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
