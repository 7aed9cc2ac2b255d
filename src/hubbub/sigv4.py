"""AWS's Signature Version 4: sign a request, and check the signature of one.

Pure: no socket, no clock, no environment. What is refused is refused in AWS's words and order; the canonical form is
that of all services but S3, whose paths are encoded once more than they are on the wire.
Source: docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html, and "Troubleshoot Signature
Version 4" beside it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes, urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
"""What stands in `x-amz-content-sha256`, and in the canonical request, for a body that is not signed."""

SKEW_S = 300
"""How far a request's date may be from now."""

MAX_EXPIRES_S = 604_800
"""How long a presigned address may hold: a week."""

_TERMINATOR = "aws4_request"
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_STAMP = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z", re.ASCII)

_HOP = {"connection", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
_CHANGED = {"baggage", "proxy-authenticate", "proxy-authorization", "traceparent", "tracestate", "x-amzn-trace-id"}
_UNSIGNED = _HOP | _CHANGED | {"authorization", "user-agent"}
"""Headers that are not signed: they belong to a hop, or something on the way may change them."""

_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)


class Credentials(NamedTuple):
    """What a request is signed with."""

    access_key: str
    secret_key: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return f"<Credentials {self.access_key}>"


class Keys:
    """The keys that are known to whoever checks signatures.

    A session token is signed with the rest of a request, and otherwise not looked at.

    Args:
        known: access key to secret key.
        accept_unknown: whether a key that is not known passes with a signature that nobody can check, if it is well
            formed and in date: for a machine of one's own. The signature of a known key is always checked.

    """

    __slots__ = ("accept_unknown", "known")

    def __init__(self, known: Mapping[str, str], *, accept_unknown: bool = False) -> None:
        self.known = dict(known)
        self.accept_unknown = accept_unknown

    def __repr__(self) -> str:
        return f"<Keys {', '.join(self.known)}{' and any other' if self.accept_unknown else ''}>"


class Signer(NamedTuple):
    """Who signed a request.

    Attributes:
        access_key: theirs.
        region: which the signature is for.
        checked: whether the signature was found to be theirs; False where the key is not known and that is accepted.

    """

    access_key: str
    region: str
    checked: bool


class Rejected(Exception):
    """A request's signature is not good enough.

    Attributes:
        status: the HTTP status.
        type: what `x-amzn-ErrorType` says.
        message: the sentence for the caller.

    """

    def __init__(self, type: str, message: str, status: int = 403) -> None:  # noqa: A002  AWS's word
        super().__init__(message)
        self.status = status
        self.type = type
        self.message = message


class _Request(NamedTuple):
    """What of a request goes into its signature: all in bytes, as on the wire; names of fields in lower case."""

    method: str
    path: bytes
    query: bytes
    fields: Sequence[tuple[str, bytes]]
    body: bytes


class _Claim(NamedTuple):
    """What a request says of its signature.

    Attributes:
        scope: what follows the access key: date, region, service, terminator.
        stamp: when it was signed, in ISO 8601's basic format.
        signed: names of the fields that are signed, in lower case.
        expires_s: how long it holds; None for a signature in a header.

    """

    algorithm: str
    access_key: str
    scope: tuple[str, str, str, str]
    stamp: str
    signed: tuple[str, ...]
    signature: str
    expires_s: int | None


def sign(
    credentials: Credentials,
    *,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    service: str,
    region: str,
    now_s: float,
) -> dict[str, str]:
    """The headers that make a signed request of this one: `Authorization`, `X-Amz-Date`, the session token.

    Args:
        credentials: whose it is.
        method, url, headers, body: the request, encoded as it will be sent. `Host` is that of the URL if it is not
            among the headers; `x-amz-content-sha256: UNSIGNED-PAYLOAD` among them leaves the body out.
        service: such as `execute-api`.
        region: such as `us-east-1`.
        now_s: the time, epoch seconds.

    """
    parts = urlsplit(url)
    stamp = _stamp(now_s)
    added = {"X-Amz-Date": stamp}
    if credentials.session_token:
        added["X-Amz-Security-Token"] = credentials.session_token
    fields = {name.lower(): value for name, value in {**headers, **added}.items()}
    fields.setdefault("host", _host(parts.scheme, parts.hostname or "", parts.port))
    pairs = [(name, value.encode()) for name, value in fields.items() if name not in _UNSIGNED]
    signed = tuple(sorted(name for name, _ in pairs))
    request = _Request(method, parts.path.encode(), parts.query.encode(), pairs, body)
    scope = (stamp[:8], region, service, _TERMINATOR)
    to_sign = _string_to_sign(stamp, scope, _canonical_request(request, signed, _strict_query(request.query)))
    signature = _signature(credentials.secret_key, scope, to_sign)
    added["Authorization"] = (
        f"{ALGORITHM} Credential={credentials.access_key}/{'/'.join(scope)}, "
        f"SignedHeaders={';'.join(signed)}, Signature={signature}"
    )
    return added


