"""Event invocations: their tries, their ends, and what is told of them."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from lambdalab import (
    Aws,
    FakeFunctions,
    HandClock,
    Json,
    answers,
    endpoints,
    fails,
    fails_first,
    moto_server,
)

from hubbub.emulator.functions import Throttled, UnknownFunction
from hubbub.emulator.functions.invocations import EventLimits, Invocations
from hubbub.emulator.services import ServiceClient
from live import BOUND_S, until


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
async def queueing(
    functions: FakeFunctions, clock: HandClock | None = None, url: str = "http://127.0.0.1:9", **limits: Any
) -> AsyncIterator[Invocations]:
    async with (
        ServiceClient(endpoints(url)) as services,
        Invocations(functions, services, clock=clock or HandClock(), limits=EventLimits(**limits)) as invocations,
    ):
        yield invocations


async def test_an_event_is_tried_once_where_its_function_returns() -> None:
    """An event whose function returns is done with, under the request id that was given for it."""
    functions = FakeFunctions()
    functions.add("good", answers)
    async with queueing(functions) as invocations:
        request_id = invocations.enqueue("good", b'{"n": 1}')
        await until(lambda: len(invocations) == 0, "the queue is empty")
        assert functions.calls == [("good", {"n": 1}, request_id)]


async def test_a_failed_event_is_tried_again_after_one_minute_and_then_two() -> None:
    """A function that fails is tried three times in all, with the same request id, a minute and two minutes apart."""
    functions, clock = FakeFunctions(), HandClock()
    functions.add("bad", fails)
    async with queueing(functions, clock) as invocations:
        request_id = invocations.enqueue("bad", b"{}")
        await clock.advance(59)
        assert len(functions.calls) == 1
        await clock.advance(1)
        assert len(functions.calls) == 2
        await clock.advance(119)
        assert len(functions.calls) == 2
        await clock.advance(1)
        assert [call[2] for call in functions.calls] == [request_id] * 3
        assert len(invocations) == 0


@pytest.mark.parametrize(("retries", "tries"), [(0, 1), (1, 2), (2, 3)])
async def test_a_function_says_how_often_it_is_tried_again(retries: int, tries: int) -> None:
    """`MaximumRetryAttempts` is how many tries follow the first."""
    functions, clock = FakeFunctions(), HandClock()
    functions.add("bad", fails, max_retries=retries)
    async with queueing(functions, clock) as invocations:
        invocations.enqueue("bad", b"{}")
        await clock.advance(10_000)
        assert len(functions.calls) == tries
        assert len(invocations) == 0


async def test_a_throttled_event_backs_off_from_one_second_to_five_minutes() -> None:
    """Throttled tries follow one another in doubling distances up to five minutes, and do not count as retries."""
    functions, clock = FakeFunctions(), HandClock()
    times: list[float] = []

    async def busy(event: Any) -> Any:
        times.append(clock.now())
        if len(times) <= 11:
            raise Throttled("ConcurrentInvocationLimitExceeded", "busy")
        return event

    functions.add("busy", busy, max_retries=0)
    async with queueing(functions, clock) as invocations:
        invocations.enqueue("busy", b"{}")
        await clock.advance(3_600)
        assert len(invocations) == 0
    apart = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
    assert apart == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


async def test_a_throttled_event_that_is_too_old_goes_to_the_dead_letter_queue(aws: Aws) -> None:
    """What is throttled until it is too old was never run: the event itself goes to the queue, with the reason."""
    functions, clock = FakeFunctions(), HandClock()
    url, arn = aws.queue()

    async def busy(event: Any) -> Any:
        raise Throttled("ConcurrentInvocationLimitExceeded", "busy")

    functions.add("busy", busy, max_age_s=60, dead_letter=arn)
    async with queueing(functions, clock, aws.url) as invocations:
        request_id = invocations.enqueue("busy", b'{"n": 1}')
        await clock.advance(61)
        message = await aws.message(url)
        await until(lambda: len(invocations) == 0, "the queue is empty")
    assert json.loads(message["Body"]) == {"n": 1}
    assert told(message) == {"RequestID": request_id, "ErrorCode": "429", "ErrorMessage": "EventAgeExceeded"}


def told(message: Json) -> dict[str, str]:
    """A message's attributes."""
    return {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}


