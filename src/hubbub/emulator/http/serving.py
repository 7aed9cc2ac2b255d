"""An HTTP API on its port: requests in, a function invoked for each, its response out.

Source: developer guide, "API Gateway HTTP APIs"; quotas of 10 MB for a request, 6 MB for what Lambda is given and
returns, and 30 s for an integration; the words of refusals as they were seen on AWS.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from hubbub.apigateway import new_id, request_time
from hubbub.emulator.definition import ACCOUNT, HttpApiDefinition, StageDefinition
from hubbub.emulator.functions import Throttled, UnknownFunction
from hubbub.emulator.http.payloads import HttpRequest, HttpResponse, NoResponse, Place, event, response, said
from hubbub.emulator.http.routing import DEFAULT, Found, Routes
from hubbub.gateway.integrations import Invoke
from hubbub.listening import http_only

logger = logging.getLogger("hubbub.emulator")

MAX_REQUEST_BYTES: Final = 10 * 1024 * 1024
"""How long a request's body may be."""

MAX_PAYLOAD_BYTES: Final = 6 * 1024 * 1024
"""How long what Lambda is given may be, the body in it, and what it returns."""

Scope = Any  # Any: ASGI's
Channel = Callable[..., Any]  # Any: ASGI's receive and send


class _Target(NamedTuple):
    """What of an API a request's address means: a stage, and the path in it."""

    stage: StageDefinition
    path: str


