"""What `osls package` (or `serverless package`) has left in `.serverless`, run as it is: template and archives.

For services that are programs (serverless.ts), or whose plugins change them, this is exactly what would be deployed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from hubbub.emulator.definition import Stack, Surroundings, Unsupported
from hubbub.emulator.template.source import Value, read_document
from hubbub.emulator.template.stack import stack_from_template

PACKAGED = Path(".serverless") / "cloudformation-template-update-stack.json"
"""Where the framework puts the template, in the service's folder."""

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
    declared = template.get("Parameters") or {}
    service = _named(surroundings, _state(path.parent / _STATE))
    stack = stack_from_template(
        template,
        path=path,
        language="serverless",
        surroundings=service,
        work=work,
        parameters={key: value for key, value in (parameters or {}).items() if key in declared},
        code=_archives(template, path.parent),
        unsupported=_age(path),
    )
    return msgspec.structs.replace(stack, surroundings=service)


def _archives(template: Mapping[str, Value], folder: Path) -> dict[str, Path]:
    """The archives of functions and layers; the service's own folder where there is none."""
    code: dict[str, Path] = {}
    for logical_id, resource in (template.get("Resources") or {}).items():
        holder = {"AWS::Lambda::Function": "Code", "AWS::Lambda::LayerVersion": "Content"}.get(resource.get("Type"))
        key = (resource.get("Properties") or {}).get(holder, {}).get("S3Key") if holder else None
        if isinstance(key, str):
            archive = folder / key.rsplit("/", 1)[-1]
            code[logical_id] = archive if archive.is_file() else folder.parent
    return code


def _state(path: Path) -> dict[str, Any]:  # Any: the framework's own
    """What the framework has noted of the service; nothing where it is missing."""
    try:
        service = json.loads(path.read_text(encoding="utf-8")).get("service")
    except (OSError, ValueError):
        return {}
    return service if isinstance(service, dict) else {}


def _named(surroundings: Surroundings, state: Mapping[str, Any]) -> Surroundings:  # Any: the framework's own
    provider = state.get("provider")
    provider = provider if isinstance(provider, dict) else {}
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
