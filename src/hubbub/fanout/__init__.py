"""Fan-outs, opened by URL; one module and one foreign library each."""

from __future__ import annotations

from hubbub.fanout.local import LocalFanout
from hubbub.ports import Clock, ReadAfter, Sink

__all__ = ["LocalFanout", "open_fanout"]


def open_fanout(url: str, *, sink: Sink, read: ReadAfter, clock: Clock) -> LocalFanout:
    """The fan-out and directory for `url`: `local`, the only one so far.

    Args:
        url: which fan-out.
        sink: the node's live connections.
        read: reads a room's entries after a seq from the store, to fill holes.
        clock: time.

    Raises:
        ValueError: no such fan-out.

    """
    if url == "local":
        return LocalFanout(sink=sink, read=read, clock=clock)
    raise ValueError(f"fanout: expected `local`, got {url!r}")