class HttpApp:
    """One HTTP API as an ASGI application.

    Args:
        definition: the API.
        host: `host:port` where it is.
        invoke: calls functions.
        may_ask: takes a request from the account's quota; False where none is left.

    """

    def __init__(
        self, definition: HttpApiDefinition, *, host: str, invoke: Invoke, may_ask: Callable[[], bool] = lambda: True
    ) -> None:
        self.host = host
        self._invoke = invoke
        self._may_ask = may_ask
        self.deploy(definition)

    def __repr__(self) -> str:
        return f"<HttpApp {self.definition.name} at {self.host}>"

    def deploy(self, definition: HttpApiDefinition) -> None:
        """Serve another definition of it from now on."""
        self.definition = definition
        self._routes = Routes(definition.routes)
        self._stages = {stage.name: stage for stage in definition.stages}

    async def __call__(self, scope: Scope, receive: Channel, send: Channel) -> None:
        """Answer one request."""
        request_id = new_id()
        try:
            answer = await self._answer(scope, receive, request_id)
        except Exception:
            logger.exception("%s: a request failed", self.definition.name)
            answer = said(500, "Internal Server Error")
        own = {"content-length": str(len(answer.body)), "apigw-requestid": request_id}
        fields = [*(each for each in answer.headers if each[0] not in own), *own.items()]
        headers = [(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in fields]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

    async def _answer(self, scope: Scope, receive: Channel, request_id: str) -> HttpResponse:
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        target = self._target(dict(headers).get("host", ""), _path(scope))
        found = None if target is None else self._routes.find(scope["method"], target.path)
        if target is None or found is None:
            return said(404, "Not Found")
        if not self._may_ask():
            return said(429, "Too Many Requests")
        body = await _read(receive)
        if body is None:
            return said(413, "Request Entity Too Large")
        request = HttpRequest(
            method=scope["method"],
            path=_path(scope),
            query=scope["query_string"].decode("latin-1"),
            headers=[*headers, *_added(scope, dict(headers))],
            body=body,
            protocol=f"HTTP/{scope['http_version']}",
            source_ip=scope["client"][0] if scope["client"] else "127.0.0.1",
        )
        return await self._call(
            found, event(request, self._place(target, found, headers, request_id), found.route.payload)
        )

    def _target(self, host: str, path: str) -> _Target | None:
        """The stage that an address means: by a custom domain, by its name in the path, or `$default`."""
        for mapping in self.definition.domains:
            if mapping.host == host.rpartition(":")[0] or mapping.host == host:
                prefix = f"/{mapping.path}".rstrip("/")
                if path == prefix or path.startswith(f"{prefix}/"):
                    return _Target(self._stages[mapping.stage], path[len(prefix) :] or "/")
        first, _, rest = path[1:].partition("/")
        if first in self._stages and first != DEFAULT:
            return _Target(self._stages[first], f"/{rest}")
        stage = self._stages.get(DEFAULT)
        return None if stage is None else _Target(stage, path)

    def _place(self, target: _Target, found: Found, headers: list[tuple[str, str]], request_id: str) -> Place:
        now_s = time.time()
        return Place(
            account=ACCOUNT,
            api=self.definition.id,
            domain=dict(headers).get("host", self.host),
            stage=target.stage.name,
            variables=target.stage.variables,
            route=found.route.key,
            parameters=found.parameters,
            request_id=request_id,
            time=request_time(now_s),
            time_ms=int(now_s * 1_000),
        )

    async def _call(self, found: Found, document: dict[str, Any]) -> HttpResponse:  # Any: JSON
        route = found.route
        if route.function is None:
            return said(500, "Internal Server Error")
        payload = msgspec.json.encode(document)
        if len(payload) > MAX_PAYLOAD_BYTES:
            return said(413, "Request Entity Too Large")
        try:
            async with asyncio.timeout(route.timeout_ms / 1_000):
                invoked = await self._invoke(route.function, payload)
        except TimeoutError:
            logger.warning("%s: %s took longer than %d ms", self.definition.name, route.key, route.timeout_ms)
            return said(503, "Service Unavailable")
        except Throttled as error:
            logger.warning("%s: %s could not be called: %s", self.definition.name, route.key, error)
            return said(503, "Service Unavailable")
        except UnknownFunction as error:
            logger.warning("%s: %s could not be called: %s", self.definition.name, route.key, error)
            return said(500, "Internal Server Error")
        if invoked.function_error is not None or len(invoked.payload) > MAX_PAYLOAD_BYTES:
            return said(500, "Internal Server Error")
        try:
            return response(invoked.payload, route.payload)
        except NoResponse as error:
            logger.warning("%s: %s: %s", self.definition.name, route.key, error)
            return said(500, "Internal Server Error")


def _path(scope: Scope) -> str:
    """The path as AWS hands it on: without its percent-encoding, and only up to a question mark that was in that."""
    path: str = scope["path"]
    return path.partition("?")[0]


def _added(scope: Scope, headers: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The headers that API Gateway adds; what a client said of its way here is completed, not believed."""
    client = scope["client"][0] if scope["client"] else "127.0.0.1"
    server = scope["server"] or ("", 443)
    if "x-amzn-trace-id" not in headers:
        yield "x-amzn-trace-id", f"Root=1-{int(time.time()):08x}-{new_id().encode().hex()[:24]}"
    yield "x-forwarded-for", client
    if "x-forwarded-port" not in headers:
        yield "x-forwarded-port", str(server[1])
    if "x-forwarded-proto" not in headers:
        yield "x-forwarded-proto", scope["scheme"]


async def _read(receive: Channel) -> bytes | None:
    """The whole body; None where it is longer than may be, and then it has been read to its end all the same."""
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join(pieces)  # whoever asked has gone, and hears nothing of it
        piece = message.get("body", b"")
        size += len(piece)
        if size <= MAX_REQUEST_BYTES:
            pieces.append(piece)
        if not message.get("more_body"):
            return b"".join(pieces) if size <= MAX_REQUEST_BYTES else None


class RunningHttpApi:
    """An HTTP API of a running stack.

    Attributes:
        app: what serves it.

    """

    def __init__(self, app: HttpApp) -> None:
        self.app = app

    def __repr__(self) -> str:
        return f"<RunningHttpApi {self.definition.name} at {self.host}>"

    @property
    def definition(self) -> HttpApiDefinition:
        """What the template says of it."""
        return self.app.definition

    @property
    def host(self) -> str:
        """`host:port`, where it is."""
        return self.app.host

    @property
    def config(self) -> Any:  # Any: uvicorn's
        """What uvicorn needs to serve it."""
        return http_only(self.app)

    @property
    def urls(self) -> list[str]:
        """Where it is called, stage by stage; `https://` is at the same port for who trusts the stack's authority."""
        names = [stage.name for stage in self.definition.stages]
        return [f"http://{self.host}" if name == DEFAULT else f"http://{self.host}/{name}" for name in names]

    @property
    def domain_urls(self) -> list[str]:
        """Where it is called by custom domains, once such a name leads to this machine."""
        port = self.host.rpartition(":")[2]
        return [f"http://{mapping.host}:{port}/{mapping.path}".rstrip("/") for mapping in self.definition.domains]

    def here(self, address: str) -> str | None:
        """Where an address of the API on AWS leads to on this machine; None for what is none of its addresses."""
        on_aws = rf"https://{re.escape(self.definition.id)}\.execute-api\.[a-z0-9-]+\.amazonaws\.com(\.cn)?(?=/|$)"
        local, found = re.subn(on_aws, f"http://{self.host}", address)
        return local if found else None
