"""The handler of the HTTP API for the customer's backend: `/v1`, as every home has it, and its health."""

from __future__ import annotations

import asyncio
import logging

from starlette.types import ASGIApp

import hubbub
from hubbub import api
from hubbub.api.endpoint import error_response
from hubbub.errors import Unavailable
from hubbub.lambdas.asgi import HttpEvent, request
from hubbub.lambdas.home import Home
from hubbub.lambdas.invocation import Document, Function, Invocation
from hubbub.lambdas.measuring import measured

logger = logging.getLogger("hubbub.lambdas")

REPLY_MARGIN_S = 1.0
"""How long before the invocation ends a caller is told that it took too long."""

SETTLE_S = 5.0
"""How long hooks may keep an answer waiting."""


class Backend:
    """Answers requests with the application of a home, made when the first one comes."""

    def __init__(self) -> None:
        self._app: ASGIApp | None = None

    async def answer(self, home: Home, event: HttpEvent, call: Invocation) -> Document:
        """Answer a request."""
        call.measures.said |= {"event": "HTTP", "method": event.request_context.http.method}
        try:
            async with asyncio.timeout(call.left_s(REPLY_MARGIN_S)):
                app = await self.load(home)
                chat = await home.chat()
                with measured(chat, call.measures):
                    document = await request(app, event)
                    await chat.settle(min(SETTLE_S, call.left_s(2 * REPLY_MARGIN_S)))
        except (Unavailable, TimeoutError) as error:
            logger.warning("not answered: %s", error or "it took too long")
            call.measures.counts["Errors"] += 1
            return _unavailable()
        call.measures.said["status"] = document["statusCode"]
        return document

    async def load(self, home: Home) -> ASGIApp:
        """The application.

        Raises:
            Unavailable: the table does not answer.

        """
        if self._app is None:
            chat = await home.chat()
            keeper = api.Doorkeeper(chat, await home.tokens())
            health = api.health_routes(needs=chat.store.ping, draining=lambda: False)
            self._app = api.create_app([*health, *api.backend_routes(keeper, version=hubbub.__version__)])
        return self._app

    async def warm(self, home: Home) -> None:
        """Be ready for the first request, and for the token that it brings."""
        await self.load(home)
        await home.warm_tokens()


def _unavailable() -> Document:
    response = error_response(Unavailable())
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    return {"statusCode": response.status_code, "headers": headers, "body": bytes(response.body).decode()}


def _ids_of(event: HttpEvent) -> dict[str, str]:
    request_id = event.request_context.request_id
    return {"request_id": request_id} if request_id else {}


_backend = Backend()

backend = Function(_backend.answer, takes=HttpEvent, about=_ids_of, warm=_backend.warm)
"""The HTTP API."""
