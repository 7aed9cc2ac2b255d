"""Measure Hubbub beside its peers, in turns: `python -m bench.peers`, or `make bench-peers`.

In each round every peer is measured once, the bare broadcaster first, so that what the machine does meanwhile hits all
of them; what is saved is the median of the rounds, and ratios are those within a round.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import uvloop

from bench import saving
from bench.peers.catalogue import PEERS, Peer
from bench.peers.install import Unavailable
from bench.peers.measure import (
    LOST_MESSAGES,
    QUICK,
    Delivery,
    Idle,
    Losses,
    Sizes,
    deliveries,
    idle,
    let_connect,
    losses,
)

MEASURES = ("delivery", "idle", "losses")

SMOKE_LISTENERS = 10
SMOKE_MESSAGES = 20


class Measured(msgspec.Struct):
    """What was found of one peer, a list for the rounds.

    Attributes:
        name, title, keeps, versions: of the peer.
        deliveries, idle, losses: what was measured of it.

    """

    name: str
    title: str
    keeps: str
    versions: dict[str, str]
    deliveries: list[list[Delivery]] = []
    idle: list[Idle] = []
    losses: list[list[Losses]] = []


class Left(msgspec.Struct):
    """A peer that was not measured, and why."""

    name: str
    title: str
    why: str


class Figures(msgspec.Struct):
    """What a run found.

    Attributes:
        rounds: how many there were.
        sizes: how much was measured in each.
        peers: those that ran in all of them.
        left: the others.

    """

    rounds: int
    sizes: Sizes
    peers: list[Measured]
    left: list[Left]


def main(arguments: Sequence[str]) -> int:
    """Do what is asked for; returns the exit status: 1 when a peer that was asked for did not run."""
    chosen = options(arguments)
    asked = [PEERS[name] for name in chosen.only]
    if chosen.list:
        for peer in asked:
            said = ", ".join(f"{name} {version}" for name, version in peer.versions().items())
            print(f"{peer.name:<24}{peer.title:<52}{said}")
        return 0
    let_connect(max(chosen.sizes.idle, *chosen.sizes.listeners, *chosen.sizes.speakers, 0))
    if chosen.smoke:
        return 1 if uvloop.run(_smoke(asked)) else 0
    figures = uvloop.run(_measure(asked, chosen.rounds, chosen.sizes, chosen.measures))
    print(summary(figures))
    if chosen.save:
        saving.save("peers", figures)
    return 1 if figures.left else 0


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """What the command line asks for; `sizes` has what `--quick` and its kin come to."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--only", type=_some_of(PEERS), default=list(PEERS), metavar="A,B", help="these peers")
    parser.add_argument(
        "--measures", type=_some_of(MEASURES), default=MEASURES, metavar="A,B", help="of " + ", ".join(MEASURES)
    )
    parser.add_argument("--rounds", type=_positive, default=3)
    parser.add_argument("--listeners", type=_sizes, metavar="N,M", help="rooms of how many")
    parser.add_argument("--seconds", type=_seconds, help="for how long messages are sent, each time")
    parser.add_argument("--idle", type=_positive, help="how many connections are held for their memory")
    parser.add_argument("--speakers", type=_sizes, metavar="N,M", help="rooms of how many in which all speak")
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it works")
    parser.add_argument("--smoke", action="store_true", help="only start each, and see that it delivers")
    parser.add_argument("--list", action="store_true", help="only say which there are")
    saving.add_argument(parser)
    chosen = parser.parse_args(arguments)
    sizes = QUICK if chosen.quick else Sizes()
    given = {name: getattr(chosen, name) for name in ("listeners", "seconds", "idle", "speakers")}
    chosen.sizes = msgspec.structs.replace(sizes, **{name: value for name, value in given.items() if value is not None})
    return chosen


