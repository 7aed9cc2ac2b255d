"""What a load test is to do: made of the command's flags, checked, and handed to each of its processes.

What cannot be is refused here, in words that name the flag, what it expects and what came.
"""

from __future__ import annotations

import math
import re
import resource
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from hubbub.model import ROOM_ID_PATTERN

PER_ADDRESS = 20_000
"""Connections from one source address: below the ports that Linux gives to one (28,232 by default)."""

MOST_GRANTED = 30
"""Rooms that a token grants; beyond that it would outgrow a header, and the rooms are public ones."""

_FILES_BESIDE = 64
"""Open files that a process needs beside its connections."""


ALLOWABLE = ("doubled", "disordered", "refused")
"""What clients mend by themselves, so that a team may choose to bear it; nobody mends a loss."""


class PlanError(Exception):
    """What was asked for cannot be done; says which flag, what it expects, and what came."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A load test.

    Attributes:
        url: of the WebSocket.
        bench: the name of this run: its users, rooms and messages carry it.
        connections, rooms, rooms_each: how many listen, which rooms there are, and in how many of them each is.
        creates_rooms: whether the rooms are made; those that were named are not.
        rate, size_bytes, senders: messages a second in all, their text's size, and how many connections send.
        duration_s, ramp: how long it sends, and how many connections a second are opened before.
        deflates: whether permessage-deflate is offered.
        history: pages of history a second.
        storm: the share of the connections that is cut in the middle, 0 to 1.
        slow: how many connections do not read.
        secret, audience, issuer: tokens are made here, if there is a secret.
        token_url, token_header, tokens: or are fetched there, or read from this file.
        ca: a file of certificates to trust.
        pids: the server's processes; None where they are to be found by its port.
        processes, sources: how many processes, and from which addresses they connect; none for any.
        settle_s: how long answers and deliveries are waited for without any coming.
        max_ack_ms, max_delivery_ms: what the 99th percentiles may be.
        allowed: of `ALLOWABLE`, what does not fail it.

    """

    url: str
    bench: str
    connections: int = 100
    rooms: list[str]
    rooms_each: int = 1
    creates_rooms: bool = True
    rate: float = 10.0
    size_bytes: int = 200
    senders: int = 0
    duration_s: float = 30.0
    ramp: float = 500.0
    deflates: bool = True
    history: float = 0.0
    storm: float = 0.0
    slow: int = 0
    secret: str | None = None
    audience: str | None = None
    issuer: str | None = None
    token_url: str | None = None
    token_header: str | None = None
    tokens: str | None = None
    ca: str | None = None
    pids: list[int] | None = None
    processes: int = 1
    sources: list[str] = []
    settle_s: float = 10.0
    max_ack_ms: float | None = None
    max_delivery_ms: float | None = None
    allowed: list[str] = []

    @property
    def grants(self) -> bool:
        """Whether the tokens let their users into the rooms."""
        return self.secret is not None and self.rooms_each <= MOST_GRANTED

    @property
    def parts(self) -> bool:
        """Whether nobody is in more rooms than those of his connection: both are made here, and nobody else's."""
        return self.secret is not None and self.creates_rooms

    def rooms_of(self, member: int) -> list[str]:
        """The rooms of one connection; each room has as many listeners as any other, give or take one."""
        first = member * self.rooms_each
        return [self.rooms[(first + each) % len(self.rooms)] for each in range(self.rooms_each)]

    def first_in(self, room: int) -> int:
        """The connection that is the first in a room."""
        return room // self.rooms_each

    def members_of(self, process: int) -> range:
        """The connections that a process holds."""
        return range(process, self.connections, self.processes)

    def is_slow(self, member: int) -> bool:
        """Whether a connection does not read: the last ones."""
        return member >= self.connections - self.slow

    def storms(self, member: int) -> bool:
        """Whether a connection is cut in the storm; those that do not read are left."""
        return not self.is_slow(member) and member * 37 % 100 < self.storm * 100


class Bounds(NamedTuple):
    """What a number may be; `whole` for one that has no fraction."""

    low: float
    high: float
    whole: bool


_NUMBERS = {
    "connections": Bounds(1, 2_000_000, whole=True),
    "rooms": Bounds(1, 1_000_000, whole=True),
    "rooms_each": Bounds(1, 10_000, whole=True),
    "rate": Bounds(0, 1_000_000, whole=False),
    "size": Bounds(0, 1_000_000, whole=True),
    "senders": Bounds(1, 2_000_000, whole=True),
    "ramp": Bounds(0.1, 1_000_000, whole=False),
    "history": Bounds(0, 100_000, whole=False),
    "storm_share": Bounds(1, 100, whole=False),
    "slow": Bounds(0, 2_000_000, whole=True),
    "processes": Bounds(1, 1_000, whole=True),
    "source_addresses": Bounds(1, 10_000, whole=True),
    "max_ack": Bounds(0.001, 1e9, whole=False),
    "max_delivery": Bounds(0.001, 1e9, whole=False),
}

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600}


