"""Event sources against moto's queues, streams and topics, and schedules against a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from functionlab import Source
from lambdalab import (
    Aws,
    FakeFunctions,
    FunctionError,
    HandClock,
    Json,
    answers,
    endpoints,
    fails,
    moto_server,
)

from hubbub.emulator.definition import ACCOUNT, EventSource
from hubbub.emulator.functions import Functions, Throttled
from hubbub.emulator.functions.invocations import Invocations, Runner
from hubbub.emulator.services import ServiceClient, ServiceFailed
from hubbub.emulator.sources import Pace, SourceInvalid, Sources
from live import BOUND_S, until

QUICK = Pace(long_poll_s=1, short_poll_s=0.02, backoff_s=(0.05, 0.2), describe_s=0.2)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
def aws(moto: str) -> Iterator[Aws]:
    services = Aws(moto)
    yield services
    services.close()


@asynccontextmanager
async def reading(
    url: str, functions: Runner, *sources: EventSource, pace: Pace = QUICK, ready: bool = True
) -> AsyncIterator[Sources]:
    """Sources at work, once they miss nothing."""
    async with (
        ServiceClient(endpoints(url)) as services,
        Invocations(functions, services) as invocations,
        Sources(sources, invocations, services, pace=pace) as running,
    ):
        if ready:
            assert await running.wait_ready(BOUND_S) == ()
        yield running


def from_queue(arn: str, **settings: Any) -> EventSource:
    return EventSource(logical_id="Q", function="f", kind="sqs", source=arn, **settings)


def fake(behaviour: Any = answers, **settings: Any) -> FakeFunctions:
    functions = FakeFunctions()
    functions.add("f", behaviour, **settings)
    return functions


def bodies(functions: FakeFunctions) -> list[list[str]]:
    """What messages each invocation got."""
    return [[record["body"] for record in event["Records"]] for event in functions.events("f")]


def gone(aws: Aws, url: str) -> bool:
    """Whether a queue is empty."""
    return aws.size(url) == (0, 0)


# SQS


async def test_a_message_invokes_its_function_and_is_taken_away(aws: Aws) -> None:
    """A message is a record of AWS's shape; when the function has returned, the message is gone."""
    url, arn = aws.queue()
    functions = fake()
    async with reading(aws.url, functions, from_queue(arn)):
        attributes = {
            "kind": {"DataType": "String", "StringValue": "a"},
            "raw": {"DataType": "Binary", "BinaryValue": b"\x00\x01"},
        }
        sent = aws.sqs.send_message(QueueUrl=url, MessageBody="hello", MessageAttributes=attributes)
        await until(lambda: len(functions.calls) == 1, "the function was invoked")
        await until(lambda: gone(aws, url), "the message is gone")
    (record,) = functions.events("f")[0]["Records"]
    received = record.pop("attributes")
    assert record.pop("receiptHandle")
    assert record == {
        "messageId": sent["MessageId"],
        "body": "hello",
        "messageAttributes": {
            "kind": {"stringValue": "a", "stringListValues": [], "binaryListValues": [], "dataType": "String"},
            "raw": {"binaryValue": "AAE=", "stringListValues": [], "binaryListValues": [], "dataType": "Binary"},
        },
        "md5OfBody": sent["MD5OfMessageBody"],
        "md5OfMessageAttributes": sent["MD5OfMessageAttributes"],
        "eventSource": "aws:sqs",
        "eventSourceARN": arn,
        "awsRegion": "us-east-1",
    }
    assert received["ApproximateReceiveCount"] == "1"
    assert {"SentTimestamp", "SenderId", "ApproximateFirstReceiveTimestamp"} <= received.keys()


async def test_a_real_function_handles_a_queue(aws: Aws, source: Source) -> None:
    """A Python function in its own process gets a queue's messages."""
    url, arn = aws.queue()
    out = source.folder / "out"
    code = f"def handler(event, context):\n    open({str(out)!r}, 'a').write(event['Records'][0]['body'])\n"
    function = source.function(code, name="f", timeout_s=20.0)
    async with Functions([function]) as functions, reading(aws.url, functions, from_queue(arn)):
        aws.sqs.send_message(QueueUrl=url, MessageBody="hello")
        await until(lambda: out.exists() and out.read_text() == "hello", "the function wrote")
        await until(lambda: gone(aws, url), "the message is gone")


async def test_a_batch_is_as_large_as_its_size(aws: Aws) -> None:
    """No invocation gets more messages than BatchSize, and none is left out."""
    url, arn = aws.queue()
    aws.sqs.send_message_batch(
        QueueUrl=url, Entries=[{"Id": str(number), "MessageBody": str(number)} for number in range(7)]
    )
    functions = fake()
    async with reading(aws.url, functions, from_queue(arn, batch_size=3)):
        await until(lambda: gone(aws, url), "all are gone")
    assert [len(batch) for batch in bodies(functions)] == [3, 3, 1]
    assert sorted(itertools.chain(*bodies(functions))) == [str(number) for number in range(7)]


async def test_a_window_gathers_messages_until_the_batch_is_full(aws: Aws) -> None:
    """Within its window a batch waits for more than SQS gives at once, and does not wait when it is full."""
    url, arn = aws.queue()
    for start in (0, 10):
        entries = [{"Id": str(number), "MessageBody": str(number)} for number in range(start, start + 10)]
        aws.sqs.send_message_batch(QueueUrl=url, Entries=entries)
    functions = fake()
    async with reading(aws.url, functions, from_queue(arn, batch_size=20, batch_window_s=60.0)):
        await until(lambda: gone(aws, url), "all are gone")
    assert [len(batch) for batch in bodies(functions)] == [20]


async def test_a_window_ends(aws: Aws) -> None:
    """A batch that does not fill is handed over when its window is over."""
    url, arn = aws.queue()
    functions = fake()
    async with reading(aws.url, functions, from_queue(arn, batch_size=20, batch_window_s=3.0)):
        aws.sqs.send_message(QueueUrl=url, MessageBody="first")
        aws.sqs.send_message(QueueUrl=url, MessageBody="second")
        await until(lambda: gone(aws, url), "both are gone")
    assert [sorted(batch) for batch in bodies(functions)] == [["first", "second"]]


