"""Lambda's API, driven by boto3 and by raw HTTP, with real Python functions behind it."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError
from lambdalab import FakeFunctions, HandClock, answers, lambda_api

from hubbub.emulator.definition import EventSource, Function
from hubbub.emulator.functions import Functions, Throttled
from hubbub.emulator.functions.invocations import EventLimits, Invocations, Runner
from hubbub.emulator.functions.invoke_api import EVENT_PAYLOAD_BYTES, SYNC_PAYLOAD_BYTES
from hubbub.emulator.services import ServiceClient
from live import BOUND_S, until

APP = """
import json, os

def echo(event, context):
    return {"event": event}

def fail(event, context):
    raise ValueError("what a pity")

def talk(event, context):
    print("x" * 6000)
    print("the last words")

def about(event, context):
    custom = context.client_context.custom if context.client_context else None
    return {
        "arn": context.invoked_function_arn,
        "request_id": context.aws_request_id,
        "custom": custom,
        "trace": os.environ.get("_X_AMZN_TRACE_ID"),
    }

def write(event, context):
    with open(event["path"], "w") as file:
        file.write(context.aws_request_id)
"""
ARN = "arn:aws:lambda:us-east-1:123456789012:function:"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "app.py").write_text(APP)
    return folder


def python(code: Path, name: str, **settings: Any) -> Function:
    """A function of the module above."""
    return Function(
        logical_id=name,
        name=name,
        runtime="python3.11",
        handler=f"app.{name}",
        code=code,
        **{"timeout_s": 30.0, **settings},
    )


@asynccontextmanager
async def serving(
    runner: Runner, *sources: EventSource, **settings: Any
) -> AsyncIterator[tuple[str, Any, Invocations]]:
    """The API before functions: its address, boto3, and the queue."""
    limits = settings.pop("limits", EventLimits())
    async with (
        ServiceClient({}) as services,
        Invocations(runner, services, clock=HandClock(), limits=limits) as invocations,
        lambda_api(invocations, *sources, **settings) as (url, call),
    ):
        yield url, call, invocations


@asynccontextmanager
async def real(code: Path, *names: str, **settings: Any) -> AsyncIterator[Any]:
    """The API before real functions; what calls boto3."""
    async with AsyncExitStack() as stack:
        functions = await stack.enter_async_context(Functions([python(code, name, **settings) for name in names]))
        _, call, _ = await stack.enter_async_context(serving(functions))
        yield call


def fakes(*names: str, **settings: Any) -> FakeFunctions:
    functions = FakeFunctions()
    for name in names:
        functions.add(name, answers, **settings)
    return functions


async def refused(call: Any, method: str, **parameters: Any) -> ClientError:
    """The error that boto3 raises."""
    with pytest.raises(ClientError) as raised:
        await call(method, **parameters)
    return raised.value


async def test_invoke_returns_what_the_function_returned(code: Path) -> None:
    """RequestResponse, which is the default, waits for the function and returns its answer."""
    async with real(code, "echo") as call:
        answer = await call("invoke", FunctionName="echo", Payload=b'{"n": 1}')
    assert answer["StatusCode"] == 200
    assert answer["ExecutedVersion"] == "$LATEST"
    assert "FunctionError" not in answer
    assert json.loads(answer["Payload"].read()) == {"event": {"n": 1}}
    assert answer["ResponseMetadata"]["RequestId"]


async def test_a_function_s_error_is_an_answer_with_the_error_named(code: Path) -> None:
    """A function that raises answers 200, with FunctionError and the exception as payload."""
    async with real(code, "fail") as call:
        answer = await call("invoke", FunctionName="fail", Payload=b"{}")
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    failure = json.loads(answer["Payload"].read())
    assert (failure["errorType"], failure["errorMessage"]) == ("ValueError", "what a pity")
    assert failure["stackTrace"]


async def test_a_function_that_takes_too_long_answers_that_it_did(code: Path) -> None:
    """A time-out is a function error whose message says after how long."""
    (code / "app.py").write_text("import time\n\ndef slow(event, context):\n    time.sleep(60)\n")
    async with real(code, "slow", timeout_s=1.0) as call:
        answer = await call("invoke", FunctionName="slow")
    assert answer["FunctionError"] == "Unhandled"
    assert "Task timed out after 1.00 seconds" in json.loads(answer["Payload"].read())["errorMessage"]


async def test_the_log_s_tail_is_the_last_4_kb(code: Path) -> None:
    """LogType Tail adds the end of the invocation's log, at most 4 KB of it; without, there is none."""
    async with real(code, "talk") as call:
        with_log = await call("invoke", FunctionName="talk", LogType="Tail")
        without = await call("invoke", FunctionName="talk")
    log = base64.b64decode(with_log["LogResult"])
    assert len(log) <= 4_096
    assert b"the last words" in log
    assert b"REPORT RequestId: " + with_log["ResponseMetadata"]["RequestId"].encode() in log
    assert "LogResult" not in without


