"""The one place that assembles: settings in, a running node out.

`Node` is a chat with everything around it, for tests and for embedding; `HandlerNode` is a gateway in front of somebody
else's HTTP endpoint. `serve` is either of them with signals, what `hubbub serve` runs.
"""

from __future__ import annotations

import abc
import asyncio
import importlib
import logging
import os
import re
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.types import ASGIApp

import hubbub
from hubbub import api, auth, sigv4
from hubbub.apigateway import CONNECT, DEFAULT, DISCONNECT, Api, Route
from hubbub.chat import Chat, ChatLimits
from hubbub.clock import SystemClock
from hubbub.collecting import Pauses, SettingAside
from hubbub.config import Keys, Settings, SettingsError, read_keys, read_management_keys
from hubbub.errors import Unavailable
from hubbub.fanout import LocalFanout, open_fanout
from hubbub.gateway import Gateway, GatewayLimits, Hub
from hubbub.gateway.http import LINGER_S
from hubbub.gateway.integrations.webhook import HandlerFailed, Webhook, check_address
from hubbub.listening import (
    HTTP_SHUTDOWN_S,
    CannotStart,
    Ports,
    Servers,
    bind_ports,
    http_only,
    is_loopback,
    reachable,
)
from hubbub.listening.certificates import BadCertificate, Certificates
from hubbub.listening.listener import ListenerLimits, TlsServers
from hubbub.model import SYSTEM, Role, RoomId, RoomKind, UserId
from hubbub.ports import Store
from hubbub.protocol import Notice, encode
from hubbub.store import open_store
from hubbub.stream import read_after
from hubbub.telemetry import Metrics, MetricsSources

if TYPE_CHECKING:
    from hubbub.fanout import NatsFanout

logger = logging.getLogger("hubbub")

GENERAL = RoomId("general")
"""The public room that `--dev` begins with."""

DEV_TOKEN_TTL_S = 12 * 3600
"""How long a token lasts that the page got by name."""

SHORT_DRAIN_S = 1.0
"""The longest drain after Ctrl-C on a terminal: somebody is waiting."""

WEB = Path(__file__).parent / "web"


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


NodeT = TypeVar("NodeT", bound="GatewayNode")


