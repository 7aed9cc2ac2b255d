"""serverless.yml, and what the framework has packaged, become stacks like any other template."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hubbub.emulator.definition import RequestAuthorizer, Surroundings
from hubbub.emulator.template import TemplateError, load
from hubbub.emulator.template.serverless import PACKAGED, load_packaged, load_serverless
from servicelab import HEAD, SERVICES, write_service

TALK = SERVICES / "talk" / "serverless.yml"


def test_a_service_becomes_a_stack(tmp_path: Path) -> None:
    """Its functions, routes, authorizer and table are there, under its own stack name and region."""
    stack = load_serverless(TALK, surroundings=Surroundings(), work=tmp_path, environment={})
    (api,) = stack.apis
    routes = {route.key: route for route in api.routes}
    assert (stack.surroundings.stack_name, stack.surroundings.region) == ("talk-test", "eu-central-1")
    assert (api.name, api.route_selection_expression, api.stages[0].name) == (
        "talk-test-api",
        "$request.body.type",
        "test",
    )
    assert set(routes) == {"$connect", "$disconnect", "say/it", "who-am_i.now", "$default"}
    assert routes["$connect"].authorizer == RequestAuthorizer(
        name="check-token",
        function="arn:aws:lambda:eu-central-1:123456789012:function:talk-test-check-token",
        identity_sources=("route.request.querystring.token", "route.request.header.Origin"),
    )
    assert routes["who-am_i.now"].two_way
    functions = {function.name: function for function in stack.functions}
    assert functions["talk-speaks"].timeout_s == 29
    assert functions["talk-speaks"].environment["SECRET"] == "from the file"
    assert functions["talk-speaks"].code == TALK.parent
    assert [resource.name for resource in stack.resources] == ["talk-test-people"]
    assert {path.name for path in stack.watched} >= {"limits.yml", ".env"}


def test_other_events_become_sources(tmp_path: Path) -> None:
    """Queues, streams, topics and schedules call the function that waits for them."""
    path = SERVICES / "orders" / "serverless.yml"
    stack = load_serverless(path, surroundings=Surroundings(), work=tmp_path, environment={})
    kinds = [source.kind for source in stack.sources if source.function == "orders-live-worker"]
    assert {kind: kinds.count(kind) for kind in kinds} == {"sqs": 2, "dynamodb": 1, "sns": 3, "schedule": 5}


def test_stage_parameters_and_stand_ins_come_from_the_caller(tmp_path: Path) -> None:
    """One mapping of parameters serves the service's variables and its CloudFormation."""
    path = write_service(
        tmp_path,
        HEAD
        + """
functions:
  a:
    handler: app.a
    environment: {A: "${param:color}", B: "${ssm:/b}", C: !Ref Size, D: "${sls:stage}"}
resources:
  Parameters: {Size: {Type: Number}}
""",
    )
    parameters = {"color": "red", "ssm:/b": "b", "Size": "3", "stage": "try"}
    stack = load(path, surroundings=Surroundings(), work=tmp_path / "work", parameters=parameters, environment={})
    assert stack.functions[0].environment == {"A": "red", "B": "b", "C": "3", "D": "try"}


def test_a_mistake_in_a_services_cloudformation_is_said_with_its_line(tmp_path: Path) -> None:
    """The line is that of serverless.yml, though CloudFormation is what it is a mistake in."""
    path = write_service(
        tmp_path, f"{HEAD}functions: {{a: {{handler: app.a}}}}\nresources:\n  Outputs:\n    A:\n      Value: !Ref B\n"
    )
    with pytest.raises(TemplateError) as raised:
        load(path, surroundings=Surroundings(), work=tmp_path / "work", environment={})
    assert (raised.value.path, raised.value.line) == (path, 10)


