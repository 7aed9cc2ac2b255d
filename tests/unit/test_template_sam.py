from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

from hubbub.apigateway import Rate
from hubbub.emulator.definition import Surroundings
from hubbub.emulator.template import TemplateError, find_template, load
from templatelab import SAM, TEMPLATES, failure_of, function_of, loaded, meaning_of, resource_of, route_of, stack_of

WEBSOCKET = "Type: AWS::Serverless::WebSocketApi, Properties: "
CHAT = TEMPLATES / "sam-chat" / "template.yaml"


def test_sams_own_websocket_api_is_an_api_with_its_routes(tmp_path: Path) -> None:
    """AWS::Serverless::WebSocketApi becomes an API with routes, an authorizer, one stage, its variables and rates."""
    stack = loaded(CHAT, tmp_path)
    (api,) = stack.apis
    assert stack.language == "sam"
    assert (api.logical_id, api.name, api.route_selection_expression) == (
        "ChatApi",
        "local-chat",
        "$request.body.action",
    )
    assert [route.key for route in api.routes] == ["$connect", "$disconnect", "send"]
    connect = route_of(api, "$connect")
    assert connect.authorization == "CUSTOM"
    assert connect.authorizer is not None
    assert connect.authorizer.function.endswith(":function:local-AuthorizerFunction")
    assert connect.authorizer.identity_sources == ("route.request.querystring.token",)
    (stage,) = api.stages
    assert (stage.name, stage.variables) == ("dev", {"theme": "dark"})
    assert (stage.rate, stage.route_rates) == (Rate(50, 20), {"send": Rate(5, 2)})


def test_a_route_of_sams_calls_its_function(tmp_path: Path) -> None:
    """A route's integration is a Lambda proxy to the function's ARN with the route's time-out, two-way if answered."""
    send = route_of(loaded(CHAT, tmp_path).apis[0], "send")
    assert send.integration is not None
    assert (send.integration.type, send.integration.timeout_ms, send.two_way) == ("AWS_PROXY", 5000, True)
    assert send.integration.uri == (
        "arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/"
        "arn:aws:lambda:us-east-1:123456789012:function:local-send/invocations"
    )


def test_globals_parameters_and_mappings_reach_the_functions(tmp_path: Path) -> None:
    """What Globals, parameters, mappings and conditions say of functions is in them, their own values first."""
    stack = loaded(CHAT, tmp_path, parameters={"StageName": "prod"})
    connect, send = function_of(stack, "ConnectFunction"), function_of(stack, "SendFunction")
    folder = TEMPLATES / "sam-chat"
    assert (connect.code, function_of(stack, "AuthorizerFunction").code) == (folder / "src", folder / "authorizer")
    assert (connect.memory_mb, connect.timeout_s, connect.environment["STAGE"]) == (1024, 15.0, "prod")
    api = stack.apis[0]
    assert send.environment == {
        "TABLE": "local-ConnectionsTable",
        "STAGE": "prod",
        "ENDPOINT": f"https://{api.id}.execute-api.us-east-1.amazonaws.com/prod",
        "DAYS": "30",
        "ORIGINS": "https://a.example|https://b.example",
    }
    assert (send.reserved_concurrency, send.max_retries) == (10, 1)
    assert resource_of(stack, "Archive").name == "archive-prod"
    assert resource_of(stack, "OnlyInProduction").type == "AWS::SNS::Topic"


def test_a_queue_that_sam_makes_for_failures_is_made(tmp_path: Path) -> None:
    """A destination without an address is a queue of the stack's own, and the function's failures go there."""
    stack = loaded(CHAT, tmp_path)
    destination = function_of(stack, "SendFunction").on_failure
    queues = [f"arn:aws:sqs:us-east-1:123456789012:{one.name}" for one in stack.resources if "SQS" in one.type]
    assert [destination] == queues


