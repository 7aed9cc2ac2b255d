"""The homes that every test here runs in, each started once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from homelab import Home, cluster, laptop, stack, staged
from hubbub.emulator.resources import dynamodb_local


@pytest.fixture(scope="session")
def deploy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is deployed, with the archive that it names, built of the sources as they are."""
    return staged(tmp_path_factory.mktemp("staged"))


@pytest.fixture(scope="session", params=["laptop", "cluster", "sam", "serverless"])
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A chat in one of its homes; `-k laptop` chooses.

    The two on AWS differ in what they may differ in. SAM's has its table on DynamoDB Local, where that is here, and
    hands jobs over by invocations, as is the default; the framework's has it on moto and hands them over by a queue.
    """
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "laptop":
        with laptop(folder) as running:
            yield running
        return
    if request.param == "cluster":
        with cluster(folder) as nodes:
            yield nodes
        return
    deploy: Path = request.getfixturevalue("deploy")
    if request.param == "sam":
        is_there = dynamodb_local.find({name: value for name, value in os.environ.items() if value}) is not None
        tables = "dynamodb-local" if is_there else "moto"
        with stack("home-sam", deploy / "sam" / "template.yaml", folder, tables=tables) as aws:
            yield aws
    else:
        template = deploy / "serverless" / "serverless.yml"
        with stack("home-serverless", template, folder, tables="moto", Transport="queue") as aws:
            yield aws
