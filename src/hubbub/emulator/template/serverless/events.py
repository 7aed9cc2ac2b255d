"""What calls functions besides a WebSocket API: queues, streams, topics and schedules; the rest is named.

Source: the framework's documentation, "AWS Lambda Events", and what osls 3 and 4 generate.
"""

from __future__ import annotations

import json
import re
from typing import Any

from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.serverless import naming
from hubbub.emulator.template.serverless.document import Listing, Section, Text, name_of, plain
from hubbub.emulator.template.serverless.draft import Document, Draft, arn_of, present, ref
from hubbub.emulator.template.serverless.expect import as_section, listing_at, number_at, section_at, text_at
from hubbub.emulator.template.serverless.service import Event, FunctionEntry, Service

_RATE = re.compile(r"rate\([0-9]+ (?:minute|hour|day)s?\)|cron\(\S+ \S+ \S+ \S+ \S+ \S+\)|at\(\S+\)")


def put_events(service: Service, draft: Draft) -> None:
    """Put the sources of all functions' events into the draft, and name those that are none here.

    Raises:
        TemplateError: an event is not described as one.

    """
    for function in service.functions.values():
        schedules = 0
        for number, event in enumerate(function.events, 1):
            match event.kind:
                case "websocket" | "httpApi":
                    pass  # put_websockets, put_http_api
                case "sqs":
                    _put_queue(function, event, draft)
                case "stream":
                    _put_stream(function, event, draft)
                case "sns":
                    _put_topic(service, function, event, draft)
                case "schedule":
                    schedules = _put_schedules(function, event, schedules, draft)
                case "eventBridge":
                    _put_rule(service, function, event, number, draft)
                case _:
                    _name_event(service, function, event, draft)


def _name_event(service: Service, function: FunctionEntry, event: Event, draft: Draft) -> None:
    """Say that an event does not happen here; the API that `http` events would make is there to be referred to."""
    meaning = "nothing calls the function for this event here"
    if event.kind == "http":
        draft.put("ApiGatewayRestApi", "AWS::ApiGateway::RestApi", {"Name": f"{service.stage}-{service.name}"})
        meaning = "the function is not served by a REST API here: WebSocket APIs and HTTP APIs are served"
    if event.kind == "s3":
        _put_bucket(event, draft)
    draft.name(naming.function_id(function.key), event.kind, meaning)


def _put_bucket(event: Event, draft: Draft) -> None:
    """The bucket that an `s3` event makes, to be referred to."""
    section = event.value if isinstance(event.value, Section) else Section(event.place)
    name = event.value if isinstance(event.value, Text) else section.get("bucket")
    if isinstance(name, Text) and not section.get("existing"):
        draft.put(naming.bucket_id(name), "AWS::S3::Bucket", {"BucketName": name})


def _described(event: Event, *, simple: str) -> Section:
    """The event as a mapping, where it may also be a string that means the key `simple` alone."""
    if not isinstance(event.value, Text):
        return as_section(event.value, event.place, event.kind)
    section = Section(event.place)
    section.put(simple, event.value, event.place)
    return section


def _put_queue(function: FunctionEntry, event: Event, draft: Draft) -> None:
    section = _described(event, simple="arn")
    arn = _arn(section, event)
    concurrency = number_at(section, "maximumConcurrency")
    properties = {
        **_mapping(function, section, arn, batch_size=10),
        "MaximumBatchingWindowInSeconds": number_at(section, "maximumBatchingWindow"),
        "ScalingConfig": {"MaximumConcurrency": concurrency} if concurrency else None,
    }
    name = _name_in(arn, ":") or event.kind
    draft.put(naming.queue_mapping_id(function.key, name), "AWS::Lambda::EventSourceMapping", properties)


