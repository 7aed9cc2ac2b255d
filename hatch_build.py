"""Builds the accelerator when Hubbub is installed, where there is a C compiler; without one, nothing is lost but speed.

`HUBBUB_ACCELERATOR=0` leaves it out, `HUBBUB_ACCELERATOR=1` lets the installation fail where it cannot be built.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("src", "hubbub", "gateway")
SOURCES = ("_accelerator.c", "_intake.c")
SPEED = ("-O2", "-fPIC", "-fno-plt") if sys.platform == "linux" else ("-O2", "-fPIC")


class AcceleratorHook(BuildHookInterface[Any]):
    """Compiles it beside its source for an editable installation, and else into the wheel."""

    _folder: tempfile.TemporaryDirectory[str] | None = None  # with what goes into the wheel, until that is made

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile it, and say that the wheel is for this interpreter alone."""
        wanted = os.environ.get("HUBBUB_ACCELERATOR", "")
        if wanted not in ("", "0", "1"):
            raise RuntimeError(f"expected HUBBUB_ACCELERATOR to be 0, 1 or empty, got {wanted!r}")
        if self.target_name != "wheel":
            return
        folder = Path(self.root) / FOLDER
        name = f"_accelerator{sysconfig.get_config_var('EXT_SUFFIX')}"
        if version == "editable":
            built = folder / name
            built.unlink(missing_ok=True)  # or one of an older source would be used where there is no new one
        else:
            self._folder = tempfile.TemporaryDirectory(prefix="hubbub-accelerator-")
            built = Path(self._folder.name, name)
        if wanted == "0":
            return
        problem = compile_module([folder / source for source in SOURCES], built)
        if problem and wanted == "1":
            raise RuntimeError(f"expected to build the accelerator, as HUBBUB_ACCELERATOR=1 says; {problem}")
        if problem:
            self.app.display_warning(f"Hubbub is installed without its accelerator: {problem}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        if version != "editable":
            build_data["force_include"][str(built)] = f"hubbub/gateway/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The wheel is made: nothing of it is left beside it."""
        if self._folder is not None:
            self._folder.cleanup()


def compile_module(sources: Sequence[Path], built: Path) -> str:
    """Compile an extension module of some files; what was wrong, or nothing."""
    headers = sysconfig.get_path("include")
    if not Path(headers, "Python.h").is_file():
        return f"there is no Python.h in {headers}"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    shared = ("-bundle", "-undefined", "dynamic_lookup") if sys.platform == "darwin" else ("-shared",)
    unfinished = built.with_name(f"{built.name}.{os.getpid()}")  # others may build or load it at the same time
    command = [*compiler, *SPEED, *shared, f"-I{headers}", *map(str, sources), "-o", str(unfinished)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode:
            return f"the C compiler has failed: {shlex.join(command)}\n{done.stderr.strip()}"
        unfinished.replace(built)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the C compiler cannot be run, or its work not be kept: {error}"
    finally:
        unfinished.unlink(missing_ok=True)
    return ""
