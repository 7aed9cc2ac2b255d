"""Functions written on the spot and run in real processes, and what they said; nothing of them may be left over."""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from hubbub.emulator.definition import Function
from hubbub.emulator.functions import Functions, LogLine, Outcome, Report
from hubbub.emulator.functions.bootstrap.warden import MARK
from live import until

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
"""The runtime whose interpreter runs the tests."""

BOOTSTRAP = f"""#!{sys.executable} -IS
import http.client, json, os, sys, time
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
def call(method, path, body=None, headers={{}}):
    api.request(method, "/2018-06-01/runtime" + path, body, headers)
    response = api.getresponse()
    return response.status, response.headers, response.read()
def next():
    status, headers, body = call("GET", "/invocation/next")
    return headers["Lambda-Runtime-Aws-Request-Id"], body
def answer(id, body, **headers):
    return call("POST", f"/invocation/{{id}}/response", body, headers)
"""
"""The beginning of a custom runtime, with the calls that it needs."""


class Source:
    """The folder that a function's code is in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    def write(self, name: str, text: str) -> Path:
        """Put a file there."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def function(
        self,
        code: str = "",
        *,
        name: str = "worker",
        handler: str = "app.handler",
        runtime: str = PYTHON,
        **fields: Any,
    ) -> Function:
        """A function of this folder; `code` becomes its app.py."""
        if code:
            self.write("app.py", code)
        return Function(logical_id=name, name=name, runtime=runtime, handler=handler, code=self.folder, **fields)

    def custom(self, code: str, **fields: Any) -> Function:
        """A function with a runtime of its own: `code` follows `BOOTSTRAP`."""
        self.write("bootstrap", BOOTSTRAP + textwrap.dedent(code)).chmod(0o755)
        return self.function(runtime="provided.al2023", **fields)


class Lab:
    """Running functions.

    Attributes:
        functions: what runs them.
        lines, reports: all that was logged and reported, in order.

    """

    def __init__(self) -> None:
        self.functions: Functions
        self.lines: list[LogLine] = []
        self.reports: list[Report] = []

    async def invoke(self, event: Any = None, *, name: str = "worker", **options: Any) -> Outcome:
        """Invoke a function with an event that becomes JSON."""
        return await self.functions.invoke(name, json.dumps(event).encode(), **options)

    async def result(self, event: Any = None, **options: Any) -> Any:
        """What a function that does not fail returns."""
        outcome = await self.invoke(event, **options)
        assert outcome.error is None, outcome
        return json.loads(outcome.payload)

    async def error(self, event: Any = None, **options: Any) -> tuple[str, str]:
        """The type and message that a function fails with."""
        outcome = await self.invoke(event, **options)
        assert outcome.error == "Unhandled", outcome
        document = json.loads(outcome.payload)
        return document["errorType"], document["errorMessage"]

    def said(self, *streams: str) -> list[str]:
        """What was logged on streams, or on all."""
        return [line.text for line in self.lines if not streams or line.stream in streams]


@asynccontextmanager
async def running(*functions: Function, **options: Any) -> AsyncIterator[Lab]:
    """Functions that run, that never surprise the event loop, and of which nothing is left afterwards."""
    lab = Lab()
    surprises: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: surprises.append(context))
    async with Functions(functions, on_log=lab.lines.append, on_report=lab.reports.append, **options) as lab.functions:
        yield lab
    assert lab.functions.folder is not None
    assert not lab.functions.folder.exists()
    assert marked(lab.functions.mark) == []
    assert surprises == []


def marked(mark: str) -> list[int]:
    """The processes whose mark begins so."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK, "").startswith(mark):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


async def gone(*pids: int) -> None:
    """Wait until processes have ended."""
    await until(lambda: not any(map(is_running, pids)), f"the end of processes {pids}")


def is_running(pid: int) -> bool:
    """Whether a process runs, and is not merely waited for."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


class Others:
    """The servers that other tests keep running under this process, and what these start meanwhile.

    A browser that is kept for the session starts processes of its own accord: who is not new, and what descends from
    them, is not looked at.
    """

    def __init__(self) -> None:
        self._before = set(psutil.Process().children())

    def besides(self) -> list[psutil.Process]:
        """What descends from this process besides them, and has not ended."""
        begun = set(psutil.Process().children()) - self._before
        return [each for child in begun for each in family(child) if is_running(each.pid)]


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process, and what descends from it."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