async def test_a_message_whose_function_failed_comes_again(aws: Aws) -> None:
    """A failed message stays hidden for the queue's visibility time-out and then comes again, until it is handled."""
    url, arn = aws.queue(VisibilityTimeout="1")
    tries = itertools.count(1)

    async def second_time(event: Json) -> None:
        if next(tries) == 1:
            raise FunctionError("not yet")

    functions = fake(second_time, timeout_s=1.0)
    async with reading(aws.url, functions, from_queue(arn)):
        aws.sqs.send_message(QueueUrl=url, MessageBody="again")
        await until(lambda: len(functions.calls) == 2, "it came again")
        await until(lambda: gone(aws, url), "it is gone")
    counts = [event["Records"][0]["attributes"]["ApproximateReceiveCount"] for event in functions.events("f")]
    assert counts == ["1", "2"]


async def test_a_message_that_fails_too_often_goes_where_the_queue_says(aws: Aws) -> None:
    """The queue's own redrive policy moves a message that was received too often."""
    dead_url, dead_arn = aws.queue()
    policy = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": 2})
    url, arn = aws.queue(VisibilityTimeout="1", RedrivePolicy=policy)
    functions = fake(fails, timeout_s=1.0)
    async with reading(aws.url, functions, from_queue(arn)):
        aws.sqs.send_message(QueueUrl=url, MessageBody="poison")
        await until(lambda: aws.size(dead_url)[0] == 1, "it is in the dead-letter queue")
    assert len(functions.calls) == 2


@pytest.mark.parametrize("reports", [True, False])
async def test_reported_failures_stay_and_the_others_go(aws: Aws, reports: bool) -> None:
    """With ReportBatchItemFailures only what is named stays in the queue; without, the answer is not looked at."""
    url, arn = aws.queue(VisibilityTimeout="60")

    async def one_fails(event: Json) -> Json:
        failed = [each["messageId"] for each in event["Records"] if each["body"] == "bad"]
        return {"batchItemFailures": [{"itemIdentifier": name} for name in failed]}

    functions = fake(one_fails)
    entries = [{"Id": body, "MessageBody": body} for body in ("good", "bad", "fine")]
    aws.sqs.send_message_batch(QueueUrl=url, Entries=entries)
    async with reading(aws.url, functions, from_queue(arn, report_batch_item_failures=reports)):
        await until(lambda: aws.size(url) == (0, 1 if reports else 0), "what was handled is gone")
    assert len(functions.calls) == 1


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        (None, 0),
        ({}, 0),
        ({"batchItemFailures": None}, 0),
        ({"batchItemFailures": []}, 0),
        ({"batchItemFailures": [{"itemIdentifier": ""}]}, 2),
        ({"batchItemFailures": [{"itemIdentifier": None}]}, 2),
        ({"batchItemFailures": [{"id": "x"}]}, 2),
        ({"batchItemFailures": [{"itemIdentifier": "of no message"}]}, 2),
        ({"batchItemFailures": "all"}, 2),
    ],
)
async def test_an_answer_about_failures_is_read_as_aws_reads_it(aws: Aws, answer: Any, left: int) -> None:
    """No failures are success; failures that cannot be understood are failures of all."""
    url, arn = aws.queue(VisibilityTimeout="60")

    async def answering(event: Json) -> Any:
        return answer

    functions = fake(answering)
    aws.sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": body, "MessageBody": body} for body in "ab"])
    async with reading(aws.url, functions, from_queue(arn, report_batch_item_failures=True)):
        await until(lambda: len(functions.calls) == 1, "the function was invoked")
        await until(lambda: aws.size(url) == (0, left), "the answer was read")


async def test_a_throttled_batch_waits_and_is_then_handled(aws: Aws) -> None:
    """A throttle is no failure: the batch is tried again until the function has room."""
    url, arn = aws.queue()
    tries = itertools.count(1)

    async def busy_at_first(event: Json) -> None:
        if next(tries) <= 3:
            raise Throttled("ReservedFunctionConcurrentInvocationLimitExceeded", "busy")

    functions = fake(busy_at_first)
    async with reading(aws.url, functions, from_queue(arn)):
        aws.sqs.send_message(QueueUrl=url, MessageBody="patient")
        await until(lambda: gone(aws, url), "it is gone")
    counts = {event["Records"][0]["attributes"]["ApproximateReceiveCount"] for event in functions.events("f")}
    assert (len(functions.calls), counts) == (4, {"1"})


async def test_a_batch_that_is_throttled_too_long_goes_back(aws: Aws, caplog: pytest.LogCaptureFixture) -> None:
    """When the visibility time-out is over the batch is let go, and comes again."""
    url, arn = aws.queue(VisibilityTimeout="1")

    async def busy(event: Json) -> None:
        raise Throttled("ReservedFunctionConcurrentInvocationLimitExceeded", "busy")

    functions = fake(busy, timeout_s=1.0)
    async with reading(aws.url, functions, from_queue(arn)):
        aws.sqs.send_message(QueueUrl=url, MessageBody="late")
        await until(lambda: "Q: 1 messages go back: the function was throttled" in caplog.messages, "it went back")
        received = [event["Records"][0]["attributes"]["ApproximateReceiveCount"] for event in functions.events("f")]
        assert received[0] == "1"
        await until(
            lambda: functions.events("f")[-1]["Records"][0]["attributes"]["ApproximateReceiveCount"] == "2",
            "it came again",
        )


async def test_filters_let_through_what_matches_and_take_the_rest_away(aws: Aws) -> None:
    """One pattern must take a message; what none takes is deleted unseen."""
    url, arn = aws.queue()
    functions = fake()
    filters = ('{"body": {"kind": ["a"]}}', '{"body": {"n": [{"numeric": [">", 5]}]}}')
    sent = ['{"kind": "a"}', '{"kind": "b"}', '{"n": 6}', '{"n": 5}', "kind a"]
    entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(sent)]
    aws.sqs.send_message_batch(QueueUrl=url, Entries=entries)
    async with reading(aws.url, functions, from_queue(arn, filters=filters)):
        await until(lambda: gone(aws, url), "all are gone")
    assert list(itertools.chain(*bodies(functions))) == ['{"kind": "a"}', '{"n": 6}']


