"""How often a client waits for a function to start: `python -m bench.routes`.

Clients ask as they do in a chat, at random times; a function's environments answer one question at a time each and are
kept for a while. One function for all routes is set beside one for each. Nothing runs here: it is reckoned, with what
`bench.coldstart` says of a start. How long Lambda keeps an environment is not promised; ten minutes are taken here.
"""

from __future__ import annotations

import argparse
import random
from typing import NamedTuple

from bench import saving

KEPT_S = 600.0
ANSWER_S = 0.03
START_S = 0.4

_SHARES = (
    "send 30, read 24, typing 18, sync 7, history 5, $connect 4, $disconnect 4, react 2, presence 2, ping 1,"
    " members 0.8, rooms 0.6, auth 0.5, edit 0.3, delete 0.2, unreact 0.1, subscribe 0.1, unsubscribe 0.1, create 0.1,"
    " join 0.08, leave 0.05, invite 0.04, kick 0.01, role 0.01, $default 0.01"
)
SHARES = {route: float(share) for route, share in (pair.split() for pair in _SHARES.split(","))}
"""Of what clients ask, in a hundred; a chat in which people mostly talk."""

LOADS = ((0.01, 200.0), (0.1, 50.0), (1.0, 12.0), (10.0, 4.0), (100.0, 0.5))
"""Questions a second, and how many hours of it."""


class Starts(NamedTuple):
    """How many of so many questions met no environment that was free."""

    cold: int
    asked: int


def starts(per_s: float, hours: float, *, split: bool, seed: int = 1) -> Starts:
    """Ask for some hours; `split` is one function for each route."""
    chance = random.Random(seed)
    routes, shares = list(SHARES), list(SHARES.values())
    free_at: dict[str, list[float]] = {}  # when each environment of a function has answered
    now, cold, asked = 0.0, 0, 0
    while now < hours * 3_600:
        now += chance.expovariate(per_s)
        route = chance.choices(routes, shares)[0]
        kept = [at for at in free_at.get(route if split else "all", []) if at > now - KEPT_S]
        ready = [at for at in kept if at <= now]
        if ready:
            kept.remove(max(ready))
        else:
            cold += 1
        kept.append(now + ANSWER_S + (0.0 if ready else START_S))
        free_at[route if split else "all"] = kept
        asked += 1
    return Starts(cold, asked)


def main() -> list[dict[str, float]]:
    """Print a table: questions a second, and the share of them that waits for a start; return its rows."""
    said: list[dict[str, float]] = []
    print(f"{'asked a second':>14} {'one function':>16} {'one for each':>16}")
    for per_s, hours in LOADS:
        one, each = (starts(per_s, hours, split=split) for split in (False, True))
        print(f"{per_s:>14g} {one.cold / one.asked:>16.3%} {each.cold / each.asked:>16.3%}")
        shares = {"one_function": one.cold / one.asked, "one_for_each": each.cold / each.asked}
        said.append({"asked_per_s": per_s, **shares})
    return said


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    saving.add_argument(parser)
    chosen = parser.parse_args()
    rows = main()
    if chosen.save:
        saving.save("routes", {"rows": rows})