def verify(
    keys: Keys,
    *,
    method: str,
    path: str,
    query: str,
    fields: Iterable[tuple[str, str]],
    body: bytes,
    service: str,
    now_s: float,
    region: str | None = None,
) -> Signer:
    """Who signed a request, in its `Authorization` or in its query.

    Args:
        keys: which are known.
        method: such as `GET`.
        path, query: as on the wire, percent-encoded; bytes beyond ASCII as latin-1.
        fields: names and values of the headers, in their order; likewise.
        body: all of it.
        service: which the signature must be for.
        now_s: the time, epoch seconds.
        region: which the signature must be for; None for any.

    Raises:
        Rejected: there is no signature, or it is malformed, not of now, or wrong.

    """
    request = _Request(
        method,
        _wire(path),
        _wire(query),
        [(name.lower(), _wire(value)) for name, value in fields],
        body,
    )
    claim = _claim_of(request)
    _check_date(claim, now_s)
    _check_form(claim, service, region)
    secret = keys.known.get(claim.access_key)
    if secret is None and not keys.accept_unknown:
        raise Rejected("UnrecognizedClientException", "The security token included in the request is invalid.")
    if secret is not None:
        _check_signature(request, claim, secret)
    elif not _SIGNATURE.fullmatch(claim.signature):
        raise Rejected("InvalidSignatureException", _MISMATCH)
    return Signer(claim.access_key, claim.scope[1], secret is not None)


# What a request says of its signature


def _claim_of(request: _Request) -> _Claim:
    authorization = _first(request.fields, "authorization")
    given = _query_parameters(request.query)
    in_query = any(name in given for name in ("x-amz-algorithm", "x-amz-credential", "x-amz-signature"))
    if authorization and in_query:
        found = "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."
        raise Rejected("InvalidSignatureException", found)
    if authorization:
        return _claim_in_header(authorization, request.fields)
    if in_query:
        return _claim_in_query(given)
    raise Rejected("MissingAuthenticationTokenException", "Missing Authentication Token")


def _claim_in_header(authorization: str, fields: Sequence[tuple[str, bytes]]) -> _Claim:
    algorithm, _, rest = authorization.partition(" ")
    # AWS shows the hash and not the header: there may be a token in it that is none of its business.
    hashed = base64.b64encode(hashlib.sha256(authorization.encode()).digest()).decode()
    given = {}
    for part in filter(None, (part.strip() for part in rest.split(","))):
        name, equals, value = part.partition("=")
        if not equals:
            raise _incomplete(
                "Invalid key=value pair (missing equal-sign) in Authorization header "
                f"(hashed with SHA-256 and encoded with Base64): '{hashed}'."
            )
        given[name] = value
    required = ("Credential", "Signature", "SignedHeaders")
    missing = [f"Authorization header requires '{name}' parameter." for name in required if not given.get(name)]
    date = _first(fields, "x-amz-date") or _first(fields, "date")
    if not date:
        missing.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    if missing or not date:
        hint = f"(Hashed with SHA-256 and encoded with Base64) Authorization={hashed}"
        raise _incomplete(" ".join([*missing, hint]))
    access_key, scope = _credential(given["Credential"])
    return _Claim(algorithm, access_key, scope, _basic(date), _names(given["SignedHeaders"]), given["Signature"], None)


def _claim_in_query(given: dict[str, str]) -> _Claim:
    required = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date")
    missing = [
        f"AWS query-string parameters must include '{name}'." for name in required if not given.get(name.lower())
    ]
    if missing:
        raise _incomplete(" ".join([*missing, "Re-examine the query-string parameters."]))
    expires = given.get("x-amz-expires", str(SKEW_S))
    if not (expires.isascii() and expires.isdecimal() and len(expires) <= 6 and 1 <= int(expires) <= MAX_EXPIRES_S):
        raise _incomplete(f"X-Amz-Expires must be a number of seconds from 1 to {MAX_EXPIRES_S}, got '{expires}'.")
    access_key, scope = _credential(given["x-amz-credential"])
    return _Claim(
        given["x-amz-algorithm"],
        access_key,
        scope,
        _basic(given["x-amz-date"]),
        _names(given["x-amz-signedheaders"]),
        given["x-amz-signature"],
        int(expires),
    )


