"""Keys at a JWKS address: fetched from a real server, kept, renewed, withdrawn, and never asked for too often."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest

from doubles import FakeClock
from hubbub import auth
from hubbub.auth import MAX_JWKS_BYTES, JwtVerifier
from hubbub.errors import Unauthorized, Unavailable
from tokens import ASYMMETRIC, JwksServer, base64url, forged, private_key, public_jwk, public_pem

NOW = 1_700_000_000
CLAIMS: dict[str, Any] = {"sub": "alice", "iat": NOW, "exp": NOW + 86_400}
SECRET = "a-secret-for-tests-only-0123456789abcdef"
AGE_S, PAUSE_S = 600, 10


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW * 1_000)


@pytest.fixture
async def verifier(jwks: JwksServer, clock: FakeClock) -> AsyncIterator[JwtVerifier]:
    async with make(jwks, clock) as made:
        yield made


def make(jwks: JwksServer, clock: FakeClock, **options: Any) -> JwtVerifier:
    return JwtVerifier(
        jwks_url=jwks.url,
        now=lambda: clock.now_ms() / 1_000,
        monotonic=clock.monotonic,
        jwks_age_s=AGE_S,
        jwks_pause_s=PAUSE_S,
        **options,
    )


def token(kid: str | None = "k0", which: int = 0, algorithm: str = "RS256", **claims: Any) -> str:
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode({**CLAIMS, **claims}, private_key(algorithm, which), algorithm, headers=headers)


async def test_keys_of_every_kind_are_found_by_their_names(jwks: JwksServer, verifier: JwtVerifier):
    """RS256, ES256 and EdDSA tokens verify with the keys of one document, fetched once."""
    kinds = [(algorithm, which) for algorithm in ASYMMETRIC for which in (0, 1)]
    jwks.document = {
        "keys": [
            public_jwk(algorithm, private_key(algorithm, which), kid=f"{algorithm}{which}", use="sig")
            for algorithm, which in kinds
        ]
    }
    assert jwks.fetches == 0
    for algorithm, which in kinds:
        assert (await verifier.verify(token(f"{algorithm}{which}", which, algorithm))).user == "alice"
        assert (await verifier.verify(token(None, which, algorithm))).user == "alice"
        with pytest.raises(Unauthorized, match="signature"):
            await verifier.verify(token(f"{algorithm}{which}", 1 - which, algorithm))
    assert jwks.fetches == 1
    assert await verifier.count_keys() == 6


async def test_keys_without_names_are_tried_for_tokens_with_one(jwks: JwksServer, verifier: JwtVerifier):
    """A document whose keys have no `kid` works too."""
    jwks.document = {"keys": [public_jwk("RS256", private_key("RS256", which)) for which in (0, 1)]}
    for which in (0, 1):
        assert (await verifier.verify(token("any", which))).user == "alice"


async def test_keys_are_kept_until_they_are_old(jwks: JwksServer, verifier: JwtVerifier, clock: FakeClock):
    """Within their age nothing is fetched again, and after it they are."""
    jwks.publish(k0="0")
    for seconds, fetches in ((0, 1), (AGE_S - 1, 1), (2, 2), (AGE_S - 1, 2)):
        await clock.advance(seconds)
        await verifier.verify(token(n=seconds))
        assert jwks.fetches == fetches


async def test_an_unknown_key_has_the_document_fetched_again(jwks: JwksServer, verifier: JwtVerifier, clock: FakeClock):
    """A provider that has taken a new key into use is believed at once."""
    jwks.publish(k0="0")
    await verifier.verify(token())
    await clock.advance(PAUSE_S)
    jwks.publish(k0="0", k1="1")
    assert (await verifier.verify(token("k1", 1))).user == "alice"
    assert jwks.fetches == 2


async def test_forged_key_names_cause_one_fetch_in_a_pause(jwks: JwksServer, verifier: JwtVerifier, clock: FakeClock):
    """However many tokens name keys that do not exist, the provider hears of it once in a while."""
    jwks.publish(k0="0")
    for n in range(50):
        with pytest.raises(Unauthorized, match="key is not known"):
            await verifier.verify(token(f"forged{n}", 1))
        await verifier.verify(token(n=n))
    assert jwks.fetches == 1
    await clock.advance(PAUSE_S)
    for n in range(50):
        with pytest.raises(Unauthorized):
            await verifier.verify(token(f"forged{n}", 1))
    assert jwks.fetches == 2


async def test_a_withdrawn_key_counts_no_more(jwks: JwksServer, verifier: JwtVerifier, clock: FakeClock):
    """A token that was verified before its key was withdrawn is not believed from memory, nor believed again."""
    jwks.publish(k0="0", k1="1")
    made = token()
    assert (await verifier.verify(made)).user == "alice"
    jwks.publish(k1="1")
    await clock.advance(AGE_S + 1)
    for _ in range(2):
        with pytest.raises(Unauthorized, match="key is not known"):
            await verifier.verify(made)
        await clock.advance(PAUSE_S)
    assert (await verifier.verify(token("k1", 1))).user == "alice"


async def test_another_key_under_the_same_name_replaces_the_old_one(
    jwks: JwksServer, verifier: JwtVerifier, clock: FakeClock
):
    """Tokens of the old key are not believed from memory."""
    jwks.publish(k0="0")
    made = token()
    await verifier.verify(made)
    jwks.publish(k0="1")
    await clock.advance(AGE_S + 1)
    with pytest.raises(Unauthorized, match="signature"):
        await verifier.verify(made)
    assert (await verifier.verify(token("k0", 1))).user == "alice"


async def test_an_unchanged_document_leaves_what_is_remembered(
    jwks: JwksServer, verifier: JwtVerifier, clock: FakeClock
):
    """Fetching the same keys again verifies nothing anew."""
    jwks.publish(k0="0")
    made = token()
    first = await verifier.verify(made)
    await clock.advance(AGE_S + 1)
    assert await verifier.verify(made) is first
    assert jwks.fetches == 2


async def test_all_keys_withdrawn_is_an_answer(jwks: JwksServer, verifier: JwtVerifier, clock: FakeClock):
    """An empty document means that nobody is believed, and not that something failed."""
    jwks.publish(k0="0")
    await verifier.verify(token())
    jwks.publish()
    await clock.advance(AGE_S + 1)
    with pytest.raises(Unauthorized, match="key is not known"):
        await verifier.verify(token())


async def test_without_a_first_answer_tokens_are_neither_good_nor_bad(
    jwks: JwksServer, verifier: JwtVerifier, clock: FakeClock
):
    """A server that is down at first makes verification unavailable, asked once in a pause, until it is up."""
    jwks.publish(k0="0")
    await jwks.stop()
    for _ in range(5):
        with pytest.raises(Unavailable, match="cannot be fetched"):
            await verifier.verify(token())
    await jwks.start()
    with pytest.raises(Unavailable):
        await verifier.verify(token())
    await clock.advance(PAUSE_S)
    assert (await verifier.verify(token())).user == "alice"


async def test_a_server_that_is_down_later_changes_nothing(
    jwks: JwksServer, verifier: JwtVerifier, clock: FakeClock, caplog: pytest.LogCaptureFixture
):
    """Known keys go on to count, remembered tokens too; the log names the address, once in a pause."""
    jwks.publish(k0="0")
    made = token()
    await verifier.verify(made)
    await jwks.stop()
    await clock.advance(AGE_S + 1)
    for n in range(5):
        assert (await verifier.verify(made)).user == "alice"
        assert (await verifier.verify(token(n=n))).user == "alice"
    with pytest.raises(Unauthorized):
        await verifier.verify(token("k1", 1))
    (said,) = caplog.records
    assert said.levelno == logging.ERROR
    assert jwks.url in said.getMessage()
    await jwks.start()
    jwks.publish(k1="1")
    await clock.advance(PAUSE_S)
    assert (await verifier.verify(token("k1", 1))).user == "alice"


GARBAGE = {
    "nothing": b"",
    "not JSON": b"<html>Sign in</html>",
    "cut off": b'{"keys": [',
    "a list": [],
    "no keys": {},
    "null keys": {"keys": None},
    "keys by name": {"keys": {"k0": {}}},
    "keys as text": {"keys": "k0"},
    "nested too deeply": b'{"keys": [], "x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "too long": {"keys": [], "x": "y" * MAX_JWKS_BYTES},
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_is_no_answer(jwks: JwksServer, verifier: JwtVerifier, clock: FakeClock, name: str):
    """At first it leaves verification unavailable, later it leaves the old keys."""
    jwks.document = GARBAGE[name]
    with pytest.raises(Unavailable):
        await verifier.verify(token())
    jwks.publish(k0="0")
    await clock.advance(PAUSE_S)
    await verifier.verify(token())
    jwks.document = GARBAGE[name]
    await clock.advance(AGE_S + 1)
    assert (await verifier.verify(token(n=1))).user == "alice"
    assert jwks.fetches == 3


async def test_an_endless_document_is_cut_off(jwks: JwksServer, verifier: JwtVerifier):
    """Reading stops at the limit, however much more there is."""
    jwks.document = b" " * (64 * MAX_JWKS_BYTES)
    with pytest.raises(Unavailable):
        await verifier.verify(token())


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Moved"])
async def test_a_redirect_is_not_followed(jwks: JwksServer, verifier: JwtVerifier, status: str):
    """Keys come from the configured address and from nowhere else, whatever it says."""
    jwks.publish(k0="0")
    jwks.status, jwks.headers = status, f"Location: {jwks.url}\r\n"
    with pytest.raises(Unavailable):
        await verifier.verify(token())
    assert jwks.fetches == 1


@pytest.mark.parametrize("status", ["404 Not Found", "500 Internal Server Error", "503 Service Unavailable"])
async def test_an_error_is_no_answer(jwks: JwksServer, verifier: JwtVerifier, status: str):
    """A document that comes with an error's status is not looked at."""
    jwks.publish(k0="0")
    jwks.status = status
    with pytest.raises(Unavailable):
        await verifier.verify(token())


