"""Signature Version 4 against AWS's own examples, against botocore, and against what is wrong with a signature."""

from __future__ import annotations

import base64
import hashlib
import time
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch
from urllib.parse import quote, urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hubbub.sigv4 import Credentials, Keys, Rejected, Signer, sign, verify

ACCESS, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
ALICE = Credentials(ACCESS, SECRET)
KNOWN = Keys({ACCESS: SECRET})
THEN = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
THEN_S = THEN.timestamp()
HOST = "example.amazonaws.com"
TARGET = "/prod/@connections/R0oXAdfD0kwCH6w%3D"

Fields = list[tuple[str, str]]


def changed(text: str) -> str:
    """The same with another last character."""
    return text[:-1] + ("0" if text[-1] != "0" else "1")


class Made:
    """A signed request as it comes in on the wire, to be spoilt and checked.

    Attributes:
        method, path, query, fields, body: what `verify` is given.

    """

    def __init__(self, target: str = TARGET, *, body: bytes = b"hello", method: str = "POST", **options: Any) -> None:
        self.method, self.body = method, body
        self.path, _, self.query = target.partition("?")
        headers = options.pop("headers", {})
        signing: dict[str, Any] = {"credentials": ALICE, "service": "execute-api", "region": "us-east-1"}
        signing |= {"now_s": THEN_S, **options}
        signed = sign(
            signing.pop("credentials"),
            method=method,
            url=f"https://{HOST}{target}",
            headers=headers,
            body=body,
            **signing,
        )
        self.fields: Fields = [("Host", HOST), *headers.items(), *signed.items()]

    def field(self, name: str) -> str:
        """A header's value."""
        return next(value for known, value in self.fields if known == name)

    def put(self, name: str, value: str | None) -> None:
        """Change a header; None takes it out."""
        self.fields = [field for field in self.fields if field[0] != name]
        if value is not None:
            self.fields.append((name, value))

    def swap(self, name: str, old: str, new: str) -> None:
        """Change a part of a header, which must be there."""
        assert old in self.field(name)
        self.put(name, self.field(name).replace(old, new))

    def checked(self, keys: Keys = KNOWN, *, now_s: float = THEN_S, **options: Any) -> Signer:
        """What `verify` says."""
        return verify(
            keys,
            method=self.method,
            path=self.path,
            query=self.query,
            fields=self.fields,
            body=self.body,
            now_s=now_s,
            **{"service": "execute-api", **options},
        )

    def rejected(self, keys: Keys = KNOWN, **options: Any) -> Rejected:
        """What `verify` raises."""
        with pytest.raises(Rejected) as caught:
            self.checked(keys, **options)
        assert caught.value.status == 403
        return caught.value


# AWS's own examples

