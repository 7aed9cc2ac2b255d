"""The view that the gateway calls with every event."""

from __future__ import annotations

import json
import os
from http.cookies import SimpleCookie
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from chat.models import Connection
from hubbub import ManagementClient

ROOM = "lobby"

calls = Webhook(os.environ["HUBBUB_HANDLER_SECRET"])


@csrf_exempt  # the gateway has no form; its calls are signed
@require_POST
def events(request: HttpRequest) -> HttpResponse:
    """Every event of every connection."""
    try:
        event = calls.verify(request.body, dict(request.headers))
    except (WebhookVerificationError, ValueError):
        raise PermissionDenied from None
    context = event["requestContext"]
    match context["routeKey"]:
        case "$connect":
            return connect(context["connectionId"], event["headers"])
        case "$disconnect":
            Connection.objects.filter(id=context["connectionId"]).delete()  # it leaves the room by itself
            return HttpResponse()
        case "join":
            return join(context["connectionId"])
        case "say":
            return say(context["connectionId"], json.loads(event["body"]))
        case _:
            # With 200: any other status is a failure of this function, and the client is told no more than that.
            return JsonResponse({"error": "expected an action: join or say"})


def connect(connection: str, headers: dict[str, str]) -> HttpResponse:
    """Let in who is logged in; another status is what the handshake is answered with."""
    user = user_of(headers)
    if not user.is_authenticated:
        return JsonResponse({"message": "Log in first."}, status=401)
    Connection.objects.create(id=connection, user_id=user.pk)
    return HttpResponse()


def user_of(headers: dict[str, str]) -> AbstractBaseUser | AnonymousUser:
    """Whose session the cookies of a handshake name."""
    cookies = SimpleCookie(next((value for name, value in headers.items() if name.lower() == "cookie"), ""))
    session = cookies.get(settings.SESSION_COOKIE_NAME)
    handshake = HttpRequest()
    handshake.session = SessionStore(session.value if session else None)
    return get_user(handshake)


def join(connection: str) -> HttpResponse:
    """Put a connection into the room. It cannot be done on `$connect`, since it is not there before the answer."""

    async def ask(gateway: ManagementClient) -> None:
        await gateway.join(ROOM, connection)

    call_gateway(ask)
    user = get_object_or_404(Connection, id=connection).user
    return JsonResponse({"type": "joined", "as": user.get_username()})


def say(connection: str, message: dict[str, Any]) -> HttpResponse:
    """Give everybody in the room what somebody says, in one call."""
    user = get_object_or_404(Connection, id=connection).user
    said = json.dumps({"type": "said", "by": user.get_username(), "text": str(message.get("text", ""))})

    async def ask(gateway: ManagementClient) -> None:
        await gateway.publish(ROOM, said)

    call_gateway(ask)
    return HttpResponse()


def call_gateway(ask: Any) -> None:
    """Call the gateway, with the key in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""

    async def call() -> None:
        async with ManagementClient(settings.GATEWAY_URL) as gateway:
            await ask(gateway)

    async_to_sync(call)()
