"""One row of the HTTP API's table: how a request becomes a struct, who may ask, and how results and errors go back.

A row's `ask` struct names every field once: those in the path template come from the path, the others from the query
(GET, DELETE) or from the JSON body. The document is generated from the same rows.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from hubbub.apigateway import new_id
from hubbub.chat import Chat
from hubbub.errors import BadRequest, Forbidden, HubbubError, Internal, TooLarge, Unauthorized, Unavailable
from hubbub.fair_timeout import fair_timeout
from hubbub.model import Principal
from hubbub.ports import TokenVerifier

logger = logging.getLogger("hubbub.api")

MAX_BODY_BYTES = 64 * 1024
"""The default limit of a request's body."""

BODY_TIMEOUT_S = 30.0
"""How long a request's body may take to arrive."""


class Fields(msgspec.Struct, kw_only=True):
    """Base of what a request carries, wherever in the request it stands."""


Handle = Callable[[Chat, Any], Awaitable[Any]]  # Any: each row has its own Fields and its own result


class Endpoint:
    """One row of the table.

    Args:
        method: GET, POST, PUT, PATCH or DELETE.
        path: a template such as `/v1/rooms/{room}`.
        handle: `async def f(chat, ask) -> result`; its docstring is the row's summary and description.
        ask: a subclass of `Fields`.
        result: the struct that answers; None for an empty answer.
        status: the HTTP status of success.
        errors: what can go wrong here beyond what can everywhere (400, 401, 403, 500, 503).

    """

    def __init__(
        self,
        method: str,
        path: str,
        handle: Handle,
        *,
        ask: type[Fields],
        result: type[Any] | None,
        status: int = 200,
        errors: tuple[type[HubbubError], ...] = (),
    ) -> None:
        self.method = method
        self.path = path
        self.handle = handle
        self.ask = ask
        self.result = result
        self.status = status
        self.errors = errors
        names = re.findall(r"{(\w+)}", path)
        fields = {field.name: field for field in msgspec.structs.fields(ask)}
        if missing := set(names) - fields.keys():
            raise TypeError(f"{method} {path}: {ask.__name__} lacks {', '.join(sorted(missing))}")
        rest = [field for name, field in fields.items() if name not in names]
        self.in_body = method in ("POST", "PUT", "PATCH") and bool(rest)
        # Three views of one struct, so that each part of a request is checked by the same annotations.
        self.path_part = _part(f"{ask.__name__}Path", ask, [fields[name] for name in names])
        self.query_part = _part(f"{ask.__name__}Query", ask, [] if self.in_body else rest)
        self.body_part = _part(ask.__name__, ask, rest if self.in_body else [])
        self._body = msgspec.json.Decoder(self.body_part)

    def __repr__(self) -> str:
        return f"<Endpoint {self.method} {self.path}>"

    @property
    def route_path(self) -> str:
        """The path as Starlette wants it; user ids may contain slashes."""
        return self.path.replace("{user}", "{user:path}")

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.handle.__doc__ or "").strip().split("\n", 1)[0]

    @property
    def description(self) -> str:
        """The rest of the docstring."""
        lines = (self.handle.__doc__ or "").strip().split("\n")[1:]
        return " ".join(line.strip() for line in lines).strip()

    def decode(self, path: Mapping[str, str], query: list[tuple[str, str]], body: bytes) -> Fields:
        """Make the row's struct of the parts of a request.

        Raises:
            BadRequest: something is missing, unknown, of the wrong type or outside its limits; the message names it.

        """
        repeated = [name for name, count in Counter(name for name, _ in query).items() if count > 1]
        if repeated:
            raise BadRequest(f"The query has {repeated[0]!r} twice.")
        try:
            where = "path"
            known = msgspec.structs.asdict(msgspec.convert(dict(path), self.path_part, strict=False))
            where = "query"
            known |= msgspec.structs.asdict(msgspec.convert(dict(query), self.query_part, strict=False))
            where = "body"
            if self.in_body:
                part = self._body.decode(body.decode())  # or what is only passed on would not be checked to be UTF-8
                known |= {field: getattr(part, field) for field in self.body_part.__struct_fields__}
        except msgspec.ValidationError as error:
            raise BadRequest(f"In the {where}: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"The body is not JSON: {error}") from error
        except RecursionError as error:
            raise BadRequest("The body is nested too deeply.") from error
        return self.ask(**known)


def _part(name: str, ask: type[Fields], fields: list[msgspec.structs.FieldInfo]) -> type[msgspec.Struct]:
    """A struct of some of `ask`'s fields that names fields it does not know."""

    def definition(field: msgspec.structs.FieldInfo) -> Any:  # Any: a tuple of two or of three, as defstruct takes it
        if field.required:
            return field.name, field.type
        if field.default_factory is not msgspec.NODEFAULT:
            return field.name, field.type, msgspec.field(default_factory=field.default_factory)
        return field.name, field.type, field.default

    return msgspec.defstruct(
        name,
        [definition(field) for field in fields],
        namespace={"__doc__": ask.__doc__},
        kw_only=True,
        forbid_unknown_fields=True,
    )


class Doorkeeper:
    """Decides who is the customer's backend, reads bodies within bounds, and counts.

    Args:
        chat: what the rows work on.
        tokens: verifies the bearer tokens.
        max_body_bytes: the limit of a body.
        body_timeout_s: how long a body may take to arrive, seconds.

    Attributes:
        requests: answered requests by (method, path template, status).

    """

    def __init__(
        self,
        chat: Chat,
        tokens: TokenVerifier,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        body_timeout_s: float = BODY_TIMEOUT_S,
    ) -> None:
        self.chat = chat
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self._tokens = tokens
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s

    def route(self, endpoint: Endpoint) -> Route:
        """The Starlette route that serves a row."""

        async def answer(request: Request) -> Response:
            response = await self._answer(endpoint, request)
            self.requests[endpoint.method, endpoint.path, response.status_code] += 1
            return response

        return Route(endpoint.route_path, answer, methods=[endpoint.method], name=repr(endpoint))

    async def _answer(self, endpoint: Endpoint, request: Request) -> Response:
        request_id = new_id()
        try:
            await self._admit(request)
            body = await self._read(request) if endpoint.in_body else b""
            ask = endpoint.decode(request.path_params, request.query_params.multi_items(), body)
            result = await endpoint.handle(self.chat, ask)
        except HubbubError as error:
            logger.info(
                "%s %s refused: %s", endpoint.method, endpoint.path, error.code, extra={"request_id": request_id}
            )
            return error_response(error, request_id)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception:
            logger.exception("%s %s failed", endpoint.method, endpoint.path, extra={"request_id": request_id})
            return error_response(Internal(), request_id)
        headers = {"X-Request-Id": request_id, "Cache-Control": "no-store"}
        if endpoint.result is None:
            return Response(status_code=endpoint.status, headers=headers)
        return Response(
            msgspec.json.encode(result), status_code=endpoint.status, headers=headers, media_type="application/json"
        )

    async def _admit(self, request: Request) -> None:
        """Let the customer's backend pass, and nobody else.

        Raises:
            Unauthorized, TokenExpired: no token, or none that verifies (RFC 6750).
            Forbidden: the token has no scope `server`.

        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized("This needs the header `Authorization: Bearer <token>`.")
        principal = await self._tokens.verify(token.strip())
        if not principal.is_server:
            raise Forbidden(f"This needs a token with the scope {Principal.SERVER!r}.")
        await self.chat.admit(principal)

    async def _read(self, request: Request) -> bytes:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if (
            not kind
            and request.headers.get("content-length", "0") == "0"
            and "transfer-encoding" not in request.headers
        ):
            return b"{}"  # nothing to say: every field has its default, or is named as missing
        if kind != "application/json":
            raise BadRequest(f"Expected the content type application/json, got {kind or 'none'!r}.")
        return await read_body(request, max_bytes=self._max_body_bytes, timeout_s=self._body_timeout_s)


async def read_body(request: Request, *, max_bytes: int, timeout_s: float) -> bytes:
    """The request's body.

    Raises:
        TooLarge: it is longer than `max_bytes`.
        BadRequest: it did not arrive within `timeout_s` seconds.

    """
    too_large = TooLarge(f"A body has at most {max_bytes} bytes.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large
    body = bytearray()
    try:
        async with fair_timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise too_large
    except TimeoutError as error:
        raise BadRequest(f"The body did not arrive within {timeout_s:g} s.") from error
    return bytes(body)


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """What went wrong: `code` for programs, `message` for people, and whether trying again can help."""

    code: str
    message: str
    retry: bool
    retry_after_ms: int | None = None
    request_id: str | None = None


class ErrorDocument(msgspec.Struct):
    """The body of every answer that is no success."""

    error: ErrorBody


def error_response(
    error: HubbubError, request_id: str | None = None, *, status: int | None = None, headers: Mapping[str, str] = {}
) -> Response:
    """The answer that tells of `error`; `status` where HTTP has a more exact one than the error's own."""
    document = ErrorDocument(ErrorBody(error.code, error.message, error.retry, error.retry_after_ms, request_id))
    extra = {"Cache-Control": "no-store", **headers}
    if request_id is not None:
        extra["X-Request-Id"] = request_id
    if error.status == Unauthorized.status:
        extra["WWW-Authenticate"] = 'Bearer realm="hubbub"'  # RFC 6750, section 3
    if error.retry_after_ms is not None:
        extra["Retry-After"] = str(math.ceil(error.retry_after_ms / 1_000))
    elif error.status == Unavailable.status:
        extra["Retry-After"] = "1"
    return Response(
        msgspec.json.encode(document),
        status_code=status or error.status,
        headers=extra,
        media_type="application/json",
    )
