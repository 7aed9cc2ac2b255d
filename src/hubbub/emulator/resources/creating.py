"""Makes a stack's resources: what others need comes first, what stands alone is made at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from graphlib import CycleError, TopologicalSorter

import msgspec
from botocore.exceptions import (  # type: ignore[import-untyped]  # botocore has no types
    BotoCoreError,
    ClientError,
)

from hubbub.emulator.definition import Resource
from hubbub.emulator.resources import flows, keeping, messaging, tables
from hubbub.emulator.resources.kinds import Kind, Place, Service

KINDS: Mapping[str, Kind] = {
    "AWS::DynamoDB::GlobalTable": tables.GLOBAL_TABLE,
    "AWS::DynamoDB::Table": tables.TABLE,
    "AWS::Events::EventBus": flows.BUS,
    "AWS::Kinesis::Stream": flows.STREAM,
    "AWS::S3::Bucket": keeping.BUCKET,
    "AWS::SNS::Subscription": messaging.SUBSCRIPTION,
    "AWS::SNS::Topic": messaging.TOPIC,
    "AWS::SQS::Queue": messaging.QUEUE,
    "AWS::SSM::Parameter": keeping.PARAMETER,
    "AWS::SecretsManager::Secret": keeping.SECRET,
    "AWS::StepFunctions::StateMachine": flows.STATE_MACHINE,
}

_NO_MATTER = frozenset(
    {
        "BucketEncryption",
        "ContributorInsightsSpecification",
        "DeletionProtectionEnabled",
        "KmsKeyId",
        "KmsMasterKeyId",
        "LifecycleConfiguration",
        "LoggingConfiguration",
        "OwnershipControls",
        "PointInTimeRecoverySpecification",
        "PublicAccessBlockConfiguration",
        "ReplicaRegions",
        "ResourcePolicy",
        "SSESpecification",
        "StreamEncryption",
        "Tags",
        "TracingConfiguration",
    }
)
"""Properties that nothing here could notice: encryption, back-ups, insight, who may."""


class CannotCreate(Exception):
    """Resources could not be made.

    Attributes:
        problems: what was wrong, by logical id.

    """

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__("\n".join(f"{logical_id}: {problem}" for logical_id, problem in self.problems.items()))


class Created(msgspec.Struct, frozen=True, kw_only=True):
    """A resource that is there.

    Attributes:
        logical_id, type, name: as in the template.
        attributes: what its service says of it: `Arn`, `QueueUrl`, `StreamArn`.
        remarks: what of it does not do here what it does on AWS.

    """

    logical_id: str
    type: str
    name: str
    attributes: dict[str, str] = {}
    remarks: tuple[str, ...] = ()


async def create_all(
    resources: Sequence[Resource], service: Callable[[str], Service], *, place: Place, executor: Executor
) -> tuple[Created, ...]:
    """Make resources; those that are there already are left as they are.

    Args:
        resources: what is to be there; types that are not in `KINDS` are refused.
        service: gives a service by botocore's name; called in the executor's threads.
        place: where they are.
        executor: where the calls run, as many at a time as it has threads.

    Returns what is there now, in the order of `resources`.

    Raises:
        CannotCreate: some could not be made, or need each other in a circle. What needs them was not tried.

    """
    by_id = {resource.logical_id: resource for resource in resources}
    order = _ordered(resources, place)
    loop = asyncio.get_running_loop()
    made: dict[str, Created] = {}
    while order.is_active():
        ready = order.get_ready()
        work = [loop.run_in_executor(executor, partial(_make, by_id[each], service)) for each in ready]
        outcomes = dict(zip(ready, await asyncio.gather(*work), strict=True))
        problems = {each: outcome for each, outcome in outcomes.items() if isinstance(outcome, str)}
        if problems:
            raise CannotCreate(problems)
        made |= {each: outcome for each, outcome in outcomes.items() if isinstance(outcome, Created)}
        order.done(*ready)
    return tuple(made[resource.logical_id] for resource in resources)


def _ordered(resources: Sequence[Resource], place: Place) -> TopologicalSorter[str]:
    """The logical ids, in an order in which each comes after what it needs.

    Raises:
        CannotCreate: there is none, or what a resource needs cannot be read.

    """
    unknown = {each.logical_id: _unknown(each.type) for each in resources if each.type not in KINDS}
    if unknown:
        raise CannotCreate(unknown)
    ids = {KINDS[each.type].arn(place, each): each.logical_id for each in resources}
    graph: dict[str, set[str]] = {}
    problems = {}
    for each in resources:
        try:
            needed = {ids[arn] for arn in KINDS[each.type].needs(each) if arn in ids}
        except ValueError as error:
            problems[each.logical_id] = f"{each.type} {each.name}: {error}"
            continue
        graph[each.logical_id] = needed - {each.logical_id}
    if problems:
        raise CannotCreate(problems)
    order = TopologicalSorter(graph)
    try:
        order.prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        raise CannotCreate({circle[0]: f"it needs itself to be there first: {' -> '.join(circle)}"}) from error
    return order


def _unknown(kind: str) -> str:
    return f"{kind} is not made here; what is: {', '.join(KINDS)}"


def _make(resource: Resource, service: Callable[[str], Service]) -> Created | str:
    """Make one in this thread; a string says what was wrong."""
    kind = KINDS[resource.type]
    try:
        made = kind.make(service(kind.service), resource)
    except (BotoCoreError, ClientError, ValueError) as error:
        return f"{resource.type} {resource.name}: {error}"
    ignored = sorted(resource.properties.keys() - kind.used - _NO_MATTER)
    remarks = (*made.remarks, *(f"{name} has no effect here" for name in ignored))
    return Created(
        logical_id=resource.logical_id,
        type=resource.type,
        name=resource.name,
        attributes=made.attributes,
        remarks=remarks,
    )
