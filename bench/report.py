"""Makes docs/benchmarks.md and its plots of what benches saved and of prose: `python -m bench.report [--check]`.

And, once the peers were measured, the table in README.md between `<!-- measured -->` and `<!-- /measured -->`.

The page is the snippets of `bench/prose` in the order of their names. In one of them a line `<!-- figures: NAME -->`
stands for what `bench/results/NAME.json` has, with command, day and machine; what stands between
`<!-- unless: NAME -->` and `<!-- /unless -->` is left out once there is such a file. What no snippet names comes last.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench import plots
from bench.peers.figures import Figures, Measured
from bench.peers.measure import Delivery, Losses
from bench.saving import RESULTS, Result, saved

ROOT = Path(__file__).parent.parent
PROSE = Path(__file__).parent / "prose"
PAGE = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"
PLOTS = "benchmarks"
"""The folder of the plots, beside the page."""

_FIGURES = re.compile(r"^<!-- figures: ([\w-]+) -->$", re.MULTILINE)
_UNLESS = re.compile(r"^<!-- unless: ([\w-]+) -->\n(.*?)^<!-- /unless -->\n", re.MULTILINE | re.DOTALL)

_MEASURED = re.compile(r"(?<=^<!-- measured -->\n).*?(?=^<!-- /measured -->$)", re.MULTILINE | re.DOTALL)

UNITS = {
    "us": "µs",
    "ms": "ms",
    "s": "s",
    "kb": "KB",
    "mb": "MB",
    "gb": "GB",
    "per_s": "a second",
    "per_second": "a second",
    "bytes": "bytes",
}
"""What ends of names mean."""

SHARES = ("share", "busy", "share_of_100000", "kernel_part")
"""How names of shares of a core end: they are shown in per cent."""

BASES = ("bare", "picows")
"""What ratios are to: the first of these that was measured."""

SHOWN = (
    "bare",
    "hubbub",
    "ws",
    "socketio-node",
    "centrifugo",
    "nats",
    "python-socketio",
    "channels-pubsub-uvicorn",
    "channels-core-uvicorn",
    "channels-core-daphne",
)
"""The peers that README.md names; the page has all of them."""

ABOUT_COSTS = """\
Of the server with all that it has started, and of its Redis where it has one, whose share of it the last column has"""

ABOUT_RATES = """\
Where the clients' own core is in use to nearly 100 %, they bound the rate and the server could do more: see what it
does for a second of its core, Redis included. Lost are the deliveries that never came, of all settings and rounds."""

ABOUT_CONNECTIONS = """\
Resident memory of the server for each connection that listens and does nothing, and processor time, Redis included, of
making one and of letting it listen; there is none of that where who connects listens. Hubbub verifies a token at each
handshake and reads from its store what the user missed, the others admit everybody and look for nothing."""

ABOUT_LOSSES = """\
{messages} messages at once from the members of a room, each from another one where there are as many, and all listen:
the share of the deliveries that never came, in the first round. *Told* counts the errors and closed connections by
which anybody could know."""


class Plots(dict[str, str]):
    """The plots of a page, by the name of their file."""

    def add(self, name: str, svg: str, about: str) -> str:
        """Keep a plot; returns the line that shows it."""
        self[f"{name}.svg"] = svg
        return f"![{about}]({PLOTS}/{name}.svg)"


def documents(
    prose: Path = PROSE, results: Path = RESULTS, page: Path = PAGE, about: Mapping[str, str] | None = None
) -> dict[Path, str]:
    """The page and its plots, by their paths.

    Args:
        prose: the folder of snippets.
        results: the folder of what benches saved.
        page: where the page is to be; plots are in a folder beside it.
        about: what benches measure, by name, for those that no snippet names.

    Raises:
        ValueError: a snippet has a marker that does not end, or there is no snippet.

    """
    found = saved(results) if results.is_dir() else {}
    snippets = [path.read_text(encoding="utf-8").strip() + "\n" for path in sorted(prose.glob("*.md"))]
    if not snippets:
        raise ValueError(f"expected snippets *.md in {prose}, and there is none")
    text = "\n".join(snippets)
    named = set(_FIGURES.findall(text))
    drawn = Plots()
    text = _UNLESS.sub(lambda match: "" if match[1] in found else match[2], text)
    if "<!-- unless:" in text or "<!-- /unless -->" in text:
        raise ValueError("a snippet has `<!-- unless: NAME -->` without its `<!-- /unless -->`, or the other way round")
    text = _FIGURES.sub(lambda match: section(found[match[1]], drawn) if match[1] in found else "", text)
    rest = [name for name in found if name not in named]
    if rest:
        text += "\n## Further figures\n"
    for name in rest:
        text += f"\n### {(about or {}).get(name, name).capitalize()}\n\n{section(found[name], drawn)}\n"
    text = re.sub(r"\n{3,}", "\n\n", text)
    return {page: text.rstrip("\n") + "\n", **{page.parent / PLOTS / name: svg for name, svg in drawn.items()}}


def section(result: Result, drawn: Plots) -> str:
    """What one bench saved: where and when, its command, its tables and plots."""
    tables = RENDERERS.get(result.name, generic)(result, drawn)
    return f"`{result.command}`: {place(result)}\n\n{tables}"


def place(result: Result) -> str:
    """When and where it was measured, as a sentence or two."""
    machine = result.machine
    where = f"{machine.get('cpu', 'a processor')}, {machine.get('cores', '?')} cores"
    if "memory_gib" in machine:
        where += f", {machine['memory_gib']:g} GiB"
    where += f", Linux {machine.get('kernel', '?')}, Python {machine.get('python', '?')}"
    says = f"measured on {result.date[:10]} on {where}."
    if machine.get("load", 0.0) > 0.5 * machine.get("cores", 1):
        says += (
            f" **The machine was busy with other things** (load {machine['load']:g} when it began): ratios, not clocks."
        )
    return says


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float) -> str:
    """A figure with about three digits that count."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    for digits, least in ((0, 100), (1, 10), (2, 0.1)):
        if abs(value) >= least:
            return f"{value:.{digits}f}"
    return f"{value:.3g}"


