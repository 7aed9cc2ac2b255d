"""The authorizer: a token in, an IAM policy out, in the words that API Gateway understands."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from hubbub.apigateway import AuthorizerContext, Event
from hubbub.chat import Chat
from hubbub.config import Settings
from hubbub.errors import Unavailable
from hubbub.lambdas.handlers import authorize
from hubbub.lambdas.invocation import AnswerByError, InvocationFailed
from hubbub.model import Principal
from lambdahome import SECRET, Context, LabHome, Written, living, recorded, written
from tokens import forged

ARN = "arn:aws:execute-api:us-east-1:123456789012:c5jwxq709g/production/$connect"


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[LabHome]:
    with living(monkeypatch, LabHome()) as home:
        yield home


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    with written(monkeypatch) as log:
        yield log


def token(secret: str = SECRET, **claims: Any) -> str:
    now = int(time.time())
    return forged(secret, {"sub": "ann", "exp": now + 600, "iat": now, **claims})


def asked(*, made: str | None = None, **headers: str) -> Any:
    """What the authorizer says to a handshake with that token, or with those headers."""
    event = recorded("authorizer")
    event["headers"].pop("Authorization")
    event["multiValueHeaders"].pop("Authorization")
    if made is not None:
        event["queryStringParameters"] = {"token": made}
    event["multiValueHeaders"] |= {name.replace("_", "-"): [value] for name, value in headers.items()}
    return authorize(event, Context())


def test_a_good_token_lets_this_handshake_in(home: LabHome):
    """The policy allows this connection's `$connect` and nothing else; the principal comes with every later event."""
    answer = asked(made=token(name="Ann", rooms={"tea": "member"}))
    assert answer["principalId"] == "ann"
    assert answer["policyDocument"] == {
        "Version": "2012-10-17",
        "Statement": [{"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": ARN}],
    }
    principal = msgspec.json.decode(answer["context"]["principal"], type=Principal)
    assert (principal.user, principal.name, list(principal.rooms)) == ("ann", "Ann", ["tea"])
    assert list(answer["context"]) == ["principal"]


@pytest.mark.parametrize("header", ["Authorization", "Sec_WebSocket_Protocol"])
def test_a_token_is_found_in_headers(home: LabHome, header: str):
    """A bearer token and a browser's subprotocol count as a query's token does."""
    made = token()
    value = f"Bearer {made}" if header == "Authorization" else f"hubbub.v1, jwt.{made}"
    assert asked(**{header: value})["principalId"] == "ann"


@pytest.mark.parametrize("made", [None, "nonsense", token(secret="another secret of at least 32 bytes"), token(exp=9)])
def test_a_bad_token_is_a_401(home: LabHome, log: Written, made: str | None):
    """Missing, bad and expired tokens fail with the one word that API Gateway makes a 401 of; the log says why."""
    with pytest.raises(AnswerByError) as refusal:
        asked(made=made)
    assert str(refusal.value) == "Unauthorized"
    (line,) = [line for line in log.words if line["message"].startswith("handshake refused")]
    assert line["connection_id"] == "FDmBIeapIAMCIQg="
    assert made is None or made not in log.text
    assert log.metrics[-1]["Errors"] == 1
    assert "Failures" not in log.metrics[-1]


def test_the_table_is_not_needed(home: LabHome):
    """A token is verified without the store, so that a table that is away keeps nobody from being told so by name."""
    home.away = Unavailable("The table does not answer.")
    assert asked(made=token())["principalId"] == "ann"


def test_claims_that_are_too_long_are_refused(home: LabHome, log: Written):
    """An answer over API Gateway's 8 KB would be a 500 without a reason; the handshake is denied, the log says why."""
    answer = asked(made=token(rooms={f"a-room-with-a-long-name-{number}": "member" for number in range(220)}))
    assert answer["policyDocument"]["Statement"][0]["Effect"] == "Deny"
    assert answer["context"] == {}
    assert "8192" in next(line for line in log.words if line["level"] == "ERROR")["message"]


def test_keys_that_are_away_are_not_the_tokens_fault(home: LabHome, log: Written, monkeypatch: pytest.MonkeyPatch):
    """While the keys cannot be had the client sees a 500, with which it comes back, and no 401."""

    class Away:
        async def verify(self, token: str) -> Principal:
            raise Unavailable("The keys cannot be had just now.")

    home.run(home.doorman()).tokens = Away()
    with pytest.raises(AnswerByError) as refusal:
        asked(made=token())
    assert str(refusal.value) != "Unauthorized"


def test_an_event_without_an_arn_lets_nobody_in(home: LabHome, log: Written):
    """Wired to anything but an authorizer's call, it fails instead of allowing everything."""
    event = recorded("connect")
    event["queryStringParameters"] = {"token": token()}
    with pytest.raises(InvocationFailed):
        authorize(event, Context())


def test_settings_without_a_key_are_named(monkeypatch: pytest.MonkeyPatch, log: Written):
    """Without any key nobody gets in, and the log says which settings there are for one."""
    with living(monkeypatch, LabHome(settings=Settings())), pytest.raises(InvocationFailed):
        asked(made=token())
    assert "HUBBUB_SECRET" in log.text


class Bouncer(Chat):
    """A chat that lets in who says so."""

    async def authorize(self, event: Event) -> AuthorizerContext:
        assert self.store is not None
        return {"principalId": "whoever", "principal": "{}", "house": "rules"}


def test_a_chat_of_ones_own_may_authorize(monkeypatch: pytest.MonkeyPatch):
    """A subclass that authorizes in its own way is asked, with a store at hand."""
    chat = Bouncer()
    monkeypatch.setattr("hubbub.lambdas.home.load_chat", lambda path: chat)
    with living(monkeypatch, LabHome(chat)):
        answer = asked()
    assert answer["context"] == {"principal": "{}", "house": "rules"}
    assert json.dumps(answer)
