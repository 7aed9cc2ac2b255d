"""One invocation: Lambda's event and context become a call of an async function, its end an answer or a failure.

Everything an environment keeps lives on one event loop (`hubbub.lambdas.home`), which runs while an invocation does and
stands still between two. What goes wrong is told in the log with all its ids; whoever invoked learns that it failed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from hubbub.lambdas.home import Home, current
from hubbub.lambdas.logs import Measures, emit, ids, trace_id

logger = logging.getLogger("hubbub.lambdas")

MARGIN_S = 0.3
"""How long before Lambda ends an invocation it gives up by itself, to say so in the log."""

WARM_S = 8.0
"""How long getting ready may take while an environment starts; Lambda allows ten seconds."""

Document = dict[str, Any]  # Any: JSON
"""What Lambda makes JSON of."""

EventT = TypeVar("EventT")


class Context(Protocol):
    """Lambda's context object, as far as it matters."""

    aws_request_id: str
    function_name: str

    def get_remaining_time_in_millis(self) -> int:
        """How long the invocation may still take."""
        ...


class AnswerByError(Exception):
    """An error that is the answer: whoever invoked reads its words, and there is nothing to be told in the log."""


class InvocationFailed(Exception):
    """The invocation failed; the log has the details under its request id."""


class Invocation:
    """What a function is told about the invocation that it works on.

    Attributes:
        request_id: Lambda's.
        measures: what is counted.

    """

    def __init__(self, context: Context) -> None:
        self.request_id = context.aws_request_id
        self.measures = Measures()
        self._context = context

    def left_s(self, margin_s: float) -> float:
        """How long it may still take, less a margin; seconds, at least a tenth."""
        return max(0.1, self._context.get_remaining_time_in_millis() / 1_000 - margin_s)


Work = Callable[[Home, EventT, Invocation], Awaitable[Document | None]]


class Function(Generic[EventT]):
    """A handler, as Lambda calls it: `function(event, context)`.

    Args:
        work: answers an event.
        takes: what the event is; `msgspec.convert` makes it of Lambda's JSON.
        about: the ids of an event, for the log.
        warm: what gets the environment ready, awaited while it starts.

    """

    def __init__(
        self,
        work: Work[EventT],
        *,
        takes: type[EventT],
        about: Callable[[EventT], dict[str, str]] = lambda event: {},
        warm: Callable[[Home], Awaitable[object]],
    ) -> None:
        self._work = work
        self._takes = takes
        self._about = about
        if "AWS_LAMBDA_RUNTIME_API" in os.environ:  # Lambda loads this while the environment starts
            _get_ready(current(), warm)

    def __call__(self, event: Any, context: Context) -> Document | None:  # Any: JSON
        """Answer an event.

        Raises:
            AnswerByError: that is the answer.
            InvocationFailed: it could not be answered.

        """
        home = current()
        call = Invocation(context)
        known = {"function_request_id": call.request_id, "trace_id": trace_id()}
        reset = ids.set({name: value for name, value in known.items() if value})
        began = time.perf_counter()
        try:
            call.measures.counts["ColdStarts"] = int(home.first())
            return self._answered(home, event, call)
        finally:
            call.measures.times["Took"] = (time.perf_counter() - began) * 1_000
            emit(call.measures.line(context.function_name, home.clock.now_ms()))
            ids.reset(reset)

    def _answered(self, home: Home, event: Any, call: Invocation) -> Document | None:  # Any: JSON
        try:
            taken = msgspec.convert(event, self._takes)
        except msgspec.ValidationError as error:
            logger.error("the invocation failed: the event is not as expected: %s", error)
            raise self._failure(call) from None
        ids.set({**ids.get(), **self._about(taken)})
        try:
            return home.run(self._bounded(home, taken, call))
        except AnswerByError:
            raise
        except TimeoutError:
            logger.error("the invocation failed: it took too long")
        except Exception:
            logger.exception("the invocation failed")
        raise self._failure(call)

    def _failure(self, call: Invocation) -> InvocationFailed:
        call.measures.counts["Failures"] += 1
        return InvocationFailed(f"see the log of {call.request_id}")

    async def _bounded(self, home: Home, event: EventT, call: Invocation) -> Document | None:
        async with asyncio.timeout(call.left_s(MARGIN_S)):
            return await self._work(home, event, call)


def _get_ready(home: Home, warm: Callable[[Home], Awaitable[object]]) -> None:
    """Do what can be done before the first invocation; what is away just now is asked for again then.

    Raises:
        SettingsError: the environment is set up wrongly, and no invocation could succeed.

    """
    from hubbub.config import SettingsError

    async def work() -> None:
        async with asyncio.timeout(WARM_S):
            await warm(home)

    try:
        home.run(work())
    except SettingsError:
        raise
    except Exception as error:
        logger.warning("not ready yet: %s: %s", type(error).__name__, error)
