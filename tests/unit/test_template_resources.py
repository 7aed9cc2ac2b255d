from __future__ import annotations

import json
import string
from pathlib import Path

import pytest

from hubbub.emulator.resources import SUPPORTED
from hubbub.emulator.template.stateful import CREATED
from templatelab import failure_of, function_of, meaning_of, resource_of, stack_of, value_of

FUNCTION = """\
  F:
    Type: AWS::Lambda::Function
    Properties:
      Runtime: python3.12
      Handler: a.b
      Code: src
"""


def test_every_type_that_can_be_created_becomes_a_resource() -> None:
    """What the stack hands over is what the emulator's services make, no more and no less."""
    assert set(SUPPORTED) == CREATED


def test_a_resource_has_its_resolved_properties(tmp_path: Path) -> None:
    """Properties come as the template has them, without functions, under the name that the service knows."""
    text = """\
        Parameters: {Days: {Type: Number, Default: 4}}
        Resources:
          Dead: {Type: AWS::SQS::Queue}
          Jobs:
            Type: AWS::SQS::Queue
            Properties:
              QueueName: !Sub "${AWS::StackName}-jobs"
              MessageRetentionPeriod: !Ref Days
              RedrivePolicy: {deadLetterTargetArn: !GetAtt Dead.Arn, maxReceiveCount: 3}
              KmsMasterKeyId: !Ref AWS::NoValue
        """
    jobs = resource_of(stack_of(tmp_path, text), "Jobs")
    assert (jobs.type, jobs.name) == ("AWS::SQS::Queue", "local-jobs")
    assert jobs.properties == {
        "QueueName": "local-jobs",
        "MessageRetentionPeriod": "4",
        "RedrivePolicy": {"deadLetterTargetArn": "arn:aws:sqs:us-east-1:123456789012:local-Dead", "maxReceiveCount": 3},
    }


def test_a_buckets_notifications_are_named(tmp_path: Path) -> None:
    """A bucket is made without what it would notify, and that is said."""
    notifications = "NotificationConfiguration: {QueueConfigurations: []}"
    text = f"Resources: {{B: {{Type: AWS::S3::Bucket, Properties: {{BucketName: b, {notifications}}}}}}}\n"
    stack = stack_of(tmp_path, text)
    assert resource_of(stack, "B").properties == {"BucketName": "b"}
    assert "invokes no function" in meaning_of(stack, "B")


@pytest.mark.parametrize(
    "written", ['DefinitionString: \'{"StartAt": "A"}\'', "Definition: {StartAt: A}", "DefinitionString: {StartAt: A}"]
)
def test_a_state_machine_has_its_definition_as_text(tmp_path: Path, written: str) -> None:
    """A definition written as text or as a mapping is JSON text, and the other properties stay."""
    flow = f"  S:\n    Type: AWS::StepFunctions::StateMachine\n    Properties: {{RoleArn: r, {written}}}\n"
    properties = resource_of(stack_of(tmp_path, f"Resources:\n{flow}"), "S").properties
    assert properties == {"RoleArn": "r", "DefinitionString": '{"StartAt": "A"}'}


def test_a_state_machine_in_s3_is_named(tmp_path: Path) -> None:
    """A definition in a bucket is not here, so there is no state machine."""
    where = "DefinitionS3Location: {Bucket: b, Key: k}"
    text = f"Resources: {{S: {{Type: AWS::StepFunctions::StateMachine, Properties: {{RoleArn: r, {where}}}}}}}\n"
    stack = stack_of(tmp_path, text)
    assert stack.resources == ()
    assert "it is not created" in meaning_of(stack, "S")


