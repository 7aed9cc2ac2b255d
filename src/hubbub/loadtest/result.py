"""What a load test found, as its JSON document has it, and the verdict on it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hubbub.loadtest.histogram import Histogram
from hubbub.loadtest.telling import Counts, RoomEnd

BUSY = 0.8
"""The share of a core from which on a process of the load test is the bottleneck itself."""

PROXIES = frozenset({"nginx", "haproxy", "caddy", "envoy", "traefik", "httpd", "apache2", "docker-proxy", "ssh"})
"""Programs that stand before a server and are none."""

LATE_MS = 20.0
"""How late it may be with one in a hundred of its own doings."""


class Percentiles(msgspec.Struct):
    """Of durations in milliseconds; all None when there were none.

    Attributes:
        count: how many there were.
        p50, p90, p99, p999, max: what half, nine in ten, 99 and 999 in a thousand, and all do not exceed.

    """

    count: int = 0
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    p999: float | None = None
    max: float | None = None


def percentiles(histogram: Histogram) -> Percentiles:
    """Those of a histogram."""
    return Percentiles(histogram.total, *histogram.percentiles_ms(50, 90, 99, 99.9, 100))


class Second(msgspec.Struct):
    """One second of the load test.

    Attributes:
        at_s: when it ended, in seconds since the first connection.
        phase: `connect`, `load` or `settle`.
        live: connections that stood.
        sent, acked, delivered: in this second.
        refused, failed, closed: answers with errors, failed handshakes, closed connections in this second.
        ack, delivery: of what came in this second.
        server_cpu: the share of one core that the server used; None where it cannot be seen, or is not running.
        server_rss: its resident memory, in bytes; None as above.
        load_cpu: the share of a core that the busiest process of the load test used.

    """

    at_s: float
    phase: str
    live: int
    sent: int
    acked: int
    delivered: int
    refused: int
    failed: int
    closed: int
    ack: Percentiles
    delivery: Percentiles
    server_cpu: float | None
    server_rss: int | None
    load_cpu: float


class Asked(msgspec.Struct):
    """What the load test was asked to do.

    Attributes:
        url: without its query, which may have a token.
        bench: the name of this run.
        connections, rooms, rooms_each, senders, rate, size_bytes, duration_s, ramp, history, storm, slow, processes: as
            the flags say; `storm` is the share of the connections that is cut.
        source_addresses: from how many addresses it connected.
        deflates: whether permessage-deflate was offered.

    """

    url: str
    bench: str
    connections: int
    rooms: int
    rooms_each: int
    senders: int
    rate: float
    size_bytes: int
    duration_s: float
    ramp: float
    history: float
    storm: float
    slow: int
    processes: int
    source_addresses: int
    deflates: bool = True


class Faults(msgspec.Struct):
    """What must not be.

    Attributes:
        lost: deliveries that had not come in the end.
        doubled: entries that a connection got again.
        disordered: entries that a connection got after one that follows them.
        unanswered: messages that were sent and got no answer.
        unsent: messages whose connection was not there.
        unread: pages of history that were to be read and did not come.
        unseen: acknowledged messages that were not delivered to who sent them, or as another entry.
        stored_twice: messages that stand in the log twice.
        resets: logs that began anew.
        strayed: deliveries to connections that are not in the room; only where rooms and tokens are made here.
        not_connected: connections that were not there in the end.
        rooms: those in which something was lost, doubled or disordered, the worst first, at most 100.

    """

    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    unanswered: int = 0
    unsent: int = 0
    unread: int = 0
    unseen: int = 0
    stored_twice: int = 0
    resets: int = 0
    strayed: int = 0
    not_connected: int = 0
    rooms: list[RoomEnd] = []


class Storm(msgspec.Struct):
    """The reconnect storm.

    Attributes:
        cut, back: how many connections were cut, and came back.
        back_ms: how long that took each of them, until it had what it missed.

    """

    cut: int
    back: int
    back_ms: Percentiles


class Server(msgspec.Struct):
    """The server's processes while the load ran.

    Attributes:
        pids, name: those that listened, and how the first was called, without its flags.
        processes: how many there were in the end, with their children.
        cpu_s: processor time.
        cpu: as a share of one core, from when all were connected until all was sent and answered.
        cpu_us_per_delivery: processor time for each delivery, everything else counted in; None when there was none.
        rss_before_bytes: resident memory before the first connection.
        rss_bytes: the most that was seen.
        rss_per_connection_bytes: how much more it was when all were connected, for each; None without any. What the
            server had kept of memory from before comes to nothing here: it is for a server that was just started.

    """

    pids: list[int]
    name: str
    processes: int
    cpu_s: float
    cpu: float
    cpu_us_per_delivery: float | None
    rss_before_bytes: int
    rss_bytes: int
    rss_per_connection_bytes: float | None


class Generator(msgspec.Struct):
    """The load test itself.

    Attributes:
        cpu: the share of a core that each of its processes used while the load ran.
        lateness: how late messages were sent.
        loop: how late its event loops were.
        is_bottleneck: whether it measured itself more than the server.
        why: by what one sees that.

    """

    cpu: list[float]
    lateness: Percentiles
    loop: Percentiles
    is_bottleneck: bool
    why: str = ""


class Result(msgspec.Struct):
    """A load test's result.

    Attributes:
        version: of this document's form.
        hubbub: the version of Hubbub that made it.
        began: when, in epoch milliseconds.
        asked: what it was asked to do.
        interrupted: whether somebody ended it before its time.
        load_s: how long it sent.
        counts: what was counted in all.
        per_s: messages acknowledged and entries delivered a second, until the last was answered.
        ack, delivery: durations from when a message was due to its answer, and to each of its listeners.
        resumed: deliveries that came as answers after reconnects.
        delivery_resumed: durations of these, from when a message was due; they are not in `delivery`.
        history: durations of pages of history, from when each was due.
        connect: durations from when a connection was due until it stood: TCP, TLS, handshake, `sync`, entering rooms,
            and the attempts before that failed.
        faults: what must not be.
        storm: the reconnect storm; None without one.
        server: None where its processes cannot be seen.
        generator: the load test itself.
        seconds: each second of it.
        passed: the verdict.
        reasons: why it did not pass.
        notes: what else one should know.

    """

    version: int
    hubbub: str
    began: int
    asked: Asked
    interrupted: bool
    load_s: float
    counts: Counts
    per_s: PerS
    ack: Percentiles
    delivery: Percentiles
    resumed: int
    delivery_resumed: Percentiles
    history: Percentiles
    connect: Percentiles
    faults: Faults
    storm: Storm | None
    server: Server | None
    generator: Generator
    seconds: list[Second]
    passed: bool = True
    reasons: list[str] = []
    notes: list[str] = []


class PerS(msgspec.Struct):
    """Rates.

    Attributes:
        acked: messages acknowledged a second.
        delivered: entries delivered a second.

    """

    acked: float
    delivered: float


def document(result: Result) -> bytes:
    """The result as JSON."""
    return msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"


def judge(
    result: Result, *, max_ack_ms: float | None, max_delivery_ms: float | None, allowed: Sequence[str] = ()
) -> None:
    """Say whether it passed, and why not.

    Args:
        result: what was found.
        max_ack_ms, max_delivery_ms: what the 99th percentiles may be; None for anything.
        allowed: `doubled`, `disordered` and `refused` become notes.

    """
    faults, counts = result.faults, result.counts
    found = [
        ("lost", faults.lost, f"{many(faults.lost, 'delivery', 'deliveries')} lost"),
        ("doubled", faults.doubled, f"{many(faults.doubled, 'delivery', 'deliveries')} doubled"),
        ("disordered", faults.disordered, f"{many(faults.disordered, 'delivery', 'deliveries')} out of order"),
        ("stored twice", faults.stored_twice, f"{many(faults.stored_twice, 'message')} stored twice"),
        ("unseen", faults.unseen, f"{many(faults.unseen, 'acknowledged message')} not delivered, or as another entry"),
        ("unanswered", faults.unanswered, f"{many(faults.unanswered, 'message')} never answered"),
        ("unsent", faults.unsent, f"{many(faults.unsent, 'message')} not sent: no connection"),
        ("unread", faults.unread, f"{many(faults.unread, 'page')} of history never came"),
        ("resets", faults.resets, f"{many(faults.resets, 'log')} began anew on the server"),
        ("strayed", faults.strayed, f"{many(faults.strayed, 'delivery', 'deliveries')} to who is not in the room"),
        ("absent", faults.not_connected, f"{many(faults.not_connected, 'connection')} not there in the end"),
        *(("refused", n, f"{many(n, 'message')} refused: {code}") for code, n in counts.refused.items()),
        *(("refused", n, f"{many(n, 'page')} of history refused: {code}") for code, n in counts.page_errors.items()),
    ]
    result.reasons = [words for what, count, words in found if count and what not in allowed]
    for name, each, most in (("ack", result.ack.p99, max_ack_ms), ("delivery", result.delivery.p99, max_delivery_ms)):
        if most is not None and (each is None or each > most):
            shown = "none came" if each is None else f"{each:,.1f} ms"
            result.reasons.append(f"{name} p99: at most {most:g} ms were asked for, found {shown}")
    result.passed = not result.reasons
    result.notes = [f"allowed: {words}" for what, count, words in found if count and what in allowed]
    result.notes += _notes(result)


def _notes(result: Result) -> list[str]:
    notes = []
    if result.interrupted:
        notes.append(f"ended by hand, after {result.load_s:.0f} s of load")
    if result.generator.is_bottleneck:
        notes.append(f"the load test measured itself more than the server: {result.generator.why}")
    if result.server is not None and result.server.name.partition(" ")[0] in PROXIES:
        notes.append(f"who listens there is {result.server.name}; --pid names the server behind it")
    if result.counts.refused.keys() & {"rate_limited"}:
        notes.append("rate_limited: a connection or user may send only so often (the settings rate and user_rate)")
    if result.asked.deflates and 0 < result.counts.deflated < result.counts.opened:
        notes.append(f"permessage-deflate was agreed with {result.counts.deflated:,} of {result.counts.opened:,}")
    closed = {code: n for code, n in result.counts.closed.items() if n}
    if closed:
        shown = ", ".join(f"{code}: {n:,}" for code, n in closed.items())
        notes.append(f"connections ended, by close code: {shown}")
    notes += [f"API Gateway said {n:,} times: {words}" for words, n in result.counts.gateway_errors.items()]
    slow = result.counts.slow_closed
    if result.asked.slow:
        shown = ", ".join(f"{code}: {n:,}" for code, n in slow.items()) or "none of them"
        notes.append(f"connections that did not read, closed by the server: {shown}")
    if result.interrupted and result.faults.lost:
        notes.append("what had not come when it was ended counts as lost")
    failed = sum(result.counts.failed.values())
    if failed:
        worst = max(result.counts.failed, key=lambda why: result.counts.failed[why])
        notes.append(f"{many(failed, 'attempt')} to connect failed, most often: {worst}")
    return notes


def many(count: int, one: str, more: str | None = None) -> str:
    """A count with its noun."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"
