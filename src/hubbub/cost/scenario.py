"""What a chat is asked to bear: the inputs of the model, their bounds, and some chats to begin with.

Each input is one field with its default, its bounds and the sentence that `hubbub cost --help` shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

DAYS = 365 / 12
"""A month."""

HOURS = 24 * DAYS


SHAPES = {
    "serverless": "API Gateway, Lambda, DynamoDB",
    "instances": "our gateway on instances",
    "mix": "our gateway, Lambda, DynamoDB",
}
"""The three homes, and what each is made of."""


PARTS = ("bill", "quotas", "broadcasts")
"""What is said of a chat."""


class CostError(ValueError):
    """The model cannot be fed with this; the message says what was expected and what came."""


class Bounds(NamedTuple):
    """What an input may be, and what it means. A choice has `words`, everything else is a number."""

    help: str
    low: float = 0.0
    high: float = 0.0
    words: tuple[str, ...] = ()


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A chat, as the model sees it; `INPUTS` says what each field means."""

    rooms: int = 50
    members: int = 20
    rooms_per_user: float = 5.0
    devices: float = 1.2
    online: float = 0.6
    connected_hours: float = 8.0
    active_hours: float = 9.0
    sessions: float = 2.0
    reconnects_per_hour: float = 0.2
    messages_per_hour: float = 20.0
    messages_per_s: float = 0.0
    size_bytes: float = 200.0
    backend_share: float = 0.05
    reactions: float = 0.2
    typing: float = 2.0
    reads: float = 0.2
    crowd: int = 200
    history_pages: float = 4.0
    heartbeat_s: float = 240.0
    peak: float = 5.0
    kept_months: float = 12.0
    architecture: str = "arm64"
    transport: str = "lambda"
    database: str = "postgres"
    balancer: str = "nlb"


INPUTS: dict[str, Bounds] = {
    "rooms": Bounds("Rooms.", 1, 1e7),
    "members": Bounds("Members of a room.", 1, 1e7),
    "rooms_per_user": Bounds("Rooms that one user is in.", 1, 10_000),
    "devices": Bounds("Connections of a user who is online.", 1, 100),
    "online": Bounds("Share of a room's members who are connected when something is said, 0 to 1.", 0, 1),
    "connected_hours": Bounds("Hours a day that a user is connected.", 0, 24),
    "active_hours": Bounds("Hours of the day in which people write.", 0.01, 24),
    "sessions": Bounds("Times a day that a user comes and goes.", 0, 1_000),
    "reconnects_per_hour": Bounds("Reconnects of a connection an hour, beside the 2-hour limit.", 0, 3_600),
    "messages_per_hour": Bounds("Messages in a room in an active hour.", 0, 1e7),
    "messages_per_s": Bounds("Messages a second in all rooms, instead of the above; 0 for the above.", 0, 1e6),
    "size_bytes": Bounds("Size of a message's text.", 1, 100_000),
    "backend_share": Bounds("Share of the messages that your backend posts to /v1, 0 to 1.", 0, 1),
    "reactions": Bounds("Reactions to a message.", 0, 1e6),
    "typing": Bounds("Typing signals for a message.", 0, 1_000),
    "reads": Bounds("Read marks that a recipient sends for a message, 0 to 1.", 0, 1),
    "crowd": Bounds("Listeners above which typing, read marks and comings are not told to the room.", 0, 1e7),
    "history_pages": Bounds("Pages of history that a user reads in a day.", 0, 100_000),
    "heartbeat_s": Bounds("Seconds of silence after which a client asks whether the server is there.", 1, 86_400),
    "peak": Bounds("The busiest second of an active hour against its average.", 1, 10_000),
    "kept_months": Bounds("Months for which entries are kept; storage is counted when they are full.", 0, 1_200),
    "architecture": Bounds("Processor of the functions.", words=("arm64", "x86")),
    "transport": Bounds("How broadcasts are handed over.", words=("lambda", "sqs", "fifo")),
    "database": Bounds("Store of our gateway on instances.", words=("postgres", "dynamodb")),
    "balancer": Bounds("Load balancer of our gateway.", words=("nlb", "alb")),
}

PRESETS: dict[str, dict[str, float | str]] = {
    "team": {},
    "community": {
        "rooms": 200,
        "members": 500,
        "rooms_per_user": 4.0,
        "devices": 1.1,
        "online": 0.1,
        "connected_hours": 2.0,
        "active_hours": 14.0,
        "messages_per_hour": 30.0,
        "reads": 0.1,
        "reactions": 0.5,
    },
    "stream": {
        "rooms": 1,
        "members": 20_000,
        "rooms_per_user": 1.0,
        "devices": 1.0,
        "online": 0.5,
        "connected_hours": 1.5,
        "active_hours": 3.0,
        "sessions": 1.0,
        "messages_per_hour": 1_800.0,
        "size_bytes": 80.0,
        "backend_share": 0.0,
        "reactions": 0.0,
        "typing": 0.0,
        "reads": 0.0,
        "history_pages": 1.0,
        "peak": 3.0,
        "kept_months": 1.0,
    },
}
"""Chats to begin with: a company's rooms, an open community, an audience that watches something together."""


def flag(name: str) -> str:
    """An input's name as the command line and messages spell it."""
    return name.replace("_", "-")


def scenario(preset: str = "team", given: Mapping[str, str | float] | None = None) -> Scenario:
    """The preset's chat with what is given instead of its own.

    Raises:
        CostError: there is no such preset or input, or a value is out of its bounds.

    """
    if preset not in PRESETS:
        raise CostError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    values = {**PRESETS[preset], **(given or {})}
    return Scenario(**{name: checked(name, value) for name, value in values.items()})  # type: ignore[arg-type]  # by name


def checked(name: str, value: str | float) -> str | float:
    """An input's value, of its own type.

    Raises:
        CostError: there is no such input, or it cannot be this.

    """
    if name not in INPUTS:
        raise CostError(f"{flag(name)}: expected one of {', '.join(map(flag, INPUTS))}")
    bounds = INPUTS[name]
    if bounds.words:
        if value not in bounds.words:
            raise CostError(f"{flag(name)}: expected one of {', '.join(bounds.words)}, got {value!r}")
        return value
    whole = isinstance(getattr(Scenario(), name), int)
    kind = "a whole number" if whole else "a number"
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not bounds.low <= number <= bounds.high or (whole and number != int(number)):
        raise CostError(f"{flag(name)}: expected {kind} from {bounds.low:,g} to {bounds.high:,.0f}, got {value!r}")
    return int(number) if whole else number


def swept(text: str) -> tuple[str, list[str | float]]:
    """The input and its values of `members=10,100,1000`.

    Raises:
        CostError: it does not look so, or names no number, or a value cannot be.

    """
    written, separator, values = text.partition("=")
    name = written.strip().replace("-", "_")
    if not separator or not values.strip():
        raise CostError(f"sweep: expected NAME=VALUE,VALUE,… such as members=10,100,1000, got {text!r}")
    if name not in INPUTS:
        raise CostError(f"sweep: expected one of {', '.join(map(flag, INPUTS))} before the =, got {written!r}")
    return name, [checked(name, value.strip()) for value in values.split(",")]
