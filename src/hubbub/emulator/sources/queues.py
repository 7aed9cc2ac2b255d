"""SQS: a queue's messages, batch by batch, taken away when the function has handled them.

A message whose function failed comes back when the queue's visibility time-out is over, as on AWS.
Source: docs.aws.amazon.com/lambda/latest/dg/with-sqs.html and services-sqs-errorhandling.html.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Any

import msgspec

from hubbub.emulator.clock import Clock
from hubbub.emulator.definition import EventSource
from hubbub.emulator.functions import UnknownFunction
from hubbub.emulator.functions.invocations import Runner
from hubbub.emulator.services import Document, ServiceClient, ServiceFailed
from hubbub.emulator.sources.batches import (
    PAYLOAD_BYTES,
    Pace,
    Record,
    SourceInvalid,
    failed_items,
    invoke_patiently,
    number_of,
    region_of,
    split,
)
from hubbub.emulator.sources.filters import Pattern

logger = logging.getLogger("hubbub.emulator")

AT_ONCE = 10
"""How many messages SQS gives, or takes back, in one call."""


class Queue:
    """A queue at SQS.

    Args:
        services: where SQS is.
        arn: the queue's.

    """

    def __init__(self, services: ServiceClient, arn: str) -> None:
        self._services = services
        self.arn = arn
        self._region = region_of(arn)
        self._url: str | None = None  # None until `find`

    async def find(self) -> Document:
        """Look the queue up; returns its attributes."""
        self._url = (await self.call("GetQueueUrl", {"QueueName": self.arn.rpartition(":")[2]}))["QueueUrl"]
        answer = await self.call("GetQueueAttributes", {"QueueUrl": self._url, "AttributeNames": ["All"]})
        attributes: Document = answer.get("Attributes") or {}
        return attributes

    async def receive(self, most: int, wait_s: int) -> list[Document]:
        """At most ten messages, waiting for the first for whole seconds."""
        asked = {
            "QueueUrl": self._url,
            "MaxNumberOfMessages": min(most, AT_ONCE),
            "WaitTimeSeconds": wait_s,
            "AttributeNames": ["All"],
            "MessageAttributeNames": ["All"],
        }
        messages: list[Document] = (await self.call("ReceiveMessage", asked, wait_s)).get("Messages") or []
        return messages

    async def delete(self, receipts: list[str]) -> None:
        """Take messages away."""
        for start in range(0, len(receipts), AT_ONCE):
            entries = [
                {"Id": str(number), "ReceiptHandle": receipt}
                for number, receipt in enumerate(receipts[start : start + AT_ONCE])
            ]
            answer = await self.call("DeleteMessageBatch", {"QueueUrl": self._url, "Entries": entries})
            if failed := answer.get("Failed"):
                raise ServiceFailed(str(failed[0].get("Code")), str(failed[0].get("Message")))

    async def call(self, operation: str, parameters: Document, wait_s: float = 0.0) -> Document:
        """Call SQS in the queue's region."""
        return await self._services.call("sqs", operation, parameters, region=self._region, wait_s=wait_s)


