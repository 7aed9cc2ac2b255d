"""How an event reaches its function and what becomes of the answer: functions in this process.

A message's function runs in a task of its own, begun in the order of arrival, and its answer is written in the step in
which it returns. One that takes too long is answered for, and still runs to its end: it may be in the midst of a write.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from hubbub.apigateway import Event, Handler, Response, server_error_document

logger = logging.getLogger("hubbub.gateway")

Answer = Callable[[bytes], None]
"""Called once with the body for the client."""


class _Call:
    """A function under way."""

    __slots__ = ("answer", "context", "overdue", "overdue_at")

    def __init__(self, event: Event, answer: Answer, overdue_at: float) -> None:
        self.context = event.request_context
        self.answer = answer
        self.overdue_at = overdue_at  # monotonic seconds
        self.overdue = False  # whether it was answered for already


class InProcess:
    """Calls functions in this process.

    Args:
        timeout_s: how long a function may take before it is answered for, in seconds.
        on_failure: told of each function that raised or took too long.

    """

    def __init__(self, timeout_s: float, on_failure: Callable[[], None]) -> None:
        self._timeout_s = timeout_s
        self._on_failure = on_failure
        self._calls: dict[asyncio.Task[None], _Call] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def start(self, handler: Handler, event: Event, answer: Answer, two_way: bool, done: Callable[[], None]) -> None:
        """Begin `handler` with `event`.

        Args:
            handler: the function.
            event: what it is given.
            answer: called with the response's body, or the document that says it failed.
            two_way: whether a body is wanted.
            done: called when the function has ended, after `answer`.

        """
        loop = asyncio.get_running_loop()
        call = _Call(event, answer, loop.time() + self._timeout_s)
        task = loop.create_task(self._run(handler, event, call, two_way))
        self._calls[task] = call

        def ended(task: asyncio.Task[None]) -> None:
            del self._calls[task]
            done()

        task.add_done_callback(ended)

    async def call(self, handler: Handler, event: Event) -> Response:
        """Call a function and return its response, for `$connect`, `$disconnect` and authorizers.

        Raises:
            TimeoutError: it took too long; it still runs to its end.
            Exception: whatever it raised.

        """
        loop = asyncio.get_running_loop()
        inner: asyncio.Task[Response] = loop.create_task(handler(event))  # type: ignore[arg-type]  # it is async
        return await asyncio.wait_for(asyncio.shield(inner), self._timeout_s)

    def sweep(self, now: float) -> None:
        """Answer for the functions that are overdue; to be called about once a second."""
        for call in [call for call in self._calls.values() if call.overdue_at <= now and not call.overdue]:
            call.overdue = True
            self._on_failure()
            logger.error("a function took longer than %g s", self._timeout_s, extra=_ids(call))
            call.answer(server_error_document(call.context.connection_id, call.context.request_id))

    async def finish(self, within_s: float) -> None:
        """Wait for the functions under way, at most `within_s` seconds."""
        if self._calls:
            await asyncio.wait(list(self._calls), timeout=within_s)

    async def _run(self, handler: Handler, event: Event, call: _Call, two_way: bool) -> None:
        try:
            response = await handler(event)
        except Exception:
            self._on_failure()
            logger.exception("a function failed", extra=_ids(call))
            body: str | bytes | None = server_error_document(call.context.connection_id, call.context.request_id)
        else:
            body = response.body if two_way else None
        if body and not call.overdue:
            call.answer(body.encode() if isinstance(body, str) else body)


def _ids(call: _Call) -> dict[str, str]:
    return {"connection_id": call.context.connection_id, "request_id": call.context.request_id}
