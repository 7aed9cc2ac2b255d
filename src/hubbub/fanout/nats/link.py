"""The one connection of a node to NATS, kept up: nats-py is used here and nowhere else.

nats-py reconnects by itself, but gives up for good on some errors of a server, and lets a caller wait for a buffer of
what was published meanwhile. So each of its clients here has one connection and is thrown away with it, and this module
makes the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from nats import errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from hubbub.errors import Unavailable
from hubbub.fanout.nats.address import Address
from hubbub.fanout.nats.stats import NatsStats

logger = logging.getLogger("hubbub.fanout.nats")

TABLE = "_subs"
"""Where nats-py looks a subscription up by its number when a message comes."""

MAX_KNOWN_SERVERS = 64
"""Servers remembered, those of the URL and those that they told of."""


class Down(Exception):
    """There is no connection just now."""


@dataclass(frozen=True)
class Pauses:
    """How long the network is waited for, in the machine's time.

    Attributes:
        attempt_s: for one server to take a connection.
        first_s, most_s: between rounds of attempts; they double from one to the other, and are jittered.
        ping_s: how often a server is asked whether it is there; after two that it does not answer it is left.
        end_s: for a connection to end.

    """

    attempt_s: float = 3.0
    first_s: float = 0.1
    most_s: float = 2.0
    ping_s: float = 3.0
    end_s: float = 1.0


class Receiver:
    """Takes every message of a connection at once.

    nats-py hands what comes for a subscription to its future. One that is never done is handed all of it, without a
    task for each subscription, and without a switch between tasks for each message.
    """

    def __init__(self, receive: Callable[[str, bytes], None]) -> None:
        self._receive = receive

    def cancelled(self) -> bool:
        """It never is."""
        return False

    def set_result(self, message: Any) -> None:  # Any: nats-py's Msg
        """Take one."""
        self._receive(message.subject, message.data)


@dataclass
class _Connection:
    """One client with its one connection."""

    client: Client
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    problem: str = ""
    one: Subscription | None = None  # stands for all in nats-py's table

    def spare(self, made: Subscription) -> int | Subscription:
        """What is kept of a subscription: its number, and nats-py keeps no more of it.

        What differs between ours is the subject alone, and each message has it. An object for each would take nearly
        four kilobytes for each user and room of a node, most of it a queue in which nothing ever waits. A nats-py that
        has no such table keeps them as it likes.
        """
        table, number = getattr(self.client, TABLE, None), getattr(made, "_id", None)
        if not isinstance(table, dict) or not isinstance(number, int) or table.get(number) is not made:
            return made
        if self.one is None:
            self.one = made
        table[number] = self.one
        return number

    @property
    def is_over(self) -> bool:
        """Whether it has ended; nats-py does not say so where something that was yet to be sent could not be."""
        return self.ended.is_set() or self.client.is_closed


class Link:
    """A connection to one of the servers of `address`, made anew when it breaks.

    Args:
        address: of the servers.
        name: what the servers call us in their lists.
        receive: is handed the subject and the bytes of each message, at once, and raises nothing.
        connected, lost: told when there is a connection, and when there is none any more.
        stats: counts.
        pauses: how long is waited.

    """

    def __init__(
        self,
        address: Address,
        *,
        name: str,
        receive: Callable[[str, bytes], None],
        connected: Callable[[], None],
        lost: Callable[[], None],
        stats: NatsStats,
        pauses: Pauses | None = None,
    ) -> None:
        self._address = address
        self._name = name
        self._receiver = Receiver(receive)
        self._connected = connected
        self._lost = lost
        self._stats = stats
        self._pauses = pauses or Pauses()
        self._tls = address.tls_context()
        self._servers = list(address.servers)
        random.shuffle(self._servers)  # nodes spread over the servers
        self._now: _Connection | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._problems: dict[str, None] = {}  # what was met and logged since there was a connection

    def __repr__(self) -> str:
        return f"<Link to {self._address!r}, {'up' if self.is_up else 'down'}>"

    @property
    def is_up(self) -> bool:
        """Whether there is a connection."""
        return self._now is not None and not self._now.is_over

    @property
    def max_payload(self) -> int:
        """How many bytes a message may have, as the server says."""
        return self._now.client.max_payload if self._now is not None else 1024 * 1024

    async def open(self, within_s: float) -> None:
        """Begin, and return when there is a connection.

        Raises:
            Unavailable: there was none within `within_s` seconds.
            ValueError: what the servers are to be shown cannot be read.

        """
        if self._address.creds or self._address.nkey:
            _require_nkeys()
        up = asyncio.Event()
        self._keeping = asyncio.create_task(self._keep(up), name="hubbub-nats")
        try:
            async with asyncio.timeout(within_s):
                await up.wait()
        except TimeoutError:
            await self.aclose()
            where = ", ".join(self._address.servers)
            problems = "; ".join(list(self._problems)[:3]) or "no answer"
            raise Unavailable(f"fanout: no NATS server at {where}: {problems}") from None
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """End the connection."""
        if self._keeping is not None:
            await end([self._keeping])
            self._keeping = None

    async def publish(self, subject: str, data: bytes) -> None:
        """Hand a message over; waits while the socket takes nothing.

        Raises:
            Down: there is no connection.

        """
        client = self._connection().client
        try:
            await client.publish(subject, data)
        except (errors.Error, OSError) as error:
            raise Down(str(error)) from error

    async def subscribe(self, subject: str) -> int | Subscription:
        """Subscribe; the server's word for it is had by `flush`. Returns what `unsubscribe` takes.

        Raises:
            Down: there is no connection.

        """
        connection = self._connection()
        try:
            made = await connection.client.subscribe(subject, future=self._receiver)  # type: ignore[arg-type]  # as one
        except (errors.Error, OSError) as error:
            raise Down(str(error)) from error
        return connection.spare(made)

    async def unsubscribe(self, subscription: int | Subscription) -> None:
        """End a subscription of the present connection; with its connection it ends by itself."""
        with contextlib.suppress(Down, errors.Error, OSError):
            if isinstance(subscription, int):
                subscription = Subscription(self._connection().client, subscription)
            await subscription.unsubscribe()

    async def flush(self, within_s: float) -> None:
        """Return when the server has taken note of all that it was told.

        Raises:
            Down: it does not say so within `within_s` seconds.

        """
        connection = self._connection()
        client = connection.client
        for _ in range(10):  # nats-py sends the question at once, and what was to be sent before it a moment later
            if not client.pending_data_size:
                break
            await asyncio.sleep(0)
        try:
            await client.flush(within_s)  # type: ignore[arg-type]  # it may be a fraction
        except (errors.Error, OSError) as error:
            # An answer that comes yet ends nats-py's reading, and nobody is told.
            connection.problem = f"no answer within {within_s:g} s"
            connection.ended.set()
            raise Down(str(error) or type(error).__name__) from error

    def _connection(self) -> _Connection:
        if self._now is None or self._now.is_over:
            raise Down("there is no connection to NATS")
        return self._now

    async def _keep(self, up: asyncio.Event) -> None:
        """Have a connection, always."""
        pause_s, has_been_up = self._pauses.first_s, False
        while True:
            connection = await self._connect()
            if connection is None:
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  nothing secret
                pause_s = min(2 * pause_s, self._pauses.most_s)
                continue
            pause_s = self._pauses.first_s
            try:
                self._now = connection
                self._stats.connected = 1
                self._stats.reconnects += has_been_up
                if has_been_up:
                    logger.info("there is a connection to NATS again")
                has_been_up = True
                self._problems.clear()
                self._learn(connection.client)
                self._connected()
                up.set()
                await self._over(connection)
            finally:
                self._now = None
                self._stats.connected = 0
                await self._end(connection)
                self._lost()
            logger.warning("the connection to NATS is lost: %s", connection.problem or "it was ended")

    async def _over(self, connection: _Connection) -> None:
        """Return when it has ended, or a little later where nats-py does not say so."""
        while not connection.is_over:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pauses.ping_s):
                    await connection.ended.wait()

    async def _connect(self) -> _Connection | None:
        """A connection to the first server that takes one; None where none does."""
        for server in list(self._servers):
            self._servers.append(self._servers.pop(self._servers.index(server)))  # the next time, another is first
            connection = await self._attempt(server)
            if connection is not None:
                return connection
        return None

    async def _attempt(self, server: str) -> _Connection | None:
        connection = _Connection(Client())

        async def failed(error: Exception) -> None:
            connection.problem = str(error) or type(error).__name__
            if connection is self._now:
                self._say_once(connection.problem)

        async def closed() -> None:
            connection.ended.set()

        try:
            async with asyncio.timeout(self._pauses.attempt_s):
                await connection.client.connect(
                    f"{'tls' if self._address.is_tls else 'nats'}://{server}",
                    name=self._name,
                    no_echo=True,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=self._pauses.attempt_s,  # type: ignore[arg-type]  # it may be a fraction
                    ping_interval=self._pauses.ping_s,  # type: ignore[arg-type]
                    max_outstanding_pings=2,
                    flush_timeout=self._pauses.attempt_s,
                    flusher_queue_size=0,  # of any length: who waits for room in it waits for ever once this ends
                    error_cb=failed,
                    closed_cb=closed,
                    disconnected_cb=closed,
                    **self._credentials(connection.client),
                )
            if self._address.is_tls and not _is_encrypted(connection.client):
                raise errors.Error("the server does not speak TLS")
        except asyncio.CancelledError:
            await self._end(connection)
            raise
        except Exception as error:  # nats-py lets through what OpenSSL, nkeys and the network raise
            await self._end(connection)
            self._say_once(f"{server}: {connection.problem or str(error) or type(error).__name__}")
            return None
        connection.problem = ""
        return connection

    def _credentials(self, client: Client) -> dict[str, Any]:
        """Arguments of nats-py; a password is told to nobody who does not speak TLS where that was asked for."""
        address = self._address
        given: dict[str, Any] = {}

        def guarded(word: str) -> Callable[[], str]:
            def tell() -> str:
                if address.is_tls and not _is_encrypted(client):
                    raise errors.Error("the server does not speak TLS")
                return word

            return tell

        for name, word in (("user", address.user), ("password", address.password), ("token", address.token)):
            if word is not None:
                given[name] = guarded(word)
        if self._tls is not None:
            given["tls"] = self._tls
        if address.tls_name is not None:
            given["tls_hostname"] = address.tls_name
        if address.creds is not None:
            given["user_credentials"] = address.creds
        if address.nkey is not None:
            given["nkeys_seed"] = address.nkey
        return given

    def _learn(self, client: Client) -> None:
        """Remember the servers of the cluster that the URL does not name."""
        for server in client.discovered_servers:
            if server.netloc not in self._servers and len(self._servers) < MAX_KNOWN_SERVERS:
                self._servers.append(server.netloc)

    async def _end(self, connection: _Connection) -> None:
        """End it, also when the other end does not listen any more."""
        ending = asyncio.create_task(connection.client.close())
        _, unfinished = await asyncio.wait([ending], timeout=self._pauses.end_s)
        if (transport := _transport(connection.client)) is not None:
            with contextlib.suppress(AttributeError):  # what asyncio's raise when they are gone
                transport.abort()
        if unfinished:
            ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)

    def _say_once(self, problem: str) -> None:
        if problem not in self._problems and len(self._problems) < 10:
            self._problems[problem] = None
            logger.warning("NATS: %s", problem)


async def end(tasks: Sequence[asyncio.Task[None]], within_s: float = 5.0) -> None:
    """Cancel these, which may be in a call of nats-py, and return when they have ended.

    Some of its calls swallow a cancellation, so it is repeated, for at most `within_s` seconds.
    """
    left, until = set(tasks), asyncio.get_running_loop().time() + within_s
    while left and asyncio.get_running_loop().time() < until:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=0.05)
    for task in left:
        logger.error("%s does not end", task.get_name())


def _transport(client: Client) -> asyncio.Transport | None:
    """Of the client's connection; nats-py has no way to end one whose far end takes nothing, nor to look at its TLS."""
    writer = getattr(client._transport, "_io_writer", None)
    return None if writer is None else writer.transport


def _is_encrypted(client: Client) -> bool:
    transport = _transport(client)
    return transport is not None and transport.get_extra_info("ssl_object") is not None


def _require_nkeys() -> None:
    if find_spec("nkeys") is None:  # nats-py imports it when it is needed
        raise ValueError("fanout: creds and nkey need the package nkeys: pip install nkeys")
