from __future__ import annotations

from pathlib import Path

import pytest

from hubbub.emulator.definition import Surroundings
from templatelab import TEMPLATES, failure_of, function_of, loaded, meaning_of, resource_of, stack_of

NESTED = TEMPLATES / "nested" / "template.yaml"


def test_nested_stacks_are_part_of_the_stack(tmp_path: Path) -> None:
    """What local nested templates define is there, named after them, with the parameters that they are given."""
    stack = loaded(NESTED, tmp_path)
    table = resource_of(stack, "Storage.Table")
    send = function_of(stack, "Chat.Send")
    assert table.name == "messages-local-x"
    assert table.properties["Tags"] == [{"Key": "zone", "Value": "b"}]
    assert send.environment == {"TABLE": "messages-local-x"}
    assert send.name == "local-Chat-Send"
    assert send.code.samefile(TEMPLATES / "nested" / "functions")
    assert [api.logical_id for api in stack.apis] == ["OwnApi", "Chat.Api"]


def test_hosts_are_given_to_nested_apis_in_the_stacks_order(tmp_path: Path) -> None:
    """An API of a nested stack has the host at its place among all of the stack's APIs."""
    stack = loaded(NESTED, tmp_path, surroundings=Surroundings(api_hosts=("h:1", "h:2")))
    assert stack.outputs["ChatUrl"] == "wss://h:2/default"


def test_a_nested_stack_elsewhere_is_named(tmp_path: Path) -> None:
    """An application of the repository is named with where it is, and its outputs are made up."""
    stack = loaded(NESTED, tmp_path)
    assert "arn:aws:serverlessrepo" in meaning_of(stack, "Elsewhere")
    assert stack.outputs["Made"] == "Elsewhere.Outputs.Anything"
    text = "Resources: {N: {Type: AWS::CloudFormation::Stack, Properties: {TemplateURL: https://s3/x.yaml}}}\n"
    assert "https://s3/x.yaml" in meaning_of(stack_of(tmp_path, text), "N")


def test_nested_templates_are_watched(tmp_path: Path) -> None:
    """All files that the stack is made of are known, so that a change of each is seen."""
    assert [path.name for path in loaded(NESTED, tmp_path).watched] == ["template.yaml", "storage.yaml", "chat.yaml"]


@pytest.mark.parametrize(
    ("inner", "properties", "outputs", "what"),
    [
        (
            "Resources: {T: {Type: AWS::SNS::Topic}}",
            "",
            "!GetAtt N.Outputs.Nope",
            "expected an output of the nested stack N (it has none)",
        ),
        ("Resources: {T: {Typ: x}}", "", "x", "inner.yaml:1: T: expected a Type"),
        ("Parameters: {P: {Type: String}}\nResources: {T: {Type: AWS::SNS::Topic}}", "", "x", "P is not given"),
        (
            "Resources: {T: {Type: AWS::SNS::Topic}}",
            ", Parameters: {Q: 1}",
            "x",
            "Q is not in the template's Parameters",
        ),
        (
            "Resources: {T: {Type: AWS::SNS::Topic}}",
            ", Parameters: {Q: {a: 1}}",
            "x",
            "N: expected text as its parameter Q",
        ),
    ],
)
def test_mistakes_about_nested_stacks_are_errors(
    tmp_path: Path, inner: str, properties: str, outputs: str, what: str
) -> None:
    """What is wrong in a nested template, or between both, is an error in the file that is to blame."""
    (tmp_path / "inner.yaml").write_text(inner)
    text = (
        f"Resources: {{N: {{Type: AWS::CloudFormation::Stack, Properties: {{TemplateURL: inner.yaml{properties}}}}}}}\n"
    )
    assert what in str(failure_of(tmp_path, f"{text}Outputs: {{O: {{Value: {outputs}}}}}\n"))


def test_a_stack_that_nests_itself_is_an_error(tmp_path: Path) -> None:
    """Stacks within one another without end, or without a file, are errors."""
    nest = "Resources: {N: {Type: AWS::CloudFormation::Stack, Properties: {TemplateURL: %s}}}\n"
    assert "at most 10 stacks within one another" in failure_of(tmp_path, nest % "template.yaml").what
    assert "there is no" in failure_of(tmp_path, nest % "absent.yaml").what


def test_a_file_can_be_included(tmp_path: Path) -> None:
    """AWS::Include puts a local file's content where it stands, in a value or beside other keys, and is watched."""
    (tmp_path / "attributes.yaml").write_text("AttributeDefinitions: [{AttributeName: !Ref Key, AttributeType: S}]\n")
    (tmp_path / "more.json").write_text('{"Outputs": {"Included": {"Value": {"Ref": "T"}}}}')
    text = """\
        Parameters: {Key: {Type: String, Default: id}}
        Transform: {Name: AWS::Include, Parameters: {Location: more.json}}
        Resources:
          T:
            Type: AWS::DynamoDB::Table
            Properties:
              TableName: t
              Fn::Transform: {Name: AWS::Include, Parameters: {Location: ./attributes.yaml}}
        """
    stack = stack_of(tmp_path, text)
    assert resource_of(stack, "T").properties["AttributeDefinitions"] == [{"AttributeName": "id", "AttributeType": "S"}]
    assert stack.outputs == {"Included": "t"}
    assert {path.name for path in stack.watched} == {"template.yaml", "attributes.yaml", "more.json"}