async def test_a_server_that_does_not_answer_is_waited_for_so_long(
    jwks: JwksServer, verifier: JwtVerifier, monkeypatch: pytest.MonkeyPatch
):
    """A fetch has a time limit of its own, also against a server that trickles."""
    monkeypatch.setattr(auth, "FETCH_TIMEOUT_S", 0.05)
    jwks.gate.clear()
    with pytest.raises(Unavailable):
        await verifier.verify(token())
    jwks.gate.set()


async def test_all_who_ask_at_once_wait_for_one_fetch(jwks: JwksServer, verifier: JwtVerifier):
    """After a restart thousands come at the same time: the provider is asked once, and nobody is turned away."""
    jwks.publish(k0="0")
    jwks.gate.clear()
    asking = [asyncio.create_task(verifier.verify(token(n=n))) for n in range(20)]
    await jwks.asked.wait()
    late = asyncio.create_task(verifier.verify(token(n="late")))
    await asyncio.sleep(0)
    jwks.gate.set()
    assert {(await each).user for each in [*asking, late]} == {"alice"}
    assert jwks.fetches == 1


async def test_tokens_of_a_new_key_wait_for_the_fetch_under_way(
    jwks: JwksServer, verifier: JwtVerifier, clock: FakeClock
):
    """All tokens of a key that is just being learnt are believed, and known keys do not wait for it."""
    jwks.publish(k0="0")
    await verifier.verify(token())
    await clock.advance(PAUSE_S)
    jwks.publish(k0="0", k1="1")
    jwks.gate.clear()
    jwks.asked.clear()
    asking = [asyncio.create_task(verifier.verify(token("k1", 1, n=n))) for n in range(5)]
    await jwks.asked.wait()
    asking += [asyncio.create_task(verifier.verify(token("k1", 1, n=n))) for n in range(5, 10)]
    async with asyncio.timeout(5):
        assert (await verifier.verify(token(n="known"))).user == "alice"
    jwks.gate.set()
    assert {(await each).user for each in asking} == {"alice"}
    assert jwks.fetches == 2


