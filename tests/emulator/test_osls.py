"""What is compiled here is what osls, the free Serverless Framework, packages; it is fetched from npm."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hubbub.emulator.definition import Surroundings
from hubbub.emulator.template.serverless import PACKAGED, compile_serverless, load_packaged, load_serverless
from oslslab import fetched, packaged_by
from servicelab import SERVICES

LEFT_OUT = re.compile(
    r"ServerlessDeploymentBucket(Policy)?|IamRole\w+|Custom\w+"
    r"|ApiGateway(Deployment|Method|Resource).*|\w+LambdaVersion\w+"
    r"|\w+LambdaPermission(?!Websockets)\w+|\w+EventBridgeLambdaPermission\w+"
)
"""What only concerns deploying, rights or HTTP."""

IGNORED = ("Role", "Code", "Policy", "EndpointConfiguration")


Packaged = Callable[[str], Path]


@pytest.fixture(scope="module")
def packaged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Packaged:
    """The folder of a service that osls has packaged, once for all tests that read it."""
    osls = fetched(request.config)
    return cache(lambda name: package(osls, name, tmp_path_factory.mktemp("osls")))


def package(osls: Path, name: str, folder: Path) -> Path:
    """A copy of a service that osls has packaged, with plugins that do nothing."""
    service = folder / name
    shutil.copytree(SERVICES / name, service)
    for plugin in ("serverless-offline", "serverless-python-requirements"):
        module = service / "node_modules" / plugin
        module.mkdir(parents=True)
        (module / "index.js").write_text("module.exports = class {};")
    packaged_by(osls, service, folder)
    return service


def comparable(template: Any) -> dict[str, Any]:
    """A template's resources, without what is left out on purpose; the deployment's name has a hash in it."""
    text = re.sub(r"WebsocketsDeployment(?!Stage)\w+", "WebsocketsDeployment", json.dumps(template["Resources"]))
    resources: dict[str, Any] = {}
    for logical_id, resource in json.loads(text).items():
        if LEFT_OUT.fullmatch(logical_id):
            continue
        for key in IGNORED:
            resource.get("Properties", {}).pop(key, None)
        if resource.get("DependsOn") == ["IamRoleLambdaExecution"]:
            del resource["DependsOn"]
        resources[logical_id] = resource
    return resources


@pytest.mark.parametrize("name", ["talk", "orders", "board"])
def test_a_service_is_compiled_to_what_osls_packages(packaged: Packaged, name: str) -> None:
    """Functions, environments, routes, integrations, authorizers, stages and sources are the same, id by id."""
    service = packaged(name)
    theirs = json.loads((service / PACKAGED).read_text())
    ours = compile_serverless(next(service.glob("serverless.*")), environment={})
    assert comparable(ours.template) == comparable(theirs)
    for key, output in ours.template["Outputs"].items():
        assert theirs["Outputs"][key] == output
    state = json.loads((service / ".serverless" / "serverless-state.json").read_text())["service"]["provider"]
    assert (ours.stage, ours.region) == (state["stage"], state["region"])


@pytest.mark.parametrize("name", ["talk", "board"])
def test_what_osls_has_packaged_is_the_same_stack(packaged: Packaged, tmp_path: Path, name: str) -> None:
    """A packaged service has the same functions, APIs and resources as its file, its code from the archive."""
    service = packaged(name)
    (tmp_path / "work").mkdir()
    theirs = load_packaged(service, surroundings=Surroundings(), work=tmp_path / "work")
    read = load_serverless(
        next(service.glob("serverless.*")), surroundings=Surroundings(), work=tmp_path / "work", environment={}
    )
    assert theirs.surroundings == read.surroundings
    assert theirs.apis == read.apis
    assert theirs.resources == read.resources
    assert [function.name for function in theirs.functions] == [function.name for function in read.functions]
    for function, other in zip(theirs.functions, read.functions, strict=True):
        assert function.environment == other.environment
        source = f"{function.handler.rpartition('.')[0]}.py"
        assert (function.code / source).read_bytes() == (other.code / source).read_bytes()
