"""Tokens: which are believed, which are refused and with what words, and how one is issued."""

from __future__ import annotations

import datetime
import hmac
import json
import logging
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles import FakeClock
from examples import examples
from hubbub.auth import DEFAULT_LEEWAY_S, MAX_TOKEN_BYTES, JwtVerifier, issue
from hubbub.errors import TokenExpired, Unauthorized
from hubbub.model import Principal, Role
from tokens import ASYMMETRIC, base64url, forged, private_key, private_pem, public_pem

SECRET = "a-secret-for-tests-only-0123456789abcdef"
OLDER = "an-older-secret-that-still-counts-for-a-while"
NOW = 1_700_000_000
CLAIMS: dict[str, Any] = {"sub": "alice", "iat": NOW, "exp": NOW + 60}


def verifier(**options: Any) -> JwtVerifier:
    """A verifier whose clock stands at `NOW`, with the tests' secret unless there are other keys."""
    if not {"secrets", "public_keys"} & options.keys():
        options["secrets"] = [SECRET]
    return JwtVerifier(**{"now": lambda: NOW, **options})


async def refusal(of: JwtVerifier, token: str) -> str:
    """Why a token is refused; that the words do not repeat it is checked on the way."""
    with pytest.raises(Unauthorized) as refused:
        await of.verify(token)
    for part in token.split("."):
        assert len(part) < 8 or part not in refused.value.message
    return refused.value.message


# Which are believed


async def test_the_claims_of_a_token_become_the_principal():
    """Every claim that means something is in the principal, and others are ignored."""
    claims = {
        **CLAIMS,
        "name": "Alice",
        "avatar": "https://example.com/a.png",
        "rooms": {"order-815": "owner", "tea": "reader"},
        "scope": "server other",
        "email": "alice@example.com",
    }
    assert await verifier().verify(jwt.encode(claims, SECRET, "HS256")) == Principal(
        user="alice",
        expires_at=NOW + 60 + DEFAULT_LEEWAY_S,
        issued_at=NOW,
        name="Alice",
        avatar="https://example.com/a.png",
        rooms={"order-815": Role.OWNER, "tea": Role.READER},
        scopes=("server", "other"),
    )


async def test_a_token_needs_no_more_than_sub_and_exp():
    """All other claims have defaults."""
    made = jwt.encode({"sub": "alice", "exp": NOW + 1}, SECRET, "HS256")
    assert await verifier().verify(made) == Principal("alice", NOW + 1 + DEFAULT_LEEWAY_S)


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
async def test_a_token_of_a_private_key_verifies_with_its_public_one(algorithm: str):
    """RS256, ES256 and EdDSA tokens as PyJWT makes them are believed, and those of another key are not."""
    mine, other = private_key(algorithm), private_key(algorithm, 1)
    of = verifier(public_keys=[public_pem(mine)])
    assert (await of.verify(jwt.encode(CLAIMS, mine, algorithm))).user == "alice"
    assert (await of.verify(jwt.encode(CLAIMS, mine, algorithm, headers={"kid": "k1"}))).user == "alice"
    assert "signature" in await refusal(of, jwt.encode(CLAIMS, other, algorithm))


async def test_several_keys_of_all_kinds_count_at_once():
    """Secrets and public keys stand beside each other; each token finds its own."""
    keys = [private_key(algorithm, which) for algorithm in ASYMMETRIC for which in (0, 1)]
    of = verifier(secrets=[SECRET, OLDER], public_keys=[public_pem(key) for key in keys])
    for secret in (SECRET, OLDER):
        assert (await of.verify(jwt.encode(CLAIMS, secret, "HS256"))).user == "alice"
    for algorithm in ASYMMETRIC:
        for which in (0, 1):
            assert (await of.verify(jwt.encode(CLAIMS, private_key(algorithm, which), algorithm))).user == "alice"


async def test_a_secret_is_replaced_by_adding_the_new_and_later_removing_the_old():
    """While both are there tokens of either are believed, and afterwards those of the old one no more."""
    old = jwt.encode(CLAIMS, OLDER, "HS256")
    assert (await verifier(secrets=[SECRET, OLDER]).verify(old)).user == "alice"
    assert "signature" in await refusal(verifier(secrets=[SECRET]), old)


