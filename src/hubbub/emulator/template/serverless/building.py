"""Where a function's code is, and what must be done first where it is written in a language that has to be built."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from hubbub.emulator.template.serverless import naming
from hubbub.emulator.template.serverless.draft import Draft
from hubbub.emulator.template.serverless.expect import section_at, text_at
from hubbub.emulator.template.serverless.service import FunctionEntry, Service

_RUNNABLE = (".js", ".mjs", ".cjs")
_SOURCES = (".ts", ".mts", ".cts", ".tsx", ".jsx")


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

    That is `package.artifact` where there is one; with serverless-python-requirements the function's `module`; for
    TypeScript the folder it is built to, if it has been built; else the service's folder. TypeScript that has not been
    built is named in the draft, with the command that builds it.
    """
    package = section_at(function.section, "package")
    if artifact := text_at(package, "artifact") or text_at(service.package, "artifact"):
        return service.folder / artifact
    module = text_at(function.section, "module")
    if module and (service.folder / module).is_dir():
        return service.folder / module
    if not runtime.startswith("nodejs") or _file_of(service.folder, handler, _RUNNABLE):
        return service.folder
    builder = builder_of(service)
    built = service.folder / builder.folder
    if _file_of(built, handler, _RUNNABLE):
        return built
    if source := _file_of(service.folder, handler, _SOURCES):
        draft.name(
            naming.function_id(function.key),
            "AWS::Lambda::Function",
            f"{source.relative_to(service.folder)} has to be built before it can run: {_command(service, builder)}",
        )
    return service.folder


def builder_of(service: Service) -> _Builder:
    """Who builds a service's JavaScript."""
    return next((_BUILDERS[plugin] for plugin in service.plugins if plugin in _BUILDERS), _OWN)


def _command(service: Service, builder: _Builder) -> str:
    """The command that builds all of a service's functions."""
    handlers = (text_at(function.section, "handler") for function in service.functions.values())
    found = (_file_of(service.folder, handler, _SOURCES) for handler in handlers if handler)
    sources = {str(source.relative_to(service.folder)): None for source in found if source}
    return builder.command.format(sources=" ".join(sources), folder=builder.folder)


def _file_of(folder: Path, handler: str, suffixes: tuple[str, ...]) -> Path | None:
    """The file of a handler such as `src/app.handler`, with one of these suffixes."""
    directory, _, name = handler.rpartition("/")
    module = folder / directory / name.split(".", 1)[0]
    candidates = (module.with_name(module.name + suffix) for suffix in suffixes)
    return next((candidate for candidate in candidates if candidate.is_file()), None)
