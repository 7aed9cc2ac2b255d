"""The flags of `hubbub cost`: one for each input of the chat, and what to say of it.

By itself, since the command line reads it whatever it is called for.
"""

from __future__ import annotations

from hubbub.cost.scenario import INPUTS, PARTS, PRESETS, SHAPES, Scenario
from hubbub.flags import Flag


def _of_input(name: str) -> Flag:
    bounds, default = INPUTS[name], getattr(Scenario(), name)
    shown = f"{default:g}" if isinstance(default, int | float) else default
    return Flag(name, f"{bounds.help} [dim]\\[team: {shown}][/dim]", "|".join(bounds.words) or "NUMBER", "The chat")


FLAGS = (
    Flag("preset", f"Chat to begin with: {', '.join(PRESETS)}.", "NAME", "What to say"),
    Flag("shape", f"Only this home, with quantities: {', '.join(SHAPES)}.", "NAME", "What to say"),
    Flag(
        "sweep", "Several values of one input beside each other, such as members=10,100,1000.", "NAME=…", "What to say"
    ),
    Flag("part", f"Only this part: {', '.join(PARTS)}.", "NAME", "What to say"),
    Flag("json", "One JSON document instead of tables.", None, "What to say"),
    Flag("region", "Whose prices and quotas. By default us-east-1.", "REGION", "What to reckon with"),
    Flag("prices", "Your own file of prices and quotas, in the form of prices.toml.", "FILE", "What to reckon with"),
    Flag("work", "Your own file of what Hubbub does for each action.", "FILE", "What to reckon with"),
    *map(_of_input, INPUTS),
)