async def test_a_fifo_queue_keeps_the_order_of_its_groups(aws: Aws) -> None:
    """While a group's message is being handled, its next is not; another group's is."""
    url, arn = aws.queue(".fifo", FifoQueue="true", ContentBasedDeduplication="true")
    running: list[str] = []
    together: list[tuple[str, ...]] = []

    async def slow(event: Json) -> None:
        (body,) = [each["body"] for each in event["Records"]]
        running.append(body)
        together.append(tuple(running))
        if body == "a1":
            await until(lambda: "b1" in running, "the other group's message is handled as well")
        elif body == "b1":
            await until(lambda: "a1" not in running, "the first message is handled")
        await asyncio.sleep(0.1)  # so that one that came too early would be seen beside it
        running.remove(body)

    functions = fake(slow)
    for body in ("a1", "a2", "a3", "b1"):
        aws.sqs.send_message(QueueUrl=url, MessageBody=body, MessageGroupId=body[0])
    patient = Pace(long_poll_s=20, short_poll_s=0.02)
    async with reading(aws.url, functions, from_queue(arn, batch_size=1), pace=patient):
        await until(lambda: gone(aws, url), "all are gone")
    order = [body for (body,) in bodies(functions) if body[0] == "a"]
    assert order == ["a1", "a2", "a3"]
    assert all(len({body[0] for body in each}) == len(each) for each in together)
    assert any(len(each) == 2 for each in together)


@pytest.mark.parametrize(("scaling", "most"), [({}, 5), ({"ScalingConfig": {"MaximumConcurrency": 2}}, 2)])
async def test_only_so_many_batches_are_under_way(aws: Aws, scaling: Json, most: int) -> None:
    """Five batches of a queue run at a time, or as many as the mapping says."""
    url, arn = aws.queue()
    let_go = asyncio.Event()

    async def held(event: Json) -> None:
        await let_go.wait()

    functions = fake(held)
    for number in range(8):
        aws.sqs.send_message(QueueUrl=url, MessageBody=str(number))
    async with reading(aws.url, functions, from_queue(arn, batch_size=1, properties=scaling)):
        await until(lambda: len(functions.calls) == most, "as many as may run")
        await aws.hang_on()
        assert aws.size(url) == (8 - most, most)
        let_go.set()
        await until(lambda: gone(aws, url), "all are gone")


async def test_a_queue_that_is_not_there_yet_is_waited_for(aws: Aws, caplog: pytest.LogCaptureFixture) -> None:
    """A missing queue is told once and looked for again; the source works once it is there."""
    name = f"late-{uuid.uuid4()}"
    functions = fake()
    mapping = from_queue(f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}")
    async with reading(aws.url, functions, mapping, ready=False) as sources:
        await until(lambda: any("QueueDoesNotExist" in words for words in caplog.messages), "it is told")
        assert await sources.wait_ready(0.3) == ("Q",)
        url = aws.sqs.create_queue(QueueName=name)["QueueUrl"]
        aws.sqs.send_message(QueueUrl=url, MessageBody="at last")
        await until(lambda: gone(aws, url) and functions.calls != [], "it was handled")
    assert len([words for words in caplog.messages if "QueueDoesNotExist" in words]) == 1


async def test_a_service_that_is_gone_is_told_and_ends_cleanly(caplog: pytest.LogCaptureFixture) -> None:
    """An endpoint where nobody listens is named in the log, and the end does not wait for it."""
    async with reading("http://127.0.0.1:9", fake(), from_queue(f"arn:aws:sqs:us-east-1:{ACCOUNT}:q"), ready=False):
        await until(lambda: any("Unreachable: sqs at http://127.0.0.1:9" in each for each in caplog.messages), "told")


async def test_a_visibility_timeout_that_aws_refuses_is_told(aws: Aws, caplog: pytest.LogCaptureFixture) -> None:
    """A queue whose messages come again before its function has ended is warned of."""
    _, arn = aws.queue(VisibilityTimeout="5")
    async with reading(aws.url, fake(timeout_s=10.0), from_queue(arn)):
        assert any("AWS refuses this mapping" in words for words in caplog.messages)


async def test_a_disabled_source_does_nothing(aws: Aws) -> None:
    """A mapping that is not enabled leaves its queue alone."""
    url, arn = aws.queue()
    aws.sqs.send_message(QueueUrl=url, MessageBody="left")
    functions = fake()
    async with reading(aws.url, functions, from_queue(arn, enabled=False)):
        await aws.hang_on()
    assert aws.size(url) == (1, 0)
    assert functions.calls == []


async def test_the_end_comes_in_the_midst_of_a_poll(aws: Aws) -> None:
    """A poll that waits is cut off at once, and no task is left."""
    _, arn = aws.queue()
    before = asyncio.all_tasks()
    patient = Pace(long_poll_s=20)
    async with asyncio.timeout(10), reading(aws.url, fake(), from_queue(arn), pace=patient):
        pass
    assert asyncio.all_tasks() == before


# DynamoDB


def table(aws: Aws, view: str = "NEW_AND_OLD_IMAGES") -> tuple[str, str]:
    """A new table with a stream: its name, and the ARN of the stream as a template would have it."""
    name = f"t-{uuid.uuid4()}"
    aws.dynamodb.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": view},
    )
    return name, f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/{name}/stream/whenever"


def put(aws: Aws, name: str, *ids: str, **more: Any) -> None:
    for each in ids:
        aws.dynamodb.put_item(TableName=name, Item={"id": {"S": each}, **more})


def from_table(arn: str, **settings: Any) -> EventSource:
    return EventSource(logical_id="S", function="f", kind="dynamodb", source=arn, **{"batch_size": 100, **settings})


def keys(functions: FakeFunctions) -> list[list[str]]:
    """Whose changes each invocation got."""
    return [[each["dynamodb"]["Keys"]["id"]["S"] for each in event["Records"]] for event in functions.events("f")]


