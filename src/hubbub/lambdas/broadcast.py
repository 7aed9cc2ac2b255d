"""The broadcaster's handler: jobs come by asynchronous invocations or from an SQS queue, and go to `Broadcaster.run`.

A job that fails is handed out again by whoever brought it: Lambda invokes twice more and then tells the on-failure
destination; a queue shows a message again until its redrive policy ends that. Sources:
docs.aws.amazon.com/lambda/latest/dg, "Invoking a Lambda function asynchronously" and "Using Lambda with Amazon SQS".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from hubbub.fanout.apigateway.jobs import AnyJob, Deliver, decode_job
from hubbub.fanout.apigateway.tally import Tally
from hubbub.lambdas.home import Home
from hubbub.lambdas.invocation import Document, Function, Invocation
from hubbub.lambdas.logs import Measures

logger = logging.getLogger("hubbub.lambdas")

JOB_MARGIN_S = 2.0
"""How long before the invocation ends a job is given up, so that the rest of a batch is told to have failed."""


class Record(msgspec.Struct, rename="camel"):
    """A message of SQS, as far as it matters.

    Attributes:
        message_id: named when it failed.
        body: the job's JSON.
        attributes: among them `MessageGroupId` in a FIFO queue.

    """

    message_id: str
    body: str
    attributes: dict[str, str] = {}

    @property
    def group(self) -> str | None:
        """The group within which order counts; None where it does not."""
        return self.attributes.get("MessageGroupId")


class Batch(msgspec.Struct):
    """What SQS invokes with."""

    records: list[Record] = msgspec.field(name="Records")


async def deliver(home: Home, event: Any, call: Invocation) -> Document | None:  # Any: a job's or a batch's JSON
    """Do the job, or the jobs, of an event.

    Raises:
        Exception: the one job of an asynchronous invocation failed; Lambda tries again.

    """
    try:
        return await _deliver(home, event, call)
    finally:
        count(home.taken_tallies(), call.measures)


async def _deliver(home: Home, event: Any, call: Invocation) -> Document | None:  # Any: as above
    if isinstance(event, dict) and "Records" in event:
        return await _batch(home, msgspec.convert(event, Batch).records, call)
    job: AnyJob = msgspec.convert(event, AnyJob)
    call.measures.said |= {"job": type(job).__name__, "room": job.room}
    await _do(home, job, call)
    return None


async def _batch(home: Home, records: Sequence[Record], call: Invocation) -> Document:
    """Do a batch's jobs at the same time, those of one group one after the other; says which are to come again.

    In a group nothing is done after a failure, or order would be lost ("Using Lambda with Amazon SQS", FIFO).
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.group or f"message {record.message_id}", []).append(record)
    failed = await asyncio.gather(*(_group(home, group, call) for group in groups.values()))
    call.measures.said["records"] = len(records)
    return {"batchItemFailures": [{"itemIdentifier": record.message_id} for group in failed for record in group]}


async def _group(home: Home, records: Sequence[Record], call: Invocation) -> Sequence[Record]:
    """Do one job after the other; returns those that are to come again.

    An entry that is followed by a later one of its room is delivered with that, in one pass over the listeners: else a
    busy room would fall behind in a FIFO queue.
    """
    begin = 0  # where the records begin that are done with the next job
    for number, record in enumerate(records):
        if number + 1 < len(records) and _is_followed(record, records[number + 1]):
            continue
        try:
            async with asyncio.timeout(call.left_s(JOB_MARGIN_S)):
                await _do(home, decode_job(record.body), call)
        except Exception as error:
            _tell(error, call, {"message_id": record.message_id})
            return records[begin:]
        begin = number + 1
    return ()


def _is_followed(record: Record, following: Record) -> bool:
    """Whether both are entries of one room, and the second the later one: it is delivered with all before it."""
    try:
        job, next_job = decode_job(record.body), decode_job(following.body)
    except ValueError:
        return False  # what is wrong with it is told in its turn
    if not (isinstance(job, Deliver) and isinstance(next_job, Deliver)):
        return False
    return job.room == next_job.room and job.seq < next_job.seq


async def _do(home: Home, job: AnyJob, call: Invocation) -> None:
    broadcaster = await home.broadcaster()
    await broadcaster.run(job, remaining_s=call.left_s(JOB_MARGIN_S))


def count(tallies: Sequence[Tally], measures: Measures) -> None:
    """Add the numbers of jobs to an invocation's.

    `Unserved` are posts that were given up, whose recipients repair that from the log; `HandedOver` jobs for others.
    """
    counts = measures.counts
    for tally in tallies:
        counts["Jobs"] += 1
        counts["Posted"] += tally.posted
        counts["Gone"] += tally.gone
        counts["Throttled"] += tally.throttled
        counts["Refused"] += tally.refused
        counts["Broken"] += tally.broken
        counts["Unserved"] += tally.failed
        counts["HandedOver"] += tally.parts + tally.is_handed_over
    if len(tallies) == 1:
        measures.said["tally"] = tallies[0]


def _tell(error: Exception, call: Invocation, extra: dict[str, str]) -> None:
    call.measures.counts["Failures"] += 1
    logger.error("a job failed: %s", error or type(error).__name__, exc_info=error, extra=extra)


async def _warm(home: Home) -> None:
    await home.broadcaster()


broadcast = Function(deliver, takes=object, warm=_warm)
"""The broadcaster."""
