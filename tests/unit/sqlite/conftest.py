"""A store on a file of its own, with one room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hubbub.store import SqliteStore
from storelab import make_room


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "chat.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    """The store, open."""
    async with SqliteStore(str(path)) as opened:
        await make_room(opened)
        yield opened
