"""One execution environment: what a function finds in it, and everything that can go wrong there."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from functionlab import PYTHON, Source, gone, marked, running

from hubbub.emulator.definition import Function
from live import BOUND_S, until


async def test_a_function_gets_its_event_and_a_context(source: Source) -> None:
    """The event is what was sent, and the context says what AWS's says."""
    function = source.function(
        """
        def handler(event, context):
            return {
                "event": event,
                "id": context.aws_request_id,
                "arn": context.invoked_function_arn,
                "name": context.function_name,
                "version": context.function_version,
                "memory": context.memory_limit_in_mb,
                "group": context.log_group_name,
                "stream": context.log_stream_name,
                "left": context.get_remaining_time_in_millis(),
                "custom": context.client_context.custom,
            }
        """,
        memory_mb=256,
        timeout_s=20.0,
    )
    async with running(function, region="eu-central-1", account="210987654321") as lab:
        got = await lab.result({"ü": [1]}, request_id="the-id", client_context='{"custom": {"ä":\r\n "ö"}}')
    assert 0 < got.pop("left") <= 20_000
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", got.pop("stream"))
    assert got == {
        "event": {"ü": [1]},
        "id": "the-id",
        "arn": "arn:aws:lambda:eu-central-1:210987654321:function:worker",
        "name": "worker",
        "version": "$LATEST",
        "memory": "256",
        "group": "/aws/lambda/worker",
        "custom": {"ä": "ö"},
    }


RETURNS_VARIABLES = """
import os

def handler(event, context):
    return dict(os.environ)
"""


