"""Whether frames are read and written by the accelerator in C or in plain Python: decided once, when a process starts.

The installation builds the accelerator where there is a C compiler. `HUBBUB_ACCELERATOR=0` leaves it alone, and
`HUBBUB_ACCELERATOR=1` ends the process where it is not there, so that nobody runs slower than he believes.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from hubbub.gateway import outlets

if TYPE_CHECKING:
    from hubbub.gateway.outlets import Outlet as Outlet
    from hubbub.gateway.outlets import flush as flush

WANTED = os.environ.get("HUBBUB_ACCELERATOR", "")
"""What the environment says: `1` for it must be used, `0` for it must not, nothing for where it is there."""

MODULE = "hubbub.gateway._accelerator"
"""What an `ImportError` that is raised here says that it is about."""

VERSION = 5
"""What of the accelerator's source belongs to this one. One that was built before a pull breaks each connection."""

if WANTED not in ("", "0", "1"):
    raise ImportError(f"expected HUBBUB_ACCELERATOR to be 0, 1 or empty, got {WANTED!r}", name=MODULE)

missing = "HUBBUB_ACCELERATOR=0" if WANTED == "0" else ""
"""Why it is not used; empty where it is."""

if not missing:
    try:
        _accelerator = importlib.import_module(MODULE)
        version = getattr(_accelerator, "VERSION", None)
        if version != VERSION:
            raise ImportError(f"expected version {VERSION} of its source, got {version}", name=MODULE)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError):
            missing = "it was not built: the installation found no C compiler, or no headers of Python"
        else:
            missing = f"it was built, and cannot be loaded ({error}); install Hubbub again"
        if WANTED == "1":
            raise ImportError(
                f"expected the accelerator, as HUBBUB_ACCELERATOR=1 says, got none: {missing}", name=MODULE
            ) from error

Intake: Any = None if missing else _accelerator.Intake
"""Reads many sockets in one go, see `hubbub.gateway.intake`; None where transports read themselves."""

if not TYPE_CHECKING:
    chosen = outlets if missing else _accelerator
    Outlet, flush = chosen.Outlet, chosen.flush


def is_used() -> bool:
    """Whether frames are read and written by the accelerator."""
    return not missing
