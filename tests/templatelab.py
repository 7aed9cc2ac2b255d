"""Templates for tests: read from text or from `tests/templates`, and looked into."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

from hubbub.emulator.definition import ApiDefinition, Function, Resource, RouteDefinition, Stack, Surroundings
from hubbub.emulator.template import TemplateError, load
from hubbub.emulator.template.source import Value

TEMPLATES = Path(__file__).parent / "templates"

SAM = "Transform: AWS::Serverless-2016-10-31\n"


def written(folder: Path, text: str, name: str = "template.yaml") -> Path:
    """A template's file with this text, and a folder `src` beside it for code."""
    (folder / "src").mkdir(exist_ok=True)
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def stack_of(
    folder: Path,
    text: str,
    *,
    parameters: Mapping[str, str] | None = None,
    surroundings: Surroundings | None = None,
    name: str = "template.yaml",
) -> Stack:
    """The stack of a template with this text."""
    return loaded(written(folder, text, name), folder, parameters=parameters, surroundings=surroundings)


def loaded(
    path: Path, work: Path, *, parameters: Mapping[str, str] | None = None, surroundings: Surroundings | None = None
) -> Stack:
    """The stack of the template at a path."""
    return load(path, surroundings=surroundings or Surroundings(), work=work / "work", parameters=parameters)


def value_of(folder: Path, expression: str, *, rest: str = "", parameters: Mapping[str, str] | None = None) -> Value:
    """What an expression is in a template, as the value of an output; `rest` is the rest of the template."""
    text = f"{textwrap.dedent(rest) or 'Resources: {Topic: {Type: AWS::SNS::Topic}}'}\nOutputs:\n  It:\n    Value: "
    return stack_of(folder, text + expression + "\n", parameters=parameters).outputs.get("It")


def failure_of(folder: Path, text: str, *, parameters: Mapping[str, str] | None = None) -> TemplateError:
    """The error that a template with this text is."""
    try:
        stack_of(folder, text, parameters=parameters)
    except TemplateError as failure:
        return failure
    raise AssertionError("the template was accepted")


def function_of(stack: Stack, logical_id: str) -> Function:
    """The function of that logical id."""
    return next(function for function in stack.functions if function.logical_id == logical_id)


def resource_of(stack: Stack, logical_id: str) -> Resource:
    """The resource of that logical id."""
    return next(resource for resource in stack.resources if resource.logical_id == logical_id)


def route_of(api: ApiDefinition, key: str) -> RouteDefinition:
    """The route of that key."""
    return next(route for route in api.routes if route.key == key)


def meaning_of(stack: Stack, logical_id: str) -> str:
    """What is said of what does not run here; empty where nothing is."""
    return "\n".join(one.meaning for one in stack.unsupported if one.logical_id == logical_id)
