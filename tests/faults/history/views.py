"""What each client saw against the logs: in order, each once, without holes, word for word; and all of it in time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from history.record import Content, Followed, History, Paged, Saw, Standing, Synced
from history.verdict import Kind, Violation


def check_views(history: History) -> Iterator[Violation]:
    """Every client's view of every room."""
    yield from _check_contents(history)
    yield from _check_order(history)
    for reset in history.resets:
        yield Violation(Kind.RESET, reset.room, None, reset.client, f"at {reset.t:.3f} s")


def check_convergence(history: History, within_s: float) -> Iterator[Violation]:
    """Once everything was healed and quiet, each client has had everything after `within_s`."""
    if history.quiet is None:
        yield Violation(Kind.UNFINISHED, "", None, None, "it was broken off before everything was quiet")
        return
    if history.unanswered:
        yield Violation(Kind.UNANSWERED, "", None, None, f"{history.unanswered} writers had to give up")
    for present in history.present:
        if present.told != present.online:
            words = f"at {present.t:.3f} s it was told {present.told}, expected {present.online}"
            yield Violation(Kind.PRESENCE, present.room, None, present.client, words)
    for heard in history.heard:
        if heard.may != heard.does:
            words = "its user is a member and it was not given this" if heard.may else "it was given this"
            yield Violation(Kind.ADMITTED, heard.room, heard.seq, heard.client, f"{words}, at {heard.t:.3f} s")
    reached = _reached(history)
    for (client, room), (position, when, lacks) in sorted(reached.items()):
        head = len(history.logs.get(room, ()))
        if position < head:
            words = f"it has everything up to {position} of {head}" + (f", and {lacks[:5]}…" if lacks else "")
            yield Violation(Kind.APART, room, position + 1, client, words)
        elif when > history.quiet + within_s:
            words = f"{when - history.quiet:.1f} s after everything was healed and quiet, expected {within_s:g} s"
            yield Violation(Kind.APART, room, head, client, words)


def _check_contents(history: History) -> Iterator[Violation]:
    logs = {room: {entry["seq"]: entry for entry in log} for room, log in history.logs.items()}
    said = {(asked.room, asked.user, asked.fields.get("text")) for asked in history.asked}
    first: dict[tuple[str, int], Saw] = {}  # who saw this place first
    judged: set[tuple[str, int, int]] = set()
    for saw in history.saw:
        if (saw.room, saw.seq, saw.content) in judged:
            continue  # somebody else saw the same
        judged.add((saw.room, saw.seq, saw.content))
        seen, stored = history.contents[saw.content], logs.get(saw.room, {}).get(saw.seq)
        words = f"by {saw.how} at {saw.t:.3f} s: {seen}"
        other = first.setdefault((saw.room, saw.seq), saw)
        if not _same(history.contents[other.content], seen, said):
            words = f"{words}; {other.client} saw {history.contents[other.content]}"
            yield Violation(Kind.DISAGREE, saw.room, saw.seq, saw.client, words)
        if saw.room in logs and (stored is None or not _same(seen, stored, said)):
            yield Violation(Kind.DIFFERS, saw.room, saw.seq, saw.client, f"{words}; the log has {stored}")


def _same(one: Content, other: Content, said: set[tuple[str, str, str | None]]) -> bool:
    """Whether both are the same entry, one of them perhaps as it was before its words were removed."""
    if one == other:
        return True
    full, bare = (other, one) if one.get("deleted") else (one, other)
    if not bare.get("deleted") or full.get("deleted"):
        return False
    rest = {name: value for name, value in full.items() if name != "text"}
    return {**rest, "deleted": True} == bare and (full["room"], full["by"], full.get("text")) in said


class _Wire:
    """One room on one connection: what is to come next."""

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        self.missed = standing.after  # the last entry that the reply to `sync` had
        self.live = standing.head  # the last one that came live, which begins where the reply ended


def _check_order(history: History) -> Iterator[Violation]:
    wires: dict[tuple[str, int, str], _Wire] = {}
    streams: dict[tuple[str, str], int] = defaultdict(int)
    for event in history.order:
        match event:
            case Synced():
                for room, standing in event.rooms.items():
                    wires[event.client, event.connection, room] = _Wire(standing)
                    if standing.is_reset:
                        words = f"on connection {event.connection}, which named {standing.after}"
                        yield Violation(Kind.RESET, room, standing.after, event.client, words)
            case Saw(how="stream"):
                last = streams[event.client, event.room]
                streams[event.client, event.room] = max(last, event.seq)
                yield from _next(event, last)
            case Saw(how="sync" | "live"):
                wire = wires.get((event.client, event.connection, event.room))
                if wire is None:
                    words = f"on connection {event.connection}, which does not listen to the room"
                    yield Violation(Kind.DISORDER, event.room, event.seq, event.client, words)
                elif event.how == "sync":
                    yield from _next(event, wire.missed)
                    wire.missed = max(wire.missed, event.seq)
                else:
                    yield from _next(event, wire.live)
                    wire.live = max(wire.live, event.seq)
            case Paged():
                yield from _check_page(event)
            case _:
                pass
    for (client, connection, room), wire in wires.items():
        missed, standing = wire.missed, wire.standing
        if not standing.is_reset and (missed < standing.head if not standing.has_more else missed >= standing.head):
            words = f"the reply to sync on connection {connection} ended at {missed}; it said {standing}"
            yield Violation(Kind.HOLE, room, missed + 1, client, words)


def _next(saw: Saw, last: int) -> Iterator[Violation]:
    if saw.seq == last + 1:
        return
    kind = Kind.HOLE if saw.seq > last else Kind.AGAIN if saw.seq == last else Kind.DISORDER
    words = f"by {saw.how} on connection {saw.connection} at {saw.t:.3f} s it came after {last}"
    yield Violation(kind, saw.room, saw.seq, saw.client, words)


def _check_page(page: Paged) -> Iterator[Violation]:
    expected = list(range(page.after + 1, page.after + 1 + len(page.seqs)))
    if page.seqs != expected:
        words = f"a page after {page.after} at {page.t:.3f} s has {page.seqs}"
        yield Violation(Kind.HOLE, page.room, page.after + 1, page.client, words)
    elif page.has_more != (page.after + len(page.seqs) < page.head):
        words = (
            f"a page after {page.after} with {len(page.seqs)} entries says has_more {page.has_more}, head {page.head}"
        )
        yield Violation(Kind.HOLE, page.room, page.after + 1, page.client, words)


def _reached(history: History) -> dict[tuple[str, str], tuple[int, float, list[int]]]:
    """How far each client's view of a room goes without holes, when it got there, and what it has beyond."""
    positions: dict[tuple[str, str], int] = {}
    when: dict[tuple[str, str], float] = {}
    ahead: dict[tuple[str, str], set[int]] = defaultdict(set)
    for event in history.order:
        if isinstance(event, Synced | Followed):
            for room in event.rooms:
                positions.setdefault((event.client, room), 0)
                when.setdefault((event.client, room), 0.0)
        elif isinstance(event, Saw):
            place = event.client, event.room
            position = positions.setdefault(place, 0)
            if event.seq > position:
                ahead[place].add(event.seq)
                while position + 1 in ahead[place]:
                    position += 1
                    ahead[place].discard(position)
                    when[place] = event.t
                positions[place] = position
    return {place: (positions[place], when.get(place, 0.0), sorted(ahead[place])) for place in positions}
