"""A stack as an object in Python: in a block, in the background, as pytest's fixture; its APIs, domains and sources."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from functionlab import Others
from stacklab import ECHO, Record, Sketch, aws, background, clean_environment, client, refused

from hubbub.emulator import BackgroundStack, RunningStack, run
from hubbub.emulator.functions import UnknownFunction
from hubbub.emulator.resources import CannotCreate
from hubbub.emulator.template import TemplateError
from hubbub.listening import CannotStart
from live import BOUND_S, until

KEYS = {
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "BillingMode": "PAY_PER_REQUEST",
}


def echo(folder: Path) -> Sketch:
    """A stack that says what it gets."""
    return Sketch(folder).function("Echo", ECHO).api("Chat", default="Echo")


# In Python


async def test_a_stack_runs_for_the_length_of_a_block(tmp_path: Path, others: Others) -> None:
    """Its clients are served, its functions are invoked by name and by logical id, and afterwards nothing is there."""
    sketch = echo(tmp_path / "demo")
    sketch.function("Adds", "def handler(event, context): return event['a'] + event['b']")
    async with run(sketch.write(), name="mine", region="eu-west-1") as stack:
        async with client(stack.url) as ann:
            assert (await ann.ask(a=1))["body"] == '{"a": 1}'
        for name in ("Adds", "mine-Adds", "arn:aws:lambda:eu-west-1:123456789012:function:mine-Adds"):
            outcome = await stack.invoke(name, {"a": 1, "b": 2})
            assert (outcome.payload, outcome.error) == (b"3", None)
        assert (await stack.invoke("Adds", {})).error == "Unhandled"
        with pytest.raises(UnknownFunction, match=r"There is no function 'Other'"):
            await stack.invoke("Other")
        assert stack.environment["AWS_REGION"] == "eu-west-1"
        port = int(stack.url.rpartition(":")[2].partition("/")[0])
    assert others.besides() == []
    with socket.create_server(("127.0.0.1", port)):
        pass  # the port is free


async def test_what_is_in_the_way_is_raised_as_it_is(tmp_path: Path, others: Others) -> None:
    """Each with its own error, and nothing is left running."""
    with pytest.raises(TemplateError, match="there is no such path"):
        RunningStack(tmp_path / "nowhere")
    sketch = echo(tmp_path / "demo")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CannotStart, match="is in use"):
        async with run(sketch.write(), port=taken.getsockname()[1]):
            pass
    sketch.resources["Bad"] = {"Type": "AWS::DynamoDB::Table", "Properties": {"KeySchema": []}}
    with pytest.raises(CannotCreate, match="Bad: AWS::DynamoDB::Table demo-Bad"):
        async with run(sketch.write()):
            pass
    sketch.path.write_text("{")
    with pytest.raises(TemplateError, match=r"template\.json:1: "):
        async with run(sketch.path):
            pass
    assert others.besides() == []


async def test_two_stacks_run_beside_each_other(tmp_path: Path) -> None:
    """Each with its own ports, functions and services."""
    async with run(echo(tmp_path / "one").write()) as one, run(echo(tmp_path / "two").write()) as two:
        for stack in (one, two):
            async with client(stack.url) as ann:
                assert (await ann.ask(a=1))["context"]["apiId"] == stack.apis[0].definition.id
        assert one.endpoints["aws"] != two.endpoints["aws"]
        assert one.url != two.url


async def test_a_service_that_ends_is_told_to_who_waits_for_it(tmp_path: Path, others: Others) -> None:
    """`failed` raises it, and returns no sooner."""
    async with run(echo(tmp_path / "demo").write()) as stack:
        failing = asyncio.create_task(stack.failed())
        async with client(stack.url) as ann:
            await ann.ask(a=1)
        assert not failing.done()
        kill_moto(others)
        with pytest.raises(CannotStart, match="moto has ended"):
            async with asyncio.timeout(BOUND_S):
                await failing


def kill_moto(others: Others) -> None:
    """End the moto that a stack in this process has started."""
    (moto,) = [each for each in others.besides() if "moto_process" in each.cmdline()[2]]
    moto.kill()


async def test_a_stack_in_the_background_says_when_it_has_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, others: Others
) -> None:
    """It is logged, and whoever uses it is told instead of waiting for ever."""
    with BackgroundStack(echo(tmp_path / "demo").write()) as stack:
        kill_moto(others)
        await until(lambda: "the stack has ended: moto has ended" in caplog.text, "the log")
        await until(lambda: stack._loop is None, "its end")
        with pytest.raises(RuntimeError, match="the stack does not run"):
            stack.invoke("Echo", {})


def test_a_stack_in_the_background_that_cannot_start_raises(tmp_path: Path) -> None:
    """What is wrong is raised where it is entered, and no thread is left."""
    sketch = echo(tmp_path / "demo")
    sketch.path.write_text("[]")
    stack = BackgroundStack(sketch.path)
    with pytest.raises(RuntimeError, match="enter it first"):
        stack.invoke("Echo", {})
    with pytest.raises(TemplateError), stack:
        pass
    assert not stack._thread.is_alive()


async def test_a_function_invokes_another(tmp_path: Path) -> None:
    """By boto3, for an answer and as an event, which comes to the other's log."""
    asks = """\
        import boto3, json
        def handler(event, context):
            api = boto3.client("lambda")
            answer = api.invoke(FunctionName="demo-Other", Payload=json.dumps({"n": 20}))
            api.invoke(FunctionName="demo-Other", InvocationType="Event", Payload=json.dumps({"n": 1}))
            return json.load(answer["Payload"])
    """
    other = "def handler(event, context):\n    print('other got', event['n'])\n    return 2 * event['n'] + 2\n"
    sketch = Sketch(tmp_path / "demo").function("Asks", asks).function("Other", other)
    with background(sketch.write()) as (stack, record):
        assert stack.invoke("Asks").payload == b"42"
        await until(lambda: "other got 1" in record.printed("Other"), "the event")


