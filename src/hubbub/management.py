"""A backend's client of `@connections` and `@groups`, for API Gateway and for Hubbub's gateway alike.

It signs with Signature Version 4 and needs no AWS library. `@groups`, and a code and a reason to close with, are
Hubbub's own: API Gateway has neither.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import httpx
import msgspec

from hubbub.sigv4 import Credentials, sign

SERVICE = "execute-api"

MAX_BACKOFF_S = 5.0
"""The longest wait before a call is tried again."""

_REGION = re.compile(r"\.execute-api\.([a-z0-9-]+)\.amazonaws\.com")


ShapeT = TypeVar("ShapeT")


class ManagementError(Exception):
    """A call was not done.

    Attributes:
        status: the HTTP status; None where there was no answer.
        type: the error's name, as `GoneException`; empty where there was none.
        message: what was said about it.

    """

    def __init__(self, message: str, *, status: int | None = None, type: str = "") -> None:  # noqa: A002  AWS's word
        super().__init__(message)
        self.status = status
        self.type = type
        self.message = message


class Gone(ManagementError):
    """There is no such connection, or not any more: forget its id."""


class BadRequest(ManagementError):
    """What was asked makes no sense: an id that cannot be one, a code that may not be sent, bytes that are no text."""


class Forbidden(ManagementError):
    """The signature is missing, wrong or old (`type` and `message` say which), or there is no API at the endpoint."""


class TooLarge(ManagementError):
    """The message is longer than the 128 KB that one may have."""


class LimitExceeded(ManagementError):
    """Too many calls, or the client does not read what it is sent; `message` says which."""


class Unreachable(ManagementError):
    """There was no answer, or none in time; whether the call was done is not known."""


_BY_STATUS: dict[int, type[ManagementError]] = {
    400: BadRequest,
    403: Forbidden,
    410: Gone,
    413: TooLarge,
    429: LimitExceeded,
}


class Connection(msgspec.Struct, frozen=True):
    """What is known of a connection.

    Attributes:
        connected_at: since when it is there.
        last_active_at: when a message last went in either direction.
        source_ip: the client's address.
        user_agent: what it calls itself; None if it does not say.

    """

    connected_at: datetime
    last_active_at: datetime
    source_ip: str
    user_agent: str | None


class _Identity(msgspec.Struct, rename="camel"):
    source_ip: str
    user_agent: str | None = None


class _Connection(msgspec.Struct, rename="camel"):
    connected_at: datetime
    last_active_at: datetime
    identity: _Identity


class _Published(msgspec.Struct):
    sent: int


class _Page(msgspec.Struct, rename="camel"):
    connections: list[str]
    next_token: str | None = None


class ManagementClient:
    """Sends to connections, asks about them, closes them, and speaks to groups of them.

        async with ManagementClient(f"https://{context['domainName']}/{context['stage']}") as client:
            await client.post(context["connectionId"], "only you see this")
            await client.join("lobby", context["connectionId"])
            await client.publish("lobby", "everybody sees this", exclude=context["connectionId"])

    One client serves any number of calls at a time and belongs to one event loop. What is refused for now (429), and
    what does not reach the gateway at all, is tried again; nothing else is, so that no message comes twice.

    Args:
        endpoint: the address of the API's stage, as `https://{domainName}/{stage}`.
        credentials: whose calls these are; None for those in `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
            `AWS_SESSION_TOKEN`, which are there in every Lambda function.
        region: which the calls are signed for; None for that in the endpoint's name, else of `AWS_REGION` or
            `AWS_DEFAULT_REGION`, else `us-east-1`.
        timeout_s: how long one try may take.
        retries: how often a call is tried again.
        backoff_s: how long to wait before that, at most; twice as long each time.
        http: the HTTP client, which then is not closed here; None for one of its own.
        environment: where the variables are; that of this process by default.
        clock: epoch seconds.

    Raises:
        ValueError: the endpoint is none, or there are no credentials.

    """

    def __init__(
        self,
        endpoint: str,
        credentials: Credentials | None = None,
        region: str | None = None,
        *,
        timeout_s: float = 10.0,
        retries: int = 4,
        backoff_s: float = 0.2,
        http: httpx.AsyncClient | None = None,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        known = os.environ if environment is None else environment
        self._endpoint = _checked(endpoint)
        self._credentials = credentials or _credentials_in(known)
        self._region = region or _region_of(self._endpoint, known)
        self._retries = retries
        self._backoff_s = backoff_s
        self._clock = clock
        self._timeout_s = timeout_s
        self._owns_http = http is None
        # A server may close what has been idle for five seconds; so be the first to do so.
        self._http = http or httpx.AsyncClient(limits=httpx.Limits(max_connections=100, keepalive_expiry=4.0))

    def __repr__(self) -> str:
        return f"<ManagementClient of {self._endpoint} as {self._credentials.access_key}>"

    async def __aenter__(self) -> ManagementClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close what is open to the gateway."""
        if self._owns_http:
            await self._http.aclose()

    # Connections

    async def post(self, connection: str, data: bytes | str) -> None:
        """Send a message to a connection.

        Raises:
            Gone: it is not there any more.
            TooLarge: the message has more than 128 KB.
            LimitExceeded: too many calls, or the client does not read; tries have been made.
            BadRequest: that is no connection's id, or the data is not UTF-8.
            Forbidden, Unreachable: see there.

        """
        await self._call("POST", _path("connections", connection), body=_bytes(data))

    async def get(self, connection: str) -> Connection:
        """What is known of a connection.

        Raises:
            Gone, BadRequest, LimitExceeded, Forbidden, Unreachable: as `post`.

        """
        found = _decoded(await self._call("GET", _path("connections", connection)), _Connection)
        return Connection(found.connected_at, found.last_active_at, found.identity.source_ip, found.identity.user_agent)

    async def close(self, connection: str, code: int | None = None, reason: str | None = None) -> None:
        """Close a connection.

        Args:
            connection: its id.
            code: what the client and `$disconnect` are told: 1000, or 3000 to 4999; None for 1000.
            reason: likewise, at most 123 bytes in UTF-8.

        Raises:
            Gone, BadRequest, LimitExceeded, Forbidden, Unreachable: as `post`.

        """
        await self._call("DELETE", _path("connections", connection), code=code, reason=reason)

    # Groups

    async def join(self, group: str, connection: str) -> None:
        """Add a connection to a group, where it stays until it leaves or ends; it may be there already.

        Args:
            group: 1 to 128 of A-Z a-z 0-9 _ . ~ : @ = + # -
            connection: its id.

        Raises:
            Gone, BadRequest, LimitExceeded, Forbidden, Unreachable: as `post`.

        """
        await self._call("PUT", _path("groups", group, "connections", connection))

    async def leave(self, group: str, connection: str) -> None:
        """Take a connection out of a group; it need not be there.

        Raises:
            Gone, BadRequest, LimitExceeded, Forbidden, Unreachable: as `post`.

        """
        await self._call("DELETE", _path("groups", group, "connections", connection))

    async def publish(
        self, group: str, data: bytes | str, exclude: str | None = None, *, droppable: bool = False
    ) -> int:
        """Send a message to all members of a group in one call; to how many it went.

        Args:
            group: its name; one without members is nothing special.
            data: the message.
            exclude: a connection that does not get it.
            droppable: whether a member that does not read its messages just now goes without; else such a member is
                closed with 4408 once too much waits for it.

        Raises:
            TooLarge, BadRequest, LimitExceeded, Forbidden, Unreachable: as `post`.

        """
        answer = await self._call(
            "POST",
            _path("groups", group),
            body=_bytes(data),
            exclude=exclude,
            droppable="true" if droppable else None,
        )
        return _decoded(answer, _Published).sent

    async def members(self, group: str, *, page: int = 1_000) -> AsyncIterator[str]:
        """The ids of a group's members, in their own order, fetched as they are asked for, `page` at a time.

        Raises:
            BadRequest, LimitExceeded, Forbidden, Unreachable: as `post`.

        """
        token = None
        while True:
            answer = await self._call("GET", _path("groups", group), limit=page, nextToken=token)
            fetched = _decoded(answer, _Page)
            for connection in fetched.connections:
                yield connection
            token = fetched.next_token
            if token is None:
                return

    # Calling

    async def _call(self, method: str, path: str, body: bytes = b"", **parameters: Any) -> bytes:  # Any: str or int
        """Call and return the answer's body; what is refused for now is tried again."""
        given = {name: value for name, value in parameters.items() if value is not None}
        url = f"{self._endpoint}{path}" + (f"?{urlencode(given, quote_via=quote)}" if given else "")
        for left in range(self._retries, -1, -1):
            try:
                return await self._try(method, url, body)
            except (LimitExceeded, _NotSent):
                if not left:
                    raise
            wait_s = min(self._backoff_s * 2 ** (self._retries - left), MAX_BACKOFF_S)
            await asyncio.sleep(wait_s * random.random())  # noqa: S311  no secret: spreads out those who wait
        raise AssertionError("the last try returns or raises")

    async def _try(self, method: str, url: str, body: bytes) -> bytes:
        request = self._http.build_request(method, url, content=body, timeout=self._timeout_s)
        signed = sign(
            self._credentials,
            method=method,
            url=str(request.url),
            headers={"host": request.headers["host"]},
            body=body,
            service=SERVICE,
            region=self._region,
            now_s=self._clock(),
        )
        request.headers.update(signed)
        try:
            response = await self._http.send(request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _NotSent(f"{self._endpoint} cannot be reached: {str(error) or type(error).__name__}") from error
        except httpx.TransportError as error:
            raise Unreachable(f"{self._endpoint} did not answer: {str(error) or type(error).__name__}") from error
        if response.is_success:
            return response.content
        raise _error_of(response)


class _NotSent(Unreachable):
    """The call has not reached the gateway."""


def _checked(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"endpoint: expected an address such as https://host/stage, got {endpoint!r}")
    return endpoint.rstrip("/")


def _credentials_in(environment: Mapping[str, str]) -> Credentials:
    access_key, secret_key = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key:
        raise ValueError("credentials: expected some, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to be set")
    return Credentials(access_key, secret_key, environment.get("AWS_SESSION_TOKEN") or None)


def _region_of(endpoint: str, environment: Mapping[str, str]) -> str:
    named = _REGION.search(urlsplit(endpoint).hostname or "")
    if named is not None:
        return named[1]
    return environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"


def _path(kind: str, *parts: str) -> str:
    return "/".join((f"/@{kind}", *(quote(part, safe="") for part in parts)))


def _bytes(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data


def _error_of(response: httpx.Response) -> ManagementError:
    """The error that an answer tells of; its name may have a `:` or a `#` with more about it."""
    name = response.headers.get("x-amzn-errortype", "").partition(":")[0].rpartition("#")[2]
    try:
        document = msgspec.json.decode(response.content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        document = {}
    said = document.get("message") or document.get("Message") or name or response.reason_phrase
    kind = _BY_STATUS.get(response.status_code, ManagementError)
    return kind(str(said), status=response.status_code, type=name)


def _decoded(body: bytes, shape: type[ShapeT]) -> ShapeT:
    """A document of the gateway's.

    Raises:
        ManagementError: it is none.

    """
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManagementError(f"the endpoint's answer is none of the management API's: {error}") from error
