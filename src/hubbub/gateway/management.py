"""The management API: a backend sends to connections, asks about them, closes them, and speaks to groups of them.

`@connections` is AWS's, with its errors. `@groups` goes beyond AWS: what is posted to a group goes to all its members
in one call. Source: developer guide, "Use @connections commands in your backend service", and botocore's model of
`apigatewaymanagementapi`.
"""

from __future__ import annotations

import heapq
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, quote, unquote

import msgspec

from hubbub.apigateway import Api, Identity
from hubbub.entropy import random_bytes
from hubbub.fair_timeout import fair_timeout
from hubbub.gateway.connection import MAX_REASON_BYTES
from hubbub.gateway.hub import Hub, Peer
from hubbub.sigv4 import Keys, Rejected, verify

logger = logging.getLogger("hubbub.gateway")

SERVICE = "execute-api"
"""What calls are signed for."""

MAX_BYTES = 131_072
"""The most that AWS takes for a client at once."""

BODY_WITHIN_S = 10.0
"""How long the body of a call may take to arrive."""

MAX_DISCARDED = 16 * 1024 * 1024
"""How much of a body that is too large is read, and thrown away, so that its sender lives to hear the answer."""

NORMAL, NORMAL_REASON = 1000, "Connection Closed Normally"
"""How a connection ends that is deleted, and what `$disconnect` is told of it."""

PAGE, MAX_PAGE = 100, 1_000
"""How many members of a group are listed at once: unless told, and at most."""

Receive = Callable[[], Awaitable[Any]]  # Any: ASGI's messages
Send = Callable[[Any], Awaitable[None]]  # Any: likewise

_CONCERNED = re.compile(r"(?P<prefix>.*?)/(?:@|%40)(?P<kind>connections|groups)(?P<rest>/.*)?", re.DOTALL)
_CONNECTION = re.compile(r"[A-Za-z0-9+/_-]{15}=")
_GROUP = re.compile(r"[A-Za-z0-9_.~:@=+#-]{1,128}")


class Context(Protocol):
    """What a connection's peer in the hub has as its `context`."""

    @property
    def api(self) -> Api:
        """What it is connected to."""
        ...

    @property
    def identity(self) -> Identity:
        """Where it comes from."""
        ...

    @property
    def connected_at(self) -> int:
        """Since when; epoch milliseconds."""
        ...


