"""Measure Hubbub beside its peers, in turns: `python -m bench.peers`, or `make bench-peers`.

In each round every peer is measured once, the bare broadcaster first, so that what the machine does meanwhile hits all
of them; what is shown is the median of the rounds, and ratios are those within a round. All peers are installed before
the first round. A run that is interrupted, by whatever it may be, goes on with `--resume` after the last peer that was
measured.
"""

from __future__ import annotations

import argparse
import math
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import uvloop

from bench import saving
from bench.peers import install, recording
from bench.peers.catalogue import PEERS, Peer, Place
from bench.peers.figures import UNFINISHED, Figures, Left, Measured, Run, kept
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


class Turn(NamedTuple):
    """What was measured of one peer in one round; `losses` is None where they were not looked for."""

    deliveries: list[Delivery] | None
    idle: Idle | None
    losses: list[Losses] | None


def main(arguments: Sequence[str], unfinished: Path = UNFINISHED) -> int:
    """Do what is asked for; returns the exit status: 1 when a peer failed, or one that was named cannot be had.

    Args:
        arguments: of the command line.
        unfinished: where a run is kept that is not over.

    """
    chosen = options(arguments)
    asked = [PEERS[name] for name in chosen.only]
    if chosen.list:
        for peer in asked:
            said = ", ".join(f"{name} {version}" for name, version in peer.versions().items())
            print(f"{peer.name:<24}{peer.title:<52}{said}")
        return 0
    try:
        run = _resumed(unfinished) if chosen.resume else _begun(chosen, unfinished)
        sizes = run.figures.sizes
        let_connect(max(sizes.idle, *sizes.listeners, *sizes.speakers, 0))
    except (OSError, ValueError) as error:
        print(f"bench.peers: {error}", file=sys.stderr)
        return 2
    try:
        if chosen.smoke:
            return 1 if uvloop.run(_smoke(asked)) else 0
        if chosen.record:
            return 1 if uvloop.run(_record(asked)) else 0
        uvloop.run(_measure(run, unfinished))
    except KeyboardInterrupt:
        if run.over:
            print(f"\ninterrupted after {run.over} of {len(run.turns())} turns; --resume goes on", file=sys.stderr)
        return 130
    print(summary(run.figures))
    if run.is_saved:
        saving.save("peers", run.figures, ran=run.command)
    unfinished.unlink(missing_ok=True)
    return 1 if run.failed() else 0


def _begun(chosen: argparse.Namespace, unfinished: Path) -> Run:
    """A run that begins."""
    figures = Figures(chosen.rounds, chosen.sizes, [], [])
    run = Run(saving.command(), chosen.only, chosen.only != list(PEERS), list(chosen.measures), chosen.save, figures)
    if unfinished.exists() and not (chosen.smoke or chosen.record):
        print("a run that was interrupted is forgotten with the first turn of this one: --resume would go on with it")
    return run


