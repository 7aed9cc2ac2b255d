"""What functions import and do not bring along: what their package files name, and the AWS SDK of Lambda's Node images.

`sam build` and the plugins of serverless.yml would install the former, and Lambda's images have the latter. Here both
are installed once into a folder of the user's cache and given to functions as layers; what is there already is used.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from packaging.requirements import InvalidRequirement, Requirement

from hubbub.emulator.definition import Function

INSTALL_WITHIN_S = 600.0
"""How long an installation may take."""

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
    """Installs what functions need.

    Args:
        project: the template's folder, whose `requirements.txt` counts for functions without one of their own.
        say: told what is being installed, and what could not be.
        cache: where to; by default the user's cache.

    """

    def __init__(self, project: Path, *, say: Callable[[str], None], cache: Path | None = None) -> None:
        self._project = project
        self._say = say
        self._cache = cache or cache_folder()
        self._made: dict[Path, asyncio.Task[Path | None]] = {}  # installations, by their folder

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
        text = file.read_text(encoding="utf-8")
        version = function.runtime.removeprefix("python")
        mine = f"{sys.version_info.major}.{sys.version_info.minor}"
        found = shutil.which(function.runtime)
        if version == mine or found is None:
            if not _lacking(text):
                return None
            found, version = sys.executable, mine
        layer = self._cache / "python" / _digest(version, text)
        pip = [found, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-script-location"]
        command = [*pip, "--requirement", str(file), "--target"]
        return await self._once(layer, "python", command, f"{file} for {function.logical_id}", file.parent)

    async def _node(self, function: Function) -> Path | None:
        asked = {**dict.fromkeys(_imported(function), "latest"), **_declared(function)}
        wanted = [f"{name}@{asked[name]}" for name in sorted(asked) if not _is_found(name, function.code)]
        npm = shutil.which("npm")
        if not wanted:
            return None
        if npm is None:
            self._say(f"{function.logical_id} needs {', '.join(wanted)}, and there is no npm here to install it")
            return None
        layer = self._cache / "nodejs" / _digest(*wanted)
        command = [npm, "install", "--silent", "--no-audit", "--no-fund", *wanted, "--prefix"]
        return await self._once(
            layer, "nodejs", command, f"{', '.join(wanted)} for {function.logical_id}", function.code
        )

    async def _once(self, layer: Path, part: str, command: list[str], what: str, cwd: Path) -> Path | None:
        """Run an installation into a part of a layer, once for all functions and all times; None where it fails.

        The command is given the folder as its last argument.
        """
        task = self._made.get(layer)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._install(layer, part, command, what, cwd))
            self._made[layer] = task
        return await asyncio.shield(task)

    async def _install(self, layer: Path, part: str, command: list[str], what: str, cwd: Path) -> Path | None:
        if layer.is_dir():  # noqa: ASYNC240  one look
            return layer
        self._say(f"installing {what}")
        begun = await asyncio.to_thread(_beside, layer)
        process = await asyncio.create_subprocess_exec(
            *command,
            str(begun / part),
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), INSTALL_WITHIN_S)
        except BaseException as error:
            process.kill()
            await process.wait()
            if not isinstance(error, TimeoutError):
                raise
            output = f"it took longer than {INSTALL_WITHIN_S:g} s".encode()
        if process.returncode != 0:
            self._say(f"could not install {what}:\n{output.decode(errors='replace').strip()}")
            await asyncio.to_thread(shutil.rmtree, begun, ignore_errors=True)
            return None
        await asyncio.to_thread(_put, begun, layer)
        return layer


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
