"""How the ports of a node are had, the HTTP servers on them, and what is said where they cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
from collections.abc import Coroutine, Generator
from typing import Any, NamedTuple

import uvicorn
from starlette.types import ASGIApp

logger = logging.getLogger("hubbub")

HTTP_SHUTDOWN_S = 5
"""How long HTTP requests under way may take after a drain."""

ACCEPTED_A_TURN = 16
"""How many connections a turn of the event loop accepts from a socket."""

_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class CannotStart(Exception):
    """The node cannot start; the message says why and what to do."""


class Servers:
    """A node's HTTP servers and the work beside them, which begin one by one and end together."""

    def __init__(self) -> None:
        self._servers: list[Server] = []
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<Servers: {len(self._servers)}, and {len(self._tasks) - len(self._servers)} tasks>"

    async def listen(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        """Begin to serve on bound sockets; returns when it accepts.

        Raises:
            CannotStart: it cannot.

        """
        await self.serve(Server(config), sockets)

    async def serve(self, server: Server, sockets: list[socket.socket]) -> None:
        """`listen`, for a server of another kind."""
        self._servers.append(server)
        task = self.own(server.serve(sockets=sockets), "server")
        accepting = asyncio.get_running_loop().create_task(server.accepting.wait())
        try:
            await asyncio.wait([task, accepting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            accepting.cancel()
        if task.done():
            self._tasks.remove(task)
            error = task.exception()
            if isinstance(error, OSError):
                raise CannotStart(_address_trouble(error, *sockets[0].getsockname()[:2])) from error
            raise error or RuntimeError("the HTTP server ended before it began")

    def own(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Let work go on beside the servers until they end."""
        task = asyncio.get_running_loop().create_task(work, name=f"hubbub {name}")
        self._tasks.append(task)
        return task

    async def failed(self) -> None:
        """Return when a part ends that should not; raises what it raised."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    def stop_accepting(self) -> None:
        """Take no further connections."""
        for server in self._servers:
            server.stop_accepting()

    async def end(self) -> None:
        """End the servers in good order, and the work beside them."""
        for server in self._servers:
            server.should_exit = True
        for task in self._tasks:
            if task.get_name() != "hubbub server":
                task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                logger.error("a part of the node failed: %r", outcome, exc_info=outcome)


class Server(uvicorn.Server):
    """uvicorn in our loop: our signals, and a word when it accepts.

    Attributes:
        accepting: set when it does.

    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to who runs us."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        # uvloop accepts one connection a turn from each socket it knows. Where thousands come at once the turns are
        # long, and clients would give up in the kernel's queue, where nobody can send them away.
        await super().startup([each for known in sockets or () for each in (known, *_again(known))])
        self.accepting.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; connections that do not within the time of the configuration are cut."""
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):  # such as TLS whose end the client does not answer
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)  # they are gone the turn after

    def stop_accepting(self) -> None:
        """Take no further connections; those there are stay."""
        for server in self.servers:
            server.close()


def http_only(app: ASGIApp) -> uvicorn.Config:
    """What uvicorn needs to serve `app` and no WebSocket."""
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=HTTP_SHUTDOWN_S,
    )


class Ports(NamedTuple):
    """The bound sockets of a node.

    Attributes:
        public: for everybody.
        admin: for what is not; none where that is on the public port.

    """

    public: list[socket.socket]
    admin: list[socket.socket]

    def close(self) -> None:
        """Close them."""
        for each in (*self.public, *self.admin):
            each.close()


def bind_ports(host: str, port: int, admin_host: str | None, admin_port: int | None) -> Ports:
    """The ports of a node that is alone with them, as its settings name them.

    Raises:
        CannotStart: as `bind`.

    """
    public = bind(host, port)
    try:
        return Ports(public, [] if admin_port is None else bind(admin_host or host, admin_port))
    except CannotStart:
        close_all(public)
        raise


def bind(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Sockets bound to every address of `host`, not yet listening; those that this machine does not have are left out.

    Args:
        host: an address or a name.
        port: 0 for a free one.
        shared: whether others of this user may bind it too (SO_REUSEPORT): connections are then spread over all that
            listen.

    Raises:
        CannotStart: an address is taken, none is ours, or there is none to be found.

    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else "it is no host's name"
        raise CannotStart(f"There is no address for the host {host!r}: {reason}.") from error
    bound: list[socket.socket] = []
    absent: CannotStart | None = None
    for family, _, _, _, address in dict.fromkeys(found):
        # With port 0 the first address gets a free port, and the others of the same host the same one.
        wanted = (address[0], bound[0].getsockname()[1] if bound else port, *address[2:])
        try:
            bound.append(_bound(family, wanted, shared=shared))
        except OSError as error:
            trouble = CannotStart(_address_trouble(error, str(address[0]), port))
            if error.errno not in _ABSENT:
                close_all(bound)
                raise trouble from error
            absent = trouble  # such as localhost's ::1 on a machine without IPv6
    if not bound and absent is not None:
        raise absent
    return bound


def _bound(family: int, address: tuple[Any, ...], *, shared: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
    except BaseException:
        listener.close()
        raise
    return listener


def _again(listener: socket.socket) -> list[socket.socket]:
    """The same socket by further descriptors, each of which the event loop takes for one of its own."""
    return [listener.dup() for _ in range(ACCEPTED_A_TURN - 1)]


def _address_trouble(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"The port {port} on {host} is in use; choose another with --port, or stop what uses it."
    if error.errno == errno.EACCES:
        return f"The port {port} needs more rights than this process has; choose one above 1023 with --port."
    return f"Cannot listen on {host}, port {port}: {error.strerror or error}."


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def close_all(sockets: list[socket.socket]) -> None:
    """Close them."""
    for each in sockets:
        each.close()


def close_server(server: asyncio.Server) -> None:
    """Close a server of asyncio's, when all that it has accepted so far has got its protocol.

    asyncio before Python 3.12 forgets who was accepted just before the end, and leaves that socket open (gh-109564). So
    the server stops to accept now, and is closed two turns later; a protocol may be made in between.
    """
    loop = asyncio.get_running_loop()
    for each in server.sockets:
        loop.remove_reader(each.fileno())
    loop.call_soon(loop.call_soon, server.close)


def reachable(host: str) -> str:
    """`host` as one writes it into a URL; for "all addresses" the one that always works from here."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return host if address.version == 4 else f"[{host}]"
