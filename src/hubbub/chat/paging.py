"""How many entries fit into one reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from hubbub.model import AnyEntry, MessageEdited
from hubbub.protocol import encode

Changes = Mapping[int, Sequence[AnyEntry]]
"""What has become of messages, by their seq."""

NO_CHANGES: Changes = MappingProxyType({})


def fitting(entries: Sequence[AnyEntry], size: int, changes: Changes = NO_CHANGES) -> tuple[list[AnyEntry], int]:
    """As many of the first entries as fit with their changes into `size` bytes of JSON, at least one; and the bytes."""
    taken: list[AnyEntry] = []
    total = 0
    for entry in entries:
        length = sum(len(encode(each)) + 1 for each in (entry, *changes.get(entry.seq, ())))
        if taken and total + length > size:
            break
        taken.append(entry)
        total += length
    return taken, total


def fitting_around(entries: Sequence[AnyEntry], size: int, seq: int, changes: Changes = NO_CHANGES) -> list[AnyEntry]:
    """As many of the entries nearest to `seq` as fit with their changes into `size` bytes, at least one, in order."""
    nearest, _ = fitting(sorted(entries, key=lambda entry: abs(entry.seq - seq)), size, changes)
    return sorted(nearest, key=lambda entry: entry.seq)


def by_target(changes: Sequence[AnyEntry]) -> dict[int, list[AnyEntry]]:
    """Changes by the message they change, in order, without edits that a later one of the same message replaces."""
    last = {change.target: change for change in changes if isinstance(change, MessageEdited)}
    grouped: dict[int, list[AnyEntry]] = {}
    for change in changes:
        target: int | None = getattr(change, "target", None)
        if target is not None and not (isinstance(change, MessageEdited) and last[target] is not change):
            grouped.setdefault(target, []).append(change)
    return grouped
