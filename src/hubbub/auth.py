"""Tokens: JSON Web Tokens are verified, and issued for those who have the secret.

Which algorithms count is an explicit list bound to the kinds of keys there are, so that a token can neither choose
`none` nor pass a public key off as a secret (RFC 7515, RFC 7519, RFC 8725).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import math
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from joserfc import jwk, jws
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

MIN_RSA_BITS = 2_048
"""RFC 7518, section 3.3."""

MAX_TOKEN_BYTES = 16_384
MAX_JWKS_BYTES = 262_144
FETCH_TIMEOUT_S = 10.0
DEFAULT_LEEWAY_S = 10
_CACHED = 1_000
"""Verified tokens remembered: for a backend that sends the same one with every request, and for quick reconnects."""

_HEADS, _SHORT_BYTES = 16, 4_096
"""How many headers are remembered, and how long a token may be that is then verified the short way."""

_Key = jwk.OctKey | jwk.RSAKey | jwk.ECKey | jwk.OKPKey

Fetch = Callable[[str], Awaitable[bytes]]
"""Reads the document at an address; raises OSError or ValueError with what is wrong."""

_END_OF_TIME = msgspec.Meta(ge=0, le=253_402_300_799)
"""Up to the end of the year 9999, epoch seconds: who counts in milliseconds is told so."""

_Time = Annotated[int, _END_OF_TIME] | Annotated[float, _END_OF_TIME]
_RoomClaim = Annotated[str, msgspec.Meta(pattern=ROOM_ID_PATTERN)]


class _Claims(msgspec.Struct):
    """The claims that mean something here; others are ignored."""

    sub: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_USER_ID_CHARS)]
    exp: _Time
    iat: _Time = 0
    nbf: _Time = 0
    iss: str | None = None
    aud: str | list[str] | None = None
    name: Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARS)] | None = None
    avatar: Annotated[str, msgspec.Meta(max_length=2_000, pattern=r"^(https?://|/)")] | None = None
    rooms: dict[_RoomClaim, Role] = {}
    scope: Annotated[str, msgspec.Meta(max_length=1_000)] = ""


class _Header(msgspec.Struct):
    """What of a token's header is looked at: never where a key could be found (`jku`, `jwk`, `x5u`, `x5c`)."""

    alg: str
    kid: str | None = None
    crit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # extensions that must be understood; none is


class _Document(msgspec.Struct):
    """A JWK Set (RFC 7517, section 5)."""

    keys: list[Any]  # Any: keys of unknown kinds are passed over, not refused


