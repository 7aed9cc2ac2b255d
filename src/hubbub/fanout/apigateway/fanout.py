"""The fan-out of the AWS home: what concerns a room is handed to the broadcaster, the rest is posted at once.

`publish` returns when the job is durably handed over: the sender of a message waits for no recipient.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from hubbub.clock import Clock
from hubbub.errors import TooLarge
from hubbub.fanout.apigateway.directory import ApiGatewayDirectory
from hubbub.fanout.apigateway.jobs import MAX_FRAMES_BYTES, Announce, Deliver, Part, Signal, Transport
from hubbub.fanout.apigateway.posts import Frame, Outcome, Posts
from hubbub.model import ConnectionId, RoomId, UserId, new_ulid
from hubbub.parallel import every
from hubbub.ports import Fanout, Listening
from hubbub.protocol import CLOSE_TOKEN_EXPIRED

logger = logging.getLogger(__name__)

PATIENCE_S = 1.0
"""How long a signal to one connection is tried: who is told something waits no longer for others who do not read."""


class ApiGatewayFanout(Fanout):
    """The fan-out over `@connections`.

    Args:
        directory: who listens.
        transport: hands jobs to the broadcaster.
        posts: posts to connections.
        clock: time.

    """

    def __init__(self, *, directory: ApiGatewayDirectory, transport: Transport, posts: Posts, clock: Clock) -> None:
        self._directory = directory
        self._transport = transport
        self._posts = posts
        self._clock = clock

    def __repr__(self) -> str:
        return f"<ApiGatewayFanout of {self._directory!r}>"

    # Rooms

    async def publish(self, room: RoomId, seq: int, frame: bytes) -> None:
        """Hand the entry to the broadcaster, with its frame unless that is very long; see the port."""
        text = frame.decode() if len(frame) <= MAX_FRAMES_BYTES else None
        await self._transport.hand([Deliver(id=f"deliver:{room}:{seq}", room=room, seq=seq, frame=text)])

    async def announce(self, room: RoomId, head: int, frame: bytes) -> None:
        """Hand the announcement to the broadcaster; see the port."""
        # Another announcement of the same head may find what this one could not deliver: it is another job.
        job = f"announce:{room}:{head}:{new_ulid(self._clock.now_ms())}"
        await self._transport.hand([Announce(id=job, room=room, head=head, frame=_text(frame))])

    async def signal(self, room: RoomId, frame: bytes, *, exclude: ConnectionId | None = None) -> None:
        """Hand the signal to the broadcaster; see the port.

        Raises:
            TooLarge: it does not fit into a job.

        """
        job = f"signal:{room}:{new_ulid(self._clock.now_ms())}"
        await self._transport.hand([Signal(id=job, room=room, frame=_text(frame), exclude=exclude)])

    # Users and connections

    async def tell(self, user: UserId, frame: bytes, *, exclude: ConnectionId | None = None) -> None:
        """Post to each of the user's connections; see the port."""
        whole = Frame(frame)
        told = [connection for connection in await self._directory.connections(user) if connection != exclude]
        await every(lambda connection: self._post(connection, whole), told)

    async def send(self, connection: ConnectionId, frame: bytes) -> None:
        """Post to one connection; see the port."""
        await self._post(connection, Frame(frame))

    async def close(self, connection: ConnectionId, code: int, reason: str) -> None:
        """Close it; see the port. Its end is told by API Gateway, or noted here if it is gone or cannot be closed.

        API Gateway calls gone also who is just coming in; whoever is to be closed hears nothing more in any case.
        """
        outcome = await self._posts.close(connection, code, reason)
        if outcome is Outcome.DELIVERED:
            return
        if outcome is not Outcome.GONE:
            logger.warning("a connection was not closed: %s", outcome.value, extra={"connection_id": connection})
        if await self._directory.disconnect_connection(connection) is None:
            await self._directory.forget(connection)

    async def disconnect(self, user: UserId, code: int, reason: str) -> None:
        """Close all of the user's connections; see the port."""
        connections = await self._directory.connections(user)
        await every(lambda connection: self.close(connection, code, reason), connections)

    async def _post(self, connection: ConnectionId, frame: Frame) -> None:
        outcome = await self._posts.post(connection, frame, patience_s=PATIENCE_S)
        if outcome is Outcome.GONE:
            await self._directory.forget(connection)
        elif outcome is not Outcome.DELIVERED:
            logger.info("a signal was lost: %s", outcome.value, extra={"connection_id": connection})

    # Listening

    async def listen(self, connection: ConnectionId, rooms: Sequence[RoomId]) -> Listening:
        """Prepare to listen; see the port.

        A connection that is not known would never hear anything: if there is one all the same, whose items outlived
        their time or were lost, it is closed, and its client comes anew.
        """
        listening = await self._directory.listen(connection, rooms)
        if not listening.is_known:
            await self.close(connection, CLOSE_TOKEN_EXPIRED, "the connection is not known any more")
        return listening

    async def unlisten(self, connection: ConnectionId, room: RoomId) -> None:
        """Stop listening; see the port."""
        await self._directory.unlisten(connection, room)

    async def follow(self, user: UserId, room: RoomId, after: int) -> None:
        """Let the user's connections listen, and have them served what was written meanwhile; see the port."""
        behind = await self._directory.follow(user, room, after)
        parts = [
            Part(
                id=f"follow:{room}:{new_ulid(self._clock.now_ms())}",
                room=room,
                first_shard=shard,
                last_shard=shard,
                upto=upto,
            )
            for shard, upto in behind.items()
        ]
        if parts:
            await self._transport.hand(parts)

    async def unfollow(self, user: UserId, room: RoomId, after: int | None = None) -> None:
        """Stop the user's connections' listening; see the port."""
        await self._directory.unfollow(user, room)


def _text(frame: bytes) -> str:
    if len(frame) > MAX_FRAMES_BYTES:
        raise TooLarge(f"A signal may have {MAX_FRAMES_BYTES} bytes; this has {len(frame)}.")
    return frame.decode()
