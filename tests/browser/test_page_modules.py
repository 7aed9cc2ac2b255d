"""The page's modules that touch nothing, under Node's own test runner."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nodejs import NODE

TESTS = sorted((Path(__file__).parent / "modules").glob("*.test.js"))


@pytest.mark.parametrize("file", TESTS, ids=lambda path: path.name)
def test_the_pure_modules_keep_their_promises(file: Path) -> None:
    """Each file of tests passes."""
    done = subprocess.run([NODE, "--test", str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