async def test_a_secret_with_odd_bytes_is_taken_as_the_environment_has_it():
    """Bytes that are not UTF-8 reach a process as surrogates, and count as the bytes they were."""
    octets = b"\xff\xfe" + SECRET.encode()
    of = verifier(secrets=[octets.decode("utf-8", "surrogateescape")])
    assert (await of.verify(forged(octets, CLAIMS))).user == "alice"


# Time


@pytest.mark.parametrize(("exp", "good"), [(NOW - 9, True), (NOW - 9.5, True), (NOW - 10, False), (NOW - 11, False)])
async def test_a_token_runs_out_at_exp_and_the_leeway(exp: float, good: bool):
    """The very second of `exp` plus leeway is too late."""
    made = forged(SECRET, {"sub": "alice", "exp": exp})
    if good:
        await verifier(leeway_s=10).verify(made)
    else:
        with pytest.raises(TokenExpired):
            await verifier(leeway_s=10).verify(made)


@pytest.mark.parametrize("claim", ["nbf", "iat"])
@pytest.mark.parametrize(("ahead_s", "good"), [(10, True), (10.5, False), (11, False)])
async def test_a_token_from_the_future_is_refused_beyond_the_leeway(claim: str, ahead_s: float, good: bool):
    """`nbf` and `iat` may be ahead by as much as clocks may differ."""
    made = forged(SECRET, {"sub": "alice", "exp": NOW + 60, claim: NOW + ahead_s})
    if good:
        await verifier(leeway_s=10).verify(made)
    else:
        assert "future" in await refusal(verifier(leeway_s=10), made)


async def test_without_leeway_seconds_are_exact():
    """A leeway of 0 is none."""
    with pytest.raises(TokenExpired):
        await verifier(leeway_s=0).verify(forged(SECRET, {"sub": "alice", "exp": NOW}))
    await verifier(leeway_s=0).verify(forged(SECRET, {"sub": "alice", "exp": NOW + 1, "nbf": NOW, "iat": NOW}))


@pytest.mark.parametrize("part_s", [0, 0.5])
async def test_a_remembered_token_runs_out_all_the_same(part_s: float):
    """What was verified once is not believed a moment longer, also if `exp` is no whole second."""
    clock = FakeClock(NOW * 1_000)
    of = verifier(now=lambda: clock.now_ms() / 1_000, leeway_s=10)
    made = forged(SECRET, {**CLAIMS, "exp": NOW + 60 + part_s})
    assert await of.verify(made) is await of.verify(made)
    await clock.advance(69.9 + part_s)
    await of.verify(made)
    await clock.advance(0.1)
    for _ in range(2):
        with pytest.raises(TokenExpired):
            await of.verify(made)


async def test_remembered_tokens_take_bounded_memory():
    """However many tokens pass by, few are kept."""
    of = verifier()
    for n in range(1_100):
        await of.verify(forged(SECRET, {**CLAIMS, "sub": f"user{n}"}))
    assert len(of._verified) <= 1_000


# For whom, and by whom


@pytest.mark.parametrize(
    ("aud", "good"),
    [
        ("chat", True),
        (["shop", "chat"], True),
        (["chat"], True),
        ("shop", False),
        (["shop"], False),
        ([], False),
        ("", False),
        ("chat ", False),
        ("cha", False),
        (None, False),
    ],
)
async def test_the_audience_must_contain_this_service(aud: Any, good: bool):
    """`aud` may be one name or a list; a token without it, or for others, is refused where it is configured."""
    made = forged(SECRET, {**CLAIMS, "aud": aud})
    if good:
        await verifier(audience="chat").verify(made)
    else:
        assert "`aud`" in await refusal(verifier(audience="chat"), made)
    await verifier().verify(made)


@pytest.mark.parametrize(
    ("iss", "good"), [("https://id.example", True), ("https://id.example/", False), ("", False), (None, False)]
)
async def test_the_issuer_must_be_the_configured_one(iss: Any, good: bool):
    """`iss` is compared exactly; without the setting it is not looked at."""
    made = forged(SECRET, {**CLAIMS, "iss": iss})
    if good:
        await verifier(issuer="https://id.example").verify(made)
    else:
        assert "`iss`" in await refusal(verifier(issuer="https://id.example"), made)
    await verifier().verify(made)