# What benches save without more ado


def generic(result: Result, drawn: Plots) -> str:
    """Figures as tables: of a list or an object of objects, of an object of numbers; what holds them is taken apart."""
    return "\n\n".join(_parts(result.figures, ""))


def _parts(value: Any, name: str) -> list[str]:
    if isinstance(value, list):
        return _list(value, name)
    if isinstance(value, dict):
        if len(value) > 1 and all(isinstance(each, dict) and _is_plain(each) for each in value.values()):
            return _list([{"": key, **each} for key, each in value.items()], name)
        plain = {key: each for key, each in value.items() if not isinstance(each, dict | list)}
        parts = []
        if plain:
            rows = [[title(key), _cell(each, key)] for key, each in plain.items()]
            parts.append(_caption(name) + table(["", ""], rows))
        for key, each in value.items():
            if isinstance(each, dict | list):
                parts += _parts(each, f"{name}, {title(key)}" if name else "" if key == "rows" else title(key))
        return parts
    return [_caption(name) + _cell(value)]


def _list(value: list[Any], name: str) -> list[str]:
    if not value:
        return []
    if all(isinstance(each, dict) for each in value):
        flat = [_flat(each) for each in value]
        columns = list(dict.fromkeys(key for each in flat for key in each))
        rows = [[_cell(each[key], key) if key in each else "" for key in columns] for each in flat]
        return [_caption(name) + table([title(key) for key in columns], rows)]
    return [_caption(name) + ", ".join(_cell(each) for each in value)]


def _is_plain(value: Mapping[str, Any]) -> bool:
    return bool(value) and not any(isinstance(each, dict | list) for each in value.values())


def _flat(value: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, each in value.items():
        if isinstance(each, dict):
            found |= _flat(each, f"{before}{key}.")
        else:
            found[before + key] = each
    return found


def _cell(value: Any, key: str = "") -> str:
    if isinstance(value, float) and key.endswith(SHARES):
        return f"{value:.2%}" if abs(value) < 0.1 else f"{value:.0%}"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, list):
        return ", ".join(_cell(each) for each in value)
    return "" if value is None else str(value).replace("|", "\\|")


def _caption(name: str) -> str:
    return f"**{name[0].upper()}{name[1:]}**\n\n" if name else ""


