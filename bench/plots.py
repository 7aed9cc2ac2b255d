"""Plots for the documents, as SVG: points on a logarithmic scale, and lines over a logarithmic one.

Values differ by factors and not by amounts, so every scale is logarithmic; and a bar would have to begin somewhere, so
there are points, with a line as long as the rounds differed. The same figures give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

FONT = "font-family='system-ui, sans-serif' font-size='13'"
INK, FAINT, OURS, OTHERS = "#222222", "#d8d8d8", "#c2410c", "#3b5b7a"
COLOURS = (OURS, OTHERS, "#4d7c0f", "#7e22ce", "#0e7490", "#a16207")
ROW = 24
NAMES = 330
"""How wide the names of rows are."""

STEPS = (1, 2, 5)


class Point(NamedTuple):
    """A row of a plot of points.

    Attributes:
        name: to its left.
        value: where the point is; above zero.
        says: what is written beside it.
        is_ours: whether it is Hubbub's.
        rounds: what the rounds had, of which the value is the median.

    """

    name: str
    value: float
    says: str
    is_ours: bool = False
    rounds: Sequence[float] = ()


def points(title: str, rows: Sequence[Point], *, width: int = 860) -> str:
    """A plot with a row for each point.

    Raises:
        ValueError: there is none, or one that has no place on a logarithmic scale.

    """
    values = _checked([value for row in rows for value in (row.value, *row.rounds)])
    left, right, top = NAMES + 10, width - 90, 46
    low, high = _ends(values)
    height = top + ROW * len(rows) + 34
    place = _scale(low, high, left, right)
    parts = [_text(10, 24, title, weight="600")]
    for tick in _ticks(low, high):
        x = place(tick)
        parts.append(f"<line x1='{x:.1f}' y1='{top - 8}' x2='{x:.1f}' y2='{height - 28}' stroke='{FAINT}'/>")
        parts.append(_text(x, height - 12, _short(tick), anchor="middle"))
    for number, row in enumerate(rows):
        y = top + ROW * number + ROW / 2
        colour = OURS if row.is_ours else OTHERS
        parts.append(_text(NAMES, y + 4, row.name, anchor="end", weight="600" if row.is_ours else "400"))
        parts.append(f"<line x1='{left}' y1='{y:.1f}' x2='{right}' y2='{y:.1f}' stroke='{FAINT}'/>")
        first, last = (place(end((row.value, *row.rounds))) for end in (min, max))
        parts.append(
            f"<line x1='{first:.1f}' y1='{y:.1f}' x2='{last:.1f}' y2='{y:.1f}' stroke='{colour}' stroke-width='3'/>"
        )
        parts.append(f"<circle cx='{place(row.value):.1f}' cy='{y:.1f}' r='5' fill='{colour}'/>")
        parts.append(_text(max(place(row.value) + 10, last + 5), y + 4, row.says))
    return _page(width, height, title, parts)


def lines(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    across: str,
    up: str,
    width: int = 820,
    height: int = 420,
) -> str:
    """A plot with a line for each series, both scales logarithmic.

    Raises:
        ValueError: there is nothing to draw, or a value that has no place on a logarithmic scale.

    """
    pairs = [pair for each in series.values() for pair in each]
    above = 18 * math.ceil(len(series) / 3)  # what names of lines need
    height += above
    left, right, top, bottom = 70, width - 34, 66 + above, height - 50
    x_ends = _ends(_checked([x for x, _ in pairs]))
    y_ends = _ends(_checked([y for _, y in pairs]))
    x_of, y_of = _scale(*x_ends, left, right), _scale(*y_ends, bottom, top)
    parts = [_text(10, 24, title, weight="600"), _text(right, height - 8, across, anchor="end"), _text(10, 46, up)]
    for tick in _ticks(*x_ends):
        parts.append(f"<line x1='{x_of(tick):.1f}' y1='{top}' x2='{x_of(tick):.1f}' y2='{bottom}' stroke='{FAINT}'/>")
        parts.append(_text(x_of(tick), bottom + 18, _short(tick), anchor="middle"))
    for tick in _ticks(*y_ends):
        parts.append(f"<line x1='{left}' y1='{y_of(tick):.1f}' x2='{right}' y2='{y_of(tick):.1f}' stroke='{FAINT}'/>")
        parts.append(_text(left - 8, y_of(tick) + 4, _short(tick), anchor="end"))
    for number, (name, line) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in line)
        parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>")
        parts += [f"<circle cx='{x_of(x):.1f}' cy='{y_of(y):.1f}' r='3' fill='{colour}'/>" for x, y in line]
        x = left + 10 + number % 3 * 250
        y = 66 + number // 3 * 18
        parts.append(f"<rect x='{x}' y='{y - 9}' width='10' height='10' fill='{colour}'/>")
        parts.append(_text(x + 16, y, name))
    return _page(width, height, title, parts)


def _checked(values: Sequence[float]) -> Sequence[float]:
    if not values:
        raise ValueError("there is nothing to draw")
    for value in values:
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"expected numbers above zero for a logarithmic scale, got {value}")
    return values


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """The nearest steps below and above all values, which are never the same."""
    low = max(tick for tick in _steps(min(values)) if tick <= min(values))
    high = min(tick for tick in _steps(max(values)) if tick >= max(values))
    return (low, high) if low < high else (low / 2, high * 2)


def _ticks(low: float, high: float) -> list[float]:
    found = [
        step * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for step in (STEPS if high / low < 2_000 else (1,))
    ]
    return [tick for tick in found if low * 0.999 <= tick <= high * 1.001]


def _steps(about: float) -> list[float]:
    power = math.floor(math.log10(about))
    return [step * 10.0**each for each in (power - 1, power, power + 1) for step in STEPS]


def _scale(low: float, high: float, begin: float, end: float) -> Callable[[float], float]:
    span = math.log(high / low)
    return lambda value: begin + (end - begin) * math.log(value / low) / span


def _short(value: float) -> str:
    for size, name in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{name}"
    return f"{value:g}"


def _text(x: float, y: float, says: str, *, anchor: str = "start", weight: str = "400") -> str:
    look = f"text-anchor='{anchor}' font-weight='{weight}' fill='{INK}'"
    return f"<text x='{x:.1f}' y='{y:.1f}' {look}>{escape(says)}</text>"


def _page(width: int, height: float, title: str, parts: Sequence[str]) -> str:
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height:g}' {FONT} role='img'>"
    ground = f"<rect width='{width}' height='{height:g}' fill='#ffffff'/>"
    return "\n".join([head, f"<title>{escape(title)}</title>", ground, *parts, "</svg>", ""])
