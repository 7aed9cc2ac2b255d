"""The chat page and its files, and the development token that lets the page in without a backend."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
from starlette.datastructures import URL
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from hubbub.api.endpoint import error_response, read_body
from hubbub.errors import BadRequest, Forbidden, HubbubError, NotFound
from hubbub.model import Name, UserId
from hubbub.protocol import User_

CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}
"""The types of the page's files; the machine's own table of types is not to be trusted with a page's security."""

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_TOKEN_REQUEST_BYTES = 4_096

_HOST = re.compile(r"^(?:[A-Za-z0-9.\-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\Z")


def content_policy(host: str) -> str:
    """The page's Content-Security-Policy; sockets only to the host that served it.

    CSP level 3 counts `ws:` as `'self'`, older browsers do not: so the host is named, if it is a host at all.
    """
    sockets = f" ws://{host} wss://{host}" if _HOST.match(host) else ""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: https:; "
        f"connect-src 'self'{sockets}; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class PageFiles(StaticFiles):
    """The files of the page: typed by our own table, asked for again each time and sent only when they changed."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Add what the file's response needs."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        suffix = Path(full_path).suffix
        if isinstance(response, FileResponse):  # and no 304
            response.headers["Content-Type"] = CONTENT_TYPES.get(suffix, "application/octet-stream")
        if suffix == ".html":  # a 304 too: its headers replace those that the browser has kept (RFC 9111, section 3.2)
            response.headers["Content-Security-Policy"] = content_policy(Request(scope).headers.get("host", ""))
        return response


def page_routes(folder: Path, *, websocket: str = "/ws") -> list[BaseRoute]:
    """`/`, `/web/<file>` and `/js/hubbub.js`, from the package's `web` folder.

    Args:
        folder: that folder.
        websocket: the path of the WebSocket, which `/web/chat.json` tells the page.

    """
    files = PageFiles(directory=folder, follow_symlink=True, check_dir=False)

    async def index(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    async def library(request: Request) -> Response:
        return await files.get_response("hubbub.js", request.scope)

    async def told(request: Request) -> Response:
        body = msgspec.json.encode({"path": websocket})
        return Response(body, headers={"Cache-Control": "no-cache"}, media_type="application/json")

    return [
        Route("/", index),
        Route("/js/hubbub.js", library),
        Route("/web/chat.json", told),
        Mount("/web", files),
    ]


class AskToken(msgspec.Struct, forbid_unknown_fields=True):
    """Who somebody wants to be, while developing."""

    user: User_
    name: Annotated[Name | None, msgspec.Meta(description="shown to others")] = None


class DevToken(msgspec.Struct):
    """A token, and when it runs out, epoch seconds."""

    token: str
    expires_at: int


Mint = Callable[[UserId, str | None], DevToken]
"""Issues a token for a user id and a display name."""


def dev_token_routes(mint: Mint) -> list[BaseRoute]:
    """`POST /dev/token`: a token for whoever asks from this machine, for `hubbub serve --dev` only.

    Another site's page in the same browser must not get one. It can neither send JSON here nor read the answer without
    a CORS permission that is never given; a foreign `Origin` is refused; and a name that was made to point to this
    machine (DNS rebinding) is not in the list of hosts.
    """
    decoder = msgspec.json.Decoder(AskToken)

    async def token(request: Request) -> Response:
        try:
            _require_own_page(request)
            body = await read_body(request, max_bytes=MAX_TOKEN_REQUEST_BYTES, timeout_s=10.0)
            try:
                ask = decoder.decode(body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise BadRequest(f'Expected {{"user": …, "name": …}}: {error}') from error
            answer = mint(ask.user, ask.name)
        except HubbubError as error:
            return error_response(error)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        return Response(
            msgspec.json.encode(answer), headers={"Cache-Control": "no-store"}, media_type="application/json"
        )

    return [Route("/dev/token", token, methods=["POST"])]


def no_dev_token_routes() -> list[BaseRoute]:
    """`/dev/token` where nobody may have one: says what to do instead."""

    async def token(request: Request) -> Response:
        words = "Without --dev this server gives no tokens away; your own backend issues them, or `hubbub token` does."
        return error_response(NotFound(words))

    return [Route("/dev/token", token, methods=["POST"])]


def _require_own_page(request: Request) -> None:
    """Refuse whoever is not on this machine, or is a page of another site.

    Raises:
        Forbidden: so.
        BadRequest: it is no JSON.

    """
    host = request.headers.get("host", "")
    name = URL(f"http://{host}").hostname if _HOST.match(host) else None
    if name not in LOOPBACK_NAMES:
        raise Forbidden("Development tokens are for http://localhost and http://127.0.0.1 only.")
    peer = request.client.host if request.client else ""
    try:
        local = ipaddress.ip_address(peer).is_loopback
    except ValueError:
        local = False
    if not local:
        raise Forbidden("Development tokens are only given to this machine.")
    origin = request.headers.get("origin")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        raise Forbidden("Development tokens are only given to this server's own page.")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Forbidden("Development tokens are only given to this server's own page.")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise BadRequest("Expected the content type application/json.")
