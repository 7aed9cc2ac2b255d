"""Queues, streams, topics and schedules become the resources that the framework makes of them; the rest is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hubbub.emulator.template.errors import TemplateError
from hubbub.emulator.template.serverless import Compiled
from servicelab import compiled, named, properties

FUNCTION = {"Fn::GetAtt": ["MyDashfnLambdaFunction", "Arn"]}

DEAD = "arn:aws:sqs:us-east-1:123456789012:dead"
MORE = f"batchWindow: 2, maximumRetryAttempts: -1, destinations: {{onFailure: {DEAD}}}"


def with_event(folder: Path, event: str) -> Compiled:
    """A service whose function `my-fn` has one event."""
    return compiled(folder, f"functions:\n  my-fn:\n    handler: app.handler\n    events:\n      - {event}\n")


@pytest.mark.parametrize(
    ("event", "logical_id", "expected"),
    [
        (
            "sqs: arn:aws:sqs:us-east-1:123456789012:my-queue",
            "MyDashfnEventSourceMappingSQSMyqueue",
            {"EventSourceArn": "arn:aws:sqs:us-east-1:123456789012:my-queue", "BatchSize": 10, "Enabled": True},
        ),
        (
            "sqs: {arn: !GetAtt Jobs.Arn, batchSize: 5, enabled: false, maximumBatchingWindow: 0}",
            "MyDashfnEventSourceMappingSQSJobs",
            {"BatchSize": 5, "Enabled": False, "MaximumBatchingWindowInSeconds": 0},
        ),
        (
            "sqs: {arn: !ImportValue jobs-arn, functionResponseType: ReportBatchItemFailures}",
            "MyDashfnEventSourceMappingSQSJobsarn",
            {"FunctionResponseTypes": ["ReportBatchItemFailures"]},
        ),
        (
            "sqs: {arn: !Join [':', [arn, aws, jobs]], filterPatterns: [{a: [1]}, {b: [2]}]}",
            "MyDashfnEventSourceMappingSQSJobs",
            {"FilterCriteria": {"Filters": [{"Pattern": '{"a":[1]}'}, {"Pattern": '{"b":[2]}'}]}},
        ),
        (
            "stream: arn:aws:dynamodb:us-east-1:123456789012:table/rooms/stream/1",
            "MyDashfnEventSourceMappingDynamodbRooms",
            {"StartingPosition": "TRIM_HORIZON", "BatchSize": 10},
        ),
        (
            f"stream: {{type: dynamodb, arn: !GetAtt Rooms.StreamArn, startingPosition: LATEST, {MORE}}}",
            "MyDashfnEventSourceMappingDynamodbRooms",
            {
                "StartingPosition": "LATEST",
                "MaximumBatchingWindowInSeconds": 2,
                "MaximumRetryAttempts": -1,
                "DestinationConfig": {"OnFailure": {"Destination": DEAD}},
            },
        ),
    ],
)
def test_queues_and_streams_are_mapped_to_the_function(
    tmp_path: Path, event: str, logical_id: str, expected: dict[str, Any]
) -> None:
    """A mapping has the framework's logical id and defaults."""
    mapping = properties(with_event(tmp_path, event), logical_id)
    assert mapping["FunctionName"] == FUNCTION
    assert {key: mapping.get(key) for key in expected} == expected


def test_a_topic_by_name_is_made_with_its_subscription(tmp_path: Path) -> None:
    """Functions that name the same topic share it; a filter needs a subscription of its own."""
    service = compiled(
        tmp_path,
        """
        functions:
          a: {handler: app.a, events: [{sns: my-topic}]}
          b: {handler: app.b, events: [{sns: {topicName: my-topic, filterPolicy: {kind: [x]}}}]}
          c: {handler: app.c, events: [{sns: my-topic}]}
        """,
    )
    endpoints = [{"Protocol": "lambda", "Endpoint": {"Fn::GetAtt": [f"{n}LambdaFunction", "Arn"]}} for n in "AC"]
    assert properties(service, "SNSTopicMytopic") == {"TopicName": "my-topic", "Subscription": endpoints}
    subscription = properties(service, "BSnsSubscriptionMytopic")
    assert subscription["TopicArn"] == {"Ref": "SNSTopicMytopic"}
    assert subscription["FilterPolicy"] == {"kind": ["x"]}