class GatewayNode(abc.ABC):
    """A running gateway and HTTP beside it, on their ports; what is behind it is a subclass's affair.

    Args:
        settings: what is to run.
        ports: bound sockets, closed at the end; by default it binds those of the settings.

    Attributes:
        hub: the live connections.
        pauses: how long the garbage collector has halted the process since the node began.
        port: the port it listens on, also when a free one was asked for; set once entered.
        admin_port: the port of what is not for everybody, the same unless the settings say otherwise.
        draining: whether it is on its way out.
        certificates: what it speaks TLS with; None where it does not, or has not begun.

    Raises, on entering:
        SettingsError: a setting is impossible.
        CannotStart: an address is taken or not there, a certificate cannot be used, or what is behind it cannot be
            opened.

    """

    port: int
    admin_port: int

    def __init__(self, settings: Settings, *, ports: Ports | None = None) -> None:
        self.settings = settings
        self.hub = Hub()
        self.pauses = Pauses()
        self.draining = False
        self._gateway: Gateway  # set by `_start`
        self.certificates: Certificates | None = None
        self._servers = Servers()
        self._ports = ports or Ports([], [])
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        where = self.url if "port" in vars(self) else "not started"
        return f"<{type(self).__name__} {where}{', draining' if self.draining else ''}>"

    @property
    def url(self) -> str:
        """Where HTTP is, such as `http://127.0.0.1:8000`."""
        return f"{self.settings.http_scheme}://{reachable(self.settings.host)}:{self.port}"

    @property
    def ws_url(self) -> str:
        """Where clients connect."""
        return f"ws{self.url.removeprefix('http')}{self.settings.path}"

    @property
    def admin_url(self) -> str:
        """Where `/metrics` is, and `/v1` if there is one."""
        host = reachable(self.settings.admin_host or self.settings.host)
        return f"{self.settings.http_scheme}://{host}:{self.admin_port}"

    async def __aenter__(self: NodeT) -> NodeT:
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

    @abc.abstractmethod
    async def _start(self, stack: AsyncExitStack) -> None:
        """Begin: `_take_ports`, what is behind the gateway, then `_serve`; the stack ends what has begun."""

    def _take_ports(self, stack: AsyncExitStack, dev_warning: str) -> None:
        """Have the ports before anything else begins; nobody can connect yet."""
        settings = self.settings
        stack.enter_context(self.pauses)
        stack.callback(self._close_ports)
        if settings.tls_cert is not None:
            self._speak_tls(settings.tls_cert)
        if not self._ports.public:
            self._ports = bind_ports(settings.host, settings.port, settings.admin_host, settings.admin_port)
        self.port = self._ports.public[0].getsockname()[1]
        self.admin_port = (self._ports.admin or self._ports.public)[0].getsockname()[1]
        if settings.dev and not all(is_loopback(listener) for listener in self._ports.public):
            logger.warning("--dev on %s: %s", settings.host, dev_warning)

    def _close_ports(self) -> None:
        self._ports.close()

    def _speak_tls(self, certificate: str) -> None:
        """Let the servers speak TLS, with what the settings name.

        Raises:
            CannotStart: it cannot be used.

        """
        settings = self.settings
        try:
            self.certificates = found = Certificates(
                Path(certificate), Path(settings.tls_key) if settings.tls_key else None
            )
        except BadCertificate as error:
            raise CannotStart(str(error)) from error
        within_s = settings.handshake_timeout_s
        self._servers = TlsServers(
            lambda: found.context,
            tells_s=LINGER_S,
            limits=ListenerLimits(
                silent_s=within_s, handshake_s=within_s, shutdown_s=LINGER_S, max_undecided=settings.max_handshakes
            ),
        )

    def _open_gateway(self, served: Api, keys: sigv4.Keys | None) -> None:
        self._gateway = Gateway(
            served,
            hub=self.hub,
            limits=_gateway_limits(self.settings),
            path=self.settings.path,
            allowed_origins=self.settings.allowed_origins,
            forwarded_allow_ips=self.settings.forwarded_allow_ips,
            proxy_protocol=self.settings.proxy_protocol,
            listeners=self._ports.public,
            keys=keys,
        )

    async def _serve(self, public: ASGIApp, admin: ASGIApp | None) -> None:
        """Accept connections; `admin` is on a port of its own."""
        config = self._gateway.config(
            public,
            self.settings.host,
            self.port,
            timeout_graceful_shutdown=HTTP_SHUTDOWN_S,
        )
        await self._servers.listen(config, self._ports.public)
        if admin is not None:
            await self._servers.listen(http_only(admin), self._ports.admin)
        if self.certificates is not None:
            self._servers.own(self.certificates.follow(), "certificates")

    async def failed(self) -> None:
        """Return when a part of the node ends that should not; raises what it raised."""
        await self._servers.failed()

    async def drain(self, period_s: float) -> None:
        """Stop accepting, close the connections spread over `period_s` seconds, finish what was begun.

        Safe to call twice; the node stays entered, with nobody connected.
        """
        if self.draining:
            return
        self.draining = True
        self._servers.stop_accepting()
        await self._gateway.drain(period_s)


