"""What a node tells those who run it: its log, and its metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from hubbub.chat.core import ChatStats


class MetricsHub(Protocol):
    """The gateway's plain counters, as far as metrics need them."""

    connections: int


class MetricsSources(NamedTuple):
    """What is read at each scrape; nobody writes metrics while messages pass.

    Attributes:
        hub: the gateway's counters.
        chat: the chat's counters.
        requests: answered requests of `/v1` by (method, path template, status).

    """

    hub: MetricsHub
    chat: ChatStats
    requests: Mapping[tuple[str, str, int], int]


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
        chat = self._sources.chat
        yield GaugeMetricFamily("hubbub_connections", "Live connections.", value=self._sources.hub.connections)
        yield _metrics_by("hubbub_actions", "Actions answered with success.", "action", chat.actions)
        yield _metrics_by("hubbub_errors", "Actions and handshakes answered with an error.", "code", chat.errors)
        yield _metrics_by("hubbub_entries", "Log entries written.", "type", chat.entries)
        yield CounterMetricFamily("hubbub_hook_failures", "Hooks after an entry that raised.", value=chat.hook_failures)
        requests = CounterMetricFamily(
            "hubbub_http_requests", "Requests to /v1 that were answered.", labels=["method", "path", "status"]
        )
        for (method, path, status), count in self._sources.requests.items():
            requests.add_metric([method, path, str(status)], count)
        yield requests


def _metrics_by(name: str, words: str, label: str, counts: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, words, labels=[label])
    for key, count in counts.items():
        family.add_metric([key], count)
    return family
