"""The one place that assembles: settings in, a running node out.

`Node` is a chat with everything around it, for tests and for embedding; `serve` is a node with signals, what
`hubbub serve` runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import importlib
import ipaddress
import logging
import os
import re
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Generator
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

import hubbub
from hubbub import api, auth
from hubbub.chat import Chat, ChatLimits
from hubbub.config import Keys, Settings, SettingsError, read_keys
from hubbub.errors import Unavailable
from hubbub.fanout import LocalFanout, open_fanout
from hubbub.gateway import Gateway, GatewayLimits, Hub
from hubbub.model import MAX_PAGE, SYSTEM, Role, RoomId, RoomKind, UserId
from hubbub.ports import Store
from hubbub.protocol import Notice, encode
from hubbub.store import open_store
from hubbub.telemetry import Metrics, MetricsSources

logger = logging.getLogger("hubbub")

GENERAL = RoomId("general")
"""The public room that `--dev` begins with."""

DEV_TOKEN_TTL_S = 12 * 3600
"""How long a token lasts that the page got by name."""

SHORT_DRAIN_S = 1.0
"""The longest drain after Ctrl-C on a terminal: somebody is waiting."""

HTTP_SHUTDOWN_S = 5
"""How long HTTP requests under way may take after a drain."""

_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

WEB = Path(__file__).parent / "web"


class CannotStart(Exception):
    """The node cannot start; the message says why and what to do."""


class SystemClock:
    """The machine's time: the `Clock` of a running node."""

    def now_ms(self) -> int:
        """The time of day, epoch milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)


def load_chat(path: str) -> Chat:
    """The `Chat` at `module:attribute`, looked for in the current folder first.

    Raises:
        SettingsError: there is none there.
        CannotStart: the module raises; the message is its traceback.

    """
    if re.fullmatch(r"[\w-]+(\.[\w-]+)*:\w+(\.\w+)*", path) is None:
        raise SettingsError(f"app: expected module:attribute such as myapp:chat, got {path!r}")
    module_name, _, attribute = path.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            where = f"in {Path.cwd()} or on the Python path"
            hint = f"; write it without .py, as {module_name[:-3]}:{attribute}" if module_name.endswith(".py") else ""
            raise SettingsError(f"app: there is no module {module_name!r} {where}{hint}") from error
        raise CannotStart(f"app: the module {module_name!r} cannot be imported\n{_own_trace(error)}") from error
    found: object = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            chats = [f"{module_name}:{key}" for key, value in vars(module).items() if isinstance(value, Chat)]
            hint = f"; there is {' and '.join(chats)}" if chats else ""
            raise SettingsError(f"app: the module {module_name!r} has no {attribute!r}{hint}")
        found = getattr(found, name)
    if not isinstance(found, Chat):
        raise SettingsError(f"app: expected a hubbub.Chat at {path}, got a {type(found).__name__}")
    return found


def _own_trace(error: Exception) -> str:
    """The traceback of an import, from the imported module on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith((__name__, "importlib")):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()


