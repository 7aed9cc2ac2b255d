"""The functions and layers of a service, and where their code is.

Functions run from the service's own folder, whatever would be packaged: what is changed there is what runs. Source: the
framework's documentation, "Functions" and "Layers", and what osls 3 and 4 generate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.serverless import naming
from hubbub.emulator.template.serverless.building import code_of
from hubbub.emulator.template.serverless.document import Place, Section, Text, name_of
from hubbub.emulator.template.serverless.dotenv import read_dotenv
from hubbub.emulator.template.serverless.draft import Document, Draft, arn_of, join, ref
from hubbub.emulator.template.serverless.expect import as_section, listing_at, number_at, section_at, text_at
from hubbub.emulator.template.serverless.service import FunctionEntry, Service

_REQUIREMENTS = naming.layer_id("pythonRequirements")  # functions find what they require by other ways here

_MEMORY_MB, _TIMEOUT_S, _RUNTIME = 1024, 6, "nodejs24.x"  # what the framework takes where nothing is said


def put_functions(service: Service, draft: Draft) -> None:
    """Put all functions and layers into the draft.

    Raises:
        TemplateError: one is not described as one.

    """
    for layer in service.layers:
        _put_layer(service, layer, draft)
    if service.functions:
        region = ref("AWS::Region")
        name = join(service.name, service.stage, region, "lambdaRole", by="-")
        draft.put(naming.ROLE, "AWS::IAM::Role", {"RoleName": name})
    for function in service.functions.values():
        _put_function(service, function, draft)
        _put_invoke_config(service, function, draft)


def _put_function(service: Service, function: FunctionEntry, draft: Draft) -> None:
    section, provider = function.section, service.provider
    logical_id = naming.function_id(function.key)
    name = text_at(section, "name") or f"{service.name}-{service.stage}-{function.key}"
    architecture = text_at(section, "architecture") or text_at(provider, "architecture")
    dead_letter = section.get("onError")
    properties: Document = {
        "FunctionName": name,
        **_program(service, function, draft),
        "Description": section.get("description"),
        "MemorySize": number_at(section, "memorySize") or number_at(provider, "memorySize") or _MEMORY_MB,
        "Timeout": number_at(section, "timeout") or number_at(provider, "timeout") or _TIMEOUT_S,
        "Architectures": [architecture] if architecture else None,
        "DeadLetterConfig": {"TargetArn": dead_letter} if dead_letter else None,
        "Environment": _environment(service, section),
        "Role": arn_of(naming.ROLE),
        "ReservedConcurrentExecutions": number_at(section, "reservedConcurrency"),
        "Layers": _layers(service, section),
    }
    depends = section.get("dependsOn") or []
    group = naming.log_group_id(function.key)
    if not section.get("disableLogs"):
        draft.put(group, "AWS::Logs::LogGroup", {"LogGroupName": f"/aws/lambda/{name}"})
        depends = [group, *(depends if isinstance(depends, list) else [depends])]
    draft.put(
        logical_id,
        "AWS::Lambda::Function",
        properties,
        Condition=section.get("condition"),
        DependsOn=depends or None,
    )
    if section.get("url"):
        draft.name(logical_id, "url", "function URLs are not served here: only WebSocket APIs are")


def _program(service: Service, function: FunctionEntry, draft: Draft) -> Document:
    """What is run: the handler in the code's folder, or an image, which the mapping to a stack names as it sees fit."""
    section = function.section
    handler, image = text_at(section, "handler"), section.get("image")
    if bool(handler) == bool(image):
        came = "both" if handler else "neither"
        raise TemplateError(*function.place, f"expected a handler or an image in the function, got {came}")
    if image:
        address = image.get("uri") or image.get("name") if isinstance(image, Section) else image
        return {"PackageType": "Image", "Code": {"ImageUri": address}}
    runtime = text_at(section, "runtime") or text_at(service.provider, "runtime") or _RUNTIME
    draft.code[naming.function_id(function.key)] = code_of(service, function, str(handler), str(runtime), draft)
    return {"Handler": handler, "Runtime": runtime, "Code": {}}


