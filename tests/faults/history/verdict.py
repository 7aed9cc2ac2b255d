"""What a history can be found guilty of."""

from __future__ import annotations

import enum

import msgspec


class Kind(enum.StrEnum):
    """Which promise was broken."""

    LOST = "an acknowledged write is not stored"
    DOUBLED = "a write is stored twice"
    REFUSED = "a refused write is stored"
    INVENTED = "something is stored that nobody asked for"
    ALTERED = "a write is stored otherwise than it was asked"
    WRONG_ACK = "an acknowledgement does not agree with the log"
    GAP = "a log has a gap"
    DIFFERS = "a client saw something else than the log has"
    DISAGREE = "two clients saw different things in one place"
    HOLE = "a client was not given an entry"
    AGAIN = "a client was given an entry twice"
    DISORDER = "a client was given entries out of order"
    RESET = "a client was told to begin anew"
    OVERTAKEN = "a write has a lower place than one that was known before it began"
    STALE = "a reading was older than what was known before it began"
    MARK = "a read mark went back, or beyond the log"
    APART = "a client has not converged in time"
    PRESENCE = "a client was told at last that somebody else is online than is"
    ADMITTED = "a client hears a room whose member its user is not, or does not hear one whose member he is"
    UNANSWERED = "something was not answered although everything was healed"
    UNFINISHED = "the history has no end"


class Violation(msgspec.Struct, frozen=True):
    """A promise that was broken: where, who noticed, and what shows it."""

    kind: Kind
    room: str
    seq: int | None
    client: str | None
    evidence: str

    def __str__(self) -> str:
        place = self.room if self.seq is None else f"{self.room}/{self.seq}"
        return f"{self.kind}: {place}{f', {self.client}' if self.client else ''}: {self.evidence}"
