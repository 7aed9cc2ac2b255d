"""A plain HTTP endpoint as the function behind a route: each event is posted to it, its response is the function's.

Calls are signed as https://www.standardwebhooks.com says, so that the endpoint can tell them from anybody else's.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import re
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from hubbub.apigateway import Event, Response
from hubbub.gateway.integrations.failures import IntegrationFailed

DEFAULT_TIMEOUT_S = 29.0
"""How long a call may take: as long as API Gateway waits for an integration."""

CONNECT_TIMEOUT_S = 5.0
"""How long a connection to the endpoint may take to be there."""

MAX_RESPONSE_BYTES = 128 * 1024
"""The longest response: what API Gateway takes as a message for a client."""

MAX_CALLS = 100
"""Calls at a time."""

RETRY_AFTER_S = (0.1, 0.4)
"""How long to wait before a connection is tried again, seconds."""

KEEP_ALIVE_S = 1.5
"""How long an idle connection is kept: less than servers keep it, the least of them 2 s. One that a server closes just
as it is used again is a call that nobody can repeat, since it may have been carried out."""

MIN_SECRET_BYTES = 24
"""Standard Webhooks, "Signature scheme": a secret has 24 to 64 bytes."""

_PREFIX = "whsec_"

_VISIBLE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")


class HandlerFailed(IntegrationFailed):
    """A call of the endpoint has no response that could be a function's; the message says why.

    Attributes:
        outcome: a status, `timeout`, `unreachable` or `broken`.

    """

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


def read_secret(secret: str | bytes) -> bytes:
    """The key that calls are signed with.

    Args:
        secret: `whsec_` and the key in base64, or that without `whsec_`; the key itself if it is bytes.

    Raises:
        ValueError: it is none of these, or too short; what was given is not shown.

    """
    if isinstance(secret, str):
        text = secret.strip().removeprefix(_PREFIX)
        try:
            key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"expected {_PREFIX} and at least {MIN_SECRET_BYTES} bytes in base64") from None
    else:
        key = secret
    if len(key) < MIN_SECRET_BYTES:
        raise ValueError(f"expected at least {MIN_SECRET_BYTES} bytes, got {len(key)}")
    return key


def check_address(url: str) -> str:
    """The address of an endpoint.

    Raises:
        ValueError: it is none.

    """
    try:
        parts = urlsplit(url)
        possible = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        possible = False
    if not possible or re.search(r"[\s#]", url):
        raise ValueError(f"expected an http or https address such as http://127.0.0.1:5000/events, got {url!r}")
    if "@" in parts.netloc:
        raise ValueError("expected an address without a user or password: calls are signed")
    return url


def sign(keys: Sequence[bytes], id: str, timestamp: int, body: bytes) -> str:  # noqa: A002  the specification's word
    """The `webhook-signature` of a call: one signature for each key, so that a key can be replaced under way."""
    content = f"{id}.{timestamp}.".encode() + body
    signatures = (hmac.digest(key, content, "sha256") for key in keys)
    return " ".join(f"v1,{base64.b64encode(signature).decode()}" for signature in signatures)


class Webhook:
    """Calls an HTTP endpoint with events; a `Handler` while it is entered.

    The event's JSON is posted with `webhook-id` (the event's request id), `webhook-timestamp` and, where there is a
    secret, `webhook-signature`. `hubbub-route-key`, `hubbub-event-type` and `hubbub-connection-id` say what is in the
    event for those who route by headers; they are not signed.

    A response of 200 to 299 is the function's. On `$connect` so is every other, which refuses the handshake with its
    status and body. Everything else is a failure and raises: another status for a message or a `$disconnect`, a
    redirect, a body that is too long, compressed or (where it would go to a client) no UTF-8. Whoever has to tell a
    client that he asked for something wrong says so with 200: a 404 or 403 comes as easily from a proxy, a framework
    or a mistake in the address, and its page is not for clients.

    A connection that cannot be had is tried again after a moment; what was sent once is never sent again.

    Args:
        url: where it is, http or https.
        secrets: what calls are signed with, see `read_secret`; several while one is being replaced.
        timeout_s: how long a call may take with all that it waits for.
        connect_timeout_s: how long a connection may take to be there.
        max_response_bytes: the longest body.
        max_calls: how many calls there may be at a time; further ones wait, within their own `timeout_s`.
        retry_after_s: how long to wait before each further try to connect.

    Attributes:
        calls: how many calls ended how, by status or by `timeout`, `unreachable`, `broken`.

    Raises:
        ValueError: the address is none, or a secret.

    """

    def __init__(
        self,
        url: str,
        *,
        secrets: Sequence[str | bytes] = (),
        timeout_s: float = DEFAULT_TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        max_calls: int = MAX_CALLS,
        retry_after_s: Sequence[float] = RETRY_AFTER_S,
    ) -> None:
        self.url = check_address(url)
        self.calls: Counter[str] = Counter()
        self._keys = [read_secret(secret) for secret in secrets]
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._max_response_bytes = max_response_bytes
        self._max_calls = max_calls
        self._retry_after_s = tuple(retry_after_s)
        self._free = asyncio.Semaphore(max_calls)  # the pool's own queue is searched for every call that ends
        self._transport: httpx.AsyncHTTPTransport | None = None  # None while it is not entered

    def __repr__(self) -> str:
        return f"<Webhook {self.url}{', signed' if self._keys else ''}>"

    async def __aenter__(self) -> Webhook:
        # The transport alone: a client would keep the cookies of one call and send them with the next, another user's,
        # and go through the environment's proxies.
        self._transport = httpx.AsyncHTTPTransport(
            verify=httpx.create_ssl_context(trust_env=True),  # that is, SSL_CERT_FILE counts
            limits=httpx.Limits(
                max_connections=self._max_calls,
                max_keepalive_connections=self._max_calls,
                keepalive_expiry=KEEP_ALIVE_S,
            ),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._transport is not None:
            await self._transport.aclose()
            self._transport = None

    async def __call__(self, event: Event) -> Response:
        """Call it with an event.

        Raises:
            HandlerFailed: it has no response for the event.

        """
        try:
            response = await self._call(event)
        except HandlerFailed as failed:
            self.calls[failed.outcome] += 1
            raise
        self.calls[str(response.status_code)] += 1
        return response

    async def ping(self) -> None:
        """Return if the endpoint's address takes connections; nothing is sent.

        Raises:
            HandlerFailed: it does not.

        """
        parts = urlsplit(self.url)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                port = parts.port or (443 if parts.scheme == "https" else 80)
                _, writer = await asyncio.open_connection(parts.hostname, port)
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError) as error:
            raise HandlerFailed("unreachable", f"cannot connect to {self.url}: {_reason(error)}") from None

    async def _call(self, event: Event) -> Response:
        try:
            async with asyncio.timeout(self._timeout_s), self._free:
                return await self._post(event)
        except TimeoutError:
            raise HandlerFailed("timeout", f"no answer from {self.url} within {self._timeout_s:g} s") from None

    async def _post(self, event: Event) -> Response:
        body = msgspec.json.encode(event)
        headers = self._headers(event, body)
        for pause_s in (*self._retry_after_s, None):
            try:
                return await self._send(event, headers, body)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if pause_s is None:
                    raise HandlerFailed("unreachable", f"cannot connect to {self.url}: {_reason(error)}") from None
            except httpx.TimeoutException:
                raise TimeoutError from None
            except httpx.HTTPError as error:
                raise HandlerFailed("broken", f"the call of {self.url} broke off: {_reason(error)}") from None
            await asyncio.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    def _headers(self, event: Event, body: bytes) -> dict[str, str]:
        context = event.request_context
        sent_at = int(time.time())
        headers = {
            "accept-encoding": "identity",
            "content-type": "application/json",
            "user-agent": "hubbub",
            "webhook-id": context.request_id,
            "webhook-timestamp": str(sent_at),
            "hubbub-event-type": context.event_type,
            "hubbub-route-key": quote(context.route_key, safe=_VISIBLE),
            "hubbub-connection-id": context.connection_id,
        }
        if self._keys:
            headers["webhook-signature"] = sign(self._keys, context.request_id, sent_at, body)
        return headers

    async def _send(self, event: Event, headers: dict[str, str], body: bytes) -> Response:
        assert self._transport is not None, "the webhook is not entered"  # noqa: S101
        bounds = {"connect": self._connect_timeout_s, "read": self._timeout_s, "write": self._timeout_s, "pool": None}
        request = httpx.Request("POST", self.url, content=body, headers=headers, extensions={"timeout": bounds})
        answer = await self._transport.handle_async_request(request)
        try:
            return self._response(event, answer.status_code, answer.headers, await self._body(answer))
        except ValueError as error:
            raise HandlerFailed(str(answer.status_code), f"{self.url} answered {answer.status_code}{error}") from None
        finally:
            await answer.aclose()

    async def _body(self, answer: httpx.Response) -> bytes:
        """The whole body, if it is not too long.

        It is read as it comes: what is compressed could be any length once it is not, and was not asked for.
        """
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            raise ValueError(" with a compressed body, which it was asked not to do")
        body = bytearray()
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > self._max_response_bytes:
                raise ValueError(f" with more than {self._max_response_bytes} bytes")
        return bytes(body)

    def _response(self, event: Event, status: int, headers: httpx.Headers, body: bytes) -> Response:
        """What a function would have returned.

        Raises:
            ValueError: nothing that a function would; the message goes on after the status.

        """
        kind = event.request_context.event_type
        if 300 <= status < 400:
            raise ValueError(f", a redirect to {headers.get('location', 'elsewhere')}: redirects are not followed")
        if not 200 <= status <= 599:
            raise ValueError(", which is no response's status")
        if kind == "CONNECT":
            chosen = headers.get("sec-websocket-protocol")
            return Response(
                status_code=status, headers={"Sec-WebSocket-Protocol": chosen} if chosen else None, body=body
            )
        if status >= 400:
            raise ValueError(f" to {event.request_context.route_key}")
        if kind == "DISCONNECT":
            return Response(status_code=status)
        try:
            return Response(status_code=status, body=body.decode())
        except UnicodeDecodeError:
            raise ValueError(" with a body that is no UTF-8") from None


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "no answer in time"
    return str(error) or type(error).__name__
