"""Tests once more, in a process that decides about the accelerator the other way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hubbub.gateway import accelerator

ROOT = Path(__file__).parents[1]


def pass_the_other_way(*tests: str) -> None:
    """These tests pass without the accelerator; or with it, where this process has none.

    This process's way is what they are run with when they are run themselves.
    """
    wanted = "0" if accelerator.is_used() else "1"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env={**os.environ, "HUBBUB_ACCELERATOR": wanted},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
