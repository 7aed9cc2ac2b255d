"""What deploy/ has, as tests look into it: templates without SAM's types, and what their expressions come to."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from samtranslator.metrics.metrics import DummyMetricsPublisher, Metrics
from samtranslator.parser.parser import Parser
from samtranslator.translator.arn_generator import ArnGenerator
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
TEMPLATE = DEPLOY / "sam" / "template.yaml"
PER_ROUTE = DEPLOY / "sam" / "function-per-route.yaml"
SERVERLESS = DEPLOY / "serverless" / "serverless.yml"

Json = dict[str, Any]

PSEUDO = {"AWS::StackName": "hubbub-live", "AWS::Region": "us-east-1"}


def script(name: str) -> ModuleType:
    """One of scripts/, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def read(path: Path) -> Json:
    """A template as it is written, in the long form of its expressions."""
    document: Json = yaml_parse(path.read_text(encoding="utf-8"))
    return document


def translated(path: Path, **parameters: str) -> Json:
    """A SAM template as AWS's own translator makes CloudFormation of it."""
    document = read(path)
    for kind, body in document["Globals"].items():
        assert kind == "Function"
        body["CodeUri"] = "s3://bucket/hubbub.zip"  # what `sam deploy` puts there
    given = {name: str(body.get("Default", "")) for name, body in document["Parameters"].items()}
    metrics = Metrics("ServerlessTransform", DummyMetricsPublisher())
    session = SimpleNamespace(region_name=PSEUDO["AWS::Region"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ArnGenerator, "BOTO_SESSION_REGION_NAME", None)  # the translator leaves the region in its class
        translator = Translator(None, Parser(), boto_session=session, metrics=metrics)
        made = translator.translate(document, {**given, **PSEUDO, **parameters}, passthrough_metadata=True)
    metrics.publish()  # nowhere; it complains in the end where this was not called
    whole: Json = json.loads(json.dumps(made))
    return whole


def values(template: Json, **parameters: str) -> dict[str, str]:
    """What a template's parameters come to."""
    given = {name: str(body.get("Default", "")) for name, body in template.get("Parameters", {}).items()}
    return {**given, **PSEUDO, **parameters}


def rendered(value: Any, known: Mapping[str, str]) -> Any:
    """A value with its joins and substitutions written out, and parameters replaced; what they refer to stays named."""
    if isinstance(value, list):
        return [rendered(item, known) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((name, argument),) = value.items()
        if name == "Ref":
            return known.get(argument, f"${{{argument}}}")
        if name == "Fn::GetAtt":
            return f"${{{argument if isinstance(argument, str) else '.'.join(argument)}}}"
        if name == "Fn::Join":
            return argument[0].join(map(str, rendered(argument[1], known)))
        if name == "Fn::Sub" and isinstance(argument, str):
            return re.sub(r"\$\{([A-Za-z:]+)\}", lambda part: known.get(part[1], part[0]), argument)
    return {key: rendered(item, known) for key, item in value.items()}


def of_type(template: Json, kind: str) -> dict[str, Json]:
    """The resources of a type."""
    return {name: body for name, body in template["Resources"].items() if body["Type"] == kind}


def statements(template: Json) -> Iterator[tuple[str, Json]]:
    """Every statement of every policy, with the resource that it stands in; of conditional ones, each."""
    for name, body in template["Resources"].items():
        properties = body.get("Properties", {})
        policies = [properties, *properties.get("Policies", [])] if body["Type"].startswith("AWS::IAM::") else []
        for policy in policies:
            for statement in policy.get("PolicyDocument", {}).get("Statement", []):
                for one in statement.get("Fn::If", [None, statement])[1:]:
                    if "Effect" in one:
                        yield name, one


def listed(value: Any) -> list[Any]:
    """A list of what may be one or several."""
    return value if isinstance(value, list) else [value]