# Several APIs


BACK = """\
    import boto3, json, os
    def handler(event, context):
        request = event["requestContext"]
        region = os.environ["AWS_REGION"]
        stage = "" if request["domainName"].startswith("chat.") else "/" + request["stage"]
        urls = ["https://" + request["domainName"] + stage]
        if stage:
            urls.append(f"https://{request['apiId']}.execute-api.{region}.amazonaws.com/{request['stage']}")
        for url in urls:
            api = boto3.client("apigatewaymanagementapi", endpoint_url=url)
            said = {"by": url, "variables": event.get("stageVariables"), "context": request}
            api.post_to_connection(ConnectionId=request["connectionId"], Data=json.dumps(said).encode())
"""
"""A function that calls back by each address that its connection has on AWS."""


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BackgroundStack, Record]]:
    """Two APIs, one of them with two stages and a custom domain."""
    sketch = Sketch(tmp_path_factory.mktemp("several") / "demo").function("Back", BACK)
    sketch.api("One", stages=("test", "beta"), default="Back").api("Two", default="Back")
    sketch.resources["OneBeta"]["Properties"]["StageVariables"] = {"colour": "red"}
    for api in ("One", "Two"):  # nothing is answered
        del sketch.resources[f"{api}DefaultResponse"]
        del sketch.resources[f"{api}DefaultRoute"]["Properties"]["RouteResponseSelectionExpression"]
    sketch.resources["Domain"] = {
        "Type": "AWS::ApiGatewayV2::DomainName",
        "Properties": {"DomainName": "chat.example.com"},
    }
    sketch.resources["Mapping"] = {
        "Type": "AWS::ApiGatewayV2::ApiMapping",
        "Properties": {"DomainName": {"Ref": "Domain"}, "ApiId": {"Ref": "One"}, "Stage": {"Ref": "OneBeta"}},
    }
    with background(sketch.write()) as running:
        yield running


async def calls_back(url: str, **options: Any) -> list[dict[str, Any]]:
    """What a client hears that says something: a message by each address; the function itself returns no response."""
    async with client(url, **options) as ann:
        await ann.say(hello="there")
        heard = [await ann.hear()]
        while "message" not in heard[-1]:
            heard.append(await ann.hear())
        assert heard.pop()["message"] == "Internal server error"
        return heard


async def test_callbacks_reach_the_connection_of_their_api(several: tuple[BackgroundStack, Record]) -> None:
    """By `domainName` with its port and by the API's id, for each API and stage."""
    stack, _ = several
    ports = set()
    for api in stack.apis:
        for url in api.urls:
            heard = await calls_back(url)
            stage = url.rpartition("/")[2]
            identity = api.definition.id
            assert [each["by"] for each in heard] == [
                f"https://{api.host}/{stage}",
                f"https://{identity}.execute-api.us-east-1.amazonaws.com/{stage}",
            ]
            assert {each["context"]["apiId"] for each in heard} == {identity}
            assert heard[0]["variables"] == ({"colour": "red"} if stage == "beta" else None)
            ports.add(api.host)
    assert len(ports) == 2
    assert await refused(f"ws://{stack.apis[1].host}/beta") == 404


async def test_a_custom_domain_leads_to_its_stage(several: tuple[BackgroundStack, Record]) -> None:
    """Without the stage in the path; `domainName` is the domain, and calls to it from functions come back here."""
    stack, _ = several
    one = stack.apis[0]
    (url,) = one.domain_urls
    port = int(one.host.rpartition(":")[2])
    assert url == f"ws://chat.example.com:{port}"
    (heard,) = await calls_back(f"ws://chat.example.com:{port}/", port=port)
    assert heard["by"] == "https://chat.example.com"
    assert (heard["context"]["domainName"], heard["context"]["stage"]) == ("chat.example.com", "beta")


# Sources


