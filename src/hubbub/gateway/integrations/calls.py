"""How an event reaches its function and what becomes of the answer: functions in this process.

A message's function runs in a task of its own, begun in the order of arrival, and its answer is written in the step in
which it returns. One that takes too long is answered for, and still runs to its end: it may be in the midst of a write.
A route's shortcut is asked before all that, unless a function of the same connection has yet to begin.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import msgspec

from hubbub.apigateway import Event, Handler, Response, Route, new_id, server_error_document
from hubbub.gateway.deadlines import Deadlines
from hubbub.gateway.integrations.failures import IntegrationFailed

logger = logging.getLogger("hubbub.gateway")

Answer = Callable[[bytes], None]
"""Called once with the body for the client."""


class _Call:
    """A function under way."""

    __slots__ = ("answer", "event", "overdue", "overdue_at", "timeout_s")

    def __init__(self, event: Event, answer: Answer, timeout_s: float, now: float) -> None:
        self.event = event
        self.answer = answer
        self.timeout_s = timeout_s
        self.overdue_at = now + timeout_s  # monotonic seconds
        self.overdue = False  # whether it was answered for already


class _Short(msgspec.Struct, eq=False, gc=False):
    """A message that a shortcut has taken."""

    calls: InProcess
    connection_id: str
    answer: Answer
    done: Callable[[], None]
    since: float  # monotonic seconds
    timeout_s: float
    overdue: bool = False  # whether it was answered for already

    def ended(self, body: bytes | None) -> None:
        """The shortcut has its answer."""
        shorts = self.calls._shorts
        shorts.discard(self)
        if not shorts and self.calls._emptied is not None:
            self.calls._emptied.set()
        if body and not self.overdue:
            self.answer(body)
        self.done()


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
        self._asked: dict[
            asyncio.Task[Response], asyncio.Future[None]
        ] = {}  # functions of `call`, and who waits for one
        self._deadlines = Deadlines()
        self._shorts: set[_Short] = set()  # messages that shortcuts have taken and not answered
        self._emptied: asyncio.Event | None = None  # set when the last of them is answered; None until that is awaited
        self._unbegun: dict[str, _Call] = {}  # by connection, the last call whose task has not begun to run

    def __len__(self) -> int:
        return len(self._calls) + len(self._asked) + len(self._shorts)

    def shorten(
        self, route: Route, connection_id: str, body: str, answer: Answer, done: Callable[[], None], now: float
    ) -> bool:
        """Give a route's shortcut a message; False when it is to go to the handler, by `start`.

        Args:
            route: which has a shortcut.
            connection_id: whose message it is.
            body: its text.
            answer, done: as with `start`, called only if it was taken.
            now: monotonic seconds.

        """
        if route.shortcut is None or connection_id in self._unbegun:
            return False
        timeout_s = self._timeout_s if route.timeout_s is None else route.timeout_s
        short = _Short(self, connection_id, answer, done, now, timeout_s)
        if not route.shortcut(connection_id, body, short.ended):
            return False
        self._shorts.add(short)
        return True

    def start(self, route: Route, event: Event, answer: Answer, done: Callable[[], None]) -> None:
        """Begin a route's handler with `event`.

        Args:
            route: whose handler, and whether a body is wanted of it.
            event: what it is given.
            answer: called with the response's body, or the document that says it failed.
            done: called when the function has ended, after `answer`.

        """
        loop = asyncio.get_running_loop()
        timeout_s = self._timeout_s if route.timeout_s is None else route.timeout_s
        call = _Call(event, answer, timeout_s, loop.time())
        if route.shortcut is not None:
            self._unbegun[event.request_context.connection_id] = call
        task = loop.create_task(self._run(route.handler, event, call, route.two_way))
        self._calls[task] = call

        def ended(task: asyncio.Task[None]) -> None:
            del self._calls[task]
            self._begun(call)
            done()

        task.add_done_callback(ended)

    async def call(
        self,
        handler: Handler,
        event: Event,
        *,
        timeout_s: float | None = None,
        late: Callable[[Response], None] | None = None,
    ) -> Response:
        """Call a function and return its response, for `$connect`, `$disconnect` and authorizers.

        Args:
            handler: the function.
            event: what it is given.
            timeout_s: how long it may take; None for as long as every function.
            late: told of a response that comes after the function was given up.

        Raises:
            TimeoutError: it took too long; it still runs to its end.
            Exception: whatever it raised.

        """
        loop = asyncio.get_running_loop()
        task = loop.create_task(_respond(handler, event))
        ended = loop.create_future()
        self._asked[task] = ended
        task.add_done_callback(self._has_ended)
        self._deadlines.add(ended, self._timeout_s if timeout_s is None else timeout_s, partial(_wake, ended))
        try:
            await ended
            if not task.done():
                raise TimeoutError
            return task.result()
        finally:
            self._deadlines.remove(ended)
            if not task.done():
                task.add_done_callback(partial(_say_how_it_ended, event, late))

    def _has_ended(self, task: asyncio.Task[Response]) -> None:
        _wake(self._asked.pop(task))

    def sweep(self, now: float) -> None:
        """Answer for the functions that are overdue; to be called about once a second."""
        for call in [call for call in self._calls.values() if call.overdue_at <= now and not call.overdue]:
            call.overdue = True
            self._on_failure()
            logger.error("a function took longer than %g s", call.timeout_s, extra=_ids(call.event))
            context = call.event.request_context
            call.answer(server_error_document(context.connection_id, context.request_id))
        for short in [short for short in self._shorts if short.since + short.timeout_s <= now and not short.overdue]:
            short.overdue = True
            self._on_failure()
            ids = {"connection_id": short.connection_id, "request_id": new_id()}
            logger.error("a function took longer than %g s", short.timeout_s, extra=ids)
            short.answer(server_error_document(**ids))

    async def finish(self, within_s: float) -> None:
        """Wait for the functions under way, at most `within_s` seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while (tasks := {*self._calls, *self._asked}) and loop.time() < until:
            await asyncio.wait(tasks, timeout=until - loop.time())
        if self._shorts:
            self._emptied = asyncio.Event()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), max(0.0, until - loop.time()))

    def _begun(self, call: _Call) -> None:
        connection_id = call.event.request_context.connection_id
        if self._unbegun.get(connection_id) is call:
            del self._unbegun[connection_id]

    async def _run(self, handler: Handler, event: Event, call: _Call, two_way: bool) -> None:
        self._begun(call)
        connection_id = event.request_context.connection_id
        try:
            response = await _respond(handler, event)
            body = response.body if two_way else None
            answer = body.encode() if isinstance(body, str) else body
        except Exception as error:
            log_failure("a function failed", error, _ids(event))
            answer = server_error_document(connection_id, event.request_context.request_id)
            if not call.overdue:
                self._on_failure()
        if answer and not call.overdue:
            call.answer(answer)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


async def _respond(handler: Handler, event: Event) -> Response:
    """A function's response; whatever else becomes of it is an error, also that it was cancelled from within."""
    try:
        response = await handler(event)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("the function was cancelled from within") from error
    if not isinstance(response, Response):
        raise TypeError(f"expected a Response from the function, got {type(response).__name__}")
    return response


def _say_how_it_ended(event: Event, late: Callable[[Response], None] | None, task: asyncio.Task[Response]) -> None:
    """A function that nobody waits for any more has ended."""
    if task.cancelled():
        return
    if (error := task.exception()) is not None:
        log_failure("a function failed after it was given up", error, _ids(event))
    elif late is not None:
        late(task.result())


def log_failure(what: str, error: BaseException, ids: dict[str, str]) -> None:
    """Log that a function failed: with the traceback of one in this process, with the words of one elsewhere."""
    if isinstance(error, IntegrationFailed):
        logger.error("%s: %s", what, error, extra=ids)
    else:
        logger.error(what, exc_info=error, extra=ids)


def _ids(event: Event) -> dict[str, str]:
    return {"connection_id": event.request_context.connection_id, "request_id": event.request_context.request_id}