def test_a_topic_by_arn_is_subscribed_to(tmp_path: Path) -> None:
    """An ARN is one that exists; of a function of CloudFormation the event says the name."""
    event = "sns: {arn: !Ref Alarm, topicName: alarm, redrivePolicy: {deadLetterTargetRef: Dead}}"
    subscription = properties(with_event(tmp_path, event), "MyDashfnSnsSubscriptionAlarm")
    assert (subscription["TopicArn"], subscription["Endpoint"]) == ({"Ref": "Alarm"}, FUNCTION)
    assert subscription["RedrivePolicy"] == {"deadLetterTargetArn": {"Fn::GetAtt": ["Dead", "Arn"]}}
    elsewhere = with_event(tmp_path, "sns: arn:aws:sns:eu-west-1:123456789012:far")
    assert properties(elsewhere, "MyDashfnSnsSubscriptionFar")["Region"] == "eu-west-1"


def test_every_rate_is_a_rule(tmp_path: Path) -> None:
    """Schedules are numbered through the function; a constant payload is JSON text."""
    service = compiled(
        tmp_path,
        """
        functions:
          a:
            handler: app.a
            events:
              - schedule: rate(1 minute)
              - schedule: {rate: [cron(0 12 * * ? *), rate(2 hours)], enabled: false, input: {a: "x", body: '{"b": 1}'}}
              - schedule: {rate: [rate(3 days)], method: scheduler, timezone: Europe/Vienna, input: 'text'}
        """,
    )
    first, second, third = (properties(service, f"AEventsRuleSchedule{number}") for number in (1, 2, 3))
    assert [rule["ScheduleExpression"] for rule in (first, second, third)] == [
        "rate(1 minute)",
        "cron(0 12 * * ? *)",
        "rate(2 hours)",
    ]
    assert (first["State"], third["State"]) == ("ENABLED", "DISABLED")
    assert first["Targets"] == [{"Arn": {"Fn::GetAtt": ["ALambdaFunction", "Arn"]}, "Id": "aSchedule"}]
    assert second["Targets"][0]["Input"] == '{"a":"x","body":{"b":1}}'
    scheduler = properties(service, "ASchedulerSchedule4")
    assert (scheduler["ScheduleExpression"], scheduler["ScheduleExpressionTimezone"]) == (
        "rate(3 days)",
        "Europe/Vienna",
    )
    assert scheduler["Target"]["Input"] == "text"


def test_a_schedule_of_eventbridge_is_one(tmp_path: Path) -> None:
    """A rule with a schedule runs; one with a pattern is named."""
    service = with_event(tmp_path, "eventBridge: {schedule: rate(5 minutes), input: {a: 1}}")
    rule = properties(service, "Chatdevmyfnrule1EventBridgeRule")
    assert (rule["ScheduleExpression"], rule["Targets"][0]["Input"]) == ("rate(5 minutes)", '{"a":1}')
    service = with_event(tmp_path, "eventBridge: {pattern: {source: [x]}}")
    assert "MyDashfnLambdaFunction eventBridge" in named(service)


@pytest.mark.parametrize(
    ("event", "kind", "meaning"),
    [
        ("http: GET /rooms", "http", "not served by a REST API"),
        ("httpApi: {path: /a, method: get, authorizer: x}", "httpApi", "its authorizer is not asked"),
        ("s3: {bucket: '${ssm:/never/asked}'}", "s3", "nothing calls the function"),
        ("alexaSkill", "alexaSkill", "nothing calls the function"),
        ("stream: arn:aws:kinesis:us-east-1:123456789012:stream/x", "stream", "no Kinesis"),
        ("cognitoUserPool: {pool: x, trigger: PreSignUp}", "cognitoUserPool", "nothing calls the function"),
    ],
)
def test_events_that_do_not_happen_here_are_named(tmp_path: Path, event: str, kind: str, meaning: str) -> None:
    """What does not run is said, with the function that waits for it."""
    assert meaning in named(with_event(tmp_path, event))[f"MyDashfnLambdaFunction {kind}"]


