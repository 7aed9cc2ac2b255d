"""`websocket` events make the API that the framework would make of them, under its logical ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubbub.emulator.template.errors import TemplateError
from servicelab import compiled, named, properties


def test_routes_share_their_functions_integration(tmp_path: Path) -> None:
    """A route goes to the integration of its function, in the API that all routes are in."""
    service = compiled(
        tmp_path,
        """
        functions:
          my-fn_1:
            handler: app.handler
            events:
              - websocket: $connect
              - websocket: {route: rooms/say-it_now.v1}
        """,
    )
    resources = service.template["Resources"]
    assert properties(service, "WebsocketsApi") == {
        "Name": "dev-chat-websockets",
        "RouteSelectionExpression": "$request.body.action",
        "Description": "Serverless Websockets",
        "ProtocolType": "WEBSOCKET",
    }
    assert [key for key, value in resources.items() if value["Type"] == "AWS::ApiGatewayV2::Integration"] == [
        "MyDashfnUnderscore1WebsocketsIntegration"
    ]
    for logical_id, key in {
        "SconnectWebsocketsRoute": "$connect",
        "roomsSlashsayDashitUnderscorenowPeriodv1WebsocketsRoute": "rooms/say-it_now.v1",
    }.items():
        assert properties(service, logical_id) == {
            "ApiId": {"Ref": "WebsocketsApi"},
            "RouteKey": key,
            "AuthorizationType": "NONE",
            "Target": {"Fn::Join": ["/", ["integrations", {"Ref": "MyDashfnUnderscore1WebsocketsIntegration"}]]},
        }
    uri = properties(service, "MyDashfnUnderscore1WebsocketsIntegration")["IntegrationUri"]["Fn::Join"][1]
    assert uri[-2:] == [{"Fn::GetAtt": ["MyDashfnUnderscore1LambdaFunction", "Arn"]}, "/invocations"]


def test_the_stage_has_its_deployment_which_waits_for_the_routes(tmp_path: Path) -> None:
    """The stage is the service's, and the deployment is another where the routes are others."""
    text = "functions: {a: {handler: app.a, events: [{websocket: one}]}}"
    first = compiled(tmp_path, text, options={"stage": "live"})
    stage = properties(first, "WebsocketsDeploymentStage")
    assert stage["StageName"] == "live"
    deployment = first.template["Resources"][stage["DeploymentId"]["Ref"]]
    assert deployment["Type"] == "AWS::ApiGatewayV2::Deployment"
    assert deployment["DependsOn"] == ["oneWebsocketsRoute"]
    endpoint = first.template["Outputs"]["ServiceEndpointWebsocket"]
    assert endpoint["Value"]["Fn::Join"][1][-1] == "/live"
    assert endpoint["Export"] == {"Name": "sls-chat-live-ServiceEndpointWebsocket"}
    second = compiled(tmp_path, text.replace("one", "two"), options={"stage": "live"})
    assert properties(second, "WebsocketsDeploymentStage")["DeploymentId"] != stage["DeploymentId"]


def test_a_two_way_route_has_a_response(tmp_path: Path) -> None:
    """The expression and the route response come together."""
    event = "{route: ask, routeResponseSelectionExpression: $default}"
    service = compiled(tmp_path, f"functions: {{a: {{handler: app.a, events: [{{websocket: {event}}}]}}}}")
    assert properties(service, "askWebsocketsRoute")["RouteResponseSelectionExpression"] == "$default"
    assert properties(service, "askWebsocketsRouteResponse") == {
        "ApiId": {"Ref": "WebsocketsApi"},
        "RouteId": {"Ref": "askWebsocketsRoute"},
        "RouteResponseKey": "$default",
    }


OWN = {"Fn::GetAtt": ["GuardLambdaFunction", "Arn"]}
OTHER = "arn:aws:lambda:us-east-1:123456789012:function:other"


