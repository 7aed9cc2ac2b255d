"""What peers need to run: an environment of Python for each, one of Node.js, a Go program, packages of Debian.

Everything is below `build/peers`, at the versions that `requirements/*.txt` and `node/package-lock.json` pin. What was
installed stays until its pins change. Whatever cannot be had makes its peers `Unavailable`, and no others.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "peers"

CENTRIFUGO = ("github.com/centrifugal/centrifugo/v6", "v6.9.1")
"""The Go module and its version."""

WITHIN_S = 1_800.0
"""How long one step of an installation may take."""


class Unavailable(Exception):
    """A peer cannot run on this machine; the message says why."""


def python(name: str) -> Path:
    """The environment with the packages of `requirements/NAME.txt`; returns its folder of programs.

    Raises:
        Unavailable: they do not install.

    """
    pins = HERE / "requirements" / f"{name}.txt"
    folder = BUILD / name
    programs = folder / "bin"
    if _is_fresh(folder, pins):
        return programs
    _say(f"{name}: installing {pins.name}")
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    _run([str(programs / "pip"), "install", "-q", "--disable-pip-version-check", "--require-hashes", "-r", str(pins)])
    _mark(folder, pins)
    return programs


def node() -> Path:
    """The folder with the programs for Node.js and the packages of `node/package-lock.json`.

    Raises:
        Unavailable: there is no Node.js, or they do not install.

    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Unavailable("there is no Node.js with npm here: scripts/setup system nodejs npm")
    pins = HERE / "node" / "package-lock.json"
    folder = BUILD / "node"
    if not _is_fresh(folder, pins):
        _say(f"node: installing {pins.name}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(HERE / "node" / name, folder)
        _run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder)
        _mark(folder, pins)
    for program in (HERE / "node").glob("*.js"):  # beside node_modules, or their imports are not found
        shutil.copy(program, folder)
    shutil.copytree(HERE / "apps" / "apigateway", folder / "apigateway", dirs_exist_ok=True)
    return folder


def centrifugo() -> Path:
    """The program, built from its Go module.

    Raises:
        Unavailable: there is no Go, or it does not build.

    """
    module, version = CENTRIFUGO
    program = BUILD / f"centrifugo-{version}" / "centrifugo"
    if not program.exists():
        if shutil.which("go") is None:
            raise Unavailable("there is no Go here, of which Centrifugo is built: https://go.dev/dl")
        _say(f"centrifugo: building {module} {version}, some minutes")
        environment = {**os.environ, "GOBIN": str(program.parent), "CGO_ENABLED": "0"}
        _run(["go", "install", f"{module}@{version}"], environment=environment)
    return program


def redis() -> str:
    """The program of Debian's Redis.

    Raises:
        Unavailable: it is not here and cannot be installed.

    """
    if shutil.which("redis-server") is None:
        _say("redis: installing Debian's redis-server")
        _run([str(ROOT / "scripts" / "setup"), "system", "redis-server"])
    found = shutil.which("redis-server")
    if found is None:
        raise Unavailable("there is no redis-server here: scripts/setup system redis-server")
    return found


def pinned(name: str, packages: Sequence[str]) -> dict[str, str]:
    """The versions of packages that an environment of Python has, or `node`."""
    if name == "node":
        lock = msgspec.json.decode((HERE / "node" / "package-lock.json").read_bytes())
        return {package: lock["packages"][f"node_modules/{package}"]["version"] for package in packages}
    lines = (HERE / "requirements" / f"{name}.txt").read_text()
    versions = dict(re.findall(r"^([\w.-]+)==([\w.]+)", lines, re.MULTILINE))
    return {package: versions[package] for package in packages}


def version_of(program: str) -> str:
    """What a program of this machine says that its version is; empty when it says none.

    Raises:
        Unavailable: it is not here.

    """
    said = _run([program, "--version"])
    found = re.search(r"\bv?=?(\d+(?:\.\d+)+)", said)
    return found[1] if found else ""


def _say(what: str) -> None:
    print(what, flush=True)


def _is_fresh(folder: Path, pins: Path) -> bool:
    stamp = folder / ".pins"
    return stamp.exists() and stamp.read_text() == _digest(pins)


def _mark(folder: Path, pins: Path) -> None:
    (folder / ".pins").write_text(_digest(pins))


def _digest(pins: Path) -> str:
    return hashlib.sha256(pins.read_bytes()).hexdigest()


def _run(command: Sequence[str], *, cwd: Path = ROOT, environment: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=WITHIN_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]}: {error}") from error
    if done.returncode:
        raise Unavailable(f"{' '.join(command[:3])} failed: {(done.stderr or done.stdout).strip()[-600:]}")
    return done.stdout
