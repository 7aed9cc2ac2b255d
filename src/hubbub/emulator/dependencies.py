"""What functions import and do not bring along: what their package files name, and the AWS SDK of Lambda's Node images.

`sam build` and the plugins of serverless.yml would install the former, and Lambda's images have the latter. Here both
are installed once into a folder of the user's cache and given to functions as layers; what is there already is used.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
from packaging.requirements import InvalidRequirement, Requirement

from hubbub.emulator.children import Child
from hubbub.emulator.definition import Function

INSTALL_WITHIN_S = 600.0
"""How long an installation may take."""

PACKAGE_FILES = ("requirements.txt", "package.json")
"""Where functions name what they need."""

_IN_IMAGE = ("boto3", "botocore")
"""What Lambda's Python images have, and so what need not be installed: ours has it too."""

_IMPORTED = re.compile(
    r"""(?:from|require\(|import\(|import)\s*['"]((?:@aws-sdk/[\w.-]+)|(?:@smithy/[\w.-]+)|aws-sdk)"""
)

_SOURCES = (".js", ".mjs", ".cjs")

_LAST_NODE_WITH_V2 = 16
"""Up to nodejs16.x the images had version 2 of the SDK, since then version 3 (Lambda developer guide, "Node.js")."""


def cache_folder() -> Path:
    """Where installations are kept: `$XDG_CACHE_HOME/hubbub`, by default in the home folder's `.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hubbub"


class Dependencies:
    """Installs what functions need; to be closed at the end.

    Args:
        project: the template's folder, whose `requirements.txt` counts for functions without one of their own.
        interpreter: says which Python runs functions of a runtime.
        say: told what is being installed, and what could not be.
        cache: where to; by default the user's cache.

    """

    def __init__(
        self,
        project: Path,
        *,
        interpreter: Callable[[str], Awaitable[str]],
        say: Callable[[str], None],
        cache: Path | None = None,
    ) -> None:
        self._project = project
        self._interpreter = interpreter
        self._say = say
        self._cache = cache or cache_folder()
        self._made: dict[Path, asyncio.Task[Path | None]] = {}  # installations, by their folder

    def __repr__(self) -> str:
        return f"<Dependencies in {self._cache}>"

    async def close(self) -> None:
        """End what is being installed."""
        for task in self._made.values():
            task.cancel()
        await asyncio.gather(*self._made.values(), return_exceptions=True)

    async def add(self, functions: Sequence[Function]) -> list[Function]:
        """The functions, with layers for what they lack.

        What cannot be installed is told, and the function goes without: its own error will say what it misses.
        """
        return list(await asyncio.gather(*[self._add(function) for function in functions]))

    async def _add(self, function: Function) -> Function:
        layer: Path | None = None
        if function.runtime.startswith("python"):
            layer = await self._python(function)
        elif function.runtime.startswith("nodejs"):
            layer = await self._node(function)
        if layer is None:
            return function
        return msgspec.structs.replace(function, layers=(layer, *function.layers))

    async def _python(self, function: Function) -> Path | None:
        file = next(
            (f for f in (function.code / "requirements.txt", self._project / "requirements.txt") if f.is_file()), None
        )
        if file is None:
            return None
        text = file.read_text(encoding="utf-8", errors="replace")
        interpreter = await self._interpreter(function.runtime)
        if interpreter == sys.executable and not _lacking(text):
            return None
        layer = self._cache / "python" / _digest(interpreter, text)
        what = f"{file} for {function.logical_id}"
        installer = _python_installer(interpreter)
        if installer is None:
            self._say(f"could not install {what}: there is neither pip in {sys.prefix} nor uv")
            return None
        return await self._once(layer, "python", [*installer, "-r", str(file), "--target"], what, file.parent)

    async def _node(self, function: Function) -> Path | None:
        asked = {**dict.fromkeys(_imported(function), "latest"), **_declared(function)}
        wanted = [f"{name}@{asked[name]}" for name in sorted(asked) if not _is_found(name, function.code)]
        if not wanted:
            return None
        what = f"{', '.join(wanted)} for {function.logical_id}"
        npm = shutil.which("npm")
        if npm is None:
            self._say(f"could not install {what}: there is no npm; Debian has it as: apt-get install npm")
            return None
        layer = self._cache / "nodejs" / _digest(*wanted)
        command = [npm, "install", "--silent", "--no-audit", "--no-fund", *wanted, "--prefix"]
        return await self._once(layer, "nodejs", command, what, function.code)

    async def _once(self, layer: Path, part: str, command: list[str], what: str, folder: Path) -> Path | None:
        """Run an installation into a part of a layer, once for all functions and all times; None where it fails.

        The command is given the part's folder as its last argument.
        """
        task = self._made.get(layer)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._install(layer, part, command, what, folder))
            self._made[layer] = task
        return await asyncio.shield(task)

    async def _install(self, layer: Path, part: str, command: list[str], what: str, folder: Path) -> Path | None:
        if layer.is_dir():  # noqa: ASYNC240  one look
            return layer
        self._say(f"installing {what}")
        begun = await asyncio.to_thread(_beside, layer)
        try:
            problem = await _carry_out([*command, str(begun / part)], folder)
            if problem is None:
                await asyncio.to_thread(_put, begun, layer)
        finally:
            await asyncio.to_thread(shutil.rmtree, begun, ignore_errors=True)
        if problem is not None:
            self._say(f"could not install {what}: {problem}")
            return None
        return layer


async def _carry_out(command: list[str], folder: Path) -> str | None:
    """Run a command to its end; None, or what went wrong."""
    child = await Child.start(Path(command[0]).name, command, folder=folder)
    try:
        async with asyncio.timeout(INSTALL_WITHIN_S):
            status = await child.ended()
    except TimeoutError:
        return f"it took longer than {INSTALL_WITHIN_S:g} s\n{child.last_words}"
    finally:
        await child.stop()
    return None if status == 0 else f"{child.name} ended with status {status}\n{child.last_words}"


def _python_installer(interpreter: str) -> list[str] | None:
    """What installs packages for an interpreter, which need not have pip itself; None where nothing does."""
    if importlib.util.find_spec("pip") is not None:
        quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
        return [sys.executable, "-m", "pip", *quiet, "--python", interpreter, "install"]
    uv = shutil.which("uv")
    return None if uv is None else [uv, "pip", "install", "--quiet", "--python", interpreter]


def _beside(layer: Path) -> Path:
    """A new folder beside a layer's, so that nobody sees half of one."""
    layer.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{layer.name}-", dir=layer.parent))


