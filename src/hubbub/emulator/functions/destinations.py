"""Where outcomes go: dead-letter queues, and the records of asynchronous invocations and of batches given up.

Source: docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html and with-ddb.html ("Retain records").
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Literal

import msgspec

from hubbub.emulator.clock import Clock
from hubbub.emulator.functions import Throttled, UnknownFunction
from hubbub.emulator.services import Document, ServiceClient, ServiceFailed

logger = logging.getLogger("hubbub.emulator")

Condition = Literal["Success", "RetriesExhausted", "EventAgeExceeded"]

DELAYS_S = (1.0, 5.0)
"""After how long a delivery that failed is tried again."""

_ERROR_MESSAGE_BYTES = 1_024
"""How much of an error's message goes to a dead-letter queue."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How an asynchronous invocation, with all its tries, came to its end.

    Attributes:
        request_id: the same for all tries.
        function_arn: without a qualifier.
        condition: why there is no further try.
        invoke_count: how many tries there were.
        request: the event, as it came.
        response: JSON of the last try's outcome; None where there was none.
        error: `Unhandled` where the last try failed.

    """

    request_id: str
    function_arn: str
    condition: Condition
    invoke_count: int
    request: bytes
    response: bytes | None
    error: str | None


def invocation_record(ended: Ended, now_s: float) -> Document:
    """The record that a destination gets; an event that was never tried has no response in it (inferred)."""
    record: Document = {
        "version": "1.0",
        "timestamp": iso_timestamp(now_s),
        "requestContext": {
            "requestId": ended.request_id,
            "functionArn": f"{ended.function_arn}:$LATEST",
            "condition": ended.condition,
            "approximateInvokeCount": ended.invoke_count,
        },
        "requestPayload": json.loads(ended.request),
    }
    if ended.response is not None:
        record["responseContext"] = response_context(ended.error)
        record["responsePayload"] = parsed(ended.response)
    return record


def response_context(error: str | None) -> Document:
    """What a record says of the last try."""
    context: Document = {"statusCode": 200, "executedVersion": "$LATEST"}
    if error is not None:
        context["functionError"] = error
    return context


def parsed(payload: bytes) -> object:
    """A payload as a value: JSON, or the text that it is instead."""
    try:
        value: object = json.loads(payload)
    except ValueError:
        return payload.decode(errors="replace")
    return value


def iso_timestamp(epoch_s: float) -> str:
    """A time as `2019-11-14T18:16:05.568Z`."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Destinations:
    """Delivers to queues, topics, functions and event buses.

    Args:
        services: where they are.
        clock: for what must be tried again.
        enqueue: invokes a function, by its ARN, with an event; raises `Throttled` or `UnknownFunction`.

    """

    def __init__(self, services: ServiceClient, clock: Clock, enqueue: Callable[[str, bytes], object]) -> None:
        self._services = services
        self._clock = clock
        self._enqueue = enqueue

    async def send_record(self, arn: str, record: Document) -> None:
        """Deliver a record; what cannot be delivered is logged, as AWS only counts it.

        Args:
            arn: the destination's.
            record: as `invocation_record` makes it.

        """
        service = _service_of(arn)
        text = json.dumps(record)
        if service == "sqs":
            await self._try(arn, lambda: self._send_message(arn, text, {}))
        elif service == "sns":
            await self._try(arn, lambda: self._publish(arn, text, {}))
        elif service == "events":
            await self._try(arn, lambda: self._put_event(arn, record, text))
        elif service == "lambda":
            self._hand_on(arn, text.encode())
        else:
            logger.error("cannot deliver to %s: a destination is SQS, SNS, Lambda or EventBridge here", arn)

    async def send_dead_letter(self, arn: str, ended: Ended) -> None:
        """Deliver an event itself to a dead-letter queue or topic; what cannot be delivered is logged.

        Source: docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html, "Adding a dead-letter queue".
        """
        body = ended.request.decode()
        attributes = {
            "RequestID": ("String", ended.request_id),
            "ErrorCode": ("Number", "429" if ended.response is None else "200"),
            "ErrorMessage": ("String", _error_message(ended)),
        }
        if _service_of(arn) == "sqs":
            await self._try(arn, lambda: self._send_message(arn, body, attributes))
        elif _service_of(arn) == "sns":
            await self._try(arn, lambda: self._publish(arn, body, attributes))
        else:
            logger.error("cannot deliver to %s: a dead-letter queue is a queue of SQS or a topic of SNS", arn)

    async def _try(self, arn: str, deliver: Callable[[], Awaitable[None]]) -> None:
        for delay_s in (*DELAYS_S, None):
            try:
                await deliver()
            except ServiceFailed as error:
                if delay_s is None:
                    logger.error("could not deliver to %s: %s", arn, error)
                    return
                await self._clock.sleep(delay_s)
            else:
                return

    async def _send_message(self, arn: str, body: str, attributes: dict[str, tuple[str, str]]) -> None:
        _, _, _, region, _, queue = arn.split(":", 5)
        found = await self._services.call("sqs", "GetQueueUrl", {"QueueName": queue}, region=region)
        message: Document = {"QueueUrl": found["QueueUrl"], "MessageBody": body}
        if attributes:
            message["MessageAttributes"] = {
                name: {"DataType": kind, "StringValue": value} for name, (kind, value) in attributes.items()
            }
        await self._services.call("sqs", "SendMessage", message, region=region)

    async def _publish(self, arn: str, body: str, attributes: dict[str, tuple[str, str]]) -> None:
        form = {"TopicArn": arn, "Message": body}
        for number, (name, (kind, value)) in enumerate(attributes.items(), 1):
            entry = f"MessageAttributes.entry.{number}"
            form |= {f"{entry}.Name": name, f"{entry}.Value.DataType": kind, f"{entry}.Value.StringValue": value}
        await self._services.call("sns", "Publish", form, region=arn.split(":")[3])

    async def _put_event(self, arn: str, record: Document, text: str) -> None:
        context = record["requestContext"]
        outcome = "Success" if context["condition"] == "Success" else "Failure"
        entry = {
            "Source": "lambda",
            "DetailType": f"Lambda Function Invocation Result - {outcome}",
            "Resources": [arn, context["functionArn"]],
            "Detail": text,
            "EventBusName": arn.rpartition("/")[2],
        }
        answer = await self._services.call("events", "PutEvents", {"Entries": [entry]}, region=arn.split(":")[3])
        if answer.get("FailedEntryCount"):
            failed = answer["Entries"][0]
            raise ServiceFailed(str(failed.get("ErrorCode")), str(failed.get("ErrorMessage")))

    def _hand_on(self, arn: str, payload: bytes) -> None:
        try:
            self._enqueue(arn, payload)
        except (Throttled, UnknownFunction) as error:
            logger.error("could not deliver to %s: %s", arn, error)


def _service_of(arn: str) -> str:
    parts = arn.split(":", 5)
    return parts[2] if len(parts) == 6 else ""


def _error_message(ended: Ended) -> str:
    """The message of the last error, and never an empty one, which SQS does not take."""
    last = parsed(ended.response) if ended.response is not None else None
    message = last.get("errorMessage") if isinstance(last, dict) else None
    words = str(message or ended.condition)
    return words.encode()[:_ERROR_MESSAGE_BYTES].decode(errors="ignore")
