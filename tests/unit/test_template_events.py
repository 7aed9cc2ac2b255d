from __future__ import annotations

from pathlib import Path

import pytest

from hubbub.emulator.definition import EventSource
from templatelab import SAM, failure_of, meaning_of, resource_of, stack_of

ACCOUNT = "us-east-1:123456789012"

MAPPING = "Type: AWS::Lambda::EventSourceMapping, Properties: {FunctionName: "

BASE = """\
Resources:
  F:
    Type: AWS::Lambda::Function
    Properties: {Runtime: python3.12, Handler: a.b, Code: src, FunctionName: fn}
  Q: {Type: AWS::SQS::Queue}
  T: {Type: AWS::SNS::Topic}
"""


def source_of(tmp_path: Path, more: str) -> EventSource:
    """The one source of a stack."""
    (source,) = stack_of(tmp_path, BASE + more).sources
    return source


def test_a_queues_mapping_has_what_it_says(tmp_path: Path) -> None:
    """A mapping of a queue keeps batch, window, filters and partial batch responses, and the rest as properties."""
    source = source_of(
        tmp_path,
        """\
  M:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      EventSourceArn: !GetAtt Q.Arn
      FunctionName: !GetAtt F.Arn
      BatchSize: "3"
      MaximumBatchingWindowInSeconds: 2
      FunctionResponseTypes: [ReportBatchItemFailures]
      FilterCriteria: {Filters: [{Pattern: '{"body": {"a": [1]}}'}, {Pattern: '{"body": {"b": [2]}}'}]}
      ScalingConfig: {MaximumConcurrency: 5}
""",
    )
    assert (source.logical_id, source.function, source.kind) == ("M", "fn", "sqs")
    assert source.source == f"arn:aws:sqs:{ACCOUNT}:local-Q"
    assert (source.batch_size, source.batch_window_s, source.report_batch_item_failures) == (3, 2.0, True)
    assert source.filters == ('{"body": {"a": [1]}}', '{"body": {"b": [2]}}')
    assert source.properties["ScalingConfig"] == {"MaximumConcurrency": 5}


@pytest.mark.parametrize(
    ("arn", "kind", "size"),
    [
        (f"arn:aws:sqs:{ACCOUNT}:elsewhere", "sqs", 10),
        (f"arn:aws:dynamodb:{ACCOUNT}:table/t/stream/2024", "dynamodb", 100),
    ],
)
def test_a_mapping_has_lambdas_defaults(tmp_path: Path, arn: str, kind: str, size: int) -> None:
    """A batch is 10 messages of a queue or 100 records of a stream where the template does not say."""
    mapping = f"Properties: {{FunctionName: fn, EventSourceArn: '{arn}', Enabled: false}}"
    source = source_of(tmp_path, f"  M:\n    Type: AWS::Lambda::EventSourceMapping\n    {mapping}\n")
    assert (source.kind, source.source, source.batch_size) == (kind, arn, size)
    assert (source.enabled, source.report_batch_item_failures, source.starting_position) == (False, False, "LATEST")


@pytest.mark.parametrize(
    "name", ["fn", "fn:live", f"arn:aws:lambda:{ACCOUNT}:function:fn:3", "123456789012:function:fn"]
)
def test_a_function_is_known_by_each_of_its_names(tmp_path: Path, name: str) -> None:
    """A mapping may name its function, or give its ARN or a part of it, with a version or an alias."""
    mapping = f"Properties: {{FunctionName: '{name}', EventSourceArn: !GetAtt Q.Arn}}"
    assert source_of(tmp_path, f"  M:\n    Type: AWS::Lambda::EventSourceMapping\n    {mapping}\n").function == "fn"


def test_a_subscription_of_a_function_is_a_source(tmp_path: Path) -> None:
    """A Lambda subscription invokes the function, with its filter; one of a queue is a resource."""
    text = (
        BASE
        + """\
  S:
    Type: AWS::SNS::Subscription
    Properties: {Protocol: lambda, TopicArn: !Ref T, Endpoint: !GetAtt F.Arn, FilterPolicy: {kind: [a]}}
  U:
    Type: AWS::SNS::Subscription
    Properties: {Protocol: sqs, TopicArn: !Ref T, Endpoint: !GetAtt Q.Arn, RawMessageDelivery: true}
"""
    )
    stack = stack_of(tmp_path, text)
    (source,) = stack.sources
    assert (source.logical_id, source.kind, source.function) == ("S", "sns", "fn")
    assert source.source == f"arn:aws:sns:{ACCOUNT}:local-T"
    assert source.properties["FilterPolicy"] == {"kind": ["a"]}
    assert resource_of(stack, "U").properties["RawMessageDelivery"] is True
    assert "S" not in [resource.logical_id for resource in stack.resources]


def test_a_topics_own_subscriptions_are_sources(tmp_path: Path) -> None:
    """A topic that names its subscribers itself invokes the functions among them."""
    text = BASE.replace(
        "{Type: AWS::SNS::Topic}",
        "\n    Type: AWS::SNS::Topic\n    Properties:\n      Subscription:\n"
        "        - {Protocol: sqs, Endpoint: !GetAtt Q.Arn}\n        - {Protocol: lambda, Endpoint: !GetAtt F.Arn}",
    )
    (source,) = stack_of(tmp_path, text).sources
    assert (source.logical_id, source.function, source.source) == ("T2", "fn", f"arn:aws:sns:{ACCOUNT}:local-T")


