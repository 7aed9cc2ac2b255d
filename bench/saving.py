"""What a bench leaves behind: its figures with the command, the day and the machine, as a file of `bench/results`.

Documents are made from these files, so a figure that nobody can repeat cannot get into them. A bench that is not told
to save (`--save`) leaves nothing: a try with other sizes does not replace what was measured in earnest.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import msgspec

RESULTS = Path(__file__).parent / "results"

LIBRARIES = ("hubbub", "uvloop", "picows", "msgspec", "asyncpg", "nats-py")
"""Whose versions a figure depends on; those that are not installed are left out."""


class Result(msgspec.Struct):
    """What one run of a bench found.

    Attributes:
        name: of the bench, and of its file.
        command: what to type to measure the same again.
        date: when it ended, ISO 8601, in UTC.
        machine: where: `cpu`, `cores`, `memory_gib`, `kernel`, `python`, the load when it began, and
            versions of libraries.
        figures: what was found, as the bench likes to say it: objects, lists, numbers and text.

    """

    name: str
    command: str
    date: str
    machine: dict[str, Any]
    figures: Any


def machine() -> dict[str, Any]:
    """What this machine is, as far as figures depend on it."""
    found: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": _began_cores,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(_began_load, 2),
    }
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def command() -> str:
    """What was typed to start this process, but for `--save`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    module = spec.name.removesuffix(".__main__") if spec is not None else Path(sys.argv[0]).name
    return " ".join(["python", "-m", module, *(word for word in sys.argv[1:] if word != "--save")])


def save(name: str, figures: object, *, ran: str | None = None, folder: Path = RESULTS) -> Path:
    """Write what a bench found; returns the file.

    Args:
        name: of the bench: letters, digits, `_` and `-`.
        figures: what `Result.figures` is to be; msgspec encodes it, so structs and dataclasses will do.
        ran: the command; None for that of this process.
        folder: where.

    Raises:
        ValueError: the name would not do as that of a file.

    """
    if not name.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"expected a name of letters, digits, '_' and '-', got {name!r}")
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    result = Result(name, ran or command(), now, machine(), figures)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    print(f"saved {path.relative_to(folder.parent.parent) if folder == RESULTS else path}")
    return path


def saved(folder: Path = RESULTS) -> dict[str, Result]:
    """All that was saved, by name."""
    return {path.stem: msgspec.json.decode(path.read_bytes(), type=Result) for path in sorted(folder.glob("*.json"))}


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Let a bench be told to save: `--save`."""
    parser.add_argument("--save", action="store_true", help="leave the figures in bench/results, for the documents")


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"model name", "Model"}:
            return " ".join(value.split())
    return platform.machine()


# As the bench found the machine: later it has pinned itself to a core, and the load is its own.
_began_load = os.getloadavg()[0]
_began_cores = len(os.sched_getaffinity(0))
