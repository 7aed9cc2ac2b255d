"""The tokens' verifier in functions: loaded when the first token comes, its secret read from where AWS keeps it.

A secret in SSM or Secrets Manager is read again when it is old, and as soon as a token does not verify with it, so that
one that was replaced counts without a new deployment. It has the form of a `secret_file`: on further lines are older
secrets that still count.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from hubbub.aws.http import Broken, HttpClient, Unreached
from hubbub.aws.service import AwsError, Service
from hubbub.config import Settings, SettingsError, read_keys
from hubbub.errors import Unauthorized, Unavailable
from hubbub.model import Principal
from hubbub.ports import TokenVerifier

if TYPE_CHECKING:
    from hubbub.auth import JwtVerifier

logger = logging.getLogger("hubbub.lambdas")

SECRET_AGE_S = 300.0
"""How old a secret may get before it is read again."""

SECRET_PAUSE_S = 30.0
"""How soon after a reading a token that does not verify can cause another, so that forged ones cause none."""

JWKS_TIMEOUT_S = 5.0

ReadSecret = Callable[[], Awaitable[str]]
"""Reads the secret's text from where it is kept; raises AwsError."""


class Tokens(TokenVerifier):
    """Verifies tokens; the `TokenVerifier` port.

    Args:
        settings: which keys, and what tokens must say.
        http: fetches a JWKS document.
        read_secret: reads a secret that AWS keeps; None where there is none.
        monotonic: seconds that only grow.

    """

    def __init__(
        self,
        settings: Settings,
        *,
        http: HttpClient,
        read_secret: ReadSecret | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._http = http
        self._read_secret = read_secret
        self._monotonic = monotonic
        self._text: str | None = None  # the secret as it was last read
        self._tried_at: float | None = None  # when it was last asked for, monotonic; None before the first time
        self._verifier: JwtVerifier | None = None  # None before it is needed

    async def verify(self, token: str) -> Principal:
        """The verified claims of `token`; see the port."""
        verifier = await self.load()
        try:
            return await verifier.verify(token)
        except Unauthorized:
            if not await self._renew(SECRET_PAUSE_S):
                raise
            return await (await self.load()).verify(token)

    async def load(self) -> JwtVerifier:
        """The verifier with the keys as they are now.

        Raises:
            Unavailable: the secret could never be read.
            SettingsError: a key cannot be used, or there is none.

        """
        await self._renew(SECRET_AGE_S)
        if self._verifier is None:
            if self._read_secret is not None:
                raise Unavailable("The keys that tokens are verified with cannot be read just now.")
            self._verifier = self._make(None)
        return self._verifier

    async def _renew(self, older_than_s: float) -> bool:
        """Read the secret if it was last asked for so long ago; True if it is another one now.

        Raises:
            SettingsError: it cannot be used, and there is none before it.

        """
        now = self._monotonic()
        if self._read_secret is None or (self._tried_at is not None and now - self._tried_at < older_than_s):
            return False
        try:
            text = await self._read_secret()
            verifier = self._verifier if text == self._text else self._make(text)
        except (AwsError, SettingsError) as error:
            if isinstance(error, SettingsError) and self._verifier is None:
                raise
            logger.error("cannot read the secret that tokens are signed with: %s", error)
            self._tried_at = None if self._verifier is None else now  # what is known goes on to count
            return False
        renewed = verifier is not self._verifier
        self._text, self._verifier, self._tried_at = text, verifier, now
        return renewed

    def _make(self, text: str | None) -> JwtVerifier:
        from hubbub.auth import JwtVerifier  # and with it cryptography, which few invocations need

        settings = self._settings
        secrets = [line.strip() for line in (text or "").splitlines() if line.strip()]
        public_keys: list[str] = []
        if settings.has_key or not secrets:
            keys = read_keys(settings, create=False)
            secrets, public_keys = [*secrets, *keys.secrets], keys.public_keys
        try:
            return JwtVerifier(
                secrets=secrets,
                public_keys=public_keys,
                jwks_url=settings.jwks_url,
                algorithms=settings.algorithms,
                audience=settings.audience,
                issuer=settings.issuer,
                leeway_s=settings.leeway_s,
                fetch=self._fetch,
            )
        except ValueError as error:
            raise SettingsError(str(error)) from error

    async def _fetch(self, url: str) -> bytes:
        """Read a JWKS document; see `hubbub.auth.Fetch`."""
        try:
            answer = await self._http.request("GET", url, timeout_s=JWKS_TIMEOUT_S)
        except (Unreached, Broken) as error:
            raise OSError(str(error)) from error
        if answer.status != 200:
            raise OSError(f"expected the status 200, got {answer.status}")
        return answer.body


def parameter(service: Service, name: str) -> ReadSecret:
    """Reads a parameter of SSM's parameter store."""

    async def read() -> str:
        found = await service.call("GetParameter", {"Name": name, "WithDecryption": True}, deadline_s=5.0)
        return str(found["Parameter"]["Value"])

    return read


def managed_secret(service: Service, arn: str) -> ReadSecret:
    """Reads a secret of Secrets Manager, a text."""

    async def read() -> str:
        found = await service.call("GetSecretValue", {"SecretId": arn}, deadline_s=5.0)
        return str(found.get("SecretString", ""))

    return read
