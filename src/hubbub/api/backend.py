"""The HTTP API for the customer's backend, whole: its table, its document and its page."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hubbub.api import document, messages, rooms, users
from hubbub.api.endpoint import Doorkeeper

ENDPOINTS = (*rooms.ENDPOINTS, *messages.ENDPOINTS, *users.ENDPOINTS)
"""The whole table, in the order the document shows it."""

DOCS_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def backend_routes(doorkeeper: Doorkeeper, *, version: str) -> list[BaseRoute]:
    """The routes under `/v1`; `version` is this software's, for the document."""
    description = document.openapi(ENDPOINTS, version)
    as_json = msgspec.json.encode(description)
    as_html = document.page(description)

    async def openapi(request: Request) -> Response:
        return Response(as_json, media_type="application/json")

    async def docs(request: Request) -> Response:
        return Response(as_html, media_type="text/html", headers={"Content-Security-Policy": DOCS_POLICY})

    async def style(request: Request) -> Response:
        return Response(document.STYLE, media_type="text/css", headers={"Cache-Control": "max-age=300"})

    return [
        Route("/v1/openapi.json", openapi),
        Route("/v1/docs", docs),
        Route("/v1/docs.css", style),
        *[doorkeeper.route(endpoint) for endpoint in ENDPOINTS],
    ]
