"""Tokens: JSON Web Tokens are verified, and issued for those who have the secret.

Which algorithms count is an explicit list bound to the kinds of keys there are, so that a token can neither choose
`none` nor pass a public key off as a secret (RFC 7515, RFC 7519, RFC 8725).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Annotated, Any

import httpx
import msgspec
from joserfc import jwk, jwt
from joserfc.errors import JoseError, SecurityWarning

from hubbub.errors import TokenExpired, Unauthorized, Unavailable
from hubbub.model import MAX_NAME_CHARS, MAX_USER_ID_CHARS, ROOM_ID_PATTERN, Principal, Role, RoomId, UserId
from hubbub.ports import TokenVerifier

logger = logging.getLogger("hubbub.auth")

KEY_TYPES: dict[str, str] = {
    "HS256": "oct",
    "RS256": "RSA",
    "ES256": "EC",
    "EdDSA": "OKP",
}
"""The algorithms that are known, and the kind of key each needs (RFC 7518, section 3.1; RFC 8037)."""

MIN_SECRET_BYTES = 32
"""RFC 7518, section 3.2: a key for HS256 is at least as long as its hash."""

MAX_TOKEN_BYTES = 16_384
MAX_JWKS_BYTES = 262_144
DEFAULT_LEEWAY_S = 10
_CACHED = 1_000
"""Verified tokens remembered: for a backend that sends the same one with every request, and for quick reconnects."""

_Key = jwk.OctKey | jwk.RSAKey | jwk.ECKey | jwk.OKPKey

_RoomClaim = Annotated[str, msgspec.Meta(pattern=ROOM_ID_PATTERN)]


class _Claims(msgspec.Struct):
    """The claims that mean something here; others are ignored."""

    sub: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_USER_ID_CHARS)]
    exp: int | float
    iat: int | float = 0
    nbf: int | float = 0
    iss: str | None = None
    aud: str | list[str] | None = None
    name: Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARS)] | None = None
    avatar: Annotated[str, msgspec.Meta(max_length=2_000, pattern=r"^(https?://|/)")] | None = None
    rooms: dict[_RoomClaim, Role] = {}
    scope: Annotated[str, msgspec.Meta(max_length=1_000)] = ""


class _Header(msgspec.Struct):
    alg: str
    kid: str | None = None


_decode_header = msgspec.json.Decoder(_Header).decode


class JwtVerifier(TokenVerifier):
    """Verifies tokens against secrets, public keys and a JWKS address; the `TokenVerifier` port.

    Args:
        secrets: for HS256; each at least 32 bytes.
        public_keys: in PEM: RSA for RS256, P-256 for ES256, Ed25519 for EdDSA.
        jwks_url: where more public keys are (RFC 7517, section 5); fetched when needed, again when they are old or a
            token names an unknown one.
        algorithms: which of `KEY_TYPES` are accepted; by default those that there are keys for.
        audience, issuer: what `aud` must contain and `iss` must be; None for not checked.
        leeway_s: how far clocks may be apart, in seconds.
        now: the time of day, epoch seconds.
        jwks_age_s: how old fetched keys may get.
        jwks_pause_s: how soon after a fetch an unknown key can cause another, so that forged ones cause none.

    Raises:
        ValueError: a key cannot be used; the message says which and why, without the key.

    """

    def __init__(
        self,
        *,
        secrets: Sequence[str] = (),
        public_keys: Sequence[str] = (),
        jwks_url: str | None = None,
        algorithms: Sequence[str] | None = None,
        audience: str | None = None,
        issuer: str | None = None,
        leeway_s: float = DEFAULT_LEEWAY_S,
        now: Callable[[], float] = time.time,
        jwks_age_s: float = 600.0,
        jwks_pause_s: float = 10.0,
    ) -> None:
        self._keys: list[_Key] = [_secret(secret) for secret in secrets] + [_public(pem) for pem in public_keys]
        self._jwks = _Jwks(jwks_url, jwks_age_s, jwks_pause_s) if jwks_url else None
        kinds = {key.key_type for key in self._keys} | ({"RSA", "EC", "OKP"} if jwks_url else set())
        chosen = algorithms or [name for name, kind in KEY_TYPES.items() if kind in kinds]
        for name in chosen:
            if name not in KEY_TYPES:
                raise ValueError(f"algorithms: expected some of {', '.join(KEY_TYPES)}, got {name!r}")
        self._algorithms = frozenset(chosen)
        self._audience = audience
        self._issuer = issuer
        self._leeway_s = leeway_s
        self._now = now
        self._verified: dict[str, Principal] = {}

    async def __aenter__(self) -> JwtVerifier:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._jwks is not None:
            await self._jwks.aclose()

    async def verify(self, token: str) -> Principal:
        """The verified claims of `token`; see the port."""
        principal = self._verified.get(token)
        if principal is not None:
            if principal.expires_at + self._leeway_s > self._now():
                return principal
            del self._verified[token]
        principal = self._principal(await self._claims(token))
        if len(self._verified) >= _CACHED:
            del self._verified[next(iter(self._verified))]
        self._verified[token] = principal
        return principal

    async def _claims(self, token: str) -> _Claims:
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            raise Unauthorized(f"The token is not a JWT of at most {MAX_TOKEN_BYTES} characters.")
        header = _read_header(token)
        if header.alg not in self._algorithms:
            raise Unauthorized(f"The token's algorithm is not accepted; expected {_either(self._algorithms)}.")
        keys = await self._candidates(header)
        if not keys:
            raise Unauthorized("The token's key is not known here.")
        for key in keys:
            try:
                with warnings.catch_warnings():
                    # joserfc would rather see the newer name of the same algorithm (RFC 9864); tokens have the old one.
                    warnings.simplefilter("ignore", SecurityWarning)
                    claims = jwt.decode(token, key, algorithms=[header.alg]).claims
            except (JoseError, ValueError):
                continue
            try:
                return msgspec.convert(claims, _Claims)
            except msgspec.ValidationError as error:
                raise Unauthorized(f"A claim of the token is not as expected: {error}") from error
        raise Unauthorized("The token's signature does not verify.")

    async def _candidates(self, header: _Header) -> list[_Key]:
        kind = KEY_TYPES[header.alg]
        keys = [key for key in self._keys if key.key_type == kind]
        if self._jwks is not None and kind != "oct":
            keys += [key for key in await self._jwks.keys(header.kid) if key.key_type == kind]
        if header.kid is None:
            return keys
        return [key for key in keys if key.kid == header.kid] or [key for key in keys if key.kid is None]

    def _principal(self, claims: _Claims) -> Principal:
        now = self._now()
        if claims.exp + self._leeway_s <= now:
            raise TokenExpired
        if claims.nbf - self._leeway_s > now or claims.iat - self._leeway_s > now:
            raise Unauthorized("The token is from the future: it is not valid yet, or a clock is wrong.")
        if self._issuer is not None and claims.iss != self._issuer:
            raise Unauthorized("The token's `iss` is not the expected one.")
        audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud or []
        if self._audience is not None and self._audience not in audiences:
            raise Unauthorized("The token's `aud` does not name this service.")
        return Principal(
            user=UserId(claims.sub),
            expires_at=int(claims.exp),
            issued_at=int(claims.iat),
            name=claims.name,
            avatar=claims.avatar,
            rooms={RoomId(room): role for room, role in claims.rooms.items()},
            scopes=tuple(claims.scope.split()),
        )


class _Jwks:
    """The keys at an address, fetched by one at a time, kept while the address does not answer."""

    def __init__(self, url: str, age_s: float, pause_s: float) -> None:
        self._url = url
        self._age_s = age_s
        self._pause_s = pause_s
        self._keys: list[_Key] = []
        self._fetched_at: float | None = None  # monotonic; None before the first answer
        self._tried_at: float | None = None  # monotonic; None before the first try
        self._fetching = asyncio.Lock()
        self._client = httpx.AsyncClient(timeout=5.0, follow_redirects=False)

    async def keys(self, kid: str | None) -> list[_Key]:
        """The keys, fetched anew if they are old or none is called `kid`.

        Raises:
            Unavailable: they could never be fetched.

        """
        if self._needs_fetch(kid):
            async with self._fetching:
                if self._needs_fetch(kid):
                    await self._fetch()
        if self._fetched_at is None:
            raise Unavailable("The keys that tokens are verified with cannot be fetched just now.")
        return self._keys

    def _needs_fetch(self, kid: str | None) -> bool:
        now = time.monotonic()
        if self._tried_at is not None and now - self._tried_at < self._pause_s:
            return False
        if self._fetched_at is None or now - self._fetched_at > self._age_s:
            return True
        return kid is not None and all(key.kid != kid for key in self._keys)

    async def _fetch(self) -> None:
        self._tried_at = time.monotonic()
        try:
            async with self._client.stream("GET", self._url) as response:
                response.raise_for_status()
                body = b""
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_JWKS_BYTES:
                        raise ValueError(f"it is longer than {MAX_JWKS_BYTES} bytes")
            document = msgspec.json.decode(body, type=dict[str, Any])
            self._keys = [key for key in map(_from_jwks, document["keys"]) if key is not None]
        except (httpx.HTTPError, msgspec.DecodeError, ValueError, KeyError, TypeError) as error:
            logger.error("cannot fetch the keys at %s: %r", self._url, error)
        else:
            self._fetched_at = time.monotonic()

    async def aclose(self) -> None:
        """Close the HTTP client."""
        await self._client.aclose()


def issue(
    secret: str,
    *,
    user: str,
    ttl_s: int,
    now_s: int,
    name: str | None = None,
    avatar: str | None = None,
    rooms: Mapping[str, str] | None = None,
    scope: str = "",
    audience: str | None = None,
    issuer: str | None = None,
) -> str:
    """A token for `user`, signed with HS256.

    Args:
        secret: at least 32 bytes.
        user: the `sub`.
        ttl_s: how long it lasts, in seconds.
        now_s: the time of day, epoch seconds.
        name, avatar: shown to others.
        rooms: roles it grants, by room.
        scope: `server` for the customer's backend.
        audience, issuer: `aud` and `iss`.

    Raises:
        ValueError: the secret is too short, or a claim would not be accepted.

    """
    claims: dict[str, Any] = {"sub": user, "iat": now_s, "exp": now_s + ttl_s}
    optional = {"name": name, "avatar": avatar, "rooms": rooms, "scope": scope, "aud": audience, "iss": issuer}
    claims.update({claim: value for claim, value in optional.items() if value})
    try:
        msgspec.convert(claims, _Claims)
    except msgspec.ValidationError as error:
        raise ValueError(f"this token would be refused: {error}") from error
    return jwt.encode({"alg": "HS256"}, claims, _secret(secret))


def _read_header(token: str) -> _Header:
    encoded, _, _ = token.partition(".")
    try:
        return _decode_header(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise Unauthorized("The token is not a JWT.") from error


def _secret(secret: str) -> jwk.OctKey:
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise ValueError(
            f"secret: expected at least {MIN_SECRET_BYTES} bytes, got {len(secret.encode())};"
            " `openssl rand -hex 32` makes a good one"
        )
    return jwk.OctKey.import_key(secret)


def _public(pem: str) -> _Key:
    for kind in (jwk.RSAKey, jwk.ECKey, jwk.OKPKey):
        try:
            key = kind.import_key(pem)
        except (JoseError, ValueError, TypeError):
            continue
        if key.is_private:
            raise ValueError("public_keys: expected a public key, got a private one; keep that where tokens are issued")
        _check_curve(key)
        return key
    raise ValueError("public_keys: expected an RSA, P-256 or Ed25519 public key in PEM")


def _check_curve(key: _Key) -> None:
    curve = getattr(key, "curve_name", None)
    if curve not in (None, "P-256", "Ed25519"):
        raise ValueError(f"public_keys: expected the curve P-256 or Ed25519, got {curve}")


def _from_jwks(document: Any) -> _Key | None:
    """A usable key of a JWKS; None for one that is for something else, or secret."""
    if not isinstance(document, dict) or document.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    if document.get("use", "sig") != "sig":
        return None
    try:
        key = jwk.import_key(document)
        _check_curve(key)
    except (JoseError, ValueError, TypeError):
        return None
    return key


def _either(names: frozenset[str]) -> str:
    return " or ".join(sorted(names)) or "none: no key is configured"
