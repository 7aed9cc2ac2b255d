"""One port for plain and TLS: the first byte of a connection says which it is, and is left for who speaks it.

AWS has TLS alone, and code in functions says `https://`; a laptop's clients say `ws://localhost`. Both come to the
same `host:port`, which is what events call `domainName`.
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

import msgspec
import uvicorn

from hubbub.listening import Server, Servers

logger = logging.getLogger("hubbub.emulator")

TLS_HANDSHAKE = b"\x16"
"""The first byte of TLS: a record of type handshake (RFC 8446, section 5.1). No HTTP request begins with it."""

ACCEPT_AGAIN_S = 1.0
"""After how long accepting is tried again where there are no files or memory left."""

AT_A_TIME = 64
"""How many connections are accepted before others get their turn."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

MakeProtocol = Callable[[], asyncio.BaseProtocol]


class ListenerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for connections until they are the protocol's.

    Attributes:
        silent_s: how long one may be without a byte.
        handshake_s: how long a TLS handshake may take.
        max_undecided: how many there may be at a time; of those that say nothing the oldest goes for a newer one.

    """

    silent_s: float = 10.0
    handshake_s: float = 10.0
    max_undecided: int = 256


class DualListener:
    """Accepts on a listening socket; what a uvicorn server needs of an `asyncio.Server`.

    Args:
        listening: a socket that listens; closed by `close`.
        make: makes a connection's protocol.
        tls: what TLS is spoken with.
        limits: what holds until then.

    Attributes:
        sockets: the socket, while it listens.

    """

    def __init__(
        self, listening: socket.socket, make: MakeProtocol, *, tls: ssl.SSLContext, limits: ListenerLimits
    ) -> None:
        self.sockets: tuple[socket.socket, ...] = (listening,)
        self._listening = listening
        self._make = make
        self._tls = tls
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()  # one for each connection that is undecided
        self._silent: dict[asyncio.Task[None], socket.socket] = {}  # those without a byte so far, the oldest first
        self._is_full = False  # whether it does not accept, since all are at their handshakes
        self._later: asyncio.TimerHandle | None = None  # accepts again; None while nothing is in the way
        listening.setblocking(False)
        self._loop.add_reader(listening, self._accept)

    def __repr__(self) -> str:
        where = self._listening.getsockname()[:2] if self.sockets else "closed"
        return f"<DualListener {where}, {len(self._tasks)} undecided, {len(self._silent)} of them silent>"

    def close(self) -> None:
        """Accept no more; connections that are undecided are closed, the others go on."""
        if not self.sockets:
            return
        self._loop.remove_reader(self._listening)
        if self._later is not None:
            self._later.cancel()
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
            task = self._loop.create_task(self._decide(connection), name="hubbub undecided connection")
            self._tasks.add(task)
            self._silent[task] = connection
            task.add_done_callback(self._decided)

    def _make_room(self) -> None:
        """Accept no more until one is decided; the one that has been silent for longest is given up for that."""
        self._is_full = True
        self._loop.remove_reader(self._listening)
        if self._silent:
            next(iter(self._silent)).cancel()

    def _accept_again(self) -> None:
        self._later = None
        if self.sockets and not self._is_full:
            self._loop.add_reader(self._listening, self._accept)

    def _decided(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        silent = self._silent.pop(task, None)
        if silent is not None:
            silent.close()  # here, since a task that is cancelled before it has begun does nothing
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a connection could not be begun: %r", error, exc_info=error)
        if self._is_full:
            self._is_full = False
            if self._later is None:
                self._accept_again()

    # Deciding

    async def _decide(self, connection: socket.socket) -> None:
        """Find out what is spoken, and hand the socket over."""
        try:
            connection.setblocking(False)
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(self._limits.silent_s):
                first = await self._first_byte(connection)
        except (OSError, TimeoutError):
            first = b""
        task = asyncio.current_task()
        if task is not None:
            self._silent.pop(task, None)
        if not first:
            connection.close()  # gone, or silent for too long
            return
        tls = self._tls if first == TLS_HANDSHAKE else None
        bound_s = self._limits.handshake_s if tls else None
        try:
            await self._loop.connect_accepted_socket(self._make, connection, ssl=tls, ssl_handshake_timeout=bound_s)
        except OSError as error:  # ssl.SSLError is one: who does not trust us says so here
            logger.debug("a connection ended in its handshake: %s", error)

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


class DualServer(Server):
    """A uvicorn server that speaks plain and TLS on each of its sockets.

    Args:
        config: uvicorn's; its own TLS settings are not used.
        tls: what TLS is spoken with.
        limits: what holds for connections until it is known what they speak.

    """

    def __init__(self, config: uvicorn.Config, *, tls: ssl.SSLContext, limits: ListenerLimits | None = None) -> None:
        super().__init__(config)
        self._tls = tls
        self._limits = limits or ListenerLimits()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept on bound sockets.

        Raises:
            ValueError: there are none.
            OSError: one cannot listen.

        """
        if not sockets:
            raise ValueError("DualServer: expected bound sockets")
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise RuntimeError("the application could not start; its log says why")
        protocol: Callable[..., asyncio.BaseProtocol] = self.config.http_protocol_class
        make = partial(protocol, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        for each in sockets:
            each.listen(self.config.backlog)
        self.servers = [
            DualListener(each, make, tls=self._tls, limits=self._limits)  # type: ignore[misc]  # it has what uvicorn uses
            for each in sockets
        ]
        self.started = True
        self.accepting.set()


class DualServers(Servers):
    """Servers of which each speaks plain and TLS on its sockets.

    Args:
        tls, limits: as for `DualServer`.

    """

    def __init__(self, tls: ssl.SSLContext, *, limits: ListenerLimits | None = None) -> None:
        super().__init__()
        self._tls = tls
        self._limits = limits

    async def listen(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        """Begin to serve on bound sockets; returns when it accepts.

        Raises:
            CannotStart: it cannot.

        """
        await self.serve(DualServer(config, tls=self._tls, limits=self._limits), sockets)
