"""What became of one job, in numbers, for whoever makes metrics of them."""

from __future__ import annotations

import msgspec


class Tally(msgspec.Struct, kw_only=True):
    """The numbers of one job.

    Attributes:
        kind: the job's: `deliver`, `announce`, `signal` or `part`.
        room: whose listeners it concerned.
        recipients: listeners that lacked something.
        posted: posts that were taken.
        bytes: how long those were in all.
        gone: connections that were no more.
        refused: posts that were refused for good (400, 403, 413).
        throttled: posts that were answered with 429.
        broken: posts that were answered with 5xx or not at all.
        retried: posts that were tried again for a while.
        failed: posts that were given up; their recipients repair that from the log.
        passes: how often the listeners were gone through.
        reads: how often the log was read.
        parts: jobs that were handed to others.
        is_handed_over: whether the rest was left to a successor, for time ran short.
        duration_s: how long it took.

    """

    kind: str
    room: str
    recipients: int = 0
    posted: int = 0
    bytes: int = 0
    gone: int = 0
    refused: int = 0
    throttled: int = 0
    broken: int = 0
    retried: int = 0
    failed: int = 0
    passes: int = 0
    reads: int = 0
    parts: int = 0
    is_handed_over: bool = False
    duration_s: float = 0.0
