"""FIFO queues as sources: what moto cannot be made to do at will, with a queue that a test holds in its hands."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from lambdalab import FakeFunctions, HandClock, Json, answers

from hubbub.emulator.definition import EventSource
from hubbub.emulator.services import ServiceClient
from hubbub.emulator.sources.batches import Pace
from hubbub.emulator.sources.queues import QueueSource
from live import until

ARN = "arn:aws:sqs:us-east-1:123456789012:jobs.fifo"


class HandQueue:
    """SQS with one queue, whose answers to ReceiveMessage are handed out one by one.

    Attributes:
        answers: what the next calls get; a call waits for its answer.
        deleted: receipts.

    """

    def __init__(self) -> None:
        self.answers: asyncio.Queue[list[Json]] = asyncio.Queue()
        self.waits: list[int] = []
        self.deleted: list[str] = []

    async def call(self, service: str, operation: str, parameters: Json, **options: Any) -> Json:
        if operation == "GetQueueUrl":
            return {"QueueUrl": "http://queue"}
        if operation == "GetQueueAttributes":
            return {"Attributes": {"VisibilityTimeout": "30"}}
        if operation == "DeleteMessageBatch":
            self.deleted += [each["ReceiptHandle"] for each in parameters["Entries"]]
            return {}
        self.waits.append(parameters["WaitTimeSeconds"])
        return {"Messages": await self.answers.get()}


def message(number: int) -> Json:
    return {"MessageId": f"m{number}", "ReceiptHandle": f"r{number}", "Body": "{}", "MD5OfBody": ""}


async def test_a_batch_that_ends_while_the_queue_is_asked_ends_nothing_else() -> None:
    """The queue says that there is nothing just as the last batch ends: what comes next is taken all the same."""
    queue, functions = HandQueue(), FakeFunctions()
    gate = asyncio.Event()

    async def handle(event: Any) -> Any:
        await gate.wait()
        return await answers(event)

    functions.add("f", handle)
    source = EventSource(logical_id="Jobs", function="f", kind="sqs", source=ARN)
    services = cast(ServiceClient, queue)  # it has what a queue calls
    running = asyncio.create_task(QueueSource(source, functions, services, HandClock(), Pace()).run())
    try:
        queue.answers.put_nowait([message(1)])
        await until(lambda: len(queue.waits) == 2, "the next question")
        assert queue.waits[1] == 0
        gate.set()
        await until(lambda: queue.deleted == ["r1"], "the end of the batch")
        queue.answers.put_nowait([])
        queue.answers.put_nowait([message(2)])
        await until(lambda: queue.deleted == ["r1", "r2"] or running.done(), "the next message")
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait([running])