class Node:
    """A running chat server: store, fan-out, chat, gateway and HTTP on their ports.

    Args:
        settings: what is to run.
        chat: the chat; by default what `settings.app` names, or a plain one.

    Attributes:
        chat: the running chat.
        hub: the live connections.
        store: the open store.
        port: the port it listens on, also when a free one was asked for; set once entered.
        admin_port: the port of `/v1` and `/metrics`, the same unless the settings say otherwise.
        draining: whether it is on its way out.

    Raises, on entering:
        SettingsError: a setting is impossible.
        CannotStart: an address is taken or not there, or the store cannot be opened.

    """

    chat: Chat
    hub: Hub
    store: Store
    port: int
    admin_port: int

    def __init__(self, settings: Settings, *, chat: Chat | None = None) -> None:
        self.settings = settings
        self.draining = False
        self._chat = chat
        self._clock = SystemClock()
        self._servers: list[_Server] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._stack = AsyncExitStack()
        self._secret: str | None = None  # signs the page's tokens; None when tokens are signed elsewhere

    def __repr__(self) -> str:
        return f"<Node {getattr(self, 'url', 'not started')}{', draining' if self.draining else ''}>"

    @property
    def url(self) -> str:
        """Where the page is, such as `http://127.0.0.1:8000`."""
        return f"http://{_reachable(self.settings.host)}:{self.port}"

    @property
    def ws_url(self) -> str:
        """Where clients connect."""
        return f"ws://{_reachable(self.settings.host)}:{self.port}{self.settings.path}"

    @property
    def admin_url(self) -> str:
        """Where `/v1` and `/metrics` are."""
        return f"http://{_reachable(self.settings.admin_host or self.settings.host)}:{self.admin_port}"

    async def __aenter__(self) -> Node:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.drain(0.0)
        finally:
            await self._stack.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        keys = read_keys(settings)
        self._secret = keys.secrets[0] if keys.secrets else None
        verifier = await stack.enter_async_context(_verifier(settings, keys))
        sockets = _bind(settings.host, settings.port)
        stack.callback(_close_all, sockets)
        self.port = sockets[0].getsockname()[1]
        admin_sockets: list[socket.socket] = []
        if settings.admin_port is not None:
            admin_sockets = _bind(settings.admin_host or settings.host, settings.admin_port)
            stack.callback(_close_all, admin_sockets)
        self.admin_port = (admin_sockets or sockets)[0].getsockname()[1]

        self.chat = self._chat or (load_chat(settings.app) if settings.app else Chat())
        if settings.dev and not all(_is_loopback(listener) for listener in sockets):
            logger.warning(
                "--dev on %s: other machines can connect, and only pages on this one get tokens by name."
                " Not for the public, and not behind a proxy here, for which everybody seems to be on this machine",
                settings.host,
            )
        self.hub = Hub()
        try:
            self.store = await stack.enter_async_context(
                open_store(settings.store_url, retain_entries=settings.retain_entries, retain_days=settings.retain_days)
            )
            fanout = await stack.enter_async_context(
                open_fanout(settings.fanout, sink=self.hub, read=self._read_after, clock=self._clock)
            )
        except (ValueError, Unavailable) as error:
            raise CannotStart(str(error)) from error
        self.chat.bind(
            store=self.store,
            fanout=fanout,
            directory=fanout,
            tokens=verifier,
            clock=self._clock,
            limits=ChatLimits(
                max_text_chars=settings.max_text_chars,
                rate=settings.rate,
                burst=settings.burst,
                user_rate=settings.user_rate,
                user_burst=settings.user_burst,
                presence_grace_s=settings.presence_grace_s,
                crowd=settings.crowd,
            ),
        )
        stack.push_async_callback(self.chat.aclose)
        if settings.dev:
            await self.store.create_room(
                GENERAL, RoomKind.PUBLIC, name="General", by=SYSTEM, at=self._clock.now_ms(), members=[], exist_ok=True
            )
        self._gateway = Gateway(
            self.chat.api(),
            hub=self.hub,
            limits=_gateway_limits(settings),
            path=settings.path,
            allowed_origins=settings.allowed_origins,
            forwarded_allow_ips=settings.forwarded_allow_ips,
        )
        public, admin = self._apps(api.Doorkeeper(self.chat, verifier), fanout)
        stack.push_async_callback(self._end_tasks)
        self._own(self.chat.run(), "chat")
        config = self._gateway.config(
            public,
            settings.host,
            self.port,
            forwarded_allow_ips=settings.forwarded_allow_ips,
            timeout_graceful_shutdown=HTTP_SHUTDOWN_S,
        )
        await self._listen(config, sockets)
        if admin is not None:
            await self._listen(_http_only(admin), admin_sockets)

    def _apps(self, doorkeeper: api.Doorkeeper, fanout: LocalFanout) -> tuple[ASGIApp, ASGIApp | None]:
        """What the public port serves, and what the admin port does if there is one."""

        async def needs() -> None:
            await self.store.ping()
            await fanout.ping()

        metrics = Metrics(MetricsSources(hub=self.hub.stats, chat=self.chat.stats, requests=doorkeeper.requests))
        health = api.health_routes(needs=needs, draining=lambda: self.draining)
        backend = [
            *api.backend_routes(doorkeeper, version=hubbub.__version__),
            *api.metrics_routes(metrics.text),
        ]
        page = [
            *api.page_routes(WEB, websocket=self.settings.path),
            *(api.dev_token_routes(self._mint) if self.settings.dev and self._secret else api.no_dev_token_routes()),
        ]
        if self.settings.admin_port is None:
            return api.create_app([*health, *backend, *page]), None
        return api.create_app([*health, *page]), api.create_app([*health, *backend])

    def _mint(self, user: UserId, name: str | None) -> api.DevToken:
        """A token for the page, which may talk in `general` with it."""
        assert self._secret is not None  # noqa: S101  or the route would not be there
        now_s = self._clock.now_ms() // 1_000
        token = auth.issue(
            self._secret,
            user=user,
            name=name,
            ttl_s=DEV_TOKEN_TTL_S,
            now_s=now_s,
            rooms={GENERAL: Role.MEMBER},
            audience=self.settings.audience,
            issuer=self.settings.issuer,
        )
        return api.DevToken(token, now_s + DEV_TOKEN_TTL_S)

    async def _read_after(self, room: RoomId, after: int) -> list[tuple[int, bytes]]:
        page = await self.store.page(room, after=after, limit=MAX_PAGE, changes=False)
        return [(entry.seq, encode(entry)) for entry in page.entries]

    async def _listen(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        server = _Server(config)
        self._servers.append(server)
        task = self._own(server.serve(sockets=sockets), "server")
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

    def _own(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"hubbub {name}")
        self._tasks.append(task)
        return task

    async def failed(self) -> None:
        """Return when a part of the node ends that should not; raises what it raised."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def drain(self, period_s: float) -> None:
        """Stop accepting, tell the connections, close them spread over `period_s` seconds, finish what was begun.

        Safe to call twice; the node stays entered, with nobody connected.
        """
        if self.draining:
            return
        self.draining = True
        for server in self._servers:
            server.stop_accepting()
        words = "This server is going away; reconnect."
        self.hub.broadcast(encode(Notice(code="going_away", message=words, in_ms=round(period_s * 1_000))))
        await self._gateway.drain(period_s)

    async def _end_tasks(self) -> None:
        """End the servers in good order, and the background work with them."""
        for server in self._servers:
            server.should_exit = True
        for task in self._tasks:
            if task.get_name() != "hubbub server":
                task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                logger.error("a part of the node failed: %r", outcome, exc_info=outcome)


class _Server(uvicorn.Server):
    """uvicorn in our loop: our signals, and a word when it accepts."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.accepting.set()

    def stop_accepting(self) -> None:
        for server in self.servers:
            server.close()


def _gateway_limits(settings: Settings) -> GatewayLimits:
    return GatewayLimits(
        max_message_bytes=settings.max_message_bytes,
        ping_after_s=settings.ping_after_s,
        idle_s=settings.idle_s,
        lifetime_s=settings.lifetime_s,
        outbox_bytes=settings.outbox_bytes,
        max_connections=settings.max_connections,
        handler_timeout_s=settings.handler_timeout_s,
        handshake_timeout_s=settings.handshake_timeout_s,
        max_header_bytes=settings.max_header_bytes,
    )


def _verifier(settings: Settings, keys: Keys) -> auth.JwtVerifier:
    """The verifier of the settings' keys.

    Raises:
        SettingsError: a key cannot be used.

    """
    try:
        return auth.JwtVerifier(
            secrets=keys.secrets,
            public_keys=keys.public_keys,
            jwks_url=settings.jwks_url,
            algorithms=settings.algorithms,
            audience=settings.audience,
            issuer=settings.issuer,
            leeway_s=settings.leeway_s,
        )
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _http_only(app: ASGIApp) -> uvicorn.Config:
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


def _bind(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to every address of `host`, not yet listening; those that this machine does not have are left out.

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
            bound.append(_bound(family, wanted))
        except OSError as error:
            trouble = CannotStart(_address_trouble(error, str(address[0]), port))
            if error.errno not in _ABSENT:
                _close_all(bound)
                raise trouble from error
            absent = trouble  # such as localhost's ::1 on a machine without IPv6
    if not bound and absent is not None:
        raise absent
    return bound


def _bound(family: int, address: tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
    except BaseException:
        listener.close()
        raise
    return listener


def _address_trouble(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"The port {port} on {host} is in use; choose another with --port, or stop what uses it."
    if error.errno == errno.EACCES:
        return f"The port {port} needs more rights than this process has; choose one above 1023 with --port."
    return f"Cannot listen on {host}, port {port}: {error.strerror or error}."


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _close_all(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _reachable(host: str) -> str:
    """`host` as one writes it into a URL; for "all addresses" the one that always works from here."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return host if address.version == 4 else f"[{host}]"


def _raise_file_limit() -> None:
    """Allow this process as many open files as it may have: each connection is one, and the usual limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        logger.warning("the limit of %d open files stays: %s", soft, error)


async def serve(settings: Settings, *, chat: Chat | None = None, announce: Callable[[str], None]) -> None:
    """Run a node until SIGTERM or SIGINT, then drain it; a second signal ends the process at once.

    Args:
        settings: what is to run.
        chat: the chat; by default what `settings.app` names, or a plain one.
        announce: told the page's address as soon as it can be opened.

    Raises:
        SettingsError, CannotStart: it could not begin.

    """
    _raise_file_limit()
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[signal.Signals] = loop.create_future()

    def received(number: signal.Signals) -> None:
        if asked.done():
            logger.warning("%s again: ending at once", number.name)
            logging.shutdown()
            os._exit(128 + number)
        asked.set_result(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received, number)
    try:
        async with Node(settings, chat=chat) as node:
            gc.collect()
            gc.freeze()  # what is there now stays, and need not be looked at again and again
            announce(node.url)
            failed = loop.create_task(node.failed())
            both: list[asyncio.Future[Any]] = [asked, failed]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                failed.result()
                raise RuntimeError("a part of the server ended by itself")
            failed.cancel()
            period_s = settings.drain_s
            if asked.result() is signal.SIGINT and sys.stdin.isatty():
                period_s = min(period_s, SHORT_DRAIN_S)
            logger.info("%s: draining for up to %g s", asked.result().name, period_s)
            await node.drain(period_s)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
