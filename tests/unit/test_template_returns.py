from __future__ import annotations

import re
from pathlib import Path

import pytest

from hubbub.emulator.definition import Surroundings
from templatelab import failure_of, stack_of, value_of

ACCOUNT = "us-east-1:123456789012"


@pytest.mark.parametrize(
    ("resource", "expression", "value"),
    [
        ("AWS::DynamoDB::Table", "!Ref It", "local-It"),
        ("AWS::DynamoDB::Table, Properties: {TableName: t}", "!Ref It", "t"),
        ("AWS::DynamoDB::Table, Properties: {TableName: t}", "!GetAtt It.Arn", f"arn:aws:dynamodb:{ACCOUNT}:table/t"),
        (
            "AWS::DynamoDB::Table, Properties: {StreamSpecification: {StreamViewType: KEYS_ONLY}}",
            "!GetAtt It.StreamArn",
            f"arn:aws:dynamodb:{ACCOUNT}:table/local-It/stream/2024-01-01T00:00:00.000",
        ),
        ("AWS::SQS::Queue", "!Ref It", "http://127.0.0.1:4566/123456789012/local-It"),
        ("AWS::SQS::Queue", "!GetAtt It.QueueName", "local-It"),
        ("AWS::SQS::Queue, Properties: {FifoQueue: true}", "!GetAtt It.Arn", f"arn:aws:sqs:{ACCOUNT}:local-It.fifo"),
        ("AWS::SNS::Topic", "!Ref It", f"arn:aws:sns:{ACCOUNT}:local-It"),
        ("AWS::SNS::Topic, Properties: {TopicName: n}", "!GetAtt It.TopicName", "n"),
        ("AWS::SNS::Topic, Properties: {TopicName: n}", "!GetAtt It.TopicArn", f"arn:aws:sns:{ACCOUNT}:n"),
        ("AWS::SSM::Parameter, Properties: {Name: /a/b, Value: v}", "!Ref It", "/a/b"),
        ("AWS::SSM::Parameter, Properties: {Name: /a/b, Value: v}", "!GetAtt It.Value", "v"),
        ("AWS::SSM::Parameter, Properties: {Name: /a/b}", "!GetAtt It.Arn", f"arn:aws:ssm:{ACCOUNT}:parameter/a/b"),
        ("AWS::SecretsManager::Secret, Properties: {Name: s}", "!Ref It", f"arn:aws:secretsmanager:{ACCOUNT}:secret:s"),
        ("AWS::S3::Bucket", "!Ref It", "local-it"),
        ("AWS::S3::Bucket, Properties: {BucketName: b}", "!GetAtt It.Arn", "arn:aws:s3:::b"),
        ("AWS::S3::Bucket, Properties: {BucketName: b}", "!GetAtt It.DomainName", "b.s3.amazonaws.com"),
        ("AWS::IAM::Role", "!Ref It", "local-It"),
        ("AWS::IAM::Role, Properties: {Path: /x/}", "!GetAtt It.Arn", "arn:aws:iam::123456789012:role/x/local-It"),
        ("AWS::IAM::ManagedPolicy", "!Ref It", "arn:aws:iam::123456789012:policy/local-It"),
        (
            "AWS::Logs::LogGroup, Properties: {LogGroupName: /g}",
            "!GetAtt It.Arn",
            f"arn:aws:logs:{ACCOUNT}:log-group:/g:*",
        ),
        ("AWS::Events::EventBus, Properties: {Name: bus}", "!GetAtt It.Arn", f"arn:aws:events:{ACCOUNT}:event-bus/bus"),
        ("AWS::StepFunctions::StateMachine", "!Ref It", f"arn:aws:states:{ACCOUNT}:stateMachine:local-It"),
        ("AWS::Lambda::Version, Properties: {FunctionName: f}", "!Ref It", f"arn:aws:lambda:{ACCOUNT}:function:f:1"),
        ("AWS::Lambda::Version, Properties: {FunctionName: f}", "!GetAtt It.Version", "1"),
        (
            f"AWS::Lambda::Alias, Properties: {{Name: live, FunctionName: 'arn:aws:lambda:{ACCOUNT}:function:f:1'}}",
            "!Ref It",
            f"arn:aws:lambda:{ACCOUNT}:function:f:live",
        ),
        ("AWS::ApiGatewayV2::Stage, Properties: {StageName: v1, ApiId: a}", "!Ref It", "v1"),
        ("AWS::ApiGatewayV2::DomainName, Properties: {DomainName: d.example}", "!Ref It", "d.example"),
        ("AWS::RDS::DBInstance", "!GetAtt It.Endpoint.Address", "It.Endpoint.Address"),
        ("AWS::Batch::JobQueue", "!GetAtt It.Arn", f"arn:aws:batch:{ACCOUNT}:jobqueue/local-It"),
        ("Custom::Thing", "!GetAtt It.Whatever", "It.Whatever"),
    ],
)
def test_return_values_are_those_of_cloudformation(tmp_path: Path, resource: str, expression: str, value: str) -> None:
    """Ref and GetAtt of each type are names, ARNs and addresses as AWS would have them, of this stack's account."""
    assert value_of(tmp_path, expression, rest=f"Resources: {{It: {{Type: {resource}}}}}") == value


