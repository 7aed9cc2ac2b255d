"""How functions are invoked: for an answer, or with an event that is queued, tried again, and accounted for at its end.

Source: docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html and invocation-async-configuring.html.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from types import TracebackType
from typing import Protocol, Self

import msgspec

from hubbub.emulator.clock import Clock, SystemClock
from hubbub.emulator.definition import Function
from hubbub.emulator.functions import Throttled, UnknownFunction
from hubbub.emulator.functions.destinations import Condition, Destinations, Ended, invocation_record
from hubbub.emulator.functions.outcome import Outcome
from hubbub.emulator.services import ServiceClient
from hubbub.gateway.integrations import Invoked

logger = logging.getLogger("hubbub.emulator")


class Runner(Protocol):
    """What runs functions: `hubbub.emulator.functions.Functions`."""

    def names(self) -> tuple[str, ...]:
        """The names of all functions."""
        ...

    def get(self, name_or_arn: str) -> Function:
        """The function of a name or ARN; raises `UnknownFunction`."""
        ...

    def arn(self, name_or_arn: str) -> str:
        """Its ARN, without a qualifier; raises `UnknownFunction`."""
        ...

    async def invoke(
        self,
        name_or_arn: str,
        payload: bytes,
        *,
        client_context: str | None = None,
        request_id: str | None = None,
        trace_id: str | None = None,
    ) -> Outcome:
        """Run it to its end; raises `UnknownFunction`, `Throttled`."""
        ...


class EventLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds the queue of events, and when their tries are.

    Attributes:
        events, bytes: how many may wait or run, and their payloads together.
        parallel: how many events of one function run at a time: AWS starts as many environments as it takes, and a
            laptop has not got them.
        retry_delays_s: after how long an event whose function failed is tried again, try by try.
        backoff_s: the first and the longest delay after a throttle; each is twice the one before.
        drain_s: how long tries that run at the end may take.

    """

    events: int = 10_000
    bytes: int = 256 * 1024 * 1024
    parallel: int = 8
    retry_delays_s: tuple[float, float] = (60.0, 120.0)
    backoff_s: tuple[float, float] = (1.0, 300.0)
    drain_s: float = 3.0


class _Event:
    """An event in the queue."""

    __slots__ = ("accepted_at", "failures", "function", "last", "payload", "request_id", "running", "trace_id")

    def __init__(
        self, function: str, payload: bytes, request_id: str, trace_id: str | None, accepted_at: float
    ) -> None:
        self.function = function  # its name
        self.payload = payload
        self.request_id = request_id
        self.trace_id = trace_id
        self.accepted_at = accepted_at  # epoch seconds
        self.failures = 0  # tries in which the function failed
        self.last: Outcome | None = None  # of the last try; None while there was none
        self.running = False  # whether a try is under way, or a delivery