class Node(GatewayNode):
    """A running chat server: store, fan-out, chat, gateway and HTTP on their ports.

    Args:
        settings: what is to run.
        chat: the chat; by default what `settings.app` names, or a plain one.
        ports: bound sockets, closed at the end; by default it binds those of the settings.

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
    store: Store

    def __init__(self, settings: Settings, *, chat: Chat | None = None, ports: Ports | None = None) -> None:
        super().__init__(settings, ports=ports)
        self._chat = chat
        self._clock = SystemClock()
        self._secret: str | None = None  # signs the page's tokens; None when tokens are signed elsewhere

    async def _start(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        keys = read_keys(settings)
        self._secret = keys.secrets[0] if keys.secrets else None
        verifier = await stack.enter_async_context(_verifier(settings, keys))
        self._take_ports(stack, _DEV_CHAT)
        self.chat = self._chat or (load_chat(settings.app) if settings.app else Chat())
        try:
            self.store = await stack.enter_async_context(
                open_store(settings.store_url, retain_entries=settings.retain_entries, retain_days=settings.retain_days)
            )
            fanout = open_fanout(
                settings.fanout,
                sink=self.hub,
                read=partial(read_after, self.store),
                heads=self.store.heads,
                clock=self._clock,
            )
            await stack.enter_async_context(fanout)
        except (ValueError, Unavailable) as error:
            raise CannotStart(str(error)) from error
        self.chat.bind(
            store=self.store,
            fanout=fanout,
            directory=fanout,
            tokens=verifier,
            clock=self._clock,
            limits=_chat_limits(settings),
        )
        stack.push_async_callback(self.chat.aclose)
        if settings.dev:
            await self.store.create_room(
                GENERAL, RoomKind.PUBLIC, name="General", by=SYSTEM, at=self._clock.now_ms(), members=[], exist_ok=True
            )
        self._open_gateway(self.chat.api(), _management_keys(settings))
        stack.push_async_callback(self._servers.end)
        self._servers.own(self.chat.run(), "chat")
        await self._serve(*self._apps(api.Doorkeeper(self.chat, verifier), fanout))

    def _apps(self, doorkeeper: api.Doorkeeper, fanout: LocalFanout | NatsFanout) -> tuple[ASGIApp, ASGIApp | None]:
        """What the public port serves, and what the admin port does if there is one."""

        async def needs() -> None:
            await self.store.ping()
            await fanout.ping()

        def lacks() -> str | None:
            is_alone = not isinstance(fanout, LocalFanout) and not fanout.stats.connected
            return "no NATS server is connected: what is said on other nodes comes late" if is_alone else None

        metrics = Metrics(
            MetricsSources(
                hub=self.hub.stats,
                pauses=self.pauses,
                chat=self.chat.stats,
                requests=doorkeeper.requests,
                fanout=None if isinstance(fanout, LocalFanout) else fanout.stats,
                expires=self.certificates.expires if self.certificates else None,
            )
        )
        health = api.health_routes(needs=needs, lacks=lacks, draining=lambda: self.draining)
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

    async def drain(self, period_s: float) -> None:
        """Tell the connections, and drain the node as every other."""
        if not self.draining:
            words = "This server is going away; reconnect."
            self.hub.broadcast(encode(Notice(code="going_away", message=words, in_ms=round(period_s * 1_000))))
        await super().drain(period_s)


class HandlerNode(GatewayNode):
    """A running gateway whose events all go to an HTTP endpoint: `settings.handler`. It keeps nothing.

    Attributes:
        webhook: what calls the endpoint.
        hub, port, admin_port, draining: as for every node.

    Raises, on entering:
        SettingsError: a setting is impossible, such as the endpoint's address.
        CannotStart: an address is taken or not there.

    """

    webhook: Webhook

    async def _start(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        webhook = _webhook(settings)
        self._take_ports(stack, _DEV_HANDLER)
        if not settings.handler_secret and not settings.dev:
            logger.warning("handler_secret is not set: the handler cannot tell our calls from anybody else's")
        self.webhook = await stack.enter_async_context(webhook)
        route = Route(webhook, two_way=True)
        keys = [CONNECT, DISCONNECT, DEFAULT, *settings.handler_routes]
        served = Api(
            routes=dict.fromkeys(keys, route),
            route_selection_expression=settings.route_selection_expression,
            # The first part of the path on AWS, so that `{domainName}/{stage}` of an event is where to reply.
            stage=settings.path.strip("/") or "local",
        )
        self._open_gateway(served, _management_keys(settings))
        stack.push_async_callback(self._servers.end)
        await self._serve(*self._apps())

    def _apps(self) -> tuple[ASGIApp, ASGIApp | None]:
        """What the public port serves, and what the admin port does if there is one."""
        metrics = Metrics(
            MetricsSources(
                hub=self.hub.stats,
                handler=self.webhook.calls,
                expires=self.certificates.expires if self.certificates else None,
                pauses=self.pauses,
            )
        )
        health = api.health_routes(needs=self._is_reachable, draining=lambda: self.draining)
        numbers = api.metrics_routes(metrics.text)
        if self.settings.admin_port is None:
            return api.create_app([*health, *numbers]), None
        return api.create_app(health), api.create_app([*health, *numbers])

    async def _is_reachable(self) -> None:
        try:
            await self.webhook.ping()
        except HandlerFailed:
            raise Unavailable("The handler takes no connections.") from None  # its address is not for everybody


_DEV_CHAT = (
    "other machines can connect, and only pages on this one get tokens by name."
    " Not for the public, and not behind a proxy here, for which everybody seems to be on this machine"
)

_DEV_HANDLER = "whoever reaches this port can send to every connection and close it. Not for the public"


def _webhook(settings: Settings) -> Webhook:
    """What calls the settings' handler.

    Raises:
        SettingsError: its address or a secret is none.

    """
    try:
        url = check_address(settings.handler or "")
    except ValueError as error:
        raise SettingsError(f"handler: {error}") from None
    try:
        return Webhook(
            url,
            secrets=settings.handler_secret,
            timeout_s=settings.handler_timeout_s,
            max_calls=settings.handler_calls,
        )
    except ValueError as error:
        raise SettingsError(f"handler_secret: {error}") from None


def _management_keys(settings: Settings) -> sigv4.Keys | None:
    """Whose signatures count at `@connections`; None where nobody's does."""
    known = read_management_keys(settings)
    open_to_all = settings.dev and settings.handler is not None
    return sigv4.Keys(known, accept_unknown=settings.dev) if known or open_to_all else None