async def test_context_and_trace_reach_the_function(code: Path) -> None:
    """Client context, qualifier, request id and trace id are those of the call."""
    context = base64.b64encode(b'{"custom": {"a": "b"}}').decode()
    async with real(code, "about") as call:
        answer = await call("invoke", FunctionName="about", ClientContext=context, Qualifier="live")
    about = json.loads(answer["Payload"].read())
    assert about["custom"] == {"a": "b"}
    assert about["arn"] == f"{ARN}about:live"
    assert about["request_id"] == answer["ResponseMetadata"]["RequestId"]
    assert about["trace"].startswith("Root=1-")


async def test_event_returns_at_once_and_the_function_runs_later(code: Path, tmp_path: Path) -> None:
    """Event answers 202 without a body; the function runs under the request id that was told."""
    path = tmp_path / "written"
    async with real(code, "write") as call:
        payload = json.dumps({"path": str(path)}).encode()
        answer = await call("invoke", FunctionName="write", InvocationType="Event", Payload=payload)
        assert answer["StatusCode"] == 202
        assert answer["Payload"].read() == b""
        await until(lambda: path.exists() and path.read_text() != "", "the function ran")
        assert path.read_text() == answer["ResponseMetadata"]["RequestId"]


async def test_dry_run_runs_nothing() -> None:
    """DryRun answers 204 where the function is there, and runs nothing."""
    functions = fakes("f")
    async with serving(functions) as (_, call, _):
        answer = await call("invoke", FunctionName="f", InvocationType="DryRun", Payload=b"{}")
        assert answer["StatusCode"] == 204
        missing = await refused(call, "invoke", FunctionName="g", InvocationType="DryRun")
        assert missing.response["Error"]["Code"] == "ResourceNotFoundException"
    assert functions.calls == []


async def test_invoke_async_still_queues() -> None:
    """The old InvokeAsync answers 202 and queues the event."""
    functions = fakes("f")
    async with serving(functions) as (_, call, _):
        answer = await call("invoke_async", FunctionName="f", InvokeArgs=b'{"n": 1}')
        assert answer["Status"] == 202
        await until(lambda: functions.events("f") == [{"n": 1}], "the function ran")


@pytest.mark.parametrize(
    "name", ["f", f"{ARN}f", "123456789012:function:f", "function:f", "f:$LATEST", f"{ARN}f:live", "f:7"]
)
async def test_every_form_of_a_function_s_name_leads_to_it(name: str) -> None:
    """Names, ARNs and partial ARNs, with a qualifier or without, are understood."""
    async with serving(fakes("f")) as (_, call, _):
        answer = await call("invoke", FunctionName=name, Payload=b"1")
    assert answer["Payload"].read() == b"1"


@pytest.mark.parametrize("payload", [None, b""])
async def test_no_payload_is_an_empty_object(payload: bytes | None) -> None:
    """A call without a payload gives the function `{}`."""
    functions = fakes("f")
    parameters = {} if payload is None else {"Payload": payload}
    async with serving(functions) as (_, call, _):
        await call("invoke", FunctionName="f", **parameters)
    assert functions.events("f") == [{}]


async def test_an_unknown_function_is_not_found() -> None:
    """A function that is not there raises ResourceNotFoundException with its ARN."""
    async with serving(fakes("f")) as (_, call, _):
        error = await refused(call, "invoke", FunctionName="nobody")
    assert type(error).__name__ == "ResourceNotFoundException"
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    assert error.response["Error"]["Message"] == f"Function not found: {ARN}nobody"
    assert error.response["Type"] == "User"


async def test_two_qualifiers_that_differ_are_refused() -> None:
    """A qualifier in the name and another beside it raise InvalidParameterValueException."""
    async with serving(fakes("f")) as (_, call, _):
        error = await refused(call, "invoke", FunctionName="f:a", Qualifier="b")
    assert type(error).__name__ == "InvalidParameterValueException"