def title(key: str) -> str:
    """A name in figures, as a column's head: `cpu_us` is "cpu, µs"."""
    for end, unit in sorted(UNITS.items(), key=lambda pair: -len(pair[0])):
        if key == end:
            return unit
        if key.endswith(f"_{end}"):
            return f"{key.removesuffix(f'_{end}').replace('_', ' ').replace('.', ', ')}, {unit}"
    return key.replace("us_per_", "µs per_").replace("_", " ").replace(".", ", ")


# Curves


def curves(result: Result, drawn: Plots) -> str:
    """How cost grows: for each quantity a plot, its figures, and how each operation was found to grow."""
    parts = []
    for name, curve in result.figures.items():
        rows = curve["rows"]
        operations = [growth["operation"] for growth in curve["growth"]]
        says = f"{curve['about'][:1].upper()}{curve['about'][1:]}"
        parts.append(f"#### {says}")
        lines = {each: [(row["size"], row[each]) for row in rows if row[each] > 0] for each in operations}
        about = f"{says}: processor time, µs"
        svg = plots.lines(about, {each: line for each, line in lines.items() if line}, across=curve["about"], up="µs")
        parts.append(drawn.add(f"curves-{name}", svg, about))
        head = [curve["about"], *(f"{each}, µs" for each in operations)]
        parts.append(table(head, [[number(row["size"]), *(number(row[each]) for each in operations)] for row in rows]))
        verdicts = [
            [
                growth["operation"],
                growth["grows"] if growth["is_fine"] else f"**{growth['grows']}, which it should not**",
                "" if growth["exponent"] is None else f"{growth['exponent']:.2f}",
                growth["why"],
            ]
            for growth in curve["growth"]
        ]
        parts.append(table(["operation", "grows", "exponent", "why it must"], verdicts))
    return "\n\n".join(parts)


# Peers


def peers(result: Result, drawn: Plots) -> str:
    """Hubbub and its peers: what a delivery costs, what a connection costs, what is lost, and what was compared."""
    figures = msgspec.convert(result.figures, Figures)
    base = next((peer for name in BASES for peer in figures.peers if peer.name == name), None)
    parts = [
        f"Medians of {figures.rounds} rounds; ratios are those within a round. Lines in plots reach over all rounds."
        if figures.rounds > 1
        else "One round."
    ]
    if any(peer.deliveries for peer in figures.peers):
        parts += _costs(figures, base, drawn)
    if any(peer.idle for peer in figures.peers):
        parts += _connections(figures, drawn)
    if any(peer.losses for peer in figures.peers):
        parts += _lost(figures)
    parts += _compared(figures)
    return "\n\n".join(parts)


def _costs(figures: Figures, base: Measured | None, drawn: Plots) -> list[str]:
    settings = [(each, many) for each in figures.sizes.listeners for many in figures.sizes.in_flight]
    most = figures.sizes.listeners[-1], figures.sizes.in_flight[0]
    rows = []
    for peer in figures.peers:
        row = [peer.title]
        for listeners, in_flight in settings:
            cost = _median(peer, listeners, in_flight, lambda each: each.all_us)
            ratio = _ratio(peer, base, listeners, in_flight)
            row.append("" if cost is None else f"{cost:.2f}" if ratio is None else f"**{ratio:.2f}** ({cost:.2f})")
        redis = _median(peer, *most, lambda each: each.redis_us / each.all_us if each.all_us else 0.0)
        rows.append([*row, f"{redis:.0%}" if redis else ""])
    head = ["server", *(f"{listeners:,} listeners, {many} in flight" for listeners, many in settings), "Redis' share"]
    to = (
        f"as a ratio to {base.title} in the same round, and in µs in brackets"
        if base is not None
        else "in µs; no base was measured, so without ratios"
    )
    parts = [f"### Processor time of a delivery\n\n{ABOUT_COSTS}: {to}.", table(head, rows)]
    for each, many in dict.fromkeys((most, settings[-1])):
        says = f"Processor time of a delivery, µs: {each:,} listeners, {many} in flight"
        measured = [(peer, [found.all_us for found in _of(peer, each, many)]) for peer in figures.peers]
        parts += _plot(f"peers-delivery-{each}-{many}", says, measured, drawn)
    return [*parts, *_rates(figures, *settings[-1])]


