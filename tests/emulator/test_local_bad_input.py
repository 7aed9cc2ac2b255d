"""Whatever is wrong with a stack or comes to it: it is named, the client hears what AWS would say, the rest goes on."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from botocore.exceptions import ClientError
from functionlab import is_running
from locallab import hubbub_local
from stacklab import ECHO, GONE, Record, Sketch, aws, background, client, refused

from hubbub.emulator import BackgroundStack
from hubbub.sigv4 import Credentials, sign

Running = tuple[BackgroundStack, Record]

UNRULY = {
    "Hangs": """\
        import json, time
        def handler(event, context):
            if json.loads(event["body"]).get("long"):
                time.sleep(600)
            return {"body": '{"answer": "done"}'}
    """,
    "Exits": """\
        import json, os
        def handler(event, context):
            if json.loads(event["body"]).get("now"):
                os._exit(3)
            return {"body": '{"answer": "done"}'}
    """,
    "Floods": """\
        import sys
        def handler(event, context):
            line = "flood " * 20 + "\\n"
            for _ in range(100):
                sys.stdout.write(line * 8_700)
            print("the end")
            return {"body": '{"answer": "done"}'}
    """,
    "Garbage": """\
        import json
        ANSWERS = {
            "text": "no response", "number": 5, "none": None, "status": {"statusCode": "many"}, "set": {1, 2},
            "large": {"body": "x" * 7_000_000},
        }
        def handler(event, context):
            return ANSWERS[json.loads(event["body"])["kind"]] if "body" in event else ANSWERS["text"]
    """,
    "Forks": """\
        import json, subprocess
        def handler(event, context):
            child = subprocess.Popen(["sleep", "600"], start_new_session=True)
            return {"body": json.dumps({"child": child.pid})}
    """,
    "Broken": "import no_such_module\ndef handler(event, context): pass\n",
    "Typo": "def handler(event, context:\n    pass\n",
    "Elsewhere": "def other(event, context): pass\n",
    "Echo": ECHO,
}


@pytest.fixture(scope="module")
def unruly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A stack with functions that do all that they should not, under AWS's quotas."""
    sketch = Sketch(tmp_path_factory.mktemp("bad") / "bad")
    for name, code in UNRULY.items():
        sketch.function(name, code, Timeout=1 if name == "Hangs" else 20)
    sketch.function("Cobol", ECHO, Runtime="cobol85")
    sketch.api("Chat", default="Echo", **{name.lower(): name for name in [*UNRULY, "Cobol"]})
    for name in ("Broken", "Cobol", "Garbage", "Typo"):
        sketch.api(f"Behind{name}", connect=name, default="Echo")
    sketch.resources["Search"] = {"Type": "AWS::OpenSearchService::Domain", "Properties": {"DomainName": "find"}}
    sketch.resources["Pool"] = {"Type": "AWS::Cognito::UserPool", "Properties": {}}
    with background(sketch.write(), quotas="aws") as running:
        yield running


async def asked(stack: BackgroundStack, action: str, **more: Any) -> Any:
    """What a client hears after a message to one of the functions."""
    async with client(stack.url) as ann:
        return await ann.ask(action=action, **more)


def failed(answer: Any) -> bool:
    """Whether it is API Gateway's document of a failure."""
    return answer["message"] == "Internal server error" and {"connectionId", "requestId"} < answer.keys()


def api(stack: BackgroundStack, logical_id: str) -> str:
    """Where clients of an API connect."""
    return stack.environment[f"HUBBUB_URL_{logical_id}"]


# Templates


