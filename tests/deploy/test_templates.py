"""The SAM templates: sound for AWS's tools, complete, and with a route for everything that clients can ask."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploylab import PER_ROUTE, SERVERLESS, TEMPLATE, Json, listed, of_type, read, rendered, script, translated, values
from hubbub.protocol import ACTIONS

TEMPLATES = pytest.mark.parametrize("path", [TEMPLATE, PER_ROUTE], ids=lambda path: path.stem)

CHOICES = pytest.mark.parametrize(
    "choices",
    [
        {},
        {"Transport": "queue", "SecretParameter": "/hubbub/secret"},
        {
            "Transport": "fifo",
            "SecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:s",
            "Tracing": "Active",
        },
        {"JwksUrl": "https://id.example.com/jwks", "Audience": "chat", "Issuer": "id", "App": "shop:chat"},
        {
            "DomainName": "chat.example.com",
            "BackendDomainName": "api.chat.example.com",
            "CertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/c",
            "AlarmTopicArn": "arn:aws:sns:us-east-1:123456789012:alarms",
            "AccountLogRole": "keep",
            "Architecture": "x86_64",
        },
    ],
    ids=["defaults", "queue", "fifo", "jwks", "domains"],
)

ROUTES = {"$connect", "$disconnect", "$default", *ACTIONS}
ANSWERED = ROUTES - {"$connect", "$disconnect"}


def linted(path: Path, *arguments: str) -> str:
    """What cfn-lint has to say of a template."""
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--include-checks", "W", *arguments, "--", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


@TEMPLATES
def test_cfn_lint_finds_nothing(path: Path) -> None:
    """cfn-lint has no error and no warning for a template, but for what the template itself excepts with a reason."""
    assert linted(path) == ""


def test_cfn_lint_would_find_something(tmp_path: Path) -> None:
    """cfn-lint names a reference to nothing in one of these templates: it is really asked."""
    broken = tmp_path / "template.yaml"
    broken.write_text(TEMPLATE.read_text().replace("!Ref ThrottleRate", "!Ref ThrottelRate"))
    assert "ThrottelRate" in linted(broken)


@TEMPLATES
@CHOICES
def test_sams_translator_accepts_every_choice(path: Path, choices: dict[str, str]) -> None:
    """AWS's own translator makes CloudFormation of a template whatever its parameters are, and leaves nothing."""
    made = translated(path, **choices)
    assert not [body["Type"] for body in made["Resources"].values() if body["Type"].startswith("AWS::Serverless::")]


@TEMPLATES
def test_every_action_has_a_route_that_answers(path: Path) -> None:
    """Each action of the protocol has a route, as have $connect, $disconnect and $default; all but these two answer."""
    made = translated(path)
    routes = {
        name: body["Properties"]
        for name, body in of_type(made, "AWS::ApiGatewayV2::Route").items()
        if body["Properties"]["ApiId"] == {"Ref": "WebsocketsApi"}
    }
    assert {route["RouteKey"] for route in routes.values()} == ROUTES
    responses = of_type(made, "AWS::ApiGatewayV2::RouteResponse").values()
    answered = {routes[body["Properties"]["RouteId"]["Ref"]]["RouteKey"] for body in responses}
    selecting = {route["RouteKey"] for route in routes.values() if route.get("RouteResponseSelectionExpression")}
    assert answered == selecting == ANSWERED
    assert {body["Properties"]["RouteResponseKey"] for body in responses} == {"$default"}


@TEMPLATES
def test_the_first_deployment_has_every_route(path: Path) -> None:
    """The stage waits for all routes and responses: what comes later would not be in its first deployment."""
    made = translated(path)
    parts = [*of_type(made, "AWS::ApiGatewayV2::Route"), *of_type(made, "AWS::ApiGatewayV2::RouteResponse")]
    of_clients = [name for name in parts if made["Resources"][name]["Properties"]["ApiId"] == {"Ref": "WebsocketsApi"}]
    assert set(made["Resources"]["WebsocketsDeploymentStage"]["DependsOn"]) == set(of_clients)


