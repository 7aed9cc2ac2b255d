"""An invocation, and how it can end: what its caller gets, what its log says, what is reported of it."""

from __future__ import annotations

import asyncio
import math
from typing import Literal

import msgspec

from hubbub.emulator.definition import Function
from hubbub.emulator.functions.logs import Log

MIB = 1024 * 1024

Status = Literal["success", "error", "timeout"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an invocation ended.

    Attributes:
        request_id: its id.
        payload: what the function returned, JSON as a rule; or `errorMessage`, `errorType` and more of what went wrong.
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
    status: Status
    error_type: str | None = None
    duration_ms: float
    init_ms: float | None = None
    memory_mb: int = 0
    memory_limit_mb: int

    def line(self) -> str:
        """As Lambda logs it: a status only for what Lambda itself saw, not for what a handler raised."""
        parts = [
            f"REPORT RequestId: {self.request_id}",
            f"Duration: {self.duration_ms:.2f} ms",
            f"Billed Duration: {math.ceil(self.duration_ms + (self.init_ms or 0.0))} ms",
            f"Memory Size: {self.memory_limit_mb} MB",
            f"Max Memory Used: {self.memory_mb} MB",
        ]
        if self.init_ms is not None:
            parts.append(f"Init Duration: {self.init_ms:.2f} ms")
        if self.status == "timeout":
            parts.append("Status: timeout")
        elif self.error_type is not None and self.error_type.startswith(("Runtime.", "Function.", "Sandbox.")):
            parts.append(f"Status: error\tError Type: {self.error_type}")
        return "\t".join(parts)


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why an invocation has no response.

    Attributes:
        error_type: such as `Runtime.ExitError`.
        message: what Lambda says of it, after the request's id; empty where the runtime has said it in `payload`.
        payload: what the runtime posted; None where it posted nothing.
        status: how the invocation is reported.

    """

    error_type: str
    message: str = ""
    payload: bytes | None = None
    status: Status = "error"

    def answer(self, request_id: str) -> bytes:
        """The invocation's payload."""
        if self.payload is not None:
            return self.payload
        return msgspec.json.encode({"errorType": self.error_type, "errorMessage": self.words(request_id)})

    def words(self, request_id: str) -> str:
        """What is logged of it."""
        return f"RequestId: {request_id} Error: {self.message}"


class Invocation:
    """An invocation that somebody waits for.

    Attributes:
        request_id, payload, arn, trace_id, client_context: what a runtime is told of it.
        outcome: resolved at its end; who waited may be gone by then.

    """

    __slots__ = ("arn", "client_context", "outcome", "payload", "request_id", "trace_id")

    def __init__(self, request_id: str, payload: bytes, *, arn: str, trace_id: str, client_context: str | None) -> None:
        self.request_id = request_id
        self.payload = payload
        self.arn = arn
        self.trace_id = trace_id
        self.client_context = client_context
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()


def begin_in_log(log: Log, invocation: Invocation) -> None:
    """What is logged from here on belongs to the invocation."""
    log.begin(invocation.request_id)
    log.say(f"START RequestId: {invocation.request_id} Version: $LATEST")


def conclude(
    log: Log,
    invocation: Invocation,
    function: Function,
    result: bytes | Failure,
    *,
    duration_ms: float = 0.0,
    init_ms: float | None = None,
    memory_bytes: int = 0,
) -> Report:
    """End an invocation: its last lines in the log, and its outcome for who waits.

    Args:
        log: its environment's.
        invocation: which has begun in that log.
        function: what it ran.
        result: what the function returned, or why it did not.
        duration_ms, init_ms, memory_bytes: what it took.

    """
    failure = result if isinstance(result, Failure) else None
    report = Report(
        function=function.name,
        request_id=invocation.request_id,
        status=failure.status if failure else "success",
        error_type=failure.error_type if failure else None,
        duration_ms=duration_ms,
        init_ms=init_ms,
        memory_mb=min(math.ceil(memory_bytes / MIB), function.memory_mb),
        memory_limit_mb=function.memory_mb,
    )
    if failure and failure.message:
        log.say(failure.words(invocation.request_id))
    log.say(f"END RequestId: {invocation.request_id}")
    log.say(report.line())
    tail = log.end()
    if not invocation.outcome.done():
        invocation.outcome.set_result(
            Outcome(
                request_id=invocation.request_id,
                payload=failure.answer(invocation.request_id) if failure else result,  # type: ignore[arg-type]  # no Failure
                error="Unhandled" if failure else None,
                log=tail,
                duration_ms=duration_ms,
                init_ms=init_ms,
                memory_mb=report.memory_mb,
            )
        )
    return report