def _put(begun: Path, layer: Path) -> None:
    """Give it its name, unless somebody else was faster."""
    try:
        begun.rename(layer)
    except OSError:
        shutil.rmtree(begun, ignore_errors=True)


def _lacking(text: str) -> list[str]:
    """The lines of a requirements file that this environment does not meet."""
    lines = [line.split(" #")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#") and not _is_met(line)]


def _is_met(line: str) -> bool:
    try:
        wanted = Requirement(line)
    except InvalidRequirement:
        return False  # an option, a path, an address
    if wanted.marker is not None and not wanted.marker.evaluate():
        return True
    if wanted.name.lower() in _IN_IMAGE:
        return True
    if wanted.extras:
        return False  # they may need more
    try:
        return not wanted.url and wanted.specifier.contains(importlib.metadata.version(wanted.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False


def _imported(function: Function) -> set[str]:
    """The packages of the AWS SDK that a function's own files import, as far as its runtime's image has them."""
    version = re.match(r"nodejs(\d+)", function.runtime)
    had_v2 = version is not None and int(version[1]) <= _LAST_NODE_WITH_V2
    names: set[str] = set()
    for folder, folders, files in os.walk(function.code):
        folders[:] = [name for name in folders if name != "node_modules" and not name.startswith(".")]
        for name in files:
            if name.endswith(_SOURCES):
                names.update(_IMPORTED.findall(Path(folder, name).read_text(encoding="utf-8", errors="replace")))
    return {name for name in names if (name == "aws-sdk") is had_v2}


def _declared(function: Function) -> dict[str, str]:
    """What a function's own `package.json` names, but for what is a path in the project."""
    try:
        package = json.loads((function.code / "package.json").read_text(encoding="utf-8"))
        named = {str(name): str(version) for name, version in package.get("dependencies", {}).items()}
    except (OSError, ValueError, AttributeError):
        return {}  # there is none, or npm will have to say what is wrong with it
    return {
        name: version for name, version in named.items() if not version.startswith(("file:", "link:", "workspace:"))
    }


def _is_found(package: str, code: Path) -> bool:
    """Whether Node would find a package from a folder."""
    return any((folder / "node_modules" / package).is_dir() for folder in (code, *code.resolve().parents))


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