async def test_a_function_sees_lambdas_variables_and_none_of_who_works_here(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials and region are the emulator's; the profile, the home and the rest of the host's are not there."""
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "real")
    monkeypatch.setenv("GITHUB_TOKEN", "real")
    shared = {"AWS_ACCESS_KEY_ID": "test", "AWS_ENDPOINT_URL": "http://x", "COLOUR": "shared"}
    function = source.function(RETURNS_VARIABLES, environment={"COLOUR": "own"}, memory_mb=192)
    async with running(function, environment=shared) as lab:
        seen = await lab.result(trace_id="Root=1-a")
    assert not {"AWS_PROFILE", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN"} & seen.keys()
    assert Path(seen["HOME"]) != Path.home()
    expected = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": "http://x",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{PYTHON}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "192",
        "AWS_LAMBDA_FUNCTION_NAME": "worker",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/worker",
        "AWS_REGION": "us-east-1",
        "COLOUR": "own",
        "LAMBDA_TASK_ROOT": str(source.folder),
        "TZ": ":UTC",
        "_HANDLER": "app.handler",
        "_X_AMZN_TRACE_ID": "Root=1-a",
    }
    assert {name: seen.get(name) for name in expected} == expected


async def test_a_function_cannot_set_what_lambda_reserves_and_is_told(source: Source) -> None:
    """A reserved variable keeps Lambda's value, with one warning."""
    function = source.function(RETURNS_VARIABLES, environment={"AWS_REGION": "moon", "AWS_SESSION_TOKEN": "own"})
    async with running(function) as lab:
        seen = await lab.result()
        assert (seen["AWS_REGION"], seen.get("AWS_SESSION_TOKEN")) == ("us-east-1", None)
        await lab.functions.reload("worker")
        assert [text for text in lab.said("platform") if "AWS_REGION" in text] == [
            "Lambda reserves these variables, and a function may not set them: AWS_REGION, AWS_SESSION_TOKEN."
        ]


async def test_the_folder_and_layers_come_before_what_is_installed_here(source: Source, tmp_path: Path) -> None:
    """A function's modules shadow those of layers, later layers earlier ones, and all of them ours; boto3 is there."""
    first, second = Source(tmp_path / "first"), Source(tmp_path / "second")
    for number, layer in ((1, first), (2, second)):
        layer.write("python/both.py", f"FROM = {number}")
        layer.write(f"python/only{number}.py", f"FROM = {number}")
        layer.write("python/app2.py", "FROM = 'layer'")
        layer.write(f"python/lib/{PYTHON}/site-packages/deep{number}.py", f"FROM = {number}")
        layer.write("bin/tool", f"#!/bin/sh\necho {number}").chmod(0o755)
        layer.write("data/what.txt", str(number))
        (layer.folder / "data" / "link").symlink_to("what.txt")
    second.write("python/msgspec.py", "FROM = 'layer'")
    source.write("app2.py", "FROM = 'code'")
    function = source.function(
        """
        import app2, both, boto3, deep1, deep2, msgspec, only1, only2, os, subprocess
        from pathlib import Path

        def handler(event, context):
            modules = {m.__name__: m.FROM for m in (app2, both, deep1, deep2, msgspec, only1, only2)}
            data = Path(both.__file__).parent.parent / "data" / "link"
            tool = subprocess.check_output("tool").decode()
            return {**modules, "tool": tool, "data": data.read_text(), "cwd": os.getcwd()}
        """,
        layers=(first.folder, second.folder),
        timeout_s=20,
    )
    async with running(function, init_s=BOUND_S) as lab:
        assert await lab.result() == {
            "app2": "code",
            "both": 2,
            "deep1": 1,
            "deep2": 2,
            "msgspec": "layer",
            "only1": 1,
            "only2": 2,
            "tool": "2\n",
            "data": "2",
            "cwd": str(source.folder),
        }
    assert first.write("data/what.txt", "1").read_text() == "1"
    assert not list(source.folder.rglob("__pycache__")), "something was written into the user's folder"


async def test_what_a_handler_raises_is_the_answer_and_the_environment_lives_on(source: Source) -> None:
    """An exception gives its type, message and trace; the next invocation is warm."""
    function = source.function(
        """
        def handler(event, context):
            if event:
                raise ValueError(event)
            return "fine"
        """
    )
    async with running(function) as lab:
        outcome = await lab.invoke("boom")
        document = json.loads(outcome.payload)
        assert outcome.error == "Unhandled"
        assert (document["errorType"], document["errorMessage"]) == ("ValueError", "boom")
        assert "raise ValueError(event)" in document["stackTrace"][0]
        assert lab.reports[0].status == "error"
        assert lab.reports[0].error_type == "ValueError"
        assert "[ERROR] ValueError: boom" in lab.said("stdout")
        assert "    raise ValueError(event)" in lab.said("stdout"), "a traceback is lines with blanks"
        warm = await lab.invoke(None)
        assert (warm.payload, warm.init_ms) == (b'"fine"', None)


FAILS_TO_IMPORT = """
with open("imported", "a") as counted:
    counted.write("once\\n")
print("on my way")
import nothing_of_this_name
"""


async def test_a_handler_that_does_not_import_says_so_once_and_answers_so_always(source: Source) -> None:
    """Each invocation answers with ImportModuleError, without a process for each and with one traceback."""
    function = source.function(FAILS_TO_IMPORT)
    words = "Unable to import module 'app': No module named 'nothing_of_this_name'"
    async with running(function) as lab:
        for _ in range(20):
            assert await lab.error() == ("Runtime.ImportModuleError", words)
        assert (source.folder / "imported").read_text().count("once") < 5
        before = len((source.folder / "imported").read_text().split())
        while len((source.folder / "imported").read_text().split()) == before:  # until it is tried again
            assert (await lab.error())[0] == "Runtime.ImportModuleError"
        assert lab.said("stdout").count("on my way") == 1
        assert sum("[ERROR] Runtime.ImportModuleError" in text for text in lab.said()) == 1
        source.write("app.py", "def handler(event, context): return 'mended'")
        await lab.functions.reload("worker")
        assert await lab.result() == "mended"


async def test_a_function_that_comes_up_after_all_is_called(source: Source) -> None:
    """What has failed to start for a reason that goes away works soon after, and what waited with it."""
    function = source.function(
        """
        import os
        if not os.path.exists("ready"):
            raise SystemExit(3)
        print("up now")

        def handler(event, context):
            return "up"
        """
    )
    async with running(function) as lab:
        kind, words = await lab.error(request_id="first")
        assert (kind, words) == (
            "Runtime.ExitError",
            "RequestId: first Error: Runtime exited with error: exit status 3",
        )
        source.write("ready", "")
        async with asyncio.timeout(BOUND_S):
            while (await asyncio.gather(lab.invoke(), lab.invoke()))[0].error:
                await asyncio.sleep(0.01)
        assert await lab.result() == "up"
        assert "up now" in lab.said("stdout")


async def test_a_function_that_hangs_is_ended_with_its_children(source: Source) -> None:
    """A time-out kills the process, what it forked and what left its session, and the next start is cold."""
    function = source.function(
        """
        import os, subprocess, time

        def handler(event, context):
            if event is None:
                return "fine"
            child = subprocess.Popen(["sleep", "600"])
            loner = subprocess.Popen(["sleep", "600"], start_new_session=True)
            print(os.getpid(), child.pid, loner.pid)
            time.sleep(600)
        """,
        timeout_s=3.0,
    )
    async with running(function) as lab:
        kind, words = await lab.error("hang", request_id="slow")
        assert kind == "Sandbox.Timedout"
        assert words == "RequestId: slow Error: Task timed out after 3.00 seconds"
        assert lab.reports[0].status == "timeout"
        assert lab.said("platform")[-1].endswith("\tStatus: timeout")
        pids = [int(pid) for pid in lab.said("stdout")[0].split()]
        assert len(pids) == 3
        await gone(*pids)
        again = await lab.invoke(None)
        assert again.payload == b'"fine"'
        assert again.init_ms is not None


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("sys.exit(1)", "Runtime exited with error: exit status 1"),
        ("os._exit(7)", "Runtime exited with error: exit status 7"),
        ("os._exit(0)", "Runtime exited without providing a reason"),
        ("os.kill(os.getpid(), 9)", "Runtime exited with error: signal: killed"),
        ("os.abort()", "Runtime exited with error: signal: aborted"),
    ],
)
async def test_a_process_that_ends_is_an_exit_error_and_the_next_is_cold(source: Source, how: str, words: str) -> None:
    """An invocation whose process exits or crashes fails with how it did, and what it printed last is in the log."""
    function = source.function(
        f"""
        import os, sys

        def handler(event, context):
            if event:
                print("last words", flush=True)
                {how}
            return "fine"
        """
    )
    async with running(function) as lab:
        outcome = await lab.invoke("end", request_id="it")
        assert json.loads(outcome.payload) == {
            "errorType": "Runtime.ExitError",
            "errorMessage": f"RequestId: it Error: {words}",
        }
        assert b"last words" in outcome.log
        assert "Status: error\tError Type: Runtime.ExitError" in lab.said("platform")[-1]
        assert (await lab.invoke(None)).init_ms is not None
    assert not list(source.folder.glob("core*"))


