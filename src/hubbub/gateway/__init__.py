"""The WebSocket gateway: it moves frames, speaks API Gateway's contract and knows nothing of chat."""

from hubbub.gateway.connection import Rules
from hubbub.gateway.hub import Hub
from hubbub.gateway.server import Gateway, GatewayLimits

__all__ = ["Gateway", "GatewayLimits", "Hub", "Rules"]