_decode_header = msgspec.json.Decoder(_Header).decode
_decode_claims = msgspec.json.Decoder(_Claims).decode
_decode_document = msgspec.json.Decoder(_Document).decode


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
        monotonic: seconds that only grow.
        jwks_age_s: how old fetched keys may get.
        jwks_pause_s: how soon after a fetch an unknown key can cause another, so that forged ones cause none.
        fetch: reads that address; by default httpx does, which is not loaded for anything else.

    Raises:
        ValueError: a key or address cannot be used; the message says which and why, without the key.

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
        monotonic: Callable[[], float] = time.monotonic,
        jwks_age_s: float = 600.0,
        jwks_pause_s: float = 10.0,
        fetch: Fetch | None = None,
    ) -> None:
        self._keys: list[_Key] = [_secret(secret) for secret in secrets] + [_public(pem) for pem in public_keys]
        self._jwks = None
        if jwks_url:
            self._jwks = _Jwks(_address(jwks_url), fetch or _fetch, monotonic, jwks_age_s, jwks_pause_s)
        kinds = {key.key_type for key in self._keys} | ({"RSA", "EC", "OKP"} if jwks_url else set())
        chosen = algorithms or [name for name, kind in KEY_TYPES.items() if kind in kinds]
        for name in chosen:
            if name not in KEY_TYPES:
                raise ValueError(f"algorithms: expected some of {', '.join(KEY_TYPES)}, got {name!r}")
        if (self._keys or jwks_url) and not any(KEY_TYPES[name] in kinds for name in chosen):
            raise ValueError(f"algorithms: expected one that there is a key for, got {', '.join(chosen)}")
        self._algorithms = frozenset(chosen)
        self._audience = audience
        self._issuer = issuer
        self._leeway_s = leeway_s
        self._now = now
        self._verified: dict[str, tuple[Principal, _Key, float]] = {}  # by token; with its key, and until when it holds
        self._heads: dict[str, _Header] = {}  # of HS256 tokens that joserfc has verified, by what they are encoded as

    async def __aenter__(self) -> JwtVerifier:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._jwks is not None:
            await self._jwks.aclose()

    async def verify(self, token: str) -> Principal:
        """The verified claims of `token`; see the port.

        Raises:
            TokenExpired, Unauthorized: see the port.
            Unavailable: the keys at the JWKS address could never be fetched.

        """
        known = self._verified.get(token)
        if known is not None:
            principal, key, ends_at = known
            if ends_at > self._now() and await self._still_counts(key):
                return principal
            self._verified.pop(token, None)
        claims, key = await self._claims(token)
        principal = self._principal(claims)
        if len(self._verified) >= _CACHED:
            self._verified.clear()
        self._verified[token] = principal, key, claims.exp + self._leeway_s
        return principal

    async def count_keys(self) -> int:
        """How many keys there are, those at the JWKS address included.

        Raises:
            Unavailable: they could never be fetched.

        """
        return len(self._keys) + (len(await self._jwks.keys(None)) if self._jwks is not None else 0)

    async def _still_counts(self, key: _Key) -> bool:
        """Whether a key that verified a token has not been withdrawn since."""
        if self._jwks is None or any(key is ours for ours in self._keys):
            return True
        return any(key is one for one in await self._jwks.keys(key.kid))

    async def _claims(self, token: str) -> tuple[_Claims, _Key]:
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            raise Unauthorized(f"The token is not a JWT of at most {MAX_TOKEN_BYTES} characters.")
        head = token.partition(".")[0]
        remembered = self._heads.get(head) if len(token) <= _SHORT_BYTES else None
        if remembered is not None:
            found = _verified_shortly(token, _candidates(self._keys, remembered))
            if found is not None:
                return found
        header = _read_header(token)
        if header.alg not in self._algorithms:
            raise Unauthorized(f"The token's algorithm is not accepted; expected {_either(self._algorithms)}.")
        keys = _candidates(self._keys, header)
        found = _verified_claims(token, header, keys)
        if found is None and self._jwks is not None and KEY_TYPES[header.alg] != "oct":
            keys = _candidates(await self._jwks.keys(header.kid), header)
            found = _verified_claims(token, header, keys)
        if found is None:
            why = "signature does not verify" if keys else "key is not known here"
            raise Unauthorized(f"The token's {why}.")
        if header.alg == "HS256":
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            self._heads[head] = header
        return found

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
            expires_at=math.ceil(claims.exp + self._leeway_s),  # so that whoever is let in is also listened to
            issued_at=int(claims.iat),
            name=claims.name,
            avatar=claims.avatar,
            rooms={RoomId(room): role for room, role in claims.rooms.items()},
            scopes=tuple(claims.scope.split()),
        )