def test_http_apis_are_there_to_be_referred_to(tmp_path: Path) -> None:
    """A service that also serves HTTP can hand its address on."""
    service = with_event(tmp_path, "http: GET /rooms")
    assert service.template["Resources"]["ApiGatewayRestApi"]["Type"] == "AWS::ApiGateway::RestApi"
    service = with_event(tmp_path, "httpApi: GET /rooms")
    assert properties(service, "HttpApi")["ProtocolType"] == "HTTP"
    assert service.template["Outputs"]["HttpApiId"]["Value"] == {"Ref": "HttpApi"}


@pytest.mark.parametrize(
    ("event", "logical_id", "key"),
    [
        ("httpApi: '*'", "HttpApiRouteDefault", "$default"),
        ("httpApi: {path: '*'}", "HttpApiRouteDefault", "$default"),
        ("httpApi: get /my-rooms/{room_id}", "HttpApiRouteGetMyDashroomsRoomidVar", "GET /my-rooms/{room_id}"),
        ("httpApi: {method: '*', path: '/v1/{proxy+}'}", "HttpApiRouteAnyV1ProxyVar", "ANY /v1/{proxy+}"),
    ],
)
def test_http_api_events_are_routes(tmp_path: Path, event: str, logical_id: str, key: str) -> None:
    """An event is a route of the one HTTP API, by the ids and with the integration that the framework makes."""
    service = with_event(tmp_path, event)
    route = properties(service, logical_id)
    assert route["RouteKey"] == key
    assert route["Target"] == {"Fn::Join": ["/", ["integrations", {"Ref": "HttpApiIntegrationMyDashfn"}]]}
    integration = properties(service, "HttpApiIntegrationMyDashfn")
    assert (integration["PayloadFormatVersion"], integration["TimeoutInMillis"]) == ("2.0", 30_000)


@pytest.mark.parametrize("event", ["httpApi: /rooms", "httpApi: FLY /rooms", "httpApi: {path: /a}", "httpApi: {}"])
def test_http_api_events_that_are_no_routes_are_refused(tmp_path: Path, event: str) -> None:
    """A method that is none, or a path without one, is an error that says what is expected; nothing is nothing."""
    if event == "httpApi: {}":
        assert "HttpApi" not in with_event(tmp_path, event).template["Resources"]
        return
    with pytest.raises(TemplateError, match=r"expected \*, or a method and a path"):
        with_event(tmp_path, event)


def test_buckets_of_events_are_there_to_be_referred_to(tmp_path: Path) -> None:
    """A bucket is made as the framework would, unless it exists."""
    service = with_event(tmp_path, "s3: my-photos")
    assert properties(service, "S3BucketMyphotos") == {"BucketName": "my-photos"}
    service = with_event(tmp_path, "s3: {bucket: my-photos, existing: true}")
    assert "S3BucketMyphotos" not in service.template["Resources"]


@pytest.mark.parametrize(
    ("event", "what"),
    [
        ("sqs: 5", "expected a mapping as sqs, got 5"),
        ("sqs: {batchSize: 5}", "expected an ARN in the sqs event, got nothing"),
        ("sqs: {arn: a, batchSize: many}", "expected a whole number as batchSize, got 'many'"),
        ("stream: {arn: !GetAtt A.StreamArn}", "expected dynamodb or kinesis as the stream's type, got nothing"),
        ("sns: {arn: !Ref A}", "expected a topicName in the sns event, got none"),
        ("schedule: every day", "got 'every day'"),
        ("schedule: {enabled: false}", "got nothing"),
        ("schedule: {rate: [rate(1 day)], input: {body: no}}", "expected JSON as body"),
    ],
)
def test_an_event_that_is_not_described_as_one_is_said_with_its_line(tmp_path: Path, event: str, what: str) -> None:
    """A mistake in an event is said with its place."""
    with pytest.raises(TemplateError, match=what) as raised:
        with_event(tmp_path, event)
    assert raised.value.line == 10
