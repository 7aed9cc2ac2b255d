"""HTTP APIs in templates: SAM's, CloudFormation's routes, an OpenAPI document, quick create; ports and addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubbub.emulator.definition import Surroundings
from templatelab import SAM, failure_of, meaning_of, stack_of

FUNCTION = """\
Resources:
  F: {Type: AWS::Lambda::Function, Properties: {Runtime: python3.12, Handler: a.b, Code: src, Role: r}}
"""

BASE = (
    FUNCTION
    + """\
  Api: {Type: AWS::ApiGatewayV2::Api, Properties: {Name: backend, ProtocolType: HTTP}}
  Stage: {Type: AWS::ApiGatewayV2::Stage, Properties: {ApiId: !Ref Api, StageName: $default, AutoDeploy: true}}
  Call:
    Type: AWS::ApiGatewayV2::Integration
    Properties:
      {ApiId: !Ref Api, IntegrationType: AWS_PROXY, IntegrationUri: !GetAtt F.Arn, PayloadFormatVersion: '2.0'}
"""
)

ARN = "arn:aws:lambda:us-east-1:123456789012:function:local-F"


def route(key: str, more: str = "Target: !Sub 'integrations/${Call}'", name: str = "R") -> str:
    """A route of it."""
    return f"  {name}: {{Type: AWS::ApiGatewayV2::Route, Properties: {{ApiId: !Ref Api, RouteKey: '{key}', {more}}}}}\n"


def test_routes_call_functions(tmp_path: Path) -> None:
    """A route has its key, its function's ARN, the payload's format and its time-out; the integration may be shared."""
    stack = stack_of(tmp_path, BASE + route("ANY /v1/{proxy+}") + route("$default", name="S"))
    (api,) = stack.http_apis
    assert (api.name, [stage.name for stage in api.stages]) == ("backend", ["$default"])
    assert [(each.key, each.function, each.payload, each.timeout_ms) for each in api.routes] == [
        ("ANY /v1/{proxy+}", ARN, "2.0", 30_000),
        ("$default", ARN, "2.0", 30_000),
    ]
    assert not stack.unsupported


def test_sam_describes_its_api_in_a_document(tmp_path: Path) -> None:
    """What SAM makes of its events, with formats, time-outs and named stages, is served; its authorizers are named."""
    text = (
        SAM
        + """\
Resources:
  Backend:
    Type: AWS::Serverless::HttpApi
    Properties:
      StageName: prod
      Auth: {Authorizers: {A: {IdentitySource: $request.header.X, JwtConfiguration: {issuer: x, audience: [a]}}}}
  F:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.12
      Handler: a.b
      CodeUri: src
      Events:
        All: {Type: HttpApi, Properties: {ApiId: !Ref Backend}}
        One:
          Type: HttpApi
          Properties:
            ApiId: !Ref Backend
            Path: /rooms/{room}
            Method: get
            Auth: {Authorizer: A}
            PayloadFormatVersion: '1.0'
            TimeoutInMillis: 1000
"""
    )
    stack = stack_of(tmp_path, text)
    (api,) = stack.http_apis
    assert (api.name, [stage.name for stage in api.stages]) == ("local", ["prod"])
    found = {each.key: (each.function, each.payload, each.timeout_ms) for each in api.routes}
    assert found == {"$default": (ARN, "2.0", 30_000), "GET /rooms/{room}": (ARN, "1.0", 1_000)}
    assert "whoever calls is let through" in meaning_of(stack, "Backend")


def test_quick_create_makes_a_route_and_a_stage(tmp_path: Path) -> None:
    """An API with a Target has `$default` twice: all goes to that function."""
    api = "  Api: {Type: AWS::ApiGatewayV2::Api, Properties: {Name: q, ProtocolType: HTTP, Target: !GetAtt F.Arn}}\n"
    (found,) = stack_of(tmp_path, FUNCTION + api).http_apis
    assert [(each.key, each.function) for each in found.routes] == [("$default", ARN)]
    assert [stage.name for stage in found.stages] == ["$default"]


def test_each_api_has_a_host_of_its_own_kind(tmp_path: Path) -> None:
    """WebSocket APIs take theirs from one list and HTTP APIs from another, whatever their order in the template."""
    text = (
        BASE
        + """\
  Talk:
    Type: AWS::ApiGatewayV2::Api
    Properties: {Name: t, ProtocolType: WEBSOCKET, RouteSelectionExpression: $request.body.action}
Outputs:
  Http: {Value: !GetAtt Api.ApiEndpoint}
  Talk: {Value: !GetAtt Talk.ApiEndpoint}
"""
    )
    around = Surroundings(api_hosts=("127.0.0.1:1",), http_hosts=("127.0.0.1:2",))
    stack = stack_of(tmp_path, text, surroundings=around)
    assert stack.outputs == {"Http": "https://127.0.0.1:2", "Talk": "wss://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("text", "logical_id", "said"),
    [
        (BASE + route("GET /a", "AuthorizationType: JWT, Target: !Sub 'integrations/${Call}'"), "R", "JWT is not"),
        (BASE.replace("AWS_PROXY", "HTTP_PROXY") + route("GET /a"), "Call", "of type HTTP_PROXY is not made"),
        (BASE.replace("Name: backend,", "CorsConfiguration: {AllowOrigins: ['*']},"), "Api", "CORS"),
        (BASE.replace("Name: backend,", "BodyS3Location: {Bucket: b, Key: k},"), "Api", "is in S3"),
        (FUNCTION + "  Api: {Type: AWS::ApiGatewayV2::Api, Properties: {ProtocolType: HTTP}}\n", "Api", "no AWS::ApiG"),
    ],
)
def test_what_is_otherwise_is_named(tmp_path: Path, text: str, logical_id: str, said: str) -> None:
    """Authorizers, other integrations, CORS, documents elsewhere and a missing stage are said, and the rest runs."""
    assert said in meaning_of(stack_of(tmp_path, text), logical_id)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (route("GET"), "R: expected $default or a method of"),
        (route("FLY /a"), "R: expected $default or a method of"),
        (route("GET /a") + route("GET /a", name="S"), "S: expected a key of its own"),
        (route("GET /a", "Target: integrations/none"), "R: expected integrations/ and the id of an integration"),
    ],
)
def test_routes_that_are_none_are_errors(tmp_path: Path, text: str, what: str) -> None:
    """A key that is none, a key that is taken and a target that is not there are said with their resource."""
    assert what in str(failure_of(tmp_path, BASE + text))


@pytest.mark.parametrize(("key", "value"), [("PayloadFormatVersion: '2.0'", "'3.0'"), ("TimeoutInMillis: 1", "30001")])
def test_formats_and_times_that_aws_does_not_have_are_errors(tmp_path: Path, key: str, value: str) -> None:
    """A payload format is 1.0 or 2.0, and a time-out at most 30 seconds."""
    name = key.partition(":")[0]
    text = BASE.replace("PayloadFormatVersion: '2.0'", f"{name}: {value}") + route("GET /a")
    assert f"as its {name}, got" in str(failure_of(tmp_path, text))