async def test_a_function_that_prints_100_mb_neither_blocks_nor_fills_memory(source: Source) -> None:
    """All of it is read, little of it is kept, what is left out is told, and the end is in the tail."""
    function = source.function(
        """
        def handler(event, context):
            for number in range(1_000):
                print("x" * 99_999)
                print(number)
            print("the end")
            return "done"
        """,
        timeout_s=60,
    )
    async with running(function) as lab:
        outcome = await lab.invoke()
    assert outcome.payload == b'"done"'
    kept = sum(map(len, lab.said("stdout")))
    assert 1_000_000 < kept < 40_000_000
    left_out = [re.match(r"\[([\d.]+) MB of output are left out", text) for text in lab.said("platform")]
    assert 50 < sum(float(match[1]) for match in left_out if match) < 100
    assert len(outcome.log) == 4_096
    assert b"\nthe end\nEND RequestId: " in outcome.log


async def test_lines_are_cut_and_the_last_needs_no_end(source: Source) -> None:
    """A line has at most 256 KB; what was printed without a newline is a line at the invocation's end."""
    function = source.function(
        r"""
        import sys

        def handler(event, context):
            sys.stdout.write("a" * 300_000 + "\n")
            sys.stdout.write("b\r\n\xff\n")
            sys.stderr.write("no end")
        """
    )
    async with running(function) as lab:
        await lab.invoke(request_id="this")
        long, short, odd = lab.said("stdout")
        assert long == "a" * 262_144 + " [cut here, at 262,144 bytes]"
        assert (short, odd) == ("b", "ÿ")
        assert lab.said("stderr") == ["no end"]
        assert {line.request_id for line in lab.lines} == {"this"}


