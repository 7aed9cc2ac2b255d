"""What invokes functions besides API Gateway: event source mappings, subscriptions to topics, schedules.

Source: AWS::Lambda::EventSourceMapping, AWS::SNS::Subscription, AWS::Events::Rule and AWS::Scheduler::Schedule in the
CloudFormation template reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from hubbub.emulator.definition import EventSource
from hubbub.emulator.template.declared import Declared
from hubbub.emulator.template.intrinsics import as_text
from hubbub.emulator.template.resources import Template
from hubbub.emulator.template.returns import function_arn
from hubbub.emulator.template.source import Value

_STREAM_BATCH, _QUEUE_BATCH = 100, 10
"""Records in a batch where the template does not say."""


def sources_of(templates: Sequence[Template], functions: Iterable[str]) -> tuple[EventSource, ...]:
    """What invokes functions.

    Args:
        templates: the stack's and those nested in it.
        functions: the names of those that run here; what invokes others is named.

    Raises:
        TemplateError: a source lacks what AWS asks for.

    """
    known = set(functions)
    found = [source for template in templates for of in template.resources.values() for source in _sources(of)]
    made = []
    for of, source in found:
        if source.function in known:
            made.append(source)
        else:
            of.note(f"it invokes the function {source.function}, which does not run here")
    return tuple(made)


def _sources(of: Declared) -> Iterator[tuple[Declared, EventSource]]:
    read = {
        "AWS::Events::Rule": _rule,
        "AWS::Lambda::EventSourceMapping": _mapping,
        "AWS::SNS::Subscription": _subscription,
        "AWS::SNS::Topic": _topic,
        "AWS::Scheduler::Schedule": _schedule,
    }.get(of.type)
    for source in read(of) if read else ():
        yield of, source


def _mapping(of: Declared) -> Iterator[EventSource]:
    arn = as_text(of.get("EventSourceArn")) or ""
    kind = _kind(arn)
    if kind is None:
        service = arn.split(":")[2] if arn.count(":") > 2 else "that source"
        of.note(f"records of {service} do not reach {_name(function_arn(of))}: only queues and table streams are read")
        return
    yield EventSource(
        logical_id=of.shown_id,
        function=_name(function_arn(of)),
        kind=kind,
        source=arn,
        batch_size=int(of.number("BatchSize", _STREAM_BATCH if kind == "dynamodb" else _QUEUE_BATCH)),
        batch_window_s=of.number("MaximumBatchingWindowInSeconds", 0),
        enabled=of.flag("Enabled", default=True),
        report_batch_item_failures="ReportBatchItemFailures" in of.listed("FunctionResponseTypes"),
        starting_position=of.text("StartingPosition", "LATEST"),
        filters=tuple(_filters(of)),
        properties=of.properties(),
    )


def _kind(arn: str) -> Literal["sqs", "dynamodb"] | None:
    if arn.startswith("arn:aws:sqs:"):
        return "sqs"
    return "dynamodb" if arn.startswith("arn:aws:dynamodb:") else None


def _filters(of: Declared) -> Iterator[str]:
    for one in of.mapping("FilterCriteria").get("Filters") or ():
        if not isinstance(one, dict) or not isinstance(one.get("Pattern"), str):
            raise of.error("FilterCriteria", f"expected filters with a Pattern as text, got {one!r}")
        yield one["Pattern"]


def _name(arn: str) -> str:
    """The name in a function's ARN, without version or alias."""
    parts = arn.split(":")
    return parts[6] if len(parts) > 6 else arn


def _subscription(of: Declared) -> Iterator[EventSource]:
    if of.text("Protocol") == "lambda":
        yield _topic_source(of, of.shown_id, of.text("TopicArn"), of.properties())


def _topic(of: Declared) -> Iterator[EventSource]:
    for number, one in enumerate(of.listed("Subscription"), 1):
        if isinstance(one, dict) and one.get("Protocol") == "lambda":
            yield _topic_source(of, f"{of.shown_id}{number}", of.template.returned(of).ref, one)


def _topic_source(of: Declared, logical_id: str, topic: str, properties: dict[str, Value]) -> EventSource:
    endpoint = as_text(properties.get("Endpoint"))
    if endpoint is None:
        raise of.error(None, "expected the ARN of a function as the Endpoint of its subscription, got nothing")
    return EventSource(logical_id=logical_id, function=_name(endpoint), kind="sns", source=topic, properties=properties)


def _rule(of: Declared) -> Iterator[EventSource]:
    targets = of.listed("Targets")
    if "ScheduleExpression" not in of.raw:
        of.note("events on a bus do not reach its targets: only schedules are kept")
        return
    for target in targets:
        arn = as_text(target.get("Arn")) if isinstance(target, dict) else None
        if arn is None or not arn.startswith("arn:aws:lambda:"):
            of.note(f"its target {arn} is no Lambda function, and is not called")
            continue
        logical_id = of.shown_id if len(targets) == 1 else f"{of.shown_id}{target.get('Id', '')}"
        yield _timed(of, logical_id, arn, target)


def _schedule(of: Declared) -> Iterator[EventSource]:
    target = of.mapping("Target")
    arn = as_text(target.get("Arn")) or ""
    if not arn.startswith("arn:aws:lambda:"):
        of.note(f"its target {arn} is no Lambda function, and is not called")
        return
    yield _timed(of, of.shown_id, arn, target)


def _timed(of: Declared, logical_id: str, arn: str, target: Mapping[str, Value]) -> EventSource:
    """A rule's or a schedule's: what a target says comes to what the resource says."""
    own = {key: value for key, value in of.properties().items() if key not in ("Target", "Targets")}
    return EventSource(
        logical_id=logical_id,
        function=_name(arn),
        kind="schedule",
        source=of.text("ScheduleExpression"),
        enabled=of.text("State", "ENABLED") != "DISABLED",
        input=as_text(target.get("Input")),
        properties={
            **own,
            **{key: value for key, value in target.items() if key != "Input"},
            "Name": of.template.returned(of).name,
        },
    )
