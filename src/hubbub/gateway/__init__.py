"""The WebSocket gateway: it moves frames, speaks API Gateway's contract and knows nothing of chat."""

from hubbub.gateway.connection import Rules
from hubbub.gateway.hub import Hub
from hubbub.gateway.quotas import PROFILES, Account, GatewayLimits, profile
from hubbub.gateway.server import Gateway
from hubbub.gateway.sites import Sites

__all__ = ["PROFILES", "Account", "Gateway", "GatewayLimits", "Hub", "Rules", "Sites", "profile"]