async def test_a_table_s_changes_invoke_its_function(aws: Aws) -> None:
    """Inserts, changes and removals are records of AWS's shape, in order, under the stream's real ARN."""
    name, arn = table(aws)
    functions = fake()
    async with reading(aws.url, functions, from_table(arn)):
        put(aws, name, "a", data={"B": b"\x00\x01"}, n={"N": "1"})
        put(aws, name, "a", n={"N": "2"})
        aws.dynamodb.delete_item(TableName=name, Key={"id": {"S": "a"}})
        await until(lambda: sum(map(len, keys(functions))) == 3, "all changes came")
    first, second, third = [each for event in functions.events("f") for each in event["Records"]]
    assert [each["eventName"] for each in (first, second, third)] == ["INSERT", "MODIFY", "REMOVE"]
    real = aws.dynamodb.describe_table(TableName=name)["Table"]["LatestStreamArn"]
    assert (first["eventSource"], first["eventSourceARN"]) == ("aws:dynamodb", real)
    assert (first["eventVersion"], first["awsRegion"]) == ("1.1", "us-east-1")
    assert first["eventID"]
    change = first["dynamodb"]
    assert change["Keys"] == {"id": {"S": "a"}}
    assert change["NewImage"] == {"id": {"S": "a"}, "data": {"B": "AAE="}, "n": {"N": "1"}}
    assert "OldImage" not in change
    assert isinstance(change["ApproximateCreationDateTime"], int | float)
    assert change["StreamViewType"] == "NEW_AND_OLD_IMAGES"
    assert isinstance(change["SizeBytes"], int)
    assert second["dynamodb"]["OldImage"]["n"] == {"N": "1"}
    assert "NewImage" not in third["dynamodb"]
    numbers = [int(each["dynamodb"]["SequenceNumber"]) for each in (first, second, third)]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(("position", "expected"), [("LATEST", ["new"]), ("TRIM_HORIZON", ["old", "new"])])
async def test_a_stream_is_read_from_its_position(aws: Aws, position: str, expected: list[str]) -> None:
    """LATEST begins with what comes after it is ready, TRIM_HORIZON with the oldest."""
    name, arn = table(aws)
    put(aws, name, "old")
    functions = fake()
    async with reading(aws.url, functions, from_table(arn, starting_position=position)):
        put(aws, name, "new")
        await until(lambda: "new" in itertools.chain(*keys(functions)), "the new one came")
    assert list(itertools.chain(*keys(functions))) == expected


async def test_a_stream_s_batches_have_a_size_and_a_window(aws: Aws) -> None:
    """Batches are at most as large as BatchSize; what does not fill one waits for the window."""
    name, arn = table(aws)
    put(aws, name, *"abcde")
    functions = fake()
    settings = {"starting_position": "TRIM_HORIZON", "batch_size": 2, "batch_window_s": 0.5}
    async with reading(aws.url, functions, from_table(arn, **settings)):
        await until(lambda: len(functions.calls) == 2, "two are full")
        await until(lambda: len(functions.calls) == 3, "the third's window is over")
    assert keys(functions) == [["a", "b"], ["c", "d"], ["e"]]


async def test_a_batch_that_fails_holds_up_those_behind_it(aws: Aws) -> None:
    """Records are tried again, all of them and in order, before later ones are."""
    name, arn = table(aws)
    put(aws, name, *"abc")
    tries = itertools.count(1)

    async def third_time(event: Json) -> None:
        if next(tries) < 3:
            raise FunctionError("not yet")

    functions = fake(third_time)
    settings = {"starting_position": "TRIM_HORIZON", "batch_size": 2}
    async with reading(aws.url, functions, from_table(arn, **settings)):
        await until(lambda: ["c"] in keys(functions), "the last came")
    assert keys(functions) == [["a", "b"], ["a", "b"], ["a", "b"], ["c"]]


async def test_a_batch_is_given_up_after_its_tries_and_said_where(aws: Aws) -> None:
    """After MaximumRetryAttempts a batch is left behind; the destination is told where it is in the stream."""
    name, arn = table(aws)
    url, queue_arn = aws.queue()
    put(aws, name, *"ab")

    async def no_a(event: Json) -> None:
        if event["Records"][0]["dynamodb"]["Keys"]["id"]["S"] == "a":
            raise FunctionError("never")

    functions = fake(no_a)
    properties = {"MaximumRetryAttempts": 2, "DestinationConfig": {"OnFailure": {"Destination": queue_arn}}}
    settings = {"starting_position": "TRIM_HORIZON", "batch_size": 1, "properties": properties}
    async with reading(aws.url, functions, from_table(arn, **settings)):
        record = json.loads((await aws.message(url))["Body"])
        await until(lambda: ["b"] in keys(functions), "the next came")
    assert keys(functions) == [["a"], ["a"], ["a"], ["b"]]
    change = functions.events("f")[0]["Records"][0]
    number = change["dynamodb"]["SequenceNumber"]
    info = record.pop("DDBStreamBatchInfo")
    assert info["approximateArrivalOfFirstRecord"] == info.pop("approximateArrivalOfLastRecord")
    assert len(info.pop("approximateArrivalOfFirstRecord")) == len("2025-06-05T18:21:49Z")
    assert info.pop("shardId").startswith("shardId-")
    assert info == {
        "startSequenceNumber": number,
        "endSequenceNumber": number,
        "batchSize": 1,
        "streamArn": change["eventSourceARN"],
    }
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "version": "1.0",
        "requestContext": {
            "requestId": functions.calls[2][2],
            "functionArn": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:f",
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 3,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
    }


OLD = {"MaximumRecordAgeInSeconds": 4}


@pytest.mark.parametrize("backoff_s", [(0.05, 0.2), (60.0, 60.0)])
async def test_records_that_are_too_old_are_given_up(aws: Aws, backoff_s: tuple[float, float]) -> None:
    """A batch that fails is not tried beyond MaximumRecordAgeInSeconds, nor waited for if its next try were."""
    name, arn = table(aws)
    url, queue_arn = aws.queue()
    functions = fake(fails)
    properties = {**OLD, "DestinationConfig": {"OnFailure": {"Destination": queue_arn}}}
    settings = {"starting_position": "TRIM_HORIZON", "properties": properties}
    pace = msgspec.structs.replace(QUICK, backoff_s=backoff_s)
    async with reading(aws.url, functions, from_table(arn, **settings), pace=pace):
        put(aws, name, "a")  # not before: records age while sources start
        record = json.loads((await aws.message(url))["Body"])
    assert record["requestContext"]["condition"] == "RecordAgeExceeded"
    assert record["requestContext"]["approximateInvokeCount"] == len(functions.calls)
    assert record["responseContext"]["functionError"] == "Unhandled"


