"""The JavaScript client's own tests, run by Node: the shared vectors, and its sockets, listeners and loops."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from nodejs import NODE
from vectors import vectors

JS = Path(__file__).resolve().parents[2] / "clients" / "js"


@pytest.mark.slow
def test_the_javascript_tests_pass() -> None:
    """`node --test` runs every vector and every test of the module, and all pass."""
    files = sorted(str(path) for path in (JS / "test").glob("*.test.js"))
    done = subprocess.run(
        [NODE, "--test", "--test-reporter=tap", *files],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=JS,
        check=False,
    )
    counts = {name: int(count) for name, count in re.findall(r"^# (\w+) (\d+)$", done.stdout, re.MULTILINE)}
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert counts["fail"] == counts["skipped"] == counts["cancelled"] == 0
    own = sum(path.read_text().count("\ntest(") for path in (JS / "test").glob("*.test.js"))
    assert own > 0
    assert counts["pass"] == counts["tests"] == len(dict(vectors())) + own
