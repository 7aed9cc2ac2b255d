"""What one reads of the model: tables on a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from hubbub.cost.bills import Bill
from hubbub.cost.capacity import Use
from hubbub.cost.estimate import Estimate
from hubbub.cost.scenario import SHAPES, flag
from hubbub.cost.sweep import Crossing, Point


def show(found: Estimate, console: Console, *, shape: str | None = None, part: str | None = None) -> None:
    """Print the estimate.

    Args:
        found: the estimate.
        console: where to.
        shape: only this home, its bill with quantities.
        part: only this of `scenario.PARTS`.

    """
    bills = [each for each in found.bills if shape in (None, each.shape)]
    if part in (None, "bill"):
        console.print(_headline(found))
        console.print(_comparison(found) if shape is None else _bill(bills[0]), Text())
    if part in (None, "quotas"):
        for each in bills:
            console.print(_quotas(each, found.uses[each.shape]), Text())
    if part in (None, "broadcasts") and shape in (None, "serverless"):
        console.print(_broadcasts(found), Text())
    if part is None:
        console.print(_notes(found))
    else:
        console.print(unverified(found.unverified))


def unverified(names: Iterable[str]) -> Text:
    """The line that names what was read nowhere."""
    return Text("not verified: " + ", ".join(names), style="dim")


def _table(title: str, *columns: tuple[str, bool]) -> Table:
    """A table whose columns are numbers where their second word says so."""
    table = Table(
        title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False, show_edge=False
    )
    for name, is_number in columns:
        table.add_column(name, justify="right" if is_number else "left", no_wrap=is_number)
    return table


def _headline(found: Estimate) -> Text:
    load, chat = found.bills[0].load, found.chat
    rooms = f"{chat.rooms:,} room{'' if chat.rooms == 1 else 's'}"
    return Text(
        f"{number(load.users)} users in {rooms} of {chat.members:,}; while people write "
        f"{number(load.connections)} connections, {number(load.entries.month)} entries a month to "
        f"{number(load.listeners)} listeners each.\n"
        f"{found.region}, list prices of {found.dates[0]} to {found.dates[1]}, free tier not counted.\n"
    )


def _comparison(found: Estimate) -> Group:
    table = _table("Dollars a month", ("", False), *((name, True) for name in SHAPES))
    lines: dict[str, dict[str, float]] = {}
    for each in found.bills:
        for item in each.items:
            lines.setdefault(item.what, {})[each.shape] = item.usd
    for what, by_shape in lines.items():
        if any(round(usd, 2) for usd in by_shape.values()):
            table.add_row(what, *(dollars(by_shape[shape]) if shape in by_shape else "" for shape in SHAPES))
    table.add_section()
    table.add_row("together", *(dollars(each.usd) for each in found.bills), style="bold")
    legend = "; ".join(
        f"{each.shape}: {SHAPES[each.shape]}" + (f" ({each.instances} instances)" if each.instances else "")
        for each in found.bills
    )
    return Group(table, Text(legend, style="dim"))


def _bill(each: Bill) -> Table:
    title = f"{SHAPES[each.shape]}: dollars a month"
    table = _table(title, ("", False), ("quantity", True), ("unit", False), ("$", True))
    for item in each.items:
        if item.quantity:
            table.add_row(item.what, number(item.quantity), item.unit, dollars(item.usd))
    table.add_section()
    table.add_row("together", "", "", dollars(each.usd), style="bold")
    return table


def _quotas(each: Bill, found: Sequence[Use]) -> Table:
    table = _table(
        f"Quotas, {each.shape}: the first to break first",
        ("", False),
        ("busiest second", True),
        ("limit", True),
        ("headroom", True),
        ("", False),
    )
    for use in found:
        broken = use.headroom < 1
        more = "raisable" if use.raisable else "fixed"
        if broken:
            more = "must be raised" if use.raisable else "does not fit"
        table.add_row(
            use.what + ("" if use.verified else " (not verified)"),
            number(use.used),
            number(use.limit),
            headroom(use.headroom),
            more,
            style="red" if broken else "yellow" if use.headroom < 2 else "",
        )
    return table


def _broadcasts(found: Estimate) -> Group:
    table = _table(
        "One entry to so many listeners, under the quota of requests",
        ("listeners", True),
        ("at best, s", True),
        ("paced, s", True),
        ("such entries a second", True),
        ("$ each", True),
    )
    for each in found.broadcasts:
        table.add_row(
            f"{each.listeners:,}",
            f"{each.floor_s:.2f}",
            f"{each.paced_s:.2f}",
            f"{each.per_s:.2f}",
            f"{each.usd:.4f}",
        )
    storm = found.storm
    words = (
        f"When everybody is cut off, all are back after {number(storm.seconds)} s on API Gateway. Meanwhile functions "
        f"run at {number(storm.concurrency)} places, and DynamoDB is read and written with "
        f"{number(storm.read_units)} and {number(storm.write_units)} units a second."
    )
    return Group(table, Text(words))


def _notes(found: Estimate) -> Text:
    lines = [f"not verified: {name}: {reason}" for name, reason in found.unverified.items()]
    return Text("\n".join(lines), style="dim")


def show_sweep(
    name: str, points: Sequence[Point], found: Sequence[Crossing], names: Iterable[str], console: Console
) -> None:
    """Print a sweep: a row for each value, where the cheapest home changes, and the names of what was read nowhere."""
    table = _table(
        "Dollars a month",
        (flag(name), True),
        *((shape, True) for shape in SHAPES),
        ("cheapest", False),
        ("serverless breaks first", False),
        ("headroom", True),
    )
    for each in points:
        value = each.value if isinstance(each.value, str) else number(each.value)
        table.add_row(
            value, *(dollars(each.usd[shape]) for shape in SHAPES), each.cheapest, each.first, headroom(each.headroom)
        )
    console.print(table, Text())
    for crossing in found:
        console.print(
            Text(f"From {flag(name)} {number(crossing.value)} on {crossing.after} is cheaper than {crossing.before}.")
        )
    console.print(unverified(names))


def dollars(usd: float) -> str:
    """An amount, to the cent below 1,000."""
    return f"{usd:,.2f}" if usd < 1_000 else f"{usd:,.0f}"


def number(value: float) -> str:
    """A quantity with three figures that count."""
    if value >= 1e9:
        return f"{value / 1e9:,.3g} G" if value < 1e12 else f"{value / 1e9:,.0f} G"
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    if value >= 1_000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def headroom(times: float) -> str:
    """How many times as much fits."""
    if math.isinf(times):
        return "unused"
    return f"{times:,.1f} x" if times < 100 else f"{times:,.0f} x"