async def test_missing_aud_and_iss_are_refused_where_they_are_configured():
    """Leaving a claim out is no way round it."""
    made = forged(SECRET, CLAIMS)
    assert "`aud`" in await refusal(verifier(audience="chat"), made)
    assert "`iss`" in await refusal(verifier(issuer="me"), made)


# Forgery


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", "hs256", "HS384", "HS512", "RS256", "PS256", "dir"])
async def test_an_algorithm_that_is_not_in_the_list_is_refused(alg: str):
    """`none` in any spelling, and every algorithm without a key, is refused before anything else is looked at."""
    head = base64url(json.dumps({"alg": alg}).encode())
    body = base64url(json.dumps(CLAIMS).encode())
    for signature in ("", base64url(b"x" * 32)):
        assert "algorithm" in await refusal(verifier(), f"{head}.{body}.{signature}")
    assert "algorithm" in await refusal(verifier(), forged(SECRET, CLAIMS, alg=alg))


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
async def test_a_public_key_does_not_pass_for_a_secret(algorithm: str):
    """An HS256 token signed with the public key's text is refused, also where HS256 is in use."""
    pem = public_pem(private_key(algorithm))
    for text in (pem, pem.strip(), pem.replace("\n", "")):
        confused = forged(text, CLAIMS)
        assert "algorithm" in await refusal(verifier(public_keys=[pem]), confused)
        assert "signature" in await refusal(verifier(secrets=[SECRET], public_keys=[pem]), confused)


async def test_the_kinds_of_public_keys_are_not_mixed_up():
    """A token whose algorithm needs another kind of key than it was signed with is refused."""
    of = verifier(public_keys=[public_pem(private_key(algorithm)) for algorithm in ASYMMETRIC])
    for signed_with in ASYMMETRIC:
        made = jwt.encode(CLAIMS, private_key(signed_with), signed_with)
        for claimed in ASYMMETRIC:
            head = base64url(json.dumps({"alg": claimed}).encode())
            if claimed != signed_with:
                assert "signature" in await refusal(of, f"{head}.{made.partition('.')[2]}")


async def test_the_list_of_algorithms_can_be_narrowed():
    """A key whose algorithm is not chosen verifies nothing."""
    of = verifier(secrets=[SECRET], public_keys=[public_pem(private_key("ES256"))], algorithms=["ES256"])
    await of.verify(jwt.encode(CLAIMS, private_key("ES256"), "ES256"))
    assert "algorithm" in await refusal(of, forged(SECRET, CLAIMS))


async def test_a_token_that_was_changed_is_refused():
    """Whatever character of the header, the claims or the signature is changed, the token is not believed."""
    of, made = verifier(), forged(SECRET, CLAIMS)
    await of.verify(made)
    for at, character in enumerate(made):
        if character != ".":
            await refusal(of, made[:at] + ("A" if character != "A" else "B") + made[at + 1 :])


async def test_claims_of_one_token_and_signature_of_another_are_refused():
    """A signature holds for its own claims only."""
    own, others = forged(SECRET, CLAIMS), forged(SECRET, {**CLAIMS, "sub": "bob"})
    swapped = f"{others.rpartition('.')[0]}.{own.rpartition('.')[2]}"
    assert "signature" in await refusal(verifier(), swapped)


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "../../dev/null"},
        {"kid": "' OR 1=1 --"},
        {"kid": "http://evil.example/key"},
        {"jku": "http://127.0.0.1:1/jwks"},
        {"x5u": "http://127.0.0.1:1/cert"},
        {"jwk": {"kty": "oct", "k": base64url(b"k" * 32)}},
        {"x5c": [base64url(b"certificate")]},
        {"typ": "JWE", "cty": "JWT", "zip": "DEF"},
    ],
)
async def test_a_header_cannot_bring_its_own_key(header: dict[str, Any]):
    """A key, a place or a name of one in the header is no reason to believe a token."""
    await refusal(verifier(), forged(b"k" * 32, CLAIMS, **header))
    await refusal(verifier(), forged(b"", CLAIMS, **header))


@pytest.mark.parametrize("crit", [["exp"], ["b64"], ["x"], [], [None], None, "b64", 5])
async def test_a_token_with_critical_extensions_is_refused(crit: Any):
    """None is known here, so a token that needs one must not be believed (RFC 7515, section 4.1.11)."""
    assert "`crit`" in await refusal(verifier(), forged(SECRET, CLAIMS, crit=crit, b64=False, x=1))


