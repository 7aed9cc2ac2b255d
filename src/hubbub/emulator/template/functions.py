"""Lambda functions as the emulator runs them: AWS::Lambda::Function with its layers and its EventInvokeConfig.

Source: those types in the CloudFormation template reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from hubbub.emulator.definition import Function
from hubbub.emulator.template.code import CodeFinder
from hubbub.emulator.template.declared import Declared
from hubbub.emulator.template.intrinsics import as_text
from hubbub.emulator.template.resources import Template
from hubbub.emulator.template.returns import function_arn
from hubbub.emulator.template.source import Value

_NOT_HERE = {
    "CapacityProviderConfig": "it runs in processes of its own, one invocation at a time, not on a capacity provider",
    "DurableConfig": "durable executions are not checkpointed or resumed: it runs as a plain function",
    "FileSystemConfigs": "the file system is not mounted",
    "TenancyConfig": "tenants share its environments",
}


def functions_of(templates: Sequence[Template], finder: CodeFinder) -> tuple[Function, ...]:
    """The functions of a stack and the stacks nested in it, without those whose code is not on this machine.

    Raises:
        TemplateError: one lacks what Lambda asks for, or two have the same name.

    """
    layers = _layers(templates, finder)
    configured = _invoke_configs(templates)
    made: dict[str, Function] = {}
    for of in _all(templates, "AWS::Lambda::Function"):
        function = _function(of, finder, layers)
        if function is None:
            continue
        if function.name in made:
            raise of.error("FunctionName", f"expected a name of its own, and {function.name!r} is another function's")
        made[function.name] = msgspec.structs.replace(function, **configured.get(_arn(of), {}))
    return tuple(made.values())


def _all(templates: Iterable[Template], type_: str) -> list[Declared]:
    return [of for template in templates for of in template.of_type(type_)]


def _arn(of: Declared) -> str:
    return of.template.returned(of).attributes["Arn"]


def _layers(templates: Sequence[Template], finder: CodeFinder) -> Mapping[str, Path]:
    """The folders of the stack's layers, by ARN."""
    found = {of.template.returned(of).ref: finder.layer(of) for of in _all(templates, "AWS::Lambda::LayerVersion")}
    return {arn: folder for arn, folder in found.items() if folder is not None}


def _function(of: Declared, finder: CodeFinder, layers: Mapping[str, Path]) -> Function | None:
    folder = finder.function(of)
    if folder is None:
        return None
    for key in ("Runtime", "Handler"):
        if key not in of.raw:
            raise of.error(None, f"expected a {key}, which a function that is no container image must have")
    for key, meaning in _NOT_HERE.items():
        if of.get(key):
            of.note(meaning)
    reserved = of.get("ReservedConcurrentExecutions")
    return Function(
        logical_id=of.shown_id,
        name=of.template.returned(of).name,
        runtime=of.text("Runtime"),
        handler=of.text("Handler"),
        code=folder,
        environment=_variables(of),
        memory_mb=int(of.number("MemorySize", 128)),
        timeout_s=of.number("Timeout", 3),
        layers=tuple(_used_layers(of, layers)),
        reserved_concurrency=None if reserved is None else int(of.number("ReservedConcurrentExecutions", 0)),
        dead_letter=as_text(of.mapping("DeadLetterConfig").get("TargetArn")),
    )


def _variables(of: Declared) -> dict[str, str]:
    variables = of.mapping("Environment").get("Variables") or {}
    if not isinstance(variables, dict):
        raise of.error("Environment", f"expected a mapping as its Variables, got {variables!r}")
    made = {}
    for name, value in variables.items():
        text = as_text(value)
        if text is None:
            raise of.error("Environment", f"expected text as its variable {name}, got {value!r}")
        made[name] = text
    return made


def _used_layers(of: Declared, layers: Mapping[str, Path]) -> Iterable[Path]:
    for arn in of.listed("Layers"):
        folder = layers.get(str(arn))
        if folder is not None:
            yield folder
        elif not _is_of_stack(of, str(arn)):
            of.note(f"the layer {arn} is not in this template: what it has must be in the function's folder")


def _is_of_stack(of: Declared, arn: str) -> bool:
    """Whether a layer is the template's own, and so named already."""
    return any(of.template.returned(layer).ref == arn for layer in of.template.of_type("AWS::Lambda::LayerVersion"))


def _invoke_configs(templates: Sequence[Template]) -> dict[str, dict[str, Value]]:
    """What the EventInvokeConfigs change in functions, by the function's ARN."""
    made: dict[str, dict[str, Value]] = {}
    for of in _all(templates, "AWS::Lambda::EventInvokeConfig"):
        destinations = of.mapping("DestinationConfig")
        made.setdefault(function_arn(of), {}).update(
            max_retries=int(of.number("MaximumRetryAttempts", 2)),
            max_age_s=int(of.number("MaximumEventAgeInSeconds", 21_600)),
            on_success=_destination(destinations, "OnSuccess"),
            on_failure=_destination(destinations, "OnFailure"),
        )
    return made


def _destination(destinations: Mapping[str, Value], outcome: str) -> str | None:
    return as_text((destinations.get(outcome) or {}).get("Destination"))
