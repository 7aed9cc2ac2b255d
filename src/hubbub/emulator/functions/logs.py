"""What functions print, line by line and within bounds, and the last of it that Lambda calls a log's tail."""

from __future__ import annotations

from typing import Literal

import msgspec


class LogLine(msgspec.Struct, frozen=True):
    """A line of a function's log.

    Attributes:
        function: the function's name.
        request_id: the invocation that was under way; None while the environment came up or waited.
        stream: `platform` for what Lambda itself says: START, END, REPORT, and our own warnings.
        text: without the line's end.
        at: epoch seconds.

    """

    function: str
    request_id: str | None
    stream: Literal["stdout", "stderr", "platform"]
    text: str
    at: float
