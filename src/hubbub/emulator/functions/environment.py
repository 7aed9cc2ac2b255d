"""One execution environment: a process that runs a function, and one invocation at a time in it."""

from __future__ import annotations

from typing import Literal

import msgspec


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an invocation ended.

    Attributes:
        request_id: its id.
        payload: JSON: what the function returned, or `errorMessage`, `errorType` and more of what went wrong.
        error: `Unhandled` where the function failed, timed out or could not be run; None where it returned.
        log: the last 4 KB of its log, with START, END and REPORT.
        duration_ms: how long the handler took.
        init_ms: how long the environment took to come up, where it was started for this invocation.
        memory_mb: the most that its processes had resident.

    """

    request_id: str
    payload: bytes
    error: str | None = None
    log: bytes = b""
    duration_ms: float = 0.0
    init_ms: float | None = None
    memory_mb: int = 0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What Lambda's REPORT line says of an invocation, for who draws it.

    Attributes:
        function: the function's name.
        request_id: the invocation.
        status: how it ended.
        error_type: such as `Runtime.ImportModuleError` or the name of what was raised; None for success.
        duration_ms, init_ms: as in `Outcome`.
        memory_mb, memory_limit_mb: the most that was resident, and what was allowed.

    """

    function: str
    request_id: str
    status: Literal["success", "error", "timeout"]
    error_type: str | None = None
    duration_ms: float
    init_ms: float | None = None
    memory_mb: int = 0
    memory_limit_mb: int


class UnsupportedRuntime(Exception):
    """A function's runtime cannot be run here; the message names it and those that can."""