async def test_a_dead_letter_queue_gets_the_event_and_why_it_failed(aws: Aws) -> None:
    """After the last try the event itself is in the dead-letter queue, with request id, code and error message."""
    functions = FakeFunctions()
    url, arn = aws.queue()
    functions.add("bad", fails, max_retries=0, dead_letter=arn)
    async with queueing(functions, url=aws.url) as invocations:
        request_id = invocations.enqueue("bad", b'{"n":   1}')
        message = await aws.message(url)
    assert message["Body"] == '{"n":   1}'
    assert told(message) == {"RequestID": request_id, "ErrorCode": "200", "ErrorMessage": "it broke"}
    assert message["MessageAttributes"]["ErrorCode"]["DataType"] == "Number"


async def test_a_dead_letter_topic_gets_the_event_too(aws: Aws) -> None:
    """A topic as dead-letter queue publishes the event to those who are subscribed."""
    functions = FakeFunctions()
    url, queue_arn = aws.queue()
    topic = aws.sns.create_topic(Name="dead-letters")["TopicArn"]
    aws.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue_arn)
    functions.add("bad", fails, max_retries=0, dead_letter=topic)
    async with queueing(functions, url=aws.url) as invocations:
        request_id = invocations.enqueue("bad", b'{"n": 1}')
        envelope = json.loads((await aws.message(url))["Body"])
    assert json.loads(envelope["Message"]) == {"n": 1}
    assert envelope["MessageAttributes"]["RequestID"] == {"Type": "String", "Value": request_id}


async def test_on_failure_gets_a_record_of_the_exhausted_retries(aws: Aws) -> None:
    """The record has AWS's shape: who, why, how often, the event, and what the last try came to."""
    functions, clock = FakeFunctions(), HandClock()
    url, arn = aws.queue()
    functions.add("bad", fails, max_retries=1, on_failure=arn, on_success="arn:aws:sqs:us-east-1:123456789012:no")
    async with queueing(functions, clock, aws.url) as invocations:
        request_id = invocations.enqueue("bad", b'{"n": 1}')
        await clock.advance(60)
        record = json.loads((await aws.message(url))["Body"])
    assert record == {
        "version": "1.0",
        "timestamp": "2023-11-14T22:14:20.000Z",
        "requestContext": {
            "requestId": request_id,
            "functionArn": "arn:aws:lambda:us-east-1:123456789012:function:bad:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 2,
        },
        "requestPayload": {"n": 1},
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": {"errorMessage": "it broke", "errorType": "FunctionError"},
    }


async def test_an_event_whose_next_try_would_be_too_late_fails_at_once(aws: Aws) -> None:
    """An event that would be older than its function allows is not tried again: its age is the condition."""
    functions = FakeFunctions()
    url, arn = aws.queue()
    functions.add("bad", fails, max_age_s=59, on_failure=arn)
    async with queueing(functions, url=aws.url) as invocations:
        invocations.enqueue("bad", b"{}")
        record = json.loads((await aws.message(url))["Body"])
    assert record["requestContext"]["condition"] == "EventAgeExceeded"
    assert record["requestContext"]["approximateInvokeCount"] == 1
    assert record["responsePayload"]["errorMessage"] == "it broke"


async def test_on_success_gets_what_the_function_returned(aws: Aws) -> None:
    """The record of a success has no error in it, and counts the tries that failed before."""
    functions, clock = FakeFunctions(), HandClock()
    url, arn = aws.queue()
    functions.add("good", fails_first(1), on_success=arn, on_failure="arn:aws:sqs:us-east-1:123456789012:no")
    async with queueing(functions, clock, aws.url) as invocations:
        invocations.enqueue("good", b'{"n": 1}')
        await clock.advance(60)
        record = json.loads((await aws.message(url))["Body"])
    assert record["requestContext"]["condition"] == "Success"
    assert record["requestContext"]["approximateInvokeCount"] == 2
    assert record["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST"}
    assert record["responsePayload"] == {"n": 1}


async def test_a_function_as_destination_is_invoked_with_the_record() -> None:
    """A Lambda destination gets the record as an event of its own."""
    functions = FakeFunctions()
    other = functions.add("other", answers)
    functions.add("good", answers, on_success=functions.arn(other.name))
    async with queueing(functions) as invocations:
        invocations.enqueue("good", b'{"n": 1}')
        await until(lambda: len(functions.events("other")) == 1, "the other was invoked")
    assert functions.events("other")[0]["responsePayload"] == {"n": 1}


