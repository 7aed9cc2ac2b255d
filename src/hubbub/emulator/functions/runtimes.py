"""How a function's process is started: which interpreter, which variables, what stands for `/opt`.

Nothing can be written to `/opt` here, so layers are merged into a folder of ours, and the paths that runtimes search
lead there: `PYTHONPATH`, `NODE_PATH`, `PATH`, `LD_LIBRARY_PATH`. Code that names `/opt/…` itself does not find it.
Source: docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html and packaging-layers.html.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from hubbub.emulator.definition import Function

BOOTSTRAP = Path(__file__).parent / "bootstrap"
PROBE_BOUND_S = 10.0
"""How long an interpreter may take to say who it is."""

MIN_NODE = 18
SUPPORTED = "python3.x, nodejs18.x and later, and whatever has an executable `bootstrap` in its folder or a layer"

RESERVED = frozenset(
    {
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    }
)
"""What Lambda lets no function define."""

LAMBDAS_PACKAGES = (
    "awslambdaric",
    "boto3",
    "botocore",
    "dateutil",
    "jmespath",
    "s3transfer",
    "simplejson",
    "six",
    "snapshot_restore_py",
    "urllib3",
)
"""What Lambda's Python has: all that another interpreter than ours is given of our packages."""

_PROBE_PYTHON = "import sys, awslambdaric.bootstrap, runtime_client; print(sys.executable)"
_PROBE_NODE = "console.log(process.execPath); console.log(process.versions.node)"


class CannotRun(Exception):
    """A function cannot be run here; the message says why, `error_type` is what its invocations answer."""

    error_type = "Runtime.InvalidEntrypoint"


