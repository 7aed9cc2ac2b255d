"""The application: WebSockets with Django's sessions and users, as the tutorial wraps them."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "channels_chat.settings")
pages = get_asgi_application()  # before anything that needs Django's apps

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.urls import path  # noqa: E402

from channels_chat.consumers import ChatConsumer  # noqa: E402

sockets = URLRouter([path("ws/chat/<str:room>/", ChatConsumer.as_asgi())])
application = ProtocolTypeRouter(
    {"http": pages, "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(sockets))}
)
