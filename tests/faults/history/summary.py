"""What a run was like, in numbers: how much was done to it and in it, and how long things took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from history.record import History
from history.writes import collect


def summary(history: History) -> str:
    """A few lines for whoever ran it."""
    begun = Counter(fault.name for fault in history.faults if fault.does == "begins")
    outcomes = Counter(answered.outcome for answered in history.answered.values())
    writes = [write for room in collect(history).values() for write in room.values()]
    in_doubt = [write for write in writes if "ok" not in write.outcomes()]
    stored = sum(bool(write.places) for write in in_doubt)
    again = sum(answered.tries > 1 for answered in history.answered.values())
    lines = [
        f"{begun.total()} faults in {history.quiet or 0.0:.0f} s: {', '.join(f'{n} x {k}' for k, n in begun.items())}",
        f"{sum(map(len, history.logs.values()))} entries, {dict(outcomes)}, {again} asked again",
        f"{len(in_doubt)} writes in doubt, of which {stored} are stored",
        f"{len(history.saw)} entries seen, {len(history.synced)} connections, {len(history.lost)} ended",
        f"from asking to the acknowledgement: {_spread(_acknowledged(history))}",
        f"from the acknowledgement until the last client saw it: {_spread(_seen_by_all(history))}",
    ]
    if history.quiet is not None and history.saw:
        live = [saw.t for saw in history.saw if saw.how != "page"]
        lines.append(f"all had everything {max(0.0, max(live) - history.quiet):.2f} s after all was healed and quiet")
    return "\n".join(lines)


def _acknowledged(history: History) -> list[float]:
    began = {asked.op: asked.t for asked in history.asked if asked.action != "read"}
    return [
        answered.t - began[answered.op]
        for answered in history.answered.values()
        if answered.outcome == "ok" and answered.op in began
    ]


def _seen_by_all(history: History) -> list[float]:
    last: dict[tuple[str, int], float] = {}
    for saw in history.saw:
        if saw.how in ("live", "stream"):
            last[saw.room, saw.seq] = saw.t
    rooms = {asked.op: asked.room for asked in history.asked}
    delays = []
    for answered in history.answered.values():
        place = rooms.get(answered.op, ""), answered.result.get("seq") or 0
        if answered.outcome == "ok" and place in last:
            delays.append(max(0.0, last[place] - answered.t))
    return delays


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "nothing"
    ordered = sorted(values)
    half, most = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return f"median {half * 1_000:.0f} ms, 99th hundredth {most * 1_000:.0f} ms, longest {ordered[-1]:.1f} s"
