"""Who listens to a room on all nodes: asked when it is needed, and all nodes must answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from hubbub.errors import Unavailable
from hubbub.fanout.nats import wire
from hubbub.fanout.nats.exchange import Exchange
from hubbub.model import ConnectionId, Principal, RoomId

PART_BYTES = 128 * 1024
"""About how long a part of an answer is."""

MAX_ASKED = 1_000
"""Questions that may be open."""

Listener = tuple[ConnectionId, Principal]


@dataclass
class _Question:
    """One that is open."""

    waits_for: set[str]
    answered: asyncio.Future[None]
    found: list[Listener] = field(default_factory=list)

    def strike_off(self, node: str) -> None:
        self.waits_for.discard(node)
        if not self.waits_for and not self.answered.done():
            self.answered.set_result(None)


class Audiences:
    """Asks, and takes answers.

    Args:
        exchange: with the other nodes.
        answer_s: how long they may take, in the machine's time.

    """

    def __init__(self, exchange: Exchange, *, answer_s: float = 3.0) -> None:
        self._exchange = exchange
        self._answer_s = answer_s
        self._open: dict[int, _Question] = {}
        self._numbers = itertools.count(1)

    async def elsewhere(self, room: RoomId) -> list[Listener]:
        """The listeners at all other nodes.

        Raises:
            Unavailable: NATS is away, or was and not all may be back, or a node does not answer.

        """
        if not self._exchange.knows_all or len(self._open) >= MAX_ASKED:
            raise Unavailable("The other nodes cannot be asked who listens; try again.", retry_after_ms=2_000)
        nodes = self._exchange.peers.alive
        if not nodes:
            return []
        number = next(self._numbers)
        question = _Question(nodes, asyncio.get_running_loop().create_future())
        self._open[number] = question
        try:
            self._exchange.to_all(wire.AskAudience(number, room))
            async with asyncio.timeout(self._answer_s):
                await question.answered
        except TimeoutError:
            raise Unavailable("A node does not say who listens; try again.", retry_after_ms=2_000) from None
        finally:
            del self._open[number]
        return question.found

    def took(self, node: str, part: wire.Audience) -> None:
        """A node answers, in parts."""
        question = self._open.get(part.ask)
        if question is None or node not in question.waits_for:
            return
        question.found += part.connections
        if part.is_last:
            question.strike_off(node)

    def lost(self, node: str) -> None:
        """A node is gone, and its connections: nobody waits for it."""
        for question in self._open.values():
            question.strike_off(node)

    def tell(self, node: str, ask: int, listeners: Sequence[Listener]) -> None:
        """Answer another node."""
        parts = list(_parts(listeners, min(PART_BYTES, self._exchange.max_bytes // 2))) or [[]]
        for number, part in enumerate(parts, 1):
            self._exchange.to_node(node, wire.Audience(ask, part, is_last=number == len(parts)))


def _parts(listeners: Sequence[Listener], most_bytes: int) -> Iterator[list[Listener]]:
    part: list[Listener] = []
    size = 0
    for listener in listeners:
        part.append(listener)
        size += len(msgspec.msgpack.encode(listener))
        if size >= most_bytes:
            yield part
            part, size = [], 0
    if part:
        yield part