# Rubbish


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "....",
        "alice",
        "Bearer x",
        " ",
        "\x00",
        "eyJ",
        "a.b.c",
        base64url(b"{}") + "..",
        base64url(b"[]") + "..",
        base64url(b'{"alg":1}') + "..",
        base64url(b'{"alg":["HS256"]}') + "..",
        base64url(b'{"alg":"HS256","kid":1}') + "..",
        base64url(b'{"alg":"\xff"}') + "..",
        base64url(b'{"alg":"HS256","x":' + b"[" * 10_000) + "..",
        base64url(b'{"alg":"HS256","x":' + b"[" * 5_000 + b"]" * 5_000 + b"}") + "..",
    ],
)
async def test_what_is_no_token_is_refused(token: str):
    """Rubbish of every kind gets the same answer as a bad token."""
    assert "not a JWT" in await refusal(verifier(), token)


async def test_a_token_is_taken_as_it_is():
    """Space, padding, other alphabets and further parts are not cut away."""
    of, made = verifier(), forged(SECRET, {**CLAIMS, "name": "???>>>~~~"})
    await of.verify(made)
    head, body, signature = made.split(".")
    for spoilt in (
        f" {made}",
        f"{made}\n",
        f"{made}=",
        f"{made}.",
        f"{made}.{signature}.{signature}",
        f"{head}.{body}",
        f"{head}.{body}.",
        f"{head}.{body[:4]}!{body[4:]}.{signature}",
        f"{head[:4]}!{head[4:]}.{body}.{signature}",
        f"{head}.{body[:4]}\n{body[4:]}.{signature}",
    ):
        await refusal(of, spoilt)


@pytest.mark.parametrize("token", ["é" * 20, "eyJ\u2028", "\ud800", "\uff41.\uff42.\uff43"])
async def test_a_token_is_ascii(token: str):
    """Anything else is refused before it is decoded."""
    assert "not a JWT" in await refusal(verifier(), token)


async def test_a_token_has_a_longest_length():
    """One more character is too long."""
    room = (MAX_TOKEN_BYTES - len(forged(SECRET, {**CLAIMS, "x": ""}))) * 3 // 4
    of = verifier()
    for more, good in ((0, True), (3, False)):
        made = forged(SECRET, {**CLAIMS, "x": "y" * (room + more)})
        assert (len(made) <= MAX_TOKEN_BYTES) is good
        if good:
            await of.verify(made)
        else:
            assert "16384 characters" in await refusal(of, made)


@pytest.mark.parametrize(
    ("claims", "named"),
    [
        ({"sub": None}, "$.sub"),
        ({"sub": ""}, "$.sub"),
        ({"sub": 42}, "$.sub"),
        ({"sub": ["alice"]}, "$.sub"),
        ({"sub": "x" * 129}, "$.sub"),
        ({"exp": None}, "$.exp"),
        ({"exp": "1800000000"}, "$.exp"),
        ({"exp": True}, "$.exp"),
        ({"exp": {}}, "$.exp"),
        ({"exp": -1}, "$.exp"),
        ({"exp": NOW * 1_000}, "$.exp"),
        ({"exp": 10**30}, "$.exp"),
        ({"exp": 1e300}, "$.exp"),
        ({"iat": "now"}, "$.iat"),
        ({"iat": -1.0}, "$.iat"),
        ({"nbf": []}, "$.nbf"),
        ({"nbf": 1e300}, "$.nbf"),
        ({"iss": 1}, "$.iss"),
        ({"aud": 1}, "$.aud"),
        ({"aud": [1]}, "$.aud"),
        ({"aud": {"chat": 1}}, "$.aud"),
        ({"name": 1}, "$.name"),
        ({"name": "x" * 129}, "$.name"),
        ({"avatar": "javascript:alert(1)"}, "$.avatar"),
        ({"avatar": "https://x/" + "y" * 2_000}, "$.avatar"),
        ({"rooms": ["tea"]}, "$.rooms"),
        ({"rooms": {"tea": "king"}}, "$.rooms"),
        ({"rooms": {"tea": None}}, "$.rooms"),
        ({"rooms": {"a b": "owner"}}, "$.rooms"),
        ({"rooms": {"": "owner"}}, "$.rooms"),
        ({"rooms": {"x" * 65: "owner"}}, "$.rooms"),
        ({"rooms": {"tea\n": "owner"}}, "$.rooms"),
        ({"scope": ["server"]}, "$.scope"),
        ({"scope": "x" * 1_001}, "$.scope"),
    ],
)
async def test_a_claim_that_is_not_as_expected_is_named(claims: dict[str, Any], named: str):
    """A claim of the wrong type or size refuses the token, with the claim's name."""
    assert named in await refusal(verifier(), forged(SECRET, {**CLAIMS, **claims}))