@pytest.mark.parametrize("kind", ["RequestResponse", "Event"])
@pytest.mark.parametrize("payload", [b"{", b"hello", b'{"a": nope}', b"1 2", b'"\xff"', b"[" * 5_000])
async def test_a_payload_that_is_no_json_is_refused(kind: str, payload: bytes) -> None:
    """Whatever is no JSON raises InvalidRequestContentException, and the function does not see it."""
    functions = fakes("f")
    async with serving(functions) as (_, call, _):
        error = await refused(call, "invoke", FunctionName="f", InvocationType=kind, Payload=payload)
    assert type(error).__name__ == "InvalidRequestContentException"
    assert error.response["Error"]["Message"].startswith("Could not parse request body into json")
    assert functions.calls == []


@pytest.mark.parametrize(
    ("kind", "limit", "words"),
    [
        ("RequestResponse", SYNC_PAYLOAD_BYTES, "Request must be smaller than 6291456 bytes"),
        ("Event", EVENT_PAYLOAD_BYTES, "1048577 byte payload is too large for the Event invocation type"),
    ],
)
async def test_a_payload_over_the_limit_gets_413(kind: str, limit: int, words: str) -> None:
    """A payload of exactly the limit is taken; one byte more raises RequestTooLargeException."""
    functions = fakes("f")
    async with serving(functions) as (_, call, _):
        await call("invoke", FunctionName="f", InvocationType=kind, Payload=b'"' + b"x" * (limit - 2) + b'"')
        error = await refused(
            call, "invoke", FunctionName="f", InvocationType=kind, Payload=b'"' + b"x" * (limit - 1) + b'"'
        )
        await until(lambda: len(functions.calls) == 1, "the first came through")
    assert type(error).__name__ == "RequestTooLargeException"
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert words in error.response["Error"]["Message"]


@pytest.mark.parametrize(
    "context",
    ["no base64!", base64.b64encode(b"no json").decode(), base64.b64encode(b'"' + b"x" * 3_000 + b'"').decode()],
)
async def test_a_client_context_that_is_none_is_refused(context: str) -> None:
    """A client context must be JSON in base64, of at most 3,583 bytes."""
    async with serving(fakes("f")) as (_, call, _):
        error = await refused(call, "invoke", FunctionName="f", ClientContext=context)
    assert type(error).__name__ == "InvalidRequestContentException"


async def test_a_throttled_function_gets_429_with_its_reason() -> None:
    """A throttle raises TooManyRequestsException with Reason and Retry-After."""
    functions = FakeFunctions()

    async def busy(event: Any) -> Any:
        raise Throttled("ReservedFunctionConcurrentInvocationLimitExceeded", "Rate Exceeded.")

    functions.add("busy", busy)
    async with serving(functions) as (_, call, _):
        error = await refused(call, "invoke", FunctionName="busy")
    assert type(error).__name__ == "TooManyRequestsException"
    assert error.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert error.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "1"
    assert error.response["Error"]["Message"] == "Rate Exceeded."


async def test_a_real_function_is_throttled_at_its_reserved_concurrency(code: Path) -> None:
    """Of two calls at once of a function that may run once, one gets 429."""
    (code / "app.py").write_text("import time\n\ndef nap(event, context):\n    time.sleep(1)\n")
    async with real(code, "nap", reserved_concurrency=1) as call:
        ended = await asyncio.gather(*(call("invoke", FunctionName="nap") for _ in range(2)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in ended) == ["TooManyRequestsException", "dict"]


async def test_a_full_queue_of_events_gets_429() -> None:
    """Events beyond what the queue holds raise TooManyRequestsException."""
    functions = FakeFunctions()

    async def hangs(event: Any) -> Any:
        await asyncio.Event().wait()

    functions.add("hangs", hangs)
    async with serving(functions, limits=EventLimits(events=1, drain_s=0.01)) as (_, call, _):
        await call("invoke", FunctionName="hangs", InvocationType="Event")
        error = await refused(call, "invoke", FunctionName="hangs", InvocationType="Event")
    assert type(error).__name__ == "TooManyRequestsException"


async def post(url: str, path: str, body: bytes = b"{}", method: str = "POST", **headers: str) -> httpx.Response:
    """A raw request."""
    async with httpx.AsyncClient(trust_env=False, timeout=BOUND_S) as client:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.request(method, url + path, content=body, headers=fields)


INVOKE = "/2015-03-31/functions/f/invocations"


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/cloudevents+json", 200),
        ("application/x-amz-json-1.1", 200),
        ("application/octet-stream", 200),
        ("text/plain", 415),
        ("application/xml", 415),
    ],
)
async def test_a_payload_that_is_called_something_else_than_json_gets_415(media_type: str, status: int) -> None:
    """A content type that is neither JSON nor bytes is UnsupportedMediaTypeException."""
    async with serving(fakes("f")) as (url, _, _):
        answer = await post(url, INVOKE, content_type=media_type)
    assert answer.status_code == status
    if status == 415:
        assert answer.headers["x-amzn-errortype"] == "UnsupportedMediaTypeException"


