"""What all tests share: which of them are fast, so that `make check` can choose; and where tables are."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import hypothesis
import pytest

import loops
from examples import FULL

# `hubbub local` takes DynamoDB Local where it finds it; what tests see must not depend on that. Those that want it
# (dynamolab.py) look for it themselves.
os.environ.setdefault("DYNAMODB_LOCAL", "")

# How long an example takes says how busy the machine is. `make check` asks for the profile of its name.
hypothesis.settings.register_profile("hubbub", deadline=None, max_examples=FULL)
hypothesis.settings.register_profile("check", deadline=None, max_examples=FULL // 10)
hypothesis.settings.load_profile("hubbub")

FAST = ("unit", "contract", "meta")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the other folders unread where only fast tests are asked for: it takes as long as running these."""
    here = Path(__file__).parent
    if config.option.markexpr != "fast" or not collection_path.is_relative_to(here) or collection_path == here:
        return None
    return True if collection_path.relative_to(here).parts[0] not in FAST else None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let the collector pass over fast tests themselves: they stay, and each look at them takes long."""
    if session.config.option.markexpr == "fast":
        gc.collect()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as fast what needs no server, browser or second process: by folder, so that nobody forgets."""
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).parts[0] in FAST and not item.get_closest_marker("slow"):
            item.add_marker("fast")


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, loops.LoopFactory]:
    """The loop that tests run on, where their folder does not choose."""
    return {"asyncio": loops.new_event_loop}