@pytest.mark.parametrize("missing", ["sub", "exp"])
async def test_sub_and_exp_are_required(missing: str):
    """A token of nobody, or for ever, is refused."""
    claims = {claim: value for claim, value in CLAIMS.items() if claim != missing}
    assert f"`{missing}`" in await refusal(verifier(), forged(SECRET, claims))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"alice",
        b"null",
        b"[]",
        b'"alice"',
        b"{",
        b'{"sub":"alice","exp":NaN}',
        b'{"sub":"alice","exp":Infinity}',
        b'{"sub":"alice","exp":1e999}',
        b'{"sub":"alice","exp":1' + b"0" * 5_000 + b"}",
        b'{"sub":"\xff","exp":1800000000}',
        b'{"sub":"\\ud800","exp":1800000000}',
        b'{"sub":"alice","exp":1800000000,"name":"\\udc00\\ud800"}',
        b'\xef\xbb\xbf{"sub":"alice","exp":1800000000}',
        '{"sub":"alice","exp":1800000000}'.encode("utf-16"),
        b'{"sub":"alice","exp":1800000000,"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    ],
    ids=range(16),
)
async def test_signed_rubbish_is_refused(payload: bytes):
    """What is signed and no JSON object with text and finite numbers is refused like anything else."""
    assert "claims" in await refusal(verifier(), forged(SECRET, payload))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
HEADER_FIELDS = st.sampled_from(["alg", "typ", "cty", "kid", "jku", "jwk", "x5u", "x5c", "x5t", "crit", "b64", "zip"])
CLAIM_NAMES = st.sampled_from(["sub", "exp", "iat", "nbf", "iss", "aud", "name", "avatar", "rooms", "scope"])


@settings(max_examples=examples(150), deadline=None)
@given(
    header=st.dictionaries(HEADER_FIELDS, JSON, max_size=3),
    claims=st.dictionaries(CLAIM_NAMES, JSON, max_size=3) | st.binary(max_size=20),
    secret=st.sampled_from([SECRET, OLDER]),
)
async def test_no_header_or_claim_breaks_the_verifier(header: dict[str, Any], claims: Any, secret: str):
    """Whatever JSON a token consists of, it is believed or refused, and believed only with the right signature."""
    made = forged(secret, {**CLAIMS, **claims} if isinstance(claims, dict) else claims, **header)
    try:
        principal = await verifier(audience=None).verify(made)
    except (Unauthorized, TokenExpired):
        return
    assert secret == SECRET
    json.dumps([principal.user, principal.name, principal.expires_at, principal.issued_at]).encode()


@settings(max_examples=examples(100), deadline=None)
@given(st.text(max_size=60))
async def test_no_text_breaks_the_verifier(text: str):
    """Any text at all is refused, not choked on."""
    with pytest.raises(Unauthorized):
        await verifier().verify(text)


async def verdict(of: JwtVerifier, token: str) -> Principal | str:
    """What a token is taken for, or the words with which it is refused."""
    try:
        return await of.verify(token)
    except (Unauthorized, TokenExpired) as refused:
        return refused.message


def signed(head: str, payload: str, secret: str = SECRET) -> str:
    """A token of these encoded parts, whatever they are, with the right signature for them."""
    signature = hmac.digest(secret.encode(), f"{head}.{payload}".encode(), "sha256")
    return f"{head}.{payload}.{base64url(signature)}"


KNOWN_HEAD = base64url(b'{"alg":"HS256","typ":"JWT"}')
ENDED = base64url(json.dumps({**CLAIMS, "exp": NOW - 100}).encode())


