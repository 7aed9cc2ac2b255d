"""What Lambda's API says of functions and event source mappings: only what is known of them here, and nothing made up.

Source: docs.aws.amazon.com/lambda/latest/api, the shapes of GetFunction, ListEventSourceMappings and their neighbours.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from hubbub.emulator.definition import EventSource, Function

Document = dict[str, Any]
"""An answer of Lambda's API. Any: each has its own shape."""

VERSION = "$LATEST"

_MAPPED = ("sqs", "dynamodb")
"""Kinds of sources that Lambda itself polls; the others push, and have no mapping."""


def describe_function(function: Function, arn: str) -> Document:
    """The answer of GetFunctionConfiguration."""
    document: Document = {
        "FunctionName": function.name,
        "FunctionArn": arn,
        "Runtime": function.runtime,
        "Handler": function.handler,
        "Timeout": math.ceil(function.timeout_s),
        "MemorySize": function.memory_mb,
        "LastModified": _last_modified(function).isoformat(timespec="milliseconds").replace("+00:00", "+0000"),
        "Version": VERSION,
        "PackageType": "Zip",
        "State": "Active",
        "LastUpdateStatus": "Successful",
    }
    if function.environment:
        document["Environment"] = {"Variables": function.environment}
    if function.dead_letter:
        document["DeadLetterConfig"] = {"TargetArn": function.dead_letter}
    return document


def describe_event_invoke(function: Function, arn: str) -> Document | None:
    """The answer of GetFunctionEventInvokeConfig; None where a function has nothing but the defaults."""
    default = Function(logical_id="", name="", runtime="", handler="", code=function.code)
    names = ("max_retries", "max_age_s", "on_success", "on_failure")
    if all(getattr(function, name) == getattr(default, name) for name in names):
        return None
    destinations: Document = {}
    if function.on_success:
        destinations["OnSuccess"] = {"Destination": function.on_success}
    if function.on_failure:
        destinations["OnFailure"] = {"Destination": function.on_failure}
    return {
        "LastModified": _last_modified(function).timestamp(),
        "FunctionArn": f"{arn}:{VERSION}",
        "MaximumRetryAttempts": function.max_retries,
        "MaximumEventAgeInSeconds": function.max_age_s,
        "DestinationConfig": destinations,
    }


def describe_mappings(sources: Iterable[EventSource], arns: dict[str, str], since_s: float) -> list[Document]:
    """The event source mappings among sources of events.

    Args:
        sources: all of them.
        arns: of functions, by name.
        since_s: since when the mappings are there, epoch seconds.

    """
    return [_mapping(each, arns.get(each.function, each.function), since_s) for each in sources if each.kind in _MAPPED]


def _mapping(source: EventSource, function_arn: str, since_s: float) -> Document:
    document: Document = {
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{function_arn}/{source.logical_id}")),
        "EventSourceArn": source.source,
        "FunctionArn": function_arn,
        "BatchSize": source.batch_size,
        "MaximumBatchingWindowInSeconds": math.ceil(source.batch_window_s),
        "State": "Enabled" if source.enabled else "Disabled",
        "StateTransitionReason": "USER_INITIATED",
        "LastModified": since_s,
        "FunctionResponseTypes": ["ReportBatchItemFailures"] if source.report_batch_item_failures else [],
    }
    if source.kind == "dynamodb":
        document["StartingPosition"] = source.starting_position
    if source.filters:
        document["FilterCriteria"] = {"Filters": [{"Pattern": pattern} for pattern in source.filters]}
    return document


def _last_modified(function: Function) -> datetime:
    """When the function's code folder was changed, or now where there is none."""
    try:
        return datetime.fromtimestamp(function.code.stat().st_mtime, UTC)
    except OSError:
        return datetime.now(UTC)
