"""The report as one HTML page with everything in it: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from hubbub.loadtest.plot import Line, Plot, svg
from hubbub.loadtest.report import durations, megabytes, milliseconds, percentile_row
from hubbub.loadtest.result import Result, Second, many

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1d2126; --faint: #667; --rule: #d9dde3; --load: #f2f5f9;
  --line-0: #0b6bcb; --line-1: #c2410c; --line-2: #15803d; --good: #15803d; --bad: #b91c1c; }
@media (prefers-color-scheme: dark) { :root { --ground: #16181c; --ink: #e7e9ec; --faint: #9aa3ad; --rule: #343a42;
  --load: #1e2228; --line-0: #6cb2ff; --line-1: #ff9d66; --line-2: #6dd58c; --good: #6dd58c; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 54rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2rem 0 .25rem; }
p { margin: .4rem 0; }
.faint, .none, .unit { color: var(--faint); }
.verdict { font-size: 1.25rem; font-weight: 600; margin: 1rem 0 .4rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
ul { margin: .3rem 0; padding-left: 1.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: right; border-bottom: 1px solid var(--rule); font-weight: 400; }
th:first-child, td:first-child { text-align: left; }
thead th { color: var(--faint); }
svg { display: block; width: 100%; height: auto; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .load { fill: var(--load); }
svg .mark { fill: var(--faint); font: 12px system-ui, sans-serif; }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg circle { fill: transparent; }
.line-0 { stroke: var(--line-0); } .line-1 { stroke: var(--line-1); } .line-2 { stroke: var(--line-2); }
svg circle:hover { fill: var(--ink); }
.key { display: inline-block; width: 1.2rem; height: .2rem; vertical-align: middle; margin: 0 .35rem 0 .9rem; }
.key-0 { background: var(--line-0); } .key-1 { background: var(--line-1); } .key-2 { background: var(--line-2); }
"""


def page(result: Result) -> str:
    """The report."""
    asked = result.asked
    title = f"Load test of {asked.url}"
    began = datetime.fromtimestamp(result.began / 1_000, UTC)
    return "".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n",
            f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n",
            f"<h1>{escape(title)}</h1>\n",
            f'<p class="faint">{began:%Y-%m-%d %H:%M} UTC, hubbub {escape(result.hubbub)}, run {asked.bench}</p>\n',
            _verdict(result),
            _section("What was asked for", _asked(result)),
            _section("What was counted", _counts(result)),
            _section("Milliseconds", _durations(result)),
            _rooms(result),
            *(_drawn(each) for each in _plots(result)),
            "</body>\n</html>\n",
        )
    )


def _verdict(result: Result) -> str:
    word, look = ("Passed", "good") if result.passed else ("Failed", "bad")
    words = f'<p class="verdict {look}">{word}</p>\n'
    if result.reasons:
        words += f'<ul class="bad">{_items(result.reasons)}</ul>\n'
    if result.notes:
        words += f"<ul>{_items(result.notes)}</ul>\n"
    return words


def _items(texts: Iterable[str]) -> str:
    return "".join(f"<li>{escape(text)}</li>" for text in texts)


def _section(heading: str, content: str) -> str:
    return f"<h2>{escape(heading)}</h2>\n{content}\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    columns = "".join(f"<th>{escape(each)}</th>" for each in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(each)}</td>" for each in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{columns}</tr></thead><tbody>{lines}</tbody></table></div>'


def _asked(result: Result) -> str:
    asked = result.asked
    senders, size = many(asked.senders, "sender"), many(asked.size_bytes, "byte")
    processes = many(asked.processes, "process", "processes")
    addresses = many(asked.source_addresses, "address", "addresses")
    words = [
        f"{many(asked.connections, 'connection')} in {many(asked.rooms, 'room')}, {asked.rooms_each:,} each",
        f"{asked.rate:,g} messages a second of {size} by {senders}, for {asked.duration_s:,g} s",
        f"{asked.ramp:,g} connections a second, from {processes} and {addresses}",
    ]
    if asked.history:
        words.append(f"{asked.history:,g} pages of history a second")
    if asked.storm:
        words.append(f"{asked.storm:.0%} of the connections cut in the middle")
    if asked.slow:
        words.append(f"{many(asked.slow, 'connection')} that stopped reading")
    return f"<ul>{_items(words)}</ul>"