class UnsupportedRuntime(CannotRun):
    """A function's runtime cannot be run here; the message names it and those that can."""

    error_type = "Runtime.Unsupported"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How a function's process is started.

    Attributes:
        command: the executable and its arguments.
        environment: its variables, but for those of a single environment.
        folder: where it runs.
        warnings: what is not as it would be on AWS.

    """

    command: tuple[str, ...]
    environment: dict[str, str]
    folder: Path
    warnings: tuple[str, ...] = ()


class _Interpreter(msgspec.Struct, frozen=True):
    executable: str
    packages: str | None = None  # the folder with Lambda's packages, for an interpreter that is not ours
    warning: str | None = None


class Runtimes:
    """Finds out how functions are run.

    Args:
        folder: an empty one of ours: layers, homes and packages go into it.
        shared: variables for every function.
        region: where functions are.

    """

    def __init__(self, folder: Path, shared: Mapping[str, str], *, region: str) -> None:
        self._folder = folder
        self._shared = dict(shared)
        self._region = region
        self._pythons: dict[str, asyncio.Task[_Interpreter]] = {}
        self._node: asyncio.Task[tuple[str, int]] | None = None
        self._merged = 0  # how many folders of layers there have been

    async def plan(self, function: Function) -> Plan:
        """How `function` is run, as things are now.

        Raises:
            CannotRun: it cannot be.

        """
        if not await asyncio.to_thread(function.code.is_dir):
            raise CannotRun(f"The folder of function {function.name} does not exist: {function.code}")
        opt = await self._merge(function)
        if re.fullmatch(r"python\d+\.\d+", function.runtime):
            plan = await self._plan_python(function, opt)
        elif re.fullmatch(r"nodejs\d+\.x", function.runtime):
            plan = await self._plan_node(function, opt)
        else:
            plan = self._plan_bootstrap(function, opt)
        return self._finish(function, opt, plan)

    async def interpreter(self, runtime: str) -> str:
        """The Python that runs functions of a Python runtime."""
        return (await self._python(runtime.removeprefix("python"))).executable

    async def close(self) -> None:
        """Stop looking for interpreters."""
        asked = [*self._pythons.values(), *([self._node] if self._node is not None else [])]
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    async def _plan_python(self, function: Function, opt: Path) -> Plan:
        version = function.runtime.removeprefix("python")
        interpreter = await self._python(version)
        path = [
            str(function.code),
            str(opt / "python" / "lib" / f"python{version}" / "site-packages"),
            str(opt / "python"),
            *([function.environment["PYTHONPATH"]] if function.environment.get("PYTHONPATH") else []),
            *([interpreter.packages] if interpreter.packages else []),
        ]
        return Plan(
            command=(interpreter.executable, "-m", "awslambdaric", function.handler),
            # Code is not written to on AWS either, and a file that changes twice within a second is compiled anew.
            environment={"PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1"},
            folder=function.code,
            warnings=(interpreter.warning,) if interpreter.warning else (),
        )

    async def _python(self, version: str) -> _Interpreter:
        """The interpreter of a version; it is looked for once."""
        asked = self._pythons.get(version)
        if asked is None:
            asked = self._pythons[version] = asyncio.create_task(self._find_python(version))
        return await asyncio.shield(asked)

    async def _find_python(self, version: str) -> _Interpreter:
        """The interpreter of a version: ours, one on PATH that can run Lambda's runtime, else ours with a warning."""
        ours = f"{sys.version_info.major}.{sys.version_info.minor}"
        if version == ours:
            return _Interpreter(sys.executable)
        name = f"python{version}"
        found = shutil.which(name)
        if found is None:
            return _Interpreter(sys.executable, warning=f"There is no {name} on PATH: Python {ours} runs it.")
        packages = await asyncio.to_thread(self._link_packages)
        status, said = await _ask([found, "-c", _PROBE_PYTHON], {"PYTHONPATH": packages, "PATH": _path()})
        if status != 0:
            why = f"{found} cannot run AWS's runtime ({_gist(said)}): Python {ours} runs it."
            return _Interpreter(sys.executable, warning=why)
        return _Interpreter(said.strip().splitlines()[-1], packages)

    def _link_packages(self) -> str:
        """A folder with Lambda's packages alone, and the runtime's client in Python: ours is compiled for ours."""
        folder = self._folder / "python"
        folder.mkdir(exist_ok=True)
        for package in LAMBDAS_PACKAGES:
            spec = importlib.util.find_spec(package)
            if spec is None or spec.origin is None:
                continue
            origin = Path(spec.origin)
            source = origin.parent if origin.name == "__init__.py" else origin
            with contextlib.suppress(FileExistsError):
                (folder / source.name).symlink_to(source)
        with contextlib.suppress(FileExistsError):
            (folder / "runtime_client.py").symlink_to(BOOTSTRAP / "runtime_client.py")
        return str(folder)

    async def _plan_node(self, function: Function, opt: Path) -> Plan:
        wanted = int(function.runtime.removeprefix("nodejs").removesuffix(".x"))
        if self._node is None or (self._node.done() and self._node.exception() is not None):
            self._node = asyncio.create_task(_find_node())
        executable, major = await asyncio.shield(self._node)
        path = [
            str(opt / "nodejs" / f"node{wanted}" / "node_modules"),
            str(opt / "nodejs" / "node_modules"),
            *([function.environment["NODE_PATH"]] if function.environment.get("NODE_PATH") else []),
            str(function.code),
        ]
        warning = f"There is no Node.js {wanted}: {executable}, version {major}, runs it."
        return Plan(
            command=(
                executable,
                f"--max-old-space-size={function.memory_mb * 9 // 10}",  # what Lambda gives it
                f"--max-semi-space-size={max(1, function.memory_mb // 20)}",
                str(BOOTSTRAP / "node" / "start.mjs"),
            ),
            environment={"NODE_PATH": os.pathsep.join(path)},
            folder=function.code,
            warnings=() if major == wanted else (warning,),
        )

    def _plan_bootstrap(self, function: Function, opt: Path) -> Plan:
        candidates = [function.code / "bootstrap", opt / "bootstrap"]
        found = next((path for path in candidates if path.is_file()), None)
        if found is None and function.runtime.startswith("provided"):
            raise CannotRun(f"Couldn't find valid bootstrap(s): [{' '.join(map(str, candidates))}]")
        if found is None:
            words = f"The runtime {function.runtime!r} of function {function.name} is not supported here"
            raise UnsupportedRuntime(f"{words}; these are: {SUPPORTED}.")
        if not os.access(found, os.X_OK):
            raise CannotRun(f"{found} is not executable: `chmod +x` it")
        return Plan(command=(str(found),), environment={}, folder=function.code)

    def _finish(self, function: Function, opt: Path, plan: Plan) -> Plan:
        """The plan with all that is the same for every runtime."""
        command, warnings = plan.command, list(plan.warnings)
        reserved = sorted(RESERVED & function.environment.keys())
        if reserved:
            warnings.append(f"Lambda reserves these variables, and a function may not set them: {', '.join(reserved)}.")
        if (opt / "extensions").is_dir():
            warnings.append("A layer has extensions, which are not run here.")
        wrapper = function.environment.get("AWS_LAMBDA_EXEC_WRAPPER", "")
        if wrapper:
            command = (re.sub(r"^/opt(?=/)", str(opt), wrapper), *command)
        own = {name: value for name, value in function.environment.items() if name not in RESERVED}
        environment = self._surroundings(function, opt) | self._shared | own | plan.environment | self._facts(function)
        if not function.runtime.startswith("provided"):
            environment["AWS_EXECUTION_ENV"] = f"AWS_Lambda_{function.runtime}"
        return Plan(command=command, environment=environment, folder=plan.folder, warnings=tuple(warnings))

    def _surroundings(self, function: Function, opt: Path) -> dict[str, str]:
        """What a process needs of this machine, and nothing of who works at it: no profile, no credentials."""
        libraries = [str(function.code), str(function.code / "lib"), str(opt / "lib")]
        kept = {name: os.environ[name] for name in ("PYENV_ROOT",) if name in os.environ}
        return kept | {
            "PATH": os.pathsep.join([str(opt / "bin"), _path()]),
            "LD_LIBRARY_PATH": os.pathsep.join([*libraries, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]),
            "HOME": str(self._folder / "home"),
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
            "AWS_LAMBDA_LOG_FORMAT": "Text",
        }

    def _facts(self, function: Function) -> dict[str, str]:
        """What Lambda says of itself and of the function."""
        return {
            "_HANDLER": function.handler,
            "AWS_REGION": self._region,
            "AWS_DEFAULT_REGION": self._region,
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
            "LAMBDA_TASK_ROOT": str(function.code),
            "LAMBDA_RUNTIME_DIR": str(BOOTSTRAP),
        }

    async def _merge(self, function: Function) -> Path:
        """The folder that is `/opt` for a function: its layers over each other, files linked where that is possible.

        Raises:
            CannotRun: a layer's folder does not exist.

        """
        for layer in function.layers:
            if not await asyncio.to_thread(layer.is_dir):
                raise CannotRun(f"The folder of a layer of function {function.name} does not exist: {layer}")
        if len(function.layers) == 1:
            return function.layers[0]
        self._merged += 1
        opt = self._folder / "opt" / str(self._merged)
        try:
            await asyncio.to_thread(_lay_over, opt, function.layers)
        except OSError as error:
            raise CannotRun(f"The layers of function {function.name} cannot be merged: {error}") from error
        return opt


