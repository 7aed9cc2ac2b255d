"""Signs one request after another as `hubbub.sigv4.sign` does, in a fifth of the time.

Who posts to thousands of connections signs thousands of requests that differ in their path and nothing else. What is
the same for all of a second, or of a day, is made once; a request that is less simple is left to `sigv4`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from hashlib import sha256

from hubbub.sigv4 import ALGORITHM, Credentials, sign, signing_key

_PLAIN_PATH = re.compile(r"/|(?:/[A-Za-z0-9_~@%-][A-Za-z0-9_.~@%-]*)+")
"""Paths without empty and dot segments, and with no character whose encoding is left to choice."""

_PLAIN_NAMES = frozenset({"content-type", "x-amz-client-context", "x-amz-invocation-type", "x-amz-target"})
"""Headers that are signed as they stand."""

_BLOCK = 64


class Signer:
    """Signs what is sent to one endpoint with one set of credentials.

    Args:
        credentials: whose requests these are.
        origin: where they go, as `https://host`.
        host: what their `Host` says.
        service, region: which the signatures are for.

    """

    def __init__(self, credentials: Credentials, *, origin: str, host: str, service: str, region: str) -> None:
        self.credentials = credentials
        self._origin = origin
        self._host = host
        self._service = service
        self._region = region
        self._second = -1  # the one that what follows is made for
        self._day = ""
        self._stamp = self._prefix = self._authorization = ""
        self._inner = self._outer = sha256()

    def __repr__(self) -> str:
        return f"<Signer of {self._service} at {self._origin} as {self.credentials.access_key}>"

    def sign(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        now_s: float,
        *,
        digest: str | None = None,
    ) -> list[tuple[str, str]]:
        """The headers of the request, with those that sign it.

        Args:
            method: in capitals.
            target: its path and query, as they will be sent.
            headers: its own, each name once.
            body: all of it.
            now_s: the time, epoch seconds.
            digest: the body's SHA-256 in hexadecimal digits, if it is known, as where one body goes to many.

        """
        if _PLAIN_PATH.fullmatch(target) is None or not _are_plain(headers):
            return self._signed_otherwise(method, target, headers, body, now_s)
        second = int(now_s)
        if second != self._second:
            self._turn_to(second)
        fields = [(name.lower(), value) for name, value in headers]
        fields += ("host", self._host), ("x-amz-date", self._stamp)
        token = self.credentials.session_token
        if token:
            fields.append(("x-amz-security-token", token))
        fields.sort()
        names = ";".join([name for name, _ in fields])
        path = target.replace("%", "%25").replace("@", "%40")
        lines = "".join([f"{name}:{value}\n" for name, value in fields])
        canonical = f"{method}\n{path}\n\n{lines}\n{names}\n{digest or sha256(body).hexdigest()}"
        signature = self._signature(f"{self._prefix}{sha256(canonical.encode()).hexdigest()}")
        signed = [
            *headers,
            ("X-Amz-Date", self._stamp),
            ("Authorization", f"{self._authorization}{names}, Signature={signature}"),
        ]
        if token:
            signed.append(("X-Amz-Security-Token", token))
        return signed

    def _signed_otherwise(
        self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes, now_s: float
    ) -> list[tuple[str, str]]:
        added = sign(
            self.credentials,
            method=method,
            url=f"{self._origin}{target}",
            headers=dict(headers),
            body=body,
            service=self._service,
            region=self._region,
            now_s=now_s,
        )
        return [*headers, *added.items()]

    def _turn_to(self, second: int) -> None:
        """Make what is the same for all of a second, and if it is another one, of a day."""
        self._second = second
        self._stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        day = self._stamp[:8]
        scope = f"{day}/{self._region}/{self._service}/aws4_request"
        self._prefix = f"{ALGORITHM}\n{self._stamp}\n{scope}\n"
        if day != self._day:
            self._day = day
            self._authorization = f"{ALGORITHM} Credential={self.credentials.access_key}/{scope}, SignedHeaders="
            key = signing_key(self.credentials.secret_key, (day, self._region, self._service, "aws4_request"))
            padded = key.ljust(_BLOCK, b"\0")
            # HMAC's two hashes with the key in them already (RFC 2104, section 4): what is left is two short updates.
            self._inner = sha256(bytes(byte ^ 0x36 for byte in padded))
            self._outer = sha256(bytes(byte ^ 0x5C for byte in padded))

    def _signature(self, to_sign: str) -> str:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(to_sign.encode())
        outer.update(inner.digest())
        return outer.hexdigest()


def _are_plain(headers: Sequence[tuple[str, str]]) -> bool:
    """Whether `sigv4` would sign just these, with the values as they stand."""
    return all(name.lower() in _PLAIN_NAMES and " ".join(value.split()) == value for name, value in headers)