async def _smoke(peers: Sequence[Peer]) -> list[Left]:
    """Start each peer, and let ten members hear twenty messages; returns those that did not."""
    left = []
    for peer in peers:
        began = time.monotonic()
        try:
            found = await losses(peer, SMOKE_LISTENERS, SMOKE_MESSAGES)
            if found.lost or found.doubled:
                raise RuntimeError(f"of {found.expected} deliveries {found.lost} were lost, {found.doubled} doubled")
        except Exception as error:  # whatever a peer does is said, and the next one tried
            left.append(Left(peer.name, peer.title, _why(error)))
            print(f"{peer.name:<24}no: {_why(error)}", flush=True)
        else:
            took = time.monotonic() - began
            print(f"{peer.name:<24}all {found.expected} deliveries ({took:.1f} s with its start)", flush=True)
    return left


async def _measure(peers: Sequence[Peer], rounds: int, sizes: Sizes, measures: Sequence[str]) -> Figures:
    found = {peer.name: Measured(peer.name, peer.title, peer.keeps, peer.versions()) for peer in peers}
    left: dict[str, Left] = {}
    for number in range(rounds):
        for peer in peers:
            if peer.name in left:
                continue
            print(f"round {number + 1} of {rounds}: {peer.name}", flush=True)
            try:
                await _measure_once(peer, found[peer.name], sizes, measures)
                print(f"  so far: {so_far(found[peer.name])}", flush=True)
            except Exception as error:  # one peer's trouble is said, and is not that of the others
                left[peer.name] = Left(peer.name, peer.title, _why(error))
                print(f"  {_why(error)}", flush=True)
    measured = [each for each in found.values() if each.name not in left]
    return Figures(rounds, sizes, measured, list(left.values()))


async def _measure_once(peer: Peer, into: Measured, sizes: Sizes, measures: Sequence[str]) -> None:
    if "delivery" in measures:
        into.deliveries.append([])
        for listeners in sizes.listeners:
            if listeners <= peer.most:
                into.deliveries[-1] += await deliveries(peer, listeners, sizes.in_flight, sizes.seconds)
    if "idle" in measures:
        into.idle.append(await idle(peer, min(sizes.idle, peer.most)))
    if "losses" in measures and peer.most_said >= LOST_MESSAGES:
        into.losses.append([await losses(peer, members) for members in sizes.speakers if members <= peer.most])


def summary(figures: Figures) -> str:
    """The medians of all peers, a line each for whoever watches."""
    lines = [f"{peer.name:<24}{so_far(peer)}" for peer in figures.peers]
    lines += [f"{each.name:<24}not measured: {each.why}" for each in figures.left]
    return "\n".join(lines)


def so_far(peer: Measured) -> str:
    """The medians of a peer's rounds until now."""
    parts = []
    for place, first in enumerate(peer.deliveries[0] if peer.deliveries else ()):
        cost = statistics.median(each[place].cpu_us for each in peer.deliveries)
        parts.append(f"{first.listeners}x{first.in_flight}: {cost:.2f} us")
    if peer.idle:
        parts.append(f"{statistics.median(each.kb for each in peer.idle):.1f} KB")
        parts.append(f"{statistics.median(each.connect_cpu_us for each in peer.idle):.0f} us a connect")
    for place, first in enumerate(peer.losses[0] if peer.losses else ()):
        lost = statistics.median(each[place].lost / each[place].expected for each in peer.losses)
        parts.append(f"{first.members} speak: {lost:.1%} lost")
    return "; ".join(parts)


def _why(error: BaseException) -> str:
    """What went wrong, of a group of errors the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, Unavailable | RuntimeError) else f"{type(error).__name__}: {error}"


def _some_of(names: Sequence[str] | dict[str, Any]) -> Callable[[str], list[str]]:
    def some(text: str) -> list[str]:
        found = [each.strip() for each in text.split(",")]
        for each in found:
            if each not in names:
                raise argparse.ArgumentTypeError(f"expected some of {', '.join(names)}; got {each!r}")
        return found

    return some


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0.0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text!r}")
    return found


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(_positive(each.strip()) for each in text.split(","))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
