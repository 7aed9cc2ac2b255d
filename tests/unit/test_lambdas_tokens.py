"""Secrets that AWS keeps: read once, read again when they are old or do not fit, and never lost while AWS is away."""

from __future__ import annotations

import time
from typing import Any

import pytest

from hubbub.aws.http import Broken, Unreached
from hubbub.aws.service import AwsError
from hubbub.config import Settings, SettingsError
from hubbub.errors import Unauthorized, Unavailable
from hubbub.lambdas.tokens import SECRET_AGE_S, SECRET_PAUSE_S, Tokens, managed_secret, parameter
from tokens import forged, private_key, public_jwk

OLD = "the old secret, which is long enough"
NEW = "the new secret, which is long enough"


class Kept:
    """A secret that AWS keeps.

    Attributes:
        text: the secret; an error for when it cannot be read.
        readings: how often it was.
        seconds: what the clock shows.

    """

    def __init__(self, text: str) -> None:
        self.text: str | AwsError = text
        self.readings = 0
        self.seconds = 100.0

    async def read(self) -> str:
        self.readings += 1
        if isinstance(self.text, AwsError):
            raise self.text
        return self.text


class NoHttp:
    """An HTTP client that must not be used."""

    async def request(self, *args: Any, **options: Any) -> Any:
        raise AssertionError("nothing is to be fetched")


def tokens_of(kept: Kept | None, settings: Settings | None = None, http: Any = None) -> Tokens:
    return Tokens(
        settings or Settings(),
        http=http or NoHttp(),
        read_secret=kept and kept.read,
        monotonic=lambda: kept.seconds if kept else 0.0,
    )


def signed(secret: str, **claims: Any) -> str:
    return forged(secret, {"sub": "ann", "exp": int(time.time()) + 600, **claims})


async def test_a_secret_is_read_once():
    """Tokens that verify cause no further reading until the secret is old."""
    kept = Kept(OLD)
    tokens = tokens_of(kept)
    for number in range(5):
        assert (await tokens.verify(signed(OLD, number=number))).user == "ann"
    assert kept.readings == 1
    kept.seconds += SECRET_AGE_S
    await tokens.verify(signed(OLD))
    assert kept.readings == 2


async def test_a_replaced_secret_counts_at_once():
    """A token of a newer secret makes it be read again; the old one no longer counts once it was."""
    kept = Kept(OLD)
    tokens = tokens_of(kept)
    await tokens.verify(signed(OLD))
    kept.text = NEW
    kept.seconds += SECRET_PAUSE_S
    assert (await tokens.verify(signed(NEW))).user == "ann"
    with pytest.raises(Unauthorized):
        await tokens.verify(signed(OLD, again=True))


async def test_older_secrets_count_on_further_lines():
    """While one is being replaced, both are kept, each on a line."""
    tokens = tokens_of(Kept(f"{NEW}\n{OLD}\n"))
    assert (await tokens.verify(signed(OLD))).user == (await tokens.verify(signed(NEW))).user == "ann"


async def test_forged_tokens_cause_few_readings():
    """However many tokens do not verify, the secret is read at most once in a pause for them."""
    kept = Kept(OLD)
    tokens = tokens_of(kept)
    await tokens.verify(signed(OLD))
    kept.seconds += SECRET_PAUSE_S
    for number in range(10):
        with pytest.raises(Unauthorized):
            await tokens.verify(signed(NEW, number=number))
    assert kept.readings == 2


async def test_a_known_secret_outlasts_aws(caplog: pytest.LogCaptureFixture):
    """While it cannot be read again, the one that is known counts on, and the log says so."""
    kept = Kept(OLD)
    tokens = tokens_of(kept)
    await tokens.verify(signed(OLD))
    kept.text = AwsError("ThrottlingException", "too much", status=400)
    kept.seconds += SECRET_AGE_S
    assert (await tokens.verify(signed(OLD, later=True))).user == "ann"
    assert "ThrottlingException" in caplog.text


