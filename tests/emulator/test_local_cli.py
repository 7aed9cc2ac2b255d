"""`hubbub local` as one types it: its table, its log, its flags, a command beside it, and its end in every way."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from functionlab import is_running
from lambdalab import moto_server
from locallab import hubbub_local
from scripts.servers import free_port
from stacklab import ECHO, Sketch, aws, client, refused

from live import until

SCRIPT = """
import json, os, sys, boto3
from websockets.sync.client import connect
with connect(os.environ["HUBBUB_URL"]) as socket:
    socket.send(json.dumps({"action": "who"}))
    said = json.loads(socket.recv(timeout=20))
url = os.environ["HUBBUB_CALLBACK_URL"]
try:
    boto3.client("apigatewaymanagementapi", endpoint_url=url).get_connection(ConnectionId="AAAAAAAAAAAAAAA=")
except Exception as error:
    said["error"] = type(error).__name__
said["tables"] = boto3.client("dynamodb").list_tables()["TableNames"]
said["functions"] = [each["FunctionName"] for each in boto3.client("lambda").list_functions()["Functions"]]
said["again"] = os.environ["HUBBUB_URL_Chat"] == os.environ["HUBBUB_URL"]
print(json.dumps(said))
sys.exit(7)
"""
"""What a project's own tests would do: connect, and use the stack's services by boto3's variables alone."""


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """An emulator of AWS that the user has started, so that `hubbub local` need not."""
    with moto_server() as url:
        yield url


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack with two functions, a parameter and a table."""
    sketch = Sketch(tmp_path_factory.mktemp("cli") / "demo")
    sketch.document["Parameters"] = {"Colour": {"Type": "String", "Default": "blue"}}
    who = """\
        import json, os
        def handler(event, context):
            print("somebody asks")
            found = {name: os.environ.get(name) for name in ("COLOUR", "SHAPE", "SIZE")}
            return {"statusCode": 200, "body": json.dumps(found)}
    """
    sketch.function("Who", who, Variables={"COLOUR": {"Ref": "Colour"}})
    sketch.function("Echo", ECHO).api("Chat", who="Who", default="Echo")
    sketch.resources["Rooms"] = {
        "Type": "AWS::DynamoDB::Table",
        "Properties": {
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
            "BillingMode": "PAY_PER_REQUEST",
            "TimeToLiveSpecification": {"AttributeName": "end", "Enabled": True},
        },
    }
    sketch.resources["Cache"] = {"Type": "AWS::ElastiCache::CacheCluster", "Properties": {}}
    sketch.document["Outputs"] = {
        "Url": {"Value": {"Fn::Sub": "wss://${Chat}.execute-api.${AWS::Region}.amazonaws.com/test"}}
    }
    return sketch.write().parent


async def test_help_says_what_it_does_and_how_to_run_a_command(tmp_path: Path) -> None:
    """All flags are there, and the form with `--`."""
    async with hubbub_local(tmp_path, "--help", environment={"COLUMNS": "120"}) as local:
        assert await local.ended() == 0
        flags = ("parameter", "env-file", "host", "port", "quotas", "endpoint", "region", "name", "once")
        assert all(f"--{flag} " in local.printed for flag in flags)
        assert "-- COMMAND" in local.printed


async def test_it_shows_what_runs_and_what_functions_log(chat: Path, moto: str, tmp_path: Path) -> None:
    """One table of all that runs; then each line of a function with its name; Ctrl-C ends it with status 0."""
    async with hubbub_local(tmp_path, "--port", "0", "--endpoint", f"*={moto}", cwd=chat) as local:
        url = await local.ready()
        table = local.said
        assert re.search(rf"^address +{url} +chat$", table, re.MULTILINE)
        assert re.search(r"^route +who +Who, answers$", table, re.MULTILINE)
        assert re.search(r"^ +\$default +Echo, answers$", table, re.MULTILINE)
        assert re.search(r"^function +Who +demo-Who, python3\.\d+, 128 MB, 10 s$", table, re.MULTILINE)
        assert re.search(r"^resource +Rooms +DynamoDB::Table demo-Rooms$", table, re.MULTILINE)
        assert re.search(rf"^ +{moto} +all other services of AWS$", table, re.MULTILINE)
        assert re.search(rf"^output +Url +wss://\w+\.execute-api\.\S+, here {url}$", table, re.MULTILINE)
        assert re.search(r"^not here: Cache \(AWS::ElastiCache::CacheCluster\): \S", table, re.MULTILINE)
        async with client(url) as ann:
            assert (await ann.ask(action="who"))["COLOUR"] == "blue"
            log = await local.says("somebody asks")
            assert re.search(r"^\d\d:\d\d:\d\d\.\d{3} Who  │ somebody asks$", log, re.MULTILINE)
            await local.says("128 MB", 3)
            ends = re.findall(r"^\S+ Who  │ (\d+ ms, after \d+ ms to start, \d+ of 128 MB)$", local.said, re.MULTILINE)
            assert len(ends) == 1
        for address in (url, re.findall(r"(http\S+) +Lambda's API", table)[0]):
            _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(address).port)
            writer.write(b"what is no HTTP\r\n\r\n")
            writer.close()
        async with client(url) as ann:
            assert await ann.ask(action="who")
        local.process.send_signal(signal.SIGINT)
        assert await local.ended() == 0
        assert local.printed == ""
        assert not re.search("uvicorn|Traceback|Invalid HTTP|WARNING|ERROR", local.said), local.said


async def test_a_command_finds_the_stack_by_variables_and_its_status_is_the_result(
    chat: Path, moto: str, tmp_path: Path
) -> None:
    """Its output goes where it would go without the stack; boto3 needs no argument to find Lambda and DynamoDB."""
    arguments = (str(chat), "--port", "0", "--endpoint", f"*={moto}", "--name", "mine", "--parameter", "Colour=red")
    env_file = tmp_path / "variables"
    env_file.write_text("# shapes\n\nSHAPE=round\nexport SIZE='very large' \nCOLOUR=green\n")
    command = (sys.executable, "-c", SCRIPT)
    async with hubbub_local(tmp_path / "run", *arguments, "--env-file", str(env_file), command=command) as local:
        assert await local.ended() == 7, local.said
        found = json.loads(local.printed)
        assert found["COLOUR"] == "red"  # the template's own wins
        assert (found["SHAPE"], found["SIZE"]) == ("round", "very large")
        assert found["error"] == "GoneException"
        assert "mine-Rooms" in found["tables"]
        assert sorted(found["functions"]) == ["mine-Echo", "mine-Who"]
        assert found["again"]
        assert "Ctrl-C" not in local.said


@pytest.mark.parametrize(
    ("code", "status"),
    [("", 0), ("import os; os.kill(os.getpid(), 9)", 137), ("import os; os.kill(os.getpid(), 15)", 143)],
    ids=["good", "killed", "terminated"],
)
async def test_a_commands_end_is_ours(chat: Path, moto: str, tmp_path: Path, code: str, status: int) -> None:
    """A command that a signal ended gives 128 and the signal's number, as in a shell."""
    arguments = (str(chat), "--port", "0", "--endpoint", f"*={moto}", "--once")
    async with hubbub_local(tmp_path, *arguments, command=(sys.executable, "-c", code)) as local:
        assert await local.ended() == status


