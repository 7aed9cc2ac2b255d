"""Benches: every figure that the documents quote, with the command that makes it. Tables and doubles are the tests'."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))
