"""The log: a JSON object or a readable line for each record, which no name or text of a client can forge."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.telemetry import JsonLines, TextLines, configure_logging

EVIL = "tea\n12:00:00 error   the disk is on fire\r\n\x1b[2J\x1b]0;owned\x07\x85\u2028\u202e\x00\x7f"
NAMES = st.text(st.characters(codec=None), max_size=20) | st.just(EVIL)


def record(message: str = "hello", *args: Any, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("hubbub.test", level, __file__, 1, message, args, None)
    made.created, made.msecs = 1_700_000_000.25, 250.0
    made.__dict__.update(extra)
    return made


def failed(error: BaseException) -> logging.LogRecord:
    """A record with a traceback."""
    try:
        raise error
    except BaseException:
        made = record("it failed", level=logging.ERROR, connection_id="c1")
        made.exc_info = sys.exc_info()
    return made


def test_a_json_line_says_when_how_bad_where_what_and_whose():
    """One object with time, level, logger, message and what was given as extra."""
    line = JsonLines().format(record("%s refused: %s", "send", "forbidden", connection_id="c1", request_id="r1"))
    assert json.loads(line) == {
        "ts": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "logger": "hubbub.test",
        "message": "send refused: forbidden",
        "connection_id": "c1",
        "request_id": "r1",
    }


def test_a_json_line_has_its_traceback_in_it():
    """An exception stands on the same line; so does a stack that was asked for."""
    made = failed(ValueError("no\nway"))
    made.stack_info = "Stack:\n  here"
    line = JsonLines().format(made)
    assert "\n" not in line
    parsed = json.loads(line)
    assert parsed["exception"].startswith("Traceback (most recent call last):\n")
    assert parsed["exception"].endswith("ValueError: no\nway")
    assert parsed["stack"] == "Stack:\n  here"


@pytest.mark.parametrize(
    "value", [None, True, 5, 10**30, 0.5, b"\xff", {"a": {1: 2}}, ["x"], ValueError("x"), object()]
)
def test_anything_can_be_an_extra_of_a_json_line(value: Any):
    """What JSON does not know is written as its text."""
    assert "odd" in json.loads(JsonLines().format(record(odd=value)))


def test_an_extra_does_not_replace_what_the_line_says():
    """A field of a line has one meaning."""
    made = record(own=1, ts=0, logger="x")
    made.level = "none"
    line = json.loads(JsonLines().format(made))
    assert (line["level"], line["logger"], line["own"]) == ("info", "hubbub.test", 1)


@given(NAMES, NAMES)
def test_no_name_breaks_a_json_line(name: str, other: str):
    """Whatever characters a client's names consist of, there is one line, and it has them as they are."""
    line = JsonLines().format(record("%s refused", name, user=other))
    assert len(line.splitlines()) == 1
    line.encode("ascii")
    parsed = json.loads(line)
    assert utf16(parsed["message"]) == utf16(f"{name} refused")
    assert utf16(parsed["user"]) == utf16(other)


def utf16(text: str) -> bytes:
    """Comparable text: JSON cannot tell two surrogates from the character that they make."""
    return text.encode("utf-16", "surrogatepass")


def test_a_text_line_is_for_people():
    """Time, level, words, and what belongs to them."""
    line = TextLines(colour=False).format(record("%s refused: %s", "send", "forbidden", connection_id="c1", n=5))
    assert re.fullmatch(r"\d\d:\d\d:\d\d info    send refused: forbidden  connection_id=c1 n=5", line)


def test_a_value_with_spaces_is_quoted():
    """So that where it ends can be seen, and no further value can be slipped in."""
    line = TextLines(colour=False).format(record(reason='no "room"', empty="", user="ann admin=yes", equal="a=b"))
    assert line.endswith('reason="no \\"room\\"" empty="" user="ann admin=yes" equal="a=b"')


def test_a_traceback_stands_below_its_text_line_indented():
    """No line of it can be taken for a record, whatever the exception's own words are."""
    made = failed(ValueError(f"no\n{EVIL}"))
    made.stack_info = "Stack:\n  here"
    head, *below = TextLines(colour=False).format(made).splitlines()
    assert head.endswith("it failed  connection_id=c1")
    assert below[0] == "    Traceback (most recent call last):"
    assert "    ValueError: no" in below
    assert below[-2:] == ["    Stack:", "      here"]
    assert all(line.startswith("    ") for line in below)
    assert "\x1b" not in "".join(below)