def _lay_over(folder: Path, layers: Sequence[Path]) -> None:
    """Merge layers into a new folder; what a later one has stands in for what an earlier one had there."""
    folder.mkdir(parents=True)
    for layer in layers:
        for root, folders, files in os.walk(layer):
            target = folder / Path(root).relative_to(layer)
            if not target.is_dir() or target.is_symlink():
                _remove(target)
                target.mkdir()
            for name in [*files, *(name for name in folders if os.path.islink(Path(root, name)))]:  # noqa: PTH114  a name
                _remove(target / name)
                _link_or_copy(Path(root, name), target / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _link_or_copy(source: Path, target: Path) -> None:
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)  # another file system


async def _find_node() -> tuple[str, int]:
    """The `node` on PATH itself, not what may stand in for it there, and its major version.

    Raises:
        CannotRun: there is none, or it is too old.

    """
    found = shutil.which("node")
    if found is None:
        raise CannotRun("There is no `node` on PATH: Node.js functions need Node.js 18 or later.")
    status, said = await _ask([found, "-e", _PROBE_NODE], dict(os.environ))
    lines = said.split()
    if status != 0 or len(lines) < 2:
        raise CannotRun(f"{found} does not run: {_gist(said)}")
    executable, version = lines[-2:]
    major = int(version.partition(".")[0])
    if major < MIN_NODE:
        raise CannotRun(f"{executable} is Node.js {version}: functions need {MIN_NODE} or later.")
    return executable, major


async def _ask(command: Sequence[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command to its end: its status and what it printed."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd="/",  # where no module of anybody's stands in for another
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        return 1, str(error)
    try:
        async with asyncio.timeout(PROBE_BOUND_S):
            said, _ = await process.communicate()
    except TimeoutError:
        return 1, f"no answer within {PROBE_BOUND_S:g} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, said.decode(errors="replace")


def _gist(said: str) -> str:
    """The line of a failure's output that says what it is: a traceback's last, else the first."""
    lines = said.strip().splitlines() or ["it says nothing"]
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


def _path() -> str:
    return os.environ.get("PATH", os.defpath)
