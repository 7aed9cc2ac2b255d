"""How many entries fit into one reply."""

from __future__ import annotations

from collections.abc import Sequence

from hubbub.model import AnyEntry
from hubbub.protocol import encode


def fitting(entries: Sequence[AnyEntry], size: int) -> tuple[list[AnyEntry], int]:
    """As many of the first entries as fit into `size` bytes of JSON, at least one; and the bytes they take."""
    taken: list[AnyEntry] = []
    total = 0
    for entry in entries:
        length = len(encode(entry)) + 1
        if taken and total + length > size:
            break
        taken.append(entry)
        total += length
    return taken, total


def fitting_around(entries: Sequence[AnyEntry], size: int, seq: int) -> list[AnyEntry]:
    """As many of the entries nearest to `seq` as fit into `size` bytes of JSON, at least one, in `seq` order."""
    nearest, _ = fitting(sorted(entries, key=lambda entry: abs(entry.seq - seq)), size)
    return sorted(nearest, key=lambda entry: entry.seq)
