"""What tests of the deployment share: what osls packages of it, and linters in environments of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from deploylab import DEPLOY, Json
from kept import kept
from oslslab import Package, fetched, packaged_by

CHECKOV = "checkov==3.3.30"
COMPOSE_MODEL = "compose-viz==0.3.5"
"""Has a model of Compose's files that is made from their specification."""

FETCH_WITHIN_S = 170

EMPTY_ARCHIVE = b"PK\x05\x06" + bytes(18)


@pytest.fixture(scope="session")
def osls(request: pytest.FixtureRequest) -> Path:
    """The program."""
    return fetched(request.config)


@pytest.fixture(scope="session")
def package(osls: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """What `osls package` makes of deploy/serverless, with arguments for it; once for each."""
    kept: dict[tuple[str, ...], Json] = {}

    def packaged(*arguments: str) -> Json:
        if arguments not in kept:
            folder = tmp_path_factory.mktemp("service")
            shutil.copytree(DEPLOY, folder / "deploy")
            (folder / "build" / "aws").mkdir(parents=True)
            (folder / "build" / "aws" / "hubbub.zip").write_bytes(EMPTY_ARCHIVE)
            kept[arguments] = packaged_by(osls, folder / "deploy" / "serverless", folder, *arguments)
        return kept[arguments]

    return packaged


def programs(config: pytest.Config, requirement: str) -> Path:
    """The folder of programs of an environment with a package."""
    return kept(config, requirement, partial(_install, requirement)) / "bin"


def _install(requirement: str, folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=FETCH_WITHIN_S)
    command = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
    done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_WITHIN_S)
    if done.returncode != 0:
        pytest.skip(f"NOT CHECKED WITH {requirement}: pip could not fetch it: {done.stderr}")


@pytest.fixture(scope="session")
def checkov(request: pytest.FixtureRequest) -> Path:
    """The program, apart from all else since it pins what others need newer."""
    return programs(request.config, CHECKOV) / "checkov"


@pytest.fixture(scope="session")
def compose_model(request: pytest.FixtureRequest) -> Path:
    """A Python that has a model of Compose's files."""
    return programs(request.config, COMPOSE_MODEL) / "python"