def plan(
    url: str,
    given: Mapping[str, object],
    *,
    secret: str | None = None,
    audience: str | None = None,
    issuer: str | None = None,
) -> Plan:
    """The load test that the flags ask for.

    Args:
        url: where to.
        given: the flags by name, `_` for `-`; what was not given is None or False.
        secret: to make tokens with if no flag says where they come from.
        audience, issuer: what such tokens carry.

    Raises:
        PlanError: it cannot be.

    """
    words = {name: str(value) for name, value in given.items() if value is not None and value is not False}
    numbers = {name: _number(name, words[name]) for name in _NUMBERS if name in words}
    whole = {name: int(value) for name, value in numbers.items()}
    _check_url(url)
    bench = secrets.token_hex(4)
    rooms, created = _rooms(words, whole, bench)
    connections, each = whole.get("connections", 100), whole.get("rooms_each", 1)
    slow = whole.get("slow", 0)
    if each > len(rooms):
        raise PlanError(f"rooms-each: expected at most the number of rooms ({len(rooms):,}), got {each:,}")
    if len(rooms) > connections * each:
        name = "rooms" if created else "room"
        raise PlanError(
            f"{name}: expected at most {connections * each:,} rooms, so that each has a listener (connections times "
            f"rooms-each), got {len(rooms):,}"
        )
    if slow >= connections:
        raise PlanError(f"slow: expected fewer than the connections ({connections:,}), got {slow:,}")
    access = _access(words, secret)
    grants = access["secret"] is not None and each <= MOST_GRANTED
    senders = whole.get("senders", _senders(numbers.get("rate", 10.0), len(rooms), connections - slow, grants=grants))
    if senders > connections - slow:
        raise PlanError(
            f"senders: expected at most the connections that read ({connections - slow:,}), got {senders:,}"
        )
    return Plan(
        url=url,
        bench=bench,
        connections=connections,
        rooms=rooms,
        creates_rooms=created,
        rooms_each=each,
        rate=numbers.get("rate", 10.0),
        size_bytes=whole.get("size", 200),
        senders=senders,
        duration_s=_duration("duration", words.get("duration", "30")),
        ramp=numbers.get("ramp", 500.0),
        deflates="no_deflate" not in words,
        history=numbers.get("history", 0.0),
        storm=_storm(words, numbers),
        slow=slow,
        audience=audience,
        issuer=issuer,
        **access,
        ca=_file("ca", words.get("ca")),
        pids=_pids(words.get("pid")),
        processes=_processes(whole.get("processes"), connections),
        sources=_sources(url, whole.get("source_addresses"), connections),
        settle_s=_duration("settle", words.get("settle", "10")),
        max_ack_ms=numbers.get("max_ack"),
        max_delivery_ms=numbers.get("max_delivery"),
        allowed=_allowed(words.get("allow")),
    )


def flag(name: str) -> str:
    """A flag as messages spell it."""
    return name.replace("_", "-")


def _number(name: str, text: str) -> float:
    bounds = _NUMBERS[name]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not bounds.low <= value <= bounds.high or (bounds.whole and value != int(value)):
        kind = "a whole number" if bounds.whole else "a number"
        raise PlanError(f"{flag(name)}: expected {kind} from {bounds.low:,g} to {bounds.high:,.0f}, got {text!r}")
    return value


def _duration(name: str, text: str) -> float:
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([smh]?)", text)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds <= 86_400:
        raise PlanError(f"{name}: expected a time up to a day such as 30, 30s, 5m or 1h, got {text!r}")
    return seconds


def _check_url(url: str) -> None:
    expected = "url: expected ws://HOST[:PORT]/PATH or wss://HOST[:PORT]/PATH"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise PlanError(f"{expected}, got {url!r}: {error}") from None
    if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.fragment or port == 0:
        raise PlanError(f"{expected}, got {url!r}")
    if parts.username is not None or parts.password is not None:
        raise PlanError("url: expected no user and no password in it; tokens say who connects")
    if re.search(r"[^\x21-\x7e]", url):
        raise PlanError(f"{expected}, of printable ASCII, got {url!r}")


def _rooms(words: Mapping[str, str], whole: Mapping[str, int], bench: str) -> tuple[list[str], bool]:
    """The rooms, and whether they are to be made."""
    if "room" not in words:
        return [f"bench-{bench}-{number}" for number in range(whole.get("rooms", 1))], True
    if "rooms" in whole:
        raise PlanError("rooms: expected no number of rooms beside the names that --room gives")
    names = words["room"].split(",")
    for name in names:
        if re.match(ROOM_ID_PATTERN, name) is None:
            raise PlanError(f"room: expected 1 to 64 characters of A-Z a-z 0-9 . _ : -, got {name!r}")
    if len(set(names)) < len(names):
        raise PlanError(f"room: expected each room once, got {words['room']!r}")
    return names, False


