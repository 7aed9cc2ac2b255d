"""A node among others: what it tells and hears by NATS, who else is there, and orders that every node carries out.

Rooms, users and presence are others' affair: what concerns them is handed on to a `Hearer`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from hubbub.clock import Clock
from hubbub.entropy import random_bytes
from hubbub.fanout.nats import wire
from hubbub.fanout.nats.address import Address
from hubbub.fanout.nats.interest import Interest
from hubbub.fanout.nats.link import Down, Link, Pauses, end
from hubbub.fanout.nats.outbox import Outbox
from hubbub.fanout.nats.peers import Orders, Peers
from hubbub.fanout.nats.stats import NatsStats
from hubbub.fanout.nats.subjects import Subjects
from hubbub.model import RoomId, UserId

logger = logging.getLogger("hubbub.fanout.nats")

MAX_TODO = 100_000
"""Orders and signals to users that may wait to be carried out here."""

MAX_RECENT_PACKETS = 4_096
"""Packets remembered while one may come twice."""

HELLO_S = 0.2
"""How long a node that starts waits for the others to answer; in the machine's time."""

GOODBYE_S = 1.0
"""How long a node that ends waits until everything is sent."""


class Hearer(Protocol):
    """Who is told what comes, at once; nothing of it may raise for long."""

    def room_told(self, node: str, room: RoomId, thing: wire.AnyThing) -> None:
        """Something on a room's subject."""
        ...

    def node_told(self, node: str, thing: wire.AnyThing) -> None:
        """Something that was told to this node or to all."""
        ...

    async def carry_out(self, what: wire.AnyOrder) -> None:
        """An order of another node."""
        ...

    async def user_told(self, user: UserId, thing: wire.Tell) -> None:
        """A signal for a user."""
        ...

    def rooms_covered(self, rooms: list[RoomId]) -> None:
        """What is told on the subjects of these rooms comes from now on."""
        ...

    def room_ended(self, room: RoomId) -> None:
        """It does not come any more."""
        ...

    def came_back(self) -> None:
        """There is a connection to NATS again."""
        ...

    def node_began(self, node: str) -> None:
        """Another node is there."""
        ...

    def node_ended(self, node: str, *, in_order: bool) -> None:
        """It is there no more; whether it said so itself."""
        ...

    def woke(self) -> None:
        """This process was halted for a while."""
        ...

    def tick(self) -> None:
        """Some time has passed."""
        ...