async def test_what_comes_from_queues_topics_tables_and_schedules_invokes_functions(tmp_path: Path) -> None:
    """All of them wired as the template says: a message, a notification, an item, and a moment that has come."""
    took = """\
        import json
        def handler(event, context):
            for record in event.get("Records", [event]):
                source = record.get("eventSource") or record.get("EventSource") or "schedule"
                item = record.get("dynamodb", {}).get("Keys")
                body = record.get("body") or record.get("Sns", {}).get("Message") or item or record
                print("took", source, json.dumps(body))
    """
    sketch = Sketch(tmp_path / "demo").function("Took", took)
    function = {"Fn::GetAtt": ["Took", "Arn"]}
    stream = {**KEYS, "StreamSpecification": {"StreamViewType": "NEW_IMAGE"}}
    for name, kind, properties in (
        ("Queue", "AWS::SQS::Queue", {}),
        ("Topic", "AWS::SNS::Topic", {}),
        ("Table", "AWS::DynamoDB::Table", stream),
        ("OfQueue", "AWS::Lambda::EventSourceMapping", {"EventSourceArn": {"Fn::GetAtt": ["Queue", "Arn"]}}),
        (
            "OfTable",
            "AWS::Lambda::EventSourceMapping",
            {"EventSourceArn": {"Fn::GetAtt": ["Table", "StreamArn"]}, "StartingPosition": "TRIM_HORIZON"},
        ),
        (
            "OfTopic",
            "AWS::SNS::Subscription",
            {"TopicArn": {"Ref": "Topic"}, "Protocol": "lambda", "Endpoint": function},
        ),
        (
            "OfTime",
            "AWS::Scheduler::Schedule",
            {
                "ScheduleExpression": "rate(1 minute)",  # of which the first is due as soon as the stack is there
                "FlexibleTimeWindow": {"Mode": "OFF"},
                "Target": {"Arn": function, "RoleArn": "arn:aws:iam::123456789012:role/x", "Input": '{"due": "now"}'},
            },
        ),
    ):
        of = {"FunctionName": {"Ref": "Took"}} if kind.endswith("EventSourceMapping") else {}
        sketch.resources[name] = {"Type": kind, "Properties": {**properties, **of}}
    with background(sketch.write()) as (stack, record):
        kinds = sorted(source.kind for source in stack.stack.sources)
        assert kinds == ["dynamodb", "schedule", "sns", "sqs"]
        sqs, sns = aws("sqs", stack.environment), aws("sns", stack.environment)
        url = sqs.get_queue_url(QueueName="demo-Queue")["QueueUrl"]
        sqs.send_message(QueueUrl=url, MessageBody="a message")
        aws("dynamodb", stack.environment).put_item(TableName="demo-Table", Item={"id": {"S": "an item"}})
        topic = "arn:aws:sns:us-east-1:123456789012:demo-Topic"
        wanted = {
            'took aws:sqs "a message"',
            'took aws:sns "a notification"',
            'took aws:dynamodb {"id": {"S": "an item"}}',
            'took schedule {"due": "now"}',
        }
        subscribed = lambda: sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]  # noqa: E731
        await until(lambda: bool(subscribed()), "the subscription")
        sns.publish(TopicArn=topic, Message="a notification")
        await until(lambda: wanted <= set(record.printed("Took")), f"all of {wanted}")


# pytest


PROJECT = """\
    import json, sys
    from websockets.sync.client import connect

    def test_that_does_not_use_it():
        assert "hubbub.emulator.running" not in sys.modules

    def test_somebody_can_connect(hubbub_stack):
        with connect(hubbub_stack.url) as socket:
            socket.send("hello")
            assert json.loads(socket.recv(timeout=20))["body"] == "hello"

    def test_it_is_the_same_stack(hubbub_stack):
        assert json.loads(hubbub_stack.invoke("Word").payload) == "from the settings"
        assert hubbub_stack._thread.is_alive()
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose tests use the fixture."""
    sketch = echo(tmp_path / "infrastructure")
    sketch.document["Parameters"] = {"Word": {"Type": "String"}}
    word = "import os\ndef handler(event, context): return os.environ['WORD']"
    sketch.function("Word", word, Variables={"WORD": {"Ref": "Word"}}).write()
    (tmp_path / "test_it.py").write_text(textwrap.dedent(PROJECT))
    settings = "hubbub_template = infrastructure\nhubbub_quotas = aws\nhubbub_parameters =\n  Word=from the settings\n"
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nfilterwarnings = error\n{settings}")
    return tmp_path


def pytest_in(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in another project."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", *arguments],
        cwd=project,
        env=clean_environment(TMPDIR=str(project)),
        capture_output=True,
        text=True,
        timeout=4 * BOUND_S,
        check=False,
    )


def test_pytest_has_a_fixture(project: Path) -> None:
    """With the template, quotas and parameters of pytest's settings, started once, and nothing of it is left."""
    done = pytest_in(project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
    assert list(project.glob("hubbub*")) == []


def test_pytests_fixture_says_what_is_wrong(project: Path) -> None:
    """An error of the tests that use it, with the template's file; others pass."""
    (project / "broken.yaml").write_text("Resources: [\n")
    done = pytest_in(project, "--hubbub-template", "broken.yaml")
    assert done.returncode == 1
    assert "1 passed, 2 errors" in done.stdout
    assert "broken.yaml:2: not YAML" in done.stdout
