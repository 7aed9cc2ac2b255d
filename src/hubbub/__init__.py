"""Hubbub: a scalable chat backend made of small stateless functions behind a WebSocket gateway.

The public names; each is imported when it is first used, so that `import hubbub` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hubbub import errors
    from hubbub.app import Node
    from hubbub.chat import Caller, Chat, ChatLimits
    from hubbub.client import Client, connect
    from hubbub.management import ManagementClient
    from hubbub.model import Entry, Principal, Role, RoomKind
    from hubbub.protocol import Ask, Done, Result, Signal

__version__ = "0.5.0"

_HOMES = {
    "Ask": "hubbub.protocol",
    "Caller": "hubbub.chat",
    "Chat": "hubbub.chat",
    "ChatLimits": "hubbub.chat",
    "Client": "hubbub.client",
    "Done": "hubbub.protocol",
    "Entry": "hubbub.model",
    "ManagementClient": "hubbub.management",
    "Node": "hubbub.app",
    "Principal": "hubbub.model",
    "Result": "hubbub.protocol",
    "Role": "hubbub.model",
    "RoomKind": "hubbub.model",
    "Signal": "hubbub.protocol",
    "connect": "hubbub.client",
}

__all__ = [
    "Ask",
    "Caller",
    "Chat",
    "ChatLimits",
    "Client",
    "Done",
    "Entry",
    "ManagementClient",
    "Node",
    "Principal",
    "Result",
    "Role",
    "RoomKind",
    "Signal",
    "__version__",
    "connect",
    "errors",
]


def __getattr__(name: str) -> Any:  # Any: every public name has its own type
    if name in ("emulator", "errors"):
        return import_module(f"hubbub.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'hubbub' has no attribute {name!r}")
    return getattr(import_module(home), name)
