"""Programs that tests fetch: made once for all workers, and kept for the next run."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def kept(config: pytest.Config, requirement: str, make: Callable[[Path], None]) -> Path:
    """The folder of a requirement such as `osls@4.3.1`, which `make` fills where that has not been done.

    A worker waits while another is about it.
    """
    assert config.cache is not None
    folder = Path(config.cache.mkdir("kept")) / requirement
    with folder.with_name(f"{requirement}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / "done").touch()
    return folder
