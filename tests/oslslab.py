"""osls, the free Serverless Framework, as tests run it: fetched from npm, on services without plugins."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hubbub.emulator.template.serverless import PACKAGED
from kept import kept

OSLS = "osls@4.3.1"

Package = Callable[..., dict[str, Any]]
"""What `osls package` makes of a service, with arguments for it."""

FETCH_WITHIN_S = 150
PACKAGE_WITHIN_S = 60

ENVIRONMENT = {"PATH": os.environ["PATH"], "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}


def fetched(config: pytest.Config) -> Path:
    """The program; without npm, or where npm cannot fetch it, the test is skipped."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("NOT COMPARED WITH osls: there is no npm on this machine")
    return kept(config, OSLS, partial(_install, npm)) / "node_modules" / ".bin" / "osls"


def _install(npm: str, folder: Path) -> None:
    environment = {**os.environ, "npm_config_cache": str(folder / "cache"), "npm_config_update_notifier": "false"}
    command = [npm, "install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", OSLS]
    (folder / "package.json").write_text("{}")
    try:
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=FETCH_WITHIN_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"NOT COMPARED WITH osls: npm could not fetch it: {error}: {error.stderr!r}")


def packaged_by(osls: Path, service: Path, home: Path, *arguments: str) -> dict[str, Any]:
    """The template that `osls package` makes of the service in a folder; `home` is for what it keeps."""
    environment = {**ENVIRONMENT, "HOME": str(home)}
    command = [str(osls), "package", *arguments]
    done = subprocess.run(
        command, cwd=service, env=environment, capture_output=True, text=True, timeout=PACKAGE_WITHIN_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    template: dict[str, Any] = json.loads((service / PACKAGED).read_text())
    return template