def _resumed(unfinished: Path) -> Run:
    """The run that was interrupted.

    Raises:
        ValueError: there is none, or none of this version.

    """
    run = kept(unfinished)
    if run is None or not set(run.asked) <= PEERS.keys():
        raise ValueError("expected a run that was interrupted, and there is none to resume")
    return run


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """What the command line asks for; `sizes` has what `--quick` and its kin come to."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--only", type=_some_of(PEERS), default=list(PEERS), metavar="A,B", help="these peers")
    parser.add_argument(
        "--measures", type=_some_of(MEASURES), default=MEASURES, metavar="A,B", help="of " + ", ".join(MEASURES)
    )
    parser.add_argument("--rounds", type=_positive, default=3, help="how many; losses are looked for in the first")
    parser.add_argument("--listeners", type=_sizes, metavar="N,M", help="rooms of how many")
    parser.add_argument("--seconds", type=_seconds, help="for how long messages are sent, each time")
    parser.add_argument("--idle", type=_positive, help="how many connections are held for their memory")
    parser.add_argument("--speakers", type=_sizes, metavar="N,M", help="rooms of how many in which all speak")
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it works")
    parser.add_argument("--smoke", action="store_true", help="only start each, and see that it delivers")
    parser.add_argument("--record", action="store_true", help="only record what each sends, for the dialects' tests")
    parser.add_argument("--list", action="store_true", help="only say which there are")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run that was interrupted, by the options that it had"
    )
    saving.add_argument(parser)
    chosen = parser.parse_args(arguments)
    if chosen.resume and len(arguments) > 1:
        parser.error("--resume goes on with the options of the run that was interrupted; expected no others")
    sizes = QUICK if chosen.quick else Sizes()
    given = {name: getattr(chosen, name) for name in ("listeners", "seconds", "idle", "speakers")}
    chosen.rounds = 1 if set(chosen.measures) == {"losses"} else chosen.rounds
    chosen.sizes = msgspec.structs.replace(sizes, **{name: value for name, value in given.items() if value is not None})
    return chosen


async def _smoke(peers: Sequence[Peer]) -> list[Left]:
    """Start each peer, and let ten members hear twenty messages; returns those that did not."""

    async def one(peer: Peer) -> str:
        found = await losses(peer, SMOKE_LISTENERS, SMOKE_MESSAGES)
        if found.lost or found.doubled:
            raise RuntimeError(f"of {found.expected} deliveries {found.lost} were lost, {found.doubled} doubled")
        return f"all {found.expected} deliveries"

    return await _each(peers, one)


async def _record(peers: Sequence[Peer]) -> list[Left]:
    """Record what each peer sends; returns those of which nothing is recorded."""

    async def one(peer: Peer) -> str:
        found = await recording.record(peer)
        recording.keep(peer.name, found)
        return f"{sum(map(len, found.chunks)):,} bytes recorded"

    return await _each(peers, one)


async def _each(peers: Sequence[Peer], do: Callable[[Peer], Awaitable[str]]) -> list[Left]:
    """Do something with each peer, and say what came of it; returns those with which it failed."""
    left = []
    for peer in peers:
        began = time.monotonic()
        try:
            said = await do(peer)
        except Exception as error:  # whatever a peer does is said, and the next one tried
            left.append(Left(peer.name, peer.title, _why(error)))
            print(f"{peer.name:<24}no: {_why(error)}", flush=True)
        else:
            print(f"{peer.name:<24}{said} ({time.monotonic() - began:.1f} s with its start)", flush=True)
    return left


async def _measure(run: Run, unfinished: Path) -> None:
    """Measure what is left of a run, which is kept after each turn."""
    for peer in _installed(run):
        if run.measured(peer.name) is None:
            run.figures.peers.append(Measured(peer.name, peer.title, peer.keeps, peer.found()))
    turns = run.turns()
    for number, name in turns[run.over :]:
        peer, found = PEERS[name], run.measured(name)
        if found is not None:
            print(f"round {number} of {run.figures.rounds}: {name}", flush=True)
            began = time.monotonic()
            try:
                turn = await _tried_twice(peer, run.figures.sizes, _measures(run, number))
            except Exception as error:  # one peer's trouble is said, and is not that of the others
                run.leave(Left(name, peer.title, f"in round {number}: {_why(error)}"))
                print(f"  {_why(error)}", *getattr(error, "__notes__", ()), sep="\n", flush=True)
            else:
                _add(turn, found)
                print(f"  so far: {so_far(found)}", flush=True)
            run.took_s[name] = time.monotonic() - began
        run.over += 1
        run.keep(unfinished)
        if found is not None:
            told = f"{run.over} of {len(turns)} turns are over, this one took {run.took_s[name]:.0f} s"
            print(f"  {told}; {_minutes(run.remaining_s())} to go", flush=True)


def _measures(run: Run, number: int) -> list[str]:
    """What is measured in a round: losses in the first, for they are no times, of which some are better than others."""
    return [name for name in run.measures if name != "losses" or number == 1]


def _installed(run: Run) -> list[Peer]:
    """The peers of a run that can be had; the others are left, with the reason."""
    peers = []
    for name in run.asked:
        peer = PEERS[name]
        if any(left.name == name for left in run.figures.left):
            continue
        try:
            with tempfile.TemporaryDirectory(prefix="hubbub-peers-") as scratch:
                if peer.needs_redis:
                    install.redis()
                peer.start(Place(1, Path(scratch), 1))
        except Unavailable as error:
            print(f"{name:<24}not here: {error}", flush=True)
            run.leave(Left(name, peer.title, str(error), is_missing=True))
        else:
            peers.append(peer)
    return peers


async def _tried_twice(peer: Peer, sizes: Sizes, measures: Sequence[str]) -> Turn:
    """A peer's turn; one that fails is tried once more, for a moment's trouble would cost all that was found of it."""
    try:
        return await _measure_once(peer, sizes, measures)
    except Exception as error:
        print(f"  {_why(error)}; once more", flush=True)
        return await _measure_once(peer, sizes, measures)


async def _measure_once(peer: Peer, sizes: Sizes, measures: Sequence[str]) -> Turn:
    delivered = resting = lost = None
    if "delivery" in measures:
        delivered = []
        for listeners in sizes.listeners:
            if listeners <= peer.most:
                _say(f"{listeners:,} listen")
                delivered += await deliveries(peer, listeners, sizes.in_flight, sizes.seconds)
    if "idle" in measures:
        _say("connections")
        resting = await idle(peer, min(sizes.idle, peer.most))
    if "losses" in measures and peer.most_said >= LOST_MESSAGES:
        lost = []
        for members in sizes.speakers:
            if members <= peer.most:
                _say(f"{members:,} speak")
                lost.append(await losses(peer, members))
    return Turn(delivered, resting, lost)


def _say(what: str) -> None:
    print(f"    {what}", flush=True)


def _add(turn: Turn, found: Measured) -> None:
    if turn.deliveries is not None:
        found.deliveries.append(turn.deliveries)
    if turn.idle is not None:
        found.idle.append(turn.idle)
    if turn.losses is not None:
        found.losses.append(turn.losses)


def _minutes(seconds: float) -> str:
    return f"about {math.ceil(seconds / 60)} min"


def summary(figures: Figures) -> str:
    """The medians of all peers, a line each for whoever watches."""
    lines = [f"{peer.name:<24}{so_far(peer)}" for peer in figures.peers]
    lines += [f"{each.name:<24}not measured: {each.why}" for each in figures.left]
    return "\n".join(lines)


def so_far(peer: Measured) -> str:
    """The medians of a peer's rounds until now."""
    parts = []
    for place, first in enumerate(peer.deliveries[0] if peer.deliveries else ()):
        cost = statistics.median(each[place].all_us for each in peer.deliveries)
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
    if isinstance(error, Unavailable | RuntimeError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _some_of(names: Sequence[str] | dict[str, Any]) -> Callable[[str], list[str]]:
    def some(text: str) -> list[str]:
        found = [each.strip() for each in text.split(",")]
        for each in found:
            if each not in names:
                raise argparse.ArgumentTypeError(f"expected some of {', '.join(names)}; got {each!r}")
        return list(dict.fromkeys(found))

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
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # who terminates it interrupts it
    sys.exit(main(sys.argv[1:]))