SUITE = {
    "get-vanilla": ("GET /", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    "get-utf8": ("GET /ሴ", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
    "get-space": ("GET /example space/", "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"),
    "get-relative": (
        "GET /example1/example2/../..",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    "get-slash-pointless-dot": ("GET /./example", "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5"),
    "get-slashes": ("GET //example//", "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84"),
    "get-unreserved": (
        "GET /-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
    ),
    "get-query-order": (
        "GET /?Param2=value2&Param1=value1",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    "get-query-order-encoded": (
        "GET /?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
        "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
    ),
    "get-utf8-query": ("GET /?ሴ=bar", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"),
    "post-vanilla": ("POST /", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
}
"""AWS's test suite for signers, by its own names: what is asked for, and the signature."""


@pytest.mark.parametrize("name", SUITE)
def test_awss_own_examples_are_signed_as_aws_signs_them(name: str) -> None:
    """And the signature is found good on the request that comes in on the wire."""
    asked, signature = SUITE[name]
    method, _, target = asked.partition(" ")
    made = Made(target, method=method, body=b"", service="service")
    assert made.field("Authorization").endswith(f", Signature={signature}")
    made.path, made.query = (part.encode().decode("latin-1") for part in (made.path, made.query))
    assert made.checked(service="service") == Signer(ACCESS, "us-east-1", True)


HEADERS = {
    "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736": {
        "My-Header1": " value1",
        "My-Header2": ' "a   b   c"',
    },
    "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d": {"My-Header1": "VALUE1"},
}
"""Of the same suite: get-header-value-trim and post-header-value-case, headers by signature."""


@pytest.mark.parametrize("signature", HEADERS)
def test_values_of_headers_are_trimmed_and_keep_their_case(signature: str) -> None:
    """Blanks around them go, and those within become one."""
    method = "GET" if len(HEADERS[signature]) == 2 else "POST"
    made = Made("/", method=method, headers=HEADERS[signature], body=b"", service="service")
    assert made.field("Authorization").endswith(signature)
    assert made.checked(service="service").checked


def test_a_header_that_comes_twice_counts_once_with_both_values() -> None:
    """The suite's get-header-value-order: values in their order, with commas between them."""
    signature = "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01"
    made = Made("/", method="GET", body=b"", headers={"My-Header1": "value4,value1,value3,value2"}, service="service")
    assert made.field("Authorization").endswith(signature)
    made.put("My-Header1", None)
    made.fields += [("My-Header1", f"value{n}") for n in (4, 1, 3, 2)]
    assert made.checked(service="service").checked


def test_a_session_token_is_signed() -> None:
    """The suite's get-vanilla-with-session-token, and nobody can change the token afterwards."""
    token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267"
    signature = "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8"
    credentials = Credentials(ACCESS, SECRET, token)
    made = Made("/", method="GET", body=b"", credentials=credentials, service="service")
    assert made.field("X-Amz-Security-Token") == token
    assert made.field("Authorization").endswith(signature)
    assert made.checked(service="service").checked
    made.put("X-Amz-Security-Token", changed(token))
    assert made.rejected(service="service").type == "InvalidSignatureException"


def test_a_presigned_example_of_awss_passes() -> None:
    """The suite's get-vanilla in its query form, an hour after it was signed, and not a second later."""
    made = Made("/", method="GET", body=b"")
    made.fields = [("host", HOST)]
    made.query = (
        f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={ACCESS}%2F20150830%2Fus-east-1%2Fservice%2Faws4_request"
        "&X-Amz-Date=20150830T123600Z&X-Amz-SignedHeaders=host&X-Amz-Expires=3600"
        "&X-Amz-Signature=e93c787ed7f371d5c6b165c1b38ede9550f4dce4144713e844b25b7192d3865d"
    )
    assert made.checked(service="service", now_s=THEN_S + 3_600).checked
    late = made.rejected(service="service", now_s=THEN_S + 3_601)
    assert (late.type, late.message) == (
        "InvalidSignatureException",
        "Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z (20150830T133601Z - 60 min.)",
    )
    made.query = made.query.replace("3600", "3601")
    assert made.rejected(service="service").type == "InvalidSignatureException"


# Against botocore

_SAFE = "ABCxyz019-_.~"
segments = st.one_of(
    st.sampled_from(
        ["@connections", "%40connections", "R0oXAdfD0kwCH6w%3D", "R0oXAdfD0kwCH6w=", "$default", ".", ".."]
    ),
    st.text(_SAFE + "@=:+$!'()*,;&", max_size=8),
    st.binary(max_size=4).map(lambda data: quote(data, safe="")),
)
paths = st.lists(segments, max_size=5).map(lambda parts: "/" + "/".join(parts))
encoded = st.text(max_size=6).map(lambda text: quote(text.encode("utf-8", "replace"), safe="-_.~"))
queries = st.lists(st.tuples(encoded.filter(bool), encoded), max_size=4).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
)
values = st.text("abc XYZ019-_=;,/äß", max_size=12)
headers = st.dictionaries(st.sampled_from(["Content-Type", "X-Amz-Meta", "X-Other", "User-Agent", "TE"]), values)
hosts = st.sampled_from(["h.example", "h.example:8443", "h.example:443", "127.0.0.1:8000", "[::1]:8000"])
bodies = st.binary(max_size=20)
tokens = st.sampled_from([None, "AQoDYXdzEPT//////////wEXAMPLE=="])


def botocore_request(method: str, url: str, body: bytes, headers: dict[str, str]) -> botocore.awsrequest.AWSRequest:
    return botocore.awsrequest.AWSRequest(method=method, url=url, data=body, headers=headers)


def signed_by_botocore(request: Any, signer: Any) -> None:
    with patch("botocore.auth.get_current_datetime", lambda: THEN.replace(tzinfo=None)):
        signer.add_auth(request)


def as_it_comes_in(request: Any, body: bytes) -> Made:
    """A request of botocore's on the wire: names in any case, values in UTF-8, the host named by the client."""
    parts = urlsplit(request.url)
    made = Made()
    made.method, made.body, made.path, made.query = request.method, body, parts.path, parts.query
    made.fields = [(name, value.encode().decode("latin-1")) for name, value in request.headers.items()]
    if "host" not in {name.lower() for name, _ in made.fields}:
        made.fields.append(("Host", botocore.auth._host_from_url(request.url)))
    return made


@given(paths, queries, headers, hosts, bodies, tokens, st.sampled_from(["GET", "POST", "DELETE", "PUT"]))
@example("/prod/@connections/R0oXAdfD0kwCH6w%3D", "", {}, "127.0.0.1:8000", b"hi", None, "POST")
@example("/prod/%40connections/R0oXAdfD0kwCH6w%3D", "", {}, "127.0.0.1:8000", b"hi", None, "POST")
@example("/prod/@connections/R0oXAdfD0kwCH6w=", "code=4000&reason=a%20b", {}, "h.example:443", b"", None, "DELETE")
def test_requests_are_signed_as_botocore_signs_them(
    path: str, query: str, headers: dict[str, str], host: str, body: bytes, token: str | None, method: str
) -> None:
    """To the byte; what botocore signs is found good, and a changed body, path, query or header is found out."""
    url = f"https://{host}{path}" + (f"?{query}" if query else "")
    request = botocore_request(method, url, body, headers)
    signed_by_botocore(
        request,
        botocore.auth.SigV4Auth(botocore.credentials.Credentials(ACCESS, SECRET, token), "execute-api", "eu-west-1"),
    )
    mine = sign(
        Credentials(ACCESS, SECRET, token),
        method=method,
        url=url,
        headers=headers,
        body=body,
        service="execute-api",
        region="eu-west-1",
        now_s=THEN_S + 0.9,
    )
    assert mine == {name: request.headers[name] for name in mine}
    assert set(mine) == {"Authorization", "X-Amz-Date"} | ({"X-Amz-Security-Token"} if token else set())
    assert as_it_comes_in(request, body).checked() == Signer(ACCESS, "eu-west-1", True)
    for spoil in (
        lambda made: setattr(made, "body", made.body + b"!"),
        lambda made: setattr(made, "path", made.path.rstrip("/") + "/more"),
        lambda made: setattr(made, "query", "more=1&" + made.query),
        lambda made: setattr(made, "method", "PATCH"),
        lambda made: made.fields.insert(0, ("Host", "evil.example")),
    ):
        made = as_it_comes_in(request, body)
        spoil(made)
        assert made.rejected().type == "InvalidSignatureException"


@given(paths, queries, hosts, tokens, st.integers(1, 604_800), st.integers(-400, 604_900))
def test_presigned_addresses_are_found_good_as_long_as_they_say(
    path: str, query: str, host: str, token: str | None, expires_s: int, later_s: int
) -> None:
    """What botocore presigns, with a query of its own and the token in it; and not longer, nor from the future."""
    request = botocore_request("GET", f"wss://{host}{path}" + (f"?{query}" if query else ""), b"", {})
    signed_by_botocore(
        request,
        botocore.auth.SigV4QueryAuth(
            botocore.credentials.Credentials(ACCESS, SECRET, token), "execute-api", "us-east-1", expires=expires_s
        ),
    )
    made = as_it_comes_in(request, b"")
    if -300 <= later_s <= expires_s:
        assert made.checked(now_s=THEN_S + later_s) == Signer(ACCESS, "us-east-1", True)
        made.query = changed(made.query)
        assert made.rejected(now_s=THEN_S + later_s).type == "InvalidSignatureException"
    else:
        late = made.rejected(now_s=THEN_S + later_s)
        assert late.message.startswith("Signature expired" if later_s > 0 else "Signature not yet current")


@given(st.lists(st.tuples(st.text("ab:@/+", min_size=1, max_size=3), st.text("ab:@/+ ", max_size=3)), max_size=4))
def test_a_query_that_is_signed_as_it_stands_passes(pairs: list[tuple[str, str]]) -> None:
    """Botocore encodes nothing in the query of an address that it is given."""
    query = "&".join(f"{name}={value}" for name, value in pairs)
    request = botocore_request("GET", f"https://{HOST}/prod?{query}", b"", {})
    credentials = botocore.credentials.Credentials(ACCESS, SECRET)
    signed_by_botocore(request, botocore.auth.SigV4Auth(credentials, "execute-api", "us-east-1"))
    made = as_it_comes_in(request, b"")
    assert made.checked().checked
    made.query += "&a=b"
    assert made.rejected().type == "InvalidSignatureException"


@given(st.lists(st.tuples(st.text(min_size=1, max_size=4), st.text(max_size=6)), max_size=4, unique_by=lambda p: p[0]))
def test_a_query_is_signed_encoded_however_it_is_sent(pairs: list[tuple[str, str]]) -> None:
    """What botocore signs of parameters that it is given apart is what is signed of an address that has them."""
    pairs = [
        (name.encode("utf-8", "replace").decode(), value.encode("utf-8", "replace").decode()) for name, value in pairs
    ]
    request = botocore_request("GET", f"https://{HOST}/prod", b"", {})
    request.params = dict(pairs)
    credentials = botocore.credentials.Credentials(ACCESS, SECRET)
    signed_by_botocore(request, botocore.auth.SigV4Auth(credentials, "execute-api", "us-east-1"))
    loosely = "&".join(
        f"{quote(name, safe='@:,!$')}={quote(value, safe='@:,!$=')}" for name, value in dict(pairs).items()
    )
    made = Made(f"/prod?{loosely}", method="GET", body=b"")
    assert made.field("Authorization") == request.headers["Authorization"]
    assert made.checked().checked


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=40)), max_size=4), st.text(max_size=60), st.text())
def test_no_request_makes_it_raise_anything_else(pairs: Fields, authorization: str, query: str) -> None:
    """Whatever a stranger sends is a signature or it is not."""
    fields = [*pairs, ("authorization", f"AWS4-HMAC-SHA256 Credential={authorization}"), ("x-amz-date", authorization)]
    for sent in (fields, pairs):
        for asked in (query, f"X-Amz-Signature={query}&X-Amz-Credential={authorization}&X-Amz-Date={query}"):
            with pytest.raises(Rejected):
                verify(
                    Keys({}, accept_unknown=True),
                    method="GET",
                    path=query,
                    query=asked,
                    fields=sent,
                    body=b"",
                    service="execute-api",
                    now_s=THEN_S,
                )


# The body

UNSIGNED = {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}


def test_an_unsigned_body_may_be_anything_if_that_is_signed() -> None:
    """`UNSIGNED-PAYLOAD` is what is signed in its place; it cannot be claimed of a body that was signed."""
    made = Made(headers=UNSIGNED)
    made.body = b"anything"
    assert made.checked().checked
    signed = Made()
    signed.fields += UNSIGNED.items()
    assert signed.rejected().type == "InvalidSignatureException"


def test_a_hash_that_is_not_the_bodys_does_not_pass() -> None:
    """The body that came is what counts; a right hash does no harm."""
    honest = Made(headers={"x-amz-content-sha256": hashlib.sha256(b"hello").hexdigest()})
    assert honest.checked().checked
    honest.body = b"other"
    assert honest.rejected().type == "InvalidSignatureException"


# What is wrong


def test_nothing_at_all_is_a_missing_token() -> None:
    """In the words of API Gateway."""
    made = Made()
    made.put("Authorization", None)
    missing = made.rejected()
    assert (missing.type, missing.message) == ("MissingAuthenticationTokenException", "Missing Authentication Token")


def test_each_part_that_is_missing_is_named() -> None:
    """In AWS's order, with the hash of the header instead of the header."""
    made = Made()
    made.put("Authorization", "token")
    made.put("X-Amz-Date", None)
    hashed = base64.b64encode(hashlib.sha256(b"token").digest()).decode()
    incomplete = made.rejected()
    assert (incomplete.type, incomplete.message) == (
        "IncompleteSignatureException",
        (
            "Authorization header requires 'Credential' parameter. "
            "Authorization header requires 'Signature' parameter. "
            "Authorization header requires 'SignedHeaders' parameter. "
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
            f"(Hashed with SHA-256 and encoded with Base64) Authorization={hashed}"
        ),
    )
    dateless = Made()
    dateless.put("X-Amz-Date", None)
    assert dateless.rejected().message.startswith("Authorization header requires existence of either a 'X-Amz-Date'")


def test_a_bearer_token_is_no_signature_and_is_not_shown() -> None:
    """The part without an equals sign is what API Gateway complains of."""
    made = Made()
    made.put("Authorization", "Bearer abc.def")
    hashed = base64.b64encode(hashlib.sha256(b"Bearer abc.def").digest()).decode()
    assert made.rejected().message == (
        "Invalid key=value pair (missing equal-sign) in Authorization header "
        f"(hashed with SHA-256 and encoded with Base64): '{hashed}'."
    )


def test_each_parameter_that_a_presigned_address_lacks_is_named() -> None:
    """In AWS's order."""
    made = Made()
    made.put("Authorization", None)
    made.query = "X-Amz-Signature=0&X-Amz-Date=20150830T123600Z"
    incomplete = made.rejected()
    assert (incomplete.type, incomplete.message) == (
        "IncompleteSignatureException",
        (
            "AWS query-string parameters must include 'X-Amz-Algorithm'. AWS query-string parameters must include "
            "'X-Amz-Credential'. AWS query-string parameters must include 'X-Amz-SignedHeaders'. "
            "Re-examine the query-string parameters."
        ),
    )


@pytest.mark.parametrize("expires", ["0", "604801", "-1", "ten", "", "²", "9" * 5_000])
def test_a_presigned_address_holds_for_a_second_to_a_week(expires: str) -> None:
    """Anything else is malformed."""
    made = Made()
    made.put("Authorization", None)
    credential = f"{ACCESS}%2F20150830%2Fus-east-1%2Fexecute-api%2Faws4_request"
    made.query = (
        f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date=20150830T123600Z"
        f"&X-Amz-SignedHeaders=host&X-Amz-Signature={'0' * 64}&X-Amz-Expires={quote(expires)}"
    )
    assert made.rejected().type == "IncompleteSignatureException"
    assert "X-Amz-Expires" in made.rejected().message


def test_two_signatures_are_one_too_many() -> None:
    """One in the header and one in the query."""
    made = Made()
    made.query = "X-Amz-Algorithm=AWS4-HMAC-SHA256"
    assert made.rejected().message == (
        "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."
    )


@pytest.mark.parametrize("date", ["yesterday", "2015-08-30T12:36:00Z", "20151330T123600Z", "20150830T12360²Z"])
def test_a_date_that_is_none_is_named(date: str) -> None:
    """As it came."""
    made = Made()
    made.put("X-Amz-Date", date)
    incomplete = made.rejected()
    assert incomplete.type == "IncompleteSignatureException"
    assert incomplete.message.startswith(f"Date must be in ISO-8601 'basic format'. Got '{date}'.")


def test_the_date_header_will_do() -> None:
    """Where there is no `X-Amz-Date`; botocore signs so if a request has a `Date`."""
    request = botocore_request("POST", f"https://{HOST}{TARGET}", b"hello", {"Date": "Thu, 01 Jan 1970 00:00:00 GMT"})
    credentials = botocore.credentials.Credentials(ACCESS, SECRET)
    signed_by_botocore(request, botocore.auth.SigV4Auth(credentials, "execute-api", "us-east-1"))
    assert "X-Amz-Date" not in request.headers
    assert as_it_comes_in(request, b"hello").checked().checked


def test_a_date_without_a_zone_is_universal_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever this machine is."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        made = Made()
        made.put("X-Amz-Date", None)
        made.fields.append(("Date", "Sun, 30 Aug 2015 12:36:00 -0000"))
        assert not made.checked(Keys({}, accept_unknown=True)).checked
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("later_s", "said"),
    [
        (301, "Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z (20150830T124101Z - 5 min.)"),
        (
            -301,
            (
                "Signature not yet current: 20150830T123600Z is still later than 20150830T123559Z "
                "(20150830T123059Z + 5 min.)"
            ),
        ),
    ],
)
def test_a_signature_holds_for_five_minutes_around_its_date(later_s: int, said: str) -> None:
    """Before and after it is refused in AWS's words, whoever signed it."""
    made = Made()
    assert made.checked(now_s=THEN_S + 300).checked
    assert made.checked(now_s=THEN_S - 300).checked
    for keys in (KNOWN, Keys({}, accept_unknown=True)):
        refused = made.rejected(keys, now_s=THEN_S + later_s)
        assert (refused.type, refused.message) == ("InvalidSignatureException", said)


