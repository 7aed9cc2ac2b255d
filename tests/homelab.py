"""The homes that a chat runs in, as tests see them: where it is, how one comes in, what it does once a minute.

`Laptop` is `hubbub serve`; `ClusterHome` is three of these behind nginx, with PostgreSQL and NATS; `Stack` is what
deploy/ deploys, its built archive under `hubbub local` with AWS's quotas. All are processes of their own that can be
started anew on the data that they have.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from scripts.cluster import Cluster
from scripts.servers import free_port
from websockets.exceptions import InvalidStatus

from botolab import session
from dynamolab import REGION, running
from hubbub import auth
from live import BOUND_S, SECRET, Wire

ROOT = Path(__file__).resolve().parents[1]

STARTS_WITHIN_S = 120.0
ENDS_WITHIN_S = 30.0
"""How long a home may take to start, and to end."""

Json = dict[str, Any]


class Program:
    """A process that says something once it runs.

    Args:
        folder: where its output goes.

    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def said(self) -> str:
        """Standard error of all starts."""
        return (self.folder / "stderr").read_text(errors="replace")

    def start(self, command: Sequence[str], environment: Mapping[str, str], pattern: str) -> str:
        """Start it; returns what in its standard output fits a pattern, once it does."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "HUBBUB_"))}
        with (self.folder / "stdout").open("wb") as stdout, (self.folder / "stderr").open("ab") as stderr:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=self.folder,
                env={**kept, **environment},
                start_new_session=True,
            )
        try:
            return self._said_so(command, pattern)
        except BaseException:
            self.stop(signal.SIGKILL)  # else a later test would be told of a process that still runs
            raise

    def _said_so(self, command: Sequence[str], pattern: str) -> str:
        assert self._process is not None, "not started"
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not (found := re.search(pattern, (self.folder / "stdout").read_text(errors="replace"), re.MULTILINE)):
            assert self._process.poll() is None, f"{command} ended:\n{self.said[-5_000:]}"
            assert time.monotonic() < deadline, f"{command} did not start:\n{self.said[-5_000:]}"
            time.sleep(0.05)
        return found[0]

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it, by force if it does not end."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise


class Home(abc.ABC):
    """A running chat.

    Attributes:
        name: which home it is.
        ws_url: where clients connect.
        http_url: where `/v1` is.
        secret: what tokens are signed with.
        explains_refusals: whether a refused handshake says why in its body: API Gateway sends its own.
        has_close_codes: whether connections are closed with the codes of the protocol: API Gateway closes with 1000,
            and what a client goes by is the notice `closing` before that.
        throttle_words: what API Gateway says to who asks too often; None where there is none.

    """

    name: str
    ws_url: str
    http_url: str
    secret: str
    explains_refusals: bool
    has_close_codes: bool
    throttle_words: str | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @abc.abstractmethod
    def start(self, **limits: str) -> None:
        """Start it; with limits of connections, such as `lifetime_s="4"`. It is where it was before, if it was."""

    @abc.abstractmethod
    def stop(self) -> None:
        """End it as an operator would: connections are told, what is under way is finished."""

    async def restart(self, **limits: str) -> None:
        """End it and start it anew on the same data."""
        await asyncio.to_thread(self.stop)
        await asyncio.to_thread(lambda: self.start(**limits))

    @abc.abstractmethod
    async def minute(self) -> None:
        """Have done what this home does once a minute."""

    def token(
        self, user: str, *, ttl_s: float = 3_600, later_s: int = 0, scopes: Sequence[str] = (), **claims: Any
    ) -> str:
        """A token of a user, issued now or in some seconds."""
        now_s = int(time.time()) + later_s
        return auth.issue(self.secret, user=user, ttl_s=int(ttl_s), now_s=now_s, scope=" ".join(scopes), **claims)

    async def connect(self, user: str, bearer: str | None = None, **claims: Any) -> Wire:
        """A connection of a user."""
        return await Wire.open(self.ws_url, bearer or self.token(user, **claims), open_timeout=BOUND_S)

    def backend(self) -> httpx.AsyncClient:
        """The customer's backend, as a client of `/v1`."""
        headers = {"Authorization": f"Bearer {self.token('backend', scopes=('server',))}"}
        return httpx.AsyncClient(base_url=self.http_url, headers=headers, timeout=BOUND_S, trust_env=False)

    def is_too_often(self, frame: Json) -> bool:
        """Whether a frame says that one has asked too often, in the words of the protocol or in API Gateway's.

        A stack's own limit is that of the stage, in which API Gateway does not say which message it means; those of the
        chat hold for each of the processes that answer.
        """
        told = {"type": "error", "code": "rate_limited", "retry": True}.items() <= frame.items()
        return (told and frame["retry_after_ms"] > 0) or frame.get("message") == self.throttle_words

    def why_refused(self, refused: InvalidStatus, code: str) -> str:
        """Why a handshake was refused, as far as this home tells; else the code that was to be expected."""
        body = json.loads(refused.response.body or b"null")
        if self.explains_refusals:
            return str(body["code"])
        assert isinstance(body["message"], str)
        return code

    async def closed(self, wire: Wire, within_s: float = BOUND_S) -> int:
        """The close code that a client goes by, once the connection has ended; what came before is in its frames."""
        code = await wire.closed(within_s)
        if self.has_close_codes or code != 1000:
            return code
        told = [frame["close"] for frame in wire.frames if frame["type"] == "notice" and frame["code"] == "closing"]
        return int(told[-1]) if told else code


