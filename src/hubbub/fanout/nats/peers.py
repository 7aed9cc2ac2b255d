"""The other nodes: who lives, by leases that heartbeats renew, and their orders, each carried out once and in order.

Orders are numbered at each node. Who misses one asks for it again, and holds those that came after it meanwhile. Pure:
time and messages come in, what is to be done goes out by calls.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from hubbub.fanout.nats import wire

MAX_KEPT = 2_000
"""Orders that a node keeps for those who missed them."""

MAX_HELD = 2_000
"""Orders of one node that are held because of an earlier one."""

MAX_GONE = 256
"""Nodes remembered that are not there any more, those that died (one that comes back goes on where it was) and those
that said goodbye (what still comes of them says nothing)."""

PATIENCE_S = 8.0
"""How long an order is waited for that was missed."""

ASKED_EVERY_S = 1.0
"""How often it is asked for at most."""


class Orders:
    """Our own, as long as somebody may ask for them again."""

    def __init__(self) -> None:
        self.last = 0
        self._kept: deque[wire.Order] = deque(maxlen=MAX_KEPT)

    def number(self, what: wire.AnyOrder) -> wire.Order:
        """The next one."""
        self.last += 1
        order = wire.Order(self.last, what)
        self._kept.append(order)
        return order

    def again(self, first: int, last: int) -> list[wire.AnyThing]:
        """Those from `first` to `last`, as far as they are kept."""
        things: list[wire.AnyThing] = []
        if not self._kept or first < self._kept[0].number:
            things.append(wire.Forgotten((self._kept[0].number - 1) if self._kept else self.last))
        things += [order for order in self._kept if first <= order.number <= last]
        return things


class Peer:
    """Another node."""

    __slots__ = ("asked", "asked_at", "done", "held", "missed_since", "until")

    def __init__(self, until: float) -> None:
        self.until = until  # when its lease ends (monotonic)
        self.done: int | None = None  # the number of the last order carried out; None until it told where it stands
        self.held: dict[int, wire.AnyOrder] = {}  # orders after one that is missing
        self.missed_since: float | None = None  # since when one is missing (monotonic); None while none is
        self.asked = 0  # up to which order it was asked for again
        self.asked_at = 0.0  # when (monotonic)


class Peers:
    """All of them.

    Args:
        lease_s: after which silence a node is taken for dead.
        carry_out: carries out an order.
        ask: asks a node for orders again, from one number to another.
        began, ended: told of nodes that are there and that are there no more; `ended` also whether it said so itself.

    """

    def __init__(
        self,
        *,
        lease_s: float,
        carry_out: Callable[[wire.AnyOrder], None],
        ask: Callable[[str, int, int], None],
        began: Callable[[str], None],
        ended: Callable[[str, bool], None],
    ) -> None:
        self._lease_s = lease_s
        self._carry_out = carry_out
        self._ask = ask
        self._began = began
        self._ended = ended
        self._alive: dict[str, Peer] = {}
        self._gone: OrderedDict[str, Peer] = OrderedDict()
        self._left: OrderedDict[str, None] = OrderedDict()
        self.missed = 0  # orders given up

    def __len__(self) -> int:
        return len(self._alive)

    @property
    def alive(self) -> set[str]:
        """The nodes that are there."""
        return set(self._alive)

    def has_left(self, node: str) -> bool:
        """Whether the node has said that it ends."""
        return node in self._left

    def heard(self, node: str, now: float) -> Peer:
        """Something came from the node: it lives."""
        peer = self._alive.get(node)
        if peer is None:
            peer = self._gone.pop(node, None) or Peer(now)
            peer.until = now + self._lease_s
            self._alive[node] = peer
            self._began(node)
        peer.until = now + self._lease_s
        return peer

    def stands_at(self, node: str, order: int, now: float, *, is_younger: bool = False) -> None:
        """The node says which its last order is; whether it began after us.

        What an older one ordered before we knew each other was not for us, for who connects here finds it in the
        store. All that a younger one ordered is for us, also what it ordered while we could not hear it.
        """
        peer = self._alive[node]
        if peer.done is None:
            peer.done = 0 if is_younger else min(peer.held, default=order + 1) - 1
            self._go_on(peer)
        if order > peer.done:
            self._miss(node, peer, min(peer.held) - 1 if peer.held else order, now)

    def ordered(self, node: str, order: wire.Order, now: float) -> None:
        """An order of the node came."""
        peer = self._alive[node]
        if peer.done is not None and order.number <= peer.done:
            return
        if len(peer.held) < MAX_HELD:
            peer.held[order.number] = order.what
        if peer.done is None:
            return  # its next heartbeat says where it stands, and so whether those before are to come
        self._go_on(peer)
        if peer.held:
            self._miss(node, peer, min(peer.held) - 1, now)

    def forgotten(self, node: str, last: int) -> None:
        """The node has not kept its orders up to `last`."""
        peer = self._alive[node]
        if peer.done is not None and last > peer.done:
            self._give_up(peer, last)

    def left(self, node: str) -> None:
        """The node says that it ends."""
        self._left[node] = None
        if len(self._left) > MAX_GONE:
            self._left.popitem(last=False)
        self._gone.pop(node, None)
        if self._alive.pop(node, None) is not None:
            self._ended(node, True)

    def sweep(self, now: float) -> None:
        """Take for dead who was silent for too long, and give up orders that cannot be had."""
        for node, peer in list(self._alive.items()):
            if peer.until <= now:
                del self._alive[node]
                self._gone[node] = peer
                if len(self._gone) > MAX_GONE:
                    self._gone.popitem(last=False)
                self._ended(node, False)
            elif peer.missed_since is not None and now - peer.missed_since > PATIENCE_S and peer.done is not None:
                self._give_up(peer, min(peer.held) - 1 if peer.held else max(peer.asked, peer.done))

    def forgive(self, now: float) -> None:
        """We have not listened for a while: nobody is dead for that."""
        for peer in self._alive.values():
            peer.until = now + self._lease_s

    def _miss(self, node: str, peer: Peer, last: int, now: float) -> None:
        assert peer.done is not None  # noqa: S101  one that told where it stands
        if peer.missed_since is None:
            peer.missed_since = now
        if last > peer.asked or now - peer.asked_at >= ASKED_EVERY_S:
            peer.asked, peer.asked_at = last, now
            self._ask(node, peer.done + 1, last)

    def _give_up(self, peer: Peer, last: int) -> None:
        """Go on after `last`, whatever was missed up to it."""
        assert peer.done is not None  # noqa: S101  as above
        self.missed += max(0, last - peer.done - sum(1 for number in peer.held if number <= last))
        for number in sorted(number for number in peer.held if number <= last):
            self._carry_out(peer.held.pop(number))
        peer.done = max(peer.done, last)
        peer.missed_since = None
        self._go_on(peer)

    def _go_on(self, peer: Peer) -> None:
        """Carry out what follows."""
        assert peer.done is not None  # noqa: S101  as above
        begin = peer.done
        while (what := peer.held.pop(peer.done + 1, None)) is not None:
            peer.done += 1
            self._carry_out(what)
        if peer.done > begin or not peer.held:
            peer.missed_since = None  # what is missing now has not been for long
