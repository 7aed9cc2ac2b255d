"""What a run of the peers found, and how it is kept meanwhile, so that one that was interrupted can be resumed."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from bench.peers import install
from bench.peers.measure import Delivery, Idle, Losses, Sizes

UNFINISHED = install.BUILD / "unfinished.json"
"""Where a run is kept until all its turns are over."""


class Measured(msgspec.Struct):
    """What was found of one peer, a list for the rounds.

    Attributes:
        name, title, keeps: of the peer.
        versions: of what was measured, by name.
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
    """A peer that was not measured.

    Attributes:
        name, title: of the peer.
        why: what went wrong.
        is_missing: whether it cannot be had on this machine, and did not just fail.

    """

    name: str
    title: str
    why: str
    is_missing: bool = False


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


class Run(msgspec.Struct):
    """A run, as far as it has come.

    Attributes:
        command: what was typed to begin it.
        asked: the peers that were asked for, in the order of their turns.
        are_named: whether by name; else it is all that there are.
        measures: of what.
        is_saved: whether its figures are for the documents.
        figures: what was found so far.
        over: how many turns are over; a turn is one peer in one round.
        took_s: how long the last turn of each peer took, by name.

    """

    command: str
    asked: list[str]
    are_named: bool
    measures: list[str]
    is_saved: bool
    figures: Figures
    over: int = 0
    took_s: dict[str, float] = {}

    def turns(self) -> list[tuple[int, str]]:
        """All turns in their order: the round, from 1, and the peer; also of peers that failed meanwhile."""
        return [(number + 1, name) for number in range(self.figures.rounds) for name in self.asked]

    def measured(self, name: str) -> Measured | None:
        """What was found of a peer; None for one that is left."""
        return next((peer for peer in self.figures.peers if peer.name == name), None)

    def leave(self, left: Left) -> None:
        """Measure a peer no more; what was found of it is of no use without the other rounds."""
        self.figures.peers = [peer for peer in self.figures.peers if peer.name != left.name]
        self.figures.left.append(left)

    def remaining_s(self) -> float:
        """How much longer it takes, by what turns took; 0 while none is over."""
        usual = sum(self.took_s.values()) / max(1, len(self.took_s))
        names = {peer.name for peer in self.figures.peers}
        return sum(self.took_s.get(name, usual) for _, name in self.turns()[self.over :] if name in names)

    def failed(self) -> list[Left]:
        """The peers that the exit status tells of: not those that this machine cannot have, unless they were named."""
        return [each for each in self.figures.left if self.are_named or not each.is_missing]

    def keep(self, path: Path) -> None:
        """Write it down, in one go."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(msgspec.json.encode(self))
        unfinished.replace(path)


def kept(path: Path) -> Run | None:
    """The run that was interrupted; None when there is none.

    Raises:
        ValueError: what is there is not of this version.

    """
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Run)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path} is not a run of this version, begin anew: {error}") from error