async def test_a_command_that_is_not_there_is_named(chat: Path, moto: str, tmp_path: Path) -> None:
    """With status 1, and the stack ends all the same."""
    arguments = (str(chat), "--port", "0", "--endpoint", f"*={moto}")
    async with hubbub_local(tmp_path, *arguments, command=("no-such-command",)) as local:
        assert await local.ended() == 1
        assert "The command 'no-such-command' cannot be run: No such file or directory." in local.said


async def test_a_signal_reaches_the_command(chat: Path, moto: str, tmp_path: Path) -> None:
    """A SIGTERM for hubbub ends the command first; what it makes of that is the status."""
    arguments = (str(chat), "--port", "0", "--endpoint", f"*={moto}")
    code = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(3)); print('up', flush=True); time.sleep(60)"
    )
    async with hubbub_local(tmp_path, *arguments, command=(sys.executable, "-c", code)) as local:
        await until(lambda: "up" in local.printed, "the command")
        local.look()
        local.process.send_signal(signal.SIGTERM)
        assert await local.ended() == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupt_before_it_runs_ends_it_at_once(chat: Path, tmp_path: Path, number: int) -> None:
    """With 128 and the signal's number, for nothing has run; a dependency that takes for ever is no obstacle."""
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "npm").write_text("#!/bin/sh\necho begun >&2\nsleep 60\n")
    (slow / "npm").chmod(0o755)
    sketch = Sketch(tmp_path / "stack").function("Waits", Runtime="nodejs20.x", Handler="index.handler")
    sketch.code("Waits", 'import "@aws-sdk/client-sqs";\n', "index.mjs")
    sketch.api("Chat", default="Waits").write()
    path = f"{slow}:{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = {"PATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    async with hubbub_local(tmp_path / "run", str(sketch.folder), "--port", "0", environment=environment) as local:
        await local.says("installing @aws-sdk/client-sqs")
        await until(lambda: any("sleep" in command for command in local.look()), "npm")
        local.process.send_signal(number)
        assert await local.ended() == 128 + number
        assert "Traceback" not in local.said
    assert list((tmp_path / "cache" / "hubbub" / "nodejs").iterdir()) == []