TOPIC = "Resources:\n  T:\n    Type: AWS::SNS::Topic\n"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("template.yaml", "Resources:\n  Api:\n    Type: [\n", "template.yaml:4: not YAML: "),
        ("template.json", '{"Resources": {\n  "Api": {,}\n}}', "template.json:2: not JSON: "),
        ("template.yaml", f"{TOPIC}    Properties:\n      TopicName: !Ref B\n", "template.yaml:5: "),
        ("serverless.yml", "service: x\nprovider:\n  name: aws\nfunctions:\n  - 5\n", "serverless.yml:"),
    ],
)
async def test_a_template_that_cannot_be_read_is_an_error_with_file_and_line(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    """What was expected and what came, in the file and line that are to blame; status 1, and no traceback."""
    (tmp_path / name).write_text(text)
    async with hubbub_local(tmp_path, "--port", "0") as local:
        assert await local.ended() == 1
        assert local.said.startswith(f"hubbub: {tmp_path}/"), local.said
        assert words in local.said and "Traceback" not in local.said


def test_what_is_not_supported_is_named_with_what_that_means(unruly: Running) -> None:
    """Logical id and meaning; nothing else is said to be missing."""
    stack, _ = unruly
    found = {each.logical_id: each for each in stack.stack.unsupported}
    assert found.keys() == {"Search", "Pool"}
    assert all(len(each.meaning) > 20 for each in found.values())


# Functions that cannot be run


async def test_an_unknown_runtime_is_named_and_its_routes_answer_as_on_aws(unruly: Running) -> None:
    """It is said at the start, once, with what is supported; a message gets an error, a handshake 502."""
    stack, record = unruly
    assert await refused(api(stack, "BehindCobol")) == 502
    assert failed(await asked(stack, "cobol"))
    told = [line.text for line in record.lines if line.request_id is None and "cobol85" in line.text]
    assert len(told) == 1
    assert "'cobol85'" in told[0] and "python3.x, nodejs18.x" in told[0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Broken", "No module named 'no_such_module'"),
        ("Typo", "'(' was never closed"),
        ("Elsewhere", "Handler 'handler' missing on module 'app'"),
    ],
)
async def test_a_handler_that_does_not_import_is_shown_once(unruly: Running, name: str, words: str) -> None:
    """Each message gets an error, and the log has the reason once, however many messages there are."""
    stack, record = unruly
    async with client(stack.url) as ann:
        for _ in range(3):
            assert failed(await ann.ask(action=name.lower()))
    told = [line.text for line in record.lines if line.function == f"bad-{name}" and words in line.text]
    assert len(told) == 1, told


@pytest.mark.parametrize("name", ["Broken", "Typo", "Garbage"])
async def test_a_connect_route_that_fails_is_502(unruly: Running, name: str) -> None:
    """Whether its function does not import, or returns what is no response."""
    stack, _ = unruly
    assert await refused(api(stack, f"Behind{name}")) == 502


# Functions that misbehave


async def test_a_function_that_hangs_is_ended_at_its_time_out(unruly: Running) -> None:
    """The client is told, the log says so, and the next message is handled by another environment."""
    stack, record = unruly
    async with client(stack.url) as ann:
        assert failed(await ann.ask(action="hangs", long=True))
        assert await ann.ask(action="hangs") == {"answer": "done"}
    (report,) = [each for each in record.reports if each.function == "bad-Hangs" and each.status == "timeout"]
    assert report.duration_ms >= 1_000
    assert any("Task timed out after 1.00 seconds" in text for text in record.printed("bad-Hangs"))


async def test_a_function_that_exits_fails_its_invocation_alone(unruly: Running) -> None:
    """The client is told, and the next message is handled."""
    stack, record = unruly
    async with client(stack.url) as ann:
        assert failed(await ann.ask(action="exits", now=True))
        assert await ann.ask(action="exits") == {"answer": "done"}
    assert any("exit status 3" in text for text in record.printed("bad-Exits"))


async def test_a_flood_of_output_is_cut_and_holds_nobody_up(unruly: Running) -> None:
    """100 MB are printed: some of it is shown, what is left out is said, and the function returns."""
    stack, record = unruly
    assert await asked(stack, "floods") == {"answer": "done"}
    shown = record.printed("bad-Floods")
    assert sum(map(len, shown)) < 30_000_000
    assert any("MB of output are left out here" in text for text in shown)
    assert await asked(stack, "echo")