def packaged(folder: Path, *, state: object, archive: bool = True) -> Path:
    """A service as `package` leaves it: a template, an archive and notes."""
    write_service(folder, HEAD, src__app_py="def handler(event, context): ...")
    output = folder / ".serverless"
    output.mkdir()
    function: dict[str, Any] = {
        "Type": "AWS::Lambda::Function",
        "Properties": {
            "FunctionName": "chat-live-a",
            "Handler": "src/app.handler",
            "Runtime": "python3.12",
            "Code": {"S3Bucket": {"Ref": "ServerlessDeploymentBucket"}, "S3Key": "serverless/chat/live/1/chat.zip"},
            "Environment": {"Variables": {"REGION": {"Ref": "AWS::Region"}, "STACK": {"Ref": "AWS::StackName"}}},
        },
    }
    bucket = {"Type": "AWS::S3::Bucket"}
    document = {
        "Resources": {"ServerlessDeploymentBucket": bucket, "ALambdaFunction": function},
        "Outputs": {"ServerlessDeploymentBucketName": {"Value": {"Ref": "ServerlessDeploymentBucket"}}},
    }
    (folder / PACKAGED).write_text(json.dumps(document))
    (output / "serverless-state.json").write_text(state if isinstance(state, str) else json.dumps(state))
    if archive:
        with zipfile.ZipFile(output / "chat.zip", "w") as written:
            written.writestr("src/app.py", "def handler(event, context): return 'built'")
    os.utime(folder / "serverless.yml", (0, 0))
    return folder / PACKAGED


STATE = {"service": {"service": "chat", "provider": {"stage": "live", "region": "eu-west-1"}}}


@pytest.mark.parametrize("named", [".", str(PACKAGED)])
def test_what_was_packaged_runs_from_its_archive(tmp_path: Path, named: str) -> None:
    """Template and code are those in `.serverless`, and what only concerns deploying is gone."""
    packaged(tmp_path / "service", state=STATE)
    stack = load_packaged(tmp_path / "service" / named, surroundings=Surroundings(), work=tmp_path / "work")
    (function,) = stack.functions
    assert (function.code / "src/app.py").read_text().endswith("'built'")
    assert function.environment == {"REGION": "eu-west-1", "STACK": "chat-live"}
    assert (stack.resources, stack.outputs, stack.unsupported) == ((), {}, ())


def test_a_folder_with_nothing_but_what_was_packaged_is_loaded(tmp_path: Path) -> None:
    """As where the service itself is a program."""
    path = packaged(tmp_path / "service", state=STATE)
    (tmp_path / "service" / "serverless.yml").unlink()
    stack = load(tmp_path / "service", surroundings=Surroundings(), work=tmp_path / "work", parameters={"stage": "x"})
    assert stack.path == path


def test_a_folder_with_a_service_that_is_a_program_says_what_to_do(tmp_path: Path) -> None:
    """It is not that there is no template, but that it has to be packaged."""
    (tmp_path / "serverless.ts").write_text("")
    with pytest.raises(TemplateError, match="npx osls package"):
        load(tmp_path, surroundings=Surroundings(), work=tmp_path / "work")


def test_without_an_archive_the_services_folder_is_the_code(tmp_path: Path) -> None:
    """Archives may have been taken away."""
    packaged(tmp_path / "service", state=STATE, archive=False)
    stack = load_packaged(tmp_path / "service", surroundings=Surroundings(), work=tmp_path / "work")
    assert stack.functions[0].code == tmp_path / "service"


@pytest.mark.parametrize("state", ["no json", [], {"service": []}, {"service": {"provider": 5}}])
def test_notes_that_cannot_be_read_leave_the_callers_names(tmp_path: Path, state: object) -> None:
    """What the framework notes beside the template is its own business."""
    packaged(tmp_path / "service", state=state)
    surroundings = Surroundings(stack_name="mine", region="us-west-1")
    stack = load_packaged(tmp_path / "service", surroundings=surroundings, work=tmp_path / "work")
    assert stack.surroundings == surroundings


def test_what_was_packaged_before_the_service_changed_is_said(tmp_path: Path) -> None:
    """A template that is older than the service is run, and that is said."""
    packaged(tmp_path / "service", state=STATE)
    os.utime(tmp_path / "service" / PACKAGED, (1, 1))
    os.utime(tmp_path / "service" / "serverless.yml", (2, 2))
    stack = load_packaged(tmp_path / "service", surroundings=Surroundings(), work=tmp_path / "work")
    assert [entry.type for entry in stack.unsupported] == ["serverless.yml"]


def test_nothing_packaged_is_an_error(tmp_path: Path) -> None:
    """A folder without `.serverless` has nothing to load."""
    with pytest.raises(TemplateError, match="cannot be read"):
        load_packaged(tmp_path, surroundings=Surroundings(), work=tmp_path / "work")
