"""Accepts connections that are to speak TLS: the first byte of each says whether it does, and is left to be read.

A handshake is bounded in time, and those under way in number: who dawdles gives way to who comes later. The emulator
speaks plain HTTP on the same port as well; a server for everybody tells who does so what is spoken here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import uvicorn

from hubbub.fair_timeout import fair_timeout
from hubbub.listening.servers import Server, Servers
from hubbub.listening.tls import MakeProtocol, TlsTransport, read_buffer

logger = logging.getLogger("hubbub")

TLS_HANDSHAKE = b"\x16"
"""The first byte of TLS: a record of type handshake (RFC 8446, section 5.1). No HTTP request begins with it."""

ACCEPT_AGAIN_S = 1.0
"""After how long accepting is tried again where there are no files or memory left."""

AT_A_TIME = 64
"""How many connections are accepted before others get their turn."""

SPEAKS_TLS = "This port speaks TLS: its addresses begin with https:// and wss://."
"""What is told who speaks plain HTTP to it."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

CurrentContext = Callable[[], ssl.SSLContext]


class ListenerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for connections until they are the protocol's, and at their end.

    Attributes:
        silent_s: how long one may be without a byte.
        handshake_s: how long a TLS handshake may take.
        patience_s: how long a handshake under way is waited for where all are at theirs and others wait.
        shutdown_s: how long the end of TLS may take.
        max_undecided: how many there may be at a time; of those that say nothing the oldest goes for a newer one.

    """

    silent_s: float = 10.0
    handshake_s: float = 10.0
    patience_s: float = 3.0
    shutdown_s: float = 5.0
    max_undecided: int = 256


class _Undecided:
    """A connection of which nothing is known, or whose handshake is under way.

    Attributes:
        socket: its own, as long as it has no transport.
        since: when it was accepted, monotonic seconds.
        is_silent: whether nothing has come from it.

    """

    __slots__ = ("is_silent", "since", "socket")

    def __init__(self, socket: socket.socket, since: float) -> None:
        self.socket = socket
        self.since = since
        self.is_silent = True


class TlsListener:
    """Accepts on a listening socket; what a uvicorn server needs of an `asyncio.Server`.

    Args:
        listening: a socket that listens; closed by `close`.
        make: makes the protocol of a connection that speaks TLS.
        plain: that of one that does not.
        tls: what TLS is spoken with, asked at each connection.
        limits: what holds until then.

    Attributes:
        sockets: the socket, while it listens.

    """

    def __init__(
        self,
        listening: socket.socket,
        make: MakeProtocol,
        *,
        plain: MakeProtocol,
        tls: CurrentContext,
        limits: ListenerLimits,
    ) -> None:
        self.sockets: tuple[socket.socket, ...] = (listening,)
        self._listening = listening
        self._make = make
        self._plain = plain
        self._tls = tls
        self._limits = limits
        self._buffer = read_buffer()
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[asyncio.Task[None], _Undecided] = {}  # one for each that is undecided, the oldest first
        self._is_full = False  # whether it does not accept, since all are at their handshakes
        self._impatient: asyncio.TimerHandle | None = None  # gives up the oldest; None while nobody waits for that
        self._later: asyncio.TimerHandle | None = None  # accepts again; None while nothing is in the way
        listening.setblocking(False)
        self._loop.add_reader(listening, self._accept)

    def __repr__(self) -> str:
        where = self._listening.getsockname()[:2] if self.sockets else "closed"
        silent = sum(each.is_silent for each in self._tasks.values())
        return f"<TlsListener {where}, {len(self._tasks)} undecided, {silent} of them silent>"

    def close(self) -> None:
        """Accept no more; connections that are undecided are closed, the others go on."""
        if not self.sockets:
            return
        self._loop.remove_reader(self._listening)
        for timer in (self._later, self._impatient):
            if timer is not None:
                timer.cancel()
        self.sockets = ()
        self._listening.close()
        for task in self._tasks:
            task.cancel()

    async def wait_closed(self) -> None:
        """Return when nothing is undecided any more."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    # Accepting

    def _accept(self) -> None:
        """Somebody waits at the socket."""
        if len(self._tasks) >= self._limits.max_undecided:
            self._is_full = True
            self._loop.remove_reader(self._listening)
            self._make_room()
            return
        for _ in range(min(AT_A_TIME, self._limits.max_undecided - len(self._tasks))):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # who it was is gone already
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                logger.error("no connection can be accepted: %s; trying again in %g s", error.strerror, ACCEPT_AGAIN_S)
                self._loop.remove_reader(self._listening)
                self._later = self._loop.call_later(ACCEPT_AGAIN_S, self._accept_again)
                return
            undecided = _Undecided(connection, self._loop.time())
            task = self._loop.create_task(self._decide(undecided), name="hubbub undecided connection")
            self._tasks[task] = undecided
            task.add_done_callback(self._decided)

    def _make_room(self) -> None:
        """Give up the one that has been silent for longest, or else one that takes too long, for those who wait."""
        self._impatient = None
        silent = next((task for task, each in self._tasks.items() if each.is_silent), None)
        if silent is not None:
            silent.cancel()
            return
        oldest, since = next((task, each.since) for task, each in self._tasks.items())
        left_s = since + self._limits.patience_s - self._loop.time()
        if left_s <= 0:
            oldest.cancel()
        else:
            self._impatient = self._loop.call_later(left_s, self._make_room)

    def _accept_again(self) -> None:
        self._later = None
        if self.sockets and not self._is_full:
            self._loop.add_reader(self._listening, self._accept)

    def _decided(self, task: asyncio.Task[None]) -> None:
        undecided = self._tasks.pop(task)
        if undecided.is_silent:
            undecided.socket.close()  # here, since a task that is cancelled before it has begun does nothing
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a connection could not be begun: %r", error, exc_info=error)
        if self._is_full:
            self._is_full = False
            if self._impatient is not None:
                self._impatient.cancel()
                self._impatient = None
            if self._later is None:
                self._accept_again()

    # Deciding

    async def _decide(self, undecided: _Undecided) -> None:
        """Find out what is spoken, and hand the socket over."""
        connection = undecided.socket
        try:
            connection.setblocking(False)
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with fair_timeout(self._limits.silent_s):
                first = await self._first_byte(connection)
        except (OSError, TimeoutError):
            first = b""
        undecided.is_silent = False
        if not first:
            connection.close()  # gone, or silent for too long
            return
        try:
            if first == TLS_HANDSHAKE:
                await self._shake(connection)
            else:
                await self._loop.connect_accepted_socket(self._plain, connection)
        except OSError as error:
            logger.debug("a connection ended in its handshake: %s", error)

    async def _shake(self, connection: socket.socket) -> None:
        """Do the handshake; with it done the protocol takes over."""
        transport = TlsTransport(self._tls(), self._make, self._limits.shutdown_s, self._buffer)
        try:
            async with fair_timeout(self._limits.handshake_s):
                await self._loop.connect_accepted_socket(lambda: transport, connection)
                trouble = await transport.shaken
        except BaseException:
            transport.abort()
            raise
        if trouble:
            logger.debug("a connection ended in its handshake: %s", trouble)

    async def _first_byte(self, connection: socket.socket) -> bytes:
        """The first byte, which stays to be read; none where the other has closed."""
        while True:
            try:
                return connection.recv(1, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                came = self._loop.create_future()
                self._loop.add_reader(connection, _set, came)
                try:
                    await came
                finally:
                    self._loop.remove_reader(connection)


def _set(came: asyncio.Future[None]) -> None:
    if not came.done():
        came.set_result(None)


class NoTls(asyncio.Protocol):
    """Tells a client that speaks plain HTTP what is spoken here, and is done with it.

    Args:
        linger_s: how long it may take to go then.
        connections: the server's, of which it is one until it is gone.

    Attributes:
        transport: the socket's; None before there is one.

    """

    def __init__(self, linger_s: float, connections: set[Any]) -> None:  # Any: uvicorn has other protocols in it
        self._linger_s = linger_s
        self._connections = connections
        self._end: asyncio.TimerHandle | None = None  # closes what the client does not; None once it is gone
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:  # Any: uvloop's transports have none of asyncio's classes
        """Its request has begun to arrive: whatever it is, this is the answer."""
        self.transport = transport
        self._connections.add(self)
        body = msgspec.json.encode({"message": SPEAKS_TLS})
        transport.write(
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        # What still comes is thrown away until the client is gone: one that is reset may never see the answer.
        transport.write_eof()
        self._end = asyncio.get_running_loop().call_later(self._linger_s, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._connections.discard(self)
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def shutdown(self) -> None:
        """The server ends, and waits for nobody who has been told."""
        if self.transport is not None:
            self.transport.abort()


class TlsServer(Server):
    """A uvicorn server that speaks TLS on each of its sockets.

    Args:
        config: uvicorn's; its own TLS settings are not used.
        tls: what TLS is spoken with, asked at each connection.
        tells_s: how long a client that speaks plain HTTP may take to read that TLS is spoken here; by default plain
            HTTP is served as well.
        limits: what holds for connections until it is known what they speak.

    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        tls: CurrentContext,
        tells_s: float | None = None,
        limits: ListenerLimits | None = None,
    ) -> None:
        super().__init__(config)
        self._tls = tls
        self._tells_s = tells_s
        self._limits = limits or ListenerLimits()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept on bound sockets.

        Raises:
            ValueError: there are none.
            OSError: one cannot listen.

        """
        if not sockets:
            raise ValueError("TlsServer: expected bound sockets")
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise RuntimeError("the application could not start; its log says why")
        protocol: Callable[..., asyncio.BaseProtocol] = self.config.http_protocol_class
        make = partial(protocol, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        plain: MakeProtocol = make
        if self._tells_s is not None:
            plain = partial(NoTls, self._tells_s, self.server_state.connections)
        for each in sockets:
            each.listen(self.config.backlog)
        self.servers = [
            TlsListener(each, make, plain=plain, tls=self._tls, limits=self._limits)  # type: ignore[misc]  # it has what uvicorn uses
            for each in sockets
        ]
        self.started = True
        self.accepting.set()


class TlsServers(Servers):
    """Servers of which each speaks TLS on its sockets.

    Args:
        tls, tells_s, limits: as for `TlsServer`.

    """

    def __init__(
        self, tls: CurrentContext, *, tells_s: float | None = None, limits: ListenerLimits | None = None
    ) -> None:
        super().__init__()
        self._tls = tls
        self._tells_s = tells_s
        self._limits = limits

    async def listen(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        """Begin to serve on bound sockets; returns when it accepts.

        Raises:
            CannotStart: it cannot.

        """
        await self.serve(TlsServer(config, tls=self._tls, tells_s=self._tells_s, limits=self._limits), sockets)
