"""The fan-out and directory of one node among several: its own listeners in a `LocalFanout`, the others' by NATS.

What is told here is delivered here at once, whether NATS is there or not; other nodes hear of it by NATS, or find it in
the store.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import TracebackType

from hubbub.clock import Clock
from hubbub.errors import Unavailable
from hubbub.fanout.local import LocalFanout
from hubbub.fanout.nats import wire
from hubbub.fanout.nats.address import Address
from hubbub.fanout.nats.audience import Audiences
from hubbub.fanout.nats.exchange import Exchange, Hearer
from hubbub.fanout.nats.following import Following
from hubbub.fanout.nats.heads import HeadRounds
from hubbub.fanout.nats.link import Pauses
from hubbub.fanout.nats.reports import Reports
from hubbub.fanout.nats.stats import NatsStats
from hubbub.model import ConnectionId, Principal, RoomId, UserId
from hubbub.ports import Directory, Fanout, Listening, PresenceListener, ReadAfter, ReadHeads, Sink

logger = logging.getLogger("hubbub.fanout.nats")

COVERED_WITHIN_S = 1.0
"""How long who begins to listen waits for a NATS server's word that he will be told; the store mends what is missed."""

KNOWN_WITHIN_S = 1.0
"""How long who asks for presence waits for the first word of the other nodes."""

FOLLOWED_WITHIN_S = 0.2
"""How long who is let into a room that is new here waits for the same; a node that died must not make him wait long."""

LOOK_AFTER_S = 1.0
"""When a room is looked at that was just subscribed to: what is told at another server may not come until it knows."""

ACTIVE_S = 5.0
"""When a room's head is announced after something came from another node."""

MAX_ACTIVE = 10_000
"""Rooms remembered as being looked after; forgetting one costs a look at its head."""

MAX_DECIDED = 20_000
"""Users and rooms of which it is remembered where in the log it was last decided whether the one follows the other."""