def test_a_whole_include_adds_to_the_templates_sections(tmp_path: Path) -> None:
    """Sections of a file that is included as a whole come to the template's, whose own names win."""
    (tmp_path / "more.yaml").write_text(
        "Description: other\nResources: {T: {Type: AWS::SQS::Queue}, U: {Type: AWS::SNS::Topic}}\n"
    )
    text = """\
        Description: own
        Transform: [{Name: AWS::Include, Parameters: {Location: more.yaml}}]
        Resources: {T: {Type: AWS::SNS::Topic}}
        """
    resources = stack_of(tmp_path, text).resources
    assert {one.logical_id: one.type for one in resources} == {"T": "AWS::SNS::Topic", "U": "AWS::SNS::Topic"}


def test_an_include_that_is_not_here_is_named_or_an_error(tmp_path: Path) -> None:
    """A file in S3 is named and left out; a local one that is missing is an error."""
    text = """\
        Resources:
          T:
            Type: AWS::SNS::Topic
            Properties: {DisplayName: d, "Fn::Transform": {Name: AWS::Include, Parameters: {Location: %s}}}
        """
    stack = stack_of(tmp_path, text % "s3://bucket/x.yaml")
    assert resource_of(stack, "T").properties == {"DisplayName": "d"}
    assert "the file is in S3" in meaning_of(stack, "s3://bucket/x.yaml")
    failure = failure_of(tmp_path, text % "x.yaml")
    assert (failure.what, failure.line) == ("expected a file to include, and there is no x.yaml", 4)


def test_loops_are_written_out(tmp_path: Path) -> None:
    """Fn::ForEach makes resources, properties and outputs, with names from lists and parameters, one in another."""
    text = """\
        Transform: AWS::LanguageExtensions
        Parameters: {Rooms: {Type: CommaDelimitedList, Default: "red-1,blue"}}
        Resources:
          Fn::ForEach::Queues:
            - Room
            - !Ref Rooms
            - "Queue&{Room}":
                Type: AWS::SQS::Queue
                Properties:
                  QueueName: !Sub "jobs-${Room}"
                  Tags: [{Key: room, Value: !Ref Room}]
          Fn::ForEach::Topics:
            - Kind
            - [In, Out]
            - Fn::ForEach::Both:
                - Side
                - [A, B]
                - "${Kind}${Side}": {Type: AWS::SNS::Topic}
        Outputs:
          Fn::ForEach::Urls:
            - Room
            - !Ref Rooms
            - "Url&{Room}": {Value: !GetAtt ["Queue&{Room}", QueueName]}
        """
    stack = stack_of(tmp_path, text)
    assert [one.logical_id for one in stack.resources] == ["Queuered1", "Queueblue", "InA", "InB", "OutA", "OutB"]
    assert resource_of(stack, "Queuered1").properties == {
        "QueueName": "jobs-red-1",
        "Tags": [{"Key": "room", "Value": "red-1"}],
    }
    assert stack.outputs == {"Urlred1": "jobs-red-1", "Urlblue": "jobs-blue"}


@pytest.mark.parametrize(
    ("loop", "what"),
    [
        ("[X, [a]]", "expected Fn::ForEach::L of [identifier, collection, {key: value}]"),
        ("[X, a, {k: v}]", "expected a list as the collection of Fn::ForEach::L, got 'a'"),
        ("[X, [a, b], {Same: {Type: AWS::SNS::Topic}}]", "the key 'Same' is there twice, once loops are written out"),
    ],
)
def test_a_loop_that_is_none_is_an_error(tmp_path: Path, loop: str, what: str) -> None:
    """A loop of the wrong shape, over no list or with one name for all is an error at its line."""
    failure = failure_of(tmp_path, f"Resources:\n  T: {{Type: AWS::SNS::Topic}}\n  Fn::ForEach::L: {loop}\n")
    assert (what in failure.what, failure.line) == (True, 3)


def test_sam_sees_what_loops_made(tmp_path: Path) -> None:
    """Loops are written out before the SAM transform, as AWS does it."""
    text = """\
        Transform: [AWS::LanguageExtensions, AWS::Serverless-2016-10-31]
        Resources:
          Fn::ForEach::Functions:
            - Name
            - [Join, Leave]
            - "${Name}Function":
                Type: AWS::Serverless::Function
                Properties: {Runtime: python3.12, Handler: !Sub "app.${Name}", CodeUri: src}
        """
    stack = stack_of(tmp_path, text)
    assert [(one.logical_id, one.handler) for one in stack.functions] == [
        ("JoinFunction", "app.Join"),
        ("LeaveFunction", "app.Leave"),
    ]