async def test_an_event_bus_as_destination_gets_lambda_s_event(aws: Aws) -> None:
    """An EventBridge destination gets an event whose source is Lambda, whose detail is the record."""
    functions = FakeFunctions()
    url, queue_arn = aws.queue()
    bus = aws.events.create_event_bus(Name="outcomes")["EventBusArn"]
    pattern = {"source": ["lambda"], "detail-type": ["Lambda Function Invocation Result - Failure"]}
    aws.events.put_rule(Name="failures", EventBusName="outcomes", EventPattern=json.dumps(pattern))
    aws.events.put_targets(Rule="failures", EventBusName="outcomes", Targets=[{"Id": "q", "Arn": queue_arn}])
    functions.add("bad", fails, max_retries=0, on_failure=bus)
    async with queueing(functions, url=aws.url) as invocations:
        invocations.enqueue("bad", b'{"n": 1}')
        event = json.loads((await aws.message(url))["Body"])
    assert event["detail"]["requestPayload"] == {"n": 1}
    assert event["resources"] == [bus, "arn:aws:lambda:us-east-1:123456789012:function:bad:$LATEST"]


async def test_a_function_with_no_concurrency_is_not_tried(aws: Aws) -> None:
    """A reserved concurrency of 0 sends events straight to where failures go, untried."""
    functions = FakeFunctions()
    url, arn = aws.queue()
    functions.add("off", answers, reserved_concurrency=0, on_failure=arn)
    async with queueing(functions, url=aws.url) as invocations:
        invocations.enqueue("off", b"{}")
        record = json.loads((await aws.message(url))["Body"])
    assert record["requestContext"]["approximateInvokeCount"] == 0
    assert "responsePayload" not in record
    assert functions.calls == []