async def test_who_goes_away_does_not_end_the_fetch(jwks: JwksServer, verifier: JwtVerifier):
    """A client that breaks off its handshake spoils nothing for the others, and starts no second fetch."""
    jwks.publish(k0="0")
    jwks.gate.clear()
    leaving = asyncio.create_task(verifier.verify(token(n="leaving")))
    await jwks.asked.wait()
    staying = asyncio.create_task(verifier.verify(token(n="staying")))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    jwks.gate.set()
    assert (await staying).user == "alice"
    assert jwks.fetches == 1


async def test_closing_does_not_wait_for_a_server_that_does_not_answer(jwks: JwksServer, clock: FakeClock):
    """The fetch under way ends with the verifier, and whoever waits is told that it is unavailable, or cancelled."""
    jwks.gate.clear()
    async with asyncio.timeout(5), make(jwks, clock) as verifier:
        asking = asyncio.create_task(verifier.verify(token()))
        await jwks.asked.wait()
    (outcome,) = await asyncio.gather(asking, return_exceptions=True)
    assert isinstance(outcome, Unavailable | asyncio.CancelledError)
    jwks.gate.set()


UNUSABLE: dict[str, Any] = {
    "symmetric": {"kty": "oct", "kid": "k0", "k": base64url(SECRET.encode())},
    "for encryption": public_jwk("RS256", private_key("RS256"), kid="k0", use="enc"),
    "for another operation": public_jwk("RS256", private_key("RS256"), kid="k0", key_ops=["encrypt"]),
    "of another algorithm": public_jwk("RS256", private_key("RS256"), kid="k0", alg="PS256"),
    "another curve": {"kty": "EC", "kid": "k0", "crv": "P-384", "x": "AA", "y": "AA"},
    "not on the curve": {"kty": "EC", "kid": "k0", "crv": "P-256", "x": "AQ", "y": "AQ"},
    "half a key": {"kty": "RSA", "kid": "k0", "e": "AQAB"},
    "numbers for text": {"kty": "RSA", "kid": "k0", "e": 65_537, "n": 5},
    "too short": {"kty": "RSA", "kid": "k0", "e": "AQAB", "n": base64url(b"\xff" * 64)},
    "no kind": {"kid": "k0"},
    "an odd kind": {"kty": ["RSA"], "kid": "k0"},
    "text": "k0",
    "null": None,
    "an odd name": {**public_jwk("RS256", private_key("RS256", 2)), "kid": {"a": 1}},
}