def _credential(text: str) -> tuple[str, tuple[str, str, str, str]]:
    """The access key and the scope."""
    parts = text.split("/")
    if len(parts) != 5:
        raise _incomplete(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, "
            f"got '{text}'"
        )
    access_key, date, region, service, terminator = parts
    return access_key, (date, region, service, terminator)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in text.split(";"))


def _basic(date: str) -> str:
    """A date in ISO 8601's basic format; a `Date` header's is written otherwise (RFC 9110, section 5.6.7)."""
    if _epoch(date) is not None:
        return date
    from email.utils import parsedate_to_datetime  # seldom needed, and slow to load where functions start cold

    try:
        read = parsedate_to_datetime(date)
        return _stamp((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp())
    except (ValueError, TypeError, OverflowError, OSError):
        raise _incomplete(
            f"Date must be in ISO-8601 'basic format'. Got '{date}'. See http://en.wikipedia.org/wiki/ISO_8601"
        ) from None


def _incomplete(message: str) -> Rejected:
    return Rejected("IncompleteSignatureException", message)


# Whether that is so


def _check_date(claim: _Claim, now_s: float) -> None:
    signed_s = _epoch(claim.stamp)
    assert signed_s is not None  # noqa: S101  a claim's stamp has been read
    now, window_s = int(now_s), claim.expires_s or SKEW_S
    if signed_s < now - window_s:
        window = f"{window_s // 60} min." if window_s % 60 == 0 else f"{window_s} s"
        raise Rejected(
            "InvalidSignatureException",
            f"Signature expired: {claim.stamp} is now earlier than {_stamp(now - window_s)} ({_stamp(now)} - {window})",
        )
    if signed_s > now + SKEW_S:
        raise Rejected(
            "InvalidSignatureException",
            f"Signature not yet current: {claim.stamp} is still later than {_stamp(now + SKEW_S)} "
            f"({_stamp(now)} + {SKEW_S // 60} min.)",
        )


def _check_form(claim: _Claim, service: str, region: str | None) -> None:
    if "host" not in claim.signed:
        named = "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
        raise Rejected("InvalidSignatureException", named)
    if claim.algorithm != ALGORITHM:
        raise _incomplete(f"Unsupported AWS 'algorithm': '{claim.algorithm}' (only {ALGORITHM} for now). ")
    date, scoped_region, scoped_service, terminator = claim.scope
    wrong = []
    if scoped_region != (region or scoped_region):
        wrong.append(f"Credential should be scoped to a valid region, not '{scoped_region}'. ")
    if scoped_service != service:
        wrong.append(f"Credential should be scoped to correct service: '{service}'. ")
    if terminator != _TERMINATOR:
        wrong.append(f"Credential should be scoped with a valid terminator: '{_TERMINATOR}', not '{terminator}'. ")
    if date != claim.stamp[:8]:
        wrong.append(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            f"'{date}' != '{claim.stamp[:8]}', from '{claim.stamp}'."
        )
    if wrong:
        raise Rejected("InvalidSignatureException", "".join(wrong))


def _check_signature(request: _Request, claim: _Claim, secret: str) -> None:
    query = _without_signature(request.query)
    strict = _canonical_request(request, claim.signed, _strict_query(query))
    canonical = [strict]
    as_it_stands = _sorted_query(query)
    if as_it_stands != _strict_query(query):  # botocore signs the query of an address as it stands there
        canonical.append(_canonical_request(request, claim.signed, as_it_stands))
    if _SIGNATURE.fullmatch(claim.signature):
        for each in canonical:
            expected = _signature(secret, claim.scope, _string_to_sign(claim.stamp, claim.scope, each))
            if hmac.compare_digest(expected, claim.signature):
                return
    shown = strict.decode("utf-8", "replace")
    to_sign = _string_to_sign(claim.stamp, claim.scope, strict).decode("utf-8", "replace")
    raise Rejected(
        "InvalidSignatureException",
        f"{_MISMATCH}\n\nThe Canonical String for this request should have been\n'{shown}'\n\n"
        f"The String-to-Sign should have been\n'{to_sign}'\n",
    )


# The canonical form of a request


def _canonical_request(request: _Request, signed: tuple[str, ...], query: str) -> bytes:
    values: dict[str, list[bytes]] = {name: [] for name in signed}
    for name, value in request.fields:
        if name in values:
            values[name].append(b" ".join(value.split()))
    fields = b"".join(name.encode() + b":" + b",".join(values[name]) + b"\n" for name in sorted(values))
    head = f"{request.method.upper()}\n{_canonical_path(request.path)}\n{query}\n".encode()
    return b"%b%b\n%b\n%b" % (head, fields, ";".join(sorted(values)).encode(), _payload_hash(request).encode())


def _payload_hash(request: _Request) -> str:
    """The body's hash, or the word that says that it is not signed; a header that lies about it does not count."""
    declared = _first(request.fields, "x-amz-content-sha256")
    if declared is None:
        declared = _query_parameters(request.query).get("x-amz-content-sha256")
    return UNSIGNED_PAYLOAD if declared == UNSIGNED_PAYLOAD else hashlib.sha256(request.body).hexdigest()


def _canonical_path(path: bytes) -> str:
    """The path without dot segments and empty ones (RFC 3986, section 5.2.4), encoded once more."""
    segments: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del segments[-1:]
        elif segment not in (b"", b"."):
            segments.append(segment)
    end = b"/" if segments and path.endswith(b"/") else b""
    return quote(b"/" + b"/".join(segments) + end, safe="/~")


def _strict_query(query: bytes) -> str:
    """The query's parameters, each part decoded and encoded anew, sorted."""
    pairs = [pair.partition(b"=") for pair in query.split(b"&") if pair]
    encoded = [(_encoded_anew(name), _encoded_anew(value)) for name, _, value in pairs]
    return "&".join(f"{name}={value}" for name, value in sorted(encoded))


def _sorted_query(query: bytes) -> str:
    pairs = [pair.partition("=") for pair in query.decode("latin-1").split("&")] if query else []
    return "&".join(f"{name}={value}" for name, value in sorted((name, value) for name, _, value in pairs))


def _encoded_anew(text: bytes) -> str:
    return quote(unquote_to_bytes(text), safe="-_.~")


def _without_signature(query: bytes) -> bytes:
    pairs = query.split(b"&")
    return b"&".join(pair for pair in pairs if unquote_to_bytes(pair.partition(b"=")[0]).lower() != b"x-amz-signature")


def _query_parameters(query: bytes) -> dict[str, str]:
    """The first value of each parameter that is about the signature, by its lower-case name."""
    given: dict[str, str] = {}
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        known = unquote_to_bytes(name).lower()
        if known.startswith(b"x-amz-"):
            given.setdefault(known.decode("utf-8", "replace"), unquote_to_bytes(value).decode("utf-8", "replace"))
    return given


# The signature


def _string_to_sign(stamp: str, scope: tuple[str, str, str, str], canonical: bytes) -> bytes:
    return f"{ALGORITHM}\n{stamp}\n{'/'.join(scope)}\n{hashlib.sha256(canonical).hexdigest()}".encode()


def _signature(secret: str, scope: tuple[str, str, str, str], to_sign: bytes) -> str:
    return hmac.new(signing_key(secret, scope), to_sign, hashlib.sha256).hexdigest()


@lru_cache(maxsize=256)
def signing_key(secret: str, scope: tuple[str, str, str, str]) -> bytes:
    """The key of a day, a region and a service, derived once."""
    key = f"AWS4{secret}".encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    return key


# Small things


def _stamp(epoch_s: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(epoch_s))


def _epoch(stamp: str) -> int | None:
    """Epoch seconds of a date in ISO 8601's basic format; None if it is none."""
    found = _STAMP.fullmatch(stamp)
    if found is None:
        return None
    year, month, day, hour, minute, second = map(int, found.groups())
    try:
        return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())
    except ValueError:
        return None


def _host(scheme: str, host: str, port: int | None) -> str:
    """`Host` as HTTP clients write it: without the scheme's own port."""
    name = f"[{host}]" if ":" in host else host
    return name if port in (None, {"http": 80, "https": 443}.get(scheme)) else f"{name}:{port}"


def _first(fields: Sequence[tuple[str, bytes]], name: str) -> str | None:
    return next((value.decode("latin-1") for known, value in fields if known == name), None)


def _wire(text: str) -> bytes:
    """The bytes that were read as latin-1, or else the text in UTF-8."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")