@pytest.mark.parametrize("kind", ["text", "number", "none", "status", "set", "large"])
async def test_what_is_no_response_is_a_failure_of_that_message_alone(unruly: Running, kind: str) -> None:
    """No object, a status that is none, what is no JSON, and more than 6 MB: the client is told, and all goes on."""
    stack, _ = unruly
    async with client(stack.url) as ann:
        assert failed(await ann.ask(action="garbage", kind=kind))
        assert (await ann.ask(action="echo"))["context"]["routeKey"] == "echo"


async def test_what_functions_leave_behind_ends_with_the_stack(tmp_path: Path) -> None:
    """A child in a session of its own is gone when the stack is."""
    sketch = Sketch(tmp_path / "forks").function("Forks", UNRULY["Forks"]).api("Chat", default="Forks")
    with background(sketch.write()) as (stack, _):
        child = (await asked(stack, "go"))["child"]
        assert is_running(child)
    assert not is_running(child)


# Callbacks


async def test_callbacks_to_ids_of_nobody(unruly: Running) -> None:
    """One that is well formed is gone, one that is not is a bad request, in boto3's own exceptions."""
    stack, _ = unruly
    management = aws("apigatewaymanagementapi", stack.environment)
    for call in (management.get_connection, management.delete_connection):
        with pytest.raises(management.exceptions.GoneException):
            await asyncio.to_thread(call, ConnectionId=GONE)
    with pytest.raises(ClientError) as malformed:
        await asyncio.to_thread(management.post_to_connection, ConnectionId="nobody", Data=b"x")
    assert malformed.value.response["Error"]["Code"] == "BadRequestException"
    assert malformed.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


async def test_a_callback_to_a_connection_that_closes_is_gone(unruly: Running) -> None:
    """From the moment that the gateway has sent CLOSE, though the client has not answered it."""
    stack, _ = unruly
    management = aws("apigatewaymanagementapi", stack.environment)
    async with client(stack.url) as ann:
        own = (await ann.ask(action="echo"))["context"]["connectionId"]
        management.post_to_connection(ConnectionId=own, Data=b'{"still": "there"}')
        assert await ann.hear() == {"still": "there"}
        ann.socket.transport.pause_reading()  # so CLOSE is not answered
        management.delete_connection(ConnectionId=own)
        with pytest.raises(management.exceptions.GoneException):
            management.post_to_connection(ConnectionId=own, Data=b"x")
        ann.socket.transport.resume_reading()
        assert await ann.closed() == 1000


async def test_what_is_too_large_is_refused_in_both_directions(unruly: Running) -> None:
    """128 KB pass; a post of 129 KB is 413, a message of 129 KB closes with 1009, and so does a frame over 32 KB."""
    stack, _ = unruly
    management = aws("apigatewaymanagementapi", stack.environment)
    async with client(stack.url) as ann, client(stack.url) as bob:
        own = (await ann.ask(action="echo"))["context"]["connectionId"]
        management.post_to_connection(ConnectionId=own, Data=json.dumps("x" * (128 * 1024 - 2)).encode())
        assert len(await ann.hear()) == 128 * 1024 - 2
        with pytest.raises(management.exceptions.PayloadTooLargeException) as refusal:
            management.post_to_connection(ConnectionId=own, Data=b"x" * 129 * 1024)
        assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
        message = json.dumps({"action": "echo", "text": "x" * 100_000})
        await ann.socket.send([message[at : at + 30_000] for at in range(0, len(message), 30_000)])
        assert len((await ann.hear())["body"]) == len(message)
        await ann.socket.send(["x" * 30_000] * 4 + ["x" * 12_096])
        assert await ann.closed() == 1009
        await bob.socket.send("x" * 33_000)
        assert await bob.closed() == 1009


