"""Anybody's WebSocket stack on this machine: templates, functions, the resources that they use, behind our gateway.

`async with hubbub.emulator.run("template.yaml") as stack:` runs one; where nothing is asynchronous it is
`with hubbub.emulator.BackgroundStack(…)`. It needs `pip install 'hubbub[local]'`; each name is imported when it is
first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hubbub.emulator.background import BackgroundStack
    from hubbub.emulator.running import RunningStack, run

_HOMES = {
    "BackgroundStack": "hubbub.emulator.background",
    "RunningStack": "hubbub.emulator.running",
    "run": "hubbub.emulator.running",
}

__all__ = ["BackgroundStack", "RunningStack", "run"]


def __getattr__(name: str) -> Any:  # Any: every public name has its own type
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
