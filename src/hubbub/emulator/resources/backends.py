"""The services that a stack's resources live in: moto as a child, DynamoDB Local, or what the user has named."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import botocore.session  # type: ignore[import-untyped]  # botocore has no types
import msgspec
from botocore.config import Config  # type: ignore[import-untyped]  # likewise
from botocore.exceptions import UnknownServiceError  # type: ignore[import-untyped]  # likewise

from hubbub.emulator.children import Child
from hubbub.emulator.definition import ACCOUNT, Resource
from hubbub.emulator.resources import dynamodb_local
from hubbub.emulator.resources.creating import KINDS, Created, create_all
from hubbub.emulator.resources.kinds import Place, Service
from hubbub.listening import CannotStart

ALL = "*"
"""The key in `endpoints` of the services that have no endpoint of their own."""

MOTO = Path(__file__).with_name("moto_process.py")

THREADS = 8
"""How many calls are under way at a time while resources are made."""

LASTING = "items do not expire: moto keeps TimeToLiveSpecification and does not act on it"

NOT_RUN = "executions begin and no state of them is run: moto only keeps them"

_FIRST = asyncio.FIRST_COMPLETED

_ALIASES = {
    "eventbridge": "events",
    "sfn": "stepfunctions",
    "states": "stepfunctions",
    "streams.dynamodb": "dynamodbstreams",
}
"""What services are called in ARNs and elsewhere, and what botocore calls them."""

_NO_FILES = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
"""botocore's session variables without the user's profile and files: nothing here is for a real account."""

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Backends:
    """Where a stack's tables, queues, topics and the like are: `async with Backends() as backends: …`.

    Entering starts processes and does not wait for them: moto's port is known at once, and calls wait until it answers.

    Args:
        endpoints: URLs of services that run already, by botocore's name (`dynamodb`) or that in ARNs; `*` for all
            others.
        region, account: of everything.
        access_key, secret_key: what calls are signed with. LocalStack takes an access key of twelve digits for the
            account.
        dynamodb: the folder of DynamoDB Local; by default `dynamodb_local.find()`, and moto where there is none.

    Raises, on entering:
        CannotStart: DynamoDB Local is named and cannot be run.

    """

    def __init__(
        self,
        endpoints: Mapping[str, str] | None = None,
        *,
        region: str = "us-east-1",
        account: str = ACCOUNT,
        access_key: str = "test",
        secret_key: str = "test",  # noqa: S107  an emulator's
        dynamodb: Path | None = None,
    ) -> None:
        self.place = Place(region, account)
        self._endpoints = {_service_name(name): url.rstrip("/") for name, url in (endpoints or {}).items()}
        self._named = frozenset(self._endpoints)
        self._keys = {"aws_access_key_id": access_key, "aws_secret_access_key": secret_key}
        self._dynamodb = dynamodb
        self._children: list[tuple[Child, str]] = []  # with where they are
        self._moto: str | None = None  # where moto is; None where it is not needed
        self._services: dict[str, Service] = {}
        self._making = threading.Lock()  # botocore's sessions are for one thread at a time
        self._session: Any = None  # botocore's; made when the first client is
        self._stack = AsyncExitStack()
        self._executor: ThreadPoolExecutor | None = None

    def __repr__(self) -> str:
        return f"<Backends {self._endpoints}>"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        executor = ThreadPoolExecutor(THREADS, thread_name_prefix="hubbub resources")
        stack.callback(executor.shutdown, wait=False, cancel_futures=True)
        self._executor = executor
        if ALL not in self._endpoints:
            self._endpoints[ALL] = self._moto = await self._start_moto(stack)
        if "dynamodb" not in self._endpoints and ALL not in self._named:
            folder = self._dynamodb or dynamodb_local.find()
            if folder is not None:
                self._endpoints["dynamodb"] = await self._start_dynamodb_local(folder, stack)

    async def _start_moto(self, stack: AsyncExitStack) -> str:
        """Start moto on a socket that listens already."""
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            descriptor = listener.fileno()
            await self._run("moto", url, [sys.executable, "-P", str(MOTO), str(descriptor)], stack, descriptor)
        return url

    async def _start_dynamodb_local(self, folder: Path, stack: AsyncExitStack) -> str:
        """Start DynamoDB Local on a port that was free a moment ago: it takes no socket, and tells no port."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        await self._run("DynamoDB Local", url, dynamodb_local.command(folder, port), stack)
        return url

    async def _run(self, name: str, url: str, command: Sequence[str], stack: AsyncExitStack, *passed: int) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MOTO_"))}
        environment = {**kept, "MOTO_ACCOUNT_ID": self.place.account, **dynamodb_local.ENVIRONMENT}
        child = await Child.start(name, command, environment=environment, pass_fds=passed)
        stack.push_async_callback(child.stop)
        self._children.append((child, url))

    def move(self, region: str) -> None:
        """Let everything be in another region; before anything is made."""
        self.place = Place(region, self.place.account)

    @property
    def endpoints(self) -> dict[str, str]:
        """The URLs of services by their names in ARNs, as far as they differ from `*`, which is for all others."""
        return {_arn_name(name): url for name, url in self._endpoints.items()}

    def endpoint(self, service: str) -> str:
        """The URL of a service, by botocore's name or that in ARNs."""
        name = _service_name(service)
        if name == "dynamodbstreams" and name not in self._endpoints:
            name = "dynamodb"  # both run each other's
        return self._endpoints.get(name, self._endpoints[ALL])

    def environment(self) -> dict[str, str]:
        """Where SDKs in functions find the services: `AWS_ENDPOINT_URL`, and one more for each that is elsewhere."""
        urls = {"AWS_ENDPOINT_URL": self._endpoints[ALL]}
        names = {*self._endpoints, "dynamodbstreams"} - {ALL}
        for name in sorted(names):
            if self.endpoint(name) != urls["AWS_ENDPOINT_URL"]:
                urls[f"AWS_ENDPOINT_URL_{self._word(name)}"] = self.endpoint(name)
        return urls

    def _word(self, name: str) -> str:
        """A service in variables: its service id (SDKs and tools reference, "Service-specific endpoints")."""
        with self._making:
            try:
                identity: str = self._botocore().get_service_model(name).service_id.hyphenize()
            except UnknownServiceError:
                identity = name  # nobody's SDK asks for it, or only one that we do not know
        return identity.replace("-", "_").upper()

    async def ready(self, within_s: float = 30.0) -> None:
        """Return once the processes answer.

        Raises:
            CannotStart: one has ended, or does not answer in time; its last words are in the message.

        """
        for child, url in self._children:
            await _answers(child, url, within_s)

    async def create(self, resources: Sequence[Resource]) -> tuple[Created, ...]:
        """Make resources; those that are there already are left as they are.

        Returns what is there now, in the order of `resources`, with what does not do here what it does on AWS.

        Raises:
            CannotStart: a service's process does not run.
            CannotCreate: some could not be made; it names them by logical id.

        """
        if self._executor is None:
            raise RuntimeError("Backends: enter it first")
        warming = asyncio.create_task(self._warm(resources, self._executor))
        try:
            await self.ready()
        finally:
            await warming
        created = await create_all(resources, self._service, place=self.place, executor=self._executor)
        remarks = {each.logical_id: self._remarks(each) for each in resources}
        return tuple(
            msgspec.structs.replace(each, remarks=(*each.remarks, *remarks[each.logical_id])) for each in created
        )

    def _remarks(self, resource: Resource) -> list[str]:
        """What moto does not do, of what lives there."""
        if self.endpoint(KINDS[resource.type].service) != self._moto:
            return []
        if resource.type == "AWS::StepFunctions::StateMachine":
            return [NOT_RUN]
        return [LASTING] if "TimeToLiveSpecification" in resource.properties else []

    async def failed(self) -> None:
        """Wait for a process to end that should not, and raise.

        Raises:
            CannotStart: it has; its last words are in the message.

        """
        loop = asyncio.get_running_loop()
        ends: list[asyncio.Future[int]] = [loop.create_task(child.ended()) for child, _ in self._children]
        never: asyncio.Future[int] = loop.create_future()  # where all services are the user's
        try:
            await asyncio.wait([*ends, never], return_when=_FIRST)
            raise next(_ended(child) for child, _ in self._children if not child.is_running)
        finally:
            for end in (*ends, never):
                end.cancel()
            await asyncio.wait([*ends, never])

    async def _warm(self, resources: Sequence[Resource], executor: Executor) -> None:
        """Make the clients that will be needed, which takes as long as moto's start does."""
        services = {KINDS[each.type].service for each in resources if each.type in KINDS}
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(executor, self._service, name) for name in services))

    def _service(self, name: str) -> Service:
        with self._making:
            if name not in self._services:
                self._services[name] = Service(self._client(name), self.place)
            return self._services[name]

    def _client(self, name: str) -> Any:  # Any: botocore makes its clients' classes as it runs
        url = self.endpoint(name)
        is_near = urlsplit(url).hostname in _LOOPBACK
        return self._botocore().create_client(
            name,
            region_name=self.place.region,
            endpoint_url=url,
            config=Config(
                connect_timeout=5,
                read_timeout=30,
                retries={"total_max_attempts": 2, "mode": "standard"},
                proxies={} if is_near else None,  # None: the user's own
                s3={"addressing_style": "path"},
            ),
            **self._keys,
        )

    def _botocore(self) -> Any:  # Any: botocore has no types
        if self._session is None:
            self._session = botocore.session.Session(session_vars=_NO_FILES)
        return self._session


