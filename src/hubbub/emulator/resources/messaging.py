"""SQS queues, and SNS topics with what is subscribed to them.

Source: AWS::SQS::Queue, AWS::SNS::Topic and AWS::SNS::Subscription in the CloudFormation reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # botocore has no types

from hubbub.emulator.definition import Arn, Resource
from hubbub.emulator.resources.coercion import text_of
from hubbub.emulator.resources.kinds import Kind, Made, Place, Properties, Service, named, sections

_QUEUE_ATTRIBUTES = (
    "ContentBasedDeduplication",
    "DeduplicationScope",
    "DelaySeconds",
    "FifoQueue",
    "FifoThroughputLimit",
    "KmsDataKeyReusePeriodSeconds",
    "KmsMasterKeyId",
    "MaximumMessageSize",
    "MessageRetentionPeriod",
    "ReceiveMessageWaitTimeSeconds",
    "RedriveAllowPolicy",
    "RedrivePolicy",
    "SqsManagedSseEnabled",
    "VisibilityTimeout",
)

_TOPIC_ATTRIBUTES = (
    "ContentBasedDeduplication",
    "DisplayName",
    "FifoThroughputScope",
    "FifoTopic",
    "KmsMasterKeyId",
    "SignatureVersion",
    "TracingConfig",
)

_SUBSCRIPTION_ATTRIBUTES = (
    "DeliveryPolicy",
    "FilterPolicy",
    "FilterPolicyScope",
    "RawMessageDelivery",
    "RedrivePolicy",
)


def _attributes(properties: Properties, names: Iterable[str]) -> dict[str, str]:
    """Attributes as SQS and SNS take them, all strings; `FifoQueue` false is refused, and so left out."""
    found = {name: text_of(properties[name]) for name in names if properties.get(name) is not None}
    return {name: value for name, value in found.items() if not (name.startswith("Fifo") and value == "false")}


def _redrives_to(properties: Properties) -> list[Arn]:
    """Where messages go that are not taken: the policy is an object, or JSON in a string."""
    policy = properties.get("RedrivePolicy")
    try:
        document = json.loads(policy) if isinstance(policy, str) else policy
    except ValueError as error:
        raise ValueError(f"RedrivePolicy: expected JSON: {error}") from error
    target = document.get("deadLetterTargetArn") if isinstance(document, dict) else None
    return [target] if isinstance(target, str) else []


def _make_queue(service: Service, resource: Resource) -> Made:
    wanted = _attributes(resource.properties, _QUEUE_ATTRIBUTES)
    made = service.make(
        "CreateQueue",
        {"QueueName": resource.name, "Attributes": wanted},
        there=("QueueAlreadyExists", "QueueNameExists", "AWS.SimpleQueueService.QueueNameExists"),
    )
    url = (made or service.call("GetQueueUrl", {"QueueName": resource.name}))["QueueUrl"]
    found = service.call("GetQueueAttributes", {"QueueUrl": url, "AttributeNames": ["QueueArn"]})
    return Made(attributes={"QueueUrl": url, "Arn": found["Attributes"]["QueueArn"]})


def _make_topic(service: Service, resource: Resource) -> Made:
    properties = resource.properties
    parameters: dict[str, Any] = {
        "Name": resource.name,
        "Attributes": _attributes(properties, _TOPIC_ATTRIBUTES),
    }
    try:
        arn: Arn = service.call("CreateTopic", parameters)["TopicArn"]
    except ClientError as error:
        if "already exists" not in error.response.get("Error", {}).get("Message", ""):
            raise
        arn = service.place.arn("sns", resource.name)  # it is there, with other attributes
    for subscription in sections(properties, "Subscription"):
        _subscribe(service, arn, subscription)
    return Made(attributes={"Arn": arn})


def _make_subscription(service: Service, resource: Resource) -> Made:
    arn = _subscribe(service, resource.properties.get("TopicArn"), resource.properties)
    return Made(attributes={} if arn is None else {"Arn": arn})


def _subscribe(service: Service, topic: Any, subscription: Properties) -> Arn | None:  # Any: coerced to a string
    """Subscribe to a topic; None for a Lambda function, whom the emulator itself calls."""
    if subscription.get("Protocol") == "lambda":
        return None
    answer = service.call(
        "Subscribe",
        {
            "TopicArn": topic,
            "Protocol": subscription.get("Protocol"),
            "Endpoint": subscription.get("Endpoint"),
            "Attributes": _attributes(subscription, _SUBSCRIPTION_ATTRIBUTES),
            "ReturnSubscriptionArn": True,
        },
    )
    arn: Arn = answer["SubscriptionArn"]
    return arn


def _topic_needs(resource: Resource) -> list[Arn]:
    found = [each.get("Endpoint") for each in sections(resource.properties, "Subscription")]
    return [arn for arn in found if isinstance(arn, str)]


def _subscription_needs(resource: Resource) -> list[Arn]:
    properties = resource.properties
    found = [properties.get("TopicArn"), properties.get("Endpoint"), *_redrives_to(properties)]
    return [arn for arn in found if isinstance(arn, str)]


def _no_arn(place: Place, resource: Resource) -> None:
    """A subscription's ARN ends in a random id."""


QUEUE = Kind(
    service="sqs",
    make=_make_queue,
    arn=named("sqs"),
    needs=lambda queue: _redrives_to(queue.properties),
    used=frozenset({*_QUEUE_ATTRIBUTES, "QueueName"}),
)

TOPIC = Kind(
    service="sns",
    make=_make_topic,
    arn=named("sns"),
    needs=_topic_needs,
    used=frozenset({*_TOPIC_ATTRIBUTES, "TopicName", "Subscription"}),
)

SUBSCRIPTION = Kind(
    service="sns",
    make=_make_subscription,
    arn=_no_arn,
    needs=_subscription_needs,
    used=frozenset({*_SUBSCRIPTION_ATTRIBUTES, "TopicArn", "Protocol", "Endpoint", "Region", "SubscriptionRoleArn"}),
)
