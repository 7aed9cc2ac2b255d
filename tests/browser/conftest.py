"""Debian's Chromium on a real server: `visit` opens the page for one person after the other, and looks for errors."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright
from visitor import Visit, Visitor

from live import ServerProcess

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MISSING = "Chromium is missing; install it with: scripts/setup system chromium   (or: sudo apt-get install chromium)"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium, once for all tests. Where tests are the last word, its absence is a failure."""
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield chromium
        finally:
            await chromium.close()


@pytest_asyncio.fixture(loop_scope="session")
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """`hubbub serve --dev` on an empty folder, with no limit on how fast a test may talk, and strict about time."""
    fast = {f"HUBBUB_{name}": "100000" for name in ("RATE", "BURST", "USER_RATE", "USER_BURST")}
    process = ServerProcess(tmp_path, "--dev", HUBBUB_PRESENCE_GRACE_S="0.2", HUBBUB_LEEWAY_S="0", **fast)
    try:
        await process.start()
        yield process
    finally:
        await process.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser, server: ServerProcess) -> AsyncIterator[Visit]:
    """Let people in: by name, or only to the door.

    Afterwards no page may have met an error or a violation of its content policy.
    """
    visitors: list[Visitor] = []

    async def visit(name: str | None = None, *, url: str | None = None, **options: Any) -> Visitor:
        visitor = await Visitor.open(browser, url or server.url, **options)
        visitors.append(visitor)
        if name is not None:
            await visitor.enter(name)
        return visitor

    try:
        yield visit
        for visitor in visitors:
            await visitor.verify()
    finally:
        for visitor in visitors:
            await visitor.context.close()