LEEWAY_S = "3"
"""For how long after its end a token is good: tests wait for that."""


class Laptop(Home):
    """`hubbub serve`, with SQLite in a folder."""

    explains_refusals = True
    has_close_codes = True

    def __init__(self, folder: Path) -> None:
        self.name = "laptop"
        self.secret = SECRET
        self._program = Program(folder)
        self._port = str(free_port())

    def start(self, **limits: str) -> None:
        variables = {f"HUBBUB_{name.upper()}": value for name, value in limits.items()}
        data = self._program.folder / "data"
        data.mkdir(exist_ok=True)
        self.http_url = self._program.start(
            (sys.executable, "-m", "hubbub", "serve", "--port", self._port, "--drain-s", "1"),
            {
                "HUBBUB_SECRET": self.secret,
                "HUBBUB_DATA": str(data),
                "HUBBUB_LEEWAY_S": LEEWAY_S,
                "PYTHONUNBUFFERED": "1",
                **variables,
            },
            r"http://127\.0\.0\.1:\d+",
        )
        self.ws_url = f"ws{self.http_url.removeprefix('http')}/ws"

    def stop(self) -> None:
        self._program.stop()

    async def minute(self) -> None:
        """It does so by itself, and more often."""


class ClusterHome(Home):
    """Three nodes behind nginx, on PostgreSQL and three NATS servers: connections land on one node after another.

    PostgreSQL and NATS outlive its nodes, which are what is started and ended.

    Attributes:
        cluster: its parts.

    """

    explains_refusals = True
    has_close_codes = True

    def __init__(self, cluster: Cluster) -> None:
        self.name = "cluster"
        self.secret = cluster.secret
        self.ws_url = cluster.ws_url
        self.http_url = cluster.url
        self.cluster = cluster
        self._settings = [dict(node.settings) for node in cluster.nodes]

    def start(self, **limits: str) -> None:
        for node, settings in zip(self.cluster.nodes, self._settings, strict=True):
            node.settings = {**settings, **limits}
        self.cluster.start()

    def stop(self) -> None:
        for node in self.cluster.nodes:
            node.end()
        for each in (*self.cluster.nodes, self.cluster.balancer):
            each.stop()

    async def minute(self) -> None:
        """It does so by itself, and more often."""


def free_pair() -> int:
    """A port that is free, and the next one too: from where no connection gets one by itself."""
    for port in random.sample(range(20_000, 32_000), 100):
        with contextlib.suppress(OSError), contextlib.ExitStack() as bound:
            for each in (port, port + 1):
                bound.enter_context(socket.create_server(("127.0.0.1", each)))
            return port
    raise OSError("there are no two free ports between 20000 and 32000")


SHOW = "import json, os, signal; print(json.dumps(dict(os.environ)), flush=True); signal.pause()"
"""What runs beside a stack: it says where all is, and stays."""


class Stack(Home):
    """What deploy/ deploys, under `hubbub local --quotas aws`, on services that outlive it.

    Args:
        name: of the home, and what its stack is called.
        template: the template, its archive where it says.
        folder: for its output.
        endpoints: where AWS's services are, as `hubbub local` takes them.
        parameters: of the template.

    """

    explains_refusals = False
    has_close_codes = False
    throttle_words = "Too Many Requests"

    def __init__(
        self,
        name: str,
        template: Path,
        folder: Path,
        *,
        endpoints: Mapping[str, str],
        parameters: Mapping[str, str],
    ) -> None:
        self.name = name
        self._template = template
        self._program = Program(folder)
        self._endpoints = endpoints
        self._parameters = parameters
        self._port = str(free_pair())
        self.environment: dict[str, str] = {}  # what a program beside the stack has

    @property
    def pid(self) -> int:
        """Its process."""
        return self._program.pid

    @property
    def said(self) -> str:
        """What `hubbub local` has shown since the first start, the log of all functions in it."""
        return self._program.said

    def start(self, **limits: str) -> None:
        quotas = ",".join(["aws", *(f"{name}={value}" for name, value in limits.items())])
        command = [sys.executable, "-m", "hubbub", "local", str(self._template), "--once"]
        command += ["--name", self.name, "--port", self._port, "--quotas", quotas]
        for name, value in self._endpoints.items():
            command += ["--endpoint", f"{name}={value}"]
        for name, value in self._parameters.items():
            command += ["--parameter", f"{name}={value}"]
        shown = self._program.start([*command, "--", sys.executable, "-c", SHOW], {"DYNAMODB_LOCAL": ""}, r"^\{.*\}$")
        self.environment = json.loads(shown)
        self.ws_url = self.environment["HUBBUB_URL"]
        self.http_url = self.environment["HUBBUB_URL_HttpApi"]
        self.secret = self._secret()

    def stop(self) -> None:
        self._program.stop()

    def aws(self, service: str) -> Any:
        """A boto3 client of a service of the stack's."""
        own = f"AWS_ENDPOINT_URL_{service.upper()}"
        return session("test", "test", region=REGION).client(
            service, endpoint_url=self.environment.get(own, self.environment["AWS_ENDPOINT_URL"])
        )

    def function(self, suffix: str) -> str:
        """The name of the function whose name ends so."""
        with contextlib.closing(self.aws("lambda")) as client:
            names = [each["FunctionName"] for each in client.list_functions()["Functions"]]
        (found,) = [name for name in names if name.endswith(suffix)]
        return str(found)

    async def minute(self) -> None:
        """Invoke the sweeper, as its schedule does; what it has not done it does the next time."""
        await asyncio.to_thread(self._sweep)

    def _sweep(self) -> None:
        name = self.function("-sweeper")
        with contextlib.closing(self.aws("lambda")) as client:
            answers = (client.invoke(FunctionName=name, Payload=b"{}") for _ in range(3))
            failed = [answer["Payload"].read() for answer in itertools.takewhile(_has_failed, answers)]
        assert len(failed) < 3, failed

    def _secret(self) -> str:
        """The secret that the stack has made: what a customer copies from Secrets Manager to his backend."""
        with contextlib.closing(self.aws("secretsmanager")) as client:
            (made,) = client.list_secrets()["SecretList"]
            return str(client.get_secret_value(SecretId=made["ARN"])["SecretString"])


