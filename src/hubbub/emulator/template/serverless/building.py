"""Where a function's code is, and what must be done first where it is written in a language that has to be built."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from hubbub.emulator.template.serverless import naming
from hubbub.emulator.template.serverless.document import read_text
from hubbub.emulator.template.serverless.draft import Draft
from hubbub.emulator.template.serverless.expect import section_at, text_at
from hubbub.emulator.template.serverless.service import FunctionEntry, Service

_RUNNABLE = (".js", ".mjs", ".cjs")
_SOURCES = (".ts", ".mts", ".cts", ".tsx", ".jsx")


_MODULE = re.compile(r"^(?:import|export)\b", re.MULTILINE)


class _Builder(NamedTuple):
    """Who builds: the folder that the result is looked for in, and the command that puts it there."""

    folder: str
    command: str


_ESBUILD = "npx esbuild {sources} --bundle --platform=node --outbase=. --outdir={folder}"

_BUILDERS = {
    "serverless-esbuild": _Builder(".esbuild/.build", _ESBUILD),
    "serverless-plugin-typescript": _Builder(".build", "npx tsc --rootDir . --outDir {folder}"),
    "serverless-webpack": _Builder(".webpack/service", _ESBUILD),
    "serverless-bundle": _Builder(".webpack/service", _ESBUILD),
}

_OWN = _Builder(".serverless/build", _ESBUILD)  # version 4 builds by itself


def code_of(service: Service, function: FunctionEntry, handler: str, runtime: str, draft: Draft) -> Path:
    """The folder or archive that a function's handler is found in.

    That is `package.artifact` where it has been made; with serverless-python-requirements the function's `module`; what
    a builder has built, if it has; else the service's folder. What has to be built and is not, is named in the draft
    with the command that builds it.
    """
    logical_id = naming.function_id(function.key)
    package = section_at(function.section, "package")
    if artifact := text_at(package, "artifact") or text_at(service.package, "artifact"):
        if (service.folder / artifact).exists():
            return service.folder / artifact
        meaning = f"there is no {artifact}: the handler is looked for in the service's folder"
        draft.name(logical_id, "package.artifact", meaning)
    module = text_at(function.section, "module")
    if module and (service.folder / module).is_dir():
        return service.folder / module
    return _node_code(service, logical_id, handler, draft) if runtime.startswith("nodejs") else service.folder


def _node_code(service: Service, logical_id: str, handler: str, draft: Draft) -> Path:
    builder = _builder_of(service)
    built = service.folder / builder.folder
    if _file_of(built, handler, _RUNNABLE):
        return built
    source = _file_of(service.folder, handler, _RUNNABLE) or _file_of(service.folder, handler, _SOURCES)
    if source and _has_to_be_built(source, service):
        name = source.relative_to(service.folder)
        meaning = f"{name} has to be built before it can run: {_command(service, builder)}"
        draft.name(logical_id, "AWS::Lambda::Function", meaning)
    return service.folder


def _has_to_be_built(source: Path, service: Service) -> bool:
    """Whether Node.js cannot run a file: TypeScript, or modules that the service leaves to a bundler."""
    if source.suffix in _SOURCES:
        return True
    is_bundled = any(plugin in _BUILDERS for plugin in service.plugins)
    return is_bundled and source.suffix == ".js" and bool(_MODULE.search(read_text(source))) and not _is_module(source)


def _is_module(source: Path) -> bool:
    """Whether the nearest package.json says that `.js` is a module."""
    for folder in source.parents:
        package = folder / "package.json"
        if package.is_file():
            try:
                return bool(json.loads(read_text(package)).get("type") == "module")
            except (ValueError, AttributeError):
                return False
    return False


def _builder_of(service: Service) -> _Builder:
    """Who builds a service's JavaScript."""
    return next((_BUILDERS[plugin] for plugin in service.plugins if plugin in _BUILDERS), _OWN)


def folder_of(service: Service) -> str:
    """Where what has to be built is looked for."""
    return _builder_of(service).folder


def _command(service: Service, builder: _Builder) -> str:
    """The command that builds all of a service's functions."""
    handlers = (text_at(function.section, "handler") for function in service.functions.values())
    found = (_file_of(service.folder, handler, _SOURCES + _RUNNABLE) for handler in handlers if handler)
    sources = {str(source.relative_to(service.folder)): None for source in found if source}
    return builder.command.format(sources=" ".join(sources), folder=builder.folder)


def _file_of(folder: Path, handler: str, suffixes: tuple[str, ...]) -> Path | None:
    """The file of a handler such as `src/app.handler`, with one of these suffixes."""
    directory, _, name = handler.rpartition("/")
    module = folder / directory / name.split(".", 1)[0]
    candidates = (module.with_name(module.name + suffix) for suffix in suffixes)
    return next((candidate for candidate in candidates if candidate.is_file()), None)