def test_a_scheduled_rule_is_a_source_for_each_function(tmp_path: Path) -> None:
    """A rule's schedule invokes each of its functions with the target's own input; other targets are named."""
    text = (
        BASE
        + f"""\
  R:
    Type: AWS::Events::Rule
    Properties:
      Name: nightly
      ScheduleExpression: cron(0 3 * * ? *)
      State: DISABLED
      Targets:
        - {{Id: One, Arn: !GetAtt F.Arn, Input: '{{"a": 1}}'}}
        - {{Id: Two, Arn: "arn:aws:lambda:{ACCOUNT}:function:fn:live", InputPath: $.detail}}
        - {{Id: Three, Arn: !GetAtt Q.Arn}}
"""
    )
    stack = stack_of(tmp_path, text)
    one, two = stack.sources
    assert (one.logical_id, one.source, one.input, one.enabled) == ("ROne", "cron(0 3 * * ? *)", '{"a": 1}', False)
    assert (two.logical_id, two.function, two.input) == ("RTwo", "fn", None)
    assert (two.properties["Name"], two.properties["InputPath"]) == ("nightly", "$.detail")
    assert "is no Lambda function" in meaning_of(stack, "R")


def test_a_schedule_of_the_scheduler_is_a_source(tmp_path: Path) -> None:
    """EventBridge Scheduler's schedules keep their time zone, window and input."""
    source = source_of(
        tmp_path,
        """\
  S:
    Type: AWS::Scheduler::Schedule
    Properties:
      ScheduleExpression: rate(1 hour)
      ScheduleExpressionTimezone: Europe/Berlin
      FlexibleTimeWindow: {Mode: "OFF"}
      Target: {Arn: !GetAtt F.Arn, RoleArn: "arn:aws:iam::123456789012:role/r", Input: "{}"}
""",
    )
    assert (source.logical_id, source.kind, source.source, source.input) == ("S", "schedule", "rate(1 hour)", "{}")
    assert source.properties["ScheduleExpressionTimezone"] == "Europe/Berlin"
    assert source.properties["FlexibleTimeWindow"] == {"Mode": "OFF"}
    assert source.properties["Name"] == "local-S"


def test_sams_events_of_each_kind_are_sources(tmp_path: Path) -> None:
    """SQS, SNS, Schedule and ScheduleV2 events of a SAM function are sources of the same kinds."""
    text = (
        SAM
        + """\
Resources:
  Q: {Type: AWS::SQS::Queue}
  T: {Type: AWS::SNS::Topic}
  F:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.12
      Handler: a.b
      CodeUri: src
      Events:
        Queue: {Type: SQS, Properties: {Queue: !GetAtt Q.Arn, BatchSize: 1}}
        Topic: {Type: SNS, Properties: {Topic: !Ref T}}
        Rule: {Type: Schedule, Properties: {Schedule: rate(1 minute), Enabled: false}}
        Scheduler: {Type: ScheduleV2, Properties: {ScheduleExpression: rate(2 minutes)}}
"""
    )
    stack = stack_of(tmp_path, text)
    assert sorted((source.logical_id, source.kind, source.enabled) for source in stack.sources) == [
        ("FQueue", "sqs", True),
        ("FRule", "schedule", False),
        ("FScheduler", "schedule", True),
        ("FTopic", "sns", True),
    ]
    assert stack.unsupported == ()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            f"{MAPPING}fn, EventSourceArn: 'arn:aws:kinesis:{ACCOUNT}:stream/s'}}",
            "records of kinesis do not reach fn",
        ),
        (
            MAPPING + "fn, SelfManagedEventSource: {}}",
            "do not reach fn",
        ),
        ("Type: AWS::Events::Rule, Properties: {EventPattern: {source: [a]}, Targets: []}", "only schedules are kept"),
        (
            "Type: AWS::Scheduler::Schedule, Properties: {ScheduleExpression: rate(1 day), Target: {Arn: a}}",
            "is no Lambda function",
        ),
        (
            MAPPING + "other, EventSourceArn: !GetAtt Q.Arn}",
            "invokes the function other, which does not run here",
        ),
        ("Type: AWS::Lambda::Url, Properties: {TargetFunctionArn: fn, AuthType: NONE}", "function URLs are not served"),
    ],
)
def test_what_invokes_nothing_here_is_named(tmp_path: Path, more: str, said: str) -> None:
    """Sources of other kinds, and those of functions that are not here, are named and left out."""
    stack = stack_of(tmp_path, f"{BASE}  X: {{{more}}}\n")
    assert stack.sources == ()
    assert said in meaning_of(stack, "X")


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (
            MAPPING + "fn, EventSourceArn: !GetAtt Q.Arn, BatchSize: all}",
            "X: expected a number as its BatchSize",
        ),
        (
            MAPPING + "fn, EventSourceArn: !GetAtt Q.Arn, FilterCriteria: {Filters: [a]}}",
            "X: expected filters with a Pattern",
        ),
        (
            "Type: AWS::SNS::Subscription, Properties: {Protocol: lambda, TopicArn: !Ref T}",
            "X: expected the ARN of a function",
        ),
    ],
)
def test_a_source_of_the_wrong_shape_is_an_error(tmp_path: Path, more: str, what: str) -> None:
    """What a source lacks or has in another shape is an error."""
    assert what in failure_of(tmp_path, f"{BASE}  X: {{{more}}}\n").what
