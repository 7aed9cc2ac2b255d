"""Lines of the log and of metrics, as CloudWatch reads them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from hubbub.lambdas.logs import NAMESPACE, Measures, emit, ids, trace_id
from lambdahome import Written, written

logger = logging.getLogger("hubbub.test")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    with written(monkeypatch, "info") as log:
        yield log


def test_a_line_is_one_object_with_its_ids(log: Written):
    """Each record is one line of JSON: Lambda's `timestamp` and `level`, the ids of the invocation, its extras."""
    reset = ids.set({"connection_id": "C=", "function_request_id": "r"})
    logger.warning("two\nlines of %s", "words", extra={"room": "tea"})
    ids.reset(reset)
    (line,) = log.lines
    assert (line["level"], line["logger"], line["message"]) == ("WARNING", "hubbub.test", "two\nlines of words")
    assert (line["connection_id"], line["function_request_id"], line["room"]) == ("C=", "r", "tea")
    assert line["timestamp"].endswith("Z")
    assert len(log.text.splitlines()) == 1


def test_extras_forge_nothing(log: Written):
    """What a record brings along does not replace what the line says by itself."""
    logger.warning("words", extra={"level": "DEBUG", "timestamp": "0"})
    assert log.lines[0]["level"] == "WARNING"
    assert log.lines[0]["timestamp"] != "0"


def test_a_traceback_is_part_of_its_line(log: Written):
    """CloudWatch takes each line for an event, so a traceback must not have lines of its own."""
    try:
        raise ValueError("no good")
    except ValueError:
        logger.exception("failed")
    (line,) = log.lines
    assert "ValueError: no good" in line["exception"]


def test_anything_can_be_logged(log: Written):
    """A value that is no JSON is written as its text."""
    logger.info("an object", extra={"what": Written, "octets": b"\xff", "endless": float("inf")})
    assert len(log.lines) == 1


def test_the_level_rules_words_and_not_metrics(log: Written):
    """A quieter log loses words; what is counted is written all the same."""
    logging.getLogger().setLevel("ERROR")
    logger.warning("unheard")
    measures = Measures()
    measures.counts["Jobs"] += 2
    emit(measures.line("talk-broadcaster", 1_700_000_000_123))
    (line,) = log.lines
    assert (line["Jobs"], line["Function"], line["timestamp"]) == (2, "talk-broadcaster", "2023-11-14T22:13:20.123Z")


def test_metrics_are_in_the_embedded_format():
    """Every declared metric and dimension stands in the line as a number or a text; zero counts are left out."""
    measures = Measures()
    measures.counts["Actions"] += 1
    measures.counts["Errors"] += 0
    measures.times["Took"] = 12.3456
    measures.said["action"] = "send"
    line = json.loads(measures.line("talk", 1_700_000_000_000))
    about = line["_aws"]
    assert about["Timestamp"] == 1_700_000_000_000
    (directive,) = about["CloudWatchMetrics"]
    assert directive == {
        "Namespace": NAMESPACE,
        "Dimensions": [["Function"]],
        "Metrics": [{"Name": "Actions", "Unit": "Count"}, {"Name": "Took", "Unit": "Milliseconds"}],
    }
    assert (line["Actions"], line["Took"], line["action"], line["Function"]) == (1, 12.3, "send", "talk")
    assert "Errors" not in line


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
            "1-5759e988-bd862e3fe1be46a994272793",
        ),
        ("", None),
        ("nonsense", None),
    ],
)
def test_the_trace_is_named(monkeypatch: pytest.MonkeyPatch, header: str, expected: str | None):
    """X-Ray's trace id is found where Lambda puts it, and nowhere else."""
    monkeypatch.setenv("_X_AMZN_TRACE_ID", header)
    assert trace_id() == expected
