"""A stack that runs: its resources, functions and APIs, put together, watched and taken down again.

The order matters: ports first, since names and addresses in the template depend on them; then what the template says;
then everything that takes its time, side by side; the APIs last, so that who connects finds all of it there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from hubbub.emulator.apis import RunningApi, Wiring
from hubbub.emulator.definition import (
    ApiDefinition,
    Function,
    HttpApiDefinition,
    Resource,
    RouteDefinition,
    Stack,
    Surroundings,
)
from hubbub.emulator.dependencies import PACKAGE_FILES, Dependencies
from hubbub.emulator.following import Follower, Places
from hubbub.emulator.functions import Functions, LogLine, Outcome, Report
from hubbub.emulator.functions.invocations import Invocations
from hubbub.emulator.functions.invoke_api import invoke_api
from hubbub.emulator.functions.processes import Warden
from hubbub.emulator.http import HttpApp, RunningHttpApi
from hubbub.emulator.proxy import Proxy
from hubbub.emulator.resources import Backends, CannotCreate
from hubbub.emulator.service_names import ServiceNames
from hubbub.emulator.services import ServiceClient
from hubbub.emulator.sources import Sources
from hubbub.emulator.template import TemplateError, find_template, load
from hubbub.emulator.trust import Authority
from hubbub.entropy import random_bytes
from hubbub.gateway import Account, Gateway, Hub, profile
from hubbub.gateway.integrations import Services
from hubbub.gateway.integrations.build import Integrations
from hubbub.listening import CannotStart, bind, close_all, http_only, reachable
from hubbub.listening.listener import TlsServers
from hubbub.sigv4 import Credentials, Keys

logger = logging.getLogger("hubbub.emulator")

CREDENTIALS = Credentials("test", "test")
"""What functions are given to sign with: of no use anywhere else."""

MANAGEMENT = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"
"""The variable by which SDKs find `@connections`: it has room for one API."""

FINISH_WITHIN_S = 3.0
"""How long functions under way are waited for when a stack ends, and after them each `$disconnect`."""


class RunningStack:
    """A stack on this machine: `async with RunningStack("template.yaml") as stack: …`.

    Args:
        path: the template, or the folder that it is in.
        parameters: values of the template's parameters by name; for serverless.yml its options (`stage`) as well.
        environment: more variables for every function, whose own win.
        host, port: where the first API is; further ones get the ports after it, HTTP APIs the last ones. Port 0 for
            free ones.
        quotas: as `hubbub.gateway.profile` takes it.
        endpoints: URLs of AWS services that run already, by name; `*` for all others.
        region: of everything.
        name: the stack's; by default the name of the folder that the template is in.
        watch: whether changes of sources and template are followed.
        on_log, on_report: told what functions print, and of each invocation; must not block.
        say: told what goes on.

    Attributes:
        stack: what the template says.
        apis, http_apis: the WebSocket APIs and the HTTP APIs, in the template's order.
        functions: the functions, to be invoked by name.
        labels: what to call functions where the stack is known, by their names: these without the stack's in front.

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
        self.http_apis: list[RunningHttpApi] = []
        self.labels: dict[str, str] = {}
        self._parameters = dict(parameters or {})
        self._given = dict(environment or {})
        self._host = host
        self._port = port
        self._limits = profile(quotas)
        self._account = Account(self._limits)
        self._backends = Backends(endpoints, region=_region(region))
        self._region = _region(region)
        self._options = self._parameters if region is None else {"region": region, **self._parameters}
        self._name = name or self.path.parent.name or "local"
        self._watch = watch
        self._on_log = on_log or _log
        self._on_report = on_report
        self._say = say or logger.info
        self._exit = AsyncExitStack()
        self._sources = AsyncExitStack()
        self._work: Path
        self._hosts: list[str] = []  # of the WebSocket APIs
        self._http_hosts: list[str] = []  # of the HTTP APIs
        self._services: ServiceClient
        self._invocations: Invocations
        self._wiring: Wiring
        self._dependencies: Dependencies
        self._environment: dict[str, str] = {}
        self._running: dict[str, Function] = {}  # functions by name, with all layers
        self._told: set[tuple[str, str]] = set()  # what was said of which resources
        self._is_behind = False  # whether the template is none that could be taken
        self._follower: Follower | None = None  # None while nothing is followed

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
        """Where clients of the first API connect.

        Raises:
            LookupError: there is no API, or nobody can connect to it.

        """
        return self._first_api.url

    @property
    def _first_api(self) -> RunningApi:
        if not self.apis:
            raise LookupError(f"there is no WebSocket API in {self.path}")
        return self.apis[0]

    @property
    def _all_apis(self) -> list[RunningApi | RunningHttpApi]:
        return [*self.apis, *self.http_apis]

    @property
    def endpoints(self) -> dict[str, str]:
        """Where AWS's APIs are emulated: `lambda`, and `aws` for all others."""
        return {"lambda": self._environment["AWS_ENDPOINT_URL_LAMBDA"], "aws": self._environment["AWS_ENDPOINT_URL"]}

    @property
    def environment(self) -> dict[str, str]:
        """Variables for a program beside the stack: how SDKs reach its services, and `HUBBUB_URL` of each API."""
        found = {key: value for key, value in self._environment.items() if key.startswith("AWS_")}
        reachable = [api for api in self.apis if api.urls]
        if reachable:
            found |= {"HUBBUB_URL": reachable[0].url, "HUBBUB_CALLBACK_URL": reachable[0].callback_url}
        for api in self._all_apis:
            if api.urls:
                found[f"HUBBUB_URL_{re.sub(r'[^A-Za-z0-9]', '_', api.definition.logical_id)}"] = api.urls[0]
        return found

    def here(self, address: str) -> str | None:
        """Where an address of one of the APIs on AWS leads to on this machine; None for any other text."""
        return next((found for api in self._all_apis if (found := api.here(address)) is not None), None)

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
        loop = asyncio.get_running_loop()
        waits = [loop.create_task(self._backends.failed())]
        if self._follower is not None:
            waits.append(loop.create_task(self._follower.failed()))
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for each in waits:
                each.cancel()
            await asyncio.wait(waits)

    # Starting

    async def _start(self, stack: AsyncExitStack) -> None:
        folder = Path(tempfile.mkdtemp(prefix="hubbub-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        warden = Warden(f"{random_bytes(8).hex()}.", folder)  # removes it if we are killed
        stack.push_async_callback(warden.stop)
        await warden.start()
        self._work = folder / "work"
        self._work.mkdir()
        sockets = [bind(self._host, self._port)]
        stack.callback(lambda: close_all([each for some in sockets for each in some]))
        await stack.enter_async_context(self._backends)
        self.stack = await self._load(sockets)
        apis: list[ApiDefinition | HttpApiDefinition] = [*self.stack.apis, *self.stack.http_apis]
        addresses = list(zip(apis, [*self._hosts, *self._http_hosts], strict=True))
        domains = [mapping.host for api in apis for mapping in api.domains]
        authority = stack.enter_context(Authority([reachable(self._host).strip("[]"), *domains], within=folder))
        servers = TlsServers(lambda: authority.server_context)
        stack.push_async_callback(servers.end)
        lambdas = bind("127.0.0.1", 0)
        sockets.append(lambdas)
        proxy = await stack.enter_async_context(
            Proxy(
                {api.id: _address(host) for api, host in addresses},
                hosts={mapping.host: _address(host) for api, host in addresses for mapping in api.domains},
            )
        )
        lambda_url = f"http://127.0.0.1:{lambdas[0].getsockname()[1]}"
        names = await stack.enter_async_context(
            ServiceNames(
                authority.service_context,
                lambda service: lambda_url if service == "lambda" else self._backends.endpoint(service),
            )
        )
        self._environment = {
            **self._given,
            **self._backends.environment(),
            **authority.environment(),
            **proxy.environment(),
            "AWS_ENDPOINT_URL_LAMBDA": lambda_url,
            "_HUBBUB_AWS": names.address,
            "AWS_ACCESS_KEY_ID": CREDENTIALS.access_key,
            "AWS_SECRET_ACCESS_KEY": CREDENTIALS.secret_key,
            "AWS_REGION": self._region,
            "AWS_DEFAULT_REGION": self._region,
        }
        if addresses:
            self._environment["_HUBBUB_EXECUTE_API"] = ",".join(f"{api.id}={host}" for api, host in addresses)
        if self._hosts:
            self._environment[MANAGEMENT] = self._callbacks(self.stack.apis[0], self._hosts[0])
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
        self._dependencies = Dependencies(self.path.parent, interpreter=self.functions.interpreter, say=self._say)
        stack.push_async_callback(self._dependencies.close)
        self._invocations = await stack.enter_async_context(Invocations(self.functions, self._services))
        integrations = await stack.enter_async_context(
            Integrations(
                Services(
                    invoke=self._invocations.invoke,
                    endpoints={**self._backends.endpoints, "lambda": lambda_url},
                    access_key=CREDENTIALS.access_key,
                    secret_key=CREDENTIALS.secret_key,
                )
            )
        )
        self._wiring = Wiring(invoke=self._invocations.invoke, integrations=integrations, region=self._region)
        try:
            async with asyncio.TaskGroup() as starting:
                starting.create_task(self._create_resources(self.stack.resources))
                starting.create_task(self._take_functions(self.stack))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        app = invoke_api(self._invocations, sources=self.stack.sources, region=self._region)
        await servers.listen(http_only(app), lambdas)
        await self._start_apis(stack, servers, sockets)
        await self._start_http_apis(servers, sockets[len(self.apis) :])
        stack.push_async_callback(self._end_sources)
        await self._sources.enter_async_context(self._new_sources(self.stack))
        if self._watch:
            self._follower = await stack.enter_async_context(Follower(self._places, self._changed))

    async def _load(self, sockets: list[list[socket.socket]]) -> Stack:
        """Read the template, and bind as many ports as it has APIs; those of HTTP APIs are the last."""
        split = 1  # how many of the ports are for WebSocket APIs; the template says
        while True:
            hosts = [f"{reachable(self._host)}:{each[0].getsockname()[1]}" for each in sockets]
            self._hosts, self._http_hosts = hosts[:split], hosts[split:]
            stack = await asyncio.to_thread(self._read)
            needed = len(stack.apis), len(stack.http_apis)
            if stack.surroundings.region != self._region:  # serverless.yml says where it is
                self._region = stack.surroundings.region
                self._backends.move(self._region)
            elif needed == (len(self._hosts), len(self._http_hosts)) or needed == (0, 0):
                self._hosts = self._hosts[: needed[0]]
                return stack
            split = needed[0]
            while len(sockets) < sum(needed):
                sockets.append(bind(self._host, self._port + len(sockets) if self._port else 0))

    def _read(self) -> Stack:
        surroundings = Surroundings(
            stack_name=self._name,
            region=self._region,
            api_hosts=tuple(self._hosts),
            http_hosts=tuple(self._http_hosts),
            sqs_url=self._backends.endpoint("sqs"),
        )
        return load(
            self.path,
            surroundings=surroundings,
            work=self._work,
            parameters=self._parameters,
            options=self._options,
            environment={**os.environ, **self._given},
        )

    async def _create_resources(self, resources: Sequence[Resource]) -> None:
        """Make what is not there, and say once what of it is not as on AWS."""
        remarks: dict[str, list[str]] = {}
        for created in await self._backends.create(resources):
            for remark in created.remarks:
                if (created.logical_id, remark) not in self._told:
                    self._told.add((created.logical_id, remark))
                    remarks.setdefault(remark, []).append(created.logical_id)
        for remark, names in remarks.items():
            self._say(f"{listed(names)}: {remark}")

    async def _take_functions(self, stack: Stack) -> None:
        """Let a stack's functions be those that run."""
        before = self._running
        functions = [self._with_callbacks(function, stack) for function in stack.functions]
        self._running = {function.name: function for function in await self._dependencies.add(functions)}
        self.labels = _labels(stack)
        for name, function in self._running.items():
            if before.get(name) != function:
                await self.functions.replace(function)
        for name in before.keys() - self._running.keys():
            await self.functions.remove(name)

    async def _start_apis(self, stack: AsyncExitStack, servers: TlsServers, sockets: list[list[socket.socket]]) -> None:
        keys = Keys({CREDENTIALS.access_key: CREDENTIALS.secret_key}, accept_unknown=True)
        for definition, host, bound in zip(self.stack.apis, self._hosts, sockets, strict=False):
            gateway = Gateway(
                self._wiring.sites(definition, host=host),
                hub=Hub(),
                limits=self._limits,
                allowed_origins=["*"],
                keys=keys,
                account=self._account,
            )
            await servers.listen(gateway.config(_nothing_here, timeout_graceful_shutdown=1), bound)
            stack.push_async_callback(gateway.drain, 0.0, finish_within_s=FINISH_WITHIN_S)
            self.apis.append(RunningApi(definition, host, gateway))

    async def _start_http_apis(self, servers: TlsServers, sockets: list[list[socket.socket]]) -> None:
        loop = asyncio.get_running_loop()
        for definition, host, bound in zip(self.stack.http_apis, self._http_hosts, sockets, strict=False):
            app = HttpApp(
                definition,
                host=host,
                invoke=self._invocations.invoke,
                may_ask=lambda: self._account.may_ask(loop.time()),
            )
            running = RunningHttpApi(app)
            await servers.listen(running.config, bound)
            self.http_apis.append(running)

    def _callbacks(self, api: ApiDefinition, host: str) -> str:
        """Where the management API of an API's first stage is."""
        return f"https://{host}{''.join(f'/{stage.name}' for stage in api.stages[:1])}"

    def _with_callbacks(self, function: Function, stack: Stack) -> Function:
        """A function, told where the management API is of the WebSocket API that it is about, where there are several.

        That is the one whose id its own variables have, else the first of those whose routes call it.
        """
        if len(stack.apis) < 2 or MANAGEMENT in function.environment:
            return function
        named = [api for api in stack.apis if any(api.id in value for value in function.environment.values())]
        calling = [api for api in stack.apis if any(_calls(route, function) for route in api.routes)]
        for api in [*named, *calling][:1]:
            own = {MANAGEMENT: self._callbacks(api, self._hosts[stack.apis.index(api)])}
            return msgspec.structs.replace(function, environment={**function.environment, **own})
        return function

    def _new_sources(self, stack: Stack) -> Sources:
        return Sources(stack.sources, self._invocations, self._services, region=self._region)

    async def _end_sources(self) -> None:
        await self._sources.aclose()

    # Following changes

    def _places(self) -> Places:
        folders = {folder.resolve() for each in self.stack.functions for folder in (each.code, *each.layers)}
        return Places(frozenset(folders), frozenset(self._template_files()))

    def _template_files(self) -> set[Path]:
        return {self.path, *(path.resolve() for path in self.stack.watched)}

    async def _changed(self, paths: set[Path]) -> None:
        """Files have changed: the template first, then the code of what it defines now."""
        template = self._template_files()
        if not paths.isdisjoint(template):
            await self._reload()
        if code := paths - template:
            await self._code_changed(code)

    async def _code_changed(self, paths: set[Path]) -> None:
        """Start functions anew whose code, or layer, has changed."""
        seen: set[Path] = set()
        stale = []
        for function in self.stack.functions:
            folders = [folder.resolve() for folder in (function.code, *function.layers)]
            own = {path for path in paths if any(path.is_relative_to(folder) for folder in folders)}
            seen |= own
            stale += [function] if own else []
        if not stale:
            return
        if any(path.name in PACKAGE_FILES for path in seen):
            await self._take_functions(self.stack)
        for function in stale:
            await self.functions.reload(function.name)
        files = listed(sorted({path.name for path in seen}))
        self._say(f"{files} changed: {listed(self.labels[function.name] for function in stale)} start anew")

    async def _reload(self) -> None:
        """Take the template as it is now, as far as that goes without a new start."""
        before = self.stack
        try:
            stack = await asyncio.to_thread(self._read)
            if _fixed(stack) != _fixed(before):
                raise CannotStart(
                    "its APIs, their stages or domains, or its region are others, and that needs a new start"
                )
            sites = [
                self._wiring.sites(api, host=running.host) for running, api in zip(self.apis, stack.apis, strict=True)
            ]
            sources = self._new_sources(stack)
            await self._create_resources(stack.resources)
        except (TemplateError, CannotStart, CannotCreate, ValueError, LookupError) as error:
            self._say(f"{self.path.name} changed, and that stays without effect: {error}")
            self._is_behind = True
            return
        if stack == before and not self._is_behind:
            return
        self._is_behind = False
        self.stack = stack
        await self._take_functions(stack)
        for running, definition, new in zip(self.apis, stack.apis, sites, strict=True):
            running.gateway.redeploy(new)
            running.definition = definition
        for http, http_definition in zip(self.http_apis, stack.http_apis, strict=True):
            http.app.deploy(http_definition)
        await self._end_sources()
        await self._sources.enter_async_context(sources)
        for each in stack.unsupported:
            if each not in before.unsupported:
                self._say(f"not here: {each.logical_id} ({each.type}): {each.meaning}")
        self._say(f"{self.path.name} changed: the stack is as it says now")


def _fixed(stack: Stack) -> tuple[object, ...]:
    """What of a stack cannot change while it runs: ports, variables and certificates were made for it."""
    apis: list[ApiDefinition | HttpApiDefinition] = [*stack.apis, *stack.http_apis]
    return stack.surroundings, [
        (api.id, [stage.name for stage in api.stages[:1]], {mapping.host for mapping in api.domains}) for api in apis
    ]


def _calls(route: RouteDefinition, function: Function) -> bool:
    uri = "" if route.integration is None else route.integration.uri
    return uri.removesuffix("/invocations").rpartition(":")[2] == function.name


def _labels(stack: Stack) -> dict[str, str]:
    prefix = f"{stack.surroundings.stack_name}-"
    short = {function.name: function.name.removeprefix(prefix) or function.name for function in stack.functions}
    times = Counter(short.values())
    return {name: label if times[label] == 1 else name for name, label in short.items()}


def listed(names: Iterable[str]) -> str:
    """Names in a row, not too many of them."""
    first, *others = names
    return ", ".join([first, *others]) if len(others) < 5 else f"{first} and {len(others)} others"


def _region(given: str | None) -> str:
    return given or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def _address(host: str) -> tuple[str, int]:
    name, _, port = host.rpartition(":")
    return name.strip("[]"), int(port)


def _log(line: LogLine) -> None:
    logger.info("%s: %s", line.function, line.text)


async def _nothing_here(scope: Any, receive: Any, send: Any) -> None:  # Any: ASGI's
    """What HTTP gets at a path where there is no WebSocket: API Gateway's word for it."""
    body = b'{"message":"Forbidden"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def run(path: str | Path = ".", **options: Any) -> RunningStack:  # Any: as RunningStack takes them
    """A stack for the length of a block; the options are those of `RunningStack`."""
    return RunningStack(path, **options)
