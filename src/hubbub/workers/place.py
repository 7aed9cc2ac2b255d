"""What a worker is told by its parent: which one it is, its sockets, and how each hears of the end of the other."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import MutableMapping

import msgspec

from hubbub.listening import Ports

VARIABLE = "_HUBBUB_WORKER"
"""The variable by which a parent tells a worker its place."""


class Place(msgspec.Struct):
    """What a parent tells a worker.

    Attributes:
        number: which one it is, from 0.
        public: its bound sockets, as file descriptors.
        admin: those of its admin port.
        lifeline: the reading end of a pipe that is closed when the parent ends.
        ready: the writing end of a pipe, for saying that it accepts.

    """

    number: int
    public: list[int]
    admin: list[int]
    lifeline: int
    ready: int

    def ports(self) -> Ports:
        """Its sockets; to be called once."""
        return Ports(*([socket.socket(fileno=each) for each in fds] for fds in (self.public, self.admin)))

    def tell_ready(self) -> None:
        """Say that this worker accepts; to be called once."""
        with contextlib.suppress(BrokenPipeError):  # a parent that is about to end listens no more, and ends us as well
            os.write(self.ready, b"+")
        os.close(self.ready)

    def end_with_parent(self, within_s: float) -> None:
        """End this process when its parent is gone, however that went: as by SIGTERM, by force after `within_s`."""
        watch = threading.Thread(target=_outlive, args=(self.lifeline, within_s), name="hubbub lifeline", daemon=True)
        watch.start()


def _outlive(lifeline: int, within_s: float) -> None:
    os.read(lifeline, 1)  # nothing is ever written: it returns when the other end is closed
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(within_s)
    os._exit(1)


def take_place(environ: MutableMapping[str, str]) -> Place | None:
    """The place of this process among workers, taken out of the environment; None if it is no worker."""
    given = environ.pop(VARIABLE, None)
    if given is None:
        return None
    place = msgspec.json.decode(given, type=Place)
    for each in (*place.public, *place.admin, place.lifeline, place.ready):
        os.set_inheritable(each, False)
    return place
