"""Signed calls without a socket: signatures, what is tried again and for how long, what refusals are called."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from awslab import DATE, DATE_S, OWN, Clock, Wire, refused, said, service
from hubbub.aws.credentials import Fixed
from hubbub.aws.http import Broken, HttpClient, HttpResponse, Unreached
from hubbub.aws.service import BACKOFF_S, MAX_BACKOFF_S, AwsError, Service, Unanswered, refusal
from hubbub.sigv4 import Credentials, Signer

# Calls


async def test_a_json_call_names_its_operation_and_is_signed() -> None:
    """The operation is in `X-Amz-Target`, the request is JSON, the answer is what it says."""
    wire = Wire(said(200, {"Item": {}}))
    assert await service(wire).call("GetItem", {"Key": "größe"}) == {"Item": {}}
    [asked] = wire.asked
    assert (asked.method, asked.url) == ("POST", "https://dynamodb.eu-west-1.amazonaws.com/")
    assert asked.headers["X-Amz-Target"] == "DynamoDB_20120810.GetItem"
    assert asked.headers["Content-Type"] == "application/x-amz-json-1.0"
    assert json.loads(asked.body) == {"Key": "größe"}
    assert asked.signer("dynamodb") == Signer("AKIDOWN", "eu-west-1", checked=True)
    assert asked.headers["X-Amz-Security-Token"] == "a-token"


async def test_an_answer_without_a_body_says_nothing() -> None:
    """An operation whose answer is empty returns an empty document."""
    assert await service(Wire(said(200)), "sqs").call("DeleteMessage", {}) == {}


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"\xff"])
async def test_an_answer_of_somebody_else_is_none(body: bytes) -> None:
    """An answer that is no JSON object, as from a proxy, leaves one in doubt."""
    with pytest.raises(Unanswered, match="the answer is not GetItem's") as failed:
        await service(Wire(HttpResponse(200, [], body))).call("GetItem", {})
    assert failed.value.is_in_doubt


async def test_a_rest_call_is_signed_with_its_path_and_query() -> None:
    """A call with a path goes below the endpoint's own path, and its answer comes back whole."""
    wire = Wire(HttpResponse(202, [(b"A", b"b")], b"payload"))
    made = service(wire, "lambda", endpoint="http://127.0.0.1:8000/base/")
    answer = await made.rest(
        "POST", "/2015-03-31/functions/a/invocations?Qualifier=live", headers=[("X-Amz-Invocation-Type", "Event")]
    )
    assert (answer.status, answer.headers["a"], answer.body) == (202, "b", b"payload")
    [asked] = wire.asked
    assert asked.url == "http://127.0.0.1:8000/base/2015-03-31/functions/a/invocations?Qualifier=live"
    assert asked.signer("lambda").checked


async def test_sending_once_leaves_the_answer_to_the_caller() -> None:
    """`send` tries once, and returns refusals and raises failures as they are."""
    wire = Wire(said(429), Broken("gone"))
    made = service(wire, "execute-api", endpoint="https://api.example/prod")
    answer = await made.send("POST", "/@connections/abc%3D", body=b"hello", timeout_s=1)
    assert answer.status == 429
    assert wire.asked[0].signer("execute-api").checked
    with pytest.raises(Broken):
        await made.send("POST", "/@connections/abc%3D", body=b"hello", timeout_s=1)
    assert len(wire.asked) == 2


async def test_only_json_services_are_called_by_operation() -> None:
    """A service without AWS's JSON protocol cannot be called by operation."""
    with pytest.raises(ValueError, match="lambda: expected one of AWS's JSON services"):
        await service(Wire(said(200)), "lambda").call("Invoke", {})


async def test_credentials_that_change_are_used() -> None:
    """Each request is signed with the credentials of its time."""

    class Turning:
        def __init__(self) -> None:
            self.all = [Credentials("AKIDOWN", "a-secret"), Credentials("AKIDNEW", "another")]

        async def get(self) -> Credentials:
            return self.all.pop(0)

    wire = Wire(said(200))
    made = service(wire, credentials=Turning())
    for key in ("AKIDOWN", "AKIDNEW"):
        await made.call("GetItem", {})
        assert f"Credential={key}/" in wire.asked[-1].headers["Authorization"]


# Where it is