def _plot(name: str, says: str, measured: Sequence[tuple[Measured, list[float]]], drawn: Plots) -> list[str]:
    """A plot of what the rounds had, the least first; none of what has no place on its scale."""
    rows = []
    for peer, rounds in measured:
        if rounds and min(rounds) > 0:
            median = statistics.median(rounds)
            rows.append(plots.Point(_plain(peer), median, number(median), peer.name == "hubbub", rounds))
    rows.sort(key=lambda row: row.value)
    return [drawn.add(name, plots.points(says, rows), says)] if rows else []


def _rates(figures: Figures, listeners: int, in_flight: int) -> list[str]:
    rows = []
    for peer in figures.peers:
        rate = _median(peer, listeners, in_flight, lambda each: each.per_s)
        if rate is None:
            continue
        cost = _median(peer, listeners, in_flight, lambda each: each.all_us) or 0.0
        busy = _median(peer, listeners, in_flight, lambda each: each.clients_busy) or 0.0
        lost = sum(each.lost for times in peer.deliveries for each in times)
        rows.append(
            [peer.title, number(rate / 1e3), number(1e3 / cost) if cost else "", f"{busy:.0%}", f"{lost:,}"],
        )
    heads = [
        "server",
        "deliveries, thousand a second",
        "for a second of its core, thousand",
        "clients' core in use",
        "lost",
    ]
    says = f"{listeners:,} listeners, {in_flight} messages in flight. {ABOUT_RATES}"
    return [f"### Rate of deliveries\n\n{says}", table(heads, rows)]


def _connections(figures: Figures, drawn: Plots) -> list[str]:
    rows = []
    for peer in figures.peers:
        if not peer.idle:
            continue
        kb = statistics.median(each.kb for each in peer.idle)
        redis = statistics.median(each.redis_kb for each in peer.idle)
        cpu = statistics.median(each.connect_cpu_us for each in peer.idle)
        listens = statistics.median(each.listen_cpu_us for each in peer.idle)
        count = peer.idle[0].connections
        rows.append(
            [
                peer.title,
                f"{count:,}",
                number(kb),
                number(redis) if redis else "",
                number(1e6 / cpu),
                number(cpu),
                number(listens) if listens >= 1.0 else "",
            ]
        )
    heads = [
        "server",
        "connections",
        "KB each",
        "Redis, KB each",
        "connects for a second of CPU",
        "µs to connect",
        "µs to listen",
    ]
    parts = [
        f"### Connections\n\n{ABOUT_CONNECTIONS}",
        table(heads, rows),
    ]
    says = "Resident memory of an idle connection, KB"
    measured = [(peer, [each.kb for each in peer.idle]) for peer in figures.peers]
    return [*parts, *_plot("peers-memory", says, measured, drawn)]


def _lost(figures: Figures) -> list[str]:
    asked = [(peer, [each for times in peer.losses for each in times]) for peer in figures.peers]
    asked = [(peer, found) for peer, found in asked if found]
    if not asked:
        return []
    rows = []
    for peer, found in asked:
        row = [peer.title, *(_share_lost(found, members) for members in figures.sizes.speakers)]
        doubled, told = sum(each.doubled for each in found), sum(each.told for each in found)
        rows.append([*row, f"{doubled:,}", f"{told:,}"])
    heads = ["server", *(f"{members:,} members" for members in figures.sizes.speakers), "doubled", "told"]
    return [f"### Lost messages\n\n{ABOUT_LOSSES.format(messages=asked[0][1][0].messages)}", table(heads, rows)]


def _share_lost(found: Sequence[Losses], members: int) -> str:
    """The share of deliveries that were lost in rooms of so many; any loss is told from none."""
    ours = [each for each in found if each.members == members]
    lost, expected = sum(each.lost for each in ours), sum(each.expected for each in ours)
    if not lost:
        return "0" if ours else ""
    return f"**{lost / expected:.1%}**" if lost / expected >= 0.001 else f"**{lost:,} of {expected:,}**"


def _compared(figures: Figures) -> list[str]:
    rows = []
    for peer in figures.peers:
        versions = ", ".join(f"{name} {version}" for name, version in peer.versions.items())
        rows.append([f"`{peer.name}`", peer.title, versions, peer.keeps])
    parts = ["### What was compared", table(["`--only`", "server", "versions", "what it keeps of a message"], rows)]
    if figures.left:
        lines = "\n".join(f"- {each.title}: {' '.join(each.why.split())[:300]}" for each in figures.left)
        parts.append(f"Not measured on this machine:\n\n{lines}")
    return parts


