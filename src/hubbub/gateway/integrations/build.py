"""Handlers of integrations: what is sent, to whom, and what becomes of the answer, put together for each kind."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import msgspec

from hubbub.apigateway import Event, Handler, Response
from hubbub.apigateway.selection import Answer, Variables
from hubbub.gateway.integrations.definition import Integration, Services
from hubbub.gateway.integrations.endpoints import HttpClient, HttpEndpoint
from hubbub.gateway.integrations.failures import IntegrationFailed
from hubbub.gateway.integrations.lambdas import LambdaFunction, LambdaProxy, function_of
from hubbub.gateway.integrations.mapping import context_of
from hubbub.gateway.integrations.requests import Outgoing, RequestMapping
from hubbub.gateway.integrations.responses import ResponseMapping, text_from
from hubbub.gateway.integrations.services import AwsService

Backend = Callable[[Outgoing, Event], Awaitable[Answer]]
"""Sends what an integration is sent, and returns the answer."""

_BY_ERROR = "$integration.response.body.errorMessage"

_BY_STATUS = "$integration.response.statuscode"

_STATUS = re.compile(r"""["']?statusCode["']?\s*:\s*["']?(\d{3})["']?\s*[,}]""")


class Integrations:
    """Makes handlers of integrations; those that call over HTTP work while it is entered.

    Args:
        services: what integrations call.

    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._client = HttpClient()
        self._entered = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._entered.enter_async_context(self._client)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._entered.aclose()

    def handler(self, integration: Integration, *, two_way: bool = True) -> Handler:
        """A handler of an integration.

        It raises `IntegrationFailed` where the integration gives no answer that could be used.

        Args:
            integration: its definition.
            two_way: whether a message's answer is wanted; where it is not, no integration response is looked for.

        Raises:
            ValueError: the definition makes no sense: its `uri`, a parameter, a key.

        """
        if integration.type == "AWS_PROXY":
            return LambdaProxy(integration, self._services.invoke)
        if integration.type == "HTTP_PROXY":
            return Proxied(integration, HttpEndpoint(integration, self._client))
        backend, selected_by = self._backend(integration)
        return Mapped(integration, backend, selected_by, two_way=two_way)

    def _backend(self, integration: Integration) -> tuple[Backend, str]:
        if integration.type == "MOCK":
            return _mock, _BY_STATUS
        if integration.type == "HTTP":
            return HttpEndpoint(integration, self._client), _BY_STATUS
        if function_of(integration.uri) is None:
            return AwsService(integration, self._services, self._client), _BY_STATUS
        if _invocation_type(integration) == "RequestResponse":
            return LambdaFunction(integration, self._services.invoke), _BY_ERROR
        return AwsService(integration, self._services, self._client), _BY_ERROR


class Mapped:
    """A handler that maps what goes out and what comes back: for what is no proxy.

    Args:
        integration: its definition.
        backend: what it calls.
        selected_by: what integration responses are selected by, unless the definition says so.
        two_way: whether a message's answer is wanted.

    """

    def __init__(self, integration: Integration, backend: Backend, selected_by: str, *, two_way: bool) -> None:
        self._request = RequestMapping(integration)
        self._response = ResponseMapping(integration, selected_by)
        self._backend = backend
        self._two_way = two_way

    async def __call__(self, event: Event) -> Response:
        """Call what is behind it.

        `$connect` is decided by the answer's status, messages are answered with what its body is mapped to.
        """
        variables = Variables(event)
        context = context_of(variables)
        answer = await self._backend(self._request.outgoing(variables, context), event)
        if not self._two_way and event.request_context.event_type != "CONNECT":
            return Response(status_code=answer.status)
        variables.answer = answer
        return self._response.response(answer, variables, context)


class Proxied:
    """A handler that passes on what comes and what comes back, but for parameters that are mapped.

    Args:
        integration: its definition.
        backend: what it calls.

    """

    def __init__(self, integration: Integration, backend: Backend) -> None:
        self._request = RequestMapping(integration)
        self._backend = backend

    async def __call__(self, event: Event) -> Response:
        """Call what is behind it."""
        variables = Variables(event)
        outgoing = self._request.outgoing(variables, context_of(variables), with_template=False)
        answer = await self._backend(outgoing, event)
        return Response(status_code=answer.status, headers=dict(answer.headers), body=text_from(answer.body, None))


async def _mock(outgoing: Outgoing, event: Event) -> Answer:
    """MOCK: the status that the request template gives, and no body. AWS reads it even where it is no proper JSON."""
    text = outgoing.body.decode("utf-8", "replace")
    try:
        document = msgspec.json.decode(text)
        status = document.get("statusCode") if isinstance(document, dict) else None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        found = _STATUS.search(text)
        status = found[1] if found else None
    if isinstance(status, str) and status.isdecimal():
        status = int(status)
    if type(status) is not int:
        raise IntegrationFailed(
            f'expected a request template that gives {{"statusCode": 200}} for MOCK, got {text[:80]!r}'
        )
    return Answer(status=status)


def _invocation_type(integration: Integration) -> str:
    """How a function is to be called: it is asked to answer, unless a header is mapped that says otherwise."""
    for target, source in integration.request_parameters.items():
        if target.lower() == "integration.request.header.x-amz-invocation-type":
            return source.strip("'")
    return "RequestResponse"
