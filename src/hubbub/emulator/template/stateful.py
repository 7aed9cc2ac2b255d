"""What is created on an emulator of AWS's services: tables, queues, topics, parameters, secrets, buckets, streams."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from hubbub.emulator.definition import Resource
from hubbub.emulator.template.declared import Declared
from hubbub.emulator.template.resources import Template
from hubbub.emulator.template.sam import BUCKET
from hubbub.emulator.template.secrets import secret_text
from hubbub.emulator.template.source import Value, read_document

CREATED: Final = frozenset(
    {
        "AWS::DynamoDB::GlobalTable",
        "AWS::DynamoDB::Table",
        "AWS::Events::EventBus",
        "AWS::Kinesis::Stream",
        "AWS::S3::Bucket",
        "AWS::SNS::Subscription",
        "AWS::SNS::Topic",
        "AWS::SQS::Queue",
        "AWS::SSM::Parameter",
        "AWS::SecretsManager::Secret",
        "AWS::StepFunctions::StateMachine",
    }
)
"""The types that become a `Resource`."""

_DEFINITION: Final = ("DefinitionString", "Definition", "DefinitionS3Location")


def resources_of(templates: Sequence[Template]) -> tuple[Resource, ...]:
    """What a stack keeps its state in; subscriptions of functions are event sources instead.

    Raises:
        TemplateError: a property cannot be read.

    """
    return tuple(
        resource for template in templates for of in template.resources.values() for resource in _resources(of)
    )


def _resources(of: Declared) -> Iterator[Resource]:
    if of.type not in CREATED or (of.type == "AWS::SNS::Subscription" and of.text("Protocol") == "lambda"):
        return
    properties = of.properties()
    if of.type == "AWS::SecretsManager::Secret":
        properties = _with_text(of, properties)
    elif of.type == "AWS::StepFunctions::StateMachine":
        definition = _definition(of)
        if definition is None:
            of.note("its definition is in S3 and not here, so it is not created")
            return
        kept = {key: value for key, value in properties.items() if key not in _DEFINITION}
        properties = {**kept, "DefinitionString": definition}
    elif of.type == "AWS::S3::Bucket" and "NotificationConfiguration" in of.raw:
        of.note("it notifies nobody: what is put into it invokes no function")
        properties.pop("NotificationConfiguration")
    yield Resource(logical_id=of.shown_id, type=of.type, name=of.template.returned(of).name, properties=properties)


def _with_text(of: Declared, properties: dict[str, Value]) -> dict[str, Value]:
    """A secret's properties with what is to be generated as text, so that references to it are of the same."""
    text = secret_text(of)
    kept = {key: value for key, value in properties.items() if key != "GenerateSecretString"}
    return kept if text is None else {**kept, "SecretString": text}


def _definition(of: Declared) -> str | None:
    """A state machine's definition as JSON; None for one that is in S3."""
    for key in ("DefinitionString", "Definition"):
        if key in of.raw:
            found = of.get(key)
            return found if isinstance(found, str) else json.dumps(found)
    location = of.mapping("DefinitionS3Location")
    if location.get("Bucket") != BUCKET:
        return None
    path: Path = of.template.path.parent / of.template.paths[str(location.get("Key"))].path
    return json.dumps(read_document(path))