def test_events_of_functions_are_sources(tmp_path: Path) -> None:
    """A function's DynamoDB and Schedule events are what invokes it."""
    stack = loaded(CHAT, tmp_path)
    changes, sweep = sorted(stack.sources, key=lambda source: source.kind)
    assert (changes.kind, changes.function, changes.batch_size) == ("dynamodb", "local-StreamFunction", 5)
    assert changes.source.startswith("arn:aws:dynamodb:us-east-1:123456789012:table/local-ConnectionsTable/stream/")
    assert changes.starting_position == "TRIM_HORIZON"
    assert (sweep.kind, sweep.source, sweep.input) == ("schedule", "rate(5 minutes)", '{"sweep": true}')


def test_nothing_that_runs_is_called_unsupported(tmp_path: Path) -> None:
    """A stack that runs here whole has nothing unsupported; permissions, roles and versions are just ignored."""
    stack = loaded(CHAT, tmp_path, parameters={"StageName": "prod", "AlertMail": "a@b.example"})
    assert stack.unsupported == ()
    assert {"SendFunctionRole", "SendFunctionAliaslive", "ChatApiConnectPermission"} <= set(stack.ignored)
    assert stack.outputs["Topic"] == "arn:aws:sns:us-east-1:123456789012:local-OnlyInProduction"


def test_what_sam_makes_stays_in_the_templates_order(tmp_path: Path) -> None:
    """Functions and APIs come in the order in which the template has them."""
    text = SAM + "Resources:\n"
    route = "Routes: {a: {FunctionArn: !GetAtt F.Arn}}"
    for name in ("Zed", "Alpha"):
        text += (
            f"  {name}: {{Type: AWS::Serverless::WebSocketApi, Properties: {{RouteSelectionExpression: x, {route}}}}}\n"
        )
    text += "  Old:\n    Type: AWS::ApiGatewayV2::Api\n"
    text += "    Properties: {Name: o, ProtocolType: WEBSOCKET, RouteSelectionExpression: x}\n"
    text += "  F: {Type: AWS::Serverless::Function, Properties: {Runtime: python3.12, Handler: a.b, CodeUri: src}}\n"
    text += "Outputs: {It: {Value: !GetAtt Old.ApiEndpoint}}\n"
    stack = stack_of(tmp_path, text, surroundings=Surroundings(api_hosts=("h:1", "h:2", "h:3")))
    assert [api.logical_id for api in stack.apis] == ["Zed", "Alpha", "Old"]
    assert stack.outputs == {"It": "wss://h:3"}


def test_the_classic_form_of_a_chat_is_read(tmp_path: Path) -> None:
    """Routes, integrations, deployment and stage written one by one give the same as SAM's own type."""
    stack = loaded(TEMPLATES / "sam-classic", tmp_path)
    (api,) = stack.apis
    assert [route.key for route in api.routes] == ["$connect", "sendmessage", "late"]
    assert [stage.name for stage in api.stages] == ["Prod"]
    assert all(route.integration is not None and not route.two_way for route in api.routes)
    assert {function.runtime for function in stack.functions} == {"nodejs22.x"}
    assert resource_of(stack, "ConnectionsTable").name == "simple_connections"
    assert stack.outputs["WebSocketURI"] == f"wss://{api.id}.execute-api.us-east-1.amazonaws.com/Prod"


def test_inline_code_in_sam_is_inline_code(tmp_path: Path) -> None:
    """InlineCode becomes a file below the work folder."""
    text = (
        SAM
        + """\
Resources:
  F:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.12
      Handler: index.handler
      InlineCode: |
        def handler(event, context):
            return {"statusCode": 200}
"""
    )
    code = function_of(stack_of(tmp_path, text), "F").code
    assert "statusCode" in (code / "index.py").read_text()


def test_a_path_may_be_made_of_parameters(tmp_path: Path) -> None:
    """CodeUri with an intrinsic function is resolved before the transform."""
    text = (
        SAM
        + """\
Parameters: {Where: {Type: String, Default: src}}
Resources:
  F:
    Type: AWS::Serverless::Function
    Properties: {Runtime: python3.12, Handler: a.b, CodeUri: !Sub "./${Where}"}
"""
    )
    assert function_of(stack_of(tmp_path, text), "F").code == tmp_path / "src"


