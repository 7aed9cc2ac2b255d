"""A word that is written to prove that something can be written.

It is a statement of its own: all nodes write the same row, and none may hold it while it does something else, or stops
doing anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hubbub.store.postgres.link import Session


@dataclass(frozen=True, slots=True)
class Ping:
    """The word."""

    word: str
    key: str = ""


async def write(session: Session, pings: Sequence[Ping]) -> list[None]:
    """Write the last of them."""
    await session.alone(
        "INSERT INTO hubbub.meta (key, value) VALUES ('pinged', $1)"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        pings[-1].word,
    )
    return [None] * len(pings)
