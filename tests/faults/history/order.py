"""What was known before something began bounds what it may come to: places of writes, heads, read marks."""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

from history.record import Asked, History
from history.verdict import Kind, Violation
from history.writes import Key, Write


class Known:
    """The highest number that had been seen before a time.

    Args:
        points: (time, number).

    """

    def __init__(self, points: Iterable[tuple[float, int]] = ()) -> None:
        self._times: list[float] = []
        self._highest: list[int] = []
        for when, number in sorted(points):
            if not self._highest or number > self._highest[-1]:
                self._times.append(when)
                self._highest.append(number)

    def before(self, when: float) -> tuple[int, float]:
        """The highest, and when it was seen; 0 for none."""
        place = bisect.bisect_left(self._times, when)
        return (self._highest[place - 1], self._times[place - 1]) if place else (0, 0.0)


def check_real_time(history: History, rooms: dict[str, dict[Key, Write]]) -> Iterator[Violation]:
    """Whatever was known of a log before a write or a reading began, it comes after, or has."""
    known = _heads(history)
    for room, writes in rooms.items():
        for write in writes.values():
            before, since = known[room].before(write.began)
            if write.places and write.places[0] <= before:
                asked = write.asks[0][0]
                words = f"op {asked.op} began at {asked.t:.6f} s, when {before} had been seen at {since:.6f} s"
                yield Violation(Kind.OVERTAKEN, room, write.places[0], asked.client, words)
    for synced in history.synced:
        for room, standing in synced.rooms.items():
            before, since = known[room].before(synced.began)
            if standing.head < before:
                words = f"a sync asked at {synced.began:.6f} s says so, when {before} had been seen at {since:.6f} s"
                yield Violation(Kind.STALE, room, standing.head, synced.client, words)
    for page in history.paged:
        before, since = known[page.room].before(page.began)
        if page.head < before:
            words = f"a page asked at {page.began:.6f} s says so, when {before} had been seen at {since:.6f} s"
            yield Violation(Kind.STALE, page.room, page.head, page.client, words)


def _heads(history: History) -> dict[str, Known]:
    """How far each log was known to go."""
    points: dict[str, list[tuple[float, int]]] = defaultdict(list)
    highest: dict[str, int] = defaultdict(int)
    for saw in history.saw:
        if saw.seq > highest[saw.room]:
            highest[saw.room] = saw.seq
            points[saw.room].append((saw.t, saw.seq))
    rooms = {asked.op: asked.room for asked in history.asked if asked.action != "read"}
    for answered in history.answered.values():
        if answered.outcome == "ok" and answered.op in rooms:
            points[rooms[answered.op]].append((answered.t, answered.result.get("seq") or 0))
    for synced in history.synced:
        for room, standing in synced.rooms.items():
            points[room].append((synced.t, standing.head))
    for page in history.paged:
        points[page.room].append((page.t, page.head))
    return defaultdict(Known, {room: Known(them) for room, them in points.items()})


def check_marks(history: History) -> Iterator[Violation]:
    """A user's read mark is never lower than he, or anybody in his name, was told before; nor beyond the log."""
    points: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    for asked in history.asked:
        answered = history.answered.get(asked.op)
        if answered is not None and answered.outcome == "ok":
            mark = _moves_to(asked, answered.result)
            if mark:
                points[asked.room, asked.user].append((answered.t, mark))
    for synced in history.synced:
        for room, standing in synced.rooms.items():
            points[room, synced.user].append((synced.t, standing.read))
    known = defaultdict(Known, {place: Known(them) for place, them in points.items()})
    for synced in history.synced:
        for room, standing in synced.rooms.items():
            before, since = known[room, synced.user].before(synced.began)
            if standing.read < before:
                words = f"{synced.user}'s, in a sync asked at {synced.began:.3f} s; it was {before} at {since:.3f} s"
                yield Violation(Kind.MARK, room, standing.read, synced.client, words)
            if standing.read > standing.head:
                words = f"{synced.user}'s is {standing.read} where the log ends at {standing.head}"
                yield Violation(Kind.MARK, room, standing.read, synced.client, words)
    for (room, user), mark in history.marks.items():
        before, since = known[room, user].before(math.inf)
        if not before <= mark <= len(history.logs[room]):
            words = (
                f"{user}'s in the end; it was {before} at {since:.3f} s, and the log ends at {len(history.logs[room])}"
            )
            yield Violation(Kind.MARK, room, mark, None, words)


def _moves_to(asked: Asked, result: dict[str, int]) -> int:
    if asked.action == "read":
        return int(asked.fields["seq"])
    return int(result.get("seq") or 0) if asked.action == "send" else 0
