"""The settings: what can be set, where it comes from, and what it may be.

A flag wins over a `HUBBUB_*` variable, that over `hubbub.toml`, that over the default. Flags, variables, the file's
keys and the reference page are made of the fields of `Settings`. Nothing below `hubbub.app` reads any of this.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

FILE = "hubbub.toml"
PREFIX = "HUBBUB_"
_DEV_SECRET = "dev-secret"  # noqa: S105  a file's name

Port = Annotated[int, Meta(ge=0, le=65_535)]
Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]
PositiveSeconds = Annotated[float, Meta(gt=0)]


class SettingsError(Exception):
    """A setting is unknown or impossible; the message names it, where it came from, and what was expected."""


class About(msgspec.Struct, frozen=True):
    """What people are told of a setting: its help, and the panel it stands in."""

    panel: str
    help: str


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings; `SETTINGS` says what each means."""

    host: str = "127.0.0.1"
    port: Port = 8000
    admin_host: str | None = None
    admin_port: Port | None = None
    path: str = "/ws"
    forwarded_allow_ips: str = "127.0.0.1"
    allowed_origins: list[str] | None = None

    app: str | None = None
    dev: bool = False
    data: str = "hubbub-data"
    store: str | None = None
    fanout: str = "local"
    retain_entries: Positive | None = None
    retain_days: Annotated[float, Meta(gt=0)] | None = None

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
    outbox_bytes: Annotated[int, Meta(ge=64 * 1024)] = 1024 * 1024
    max_header_bytes: Annotated[int, Meta(ge=1024, le=1024 * 1024)] = 16 * 1024

    ping_after_s: PositiveSeconds = 25.0
    idle_s: PositiveSeconds | None = None
    lifetime_s: PositiveSeconds | None = None
    handshake_timeout_s: PositiveSeconds = 10.0
    handler_timeout_s: PositiveSeconds = 29.0
    drain_s: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    presence_grace_s: Seconds = 5.0
    crowd: Count = 200

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "text", "json"] = "auto"

    @property
    def store_url(self) -> str:
        """The store's URL: as set, else a SQLite file in the data folder."""
        return self.store or f"sqlite:///{Path(self.data) / 'hubbub.db'}"

    @property
    def has_key(self) -> bool:
        """Whether there is anything to verify tokens with."""
        return bool(self.secret or self.secret_file or self.public_keys or self.jwks_url)


ADDRESS, CHAT, TOKENS, LIMITS, TIME, LOGS = "Address", "Chat", "Tokens", "Limits", "Time", "Logs"