def test_the_scope_is_held_against_what_is_called() -> None:
    """Region, service, terminator and date, each in AWS's words, all at once."""
    made = Made()
    made.swap("Authorization", "20150830/us-east-1/execute-api/aws4_request", "20150829/eu-west-1/s3/aws5_request")
    refused = made.rejected(region="us-east-1")
    assert (refused.type, refused.message) == (
        "InvalidSignatureException",
        (
            "Credential should be scoped to a valid region, not 'eu-west-1'. "
            "Credential should be scoped to correct service: 'execute-api'. "
            "Credential should be scoped with a valid terminator: 'aws4_request', not 'aws5_request'. "
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            "'20150829' != '20150830', from '20150830T123600Z'."
        ),
    )
    assert Made(region="eu-west-1").checked().region == "eu-west-1"
    assert Made(region="eu-west-1").rejected(region="us-east-1").type == "InvalidSignatureException"
    assert Made(service="sqs").rejected().message == "Credential should be scoped to correct service: 'execute-api'. "


def test_a_credential_has_five_parts() -> None:
    """Fewer or more are malformed."""
    made = Made()
    made.swap("Authorization", "/aws4_request", "/aws4_request/more")
    assert made.rejected().message.endswith("/aws4_request/more'")
    made = Made()
    made.swap("Authorization", "/aws4_request", "")
    refused = made.rejected()
    assert refused.type == "IncompleteSignatureException"
    assert refused.message == (
        "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, "
        f"got '{ACCESS}/20150830/us-east-1/execute-api'"
    )


