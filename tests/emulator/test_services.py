"""Calls to AWS's services: their protocols, their errors, and how long they may take."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from lambdalab import Aws, endpoints, moto_server

from hubbub.emulator.services import ServiceClient, ServiceFailed


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
def aws(moto: str) -> Iterator[Aws]:
    services = Aws(moto)
    yield services
    services.close()


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "code"),
    [
        ("sqs", "GetQueueUrl", {"QueueName": "nobody-s"}, "QueueDoesNotExist"),
        ("sns", "Publish", {"TopicArn": "arn:aws:sns:us-east-1:123456789012:no", "Message": "x"}, "NotFound"),
        ("dynamodb", "DescribeTable", {"TableName": "nobody-s"}, "ResourceNotFoundException"),
        ("events", "DescribeRule", {"Name": "nobody-s"}, "ResourceNotFoundException"),
    ],
)
async def test_a_refusal_has_the_service_s_own_code(
    moto: str, service: str, operation: str, parameters: dict[str, str], code: str
) -> None:
    """An error of any of the protocols is one exception with the code that the service gave."""
    async with ServiceClient(endpoints(moto)) as services:
        with pytest.raises(ServiceFailed) as failed:
            await services.call(service, operation, parameters)
    assert failed.value.code == code


async def test_a_call_is_for_its_region(aws: Aws) -> None:
    """What is made in one region is not there in another."""
    async with ServiceClient(endpoints(aws.url), region="eu-west-1") as services:
        await services.call("sqs", "CreateQueue", {"QueueName": "there"})
        assert await services.call("sqs", "GetQueueUrl", {"QueueName": "there"}, region="eu-west-1")
        with pytest.raises(ServiceFailed):
            await services.call("sqs", "GetQueueUrl", {"QueueName": "there"}, region="us-east-1")


async def test_a_service_may_wait_longer_than_a_call_may_take(aws: Aws) -> None:
    """A long poll gets its time beside the time-out; without it the call fails in the time-out."""
    url, _ = aws.queue()
    asked = {"QueueUrl": url, "WaitTimeSeconds": 2}
    async with ServiceClient(endpoints(aws.url), timeout_s=1.0) as services:
        assert not (await services.call("sqs", "ReceiveMessage", asked, wait_s=10.0)).get("Messages")
        with pytest.raises(ServiceFailed) as failed:
            await services.call("sqs", "ReceiveMessage", asked)
    assert failed.value.code == "Unreachable"


async def test_a_service_without_an_endpoint_is_named() -> None:
    """A call to a service whose place is not known says which places are."""
    async with ServiceClient({"sqs": "http://127.0.0.1:9"}) as services:
        with pytest.raises(ServiceFailed, match="NoEndpoint: no endpoint is known for sns; there are: sqs"):
            await services.call("sns", "Publish", {})
        with pytest.raises(ServiceFailed, match="Unreachable: sqs at http"):
            await services.call("sqs", "ListQueues", {})


@pytest.mark.parametrize(
    ("known", "service", "expected"),
    [
        ({"*": "http://all", "sqs": "http://queues"}, "sqs", "http://queues"),
        ({"*": "http://all", "sqs": "http://queues"}, "sns", "http://all"),
        ({"*": "http://all", "dynamodb": "http://tables"}, "dynamodbstreams", "http://tables"),
        ({"dynamodb": "http://tables", "streams.dynamodb": "http://streams"}, "dynamodbstreams", "http://streams"),
        ({"*": "http://all", "eventbridge": "http://events"}, "events", "http://events"),
    ],
)
async def test_a_service_is_found_under_each_of_its_names(known: dict[str, str], service: str, expected: str) -> None:
    """A service has its own address, under any of its names, or that of its host, or that of all others."""
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url).rstrip("/"))
        return httpx.Response(200, content=b"<answer/>" if service == "sns" else b"{}")

    async with ServiceClient(known) as services, httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        await services._client.aclose()
        services._client = client
        await services.call(service, "Anything", {})
    assert seen == [expected]
