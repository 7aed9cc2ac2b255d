"""The names that a template gives to Lambda, as in `Handler: hubbub.lambdas.handlers.message`.

Each is loaded when the runtime looks it up, which is while the environment starts: a function loads what it runs, and
nothing of what the others do.

| handler | for |
|---|---|
| `handler` | every route of the WebSocket API, in one function |
| `connect`, `disconnect`, `message` | `$connect`; `$disconnect`; every other route, in functions of their own |
| `authorize` | the REQUEST authorizer of `$connect` |
| `broadcast` | what is handed over for delivery: asynchronous invocations, or an SQS queue |
| `sweep` | a schedule, each minute |
| `backend` | the customer's backend: an HTTP API (payload format 2.0) or a function URL |
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hubbub.lambdas.authorizer import authorize
    from hubbub.lambdas.backend import backend
    from hubbub.lambdas.broadcast import broadcast
    from hubbub.lambdas.sweep import sweep
    from hubbub.lambdas.websocket import connect, disconnect, handler, message

__all__ = ["authorize", "backend", "broadcast", "connect", "disconnect", "handler", "message", "sweep"]

_HOMES = {
    "authorize": "authorizer",
    "backend": "backend",
    "broadcast": "broadcast",
    "connect": "websocket",
    "disconnect": "websocket",
    "handler": "websocket",
    "message": "websocket",
    "sweep": "sweep",
}


def __getattr__(name: str) -> Any:  # Any: each handler has its own event and answer
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(
            f"module 'hubbub.lambdas.handlers' has no handler {name!r}; there are {', '.join(__all__)}"
        )
    return getattr(import_module(f"hubbub.lambdas.{home}"), name)
