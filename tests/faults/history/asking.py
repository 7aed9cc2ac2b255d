"""What a client can be asked to do, and the two ways in which that may come to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from history.record import Content, Paged, Recorder, Saw


class RefusedError(Exception):
    """The server has said no.

    Attributes:
        code: the wire's.
        retry: whether it may say yes later.

    """

    def __init__(self, code: str, retry: bool) -> None:
        super().__init__(code)
        self.code = code
        self.retry = retry


class InDoubtError(Exception):
    """No answer came: it may have been done."""


class Client(Protocol):
    """One connection of a user at a time, for as long as the run lasts.

    Attributes:
        name, user: who it is.

    """

    name: str
    user: str

    async def attempt(self, action: str, room: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Ask once, on the connection that there is or the next one; the reply's fields.

        Raises:
            RefusedError, InDoubtError: so.

        """
        ...

    def position(self, room: str) -> int:
        """How far the client's view of the room goes without holes."""
        ...


def write_page(
    recorder: Recorder, client: str, room: str, after: int, began: float, entries: Sequence[Content], **said: Any
) -> None:
    """Record a page of history that a client has got: `said` are its `head` and `has_more`."""
    now = recorder.now()
    for entry in entries:
        number = recorder.number(entry)
        recorder.write(Saw(t=now, client=client, room=room, seq=entry["seq"], how="page", content=number))
    seqs = [entry["seq"] for entry in entries]
    recorder.write(Paged(t=now, client=client, room=room, after=after, began=began, seqs=seqs, **said))