@given(
    payload=st.one_of(
        st.sampled_from([base64url(json.dumps(CLAIMS).encode()), ENDED, base64url(b"{}"), "", "A", "AB", "e30="]),
        st.text("AZaz09-_+/=.", max_size=12),
        st.binary(max_size=8).map(base64url),
    ),
    secret=st.sampled_from([SECRET, OLDER, "nobody's, and long enough to be a good one"]),
    change=st.one_of(st.none(), st.tuples(st.integers(0, 400), st.sampled_from("AQgwB.-_+=/"))),
    head=st.sampled_from(
        [KNOWN_HEAD, base64url(b'{"alg":"HS256","typ":"JWT","kid":"a"}'), base64url(b'{"alg":"HS256"}')]
    ),
)
@settings(max_examples=examples(300), deadline=None)
async def test_a_known_header_changes_no_verdict(
    payload: str, secret: str, change: tuple[int, str] | None, head: str
) -> None:
    """What was verified before is verified the short way, and taken and refused with the very same words."""
    token = signed(head, payload, secret)
    if change is not None:
        at = change[0] % len(token)
        token = token[:at] + change[1] + token[at + 1 :]
    fresh, used = (verifier(secrets=[SECRET, OLDER]) for _ in range(2))
    assert isinstance(await verdict(used, signed(head, base64url(json.dumps(CLAIMS).encode()))), Principal)
    assert await verdict(used, token) == await verdict(fresh, token)


async def test_headers_are_remembered_in_bounds():
    """Tokens with ever new headers are verified, and what is kept of them does not grow."""
    one = verifier()
    for number in range(100):
        head = base64url(json.dumps({"alg": "HS256", "kid": str(number)}).encode())
        token = signed(head, base64url(json.dumps(CLAIMS).encode()))
        assert isinstance(await verdict(one, token), Principal)
    assert 0 < len(one._heads) <= 16


async def test_tokens_are_not_logged(caplog: pytest.LogCaptureFixture):
    """Neither good nor bad tokens leave a trace in the log, whatever its level."""
    caplog.set_level(logging.DEBUG)
    of, made = verifier(), forged(SECRET, CLAIMS)
    await of.verify(made)
    await refusal(of, made[:-4] + "AAAA")
    await refusal(of, forged(SECRET, {**CLAIMS, "exp": "never"}))
    assert not [record for record in caplog.records if "eyJ" in record.getMessage()]


# Keys


@pytest.mark.parametrize("secret", ["", "short", "x" * 31, "é" * 15])
def test_a_short_secret_is_refused(secret: str):
    """The message says how long it must be and how to make one, and does not show it."""
    with pytest.raises(ValueError, match=r"secret: expected at least 32 bytes, got \d+; `openssl rand") as refused:
        JwtVerifier(secrets=[secret])
    assert not secret or secret not in str(refused.value)


def certificate() -> str:
    """A certificate of the RSA key, in PEM."""
    key, name = private_key("RS256"), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "id.example")])
    day = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, day, day + datetime.timedelta(days=1))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_a_key_in_the_place_of_a_secret_is_refused(algorithm: str):
    """A public key as the secret would let everybody sign who has it; so would a certificate."""
    key = private_key(algorithm)
    for text in (public_pem(key), private_pem(key), "\n" + public_pem(key)):
        with pytest.raises(ValueError, match=r"secret: .* belongs into public_keys"):
            JwtVerifier(secrets=[text])
    with pytest.raises(ValueError, match=r"secret: .* belongs into public_keys"):
        JwtVerifier(secrets=[certificate()])


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_a_private_key_in_the_place_of_a_public_one_is_refused(algorithm: str):
    """The chat needs no private key and shall not have one; the message does not show it."""
    pem = private_pem(private_key(algorithm))
    with pytest.raises(ValueError, match="public_keys: expected a public key, got a private one") as refused:
        JwtVerifier(public_keys=[pem])
    assert pem.splitlines()[1] not in str(refused.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ec.generate_private_key(ec.SECP384R1()), "P-384"),
        (lambda: ec.generate_private_key(ec.SECP256K1()), "secp256k1"),
        (ed448.Ed448PrivateKey.generate, "Ed448"),
        (x25519.X25519PrivateKey.generate, "X25519"),
        (lambda: rsa.generate_private_key(public_exponent=65_537, key_size=1_024), "at least 2048 bits, got 1024"),
    ],
)
def test_a_public_key_that_is_too_weak_or_of_another_curve_is_refused(make: Any, words: str):
    """The message says which and what was expected."""
    with pytest.raises(ValueError, match=f"public_keys: expected .*{words}"):
        JwtVerifier(public_keys=[public_pem(make())])


