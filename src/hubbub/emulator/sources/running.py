"""All sources of a stack at work: each in a task of its own, run again where its service failed, closed at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from hubbub.emulator.clock import Clock, SystemClock
from hubbub.emulator.definition import ACCOUNT, EventSource
from hubbub.emulator.functions.invocations import Invocations
from hubbub.emulator.services import ServiceClient, ServiceFailed
from hubbub.emulator.sources.batches import Pace, Source, SourceInvalid
from hubbub.emulator.sources.filters import PatternInvalid
from hubbub.emulator.sources.queues import QueueSource
from hubbub.emulator.sources.schedules import ScheduleSource
from hubbub.emulator.sources.streams import StreamSource
from hubbub.emulator.sources.topics import TopicSource

logger = logging.getLogger("hubbub.emulator")


class Sources:
    """Invokes functions with what comes from queues, streams, topics and schedules.

    `async with Sources(stack.sources, invocations, services) as sources: await sources.wait_ready(10.0)`. What they
    read must exist by then, or comes to exist: a source whose queue or table is not there yet is tried again.

    Args:
        sources: all of them; those that are not enabled are left out.
        invocations: how functions are invoked.
        services: where queues, streams and topics are.
        region, account: of schedules.
        clock, pace: when to do what.
        close_s: how long may be taken at the end to take things away.

    Raises:
        SourceInvalid: what the template says of one of them cannot be.

    """

    def __init__(
        self,
        sources: Iterable[EventSource],
        invocations: Invocations,
        services: ServiceClient,
        *,
        region: str = "us-east-1",
        account: str = ACCOUNT,
        clock: Clock | None = None,
        pace: Pace | None = None,
        close_s: float = 5.0,
    ) -> None:
        self._invocations = invocations
        self._services = services
        self._region = region
        self._account = account
        self._clock = clock or SystemClock()
        self._pace = pace or Pace()
        self._close_s = close_s
        self._sources = [(each.logical_id, self._source(each)) for each in sources if each.enabled]
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        for name, source in self._sources:
            task = asyncio.get_running_loop().create_task(self._keep_up(name, source), name=f"source {name}")
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        try:
            async with asyncio.timeout(self._close_s):
                await asyncio.gather(*(self._close(name, source) for name, source in self._sources))
        except TimeoutError:
            logger.warning("sources were not closed within %g s", self._close_s)

    async def wait_ready(self, within_s: float) -> tuple[str, ...]:
        """Wait until all sources miss nothing any more, at most `within_s` seconds; the names of those that are not."""
        waits = [asyncio.ensure_future(source.ready.wait()) for _, source in self._sources]
        try:
            if waits:
                await asyncio.wait(waits, timeout=within_s)
        finally:
            for each in waits:
                each.cancel()
        return tuple(name for name, source in self._sources if not source.ready.is_set())

    def _source(self, source: EventSource) -> Source:
        functions, services, clock, pace = self._invocations.functions, self._services, self._clock, self._pace
        try:
            match source.kind:
                case "sqs":
                    return QueueSource(source, functions, services, clock, pace)
                case "dynamodb":
                    return StreamSource(source, self._invocations, services, clock, pace)
                case "sns":
                    return TopicSource(source, self._invocations, services, clock, pace)
                case "schedule":
                    return ScheduleSource(source, self._invocations, clock, region=self._region, account=self._account)
        except PatternInvalid as error:
            raise SourceInvalid(f"{source.logical_id}: {error}") from None

    async def _keep_up(self, name: str, source: Source) -> None:
        """Run a source, again and again where its service fails; say so once for each reason."""
        first_s, longest_s = self._pace.backoff_s
        delay_s = first_s
        said = ""
        while True:
            began_at = self._clock.now()
            try:
                return await source.run()
            except ServiceFailed as error:
                if self._clock.now() - began_at > longest_s:  # it had worked
                    delay_s, said = first_s, ""
                if str(error) != said:
                    logger.warning("%s: %s", name, error)
                said = str(error)
            await self._clock.sleep(delay_s)
            delay_s = min(2 * delay_s, longest_s)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s has ended", task.get_name(), exc_info=error)

    async def _close(self, name: str, source: Source) -> None:
        try:
            await source.close()
        except ServiceFailed as error:
            logger.warning("%s was not closed: %s", name, error)