def test_a_path_cannot_be_made_of_resources(tmp_path: Path) -> None:
    """CodeUri is needed before there is any resource, so a reference to one is an error."""
    properties = "{Runtime: python3.12, Handler: a.b, CodeUri: !Ref F}"
    failure = failure_of(
        tmp_path, f"{SAM}Resources:\n  F: {{Type: AWS::Serverless::Function, Properties: {properties}}}\n"
    )
    assert ("got the resource 'F'" in failure.what, failure.line) == (True, 3)


def test_code_in_a_bucket_is_named(tmp_path: Path) -> None:
    """CodeUri in S3, as text or as a mapping, is not here."""
    text = (
        SAM
        + """\
Resources:
  F: {Type: AWS::Serverless::Function, Properties: {Runtime: python3.12, Handler: a.b, CodeUri: s3://bucket/key}}
  G:
    Type: AWS::Serverless::Function
    Properties: {Runtime: python3.12, Handler: a.b, CodeUri: {Bucket: bucket, Key: key}}
"""
    )
    stack = stack_of(tmp_path, text)
    assert stack.functions == ()
    assert [one.logical_id for one in stack.unsupported] == ["F", "G"]


def test_http_events_are_named_and_the_rest_runs(tmp_path: Path) -> None:
    """Functions behind a REST API are there; it is named once and its parts not at all. An HTTP API runs."""
    text = (
        SAM
        + """\
Resources:
  F:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.12
      Handler: a.b
      CodeUri: src
      Events:
        Rest: {Type: Api, Properties: {Path: /a, Method: get}}
        Http: {Type: HttpApi, Properties: {Path: /b, Method: get}}
"""
    )
    stack = stack_of(tmp_path, text)
    assert [function.logical_id for function in stack.functions] == ["F"]
    (rest,) = stack.unsupported
    assert (rest.logical_id, rest.type) == ("ServerlessRestApi", "AWS::ApiGateway::RestApi")
    (http,) = stack.http_apis
    assert [route.key for route in http.routes] == ["GET /b"]
    assert [stage.name for stage in http.stages] == ["$default"]


def test_definitions_beside_the_template_do_not_stop_it(tmp_path: Path) -> None:
    """Local files of HTTP APIs and state machines go through the transform; a state machine has its definition."""
    (tmp_path / "api.yaml").write_text("openapi: '3.0'\n")
    (tmp_path / "flow.asl.yaml").write_text("StartAt: A\nStates: {A: {Type: Succeed}}\n")
    text = (
        SAM
        + """\
Resources:
  Rest: {Type: AWS::Serverless::Api, Properties: {StageName: x, DefinitionUri: api.yaml}}
  Flow: {Type: AWS::Serverless::StateMachine, Properties: {DefinitionUri: flow.asl.yaml}}
"""
    )
    stack = stack_of(tmp_path, text)
    flow = resource_of(stack, "Flow")
    assert flow.properties["DefinitionString"] == '{"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}'
    assert meaning_of(stack, "Rest").startswith("REST APIs do not run here")


@pytest.mark.parametrize(
    ("resource", "what"),
    [
        (
            WEBSOCKET + "{RouteSelectionExpression: x}",
            "Missing required property 'Routes'",
        ),
        (
            WEBSOCKET + "{RouteSelectionExpression: x, Routes: {a-b: {FunctionArn: x}}}",
            "Route key 'a-b' must be alphanumeric",
        ),
        ("Type: AWS::Serverless::LayerVersion, Properties: {LayerName: l}", "Missing required property 'ContentUri'"),
        ("Type: AWS::Serverless::Function, Properties: {InlineCode: x, Events: {E: {Type: Nothing}}}", "[It]"),
    ],
)
def test_what_sam_refuses_is_an_error_with_its_words_and_a_line(tmp_path: Path, resource: str, what: str) -> None:
    """The translator's own message comes with the file and the line of the resource that it names."""
    failure = failure_of(tmp_path, f"{SAM}Resources:\n  It: {{{resource}}}\n")
    assert what in failure.what
    assert failure.line == 3


