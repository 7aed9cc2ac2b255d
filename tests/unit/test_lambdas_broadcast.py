"""The broadcaster's handler: jobs from invocations and queues, and which of them are to come again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from hubbub.fanout.apigateway.jobs import AnyJob, Deliver, Part, encode_job
from hubbub.fanout.apigateway.tally import Tally
from hubbub.lambdas.handlers import broadcast
from hubbub.lambdas.invocation import InvocationFailed
from hubbub.model import RoomId
from lambdahome import Context, LabHome, Written, living, written


class Broadcaster:
    """Writes down which jobs it did.

    Attributes:
        done: their ids, in order of their ends.
        failing: ids of those that fail.
        endless: ids of those that do not end.

    """

    def __init__(self, report: Callable[[Tally], None]) -> None:
        self.report = report
        self.done: list[str] = []
        self.failing: set[str] = set()
        self.endless: set[str] = set()

    async def run(self, job: AnyJob, *, remaining_s: float) -> None:
        assert 0 < remaining_s < 30
        self.report(Tally(kind="deliver", room=job.room, posted=3, gone=1, failed=1))
        await asyncio.sleep(0)
        if job.id in self.endless:
            await asyncio.Event().wait()
        if job.id in self.failing:
            raise RuntimeError(f"no luck with {job.id}")
        self.done.append(job.id)


@pytest.fixture
def broadcaster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broadcaster]:
    with living(monkeypatch, LabHome()) as home:
        home.broadcaster_is = Broadcaster(home.report)
        yield home.broadcaster_is


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    with written(monkeypatch) as log:
        yield log


def job(number: str | int) -> Deliver:
    return Deliver(id=str(number), room=RoomId("tea"), seq=1, frame='{"type": "message.created", "text": "hush"}')


def record(number: str | int, group: str | None = None, body: str | None = None) -> dict[str, Any]:
    """A message as SQS hands it over."""
    attributes = {"ApproximateReceiveCount": "1", "SentTimestamp": "1545082650636"}
    return {
        "messageId": f"m{number}",
        "receiptHandle": "AQEB",
        "body": encode_job(job(number)).decode() if body is None else body,
        "attributes": {**attributes, **({"MessageGroupId": group} if group else {})},
        "messageAttributes": {},
        "md5OfBody": "e4e6",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:jobs" + (".fifo" if group else ""),
        "awsRegion": "eu-west-1",
    }


def failures(answer: Any) -> list[str]:
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def test_an_invocation_is_a_job(broadcaster: Broadcaster):
    """The payload of an asynchronous invocation is one job, which is done."""
    assert broadcast(msgspec.json.decode(encode_job(job(1))), Context()) is None
    assert (
        broadcast(
            msgspec.json.decode(encode_job(Part(id="2", room=RoomId("tea"), first_shard=0, last_shard=3))), Context()
        )
        is None
    )
    assert broadcaster.done == ["1", "2"]


def test_a_job_that_fails_fails_the_invocation(broadcaster: Broadcaster, log: Written):
    """Lambda then invokes again, and in the end tells the on-failure destination; the log names the room alone."""
    broadcaster.failing = {"1"}
    with pytest.raises(InvocationFailed):
        broadcast(msgspec.json.decode(encode_job(job(1))), Context())
    assert "no luck with 1" in log.text
    assert log.metrics[-1]["room"] == "tea"
    assert "hush" not in log.text


@pytest.mark.parametrize("event", [{}, {"job": "dance"}, [], "x", {"job": "deliver", "id": "1"}, None])
def test_what_is_no_job_fails(broadcaster: Broadcaster, log: Written, event: Any):
    """Something else's payload is named in the log as what it is, and nothing is done."""
    with pytest.raises(InvocationFailed):
        broadcast(event, Context())
    assert broadcaster.done == []


def test_only_the_failed_messages_of_a_queue_come_again(broadcaster: Broadcaster, log: Written):
    """In a standard queue each message is on its own: the others of the batch are done and stay done."""
    broadcaster.failing = {"2"}
    answer = broadcast({"Records": [record(1), record(2), record(3)]}, Context())
    assert failures(answer) == ["m2"]
    assert sorted(broadcaster.done) == ["1", "3"]
    (line,) = [line for line in log.words if line["level"] == "ERROR"]
    assert line["message_id"] == "m2"


def test_a_group_stops_at_its_first_failure(broadcaster: Broadcaster, log: Written):
    """In a FIFO queue what follows in the group comes again unread, or order would be lost; other groups go on."""
    broadcaster.failing = {"2"}
    batch = [record(1, "tea"), record(2, "tea"), record(8, "cake"), record(3, "tea"), record(9, "cake")]
    answer = broadcast({"Records": batch}, Context())
    assert failures(answer) == ["m2", "m3"]
    assert sorted(broadcaster.done) == ["1", "8", "9"]


def test_a_group_is_done_in_order(broadcaster: Broadcaster):
    """One job of a group is done before the next begins."""
    broadcast({"Records": [record(number, "tea") for number in range(6)]}, Context())
    assert broadcaster.done == ["0", "1", "2", "3", "4", "5"]


def test_entries_of_a_room_that_follow_each_other_are_done_with_the_last(broadcaster: Broadcaster, log: Written):
    """The later one's job delivers the earlier ones too; if it fails, all of them come again."""

    def entry(seq: int, room: str = "tea") -> dict[str, Any]:
        deliver = Deliver(id=f"{room}{seq}", room=RoomId(room), seq=seq, frame="{}")
        return record(f"{room}{seq}", "one", body=encode_job(deliver).decode())

    batch = [entry(1), entry(2), entry(3), entry(7, "cake"), entry(8, "cake"), entry(4), entry(4)]
    assert broadcast({"Records": batch}, Context()) == {"batchItemFailures": []}
    assert broadcaster.done == ["tea3", "cake8", "tea4", "tea4"]
    broadcaster.failing = {"cake8"}
    answer = broadcast({"Records": batch}, Context())
    assert failures(answer) == ["mcake7", "mcake8", "mtea4", "mtea4"]


def test_a_message_that_is_no_job_comes_again_alone(broadcaster: Broadcaster, log: Written):
    """It goes to the dead-letter queue in the end, without taking others with it."""
    answer = broadcast({"Records": [record(1, body="{"), record(2)]}, Context())
    assert failures(answer) == ["m1"]
    assert broadcaster.done == ["2"]


def test_time_that_runs_out_is_told_by_message(broadcaster: Broadcaster, log: Written):
    """A job that takes too long is given up before the invocation is, so that the done ones do not come again."""
    broadcaster.endless = {"2"}
    answer = broadcast({"Records": [record(1), record(2)]}, Context(left_ms=2_100))
    assert failures(answer) == ["m2"]
    assert broadcaster.done == ["1"]


def test_the_numbers_of_jobs_are_metrics(broadcaster: Broadcaster, log: Written):
    """What was posted, to whom no longer, and what was given up is counted over all jobs of an invocation."""
    broadcast({"Records": [record(1), record(2)]}, Context())
    broadcast(msgspec.json.decode(encode_job(job(3))), Context())
    both, one = log.metrics
    assert (both["Jobs"], both["Posted"], both["Gone"], both["Unserved"]) == (2, 6, 2, 2)
    assert (one["Jobs"], one["tally"]["posted"]) == (1, 3)
