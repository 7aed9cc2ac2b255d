"""What a flag of a command is that has many of them. By itself, since the command line reads it at every call."""

from __future__ import annotations

from typing import NamedTuple


class Flag(NamedTuple):
    """A flag of the command: without `metavar` a switch."""

    name: str
    help: str
    metavar: str | None
    panel: str
    default: str = ""
