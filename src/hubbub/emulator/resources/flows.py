"""What events flow through: EventBridge's buses, Kinesis' streams, Step Functions' state machines.

Source: AWS::Events::EventBus, AWS::Kinesis::Stream and AWS::StepFunctions::StateMachine in the CloudFormation
reference.
"""

from __future__ import annotations

from typing import Any

from hubbub.emulator.definition import Resource
from hubbub.emulator.resources.coercion import text_of
from hubbub.emulator.resources.kinds import Kind, Made, Properties, Service, named, section


def _make_bus(service: Service, resource: Resource) -> Made:
    parameters = {"Name": resource.name, "Description": resource.properties.get("Description")}
    service.make("CreateEventBus", parameters, there=("ResourceAlreadyExistsException",))
    found = service.call("DescribeEventBus", {"Name": resource.name})
    return Made(attributes={"Arn": found["Arn"]})


def _make_stream(service: Service, resource: Resource) -> Made:
    properties = resource.properties
    mode = section(properties, "StreamModeDetails")
    parameters: dict[str, Any] = {"StreamName": resource.name, "StreamModeDetails": mode or None}
    if mode.get("StreamMode", "PROVISIONED") == "PROVISIONED":
        parameters["ShardCount"] = properties.get("ShardCount", 1)
    made = service.make("CreateStream", parameters, there=("ResourceInUseException",))
    service.wait("stream_exists", StreamName=resource.name)
    if made is not None and "RetentionPeriodHours" in properties:
        hours = {"StreamName": resource.name, "RetentionPeriodHours": properties["RetentionPeriodHours"]}
        if text_of(hours["RetentionPeriodHours"]) != "24":  # what it has by itself is refused
            service.call("IncreaseStreamRetentionPeriod", hours)
    found = service.call("DescribeStreamSummary", {"StreamName": resource.name})["StreamDescriptionSummary"]
    return Made(attributes={"Arn": found["StreamARN"]})


def _make_state_machine(service: Service, resource: Resource) -> Made:
    properties = resource.properties
    parameters = {
        "name": resource.name,
        "definition": _definition(properties),
        "roleArn": properties.get("RoleArn") or f"arn:aws:iam::{service.place.account}:role/{resource.name}",
        "type": properties.get("StateMachineType", "STANDARD"),
    }
    made = service.make("CreateStateMachine", parameters, there=("StateMachineAlreadyExists",))
    return Made(attributes={} if made is None else {"Arn": made["stateMachineArn"]})


def _definition(properties: Properties) -> str:
    definition = properties.get("DefinitionString", properties.get("Definition"))
    if definition is None:
        raise ValueError("expected DefinitionString or Definition: a definition in S3 is not read here")
    text = text_of(definition)
    for name, value in section(properties, "DefinitionSubstitutions").items():
        text = text.replace(f"${{{name}}}", text_of(value))
    return text


BUS = Kind(service="events", make=_make_bus, arn=named("events", "event-bus/"), used=frozenset({"Name", "Description"}))

STREAM = Kind(
    service="kinesis",
    make=_make_stream,
    arn=named("kinesis", "stream/"),
    used=frozenset({"Name", "ShardCount", "StreamModeDetails", "RetentionPeriodHours"}),
)

STATE_MACHINE = Kind(
    service="stepfunctions",
    make=_make_state_machine,
    arn=named("states", "stateMachine:"),
    used=frozenset(
        {
            "StateMachineName",
            "StateMachineType",
            "RoleArn",
            "Definition",
            "DefinitionString",
            "DefinitionSubstitutions",
        }
    ),
)