async def test_a_secret_that_was_never_read_is_asked_for_again():
    """Before there is any, tokens cannot be told good from bad: that is unavailable, and tried again each time."""
    kept = Kept(OLD)
    tokens = tokens_of(kept)
    kept.text = AwsError("AccessDeniedException", "no", status=400)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await tokens.verify(signed(OLD))
    kept.text = OLD
    assert (await tokens.verify(signed(OLD))).user == "ann"


async def test_a_useless_secret_does_not_replace_a_good_one(caplog: pytest.LogCaptureFixture):
    """One that is too short is refused with the reason, without the secret; the one before counts on."""
    kept = Kept(OLD)
    tokens = tokens_of(kept)
    await tokens.verify(signed(OLD))
    kept.text = "shorty"
    kept.seconds += SECRET_AGE_S
    assert (await tokens.verify(signed(OLD, later=True))).user == "ann"
    assert "expected at least 32 bytes" in caplog.text
    assert "shorty" not in caplog.text


async def test_a_first_secret_that_is_useless_is_a_wrong_setting():
    """Then nothing can work, and whoever set it up is told what was expected."""
    with pytest.raises(SettingsError, match="expected at least 32 bytes"):
        await tokens_of(Kept("shorty")).verify(signed(OLD))


async def test_keys_of_the_settings_count_beside():
    """A secret from the environment counts beside the one that AWS keeps."""
    tokens = tokens_of(Kept(OLD), Settings(secret=NEW))
    assert (await tokens.verify(signed(OLD))).user == (await tokens.verify(signed(NEW))).user == "ann"


class JwksHttp:
    """An HTTP client with one document behind it."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.urls: list[str] = []

    async def request(self, method: str, url: str, **options: Any) -> Any:
        self.urls.append(url)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Answer:
    def __init__(self, status: int, document: Any) -> None:
        import json

        self.status = status
        self.body = json.dumps(document).encode()


def by_key() -> str:
    import jwt

    return jwt.encode(
        {"sub": "ann", "exp": int(time.time()) + 600}, private_key("ES256"), "ES256", headers={"kid": "k"}
    )


async def test_a_jwks_document_is_fetched_without_httpx():
    """Public keys at an address are read with the client that the functions have anyway."""
    http = JwksHttp(Answer(200, {"keys": [public_jwk("ES256", private_key("ES256"), kid="k")]}))
    tokens = tokens_of(None, Settings(jwks_url="https://id.example/keys"), http)
    assert (await tokens.verify(by_key())).user == "ann"
    assert http.urls == ["https://id.example/keys"]


@pytest.mark.parametrize("answer", [Answer(404, {}), Unreached("nobody there"), Broken("cut")])
async def test_a_jwks_document_that_cannot_be_had_is_unavailable(answer: Any):
    """Whatever keeps it from being fetched, the tokens are not at fault."""
    tokens = tokens_of(None, Settings(jwks_url="https://id.example/keys"), JwksHttp(answer))
    with pytest.raises(Unavailable):
        await tokens.verify(by_key())


class Asked:
    """A service that writes down what it is asked."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.calls: list[tuple[str, Any]] = []

    async def call(self, operation: str, request: Any, **options: Any) -> dict[str, Any]:
        self.calls.append((operation, request))
        return self.answer


async def test_a_parameter_is_decrypted():
    """A SecureString comes decrypted."""
    ssm = Asked({"Parameter": {"Value": OLD}})
    assert await parameter(ssm, "/talk/secret")() == OLD  # type: ignore[arg-type]  # a stand-in
    assert ssm.calls == [("GetParameter", {"Name": "/talk/secret", "WithDecryption": True})]


async def test_a_managed_secret_is_a_text():
    """Secrets Manager's current version is taken; a binary one is none."""
    manager = Asked({"SecretString": OLD})
    assert await managed_secret(manager, "arn:x")() == OLD  # type: ignore[arg-type]  # a stand-in
    assert manager.calls == [("GetSecretValue", {"SecretId": "arn:x"})]
    assert await managed_secret(Asked({"SecretBinary": "AA=="}), "arn:x")() == ""  # type: ignore[arg-type]
