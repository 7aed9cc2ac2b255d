"""Real servers: `node` in this process, `server` as `hubbub serve`, both on a free port with a fresh SQLite file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hubbub.app import Node
from hubbub.config import Settings
from live import SECRET, ServerProcess


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A running node in this process."""
    settings = Settings(port=0, secret=SECRET, data=str(tmp_path))
    async with Node(settings) as running:
        yield running


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """`hubbub serve`, started."""
    process = ServerProcess(tmp_path)
    try:
        await process.start()
        yield process
    finally:
        await process.stop()
