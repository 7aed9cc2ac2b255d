"""How jobs are handed to the broadcaster: what is sent to Lambda and SQS, and what comes of it when they refuse."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from doubles import FakeClock, settle
from hubbub.aws.credentials import Fixed
from hubbub.aws.http import HttpResponse
from hubbub.aws.service import AwsError, Service
from hubbub.errors import TooLarge, Unavailable
from hubbub.fanout.apigateway.jobs import Announce, AnyJob, Deliver, Part, Signal, decode_job, encode_job
from hubbub.fanout.apigateway.transports import (
    MAX_JOB_BYTES,
    DirectTransport,
    LambdaTransport,
    QueueTransport,
    fitting,
)
from hubbub.model import RoomId
from hubbub.sigv4 import Credentials

ROOM = RoomId("room")
QUEUE = "https://sqs.us-east-1.amazonaws.com/123456789012/jobs"


def deliver(seq: int, text: str = "hello", room: RoomId = ROOM) -> Deliver:
    return Deliver(id=f"deliver:{room}:{seq}", room=room, seq=seq, frame=text)


class Wire:
    """What is sent to AWS, and what AWS answers.

    Attributes:
        sent: path, headers and body of each request.
        status, answer, error: what is answered to all.

    """

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, str], bytes]] = []
        self.status, self.answer, self.error = 202, b"", ""
        self.clock = FakeClock()

    async def request(self, method: str, url: str, *, headers: Any, body: bytes, **options: Any) -> HttpResponse:
        self.sent.append((url, {name.lower(): value for name, value in headers}, body))
        fields = [(b"x-amzn-errortype", self.error.encode())] if self.error else []
        return HttpResponse(self.status, fields, self.answer)

    def service(self, name: str) -> Service:
        http: Any = self
        credentials = Fixed(Credentials("test", "test"))
        return Service(http, name, region="us-east-1", credentials=credentials, environment={}, clock=self.clock)


@pytest.fixture
def wire() -> Wire:
    return Wire()


# What travels


@pytest.mark.parametrize(
    "job",
    [
        deliver(1, 'a "quoted" ünïcødé'),
        Deliver(id="d", room=ROOM, seq=1),
        Announce(id="a", room=ROOM, head=3, frame="{}"),
        Signal(id="s", room=ROOM, frame="{}", exclude="c"),
        Part(id="p", room=ROOM, first_shard=1, last_shard=3, upto=5, frames=[(5, "{}")]),
    ],
)
def test_a_job_comes_as_it_was_handed_over(job):
    """Through JSON and back."""
    assert decode_job(encode_job(job)) == job


@pytest.mark.parametrize("data", [b"", b"[]", b'{"job":"dance","id":"1","room":"r"}', b'{"job":"deliver","id":"1"}'])
def test_what_is_no_job_is_refused_with_what_is_wrong(data):
    """The message names what was expected."""
    with pytest.raises(ValueError, match="job: expected one of a broadcast's jobs"):
        decode_job(data)


def test_a_job_that_is_too_long_with_its_frames_goes_without():
    """They are then read from the log; what cannot do without is refused."""
    long = "x" * MAX_JOB_BYTES
    assert decode_job(fitting(deliver(1, long))) == Deliver(id="deliver:room:1", room=ROOM, seq=1)
    part = Part(id="p", room=ROOM, first_shard=0, last_shard=1, upto=1, frames=[(1, long)])
    assert decode_job(fitting(part)) == msgspec.structs.replace(part, frames=[])
    with pytest.raises(TooLarge):
        fitting(Signal(id="s", room=ROOM, frame=long))


# Lambda


async def test_a_function_is_invoked_asynchronously_for_each_job(wire):
    """Once for each, by its name or its ARN."""
    function = "arn:aws:lambda:us-east-1:123456789012:function:broadcast:live"
    jobs: list[AnyJob] = [deliver(1), deliver(2)]
    await LambdaTransport(wire.service("lambda"), function).hand(jobs)
    assert [decode_job(body) for _, _, body in wire.sent] == jobs
    for url, headers, _ in wire.sent:
        named = "arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Abroadcast%3Alive"
        assert url == f"https://lambda.us-east-1.amazonaws.com/2015-03-31/functions/{named}/invocations"
        assert headers["x-amz-invocation-type"] == "Event"


async def test_an_invocation_that_is_throttled_to_the_end_is_unavailable(wire):
    """The account's concurrency or the function's is used up; who has published learns it."""
    wire.status, wire.error = 429, "TooManyRequestsException"
    handing = asyncio.create_task(LambdaTransport(wire.service("lambda"), "broadcast").hand([deliver(1)]))
    await wire.clock.advance(10)
    with pytest.raises(Unavailable):
        await handing
    assert len(wire.sent) > 1


async def test_a_function_that_is_not_there_is_a_defect_that_is_not_hidden(wire):
    """It comes as AWS says it."""
    wire.status, wire.error = 403, "AccessDeniedException"
    with pytest.raises(AwsError, match="AccessDeniedException"):
        await LambdaTransport(wire.service("lambda"), "broadcast").hand([deliver(1)])


# SQS


async def test_jobs_are_put_into_a_queue_ten_at_a_time(wire):
    """As SendMessageBatch takes them."""
    wire.status, wire.answer = 200, b'{"Successful":[],"Failed":[]}'
    jobs: list[AnyJob] = [deliver(n) for n in range(12)]
    await QueueTransport(wire.service("sqs"), QUEUE).hand(jobs)
    asked = [json.loads(body) for _, _, body in wire.sent]
    assert [len(each["Entries"]) for each in asked] == [10, 2]
    assert [decode_job(entry["MessageBody"]) for each in asked for entry in each["Entries"]] == jobs
    assert {each["QueueUrl"] for each in asked} == {QUEUE}
    assert {headers["x-amz-target"] for _, headers, _ in wire.sent} == {"AmazonSQS.SendMessageBatch"}
    assert all("MessageGroupId" not in entry for each in asked for entry in each["Entries"])


async def test_a_batch_is_no_longer_than_a_queue_takes(wire):
    """256 KB in all."""
    wire.status, wire.answer = 200, b"{}"
    await QueueTransport(wire.service("sqs"), QUEUE).hand([deliver(n, "x" * 100_000) for n in range(5)])
    assert [len(json.loads(body)["Entries"]) for _, _, body in wire.sent] == [2, 2, 1]


async def test_a_fifo_queue_keeps_a_rooms_jobs_in_order_and_parts_beside_each_other(wire):
    """The same job is the same message."""
    wire.status, wire.answer = 200, b"{}"
    parts = [Part(id=f"p.{n}", room=ROOM, first_shard=n, last_shard=n, upto=1) for n in (1, 2)]
    await QueueTransport(wire.service("sqs"), f"{QUEUE}.fifo").hand([deliver(1), deliver(2), *parts])
    [(_, _, body)] = wire.sent
    about = [(entry["MessageGroupId"], entry["MessageDeduplicationId"]) for entry in json.loads(body)["Entries"]]
    assert about == [("room", "deliver:room:1"), ("room", "deliver:room:2"), ("room:1", "p.1"), ("room:2", "p.2")]


async def test_a_queue_that_did_not_take_all_is_unavailable(wire):
    """Also when it says so of one message alone."""
    wire.status, wire.answer = 200, b'{"Failed":[{"Id":"0","Code":"InternalError","SenderFault":false}]}'
    with pytest.raises(Unavailable):
        await QueueTransport(wire.service("sqs"), QUEUE).hand([deliver(1)])


# This process


async def test_jobs_are_done_in_this_process_and_can_be_waited_for():
    """Those that jobs hand over included."""
    done: list[int] = []
    clock = FakeClock()
    transport = DirectTransport(clock=clock)

    async def run(job: AnyJob) -> None:
        assert isinstance(job, Deliver)
        await asyncio.sleep(0)
        done.append(job.seq)
        if job.seq < 3:
            await transport.hand([deliver(job.seq + 1)])

    transport.run = run
    async with transport:
        await transport.hand([deliver(1)])
        await transport.drain()
    assert done == [1, 2, 3]


async def test_a_job_that_fails_comes_again_and_is_given_up_at_last(caplog):
    """As with Lambda's asynchronous invocations: twice more; then the log says which it was."""
    tried: list[str] = []
    clock = FakeClock()

    async def run(job: AnyJob) -> None:
        tried.append(job.id)
        if job.id != "good" or len(tried) < 3:
            raise ValueError("no")

    async with DirectTransport(run, clock=clock) as transport:
        await transport.hand([Signal(id="good", room=ROOM, frame="")])
        await clock.advance(10)
        assert tried == ["good"] * 3
        assert not [record for record in caplog.records if record.levelname == "ERROR"]
        await transport.hand([Signal(id="bad", room=ROOM, frame="")])
        await clock.advance(10)
    assert tried[3:] == ["bad"] * 3
    [said] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said == "a job is given up, room room: bad"


async def test_more_jobs_than_may_be_under_way_are_refused():
    """And so are all before there is somebody to do them."""
    held = asyncio.Event()

    async def run(job: AnyJob) -> None:
        await held.wait()

    async with DirectTransport(clock=FakeClock(), most=2) as transport:
        with pytest.raises(Unavailable):
            await transport.hand([deliver(1)])
        transport.run = run
        await transport.hand([deliver(1), deliver(2)])
        with pytest.raises(Unavailable):
            await transport.hand([deliver(3)])
        held.set()
        await transport.drain()
        await transport.hand([deliver(3)])


async def test_what_is_under_way_ends_with_the_process():
    """Waiting for it has its bound."""
    ended: list[bool] = []

    async def run(job: AnyJob) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async with DirectTransport(run, clock=FakeClock()) as transport:
        await transport.hand([deliver(1)])
        await settle()
        await transport.drain(0.01)
        assert not ended
    assert ended == [True]
