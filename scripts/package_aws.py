"""Builds the archive that Lambda functions run from: Hubbub and what it needs, as deploy/requirements.txt pins it.

    python scripts/package_aws.py [--python-version 3.13] [--architecture arm64] [--include FOLDER]

Wheels are fetched once into build/wheels and checked against their hashes; after that nothing is fetched. The same
sources give the same bytes. Where an interpreter of the version is found, the archive has compiled modules beside the
sources: Lambda's folder cannot be written to, so every new environment would compile all of them again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "deploy" / "requirements.txt"
SOURCE = ROOT / "src" / "hubbub"

ARCHITECTURES = {"arm64": "aarch64", "x86_64": "x86_64"}
"""Lambda's names of the architectures, and Linux's."""

VERSIONS = ("3.11", "3.12", "3.13", "3.14")

NOT_IN_FUNCTIONS = frozenset(
    {
        *("emulator", "gateway", "listening", "web", "client", "cost", "loadtest", "workers"),
        *("store/postgres", "fanout/nats"),
        *("__main__.py", "app.py", "cli.py", "doctor.py", "management.py", "telemetry.py"),
    }
)
"""What of Hubbub no function imports: servers, nodes, the page, the client, and the command line."""

UNPACKED_LIMIT = 250 * 1024 * 1024
"""The most that an archive may unpack to ("Lambda quotas")."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip archive knows
_GLIBC = {"3.11": 26}  # of Lambda's Python 3.11, on Amazon Linux 2; all later ones are on Amazon Linux 2023
_GLIBC_2023 = 34
_OLDEST_GLIBC = 17

_COMPILE = """
import compileall, py_compile, sys
done = compileall.compile_dir(
    sys.argv[1], quiet=1, workers=1, stripdir=sys.argv[1], prependdir="/var/task",
    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
)
sys.exit(not done)
"""


class PackagingError(Exception):
    """The archive cannot be built; the message says why and what to do."""


class Target(NamedTuple):
    """What an archive is for: `3.13` and `arm64`."""

    python: str
    architecture: str

    @property
    def name(self) -> str:
        """How its files are called."""
        return f"hubbub-{self.architecture}-python{self.python}"

    def platforms(self) -> list[str]:
        """The tags of wheels that run there, the newest first."""
        machine = ARCHITECTURES[self.architecture]
        newest = _GLIBC.get(self.python, _GLIBC_2023)
        tags = [f"manylinux_2_{minor}_{machine}" for minor in range(newest, _OLDEST_GLIBC - 1, -1)]
        return [*tags, f"manylinux2014_{machine}"]


class Built(NamedTuple):
    """An archive: where it is, its sizes in bytes, and those of its parts within it, packed."""

    path: Path
    packed: int
    unpacked: int
    parts: dict[str, int]
    is_compiled: bool
    digest: str


