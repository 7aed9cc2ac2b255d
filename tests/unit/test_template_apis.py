from __future__ import annotations

from pathlib import Path

import pytest

from hubbub.apigateway import Rate
from hubbub.emulator.definition import ApiDefinition, DomainMapping
from hubbub.gateway.integrations import Integration, IntegrationResponse
from templatelab import TEMPLATES, failure_of, loaded, meaning_of, route_of, stack_of

ACCOUNT = "us-east-1:123456789012"

BASE = """\
Resources:
  Api:
    Type: AWS::ApiGatewayV2::Api
    Properties: {Name: a, ProtocolType: WEBSOCKET, RouteSelectionExpression: $request.body.action}
  Stage:
    Type: AWS::ApiGatewayV2::Stage
    Properties: {ApiId: !Ref Api, StageName: dev, AutoDeploy: true}
  Mock:
    Type: AWS::ApiGatewayV2::Integration
    Properties: {ApiId: !Ref Api, IntegrationType: MOCK}
"""


def part(name: str, kind: str, properties: str) -> str:
    """A part of the API, to be put behind `BASE`."""
    return f"  {name}:\n    Type: AWS::ApiGatewayV2::{kind}\n    Properties: {{ApiId: !Ref Api, {properties}}}\n"


def route(key: str, more: str = "Target: !Sub 'integrations/${Mock}'", name: str = "R") -> str:
    """A route."""
    return part(name, "Route", f"RouteKey: {key}, {more}")


def services(tmp_path: Path) -> ApiDefinition:
    """The API of the sample whose routes reach services."""
    return loaded(TEMPLATES / "cfn-services" / "template.json", tmp_path).apis[0]


def test_a_service_integration_has_all_that_is_written(tmp_path: Path) -> None:
    """An AWS integration keeps its templates, parameters, time-out, pass-through and content handling."""
    integration = route_of(services(tmp_path), "chat/say").integration
    assert integration == Integration(
        type="AWS",
        uri="arn:aws:apigateway:us-east-1:sqs:path/123456789012/local-Queue.fifo",
        method="POST",
        request_templates={"$default": "Action=SendMessage&MessageBody=$util.urlEncode($input.body)"},
        request_parameters={"integration.request.header.Content-Type": "'application/x-www-form-urlencoded'"},
        passthrough="NEVER",
        content_handling="CONVERT_TO_TEXT",
        timeout_ms=3000,
        responses=(
            IntegrationResponse(
                key="/2\\d\\d/",
                template_selection_expression="\\$default",
                templates={"$default": '{"queued": true}'},
                parameters={"route.response.header.X-Queue": "'yes'"},
            ),
        ),
    )


def test_other_integrations_are_read(tmp_path: Path) -> None:
    """MOCK and HTTP integrations are what they say."""
    api = services(tmp_path)
    assert route_of(api, "$connect").integration == Integration(
        type="MOCK", template_selection_expression="200", request_templates={"200": '{"statusCode": 200}'}
    )
    assert route_of(api, "$default").integration == Integration(
        type="HTTP_PROXY",
        uri="https://backend.example/hooks",
        method="PUT",
        request_parameters={"integration.request.header.ConnectionId": "context.connectionId"},
    )


def test_what_a_handshake_needs_is_on_its_route(tmp_path: Path) -> None:
    """IAM, API key and the parameters that are required are those of `$connect`; the optional ones are not."""
    api = services(tmp_path)
    connect = route_of(api, "$connect")
    assert (connect.authorization, connect.authorizer, connect.api_key_required) == ("AWS_IAM", None, True)
    assert connect.required_parameters == ("route.request.querystring.room",)
    assert api.api_key_selection_expression == "$context.authorizer.usageIdentifierKey"
    assert [value for _, value in api.api_keys] == ["a-key-of-at-least-twenty-characters"]


