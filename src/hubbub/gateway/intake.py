"""Who reads the sockets of live connections: all that have something in one go, or each transport for itself.

The one go is the accelerator's, in C (`_intake.c`). Bytes come to a connection in the order and as large as a transport
would have read them; of those that are one whole text frame, or one pong, that is told besides. Where a socket ends or
fails its transport reads on, and finds out. What is read over TLS, and on a machine without epoll or accelerator,
transports read themselves.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from hubbub.gateway import accelerator


class Owner(Protocol):
    """Whose socket is read."""

    def receive(self, data: bytes, text: str | None) -> None:
        """Bytes came, and they are the one whole frame that has this text; it raises nothing."""
        ...

    def receive_pong(self, data: bytes) -> None:
        """Bytes came that are a pong without payload, if a frame begins with them; it raises nothing."""
        ...

    def receive_end(self) -> None:
        """No more is read here: the transport is to read on; it raises nothing."""
        ...


class Intake:
    """The sockets that are read together on the running loop, which watches them as long as there are any.

    Args:
        longest: how many bytes a text frame may have to be told as text.

    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._sockets: Any = accelerator.Intake()  # `accelerator.Intake` is no type for who has none
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._sockets)

    def add(self, fd: int, owner: Owner) -> None:
        """Read a socket from now on, whose transport has paused.

        Raises:
            OSError: the system cannot watch one more.

        """
        first = not self._sockets
        self._sockets.add(fd, owner)
        if first:
            self._loop.add_reader(self._sockets.fileno(), self._read)

    def remove(self, fd: int, owner: Owner) -> None:
        """Read it no more; nothing happens where it is not read for this owner, so a number may be another's by now."""
        if self._sockets.remove(fd, owner) and not self._sockets:
            self._unwatch()

    def _read(self) -> None:
        for owner, data, text in self._sockets.read(self._longest):
            if data is None:
                owner.receive_end()
            elif text is False:
                owner.receive_pong(data)
            else:
                owner.receive(data, text)
        if not self._sockets:
            self._unwatch()

    def _unwatch(self) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(self._sockets.fileno())


def new_intake(longest: int) -> Intake | None:
    """One for the running loop, see `Intake`; None where transports are to read themselves."""
    return None if accelerator.Intake is None else Intake(longest)
