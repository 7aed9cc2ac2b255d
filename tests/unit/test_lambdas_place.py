"""What a function is told by its environment variables, and what it says when they are wrong."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from hubbub.chat import Chat
from hubbub.config import SettingsError
from hubbub.lambdas.home import load_chat
from hubbub.lambdas.place import MAX_FRAME_BYTES, read

AWS = {"AWS_REGION": "eu-west-1"}
FULL = {
    **AWS,
    "HUBBUB_TABLE": "talk",
    "HUBBUB_ENDPOINT": "https://abc.execute-api.eu-west-1.amazonaws.com/live",
    "HUBBUB_BROADCASTER": "talk-broadcaster",
    "HUBBUB_SECRET_PARAMETER": "/talk/secret",
    "HUBBUB_REQUESTS_PER_S": "2500",
    "HUBBUB_SHARE": "0.5",
    "HUBBUB_AUDIENCE": "talk",
    "HUBBUB_LOG_LEVEL": "WARNING",
    "HUBBUB_MAX_TEXT_CHARS": "500",
}


def test_what_the_template_says_is_understood():
    """Names of the stack's parts and the chat's settings come from the same environment."""
    place = read(FULL)
    assert (place.region, place.table, place.broadcaster, place.queue_url) == (
        "eu-west-1",
        "talk",
        "talk-broadcaster",
        None,
    )
    assert (place.requests_per_s, place.share, place.secret_parameter) == (2500, 0.5, "/talk/secret")
    assert (place.settings.audience, place.settings.log_level) == ("talk", "warning")
    assert place.chat_limits().max_text_chars == 500


def test_what_is_empty_is_not_set():
    """A template's empty parameter stands for none."""
    place = read({**AWS, "HUBBUB_TABLE": "talk", "HUBBUB_QUEUE_URL": "", "HUBBUB_AUDIENCE": "", "HUBBUB_SHARE": " "})
    assert (place.queue_url, place.settings.audience, place.share) == (None, None, 0.7)


def test_limits_are_those_of_api_gateway():
    """Replies and entries fit a post, crowds are told nothing live, and nobody waits in a process for who is away."""
    limits = read(FULL).chat_limits()
    assert limits.max_reply_bytes == limits.max_entry_bytes == MAX_FRAME_BYTES < 128 * 1024
    assert (limits.typing_every_s, limits.crowded_every_s, limits.presence_grace_s) == (None, None, 0.0)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"AWS_REGION": ""}, "region: expected the variable AWS_REGION"),
        ({"HUBBUB_SHARE": "much"}, "share: expected a number above 0, got 'much', in the variable HUBBUB_SHARE"),
        ({"HUBBUB_SHARE": "1.5"}, "share: expected at most 1, got 1.5"),
        ({"HUBBUB_REQUESTS_PER_S": "0"}, "requests_per_s: expected a number above 0, got '0'"),
        ({"HUBBUB_REQUESTS_PER_S": "nan"}, "requests_per_s: expected a number above 0, got 'nan'"),
        ({"HUBBUB_ENDPOINT": "abc.example"}, "endpoint: expected an https address, got 'abc.example'"),
        (
            {"HUBBUB_QUEUE_URL": "https://q.example/1"},
            "broadcaster: expected either broadcaster or queue_url, got both",
        ),
        ({"HUBBUB_SECRET_ARN": "arn:aws:x"}, "secret_parameter: expected either secret_parameter or secret_arn"),
        ({"HUBBUB_DEV": "1"}, "dev: expected a secret"),
        ({"HUBBUB_TABEL": "talk"}, "tabel: there is no such setting, in the variable HUBBUB_TABEL"),
    ],
)
def test_what_is_wrong_is_named(variables: dict[str, str], words: str):
    """Each message names the setting, what was expected and what came."""
    with pytest.raises(SettingsError) as refusal:
        read({**FULL, **variables})
    assert words in str(refusal.value)


def test_what_is_needed_and_missing_is_named():
    """A part that a function needs and that no variable names is asked for by the variable's name."""
    with pytest.raises(SettingsError, match="endpoint: expected the variable HUBBUB_ENDPOINT, it is not set"):
        read({**AWS, "HUBBUB_TABLE": "talk"}).need("endpoint")


def test_a_place_shows_no_secret():
    """Shown in a log, it tells the table and the region."""
    secret = "a secret that is long enough to be one"
    assert secret not in repr(read({**FULL, "HUBBUB_SECRET": secret}))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("talk_of_nobody:chat", "expected module:attribute such as myapp:chat, got 'talk_of_nobody:chat'"),
        ("ours", "expected module:attribute"),
        ("ours:chat", "expected module:attribute"),
        ("ours:name", "expected a hubbub.Chat at ours:name, got a str"),
    ],
)
def test_a_chat_that_is_not_there_is_named(path: str, words: str, monkeypatch: pytest.MonkeyPatch):
    """The message says where it was looked for and what was there."""
    module = ModuleType("ours")
    module.name = "ours"  # type: ignore[attr-defined]  # made up
    monkeypatch.setitem(sys.modules, "ours", module)
    with pytest.raises(SettingsError) as refusal:
        load_chat(path)
    assert words in str(refusal.value)


def test_a_chat_of_ones_own_is_loaded(monkeypatch: pytest.MonkeyPatch):
    """The Chat that the setting names is the one that runs; without one it is a plain Chat."""
    module = ModuleType("ours")
    module.chat = Chat()  # type: ignore[attr-defined]  # made up
    monkeypatch.setitem(sys.modules, "ours", module)
    assert load_chat("ours:chat") is module.chat
    assert type(load_chat(None)) is Chat