def _counts(result: Result) -> str:
    counts, faults = result.counts, result.faults
    rows = [
        ("messages sent", f"{counts.sent:,}", ""),
        ("acknowledged", f"{counts.acked:,}", f"{result.per_s.acked:,.1f}"),
        ("delivered", f"{counts.delivered:,}", f"{result.per_s.delivered:,.0f}"),
        ("of them resumed after a reconnect", f"{result.resumed:,}", ""),
        ("lost", f"{faults.lost:,}", ""),
        ("doubled", f"{faults.doubled:,}", ""),
        ("out of order", f"{faults.disordered:,}", ""),
    ]
    if result.asked.history:
        rows.append(("pages of history", f"{counts.pages:,}", ""))
    if result.storm is not None:
        rows += [("cut in the storm", f"{result.storm.cut:,}", ""), ("of them back", f"{result.storm.back:,}", "")]
    received = megabytes(counts.received_bytes) + (", compressed" if counts.deflated else "")
    rows.append(("received", received, ""))
    table = _table(("", "in all", "a second"), rows)
    server = result.server
    if server is not None:
        per = server.cpu_us_per_delivery
        words = f"The server used {server.cpu:.0%} of a core and at most {megabytes(server.rss_bytes)}"
        words += f"; {per:,.2f} µs of processor time for a delivery, all counted in." if per is not None else "."
        table += f'<p>{escape(words)}<br><span class="faint">{escape(server.name)}</span></p>'
    used = ", ".join(f"{each:.0%}" for each in result.generator.cpu) or "0%"
    return table + f"<p>The load test used {used} of a core.</p>"


def _durations(result: Result) -> str:
    rows = [*durations(result), ("lateness of the load test", result.generator.lateness)]
    shown = [
        (name, f"{found.count:,}", *map(milliseconds, percentile_row(found))) for name, found in rows if found.count
    ]
    return _table(("", "how many", "p50", "p90", "p99", "p99.9", "max"), shown) + (
        '<p class="faint">Counted from when each was due, not from when it was sent.</p>'
    )


def _rooms(result: Result) -> str:
    if not result.faults.rooms:
        return ""
    rows = [(each.room, f"{each.lost:,}", f"{each.doubled:,}", f"{each.disordered:,}") for each in result.faults.rooms]
    return _section("Rooms in which something went wrong", _table(("", "lost", "doubled", "out of order"), rows))


def _plots(result: Result) -> list[Plot]:
    seconds = result.seconds
    at = [each.at_s for each in seconds]
    loaded = [number for number, each in enumerate(seconds) if each.phase == "load"]
    load = (at[max(0, loaded[0] - 1)], at[loaded[-1]]) if loaded else None

    def line(name: str, value: Callable[[Second], float | None]) -> Line:
        return Line(name, [value(each) for each in seconds])

    plots = [
        Plot("Deliveries a second", "", at, [line("delivered", lambda each: each.delivered)], load),
        Plot(
            "Messages a second",
            "",
            at,
            [line("sent", lambda each: each.sent), line("acknowledged", lambda each: each.acked)],
            load,
        ),
        Plot(
            "Until acknowledged",
            "ms",
            at,
            [line("p50", lambda each: each.ack.p50), line("p99", lambda each: each.ack.p99)],
            load,
        ),
        Plot(
            "Until delivered",
            "ms",
            at,
            [line("p50", lambda each: each.delivery.p50), line("p99", lambda each: each.delivery.p99)],
            load,
        ),
        Plot("Connections", "", at, [line("connected", lambda each: each.live)], load),
        Plot(
            "Processor time",
            "% of a core",
            at,
            [
                line("server", lambda each: None if each.server_cpu is None else each.server_cpu * 100),
                line("load test, busiest process", lambda each: each.load_cpu * 100),
            ],
            load,
        ),
    ]
    if result.server is not None:
        plots.append(
            Plot(
                "Memory of the server",
                "MB",
                at,
                [line("resident", lambda each: None if each.server_rss is None else each.server_rss / 1e6)],
                load,
            )
        )
    return plots


def _drawn(plot: Plot) -> str:
    keys = "".join(
        f'<span class="key key-{number}"></span>{escape(each.name)}' for number, each in enumerate(plot.lines)
    )
    heading = f'{escape(plot.title)} <span class="unit">{escape(plot.unit)}{keys if len(plot.lines) > 1 else ""}</span>'
    return f"<h2>{heading}</h2>\n{svg(plot)}\n"
