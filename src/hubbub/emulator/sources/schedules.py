"""Schedules: rules of EventBridge and schedules of EventBridge Scheduler, which invoke functions with events.

Source: docs.aws.amazon.com/eventbridge/latest/userguide/eb-run-lambda-schedule.html and
docs.aws.amazon.com/scheduler/latest/UserGuide/managing-schedule-context-attributes.html.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from datetime import UTC, datetime

from hubbub.emulator.clock import Clock
from hubbub.emulator.definition import EventSource
from hubbub.emulator.functions import Throttled, UnknownFunction
from hubbub.emulator.functions.invocations import Invocations
from hubbub.emulator.sources.batches import SourceInvalid, warn_of
from hubbub.emulator.sources.expressions import ExpressionInvalid, parse_expression

logger = logging.getLogger("hubbub.emulator")

_NAP_S = 30.0
"""The longest single sleep: a machine that was suspended notices by then that it is late."""


class ScheduleSource:
    """Invokes a function when a schedule says so.

    What should have happened while the machine slept is not made up for, but for the last time.

    Args:
        source: what the template says of it.
        invocations: takes the events.
        clock: what time it is.
        region, account: of the schedule's ARN.

    """

    def __init__(
        self, source: EventSource, invocations: Invocations, clock: Clock, *, region: str, account: str
    ) -> None:
        self.ready = asyncio.Event()
        self._source = source
        self._invocations = invocations
        self._clock = clock
        self._region = region
        self._account = account
        self._is_scheduler = "FlexibleTimeWindow" in source.properties  # the Scheduler's schedules must have one
        zone = str(source.properties.get("ScheduleExpressionTimezone") or "UTC")
        try:
            self._timing = parse_expression(source.source, created_at=clock.now(), timezone=zone)
        except ExpressionInvalid as error:
            raise SourceInvalid(f"{source.logical_id}: {error}") from None
        warn_of(
            source,
            {
                "StartDate": "it fires from now on",
                "EndDate": "it fires as long as this runs",
                "InputPath": "the whole event is passed",
                "InputTransformer": "the event is passed as it is",
            },
        )

    async def run(self) -> None:
        """Fire at each of its times, until there are no more."""
        after = self._clock.now()
        self.ready.set()
        while (at := self._timing.following(after)) is not None:
            while (left_s := at - self._clock.now()) > 0:
                await self._clock.sleep(min(left_s, _NAP_S))
            self._fire(at)
            after = max(at, self._clock.now())

    async def close(self) -> None:
        """There is nothing to take away."""

    def _fire(self, at: float) -> None:
        try:
            self._invocations.enqueue(self._source.function, self._payload(at).encode())
        except (Throttled, UnknownFunction) as error:
            logger.error("%s did not fire: %s", self._source.logical_id, error)

    @property
    def arn(self) -> str:
        """The rule's or schedule's ARN."""
        name = self._source.properties.get("Name") or self._source.logical_id
        where = f"{self._region}:{self._account}"
        if self._is_scheduler:
            group = self._source.properties.get("GroupName") or "default"
            return f"arn:aws:scheduler:{where}:schedule/{group}/{name}"
        return f"arn:aws:events:{where}:rule/{name}"

    def _payload(self, at: float) -> str:
        """What the function gets."""
        time = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if self._source.input is None:
            return json.dumps(self._event(time))
        if not self._is_scheduler:
            return self._source.input
        attributes = {
            "schedule-arn": self.arn,
            "scheduled-time": time,
            "execution-id": str(uuid.uuid4()),
            "attempt-number": "1",
        }
        text = self._source.input
        for name, value in attributes.items():
            text = text.replace(f"<aws.scheduler.{name}>", value)
        return text

    def _event(self, time: str) -> dict[str, object]:
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "Scheduled Event",
            "source": "aws.scheduler" if self._is_scheduler else "aws.events",
            "account": self._account,
            "time": time,
            "region": self._region,
            "resources": [self.arn],
            "detail": "{}" if self._is_scheduler else {},
        }
