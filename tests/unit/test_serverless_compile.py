"""A whole service: its own resources, what its parts mean here, and what is no service."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.serverless import PACKAGED, compile_serverless
from hubbub.emulator.template.source import line_of
from servicelab import SERVICES, compiled, named, properties, write_service


def test_resources_are_put_into_what_the_framework_makes(tmp_path: Path) -> None:
    """Own resources stand beside the framework's and change them by their logical ids; null leaves a property out."""
    service = compiled(
        tmp_path,
        """
        functions: {a: {handler: app.a, layers: [x, y]}}
        resources:
          - Resources:
              Table: {Type: AWS::DynamoDB::Table, Properties: {TableName: null, BillingMode: PAY_PER_REQUEST}}
          - ${file(./more.yml)}
          - Outputs: {Table: {Value: !Ref Table}}
            Conditions: {Big: !Equals [a, a]}
        """,
        more_yml="Resources: {ALambdaFunction: {Properties: {Timeout: 9, Layers: [z]}}}\n",
    )
    assert properties(service, "Table") == {"BillingMode": "PAY_PER_REQUEST"}
    function = properties(service, "ALambdaFunction")
    assert (function["Timeout"], function["Layers"], function["MemorySize"]) == (9, ["z", "y"], 1024)
    assert service.template["Outputs"]["Table"] == {"Value": {"Ref": "Table"}}
    assert service.template["Conditions"] == {"Big": {"Fn::Equals": ["a", "a"]}}


def test_extensions_change_what_the_framework_makes(tmp_path: Path) -> None:
    """Properties are replaced one by one and dependencies added."""
    service = compiled(
        tmp_path,
        """
        functions: {a: {handler: app.a, layers: [x, y]}}
        resources:
          extensions:
            ALambdaFunction:
              Properties: {Layers: [z]}
              DependsOn: [Table]
              Condition: Big
              Metadata: {a: 1}
        """,
    )
    resource = service.template["Resources"]["ALambdaFunction"]
    assert resource["Properties"]["Layers"] == ["z"]
    assert resource["DependsOn"] == ["ALogGroup", "Table"]
    assert (resource["Condition"], resource["Metadata"]) == ("Big", {"a": 1})
    assert "extensions" not in service.template


@pytest.mark.parametrize(
    ("extension", "what"),
    [("Nobody: {Condition: x}", "there is no resource Nobody"), ("ALambdaFunction: {Type: x}", "cannot change Type")],
)
def test_extensions_of_what_is_not_there_are_refused(tmp_path: Path, extension: str, what: str) -> None:
    """A mistake in an extension is said with its line."""
    text = f"functions: {{a: {{handler: app.a}}}}\nresources:\n  extensions:\n    {extension}\n"
    with pytest.raises(TemplateError, match=what) as raised:
        compiled(tmp_path, text)
    assert raised.value.line == 9


def test_the_template_knows_lines_of_the_services_own_file(tmp_path: Path) -> None:
    """So that mistakes in CloudFormation are said with their lines too; other files' lines would mislead."""
    text = "resources:\n  Resources:\n    Table:\n      Type: X\n    Other: ${file(./other.yml)}\n"
    service = compiled(tmp_path, text, other_yml="\n\n\nType: Y\n")
    resources = service.template["Resources"]
    assert (line_of(resources, "Table"), line_of(resources["Table"])) == (8, 9)
    assert line_of(resources["Other"]) is None
    assert all(type(key) is str for key in resources)


def test_the_bucket_for_deploying_is_there_for_what_refers_to_it(tmp_path: Path) -> None:
    """It is left out otherwise, for nothing is deployed."""
    assert "ServerlessDeploymentBucket" not in compiled(tmp_path, "").template["Resources"]
    text = "resources: {Outputs: {Bucket: {Value: !Ref ServerlessDeploymentBucket}}}"
    assert "ServerlessDeploymentBucket" in compiled(tmp_path, text).template["Resources"]


def test_pseudo_parameters_of_an_old_plugin_are_understood(tmp_path: Path) -> None:
    """`#{AWS::Region}` is what serverless-pseudo-parameters makes Fn::Sub of."""
    text = "functions: {a: {handler: app.a, environment: {A: 'x-#{AWS::Region}', B: !Sub '#{AWS::Region}${T}'}}}\n"
    service = compiled(tmp_path, f"plugins: [serverless-pseudo-parameters]\n{text}")
    variables = properties(service, "ALambdaFunction")["Environment"]["Variables"]
    assert variables == {"A": {"Fn::Sub": "x-${AWS::Region}"}, "B": {"Fn::Sub": "${AWS::Region}${T}"}}
    assert (
        properties(compiled(tmp_path, text), "ALambdaFunction")["Environment"]["Variables"]["A"] == "x-#{AWS::Region}"
    )