async def test_records_whose_function_is_throttled_too_long_are_given_up(aws: Aws) -> None:
    """Records that never reached their function are said to be too old, without a try and an answer."""
    name, arn = table(aws)
    url, queue_arn = aws.queue()
    put(aws, name, "a")

    async def busy(event: Json) -> None:
        raise Throttled("ConcurrentInvocationLimitExceeded", "busy")

    properties = {**OLD, "DestinationConfig": {"OnFailure": {"Destination": queue_arn}}}
    settings = {"starting_position": "TRIM_HORIZON", "properties": properties}
    async with reading(aws.url, fake(busy), from_table(arn, **settings)):
        record = json.loads((await aws.message(url))["Body"])
    assert record["requestContext"]["condition"] == "RecordAgeExceeded"
    assert record["requestContext"]["approximateInvokeCount"] == 0
    assert "responseContext" not in record


async def test_a_batch_that_fails_is_split(aws: Aws) -> None:
    """With BisectBatchOnFunctionError halves are tried, in order, until the bad record stands alone and is given up."""
    name, arn = table(aws)
    put(aws, name, *"abcd")

    async def no_c(event: Json) -> None:
        if any(each["dynamodb"]["Keys"]["id"]["S"] == "c" for each in event["Records"]):
            raise FunctionError("never")

    functions = fake(no_c)
    properties = {"BisectBatchOnFunctionError": True, "MaximumRetryAttempts": 1}
    settings = {"starting_position": "TRIM_HORIZON", "properties": properties}
    async with reading(aws.url, functions, from_table(arn, **settings)):
        await until(lambda: ["d"] in keys(functions), "the last came")
    assert [*map("".join, keys(functions))] == ["abcd", "ab", "cd", "c", "c", "d"]


async def test_reported_records_are_where_a_batch_goes_on(aws: Aws) -> None:
    """With ReportBatchItemFailures a batch is tried again from the first record that is named."""
    name, arn = table(aws)
    put(aws, name, *"abcd")
    tries = itertools.count(1)

    async def from_c(event: Json) -> Json:
        left = event["Records"][2:] if next(tries) == 1 else []
        return {"batchItemFailures": [{"itemIdentifier": each["dynamodb"]["SequenceNumber"]} for each in left]}

    functions = fake(from_c)
    settings = {"starting_position": "TRIM_HORIZON", "report_batch_item_failures": True}
    async with reading(aws.url, functions, from_table(arn, **settings)):
        await until(lambda: len(functions.calls) == 2, "it went on")
        put(aws, name, "e")
        await until(lambda: ["e"] in keys(functions), "the last came")
    assert [*map("".join, keys(functions))] == ["abcd", "cd", "e"]


async def test_a_throttled_batch_of_a_stream_waits(aws: Aws) -> None:
    """A throttle does not count as a try."""
    name, arn = table(aws)
    put(aws, name, "a")
    tries = itertools.count(1)

    async def busy_at_first(event: Json) -> None:
        if next(tries) <= 3:
            raise Throttled("ConcurrentInvocationLimitExceeded", "busy")

    functions = fake(busy_at_first)
    settings = {"starting_position": "TRIM_HORIZON", "properties": {"MaximumRetryAttempts": 0}}
    async with reading(aws.url, functions, from_table(arn, **settings)):
        await until(lambda: len(functions.calls) == 4, "it was tried until there was room")
        put(aws, name, "b")
        await until(lambda: ["b"] in keys(functions), "the next came")
    assert len(functions.calls) == 5


async def test_a_stream_s_filters_leave_records_out(aws: Aws) -> None:
    """Records that no pattern takes are not handed over, and do not hold up others."""
    name, arn = table(aws)
    functions = fake()
    pattern = json.dumps({"eventName": ["INSERT"], "dynamodb": {"NewImage": {"kind": {"S": [{"prefix": "w"}]}}}})
    async with reading(aws.url, functions, from_table(arn, filters=(pattern,))):
        put(aws, name, "a", kind={"S": "no"})
        put(aws, name, "b", kind={"S": "wanted"})
        put(aws, name, "b", kind={"S": "worse"})
        put(aws, name, "c", kind={"S": "well"})
        await until(lambda: "c" in itertools.chain(*keys(functions)), "the last came")
    assert list(itertools.chain(*keys(functions))) == ["b", "c"]


async def test_a_table_that_is_made_anew_is_read_from_its_beginning(aws: Aws) -> None:
    """When a table is deleted and made again, its new stream is found, and nothing in it missed."""
    name, arn = table(aws)
    functions = fake()
    async with reading(aws.url, functions, from_table(arn)):
        put(aws, name, "a")
        await until(lambda: keys(functions) == [["a"]], "the first came")
        aws.dynamodb.delete_table(TableName=name)
        aws.dynamodb.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"},
        )
        put(aws, name, "b")
        await until(lambda: ["b"] in keys(functions), "the new table's came")


async def test_a_table_without_a_stream_is_told(aws: Aws, caplog: pytest.LogCaptureFixture) -> None:
    """A table that has no stream, or is not there, is named in the log and looked for again."""
    name = f"none-{uuid.uuid4()}"
    arn = f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/{name}/stream/x"
    async with reading(aws.url, fake(), from_table(arn), ready=False):
        await until(lambda: any(f"the table {name} has no stream" in words for words in caplog.messages), "told")