def _arn_name(name: str) -> str:
    return next((alias for alias, known in _ALIASES.items() if known == name), name)


def _service_name(name: str) -> str:
    lower = name.lower()
    return _ALIASES.get(lower, lower)


async def _answers(child: Child, url: str, within_s: float) -> None:
    """Return once there is an answer over HTTP, whatever it says."""
    asking = asyncio.ensure_future(_ask(url))
    ending = asyncio.ensure_future(child.ended())
    try:
        done, _ = await asyncio.wait({asking, ending}, timeout=within_s, return_when=_FIRST)
    finally:
        asking.cancel()
        ending.cancel()
        await asyncio.wait({asking, ending})
    if ending in done:
        raise _ended(child)
    if not done:
        raise CannotStart(f"{child.name} does not answer within {within_s:g} s{_words(child)}")


async def _ask(url: str) -> None:
    address = urlsplit(url)
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            try:
                writer.write(b"GET /moto-api/ HTTP/1.0\r\nHost: localhost\r\n\r\n")
                if await reader.read(1):
                    return
            finally:
                writer.transport.abort()
        await asyncio.sleep(0.05)


def _ended(child: Child) -> CannotStart:
    return CannotStart(f"{child.name} has ended{_words(child)}")


def _words(child: Child) -> str:
    return f"; its last words:\n{child.last_words}" if child.last_words else ", and said nothing"