class Problem(Exception):
    """Why a call is not done.

    Attributes:
        status: the HTTP status.
        type: what `x-amzn-ErrorType` says.
        message: the sentence in the body; None for no body.
        closes: whether the HTTP connection ends with it, for the rest of the call would still come.

    """

    def __init__(
        self,
        status: int,
        type: str,  # noqa: A002  AWS's word
        message: str | None,
        *,
        closes: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.message = message
        self.closes = closes


class Answer(NamedTuple):
    """What a call is answered with; `error` is the type of an error, None for none."""

    status: int
    body: bytes = b""
    error: str | None = None


class Call(NamedTuple):
    """A call of the management API.

    Attributes:
        method: its HTTP method.
        path, query: as on the wire, in latin-1.
        fields: names and values of its headers.
        prefix: what stands before `/@…`, decoded: the stage on AWS.
        kind: `connections` or `groups`.
        parts: what follows, decoded.
        body: all of it.

    """

    method: str
    path: str
    query: str
    fields: list[tuple[str, str]]
    prefix: str
    kind: str
    parts: tuple[str, ...]
    body: bytes = b""

    @property
    def host(self) -> str:
        """What the caller calls this host."""
        return self.field("host") or ""

    def field(self, name: str) -> str | None:
        """The first value of a header, by its lower-case name."""
        return next((value for known, value in self.fields if known == name), None)

    def parameters(self) -> dict[str, str]:
        """The query's parameters.

        Raises:
            Problem: one comes twice, or is not UTF-8.

        """
        try:
            pairs = parse_qsl(self.query, keep_blank_values=True, errors="strict")
        except UnicodeDecodeError:
            raise _bad("The query is not UTF-8.") from None
        if len(dict(pairs)) != len(pairs):
            raise _bad("A parameter is in the query twice.")
        return dict(pairs)


class Management:
    """Answers calls of `@connections` and `@groups`: an ASGI application.

    Args:
        hub: where the connections are; the `context` of their peers is a `Context`.
        keys: whose calls are taken.
        find: the API at a host and a prefix of paths, such as `/prod`; None for none.
        allow: takes a request from the account's bucket; False where there is none left.
        max_bytes: how long a message may be.
        body_within_s: how long a call's body may take to arrive.
        region: which calls must be signed for; None for any.
        clock: epoch seconds.

    """

    def __init__(
        self,
        hub: Hub,
        *,
        keys: Keys,
        find: Callable[[str, str], Api | None],
        allow: Callable[[], bool],
        max_bytes: int = MAX_BYTES,
        body_within_s: float = BODY_WITHIN_S,
        region: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._hub = hub
        self._keys = keys
        self._find = find
        self._allow = allow
        self._max_bytes = max_bytes
        self._body_within_s = body_within_s
        self._region = region
        self._clock = clock
        self._operations: dict[tuple[str, int], dict[str, Callable[[Api, Call], Answer]]] = {
            ("connections", 1): {"POST": self._post, "GET": self._get, "DELETE": self._delete},
            ("groups", 1): {"POST": self._publish, "GET": self._list},
            ("groups", 3): {"PUT": self._join, "DELETE": self._leave},
        }

    def __repr__(self) -> str:
        return f"<Management of {self._hub!r} for {self._keys!r}>"

    @staticmethod
    def concerns(path: str) -> bool:
        """Whether a path, decoded or not, is one of the management API's."""
        return _CONCERNED.fullmatch(path) is not None

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:  # Any: ASGI's
        """Answer one call."""
        close = False
        try:
            answer = await self._answer(scope, receive)
        except (Problem, Rejected) as problem:
            body = b"" if problem.message is None else msgspec.json.encode({"message": problem.message})
            answer = Answer(problem.status, body, problem.type)
            close = isinstance(problem, Problem) and problem.closes
        except Exception:
            logger.exception("a call of the management API failed", extra={"path": scope["path"]})
            answer = Answer(500, b'{"message":"Internal server error"}', "InternalServerErrorException")
        if answer is not None:
            await _send(send, answer, close)

    async def _answer(self, scope: Any, receive: Receive) -> Answer | None:  # Any: ASGI's
        """The answer; None where nobody waits for it any more.

        Raises:
            Problem, Rejected: it is not done.

        """
        call = _read(scope)
        body = await self._body(call, receive)
        if body is None:
            return None
        api = self._find(call.host, call.prefix)
        if api is None:
            raise Problem(403, "ForbiddenException", "Forbidden")
        operation = self._operation(call)
        if len(body) > self._max_bytes:
            raise self._too_large()
        call = call._replace(body=body)
        verify(
            self._keys,
            method=call.method,
            path=call.path,
            query=call.query,
            fields=call.fields,
            body=body,
            service=SERVICE,
            now_s=self._clock(),
            region=self._region,
        )
        if not self._allow():
            raise Problem(429, "LimitExceededException", "Too Many Requests")
        return operation(api, call)

    def _operation(self, call: Call) -> Callable[[Api, Call], Answer]:
        known = self._operations.get((call.kind, len(call.parts)), {})
        found = known.get(call.method)
        if found is None or not all(call.parts) or (len(call.parts) == 3 and call.parts[1] != "connections"):
            path = "/".join((f"@{call.kind}", *call.parts))
            raise Problem(
                404, "NotFoundException", f"No method found matching route {path} for http method {call.method}."
            )
        return found

    async def _body(self, call: Call, receive: Receive) -> bytes | None:
        """The call's body; None where the caller is gone before it was here.

        All of it is read before anything is said, as long as that is bearable: who is answered in the midst of sending
        may never see the answer. What is too long is returned as one byte more than is allowed.
        """
        length = call.field("content-length") or "0"
        if call.field("expect") and length.isdecimal() and int(length) > self._max_bytes:
            raise self._too_large(closes=True)  # the caller waits to be told to send it
        kept, size = bytearray(), 0
        try:
            async with fair_timeout(self._body_within_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    data = message.get("body", b"")
                    size += len(data)
                    kept += data[: self._max_bytes + 1 - len(kept)]
                    if not message.get("more_body", False):
                        return bytes(kept)
                    if size > self._max_bytes + MAX_DISCARDED:
                        raise self._too_large(closes=True)
        except TimeoutError:
            if len(kept) > self._max_bytes:
                raise self._too_large(closes=True) from None
            late = "The request took too long to arrive."
            raise Problem(408, "RequestTimeoutException", late, closes=True) from None

    def _too_large(self, *, closes: bool = False) -> Problem:
        words = f"A message has at most {self._max_bytes} bytes."
        return Problem(413, "PayloadTooLargeException", words, closes=closes)

    # Connections

    def _post(self, api: Api, call: Call) -> Answer:
        peer = self._peer(api, call.parts[0])
        _must_be_text(call.body)
        if not self._hub.has_room(peer, len(call.body)):
            raise Problem(429, "LimitExceededException", "The WebSocket client side buffer is full.")
        self._hub.send_to(peer, call.body)
        return Answer(200)

    def _get(self, api: Api, call: Call) -> Answer:
        peer = self._peer(api, call.parts[0])
        context: Context = peer.context
        last = max(peer.life.message_at, peer.message_out_at)
        connected_at = context.connected_at / 1_000
        # A loop's time is that of the beginning of its turn, so what it says of a moment ago may be before it.
        active_at = max(connected_at, self._clock() - (self._hub.now() - last))
        return _json(
            {
                "connectedAt": _iso(connected_at),
                "identity": {"sourceIp": context.identity.source_ip, "userAgent": context.identity.user_agent},
                "lastActiveAt": _iso(active_at),
            }
        )

    def _delete(self, api: Api, call: Call) -> Answer:
        """Close a connection; code and reason in the query go beyond AWS, which always says 1000."""
        peer = self._peer(api, call.parts[0])
        given = call.parameters()
        code = _close_code(given.get("code", str(NORMAL)))
        reason = given.get("reason", "" if "code" in given else NORMAL_REASON)
        if len(reason.encode()) > MAX_REASON_BYTES:
            raise _bad(f"reason: expected at most {MAX_REASON_BYTES} bytes of UTF-8, got {len(reason.encode())}.")
        self._hub.close(peer.id, code, reason)
        return Answer(204)

    def _peer(self, api: Api, connection: str) -> Peer:
        """The open connection of that id, if it is the API's.

        Raises:
            Problem: it is none, or not the API's.

        """
        _must_be_id(connection)
        peer = self._hub.get(connection)
        if peer is None or peer.life.phase or not _is_of(peer.context, api):
            raise Problem(410, "GoneException", None)
        return peer

    # Groups

    def _publish(self, api: Api, call: Call) -> Answer:
        """Send to all members but one; who does not read loses a droppable message, or else the connection (4408)."""
        group = _group_of(api, call.parts[0])
        given = call.parameters()
        exclude = given.get("exclude")
        if exclude is not None:
            _must_be_id(exclude)
        droppable = _truth("droppable", given.get("droppable", "false"))
        _must_be_text(call.body)
        members = self._hub.members(group)
        meant = len(members) - (exclude is not None and self._hub.get(exclude) in members)
        dropped = sum(peer.congested and peer.id != exclude for peer in members) if droppable else 0
        self._hub.publish(group, call.body, droppable=droppable, exclude=exclude)
        return _json({"sent": meant - dropped, "dropped": dropped})

    def _list(self, api: Api, call: Call) -> Answer:
        """How many members a group has, and their ids, a page at a time in their own order."""
        group = _group_of(api, call.parts[0])
        given = call.parameters()
        limit = given.get("limit", str(PAGE))
        if not (limit.isascii() and limit.isdecimal() and len(limit) <= 4 and 1 <= int(limit) <= MAX_PAGE):
            raise _bad(f"limit: expected a number from 1 to {MAX_PAGE}, got {limit!r}.")
        after = given.get("nextToken", "")
        if after:
            _must_be_id(after)
        members = self._hub.members(group)
        ids = heapq.nsmallest(int(limit) + 1, (peer.id for peer in members if peer.id > after))
        page = ids[: int(limit)]
        more = {"nextToken": page[-1]} if len(ids) > len(page) else {}
        return _json({"count": len(members), "connections": page, **more})

    def _join(self, api: Api, call: Call) -> Answer:
        group = _group_of(api, call.parts[0])
        peer = self._peer(api, call.parts[2])
        if not self._hub.join(group, peer.id):
            raise Problem(410, "GoneException", None)
        return Answer(204)

    def _leave(self, api: Api, call: Call) -> Answer:
        group = _group_of(api, call.parts[0])
        self._hub.leave(group, self._peer(api, call.parts[2]).id)
        return Answer(204)


def _read(scope: Any) -> Call:  # Any: ASGI's
    raw: bytes = scope.get("raw_path") or quote(scope["path"], safe="/%@=:+~").encode()
    path = raw.partition(b"?")[0].decode("latin-1")
    found = _CONCERNED.fullmatch(path)
    if found is None:  # it was something else before it was decoded
        raise Problem(403, "ForbiddenException", "Forbidden")
    rest = found["rest"] or ""
    return Call(
        method=scope["method"],
        path=path,
        query=scope["query_string"].decode("latin-1"),
        fields=[(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]],
        prefix=unquote(found["prefix"]),
        kind=found["kind"],
        parts=tuple(unquote(part) for part in rest[1:].split("/")) if rest else (),
    )


async def _send(send: Send, answer: Answer, close: bool) -> None:
    request_id = str(uuid.UUID(bytes=random_bytes(16), version=4)).encode()
    headers = [(b"x-amzn-requestid", request_id)]
    if answer.status != 204:
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(answer.body)).encode())]
    if answer.error is not None:
        headers.append((b"x-amzn-errortype", answer.error.encode()))
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _json(document: dict[str, Any]) -> Answer:  # Any: JSON's values
    return Answer(200, msgspec.json.encode(document))


