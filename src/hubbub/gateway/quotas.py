"""What holds for the connections of a gateway, AWS's quotas among it, and the buckets that requests are taken from.

Source: developer guide, "Amazon API Gateway quotas", the tables for WebSocket APIs and for an account.
"""

from __future__ import annotations

import math

import msgspec

from hubbub.apigateway import CONNECT, Api, Rate
from hubbub.buckets import Buckets
from hubbub.gateway.hub import DEFAULT_OUTBOX_BYTES


class GatewayLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for the connections of a gateway; times in seconds.

    Attributes:
        max_message_bytes: the longest message from a client.
        max_frame_bytes: the longest frame of one; None for as long as a message.
        max_post_bytes: the longest message that `@connections` takes for a client.
        max_url_bytes: the longest target of a handshake; None for what the head has room for.
        accept_binary: whether binary messages reach the function in base64; otherwise they close with 1003.
        ping_after_s: after how long a silence a client is pinged, a fifth sooner where many would be at once; None for
            never.
        pong_within_s: how long it may then stay silent.
        pings_are_activity: whether a client's own pings keep its connection from being idle.
        idle_s, lifetime_s: how long a connection may be without messages, and live; None for no limit.
        outbox_bytes: how much may wait for a connection that does not read.
        deflate_min_bytes: from which length on what is sent is compressed for clients that offer that; None for never.
        max_connections: connections at a time; None for no limit.
        max_handshakes: handshakes that wait to be decided; None for no limit.
        max_in_flight: messages of one connection whose functions are under way; beyond it is not read from.
        handler_timeout_s: how long a function may take.
        handshake_timeout_s: how long the head of a request may take to arrive.
        max_header_bytes: how long it may be.
        connections: how often a connection may be opened in all; None for no limit.
        requests: how many messages from clients and calls of `@connections` there may be in all; None for no limit.

    """

    max_message_bytes: int = 32 * 1024
    max_frame_bytes: int | None = None
    max_post_bytes: int = 128 * 1024
    max_url_bytes: int | None = None
    accept_binary: bool = False
    ping_after_s: float | None = 40.0
    pong_within_s: float = 20.0
    pings_are_activity: bool = False
    idle_s: float | None = None
    lifetime_s: float | None = None
    outbox_bytes: int = DEFAULT_OUTBOX_BYTES
    deflate_min_bytes: int | None = None
    max_connections: int | None = None
    max_handshakes: int | None = None
    max_in_flight: int = 64
    handler_timeout_s: float = 29.0
    handshake_timeout_s: float = 10.0
    max_header_bytes: int = 16 * 1024
    connections: Rate | None = None
    requests: Rate | None = None


PROFILES = {
    "aws": GatewayLimits(
        max_message_bytes=128 * 1024,
        max_frame_bytes=32 * 1024,
        max_url_bytes=4_096,
        ping_after_s=None,
        idle_s=600.0,
        lifetime_s=7_200.0,
        max_in_flight=100_000,  # AWS reads on, however many functions are under way
        connections=Rate(500, 500),
        requests=Rate(10_000, 5_000),
    ),
    "none": GatewayLimits(max_message_bytes=16 * 1024 * 1024, max_post_bytes=16 * 1024 * 1024, accept_binary=True),
}
"""`aws`: a default account's quotas. `none`: nothing that would be in the way of trying something out."""


def profile(text: str) -> GatewayLimits:
    """The limits that are written as a profile's name, with other values behind it for a test that cannot wait.

    Args:
        text: such as `aws`, or `aws,idle_s=6,lifetime_s=20,requests=100/50` (a rate is per second / burst), or
            `aws,idle_s=none`.

    Raises:
        ValueError: there is no such profile, or no such limit, or that is none of its values.

    """
    name, *changes = [part.strip() for part in text.split(",")]
    if name not in PROFILES:
        raise ValueError(f"quotas: expected one of {', '.join(PROFILES)}, got {name!r}")
    limits = PROFILES[name]
    return msgspec.structs.replace(limits, **dict(_change(change) for change in changes if change))


def _change(text: str) -> tuple[str, object]:
    field, separator, value = text.partition("=")
    known = {each.name: each.type for each in msgspec.structs.fields(GatewayLimits)}
    if not separator or field not in known:
        raise ValueError(f"quotas: expected LIMIT=VALUE with a limit of {', '.join(known)}, got {text!r}")
    given: object = None if value == "none" else _rate(value) if "/" in value else value
    try:
        return field, msgspec.convert(given, known[field], strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"quotas: {field}: {error}, got {value!r}") from None


def _rate(value: str) -> object:
    per_s, _, burst = value.partition("/")
    return {"per_s": per_s, "burst": burst}


class Account:
    """The buckets that all APIs of an account share, and those of stages and routes.

    Source: developer guide, "Throttle requests": the account's, the stage's and the route's hold at the same time.

    Args:
        limits: how large the account's are.

    """

    def __init__(self, limits: GatewayLimits) -> None:
        self._requests = _buckets(limits.requests)
        self._connections = _buckets(limits.connections)
        self._own: dict[tuple[str, str, str, Rate], Buckets | None] = {}  # by API, stage, route or none

    def may_ask(self, now: float) -> bool:
        """Whether there is a request left in the account; it is taken. For calls of `@connections`."""
        return _is_left(self._requests, now)

    def may_call(self, api: Api, key: str, now: float) -> bool:
        """Whether a message may call a route; a request is taken from the account, the stage and the route."""
        if self._requests is not None and not self.may_ask(now):
            return False
        rate = api.routes[key].rate
        if api.rate is not None and not _is_left(self._bucket(api, "", api.rate), now):
            return False
        return rate is None or _is_left(self._bucket(api, key, rate), now)

    def may_connect(self, api: Api, now: float) -> bool:
        """Whether a connection may be opened."""
        if not _is_left(self._connections, now):
            return False
        return CONNECT not in api.routes or self.may_call(api, CONNECT, now)

    def _bucket(self, api: Api, key: str, rate: Rate) -> Buckets | None:
        place = (api.id, api.stage, key, rate)
        if place not in self._own:
            self._own[place] = _buckets(rate)
        return self._own[place]


_NOTHING = Buckets(1e-9, 0)
"""A rate of 0, which lets nothing through: for `Buckets` that would be no limit."""


def _buckets(rate: Rate | None) -> Buckets | None:
    if rate is None:
        return None
    return Buckets(rate.per_s, rate.burst) if rate.per_s > 0 else _NOTHING


def _is_left(buckets: Buckets | None, now: float) -> bool:
    """Whether there is a token left, which is taken; without a bucket there always is."""
    return buckets is None or not buckets.take("", now)


def never_or(seconds: float | None) -> float:
    """A time that may be none, as a number."""
    return math.inf if seconds is None else seconds