def test_every_plugin_is_said_with_what_it_means_here(tmp_path: Path) -> None:
    """Known ones by what is done instead, others as not run; sections of theirs too."""
    service = compiled(
        tmp_path,
        """
        plugins: {modules: [serverless-offline, serverless-dynamodb-local, serverless-esbuild, ./mine]}
        app: x
        org: y
        stepFunctions: {}
        somethingElse: {}
        """,
    )
    said = named(service)
    assert "takes its place" in said["serverless-offline plugins"]
    assert "own DynamoDB" in said["serverless-dynamodb-local plugins"]
    assert ".esbuild/.build" in said["serverless-esbuild plugins"]
    assert "not run here" in said["./mine plugins"]
    assert "no state machines" in said["stepFunctions serverless.yml"]
    assert "ignored" in said["somethingElse serverless.yml"]
    assert not [key for key in said if key.startswith(("app ", "org "))]


def test_a_parameter_that_nothing_asks_for_is_named(tmp_path: Path) -> None:
    """So that a mistyped name is seen; the stage, and what CloudFormation asks for, are asked for."""
    text = "functions: {a: {handler: app.a, environment: {A: '${param:color}'}}}\nresources: {Parameters: {Size: {}}}\n"
    parameters = {"color": "red", "colour": "red", "stage": "x", "Size": "1", "import:x": "y"}
    said = named(compiled(tmp_path, text, parameters=parameters))
    assert [key for key in said if key.endswith(" parameter")] == ["colour parameter"]


@pytest.mark.parametrize(
    ("head", "line", "what"),
    [
        ("", 1, "expected a service with its provider and functions, got nothing"),
        ("- a", 1, "got a list"),
        ("service: a", 1, "expected a provider, got none"),
        ("service: a\nprovider: {runtime: x}", 2, "expected aws as the provider's name, got nothing"),
        ("service: a\nprovider:\n  name: google", 3, "got 'google'"),
        ("service: a\nprovider: 5", 2, "expected aws as the provider's name, got 5"),
        ("provider: aws", 1, "expected the service's name as service, got nothing"),
        ("service: a\nprovider: aws\nfunctions: [", 3, "the YAML cannot be read"),
    ],
)
def test_what_is_no_service_is_said_with_its_line(tmp_path: Path, head: str, line: int, what: str) -> None:
    """A file that does not describe a service on AWS is refused."""
    with pytest.raises(TemplateError, match=what) as raised:
        compiled(tmp_path, "", head=head)
    assert raised.value.line == line


@pytest.mark.parametrize("head", ["service: a\nprovider: aws\n", "service: {name: a}\nprovider: {name: aws}\n"])
def test_short_and_old_forms_name_the_service(tmp_path: Path, head: str) -> None:
    """The provider may be its name alone, and the service a mapping with a name."""
    assert compiled(tmp_path, "functions: {x: {handler: app.x}}", head=head).stack_name == "a-dev"


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    """A missing file is an error of the template's kind."""
    with pytest.raises(TemplateError, match="cannot be read"):
        compile_serverless(tmp_path / "serverless.yml")


@pytest.mark.parametrize("name", ["serverless.ts", "serverless.js"])
def test_a_service_that_is_a_program_is_referred_to_the_framework(tmp_path: Path, name: str) -> None:
    """What must be run to be read is packaged first, with the command that does it."""
    (tmp_path / name).write_text("module.exports = {}")
    with pytest.raises(TemplateError, match=r"npx osls package.*npx osls print") as raised:
        compile_serverless(tmp_path / name)
    assert str(PACKAGED) in str(raised.value)


def test_a_json_service_is_read_like_any_other() -> None:
    """serverless.json is the same in JSON."""
    service = compile_serverless(SERVICES / "board" / "serverless.json", environment={})
    assert properties(service, "WebsocketsApi")["Name"] == "board é"
    assert set(service.code) == {"AllLambdaFunction"}


def test_a_yaml_service_is_read_like_any_other(tmp_path: Path) -> None:
    """The long suffix is the same."""
    path = write_service(tmp_path, "service: a\nprovider: aws\n").rename(tmp_path / "serverless.yaml")
    assert compile_serverless(path, environment={}).stack_name == "a-dev"


def test_a_template_is_json_through_and_through() -> None:
    """Nothing of how files are read is left in it."""
    for name in ("talk", "orders"):
        template = compile_serverless(SERVICES / name / "serverless.yml", environment=dict(os.environ)).template
        assert json.loads(json.dumps(template)) == template