async def test_unsigned_requests_are_answered() -> None:
    """Whoever reaches this machine's loopback needs no signature."""
    async with serving(fakes("f")) as (url, _, _):
        answer = await post(url, INVOKE, b'{"n": 1}')
        slash = await post(url, INVOKE + "/", b'{"n": 2}')
    assert answer.json() == {"n": 1}
    assert slash.json() == {"n": 2}
    assert answer.headers["x-amzn-requestid"]


@pytest.mark.parametrize(("name", "value"), [("x-amz-invocation-type", "Sometime"), ("x-amz-log-type", "Everything")])
async def test_an_unknown_kind_of_invocation_or_log_is_refused(name: str, value: str) -> None:
    """A header with a value that is none gets a ValidationException that names those there are."""
    async with serving(fakes("f")) as (url, _, _):
        answer = await post(url, INVOKE, **{name: value})
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (400, "ValidationException")
    assert value in answer.json()["message"]


async def test_a_name_that_cannot_be_one_is_refused() -> None:
    """A function's name has AWS's form, or gets a ValidationException."""
    async with serving(fakes("f")) as (url, _, _):
        answer = await post(url, "/2015-03-31/functions/a%20b/invocations")
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (400, "ValidationException")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/2015-03-31/functions"),
        ("DELETE", "/2015-03-31/functions/f"),
        ("PUT", "/2015-03-31/functions/f/code"),
        ("POST", "/2021-11-15/functions/f/response-streaming-invocations"),
        ("GET", "/2018-10-31/layers"),
        ("GET", "/"),
    ],
)
async def test_what_is_not_supported_says_so_in_aws_s_shape(method: str, path: str) -> None:
    """Operations that are not here get a typed error with a sentence, which SDKs do not retry."""
    async with serving(fakes("f")) as (url, _, _):
        answer = await post(url, path, method=method)
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (501, "UnsupportedOperationException")
    assert "here" in answer.json()["message"]


async def test_an_unsupported_operation_is_an_error_of_boto3_s() -> None:
    """boto3 raises a ClientError with the code."""
    async with serving(fakes("f")) as (_, call, _):
        error = await refused(call, "delete_function", FunctionName="f")
    assert error.response["Error"]["Code"] == "UnsupportedOperationException"


async def test_a_function_is_described() -> None:
    """GetFunction and GetFunctionConfiguration say what the template says."""
    functions = fakes(
        "f", memory_mb=256, timeout_s=4.0, environment={"A": "b"}, reserved_concurrency=3, dead_letter=f"{ARN}q"
    )
    async with serving(functions) as (_, call, _):
        whole = await call("get_function", FunctionName="f")
        configuration = await call("get_function_configuration", FunctionName=f"{ARN}f")
        concurrency = await call("get_function_concurrency", FunctionName="f")
        missing = await refused(call, "get_function", FunctionName="g")
    kept = {name: value for name, value in configuration.items() if name != "ResponseMetadata"}
    assert whole["Configuration"] == kept
    assert kept["FunctionArn"] == f"{ARN}f"
    assert (kept["Runtime"], kept["Handler"], kept["MemorySize"], kept["Timeout"]) == (
        "python3.11",
        "app.handler",
        256,
        4,
    )
    assert kept["Environment"] == {"Variables": {"A": "b"}}
    assert kept["DeadLetterConfig"] == {"TargetArn": f"{ARN}q"}
    assert (kept["State"], kept["LastUpdateStatus"], kept["Version"]) == ("Active", "Successful", "$LATEST")
    assert whole["Code"]["Location"].startswith("file:///")
    assert whole["Concurrency"]["ReservedConcurrentExecutions"] == 3
    assert concurrency["ReservedConcurrentExecutions"] == 3
    assert missing.response["Error"]["Code"] == "ResourceNotFoundException"


