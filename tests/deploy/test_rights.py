"""What functions may: what they do, on what is theirs, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from deploylab import PER_ROUTE, ROOT, TEMPLATE, Json, listed, of_type, rendered, statements, translated
from oslslab import Package

EXCEPTED = {
    "CKV_AWS_27": "queues are encrypted with SQS's own key, which the check does not know",
    "CKV_AWS_115": "reserved concurrency is taken from all others, and new accounts have too little of it",
    "CKV_AWS_116": "the one function that is invoked asynchronously has an on-failure destination",
    "CKV_AWS_117": "functions call AWS's APIs alone: in a VPC they would need an endpoint for each",
    "CKV_AWS_119": "the table is encrypted with DynamoDB's own key; one of yours costs for every request",
    "CKV_AWS_149": "likewise the secret, with Secrets Manager's",
    "CKV_AWS_158": "likewise logs, with CloudWatch's",
    "CKV_AWS_173": "variables hold names and addresses; the secret is read from where it is kept",
}
"""The rules of checkov that a deployment does not follow, and why."""

FRAMEWORKS = {"CKV_AWS_18", "CKV_AWS_21", "CKV_AWS_53", "CKV_AWS_54", "CKV_AWS_55", "CKV_AWS_56"}
"""Rules about the bucket that osls makes for archives, which is not ours."""

WITHOUT_ARNS = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
"""Actions for which AWS knows no resource ("Service Authorization Reference")."""

NEEDED = {"TransactWriteItems": {"PutItem", "UpdateItem", "DeleteItem", "ConditionCheckItem"}}
"""What an operation of DynamoDB needs the right for, where that is not its own name."""

TABLES_OWN = {"CreateTable", "DeleteTable", "DescribeTable", "DescribeTimeToLive", "UpdateTimeToLive"}
"""Operations that tests and tools ask for, and no function: the stack makes the table."""


def roles_of(template: Json) -> dict[str, set[str]]:
    """The actions that each role is allowed."""
    allowed: defaultdict[str, set[str]] = defaultdict(set)
    for name, statement in statements(template):
        roles = [role["Ref"] for role in template["Resources"][name]["Properties"].get("Roles", [{"Ref": name}])]
        for role in roles:
            allowed[role] |= set(listed(statement["Action"]))
    return allowed


@pytest.mark.parametrize("path", [TEMPLATE, PER_ROUTE], ids=lambda path: path.stem)
def test_rights_are_for_named_actions_on_named_resources(path: Path) -> None:
    """No policy has a wildcard for actions, or for whole resources but where AWS knows no smaller ones."""
    found = list(statements(translated(path)))
    assert len(found) >= 15
    for name, statement in found:
        actions = set(listed(statement["Action"]))
        assert not [action for action in actions if "*" in action], name
        for resource in listed(statement["Resource"]):
            if resource == "*":
                assert actions <= WITHOUT_ARNS, name
            text = json.dumps(rendered(resource, {}))
            assert "*" not in re.sub(r"/@connections/\*|-chat-\*", "", text) or actions <= WITHOUT_ARNS, (
                f"{name}: {text}"
            )


def test_functions_may_do_what_the_code_does() -> None:
    """Every operation that Hubbub's table asks of DynamoDB is allowed to those who have it, and no others are."""
    source = (ROOT / "src" / "hubbub" / "aws" / "table.py").read_text()
    operations = set(re.findall(r'_(?:call|batches)\(\s*"(\w+)"', source))
    assert {"Query", "TransactWriteItems", "BatchGetItem"} <= operations
    needed: set[str] = set().union(*(NEEDED.get(operation, {operation}) for operation in operations - TABLES_OWN))
    template = translated(TEMPLATE)
    for role in ("ChatRole", "BroadcasterRole", "SweeperRole", "BackendRole"):
        allowed = {action.partition(":")[2] for action in roles_of(template)[role] if action.startswith("dynamodb:")}
        assert allowed == needed, role


