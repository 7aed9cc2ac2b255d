"""Whose token a connection shows: one made with the secret, fetched from an endpoint, or read from a file."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import TracebackType

import httpx
import msgspec

from hubbub.auth import issue
from hubbub.loadtest.plan import Plan
from hubbub.loadtest.wire import trust

_FETCHES = 32
"""Tokens that a process fetches at a time."""

_SPARE_S = 3_600
"""How much longer than the load test a token lasts."""


class NoToken(Exception):
    """There is no token for a connection; says why."""


class _Answer(msgspec.Struct):
    token: str


class Tokens:
    """The tokens of all connections, as an async context manager.

    Raises:
        NoToken: the file has none.
        NotConnected: the certificates to trust cannot be read.

    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._read = _read(Path(plan.tokens)) if plan.tokens is not None else []
        self._http: httpx.AsyncClient | None = None
        self._fetches = asyncio.Semaphore(_FETCHES)

    async def __aenter__(self) -> Tokens:
        if self._plan.token_url is not None:
            name, _, value = (self._plan.token_header or "").partition(":")
            headers = {name: value.strip()} if name else {}
            tls = trust(self._plan.ca)
            self._http = httpx.AsyncClient(headers=headers, verify=tls, timeout=30, follow_redirects=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def of(self, member: int) -> str:
        """The token of a connection.

        Raises:
            NoToken: it cannot be got.

        """
        plan = self._plan
        if plan.secret is not None:
            return issue(
                plan.secret,
                user=self.user(member),
                ttl_s=int(plan.duration_s + plan.connections / plan.ramp) + _SPARE_S,
                now_s=int(time.time()),
                rooms=dict.fromkeys(plan.rooms_of(member), "member") if plan.grants else None,
                audience=plan.audience,
                issuer=plan.issuer,
            )
        if self._http is not None:
            return await self._fetch(self._http, member)
        return self._read[member % len(self._read)]

    def user(self, member: int) -> str:
        """The user of a connection, where the load test says who he is."""
        return f"bench-{self._plan.bench}-{member}"

    async def _fetch(self, http: httpx.AsyncClient, member: int) -> str:
        template = self._plan.token_url or ""
        shown = template.partition("?")[0]  # a query may have what is secret, and this goes into the report
        async with self._fetches:
            try:
                answer = await http.get(template.replace("{user}", self.user(member)))
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise NoToken(f"token-url: no answer from {shown}: {str(error) or type(error).__name__}") from None
        if answer.status_code != 200:
            raise NoToken(f"token-url: expected status 200 from {shown}, got {answer.status_code}")
        try:
            return msgspec.json.decode(answer.content, type=_Answer).token
        except (msgspec.DecodeError, UnicodeDecodeError):
            text = answer.text.strip()
        kind = answer.headers.get("Content-Type", "something without a content type")
        if text.count(".") != 2 or not text.isascii() or " " in text:
            raise NoToken(f'token-url: expected a token, alone or as {{"token": "…"}}, from {shown}, got {kind}')
        return text


def _read(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise NoToken(f"tokens: expected one token a line, in ASCII, in {path}: {error}") from None
    if not lines:
        raise NoToken(f"tokens: expected one token a line in {path}, got an empty file")
    return lines