class Shards:
    """A stream with shards that close and have children, as DynamoDB's do and moto's do not; a `ServiceClient`.

    Attributes:
        expired, unreachable: how often the next calls of GetRecords say that their iterator is too old, or fail.
        asked: shards and kinds of the iterators that were asked for.

    """

    def __init__(self, **shards: tuple[str | None, list[str], bool]) -> None:
        self._shards = shards  # parent, ids of items, whether it is closed
        self.expired = self.unreachable = 0
        self.asked: list[str] = []

    async def call(self, service: str, operation: str, parameters: Json, **options: Any) -> Json:
        assert service == "dynamodbstreams"
        return getattr(self, operation)(parameters)  # type: ignore[no-any-return]

    def ListStreams(self, parameters: Json) -> Json:  # noqa: N802  the operation's name
        return {"Streams": [{"StreamArn": "arn:aws:dynamodb:us-east-1:1:table/t/stream/1", "StreamLabel": "1"}]}

    def DescribeStream(self, parameters: Json) -> Json:  # noqa: N802  likewise
        names = list(self._shards)
        start = names.index(parameters["ExclusiveStartShardId"]) + 1 if "ExclusiveStartShardId" in parameters else 0
        page: Json = {"Shards": [self._shard(name) for name in names[start : start + 1]]}
        if start + 1 < len(names):
            page["LastEvaluatedShardId"] = names[start]
        return {"StreamDescription": page}

    def _shard(self, name: str) -> Json:
        parent, items, closed = self._shards[name]
        numbers = {"StartingSequenceNumber": "0", **({"EndingSequenceNumber": str(len(items))} if closed else {})}
        return {"ShardId": name, "SequenceNumberRange": numbers, **({"ParentShardId": parent} if parent else {})}

    def GetShardIterator(self, parameters: Json) -> Json:  # noqa: N802  likewise
        name, kind = parameters["ShardId"], parameters["ShardIteratorType"]
        self.asked.append(f"{name} {kind}")
        items = self._shards[name][1]
        position = {"LATEST": len(items), "TRIM_HORIZON": 0}.get(kind)
        if position is None:
            position = int(parameters["SequenceNumber"].rpartition("-")[2]) + 1
        return {"ShardIterator": f"{name}|{position}"}

    def GetRecords(self, parameters: Json) -> Json:  # noqa: N802  likewise
        if self.unreachable:
            self.unreachable -= 1
            raise ServiceFailed("Unreachable", "nobody there")
        if self.expired:
            self.expired -= 1
            raise ServiceFailed("ExpiredIteratorException", "too old")
        name, _, position = parameters["ShardIterator"].partition("|")
        _, items, closed = self._shards[name]
        records = [
            {
                "eventName": "INSERT",
                "dynamodb": {
                    "Keys": {"id": {"S": item}},
                    "SequenceNumber": f"{name}-{at}",
                    "ApproximateCreationDateTime": 4e9,
                },
                "userIdentity": {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"},
            }
            for at, item in enumerate(items)
            if at >= int(position)
        ]
        page: Json = {"Records": records}
        if not closed:
            page["NextShardIterator"] = f"{name}|{len(items)}"
        return page


@asynccontextmanager
async def reading_shards(shards: Shards, functions: FakeFunctions, **settings: Any) -> AsyncIterator[None]:
    mapping = from_table("arn:aws:dynamodb:us-east-1:1:table/t/stream/x", **settings)
    client: Any = shards
    async with (
        Invocations(functions, client) as invocations,
        Sources([mapping], invocations, client, pace=QUICK) as sources,
    ):
        assert await sources.wait_ready(BOUND_S) == ()
        yield


async def test_children_are_read_after_their_parents() -> None:
    """A shard is read when its parent was read to the end, so that an item's changes keep their order."""
    shards = Shards(
        child=("parent", ["c", "d"], True), parent=("trimmed", ["a", "b"], True), grandchild=("child", ["e"], False)
    )
    functions = fake()
    async with reading_shards(shards, functions, starting_position="TRIM_HORIZON"):
        await until(lambda: ["e"] in keys(functions), "the last came")
    assert "".join(itertools.chain(*keys(functions))) == "abcde"
    assert functions.events("f")[0]["Records"][0]["userIdentity"] == {
        "type": "Service",
        "principalId": "dynamodb.amazonaws.com",
    }


async def test_latest_skips_closed_shards_and_misses_nothing_in_new_ones() -> None:
    """From LATEST on, closed shards are past; shards that appear later are read from their beginnings."""
    shards = Shards(old=(None, ["a"], True), current=("old", ["b"], False))
    functions = fake()
    async with reading_shards(shards, functions):
        shards._shards["current"] = ("old", ["b", "c"], True)
        shards._shards["next"] = ("current", ["d"], False)
        await until(lambda: ["d"] in keys(functions), "the last came")
    assert "".join(itertools.chain(*keys(functions))) == "cd"


async def test_an_iterator_that_has_expired_is_replaced_where_it_was() -> None:
    """After an expired iterator reading goes on behind what was handled."""
    shards = Shards(only=(None, ["a"], False))
    functions = fake()
    async with reading_shards(shards, functions, starting_position="TRIM_HORIZON"):
        await until(lambda: keys(functions) == [["a"]], "the first came")
        shards.expired = 1
        await until(lambda: len(shards.asked) == 2, "another iterator was asked for")
        shards._shards["only"] = (None, ["a", "b"], False)
        await until(lambda: ["b"] in keys(functions), "the second came")
    assert keys(functions) == [["a"], ["b"]]
    assert shards.asked == ["only TRIM_HORIZON", "only AFTER_SEQUENCE_NUMBER"]


@pytest.mark.parametrize("trouble", ["expired", "unreachable"])
async def test_trouble_before_the_first_record_brings_no_older_ones(trouble: str) -> None:
    """A stream read from LATEST goes on where it was begun after a failure: nothing older comes, nothing is missed."""
    shards = Shards(only=(None, ["old"], False))
    functions = fake()
    async with reading_shards(shards, functions):
        setattr(shards, trouble, 1)
        if trouble == "unreachable":
            shards._shards["only"] = (None, ["old", "meanwhile"], False)
        await until(lambda: getattr(shards, trouble) == 0, "it went wrong")
        await until(lambda: len(shards.asked) == (2 if trouble == "expired" else 1), "it went on")
        shards._shards["only"] = (None, [*shards._shards["only"][1], "new"], False)
        await until(lambda: "new" in itertools.chain(*keys(functions)), "the new one came")
    expected = ["new"] if trouble == "expired" else ["meanwhile", "new"]
    assert list(itertools.chain(*keys(functions))) == expected


# SNS


def from_topic(arn: str, **properties: Any) -> EventSource:
    return EventSource(logical_id="T", function="f", kind="sns", source=arn, properties=properties)


async def test_a_topic_s_message_invokes_its_function(aws: Aws) -> None:
    """A message, with its attributes, is an event of AWS's shape, and the function gets it as an event."""
    topic = aws.sns.create_topic(Name=f"t-{uuid.uuid4()}")["TopicArn"]
    functions = fake()
    async with reading(aws.url, functions, from_topic(topic)):
        subscribed = aws.sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
        attributes = {"kind": {"DataType": "String", "StringValue": "a"}}
        sent = aws.sns.publish(TopicArn=topic, Subject="Hi", Message="hello", MessageAttributes=attributes)
        aws.sns.publish(TopicArn=topic, Message="bare")
        await until(lambda: len(functions.calls) == 2, "both came")
    records = {event["Records"][0]["Sns"]["Message"]: event["Records"][0] for event in functions.events("f")}
    bare, record = records["bare"], records["hello"]
    message = record.pop("Sns")
    assert record == {
        "EventSource": "aws:sns",
        "EventVersion": "1.0",
        "EventSubscriptionArn": subscribed[0]["SubscriptionArn"],
    }
    for name in ("Timestamp", "SignatureVersion", "Signature", "SigningCertUrl", "UnsubscribeUrl"):
        assert message.pop(name)
    assert message == {
        "Type": "Notification",
        "MessageId": sent["MessageId"],
        "TopicArn": topic,
        "Subject": "Hi",
        "Message": "hello",
        "MessageAttributes": {"kind": {"Type": "String", "Value": "a"}},
    }
    assert (bare["Sns"]["Subject"], bare["Sns"]["MessageAttributes"]) == (None, {})


async def test_a_failed_message_of_a_topic_is_an_event_like_any_other(aws: Aws) -> None:
    """SNS invokes functions with events: a function that fails sends them where its failures go."""
    topic = aws.sns.create_topic(Name=f"t-{uuid.uuid4()}")["TopicArn"]
    url, arn = aws.queue()
    functions = fake(fails, max_retries=0, dead_letter=arn)
    async with reading(aws.url, functions, from_topic(topic)):
        aws.sns.publish(TopicArn=topic, Message="lost")
        dead = json.loads((await aws.message(url))["Body"])
    assert dead["Records"][0]["Sns"]["Message"] == "lost"


@pytest.mark.parametrize("text", [True, False])
async def test_a_subscription_s_filter_policy_is_heeded(aws: Aws, text: bool) -> None:
    """Messages that the FilterPolicy does not take do not come, whether it is an object or JSON in a string."""
    topic = aws.sns.create_topic(Name=f"t-{uuid.uuid4()}")["TopicArn"]
    policy = {"kind": ["wanted"]}
    functions = fake()
    properties = {"FilterPolicy": json.dumps(policy) if text else policy, "FilterPolicyScope": "MessageBody"}
    async with reading(aws.url, functions, from_topic(topic, **properties)):
        aws.sns.publish(TopicArn=topic, Message='{"kind": "other"}')
        aws.sns.publish(TopicArn=topic, Message='{"kind": "wanted"}')
        await until(lambda: len(functions.calls) == 1, "one came")
    assert functions.events("f")[0]["Records"][0]["Sns"]["Message"] == '{"kind": "wanted"}'


async def test_nothing_of_a_subscription_is_left_at_the_end(aws: Aws) -> None:
    """Subscription and queue are taken away, and what an earlier run left in the queue is not delivered."""
    topic = aws.sns.create_topic(Name=f"t-{uuid.uuid4()}")["TopicArn"]
    left = aws.sqs.create_queue(QueueName="hubbub-f-T")["QueueUrl"]
    aws.sqs.send_message(QueueUrl=left, MessageBody="stale")
    functions = fake()
    async with reading(aws.url, functions, from_topic(topic)):
        assert len(aws.sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]) == 1
        aws.sns.publish(TopicArn=topic, Message="fresh")
        await until(lambda: len(functions.calls) == 1, "it came")
    assert aws.sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"] == []
    assert not [url for url in aws.sqs.list_queues().get("QueueUrls", []) if "hubbub-f-T" in url]
    assert functions.events("f")[0]["Records"][0]["Sns"]["Message"] == "fresh"


