"""HTTP endpoints behind routes: one client that calls them all, within bounds, and follows no redirect."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self
from urllib.parse import urlencode, urlsplit

import httpx

from hubbub.apigateway import Event
from hubbub.apigateway.selection import Answer
from hubbub.gateway.integrations.definition import Integration
from hubbub.gateway.integrations.failures import IntegrationFailed
from hubbub.gateway.integrations.requests import Outgoing, resolve_uri

MAX_ANSWER_BYTES = 10 * 1024 * 1024
"""How long an answer may be: API Gateway's limit of a payload."""

MAX_CALLS = 1_000
"""Calls at a time; further ones wait, within their time-out."""

KEEP_ALIVE_S = 1.5
"""How long an idle connection is kept: less than servers keep it, so that none is closed just as it is used again."""

BODILESS = ("GET", "HEAD", "OPTIONS")
"""Methods whose requests have no body."""

Pairs = Sequence[tuple[str, str]]
"""Names and values, in their order."""

_NOT_PASSED_ON = frozenset(
    (
        *("accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate"),
        *("proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"),
    )
)
"""Headers of a handshake that belong to its own hop."""


class HttpClient:
    """Calls HTTP endpoints while it is entered.

    Proxies of the environment count, but not for this machine.
    """

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None  # None while it is not entered

    async def __aenter__(self) -> Self:
        self._client = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=MAX_CALLS, keepalive_expiry=KEEP_ALIVE_S),
            mounts={"all://localhost": None, "all://127.0.0.1": None, "all://[::1]": None},
            follow_redirects=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def call(self, method: str, url: str, *, headers: Pairs, body: bytes, timeout_s: float) -> Answer:
        """Call an endpoint; any status is an answer.

        Args:
            method, url, headers, body: the request, as it is sent.
            timeout_s: how long all of it may take, seconds.

        Raises:
            IntegrationFailed: it could not be reached, took too long or said too much.

        """
        if self._client is None:
            raise RuntimeError("the integrations are not entered: async with Integrations(…) as integrations")
        try:
            async with asyncio.timeout(timeout_s):
                request = self._client.build_request(method, url, headers=list(headers), content=body, timeout=None)
                response = await self._client.send(request, stream=True)
                try:
                    return Answer(
                        status=response.status_code,
                        headers=response.headers.multi_items(),
                        body=await _read(response, method, url),
                    )
                finally:
                    await response.aclose()
        except TimeoutError:
            raise IntegrationFailed(f"{method} {url} took longer than {timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise IntegrationFailed(f"{method} {url} failed: {type(error).__name__}: {error}") from error


class HttpEndpoint:
    """HTTP and HTTP_PROXY: an endpoint that is called as a route's definition says.

    Args:
        integration: its definition.
        client: calls it.

    Raises:
        ValueError: the `uri` is no address.

    """

    def __init__(self, integration: Integration, client: HttpClient) -> None:
        if urlsplit(integration.uri).scheme not in ("http", "https"):
            raise ValueError(
                f"expected an http or https address as the uri of {integration.type}, got {integration.uri!r}"
            )
        self._uri = integration.uri
        self._method = "POST" if integration.method == "ANY" else integration.method
        self._proxy = integration.type == "HTTP_PROXY"
        self._timeout_s = integration.timeout_ms / 1_000
        self._client = client

    async def __call__(self, outgoing: Outgoing, event: Event) -> Answer:
        """Call the endpoint.

        As a proxy it gets the headers and the query of a handshake, besides what is mapped. What else API Gateway
        sends of its own accord is inferred from REST APIs.

        Raises:
            IntegrationFailed: see `HttpClient.call`.

        """
        headers = {
            "User-Agent": f"AmazonAPIGateway_{event.request_context.api_id}",
            "Accept": "application/json",
            "X-Amzn-Apigateway-Api-Id": event.request_context.api_id,
        }
        bodiless = self._method in BODILESS
        if not bodiless:
            headers["Content-Type"] = "application/json"
        pairs = list(headers.items())
        query = list(outgoing.query.items())
        if self._proxy and event.request_context.event_type == "CONNECT":
            pairs = _over(pairs, _passed_on(event))
            passed = event.multi_value_query_string_parameters or {}
            query = [(name, value) for name, values in passed.items() for value in values] + query
        return await self._client.call(
            self._method,
            with_query(resolve_uri(self._uri, event, outgoing.path), query),
            headers=_over(pairs, list(outgoing.headers.items())),
            body=b"" if bodiless else outgoing.body,
            timeout_s=self._timeout_s,
        )


def with_query(url: str, query: Pairs) -> str:
    """An address with more of a query."""
    if not query:
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(query)}"


async def _read(response: httpx.Response, method: str, url: str) -> bytes:
    parts = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise IntegrationFailed(f"{method} {url} answered with more than {MAX_ANSWER_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def _passed_on(event: Event) -> list[tuple[str, str]]:
    headers = event.multi_value_headers or {}
    return [(name, value) for name, values in headers.items() if name.lower() not in _NOT_PASSED_ON for value in values]


def _over(headers: Pairs, others: Pairs) -> list[tuple[str, str]]:
    """Headers, and others instead of those of the same name."""
    names = {name.lower() for name, _ in others}
    return [*(pair for pair in headers if pair[0].lower() not in names), *others]
