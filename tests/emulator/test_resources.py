"""Tables, queues, topics and the like: made on a real moto, and looked at with boto3 as a function would."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from functionlab import Others

from hubbub.emulator.definition import Resource
from hubbub.emulator.resources import SUPPORTED, Backends, CannotCreate, Created, dynamodb_local
from hubbub.emulator.resources.backends import LASTING, MOTO, NOT_RUN
from hubbub.emulator.resources.coercion import coerced
from hubbub.emulator.resources.creating import KINDS
from hubbub.emulator.resources.kinds import Made, Place, Service
from hubbub.emulator.template.stateful import CREATED
from hubbub.listening import CannotStart
from live import BOUND_S, until

KEYS = {
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "BillingMode": "PAY_PER_REQUEST",
}


def arn(service: str, rest: str) -> str:
    return f"arn:aws:{service}:us-east-1:123456789012:{rest}"


def table(name: str = "rooms", **properties: Any) -> Resource:
    return resource("Table", "AWS::DynamoDB::Table", name, **{**KEYS, **properties})


def resource(logical_id: str, kind: str, name: str, **properties: Any) -> Resource:
    return Resource(logical_id=logical_id, type=kind, name=name, properties=properties)


@pytest.fixture(scope="module")
def somewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an emulator that the user has started: moto's own command."""
    log = tmp_path_factory.mktemp("moto") / "log"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-p", "0"],
            stderr=output,
            env={**environment, "PYTHONUNBUFFERED": "1"},
        )
    try:
        deadline = time.monotonic() + BOUND_S
        while "Running on " not in (words := log.read_text()):
            assert process.poll() is None and time.monotonic() < deadline, words
            time.sleep(0.02)
        yield words.partition("Running on ")[2].split()[0]
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def url(somewhere: str) -> str:
    """The same with nothing in it."""
    with urllib.request.urlopen(urllib.request.Request(f"{somewhere}/moto-api/reset", method="POST")) as answer:
        assert answer.status == 200
    return somewhere


async def made(url: str, *resources: Resource, region: str = "us-east-1") -> list[Created]:
    """These resources, made there."""
    async with Backends({"*": url}, region=region) as backends:
        return list(await backends.create(resources))


async def refused(url: str, *resources: Resource) -> dict[str, str]:
    """What is said of resources that cannot be made there."""
    with pytest.raises(CannotCreate) as caught:
        await made(url, *resources)
    return caught.value.problems


def client(service: str, url: str, region: str = "us-east-1") -> Any:
    return boto3.client(
        service, endpoint_url=url, region_name=region, aws_access_key_id="test", aws_secret_access_key="test"
    )


# What is made