def _put_stream(function: FunctionEntry, event: Event, draft: Draft) -> None:
    section = _described(event, simple="arn")
    arn = _arn(section, event)
    kind = text_at(section, "type") or (
        str(arn).split(":")[2] if isinstance(arn, Text) and arn.count(":") > 2 else None
    )
    if kind not in ("dynamodb", "kinesis"):
        raise TemplateError(*event.place, f"expected dynamodb or kinesis as the stream's type, got {name_of(kind)}")
    if kind == "kinesis":
        meaning = "there are no Kinesis streams here, so nothing calls the function for this one"
        draft.name(naming.function_id(function.key), "stream", meaning)
        return
    failed = section_at(section, "destinations").get("onFailure")
    target = failed.get("arn") if isinstance(failed, Section) else failed
    properties = {
        **_mapping(function, section, arn, batch_size=10),
        "StartingPosition": text_at(section, "startingPosition") or "TRIM_HORIZON",
        "ParallelizationFactor": number_at(section, "parallelizationFactor"),
        "MaximumBatchingWindowInSeconds": number_at(section, "batchWindow"),
        "MaximumRetryAttempts": section.get("maximumRetryAttempts"),
        "MaximumRecordAgeInSeconds": section.get("maximumRecordAgeInSeconds"),
        "BisectBatchOnFunctionError": section.get("bisectBatchOnFunctionError"),
        "TumblingWindowInSeconds": number_at(section, "tumblingWindowInSeconds"),
        "DestinationConfig": {"OnFailure": {"Destination": target}} if target else None,
    }
    name = _name_in(arn, "/") or event.kind
    draft.put(naming.stream_mapping_id(function.key, kind, name), "AWS::Lambda::EventSourceMapping", properties)


def _mapping(function: FunctionEntry, section: Section, arn: object, *, batch_size: int) -> Document:
    """What mappings of queues and streams have in common."""
    enabled, patterns = section.get("enabled"), listing_at(section, "filterPatterns")
    response = text_at(section, "functionResponseType")
    filters = [{"Pattern": json.dumps(plain(pattern), separators=(",", ":"))} for pattern in patterns]
    return {
        "BatchSize": number_at(section, "batchSize") or batch_size,
        "Enabled": True if enabled is None else enabled,
        "EventSourceArn": arn,
        "FunctionName": arn_of(naming.function_id(function.key)),
        "FunctionResponseTypes": [response] if response else None,
        "FilterCriteria": {"Filters": filters} if filters else None,
    }


def _arn(section: Section, event: Event) -> Any:  # Any: an ARN as CloudFormation writes it
    arn = section.get("arn")
    if not isinstance(arn, Text | Section) or not arn:
        raise TemplateError(*event.place, f"expected an ARN in the {event.kind} event, got {name_of(arn)}")
    return arn


def _name_in(arn: Any, separator: str) -> str:  # Any: an ARN as CloudFormation writes it
    """What the framework calls the thing of an ARN, in logical ids: its last part, or what a function refers to."""
    if isinstance(arn, str):
        parts = arn.split(separator)
        return parts[1] if separator == "/" and len(parts) > 1 else parts[-1]
    function, argument = next(iter(arn.items()))
    match function, argument:
        case "Fn::GetAtt", list():
            return str(argument[0])
        case "Fn::Join", [_, [*_, last]]:
            return str(last).split("/")[-1] if separator == "/" else str(last)
        case _, str():
            return str(argument)
    return ""


def _put_topic(service: Service, function: FunctionEntry, event: Event, draft: Draft) -> None:
    """A subscription to a topic: one that exists (`arn`), or one that is made here by its name."""
    is_arn = isinstance(event.value, Text) and event.value.startswith("arn:")
    section = _described(event, simple="arn" if is_arn else "topicName")
    arn, name = section.get("arn"), text_at(section, "topicName")
    if isinstance(arn, Text):
        name = name or arn.rsplit(":", 1)[-1]
    if not name:
        raise TemplateError(*event.place, "expected a topicName in the sns event, got none")
    endpoint, redrive = arn_of(naming.function_id(function.key)), _redrive(section)
    policy = section.get("filterPolicy")
    topic = naming.topic_id(name)
    if not arn and topic not in draft.resources:
        kind = "AWS::SNS::Topic"
        draft.put(topic, kind, {"TopicName": name, "DisplayName": text_at(section, "displayName")})
    if arn or policy or redrive:
        properties = {
            "TopicArn": arn or ref(topic),
            "Protocol": "lambda",
            "Endpoint": endpoint,
            "FilterPolicy": policy,
            "FilterPolicyScope": text_at(section, "filterPolicyScope"),
            "RedrivePolicy": redrive,
            "Region": _region_of(arn, service.region),
        }
        draft.put(naming.subscription_id(function.key, name), "AWS::SNS::Subscription", properties)
    else:
        subscriptions = draft.resources[topic]["Properties"].setdefault("Subscription", [])
        subscriptions.append({"Endpoint": endpoint, "Protocol": "lambda"})