class Exchange:
    """One node's part.

    Args:
        address: of the NATS servers.
        hearer: is told what comes.
        clock: time.
        stats: counts.
        pauses: how long the network is waited for.

    Attributes:
        node: who we are among the nodes; another at every start.

    """

    tick_s = 0.25

    def __init__(
        self, address: Address, *, hearer: Hearer, clock: Clock, stats: NatsStats, pauses: Pauses | None = None
    ) -> None:
        self.node = random_bytes(8).hex()
        self.stats = stats
        self._address = address
        self._hearer = hearer
        self._clock = clock
        self._subjects = Subjects(address.prefix)
        self._own_subject = self._subjects.node(self.node)
        self._link = Link(
            address,
            name=f"hubbub-{self.node}",
            receive=self._receive,
            connected=self._connected,
            lost=self._lost,
            stats=stats,
            pauses=pauses,
        )
        self.outbox = Outbox(self._link, node=self.node, stats=stats, most_bytes=address.pending_bytes)
        self.interest = Interest(self._link, clock=clock, stats=stats)
        self.rooms = self.interest.kind(
            self._subjects.room, single=address.single, covered=hearer.rooms_covered, ended=hearer.room_ended
        )
        self.users = self.interest.kind(
            self._subjects.user, single=address.single, covered=lambda users: None, ended=lambda user: None
        )
        self.peers = Peers(
            lease_s=address.lease_s,
            carry_out=lambda what: self.do(lambda: hearer.carry_out(what)),
            ask=lambda node, first, last: self.to_node(node, wire.Again(first, last)),
            began=self._peer_began,
            ended=self._peer_ended,
        )
        self._orders = Orders()
        self._began_at = 0.0  # when it was first connected (monotonic)
        self._has_been_up = False
        self._has_lost = False  # whether some were taken for dead since we last knew all, who may be alive
        self._knows_all_at = 0.0  # when those who live have had their time to say so (monotonic)
        self._is_back = asyncio.Event()  # there is a connection again, and nobody was told yet
        self._todo: deque[Callable[[], Awaitable[None]]] = deque()
        self._has_todo = asyncio.Event()
        self._recent: OrderedDict[tuple[str, int], None] = OrderedDict()  # packets that came, while one may come twice
        self._said: set[str] = set()  # kinds of what was malformed that were logged
        self._tasks: list[asyncio.Task[None]] = []
        self._beat_at = 0.0

    def __repr__(self) -> str:
        return f"<Exchange of node {self.node} with {len(self.peers)} others by {self._link!r}>"

    @property
    def is_up(self) -> bool:
        """Whether there is a connection to NATS."""
        return self._link.is_up

    @property
    def knows_all(self) -> bool:
        """Whether all nodes that live are known: after an outage those taken for dead get a lease's time to say so."""
        return self.is_up and self._clock.monotonic() >= self._knows_all_at

    @property
    def max_bytes(self) -> int:
        """How long a thing may be."""
        return self._link.max_payload - wire.OVERHEAD

    async def open(self) -> None:
        """Connect, and get to know the others.

        Raises:
            Unavailable: there is no server.
            ValueError: what it is to be shown cannot be read.

        """
        self.interest.always(self._subjects.nodes)
        self.interest.always(self._own_subject)
        self.own(self.interest.run, "interest")
        self.own(self.outbox.run, "outbox")
        self.own(self._carry_out, "orders")
        try:
            await self._link.open(self._address.connect_s)
            self._began_at = self._clock.monotonic()
            await self._first_word()
        except BaseException:
            await self.aclose()
            raise
        self.own(self._beat, "beat")
        self.own(self._greet, "greeting")

    async def aclose(self) -> None:
        """Say goodbye, send what waits, and end."""
        if self._link.is_up:
            self.to_all(wire.Leaving())
            await self.outbox.sent(GOODBYE_S)
            try:
                await self._link.flush(GOODBYE_S)
            except Down as error:
                logger.info("NATS does not answer at the end: %s", error)
        await end(self._tasks)
        self._tasks.clear()
        await self._link.aclose()

    def own(self, run: Callable[[], Awaitable[None]], name: str) -> None:
        """Run it until the end; where it fails it is begun anew."""

        async def keep() -> None:
            while True:
                try:
                    await run()
                except Exception:
                    logger.exception("%s of the fan-out failed, and is begun anew", name)
                    await asyncio.sleep(1.0)

        self._tasks.append(asyncio.create_task(keep(), name=f"hubbub-nats-{name}"))

    # Telling

    def to_room(self, room: RoomId, thing: wire.AnyThing) -> None:
        """Tell all nodes that hear of the room."""
        self.outbox.put(self._subjects.room(room), thing)

    def to_user(self, user: UserId, thing: wire.AnyThing) -> None:
        """Tell all nodes to which the user is connected."""
        self.outbox.put(self._subjects.user(user), thing)

    def to_all(self, thing: wire.AnyThing) -> None:
        """Tell all other nodes."""
        self.outbox.put(self._subjects.nodes, thing)

    def to_node(self, node: str, thing: wire.AnyThing) -> None:
        """Tell one."""
        self.outbox.put(self._subjects.node(node), thing)

    def order(self, what: wire.AnyOrder) -> None:
        """Let all other nodes do something, also those that miss this."""
        self.to_all(self._orders.number(what))

    # Hearing

    def is_there(self, node: str) -> bool:
        """Take note that something came from the node; False when it had said goodbye, and is over."""
        if self.peers.has_left(node):
            return False
        self.peers.heard(node, self._clock.monotonic())
        return True

    def _receive(self, subject: str, data: bytes) -> None:
        """A message came; whatever is in it, the next one is read."""
        self.stats.received += 1
        self.stats.received_bytes += len(data)
        try:
            self._take(subject, data)
        except ValueError as error:
            self._malformed(str(error))
        except Exception:
            logger.exception("what another node told could not be taken in")

    def _take(self, subject: str, data: bytes) -> None:
        room, user = self.rooms.keys.get(subject), self.users.keys.get(subject)
        to_us = subject in (self._subjects.nodes, self._own_subject)
        if room is None and user is None and not to_us:
            self.stats.ignored += 1
            return
        packet = wire.decode(data)
        node = packet.node
        if node == self.node or self._came_before(packet):
            return
        for thing in packet.things:
            if room is not None:
                self._hearer.room_told(node, room, thing)
            elif user is not None:
                if not isinstance(thing, wire.Tell):
                    raise ValueError(f"expected a signal for a user, got {type(thing).__name__}")
                self.do(_told(self._hearer, user, thing))
            else:
                self._node_told(node, thing)

    def _node_told(self, node: str, thing: wire.AnyThing) -> None:
        if isinstance(thing, wire.Leaving):
            self.peers.left(node)
            return
        if not self.is_there(node):
            return
        now = self._clock.monotonic()
        if isinstance(thing, wire.Alive):
            self.peers.stands_at(node, thing.order, now, is_younger=thing.age_ms < self._age_ms())
            if thing.is_new:
                self.to_node(node, self._alive())
        elif isinstance(thing, wire.Order):
            self.peers.ordered(node, thing, now)
        elif isinstance(thing, wire.Again):
            for order in self._orders.again(thing.first, thing.last):
                self.to_node(node, order)
        elif isinstance(thing, wire.Forgotten):
            self.peers.forgotten(node, thing.last)
        else:
            self._hearer.node_told(node, thing)

    def _came_before(self, packet: wire.Packet) -> bool:
        if not self.interest.is_changing:
            self._recent.clear()
            return False
        key = (packet.node, packet.number)
        if key in self._recent:
            self.stats.duplicates += 1
            return True
        self._recent[key] = None
        if len(self._recent) > MAX_RECENT_PACKETS:
            self._recent.popitem(last=False)
        return False

    def _malformed(self, problem: str) -> None:
        self.stats.malformed += 1
        kind = problem[:60]
        if kind not in self._said and len(self._said) < 20:
            self._said.add(kind)
            logger.warning("what came by NATS cannot be read: %s", problem[:500])

    def do(self, what: Callable[[], Awaitable[None]]) -> None:
        """Carry it out after what came before it."""
        if len(self._todo) >= MAX_TODO:
            self.stats.orders_missed += 1
            return
        self._todo.append(what)
        self._has_todo.set()

    async def _carry_out(self) -> None:
        while True:
            await self._has_todo.wait()
            self._has_todo.clear()
            while self._todo:
                try:
                    await self._todo.popleft()()
                except Exception:
                    logger.exception("an order of another node could not be carried out")

    # Being there

    def _alive(self, *, is_new: bool = False) -> wire.Alive:
        return wire.Alive(self._orders.last, is_new, self._age_ms())

    def _age_ms(self) -> int:
        return round((self._clock.monotonic() - self._began_at) * 1_000)

    def _connected(self) -> None:
        is_first, self._has_been_up = not self._has_been_up, True
        self.interest.connected()
        self.outbox.connected()
        if self._has_lost:
            self._has_lost = False
            self._knows_all_at = self._clock.monotonic() + self._address.lease_s
        if not is_first:
            self._is_back.set()

    def _lost(self) -> None:
        self.interest.lost()

    async def _greet(self) -> None:
        """Say that we are back, each time as soon as we hear what is answered."""
        while True:
            await self._is_back.wait()
            if await self.interest.hears(self._own_subject, self._address.lease_s):
                self._is_back.clear()
                self.to_all(self._alive(is_new=True))
                self._hearer.came_back()
            elif not self._link.is_up:
                self._is_back.clear()  # the next connection sets it again

    async def _first_word(self) -> None:
        """Say that we are there as soon as we hear the others, and let them answer."""
        await self.interest.hears(self._own_subject, self._address.connect_s)
        self.to_all(self._alive(is_new=True))
        await asyncio.sleep(HELLO_S)

    async def _beat(self) -> None:
        """Say that we live, and see who does."""
        last = self._clock.monotonic()
        while True:
            await self._clock.sleep(self.tick_s)
            now = self._clock.monotonic()
            if now - last > self.tick_s + self._address.lease_s / 2:
                logger.warning("this process was halted for %.1f s", now - last)
                self.peers.forgive(now)
                self.to_all(self._alive(is_new=True))
                self._hearer.woke()
            last = now
            if self._link.is_up and now >= self._beat_at:
                self._beat_at = now + self._address.heartbeat_s
                self.to_all(self._alive())
            self.peers.sweep(now)
            self.interest.sweep()
            self.stats.nodes = len(self.peers)
            self.stats.rooms = len(self.rooms.subjects)
            self.stats.orders_missed += self.peers.missed
            self.peers.missed = 0
            self._hearer.tick()

    def _peer_began(self, node: str) -> None:
        logger.info("node %s is there", node)
        self._hearer.node_began(node)

    def _peer_ended(self, node: str, in_order: bool) -> None:
        if in_order:
            logger.info("node %s has ended", node)
        else:
            logger.warning("node %s is silent and taken for dead", node)
            self._has_lost = True
        self._hearer.node_ended(node, in_order=in_order)


def _told(hearer: Hearer, user: UserId, thing: wire.Tell) -> Callable[[], Awaitable[None]]:
    return lambda: hearer.user_told(user, thing)