@pytest.mark.parametrize(
    ("resource", "expression", "pattern"),
    [
        ("AWS::KMS::Key", "!GetAtt It.Arn", rf"arn:aws:kms:{ACCOUNT}:key/[0-9a-f-]{{36}}"),
        ("AWS::Cognito::UserPool", "!Ref It", r"us-east-1_\w{9}"),
        (
            "AWS::Cognito::UserPool",
            "!GetAtt It.ProviderURL",
            r"https://cognito-idp\.us-east-1\.amazonaws\.com/us-east-1_\w{9}",
        ),
        ("AWS::Cognito::UserPoolClient", "!Ref It", r"[a-z0-9]{26}"),
        ("AWS::SNS::Subscription, Properties: {Protocol: sqs, TopicArn: a}", "!Ref It", r"a:[0-9a-f-]{36}"),
        ("AWS::ApiGatewayV2::Integration, Properties: {ApiId: a, IntegrationType: MOCK}", "!Ref It", r"[a-z0-9]{7}"),
        (
            "AWS::Lambda::Url, Properties: {TargetFunctionArn: f, AuthType: NONE}",
            "!GetAtt It.FunctionUrl",
            r"https://[a-z0-9]{32}\.lambda-url\.us-east-1\.on\.aws/",
        ),
        (
            "AWS::Lambda::EventSourceMapping, Properties: {FunctionName: f}",
            "!Ref It",
            r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        ),
    ],
)
def test_ids_look_as_those_of_aws_and_stay_the_same(
    tmp_path: Path, resource: str, expression: str, pattern: str
) -> None:
    """What AWS would make up has AWS's form, and is the same at each start."""
    rest = f"Resources: {{It: {{Type: {resource}}}}}"
    found = value_of(tmp_path, expression, rest=rest)
    assert re.fullmatch(pattern, found)
    assert value_of(tmp_path, expression, rest=rest) == found


def test_functions_return_their_name_and_arn(tmp_path: Path) -> None:
    """A function's Ref is its name and its Arn its ARN, whether the template names it or not."""
    rest = """\
        Resources:
          A: {Type: AWS::Lambda::Function, Properties: {Runtime: python3.12, Handler: a.b, Code: src}}
          B: {Type: AWS::Lambda::Function, Properties: {Runtime: python3.12, Handler: a.b, Code: src, FunctionName: fn}}
        """
    joined = "!Join [' ', [!Ref A, !GetAtt A.Arn, !Ref B, !GetAtt B.Arn]]"
    arn = f"arn:aws:lambda:{ACCOUNT}:function"
    assert value_of(tmp_path, joined, rest=rest) == f"local-A {arn}:local-A fn {arn}:fn"


API = """\
Resources:
  First:
    Type: AWS::ApiGatewayV2::Api
    Properties: {Name: a, ProtocolType: WEBSOCKET, RouteSelectionExpression: $request.body.action}
  Http: {Type: AWS::ApiGatewayV2::Api, Properties: {Name: h, ProtocolType: HTTP}}
  Second:
    Type: AWS::ApiGatewayV2::Api
    Properties: {Name: b, ProtocolType: WEBSOCKET, RouteSelectionExpression: $request.body.action}
"""


def test_api_ids_are_those_of_api_gateway_and_stay_the_same(tmp_path: Path) -> None:
    """An API's id is ten lower-case letters and digits, of stack and logical id alone."""
    one = stack_of(tmp_path, API)
    again = stack_of(tmp_path, API)
    other = stack_of(tmp_path, API, surroundings=Surroundings(stack_name="other"))
    ids = [api.id for api in one.apis]
    assert [api.id for api in again.apis] == ids
    assert len({*ids, *(api.id for api in other.apis)}) == 4
    assert all(re.fullmatch(r"[a-z0-9]{10}", id_) for id_ in ids)
    assert value_of(tmp_path, "!Ref First", rest=API) == value_of(tmp_path, "!GetAtt First.ApiId", rest=API) == ids[0]


