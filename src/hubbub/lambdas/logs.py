"""What functions leave in CloudWatch: JSON lines with the ids of what they are about, and metrics in them.

A line of the log is a JSON object with `timestamp` and `level`, which Lambda's log levels and Logs Insights understand.
Metrics are lines in the embedded metric format: CloudWatch makes metrics of them, nothing is called for it. Sources:
docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html and
docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-advanced.html.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter
from contextvars import ContextVar
from typing import TextIO

import msgspec

from hubbub.apigateway import Event

NAMESPACE = "Hubbub"
"""The metrics' namespace in CloudWatch."""

ids: ContextVar[dict[str, str]] = ContextVar("hubbub ids", default={})  # noqa: B039  it is replaced, never changed
"""What every line of the invocation under way names: its own request id, the trace's, and those of its event."""


def ids_of(event: Event) -> dict[str, str]:
    """The ids of an event of the WebSocket API."""
    context = event.request_context
    return {"connection_id": context.connection_id, "request_id": context.request_id}


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object a line: the record, the ids of the invocation, and what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        line: dict[str, object] = {
            "timestamp": _timestamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **ids.get(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD and key not in line}
        return msgspec.json.encode(line, enc_hook=str).decode()


_stream: TextIO | None = None  # where lines go; None for standard output as it is then


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send the log to standard output, which Lambda takes to CloudWatch; in place of the runtime's own handler.

    Args:
        level: debug, info, warning or error.
        stream: somewhere else to send it, and metrics too.

    """
    global _stream
    _stream = stream
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)


def trace_id() -> str | None:
    """The X-Ray trace of the invocation under way (`Root=…` without its name), which Lambda puts into a variable."""
    header = os.environ.get("_X_AMZN_TRACE_ID", "")
    parts = dict(part.partition("=")[::2] for part in header.split(";"))
    return parts.get("Root")


class Measures:
    """What one invocation counts; one line of metrics in the end.

    Attributes:
        counts: how often what happened.
        times: how long what took, in milliseconds.
        said: words for the same line, which are not metrics: what was asked for, how it ended.

    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.times: dict[str, float] = {}
        self.said: dict[str, object] = {}

    def line(self, function: str, at_ms: int) -> str:
        """The line, in the embedded metric format, with the function's name as the one dimension."""
        counts = {name: count for name, count in self.counts.items() if count}
        metrics = [{"Name": name, "Unit": "Count"} for name in counts]
        metrics += [{"Name": name, "Unit": "Milliseconds"} for name in self.times]
        directive = {"Namespace": NAMESPACE, "Dimensions": [["Function"]], "Metrics": metrics}
        line: dict[str, object] = {
            "timestamp": _timestamp(at_ms / 1_000),
            "level": "INFO",
            **ids.get(),
            **self.said,
            "_aws": {"Timestamp": at_ms, "CloudWatchMetrics": [directive] if metrics else []},
            "Function": function,
            **counts,
            **{name: round(value, 1) for name, value in self.times.items()},
        }
        return msgspec.json.encode(line, enc_hook=str).decode()


def emit(line: str) -> None:
    """Write a line as it is, whatever the level of the log."""
    out = _stream or sys.stdout
    out.write(line + "\n")
    out.flush()


def _timestamp(epoch_s: float) -> str:
    millis = int(epoch_s * 1_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(millis // 1_000)) + f".{millis % 1_000:03d}Z"
