"""The fan-out and directory of a single process: listeners are the node's own connections, held in memory."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from types import TracebackType

from hubbub.model import ConnectionId, Principal, RoomId, UserId
from hubbub.ports import Clock, Directory, Fanout, Listening, PresenceListener, ReadAfter, Sink
from hubbub.stream import StreamListening, Streams


class _Session:
    """One live connection: whose it is and what it listens to."""

    __slots__ = ("is_ending", "principal", "rooms")

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.is_ending = False  # whether it was told that its token's end is near
        self.rooms: set[RoomId] = set()


class LocalFanout(Fanout, Directory):
    """Both ports over one `Sink`.

    Args:
        sink: the node's connections.
        read: reads a room's entries after a seq; fills holes.
        clock: time.

    """

    def __init__(self, *, sink: Sink, read: ReadAfter, clock: Clock) -> None:
        self._sink = sink
        self._streams = Streams(sink, read, clock)
        self._sessions: dict[ConnectionId, _Session] = {}
        self._connections: dict[UserId, list[ConnectionId]] = {}
        self._online: dict[RoomId, dict[UserId, int]] = {}
        self._opened: dict[ConnectionId, list[_LocalListening]] = {}  # who is about to listen
        self._ends: list[tuple[int, ConnectionId]] = []  # a heap of token ends not yet near; stale pairs are skipped
        self._last_ends: list[tuple[int, ConnectionId]] = []  # a heap of those that are near
        self._watchers: list[PresenceListener] = []

    async def __aenter__(self) -> LocalFanout:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._streams.aclose()

    async def ping(self) -> None:
        """Nothing here can be away."""

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
                for listening in self._opened.get(connection, ()):
                    listening.rooms.add(room)
                    listening.followed.add(room)

    async def unfollow(self, user: UserId, room: RoomId) -> None:
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
            self._connections.setdefault(principal.user, []).append(connection)
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
        connections = self._connections[user]
        connections.remove(connection)
        if not connections:
            del self._connections[user]
        return session.principal

    async def principal(self, connection: ConnectionId) -> Principal | None:
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
        users = self._online.get(room, {})
        return heapq.nsmallest(limit, users), len(users)

    async def is_online(self, room: RoomId, user: UserId) -> bool:
        """Whether the user is; see the port."""
        return user in self._online.get(room, {})

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

    def listeners(self, room: RoomId) -> int:
        """How many connections listen; see the port."""
        return self._streams.listeners(room)

    def watch(self, listener: PresenceListener) -> None:
        """Tell `listener`; see the port."""
        self._watchers.append(listener)

    def _joined(self, connection: ConnectionId, room: RoomId) -> None:
        session = self._sessions.get(connection)
        if session is None or room in session.rooms:
            return
        session.rooms.add(room)
        users = self._online.setdefault(room, {})
        user = session.principal.user
        users[user] = users.get(user, 0) + 1
        if users[user] == 1:
            for watcher in self._watchers:
                watcher(room, user, True)

    def _take_out(self, connection: ConnectionId, room: RoomId) -> None:
        """End the connection's listening to the room, also one that has not yet begun."""
        for listening in self._opened.get(connection, ()):
            listening.rooms.discard(room)
            listening.followed.discard(room)
        self._left(connection, room)

    def _left(self, connection: ConnectionId, room: RoomId) -> None:
        self._streams.leave(room, connection)
        session = self._sessions.get(connection)
        if session is None or room not in session.rooms:
            return
        session.rooms.discard(room)
        users = self._online[room]
        user = session.principal.user
        users[user] -= 1
        if users[user]:
            return
        del users[user]
        if not users:
            del self._online[room]
        for watcher in self._watchers:
            watcher(room, user, False)


class _LocalListening(StreamListening, Listening):
    """A `StreamListening` that tells the directory who has come, and lets nobody in who was taken out meanwhile."""

    def __init__(self, fanout: LocalFanout, connection: ConnectionId, rooms: Sequence[RoomId]) -> None:
        super().__init__(fanout._streams, connection, rooms)
        self._fanout = fanout
        self._who = connection
        self.rooms = set(rooms)  # those that may still be started
        self.followed = set()
        fanout._opened.setdefault(connection, []).append(self)

    def start(self, room: RoomId, after: int) -> list[bytes] | None:
        if room not in self.rooms or self._who not in self._fanout._sessions:
            return None
        frames = super().start(room, after)
        if room not in self.started:
            return None
        self._fanout._joined(self._who, room)
        return frames

    def __enter__(self) -> _LocalListening:
        return self

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        self.rooms.clear()
        opened = self._fanout._opened[self._who]
        opened.remove(self)
        if not opened:
            del self._fanout._opened[self._who]
