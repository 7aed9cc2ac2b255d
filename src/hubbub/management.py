"""A backend's client of `@connections` and `@groups`, for API Gateway and for Hubbub's gateway alike.

It signs with Signature Version 4 and needs no AWS library. `@groups`, and a code and a reason to close with, are
Hubbub's own: API Gateway has neither. A call is tried again only where it surely was not done.
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

import msgspec

from hubbub.aws.credentials import Botocore, Fixed, NoCredentials, Provider, find
from hubbub.aws.http import Broken, HttpClient, HttpResponse, Unreached, trusting
from hubbub.aws.pool import parts_of
from hubbub.aws.proxy import proxy_for
from hubbub.aws.signing import Signer
from hubbub.sigv4 import Credentials

SERVICE = "execute-api"

MAX_BACKOFF_S = 5.0
"""The longest wait before a call is tried again."""

MAX_CONNECTIONS = 100
"""How many calls are under way at a time; more wait for their turn."""

IDLE_S = 4.0
"""After how long without use a connection is closed: servers close what has been idle for five seconds, or more."""

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
        credentials: whose calls these are, or who knows them when a call is made, as `hubbub.aws.credentials.find()`
            does; None for those in `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, which are
            there in every Lambda function, or those that a container's address gives out, which are renewed.
        region: which the calls are signed for; None for that in the endpoint's name, else of `AWS_REGION` or
            `AWS_DEFAULT_REGION`, else `us-east-1`.
        timeout_s: how long one try may take.
        retries: how often a call is tried again.
        backoff_s: how long to wait before that, at most; twice as long each time.
        http: the HTTP client, which then is not closed here; None for one of its own, that trusts whom
            `AWS_CA_BUNDLE` or `SSL_CERT_FILE` names, else whom the system does, and reaches what is `https` through
            the proxy that `HTTPS_PROXY` names, unless `NO_PROXY` has the host.
        environment: where the variables are; that of this process by default.
        clock: epoch seconds.

    Raises:
        ValueError: the endpoint is none, there are no credentials, or a variable is impossible.

    """

    def __init__(
        self,
        endpoint: str,
        credentials: Credentials | Provider | None = None,
        region: str | None = None,
        *,
        timeout_s: float = 10.0,
        retries: int = 4,
        backoff_s: float = 0.2,
        http: HttpClient | None = None,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        known = os.environ if environment is None else environment
        self._endpoint = endpoint.rstrip("/")
        self._origin, self._host, self._prefix = _address(endpoint)
        self._credentials = _provider(credentials, known)
        self._region = region or _region_of(self._host, known)
        self._retries = retries
        self._backoff_s = backoff_s
        self._clock = clock
        self._timeout_s = timeout_s
        self._signer: Signer | None = None  # for the credentials of now; None before the first call
        self._owns_http = http is None
        self._is_closed = False
        self._http = http or _client(self._origin, timeout_s, known)

    def __repr__(self) -> str:
        return f"<ManagementClient of {self._endpoint} as {self._credentials!r}>"

    async def __aenter__(self) -> ManagementClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close what is open to the gateway."""
        if self._owns_http:
            self._is_closed = True
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
        target = f"{self._prefix}{path}" + (f"?{urlencode(given, quote_via=quote)}" if given else "")
        for left in range(self._retries, -1, -1):
            try:
                return await self._try(method, target, body)
            except (LimitExceeded, _NotSent):
                if not left:
                    raise
            wait_s = min(self._backoff_s * 2 ** (self._retries - left), MAX_BACKOFF_S)
            await asyncio.sleep(wait_s * random.random())  # noqa: S311  no secret: spreads out those who wait
        raise AssertionError("the last try returns or raises")

    async def _try(self, method: str, target: str, body: bytes) -> bytes:
        if self._is_closed:
            raise RuntimeError("the ManagementClient is closed")
        try:
            signer = self._signer_for(await self._credentials.get())
        except NoCredentials as error:
            raise ManagementError(str(error)) from error
        try:
            answer = await self._http.request(
                method,
                f"{self._origin}{target}",
                headers=signer.sign(method, target, (), body, self._clock()),
                body=body,
                timeout_s=self._timeout_s,
            )
        except Unreached as error:
            raise _NotSent(f"a call to {self._endpoint} was not sent: {error}") from error
        except Broken as error:
            raise Unreachable(f"{self._endpoint} did not answer: {error}") from error
        if 200 <= answer.status < 300:
            return answer.body
        raise _error_of(answer)

    def _signer_for(self, credentials: Credentials) -> Signer:
        if self._signer is None or self._signer.credentials is not credentials:
            self._signer = Signer(
                credentials, origin=self._origin, host=self._host, service=SERVICE, region=self._region
            )
        return self._signer


class _NotSent(Unreachable):
    """The call has not reached the gateway."""


def _address(endpoint: str) -> tuple[str, str, str]:
    """The origin of an endpoint, what `Host` says of it, and the path that all calls begin with.

    Raises:
        ValueError: it is none.

    """
    try:
        parts = urlsplit(endpoint)
        name = parts.netloc if parts.netloc.isascii() else _in_ascii(parts.netloc.lower())
        origin = f"{parts.scheme}://{name}"
        host = parts_of(origin)[1]
        if parts.query or parts.fragment:
            raise ValueError("there is more than a path")
    except ValueError:
        raise ValueError(f"endpoint: expected an address such as https://host/stage, got {endpoint!r}") from None
    return origin, host, quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~")


def _in_ascii(name: str) -> str:
    """A host's name in other letters as it is looked up.

    Raises:
        ValueError: it has letters of which Python's codec (RFC 3490) makes others, as today's rules (RFC 5891) do not.

    """
    found = name.encode("idna")
    if found.decode("idna") != name:
        raise ValueError("this would be another host")
    return found.decode()


def _provider(credentials: Credentials | Provider | None, environment: Mapping[str, str]) -> Provider:
    """Who knows the credentials.

    Raises:
        ValueError: nobody does.

    """
    if isinstance(credentials, Credentials):
        return Fixed(credentials)
    if credentials is not None:
        return credentials
    try:
        found = find(environment)
    except NoCredentials:
        found = None
    if found is None or isinstance(found, Botocore):  # which would look elsewhere than in this environment
        raise ValueError("credentials: expected some, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to be set")
    return found


def _client(origin: str, timeout_s: float, environment: Mapping[str, str]) -> HttpClient:
    """A client for calls to one origin.

    Raises:
        ValueError: a variable is impossible.

    """
    is_secure, _, address, _ = parts_of(origin)
    return HttpClient(
        max_connections=MAX_CONNECTIONS,
        connect_timeout_s=timeout_s,
        idle_s=IDLE_S,
        ssl=trusting(environment) if is_secure else None,
        proxy=proxy_for(address, environment) if is_secure else None,
    )


def _region_of(host: str, environment: Mapping[str, str]) -> str:
    named = _REGION.search(host.lower())
    if named is not None:
        return named[1]
    return environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"


def _path(kind: str, *parts: str) -> str:
    return "/".join((f"/@{kind}", *(quote(part, safe="") for part in parts)))


def _bytes(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data


def _error_of(answer: HttpResponse) -> ManagementError:
    """The error that an answer tells of; its name may have a `:` or a `#` with more about it."""
    name = answer.headers.get("x-amzn-errortype", "").partition(":")[0].rpartition("#")[2]
    try:
        document = msgspec.json.decode(answer.body, type=dict[str, Any])  # Any: JSON
    except (msgspec.DecodeError, UnicodeDecodeError):
        document = {}
    said = document.get("message") or document.get("Message") or name or _phrase(answer.status)
    kind = _BY_STATUS.get(answer.status, ManagementError)
    return kind(str(said), status=answer.status, type=name)


def _phrase(status: int) -> str:
    from http import HTTPStatus  # not needed by those who make no mistakes, and slow to load

    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"HTTP status {status}"


def _decoded(body: bytes, shape: type[ShapeT]) -> ShapeT:
    """A document of the gateway's.

    Raises:
        ManagementError: it is none.

    """
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManagementError(f"the endpoint's answer is none of the management API's: {error}") from error