async def test_the_log_has_lambdas_lines(source: Source) -> None:
    """START, END and REPORT stand around what was printed, with the init duration of a cold start alone."""
    function = source.function("print('up')\ndef handler(event, context): print('hello')")
    async with running(function) as lab:
        cold = (await lab.invoke(request_id="one")).log.decode()
        warm = (await lab.invoke(request_id="two")).log.decode()
        assert lab.lines[0].request_id is None, "what is printed while it comes up belongs to no invocation"
    times = r"Duration: [\d.]+ ms\tBilled Duration: \d+ ms"
    report = rf"REPORT RequestId: (\w+)\t{times}\tMemory Size: 128 MB\tMax Memory Used: \d+ MB"
    start = r"START RequestId: (\w+) Version: \$LATEST\nhello\nEND RequestId: \1\n"
    assert re.fullmatch(start + report + r"\tInit Duration: [\d.]+ ms\n", cold)
    assert re.fullmatch(start + report + r"\n", warm)
    one, two = lab.reports
    assert one.init_ms and two.init_ms is None
    assert one.memory_mb > 5


async def test_a_response_of_more_than_6_mb_is_an_error(source: Source) -> None:
    """The response is not taken, its size is the error, and the next invocation works."""
    function = source.function("def handler(event, context): return 'x' * event", timeout_s=20)
    async with running(function) as lab:
        assert len(await lab.result(6_291_554)) == 6_291_554
        assert await lab.error(6_291_555) == (
            "Function.ResponseSizeTooLarge",
            "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
        )
        assert await lab.result(1) == "x"


async def test_what_is_no_json_is_the_runtimes_error(source: Source) -> None:
    """A Python function that returns what JSON cannot say fails as AWS's runtime has it."""
    function = source.function("def handler(event, context): return {1, 2}")
    async with running(function) as lab:
        kind, words = await lab.error()
    assert kind == "Runtime.MarshalError"
    assert "set is not JSON serializable" in words


async def test_a_function_that_takes_too_much_memory_is_ended(source: Source) -> None:
    """Over its memory size it is killed, and the report says out of memory."""
    function = source.function(
        """
        import time

        def handler(event, context):
            if event:
                kept = []
                while True:
                    kept.append(b"x" * 5_000_000)
                    time.sleep(0.01)
        """,
        timeout_s=60,
    )
    async with running(function) as lab:
        kind, words = await lab.error("hog", request_id="it")
        assert (kind, words) == (
            "Runtime.OutOfMemory",
            "RequestId: it Error: Runtime exited with error: signal: killed",
        )
        assert lab.reports[0].memory_mb == 128
        assert "Error Type: Runtime.OutOfMemory" in lab.said("platform")[-1]
        assert await lab.result(None) is None


async def test_memory_that_forked_processes_share_counts_once(source: Source) -> None:
    """A function of 128 MB may fork four times with 60 MB in memory; one whose children have 60 MB each may not."""
    function = source.function(
        """
        import os, time

        held = b"x" * 60_000_000

        def handler(event, context):
            own = event == "own"
            pids = []
            for _ in range(4):
                pid = os.fork()
                if pid == 0:
                    if own:
                        mine = b"y" * 60_000_000
                    time.sleep(600)
                pids.append(pid)
            time.sleep(600 if own else 0.3)
            for pid in pids:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
            return "shared"
        """,
        timeout_s=30,
    )
    async with running(function, init_s=BOUND_S) as lab:
        assert await lab.result("shared") == "shared"
        assert (await lab.error("own"))[0] == "Runtime.OutOfMemory"


SLOW_TO_COME_UP = """
import os, time
with open("tries", "a") as tries:
    tries.write("x")
print("try", os.path.getsize("tries"))
if os.path.getsize("tries") <= {slow}:
    time.sleep(600)

def handler(event, context):
    return "up"
"""


async def test_what_is_slow_to_come_up_gets_one_more_try_within_the_invocation(source: Source) -> None:
    """After the limit of the init phase the process is started once more, and then the time-out holds."""
    function = source.function(SLOW_TO_COME_UP.format(slow=1), timeout_s=20)
    async with running(function, init_s=5.0) as lab:
        outcome = await lab.invoke()
        assert outcome.payload == b'"up"'
        assert outcome.init_ms is None
        assert lab.said("stdout") == ["try 1", "try 2"]
        assert re.fullmatch(
            r"INIT_REPORT Init Duration: [\d.]+ ms\tPhase: init\tStatus: timeout", lab.said("platform")[0]
        )


