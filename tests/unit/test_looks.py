"""The sweeper over many seconds: pings and ends come when a connection's rules say, however many are due at once."""

from __future__ import annotations

import random

import pytest

from doubles import FakeSocket
from hubbub.gateway import looks as looks_module
from hubbub.gateway.connection import PONG, Life, Rules
from hubbub.gateway.hub import Hub, Peer

AFTER_S, EARLY_S, WITHIN_S = 25.0, 5.0, 20.0

SLACK_S = 2.1
"""A place is in the second after a deadline, and the next sweep may come 1.1 s after that."""


class Watched:
    """A connection and what it was last sent."""

    def __init__(self, hub: Hub, number: int, now: float) -> None:
        self.socket = FakeSocket()
        self.peer = Peer(f"c{number}", Life(now), self.socket, self.socket.write)
        hub.add(self.peer)
        self.heard_at = now
        self.pinged_at: float | None = None
        self.deaf_since: float | None = None
        self.answers_at: float | None = None

    def hears(self, hub: Hub, now: float) -> None:
        """It says something."""
        self.peer.life.received(PONG, True, 0, b"", now, hub.rules)
        self.heard_at, self.pinged_at, self.answers_at = now, None, None


@pytest.mark.parametrize("rules", [{}, {"lifetime_s": 1e9}], ids=["only pings", "a limit besides"])
@pytest.mark.parametrize("early_s", [EARLY_S, 0.0], ids=["early", "in time"])
@pytest.mark.parametrize("seed", range(4))
async def test_each_is_pinged_when_it_was_silent_and_ends_when_it_stays_so(seed, early_s, rules, monkeypatch):
    """Some talk, some answer late, some never do, some are not read for a while, some go."""
    monkeypatch.setattr(looks_module, "CALM_PINGS", 3)
    rng = random.Random(seed)
    now = 1_000.0
    hub = Hub(
        Rules(ping_after_s=AFTER_S, ping_early_s=early_s, pong_within_s=WITHIN_S, **rules),
        clock=lambda: now,
    )
    here = [Watched(hub, number, now) for number in range(60)]
    pings = ends = 0
    for number in range(60, 400):
        for one in here:
            talks = rng.random() < 0.02 and one.pinged_at is None and one.deaf_since is None
            if talks or (one.answers_at is not None and now >= one.answers_at):
                one.hears(hub, now)
            elif rng.random() < 0.01 and one.deaf_since is None:
                one.peer.life.deaf, one.deaf_since = True, now
            elif one.deaf_since is not None and rng.random() < 0.1:
                one.peer.life.hears_again(now)
                one.deaf_since, one.heard_at, one.pinged_at, one.answers_at = None, now, None, None
        now += 0.9 + rng.random() / 5
        hub.sweep()
        for one in list(here):
            writes, one.socket.writes = one.socket.writes, []
            if writes:
                pings += 1
                assert one.pinged_at is None and one.deaf_since is None
                assert one.heard_at + AFTER_S - early_s <= now < one.heard_at + AFTER_S + SLACK_S
                one.pinged_at = now
                one.answers_at = now + rng.choice((0, 0, 0, 3, 15, 1e9))
            elif one.pinged_at is None and one.deaf_since is None:
                assert now < one.heard_at + AFTER_S + SLACK_S
            if one.socket.dropped:
                ends += 1
                assert one.pinged_at is not None and one.deaf_since is None
                assert one.pinged_at + WITHIN_S <= now < one.pinged_at + WITHIN_S + SLACK_S
            elif one.pinged_at is not None and one.deaf_since is None:
                assert now < one.pinged_at + WITHIN_S + SLACK_S
            if one.socket.dropped or rng.random() < 0.002:
                hub.remove(one.peer)
                here.remove(one)
        assert len(hub._looks) == len(hub) == len(here)
        if rng.random() < 0.4:
            here.append(Watched(hub, number, now))
    assert pings > 300
    assert ends > 20


async def test_those_who_stay_silent_together_are_looked_at_together():
    """Neither a ping nor a pong that came asks any life for what time brings."""
    asked: list[Life] = []

    class Asked(Life):
        def passed(self, *given, **named):
            asked.append(self)
            return super().passed(*given, **named)

        def next_look(self, *given, **named):
            asked.append(self)
            return super().next_look(*given, **named)

    now = 0.0
    hub = Hub(Rules(ping_early_s=EARLY_S), clock=lambda: now)
    sockets = [FakeSocket() for _ in range(1_000)]
    peers = [Peer(f"c{number}", Asked(0.0), socket, socket.write) for number, socket in enumerate(sockets)]
    for peer in peers:
        hub.add(peer)
    asked.clear()
    for _ in range(300):
        now += 1.0
        hub.sweep()
        for peer, socket in zip(peers, sockets, strict=True):
            if socket.writes:
                socket.writes.clear()
                peer.life.hears(now)
    assert asked == []