def test_all_that_sam_refuses_is_said_at_once(tmp_path: Path) -> None:
    """Two mistakes are in one error."""
    text = SAM + "Resources:\n  A: {Type: AWS::Serverless::WebSocketApi}\n  B: {Type: AWS::Serverless::WebSocketApi}\n"
    failure = failure_of(tmp_path, text)
    assert "[A]" in failure.what
    assert "[B]" in failure.what


def test_a_shape_that_the_translator_does_not_expect_is_an_error(tmp_path: Path) -> None:
    """Where the translator itself breaks on a template, that is an error of ours and no traceback."""
    properties = "{RouteSelectionExpression: a, Routes: {a: 5}}"
    text = f"{SAM}Resources: {{W: {{Type: AWS::Serverless::WebSocketApi, Properties: {properties}}}}}\n"
    failure = failure_of(tmp_path, text)
    assert (failure.path.name, "the SAM translator failed with" in failure.what) == ("template.yaml", True)


def test_the_transform_needs_nothing_of_aws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without region, with a profile that is not there, and with errors, the transform keeps to itself."""
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_PROFILE", "of-nobody")
    before = dict(os.environ)
    with caplog.at_level(logging.DEBUG):
        loaded(CHAT, tmp_path, surroundings=Surroundings(region="eu-west-1"))
        with pytest.raises(TemplateError):
            stack_of(tmp_path, SAM + "Resources: {A: {Type: AWS::Serverless::WebSocketApi}}\n")
    assert dict(os.environ) == before
    assert [record for record in caplog.records if record.name.startswith("samtranslator")] == []
    assert capfd.readouterr() == ("", "")
    assert sys.modules["samtranslator.translator.arn_generator"].ArnGenerator.BOTO_SESSION_REGION_NAME is None


def test_the_region_is_that_of_the_surroundings(tmp_path: Path) -> None:
    """ARNs that the transform makes are of the region that the caller says."""
    stack = loaded(CHAT, tmp_path, surroundings=Surroundings(region="eu-west-1"))
    integration = stack.apis[0].routes[0].integration
    assert integration is not None
    assert integration.uri.startswith("arn:aws:apigateway:eu-west-1:lambda:path")
    assert ":lambda:eu-west-1:" in integration.uri


def test_a_template_is_found_in_its_folder(tmp_path: Path) -> None:
    """A folder means the template in it; one without any is an error that says what was looked for."""
    with pytest.raises(TemplateError, match=r"expected one of template\.yaml, template\.yml"):
        find_template(tmp_path)
    (tmp_path / "template.yml").write_text("Resources: {T: {Type: AWS::SNS::Topic}}\n")
    assert find_template(tmp_path) == tmp_path / "template.yml"
    stack = load(tmp_path, surroundings=Surroundings(), work=tmp_path / "work")
    assert (stack.path, stack.language, stack.watched) == (
        tmp_path / "template.yml",
        "cloudformation",
        (tmp_path / "template.yml",),
    )


def test_a_connector_and_policies_are_no_obstacle(tmp_path: Path) -> None:
    """Connectors, policy templates and managed policies become permissions, which nothing here checks."""
    text = (
        SAM
        + """\
Resources:
  T: {Type: AWS::Serverless::SimpleTable}
  F:
    Type: AWS::Serverless::Function
    Connectors: {C: {Properties: {Destination: {Id: T}, Permissions: [Read, Write]}}}
    Properties:
      Runtime: python3.12
      Handler: a.b
      CodeUri: src
      Policies: [AmazonDynamoDBFullAccess, SomethingThatAwsMadeLater, SQSPollerPolicy: {QueueName: q}]
"""
    )
    stack = stack_of(tmp_path, text)
    assert stack.unsupported == ()
    assert {"FC", "FCPolicy"} & set(stack.ignored) or "FRole" in stack.ignored