def test_the_host_must_be_signed() -> None:
    """Or a request could be sent to somebody else."""
    made = Made()
    made.swap("Authorization", "SignedHeaders=host;", "SignedHeaders=")
    refused = made.rejected(Keys({}, accept_unknown=True))
    assert (refused.type, refused.message) == (
        "InvalidSignatureException",
        "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.",
    )


def test_another_algorithm_is_not_supported() -> None:
    """Asymmetric signatures (SigV4A) are malformed here, and said to be."""
    made = Made()
    made.swap("Authorization", "AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256")
    refused = made.rejected()
    assert (refused.type, refused.message) == (
        "IncompleteSignatureException",
        "Unsupported AWS 'algorithm': 'AWS4-ECDSA-P256-SHA256' (only AWS4-HMAC-SHA256 for now). ",
    )


def test_a_wrong_signature_is_told_what_would_have_been_signed() -> None:
    """The canonical request and the string to sign, from which a caller sees what was changed on the way."""
    made = Made(credentials=Credentials(ACCESS, "another secret"))
    refused = made.rejected()
    assert refused.type == "InvalidSignatureException"
    assert refused.message == (
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access "
        "Key and signing method. Consult the service documentation for details.\n\n"
        "The Canonical String for this request should have been\n"
        f"'POST\n/prod/%40connections/R0oXAdfD0kwCH6w%253D\n\nhost:{HOST}\nx-amz-date:20150830T123600Z\n\n"
        f"host;x-amz-date\n{hashlib.sha256(b'hello').hexdigest()}'\n\n"
        "The String-to-Sign should have been\n"
        "'AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/execute-api/aws4_request\n"
        f"{hashlib.sha256(refused.message.split(chr(39))[1].encode()).hexdigest()}'\n"
    )


