"""What `hubbub cost` does with its flags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from hubbub.cost.catalogue import HERE, Region, Work, read_prices, read_work
from hubbub.cost.estimate import document, estimate
from hubbub.cost.scenario import INPUTS, PARTS, SHAPES, CostError, scenario, swept
from hubbub.cost.sweep import crossings, point, sweep_document

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 118
"""Of the tables where there is no terminal to ask: so they are the same in a pipe, a file and the documents."""


def run(given: Mapping[str, object], out: TextIO) -> None:
    """Print what the flags ask for; what was not given is None or False.

    Raises:
        CostError: a flag cannot be that, or a file cannot be read.

    """
    words = {name: str(value) for name, value in given.items() if value is not None}
    as_json = given.get("json") is True
    shape, part, preset = words.get("shape"), words.get("part"), words.get("preset", "team")
    for flag, value, possible in (("shape", shape, tuple(SHAPES)), ("part", part, PARTS)):
        if value is not None and value not in possible:
            raise CostError(f"{flag}: expected one of {', '.join(possible)}, got {value!r}")
    name, region = _region(words.get("region", "us-east-1"), Path(words.get("prices", HERE / "prices.toml")))
    work = read_work(Path(words.get("work", HERE / "work.toml")))
    chosen: dict[str, str | float] = {each: words[each] for each in INPUTS if each in words}
    if "sweep" in words:
        if shape is not None or part is not None:
            raise CostError("sweep: expected no --shape or --part beside it, since it compares all homes")
        _sweep(words["sweep"], preset, chosen, region, work, out, as_json=as_json)
        return
    found = estimate(scenario(preset, chosen), name, region, work)
    if as_json:
        out.write(document(found) + "\n")
    else:
        from hubbub.cost.report import show

        show(found, _console(out), shape=shape, part=part)


def _region(name: str, path: Path) -> tuple[str, Region]:
    regions = read_prices(path)
    if name not in regions:
        raise CostError(f"region: expected one of {', '.join(regions)}, of which {path.name} has prices, got {name!r}")
    return name, regions[name]


def _sweep(
    text: str,
    preset: str,
    chosen: dict[str, str | float],
    region: Region,
    work: Work,
    out: TextIO,
    *,
    as_json: bool,
) -> None:
    name, values = swept(text)
    scenario(preset, chosen)  # so that what is wrong with it is said before anything else
    points = [point(preset, chosen, name, value, region, work) for value in values]
    found = crossings(points, preset, chosen, name, region, work)
    if as_json:
        out.write(sweep_document(name, points, found) + "\n")
        return
    from hubbub.cost.report import show_sweep

    unverified = [key for key, each in region.inputs().items() if not each.verified]
    show_sweep(name, points, found, unverified, _console(out))


def _console(out: TextIO) -> Console:
    from rich.console import Console

    width = None if out.isatty() else WIDTH
    return Console(file=out, highlight=False, width=width, soft_wrap=False)
