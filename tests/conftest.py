"""What all tests share: which of them are fast, so that `make check` can choose; and where tables are."""

from __future__ import annotations

import gc
import importlib
import os
from pathlib import Path
from typing import Any

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
    """Let the collector pass over the tests themselves: they stay, and each look at them takes long."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as fast what needs no server, browser or second process: by folder, so that nobody forgets.

    Their folders come last: short files at the end leave no worker without work while another has much.
    """
    items.sort(key=_is_in_fast_folder)
    for item in items:
        if _is_in_fast_folder(item) and not item.get_closest_marker("slow"):
            item.add_marker("fast")


def _is_in_fast_folder(item: pytest.Item) -> bool:
    return item.path.relative_to(Path(__file__).parent).parts[0] in FAST


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep together what shares servers, where files are to be kept together."""
    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return importlib.import_module("scheduling").Scheduling(config, log)


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, loops.LoopFactory]:
    """The loop that tests run on, where their folder does not choose."""
    return {"asyncio": loops.new_event_loop}