@pytest.mark.parametrize("text", ["", "rubbish", SECRET, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"])
def test_what_is_no_public_key_is_refused(text: str):
    """The message says what was expected."""
    with pytest.raises(ValueError, match="public_keys: expected an RSA, P-256 or Ed25519 public key in PEM"):
        JwtVerifier(public_keys=[text])


async def test_a_certificate_counts_as_the_public_key_in_it():
    """Identity providers publish either."""
    of = verifier(public_keys=[certificate()])
    assert (await of.verify(jwt.encode(CLAIMS, private_key("RS256"), "RS256"))).user == "alice"


@pytest.mark.parametrize("algorithms", [["none"], ["HS512"], ["RS256", "nope"], [""]])
def test_an_unknown_algorithm_cannot_be_configured(algorithms: list[str]):
    """The message names it and the known ones."""
    with pytest.raises(ValueError, match="algorithms: expected some of HS256, RS256, ES256, EdDSA, got"):
        verifier(algorithms=algorithms)


def test_algorithms_without_any_key_cannot_be_configured():
    """A verifier that could never believe a token is a mistake."""
    with pytest.raises(ValueError, match="algorithms: expected one that there is a key for, got RS256, ES256"):
        verifier(algorithms=["RS256", "ES256"])


# Issuing


async def test_an_issued_token_says_what_it_was_given():
    """What `issue` puts in comes out of the verifier."""
    made = issue(
        SECRET,
        user="alice",
        ttl_s=60,
        now_s=NOW,
        name="Älice 🙂",
        avatar="/a.png",
        rooms={"general": "owner"},
        scope="server",
        audience="chat",
        issuer="me",
    )
    assert await verifier(audience="chat", issuer="me").verify(made) == Principal(
        user="alice",
        expires_at=NOW + 60 + DEFAULT_LEEWAY_S,
        issued_at=NOW,
        name="Älice 🙂",
        avatar="/a.png",
        rooms={"general": Role.OWNER},
        scopes=("server",),
    )


def test_an_issued_token_verifies_with_other_libraries():
    """PyJWT believes it and reads the same claims, and those that were not given are not in it."""
    now = int(datetime.datetime.now(datetime.UTC).timestamp())
    made = issue(SECRET, user="alice", ttl_s=60, now_s=now, name="Älice 🙂", audience="chat")
    assert jwt.get_unverified_header(made) == {"alg": "HS256", "typ": "JWT"}
    claims = jwt.decode(made, SECRET, algorithms=["HS256"], audience="chat", options={"require": ["exp", "iat", "sub"]})
    assert claims == {"sub": "alice", "iat": now, "exp": now + 60, "name": "Älice 🙂", "aud": "chat"}


@pytest.mark.parametrize(
    ("wish", "named"),
    [
        ({"user": ""}, "sub"),
        ({"user": "x" * 129}, "sub"),
        ({"user": "\udcff"}, "surrogates"),
        ({"ttl_s": -NOW - 1}, "exp"),
        ({"ttl_s": 10**12}, "exp"),
        ({"name": "x" * 129}, "name"),
        ({"avatar": "javascript:x"}, "avatar"),
        ({"rooms": {"a b": "owner"}}, "rooms"),
        ({"rooms": {"tea": "king"}}, "rooms"),
        ({"rooms": {f"room-{n:050}": "member" for n in range(300)}}, "longer than 16384 bytes"),
        ({"scope": "x" * 1_001}, "scope"),
    ],
)
def test_a_token_that_would_be_refused_is_not_issued(wish: dict[str, Any], named: str):
    """The message names the claim."""
    with pytest.raises(ValueError, match=f"this token would be refused: .*{named}"):
        issue(SECRET, **{"user": "alice", "ttl_s": 60, "now_s": NOW, **wish})


@pytest.mark.parametrize("secret", ["short", public_pem(private_key("ES256"))])
def test_a_token_is_not_issued_with_a_bad_secret(secret: str):
    """What no verifier would take is not signed with."""
    with pytest.raises(ValueError, match="secret: expected"):
        issue(secret, user="alice", ttl_s=60, now_s=NOW)
