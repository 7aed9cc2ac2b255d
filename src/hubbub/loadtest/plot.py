"""Lines over time as SVG, drawn here since a page that opens without a network can load nothing to draw them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 760, 230
_Place = Callable[[float], float]
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 10, 26
_MOST_POINTS = 600
"""A long load test's seconds are joined, each point being the highest of those that it stands for."""


class Line(NamedTuple):
    """One line of a plot; None where there is no value."""

    name: str
    values: Sequence[float | None]


class Plot(NamedTuple):
    """A plot: a heading, what its heights are, when each value was, the lines, and from when to when the load ran."""

    title: str
    unit: str
    at: Sequence[float]
    lines: Sequence[Line]
    load: tuple[float, float] | None = None


def svg(plot: Plot) -> str:
    """The plot as an SVG element; its colours are those of the classes `line-0`, `line-1`, … of the page."""
    at, lines = _thinned(plot.at, plot.lines)
    values = [value for each in lines for value in each.values if value is not None]
    if not values:
        return f'<p class="none">{escape(plot.title)}: nothing was measured.</p>'
    top, marks = scale(max(values))
    right = max(at[-1], 1.0)

    def x(seconds: float) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * seconds / right, 1)

    def y(value: float) -> float:
        return round(HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * value / top, 1)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(plot.title)} {escape(plot.unit)}">',
    ]
    if plot.load is not None:
        begin, end = (x(min(each, right)) for each in plot.load)
        parts.append(
            f'<rect class="load" x="{begin}" y="{_TOP}" width="{max(0, end - begin):.1f}" '
            f'height="{HEIGHT - _TOP - _BOTTOM}"/>'
        )
    for mark in marks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(mark)}" y2="{y(mark)}"/>')
        parts.append(f'<text class="mark" x="{_LEFT - 6}" y="{y(mark) + 4}" text-anchor="end">{amount(mark)}</text>')
    parts += [
        f'<text class="mark" x="{x(mark)}" y="{HEIGHT - 8}" text-anchor="middle">{amount(mark)} s</text>'
        for mark in scale(right)[1]
        if mark <= right
    ]
    for number, each in enumerate(lines):
        parts += _drawn(each, number, at, x, y, plot.unit)
    parts.append("</svg>")
    return "".join(parts)


def _drawn(line: Line, number: int, at: Sequence[float], x: _Place, y: _Place, unit: str) -> list[str]:
    """A line with gaps where there is no value, and a point at each value that says it when one points at it."""
    parts, stretch = [], ""
    for seconds, value in zip([*at, 0.0], [*line.values, None], strict=True):
        if value is not None:
            stretch += f"{x(seconds)},{y(value)} "
        elif stretch:
            parts.append(f'<polyline class="line-{number}" points="{stretch.rstrip()}"/>')
            stretch = ""
    parts += [
        f'<circle class="point-{number}" cx="{x(seconds)}" cy="{y(value)}" r="4">'
        f"<title>{escape(line.name)}: {value:,.4g} {escape(unit)} at {seconds:,.0f} s</title></circle>"
        for seconds, value in zip(at, line.values, strict=True)
        if value is not None
    ]
    return parts


def _thinned(at: Sequence[float], lines: Sequence[Line]) -> tuple[list[float], list[Line]]:
    step = math.ceil(len(at) / _MOST_POINTS) or 1
    if step == 1:
        return list(at), list(lines)
    starts = range(0, len(at), step)
    return [at[min(start + step, len(at)) - 1] for start in starts], [
        Line(each.name, [_highest(each.values[start : start + step]) for start in starts]) for each in lines
    ]


def _highest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def scale(highest: float) -> tuple[float, list[float]]:
    """A round number not below the highest, and three to six round ones from 0 to it."""
    if highest <= 0:
        return 1.0, [0.0, 1.0]
    rough = highest / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= rough * (1 - 1e-9))
    steps = math.ceil(highest / step - 1e-9)
    return steps * step, [round(number * step, 9) for number in range(steps + 1)]


def amount(value: float) -> str:
    """A number at an axis."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * (10 if letter == "k" else 1):
            return f"{value / size:g}{letter}"
    return f"{value:,g}"
