"""Runs a command and ends it when whoever started it is gone, however that went: SIGKILL leaves nobody to clean up.

A script of its own, started by `hubbub.emulator.children` as `python -I -S leash.py LIFELINE COMMAND …`. LIFELINE is
the number of a pipe's reading end. The writing end is the starter's alone, so the kernel closes it when the starter
ends; then the command is killed with all that it started. It imports no more than it needs, since it waits beside the
command for as long as that runs.
"""

from __future__ import annotations

import os
import select
import signal
import sys

NOT_FOUND = 127
"""The exit status when there is no such command, as shells have it."""

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(lifeline: int, command: list[str]) -> int:
    """Run `command` in a process group of its own until it ends, or the lifeline does.

    SIGTERM, SIGINT and SIGHUP are passed on to the group. Whatever is left of the group at the end is killed.
    Returns its exit status; 128 and the signal's number if a signal ended it.
    """
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_inheritable(lifeline, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGCHLD, *_PASSED_ON):
        signal.signal(number, _only_wake)  # no SIG_IGN, which the command would inherit
    try:
        group = os.posix_spawnp(command[0], command, os.environ, setpgroup=0)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return NOT_FOUND
    while os.waitid(os.P_PID, group, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        readable, _, _ = select.select([lifeline, woken], [], [])
        if lifeline in readable:
            break
        for received in os.read(woken, 512):
            if received in _PASSED_ON:
                os.killpg(group, received)
    os.killpg(group, signal.SIGKILL)  # its leader is not yet waited for, so the group's number is still its own
    _, status = os.waitpid(group, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _only_wake(number: int, frame: object) -> None:
    """The signal's number comes out of the pipe."""


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))