@given(NAMES, NAMES)
def test_no_name_breaks_a_text_line(name: str, other: str):
    """Whatever characters a client's names consist of, there is one line, without any that a terminal obeys."""
    line = TextLines(colour=False).format(record("%s refused", name, user=other))
    assert len(line.splitlines()) == 1
    assert not re.search("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]", line)
    line.encode()


def test_a_forged_line_is_seen_as_what_it_is():
    """A line break in a name is written as one."""
    line = TextLines(colour=False).format(record("%s refused", EVIL))
    assert r"tea\n12:00:00 error   the disk is on fire\r\n\x1b[2J\x1b]0;owned\x07\x85\u2028\u202e\x00\x7f" in line


@pytest.mark.parametrize("text", ["Zoë", "日本語", "🙂", "a\tb"])
def test_letters_of_all_languages_are_shown_as_they_are(text: str):
    """Only what is no text is written in another way."""
    assert text in TextLines(colour=False).format(record("%s refused", text))


def test_levels_have_colours_where_they_are_welcome():
    """Warnings and errors stand out; the rest is plain."""
    coloured = TextLines(colour=True)
    assert "\033" not in coloured.format(record())
    assert coloured.format(record(level=logging.WARNING)).startswith("\033[33m")
    head, *_ = coloured.format(failed(ValueError("x"))).splitlines()
    assert (head[:5], head[-4:]) == ("\033[31m", "\033[0m")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def kept_logging() -> Iterator[None]:
    """The logging of the test run, put back afterwards."""
    names = ("httpx", "httpcore", "uvicorn", "uvicorn.access", "uvicorn.error", "websockets")
    root, levels = logging.getLogger(), {name: logging.getLogger(name).level for name in names}
    handlers, level = root.handlers, root.level
    yield
    logging.captureWarnings(False)
    root.handlers = handlers
    root.setLevel(level)
    for name in names:
        logging.getLogger(name).setLevel(levels[name])


@pytest.mark.parametrize(
    ("stream", "style", "environ", "begins"),
    [
        (Terminal, "auto", "", "\033[33m"),
        (Terminal, "auto", "1", r"\d\d:\d\d:\d\d warning"),
        (io.StringIO, "auto", "", '{"ts"'),
        (Terminal, "json", "", '{"ts"'),
        (io.StringIO, "text", "", r"\d\d:\d\d:\d\d warning"),
    ],
)
def test_the_log_is_readable_on_a_terminal_and_json_elsewhere(
    kept_logging: None, monkeypatch: pytest.MonkeyPatch, stream: Any, style: str, environ: str, begins: str
):
    """Unless a style is asked for; colours are left out where NO_COLOR says so."""
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setenv("NO_COLOR", environ)
    configure_logging("info", style)
    logging.getLogger("hubbub").warning("careful")
    written = sys.stderr.getvalue()
    assert re.match(begins.replace("[", r"\[") if begins.startswith("\033") else begins, written)
    assert written.count("\n") == 1


def test_the_level_holds_for_hubbub_and_other_libraries_stay_quiet(kept_logging: None, monkeypatch: pytest.MonkeyPatch):
    """At debug, libraries that would log addresses and heads of requests say only what is a warning."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    configure_logging("debug", "json")
    for name in ("hubbub.chat", "httpx", "httpcore.http11", "uvicorn.error", "uvicorn.access", "websockets.client"):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            logging.getLogger(name).log(level, "said")
    said = [json.loads(line) for line in sys.stderr.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert [line["level"] for line in said if line["logger"] == "hubbub.chat"] == ["debug", "info", "warning"]
    assert {line["level"] for line in said if line["logger"] != "hubbub.chat"} == {"warning"}
    configure_logging("error", "json")
    sys.stderr.truncate(0)
    logging.getLogger("hubbub").warning("said")
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


def test_pythons_warnings_are_records_too(kept_logging: None, monkeypatch: pytest.MonkeyPatch):
    """A warning does not stand between JSON lines as plain text."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    configure_logging("info", "json")
    with warnings.catch_warnings(action="always"):
        warnings.warn("old", stacklevel=1)
    (line,) = sys.stderr.getvalue().splitlines()  # type: ignore[attr-defined]
    assert json.loads(line)["logger"] == "py.warnings"
    assert "UserWarning: old" in json.loads(line)["message"]