# Schedules


NOON = 1_700_049_600
"""2023-11-15T12:00:00Z, a Wednesday."""


@asynccontextmanager
async def scheduled(clock: HandClock, source: EventSource, functions: FakeFunctions) -> AsyncIterator[None]:
    async with (
        ServiceClient({}) as services,
        Invocations(functions, services, clock=clock) as invocations,
        Sources([source], invocations, services, clock=clock, region="eu-central-1") as sources,
    ):
        assert await sources.wait_ready(BOUND_S) == ()
        yield


def schedule(expression: str, **settings: Any) -> EventSource:
    return EventSource(logical_id="Tick", function="f", kind="schedule", source=expression, **settings)


async def test_a_rate_invokes_its_function_every_so_often() -> None:
    """A rate fires a period after its making and then each period, with EventBridge's event."""
    clock, functions = HandClock(NOON * 1_000), fake()
    async with scheduled(clock, schedule("rate(5 minutes)"), functions):
        await clock.advance(299)
        assert functions.calls == []
        await clock.advance(1)
        await clock.advance(300)
        assert len(functions.calls) == 2
    first, second = functions.events("f")
    assert (first["time"], second["time"]) == ("2023-11-15T12:05:00Z", "2023-11-15T12:10:00Z")
    assert first.pop("id") != second["id"]
    assert first == {
        "version": "0",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT,
        "time": "2023-11-15T12:05:00Z",
        "region": "eu-central-1",
        "resources": [f"arn:aws:events:eu-central-1:{ACCOUNT}:rule/Tick"],
        "detail": {},
    }


async def test_a_cron_invokes_its_function_at_its_times() -> None:
    """A cron expression fires on the minute that it names."""
    clock, functions = HandClock(NOON * 1_000), fake()
    async with scheduled(clock, schedule("cron(30 12 ? * WED,THU *)", properties={"Name": "wednesdays"}), functions):
        await clock.advance(2 * 86_400)
    assert [event["time"] for event in functions.events("f")] == ["2023-11-15T12:30:00Z", "2023-11-16T12:30:00Z"]
    assert functions.events("f")[0]["resources"] == [f"arn:aws:events:eu-central-1:{ACCOUNT}:rule/wednesdays"]


async def test_a_constant_input_replaces_the_event() -> None:
    """A rule's Input is what the function gets, as it stands."""
    clock, functions = HandClock(NOON * 1_000), fake()
    source = schedule("rate(1 minute)", input='{"time": "<aws.scheduler.scheduled-time>"}')
    async with scheduled(clock, source, functions):
        await clock.advance(60)
    assert functions.events("f") == [{"time": "<aws.scheduler.scheduled-time>"}]