SETTINGS: dict[str, About] = {
    "host": About(ADDRESS, "Address to listen on; 0.0.0.0 for all."),
    "port": About(ADDRESS, "Port for the page, WebSocket and HTTP; 0 for a free one."),
    "admin_host": About(ADDRESS, "Address for /v1 and /metrics, if they shall not be on the public port."),
    "admin_port": About(ADDRESS, "Port for /v1 and /metrics, likewise."),
    "path": About(ADDRESS, "Path of the WebSocket."),
    "forwarded_allow_ips": About(
        ADDRESS, "Proxies whose X-Forwarded-For and -Proto are believed: addresses or networks with commas between."
    ),
    "allowed_origins": About(
        ADDRESS,
        "Web pages that may connect, such as https://app.example.com; * for all. By default only this server's own.",
    ),
    "app": About(CHAT, "Your own Chat, as module:attribute, such as myapp:chat."),
    "dev": About(CHAT, "For trying out: keeps a secret in the data folder, lets the page ask for a token by name."),
    "data": About(CHAT, "Folder for what this node keeps."),
    "store": About(
        CHAT, "Where the log is kept: sqlite:///PATH or sqlite://:memory:. By default hubbub.db in the data folder."
    ),
    "fanout": About(CHAT, "How messages reach listeners: local."),
    "retain_entries": About(CHAT, "How many of a room's last entries are kept. By default all."),
    "retain_days": About(CHAT, "For how many days entries are kept. By default for ever."),
    "secret": About(TOKENS, "Secret that HS256 tokens are signed with, at least 32 bytes."),
    "secret_file": About(TOKENS, "File with that secret."),
    "public_keys": About(TOKENS, "Files with public keys in PEM, for RS256, ES256 or EdDSA tokens."),
    "jwks_url": About(TOKENS, "Address of a JWKS document with public keys."),
    "algorithms": About(TOKENS, "Accepted algorithms. By default those that there are keys for."),
    "audience": About(TOKENS, "What a token's aud must contain."),
    "issuer": About(TOKENS, "What a token's iss must be."),
    "leeway_s": About(TOKENS, "How far apart clocks may be, seconds."),
    "max_message_bytes": About(LIMITS, "Longest message from a client, bytes."),
    "max_text_chars": About(LIMITS, "Longest text of a chat message, characters."),
    "rate": About(LIMITS, "Actions a second of one connection; 0 for no limit."),
    "burst": About(LIMITS, "How many of them at once."),
    "user_rate": About(LIMITS, "Actions a second of all connections of one user; 0 for no limit."),
    "user_burst": About(LIMITS, "How many of them at once."),
    "max_connections": About(LIMITS, "Connections at a time; more are refused with 503. By default no limit."),
    "outbox_bytes": About(LIMITS, "How much may wait for a connection that does not read, bytes; then it is closed."),
    "max_header_bytes": About(LIMITS, "Longest head of an HTTP request, bytes."),
    "ping_after_s": About(TIME, "A connection silent for so long is pinged, seconds."),
    "idle_s": About(TIME, "A connection without messages for so long is closed, seconds. By default never."),
    "lifetime_s": About(TIME, "The longest a connection lives, seconds. By default no limit."),
    "handshake_timeout_s": About(TIME, "How long the head of an HTTP request may take to arrive, seconds."),
    "handler_timeout_s": About(TIME, "How long an action may take, seconds."),
    "drain_s": About(TIME, "Over how long connections are closed at SIGTERM, seconds."),
    "presence_grace_s": About(TIME, "How long a user may be away before others are told, seconds."),
    "crowd": About(TIME, "Above how many listeners a room's typing and presence are merged."),
    "log_level": About(LOGS, "How much is logged."),
    "log_format": About(LOGS, "Text or JSON lines; auto is text on a terminal."),
}

_TYPES: dict[str, Any] = get_type_hints(Settings, include_extras=True)


def kind_of(name: str) -> str:
    """What a setting's value is, in a word or two: for messages and the reference."""
    return _kind(_TYPES[name])


def default_of(name: str) -> object:
    """A setting's default; None for none."""
    field = next(field for field in msgspec.structs.fields(Settings) if field.name == name)
    return None if field.default is msgspec.NODEFAULT else field.default


def is_list(name: str) -> bool:
    """Whether a setting takes several values."""
    return any(get_origin(part) is list for part in (_TYPES[name], *get_args(_TYPES[name])))