def _redrive(section: Section) -> Document | None:
    policy = section_at(section, "redrivePolicy")
    if not policy:
        return None
    if imported := policy.get("deadLetterTargetImport"):
        return {"deadLetterTargetArn": {"Fn::ImportValue": imported.get("arn")}}
    reference = text_at(policy, "deadLetterTargetRef")
    return {"deadLetterTargetArn": arn_of(reference) if reference else policy.get("deadLetterTargetArn")}


def _region_of(arn: object, region: str) -> str | None:
    """A topic's region where it is another."""
    parts = arn.split(":") if isinstance(arn, str) else []
    return parts[3] if len(parts) > 4 and parts[3] != region else None


def _put_schedules(function: FunctionEntry, event: Event, done: int, draft: Draft) -> int:
    """Put the rules of one event into the draft; how many the function has now."""
    section = _described(event, simple="rate")
    rates = section.get("rate")
    rates = list(rates) if isinstance(rates, Listing) else [rates]
    for number, rate in enumerate(rates, done + 1):
        if not isinstance(rate, Section) and not _RATE.fullmatch(str(rate)):
            raise TemplateError(*event.place, f"expected rate(…) or cron(…) as the schedule, got {name_of(rate)}")
        if section.get("method") == "scheduler":
            _put_scheduler(function, section, rate, number, draft)
            continue
        target = present(
            {
                "Arn": arn_of(naming.function_id(function.key)),
                "Id": f"{function.key}Schedule",
                "Input": _input(section),
                **_shaped(section),
            }
        )
        properties = {
            "ScheduleExpression": rate,
            "State": "DISABLED" if section.get("enabled") is False else "ENABLED",
            "Name": text_at(section, "name"),
            "Description": text_at(section, "description"),
            "Targets": [target],
        }
        draft.put(naming.rule_id(function.key, number), "AWS::Events::Rule", properties)
    return done + len(rates)


def _put_scheduler(function: FunctionEntry, section: Section, rate: object, number: int, draft: Draft) -> None:
    target = {
        "Arn": arn_of(naming.function_id(function.key)),
        "RoleArn": section.get("roleArn") or arn_of(naming.ROLE),
        "Input": _input(section),
    }
    properties = {
        "ScheduleExpression": rate,
        "ScheduleExpressionTimezone": text_at(section, "timezone"),
        "State": "DISABLED" if section.get("enabled") is False else "ENABLED",
        "Target": present(target),
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Name": text_at(section, "name"),
        "GroupName": section.get("groupName"),
        "Description": text_at(section, "description"),
    }
    draft.put(naming.scheduler_id(function.key, number), "AWS::Scheduler::Schedule", properties)


def _input(section: Section) -> str | None:
    """A schedule's payload as JSON text; a `body` that is text is JSON itself."""
    value = section.get("input")
    if value is None or isinstance(value, Text):
        return value
    document = plain(value)
    if isinstance(document, dict) and isinstance(document.get("body"), str):
        try:
            document["body"] = json.loads(document["body"])
        except json.JSONDecodeError as error:
            place = section.place_of("input")
            raise TemplateError(*place, f"expected JSON as body of the schedule's input: {error.msg}") from error
    return json.dumps(document, separators=(",", ":"))


def _shaped(section: Section) -> Document:
    """What else makes a payload."""
    transformer = section_at(section, "inputTransformer")
    shapes: Document = {"InputPath": section.get("inputPath")}
    if transformer:
        paths, template = transformer.get("inputPathsMap"), transformer.get("inputTemplate")
        shapes["InputTransformer"] = present({"InputPathsMap": paths, "InputTemplate": template})
    return shapes


def _put_rule(service: Service, function: FunctionEntry, event: Event, number: int, draft: Draft) -> None:
    """A rule of EventBridge: with a schedule it is one; with a pattern there is no bus here that events come by."""
    section = as_section(event.value, event.place, "eventBridge")
    if not section.get("schedule"):
        _name_event(service, function, event, draft)
        return
    stub = f"{text_at(function.section, 'name') or f'{service.name}-{service.stage}-{function.key}'}-rule-{number}"
    name = text_at(section, "name") or stub
    target = {"Arn": arn_of(naming.function_id(function.key)), "Id": f"{name}-target"}
    target |= present({"Input": _input(section), **_shaped(section)})
    properties = {
        "Name": name,
        "ScheduleExpression": section["schedule"],
        "State": "DISABLED" if section.get("enabled") is False else "ENABLED",
        "Description": text_at(section, "description"),
        "Targets": [target],
    }
    draft.put(naming.event_rule_id(stub), "AWS::Events::Rule", properties)