@pytest.mark.parametrize(
    ("asked", "allowed", "length"),
    [
        ("{}", string.ascii_letters + string.digits + string.punctuation, 32),
        ("{PasswordLength: 16, ExcludePunctuation: true}", string.ascii_letters + string.digits, 16),
        ("{ExcludeLowercase: true, ExcludeUppercase: true, ExcludePunctuation: 'true'}", string.digits, 32),
        ("{PasswordLength: '8', ExcludeCharacters: 'abc\"/', ExcludeNumbers: true}", None, 8),
        ("{IncludeSpace: true, RequireEachIncludedType: false, PasswordLength: 1}", None, 1),
    ],
)
def test_a_generated_secret_is_what_was_asked_for(tmp_path: Path, asked: str, allowed: str | None, length: int) -> None:
    """A generated password has the length and the characters asked for, and is the same at each start."""
    text = f"Resources: {{S: {{Type: AWS::SecretsManager::Secret, Properties: {{GenerateSecretString: {asked}}}}}}}\n"
    properties = resource_of(stack_of(tmp_path, text), "S").properties
    password = properties["SecretString"]
    assert "GenerateSecretString" not in properties
    assert len(password) == length
    assert allowed is None or set(password) <= set(allowed)
    assert not set(password) & set('abc"/') or "ExcludeCharacters" not in asked
    assert resource_of(stack_of(tmp_path, text), "S").properties["SecretString"] == password


def test_every_kind_of_character_is_in_a_generated_secret(tmp_path: Path) -> None:
    """However short it is, a password has each kind of character that it may have."""
    text = "Resources:\n" + "".join(
        f"  S{n}: {{Type: AWS::SecretsManager::Secret, Properties: {{GenerateSecretString: {{PasswordLength: 4}}}}}}\n"
        for n in range(30)
    )
    kinds = (string.ascii_lowercase, string.ascii_uppercase, string.digits, string.punctuation)
    passwords = [resource.properties["SecretString"] for resource in stack_of(tmp_path, text).resources]
    assert len(set(passwords)) == 30
    assert all(set(password) & set(kind) for password in passwords for kind in kinds)


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ("{PasswordLength: 0}", "expected 1 to 4096 characters"),
        ("{PasswordLength: long}", "expected 1 to 4096 characters"),
        ("{SecretStringTemplate: '{', GenerateStringKey: p}", "expected JSON as SecretStringTemplate"),
        ("{SecretStringTemplate: '[]', GenerateStringKey: p}", "expected a JSON object as SecretStringTemplate"),
    ],
)
def test_a_secret_that_cannot_be_generated_is_an_error(tmp_path: Path, asked: str, what: str) -> None:
    """What makes no password is an error."""
    text = f"Resources: {{S: {{Type: AWS::SecretsManager::Secret, Properties: {{GenerateSecretString: {asked}}}}}}}\n"
    assert what in failure_of(tmp_path, text).what


STORED = """\
Resources:
  Name: {Type: AWS::SSM::Parameter, Properties: {Type: String, Name: /chat/name, Value: lobby}}
  Login:
    Type: AWS::SecretsManager::Secret
    Properties:
      Name: login
      GenerateSecretString: {SecretStringTemplate: '{"user": "admin"}', GenerateStringKey: password}
  Plain: {Type: AWS::SecretsManager::Secret, Properties: {Name: plain, SecretString: open}}
"""


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("'{{resolve:ssm:/chat/name}}'", "lobby"),
        ("'{{resolve:ssm:/chat/name:1}}'", "lobby"),
        ("'a {{resolve:ssm:/chat/name}} b {{resolve:ssm-secure:/chat/name}}'", "a lobby b lobby"),
        ("'{{resolve:secretsmanager:plain}}'", "open"),
        ("'{{resolve:secretsmanager:login:SecretString:user}}'", "admin"),
        ("!Sub '{{resolve:secretsmanager:${Login}:SecretString:user}}'", "admin"),
        ("!Join ['', ['{{resolve:secretsmanager:', !Ref Login, ':SecretString:user::}}']]", "admin"),
        ("!Sub '{{resolve:ssm:${Name}}}'", "lobby"),
    ],
)
def test_dynamic_references_are_what_the_template_stores(tmp_path: Path, written: str, value: str) -> None:
    """A reference to a parameter or secret of the same template is its value, by name or ARN, whole or a key of it."""
    text = STORED + FUNCTION + f"      Environment: {{Variables: {{V: {written}}}}}\n"
    assert function_of(stack_of(tmp_path, text), "F").environment == {"V": value}


def test_a_reference_is_of_the_secret_that_is_made(tmp_path: Path) -> None:
    """The generated password that a function is told is the one in the secret that is created."""
    text = STORED + FUNCTION
    text += "      Environment: {Variables: {V: !Sub '{{resolve:secretsmanager:${Login}:SecretString:password}}'}}\n"
    stack = stack_of(tmp_path, text)
    made = json.loads(resource_of(stack, "Login").properties["SecretString"])
    assert made["user"] == "admin"
    assert function_of(stack, "F").environment == {"V": made["password"]}


