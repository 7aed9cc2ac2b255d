"""Presence between nodes: when whom is asked for which rooms, and digests that find what was lost of changes.

What it all means is `hubbub.fanout.nats.presence`'s affair; here are questions, answers and their time.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable

from hubbub.clock import Clock
from hubbub.fanout.nats import wire
from hubbub.fanout.nats.exchange import Exchange
from hubbub.fanout.nats.presence import Presence
from hubbub.fanout.nats.subjects import GROUPS
from hubbub.model import RoomId, UserId

ROOMS_ASKED = 500
"""Rooms in one question."""

MAX_WAITED_FOR = 100_000
"""Rooms whose first reports somebody may be waiting for."""


class Reports:
    """The replica of all nodes' presence, kept up.

    Args:
        exchange: with the other nodes.
        clock: time.
        notify: told of beginnings and ends.
        count: how many connections of this node listen to a room.
        digests_s: how long it takes to tell the digests of all rooms.
        answer_s: how long an answer is waited for.

    Attributes:
        presence: the replica.

    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        clock: Clock,
        notify: Callable[[RoomId, UserId, bool], None],
        count: Callable[[RoomId], int],
        digests_s: float = 60.0,
        answer_s: float = 2.0,
    ) -> None:
        self.presence = Presence(notify=notify, ask=self._ask, tell=exchange.to_room, settled=self._settled)
        self._exchange = exchange
        self._clock = clock
        self._count = count
        self._digests_s = digests_s
        self._answer_s = answer_s
        self._to_ask: dict[str, dict[RoomId, None]] = {}  # rooms to ask for, by node
        self._asked: dict[int, tuple[str, list[RoomId], float]] = {}  # node, rooms, and until when is waited
        self._asks = itertools.count(1)
        self._asking = False  # whether the questions will be put in a moment
        self._waiting: dict[RoomId, asyncio.Future[None]] = {}  # somebody waits until the room is settled
        self._next_group = 0  # whose digest is next
        self._digest_at = 0.0

    async def known(self, room: RoomId, within_s: float) -> None:
        """Return when all nodes have said whom they have in the room, or after `within_s` seconds."""
        if self.presence.is_settled(room) or len(self._waiting) >= MAX_WAITED_FOR:
            return
        waiting = self._waiting.get(room)
        if waiting is None:
            waiting = self._waiting[room] = asyncio.get_running_loop().create_future()
        await asyncio.wait([waiting], timeout=within_s)
        if not waiting.done() and self._waiting.get(room) is waiting:
            del self._waiting[room]
            waiting.set_result(None)

    def open(self, rooms: Iterable[RoomId]) -> None:
        """Hold these rooms, and hear from all nodes whom they have there."""
        self.presence.open(rooms, self._exchange.peers.alive)

    def began(self, node: str) -> None:
        """A node is there, or again: hear what it has."""
        self._exchange.to_node(node, wire.WantDigests())

    def again(self) -> None:
        """Changes may have been missed on either side: hear and tell all digests."""
        for node in self._exchange.peers.alive:
            self.began(node)
        for group in range(GROUPS):
            self._exchange.to_all(self.presence.digest(group))

    def told(self, node: str, thing: wire.AnyThing) -> None:
        """Another node tells something of presence to us.

        Raises:
            ValueError: it is nothing that is told to a node.

        """
        if isinstance(thing, wire.Told):
            self.presence.answered(node, thing)
        elif isinstance(thing, wire.Answered):
            asked = self._asked.pop(thing.ask, None)
            if asked is not None:
                self.presence.nobody(node, asked[1], thing.rooms)
        elif isinstance(thing, wire.AskPresence):
            told = 0
            for room in thing.rooms[:ROOMS_ASKED]:
                for part in self.presence.share(room, self._count(room), self._exchange.max_bytes // 2):
                    self._exchange.to_node(node, part)
                    told += part.is_last
            self._exchange.to_node(node, wire.Answered(thing.ask, told))
        elif isinstance(thing, wire.WantDigests):
            for group in range(GROUPS):
                self._exchange.to_node(node, self.presence.digest(group))
        elif isinstance(thing, wire.Digest):
            self.presence.compare(node, thing)
        else:
            raise ValueError(f"expected something that is told to a node, got {type(thing).__name__}")

    def tick(self) -> None:
        """Tell the digests that are due, and give up waiting for answers that do not come."""
        now = self._clock.monotonic()
        for ask, (node, rooms, until) in list(self._asked.items()):
            if until > now:
                break  # they are in the order of their times
            del self._asked[ask]
            self.presence.unanswered(node, rooms)
        if not self._exchange.is_up or now < self._digest_at:
            return
        self._digest_at = now + 1.0
        for _ in range(max(1, round(GROUPS / self._digests_s))):
            self._exchange.to_all(self.presence.digest(self._next_group))
            self._next_group = (self._next_group + 1) % GROUPS

    def _ask(self, node: str, room: RoomId) -> None:
        self._to_ask.setdefault(node, {})[room] = None
        if not self._asking:
            self._asking = True
            asyncio.get_running_loop().call_soon(self._put_questions)

    def _put_questions(self) -> None:
        """Ask for what one tick brings together."""
        self._asking = False
        to_ask, self._to_ask = self._to_ask, {}
        until = self._clock.monotonic() + self._answer_s
        for node, rooms in to_ask.items():
            for batch in _batches(list(rooms)):
                ask = next(self._asks)
                self._asked[ask] = (node, batch, until)
                self._exchange.to_node(node, wire.AskPresence(ask, batch))

    def _settled(self, room: RoomId) -> None:
        waiting = self._waiting.pop(room, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


def _batches(rooms: list[RoomId]) -> Iterable[list[RoomId]]:
    return (rooms[begin : begin + ROOMS_ASKED] for begin in range(0, len(rooms), ROOMS_ASKED))
