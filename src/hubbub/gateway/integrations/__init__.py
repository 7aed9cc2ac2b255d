"""What a route calls: each kind of integration, made into a `Handler` from its definition, and how handlers are run."""

from hubbub.gateway.integrations.calls import InProcess
from hubbub.gateway.integrations.definition import Integration, IntegrationResponse, Invoke, Invoked, Services

__all__ = ["InProcess", "Integration", "IntegrationResponse", "Invoke", "Invoked", "Services"]