def test_connections_are_posted_to_and_closed_and_nothing_else() -> None:
    """The rights on `@connections` are those of the calls that the code makes."""
    sources = [path.read_text() for path in (ROOT / "src" / "hubbub").rglob("*.py")]
    looks = any(".look(" in source for source in sources)  # whether anybody asks if a connection is there
    needed = {"POST", "DELETE"} | ({"GET"} if looks else set())
    allowed = [
        resource
        for _, statement in statements(translated(TEMPLATE))
        for resource in listed(statement["Resource"])
        if statement["Action"] == "execute-api:ManageConnections"
    ]
    methods = {re.findall(r"/([A-Z]+)/@connections", rendered(resource, {}))[0] for resource in allowed}
    assert methods == needed


def test_each_function_may_do_its_own_work_alone() -> None:
    """The authorizer reads the secret and no more; the broadcaster and the sweeper do not read it."""
    allowed = roles_of(translated(TEMPLATE))
    log = {"logs:CreateLogStream", "logs:PutLogEvents"}
    traces = WITHOUT_ARNS
    secret = {"ssm:GetParameter", "secretsmanager:GetSecretValue", "kms:Decrypt"}
    own_chats = {"dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query"}
    assert allowed["AuthorizerRole"] == log | traces | secret | own_chats
    assert not secret & (allowed["BroadcasterRole"] | allowed["SweeperRole"])
    assert {"sqs:ReceiveMessage", "sqs:DeleteMessage"} <= allowed["BroadcasterRole"]
    for role in ("ChatRole", "SweeperRole", "BackendRole"):
        assert "sqs:ReceiveMessage" not in allowed[role]


def test_every_role_is_one_functions() -> None:
    """Each function has a role of its own, which only Lambda can take."""
    template = translated(TEMPLATE)
    roles = [
        body["Properties"]["Role"]["Fn::GetAtt"][0] for body in of_type(template, "AWS::Lambda::Function").values()
    ]
    assert len(set(roles)) == len(roles) == 5
    for role in roles:
        (statement,) = template["Resources"][role]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Principal"] == {"Service": "lambda.amazonaws.com"}


def test_functions_can_be_invoked_by_what_invokes_them_alone() -> None:
    """Each permission names the API, authorizer or rule that it is for."""
    template = translated(TEMPLATE)
    permissions = of_type(template, "AWS::Lambda::Permission")
    assert len(permissions) == 4
    for name, body in permissions.items():
        source = rendered(body["Properties"]["SourceArn"], {})
        assert re.search(r"\$\{(WebsocketsApi|HttpApi|SweeperEventsRuleSchedule1)[.}]", source), name
        assert not source.endswith(("Api}/*", ":*")), name


def checked(checkov: Path, path: Path) -> dict[str, set[str]]:
    """The rules that a template breaks, and the resources that do."""
    command = [checkov, "--file", path, "--framework", "cloudformation", "--output", "json", "--skip-download"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    report: Any = json.loads(done.stdout)
    assert report["summary"]["passed"] > 50
    broken: defaultdict[str, set[str]] = defaultdict(set)
    for failed in report["results"]["failed_checks"]:
        broken[failed["check_id"]].add(failed["resource"])
    return broken


@pytest.mark.timeout(420)
def test_checkov_finds_what_is_excepted_and_nothing_else(checkov: Path, package: Package, tmp_path: Path) -> None:
    """The rules of checkov hold for SAM and osls, but for those that are excepted, each with its reason."""
    assert checked(checkov, TEMPLATE).keys() == EXCEPTED.keys()
    packaged = tmp_path / "packaged.json"
    packaged.write_text(json.dumps(package()))
    broken = checked(checkov, packaged)
    assert broken.keys() == EXCEPTED.keys() | FRAMEWORKS
    for rule in FRAMEWORKS:
        assert broken[rule] == {"AWS::S3::Bucket.ServerlessDeploymentBucket"}