def _chat_limits(settings: Settings) -> ChatLimits:
    return ChatLimits(
        max_text_chars=settings.max_text_chars,
        rate=settings.rate,
        burst=settings.burst,
        user_rate=settings.user_rate,
        user_burst=settings.user_burst,
        presence_grace_s=settings.presence_grace_s,
        crowd=settings.crowd,
    )


def _gateway_limits(settings: Settings) -> GatewayLimits:
    return GatewayLimits(
        max_message_bytes=settings.max_message_bytes,
        ping_after_s=settings.ping_after_s,
        idle_s=settings.idle_s,
        lifetime_s=settings.lifetime_s,
        outbox_bytes=settings.outbox_bytes,
        max_connections=settings.max_connections,
        max_handshakes=settings.max_handshakes,
        handler_timeout_s=settings.handler_timeout_s,
        handshake_timeout_s=settings.handshake_timeout_s,
        max_header_bytes=settings.max_header_bytes,
        deflate_min_bytes=settings.deflate_min_bytes if settings.deflate else None,
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


def _raise_file_limit() -> None:
    """Allow this process as many open files as it may have: each connection is one, and the usual limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        logger.warning("the limit of %d open files stays: %s", soft, error)


async def serve(
    settings: Settings, *, chat: Chat | None = None, ports: Ports | None = None, announce: Callable[[str], None]
) -> None:
    """Run a node until SIGTERM or SIGINT, then drain it; a second signal ends the process at once.

    Where it speaks TLS, SIGHUP has it read its certificate again.

    Args:
        settings: what is to run: a `HandlerNode` if they name a handler, else a `Node`.
        chat: the chat; by default what `settings.app` names, or a plain one.
        ports: bound sockets; by default it binds those of the settings.
        announce: told the node's address as soon as it can be opened.

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
        async with AsyncExitStack() as stack:
            node: GatewayNode = HandlerNode(settings) if settings.handler else Node(settings, chat=chat, ports=ports)
            await stack.enter_async_context(node)
            stack.enter_context(SettingAside())
            node.pauses.forget()
            if node.certificates is not None:
                loop.add_signal_handler(signal.SIGHUP, node.certificates.renew)
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
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