async def test_sigterm_ends_everything(chat: Path, tmp_path: Path) -> None:
    """Moto, functions, folders: all gone, and the connection is closed properly; status 0."""
    async with hubbub_local(tmp_path, str(chat), "--port", "0") as local:
        async with client(await local.ready()) as ann:
            await ann.ask(action="who")
            commands = [" ".join(command) for command in local.look()]
            assert any("moto_process" in command for command in commands)
            assert any("awslambdaric" in command for command in commands)
            local.process.send_signal(signal.SIGTERM)
            assert await ann.closed() == 1012
        assert await local.ended() == 0


STUBBORN = """\
    import os, subprocess, sys, time
    def handler(event, context):
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        print("child", child.pid, flush=True)
        time.sleep(600)
"""
"""A function that does not return, with a child that has left its group and session."""


@pytest.fixture
def stubborn(tmp_path: Path) -> Path:
    """A stack with such a function."""
    sketch = Sketch(tmp_path / "stubborn").function("Stubborn", STUBBORN, Timeout=600)
    return sketch.api("Chat", default="Stubborn").write().parent


async def test_kill_leaves_nothing(stubborn: Path, tmp_path: Path) -> None:
    """After SIGKILL nobody could clean up, and yet no process is left, no child of a function's, and no folder."""
    async with hubbub_local(tmp_path / "run", str(stubborn), "--port", "0") as local:
        async with client(await local.ready()) as ann:
            await ann.say(action="go")
            child = int(re.findall(r"child (\d+)", await local.says("child "))[0])
            commands = [" ".join(command) for command in local.look()]
            assert any("moto_process" in command for command in commands)
            assert any("sleep 600" in command for command in commands)
            local.process.kill()
            assert await local.ended() == -9
        await until(lambda: not is_running(child), "the end of the function's child")


async def test_a_second_interrupt_does_not_wait(stubborn: Path, tmp_path: Path) -> None:
    """The first waits for the function that is under way, for a while; the second ends everything at once."""
    arguments = (str(stubborn), "--port", "0")
    async with hubbub_local(tmp_path / "run", *arguments) as local, client(await local.ready()) as ann:
        await ann.say(action="go")
        await local.says("child ")
        local.look()
        local.process.send_signal(signal.SIGINT)
        assert await ann.closed() == 1012
        assert local.is_alive
        local.process.send_signal(signal.SIGINT)
        assert await local.ended() == 130