@pytest.mark.parametrize(
    ("arn", "words"),
    [
        ("arn:aws:sqs:us-east-1:123456789012:nowhere", "nowhere: "),
        ("arn:aws:s3:::bucket", "a destination is SQS, SNS, Lambda or EventBridge here"),
        ("arn:aws:lambda:us-east-1:123456789012:function:nobody", "nobody"),
    ],
)
async def test_a_destination_that_cannot_be_reached_is_told(
    aws: Aws, arn: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be delivered is logged with the destination, after some tries, and the event is done with."""
    functions, clock = FakeFunctions(), HandClock()
    functions.add("good", answers, on_success=arn)
    async with queueing(functions, clock, aws.url) as invocations:
        invocations.enqueue("good", b"{}")

        async def passes() -> None:
            while len(invocations):
                await clock.advance(1)
                await asyncio.sleep(0.01)

        await asyncio.wait_for(passes(), 20)
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "deliver to" in errors[0]
    assert words in errors[0]


async def test_a_delivery_that_fails_is_tried_again(aws: Aws) -> None:
    """A destination that is there a moment later still gets its record."""
    functions, clock = FakeFunctions(), HandClock()
    name = f"late-{uuid.uuid4()}"
    functions.add("good", answers, on_success=f"arn:aws:sqs:us-east-1:123456789012:{name}")
    async with queueing(functions, clock, aws.url) as invocations:
        invocations.enqueue("good", b'{"n": 1}')
        await until(lambda: clock.sleepers == 1, "the first delivery failed")
        url = aws.sqs.create_queue(QueueName=name)["QueueUrl"]
        await clock.advance(1)
        record = json.loads((await aws.message(url))["Body"])
    assert record["responsePayload"] == {"n": 1}


async def test_only_so_many_events_of_a_function_run_at_a_time() -> None:
    """Events wait in their order while as many of their function run as may, and other functions do not wait."""
    functions = FakeFunctions()
    let_go = asyncio.Event()

    async def slow(event: Any) -> Any:
        await let_go.wait()

    functions.add("slow", slow)
    functions.add("quick", answers)
    async with queueing(functions, parallel=2) as invocations:
        for number in range(5):
            invocations.enqueue("slow", json.dumps(number).encode())
        invocations.enqueue("quick", b'"q"')
        await until(lambda: functions.events("quick") == ["q"], "the quick one ran")
        assert functions.events("slow") == [0, 1]
        let_go.set()
        await until(lambda: len(invocations) == 0, "the queue is empty")
        assert functions.events("slow") == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("limits", [{"events": 2}, {"bytes": 25}])
async def test_a_full_queue_refuses_events(limits: Json) -> None:
    """A queue takes so many events and bytes; more are throttled, until there is room."""
    functions, clock = FakeFunctions(), HandClock()
    functions.add("bad", fails)
    async with queueing(functions, clock, **limits) as invocations:
        invocations.enqueue("bad", b'"0123456789"')
        invocations.enqueue("bad", b'"0123456789"')
        with pytest.raises(Throttled, match="2 events with 24 bytes") as refused:
            invocations.enqueue("bad", b'"0123456789"')
        assert refused.value.reason == "CallerRateLimitExceeded"
        await clock.advance(180)
        invocations.enqueue("bad", b'"0123456789"')


async def test_an_unknown_function_takes_no_event() -> None:
    """An event for nobody is refused to who sends it."""
    async with queueing(FakeFunctions()) as invocations:
        with pytest.raises(UnknownFunction):
            invocations.enqueue("nobody", b"{}")


async def test_a_function_that_went_drops_its_events(caplog: pytest.LogCaptureFixture) -> None:
    """An event whose function is gone at its next try is dropped, and that is said."""
    functions, clock = FakeFunctions(), HandClock()
    functions.add("bad", fails)
    async with queueing(functions, clock) as invocations:
        invocations.enqueue("bad", b"{}")
        await clock.advance(1)
        functions.remove("bad")
        await clock.advance(60)
        assert len(invocations) == 0
    assert "an event of bad was dropped: the function is gone" in caplog.messages


async def test_the_end_waits_for_what_runs_and_tells_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    """At the end tries under way are waited for; what would be tried later, or has not begun, is counted as lost."""
    functions = FakeFunctions()
    ended: list[Any] = []

    async def slow(event: Any) -> Any:
        await asyncio.sleep(0.05)
        ended.append(event)

    functions.add("bad", fails)
    functions.add("slow", slow)
    async with queueing(functions, parallel=1) as invocations:
        invocations.enqueue("bad", b"{}")
        invocations.enqueue("slow", b"1")
        invocations.enqueue("slow", b"2")
        await until(lambda: len(functions.calls) == 2, "both run")
    assert ended == [1]
    assert "events that will not be tried any more: 1 of bad, 1 of slow" in caplog.messages
    assert len(invocations) == 0


async def test_the_end_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    """A try that does not end is given up after the time that draining may take, and no event is taken meanwhile."""
    functions = FakeFunctions()

    async def hangs(event: Any) -> Any:
        await asyncio.Event().wait()

    functions.add("hangs", hangs)
    async with queueing(functions, drain_s=0.01) as invocations:
        invocations.enqueue("hangs", b"{}")
        await until(lambda: len(functions.calls) == 1, "it runs")
    assert "events that will not be tried any more: 1 of hangs" in caplog.messages
    with pytest.raises(Throttled):
        invocations.enqueue("hangs", b"{}")


async def test_a_try_that_fails_at_the_end_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    """A function that fails while the queue drains is not waited for once more."""
    functions = FakeFunctions()
    let_go = asyncio.Event()

    async def fails_late(event: Any) -> Any:
        await let_go.wait()
        return await fails(event)

    functions.add("late", fails_late)
    async with asyncio.timeout(BOUND_S), queueing(functions, drain_s=10 * BOUND_S) as invocations:
        invocations.enqueue("late", b"{}")
        await until(lambda: len(functions.calls) == 1, "it runs")
        asyncio.get_running_loop().call_soon(let_go.set)
    assert "events that will not be tried any more: 1 of late" in caplog.messages


async def test_an_answer_is_what_integrations_take() -> None:
    """`invoke` waits for a function's answer, and says that it failed where it did."""
    functions = FakeFunctions()
    functions.add("good", answers)
    functions.add("bad", fails)
    async with queueing(functions) as invocations:
        good = await invocations.invoke("arn:aws:lambda:us-east-1:123456789012:function:good", b'{"n": 1}')
        bad = await invocations.invoke("bad", b"{}")
    assert (json.loads(good.payload), good.function_error) == ({"n": 1}, None)
    assert (json.loads(bad.payload)["errorMessage"], bad.function_error) == ("it broke", "Unhandled")
