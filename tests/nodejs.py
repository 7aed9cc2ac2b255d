"""Node.js as the tests run it: the one inside Playwright, so that a machine need not have any, and has a WebSocket."""

from __future__ import annotations

from pathlib import Path

import playwright

NODE = str(Path(playwright.__file__).parent / "driver" / "node")
