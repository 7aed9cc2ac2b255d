"""HTTP beside the WebSocket: the API for the customer's backend, health and metrics, the page.

`create_app` puts together what a port is to serve; which routes those are is decided by who assembles.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hubbub.api.backend import ENDPOINTS, backend_routes
from hubbub.api.endpoint import Doorkeeper, Endpoint, error_response
from hubbub.api.health import health_routes, metrics_routes
from hubbub.api.site import DevToken, dev_token_routes, no_dev_token_routes, page_routes
from hubbub.errors import BadRequest, HubbubError, Internal, NotFound

__all__ = [
    "ENDPOINTS",
    "DevToken",
    "Doorkeeper",
    "Endpoint",
    "backend_routes",
    "create_app",
    "dev_token_routes",
    "health_routes",
    "metrics_routes",
    "no_dev_token_routes",
    "page_routes",
]


def create_app(routes: Iterable[BaseRoute]) -> ASGIApp:
    """An application of these routes, with safe headers on every answer and errors in the one shape."""
    app = Starlette(
        routes=list(routes),
        exception_handlers={HTTPException: _http_error, Exception: _unforeseen},
    )
    app.router.redirect_slashes = False
    return SafeHeaders(app)


class SafeHeaders:
    """Adds to every answer what keeps a browser from guessing, framing and telling."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and the answer back with headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Referrer-Policy", "no-referrer")
                headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
            await send(message)

        await self._app(scope, receive, send_safely)


async def _http_error(request: Request, error: Exception) -> Response:
    """What Starlette refuses by itself: no such path, no such method."""
    assert isinstance(error, HTTPException)  # noqa: S101  as registered
    known: HubbubError
    if error.status_code == NotFound.status:
        known = NotFound(f"There is nothing at {request.url.path[:200]!r}.")
    elif error.status_code == 405:
        known = BadRequest(f"The method {request.method[:20]} is not allowed here.")
    else:
        known = BadRequest(error.detail)
    return error_response(known, status=error.status_code, headers=error.headers or {})


async def _unforeseen(request: Request, error: Exception) -> Response:
    """A defect outside `/v1`; Starlette raises it again for the server's log."""
    return error_response(Internal())