class NatsFanout(Fanout, Directory, Hearer):
    """Both ports, over one `Sink` and the other nodes.

    Args:
        address: of the NATS servers, with what is chosen.
        sink: the node's connections.
        read: reads a room's entries after a seq; fills holes.
        heads: reads where logs end.
        clock: time.
        pauses: how long the network is waited for.

    Attributes:
        stats: numbers.

    """

    def __init__(
        self,
        address: Address,
        *,
        sink: Sink,
        read: ReadAfter,
        heads: ReadHeads,
        clock: Clock,
        pauses: Pauses | None = None,
    ) -> None:
        self.stats = NatsStats()
        self._sink = sink
        self._clock = clock
        self._watchers: list[PresenceListener] = []
        self._decided: dict[tuple[UserId, RoomId], int] = {}
        self._local = LocalFanout(sink=sink, read=read, clock=clock, begun=self._room_begun, ended=self._room_ended)
        self._local.watch(self._changed)
        self._exchange = Exchange(address, hearer=self, clock=clock, stats=self.stats, pauses=pauses)
        self._heads = HeadRounds(
            read=heads, expect=self._local.expect, clock=clock, stats=self.stats, every_s=address.heads_s
        )
        self._reports = Reports(self._exchange, clock=clock, notify=self._notify, count=self._local.count)
        self._presence = self._reports.presence
        self._audiences = Audiences(self._exchange)
        self._following = Following(self._local, sink=sink, read=read, clock=clock)
        self._active: dict[RoomId, float] = {}  # rooms looked after since something came, and until when (monotonic)
        self._is_open = False

    def __repr__(self) -> str:
        return f"<NatsFanout {self._exchange!r}>"

    async def __aenter__(self) -> NatsFanout:
        await self._exchange.open()
        self._exchange.own(self._heads.run, "heads")
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        await self._following.aclose()
        await self._exchange.aclose()
        await self._local.__aexit__(kind, error, trace)

    async def ping(self) -> None:
        """Return while it is open, also when NATS is away: the node serves its clients all the same.

        Were it unready then, an outage of NATS would end all nodes, which do without; `stats.connected` tells of it.

        Raises:
            Unavailable: it is closed.

        """
        if not self._is_open:
            raise Unavailable("The fan-out is closed.")

    # Fanout

    async def publish(self, room: RoomId, seq: int, frame: bytes) -> None:
        """Deliver here and tell the others; see the port."""
        self._local.deliver(room, seq, frame)
        self._exchange.to_room(room, wire.Entry(seq, frame))

    async def announce(self, room: RoomId, head: int, frame: bytes) -> None:
        """Announce here: every node looks after its own listeners; see the port."""
        self._heads.checked(room)
        await self._local.announce(room, head, frame)

    async def signal(self, room: RoomId, frame: bytes, *, exclude: ConnectionId | None = None) -> None:
        """Hand out here and tell the others; see the port."""
        self._local.hand(room, frame, exclude)
        self._exchange.to_room(room, wire.Signal(frame, exclude))

    async def signal_here(self, room: RoomId, frame: bytes) -> None:
        """Hand out here alone; see the port."""
        self._local.hand(room, frame, None)

    async def tell(self, user: UserId, frame: bytes, *, exclude: ConnectionId | None = None) -> None:
        """Send to the user's connections here, and tell the others; see the port."""
        await self._local.tell(user, frame, exclude=exclude)
        self._exchange.to_user(user, wire.Tell(frame, exclude))

    async def send(self, connection: ConnectionId, frame: bytes) -> None:
        """Send to it here, or let the node that has it do so; see the port."""
        if not self._sink.send(connection, frame):
            self._exchange.order(wire.Send(connection, frame))

    async def listen(self, connection: ConnectionId, rooms: Sequence[RoomId]) -> Listening:
        """Prepare to listen, when what other nodes tell of the rooms is heard here; see the port.

        While NATS is away it is not waited for: the heads of the rooms are looked at when it is back, and in turn.
        """
        listening = await self._local.listen(connection, rooms)
        try:
            await self._exchange.interest.covered(self._exchange.rooms, rooms, COVERED_WITHIN_S)
        except BaseException:
            await listening.__aexit__()
            raise
        return listening

    async def unlisten(self, connection: ConnectionId, room: RoomId) -> None:
        """Stop the listening of a connection, wherever it is; see the port."""
        await self._local.unlisten(connection, room)
        if await self._local.principal(connection) is None:
            self._exchange.order(wire.Unlisten(connection, room))

    async def follow(self, user: UserId, room: RoomId, after: int) -> None:
        """Let the user's connections listen, at all nodes; see the port."""
        if self._is_overtaken(user, room, after):
            return
        self._exchange.order(wire.Follow(user, room, after))
        await self._follow_here(user, room, after, wait=True)

    async def unfollow(self, user: UserId, room: RoomId, after: int | None = None) -> None:
        """Stop the listening of the user's connections, at all nodes; see the port."""
        if self._is_overtaken(user, room, after):
            return
        await self._local.unfollow(user, room)
        self._exchange.order(wire.Unfollow(user, room, after))

    async def close(self, connection: ConnectionId, code: int, reason: str) -> None:
        """Close it, wherever it is; see the port."""
        if not self._sink.close(connection, code, reason):
            self._exchange.order(wire.Close(connection, code, reason))

    async def disconnect(self, user: UserId, code: int, reason: str) -> None:
        """Close all of the user's connections, at all nodes; see the port."""
        await self._local.disconnect(user, code, reason)
        self._exchange.order(wire.Disconnect(user, code, reason))

    # Directory

    async def connect(self, connection: ConnectionId, principal: Principal) -> None:
        """Remember the connection, and hear what is told to its user; see the port."""
        await self._local.connect(connection, principal)
        self._exchange.interest.want(self._exchange.users, principal.user)

    async def disconnect_connection(self, connection: ConnectionId) -> Principal | None:
        """Forget the connection; see the port."""
        principal = await self._local.disconnect_connection(connection)
        if principal is not None and not self._local.connections(principal.user):
            self._exchange.interest.release(self._exchange.users, principal.user)
        return principal

    async def principal(self, connection: ConnectionId, *, fresh: bool = False) -> Principal | None:
        """Whose it is, if it is here; see the port."""
        return await self._local.principal(connection, fresh=fresh)

    async def lapsing(self, now_s: int, lead_s: int) -> tuple[list[ConnectionId], list[ConnectionId]]:
        """Whose tokens end soon and whose have ended, of the connections here: each node sees to its own."""
        return await self._local.lapsing(now_s, lead_s)

    async def online(self, room: RoomId, limit: int) -> tuple[list[UserId], int]:
        """Who is online in the room, at all nodes; see the port."""
        await self._know(room, KNOWN_WITHIN_S)
        self._presence.given(room)
        return self._presence.online(room, limit)

    async def is_online(self, room: RoomId, user: UserId) -> bool:
        """Whether the user is, at any node; see the port."""
        await self._know(room, KNOWN_WITHIN_S)
        return self._presence.is_online(room, user)

    async def audience(self, room: RoomId) -> list[tuple[ConnectionId, Principal]]:
        """Who listens, at all nodes that are alive; see the port.

        Raises:
            Unavailable: NATS is away, or was and not all may be back, or a node does not answer.

        """
        elsewhere = await self._audiences.elsewhere(room)
        return [*await self._local.audience(room), *elsewhere]

    async def listeners(self, room: RoomId) -> int:
        """How many listen, at all nodes, as far as it is known here; see the port."""
        return self._local.count(room) + self._presence.elsewhere(room)

    async def look_after(self, room: RoomId, at_ms: int) -> None:
        """Remember it here, as every node does that hears of what is written; see the port."""
        self._local.remind(room, at_ms)

    async def due(self, now_ms: int) -> list[RoomId]:
        """The rooms whose time has come; see the port."""
        return await self._local.due(now_ms)

    def watch(self, listener: PresenceListener) -> None:
        """Tell `listener` of what concerns the listeners here; see the port."""
        self._watchers.append(listener)

    # What comes from other nodes

    def room_told(self, node: str, room: RoomId, thing: wire.AnyThing) -> None:
        """Something about a room that somebody here listens to, or did a moment ago."""
        if isinstance(thing, wire.Entry):
            if thing.frame is None:
                self._local.expect(room, thing.seq)
            else:
                self._local.deliver(room, thing.seq, thing.frame)
            self._look_after(room)
        elif isinstance(thing, wire.Signal):
            self._local.hand(room, thing.frame, thing.exclude)
        elif isinstance(thing, wire.Presence):
            if self._exchange.is_there(node):  # its users end with it
                self._presence.told(node, thing, room)
        else:
            raise ValueError(f"expected something that is told to a room, got {type(thing).__name__}")

    def node_told(self, node: str, thing: wire.AnyThing) -> None:
        """Something for this node, or for all."""
        if isinstance(thing, wire.AskAudience):
            self._exchange.do(lambda: self._tell_audience(node, thing))
        elif isinstance(thing, wire.Audience):
            self._audiences.took(node, thing)
        else:
            self._reports.told(node, thing)

    async def user_told(self, user: UserId, thing: wire.Tell) -> None:
        """A signal for the user's connections here."""
        await self._local.tell(user, thing.frame, exclude=thing.exclude)

    async def carry_out(self, what: wire.AnyOrder) -> None:
        """An order of another node, for the connections here."""
        if isinstance(what, wire.Follow | wire.Unfollow) and self._is_overtaken(what.user, what.room, what.after):
            return
        if isinstance(what, wire.Follow):
            await self._follow_here(what.user, what.room, what.after, wait=False)
        elif isinstance(what, wire.Unfollow):
            await self._local.unfollow(what.user, what.room)
        elif isinstance(what, wire.Unlisten):
            await self._local.unlisten(what.connection, what.room)
        elif isinstance(what, wire.Send):
            self._sink.send(what.connection, what.frame)
        elif isinstance(what, wire.Close):
            self._sink.close(what.connection, what.code, what.reason)
        else:
            await self._local.disconnect(what.user, what.code, what.reason)

    def rooms_covered(self, rooms: list[RoomId]) -> None:
        """These are heard of from now on; also anew, after the connection was lost."""
        self._heads.soon(rooms, LOOK_AFTER_S)
        self._reports.open(rooms)

    def room_ended(self, room: RoomId) -> None:
        """Nobody here has cared for it for a while."""
        self._presence.close(room)

    def came_back(self) -> None:
        """NATS is there again: much may have been missed."""
        self._heads.all_soon()
        self._reports.again()

    def node_began(self, node: str) -> None:
        """Another node is there, or there again."""
        self._reports.began(node)

    def node_ended(self, node: str, *, in_order: bool) -> None:
        """It is there no more; what it wrote last, it may not have told."""
        self._presence.lose(node)
        self._audiences.lost(node)
        if not in_order:
            self._heads.all_soon()

    def woke(self) -> None:
        """Much may have been missed."""
        self._heads.all_soon()
        self._reports.again()

    def tick(self) -> None:
        """Do what time brings."""
        self._reports.tick()

    # Within

    async def _tell_audience(self, node: str, asked: wire.AskAudience) -> None:
        self._audiences.tell(node, asked.ask, await self._local.audience(asked.room))

    def _is_overtaken(self, user: UserId, room: RoomId, after: int | None) -> bool:
        """Whether something that was decided later in the log has been heard of already.

        Orders of one node come in their order, also when one was lost and asked for again; those of two nodes need not.
        """
        if after is None:
            return False
        known = self._decided.pop((user, room), 0)
        self._decided[user, room] = max(known, after)
        if len(self._decided) > MAX_DECIDED:
            del self._decided[next(iter(self._decided))]
        return after < known

    async def _follow_here(self, user: UserId, room: RoomId, after: int, *, wait: bool) -> None:
        """Let the user's connections here listen; those that have missed something get it first."""
        connections = self._local.connections(user)
        if not connections:
            return
        if self._local.has_passed(room, after):
            catching_up = await self._following.catch_up(room, after, connections)
            if wait:
                await catching_up
            return
        is_first = not self._local.count(room)
        await self._local.follow(user, room, after)
        if is_first:
            self._heads.soon([room], LOOK_AFTER_S / 10)  # what was told meanwhile, nobody here kept
            if wait:  # who comes after the answer is told: all nodes' servers know by then that we listen
                await self._know(room, FOLLOWED_WITHIN_S)

    def _room_begun(self, room: RoomId) -> None:
        self._heads.add(room)
        self._exchange.interest.want(self._exchange.rooms, room)

    def _room_ended(self, room: RoomId) -> None:
        self._heads.remove(room)
        self._exchange.interest.release(self._exchange.rooms, room)

    def _changed(self, room: RoomId, user: UserId, online: bool) -> None:
        """A user of this node begins or ceases."""
        self._presence.changed(room, user, online, self._local.count(room))

    def _notify(self, room: RoomId, user: UserId, online: bool) -> None:
        """A user begins or ceases to be online, over all nodes."""
        for watcher in self._watchers:
            watcher(room, user, online)

    async def _know(self, room: RoomId, within_s: float) -> None:
        """Have heard from all nodes who is in the room, if they can be heard."""
        if self._presence.is_settled(room) or not self._exchange.is_up:
            return
        if room not in self._exchange.rooms.subjects:  # nobody here listens: hear of it for a while
            self._exchange.interest.want(self._exchange.rooms, room)
            self._exchange.interest.release(self._exchange.rooms, room)
        await self._reports.known(room, within_s)

    def _look_after(self, room: RoomId) -> None:
        """Let the room's head be announced some time after this, as at the node where something was written."""
        now = self._clock.monotonic()
        if self._active.get(room, now) > now or not self._local.count(room):
            return
        self._local.remind(room, self._clock.now_ms() + round(ACTIVE_S * 1_000))
        self._active.pop(room, None)
        self._active[room] = now + ACTIVE_S - 1.0
        if len(self._active) > MAX_ACTIVE:
            self._active = {room: until for room, until in self._active.items() if until > now}
            if len(self._active) > MAX_ACTIVE:
                self._active.clear()