async def test_a_table_has_its_keys_indexes_stream_and_time_to_live(url: str) -> None:
    """A table comes out as its template says, numbers and booleans in strings included."""
    keys = [{"AttributeName": name, "AttributeType": "S"} for name in ("id", "at", "room")]
    throughput = {"ReadCapacityUnits": "5", "WriteCapacityUnits": 6}
    index = {
        "KeySchema": [{"AttributeName": "room", "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "ALL"},
        "ContributorInsightsSpecification": {"Enabled": True},
    }
    properties = {
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}, {"AttributeName": "at", "KeyType": "RANGE"}],
        "AttributeDefinitions": keys,
        "BillingMode": "PROVISIONED",
        "ProvisionedThroughput": throughput,
        "GlobalSecondaryIndexes": [{"IndexName": "by-room", "ProvisionedThroughput": throughput, **index}],
        "LocalSecondaryIndexes": [
            {
                "IndexName": "by-id-and-room",
                "KeySchema": [
                    {"AttributeName": "id", "KeyType": "HASH"},
                    {"AttributeName": "room", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ],
        "StreamSpecification": {"StreamViewType": "NEW_IMAGE"},
        "TimeToLiveSpecification": {"AttributeName": "ends", "Enabled": "true"},
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": "true"},
    }
    [created] = await made(url, resource("Table", "AWS::DynamoDB::Table", "rooms", **properties))
    dynamodb = client("dynamodb", url)
    found = dynamodb.describe_table(TableName="rooms")["Table"]
    assert found["KeySchema"] == properties["KeySchema"]
    assert found["ProvisionedThroughput"]["ReadCapacityUnits"] == 5
    assert [each["IndexName"] for each in found["GlobalSecondaryIndexes"]] == ["by-room"]
    assert [each["IndexName"] for each in found["LocalSecondaryIndexes"]] == ["by-id-and-room"]
    assert found["StreamSpecification"] == {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
    lives = dynamodb.describe_time_to_live(TableName="rooms")["TimeToLiveDescription"]
    assert lives == {"TimeToLiveStatus": "ENABLED", "AttributeName": "ends"}
    assert created.attributes == {"Arn": found["TableArn"], "StreamArn": found["LatestStreamArn"]}
    assert created.remarks == ()


async def test_a_global_table_has_one_replica_here_and_says_so(url: str) -> None:
    """A global table is a table with a stream, and its other regions are not there."""
    replicas = [{"Region": "us-east-1"}, {"Region": "eu-west-1"}]
    scaled = {**KEYS, "BillingMode": "PROVISIONED", "WriteProvisionedThroughputSettings": {}, "Replicas": replicas}
    [created] = await made(url, resource("Table", "AWS::DynamoDB::GlobalTable", "rooms", **scaled))
    found = client("dynamodb", url).describe_table(TableName="rooms")["Table"]
    assert found["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert created.attributes["StreamArn"] == found["LatestStreamArn"]
    assert created.remarks == ("one replica is made, in this region",)


async def test_a_queue_comes_after_the_one_that_takes_its_failures(url: str) -> None:
    """Queues are made in the order in which they need each other, with all their attributes."""
    policy = {"deadLetterTargetArn": arn("sqs", "dead.fifo"), "maxReceiveCount": "3"}
    allow = {"redrivePermission": "byQueue", "sourceQueueArns": [arn("sqs", "work.fifo")]}
    work = resource(
        "Work",
        "AWS::SQS::Queue",
        "work.fifo",
        FifoQueue="true",
        ContentBasedDeduplication=True,
        RedrivePolicy=policy,
        VisibilityTimeout=7,
    )
    dead = resource("Dead", "AWS::SQS::Queue", "dead.fifo", FifoQueue=True, RedriveAllowPolicy=json.dumps(allow))
    plain = resource("Plain", "AWS::SQS::Queue", "plain", FifoQueue="false")
    created = await made(url, work, dead, plain)
    assert [each.logical_id for each in created] == ["Work", "Dead", "Plain"]
    sqs = client("sqs", url)
    address = sqs.get_queue_url(QueueName="work.fifo")["QueueUrl"]
    found = sqs.get_queue_attributes(QueueUrl=address, AttributeNames=["All"])["Attributes"]
    assert created[0].attributes == {"QueueUrl": address, "Arn": arn("sqs", "work.fifo")}
    assert found["FifoQueue"] == found["ContentBasedDeduplication"] == "true"
    assert found["VisibilityTimeout"] == "7"
    assert int(json.loads(found["RedrivePolicy"])["maxReceiveCount"]) == 3
    assert sqs.list_dead_letter_source_queues(QueueUrl=created[1].attributes["QueueUrl"])["queueUrls"] == [address]


async def test_a_topic_delivers_to_the_queues_subscribed_to_it(url: str) -> None:
    """What is published reaches the queues whose filters it passes, raw where that is asked for."""
    subscriptions = [
        {"Protocol": "sqs", "Endpoint": arn("sqs", "all")},
        {"Protocol": "lambda", "Endpoint": arn("lambda", "function:worker")},
    ]
    some = resource(
        "SomeOnly",
        "AWS::SNS::Subscription",
        "some-only",
        TopicArn=arn("sns", "news"),
        Protocol="sqs",
        Endpoint=arn("sqs", "some"),
        RawMessageDelivery="true",
        FilterPolicy={"kind": ["good"]},
    )
    topic = resource("News", "AWS::SNS::Topic", "news", DisplayName="News", Subscription=subscriptions)
    queues = [resource(name.title(), "AWS::SQS::Queue", name) for name in ("all", "some")]
    created = await made(url, some, topic, *queues)
    assert created[0].attributes["Arn"].startswith(arn("sns", "news:"))
    sns, sqs = client("sns", url), client("sqs", url)
    for kind in ("bad", "good"):
        attributes = {"kind": {"DataType": "String", "StringValue": kind}}
        sns.publish(TopicArn=created[1].attributes["Arn"], Message=f"{kind} news", MessageAttributes=attributes)

    def bodies(name: str) -> list[str]:
        address = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        return [each["Body"] for each in sqs.receive_message(QueueUrl=address, MaxNumberOfMessages=10)["Messages"]]

    assert sorted(json.loads(body)["Message"] for body in bodies("all")) == ["bad news", "good news"]
    assert bodies("some") == ["good news"]
    assert {each["Protocol"] for each in sns.list_subscriptions()["Subscriptions"]} == {"sqs"}


async def test_a_fifo_topic_is_one(url: str) -> None:
    """FIFO topics keep what makes them so."""
    made_of = {"FifoTopic": "true", "ContentBasedDeduplication": True}
    [created] = await made(url, resource("News", "AWS::SNS::Topic", "news.fifo", **made_of))
    found = client("sns", url).get_topic_attributes(TopicArn=created.attributes["Arn"])["Attributes"]
    assert found["FifoTopic"] == found["ContentBasedDeduplication"] == "true"


async def test_parameters_are_strings_lists_and_secrets(url: str) -> None:
    """SSM parameters of all three types can be read."""
    await made(
        url,
        resource("Text", "AWS::SSM::Parameter", "/app/text", Type="String", Value=5),
        resource("List", "AWS::SSM::Parameter", "/app/list", Type="StringList", Value=["a", "b"]),
        resource("Hidden", "AWS::SSM::Parameter", "/app/hidden", Type="SecureString", Value="psst"),
    )
    found = client("ssm", url).get_parameters_by_path(Path="/app", WithDecryption=True)["Parameters"]
    assert {each["Name"]: (each["Type"], each["Value"]) for each in found} == {
        "/app/text": ("String", "5"),
        "/app/list": ("StringList", "a,b"),
        "/app/hidden": ("SecureString", "psst"),
    }


async def test_secrets_are_given_or_generated(url: str) -> None:
    """A secret has its string, a password, or a password under its key in the template's object."""
    wanted = {"PasswordLength": "40", "ExcludePunctuation": "true", "ExcludeCharacters": "abc"}
    template = {"SecretStringTemplate": '{"user": "ann"}', "GenerateStringKey": "password"}
    created = await made(
        url,
        resource("Given", "AWS::SecretsManager::Secret", "given", SecretString='{"a": 1}'),
        resource("Plain", "AWS::SecretsManager::Secret", "plain", GenerateSecretString={}),
        resource("Login", "AWS::SecretsManager::Secret", "login", GenerateSecretString={**wanted, **template}),
    )
    secrets = client("secretsmanager", url)
    given, plain, login = (secrets.get_secret_value(SecretId=each.attributes["Arn"]) for each in created)
    assert given["SecretString"] == '{"a": 1}'
    assert len(plain["SecretString"]) == 32
    made_of = json.loads(login["SecretString"])
    assert made_of["user"] == "ann"
    assert len(made_of["password"]) == 40
    assert made_of["password"].isalnum()
    assert not set(made_of["password"]) & set("abc")


async def test_a_bucket_is_made_in_its_region(url: str) -> None:
    """A bucket has its region, versions and CORS rules, and what it does not do here is said."""
    rule = {"AllowedMethods": ["GET"], "AllowedOrigins": ["*"], "ExposedHeaders": ["ETag"], "MaxAge": "60"}
    [created] = await made(
        url,
        resource(
            "Files",
            "AWS::S3::Bucket",
            "files-of-mine",
            VersioningConfiguration={"Status": "Enabled"},
            CorsConfiguration={"CorsRules": [rule]},
            NotificationConfiguration={"LambdaConfigurations": []},
            BucketEncryption={},
        ),
        region="eu-west-1",
    )
    s3 = client("s3", url, "eu-west-1")
    assert s3.get_bucket_location(Bucket="files-of-mine")["LocationConstraint"] == "eu-west-1"
    assert s3.get_bucket_versioning(Bucket="files-of-mine")["Status"] == "Enabled"
    [found] = s3.get_bucket_cors(Bucket="files-of-mine")["CORSRules"]
    assert (found["ExposeHeaders"], found["MaxAgeSeconds"]) == (["ETag"], 60)
    assert created.remarks == ("NotificationConfiguration has no effect here",)


async def test_buses_streams_and_state_machines_are_made(url: str) -> None:
    """EventBridge buses, Kinesis streams and state machines are there, the last with its substitutions."""
    definition = {"StartAt": "Only", "States": {"Only": {"Type": "Pass", "Result": "${Word}", "End": True}}}
    created = await made(
        url,
        resource("Bus", "AWS::Events::EventBus", "orders"),
        resource("Clicks", "AWS::Kinesis::Stream", "clicks", ShardCount="2", RetentionPeriodHours=48),
        resource("Views", "AWS::Kinesis::Stream", "views", StreamModeDetails={"StreamMode": "ON_DEMAND"}),
        resource(
            "Flow",
            "AWS::StepFunctions::StateMachine",
            "flow",
            Definition=definition,
            DefinitionSubstitutions={"Word": "hello"},
        ),
    )
    assert client("events", url).describe_event_bus(Name="orders")["Arn"] == created[0].attributes["Arn"]
    summary = client("kinesis", url).describe_stream_summary(StreamName="clicks")["StreamDescriptionSummary"]
    assert (summary["OpenShardCount"], summary["RetentionPeriodHours"]) == (2, 48)
    machine = client("stepfunctions", url).describe_state_machine(stateMachineArn=created[3].attributes["Arn"])
    assert json.loads(machine["definition"])["States"]["Only"]["Result"] == "hello"


async def test_what_is_there_already_is_kept(url: str) -> None:
    """Making everything a second time changes nothing, loses nothing, and says the same."""
    ends = {"AttributeName": "ends", "Enabled": True}
    resources = [
        table(StreamSpecification={"StreamViewType": "KEYS_ONLY"}, TimeToLiveSpecification=ends),
        resource("Queue", "AWS::SQS::Queue", "work"),
        resource(
            "Topic", "AWS::SNS::Topic", "news", Subscription=[{"Protocol": "sqs", "Endpoint": arn("sqs", "work")}]
        ),
        resource("Parameter", "AWS::SSM::Parameter", "/app/text", Type="String", Value="first"),
        resource("Secret", "AWS::SecretsManager::Secret", "login", GenerateSecretString={}),
        resource("Bucket", "AWS::S3::Bucket", "files-of-mine"),
        resource("Bus", "AWS::Events::EventBus", "orders"),
        resource("Stream", "AWS::Kinesis::Stream", "clicks", ShardCount=1, RetentionPeriodHours=24),
        resource("Flow", "AWS::StepFunctions::StateMachine", "flow", DefinitionString='{"StartAt":"A","States":{}}'),
    ]
    for region in ("us-east-1", "eu-west-1"):  # S3's own errors differ
        first = await made(url, *resources, region=region)
        item = {"id": {"S": "kept"}}
        client("dynamodb", url, region).put_item(TableName="rooms", Item=item)
        client("ssm", url, region).put_parameter(Name="/app/text", Value="second", Overwrite=True)
        assert await made(url, *resources, region=region) == first
        assert client("dynamodb", url, region).get_item(TableName="rooms", Key=item)["Item"] == item
        assert client("ssm", url, region).get_parameter(Name="/app/text")["Parameter"]["Value"] == "second"
        assert len(client("sns", url, region).list_subscriptions()["Subscriptions"]) == 1
        client("s3", url, region).delete_bucket(Bucket="files-of-mine")


async def test_a_queue_with_other_attributes_is_kept(url: str) -> None:
    """A queue that is there with other attributes stays as it is."""
    await made(url, resource("Queue", "AWS::SQS::Queue", "work", VisibilityTimeout=5))
    [created] = await made(url, resource("Queue", "AWS::SQS::Queue", "work", VisibilityTimeout=6))
    queue = {"QueueUrl": created.attributes["QueueUrl"], "AttributeNames": ["VisibilityTimeout"]}
    assert client("sqs", url).get_queue_attributes(**queue)["Attributes"] == {"VisibilityTimeout": "5"}


async def test_every_supported_type_is_of_a_service_that_botocore_knows() -> None:
    """The list of types names botocore's services, and is that of the types which templates have made."""
    assert set(SUPPORTED.values()) <= set(boto3.Session().get_available_services())
    assert SUPPORTED["AWS::SQS::Queue"] == "sqs"
    assert SUPPORTED.keys() == CREATED


# What cannot be made


async def test_an_error_names_the_resource_and_says_what_aws_says(url: str) -> None:
    """A refusal carries the logical id, the type, the name and AWS's own words; others at its side are made."""
    bad = resource("Bad", "AWS::DynamoDB::Table", "bad", **{**KEYS, "AttributeDefinitions": []})
    queue = resource("Queue", "AWS::SQS::Queue", "work")
    problems = await refused(url, bad, queue)
    assert problems.keys() == {"Bad"}
    assert problems["Bad"].startswith("AWS::DynamoDB::Table bad: ")
    assert "ValidationException" in problems["Bad"]
    assert client("sqs", url).get_queue_url(QueueName="work")


async def test_a_value_that_cannot_be_coerced_is_named(url: str) -> None:
    """A property of the wrong kind is found before the call, by its path."""
    throughput = {"ReadCapacityUnits": "many", "WriteCapacityUnits": 1}
    problems = await refused(
        url,
        table(ProvisionedThroughput=throughput),
        resource("Topic", "AWS::SNS::Topic", "news", Subscription="nobody"),
    )
    assert problems == {"Topic": "AWS::SNS::Topic news: Subscription: expected a list, got 'nobody'"}
    problems = await refused(url, table(ProvisionedThroughput=throughput))
    words = "ProvisionedThroughput.ReadCapacityUnits: expected a whole number, got 'many'"
    assert problems == {"Table": f"AWS::DynamoDB::Table rooms: {words}"}


@pytest.mark.parametrize(
    ("generate", "words"),
    [
        ({"SecretStringTemplate": "{}"}, "come together"),
        ({"SecretStringTemplate": "[]", "GenerateStringKey": "p"}, "expected a JSON object, got '[]'"),
        ({"SecretStringTemplate": "{", "GenerateStringKey": "p"}, "expected JSON: "),
        ("32 letters", "GenerateSecretString: expected an object, got '32 letters'"),
    ],
)
async def test_a_secret_that_cannot_be_generated_says_why(url: str, generate: Any, words: str) -> None:
    """A template for a secret must be an object and have a key."""
    problems = await refused(url, resource("S", "AWS::SecretsManager::Secret", "s", GenerateSecretString=generate))
    assert words in problems["S"]


async def test_queues_in_a_circle_are_refused(url: str) -> None:
    """Two queues that take each other's failures cannot be made, and the circle is shown."""
    queues = [
        resource(one, "AWS::SQS::Queue", one, RedrivePolicy={"deadLetterTargetArn": arn("sqs", other)})
        for one, other in (("A", "B"), ("B", "A"))
    ]
    [words] = (await refused(url, *queues)).values()
    assert words in {"it needs itself to be there first: A -> B -> A", "it needs itself to be there first: B -> A -> B"}


async def test_a_type_that_is_not_made_here_is_refused(url: str) -> None:
    """An unknown type is named with those that are known."""
    problems = await refused(url, resource("Db", "AWS::RDS::DBInstance", "db"))
    assert problems["Db"].startswith("AWS::RDS::DBInstance is not made here; what is: AWS::DynamoDB::GlobalTable, ")


async def test_an_endpoint_where_nobody_is_is_an_error() -> None:
    """A service that cannot be reached is an error of the resource, not a wait without end."""
    problems = await refused("http://127.0.0.1:9", resource("Queue", "AWS::SQS::Queue", "work"))
    assert "http://127.0.0.1:9" in problems["Queue"]


# What moto does not mind and AWS does: botocore's stub has AWS's answers


@contextmanager
def aws(resource: Resource) -> Iterator[tuple[Stubber, Callable[[], Made]]]:
    """The service of a resource, whose answers are given and whose calls are checked, and what makes the resource."""
    kind = KINDS[resource.type]
    there = client(kind.service, "http://127.0.0.1:1")
    with Stubber(there) as stub:
        yield stub, lambda: kind.make(Service(there, Place()), resource)
        stub.assert_no_pending_responses()


@pytest.mark.parametrize("message", ["TimeToLive is already enabled", "The provided attribute is none"])
def test_a_time_to_live_that_is_set_already_is_no_error(message: str) -> None:
    """AWS refuses to turn on what is on, which is what was wanted; all other refusals are errors."""
    ends = {"AttributeName": "ends", "Enabled": True}
    found = {"Table": {"TableArn": arn("dynamodb", "table/rooms"), "TableStatus": "ACTIVE"}}
    with aws(table(TimeToLiveSpecification=ends)) as (stub, make):
        stub.add_client_error("create_table", "ResourceInUseException")
        stub.add_response("describe_table", found)
        stub.add_client_error("update_time_to_live", "ValidationException", message)
        if "already" in message:
            stub.add_response("describe_table", found)
            assert make().attributes == {"Arn": found["Table"]["TableArn"]}
        else:
            with pytest.raises(ClientError, match=message):
                make()


def test_a_stream_is_not_asked_for_what_it_has_anyway() -> None:
    """AWS refuses to raise a retention to the 24 hours that it is."""
    stream = resource("Stream", "AWS::Kinesis::Stream", "clicks", ShardCount="1", RetentionPeriodHours="24")
    description = {"StreamName": "clicks", "StreamARN": arn("kinesis", "stream/clicks"), "StreamStatus": "ACTIVE"}
    rest = {"RetentionPeriodHours": 24, "StreamCreationTimestamp": 0, "EnhancedMonitoring": []}
    with aws(stream) as (stub, make):
        stub.add_response("create_stream", {}, {"StreamName": "clicks", "ShardCount": 1})
        shards = {"Shards": [], "HasMoreShards": False}
        stub.add_response("describe_stream", {"StreamDescription": {**description, **rest, **shards}})
        stub.add_response(
            "describe_stream_summary", {"StreamDescriptionSummary": {**description, **rest, "OpenShardCount": 1}}
        )
        assert make().attributes == {"Arn": arn("kinesis", "stream/clicks")}


def test_a_queue_that_is_no_fifo_does_not_say_so() -> None:
    """AWS refuses `FifoQueue` false."""
    with aws(resource("Queue", "AWS::SQS::Queue", "work", FifoQueue=False, DelaySeconds=1)) as (stub, make):
        wanted = {"QueueName": "work", "Attributes": {"DelaySeconds": "1"}}
        stub.add_response("create_queue", {"QueueUrl": "http://q"}, wanted)
        stub.add_response("get_queue_attributes", {"Attributes": {"QueueArn": arn("sqs", "work")}})
        make()


@pytest.mark.parametrize("message", ["Topic already exists with different attributes", "Invalid parameter: Name"])
def test_a_topic_with_other_attributes_is_kept(message: str) -> None:
    """AWS refuses to make a topic with other attributes than it has; all other refusals are errors."""
    with aws(resource("Topic", "AWS::SNS::Topic", "news", DisplayName="News")) as (stub, make):
        stub.add_client_error("create_topic", "InvalidParameter", message)
        if "already" in message:
            assert make().attributes == {"Arn": arn("sns", "news")}
        else:
            with pytest.raises(ClientError, match=message):
                make()


# Values


class _Shape:
    """A shape as botocore has it."""

    def __init__(self, type_name: str, **parts: Any) -> None:
        self.type_name = type_name
        self.__dict__.update(parts)


@pytest.mark.parametrize(
    ("kind", "value", "result"),
    [
        ("boolean", "False", False),
        ("boolean", True, True),
        ("integer", "12", 12),
        ("long", 3.0, 3),
        ("double", "1.5", 1.5),
        ("string", True, "true"),
        ("string", 5, "5"),
        ("string", {"a": [1]}, '{"a":[1]}'),
        ("blob", "abc", b"abc"),
        ("timestamp", "2020-01-01", "2020-01-01"),
    ],
)
def test_values_become_what_the_api_takes(kind: str, value: Any, result: Any) -> None:
    """Strings become numbers and booleans, and the other way round, as the API has them."""
    assert coerced(_Shape(kind), value, "X") == result


def test_structures_lose_what_the_api_does_not_know_and_null() -> None:
    """Members are found whatever the case of their first letter; unknown ones and null are left out."""
    shape = _Shape("structure", members={"name": _Shape("string"), "sizes": _Shape("list", member=_Shape("integer"))})
    assert coerced(shape, {"Name": 1, "Sizes": "5", "Other": 3}, "") == {"name": "1", "sizes": [5]}
    assert coerced(shape, {"name": None}, "") == {}


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("boolean", "yes", "X: expected true or false, got 'yes'"),
        ("boolean", 1, "X: expected true or false, got 1"),
        ("integer", "1.5", "X: expected a whole number, got '1.5'"),
        ("integer", 1.5, "X: expected a whole number, got 1.5"),
        ("integer", True, "X: expected a whole number, got True"),
        ("integer", float("inf"), "X: expected a whole number, got inf"),
        ("float", [], "X: expected a number, got []"),
        ("structure", "x", "X: expected an object, got 'x'"),
        ("map", [], "X: expected an object, got []"),
    ],
)
def test_values_that_cannot_be_coerced_are_named(kind: str, value: Any, words: str) -> None:
    """The error says where, what was expected and what came."""
    with pytest.raises(ValueError, match="expected") as caught:
        coerced(_Shape(kind, members={}), value, "X")
    assert str(caught.value) == words


# Where things are


def _moto_processes(others: Others) -> list[psutil.Process]:
    return [each for each in others.besides() if str(MOTO) in " ".join(each.cmdline())]


async def test_moto_runs_as_long_as_the_block_and_says_that_items_do_not_expire(
    monkeypatch: pytest.MonkeyPatch, others: Others
) -> None:
    """Moto is started and stopped, whatever AWS settings the user has, and its tables keep items for ever."""
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with Backends() as backends:
        where = backends.endpoint("dynamodb")
        assert where.startswith("http://127.0.0.1:")
        assert backends.endpoint("sqs") == backends.endpoint("states") == where
        assert backends.environment() == {"AWS_ENDPOINT_URL": where}
        await backends.ready()
        await backends.ready()
        ends = {"AttributeName": "ends", "Enabled": True}
        plain = resource("Plain", "AWS::DynamoDB::Table", "plain", **KEYS)
        flow = resource("Flow", "AWS::StepFunctions::StateMachine", "flow", Definition={"StartAt": "A", "States": {}})
        created = await backends.create([table(TimeToLiveSpecification=ends), plain, flow])
        assert [each.remarks for each in created] == [(LASTING,), (), (NOT_RUN,)]
        processes = _moto_processes(others)
        assert processes
    await until(lambda: not any(each.is_running() for each in processes), "moto is gone")


async def test_two_stacks_at_a_time_do_not_meet() -> None:
    """Each has its own moto."""
    async with Backends() as one, Backends(region="eu-west-1", account="999999999999") as other:
        assert one.endpoint("sqs") != other.endpoint("sqs")
        [created] = await other.create([resource("Queue", "AWS::SQS::Queue", "work")])
        assert created.attributes["Arn"] == "arn:aws:sqs:eu-west-1:999999999999:work"
        assert client("sqs", one.endpoint("sqs")).list_queues().get("QueueUrls", []) == []


async def test_services_that_the_user_names_are_used(url: str) -> None:
    """A service with an endpoint of its own is there, the others on moto; functions are told both."""
    async with Backends({"DynamoDB": f"{url}/", "cognito-idp": "http://127.0.0.1:1", "own": "http://x"}) as backends:
        assert backends.endpoint("dynamodb") == backends.endpoint("dynamodbstreams") == url
        assert backends.endpoint("sqs") not in (url, "")
        assert backends.environment() == {
            "AWS_ENDPOINT_URL": backends.endpoint("sqs"),
            "AWS_ENDPOINT_URL_DYNAMODB": url,
            "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": url,
            "AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER": "http://127.0.0.1:1",
            "AWS_ENDPOINT_URL_OWN": "http://x",
        }
        assert len(await backends.create([table(), resource("Queue", "AWS::SQS::Queue", "work")])) == 2
    assert client("dynamodb", url).list_tables()["TableNames"] == ["rooms"]
    assert client("sqs", url).list_queues().get("QueueUrls", []) == []


async def test_nothing_is_started_where_everything_is_named(url: str, others: Others) -> None:
    """With an endpoint for all services there is no process of ours."""
    async with Backends({"*": url, "states": "http://127.0.0.1:1"}) as backends:
        assert _moto_processes(others) == []
        assert backends.endpoint("anything") == url
        assert backends.environment()["AWS_ENDPOINT_URL_SFN"] == "http://127.0.0.1:1"
        await backends.ready()


async def test_a_moto_that_has_died_is_noticed(others: Others) -> None:
    """`failed` says that moto has ended, and so does the next thing that is wanted of it."""
    async with Backends() as backends:
        await backends.ready()
        watching = asyncio.create_task(backends.failed())
        for each in _moto_processes(others):
            if each.children() == []:
                os.kill(each.pid, signal.SIGKILL)
        async with asyncio.timeout(BOUND_S):
            with pytest.raises(CannotStart, match="moto has ended"):
                await watching
        with pytest.raises(CannotStart, match="moto has ended"):
            await backends.create([table()])


async def test_watching_ends_with_who_watches() -> None:
    """`failed` can be given up, with processes and without."""
    async with Backends() as backends:
        for each in (backends, Backends({"*": "http://x"})):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await each.failed()


# DynamoDB Local


FAKE_JAVA = """#!{python} -P
import sys, socket, runpy, os
assert os.environ["DDB_LOCAL_TELEMETRY"] == "0"
jar = sys.argv[sys.argv.index("-classpath") + 1].split(os.pathsep)[0]
assert os.path.isfile(jar), jar
assert "-inMemory" in sys.argv and "-sharedDb" in sys.argv
with socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("-port") + 1]))) as listener:
    os.set_inheritable(listener.fileno(), True)
    os.execv(sys.executable, [sys.executable, "-P", {moto!r}, str(listener.fileno())])
"""


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `java` on PATH that runs something like DynamoDB Local, and an empty folder for its jar."""
    program = tmp_path / "bin" / "java"
    program.parent.mkdir()
    program.write_text(FAKE_JAVA.format(python=sys.executable, moto=str(MOTO)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(dynamodb_local.SETTING, raising=False)
    folder = tmp_path / "cache" / "hubbub" / "dynamodb-local"
    folder.mkdir(parents=True)
    return folder


async def test_dynamodb_local_is_used_where_it_is(java: Path) -> None:
    """With the jar in the cache, tables are there, and everything else on moto; its items expire."""
    (java / dynamodb_local.JAR).touch()
    async with Backends() as backends:
        assert backends.endpoint("dynamodb") != backends.endpoint("sqs")
        assert backends.environment()["AWS_ENDPOINT_URL_DYNAMODB"] == backends.endpoint("dynamodb")
        ends = {"AttributeName": "ends", "Enabled": True}
        [created, _] = await backends.create(
            [table(TimeToLiveSpecification=ends), resource("Queue", "AWS::SQS::Queue", "work")]
        )
        assert created.remarks == ()
        assert client("dynamodb", backends.endpoint("dynamodb")).list_tables()["TableNames"] == ["rooms"]
        assert client("dynamodb", backends.endpoint("sqs")).list_tables()["TableNames"] == []


async def test_dynamodb_local_that_fails_says_why(java: Path) -> None:
    """A DynamoDB Local that does not come up is an error with its last words."""
    async with Backends(dynamodb=java / "elsewhere") as backends:
        with pytest.raises(CannotStart, match=r"AssertionError: .*elsewhere"):
            await backends.create([table()])


def test_dynamodb_local_is_found_by_its_setting(java: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is named must be right; an empty setting is a no; without either the cache is looked at."""
    setting = dynamodb_local.SETTING
    assert dynamodb_local.find() is None
    with pytest.raises(CannotStart, match=f"{setting}: expected a folder with DynamoDBLocal.jar, got {tmp_path}"):
        dynamodb_local.find({setting: str(tmp_path)})
    (tmp_path / dynamodb_local.JAR).touch()
    assert dynamodb_local.find({setting: str(tmp_path)}) == tmp_path
    (java / dynamodb_local.JAR).touch()
    assert dynamodb_local.find() == java
    assert dynamodb_local.find({setting: ""}) is None
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert dynamodb_local.find() is None
    with pytest.raises(CannotStart, match="needs Java"):
        dynamodb_local.find({setting: str(tmp_path)})