def test_models_and_answers_are_on_their_route(tmp_path: Path) -> None:
    """A model is found by its name, and a route is two-way that has the expression and the response."""
    say = route_of(services(tmp_path), "chat/say")
    assert say.models == {"$default": {"type": "object", "required": ["text"]}}
    assert (say.model_selection_expression, say.two_way) == ("$default", True)
    assert not route_of(services(tmp_path), "$default").two_way


def test_stages_and_domains_are_read(tmp_path: Path) -> None:
    """An API has all its stages with their variables, and a domain leads to one of them."""
    api = services(tmp_path)
    assert [(stage.name, stage.variables) for stage in api.stages] == [("v1", {"fn": "x"}), ("v2", {})]
    assert api.domains == (DomainMapping(host="chat.example.org", path="live", stage="v1"),)


def test_a_model_may_be_referred_to_and_written_as_text(tmp_path: Path) -> None:
    """A model's id and a schema in JSON text do as well as its name and a mapping."""
    text = BASE + part("M", "Model", 'Name: Any, Schema: \'{"type": "string"}\'')
    text += route("say", "RequestModels: {a: !Ref M, b: Any}")
    models = route_of(stack_of(tmp_path, text).apis[0], "say").models
    assert models == {"a": {"type": "string"}, "b": {"type": "string"}}


def test_a_route_without_an_integration_is_one(tmp_path: Path) -> None:
    """A route needs no target."""
    assert (
        route_of(stack_of(tmp_path, BASE + route("$connect", "OperationName: x")).apis[0], "$connect").integration
        is None
    )


def test_an_authorizer_is_its_function(tmp_path: Path) -> None:
    """A REQUEST authorizer has the ARN in its address, with alias and stage variables, and its identity sources."""
    function = f"arn:aws:lambda:{ACCOUNT}:function:auth:${{!stageVariables.alias}}"
    uri = f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{function}/invocations"
    text = BASE + route("$connect", "AuthorizationType: CUSTOM, AuthorizerId: !Ref A")
    sources = "[route.request.header.Auth, context.stage]"
    text += part(
        "A", "Authorizer", f"Name: n, AuthorizerType: REQUEST, AuthorizerUri: !Sub '{uri}', IdentitySource: {sources}"
    )
    authorizer = route_of(stack_of(tmp_path, text).apis[0], "$connect").authorizer
    assert authorizer is not None
    assert authorizer.function == function.replace("!", "")
    assert (authorizer.name, authorizer.identity_sources) == ("n", ("route.request.header.Auth", "context.stage"))


def test_rates_are_completed_by_the_accounts(tmp_path: Path) -> None:
    """A stage that limits just the rate or just the burst has the account's for the other; none means none."""
    text = BASE + part("S", "Stage", "StageName: s, AutoDeploy: true, DefaultRouteSettings: {ThrottlingRateLimit: '7'}")
    text += part("T", "Stage", "StageName: t, AutoDeploy: true, RouteSettings: {a: {ThrottlingBurstLimit: 3}, b: {}}")
    dev, some, single = stack_of(tmp_path, text).apis[0].stages
    assert (dev.rate, dev.route_rates) == (None, {})
    assert some.rate == Rate(7.0, 5_000)
    assert (single.rate, single.route_rates) == (None, {"a": Rate(10_000, 3)})


def test_a_route_that_is_not_deployed_is_served_and_named(tmp_path: Path) -> None:
    """What a deployment does not depend on is here, and it is said that AWS's stage may lack it."""
    stack = loaded(TEMPLATES / "sam-classic", tmp_path)
    assert [one.logical_id for one in stack.unsupported] == ["LateRoute"]
    assert "on AWS the stage Prod may lack it" in meaning_of(stack, "LateRoute")


def test_a_deployment_may_depend_on_routes_at_a_distance(tmp_path: Path) -> None:
    """A route that something else stands between is deployed; a stage with AutoDeploy needs no deployment."""
    text = BASE.replace(", AutoDeploy: true", ", DeploymentId: !Ref D") + route("a")
    text += "  Between: {Type: AWS::SNS::Topic, DependsOn: R}\n"
    text += "  D: {Type: AWS::ApiGatewayV2::Deployment, DependsOn: Between, Properties: {ApiId: !Ref Api}}\n"
    assert stack_of(tmp_path, text).unsupported == ()
    assert stack_of(tmp_path, BASE + route("a")).unsupported == ()
    undeployed = stack_of(tmp_path, BASE.replace(", AutoDeploy: true", "") + route("a"))
    assert "on AWS it has no routes" in meaning_of(undeployed, "Stage")