@pytest.mark.parametrize("signature", ["", "0" * 63, "0" * 65, "ä" * 64, "G" * 64])
def test_what_cannot_be_a_signature_is_none(signature: str) -> None:
    """Of a known key, nor of an unknown one."""
    made = Made()
    head = made.field("Authorization").partition("Signature=")[0]
    made.put("Authorization", f"{head}Signature={signature}")
    made.rejected()
    made.rejected(Keys({}, accept_unknown=True))


def test_an_unknown_key_is_refused_or_believed() -> None:
    """As whoever checks has decided; what is believed is said to be unchecked."""
    stranger = Made(credentials=Credentials("AKIDSTRANGER", "whatever"))
    refused = stranger.rejected()
    assert (refused.type, refused.message) == (
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
    )
    lenient = Keys({ACCESS: SECRET}, accept_unknown=True)
    assert stranger.checked(lenient) == Signer("AKIDSTRANGER", "us-east-1", False)
    stranger.body = b"anything"
    assert not stranger.checked(lenient).checked


def test_a_known_key_is_checked_even_where_unknown_ones_are_believed() -> None:
    """Nobody can speak in its name without its secret."""
    lenient = Keys({ACCESS: SECRET}, accept_unknown=True)
    assert Made().checked(lenient).checked
    assert Made(credentials=Credentials(ACCESS, "guessed")).rejected(lenient).type == "InvalidSignatureException"


def test_secrets_are_not_shown() -> None:
    """Neither credentials nor keys show them when they are written to a log."""
    shown = repr(ALICE) + repr(KNOWN) + repr(Keys({}, accept_unknown=True)) + str(ALICE)
    assert SECRET not in shown
    assert ACCESS in shown