@pytest.mark.parametrize(
    ("secret", "age_s", "error"),
    [("test", 0, None), ("wrong", 0, "InvalidSignatureException"), ("test", 600, "InvalidSignatureException")],
    ids=["good", "wrong", "old"],
)
async def test_signatures_are_looked_at(unruly: Running, secret: str, age_s: int, error: str | None) -> None:
    """One with another secret, and one from ten minutes ago, is 403."""
    stack, _ = unruly
    url = f"{stack.environment['HUBBUB_CALLBACK_URL']}/@connections/{GONE.replace('=', '%3D')}"
    headers = sign(
        Credentials("test", secret),
        method="GET",
        url=url,
        headers={},
        body=b"",
        service="execute-api",
        region="us-east-1",
        now_s=time.time() - age_s,
    )
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(url, headers=headers)
        unsigned = await http.get(url)
    assert (unsigned.status_code, unsigned.json()) == (403, {"message": "Missing Authentication Token"})
    if error is None:
        assert answer.status_code == 410
    else:
        assert answer.status_code == 403
        assert answer.headers["x-amzn-errortype"].startswith(error)


async def test_http_where_a_websocket_is_gets_what_aws_says(unruly: Running) -> None:
    """A plain GET is 426; any other path is Forbidden."""
    stack, _ = unruly
    url = stack.environment["HUBBUB_CALLBACK_URL"]
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(url)).status_code == 426
        elsewhere = await http.get(url.removesuffix("/test") + "/elsewhere")
        assert (elsewhere.status_code, elsewhere.json()) == (403, {"message": "Forbidden"})


async def test_what_is_no_http_at_all_is_no_matter(unruly: Running) -> None:
    """Bytes that are neither HTTP nor TLS end that connection alone."""
    stack, _ = unruly
    port = int(stack.url.rpartition(":")[2].partition("/")[0])
    for noise in (b"\x16\x03\x01 no handshake", b"\x00\xff\xfe\r\n\r\n", b"GET\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(noise)
        writer.write_eof()
        async with asyncio.timeout(20):
            await reader.read()
        writer.close()
    assert await asked(stack, "echo")


async def test_a_stack_whose_moto_dies_says_so_and_ends(tmp_path: Path) -> None:
    """Status 1, its name, and nothing is left."""
    sketch = Sketch(tmp_path / "stack").function("Echo", ECHO).api("Chat", default="Echo")
    async with hubbub_local(tmp_path / "run", str(sketch.write()), "--port", "0") as local:
        await local.ready()
        local.look()
        (moto,) = [
            process
            for process in psutil.Process(local.process.pid).children(recursive=True)
            if "moto_process" in " ".join(process.cmdline()) and "leash" not in " ".join(process.cmdline())
        ]
        moto.kill()
        assert await local.ended() == 1
        assert "hubbub: moto has ended" in local.said


async def test_a_stack_without_an_api_still_runs(tmp_path: Path) -> None:
    """Its functions can be invoked; where clients connect is said to be nowhere."""
    sketch = Sketch(tmp_path / "stack").function("Echo", "def handler(event, context): return event")
    with background(sketch.write()) as (stack, _):
        assert json.loads(stack.invoke("Echo", {"a": 1}).payload) == {"a": 1}
        assert "HUBBUB_URL" not in stack.environment
        with pytest.raises(LookupError, match="no WebSocket API in"):
            assert stack.url


async def test_an_api_without_a_stage_is_not_reached(tmp_path: Path) -> None:
    """It is shown without an address, and the rest runs."""
    sketch = Sketch(tmp_path / "stack").function("Echo", ECHO).api("Chat", stages=(), default="Echo")
    async with hubbub_local(tmp_path / "run", str(sketch.write()), "--port", "0", command=("true",)) as local:
        assert await local.ended() == 0, local.said
