"""What clients asked to be written against what the logs have: once if acknowledged, else at most once.

Messages are known by their client_id, edits by their words: so a message that was edited is not to be deleted later,
which would take the words of its edits as well.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from history.record import Answered, Asked, Content, History
from history.verdict import Kind, Violation

Key = tuple[Any, ...]
"""What makes a write the same as another, whoever looks at it."""

SETTING_UP = ("room.updated", "member.joined")
"""Entries that come from making the rooms before the run."""

_SAID = {
    "send": "message.created",
    "edit": "message.edited",
    "delete": "message.deleted",
    "react": "reaction.added",
    "unreact": "reaction.removed",
}


class Write:
    """One thing to be written, however often it was asked for under the same key.

    Attributes:
        asks: the askings, with their answers as far as there were any.
        places: where the log has it.

    """

    def __init__(self) -> None:
        self.asks: list[tuple[Asked, Answered | None]] = []
        self.places: list[int] = []

    @property
    def began(self) -> float:
        """When it was first asked for."""
        return min(asked.t for asked, _ in self.asks)

    def outcomes(self) -> set[str]:
        """What its askings came to."""
        return {answered.outcome if answered else "in doubt" for _, answered in self.asks}


def key_of_asked(asked: Asked) -> Key:
    """By what a write is found in its room's log."""
    fields, kind = asked.fields, _SAID[asked.action]
    return _key(kind, {**fields, "by": asked.user})


def key_of_entry(entry: Content) -> Key:
    """The same, of an entry."""
    return _key(entry["type"], entry)


def _key(kind: str, fields: dict[str, Any]) -> Key:
    match kind:
        case "message.created":
            return kind, fields["by"], fields.get("client_id")
        case "message.edited":
            return kind, fields["by"], fields["target"], fields.get("text")
        case "message.deleted":
            return kind, fields["target"]  # whoever was first: it is done once
        case _:
            return kind, fields["by"], fields.get("target"), fields.get("reaction")


def collect(history: History) -> dict[str, dict[Key, Write]]:
    """All writes of each room, with their places in its log."""
    rooms: dict[str, dict[Key, Write]] = defaultdict(lambda: defaultdict(Write))
    for asked in history.asked:
        if asked.action in _SAID:
            rooms[asked.room][key_of_asked(asked)].asks.append((asked, history.answered.get(asked.op)))
    for room, log in history.logs.items():
        writes = rooms[room]
        for entry in log:
            key = key_of_entry(entry)
            if key in writes:
                writes[key].places.append(entry["seq"])
    return rooms


def check_writes(history: History, rooms: dict[str, dict[Key, Write]]) -> Iterator[Violation]:
    """Every write against its room's log, and every log by itself."""
    for room in sorted(rooms.keys() - history.logs.keys()):
        yield Violation(Kind.UNFINISHED, room, None, None, "its log was not read in the end")
    for room, log in history.logs.items():
        yield from _check_log(room, log, rooms[room])
        by_seq = {entry["seq"]: entry for entry in log}
        for write in rooms[room].values():
            yield from _check_write(room, write, by_seq)


def _check_log(room: str, log: list[Content], writes: dict[Key, Write]) -> Iterator[Violation]:
    for place, entry in enumerate(log, 1):
        if entry["seq"] != place:
            yield Violation(Kind.GAP, room, place, None, f"the entry in this place has seq {entry['seq']}")
            break
    for what in ("id", "text"):
        seen = Counter(entry[what] for entry in log if entry.get(what))
        for value in (value for value, times in seen.items() if times > 1):
            places = [entry["seq"] for entry in log if entry.get(what) == value]
            yield Violation(Kind.DOUBLED, room, places[1], None, f"{what} {value!r} is at {places}")
    for entry in log:
        if entry["type"] not in SETTING_UP and key_of_entry(entry) not in writes:
            yield Violation(Kind.INVENTED, room, entry["seq"], None, f"nobody asked for {entry}")


def _check_write(room: str, write: Write, log: dict[int, Content]) -> Iterator[Violation]:
    outcomes, places = write.outcomes(), write.places
    first = write.asks[0][0]
    what = f"op {first.op}, {first.action} {first.fields} at {first.t:.3f} s, {', '.join(sorted(outcomes))}"
    if "ok" in outcomes and not places:
        yield Violation(Kind.LOST, room, _seq(write), first.client, what)
    if outcomes == {"refused"} and places:
        yield Violation(Kind.REFUSED, room, places[0], first.client, what)
    if len(places) > 1:
        yield Violation(Kind.DOUBLED, room, places[1], first.client, f"{what}; it is at {places}")
    for place in places:
        entry = log[place]
        if entry.get("text") != (None if entry.get("deleted") else first.fields.get("text")):
            yield Violation(Kind.ALTERED, room, place, first.client, f"{what}; the log has {entry}")
    for asked, answered in write.asks:
        if answered is None or answered.outcome != "ok" or not places:
            continue
        result, entry = answered.result, log[places[0]]
        told = {name: result[name] for name in ("seq", "id", "at", "client_id") if result.get(name)}
        differs = {name: entry.get(name) for name, value in told.items() if entry.get(name) != value}
        if differs or (not told.get("seq") and not _may_be_done_already(asked, answered)):
            words = f"op {asked.op}, {asked.action} {asked.fields}: told {told}, the log has {entry}"
            yield Violation(Kind.WRONG_ACK, room, result.get("seq"), asked.client, words)


def _may_be_done_already(asked: Asked, answered: Answered) -> bool:
    """Whether it may have been told that there was nothing to do: when somebody, or an attempt before, had done it."""
    return asked.action == "delete" or (asked.action in ("react", "unreact") and answered.tries != 1)


def _seq(write: Write) -> int | None:
    return next((answered.result.get("seq") for _, answered in write.asks if answered and answered.result), None)