async def test_what_never_comes_up_times_out(source: Source) -> None:
    """The second try is part of the invocation, whose time-out ends it."""
    function = source.function(SLOW_TO_COME_UP.format(slow=9), timeout_s=0.5)
    async with running(function, init_s=0.4) as lab:
        assert (await lab.error())[0] == "Sandbox.Timedout"
        kinds = [text.split()[0] for text in lab.said("platform")]
        assert kinds == ["INIT_REPORT", "START", "RequestId:", "END", "REPORT"]


async def test_an_interpreter_that_is_not_here_is_stood_in_for_with_one_warning(source: Source) -> None:
    """A Python version that is not on PATH is run by ours, and that is said once."""
    function = source.function("def handler(event, context): return 'ran'", runtime="python3.99")
    async with running(function) as lab:
        assert await lab.result() == "ran"
        await lab.functions.reload("worker")
        assert await lab.result() == "ran"
        ours = f"{sys.version_info.major}.{sys.version_info.minor}"
        warned = [text for text in lab.said("platform") if "python3.99" in text]
        assert warned == [f"There is no python3.99 on PATH: Python {ours} runs it."]


async def test_an_interpreter_on_path_runs_functions_with_lambdas_packages(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another interpreter gets AWS's runtime and boto3 from us, a client that needs no compiler, and nothing else."""
    bin_folder = Source(tmp_path / "bin")
    base = Path(sys.base_prefix) / "bin" / PYTHON
    bin_folder.write("python3.99", f'#!/bin/sh\nexec {base} "$@"\n').chmod(0o755)
    bin_folder.write("python3.98", "#!/bin/sh\necho it is broken\nexit 1\n").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder.folder}:{os.environ['PATH']}")
    code = """
        import importlib.util, sys

        def handler(event, context):
            if event == "raise":
                raise ValueError("über")
            import boto3
            import runtime_client
            assert importlib.util.find_spec("msgspec") is None
            return [sys.prefix, runtime_client.__file__.endswith(".py"), event, context.client_context.custom]
        """
    other = source.function(code, runtime="python3.99", timeout_s=20)
    broken = Function(
        logical_id="broken", name="broken", runtime="python3.98", handler="app.handler", code=source.folder
    )
    async with running(other, broken) as lab:
        got = await lab.result("ö", client_context='{"custom": "ä"}')
        assert got == [sys.base_prefix, True, "ö", "ä"]
        assert await lab.error("raise") == ("ValueError", "über")
        words = "python3.98 cannot run AWS's runtime (it is broken): Python"
        assert f"{bin_folder.folder}/{words} {PYTHON.removeprefix('python')} runs it." in lab.said("platform")


async def test_a_runtime_that_is_unknown_answers_so_and_hinders_no_other(source: Source) -> None:
    """A Java function answers with what is supported; a function beside it works."""
    java = source.function(name="java", runtime="java21")
    python = source.function("def handler(event, context): return 'ran'")
    async with running(java, python) as lab:
        kind, words = await lab.error(name="java", request_id="it")
        assert kind == "Runtime.Unsupported"
        assert words.startswith("RequestId: it Error: The runtime 'java21' of function java is not supported here")
        assert "python3.x, nodejs18.x" in words
        assert words.partition("Error: ")[2] in lab.said("platform")
        assert await lab.result() == "ran"


async def test_a_folder_that_does_not_exist_is_named(source: Source, tmp_path: Path) -> None:
    """A function or layer whose folder is missing answers with the folder, until it is there."""
    function = source.function("def handler(event, context): return 'ran'", layers=(tmp_path / "layer",))
    nowhere = Function(logical_id="no", name="no", runtime=PYTHON, handler="app.handler", code=tmp_path / "nowhere")
    async with running(function, nowhere) as lab:
        assert str(tmp_path / "layer") in (await lab.error())[1]
        assert str(tmp_path / "nowhere") in (await lab.error(name="no"))[1]
        (tmp_path / "layer").mkdir()
        await lab.functions.reload("worker")
        assert await lab.result() == "ran"