@TEMPLATES
def test_the_authorizer_is_asked_wherever_the_token_is(path: Path) -> None:
    """$connect has the authorizer, and it is asked of every handshake: its one identity source is what all have."""
    made = translated(path)
    (connect,) = [
        body["Properties"]
        for body in of_type(made, "AWS::ApiGatewayV2::Route").values()
        if body["Properties"]["RouteKey"] == "$connect"
    ]
    assert connect["AuthorizationType"] == "CUSTOM"
    authorizer = made["Resources"][connect["AuthorizerId"]["Ref"]]["Properties"]
    assert authorizer["AuthorizerType"] == "REQUEST"
    assert authorizer["IdentitySource"] == ["route.request.header.Host"]  # RFC 9112, section 3.2


@TEMPLATES
def test_functions_have_the_handlers_that_there_are(path: Path) -> None:
    """Each function's handler can be imported, and with one function for each route each has the one that it needs."""
    handlers = script("function_per_route").HANDLERS
    made = translated(path)
    functions = of_type(made, "AWS::Lambda::Function")
    for name, body in functions.items():
        module, _, attribute = body["Properties"]["Handler"].rpartition(".")
        assert module == "hubbub.lambdas.handlers"
        assert callable(getattr(__import__(module, fromlist=[attribute]), attribute)), name
    assert len(functions) == (5 if path == TEMPLATE else 4 + len(ROUTES))
    for route in of_type(made, "AWS::ApiGatewayV2::Route").values():
        integration = re.sub(r"\W", "", rendered(route["Properties"]["Target"], {}).removeprefix("integrations/"))
        properties = made["Resources"][integration]["Properties"]
        if properties["ApiId"] == {"Ref": "HttpApi"}:
            continue
        (function,) = [name for name in functions if f"${{{name}.Arn}}" in rendered(properties["IntegrationUri"], {})]
        handler = functions[function]["Properties"]["Handler"].rpartition(".")[2]
        assert handler == ("handler" if path == TEMPLATE else handlers.get(route["Properties"]["RouteKey"], "message"))


def test_the_table_outlives_mistakes() -> None:
    """The table is kept when the stack goes, can be set back to any second, is paid by use, and forgets by `ttl`."""
    table = translated(TEMPLATE)["Resources"]["Table"]
    assert (table["DeletionPolicy"], table["UpdateReplacePolicy"]) == ("Retain", "Retain")
    properties = table["Properties"]
    assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert properties["BillingMode"] == "PAY_PER_REQUEST"
    assert properties["TimeToLiveSpecification"] == {"AttributeName": "ttl", "Enabled": True}
    assert [key["AttributeName"] for key in properties["KeySchema"]] == ["pk", "sk"]


def test_no_log_gets_a_token() -> None:
    """Access logs have neither query strings nor headers, and what is said is not logged: tokens are in the former."""
    for body in of_type(translated(TEMPLATE), "AWS::ApiGatewayV2::Stage").values():
        settings = body["Properties"]["AccessLogSettings"]
        line = json.loads(settings["Format"])
        assert not re.search(r"querystring|header|protocol|rawPath|requestBody", json.dumps(line))
        assert not body["Properties"]["DefaultRouteSettings"].get("DataTraceEnabled")


def test_every_log_is_forgotten_in_time() -> None:
    """Each function and each API has a log group of its own, which keeps lines for so many days."""
    made = translated(TEMPLATE)
    groups = of_type(made, "AWS::Logs::LogGroup").values()
    names = {rendered(body["Properties"]["LogGroupName"], values(made)) for body in groups}
    functions = of_type(made, "AWS::Lambda::Function").values()
    expected = {f"/aws/lambda/{rendered(body['Properties']['FunctionName'], values(made))}" for body in functions}
    assert expected <= names
    assert len(names) == len(expected) + 2
    assert {json.dumps(body["Properties"]["RetentionInDays"]) for body in groups} == {'{"Ref": "LogRetentionDays"}'}


