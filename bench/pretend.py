"""A whole node in this process whose sockets are pretended: more connections than a process may have open files.

Everything above the sockets is the real thing: the chat's functions, a SQLite file, the local fan-out, the hub. A
pretended socket takes all at once and counts, so what the kernel does for a delivery or a handshake is not in figures
that are taken here.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from hubbub.apigateway import DEFAULT, Event, Identity, RequestContext, new_id
from hubbub.auth import JwtVerifier
from hubbub.chat import Chat, ChatLimits
from hubbub.clock import SystemClock
from hubbub.fanout import open_fanout
from hubbub.gateway import Hub
from hubbub.gateway.connection import Life
from hubbub.gateway.hub import Peer
from hubbub.gateway.integrations import InProcess
from hubbub.model import ConnectionId, Principal, Role, RoomId, RoomKind, UserId
from hubbub.ports import Store
from hubbub.store import open_store
from hubbub.stream import read_after

AT_ONCE = 500
"""How many questions are under way at a time while a node is filled."""

TIMEOUT_S = 29.0
"""How long a function may take; the gateway's own default."""


class Socket:
    """Takes everything at once.

    Attributes:
        writes: how many times it was written to.
        bytes_in: how much.

    """

    __slots__ = ("bytes_in", "writes")

    def __init__(self) -> None:
        self.writes = 0
        self.bytes_in = 0

    def waiting(self) -> int:
        """Nothing waits."""
        return 0

    def write(self, data: bytes) -> None:
        """Take it."""
        self.writes += 1
        self.bytes_in += len(data)

    def send_close(self, code: int, reason: str) -> None:
        """There is nobody to tell."""

    def drop(self, abort: bool) -> None:
        """There is nothing to drop."""


class Pretended:
    """One connection: its user and the socket."""

    __slots__ = ("id", "principal", "socket")

    def __init__(self, principal: Principal) -> None:
        self.id = ConnectionId(new_id())
        self.principal = principal
        self.socket = Socket()

    def event(self, body: str) -> Event:
        """A message of this connection, as a gateway gives it to a function."""
        request_id = new_id()
        context = RequestContext(
            route_key=DEFAULT,
            event_type="MESSAGE",
            extended_request_id=request_id,
            request_time="19/Feb/2024:07:11:42 +0000",
            stage="local",
            connected_at=0,
            request_time_epoch=0,
            identity=Identity("127.0.0.1"),
            request_id=request_id,
            domain_name="localhost",
            connection_id=self.id,
            api_id="bench",
            message_id=new_id(),
        )
        return Event(request_context=context, body=body, is_base64_encoded=False)


class Node:
    """What `hubbub serve` puts together, without a port.

    Attributes:
        chat, store, fanout, hub: its parts.

    """

    def __init__(self, chat: Chat, store: Store, fanout: Any, hub: Hub) -> None:  # Any: both ports in one
        self.chat = chat
        self.store = store
        self.fanout = fanout
        self.hub = hub
        self._route = chat.api().routes[DEFAULT]
        self._calls = InProcess(TIMEOUT_S, _nothing)

    async def connect(self, user: str, rooms: Sequence[str] = ()) -> Pretended:
        """A connection whose token makes its user a member of the rooms; it does not listen yet."""
        granted = {RoomId(room): Role.MEMBER for room in rooms}
        one = Pretended(Principal(user=UserId(user), expires_at=2**33, rooms=granted))
        await self.chat.admit(one.principal)
        await self.fanout.connect(one.id, one.principal)
        self.hub.add(Peer(one.id, Life(self.hub.now()), one.socket, one.socket.write))
        return one

    def give(self, one: Pretended, body: str, answer: Callable[[bytes], None], done: Callable[[], None]) -> None:
        """Give the chat a frame of this connection, by the way that the gateway would choose.

        Args:
            one: whose frame it is.
            body: its text.
            answer: called with the answer, if there is one.
            done: called when all is done, after that.

        """
        if not self._calls.shorten(self._route, one.id, body, answer, done, self.hub.now()):
            self._calls.start(self._route, one.event(body), answer, done)

    async def ask(self, one: Pretended, **fields: object) -> dict[str, Any]:
        """What the chat answers a frame of this connection.

        Raises:
            RuntimeError: it was an error; the message has it.

        """
        body = msgspec.json.encode({**fields, "ref": "ask"}).decode()
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.give(one, body, answered.set_result, _nothing)
        reply: dict[str, Any] = msgspec.json.decode(await answered)
        if reply.get("type") != "ok":
            raise RuntimeError(f"{fields} was answered by {reply}")
        return reply

    async def listener(self, user: str, rooms: Sequence[str]) -> Pretended:
        """A connection that listens to the rooms."""
        one = await self.connect(user, rooms)
        await self.ask(one, action="sync")
        return one

    async def go(self, one: Pretended) -> None:
        """End a connection."""
        self.hub.remove(self._peer(one))
        await self.fanout.disconnect_connection(one.id)

    def _peer(self, one: Pretended) -> Peer:
        peer = self.hub.get(one.id)
        assert peer is not None
        return peer

    async def fill(self, wanted: Sequence[tuple[str, Sequence[str]]]) -> list[Pretended]:
        """So many listeners: of each its user and rooms."""
        found: list[Pretended] = []
        for begin in range(0, len(wanted), AT_ONCE):
            some = wanted[begin : begin + AT_ONCE]
            found += await asyncio.gather(*(self.listener(user, rooms) for user, rooms in some))
        return found

    async def make_rooms(self, rooms: Sequence[str]) -> None:
        """Public rooms that are not there yet."""
        for begin in range(0, len(rooms), AT_ONCE):
            await asyncio.gather(
                *(
                    self.store.create_room(
                        RoomId(room), RoomKind.PUBLIC, name="", by=UserId("bench"), at=0, members=[], exist_ok=True
                    )
                    for room in rooms[begin : begin + AT_ONCE]
                )
            )


def _nothing() -> None:
    pass


@contextlib.asynccontextmanager
async def pretended_node(url: str | None = None, chat: Chat | None = None, **limits: float) -> AsyncIterator[Node]:
    """A node on a SQLite file of its own, or on the store at `url`; nobody is held back for being quick.

    Args:
        url: of the store.
        chat: which is not bound yet; None for one like all.
        limits: those of `ChatLimits` that are to be others.

    """
    with tempfile.TemporaryDirectory(prefix="hubbub-bench-") as folder:
        chat, clock, hub = chat or Chat(), SystemClock(), Hub()
        async with open_store(url or f"sqlite:///{folder}/bench.db") as store:
            read = partial(read_after, store)
            async with open_fanout("local", sink=hub, read=read, clock=clock) as fanout:
                verifier = JwtVerifier(secrets=["a secret that is not used in this bench"])
                chosen = ChatLimits(rate=0, user_rate=0, **limits)  # type: ignore[arg-type]  # all are numbers
                chat.bind(store=store, fanout=fanout, directory=fanout, tokens=verifier, clock=clock, limits=chosen)
                yield Node(chat, store, fanout, hub)
                await chat.aclose()


def cpu_s() -> float:
    """Processor time of all threads of this process so far, in seconds."""
    return time.process_time()
