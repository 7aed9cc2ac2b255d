"""What all tests share: which of them are fast, so that `make check` can choose; and where tables are."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

import loops

# `hubbub local` takes DynamoDB Local where it finds it; what tests see must not depend on that. Those that want it
# (dynamolab.py) look for it themselves.
os.environ.setdefault("DYNAMODB_LOCAL", "")

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("hubbub", deadline=None)
hypothesis.settings.load_profile("hubbub")

FAST = ("unit", "contract", "meta")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as fast what needs no server, browser or second process: by folder, so that nobody forgets."""
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).parts[0] in FAST and not item.get_closest_marker("slow"):
            item.add_marker("fast")


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, loops.LoopFactory]:
    """The loop that tests run on, where their folder does not choose."""
    return {"asyncio": loops.new_event_loop}