@pytest.mark.parametrize(
    ("transport", "expected"),
    [("invoke", {"BroadcasterLambdaEvConf"}), ("queue", {"JobsQueue"}), ("fifo", {"JobsQueue"})],
)
def test_a_transport_has_what_it_needs_and_a_place_for_what_failed(transport: str, expected: set[str]) -> None:
    """Jobs that cannot be done end in the queue for them, whichever way they come; only the chosen way is there."""
    made = conditioned(translated(TEMPLATE), Transport=transport)
    resources = made["Resources"]
    assert expected <= resources.keys()
    assert not ({"BroadcasterLambdaEvConf", "JobsQueue"} - expected) & resources.keys()
    undelivered = {"Fn::GetAtt": ["UndeliveredQueue", "Arn"]}
    if transport == "invoke":
        properties = resources["BroadcasterLambdaEvConf"]["Properties"]
        assert properties["DestinationConfig"] == {"OnFailure": {"Destination": undelivered}}
        assert (properties["MaximumRetryAttempts"], properties["MaximumEventAgeInSeconds"]) == (2, 3600)
        return
    queue = resources["JobsQueue"]["Properties"]
    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == undelivered
    assert queue.get("FifoQueue", False) is (transport == "fifo")
    assert resources["UndeliveredQueue"]["Properties"].get("FifoQueue", False) is (transport == "fifo")
    mapping = resources["BroadcasterEventSourceMappingSQSJobsQueue"]["Properties"]
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    timeout = resources["BroadcasterLambdaFunction"]["Properties"]["Timeout"]
    assert queue["VisibilityTimeout"] > timeout


@pytest.mark.parametrize(
    ("choices", "variable"),
    [
        ({}, "HUBBUB_SECRET_ARN"),
        ({"SecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:s"}, "HUBBUB_SECRET_ARN"),
        ({"SecretParameter": "/hubbub/secret"}, "HUBBUB_SECRET_PARAMETER"),
        ({"JwksUrl": "https://id.example.com/jwks"}, "HUBBUB_JWKS_URL"),
    ],
    ids=["made", "secret", "parameter", "jwks"],
)
def test_functions_are_told_of_one_key(choices: dict[str, str], variable: str) -> None:
    """Functions get the one variable that says where the key is; a secret is made only if none is named."""
    made = conditioned(translated(TEMPLATE, **choices), **choices)
    for name, body in of_type(made, "AWS::Lambda::Function").items():
        variables = body["Properties"]["Environment"]["Variables"]
        assert [key for key in variables if re.search("SECRET|JWKS", key)] == [variable], name
    assert ("Secret" in made["Resources"]) is (choices == {})


def test_what_is_watched_is_there() -> None:
    """Alarms name metrics of the template's resources and say what is wrong; the dashboard is JSON and names them."""
    made = translated(TEMPLATE)
    alarms = of_type(made, "AWS::CloudWatch::Alarm")
    assert len(alarms) >= 9
    for name, body in alarms.items():
        properties = body["Properties"]
        is_pulse = name == "SweeperAlarm"  # which is about what does not happen
        assert properties["TreatMissingData"] == ("breaching" if is_pulse else "notBreaching"), name
        assert properties["AlarmDescription"], name
        metrics = properties.get("Metrics") or [{"MetricStat": {"Metric": properties}}]
        for metric in metrics:
            for dimension in metric.get("MetricStat", {}).get("Metric", {}).get("Dimensions", []):
                named = [found.partition(".")[0] for found in references(dimension["Value"])]
                assert all(one in made["Resources"] or one in made["Parameters"] for one in named), name
    dashboard = rendered(made["Resources"]["Dashboard"]["Properties"]["DashboardBody"], values(made))
    for widget in json.loads(dashboard)["widgets"]:
        assert widget["properties"]["metrics"], widget
    assert {found.partition(".")[0] for found in re.findall(r"\$\{([\w.]+)\}", dashboard)} <= made["Resources"].keys()