async def test_a_bootstrap_is_run_as_it_is(source: Source) -> None:
    """An executable `bootstrap` speaks the Runtime API itself, in its folder, and its answers are passed on unread."""
    function = source.custom(
        """
        while True:
            id, body = next()
            answer(id, b"no JSON: " + body + os.getcwd().encode() + os.environ["_HANDLER"].encode())
        """
    )
    async with running(function) as lab:
        for number in (b"1", b"2"):
            outcome = await lab.functions.invoke("worker", number)
            assert outcome.error is None
            assert outcome.payload == b"no JSON: " + number + str(source.folder).encode() + b"app.handler"


async def test_a_bootstrap_in_a_layer_serves_any_runtime(source: Source, tmp_path: Path) -> None:
    """A runtime that we do not know is run by a layer's bootstrap, with the wrapper that the function names."""
    layer = Source(tmp_path / "layer")
    layer.custom("while True: answer(next()[0], sys.argv[1])")
    layer.write("wrap", '#!/bin/sh\nexec "$1" wrapped\n').chmod(0o755)
    wrapper = {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrap"}
    function = source.function(runtime="ruby3.3", layers=(layer.folder,), environment=wrapper)
    async with running(function) as lab:
        assert (await lab.invoke()).payload == b"wrapped"


@pytest.mark.parametrize(
    ("bootstrap", "mode", "words"),
    [
        (None, 0, r"Couldn't find valid bootstrap\(s\): \[.*/code/bootstrap .*/bootstrap\]"),
        ("#!/bin/sh\n", 0o644, r".*/code/bootstrap is not executable: `chmod \+x` it"),
        ("no program", 0o755, r"fork/exec .*/code/bootstrap: Exec format error"),
    ],
)
async def test_a_bootstrap_that_cannot_be_started_is_named(
    source: Source, bootstrap: str | None, mode: int, words: str
) -> None:
    """A missing, forbidden or unreadable bootstrap is an invalid entry point."""
    if bootstrap is not None:
        source.write("bootstrap", bootstrap).chmod(mode)
    async with running(source.function(runtime="provided.al2023")) as lab:
        for _ in range(2):
            kind, said = await lab.error(request_id="it")
            assert kind == "Runtime.InvalidEntrypoint"
            assert re.fullmatch("RequestId: it Error: " + words, said)


async def test_an_invocation_runs_to_its_end_without_its_caller(source: Source) -> None:
    """A caller that goes away ends neither the function nor the environment."""
    function = source.function(
        """
        import os, time

        def handler(event, context):
            open("begun", "w").close()
            while event and not os.path.exists("go"):
                time.sleep(0.01)
            return os.getpid()
        """,
        timeout_s=20,
    )
    async with running(function) as lab:
        caller = asyncio.create_task(lab.invoke("wait"))
        await until((source.folder / "begun").exists, "the function's begin")
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        source.write("go", "")
        await until(lambda: len(lab.reports) == 1, "the function's end")
        assert lab.reports[0].status == "success"
        assert (await lab.invoke(None)).init_ms is None


PARENT = """
import asyncio, sys
from pathlib import Path
from hubbub.emulator.definition import Function
from hubbub.emulator.functions import Functions

async def main():
    code = Path(sys.argv[1])
    function = Function(logical_id="f", name="f", runtime=sys.argv[2], handler="app.handler", code=code, timeout_s=600)
    async with Functions([function], on_log=lambda line: print(line.text, flush=True)) as functions:
        print(functions.mark, functions.folder, flush=True)
        await functions.invoke("f", b"{}")

asyncio.run(main())
"""


async def test_a_parent_that_is_killed_leaves_nothing(source: Source) -> None:
    """After SIGKILL no process of a function is left, not even one that left its session, and no folder."""
    source.function(
        """
        import subprocess, time

        def handler(event, context):
            subprocess.Popen(["sleep", "600"])
            subprocess.Popen(["sleep", "600"], start_new_session=True)
            print("ready", flush=True)
            time.sleep(600)
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", PARENT, source.folder, PYTHON], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent, parent.stdout:
        try:
            mark, folder = parent.stdout.readline().split()
            while parent.stdout.readline().strip() != "ready":
                pass
            await until(lambda: len(marked(mark)) == 3, "the function's processes")
            pids = marked(mark)
        finally:
            parent.send_signal(signal.SIGKILL)
    await gone(*pids)
    await until(lambda: not Path(folder).exists(), "the end of the folder")
    assert marked(mark) == []