@pytest.mark.parametrize(
    ("more", "logical_id", "said"),
    [
        (
            route("a", "RouteResponseSelectionExpression: $default"),
            "R",
            "clients are not sent what its function returns",
        ),
        (route("a", "AuthorizationType: AWS_IAM"), "R", "authorizes at $connect only"),
        (
            part("V", "Integration", "IntegrationType: HTTP, IntegrationUri: 'http://x', ConnectionType: VPC_LINK"),
            "V",
            "VPC link is left out",
        ),
        ("  L: {Type: AWS::ApiGatewayV2::VpcLink, Properties: {Name: l, SubnetIds: []}}\n", "L", "there is no VPC"),
        (route("a").replace("!Ref Api", "abc123defg", 1), "R", "belongs to the API 'abc123defg'"),
    ],
)
def test_what_an_api_has_and_is_not_done_is_named(tmp_path: Path, more: str, logical_id: str, said: str) -> None:
    """Parts of an API without effect are named with what that means."""
    text = BASE + (part("Used", "Integration", "IntegrationType: MOCK") if "!Ref Api" in more else "") + more
    assert said in meaning_of(stack_of(tmp_path, text), logical_id)


def test_an_api_without_a_stage_is_named(tmp_path: Path) -> None:
    """Nobody can connect to an API that is not deployed anywhere."""
    text = BASE.replace("  Stage:\n", "  Unused:\n").replace("ApiGatewayV2::Stage", "SNS::Topic")
    text = text.replace("ApiId: !Ref Api, StageName: dev, AutoDeploy: true", "TopicName: t")
    assert "no AWS::ApiGatewayV2::Stage" in meaning_of(stack_of(tmp_path, text), "Api")


def test_an_http_api_is_none_of_the_websocket_apis(tmp_path: Path) -> None:
    """It is found among the HTTP APIs, and what it has that they have not is named."""
    text = (BASE + route("$default")).replace("WEBSOCKET", "HTTP")
    stack = stack_of(tmp_path, text)
    assert (stack.apis, [api.logical_id for api in stack.http_apis]) == ((), ["Api"])
    assert "integration of type MOCK is not made" in meaning_of(stack, "Mock")