def _has_failed(answer: Json) -> bool:
    return "FunctionError" in answer


def staged(folder: Path) -> Path:
    """A copy of deploy/ in a folder, with an archive for this machine built beside it, as `make package-aws` does."""
    deploy = folder / "deploy"
    shutil.copytree(ROOT / "deploy", deploy)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [sys.executable, str(ROOT / "scripts" / "package_aws.py"), "--python-version", version]
    command += ["--architecture", "x86_64", "--only", "--output", str(folder / "build" / "aws")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=STARTS_WITHIN_S)
    assert done.returncode == 0, done.stderr
    return deploy


@contextlib.contextmanager
def laptop(folder: Path) -> Iterator[Home]:
    """A laptop, started."""
    home = Laptop(folder)
    home.start()
    try:
        yield home
    finally:
        home.stop()


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[ClusterHome]:
    """A cluster, started."""
    with Cluster(folder=folder, secret=SECRET, settings={"drain_s": "1", "leeway_s": LEEWAY_S}) as running:
        yield ClusterHome(running)


@contextlib.contextmanager
def stack(
    name: str,
    template: Path,
    folder: Path,
    *,
    tables: str,
    endpoints: Mapping[str, str] | None = None,
    **parameters: str,
) -> Iterator[Stack]:
    """A stack, started, whose tables are on moto or on DynamoDB Local, and all else on moto but for given endpoints."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    with contextlib.ExitStack() as services:
        where = {"*": services.enter_context(running("moto")).url}
        if tables != "moto":
            where["dynamodb"] = services.enter_context(running(tables)).url
        throttle = {"ThrottleRate": "200", "ThrottleBurst": "300"}  # low, so that a test gets there
        given = {"PythonVersion": version, "Architecture": "x86_64", **throttle, **parameters}
        home = Stack(name, template, folder, endpoints={**where, **(endpoints or {})}, parameters=given)
        home.start()
        try:
            yield home
        finally:
            home.stop()


MINUTES_S = 4 * BOUND_S
"""How long it can take what needs several of a home's minutes: until a dead one's lease is over, and what follows."""


async def in_minutes(home: Home, condition: Callable[[], bool], what: str) -> None:
    """Return once `condition` holds; what the home does once a minute is done again and again meanwhile.

    So what was under way when a home ended is taken up, if nothing else comes that would.
    """
    deadline = time.monotonic() + MINUTES_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {MINUTES_S} s"
        await home.minute()
        await asyncio.sleep(0.2)


def fresh(word: str) -> str:
    """A name that nothing in a home has yet."""
    return f"{word}-{uuid.uuid4().hex[:8]}"


async def entry(wire: Wire, room: str, seq: int, *, within_s: float = BOUND_S) -> Json:
    """The entry of a room at a seq, of those that came or will, live; each within so many seconds of the one before."""
    while True:
        for frame in wire.frames:
            if frame.get("room") == room and frame.get("seq") == seq and "id" in frame:
                return frame
        wire.frames.append(await wire.receive(within_s))


def heard(wire: Wire, room: str) -> list[Json]:
    """The entries of a room that came live so far, in the order in which they did."""
    return [frame for frame in wire.frames if frame.get("room") == room and "id" in frame and "seq" in frame]


async def signal_of(wire: Wire, kind: str, **fields: Any) -> Json:
    """The first signal of a type with these fields, of those that came or will; it is taken away."""
    while True:
        for frame in wire.frames:
            if frame["type"] == kind and fields.items() <= frame.items():
                wire.frames.remove(frame)
                return frame
        wire.frames.append(await wire.receive())
