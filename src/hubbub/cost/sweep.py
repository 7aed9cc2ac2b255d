"""One input at several values: what each home costs then, and from which value on another one is cheapest."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence

import msgspec

from hubbub.cost.bills import bill
from hubbub.cost.capacity import uses
from hubbub.cost.catalogue import Region, Work
from hubbub.cost.scenario import INPUTS, SHAPES, scenario


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One value of a sweep: dollars by home, the cheapest, and the quota that serverless breaks first."""

    value: float | str
    usd: dict[str, float]
    first: str
    headroom: float

    @property
    def cheapest(self) -> str:
        """The home that costs least; on a tie the earlier of `SHAPES`."""
        return min(self.usd, key=lambda shape: self.usd[shape])


def point(
    preset: str, given: dict[str, str | float], name: str, value: float | str, region: Region, work: Work
) -> Point:
    """What the model says with one input at that value."""
    chat = scenario(preset, {**given, name: value})
    bills = {shape: bill(shape, chat, region, work) for shape in SHAPES}
    first = uses(bills["serverless"], chat, region, work)[0]
    return Point(
        value=value, usd={shape: each.usd for shape, each in bills.items()}, first=first.what, headroom=first.headroom
    )


class Crossing(msgspec.Struct, frozen=True, kw_only=True):
    """From which value on another home is cheapest."""

    value: float
    before: str
    after: str


def crossings(
    points: Sequence[Point], preset: str, given: dict[str, str | float], name: str, region: Region, work: Work
) -> list[Crossing]:
    """Where between neighbouring values the cheapest home changes, to 1 %; none for an input of words."""
    found = []
    for low, high in itertools.pairwise(points):
        if INPUTS[name].words:
            break
        for _ in SHAPES:  # each can be cheapest in between
            if low.cheapest == high.cheapest:
                break
            above = _first_other(low, high, preset, given, name, region, work)
            found.append(Crossing(value=float(above.value), before=low.cheapest, after=above.cheapest))
            low = above
    return found


def _first_other(
    low: Point, high: Point, preset: str, given: dict[str, str | float], name: str, region: Region, work: Work
) -> Point:
    """Between two values, a point just beyond which the home that is cheapest at `low` is so no more."""
    whole = isinstance(low.value, int)
    below, above = low, high
    while abs(float(above.value) - float(below.value)) > max(0.01 * abs(float(above.value)), 1.0 if whole else 0.0):
        middle = (float(below.value) + float(above.value)) / 2
        tried = point(preset, given, name, int(middle) if whole else middle, region, work)
        below, above = (tried, above) if tried.cheapest == low.cheapest else (below, tried)
    return above


def sweep_document(name: str, points: Sequence[Point], found: Sequence[Crossing]) -> str:
    """The sweep as JSON."""
    rows = [
        {
            "value": each.value,
            "usd": {shape: round(usd, 2) for shape, usd in each.usd.items()},
            "cheapest": each.cheapest,
            "first": each.first,
            "headroom": round(each.headroom, 2) if math.isfinite(each.headroom) else None,
        }
        for each in points
    ]
    return json.dumps({"input": name, "points": rows, "crossings": msgspec.to_builtins(found)}, indent=2)