def _senders(rate: float, rooms: int, readers: int, *, grants: bool) -> int:
    """How many send: all who may; where each must first become a member, as few as stay well below rate limits."""
    return readers if grants else min(readers, max(rooms, math.ceil(rate / 10)))


def _storm(words: Mapping[str, str], numbers: Mapping[str, float]) -> float:
    if "storm_share" in numbers and "storm" not in words:
        raise PlanError("storm-share: expected --storm beside it")
    return numbers.get("storm_share", 100.0) / 100 if "storm" in words else 0.0


def _access(words: Mapping[str, str], secret: str | None) -> dict[str, str | None]:
    """Where tokens come from."""
    ways = [name for name in ("secret", "token_url", "tokens") if name in words]
    if len(ways) > 1:
        raise PlanError(f"{flag(ways[1])}: expected one way to tokens, got --{flag(ways[0])} too")
    if not ways and secret is None:
        raise PlanError(
            "secret: expected a way to tokens: --secret or HUBBUB_SECRET to make them, --token-url to fetch them, or "
            "--tokens with a file of them; got none, and there is no development secret in this folder"
        )
    if "token_header" in words:
        if "token_url" not in words:
            raise PlanError("token-header: expected --token-url beside it")
        if not re.fullmatch(r"[A-Za-z0-9-]+:[ \x21-\x7e]+", words["token_header"]):
            raise PlanError("token-header: expected NAME: VALUE such as 'Authorization: Basic …', got something else")
    token_url = words.get("token_url")
    if token_url is not None and not re.match(r"https?://[^/]", token_url):
        raise PlanError(f"token-url: expected http://… or https://…, got {token_url!r}")
    if "secret" in words and len(words["secret"].encode()) < 32:
        raise PlanError("secret: expected at least 32 bytes, as the server does, got fewer")
    return {
        "secret": words.get("secret", secret if not ways else None),
        "token_url": token_url,
        "token_header": words.get("token_header"),
        "tokens": _file("tokens", words.get("tokens")),
    }


def _file(name: str, path: str | None) -> str | None:
    if path is None:
        return None
    try:
        with Path(path).open("rb"):
            return str(Path(path).absolute())
    except OSError as error:
        raise PlanError(f"{name}: expected a file that can be read, got {path!r}: {error.strerror}") from None


def _allowed(text: str | None) -> list[str]:
    allowed = text.split(",") if text is not None else []
    for each in allowed:
        if each not in ALLOWABLE:
            raise PlanError(f"allow: expected {', '.join(ALLOWABLE)}, with commas between, got {each!r}")
    return allowed


def _pids(text: str | None) -> list[int] | None:
    if text is None:
        return None
    pids = [int(each) for each in text.split(",") if each.isdecimal() and Path(f"/proc/{each}").exists()]
    if len(pids) != len(text.split(",")):
        raise PlanError(f"pid: expected process ids of this machine with commas between, got {text!r}")
    return pids


def _processes(wanted: int | None, connections: int) -> int:
    """As many processes as were asked for, or as the open files of one make necessary."""
    most = _open_files() - _FILES_BESIDE
    needed = max(1, math.ceil(connections / most))
    if wanted is None:
        return needed
    if wanted < needed:
        raise PlanError(
            f"processes: expected at least {needed} for {connections:,} connections, since a process here may open "
            f"{most + _FILES_BESIDE:,} files (ulimit -Hn), got {wanted}"
        )
    if wanted > connections:
        raise PlanError(f"processes: expected at most the connections ({connections:,}), got {wanted}")
    return wanted


def _open_files() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1_048_576 if hard == resource.RLIM_INFINITY else hard


def raise_open_files() -> None:
    """Let this process open as many files as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _open_files()
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _sources(url: str, wanted: int | None, connections: int) -> list[str]:
    """Addresses of 127.0.0.0/8, when there are more connections than one has ports."""
    host = urlsplit(url).hostname or ""
    try:
        is_loopback = socket.gethostbyname(host).startswith("127.")
    except OSError:
        is_loopback = False  # what it is will be said when it is connected to
    if not is_loopback:
        if wanted not in (None, 1):
            raise PlanError(f"source-addresses: expected a URL on 127.0.0.0/8 beside it, got the host {host!r}")
        return []
    number = wanted or math.ceil(connections / PER_ADDRESS)
    if number == 1:
        return []
    # From 127.1.0.1 on, so that nothing that stands on 127.0.0.1 is disturbed.
    return [f"127.{1 + each // 62_500}.{each // 250 % 250}.{1 + each % 250}" for each in range(number)]
