"""Metrics are the plain counters, read when they are asked for."""

from __future__ import annotations

import gc
from collections import Counter

from prometheus_client.parser import text_string_to_metric_families

from hubbub.chat.core import ChatStats
from hubbub.collecting import Pauses
from hubbub.fanout.nats.stats import NatsStats
from hubbub.gateway.hub import HubStats
from hubbub.telemetry import FANOUT_METRICS, Metrics, MetricsSources


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """What a Prometheus server reads: values by name and label values."""
    text, content_type = metrics.text()
    assert content_type.startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_every_counter_of_gateway_chat_and_api_is_shown() -> None:
    """Each plain counter appears under its own name with its value of the moment of the scrape."""
    hub, chat, requests = HubStats(), ChatStats(), Counter[tuple[str, str, int]]()
    metrics = Metrics(MetricsSources(hub=hub, chat=chat, requests=requests))
    assert samples(metrics)["hubbub_connections", ()] == 0
    plain = {
        "connections": "hubbub_connections",
        "opened": "hubbub_connections_opened_total",
        "messages_in": "hubbub_messages_in_total",
        "bytes_in": "hubbub_bytes_in_total",
        "frames_out": "hubbub_frames_out_total",
        "bytes_out": "hubbub_bytes_out_total",
        "signals_shed": "hubbub_signals_shed_total",
        "slow_closed": "hubbub_slow_closed_total",
        "failures": "hubbub_function_failures_total",
    }
    for value, counter in enumerate(plain, 1):
        setattr(hub, counter, value)
    hub.closed_by_code[1012] += 2
    hub.refused[401] += 3
    chat.actions["send"] += 4
    chat.errors["not_found"] += 5
    chat.entries["message.created"] += 6
    chat.hook_failures += 7
    requests["GET", "/v1/rooms", 200] += 8
    read = samples(metrics)
    assert [read[name, ()] for name in plain.values()] == list(range(1, len(plain) + 1))
    assert read["hubbub_connections_closed_total", ("1012",)] == 2
    assert read["hubbub_handshakes_refused_total", ("401",)] == 3
    assert read["hubbub_actions_total", ("send",)] == 4
    assert read["hubbub_errors_total", ("not_found",)] == 5
    assert read["hubbub_entries_total", ("message.created",)] == 6
    assert read["hubbub_hook_failures_total", ()] == 7
    assert read["hubbub_http_requests_total", ("GET", "/v1/rooms", "200")] == 8


def test_every_counter_there_is_has_a_metric() -> None:
    """A counter that is added to the gateway or the chat is noticed if no metric shows it."""
    shown = {
        *("connections", "opened", "closed_by_code", "messages_in", "bytes_in", "frames_out", "bytes_out"),
        *("signals_shed", "slow_closed", "refused", "failures"),
    }
    assert vars(HubStats()).keys() - {"closed"} == shown  # `closed` is the sum over the codes
    assert vars(ChatStats()).keys() == {"actions", "errors", "entries", "hook_failures"}
    assert vars(NatsStats()).keys() == FANOUT_METRICS.keys()


def test_a_fan_out_over_nats_shows_how_it_fares() -> None:
    """What is there now under its name, what only grows with `_total` behind it."""
    stats = NatsStats(connected=1, nodes=2, repairs=3)
    read = samples(Metrics(MetricsSources(hub=HubStats(), fanout=stats)))
    assert read["hubbub_nats_connected", ()] == 1
    assert read["hubbub_nats_nodes", ()] == 2
    assert read["hubbub_nats_repairs_total", ()] == 3
    assert not any("nats" in name for name, _ in samples(Metrics(MetricsSources(hub=HubStats()))))


def test_the_process_is_watched_too() -> None:
    """Memory, CPU time, open files and garbage collection of the process are among the metrics."""
    metrics = Metrics(MetricsSources(hub=HubStats(), chat=ChatStats(), requests={}))
    names = {name for name, _ in samples(metrics)}
    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"} <= names
    assert "python_gc_collections_total" in names


def test_the_collectors_halts_are_shown() -> None:
    """The longest and their sum, where somebody notes them; nothing of the kind where nobody does."""
    with Pauses() as pauses:
        gc.collect()
    read = samples(Metrics(MetricsSources(hub=HubStats(), pauses=pauses)))
    assert read["hubbub_gc_pause_seconds_max", ()] == pauses.longest_s > 0
    assert read["hubbub_gc_pause_seconds_total", ()] == pauses.total_s
    assert not [name for name, _ in samples(Metrics(MetricsSources(hub=HubStats()))) if "gc_pause" in name]
