"""Who is written what at the end of a turn: the frames of a turn joined, and each connection written to once.

Connections that get the same frames are given the same bytes object. This is the way in plain Python; the same in C is
`_accelerator.c`, which writes to the sockets itself. The installation decides which of them is used, see `accelerator`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Write = Callable[[bytes], Any]


Seal = tuple[Callable[[bytes], Any], Callable[[], bytes], Write, int]
"""What encrypts, what then takes it out, what writes it where it waits for the socket, and how many bytes at a time."""


class Outlet:
    """The way out to one connection.

    Args:
        write: writes bytes to its socket; the socket's own function, for speed.
        transport: the socket's transport, where bytes may also be written past it as long as nothing waits in it.
        fd: the number of the socket to write to then; -1 for never.
        seal: how what is written there is encrypted; None for not at all.

    Attributes:
        write: see above.
        congested: whether something waits to be written, so that nothing must be written past it.

    """

    __slots__ = ("congested", "write")

    def __init__(self, write: Write, transport: Any = None, fd: int = -1, seal: Seal | None = None) -> None:
        self.write = write
        self.congested = False

    def detach(self) -> None:
        """The socket is gone: its number may be another's."""


AnyOutlet = TypeVar("AnyOutlet", bound=Outlet)

Batch = tuple[Sequence[AnyOutlet], Sequence[int]]
"""Those who get the same frames, and which: their positions in the turn's log, ascending."""

Left = tuple[AnyOutlet, bytes, Exception | None]
"""Whom nothing was written to, what it would have been, and what writing raised; None where it is congested."""


def flush(log: Sequence[bytes], batches: Sequence[Batch[AnyOutlet]]) -> tuple[int, int, list[Left[AnyOutlet]]]:
    """Write to all outlets of some batches what is theirs: once to each, in the order of the log.

    Args:
        log: the frames of the turn, encoded.
        batches: who gets which of them. An outlet can be in several, in each but once.

    Returns:
        how many frames and how many bytes that was, those who were left out included; and these.

    """
    left: list[Left[AnyOutlet]] = []
    if len(batches) == 1:
        outlets, positions = batches[0]
        payload = _joined(log, positions)
        _write_all(outlets, payload, left)
        return len(positions) * len(outlets), len(payload) * len(outlets), left
    frames = size = 0
    shared = _in_several(batches)
    several: dict[AnyOutlet, list[int]] = {}
    for which, (outlets, positions) in enumerate(batches):
        alone = outlets
        if shared:
            alone = []
            for outlet in outlets:
                if outlet in shared:
                    several.setdefault(outlet, []).append(which)
                else:
                    alone.append(outlet)
        if alone:
            payload = _joined(log, positions)
            _write_all(alone, payload, left)
            frames += len(positions) * len(alone)
            size += len(payload) * len(alone)
    same: dict[tuple[int, ...], list[AnyOutlet]] = {}
    for outlet, mine in several.items():
        same.setdefault(tuple(mine), []).append(outlet)
    for batch, outlets in same.items():
        merged = sorted(position for which in batch for position in batches[which][1])
        payload = _joined(log, merged)
        _write_all(outlets, payload, left)
        frames += len(merged) * len(outlets)
        size += len(payload) * len(outlets)
    return frames, size, left


def _in_several(batches: Sequence[Batch[AnyOutlet]]) -> set[AnyOutlet]:
    """The outlets that are in more than one batch."""
    seen: set[AnyOutlet] = set()
    again: set[AnyOutlet] = set()
    for outlets, _ in batches:
        again.update(seen.intersection(outlets))
        seen.update(outlets)
    return again


def _joined(log: Sequence[bytes], positions: Sequence[int]) -> bytes:
    return log[positions[0]] if len(positions) == 1 else b"".join([log[position] for position in positions])


def _write_all(outlets: Sequence[AnyOutlet], payload: bytes, left: list[Left[AnyOutlet]]) -> None:
    for outlet in outlets:
        if outlet.congested:
            left.append((outlet, payload, None))
            continue
        try:
            outlet.write(payload)
        except Exception as error:
            left.append((outlet, payload, error))
