"""The check of a whole history: what was promised against what was asked, told, seen and stored."""

from __future__ import annotations

from collections import Counter

from history.order import check_marks, check_real_time
from history.record import History
from history.verdict import Violation
from history.views import check_convergence, check_views
from history.writes import check_writes, collect


def check(history: History, *, converged_within_s: float) -> list[Violation]:
    """All violations of what PROTOCOL promises, in a fixed order.

    Args:
        history: the run.
        converged_within_s: how long after everything was healed and quiet a client may lack something.

    """
    rooms = collect(history)
    return [
        *check_writes(history, rooms),
        *check_views(history),
        *check_real_time(history, rooms),
        *check_marks(history),
        *check_convergence(history, converged_within_s),
    ]


def describe(violations: list[Violation], most: int = 30) -> str:
    """The violations in words: how many of each kind, and the first ones whole."""
    if not violations:
        return "no violations"
    counts = Counter(violation.kind for violation in violations)
    lines = [f"{number} times: {kind}" for kind, number in counts.most_common()]
    return "\n".join([*lines, "", *(str(violation) for violation in violations[:most])])