def _of(peer: Measured, listeners: int, in_flight: int) -> list[Delivery]:
    return [
        each
        for times in peer.deliveries
        for each in times
        if (each.listeners, each.in_flight) == (listeners, in_flight)
    ]


def _median(peer: Measured, listeners: int, in_flight: int, what: Callable[[Delivery], float]) -> float | None:
    found = [what(each) for each in _of(peer, listeners, in_flight)]
    return statistics.median(found) if found else None


def _ratio(peer: Measured, base: Measured | None, listeners: int, in_flight: int) -> float | None:
    if base is None:
        return None
    pairs = list(zip(_of(peer, listeners, in_flight), _of(base, listeners, in_flight), strict=False))
    return statistics.median(ours.all_us / theirs.all_us for ours, theirs in pairs if theirs.all_us) if pairs else None


def _plain(peer: Measured) -> str:
    return re.sub(r"[*`]", "", peer.title)


def readme(text: str, found: Mapping[str, Result]) -> str:
    """README.md with the figures of a run of peers; as it was while there is none.

    Args:
        text: of README.md.
        found: what was saved, by name.

    Raises:
        ValueError: it has no place for them.

    """
    if _MEASURED.search(text) is None:
        raise ValueError("expected lines `<!-- measured -->` and `<!-- /measured -->` in README.md")
    if "peers" not in found:
        return text
    return _MEASURED.sub(lambda _: _in_short(found["peers"]), text)


def _in_short(result: Result) -> str:
    """A run of peers as one table: the largest room, the fewest and the most messages in flight."""
    figures = msgspec.convert(result.figures, Figures)
    by_name = {peer.name: peer for peer in figures.peers}
    base = next((by_name[name] for name in BASES if name in by_name), None)
    listeners, few, many = figures.sizes.listeners[-1], figures.sizes.in_flight[0], figures.sizes.in_flight[-1]
    rows = []
    for peer in (by_name[name] for name in SHOWN if name in by_name):
        cost = _median(peer, listeners, few, lambda each: each.all_us)
        ratio = _ratio(peer, base, listeners, few)
        rate = _median(peer, listeners, many, lambda each: each.per_s)
        lost = [each for times in peer.losses for each in times]
        rows.append(
            [
                peer.title,
                "" if cost is None else f"{cost:.1f} µs" if ratio is None else f"{ratio:.2f}",
                "" if rate is None else number(rate / 1e3),
                number(statistics.median(each.kb for each in peer.idle)) if peer.idle else "",
                _share_lost(lost, figures.sizes.speakers[0]) if lost and figures.sizes.speakers else "",
            ]
        )
    heads = [
        "server",
        f"processor time of a delivery, {listeners:,} listeners" + (f", to {_plain(base)}" if base is not None else ""),
        f"thousand deliveries a second, {many} messages in flight",
        "KB of an idle connection",
        f"lost when {figures.sizes.speakers[0]:,} speak at once" if figures.sizes.speakers else "lost",
    ]
    return f"One room, 200-byte texts, a core for each server; {place(result)}\n\n{table(heads, rows)}\n"


RENDERERS: dict[str, Callable[[Result, Plots], str]] = {"curves": curves, "peers": peers}
"""How what a bench saved is shown, where that is not as tables of what it says."""


def main(arguments: Sequence[str]) -> int:
    """Write the documents, or only look whether they are right; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if they are not what this makes")
    chosen = parser.parse_args(arguments)
    made = made_here()
    stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    left_over = [path for path in (PAGE.parent / PLOTS).glob("*.svg") if path not in made]
    if chosen.check:
        for path in (*stale, *left_over):
            print(f"{path.relative_to(ROOT)} is stale: run `python -m bench.report`", file=sys.stderr)
        return 1 if stale or left_over else 0
    (PAGE.parent / PLOTS).mkdir(exist_ok=True)
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")
    for path in left_over:
        path.unlink()
    print(f"{PAGE.relative_to(ROOT)} with {len(made) - 2} plots, and README.md, of {len(saved())} saved results")
    return 0


def made_here() -> dict[Path, str]:
    """The documents of this repository."""
    from bench.__main__ import BENCHES

    found = saved() if RESULTS.is_dir() else {}
    made = documents(about={name: bench.about for name, bench in BENCHES.items()})
    return {**made, README: readme(README.read_text(encoding="utf-8"), found)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