def test_an_apis_endpoint_is_its_host_on_this_machine(tmp_path: Path) -> None:
    """ApiEndpoint is the API's own host where hosts are given, in the template's order, else AWS's name for it."""
    text = (
        API
        + "Outputs:\n"
        + "".join(f"  {name}: {{Value: !GetAtt {name}.ApiEndpoint}}\n" for name in ("First", "Second", "Http"))
    )
    hosts = Surroundings(api_hosts=("localhost:8001", "localhost:8002"))
    here = stack_of(tmp_path, text, surroundings=hosts)
    assert here.outputs["First"] == "wss://localhost:8001"
    assert here.outputs["Second"] == "wss://localhost:8002"
    assert re.fullmatch(r"https://\w{10}\.execute-api\.us-east-1\.amazonaws\.com", here.outputs["Http"])
    away = stack_of(tmp_path, text)
    assert away.outputs["First"] == f"wss://{away.apis[0].id}.execute-api.us-east-1.amazonaws.com"


def test_names_are_of_the_surroundings(tmp_path: Path) -> None:
    """Stack, region, account and the address of SQS are those that the caller says."""
    around = Surroundings(stack_name="chat", region="eu-west-1", account="210987654321", sqs_url="http://sqs:1/")
    text = """\
        Resources: {Q: {Type: AWS::SQS::Queue}}
        Outputs:
          Url: {Value: !Ref Q}
          Arn: {Value: !GetAtt Q.Arn}
          Id: {Value: !Ref AWS::StackId}
          Zone: {Value: !Select [0, !GetAZs ""]}
        """
    outputs = stack_of(tmp_path, text, surroundings=around).outputs
    assert outputs["Url"] == "http://sqs:1/210987654321/chat-Q"
    assert outputs["Arn"] == "arn:aws:sqs:eu-west-1:210987654321:chat-Q"
    assert outputs["Zone"] == "eu-west-1a"
    assert re.fullmatch(r"arn:aws:cloudformation:eu-west-1:210987654321:stack/chat/[0-9a-f-]{36}", outputs["Id"])


def test_generated_names_keep_to_their_services_limits(tmp_path: Path) -> None:
    """A long logical id makes a name that the service takes, and two long ones make two names."""
    long = "A" * 100
    queue, bucket = "{Type: AWS::SQS::Queue, Properties: {FifoQueue: true}}", "{Type: AWS::S3::Bucket}"
    text = "Resources:\n" + "".join(f"  {long}{n}: {queue}\n  {long}B{n}: {bucket}\n" for n in (1, 2))
    names = [resource.name for resource in stack_of(tmp_path, text).resources]
    assert len(set(names)) == 4
    assert all(len(name) <= (80 if name.endswith(".fifo") else 63) for name in names)
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in names if not name.endswith(".fifo"))


def test_a_table_without_a_stream_has_no_stream_arn(tmp_path: Path) -> None:
    """Asking for the stream of a table that has none is an error, as on AWS."""
    text = "Resources:\n  T: {Type: AWS::DynamoDB::Table}\nOutputs: {S: {Value: !GetAtt T.StreamArn}}\n"
    assert (
        "expected an attribute of T (AWS::DynamoDB::Table; it has Arn), got 'StreamArn'"
        in failure_of(tmp_path, text).what
    )


def test_made_up_values_fit_where_lists_are_expected(tmp_path: Path) -> None:
    """What only AWS would know can be split, selected from and joined, so that the rest of a template still loads."""
    rest = "Resources: {E: {Type: AWS::EC2::VPCEndpoint}, D: {Type: AWS::RDS::DBProxy}}"
    assert value_of(tmp_path, "!Select [3, !GetAtt E.DnsEntries]", rest=rest) == "E.DnsEntries"
    assert value_of(tmp_path, "!Join [',', !GetAtt E.NetworkInterfaceIds]", rest=rest) == "E.NetworkInterfaceIds"
    assert value_of(tmp_path, "!Select [6, !Split [':', !GetAtt D.DBProxyArn]]", rest=rest) == "D.DBProxyArn"


def test_layer_versions_of_one_name_are_counted(tmp_path: Path) -> None:
    """Two versions of one layer have ARNs of their own."""
    text = """\
        Resources:
          A: {Type: AWS::Lambda::LayerVersion, Properties: {LayerName: l, Content: src}}
          B: {Type: AWS::Lambda::LayerVersion, Properties: {LayerName: l, Content: src}}
          C: {Type: AWS::Lambda::LayerVersion, Properties: {Content: src}}
        Outputs: {It: {Value: !Sub "${A} ${B} ${C.LayerVersionArn}"}}
        """
    base = f"arn:aws:lambda:{ACCOUNT}:layer"
    assert stack_of(tmp_path, text).outputs["It"] == f"{base}:l:1 {base}:l:2 {base}:C:1"