def _layers(service: Service, section: Section) -> list[Any] | None:  # Any: ARNs as CloudFormation writes them
    """The function's layers, else the provider's, but for the one that serverless-python-requirements would make."""
    layers = listing_at(section, "layers") or listing_at(service.provider, "layers")
    return [layer for layer in layers if layer != ref(_REQUIREMENTS)] or None


def _environment(service: Service, section: Section) -> Document | None:
    """The provider's variables under the function's own; none where they are null."""
    whole: dict[str, Any] = _dotenv_of(service)  # Any: texts, and functions of CloudFormation
    whole |= section_at(service.provider, "environment") | section_at(section, "environment")
    variables = {key: _variable(value) for key, value in whole.items() if value is not None}
    return {"Variables": variables} if variables else None


def _variable(value: Any) -> Any:  # Any: a text, or a function of CloudFormation
    """The value of a variable; numbers and booleans are texts, as the framework has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _dotenv_of(service: Service) -> dict[str, Any]:  # Any: as in _environment
    """What serverless-dotenv-plugin gives all functions: the `.env` files, the stage's own first."""
    if "serverless-dotenv-plugin" not in service.plugins:
        return {}
    options = section_at(service.custom, "dotenv")
    folder = service.folder / (text_at(options, "basePath") or ".")
    path = text_at(options, "path")
    files = [service.folder / path] if path else [folder / f".env.{service.stage}", folder / ".env"]
    values: dict[str, str] = {}
    for file in files:
        if file.is_file():
            values = {**read_dotenv(file, values), **values}
    include, exclude = listing_at(options, "include"), listing_at(options, "exclude")
    return {key: value for key, value in values.items() if (not include or key in include) and key not in exclude}


def _put_invoke_config(service: Service, function: FunctionEntry, draft: Draft) -> None:
    section = function.section
    destinations = section_at(section, "destinations")
    age, retries = number_at(section, "maximumEventAge"), number_at(section, "maximumRetryAttempts")
    if not destinations and not age and retries is None:
        return
    config: Document = {}
    for key, name in (("onSuccess", "OnSuccess"), ("onFailure", "OnFailure")):
        if destinations.get(key):
            config[name] = {"Destination": _destination(service, destinations[key], destinations.place_of(key))}
    draft.put(
        naming.invoke_config_id(function.key),
        "AWS::Lambda::EventInvokeConfig",
        {
            "FunctionName": ref(naming.function_id(function.key)),
            "DestinationConfig": config,
            "Qualifier": "$LATEST",
            "MaximumEventAgeInSeconds": age or None,
            "MaximumRetryAttempts": retries,
        },
    )


def _destination(service: Service, value: Any, place: Place) -> Any:  # Any: an ARN as CloudFormation writes it
    """Where outcomes go: an ARN, a function of the service, or `{type, arn}`."""
    if not isinstance(value, Text):
        return as_section(value, place, "a destination").get("arn")
    if value.startswith("arn:"):
        return value
    if value not in service.functions:
        raise TemplateError(*place, f"expected an ARN or one of the service's functions, got {name_of(value)}")
    return arn_of(naming.function_id(value))


def _put_layer(service: Service, key: str, draft: Draft) -> None:
    place = service.layers.place_of(key)
    section = as_section(service.layers[key], place, f"the layer {key}")
    path = text_at(section_at(section, "package"), "artifact") or text_at(section, "path")
    if not path:
        raise TemplateError(*place, f"expected a path in the layer {key}, got none")
    code = service.folder / path
    if not code.exists():
        raise TemplateError(*section.place_of("path"), f"there is no {path}, which is the path of the layer {key}")
    logical_id = naming.layer_id(key)
    draft.put(
        logical_id,
        "AWS::Lambda::LayerVersion",
        {
            "LayerName": text_at(section, "name") or key,
            "Content": {},
            "Description": section.get("description"),
            "CompatibleRuntimes": listing_at(section, "compatibleRuntimes") or None,
        },
    )
    draft.code[logical_id] = Path(code)
    draft.outputs[f"{logical_id}QualifiedArn"] = {
        "Description": "Current Lambda layer version",
        "Value": ref(logical_id),
    }
