"""What tests around Lambda need: functions that do as told, moto, boto3, Lambda's API, and time that passes."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from botocore.config import Config

from botolab import session
from doubles import FakeClock
from hubbub.emulator.definition import ACCOUNT, EventSource, Function
from hubbub.emulator.functions import Outcome, UnknownFunction
from hubbub.emulator.functions.invocations import Invocations
from hubbub.emulator.functions.invoke_api import invoke_api
from hubbub.emulator.resources.backends import MOTO
from live import BOUND_S

Json = dict[str, Any]
REGION = "us-east-1"


class HandClock(FakeClock):
    """A clock that stands still until `advance`, with the time of day in seconds."""

    def now(self) -> float:
        """The time of day, epoch seconds."""
        return self.now_ms() / 1_000

    @property
    def sleepers(self) -> int:
        """How many wait for time to pass."""
        return len(self._sleepers)


Behaviour = Callable[[Any], Awaitable[Any]]
"""What a function does: given its event, it returns, or raises what it fails with."""


class FakeFunctions:
    """A `Runner` whose functions are coroutines of the test.

    Attributes:
        calls: name, event and request id of each invocation, in order.

    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, str]] = []
        self._functions: dict[str, tuple[Function, Behaviour]] = {}

    def add(self, name: str, behaviour: Behaviour, **settings: Any) -> Function:
        """A function of a name."""
        function = Function(
            logical_id=name, name=name, runtime="python3.11", handler="app.handler", code=Path(), **settings
        )
        self._functions[name] = function, behaviour
        return function

    def remove(self, name: str) -> None:
        """Take a function away."""
        del self._functions[name]

    def names(self) -> tuple[str, ...]:
        return tuple(self._functions)

    def get(self, name_or_arn: str) -> Function:
        return self._found(name_or_arn)[0]

    def arn(self, name_or_arn: str) -> str:
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{self.get(name_or_arn).name}"

    def _found(self, name_or_arn: str) -> tuple[Function, Behaviour]:
        name = name_or_arn.rpartition("function:")[2].partition(":")[0]
        if name not in self._functions:
            raise UnknownFunction(f"no {name_or_arn}")
        return self._functions[name]

    async def invoke(
        self,
        name_or_arn: str,
        payload: bytes,
        *,
        client_context: str | None = None,
        request_id: str | None = None,
        trace_id: str | None = None,
    ) -> Outcome:
        function, behaviour = self._found(name_or_arn)
        request_id = request_id or str(uuid.uuid4())
        event = json.loads(payload)
        self.calls.append((function.name, event, request_id))
        try:
            answer = await behaviour(event)
        except FunctionError as error:
            failure = {"errorMessage": str(error), "errorType": "FunctionError"}
            return Outcome(request_id=request_id, payload=json.dumps(failure).encode(), error="Unhandled")
        return Outcome(request_id=request_id, payload=json.dumps(answer).encode())

    def events(self, name: str) -> list[Any]:
        """The events that a function got."""
        return [event for called, event, _ in self.calls if called == name]


class FunctionError(Exception):
    """What a function fails with."""


async def answers(event: Any) -> Any:
    """Returns its event."""
    return event


async def fails(event: Any) -> Any:
    """Raises."""
    raise FunctionError("it broke")


def fails_first(times: int) -> Behaviour:
    """Raises at first, some times, and returns from then on; counted by event."""
    tries: Counter[str] = Counter()

    async def behave(event: Any) -> Any:
        tries[json.dumps(event)] += 1
        if tries[json.dumps(event)] <= times:
            raise FunctionError("not yet")
        return event

    return behave


@contextmanager
def moto_server() -> Iterator[str]:
    """Moto's server, as a process of its own; its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        descriptor = listener.fileno()
        process = subprocess.Popen(
            [sys.executable, "-P", str(MOTO), str(descriptor)],
            pass_fds=(descriptor,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port = listener.getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(BOUND_S)


def endpoints(url: str) -> dict[str, str]:
    """One address for all services."""
    return dict.fromkeys(("sqs", "sns", "dynamodb", "events"), url)


def client(service: str, url: str, **config: Any) -> Any:
    """A boto3 client that does not try again."""
    settings = Config(**{"retries": {"max_attempts": 0}, "read_timeout": BOUND_S, **config})
    return session("test", "test", region=REGION).client(service, endpoint_url=url, config=settings)


class Aws:
    """The services of one moto, by boto3, with names that no other test has.

    Attributes:
        url: where they are.

    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._clients: dict[str, Any] = {}

    def __getattr__(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = client(service, self.url)
        return self._clients[service]

    def close(self) -> None:
        """End all clients."""
        for each in self._clients.values():
            each.close()

    def queue(self, suffix: str = "", **attributes: str) -> tuple[str, str]:
        """A new queue: its URL and its ARN."""
        url = self.sqs.create_queue(QueueName=f"q-{uuid.uuid4()}{suffix}", Attributes=attributes)["QueueUrl"]
        answer = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return url, answer["Attributes"]["QueueArn"]

    def size(self, url: str) -> tuple[int, int]:
        """How many messages of a queue wait, and how many are out."""
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        found = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(names))["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    async def hang_on(self) -> None:
        """Give others the time of a good many round trips, for what they would do wrongly."""
        for _ in range(50):
            await asyncio.to_thread(self.sqs.list_queues, QueueNamePrefix="none")

    async def message(self, url: str) -> Json:
        """The next message of a queue."""
        receive = partial(
            self.sqs.receive_message,
            QueueUrl=url,
            WaitTimeSeconds=10,
            MessageAttributeNames=["All"],
            AttributeNames=["All"],
        )
        found: list[Json] = (await asyncio.to_thread(receive)).get("Messages", [])
        assert found, "no message came"
        return found[0]


@asynccontextmanager
async def lambda_api(
    invocations: Invocations, *sources: EventSource, **settings: Any
) -> AsyncIterator[tuple[str, Any]]:
    """Lambda's API on a port: its address, and a function that calls a boto3 client's method in a thread."""
    app = invoke_api(invocations, sources=sources, **settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(BOUND_S):
            while not server.started:
                await asyncio.sleep(0.001)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        boto = client("lambda", url)
        try:
            yield url, lambda method, **parameters: asyncio.to_thread(getattr(boto, method), **parameters)
        finally:
            boto.close()
    finally:
        server.should_exit = True
        await asyncio.wait({serving}, timeout=BOUND_S)
