"""What is made of what senders report."""

from __future__ import annotations

import msgspec
import pytest
from bench.sends import Said, figures_of

SAID = Said(
    acks=500, failures=0, unsent=0, unanswered=0, seconds=2, p50_us=1_500, p99_us=9_000, max_us=12_500, cpu_s=0.003
)


def test_times_are_those_of_a_message() -> None:
    """Processor time is divided by the acknowledgements, which are counted by the second."""
    assert figures_of(SAID, 2, 0.02) == pytest.approx((250, 40, 6, 1.5, 9, 12.5))


def test_messages_that_were_not_sent_when_they_were_due_are_no_figures() -> None:
    """Nobody knows how long they would have waited, so the others' percentiles would flatter."""
    with pytest.raises(RuntimeError, match="3 messages could not be sent when they were due"):
        figures_of(msgspec.structs.replace(SAID, unsent=3), 2, 0.02)