class QueueSource:
    """Invokes a function with a queue's messages.

    Args:
        source: what the template says of it.
        functions: what runs the function.
        services: where SQS is.
        clock, pace: when to do what.

    """

    def __init__(
        self, source: EventSource, functions: Runner, services: ServiceClient, clock: Clock, pace: Pace
    ) -> None:
        if source.batch_size > AT_ONCE and source.batch_window_s < 1:
            raise SourceInvalid(
                f"{source.logical_id}: a BatchSize over {AT_ONCE} needs a MaximumBatchingWindowInSeconds of at least 1"
            )
        self.ready = asyncio.Event()
        self._source = source
        self._functions = functions
        self._clock = clock
        self._pace = pace
        self._queue = Queue(services, source.source)
        self._patterns = [Pattern(text) for text in source.filters]
        scaling = msgspec.structs.replace(source, properties=source.properties.get("ScalingConfig") or {})
        self._parallel = max(1, int(number_of(scaling, "MaximumConcurrency", pace.parallel)))
        self._is_fifo = source.source.endswith(".fifo")
        self._visibility_s = 30.0  # until the queue says its own
        self._batches: set[asyncio.Task[None]] = set()  # under way

    async def run(self) -> None:
        """Take messages and hand them over, for ever."""
        attributes = await self._queue.find()
        self._visibility_s = float(attributes.get("VisibilityTimeout", self._visibility_s))
        self._compare_timeouts()
        self.ready.set()
        try:
            while True:
                if len(self._batches) >= self._parallel:
                    await asyncio.wait(self._batches, return_when=asyncio.FIRST_COMPLETED)
                    continue
                messages = await self._gather()
                until = self._clock.now() + self._visibility_s
                for batch in split(await self._wanted(messages), self._source.batch_size):
                    self._begin(batch, until)
        finally:
            for task in self._batches:
                task.cancel()
            if self._batches:
                await asyncio.wait(self._batches)

    async def close(self) -> None:
        """There is nothing to take away."""

    def _compare_timeouts(self) -> None:
        """Warn of what AWS refuses: messages that come again while the function still has them."""
        with contextlib.suppress(UnknownFunction):  # it is said when there is a message
            timeout_s = self._functions.get(self._source.function).timeout_s
            if timeout_s > self._visibility_s:
                logger.warning(
                    "%s: AWS refuses this mapping: the queue's visibility time-out, %g s, is less than that of the "
                    "function, %g s",
                    self._source.logical_id,
                    self._visibility_s,
                    timeout_s,
                )

    def _begin(self, batch: list[Record], until: float) -> None:
        task = asyncio.get_running_loop().create_task(
            self._handle(batch, until), name=f"batch of {self._source.logical_id}"
        )
        self._batches.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: a batch failed", self._source.logical_id, exc_info=error)

    async def _gather(self) -> list[Document]:
        """Messages for a batch: as many as there are at once, or come until it is full or its window is over."""
        messages = await self._receive(self._source.batch_size)
        closes_at = self._clock.now() + self._source.batch_window_s
        while messages and self._source.batch_window_s and len(messages) < self._source.batch_size:
            left_s = closes_at - self._clock.now()
            if left_s <= 0 or sum(len(each["Body"]) for each in messages) >= PAYLOAD_BYTES:
                break
            more = await self._queue.receive(self._source.batch_size - len(messages), min(int(left_s), 20))
            messages += more
            if not more and left_s < 1:
                await self._clock.sleep(min(left_s, self._pace.short_poll_s))
        return messages

    async def _receive(self, most: int) -> list[Document]:
        """The first messages of a batch, or none after a while.

        A FIFO queue is not asked to wait while a batch is under way: emulators do not notice in a call that a group
        has become free.
        """
        if not (self._is_fifo and self._batches):
            return await self._queue.receive(most, self._pace.long_poll_s)
        messages = await self._queue.receive(most, 0)
        if not messages and self._batches:  # they may have ended meanwhile
            await asyncio.wait(self._batches, timeout=self._pace.short_poll_s, return_when=asyncio.FIRST_COMPLETED)
        return messages

    async def _wanted(self, messages: list[Document]) -> list[Record]:
        """The records that the filters let through; what they do not is taken away, as on AWS."""
        records = [_record(message, self._source.source) for message in messages]
        if not self._patterns:
            return records
        wanted: list[Record] = []
        unwanted: list[str] = []
        for record in records:
            if any(is_wanted(pattern, record) for pattern in self._patterns):
                wanted.append(record)
            else:
                unwanted.append(record["receiptHandle"])
        await self._queue.delete(unwanted)
        return wanted

    async def _handle(self, batch: list[Record], until: float) -> None:
        """Invoke the function with a batch and take away what it has handled."""
        source = self._source
        try:
            outcome = await invoke_patiently(self._functions, self._clock, self._pace, source.function, batch, until)
        except UnknownFunction as error:
            logger.error("%s: %s", source.logical_id, error)
            return
        if outcome is None:
            logger.warning("%s: %d messages go back: the function was throttled", source.logical_id, len(batch))
            return
        failed = failed_items(outcome, [each["messageId"] for each in batch], source.report_batch_item_failures)
        if failed:
            logger.warning("%s: %d of %d messages were not handled", source.logical_id, len(failed), len(batch))
        handled = [each["receiptHandle"] for each in batch if each["messageId"] not in failed]
        try:
            await self._queue.delete(handled)
        except ServiceFailed as error:
            logger.error("%s: handled messages will come again: %s", source.logical_id, error)


def _record(message: Document, arn: str) -> Record:
    """A message as functions see it."""
    record: Record = {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message.get("Attributes") or {},
        "messageAttributes": {
            name: _attribute(value) for name, value in (message.get("MessageAttributes") or {}).items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": arn,
        "awsRegion": region_of(arn),
    }
    if "MD5OfMessageAttributes" in message:
        record["md5OfMessageAttributes"] = message["MD5OfMessageAttributes"]
    return record


def _attribute(value: Document) -> Document:
    kept = {"stringValue": value.get("StringValue"), "binaryValue": value.get("BinaryValue")}
    return {
        **{name: text for name, text in kept.items() if text is not None},
        "stringListValues": [],
        "binaryListValues": [],
        "dataType": value["DataType"],
    }


def is_wanted(pattern: Pattern, record: Record) -> bool:
    """Whether a pattern takes a message.

    What it says of the body decides how that is read: as JSON for an object, as text for a list. A body of the other
    kind is not taken.
    """
    rule = pattern.rules.get("body")
    body: Any = record["body"]  # Any: text or JSON
    if rule is None:
        return pattern.takes(record)
    with contextlib.suppress(ValueError):
        parsed = json.loads(body)
        body = parsed if isinstance(parsed, dict) else body
    return isinstance(body, dict) == isinstance(rule, dict) and pattern.takes({**record, "body": body})
