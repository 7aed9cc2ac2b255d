"""What sources have in common: how a batch is given to a function, and what its answer says of the records.

Source: docs.aws.amazon.com/lambda/latest/dg: services-sqs-errorhandling.html, services-ddb-batchfailurereporting.html.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from hubbub.emulator.clock import Clock
from hubbub.emulator.definition import EventSource
from hubbub.emulator.functions import Outcome, Throttled
from hubbub.emulator.functions.invocations import Runner

logger = logging.getLogger("hubbub.emulator")

Record = dict[str, Any]
"""A record as functions see it. Any: each kind has its own shape."""

PAYLOAD_BYTES = 6 * 1024 * 1024
"""How large a batch may be, as JSON."""


class SourceInvalid(ValueError):
    """What a template says of a source of events cannot be; the message names the source and what was expected."""


class Source(Protocol):
    """Something that invokes a function with what comes from a service."""

    ready: asyncio.Event
    """Set once nothing that happens from now on is missed."""

    async def run(self) -> None:
        """Do so for ever, or until there is nothing more to come.

        Raises:
            ServiceFailed: the service refused, or could not be reached; to be run again after a while.

        """
        ...

    async def close(self) -> None:
        """Take away at the service what was put there; after `run` was cancelled."""
        ...


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how patiently sources ask, and when they try again.

    Attributes:
        long_poll_s: how long SQS may wait for a message, whole seconds up to 20. AWS waits 20; a poll that is cut off
            at the end can still take a message from its queue, for the queue's visibility time-out.
        short_poll_s: pause between calls that do not wait: streams are asked 4 times a second on AWS.
        describe_s: how often a stream is looked at for new shards.
        backoff_s: first and longest pause before the next try: of a throttled invocation, of a stream's batch whose
            function failed, of a service that cannot be reached.
        parallel: how many batches of one queue are under way at a time, unless its mapping says otherwise.

    """

    long_poll_s: int = 5
    short_poll_s: float = 0.25
    describe_s: float = 10.0
    backoff_s: tuple[float, float] = (1.0, 60.0)
    parallel: int = 5


async def invoke_patiently(
    functions: Runner, clock: Clock, pace: Pace, function: str, records: Sequence[Record], until: float
) -> Outcome | None:
    """Invoke a function with records and wait where it is throttled; None where it was throttled until a time.

    Args:
        functions: what runs it.
        clock, pace: for the waits.
        function: its name.
        records: the batch.
        until: the time that it must be begun by, epoch seconds; infinity for any.

    Raises:
        UnknownFunction: there is none.

    """
    payload = json.dumps({"Records": records}).encode()
    delay_s, longest_s = pace.backoff_s
    while True:
        try:
            return await functions.invoke(function, payload)
        except Throttled:
            if clock.now() + delay_s > until:
                return None
            await clock.sleep(delay_s)
            delay_s = min(2 * delay_s, longest_s)


def failed_items(outcome: Outcome, ids: Sequence[str], reports: bool) -> set[str]:
    """The ids of the records that were not handled.

    Args:
        outcome: of the invocation.
        ids: of all records in the batch.
        reports: whether the function says so itself (ReportBatchItemFailures). An answer without failures then is
            success; one whose failures cannot be understood, or are none of the batch's, means all.

    """
    if outcome.error is not None:
        return set(ids)
    if not reports:
        return set()
    try:
        answer = json.loads(outcome.payload)
    except ValueError:
        return set(ids)
    failures = answer.get("batchItemFailures") if isinstance(answer, dict) else None
    if not failures:
        return set()
    if not isinstance(failures, list):
        return set(ids)
    named = [each.get("itemIdentifier") if isinstance(each, dict) else None for each in failures]
    return set(ids) if any(name not in ids for name in named) else {name for name in named if name}


def split(records: Sequence[Record], most: int) -> list[list[Record]]:
    """Records as batches of at most `most`, each small enough for an invocation."""
    batches: list[list[Record]] = []
    size = 0
    for record in records:
        bytes_ = len(json.dumps(record)) + 2
        if not batches or len(batches[-1]) >= most or size + bytes_ > PAYLOAD_BYTES - 64:
            batches.append([])
            size = 0
        batches[-1].append(record)
        size += bytes_
    return batches


def warn_of(source: EventSource, meanings: dict[str, str]) -> None:
    """Log what a source's definition has and is not done here.

    Args:
        source: the source.
        meanings: what it means that a property is not heeded, by its name.

    """
    for name, meaning in meanings.items():
        if source.properties.get(name) not in (None, 0, 1, "", {}, []):
            logger.warning("%s: %s is not heeded here: %s", source.logical_id, name, meaning)


def number_of(source: EventSource, name: str, default: float) -> float:
    """A number among a source's properties, which templates may have as text.

    Raises:
        SourceInvalid: it is none.

    """
    value = source.properties.get(name)
    try:
        return default if value is None else float(value)
    except (TypeError, ValueError):
        raise SourceInvalid(f"{source.logical_id}: expected a number as {name}, got {value!r}") from None


def region_of(arn: str) -> str | None:
    """The region in an ARN; None where it has none."""
    parts = arn.split(":", 5)
    return parts[3] or None if len(parts) == 6 else None