def _iso(epoch_s: float) -> str:
    """As AWS writes times: ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _bad(message: str) -> Problem:
    return Problem(400, "BadRequestException", message)


def _must_be_id(connection: str) -> None:
    if not _CONNECTION.fullmatch(connection):
        raise _bad(f"Invalid connectionId: {connection}")


def _must_be_text(body: bytes) -> None:
    """Refuse what no text frame may carry; AWS sends it, and the client then fails the connection (inferred)."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise _bad(f"A message is text in UTF-8; this is not, at byte {error.start}. Send bytes in base64.") from None


def _close_code(text: str) -> int:
    """A code that applications may give (RFC 6455, section 7.4.2)."""
    code = int(text) if text.isascii() and text.isdecimal() and len(text) == 4 else 0
    if code != NORMAL and not 3000 <= code <= 4999:
        raise _bad(f"code: expected 1000 or 3000 to 4999, got {text!r}.")
    return code


def _truth(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise _bad(f"{name}: expected true or false, got {text!r}.")
    return text == "true"


def _group_of(api: Api, group: str) -> str:
    """The hub's name of an API's group: no other API or stage has it, and nor has a room of the chat (for its `@`)."""
    if not _GROUP.fullmatch(group):
        raise _bad(f"Invalid group: expected 1 to 128 of A-Z a-z 0-9 _ . ~ : @ = + # -, got {group!r}")
    return f"@{api.id}/{api.stage}/{group}"


def _is_of(context: Context | None, api: Api) -> bool:
    return context is not None and context.api.id == api.id and context.api.stage == api.stage