@pytest.mark.parametrize(
    "name, environment, region, url",
    [
        ("sqs", {}, "us-east-1", "https://sqs.us-east-1.amazonaws.com"),
        ("sqs", {}, "cn-north-1", "https://sqs.cn-north-1.amazonaws.com.cn"),
        ("sqs", {"AWS_ENDPOINT_URL": "http://all/"}, "us-east-1", "http://all"),
        ("sqs", {"AWS_ENDPOINT_URL": "http://all", "AWS_ENDPOINT_URL_SQS": "http://s"}, "us-east-1", "http://s"),
        ("secretsmanager", {"AWS_ENDPOINT_URL_SECRETS_MANAGER": "http://s"}, "us-east-1", "http://s"),
        (
            "sqs",
            {"AWS_ENDPOINT_URL": "http://all", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
            "us-east-1",
            "https://sqs.us-east-1.amazonaws.com",
        ),
    ],
)
def test_the_address_is_configured_or_awss(name: str, environment: dict[str, str], region: str, url: str) -> None:
    """The service's own variable goes before that for all, and that before AWS's address."""
    assert service(Wire(), name, environment=environment, region=region).endpoint == url
    assert service(Wire(), name, environment=environment, endpoint="http://given/").endpoint == "http://given"


def test_connections_are_only_where_somebody_says() -> None:
    """`@connections` has no address but that of an API's stage."""
    with pytest.raises(ValueError, match="endpoint: expected that of the API's stage"):
        service(Wire(), "execute-api")


@pytest.mark.parametrize("endpoint", ["nonsense", "ftp://host", "http://"])
def test_an_address_that_is_none_is_told_at_once(endpoint: str) -> None:
    """An endpoint that is no URL is an error when the service is made."""
    with pytest.raises(ValueError, match="url: expected"):
        service(Wire(), endpoint=endpoint)


# Refusals


@pytest.mark.parametrize(
    "answer, name, message",
    [
        (refused("ValidationException"), "ValidationException", "it is ValidationException"),
        (said(404, {"Message": "no"}, x_amzn_errortype="NotFound:http://x/"), "NotFound", "no"),
        (said(410, x_amzn_ErrorType="GoneException"), "GoneException", "HTTP status 410"),
        (said(400, {"code": "Some", "message": "b"}), "Some", "b"),
        (said(503), "503", "HTTP status 503"),
        (HttpResponse(502, [], b"<html>"), "502", "HTTP status 502"),
        (said(400, ["odd"]), "400", "HTTP status 400"),
    ],
)  # fmt: skip
def test_refusals_have_awss_names(answer: HttpResponse, name: str, message: str) -> None:
    """An error's name is in a header or in the document, with more around it; its message in the document."""
    error = refusal(answer)
    assert (error.type, error.message, error.status) == (name, message, answer.status)
    assert name in str(error)


async def test_what_cannot_help_is_not_tried_again() -> None:
    """A refusal that would come again is raised at once, with all that was said."""
    wire = Wire(refused("ValidationException"))
    with pytest.raises(AwsError) as failed:
        await service(wire).call("PutItem", {})
    assert failed.value.type == "ValidationException"
    assert failed.value.document["message"] == "it is ValidationException"
    assert not failed.value.is_throttle and not failed.value.is_in_doubt
    assert len(wire.asked) == 1


# Trying again

PASSING = [
    refused("ProvisionedThroughputExceededException"),
    refused("ThrottlingException"),
    refused("TransactionConflictException"),
    refused("TransactionInProgressException"),
    said(429),
    Unreached("nobody"),
]
DOUBTFUL = [refused("InternalServerError", 500), said(503), Broken("gone")]


@pytest.mark.parametrize("answer", PASSING, ids=repr)
async def test_what_passes_is_tried_again_even_if_it_must_not_be_done_twice(answer: HttpResponse | Exception) -> None:
    """Too much at a time, a conflict and nobody there are no reason to give up: nothing was done."""
    wire = Wire(answer, said(200, {"done": True}))
    assert await service(wire).call("UpdateItem", {}, repeat=False) == {"done": True}
    assert len(wire.asked) == 2


@pytest.mark.parametrize("answer", DOUBTFUL, ids=repr)
async def test_what_is_in_doubt_is_tried_again_if_that_does_no_harm(answer: HttpResponse | Exception) -> None:
    """After a failure of AWS's or a lost answer a call is repeated only if it may be; else one is told of the doubt."""
    wire = Wire(answer, said(200, {"done": True}))
    assert await service(wire).call("GetItem", {}) == {"done": True}
    assert [asked.repeat for asked in wire.asked] == [True, True]
    wire = Wire(answer, said(200))
    with pytest.raises(AwsError) as failed:
        await service(wire).call("UpdateItem", {}, repeat=False)
    assert failed.value.is_in_doubt
    assert [asked.repeat for asked in wire.asked] == [False]


async def test_a_doubt_stays() -> None:
    """What is refused after a try that may have been done is refused in doubt."""
    with pytest.raises(AwsError) as failed:
        await service(Wire(Broken("gone"), refused("ConditionalCheckFailedException"))).call("PutItem", {})
    assert failed.value.type == "ConditionalCheckFailedException"
    assert failed.value.is_in_doubt


async def test_what_was_sent_twice_is_refused_in_doubt() -> None:
    """The connection broke under it, and the first time may have been what now stands in its own way."""
    answer = refused("ConditionalCheckFailedException")
    answer.is_second = True
    with pytest.raises(AwsError) as failed:
        await service(Wire(answer)).call("PutItem", {})
    assert failed.value.is_in_doubt


async def test_waits_grow_and_are_spread_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each try one waits for any part of a time that doubles, up to a bound."""
    monkeypatch.setattr(random, "random", lambda: 0.5)
    clock = Clock()
    throttle = refused("ThrottlingException")
    await service(Wire(*[throttle] * 9, said(200)), clock=clock).call("GetItem", {})
    assert clock.waits == [0.5 * min(BACKOFF_S * 2**n, MAX_BACKOFF_S) for n in range(9)]


@pytest.mark.parametrize("answer", [*PASSING, *DOUBTFUL], ids=repr)
async def test_tries_end_at_the_deadline(answer: HttpResponse | Exception) -> None:
    """When the time is over the last failure is raised, and no wait goes beyond it."""
    clock = Clock()
    began = clock.monotonic()
    with pytest.raises(AwsError):
        await service(Wire(answer), clock=clock).call("GetItem", {}, deadline_s=3)
    assert began < clock.monotonic() < began + 3


@pytest.mark.parametrize("failure, in_doubt", [(Unreached("nobody there"), False), (Broken("gone"), True)])
async def test_no_answer_says_whether_it_may_have_been_done(failure: Exception, in_doubt: bool) -> None:
    """Where there is no answer in the end, the error says so, why, and whether the call may have been done."""
    with pytest.raises(Unanswered, match=str(failure)) as failed:
        await service(Wire(failure)).call("GetItem", {}, deadline_s=0.1)
    assert failed.value.status is None
    assert failed.value.is_in_doubt is in_doubt
    assert failed.value.__cause__ is failure


# The clock


@pytest.mark.parametrize(
    "name", ["RequestTimeTooSkewed", "InvalidSignatureException", "SignatureDoesNotMatch", "RequestExpired"]
)
async def test_awss_clock_is_the_one_to_go_by(name: str) -> None:
    """When AWS finds our clock wrong, the call is signed anew by AWS's, and those after it too."""
    clock = Clock()
    await clock.sleep(-3_600)
    wire = Wire(refused(name, Date=DATE), said(200))
    made = service(wire, clock=clock)
    await made.call("GetItem", {}, repeat=False)
    await made.call("GetItem", {})
    assert [asked.headers["X-Amz-Date"] for asked in wire.asked] == ["20231114T211320Z", *["20231114T221320Z"] * 2]
    assert wire.asked[1].signer("dynamodb", DATE_S).checked


@pytest.mark.parametrize("headers", [{"Date": DATE}, {}, {"Date": "nonsense"}])
async def test_a_wrong_secret_is_not_a_wrong_clock(headers: dict[str, str]) -> None:
    """A signature that is refused while the clocks agree, or nobody tells the time, is not tried again."""
    wire = Wire(refused("InvalidSignatureException", 403, **headers))
    with pytest.raises(AwsError, match="InvalidSignatureException"):
        await service(wire).call("GetItem", {})
    assert len(wire.asked) == 1


async def test_a_clock_is_set_once_a_call() -> None:
    """AWS that tells another time with each refusal does not keep a call going."""
    wire = Wire(
        refused("RequestExpired", Date="Tue, 14 Nov 2023 23:13:20 GMT"),
        refused("RequestExpired", Date="Tue, 14 Nov 2023 20:13:20 GMT"),
    )
    with pytest.raises(AwsError, match="RequestExpired"):
        await service(wire).call("GetItem", {})
    assert len(wire.asked) == 2


async def test_this_machines_clock_is_the_default() -> None:
    """Without a clock that is given, waits are real."""
    async with HttpClient() as http:
        made = Service(http, "dynamodb", region="us-east-1", credentials=Fixed(OWN), environment={})
        before = made.clock.monotonic()
        await made.clock.sleep(0)
        assert made.clock.monotonic() >= before
        assert made.clock.now_ms() > DATE_S * 1_000
        await asyncio.sleep(0)
