"""How a client's calls fail beyond what the server answers, and what a rejection becomes in Python."""

from __future__ import annotations

from hubbub.errors import BY_CODE, HubbubError


class Disconnected(HubbubError):
    """The client has stopped for good: `close_code` and `reason` say why (`hubbub.protocol.CLOSE_CODES`)."""

    code = "disconnected"
    status = 503
    retry = False
    sentence = "The client has stopped."

    def __init__(self, close_code: int = 1000, reason: str = "") -> None:
        super().__init__(f"{reason or self.sentence} (close code {close_code})")
        self.close_code = close_code
        self.reason = reason


class TimedOut(HubbubError, TimeoutError):
    """No answer came in time; what was asked may have been done."""

    code = "timeout"
    status = 504
    sentence = "No answer came in time; it may have been done."


class Refused(HubbubError):
    """A failure with a code that this version does not know, such as one of a custom action: see `wire_code`."""

    def __init__(self, wire_code: str, message: str, retry_after_ms: int | None = None) -> None:
        super().__init__(message, retry_after_ms=retry_after_ms)
        self.wire_code = wire_code


def failure(code: str, message: str, retry_after_ms: int | None, close_code: int | None) -> HubbubError:
    """The exception of a rejection, of the class that `hubbub.errors.BY_CODE` has for its code."""
    if code == Disconnected.code:
        return Disconnected(1000 if close_code is None else close_code, message)
    if code == TimedOut.code:
        return TimedOut(message)
    known = BY_CODE.get(code)
    if known is None:
        return Refused(code, message, retry_after_ms)
    return known(message, retry_after_ms=retry_after_ms)