@pytest.mark.parametrize(
    "reference",
    [
        "resolve:ssm:/other",
        "resolve:secretsmanager:other:SecretString:key",
        "resolve:secretsmanager:login:SecretString:no",
        "resolve:secretsmanager:plain:SecretString:key",
    ],
)
def test_a_reference_to_nothing_is_named_unless_it_is_given(tmp_path: Path, reference: str) -> None:
    """What is stored elsewhere stays as it is written and is named; the text between the braces gives it a value."""
    text = STORED + FUNCTION + f"      Environment: {{Variables: {{V: '{{{{{reference}}}}}'}}}}\n"
    stack = stack_of(tmp_path, text)
    assert function_of(stack, "F").environment == {"V": f"{{{{{reference}}}}}"}
    assert f"--parameter {reference}=VALUE" in meaning_of(stack, f"{{{{{reference}}}}}")
    given = stack_of(tmp_path, text, parameters={reference: "known"})
    assert function_of(given, "F").environment == {"V": "known"}
    assert given.unsupported == ()


def test_a_stored_value_may_refer_to_another(tmp_path: Path) -> None:
    """A parameter whose value is a reference to another one is that one's value, and a circle stays as it is."""
    rest = """\
        Resources:
          A: {Type: AWS::SSM::Parameter, Properties: {Type: String, Name: a, Value: "{{resolve:ssm:b}}"}}
          B: {Type: AWS::SSM::Parameter, Properties: {Type: String, Name: b, Value: x}}
          C: {Type: AWS::SSM::Parameter, Properties: {Type: String, Name: c, Value: "{{resolve:ssm:c}}"}}
        """
    assert value_of(tmp_path, "!GetAtt A.Value", rest=rest) == "x"
    assert value_of(tmp_path, "!GetAtt C.Value", rest=rest) == "{{resolve:ssm:c}}"


@pytest.mark.parametrize(
    ("type_", "said"),
    [
        ("AWS::Cognito::UserPool", "nobody can sign in"),
        ("AWS::RDS::DBCluster", "no database"),
        ("AWS::AppSync::GraphQLApi", "GraphQL"),
        ("AWS::KMS::Key", "calls to KMS fail"),
        ("AWS::ECS::Service", "containers are not run"),
        ("AWS::Pipes::Pipe", "pipes do not run"),
        ("Custom::Anything", "its function is not called"),
        ("AWS::CloudFormation::CustomResource", "its function is not called"),
        ("AWS::NewService::Thing", "nothing here runs it"),
        ("AWS::SecretsManager::RotationSchedule", "not rotated"),
    ],
)
def test_what_does_not_run_here_is_named_with_its_meaning(tmp_path: Path, type_: str, said: str) -> None:
    """Every type that is not emulated is named with its logical id and what that means."""
    stack = stack_of(tmp_path, f"Resources: {{X: {{Type: '{type_}'}}}}\n")
    ((logical_id, named, meaning),) = [(one.logical_id, one.type, one.meaning) for one in stack.unsupported]
    assert (logical_id, named) == ("X", type_)
    assert said in meaning
    assert stack.ignored == ()


@pytest.mark.parametrize(
    "type_",
    [
        *("AWS::IAM::Role", "AWS::Logs::LogGroup", "AWS::CloudWatch::Alarm", "AWS::SQS::QueuePolicy"),
        *("AWS::SNS::TopicPolicy", "AWS::Lambda::Permission", "AWS::ApiGateway::Account", "AWS::S3::BucketPolicy"),
        *("AWS::EC2::VPC", "AWS::EC2::SubnetRouteTableAssociation", "AWS::Route53::RecordSet"),
    ],
)
def test_what_nothing_needs_is_listed_once(tmp_path: Path, type_: str) -> None:
    """Permissions, logs, alarms and networks are ignored, which is no shortcoming."""
    stack = stack_of(tmp_path, f"Resources: {{X: {{Type: '{type_}'}}}}\n")
    assert (stack.ignored, stack.unsupported) == (("X",), ())
