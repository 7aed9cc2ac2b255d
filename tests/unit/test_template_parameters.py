from __future__ import annotations

from pathlib import Path

import pytest

from templatelab import failure_of, meaning_of, stack_of, value_of

RESOURCES = "Resources: {T: {Type: AWS::SNS::Topic}}\n"


def test_values_that_are_given_come_before_defaults(tmp_path: Path) -> None:
    """A parameter is what was given, else its default, as text."""
    rest = "Parameters: {A: {Type: String, Default: a}, B: {Type: Number, Default: 3}}\n" + RESOURCES
    assert value_of(tmp_path, "!Join ['-', [!Ref A, !Ref B]]", rest=rest) == "a-3"
    assert value_of(tmp_path, "!Join ['-', [!Ref A, !Ref B]]", rest=rest, parameters={"A": "x"}) == "x-3"


def test_all_missing_parameters_are_named_at_once(tmp_path: Path) -> None:
    """A template whose parameters lack values says which, all of them, at the first one's line."""
    text = "Parameters:\n  Set: {Type: String, Default: x}\n  One: {Type: String}\n  Two: {Type: String}\n" + RESOURCES
    failure = failure_of(tmp_path, text)
    assert "One and Two are not given" in failure.what
    assert failure.line == 3


def test_a_parameter_that_there_is_not_is_an_error(tmp_path: Path) -> None:
    """Giving a parameter that the template does not have is an error that names those it has."""
    failure = failure_of(
        tmp_path, "Parameters: {Stage: {Type: String, Default: a}}\n" + RESOURCES, parameters={"Stge": "x"}
    )
    assert "Stge is not in the template's Parameters: Stage" in failure.what


@pytest.mark.parametrize(
    ("declaration", "given", "what"),
    [
        ("Type: String, AllowedValues: [dev, prod]", "test", "must be one of dev, prod, got 'test'"),
        ("Type: String, AllowedValues: [1, true]", "2", "must be one of 1, true, got '2'"),
        ("Type: Number", "many", "must be a number, got 'many'"),
        ("Type: Number, MinValue: 2", "1", "must be at least 2"),
        ("Type: Number, MaxValue: 2", "2.5", "must be at most 2"),
        ("Type: List<Number>", "1,b", "must be a number, got '1,b'"),
        ("Type: String, MinLength: 3", "ab", "must have at least 3 characters"),
        ("Type: String, MaxLength: '1'", "ab", "must have at most 1 characters"),
        (
            "Type: String, AllowedPattern: '[a-z]+', ConstraintDescription: lower case",
            "A",
            "must match [a-z]+, got 'A': lower case",
        ),
        ("Type: CommaDelimitedList, AllowedValues: [a, b]", "a,c", "must be one of a, b"),
    ],
)
def test_what_a_declaration_forbids_is_an_error(tmp_path: Path, declaration: str, given: str, what: str) -> None:
    """A value that its declaration does not allow is an error that says what is allowed and what came."""
    text = f"Parameters:\n  P: {{{declaration}}}\n{RESOURCES}"
    failure = failure_of(tmp_path, text, parameters={"P": given})
    assert what in failure.what
    assert "parameter P" in failure.what
    assert failure.line == 2


def test_a_secret_value_is_not_shown(tmp_path: Path) -> None:
    """The value of a NoEcho parameter is not in the error about it."""
    text = "Parameters: {P: {Type: String, NoEcho: true, MinLength: 9}}\n" + RESOURCES
    failure = failure_of(tmp_path, text, parameters={"P": "hunter2"})
    assert "hunter2" not in str(failure)
    assert "(NoEcho)" in failure.what


@pytest.mark.parametrize(
    ("declaration", "given"),
    [
        ("Type: String, AllowedValues: [true, 1]", "true"),
        ("Type: Number, MinValue: -1, MaxValue: 1", "-0.5"),
        ("Type: 'AWS::EC2::VPC::Id'", "vpc-1"),
        ("Type: 'AWS::SSM::Parameter::Name'", "/a/b"),
        ("Type: String, AllowedPattern: '(?!broken'", "a"),
    ],
)
def test_what_a_declaration_allows_is_accepted(tmp_path: Path, declaration: str, given: str) -> None:
    """A value that its declaration allows is taken as it is."""
    rest = f"Parameters:\n  P: {{{declaration}}}\n{RESOURCES}"
    assert value_of(tmp_path, "!Ref P", rest=rest, parameters={"P": given}) == given


@pytest.mark.parametrize("kind", ["CommaDelimitedList", "List<Number>", "'List<AWS::EC2::Subnet::Id>'"])
def test_lists_are_split_at_commas(tmp_path: Path, kind: str) -> None:
    """A parameter of a list type is a list, blanks around its elements left out."""
    rest = f"Parameters: {{P: {{Type: {kind}, Default: '1, 2,3'}}}}\n{RESOURCES}"
    assert value_of(tmp_path, "!Ref P", rest=rest) == ["1", "2", "3"]


