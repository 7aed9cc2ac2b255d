"""The fan-out and directory of a single process: listeners are the node's own connections, held in memory."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from hubbub.clock import Clock
from hubbub.few import Few, added, removed
from hubbub.model import ConnectionId, Principal, RoomId, UserId
from hubbub.ports import Directory, Fanout, Listening, PresenceListener, ReadAfter, Sink
from hubbub.stream import Streams


class _Session:
    """One live connection: whose it is and what it listens to."""

    __slots__ = ("is_ending", "principal", "rooms")

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.is_ending = False  # whether it was told that its token's end is near
        self.rooms: Few[RoomId] = ()


class LocalFanout(Fanout, Directory):
    """Both ports over one `Sink`.

    Args:
        sink: the node's connections.
        read: reads a room's entries after a seq; fills holes.
        clock: time.
        begun, ended: told of a room when somebody here begins to care for it, and when nobody does any more.

    """

    def __init__(
        self,
        *,
        sink: Sink,
        read: ReadAfter,
        clock: Clock,
        begun: Callable[[RoomId], None] | None = None,
        ended: Callable[[RoomId], None] | None = None,
    ) -> None:
        self._sink = sink
        self._streams = Streams(sink, read, clock, begun=begun, ended=ended)
        self._sessions: dict[ConnectionId, _Session] = {}
        self._connections: dict[UserId, Few[ConnectionId]] = {}
        self._online: dict[RoomId, Few[UserId]] = {}
        self._further: dict[tuple[RoomId, UserId], int] = {}  # how many connections beyond the first one, if any
        self._opened: dict[ConnectionId, list[_LocalListening]] = {}  # who is about to listen
        self._ends: list[tuple[int, ConnectionId]] = []  # a heap of token ends not yet near; stale pairs are skipped
        self._last_ends: list[tuple[int, ConnectionId]] = []  # a heap of those that are near
        self._watchers: list[PresenceListener] = []
        self._looked_after: list[tuple[int, RoomId]] = []  # a heap of rooms to tell of, and from when on, epoch ms

    async def __aenter__(self) -> LocalFanout:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._streams.aclose()

    async def ping(self) -> None:
        """Nothing here can be away."""

    # For a fan-out of many nodes, which has one of these for each

    def deliver(self, room: RoomId, seq: int, frame: bytes) -> None:
        """As `publish`."""
        self._streams.publish(room, seq, frame)

    def expect(self, room: RoomId, head: int) -> bool:
        """The room's log reaches `head`; True when something of it was not delivered, which is then read."""
        return self._streams.expect(room, head)

    def has_passed(self, room: RoomId, seq: int) -> bool:
        """Whether something after `seq` was delivered already."""
        return self._streams.has_passed(room, seq)

    def hand(self, room: RoomId, frame: bytes, exclude: ConnectionId | None) -> None:
        """As `signal`."""
        self._sink.publish(room, frame, droppable=True, exclude=exclude)

    def count(self, room: RoomId) -> int:
        """As `listeners`."""
        return self._streams.listeners(room)

    def remind(self, room: RoomId, at_ms: int) -> None:
        """As `look_after`."""
        heapq.heappush(self._looked_after, (at_ms, room))

    def connections(self, user: UserId) -> list[ConnectionId]:
        """The user's."""
        return list(self._connections.get(user, ()))

    def listens(self, connection: ConnectionId, room: RoomId) -> bool:
        """Whether the connection listens to the room."""
        session = self._sessions.get(connection)
        return session is not None and room in session.rooms

    def admit(self, connection: ConnectionId, room: RoomId, after: int) -> None:
        """Let the connection, which is about to listen to the room, hear what comes next, whatever it has missed.

        Nothing happens when it was taken out of the room meanwhile.
        """
        is_awaited = any(room in listening.rooms for listening in self._opened.get(connection, ()))
        if is_awaited and self._streams.join(room, connection, after):
            self._joined(connection, room)
            self.admitted(connection, room)

    def admitted(self, connection: ConnectionId, room: RoomId) -> None:
        """Tell all that the connection is about to listen to, that its user follows the room by now."""
        for listening in self._opened.get(connection, ()):
            listening.rooms.add(room)
            listening.followed_since.add(room)

    # What `hubbub.ports.ReadyFanout` asks

    def principal_ready(self, connection: ConnectionId) -> Principal | None:
        """As `principal`."""
        session = self._sessions.get(connection)
        return session.principal if session else None

    def publish_ready(self, room: RoomId, seq: int, frame: bytes) -> None:
        """As `publish`."""
        self._streams.publish(room, seq, frame)

    def look_after_ready(self, room: RoomId, at_ms: int) -> None:
        """As `look_after`."""
        self.remind(room, at_ms)

    # Fanout

    async def publish(self, room: RoomId, seq: int, frame: bytes) -> None:
        """Deliver in order; see the port."""
        self._streams.publish(room, seq, frame)

    async def announce(self, room: RoomId, head: int, frame: bytes) -> None:
        """Mend the room's stream if it lacks something, else tell its listeners; see the port."""
        if self._streams.announce(room, head):
            self._sink.publish(room, frame, droppable=True)

    async def signal(self, room: RoomId, frame: bytes, *, exclude: ConnectionId | None = None) -> None:
        """Deliver unless a listener is congested; see the port."""
        self._sink.publish(room, frame, droppable=True, exclude=exclude)

    async def tell(self, user: UserId, frame: bytes, *, exclude: ConnectionId | None = None) -> None:
        """Send to each of the user's connections; see the port."""
        for connection in self._connections.get(user, ()):
            if connection != exclude:
                self._sink.send(connection, frame)

    async def send(self, connection: ConnectionId, frame: bytes) -> None:
        """Send to one connection; see the port."""
        self._sink.send(connection, frame)

    async def listen(self, connection: ConnectionId, rooms: Sequence[RoomId]) -> Listening:
        """Prepare to listen; see the port."""
        return _LocalListening(self, connection, rooms)

    async def unlisten(self, connection: ConnectionId, room: RoomId) -> None:
        """Stop listening; see the port."""
        self._take_out(connection, room)

    async def follow(self, user: UserId, room: RoomId, after: int) -> None:
        """Let the user's connections listen; see the port."""
        for connection in self._connections.get(user, ()):
            if self._streams.join(room, connection, after):
                self._joined(connection, room)
                self.admitted(connection, room)

    async def unfollow(self, user: UserId, room: RoomId, after: int | None = None) -> None:
        """Stop the user's connections' listening; see the port."""
        for connection in self._connections.get(user, ()):
            self._take_out(connection, room)

    async def close(self, connection: ConnectionId, code: int, reason: str) -> None:
        """Close it; see the port."""
        self._sink.close(connection, code, reason)

    async def disconnect(self, user: UserId, code: int, reason: str) -> None:
        """Close all of the user's connections; see the port."""
        for connection in list(self._connections.get(user, ())):
            self._sink.close(connection, code, reason)

    # Directory

    async def connect(self, connection: ConnectionId, principal: Principal) -> None:
        """Remember the connection, or its newer token; see the port."""
        session = self._sessions.get(connection)
        if session is None:
            self._sessions[connection] = _Session(principal)
            self._connections[principal.user] = added(self._connections.get(principal.user, ()), connection)
        else:
            session.principal = principal
            session.is_ending = False
        heapq.heappush(self._ends, (principal.expires_at, connection))
        if len(self._ends) > 2 * len(self._sessions) + 1_000:
            self._ends = [
                (session.principal.expires_at, known)
                for known, session in self._sessions.items()
                if not session.is_ending
            ]
            heapq.heapify(self._ends)

    async def disconnect_connection(self, connection: ConnectionId) -> Principal | None:
        """Forget the connection; see the port."""
        session = self._sessions.get(connection)
        if session is None:
            return None
        for room in list(session.rooms):
            self._left(connection, room)
        del self._sessions[connection]
        user = session.principal.user
        if connections := removed(self._connections[user], connection):
            self._connections[user] = connections
        else:
            del self._connections[user]
        return session.principal

    async def principal(self, connection: ConnectionId, *, fresh: bool = False) -> Principal | None:
        """Whose it is; see the port."""
        session = self._sessions.get(connection)
        return session.principal if session else None

    async def lapsing(self, now_s: int, lead_s: int) -> tuple[list[ConnectionId], list[ConnectionId]]:
        """Whose tokens end soon and whose have ended; see the port."""
        soon = self._take(self._ends, now_s + lead_s)
        for connection in soon:
            session = self._sessions[connection]
            session.is_ending = True
            heapq.heappush(self._last_ends, (session.principal.expires_at, connection))
        over = self._take(self._last_ends, now_s)
        gone = set(over)
        return [connection for connection in soon if connection not in gone], over

    def _take(self, ends: list[tuple[int, ConnectionId]], until_s: int) -> list[ConnectionId]:
        """Remove from a heap of token ends those up to `until_s`, and return the ones that still hold."""
        taken: list[ConnectionId] = []
        while ends and ends[0][0] <= until_s:
            expires_at, connection = heapq.heappop(ends)
            session = self._sessions.get(connection)
            if session is not None and session.principal.expires_at == expires_at:
                taken.append(connection)
        return taken

    async def online(self, room: RoomId, limit: int) -> tuple[list[UserId], int]:
        """Who is online in the room; see the port."""
        users = self._online.get(room, ())
        return heapq.nsmallest(limit, users), len(users)

    async def is_online(self, room: RoomId, user: UserId) -> bool:
        """Whether the user is; see the port."""
        return user in self._online.get(room, ())

    async def audience(self, room: RoomId) -> list[tuple[ConnectionId, Principal]]:
        """Who listens to the room, or is about to; see the port."""
        connections = {
            connection: None
            for user in self._online.get(room, ())
            for connection in self._connections[user]
            if room in self._sessions[connection].rooms
        }
        for connection, opened in self._opened.items():
            if any(room in listening.rooms for listening in opened):
                connections[connection] = None
        return [
            (connection, self._sessions[connection].principal)
            for connection in connections
            if connection in self._sessions  # one that is about to listen may be gone
        ]

    async def listeners(self, room: RoomId) -> int:
        """How many connections listen; see the port."""
        return self._streams.listeners(room)

    async def look_after(self, room: RoomId, at_ms: int) -> None:
        """Remember it as long as the process lives, as the connections do; see the port."""
        self.remind(room, at_ms)

    async def due(self, now_ms: int) -> list[RoomId]:
        """The rooms whose time has come; see the port."""
        due: dict[RoomId, None] = {}
        while self._looked_after and self._looked_after[0][0] <= now_ms:
            due[heapq.heappop(self._looked_after)[1]] = None
        return list(due)

    def watch(self, listener: PresenceListener) -> None:
        """Tell `listener`; see the port."""
        self._watchers.append(listener)

    def _joined(self, connection: ConnectionId, room: RoomId) -> None:
        session = self._sessions.get(connection)
        if session is None or room in session.rooms:
            return
        session.rooms = added(session.rooms, room)
        users, user = self._online.get(room, ()), session.principal.user
        if user in users:
            self._further[room, user] = self._further.get((room, user), 0) + 1
            return
        self._online[room] = added(users, user)
        for watcher in self._watchers:
            watcher(room, user, True)

    def _take_out(self, connection: ConnectionId, room: RoomId) -> None:
        """End the connection's listening to the room, also one that has not yet begun."""
        for listening in self._opened.get(connection, ()):
            listening.rooms.discard(room)
            listening.followed_since.discard(room)
        self._left(connection, room)

    def _left(self, connection: ConnectionId, room: RoomId) -> None:
        self._streams.leave(room, connection)
        session = self._sessions.get(connection)
        if session is None or room not in session.rooms:
            return
        session.rooms = removed(session.rooms, room)
        user = session.principal.user
        if further := self._further.pop((room, user), 0):
            if further > 1:
                self._further[room, user] = further - 1
            return
        if users := removed(self._online[room], user):
            self._online[room] = users
        else:
            del self._online[room]
        for watcher in self._watchers:
            watcher(room, user, False)


class _LocalListening(Listening):
    """A `StreamListening` that tells the directory who has come, and lets nobody in who was taken out meanwhile."""

    def __init__(self, fanout: LocalFanout, connection: ConnectionId, rooms: Sequence[RoomId]) -> None:
        self._joining = fanout._streams.listening(connection, rooms)
        self._fanout = fanout
        self._who = connection
        self.rooms = set(rooms)  # those that may still be started
        self.followed_since: set[RoomId] = set()
        fanout._opened.setdefault(connection, []).append(self)

    async def followed(self) -> set[RoomId]:
        return self.followed_since

    async def start(self, known: Mapping[RoomId, int]) -> dict[RoomId, list[bytes]]:
        started: dict[RoomId, list[bytes]] = {}
        for room, after in known.items():  # without a pause: all rooms are of one moment
            if room not in self.rooms or self._who not in self._fanout._sessions:
                continue
            frames = self._joining.start(room, after)
            if frames is not None:
                self._fanout._joined(self._who, room)
                started[room] = frames
        return started

    async def __aenter__(self) -> _LocalListening:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        with self._joining:
            self.rooms.clear()
        opened = self._fanout._opened[self._who]
        opened.remove(self)
        if not opened:
            del self._fanout._opened[self._who]
