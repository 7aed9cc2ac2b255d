"""The page's modules that touch nothing, under Node's own test runner."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MISSING = "Node.js is missing; install it with: scripts/setup system node   (or: sudo apt-get install nodejs)"
TESTS = sorted((Path(__file__).parent / "modules").glob("*.test.js"))


@pytest.mark.parametrize("file", TESTS, ids=lambda path: path.name)
def test_the_pure_modules_keep_their_promises(file: Path) -> None:
    """Each file of tests passes."""
    node = shutil.which("node")
    if node is None:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    done = subprocess.run([node, "--test", str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