def fetch(target: Target, folder: Path, *, offline: bool = False) -> Path:
    """The folder with a target's wheels; they are downloaded unless they are there for the lock file as it is.

    Raises:
        PackagingError: they are not there, and cannot or may not be downloaded.

    """
    wheels = folder / target.name
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    stamp = wheels / "lock"
    if stamp.is_file() and stamp.read_text() == wanted:
        return wheels
    if offline:
        raise PackagingError(f"expected wheels for {LOCK.name} in {wheels}; run once without --offline")
    partly = wheels.with_name(f"{wheels.name}.{os.getpid()}")
    shutil.rmtree(partly, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--only-binary=:all:", "--implementation", "cp", "--python-version", target.python]
    command += [f"--platform={tag}" for tag in target.platforms()]
    done = subprocess.run([*command, "--dest", partly, "-r", LOCK], capture_output=True, text=True)
    if done.returncode != 0:
        raise PackagingError(f"pip could not download the wheels for {target.name}:\n{done.stderr.strip()}")
    (partly / "lock").write_text(wanted)
    shutil.rmtree(wheels, ignore_errors=True)
    partly.rename(wheels)
    return wheels


def build(target: Target, wheels: Path, output: Path, *, include: Sequence[Path] = ()) -> Built:
    """Build a target's archive in the folder `output`.

    Args:
        target: what it is for.
        wheels: the folder that `fetch` returned.
        output: where it is written, under the target's name.
        include: folders and files of one's own that are added, such as the package with one's own Chat.

    Raises:
        PackagingError: something is not there, cannot be compiled, or is too large.

    """
    folder = output / target.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    for path in folder.rglob("*"):
        if path.suffix in (".pyi", ".pxd", ".c", ".h") and path.is_file():
            path.unlink()  # for compilers and type checkers
    _copy(SOURCE, folder / "hubbub", NOT_IN_FUNCTIONS)
    for own in include:
        if not own.exists():
            raise PackagingError(f"expected a folder or file to include, and there is no {own}")
        _copy(own, folder / own.resolve().name)
    is_compiled = _compile(folder, target)
    path = folder.with_name(f"{target.name}.zip")
    _zip(folder, path)
    unpacked = sum(file.stat().st_size for file in _files(folder))
    shutil.rmtree(folder)
    if unpacked > UNPACKED_LIMIT:
        raise PackagingError(f"expected at most {UNPACKED_LIMIT} bytes, {path.name} unpacks to {unpacked}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Built(path, path.stat().st_size, unpacked, _parts(path), is_compiled, digest)


def _copy(source: Path, target: Path, leaving_out: frozenset[str] = frozenset()) -> None:
    """Copy a folder or a file; of a folder what is named is left out, and whatever is hidden or compiled."""
    if source.is_file():
        shutil.copyfile(source, target)
        return

    def ignored(folder: str, names: list[str]) -> list[str]:
        here = Path(folder).relative_to(source)
        return [
            name
            for name in names
            if (here / name).as_posix() in leaving_out or name == "__pycache__" or name.startswith(".")
        ]

    shutil.copytree(source, target, ignore=ignored)


def _compile(folder: Path, target: Target) -> bool:
    """Compile all modules with an interpreter of the target's version; False where there is none.

    Raises:
        PackagingError: a module cannot be compiled.

    """
    interpreter = _interpreter(target.python)
    if interpreter is None:
        return False
    # Sets among a module's constants are written in the order of their hashes.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [interpreter, "-s", "-P", "-c", _COMPILE, str(folder)],
        env={**environment, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise PackagingError(f"{interpreter} could not compile the modules:\n{(done.stdout + done.stderr).strip()}")
    return True


def _interpreter(version: str) -> str | None:
    """A Python of that version: this one, or one on PATH that is more than a name; None where there is none."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    found = shutil.which(f"python{version}")
    if found is None:
        return None
    asked = subprocess.run(
        [found, "-I", "-c", "import sys; print(*sys.version_info[:2], sep='.')"], capture_output=True
    )
    return found if asked.stdout.decode().strip() == version else None


def _zip(folder: Path, path: Path) -> None:
    """An archive of a folder that is the same whenever and wherever it is made."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in _files(folder):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, whose permissions follow
            entry.external_attr = (0o100755 if file.suffix == ".so" else 0o100644) << 16
            archive.writestr(entry, file.read_bytes())


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*"), key=Path.as_posix) if path.is_file())


def _parts(path: Path) -> dict[str, int]:
    """How much of an archive each package takes, bytes as they are packed."""
    sizes: defaultdict[str, int] = defaultdict(int)
    with zipfile.ZipFile(path) as archive:
        for item in archive.infolist():
            sizes[item.filename.partition("/")[0].partition(".")[0].partition("-")[0]] += item.compress_size
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def report(built: Iterable[Built]) -> str:
    """What people are told: sizes, of the largest parts too."""
    lines = []
    for one in built:
        packed, unpacked = one.packed / 1e6, one.unpacked / 1e6
        compiled = "compiled" if one.is_compiled else "sources alone: there is no such Python here to compile them"
        lines.append(
            f"{one.path.name}: {packed:.1f} MB, unpacked {unpacked:.1f} MB, {compiled}, sha256 {one.digest[:16]}"
        )
        largest = list(one.parts.items())[:6]
        lines.append("  of it " + ", ".join(f"{name} {size / 1e6:.2f}" for name, size in largest) + " MB")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the archives that the command line asks for, and put the chosen one where the templates look for it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python-version", choices=VERSIONS, default="3.13")
    parser.add_argument("--architecture", choices=tuple(ARCHITECTURES), default="arm64", help="of hubbub.zip")
    parser.add_argument("--only", action="store_true", help="build for that architecture alone")
    parser.add_argument("--include", type=Path, action="append", default=[], help="a package of your own")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "aws")
    parser.add_argument("--wheels", type=Path, default=ROOT / "build" / "wheels")
    parser.add_argument("--offline", action="store_true", help="fetch nothing")
    given = parser.parse_args(arguments)
    wanted = [given.architecture] if given.only else list(ARCHITECTURES)
    built = {}
    try:
        for architecture in wanted:
            target = Target(given.python_version, architecture)
            wheels = fetch(target, given.wheels, offline=given.offline)
            built[architecture] = build(target, wheels, given.output, include=given.include)
    except PackagingError as error:
        sys.exit(f"package-aws: {error}")
    shutil.copyfile(built[given.architecture].path, given.output / "hubbub.zip")
    print(report(built.values()))
    chosen = f"PythonVersion={given.python_version} Architecture={given.architecture}"
    print(f"hubbub.zip is the one for {chosen}, which are the templates' parameters.")


if __name__ == "__main__":
    main()