class Invocations:
    """Invokes functions: `async with Invocations(functions, services) as invocations: …`.

    At the end, tries that run are waited for; events that would be tried later are logged as lost.

    Args:
        functions: what runs them.
        services: where destinations and dead-letter queues are.
        clock: for delays and ages.
        limits: of the queue.

    """

    def __init__(
        self,
        functions: Runner,
        services: ServiceClient,
        *,
        clock: Clock | None = None,
        limits: EventLimits | None = None,
    ) -> None:
        self._functions = functions
        self._clock = clock or SystemClock()
        self._limits = limits or EventLimits()
        self._destinations = Destinations(services, self._clock, self.enqueue)
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._tasks: dict[asyncio.Task[None], _Event] = {}
        self._bytes = 0  # of the payloads in the queue
        self._closing = False
        self._lost: Counter[str] = Counter()  # events that the end left over, by function

    def __len__(self) -> int:
        """How many events wait or run."""
        return len(self._tasks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def destinations(self) -> Destinations:
        """Where records go, for whoever else has some."""
        return self._destinations

    @property
    def functions(self) -> Runner:
        """What runs them."""
        return self._functions

    async def invoke(self, name_or_arn: str, payload: bytes) -> Invoked:
        """Invoke a function for its answer, as `hubbub.gateway.integrations.Invoke`.

        Raises:
            UnknownFunction, Throttled: as `Functions.invoke`.

        """
        outcome = await self._functions.invoke(name_or_arn, payload)
        return Invoked(outcome.payload, outcome.error)

    def enqueue(
        self,
        name_or_arn: str,
        payload: bytes,
        *,
        request_id: str | None = None,
        trace_id: str | None = None,
    ) -> str:
        """Accept an event for a function and return its request id; all that follows happens by itself.

        Args:
            name_or_arn: the function.
            payload: JSON; the caller has seen to its size.
            request_id: None for a new one.
            trace_id: an `X-Amzn-Trace-Id`; None for a new one at each try.

        Raises:
            UnknownFunction: there is none.
            Throttled: the queue is full, or closed.

        """
        function = self._functions.get(name_or_arn)
        limits = self._limits
        if self._closing:
            raise Throttled("CallerRateLimitExceeded", "no events are accepted any more: this is the end")
        if len(self._tasks) >= limits.events or self._bytes + len(payload) > limits.bytes:
            full = f"{len(self._tasks)} events with {self._bytes} bytes wait for their functions, and no more can"
            raise Throttled("CallerRateLimitExceeded", full)
        event = _Event(function.name, payload, request_id or str(uuid.uuid4()), trace_id, self._clock.now())
        task = asyncio.get_running_loop().create_task(self._see_through(event), name=f"event of {function.name}")
        self._tasks[task] = event
        self._bytes += len(payload)
        task.add_done_callback(self._forget)
        return event.request_id

    async def close(self) -> None:
        """Accept no more events, let tries that run end, and say which events are lost."""
        self._closing = True
        for task, event in self._tasks.items():
            if not event.running:
                self._lost[event.function] += 1
                task.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=self._limits.drain_s)
            for task in late:
                self._lost[self._tasks[task].function] += 1
                task.cancel()
            if late:
                await asyncio.wait(late)
        if self._lost:
            words = ", ".join(f"{count} of {name}" for name, count in sorted(self._lost.items()))
            logger.warning("events that will not be tried any more: %s", words)
            self._lost.clear()

    def _forget(self, task: asyncio.Task[None]) -> None:
        event = self._tasks.pop(task)
        self._bytes -= len(event.payload)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("an event of %s was lost", event.function, exc_info=error)

    async def _see_through(self, event: _Event) -> None:
        """Try an event until it is done with, and say so where the function wants it said."""
        backoff_s, longest_s = self._limits.backoff_s
        while True:
            try:
                function = self._functions.get(event.function)
                if function.reserved_concurrency == 0:  # AWS does not even try these
                    return await self._end(event, function, "RetriesExhausted")
                delay_s = await self._try(event, function)
            except UnknownFunction:
                logger.error("an event of %s was dropped: the function is gone", event.function)
                return None
            except Throttled:
                delay_s, backoff_s = backoff_s, min(2 * backoff_s, longest_s)
            if delay_s is None:
                condition: Condition = "RetriesExhausted" if event.last and event.last.error else "Success"
                return await self._end(event, function, condition)
            if self._clock.now() + delay_s > event.accepted_at + function.max_age_s:
                return await self._end(event, function, "EventAgeExceeded")
            if self._closing:
                self._lost[event.function] += 1
                return None
            await self._clock.sleep(delay_s)

    async def _try(self, event: _Event, function: Function) -> float | None:
        """Invoke the function; in how many seconds to do so again, None for never."""
        slots = self._slots.setdefault(function.name, asyncio.Semaphore(self._limits.parallel))
        async with slots:
            if self._clock.now() > event.accepted_at + function.max_age_s:
                return 0.0
            event.running = True
            try:
                event.last = await self._functions.invoke(
                    function.name, event.payload, request_id=event.request_id, trace_id=event.trace_id
                )
            finally:
                event.running = False
        if event.last.error is None:
            return None
        event.failures += 1
        if event.failures > function.max_retries:
            return None
        delays_s = self._limits.retry_delays_s
        return delays_s[min(event.failures, len(delays_s)) - 1]

    async def _end(self, event: _Event, function: Function, condition: Condition) -> None:
        """Tell destinations what became of an event."""
        event.running = True
        failed = condition != "Success"
        ended = Ended(
            request_id=event.request_id,
            function_arn=self._functions.arn(function.name),
            condition=condition,
            invoke_count=event.failures + (not failed),
            request=event.payload,
            response=event.last.payload if event.last else None,
            error=event.last.error if event.last else None,
        )
        if failed:
            logger.warning("an event of %s failed: %s after %d tries", function.name, condition, ended.invoke_count)
        if failed and function.dead_letter:
            await self._destinations.send_dead_letter(function.dead_letter, ended)
        if (arn := function.on_failure if failed else function.on_success) is not None:
            await self._destinations.send_record(arn, invocation_record(ended, self._clock.now()))
