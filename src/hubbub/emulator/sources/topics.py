"""SNS: a topic's messages, one by one, as events for a function.

SNS knows no functions where it is emulated, so a queue of ours is subscribed in the function's place: it can be had
from wherever SNS runs, which an HTTP endpoint on this machine cannot, and keeps message attributes, which moto does not
send to HTTP endpoints. The queue is taken away at the end.
Source: docs.aws.amazon.com/lambda/latest/dg/with-sns.html and
docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from typing import Any

from hubbub.emulator.clock import Clock
from hubbub.emulator.definition import EventSource
from hubbub.emulator.functions import Throttled, UnknownFunction
from hubbub.emulator.functions.invocations import Invocations
from hubbub.emulator.services import Document, ServiceClient, ServiceFailed
from hubbub.emulator.sources.batches import Pace, Record, SourceInvalid, region_of, warn_of
from hubbub.emulator.sources.queues import AT_ONCE, Queue

logger = logging.getLogger("hubbub.emulator")


class TopicSource:
    """Invokes a function with a topic's messages.

    Args:
        source: what the template says of it.
        invocations: takes the events.
        services: where SNS and SQS are.
        clock, pace: when to do what.

    """

    def __init__(
        self, source: EventSource, invocations: Invocations, services: ServiceClient, clock: Clock, pace: Pace
    ) -> None:
        if source.source.endswith(".fifo"):
            raise SourceInvalid(f"{source.logical_id}: a FIFO topic cannot invoke functions, only send to queues")
        self.ready = asyncio.Event()
        self._source = source
        self._invocations = invocations
        self._services = services
        self._clock = clock
        self._pace = pace
        self._subscription: str | None = None  # its ARN; None while there is none
        self._queue_url: str | None = None  # likewise
        warn_of(source, {"RedrivePolicy": "what cannot be handed on stays in the subscription's queue"})

    async def run(self) -> None:
        """Subscribe, and hand messages on for ever."""
        queue = await self._subscribed()
        self.ready.set()
        while True:
            messages = await queue.receive(AT_ONCE, self._pace.long_poll_s)
            for message in messages:
                await self._hand_on(_record(message["Body"], self._subscription or ""))
            await queue.delete([message["ReceiptHandle"] for message in messages])

    async def close(self) -> None:
        """Take subscription and queue away."""
        region = region_of(self._source.source)
        if self._subscription is not None:
            await self._services.call("sns", "Unsubscribe", {"SubscriptionArn": self._subscription}, region=region)
            self._subscription = None
        if self._queue_url is not None:
            await self._services.call("sqs", "DeleteQueue", {"QueueUrl": self._queue_url}, region=region)
            self._queue_url = None

    async def _subscribed(self) -> Queue:
        """A queue of ours that gets what the topic sends; what an earlier run has left in it is thrown away."""
        topic, region = self._source.source, region_of(self._source.source)
        name = re.sub(r"[^A-Za-z0-9_-]", "-", f"hubbub-{self._source.function}-{self._source.logical_id}")[-80:]
        created = await self._services.call("sqs", "CreateQueue", {"QueueName": name}, region=region)
        self._queue_url = created["QueueUrl"]
        account = topic.split(":")[4]
        queue = Queue(self._services, f"arn:aws:sqs:{region}:{account}:{name}")
        await queue.find()
        with contextlib.suppress(ServiceFailed):  # SQS wants a minute between two of these
            await queue.call("PurgeQueue", {"QueueUrl": self._queue_url})
        form = {
            "TopicArn": topic,
            "Protocol": "sqs",
            "Endpoint": queue.arn,
            "ReturnSubscriptionArn": "true",
            **self._filter(),
        }
        answer = await self._services.call("sns", "Subscribe", form, region=region)
        self._subscription = answer["SubscriptionArn"]
        return queue

    def _filter(self) -> dict[str, str]:
        """The filter policy, as the form of Subscribe has attributes."""
        form: dict[str, str] = {}
        properties = self._source.properties
        policy: Any = properties.get("FilterPolicy")  # Any: JSON
        if policy:
            text = policy if isinstance(policy, str) else json.dumps(policy)
            form |= {"Attributes.entry.1.key": "FilterPolicy", "Attributes.entry.1.value": text}
        if policy and (scope := properties.get("FilterPolicyScope")):
            form |= {"Attributes.entry.2.key": "FilterPolicyScope", "Attributes.entry.2.value": str(scope)}
        return form

    async def _hand_on(self, record: Record) -> None:
        """Queue the event of a message, as soon as it can be."""
        delay_s, longest_s = self._pace.backoff_s
        payload = json.dumps({"Records": [record]}).encode()
        while True:
            try:
                self._invocations.enqueue(self._source.function, payload)
            except UnknownFunction as error:
                logger.error("%s: a message was dropped: %s", self._source.logical_id, error)
                return
            except Throttled:
                await self._clock.sleep(delay_s)
                delay_s = min(2 * delay_s, longest_s)
            else:
                return


def _record(body: str, subscription: str) -> Record:
    """A message as functions see it, from the envelope that subscribers get."""
    envelope: Document = json.loads(body)
    return {
        "EventSource": "aws:sns",
        "EventVersion": "1.0",
        "EventSubscriptionArn": subscription,
        "Sns": {
            "Type": envelope.get("Type", "Notification"),
            "MessageId": envelope["MessageId"],
            "TopicArn": envelope["TopicArn"],
            "Subject": envelope.get("Subject"),
            "Message": envelope["Message"],
            "Timestamp": envelope["Timestamp"],
            "SignatureVersion": envelope.get("SignatureVersion"),
            "Signature": envelope.get("Signature"),
            "SigningCertUrl": envelope.get("SigningCertURL"),
            "UnsubscribeUrl": envelope.get("UnsubscribeURL"),
            "MessageAttributes": envelope.get("MessageAttributes") or {},
        },
    }