async def test_ports_hosts_and_two_stacks_on_one_port(chat: Path, moto: str, tmp_path: Path) -> None:
    """A fixed port is had at all addresses of the host; a second stack on it is refused with what to do."""
    port = free_port()
    arguments = (str(chat), "--port", str(port), "--endpoint", f"*={moto}", "--host")
    async with hubbub_local(tmp_path / "one", *arguments, "0.0.0.0") as local:
        assert await local.ready() == f"ws://127.0.0.1:{port}/test"
        async with client(f"ws://127.0.0.2:{port}/test") as ann:
            assert (await ann.ask(action="who"))["COLOUR"] == "blue"
        async with hubbub_local(tmp_path / "two", *arguments, "127.0.0.1") as second:
            assert await second.ended() == 1
            words = f"The port {port} on 127.0.0.1 is in use; choose another with --port, or stop what uses it."
            assert second.said == f"hubbub: {words}\n"
        assert await refused(f"ws://127.0.0.1:{port}/elsewhere") == 404


async def test_a_service_can_be_somewhere_else(chat: Path, moto: str, tmp_path: Path) -> None:
    """Tables are made at the endpoint that is named for DynamoDB, and functions find it there; the rest is ours."""
    arguments = (str(chat), "--port", "0", "--endpoint", f"dynamodb={moto}", "--name", "apart")
    command = (sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))")
    async with hubbub_local(tmp_path, *arguments, command=command) as local:
        assert await local.ended() == 0, local.said
        found = json.loads(local.printed)
        assert found["AWS_ENDPOINT_URL_DYNAMODB"] == found["AWS_ENDPOINT_URL_DYNAMODB_STREAMS"] == moto
        assert found["AWS_ENDPOINT_URL"] != moto
        assert "apart-Rooms" in aws("dynamodb", found, verify=None).list_tables()["TableNames"]


async def test_an_endpoint_that_nobody_answers_at_is_an_error(chat: Path, tmp_path: Path) -> None:
    """The resource that cannot be made is named, with the address."""
    port = free_port()
    async with hubbub_local(tmp_path, str(chat), "--endpoint", f"*=http://127.0.0.1:{port}", "--port", "0") as local:
        assert await local.ended() == 1
        assert local.said.startswith(
            "hubbub: Rooms: AWS::DynamoDB::Table demo-Rooms: Could not connect to the endpoint URL"
        )
        assert f"127.0.0.1:{port}" in local.said and "Traceback" not in local.said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--quotas", "azure"), "quotas: expected one of aws, none, got 'azure'"),
        (("--quotas", "aws,idle=3"), "quotas: expected LIMIT=VALUE with a limit of"),
        (("--parameter", "Colour"), "parameter: expected NAME=VALUE, got 'Colour'"),
        (("--endpoint", "=http://127.0.0.1:1"), "endpoint: expected NAME=VALUE, got '=http://127.0.0.1:1'"),
        (("--env-file", "variables"), "variables, line 3: expected NAME=value, got 'two words'"),
        (("--env-file", "nowhere"), "nowhere: No such file or directory"),
        (("no/such/place",), "no/such/place: expected a template, or a folder with one, and there is no such path"),
        (("empty",), "empty: expected one of template.yaml, template.yml"),
    ],
)
async def test_what_is_asked_for_wrongly_is_said_in_a_line(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    """Status 2 and one sentence: what was expected and what came."""
    (tmp_path / "variables").write_text("ONE=1\n\ntwo words\n")
    (tmp_path / "template.yaml").write_text("Resources: {}\n")
    (tmp_path / "empty").mkdir()
    async with hubbub_local(tmp_path, *arguments) as local:
        assert await local.ended() == 2
        assert words in local.said and local.said.count("\n") == 1, local.said


async def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    """Where a library of `hubbub[local]` is missing, its name and the command."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['trustme'] = None\n")
    environment = {"PYTHONPATH": str(tmp_path)}
    async with hubbub_local(tmp_path / "run", environment=environment) as local:
        assert await local.ended() == 1
        assert "trustme is not installed; it comes with: pip install 'hubbub[local]'" in local.said
