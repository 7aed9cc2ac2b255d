"""What a node tells those who run it: its log, and its metrics."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, NamedTuple, Protocol, TextIO

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from hubbub.chat.core import ChatStats
from hubbub.collecting import Pauses


class MetricsHub(Protocol):
    """The gateway's plain counters, as far as metrics need them."""

    connections: int
    opened: int
    closed_by_code: Counter[int]
    messages_in: int
    bytes_in: int
    frames_out: int
    bytes_out: int
    signals_shed: int
    slow_closed: int
    refused: Counter[int]
    failures: int


class MetricsSources(NamedTuple):
    """What is read at each scrape; nobody writes metrics while messages pass.

    Attributes:
        hub: the gateway's counters.
        chat: the chat's counters; None where there is no chat.
        requests: answered requests of `/v1` by (method, path template, status); None where there is none.
        handler: calls of an HTTP endpoint by their outcome; None where there is none.
        fanout: the counters of a fan-out over NATS, as in `FANOUT_METRICS`; None where there is none.
        expires: when the certificate in use expires, epoch seconds; None where no TLS is spoken.
        pauses: those of the garbage collector; None where nobody notes them.

    """

    hub: MetricsHub
    chat: ChatStats | None = None
    requests: Mapping[tuple[str, str, int], int] | None = None
    handler: Mapping[str, int] | None = None
    fanout: object | None = None
    expires: Callable[[], float] | None = None
    pauses: Pauses | None = None


FANOUT_METRICS: dict[str, tuple[type[CounterMetricFamily] | type[GaugeMetricFamily], str]] = {
    "connected": (GaugeMetricFamily, "Whether a NATS server is connected."),
    "nodes": (GaugeMetricFamily, "Other nodes that are alive."),
    "rooms": (GaugeMetricFamily, "Rooms that are heard of over NATS."),
    "subscriptions": (GaugeMetricFamily, "Subjects that are subscribed to."),
    "reconnects": (CounterMetricFamily, "Connections to NATS after the first."),
    "published": (CounterMetricFamily, "Packets handed to NATS."),
    "published_bytes": (CounterMetricFamily, "Their bytes."),
    "received": (CounterMetricFamily, "Packets from NATS."),
    "received_bytes": (CounterMetricFamily, "Their bytes."),
    "ignored": (CounterMetricFamily, "Packets for rooms and users that nobody here listens for."),
    "duplicates": (CounterMetricFamily, "Packets that came twice."),
    "malformed": (CounterMetricFamily, "Packets that could not be read."),
    "dropped": (CounterMetricFamily, "What was not handed to NATS, as that was away or too slow."),
    "heads_read": (CounterMetricFamily, "Rooms whose heads were read from the store."),
    "repairs": (CounterMetricFamily, "Rooms in which that found something missing."),
    "orders_missed": (CounterMetricFamily, "Orders of other nodes that were missed for good."),
}
"""What is shown of a fan-out's counters: as what, and in which words."""