class _Jwks:
    """The keys at an address, fetched once for all who ask at the same time, kept while the address does not answer."""

    def __init__(self, url: str, fetch: Fetch, monotonic: Callable[[], float], age_s: float, pause_s: float) -> None:
        self._url = url
        self._get = fetch
        self._monotonic = monotonic
        self._age_s = age_s
        self._pause_s = pause_s
        self._keys: list[_Key] = []
        self._body: bytes | None = None  # what they were made of; None before the first answer
        self._fetched_at = 0.0  # monotonic; of the last answer
        self._tried_at: float | None = None  # monotonic; None before the first try
        self._fetching: asyncio.Task[None] | None = None  # the fetch under way

    async def keys(self, kid: str | None) -> list[_Key]:
        """The keys, fetched anew if they are old or none is called `kid`.

        Raises:
            Unavailable: they could never be fetched.

        """
        lacking = self._body is None or (kid is not None and all(key.kid != kid for key in self._keys))
        old = self._monotonic() - self._fetched_at > self._age_s
        starting = self._fetching is None and (lacking or old) and not self._is_pause
        if starting:
            # A task of its own: whoever asked may go away, and all others still wait for the outcome.
            self._fetching = asyncio.get_running_loop().create_task(self._fetch(), name="hubbub keys")
        if self._fetching is not None and (starting or lacking):
            await asyncio.shield(self._fetching)
        if self._body is None:
            raise Unavailable("The keys that tokens are verified with cannot be fetched just now.")
        return self._keys

    @property
    def _is_pause(self) -> bool:
        return self._tried_at is not None and self._monotonic() - self._tried_at < self._pause_s

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                body = await self._get(self._url)
            if len(body) > MAX_JWKS_BYTES:
                raise ValueError(f"it is longer than {MAX_JWKS_BYTES} bytes")
            if body != self._body:
                self._keys = [key for key in map(_from_jwks, _decode_document(body).keys) if key is not None]
            self._body, self._fetched_at = body, self._monotonic()
        except (OSError, ValueError, RecursionError) as error:
            logger.error("cannot fetch the keys at %s: %r", self._url, error)
        finally:
            self._tried_at = self._monotonic()
            self._fetching = None

    async def aclose(self) -> None:
        """End the fetch under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)


async def _fetch(url: str) -> bytes:
    """Read a document with httpx; see `Fetch`. A client for each: it is asked for every ten minutes or so."""
    import httpx

    body = bytearray()
    try:
        async with (
            httpx.AsyncClient(timeout=5.0, follow_redirects=False) as client,
            client.stream("GET", url) as response,
        ):
            response.raise_for_status()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_JWKS_BYTES:
                    break
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    return bytes(body)


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
        payload = msgspec.json.encode(claims)
        _decode_claims(payload)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise ValueError(f"this token would be refused: {error}") from error
    token = jws.serialize_compact({"typ": "JWT", "alg": "HS256"}, payload, _secret(secret))
    if len(token) > MAX_TOKEN_BYTES:
        raise ValueError(f"this token would be refused: it is longer than {MAX_TOKEN_BYTES} bytes")
    return token


def _read_header(token: str) -> _Header:
    encoded, _, _ = token.partition(".")
    try:
        header = _decode_header(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (ValueError, RecursionError) as error:  # not base64, not UTF-8, not JSON, other fields, nested too deeply
        raise Unauthorized("The token is not a JWT.") from error
    if header.crit is not msgspec.UNSET:
        raise Unauthorized("The token needs an extension (`crit`) that is not known here.")
    return header


def _candidates(keys: list[_Key], header: _Header) -> list[_Key]:
    """The keys that may have signed a token with that header."""
    fitting = [key for key in keys if key.key_type == KEY_TYPES[header.alg]]
    if header.kid is None:
        return fitting
    return [key for key in fitting if key.kid == header.kid] or [key for key in fitting if key.kid is None]


def _verified_claims(token: str, header: _Header, keys: list[_Key]) -> tuple[_Claims, _Key] | None:
    """The claims of `token`, with the first key that its signature verifies with; None if there is no such key.

    Raises:
        Unauthorized: it verifies, and a claim is not as expected.

    """
    for key in keys:
        try:
            # joserfc would rather see the newer name of the same algorithm (RFC 9864); tokens have the old one.
            with warnings.catch_warnings(action="ignore", category=SecurityWarning):
                payload = jws.deserialize_compact(token, key, algorithms=[header.alg]).payload
        except (JoseError, ValueError):
            continue
        return _read_claims(payload or b""), key
    return None


def _verified_shortly(token: str, keys: list[_Key]) -> tuple[_Claims, _Key] | None:
    """As `_verified_claims`, for HS256 and a header that joserfc has found good; None is to be asked joserfc again.

    joserfc looks over header and registry for each token, which takes ten times as long as the hash. Base64 is taken in
    its one canonical form, so that texts can be compared in place of bytes.

    Raises:
        Unauthorized: it verifies, and a claim is not as expected.

    """
    signed, _, signature = token.encode("ascii").rpartition(b".")
    payload = _octets(signed.partition(b".")[2])
    if payload is None:
        return None
    for key in keys:
        raw = key.raw_value
        if not isinstance(raw, bytes):
            continue
        digest = hmac.digest(raw, signed, hashlib.sha256)
        if hmac.compare_digest(base64.urlsafe_b64encode(digest).rstrip(b"="), signature):
            return _read_claims(payload), key
    return None


_TO_STANDARD = bytes.maketrans(b"-_+/=.", b"+/....")
_LAST = {2: b"AQgw", 3: b"AEIMQUYcgkosw048"}
"""What the last of so many characters may be: its unused bits are zeros."""


def _octets(text: bytes) -> bytes | None:
    """What URL-safe base64 without padding stands for; None where it is not in the one form that it should be."""
    over = len(text) % 4
    if over == 1 or (over and text[-1] not in _LAST[over]):
        return None
    try:
        return binascii.a2b_base64(text.translate(_TO_STANDARD) + b"==="[: -len(text) % 4], strict_mode=True)
    except binascii.Error:
        return None


def _read_claims(payload: bytes) -> _Claims:
    """The claims of a token that verifies.

    Raises:
        Unauthorized: one is not as expected.

    """
    try:
        return _decode_claims(payload)
    except (ValueError, RecursionError) as error:
        why = f": {error}" if isinstance(error, msgspec.ValidationError) else "; they are not JSON."
        raise Unauthorized(f"The token's claims are not as expected{why}") from error


def _secret(secret: str) -> jwk.OctKey:
    octets = secret.encode("utf-8", "surrogateescape")  # as the environment has it
    if len(octets) < MIN_SECRET_BYTES:
        raise ValueError(
            f"secret: expected at least {MIN_SECRET_BYTES} bytes, got {len(octets)};"
            " `openssl rand -hex 32` makes a good one"
        )
    try:
        with warnings.catch_warnings(action="error", category=SecurityWarning):
            return jwk.OctKey.import_key(octets)
    except (SecurityWarning, ValueError) as error:
        # Whoever has the public key could sign with it.
        raise ValueError(
            "secret: expected a random text that nobody else knows, got a key or certificate;"
            " a public key belongs into public_keys"
        ) from error


def _public(pem: str) -> _Key:
    for kind in (jwk.RSAKey, jwk.ECKey, jwk.OKPKey):
        try:
            with warnings.catch_warnings(action="ignore", category=SecurityWarning):  # `_weakness` says it better
                key = kind.import_key(pem)
        except (JoseError, ValueError, TypeError):
            continue
        if key.is_private:
            raise ValueError("public_keys: expected a public key, got a private one; keep that where tokens are issued")
        weakness = _weakness(key)
        if weakness is not None:
            raise ValueError(f"public_keys: {weakness}")
        return key
    raise ValueError("public_keys: expected an RSA, P-256 or Ed25519 public key in PEM")


def _weakness(key: _Key) -> str | None:
    """Why a key is of no use here; None if it is."""
    if isinstance(key, jwk.RSAKey):
        bits = key.raw_value.key_size
        return None if bits >= MIN_RSA_BITS else f"expected an RSA key of at least {MIN_RSA_BITS} bits, got {bits}"
    curve = getattr(key, "curve_name", None)
    return None if curve in ("P-256", "Ed25519") else f"expected the curve P-256 or Ed25519, got {curve}"


def _from_jwks(document: Any) -> _Key | None:
    """A usable key of a JWKS; None for one that is for something else, or secret."""
    if not isinstance(document, dict) or document.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    if document.get("use", "sig") != "sig":
        return None
    try:
        with warnings.catch_warnings(action="ignore", category=SecurityWarning):
            key = jwk.import_key(document)
    except (JoseError, ValueError, TypeError, LookupError):
        return None
    return None if _weakness(key) is not None else key


def _address(url: str) -> str:
    try:
        parsed = urlsplit(url)
        possible = parsed.scheme in ("http", "https") and parsed.hostname and parsed.port != 0 and url.isprintable()
    except ValueError:
        possible = False
    if not possible:
        raise ValueError(f"jwks_url: expected an http or https address, got {url!r}")
    return url


def _either(names: frozenset[str]) -> str:
    return " or ".join(sorted(names)) or "none: no key is configured"