def test_keys_open_only_what_their_plan_is_for(tmp_path: Path) -> None:
    """A key counts where its usage plan has the API; one that is disabled or in no plan does not."""
    text = (
        BASE
        + """\
  Made: {Type: AWS::ApiGateway::ApiKey, Properties: {Enabled: true}}
  Off: {Type: AWS::ApiGateway::ApiKey, Properties: {Enabled: false, Value: off}}
  Loose: {Type: AWS::ApiGateway::ApiKey, Properties: {Enabled: true, Value: loose}}
  Foreign: {Type: AWS::ApiGateway::ApiKey, Properties: {Enabled: true, Value: foreign}}
  Plan:
    Type: AWS::ApiGateway::UsagePlan
    Properties: {ApiStages: [{ApiId: !Ref Api, Stage: !Ref Stage}], Throttle: {RateLimit: 5}}
  Other: {Type: AWS::ApiGateway::UsagePlan, Properties: {ApiStages: [{ApiId: rest123456, Stage: x}]}}
  A: {Type: AWS::ApiGateway::UsagePlanKey, Properties: {KeyId: !Ref Made, KeyType: API_KEY, UsagePlanId: !Ref Plan}}
  B: {Type: AWS::ApiGateway::UsagePlanKey, Properties: {KeyId: !Ref Off, KeyType: API_KEY, UsagePlanId: !Ref Plan}}
  C: {Type: AWS::ApiGateway::UsagePlanKey, Properties: {KeyId: !Ref Foreign, KeyType: API_KEY, UsagePlanId: !Ref Other}}
Outputs: {It: {Value: !Ref Made}}
"""
    )
    stack = stack_of(tmp_path, text)
    ((id_, value),) = stack.apis[0].api_keys
    assert id_ == stack.outputs["It"]
    assert (len(value), value.isalnum()) == (40, True)
    assert stack_of(tmp_path, text).apis[0].api_keys == ((id_, value),)
    assert "throttle and quota are not applied" in meaning_of(stack, "Plan")


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (route("a", "Target: integrations/none"), "R: expected integrations/ and the id of an integration of its API"),
        (route("a", "Target: !Ref Mock"), "R: expected integrations/ and the id of an integration"),
        (route("a") + route("a", name="S"), "S: expected a key of its own, and 'a' is another route's"),
        (route("$connect", "AuthorizationType: CUSTOM"), "R: expected text as its AuthorizerId, got nothing"),
        (
            route("$connect", "AuthorizationType: CUSTOM, AuthorizerId: x"),
            "R: expected the id of an authorizer of its API",
        ),
        (route("$connect", "AuthorizationType: JWT"), "R: expected NONE, AWS_IAM, CUSTOM as its AuthorizationType"),
        (
            route("$connect", "AuthorizationType: CUSTOM, AuthorizerId: !Ref A")
            + part("A", "Authorizer", "Name: a, AuthorizerType: JWT"),
            "A: expected REQUEST, got 'JWT'",
        ),
        (route("a", "RequestModels: {$default: Nope}"), "R: expected models of its API, got Nope"),
        (route("a", "ApiKeyRequired: maybe"), "R: expected true or false as its ApiKeyRequired, got 'maybe'"),
        (
            route("a", "RequestModels: {$default: N}") + part("M", "Model", "Name: N, Schema: '{'"),
            "M: expected a JSON schema as its Schema",
        ),
        (part("I", "Integration", "IntegrationType: LAMBDA"), "I: expected AWS_PROXY, AWS, HTTP, HTTP_PROXY, MOCK"),
        (part("I", "Integration", "IntegrationType: HTTP"), "I: expected an IntegrationUri, which HTTP must have"),
        (
            part("I", "Integration", "IntegrationType: MOCK, TimeoutInMillis: 30000"),
            "I: expected 50 to 29000 as its TimeoutInMillis, got 30000",
        ),
        (part("I", "Integration", "IntegrationType: MOCK, PassthroughBehavior: SOME"), "as its PassthroughBehavior"),
        (
            part("I", "Integration", "IntegrationType: MOCK, RequestTemplates: x"),
            "expected a mapping as its RequestTemplates",
        ),
        (part("S", "Stage", "StageName: s, RouteSettings: {a: 1}"), "S: expected a mapping in its RouteSettings"),
        (
            part("S", "Stage", "StageName: s, DefaultRouteSettings: {ThrottlingRateLimit: fast}"),
            "S: expected numbers as its throttling limits",
        ),
        ("  P: {Type: AWS::ApiGateway::UsagePlan, Properties: {ApiStages: [a]}}\n", "P: expected mappings with ApiId"),
        (part("M", "ApiMapping", "DomainName: d, Stage: prod"), "M: expected a stage of its API (dev), got 'prod'"),
    ],
)
def test_parts_that_do_not_fit_are_errors(tmp_path: Path, more: str, what: str) -> None:
    """What refers to nothing, or has a value that API Gateway does not know, is an error with its logical id."""
    failure = failure_of(tmp_path, BASE + more)
    assert what in failure.what
    assert failure.line is not None
    assert failure.line > 10


def test_a_websocket_api_must_say_how_routes_are_selected(tmp_path: Path) -> None:
    """An API without a route selection expression is an error."""
    failure = failure_of(tmp_path, BASE.replace(", RouteSelectionExpression: $request.body.action", ""))
    assert "Api: expected a RouteSelectionExpression" in failure.what