class Metrics:
    """A node's metrics in Prometheus' text format, made of plain counters when they are asked for."""

    def __init__(self, sources: MetricsSources) -> None:
        self._sources = sources
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def text(self) -> tuple[bytes, str]:
        """The text and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

    def collect(self) -> Iterator[Metric]:
        """The counters as they are now, for `prometheus_client`."""
        hub, chat, requests, handler, fanout, expires, pauses = self._sources
        yield GaugeMetricFamily("hubbub_connections", "Live connections.", value=hub.connections)
        yield CounterMetricFamily("hubbub_connections_opened", "Connections that were let in.", value=hub.opened)
        yield _metrics_by("hubbub_connections_closed", "Connections that ended.", "code", hub.closed_by_code)
        yield _metrics_by("hubbub_handshakes_refused", "Handshakes that were refused.", "status", hub.refused)
        yield CounterMetricFamily("hubbub_messages_in", "Messages from clients.", value=hub.messages_in)
        yield CounterMetricFamily("hubbub_bytes_in", "Their bytes.", value=hub.bytes_in)
        yield CounterMetricFamily("hubbub_frames_out", "Frames handed to sockets.", value=hub.frames_out)
        yield CounterMetricFamily("hubbub_bytes_out", "Their bytes.", value=hub.bytes_out)
        yield CounterMetricFamily(
            "hubbub_signals_shed", "Signals that a slow connection did not get.", value=hub.signals_shed
        )
        yield CounterMetricFamily("hubbub_slow_closed", "Connections closed with 4408.", value=hub.slow_closed)
        yield CounterMetricFamily(
            "hubbub_function_failures", "Functions that raised or took too long.", value=hub.failures
        )
        if chat is not None:
            yield from _metrics_of_chat(chat)
        if requests is not None:
            family = CounterMetricFamily(
                "hubbub_http_requests", "Requests to /v1 that were answered.", labels=["method", "path", "status"]
            )
            for (method, path, status), count in requests.items():
                family.add_metric([method, path, str(status)], count)
            yield family
        if handler is not None:
            yield _metrics_by("hubbub_handler_calls", "Calls of the handler, by how they ended.", "outcome", handler)
        if fanout is not None:
            for name, (family_type, words) in FANOUT_METRICS.items():
                yield family_type(f"hubbub_nats_{name}", words, value=getattr(fanout, name))
        if expires is not None:
            words = "When the certificate in use expires, epoch seconds."
            yield GaugeMetricFamily("hubbub_certificate_expires_seconds", words, value=expires())
        if pauses is not None:
            yield GaugeMetricFamily(
                "hubbub_gc_pause_seconds_max",
                "The longest halt for the garbage collector so far.",
                value=pauses.longest_s,
            )
            yield CounterMetricFamily(
                "hubbub_gc_pause_seconds", "All halts for the garbage collector together.", value=pauses.total_s
            )


def _metrics_of_chat(chat: ChatStats) -> Iterator[Metric]:
    yield _metrics_by("hubbub_actions", "Actions answered with success.", "action", chat.actions)
    yield _metrics_by("hubbub_errors", "Actions and handshakes answered with an error.", "code", chat.errors)
    yield _metrics_by("hubbub_entries", "Log entries written.", "type", chat.entries)
    yield CounterMetricFamily("hubbub_hook_failures", "Hooks after an entry that raised.", value=chat.hook_failures)


def _metrics_by(
    name: str, words: str, label: str, counts: Mapping[str, int] | Mapping[int, int]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, words, labels=[label])
    for key, count in counts.items():
        family.add_metric([str(key)], count)
    return family


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}

_UNSEEN = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What would begin a line, move a terminal's cursor or turn the direction of writing, and what is no character."""

_PLAIN = re.compile(r"[^\s=\"]+")


def configure_logging(level: str = "info", style: str = "auto", *, worker: int | None = None) -> None:
    """Send the log to standard error, readable on a terminal and as JSON lines elsewhere.

    What is passed as `extra=` (a connection's id, a request's) stands on the line. Tokens and texts are never logged.

    Args:
        level: debug, info, warning or error.
        style: text, json, or auto to look at the terminal.
        worker: which of several processes this is: it stands on every line.

    """
    if style == "auto":
        style = "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextLines(colour=may_colour(sys.stderr)) if style == "text" else JsonLines())
    if worker is not None:
        handler.addFilter(_Numbered(worker))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    for noisy in ("httpx", "httpcore", "uvicorn", "uvicorn.access", "uvicorn.error", "websockets"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


class _Numbered(logging.Filter):
    """Lets every line say which worker it is of."""

    def __init__(self, worker: int) -> None:
        super().__init__()
        self._worker = worker

    def filter(self, record: logging.LogRecord) -> bool:
        record.worker = self._worker
        return True


def may_colour(stream: TextIO) -> bool:
    """Whether colours are welcome there: it is a terminal, and `NO_COLOR` is not set (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _visible(text: str) -> str:
    """`text` on one line, as it was written: names come from clients, and must not forge lines."""
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class JsonLines(logging.Formatter):
    """One JSON object a line, for machines."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        line: dict[str, object] = {
            "ts": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        line |= {key: value for key, value in _extras(record).items() if key not in line}
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """A line as a person reads it: time, level, words, then what belongs to it."""

    _COLOURS: ClassVar = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line, with its traceback below, indented so that no line of it looks like another record."""
        line = f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {record.levelname.lower():<7} "
        line += _visible(record.getMessage())
        extras = [f"{key}={self._value(value)}" for key, value in _extras(record).items()]
        if extras:
            line += f"  {' '.join(extras)}"
        code = self._COLOURS.get(record.levelname) if self._colour else None
        if code:
            line = f"\033[{code}m{line}\033[0m"
        below = [self.formatException(record.exc_info)] if record.exc_info else []
        if record.stack_info:
            below.append(record.stack_info)
        return "\n    ".join([line, *(_visible(each) for text in below for each in text.split("\n"))])

    @staticmethod
    def _value(value: object) -> str:
        text = _visible(str(value))
        return text if _PLAIN.fullmatch(text) else '"' + text.replace('"', '\\"') + '"'