@pytest.mark.parametrize("name", UNUSABLE)
async def test_keys_that_are_of_no_use_are_passed_over(jwks: JwksServer, clock: FakeClock, name: str):
    """One strange key in the document neither verifies anything nor spoils the others."""
    jwks.document = {"keys": [UNUSABLE[name], public_jwk("RS256", private_key("RS256", 1), kid="k1")]}
    async with make(jwks, clock, secrets=["another-secret-so-that-hs256-is-accepted"]) as verifier:
        assert (await verifier.verify(token("k1", 1))).user == "alice"
        for bad in (token(), token(algorithm="ES256"), forged(SECRET, CLAIMS, kid="k0"), forged("", CLAIMS, kid="k0")):
            with pytest.raises(Unauthorized):
                await verifier.verify(bad)


async def test_a_public_key_of_the_document_does_not_pass_for_a_secret(jwks: JwksServer, verifier: JwtVerifier):
    """HS256 is not even accepted where there are only public keys."""
    jwks.publish(k0="0")
    confused = forged(public_pem(private_key("RS256")), CLAIMS, kid="k0")
    with pytest.raises(Unauthorized, match="algorithm"):
        await verifier.verify(confused)
    assert jwks.fetches == 0


async def test_a_header_does_not_choose_the_address(jwks: JwksServer, verifier: JwtVerifier):
    """`jku` and `x5u` of a token are not fetched from."""
    other = JwksServer()
    await other.start()
    other.publish(k0="1")
    jwks.publish(k0="0")
    made = jwt.encode(CLAIMS, private_key("RS256", 1), "RS256", headers={"kid": "k0", "jku": other.url})
    with pytest.raises(Unauthorized, match="signature"):
        await verifier.verify(made)
    assert (jwks.fetches, other.fetches) == (1, 0)
    await other.stop()


async def test_own_keys_do_not_depend_on_the_address(jwks: JwksServer, clock: FakeClock):
    """Tokens of a secret or a public key from the settings verify without the document, also while it is away."""
    await jwks.stop()
    own = public_pem(private_key("RS256"))
    async with make(jwks, clock, secrets=[SECRET], public_keys=[own]) as verifier:
        for made in (token("k0"), token(None), forged(SECRET, CLAIMS)):
            for _ in range(2):
                assert (await verifier.verify(made)).user == "alice"
            await clock.advance(AGE_S + 1)
        with pytest.raises(Unavailable):
            await verifier.verify(token("k1", 1))
    await jwks.start()
    assert jwks.fetches == 0


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "ftp://127.0.0.1/",
        "http://127.0.0.1:99999/",
        "http://h:x/",
        "http://[/",
        "id.example/jwks",
        "/",
        "http://\n",
    ],
)
def test_an_impossible_address_cannot_be_configured(url: str):
    """The message shows it and says what was expected."""
    with pytest.raises(ValueError, match="jwks_url: expected an http or https address, got"):
        JwtVerifier(jwks_url=url)


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".example"])
async def test_an_odd_host_is_unavailable(host: str):
    """It is like a server that is down, and breaks nothing."""
    async with JwtVerifier(jwks_url=f"http://{host}/", now=lambda: NOW) as verifier:
        with pytest.raises(Unavailable):
            await verifier.verify(token())