def test_a_parameter_of_the_parameter_store_is_named_where_it_is_used(tmp_path: Path) -> None:
    """A value that AWS would look up is its default here, which is said unless it is given or used nowhere."""
    text = "Parameters:\n  Image: {Type: 'AWS::SSM::Parameter::Value<String>', Default: /img}\n" + RESOURCES
    used = text + "Outputs: {It: {Value: !Ref Image}}\n"
    stack = stack_of(tmp_path, used)
    assert stack.outputs == {"It": "/img"}
    assert "--parameter Image=VALUE" in meaning_of(stack, "Image")
    assert stack_of(tmp_path, text).unsupported == ()
    given = stack_of(tmp_path, used, parameters={"Image": "v7"})
    assert (given.outputs, given.unsupported) == ({"It": "v7"}, ())


def test_a_condition_decides_what_there_is(tmp_path: Path) -> None:
    """A resource and an output whose condition does not hold are not there, and cannot be referred to."""
    text = """\
        Parameters: {Stage: {Type: String, Default: dev}}
        Conditions: {IsProd: !Equals [!Ref Stage, prod]}
        Resources:
          Always: {Type: AWS::SNS::Topic}
          Sometimes: {Type: AWS::SNS::Topic, Condition: IsProd}
        Outputs:
          One: {Condition: IsProd, Value: !Ref Sometimes}
        """
    dev = stack_of(tmp_path, text)
    assert [resource.logical_id for resource in dev.resources] == ["Always"]
    assert dev.outputs == {}
    prod = stack_of(tmp_path, text, parameters={"Stage": "prod"})
    assert [resource.logical_id for resource in prod.resources] == ["Always", "Sometimes"]
    assert prod.outputs == {"One": "arn:aws:sns:us-east-1:123456789012:local-Sometimes"}
    failure = failure_of(tmp_path, text.replace("Condition: IsProd, Value", "Value"))
    assert "Sometimes is referred to, and the condition that it has does not hold" in failure.what


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("Description: nothing\n", 1, "expected Resources, got a template without"),
        ("Resources:\n", 1, "expected Resources, got a template without"),
        ("Resources: [a]\n", 1, "expected a mapping as Resources, got a list"),
        ("Parameters: [a]\nResources: {T: {Type: AWS::SNS::Topic}}\n", 1, "expected a mapping as Parameters"),
        (
            "Parameters: {P: String}\nResources: {T: {Type: AWS::SNS::Topic}}\n",
            None,
            "expected a mapping with a Type as parameter P",
        ),
        (
            "Resources:\n  T:\n    Typ: AWS::SNS::Topic\n",
            2,
            "T: expected a Type such as AWS::Lambda::Function, got None",
        ),
        ("Resources:\n  T: AWS::SNS::Topic\n", 2, "T: expected a mapping with a Type, got 'AWS::SNS::Topic'"),
        (
            "Resources:\n  T:\n    Type: AWS::SNS::Topic\n    Properties: [a]\n",
            4,
            "expected a mapping as its Properties",
        ),
        (
            "Resources:\n  T: {Type: AWS::SNS::Topic, DependsOn: U}\n",
            2,
            "T: expected resources in its DependsOn, got 'U'",
        ),
        (
            "Resources:\n  T: {Type: AWS::SNS::Topic, Condition: C}\n",
            2,
            "expected one of the template's Conditions, got 'C'",
        ),
        (
            "Resources: {T: {Type: AWS::SNS::Topic}}\nOutputs:\n  O: {Export: x}\n",
            3,
            "expected a mapping with a Value as the output O",
        ),
        (
            "Resources:\n  F:\n    Type: AWS::Serverless::Function\n",
            2,
            "expected 'Transform: AWS::Serverless-2016-10-31'",
        ),
    ],
)
def test_a_template_of_the_wrong_shape_is_an_error(tmp_path: Path, text: str, line: int | None, what: str) -> None:
    """Each section that is not what it must be is an error with its line."""
    failure = failure_of(tmp_path, text)
    assert what in failure.what
    assert failure.line == line


def test_resources_that_need_each_other_are_an_error(tmp_path: Path) -> None:
    """Resources in a circle, through references, substitutions and DependsOn, are named as AWS names them."""
    text = """\
        Resources:
          A:
            Type: AWS::IAM::Role
            Properties: {Description: !Sub "of ${B}"}
          B:
            Type: AWS::SNS::Topic
            DependsOn: C
          C:
            Type: AWS::SQS::Queue
            Properties: {Tags: [{Key: a, Value: !GetAtt A.Arn}]}
        """
    failure = failure_of(tmp_path, text)
    assert failure.what == "A: circular dependency between resources: A -> B -> C -> A"
    assert failure.line == 2


def test_names_that_are_made_of_each_other_are_an_error(tmp_path: Path) -> None:
    """A name that would be made of itself is a circular reference."""
    text = """\
        Resources:
          A: {Type: AWS::SNS::Topic, Properties: {TopicName: !Sub "${B.QueueName}-x"}}
          B: {Type: AWS::SQS::Queue, Properties: {QueueName: !Sub "${A.TopicName}-y"}}
        """
    assert "circular reference: A -> B -> A" in failure_of(tmp_path, text).what
    itself = "Resources:\n  A: {Type: AWS::SNS::Topic, Properties: {DisplayName: !Ref A}}\n"
    assert "A: circular dependency between resources: A -> A" in failure_of(tmp_path, itself).what
