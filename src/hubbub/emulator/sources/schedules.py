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
from hubbub.emulator.sources.batches import SourceInvalid
from hubbub.emulator.sources.expressions import ExpressionInvalid, parse_expression
from hubbub.emulator.sources.inputs import InputInvalid, TargetInput

logger = logging.getLogger("hubbub.emulator")

_NAP_S = 30.0
"""The longest single sleep: a machine that was suspended notices by then that it is late."""

_INSTANT_S = 0.001


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
        self._starts_at, self._ends_at = (_date(source, name) for name in ("StartDate", "EndDate"))
        now = self._made_at = clock.now()
        try:
            self._input = TargetInput(source.properties)
            self._timing = parse_expression(
                source.source,
                created_at=now,
                first_at=max(now, self._starts_at or now) if self._is_scheduler else None,
                timezone=str(source.properties.get("ScheduleExpressionTimezone") or "UTC"),
            )
        except (ExpressionInvalid, InputInvalid) as error:
            raise SourceInvalid(f"{source.logical_id}: {error}") from None

    async def run(self) -> None:
        """Fire at each of its times, until there are no more."""
        after = max(self._made_at, self._starts_at or 0.0)  # and not now: what was due meanwhile is late, not past
        if self._is_scheduler:
            after -= _INSTANT_S  # a rate of the Scheduler's fires at once
        self.ready.set()
        while (at := self._timing.following(after)) is not None and (self._ends_at is None or at <= self._ends_at):
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
    def name(self) -> str:
        """The rule's or schedule's name."""
        return str(self._source.properties.get("Name") or self._source.logical_id)

    @property
    def arn(self) -> str:
        """Its ARN."""
        where = f"{self._region}:{self._account}"
        if self._is_scheduler:
            group = self._source.properties.get("GroupName") or "default"
            return f"arn:aws:scheduler:{where}:schedule/{group}/{self.name}"
        return f"arn:aws:events:{where}:rule/{self.name}"

    def _payload(self, at: float) -> str:
        """What the function gets."""
        time = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = self._source.input
        if not self._is_scheduler:
            return text if text is not None else self._input.of(self._event(time), self._variables(time))
        if text is None:
            return json.dumps(self._event(time))
        for name, value in self._attributes(time).items():
            text = text.replace(f"<aws.scheduler.{name}>", value)
        return text

    def _variables(self, time: str) -> dict[str, str]:
        """What an input transformer of EventBridge knows beside the event."""
        return {
            "aws.events.rule-arn": self.arn,
            "aws.events.rule-name": self.name,
            "aws.events.event.ingestion-time": time,
        }

    def _attributes(self, time: str) -> dict[str, str]:
        """The context attributes of EventBridge Scheduler."""
        return {
            "schedule-arn": self.arn,
            "scheduled-time": time,
            "execution-id": str(uuid.uuid4()),
            "attempt-number": "1",
        }

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


def _date(source: EventSource, name: str) -> float | None:
    """A date of a schedule, epoch seconds; one without an offset is in UTC."""
    value = source.properties.get(name)
    if not value:
        return None
    try:
        date = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise SourceInvalid(f"{source.logical_id}: expected {name} as 2026-01-02T03:04:05Z, got {value}") from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
