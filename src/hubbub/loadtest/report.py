"""What one reads in the terminal when a load test has ended: figures, what went wrong, the verdict."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hubbub.loadtest.result import Percentiles, Result, Server, many


def show(result: Result, console: Console) -> None:
    """Print the result."""
    asked = result.asked
    console.print(
        Text(
            f"{asked.url}: {many(asked.connections, 'connection')} in {many(asked.rooms, 'room')}, "
            f"{asked.rate:,g} messages/s of {many(asked.size_bytes, 'byte')}, {result.load_s:,.0f} s"
        ),
        Text(),
    )
    console.print(_counted(result), Text())
    console.print(_durations(result), Text())
    console.print(_wrong(result), Text())
    if result.server is not None:
        console.print(_server(result.server))
    console.print(_itself(result), Text())
    for note in result.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    for reason in result.reasons:
        console.print(Text(f"failed: {reason}", style="red"))
    console.print(Text("PASS", style="bold green") if result.passed else Text("FAIL", style="bold red"))


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    return table


def _counted(result: Result) -> Table:
    counts = result.counts
    table = _table("", "in all", "a second")
    table.add_row("messages sent", f"{counts.sent:,}", "")
    table.add_row("acknowledged", f"{counts.acked:,}", f"{result.per_s.acked:,.1f}")
    table.add_row("delivered", f"{counts.delivered:,}", f"{result.per_s.delivered:,.0f}")
    if result.resumed:
        table.add_row("of them resumed", f"{result.resumed:,}", "")
    if result.asked.history:
        table.add_row("pages of history", f"{counts.pages:,}", "")
    if result.storm is not None:
        table.add_row("cut in the storm", f"{result.storm.cut:,}", "")
        table.add_row("of them back", f"{result.storm.back:,}", "")
    table.add_row("received", megabytes(counts.received_bytes) + (", compressed" if counts.deflated else ""), "")
    return table


def _durations(result: Result) -> Table:
    table = _table("milliseconds", "p50", "p90", "p99", "p99.9", "max")
    for name, found in durations(result):
        table.add_row(name, *(milliseconds(each) for each in percentile_row(found)))
    return table


def durations(result: Result) -> list[tuple[str, Percentiles]]:
    """What was timed, and is told of wherever the result is: those of which there were any."""
    rows = [
        ("until acknowledged", result.ack),
        ("until delivered", result.delivery),
        ("until resumed", result.delivery_resumed),
        ("page of history", result.history),
        ("connecting", result.connect),
    ]
    if result.storm is not None:
        rows.append(("back after the storm", result.storm.back_ms))
    return [(name, found) for name, found in rows if found.count]


def percentile_row(found: Percentiles) -> list[float | None]:
    """The columns of a table of durations."""
    return [found.p50, found.p90, found.p99, found.p999, found.max]


def milliseconds(value: float | None) -> str:
    """A duration with three figures that count."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _wrong(result: Result) -> Text:
    faults = result.faults
    words = f"lost {faults.lost:,}  doubled {faults.doubled:,}  out of order {faults.disordered:,}"
    for room in faults.rooms[:5]:
        words += f"\n  {room.room}: lost {room.lost:,}, doubled {room.doubled:,}, out of order {room.disordered:,}"
    if len(faults.rooms) > 5:
        words += f"\n  and {many(len(faults.rooms) - 5, 'room')} more"
    return Text(words, style="red" if faults.rooms else "")


def _server(server: Server) -> Text:
    words = f"server   {server.cpu:.0%} of a core, {megabytes(server.rss_bytes)}"
    words += f" (pid {', '.join(map(str, server.pids))}, {server.name})"
    parts = []
    if server.cpu_us_per_delivery is not None:
        parts.append(f"{server.cpu_us_per_delivery:,.2f} µs of CPU for a delivery, all counted in")
    if server.rss_per_connection_bytes and server.rss_per_connection_bytes >= 100:  # else it used what it had
        parts.append(f"{server.rss_per_connection_bytes / 1e3:,.1f} KB for a connection")
    return Text(words + ("\n         " + "; ".join(parts) if parts else ""))


def _itself(result: Result) -> Text:
    used = ", ".join(f"{each:.0%}" for each in result.generator.cpu) or "0%"
    late = result.generator.lateness.p99
    words = f"bench    {used} of a core"
    return Text(words if late is None else f"{words}; 99% of what it sent was at most {milliseconds(late)} ms late")


def megabytes(size: float) -> str:
    """A size in memory, or of what came, with three figures that count."""
    return f"{size / 1e6:,.0f} MB" if size >= 1e8 else f"{size / 1e6:.3g} MB"
