"""A stack that runs: its resources, functions and APIs, put together, watched and taken down again.

The order matters: ports first, since names and addresses in the template depend on them; then what the template says;
then everything that takes its time, side by side; the APIs last, so that who connects finds all of it there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from hubbub.emulator.apis import Wiring
from hubbub.emulator.definition import ApiDefinition, Function, RouteDefinition, Stack, Surroundings
from hubbub.emulator.dependencies import Dependencies
from hubbub.emulator.functions import Functions, LogLine, Outcome, Report
from hubbub.emulator.functions.invocations import Invocations
from hubbub.emulator.functions.invoke_api import invoke_api
from hubbub.emulator.listener import DualServers
from hubbub.emulator.proxy import Proxy
from hubbub.emulator.resources import Backends
from hubbub.emulator.services import ServiceClient
from hubbub.emulator.sources import Sources
from hubbub.emulator.template import TemplateError, find_template, load
from hubbub.emulator.trust import Authority
from hubbub.gateway import Account, Gateway, Hub, profile
from hubbub.gateway.integrations import Services
from hubbub.gateway.integrations.build import Integrations
from hubbub.listening import CannotStart, bind, close_all, http_only, reachable
from hubbub.sigv4 import Credentials, Keys

logger = logging.getLogger("hubbub.emulator")

CREDENTIALS = Credentials("test", "test")
"""What functions are given to sign with: of no use anywhere else."""

DRAIN_S = 0.0
"""How long connections are spread over when a stack ends: nobody's clients reconnect to a laptop all at once."""


class RunningApi:
    """A WebSocket API of a running stack.

    Attributes:
        definition: what the template says of it.
        host: `host:port`, where it is.
        urls: where clients connect, one for each stage and custom domain.

    """

    def __init__(self, definition: ApiDefinition, host: str, gateway: Gateway) -> None:
        self.definition = definition
        self.host = host
        self.gateway = gateway

    def __repr__(self) -> str:
        return f"<RunningApi {self.definition.name} at {self.host}>"

    @property
    def urls(self) -> list[str]:
        """Where clients connect; `wss://` works at the same port for who trusts the stack's authority."""
        own = [f"ws://{self.host}/{stage.name}" for stage in self.definition.stages]
        port = self.host.rpartition(":")[2]
        return own + [f"ws://{mapping.host}:{port}/{mapping.path}".rstrip("/") for mapping in self.definition.domains]

    @property
    def url(self) -> str:
        """The first of them."""
        return self.urls[0]

    @property
    def callback_url(self) -> str:
        """Where the management API of the first stage is, as boto3 wants it for `endpoint_url`."""
        return f"http://{self.host}/{self.definition.stages[0].name}"


