"""What tests of the emulator share: the loops that they run on, and a folder's worth of function."""

from __future__ import annotations

from pathlib import Path

import pytest
import uvloop
from functionlab import Others, Source

from hubbub.emulator.functions import fleet
from live import BOUND_S
from loops import LoopFactory, new_event_loop

ON_BOTH_LOOPS = ("test_children", "test_environments", "test_listener", "test_pool", "test_proxy")
"""Processes, pipes and sockets directly on the loop: what differs between the loops is there."""


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, LoopFactory]:
    """The loops that a test runs on, one after the other."""
    factories: dict[str, LoopFactory] = {"asyncio": new_event_loop}
    if item.path.stem in ON_BOTH_LOOPS and item.get_closest_marker("parametrize") is None:
        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An invocation waits for the one environment that is coming back, however long a busy machine takes for that.

    Else another would be started now and then, and nobody could say how many there are, and which of them is warm.
    """
    monkeypatch.setattr(fleet, "RETURNS_WITHIN_S", BOUND_S)


@pytest.fixture
def others() -> Others:
    """What ran under this process before the test, and is none of its own."""
    return Others()


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A function's folder, empty."""
    return Source(tmp_path / "code")
