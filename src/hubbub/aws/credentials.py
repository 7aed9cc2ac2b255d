"""Where the credentials of calls come from: the environment, the container that we run in, or else botocore's chain.

Lambda functions have them in the environment; containers of ECS, EKS and functions restored from a snapshot have an
address where they are given out. botocore is only looked for where there is neither, so that these never load it.
Source: "Container credential provider" in the AWS SDKs and tools reference.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from hubbub.aws.http import Broken, HttpClient, Unreached
from hubbub.sigv4 import Credentials

FRESH_S = 60.0
"""For how long what botocore said is taken for granted; it renews credentials minutes before they end."""

RENEWED_S = 300.0
"""How long before they end a container's credentials are asked for anew."""

_TRIES = 3
_TRY_S = 2.0

_ECS = "http://169.254.170.2"
_GIVE_OUT = frozenset({"169.254.170.2", "169.254.170.23", "fd00:ec2::23", "localhost", "127.0.0.1", "::1"})
"""Who may give out credentials without TLS: ECS, EKS, and this machine."""


class NoCredentials(Exception):
    """There are none; the message says where they were looked for."""


class Provider(Protocol):
    """Knows the credentials of now."""

    async def get(self) -> Credentials:
        """The credentials to sign the next request with; the same object as long as they are the same.

        Raises:
            NoCredentials: there are none.

        """
        ...


class Fixed:
    """Credentials that never change.

    Args:
        credentials: those.

    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def __repr__(self) -> str:
        return f"<Fixed {self._credentials.access_key}>"

    async def get(self) -> Credentials:
        """Them."""
        return self._credentials


class _Given(msgspec.Struct, rename="pascal"):
    """A container's credentials, as its address gives them out."""

    access_key_id: str
    secret_access_key: str
    token: str | None = None
    expiration: datetime | None = None


class Container:
    """Credentials that are given out at an address, and renewed in time.

    Args:
        url: the address.
        token: what it is asked with, in `Authorization`: read anew each time, since it may change.
        now_s: the time, epoch seconds.

    Raises:
        ValueError: the address is neither secure nor one that may give out credentials.

    """

    def __init__(
        self, url: str, token: Callable[[], str | None] = lambda: None, *, now_s: Callable[[], float] = time.time
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in _GIVE_OUT:
            raise ValueError(f"container credentials: expected https, or an address of this machine's, got {url}")
        self._url = url
        self._token = token
        self._now_s = now_s
        self._known: Credentials | None = None
        self._ends_at_s = 0.0
        self._asking = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Container at {self._url}, {self._known.access_key if self._known else 'not asked yet'}>"

    async def get(self) -> Credentials:
        """Those of now; who asks while they are renewed waits for that."""
        if self._known is not None and self._now_s() < self._ends_at_s - RENEWED_S:
            return self._known
        async with self._asking:
            if self._known is None or self._now_s() >= self._ends_at_s - RENEWED_S:
                await self._renew()
            assert self._known is not None  # noqa: S101  else `_renew` has raised
            return self._known

    async def _renew(self) -> None:
        try:
            given = await self._ask()
        except NoCredentials:
            if self._known is None or self._now_s() >= self._ends_at_s:
                raise
            return  # those that are known still hold
        self._known = Credentials(given.access_key_id, given.secret_access_key, given.token)
        self._ends_at_s = given.expiration.timestamp() if given.expiration else float("inf")

    async def _ask(self) -> _Given:
        token = self._token()
        headers = [("Accept", "application/json")] + ([("Authorization", token)] if token else [])
        said = ""
        async with HttpClient(max_connections=1, connect_timeout_s=_TRY_S) as http:
            for _ in range(_TRIES):
                try:
                    answer = await http.request("GET", self._url, headers=headers, timeout_s=_TRY_S, repeat=True)
                    if answer.status == 200:
                        return msgspec.json.decode(answer.body, type=_Given)
                    said = f"HTTP status {answer.status}"
                except (Unreached, Broken, msgspec.DecodeError) as error:
                    said = str(error)
        raise NoCredentials(f"no AWS credentials at {self._url}: {said}")


class Botocore:
    """What botocore finds: profiles, single sign-on, roles, machines' own.

    Args:
        monotonic: seconds that only ever grow.

    Raises:
        NoCredentials: botocore is not installed.

    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        import importlib.util  # not needed where the environment has keys, and slow to load

        if importlib.util.find_spec("botocore") is None:
            raise NoCredentials(_NOWHERE)
        self._monotonic = monotonic
        self._source: Any = None  # botocore's credentials, which have no types; None before they were looked for
        self._known: Credentials | None = None
        self._asked_at = 0.0
        self._asking = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Botocore {self._known.access_key if self._known else 'not asked yet'}>"

    async def get(self) -> Credentials:
        """Those of now; botocore is asked once a minute, in a thread, since it may read files or call services."""
        async with self._asking:
            now = self._monotonic()
            if self._known is None or now - self._asked_at >= FRESH_S:
                found = await asyncio.to_thread(self._ask)
                self._known = self._known if found == self._known else found
                self._asked_at = now
            return self._known

    def _ask(self) -> Credentials:
        import botocore.session  # type: ignore[import-untyped]  # botocore has no types
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]  # likewise

        try:
            if self._source is None:
                self._source = botocore.session.Session().get_credentials()
            if self._source is None:
                raise NoCredentials(_NOWHERE)
            frozen = self._source.get_frozen_credentials()
        except BotoCoreError as error:
            raise NoCredentials(f"no AWS credentials: {error}") from error
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)


_NOWHERE = (
    "no AWS credentials: expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or a container that "
    "gives some out, or botocore installed and a profile or role that it finds some in"
)


def find(environment: Mapping[str, str] | None = None) -> Provider:
    """The provider for this process: `AWS_ACCESS_KEY_ID` and the like, or a container's address, else botocore.

    Args:
        environment: where the variables are; that of this process by default.

    Raises:
        NoCredentials: there is none of them.
        ValueError: the container's address may not give out credentials.

    """
    known = os.environ if environment is None else environment
    access_key, secret_key = known.get("AWS_ACCESS_KEY_ID"), known.get("AWS_SECRET_ACCESS_KEY")
    if access_key and secret_key:
        return Fixed(Credentials(access_key, secret_key, known.get("AWS_SESSION_TOKEN") or None))
    if path := known.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        return Container(f"{_ECS}{path}")
    if url := known.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        return Container(url, lambda: _token_in(known))
    return Botocore()


def _token_in(environment: Mapping[str, str]) -> str | None:
    """What a container's address is asked with.

    Raises:
        NoCredentials: it is in a file that cannot be read.

    """
    if named := environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
        try:
            return Path(named).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise NoCredentials(f"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: {error}") from error
    return environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