class RunningStack:
    """A stack on this machine: `async with RunningStack("template.yaml") as stack: …`.

    Args:
        path: the template, or the folder that it is in.
        parameters: values of the template's parameters by name; for serverless.yml its options (`stage`) as well.
        environment: more variables for every function, whose own win.
        host, port: where the first API is; further ones get the ports after it. Port 0 for free ones.
        quotas: as `hubbub.gateway.profile` takes it.
        endpoints: URLs of AWS services that run already, by name; `*` for all others.
        region: of everything.
        name: the stack's; by default the name of the folder that the template is in.
        watch: whether changes of sources and template are followed.
        on_log, on_report: told what functions print, and of each invocation; must not block.
        say: told what goes on.

    Attributes:
        stack: what the template says.
        apis: the WebSocket APIs in the template's order.
        functions: the functions, to be invoked by name.

    Raises:
        hubbub.emulator.template.TemplateError: there is no template.
        ValueError: the quotas are none.

    Raises, on entering:
        hubbub.emulator.template.TemplateError: the template cannot be read.
        CannotStart: there is no template, a port is taken, or something that the stack needs does not run.
        hubbub.emulator.resources.CannotCreate: a resource cannot be made.
        ValueError: a route's definition makes no sense.

    """

    stack: Stack
    functions: Functions

    def __init__(
        self,
        path: str | Path = ".",
        *,
        parameters: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        quotas: str = "none",
        endpoints: Mapping[str, str] | None = None,
        region: str | None = None,
        name: str | None = None,
        watch: bool = False,
        on_log: Callable[[LogLine], None] | None = None,
        on_report: Callable[[Report], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.path = find_template(Path(path)).resolve()
        self.apis: list[RunningApi] = []
        self._parameters = dict(parameters or {})
        self._given = dict(environment or {})
        self._host = host
        self._port = port
        self._limits = profile(quotas)
        self._backends = Backends(endpoints, region=_region(region))
        self._region = _region(region)
        self._name = name or self.path.parent.name or "local"
        self._watch = watch
        self._on_log = on_log or _log
        self._on_report = on_report
        self._say = say or logger.info
        self._exit = AsyncExitStack()
        self._sources = AsyncExitStack()
        self._work: Path
        self._hosts: list[str] = []
        self._services: ServiceClient
        self._invocations: Invocations
        self._wiring: Wiring
        self._dependencies = Dependencies(self.path.parent, say=self._say)
        self._environment: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<RunningStack {self.path}>"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exit.aclose()

    @property
    def url(self) -> str:
        """Where clients of the first API connect."""
        return self.apis[0].url

    @property
    def endpoints(self) -> dict[str, str]:
        """Where AWS's APIs are emulated: `lambda`, and `aws` for all others."""
        return {"lambda": self._environment["AWS_ENDPOINT_URL_LAMBDA"], "aws": self._environment["AWS_ENDPOINT_URL"]}

    @property
    def environment(self) -> dict[str, str]:
        """Variables for a program beside the stack: how SDKs reach its services, and `HUBBUB_URL` of each API."""
        urls = {f"HUBBUB_URL_{api.definition.logical_id}": api.url for api in self.apis}
        first = {"HUBBUB_URL": self.url, "HUBBUB_CALLBACK_URL": self.apis[0].callback_url} if self.apis else {}
        own = {key: value for key, value in self._environment.items() if key.startswith("AWS_")}
        return {**own, **first, **urls}

    def target_of(self, route: RouteDefinition) -> str:
        """What a route calls, in a few words."""
        if route.integration is None:
            return "nothing"
        name = route.integration.uri.removesuffix("/invocations").rpartition(":")[2] or route.integration.type
        kind = route.integration.type
        return name if kind in ("AWS_PROXY", name) else f"{kind} {name}"

    async def invoke(self, name: str, payload: Any = None) -> Outcome:  # Any: JSON
        """Invoke a function by its name or logical id, and wait for its end."""
        named = {function.logical_id: function.name for function in self.stack.functions}
        return await self.functions.invoke(named.get(name, name), msgspec.json.encode(payload))

    async def failed(self) -> None:
        """Wait until something ends that should not, and raise what became of it."""
        await self._backends.failed()

    # Starting

    async def _start(self, stack: AsyncExitStack) -> None:
        self._work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hubbub-")))
        sockets = [bind(self._host, self._port)]
        stack.callback(lambda: close_all([each for some in sockets for each in some]))
        await stack.enter_async_context(self._backends)
        self.stack = await self._load(sockets)
        addresses = list(zip(self.stack.apis, self._hosts, strict=True))
        domains = [mapping.host for api in self.stack.apis for mapping in api.domains]
        authority = stack.enter_context(Authority([reachable(self._host).strip("[]"), *domains]))
        servers = DualServers(authority.server_context)
        stack.push_async_callback(servers.end)
        lambdas = bind("127.0.0.1", 0)
        sockets.append(lambdas)
        proxy = await stack.enter_async_context(
            Proxy(
                {api.id: _address(host) for api, host in addresses},
                hosts={mapping.host: _address(host) for api, host in addresses for mapping in api.domains},
            )
        )
        self._environment = {
            **self._given,
            **self._backends.environment(),
            **authority.environment(),
            **proxy.environment(),
            "AWS_ENDPOINT_URL_LAMBDA": f"http://127.0.0.1:{lambdas[0].getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": CREDENTIALS.access_key,
            "AWS_SECRET_ACCESS_KEY": CREDENTIALS.secret_key,
            "AWS_REGION": self._region,
            "AWS_DEFAULT_REGION": self._region,
        }
        if self._hosts:
            self._environment["HUBBUB_EXECUTE_API"] = ",".join(f"{api.id}={host}" for api, host in addresses)
            self._environment["AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"] = (
                f"https://{self._hosts[0]}/{self.stack.apis[0].stages[0].name}"
            )
        self._services = await stack.enter_async_context(
            ServiceClient(self._backends.endpoints, region=self._region, credentials=CREDENTIALS)
        )
        self.functions = await stack.enter_async_context(
            Functions(
                [],
                environment=self._environment,
                region=self._region,
                on_log=self._on_log,
                on_report=self._on_report,
            )
        )
        self._invocations = await stack.enter_async_context(Invocations(self.functions, self._services))
        integrations = await stack.enter_async_context(
            Integrations(
                Services(
                    invoke=self._invocations.invoke,
                    endpoints={**self._backends.endpoints, "lambda": self._environment["AWS_ENDPOINT_URL_LAMBDA"]},
                    access_key=CREDENTIALS.access_key,
                    secret_key=CREDENTIALS.secret_key,
                )
            )
        )
        self._wiring = Wiring(invoke=self._invocations.invoke, integrations=integrations, region=self._region)
        async with asyncio.TaskGroup() as starting:
            starting.create_task(self._create_resources())
            starting.create_task(self._take_functions(()))
        app = invoke_api(self._invocations, sources=self.stack.sources, region=self._region)
        await servers.listen(http_only(app), lambdas)
        await self._start_apis(stack, servers, sockets)
        stack.push_async_callback(self._end_sources)
        await self._start_sources()
        if self._watch:
            watching = asyncio.get_running_loop().create_task(self._follow(), name="hubbub watch")
            stack.push_async_callback(_cancel, watching)

    async def _load(self, sockets: list[list[socket.socket]]) -> Stack:
        """Read the template, and bind as many ports as it has APIs."""
        while True:
            self._hosts = [f"{reachable(self._host)}:{each[0].getsockname()[1]}" for each in sockets]
            stack = await asyncio.to_thread(self._read)
            if stack.surroundings.region != self._region:  # serverless.yml says where it is
                self._region = stack.surroundings.region
                self._backends.move(self._region)
            elif len(stack.apis) <= len(sockets):
                self._hosts = self._hosts[: len(stack.apis)]
                return stack
            while len(sockets) < len(stack.apis):
                sockets.append(bind(self._host, self._port + len(sockets) if self._port else 0))

    def _read(self) -> Stack:
        surroundings = Surroundings(
            stack_name=self._name,
            region=self._region,
            api_hosts=tuple(self._hosts),
            sqs_url=self._backends.endpoint("sqs"),
        )
        return load(
            self.path,
            surroundings=surroundings,
            work=self._work,
            parameters=self._parameters,
            options=self._parameters,
            environment={**os.environ, **self._given},
        )

    async def _create_resources(self) -> None:
        for created in await self._backends.create(self.stack.resources):
            for remark in created.remarks:
                self._say(f"{created.logical_id}: {remark}")

    async def _take_functions(self, before: Sequence[Function]) -> None:
        """Let the stack's functions be those that run."""
        known = {function.name: function for function in before}
        for function in await self._dependencies.add(self.stack.functions):
            if known.pop(function.name, None) != function:
                await self.functions.replace(function)
        for name in known:
            await self.functions.remove(name)
        self._running = self.stack.functions

    async def _start_apis(
        self, stack: AsyncExitStack, servers: DualServers, sockets: list[list[socket.socket]]
    ) -> None:
        account = Account(self._limits)
        keys = Keys({CREDENTIALS.access_key: CREDENTIALS.secret_key}, accept_unknown=True)
        for definition, host, bound in zip(self.stack.apis, self._hosts, sockets, strict=False):
            gateway = Gateway(
                self._wiring.sites(definition, host=host),
                hub=Hub(),
                limits=self._limits,
                allowed_origins=["*"],
                keys=keys,
                account=account,
            )
            await servers.listen(gateway.config(_nothing_here, timeout_graceful_shutdown=1), bound)
            stack.push_async_callback(gateway.drain, DRAIN_S)
            self.apis.append(RunningApi(definition, host, gateway))

    async def _start_sources(self) -> None:
        sources = Sources(self.stack.sources, self._invocations, self._services, region=self._region)
        await self._sources.enter_async_context(sources)

    async def _end_sources(self) -> None:
        await self._sources.aclose()

    # Following changes

    async def _follow(self) -> None:
        """Look for changes for as long as the stack runs."""
        from watchfiles import awatch

        while True:
            folders = self._watched()
            async for changes in awatch(*folders, recursive=True):
                paths = [Path(path) for _, path in changes]
                if any(path in self._template_files() for path in paths):
                    await self._reload()
                    break  # there may be other folders to look at
                await self._code_changed(paths)

    def _template_files(self) -> set[Path]:
        return {self.path, *[path.resolve() for path in self.stack.watched]}

    def _watched(self) -> list[Path]:
        folders = {function.code.resolve() for function in self.stack.functions}
        folders |= {layer.resolve() for function in self.stack.functions for layer in function.layers}
        return [path for path in {*folders, *self._template_files()} if path.exists()]

    async def _code_changed(self, paths: Sequence[Path]) -> None:
        for function in self.stack.functions:
            folders = [folder.resolve() for folder in (function.code, *function.layers)]
            changed = next((path for path in paths if any(path.is_relative_to(folder) for folder in folders)), None)
            if changed is not None:
                self._say(f"{changed.name} has changed: {function.name} starts anew")
                await self.functions.reload(function.name)

    async def _reload(self) -> None:
        """Take the template as it is now, as far as that goes without a new start."""
        try:
            stack = await asyncio.to_thread(self._read)
            if [api.id for api in stack.apis] != [api.id for api in self.stack.apis]:
                self._say(f"{self.path.name} has changed: it has other APIs now, which needs a new start")
                return
            before = self.stack.functions
            self.stack = stack
            await self._create_resources()
            await self._take_functions(before)
            for running, definition in zip(self.apis, stack.apis, strict=True):
                running.gateway.sites = self._wiring.sites(definition, host=running.host)
                running.definition = definition
            await self._sources.aclose()
            await self._start_sources()
        except (TemplateError, CannotStart, ValueError, LookupError) as error:
            self._say(f"{self.path.name} has changed, and stays without effect: {error}")
        else:
            self._say(f"{self.path.name} has changed: the stack is as it says now")


def _region(given: str | None) -> str:
    return given or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def _address(host: str) -> tuple[str, int]:
    name, _, port = host.rpartition(":")
    return name.strip("[]"), int(port)


def _log(line: LogLine) -> None:
    logger.info("%s: %s", line.function, line.text)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _nothing_here(scope: Any, receive: Any, send: Any) -> None:  # Any: ASGI's
    """What HTTP gets at a path where there is no WebSocket: API Gateway's word for it."""
    body = b'{"message":"Forbidden"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def run(path: str | Path = ".", **options: Any) -> RunningStack:  # Any: as RunningStack takes them
    """A stack for the length of a block; the options are those of `RunningStack`."""
    return RunningStack(path, **options)
