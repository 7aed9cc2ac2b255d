"""Where a function's environment stands: what the template's variables say, and what they must be.

`HUBBUB_TABLE`, `HUBBUB_ENDPOINT` and the like are here; all other `HUBBUB_*` variables are settings as in every home.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from hubbub.chat import ChatLimits
from hubbub.config import PREFIX, Settings, SettingsError, load

MAX_FRAME_BYTES = 100 * 1024
"""The longest reply and entry: a post to a connection has at most 128 KiB, and JSON around it."""

TOKEN_NOTICE_S = 150
"""How long before its token runs out a connection is told: the sweeper looks once a minute."""

HEARTBEAT_MS = 240_000
"""How long clients are silent before they ask whether the connection stands. Each question is two messages and an
invocation; API Gateway closes after ten minutes."""

_TEXTS = ("table", "endpoint", "broadcaster", "queue_url", "secret_parameter", "secret_arn")
_NUMBERS = ("requests_per_s", "share")

_MANAGEMENT_URL = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"
"""The variable by which AWS's SDKs are told where `@connections` is instead ("Service-specific endpoints")."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What a function is told about where it runs.

    Attributes:
        region: AWS's name of the region.
        settings: the chat's settings, as in every home.
        table: the DynamoDB table.
        endpoint: where `@connections` is, `https://{api}.execute-api.{region}.amazonaws.com/{stage}`, or where
            `AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI` says that it is instead.
        broadcaster: the function that delivers; its name or ARN.
        queue_url: the SQS queue whose function delivers; instead of `broadcaster`.
        secret_parameter: the SSM parameter with the secret that tokens are signed with.
        secret_arn: the same in Secrets Manager; its name or ARN.
        requests_per_s: the account's quota of requests a second in this region.
        share: how much of it deliveries may take.

    """

    region: str
    settings: Settings
    table: str | None = None
    endpoint: str | None = None
    broadcaster: str | None = None
    queue_url: str | None = None
    secret_parameter: str | None = None
    secret_arn: str | None = None
    requests_per_s: float = 10_000
    share: float = 0.7

    def __repr__(self) -> str:
        return f"<Place table {self.table} in {self.region}>"

    def need(self, name: str) -> str:
        """The value of a field that what is being built cannot do without.

        Raises:
            SettingsError: it is not set.

        """
        value: str | None = getattr(self, name)
        if value is None:
            raise SettingsError(f"{name}: expected the variable {PREFIX}{name.upper()}, it is not set")
        return value

    def chat_limits(self) -> ChatLimits:
        """The chat's limits: those of the settings, and those that API Gateway has.

        Crowds are not told live who types and comes, which would be a post to each for each; who is gone for a while is
        the directory's affair, since no process here waits.
        """
        settings = self.settings
        return ChatLimits(
            max_text_chars=settings.max_text_chars,
            rate=settings.rate,
            burst=settings.burst,
            user_rate=settings.user_rate,
            user_burst=settings.user_burst,
            presence_grace_s=0.0,
            crowd=settings.crowd,
            max_reply_bytes=MAX_FRAME_BYTES,
            max_entry_bytes=MAX_FRAME_BYTES,
            crowded_every_s=None,
            typing_every_s=None,
            token_notice_s=TOKEN_NOTICE_S,
            heartbeat_ms=HEARTBEAT_MS,
        )


def read(environ: Mapping[str, str]) -> Place:
    """The place that these variables describe.

    Raises:
        SettingsError: a variable is unknown or impossible; the message names it and says what was expected.

    """
    own = {name: environ.get(PREFIX + name.upper(), "").strip() for name in (*_TEXTS, *_NUMBERS)}
    taken = {PREFIX + name.upper() for name in own}
    settings = load({}, {name: value for name, value in environ.items() if name not in taken})
    own["endpoint"] = environ.get(_MANAGEMENT_URL) or own["endpoint"]
    known: dict[str, Any] = {name: own[name] for name in _TEXTS if own[name]}  # Any: a text or a number
    known.update((name, _number(name, own[name])) for name in _NUMBERS if own[name])
    place = Place(
        region=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "", settings=settings, **known
    )
    _check(place)
    return place


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 < value < math.inf):
        raise SettingsError(f"{name}: expected a number above 0, got {text!r}, in the variable {PREFIX}{name.upper()}")
    return value


def _check(place: Place) -> None:
    if not place.region:
        raise SettingsError("region: expected the variable AWS_REGION, it is not set")
    if place.settings.dev:
        raise SettingsError("dev: expected a secret, a key or a JWKS address; functions keep no development secret")
    if place.share > 1:
        raise SettingsError(f"share: expected at most 1, got {place.share:g}")
    for name in ("endpoint", "queue_url"):
        url = getattr(place, name)
        if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc):
            raise SettingsError(f"{name}: expected an https address, got {url!r}")
    for one, other in (("broadcaster", "queue_url"), ("secret_parameter", "secret_arn")):
        if getattr(place, one) is not None and getattr(place, other) is not None:
            raise SettingsError(f"{one}: expected either {one} or {other}, got both")