def test_variants_are_what_the_script_writes() -> None:
    """The variants with one function for each route are exactly what scripts/function_per_route.py makes."""
    writer = script("function_per_route")
    assert PER_ROUTE.read_text() == writer.sam_variant(TEMPLATE.read_text()), "run scripts/function_per_route.py"
    one, each = (SERVERLESS.parent / "functions" / name for name in ("one.yml", "each.yml"))
    assert each.read_text() == writer.serverless_variant(one.read_text()), "run scripts/function_per_route.py"


def test_the_variant_differs_in_the_functions_alone() -> None:
    """With one function for each route, all is the same but functions, their logs, the ways to them, and alarms."""
    one, each = translated(TEMPLATE)["Resources"], translated(PER_ROUTE)["Resources"]
    own = {"Function", "LogGroup", "Integration", "Permission"}
    assert {one[name]["Type"].rpartition("::")[2] for name in one.keys() - each.keys()} == own
    assert {each[name]["Type"].rpartition("::")[2] for name in each.keys() - one.keys()} == own
    changed = {name for name in one.keys() & each.keys() if one[name] != each[name]}
    routes = {name for name in one if name.endswith("WebsocketsRoute")}
    assert changed == {"ChatRole", "ErrorsAlarm", "ThrottlesAlarm", *routes}


def references(value: Any) -> Iterator[str]:
    """What an expression refers to."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "Ref":
                yield item
            elif key == "Fn::GetAtt":
                yield item if isinstance(item, str) else ".".join(item)
            else:
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def conditioned(template: Json, **parameters: str) -> Json:
    """A template with its conditions decided: without resources and values that are not to be there."""
    known = values(template, **parameters)
    conditions = template["Conditions"]

    def holds(name: str) -> bool:
        return bool(decided(conditions[name]))

    def decided(rule: Json) -> bool:
        ((kind, argument),) = rule.items()
        match kind:
            case "Condition":
                return holds(argument)
            case "Fn::Not":
                return not decided(argument[0])
            case "Fn::Or":
                return any(map(decided, argument))
            case "Fn::And":
                return all(map(decided, argument))
        left, right = (str(rendered(one, known)) for one in argument)
        return left == right

    absent = {"Ref": "AWS::NoValue"}

    def chosen(value: Any) -> Any:
        if isinstance(value, dict):
            if value.keys() == {"Fn::If"}:
                name, then, otherwise = value["Fn::If"]
                return chosen(then if holds(name) else otherwise)
            made = {key: chosen(item) for key, item in value.items()}
            return {key: item for key, item in made.items() if item != absent}
        if isinstance(value, list):
            return [item for item in map(chosen, value) if item != absent]
        return value

    resources = {
        name: chosen(body)
        for name, body in template["Resources"].items()
        if "Condition" not in body or holds(body["Condition"])
    }
    return {**template, "Resources": resources}


@CHOICES
def test_nothing_refers_to_what_is_not_there(choices: dict[str, str]) -> None:
    """Whatever is chosen, each reference leads to a parameter or to a resource whose condition holds."""
    made = conditioned(translated(TEMPLATE, **choices), **choices)
    there = made["Resources"].keys() | made["Parameters"].keys()
    for name, body in made["Resources"].items():
        for found in references(body.get("Properties", {})):
            assert found.startswith("AWS::") or found.partition(".")[0] in there, f"{name}: {found}"
        for needed in listed(body.get("DependsOn", [])):
            assert needed in there, f"{name}: {needed}"


def test_parameters_have_sensible_defaults_and_bounds() -> None:
    """Every parameter says what it is, has a default, and is of a kind that AWS can refuse mistakes in."""
    for name, body in read(TEMPLATE)["Parameters"].items():
        assert body["Description"].endswith((".", "?")), name
        assert "Default" in body, name
        if name not in ("Audience", "Issuer"):  # any text
            assert {"AllowedValues", "AllowedPattern", "MinValue"} & body.keys(), name
        if "AllowedPattern" in body:
            assert re.fullmatch(body["AllowedPattern"], body["Default"]), name