@pytest.mark.parametrize(
    ("written", "name", "target", "sources"),
    [
        ("guard", "guard", OWN, ["route.request.header.Auth"]),
        ("{name: guard}", "guard", OWN, ["route.request.header.Auth"]),
        (
            "{name: guard, identitySource: route.request.querystring.token}",
            "guard",
            OWN,
            ["route.request.querystring.token"],
        ),
        ("{name: guard, identitySource: [a, b]}", "guard", OWN, ["a", "b"]),
        ("{name: guard, identitySource: []}", "guard", OWN, []),
        (OTHER, "other", OTHER, ["route.request.header.Auth"]),
        (f"{{arn: '{OTHER}', identitySource: [a]}}", "other", OTHER, ["a"]),
        (
            "{name: mine, arn: !GetAtt Thing.Arn}",
            "mine",
            {"Fn::GetAtt": ["Thing", "Arn"]},
            ["route.request.header.Auth"],
        ),
    ],
)
def test_an_authorizer_is_a_function_or_an_arn(
    tmp_path: Path, written: str, name: str, target: object, sources: list[str]
) -> None:
    """Every form of an authorizer gives its name, whom it asks and what must be there."""
    service = compiled(
        tmp_path,
        f"""
        functions:
          guard: {{handler: app.guard}}
          a:
            handler: app.a
            events:
              - websocket:
                  route: $connect
                  authorizer: {written}
        """,
    )
    logical_id = f"{name.capitalize()}WebsocketsAuthorizer"
    authorizer = properties(service, logical_id)
    assert authorizer["Name"] == name
    assert authorizer["AuthorizerType"] == "REQUEST"
    assert authorizer["AuthorizerUri"]["Fn::Join"][1][-2] == target
    assert authorizer["IdentitySource"] == sources
    route = properties(service, "SconnectWebsocketsRoute")
    assert (route["AuthorizationType"], route["AuthorizerId"]) == ("CUSTOM", {"Ref": logical_id})


@pytest.mark.parametrize(
    ("event", "what"),
    [
        ("5", "expected a mapping as websocket, got 5"),
        ("{authorizer: a}", "expected a route"),
        ("{route: [a]}", "expected a string as route, got a list"),
        ("{route: $connect, authorizer: nobody}", "the authorizer 'nobody' is none of the service's functions"),
        ("{route: $connect, authorizer: {identitySource: a}}", "expected a name or an arn in authorizer"),
        ("{route: $connect, authorizer: {arn: !Ref X}}", "expected a name beside an authorizer's arn"),
    ],
)
def test_an_event_that_is_not_described_as_one_is_said_with_its_line(tmp_path: Path, event: str, what: str) -> None:
    """A mistake in an event is said with its place."""
    with pytest.raises(TemplateError, match=what) as raised:
        compiled(tmp_path, f"functions:\n  a:\n    handler: app.a\n    events:\n      - websocket: {event}\n")
    assert raised.value.line == 10


def test_the_provider_names_the_api(tmp_path: Path) -> None:
    """Name, expression, description and logging are the provider's."""
    head = """
service: chat
provider:
  name: aws
  websocketsApiName: talks
  websocketsApiRouteSelectionExpression: $request.body.type
  websocketsDescription: Talks
  logs: {websocket: {level: ERROR, accessLogging: false}, restApi: "${ssm:/not/looked/at}"}
"""
    service = compiled(tmp_path, "functions: {a: {handler: app.a, events: [{websocket: one}]}}", head=head)
    api, stage = properties(service, "WebsocketsApi"), properties(service, "WebsocketsDeploymentStage")
    assert (api["Name"], api["RouteSelectionExpression"], api["Description"]) == (
        "talks",
        "$request.body.type",
        "Talks",
    )
    assert stage["DefaultRouteSettings"] == {"DataTraceEnabled": True, "LoggingLevel": "ERROR"}
    assert "AccessLogSettings" not in stage


def test_names_that_the_framework_ignores_are_named(tmp_path: Path) -> None:
    """An old tutorial's names have no effect, as with the framework, and that is said."""
    head = "service: chat\nprovider: {name: aws, websocketApiName: x, websocketApiRouteSelectionExpression: y}\n"
    service = compiled(tmp_path, "functions: {a: {handler: app.a, events: [{websocket: one}]}}", head=head)
    assert properties(service, "WebsocketsApi")["RouteSelectionExpression"] == "$request.body.action"
    assert "provider.websocketsApiName" in named(service)["websocketApiName provider"]


def test_an_api_of_another_stack_is_stood_in_for(tmp_path: Path) -> None:
    """The service gets an API of its own, which is said."""
    head = (
        "service: chat\nprovider: {name: aws, apiGateway: {websocketApiId: !ImportValue api, apiKeys: ['${ssm:/k}']}}\n"
    )
    service = compiled(tmp_path, "functions: {a: {handler: app.a, events: [{websocket: one}]}}", head=head)
    assert properties(service, "oneWebsocketsRoute")["ApiId"] == {"Ref": "WebsocketsApi"}
    assert "API of another stack" in named(service)["WebsocketsApi provider.apiGateway.websocketApiId"]


def test_without_a_websocket_event_there_is_no_api(tmp_path: Path) -> None:
    """Nothing of an API is made for nothing."""
    service = compiled(tmp_path, "functions: {a: {handler: app.a}}")
    assert not [key for key in service.template["Resources"] if "Websockets" in key]