async def test_functions_are_listed_page_by_page() -> None:
    """ListFunctions gives all functions by name, so many at a time."""
    async with serving(fakes("c", "a", "b")) as (_, call, _):
        first = await call("list_functions", MaxItems=2)
        second = await call("list_functions", MaxItems=2, Marker=first["NextMarker"])
        versions = await call("list_versions_by_function", FunctionName="a")
        aliases = await call("list_aliases", FunctionName="a")
    assert [each["FunctionName"] for each in first["Functions"]] == ["a", "b"]
    assert [each["FunctionName"] for each in second["Functions"]] == ["c"]
    assert "NextMarker" not in second
    assert [each["FunctionArn"] for each in versions["Versions"]] == [f"{ARN}a:$LATEST"]
    assert aliases["Aliases"] == []


@pytest.mark.parametrize("query", ["?MaxItems=0", "?MaxItems=many", "?Marker=nowhere"])
async def test_a_page_that_cannot_be_is_refused(query: str) -> None:
    """A page's size and place are checked."""
    async with serving(fakes("f")) as (url, _, _):
        answer = await post(url, f"/2015-03-31/functions{query}", method="GET")
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (400, "InvalidParameterValueException")


async def test_what_becomes_of_events_is_described() -> None:
    """GetFunctionEventInvokeConfig says what the template says, and that there is nothing where it says nothing."""
    functions = fakes("f", max_retries=1, max_age_s=60, on_failure=f"{ARN}g")
    functions.add("plain", answers)
    async with serving(functions) as (_, call, _):
        found = await call("get_function_event_invoke_config", FunctionName="f")
        listed = await call("list_function_event_invoke_configs", FunctionName="f")
        none = await refused(call, "get_function_event_invoke_config", FunctionName="plain")
        policy = await refused(call, "get_policy", FunctionName="f")
    assert (found["MaximumRetryAttempts"], found["MaximumEventAgeInSeconds"]) == (1, 60)
    assert found["DestinationConfig"] == {"OnFailure": {"Destination": f"{ARN}g"}}
    assert [each["FunctionArn"] for each in listed["FunctionEventInvokeConfigs"]] == [f"{ARN}f:$LATEST"]
    assert none.response["Error"]["Code"] == policy.response["Error"]["Code"] == "ResourceNotFoundException"


async def test_event_source_mappings_are_listed() -> None:
    """ListEventSourceMappings has queues and streams, by function or source; topics and schedules have none."""
    queue, stream = "arn:aws:sqs:us-east-1:123456789012:q", "arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/x"
    sources = [
        EventSource(logical_id="Q", function="f", kind="sqs", source=queue, batch_size=5, filters=('{"a": ["b"]}',)),
        EventSource(logical_id="S", function="g", kind="dynamodb", source=stream, enabled=False),
        EventSource(logical_id="T", function="g", kind="schedule", source="rate(1 minute)"),
    ]
    async with serving(fakes("f", "g"), *sources) as (_, call, _):
        everything = await call("list_event_source_mappings")
        of_f = await call("list_event_source_mappings", FunctionName="f")
        of_stream = await call("list_event_source_mappings", EventSourceArn=stream)
        one = await call("get_event_source_mapping", UUID=of_f["EventSourceMappings"][0]["UUID"])
        none = await refused(call, "get_event_source_mapping", UUID=str(uuid.UUID(int=7)))
        nobody = await refused(call, "list_event_source_mappings", FunctionName="nobody")
    assert len(everything["EventSourceMappings"]) == 2
    assert one["EventSourceArn"] == queue
    assert (one["BatchSize"], one["State"]) == (5, "Enabled")
    assert one["FilterCriteria"] == {"Filters": [{"Pattern": '{"a": ["b"]}'}]}
    found = of_stream["EventSourceMappings"]
    assert [(each["FunctionArn"], each["State"]) for each in found] == [(f"{ARN}g", "Disabled")]
    assert found[0]["StartingPosition"] == "LATEST"
    assert none.response["Error"]["Code"] == nobody.response["Error"]["Code"] == "ResourceNotFoundException"


async def test_account_settings_count_what_is_reserved() -> None:
    """GetAccountSettings says how many invocations may run at a time, and how many of them nobody has reserved."""
    async with serving(fakes("a", "b", reserved_concurrency=10), account_concurrency=100) as (_, call, _):
        answer = await call("get_account_settings")
    limit = answer["AccountLimit"]
    assert (limit["ConcurrentExecutions"], limit["UnreservedConcurrentExecutions"]) == (100, 80)
    assert answer["AccountUsage"]["FunctionCount"] == 2
