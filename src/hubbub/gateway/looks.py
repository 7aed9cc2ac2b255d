"""When the sweeper looks at which connection: in the second after its earliest deadline, or sooner to ping it.

Nearly all that is ever due is a ping of who is silent, and whether that was answered. Those who are pinged in the same
second stay together, and are looked at, and put to where they are due next, by the thousand: what is beyond that is
left to each connection's `Life`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from hubbub.gateway.connection import Rules

if TYPE_CHECKING:
    from hubbub.gateway.hub import Peer

CALM_PINGS = 50
"""So many connections may be pinged in the same second, and nobody minds; more are spread as far as may be."""

UNEVEN = 1.25
"""By how much more than in an even second may be pinged in one before anybody is moved to another for it."""


class Looks:
    """Whom to look at, by the second in which that is due.

    A place is that second, and negative where it is to ping them. A connection is in one place at most, its `look_at`.
    """

    def __init__(self) -> None:
        self._places: dict[int, set[Peer]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._places.values()))

    def forget(self, peer: Peer) -> None:
        """Look at the connection no more."""
        place = peer.look_at
        if place is None:
            return
        peers = self._places[place]
        peers.discard(peer)
        if not peers:
            del self._places[place]
        peer.look_at = None

    def put(self, peer: Peer, when: float, earliest: float, now: float) -> None:
        """Look at it in the second after `when`, or to ping it after `earliest`, if that is sooner and many are due."""
        self.forget(peer)
        place = int(when) + 1
        if earliest < when:
            place = -self._calmest(earliest, place, now)
        self._put_all([peer], place)

    def due(self, now: float) -> list[int]:
        """The places whose time has come, in their order."""
        return sorted((place for place in self._places if abs(place) <= now), key=abs)

    def take(self, place: int) -> Peer | None:
        """One of those who are due in a place, who is in none then; None when all are taken."""
        peers = self._places.get(place)
        if peers is None:
            return None
        peer = peers.pop()
        peer.look_at = None
        if not peers:
            del self._places[place]
        return peer

    def sift(self, place: int, now: float, rules: Rules) -> list[Peer]:
        """Those of a place who are to be pinged because they are silent; they are looked at again when a pong is due.

        Of the others, who has been heard is put to where he will have been silent for long enough. Left in the place is
        whoever may be due for anything else.
        """
        ping_after_s, early_s = rules.ping_after_s, rules.ping_early_s
        latest = now - ping_after_s + (early_s if place < 0 else 0.0)
        silent: list[Peer] = []
        heard: defaultdict[int, list[Peer]] = defaultdict(list)
        left = set()
        for peer in self._places.pop(place, ()):
            life = peer.life
            if life.phase or life.deaf or life.pinged_at is not None:
                left.add(peer)
            elif life.heard_at <= latest:
                life.pinged_at = now
                silent.append(peer)
            else:
                heard[int(life.heard_at + ping_after_s)].append(peer)
        if left:
            self._places[place] = left
        self._put_all(silent, int(now + min(rules.pong_within_s, ping_after_s)) + 1)
        for second, peers in heard.items():
            self._put_to_ping(peers, second, now, rules)
        return silent

    def _put_to_ping(self, peers: list[Peer], second: int, now: float, rules: Rules) -> None:
        """Put them to be pinged after this second, and sooner, one by one, those who would be too many then."""
        place = second + 1
        if rules.ping_early_s <= 0:
            self._put_all(peers, place)
            return
        even = len(self) / rules.ping_after_s
        room = max(0, max(CALM_PINGS, int(even * UNEVEN)) - len(self._places.get(-place, ())))
        self._put_all(peers[:room], -place)
        for peer in peers[room:]:
            self._put_all([peer], -self._calmest(second - rules.ping_early_s, place, now))

    def _put_all(self, peers: list[Peer], place: int) -> None:
        if not peers:
            return
        self._places.setdefault(place, set()).update(peers)
        for peer in peers:
            peer.look_at = place

    def _calmest(self, earliest: float, latest: int, now: float) -> int:
        """The second up to `latest` in which fewest are pinged, the last of these, not before `earliest`.

        So connections that came together, after a cut, are not pinged together for ever after.
        """
        calmest, fewest = latest, len(self._places.get(-latest, ()))
        if fewest < CALM_PINGS:
            return latest
        for second in range(latest - 1, int(max(earliest, now)), -1):
            count = len(self._places.get(-second, ()))
            if count < fewest:
                calmest, fewest = second, count
        return calmest
