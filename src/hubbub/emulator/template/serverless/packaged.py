"""What `osls package` (or `serverless package`) has left in `.serverless`, run as it is: template and archives.

For services that are programs (serverless.ts), or whose plugins change them, this is exactly what would be deployed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from hubbub.emulator.definition import Stack, Surroundings, Unsupported
from hubbub.emulator.template.source import Value, read_document
from hubbub.emulator.template.stack import stack_from_template

PACKAGED = Path(".serverless") / "cloudformation-template-update-stack.json"
"""Where the framework puts the template, in the service's folder."""

BUCKET = "ServerlessDeploymentBucket"
"""What the framework puts code into when it deploys."""

_STATE = "serverless-state.json"

_SOURCES = ("yml", "yaml", "json", "ts", "js", "cjs", "mjs", "mts")


def load_packaged(
    path: Path, *, surroundings: Surroundings, work: Path, parameters: Mapping[str, str] | None = None
) -> Stack:
    """The stack that the framework has packaged.

    Args:
        path: the service's folder or the template in its `.serverless`.
        surroundings: what it is resolved in; the packaged service's stack name and region come before these.
        work: a folder for what must be written.
        parameters: values of the template's parameters; others are ignored.

    Raises:
        TemplateError: nothing has been packaged, or it cannot be understood.

    """
    path = path.resolve()
    if path.is_dir():
        path /= PACKAGED
    template = read_document(path)
    code = _archives(template, path.parent)
    _leave_out_bucket(template)
    service = _named(surroundings, _state(path.parent / _STATE))
    return stack_from_template(
        template,
        path=path,
        language="serverless",
        surroundings=service,
        work=work,
        parameters=those_of(template, parameters or {}),
        code=code,
        unsupported=_age(path),
    )


def those_of(template: Mapping[str, Value], parameters: Mapping[str, str]) -> dict[str, str]:
    """Those parameters that are the template's own, or, with a colon in their names, stand in for what AWS has."""
    declared = template.get("Parameters") or {}
    return {key: value for key, value in parameters.items() if key in declared or ":" in key}


def _archives(template: Mapping[str, Value], folder: Path) -> dict[str, Path]:
    """The archives of functions and layers; the service's own folder where there is none."""
    code: dict[str, Path] = {}
    for logical_id, location in _locations(template):
        key = location.get("S3Key")
        if isinstance(key, str):
            archive = folder / key.rsplit("/", 1)[-1]
            code[logical_id] = archive if archive.is_file() else folder.parent
    return code


def _locations(template: Mapping[str, Value]) -> Iterator[tuple[str, dict[str, Value]]]:
    """Where the code of each function and the content of each layer is said to be."""
    for logical_id, resource in _mapping(template.get("Resources")).items():
        holder = {"AWS::Lambda::Function": "Code", "AWS::Lambda::LayerVersion": "Content"}.get(
            str(_mapping(resource).get("Type"))
        )
        if holder:
            yield logical_id, _mapping(_mapping(resource.get("Properties")).get(holder))


def _mapping(value: Value) -> dict[str, Value]:
    """The value, if it is a mapping; what it must be is for the mapping to a stack to say."""
    return value if isinstance(value, dict) else {}


def _leave_out_bucket(template: dict[str, Value]) -> None:
    """Take away the bucket for deploying, unless something else than deploying refers to it."""
    for _, location in _locations(template):
        if location.get("S3Bucket") == {"Ref": BUCKET}:
            location["S3Bucket"] = "none"
    own = (BUCKET, f"{BUCKET}Policy", f"{BUCKET}Name")
    parts = {
        part: {key: value for key, value in _mapping(template.get(part)).items() if key not in own}
        for part in ("Resources", "Outputs")
    }
    if f'"{BUCKET}"' not in json.dumps(parts):
        template |= parts


def _state(path: Path) -> dict[str, Value]:
    """What the framework has noted of the service; nothing where that cannot be read."""
    try:
        return _mapping(_mapping(json.loads(path.read_text(encoding="utf-8"))).get("service"))
    except (OSError, ValueError):
        return {}


def _named(surroundings: Surroundings, state: Mapping[str, Value]) -> Surroundings:
    provider = _mapping(state.get("provider"))
    name, stage = state.get("service"), provider.get("stage")
    stack_name = provider.get("stackName") or (f"{name}-{stage}" if name and stage else surroundings.stack_name)
    region = str(provider.get("region") or surroundings.region)
    return msgspec.structs.replace(surroundings, stack_name=str(stack_name), region=region)


def _age(path: Path) -> tuple[Unsupported, ...]:
    """Say so where the service's file has changed since."""
    service = path.parent.parent
    files = [file for suffix in _SOURCES if (file := service / f"serverless.{suffix}").is_file()]
    newer = [file.name for file in files if file.stat().st_mtime > path.stat().st_mtime]
    meaning = "it is older than the service's file: package it again to have the changes here"
    return tuple(Unsupported(logical_id=path.name, type=name, meaning=meaning) for name in newer)
