"""serverless.yml, packaged by osls: the same deployment as the SAM template, resource by resource."""

from __future__ import annotations

from typing import Any

import pytest

from deploylab import PER_ROUTE, TEMPLATE, Json, rendered, translated, values
from oslslab import Package

VARIANTS = pytest.mark.parametrize(
    ("path", "arguments"), [(TEMPLATE, ()), (PER_ROUTE, ("--param", "Functions=each"))], ids=["one", "each"]
)

FRAMEWORKS_OWN = {"ServerlessDeploymentBucket", "ServerlessDeploymentBucketPolicy"}
"""Where osls puts the archive; `sam deploy` has such a bucket outside the stack."""

DIFFERENT = {
    "AWS::Lambda::Function": {"Code"},  # where each puts the archive
    "AWS::ApiGatewayV2::Stage": {"AutoDeploy", "DeploymentId", "Description"},  # osls makes deployments itself
}

SAMS_TAG = {"Key": "lambda:createdBy", "Value": "SAM"}


def comparable(template: Json, **parameters: str) -> dict[str, Json]:
    """The resources of a template as far as both must have the same, with parameters replaced by their values."""
    known = values(template, StageName="live", **parameters)
    made = {}
    for name, body in template["Resources"].items():
        left_out = DIFFERENT.get(body["Type"], set())
        properties = {key: value for key, value in body.get("Properties", {}).items() if key not in left_out}
        made[name] = {
            "Type": body["Type"],
            "Condition": body.get("Condition"),
            "DeletionPolicy": body.get("DeletionPolicy"),
            "Properties": as_texts(rendered(properties, known)),
        }
    return made


def as_texts(value: Any) -> Any:
    """Numbers as texts, since a parameter is one; without values that are not there, and without SAM's own tag."""
    if isinstance(value, dict):
        return {key: as_texts(item) for key, item in value.items() if item != "${AWS::NoValue}"}
    if isinstance(value, list):
        return [as_texts(item) for item in value if item != SAMS_TAG]
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


@VARIANTS
def test_osls_packages_what_sam_deploys(package: Package, path: Any, arguments: tuple[str, ...]) -> None:
    """Functions, routes, responses, permissions, policies, alarms and all else are the same in both, id by id."""
    ours, theirs = comparable(translated(path)), comparable(package(*arguments))
    own = {name for name in theirs if name in FRAMEWORKS_OWN or theirs[name]["Type"].endswith("V2::Deployment")}
    assert theirs.keys() - own == ours.keys()
    assert {name: theirs[name] for name in ours} == ours


@VARIANTS
def test_conditions_and_outputs_are_the_same(package: Package, path: Any, arguments: tuple[str, ...]) -> None:
    """What depends on parameters does so in the same way, and the same is told in the end."""
    ours, theirs = translated(path), package(*arguments)
    assert theirs["Conditions"] == ours["Conditions"]
    assert {name: theirs["Outputs"][name] for name in ours["Outputs"]} == ours["Outputs"]


def test_parameters_are_the_same_and_reach_everything(package: Package) -> None:
    """Parameters have the same kinds, bounds and defaults; one that is given to osls is the default that it deploys."""
    ours, theirs = translated(TEMPLATE)["Parameters"], package()["Parameters"]
    assert theirs.keys() == ours.keys()
    for name, body in ours.items():
        assert {**theirs[name], "Default": str(theirs[name]["Default"])} == {**body, "Default": str(body["Default"])}
    changed = package("--param", "Transport=fifo", "--param", "ChatMemory=1024", "--param", "LogRetentionDays=7")
    assert changed["Parameters"]["Transport"]["Default"] == "fifo"
    resources = changed["Resources"]
    assert resources["ChatLambdaFunction"]["Properties"]["MemorySize"] == 1024
    assert resources["ChatLogGroup"]["Properties"]["RetentionInDays"] == 7


def test_the_deployment_of_osls_has_every_route(package: Package) -> None:
    """A deployment is made by osls that waits for all routes and responses, and the stage is of that deployment."""
    resources = package()["Resources"]
    (name,) = [name for name, body in resources.items() if body["Type"] == "AWS::ApiGatewayV2::Deployment"]
    of_clients = {
        name
        for name, body in resources.items()
        if body["Type"] in ("AWS::ApiGatewayV2::Route", "AWS::ApiGatewayV2::RouteResponse")
        and body["Properties"]["ApiId"] == {"Ref": "WebsocketsApi"}
    }
    assert set(resources[name]["DependsOn"]) == of_clients
    assert resources["WebsocketsDeploymentStage"]["Properties"]["DeploymentId"] == {"Ref": name}