async def test_a_schedule_of_the_scheduler_has_its_own_event_and_attributes() -> None:
    """EventBridge Scheduler has time zones, an event of its own, and context attributes in its input."""
    clock, functions = HandClock(NOON * 1_000), fake()
    properties = {"FlexibleTimeWindow": {"Mode": "OFF"}, "ScheduleExpressionTimezone": "Asia/Tokyo"}
    async with scheduled(clock, schedule("cron(5 21 * * ? *)", properties=properties), functions):
        await clock.advance(300)
    (event,) = functions.events("f")
    arn = f"arn:aws:scheduler:eu-central-1:{ACCOUNT}:schedule/default/Tick"
    assert (event["source"], event["resources"], event["detail"]) == ("aws.scheduler", [arn], "{}")
    text = json.dumps({"arn": "<aws.scheduler.schedule-arn>", "at": "<aws.scheduler.scheduled-time>"})
    functions = fake()
    async with scheduled(clock, schedule("at(2023-11-15T21:10:00)", properties=properties, input=text), functions):
        await clock.advance(3_600)
    assert functions.events("f") == [{"arn": arn, "at": "2023-11-15T12:10:00Z"}]


async def test_a_rate_of_the_scheduler_fires_at_once_and_between_its_dates() -> None:
    """EventBridge Scheduler's rates begin at once, or at StartDate, and end with EndDate."""
    clock, functions = HandClock(NOON * 1_000), fake()
    flexible = {"FlexibleTimeWindow": {"Mode": "OFF"}}
    async with scheduled(clock, schedule("rate(10 minutes)", properties=flexible), functions):
        await clock.advance(601)
    assert [event["time"][11:16] for event in functions.events("f")] == ["12:00", "12:10"]
    clock, functions = HandClock(NOON * 1_000), fake()
    dates = {"StartDate": "2023-11-15T12:03:00Z", "EndDate": "2023-11-15T12:24:00Z"}
    async with scheduled(clock, schedule("rate(10 minutes)", properties={**flexible, **dates}), functions):
        await clock.advance(3_600)
    assert [event["time"][11:16] for event in functions.events("f")] == ["12:03", "12:13", "12:23"]


@pytest.mark.parametrize("expression", ["rate(10 minutes)", "at(2023-11-15T12:00:03)"])
async def test_what_is_due_while_a_stack_starts_is_not_missed(expression: str) -> None:
    """Between a schedule's making and its beginning time passes: what was due by then fires late, and once."""
    clock, functions = HandClock(NOON * 1_000), fake()
    source = schedule(expression, properties={"FlexibleTimeWindow": {"Mode": "OFF"}})
    async with (
        ServiceClient({}) as services,
        Invocations(functions, services, clock=clock) as invocations,
    ):
        sources = Sources([source], invocations, services, clock=clock)
        clock._now_s += 5
        async with sources:
            await clock.advance(60)
    assert len(functions.calls) == 1


async def test_a_rule_s_target_gets_what_its_input_is_made_of() -> None:
    """An input transformer makes the payload of the event and of what EventBridge knows."""
    clock, functions = HandClock(NOON * 1_000), fake()
    template = '{"at": <t>, "rule": "<aws.events.rule-arn>"}'
    properties = {"InputTransformer": {"InputPathsMap": {"t": "$.time"}, "InputTemplate": template}}
    async with scheduled(clock, schedule("rate(1 minute)", properties=properties), functions):
        await clock.advance(60)
    arn = f"arn:aws:events:eu-central-1:{ACCOUNT}:rule/Tick"
    assert functions.events("f") == [{"at": "2023-11-15T12:01:00Z", "rule": arn}]


async def test_a_schedule_whose_function_is_gone_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """A time at which the function cannot be invoked is told, and the next comes."""
    clock, functions = HandClock(NOON * 1_000), FakeFunctions()
    async with scheduled(clock, schedule("rate(1 minute)"), functions):
        await clock.advance(60)
        functions.add("f", answers)
        await clock.advance(60)
    assert any("Tick did not fire" in words for words in caplog.messages)
    assert len(functions.calls) == 1


async def test_times_that_were_slept_through_are_not_made_up_for() -> None:
    """When a machine wakes up late, what was due fires once, and the beat goes on."""
    clock, functions = HandClock(NOON * 1_000), fake()
    async with scheduled(clock, schedule("rate(1 minute)"), functions):
        clock._now_s += 600  # nobody could sleep meanwhile
        await clock.advance(30)
        assert [event["time"] for event in functions.events("f")] == ["2023-11-15T12:01:00Z"]
        await clock.advance(30)
    assert [event["time"] for event in functions.events("f")][1:] == ["2023-11-15T12:11:00Z"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (schedule("every minute"), "Tick: expected rate(…)"),
        (from_queue("arn:aws:sqs:us-east-1:1:q", filters=("{}",)), "Q: a filter pattern must not"),
        (from_queue("arn:aws:sqs:us-east-1:1:q", batch_size=11), "Q: a BatchSize over 10 needs a MaximumBatching"),
        (from_table("arn:aws:kinesis:us-east-1:1:stream/s"), "S: expected the ARN of a table's stream"),
        (
            from_table("arn:aws:dynamodb:us-east-1:1:table/t/stream/x", starting_position="AT_TIMESTAMP"),
            "S: expected LATEST or TRIM_HORIZON",
        ),
        (
            from_table("arn:aws:dynamodb:us-east-1:1:table/t/stream/x", properties={"MaximumRetryAttempts": "few"}),
            "S: expected a number as MaximumRetryAttempts, got 'few'",
        ),
        (schedule("rate(1 minute)", properties={"StartDate": "soon"}), "Tick: expected StartDate as 2026-01-02T"),
        (schedule("rate(1 minute)", properties={"InputPath": "$.["}), "Tick: expected a JSONPath"),
        (from_topic("arn:aws:sns:us-east-1:1:t.fifo"), "T: a FIFO topic cannot invoke functions"),
    ],
)
async def test_a_source_that_cannot_be_is_refused_by_name(source: EventSource, words: str) -> None:
    """What AWS would refuse when a stack is made is refused before anything starts, with the source's name."""
    async with ServiceClient({}) as services, Invocations(fake(), services) as invocations:
        with pytest.raises(SourceInvalid) as refused:
            Sources([source], invocations, services)
    assert words in str(refused.value)
