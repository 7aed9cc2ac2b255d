"""Programs in C that benches need, compiled once: where there is a compiler, in a folder that outlives the run."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).parent / "bare"
BUILT = Path(__file__).parent.parent / "build" / "bench"
FLAGS = ("-O2", "-Wall", "-Wextra", "-Wno-format-truncation")


def compiled(name: str, *, into: Path = BUILT) -> Path:
    """The program of `bench/bare/NAME.c`, compiled anew only when its text has changed.

    Raises:
        FileNotFoundError: there is no such source.
        RuntimeError: there is no C compiler, or the program does not compile; the message has what to do.

    """
    source = SOURCES / f"{name}.c"
    text = source.read_bytes()
    program = into / f"{name}-{hashlib.sha256(text + ' '.join(FLAGS).encode()).hexdigest()[:12]}"
    if program.exists():
        return program
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError(f"{source.name} needs a C compiler, and there is no cc here: apt-get install gcc libc6-dev")
    into.mkdir(parents=True, exist_ok=True)
    unfinished = program.with_suffix(".new")
    done = subprocess.run(
        [compiler, *FLAGS, "-o", str(unfinished), str(source)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{source.name} does not compile:\n{done.stderr}")
    return unfinished.rename(program)