def load(flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None) -> Settings:
    """The settings from all sources.

    Args:
        flags: by name; None for not given.
        environ: the environment; its `HUBBUB_*` variables count, lists with commas between.
        file: a TOML file; None for `hubbub.toml` in the current folder, if it is there.

    Raises:
        SettingsError: a setting is unknown or impossible, or the file cannot be read.

    """
    values: dict[str, Any] = {}
    values.update(_from_file(file))
    for variable, text in environ.items():
        if variable.startswith(PREFIX):
            name = variable[len(PREFIX) :].lower()
            _known(name, f"the variable {variable}")
            values[name] = _convert(name, text, f"the variable {variable}", strict=False)
    for name, value in flags.items():
        if value is not None:
            flag = f"the flag --{name.replace('_', '-')}"
            _known(name, flag)
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
        raise SettingsError(f"config: cannot read {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"config: {path} is not TOML: {error}") from error
    for name, value in document.items():
        _known(name, f"the file {path}")
        document[name] = _convert(name, value, f"the file {path}", strict=True)
    return document


def _known(name: str, source: str) -> None:
    if name not in SETTINGS:
        near = difflib.get_close_matches(name, SETTINGS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SettingsError(f"{name}: there is no such setting, in {source}{hint}")


def _convert(name: str, value: object, source: str, *, strict: bool) -> Any:
    if isinstance(value, str) and is_list(name):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, str) and not strict and value == "" and type(None) in get_args(_TYPES[name]):
        value = None
    if isinstance(value, str) and not strict and _TYPES[name] is bool:
        value = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(
            value.lower(), value
        )
    try:
        return msgspec.convert(value, _TYPES[name], strict=strict)
    except msgspec.ValidationError as error:
        shown = "a value" if name == "secret" else repr(value)
        raise SettingsError(f"{name}: expected {kind_of(name)}, got {shown}, in {source} ({error})") from error


def _consistent(settings: Settings) -> None:
    """Settings that are possible alone and not together."""
    if settings.secret is not None and settings.secret_file is not None:
        raise SettingsError("secret_file: expected either secret or secret_file, got both")
    if not settings.path.startswith("/"):
        raise SettingsError(f"path: expected a path that begins with /, got {settings.path!r}")
    if settings.fanout != "local":
        raise SettingsError(f"fanout: expected local, got {settings.fanout!r}")
    if settings.store is not None and not settings.store.startswith("sqlite://"):
        raise SettingsError(f"store: expected sqlite:///PATH or sqlite://:memory:, got {settings.store!r}")
    if settings.jwks_url is not None and not settings.jwks_url.startswith(("https://", "http://")):
        raise SettingsError(f"jwks_url: expected an http(s) address, got {settings.jwks_url!r}")
    if settings.admin_host is not None and settings.admin_port is None:
        raise SettingsError("admin_port: expected a port beside admin_host, got none")
    if settings.admin_port not in (None, 0) and settings.admin_port == settings.port:
        raise SettingsError(f"admin_port: expected another port than port, got {settings.port} for both")


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
        found.append(_read("secret_file", settings.secret_file))
    if settings.dev and not settings.has_key:
        secret = dev_secret(Path(settings.data), create=create)
        if secret is not None:
            found.append(secret)
    if not found and not settings.public_keys and settings.jwks_url is None:
        raise SettingsError(NO_KEY)
    return Keys(found, [_read("public_keys", path) for path in settings.public_keys])


def dev_secret(data: Path, *, create: bool) -> str | None:
    """The development secret in the data folder; None if there is none and none shall be made.

    Two processes that make it at once agree on one.

    Raises:
        SettingsError: it cannot be read or made.

    """
    file = data / _DEV_SECRET
    try:
        if create and not file.exists():
            data.mkdir(parents=True, exist_ok=True)
            fresh = data / f".{_DEV_SECRET}-{secrets.token_hex(4)}"
            fresh.touch(mode=0o600)
            fresh.write_text(secrets.token_hex(32) + "\n", encoding="ascii")
            with contextlib.suppress(FileExistsError):
                os.link(fresh, file)
            fresh.unlink()
        return file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"data: cannot keep a development secret in {data}: {error}") from error


def _read(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(f"{name}: cannot read {path}: {reason}") from error


def _kind(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        base, meta = get_args(hint)[0], get_args(hint)[1]
        low, high = meta.ge if meta.ge is not None else meta.gt, meta.le
        above = "above " if meta.ge is None and meta.gt is not None else ""
        if high is None:
            return f"{_kind(base)}{f' {above}{low}' if above else f' from {low}' if low is not None else ''}"
        return f"{_kind(base)} from {low} to {high}"
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(get_args(hint))
    if get_origin(hint) is list:
        return "a list"
    parts = [part for part in get_args(hint) if part is not type(None)]
    if parts:
        return _kind(parts[0])
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false"}[hint]
