"""Where the server is and how it is spoken to: the URL's parameters, its hosts, what a connection is opened with."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit, urlunsplit

import asyncpg

from hubbub.store.postgres.failures import DRIVER

SAFE_COMMITS = ("on", "remote_apply", "remote_write")
"""Values of `synchronous_commit` with which a commit is on the disk before it is acknowledged."""

PASSED_ON = frozenset(
    {
        "application_name",
        "krbsrvname",
        "passfile",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "target_session_attrs",
    }
)
"""Parameters of PostgreSQL's own URLs that are left to the driver."""

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,40}\Z")


@dataclass(frozen=True)
class Options:
    """How the store uses the server; each is a parameter of its URL.

    Attributes:
        writers, readers: how many connections each node has for writing and for reading.
        patience_s: how long a call waits for a server that is not there.
        timeout_s: how long one statement may take.
        prepared_statements: whether the server is to remember them, which a pooler can prevent; None to find out.
        synchronous_commit: one of `SAFE_COMMITS`.
        schema: where the tables are.

    """

    writers: int = 4
    readers: int = 4
    patience_s: float = 10.0
    timeout_s: float = 5.0
    prepared_statements: bool | None = None
    synchronous_commit: str = "on"
    schema: str = "hubbub"

    def __post_init__(self) -> None:
        for name, number in (("writers", self.writers), ("readers", self.readers)):
            if not 1 <= number <= 100:
                raise ValueError(f"store: expected 1 to 100 {name}, got {number}")
        for name, seconds in (("patience", self.patience_s), ("timeout", self.timeout_s)):
            if not 0 < seconds <= 3_600:
                raise ValueError(f"store: expected a {name} of more than 0 and at most 3600 seconds, got {seconds:g}")
        if self.synchronous_commit not in SAFE_COMMITS:
            raise ValueError(
                f"store: expected synchronous_commit to be one of {', '.join(SAFE_COMMITS)}, "
                f"got {self.synchronous_commit!r}: what is acknowledged must be on the disk"
            )
        if not _SCHEMA.match(self.schema):
            raise ValueError(f"store: expected a schema of at most 41 letters a-z, digits and _, got {self.schema!r}")


_OURS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "writers": ("writers", int),
    "readers": ("readers", int),
    "patience": ("patience_s", float),
    "timeout": ("timeout_s", float),
    "prepared_statements": ("prepared_statements", {"on": True, "off": False}.__getitem__),
    "synchronous_commit": ("synchronous_commit", str),
    "schema": ("schema", str),
}

_HOSTS = "store: expected HOST or HOST:PORT, several with commas between"

_EXPECTED = {
    "writers": "a number",
    "readers": "a number",
    "patience": "seconds",
    "timeout": "seconds",
    "prepared_statements": "on or off",
}


def split_options(url: str) -> tuple[str, dict[str, Any]]:  # Any: values for the fields of `Options`
    """The URL without our own parameters, and these as they are named in `Options`.

    Raises:
        ValueError: a parameter is unknown or does not read as what it is.

    """
    _refuse_torn_password(url)
    try:
        parts = urlsplit(url)
    except ValueError:  # of brackets, which may be the password's: so nothing is said of what is in them
        raise ValueError(f"{_HOSTS}, got a URL that cannot be read; [ and ] in a password are %5B and %5D") from None
    kept: list[tuple[str, str]] = []
    ours: dict[str, Any] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name in PASSED_ON or name == "host":
            kept.append((name, text))
            continue
        if name not in _OURS:
            known = ", ".join(sorted({*_OURS, *PASSED_ON, "host"}))
            raise ValueError(f"store: unknown parameter {name!r} in the URL; expected one of {known}")
        field, read = _OURS[name]
        try:
            ours[field] = read(text)
        except (ValueError, KeyError):
            raise ValueError(f"store: expected {name} to be {_EXPECTED[name]}, got {text!r}") from None
    return urlunsplit(parts._replace(query=urlencode(kept))), ours


def _refuse_torn_password(url: str) -> None:
    """Refuse a URL whose password ends too early, before any message names what seems to be a host or a parameter."""
    _, _, rest = url.partition("://")
    if "@" in rest and "@" not in re.split("[/?#]", rest, maxsplit=1)[0]:
        raise ValueError(
            "store: expected user and password as in URLs, where / is %2F, ? is %3F and # is %23, "
            "and an @ behind the host is %40; got an @ behind one of these"
        )


class Address:
    """A server, or several of which one takes writes.

    Args:
        url: `postgresql://user:password@host:port,host:port/database?…`, without our own parameters.
        options: how it is used.

    Attributes:
        shown: the URL without its password.
        options: as given.
        pooled: whether something between us and the server does not take a session's settings; set when that is found.

    Raises:
        ValueError: the URL cannot be read.

    """

    def __init__(self, url: str, options: Options) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("postgresql", "postgres"):
            raise ValueError(f"store: expected postgresql://HOST/DATABASE, got {parts.scheme!r} as the scheme")
        _, _, netloc = parts.netloc.rpartition("@")
        self._hosts = [_host(each, url_host=netloc) for each in netloc.split(",")] if netloc else [None]
        self._first = 0  # of the hosts, the one that was good last
        self._url = url
        self._has_attributes = "target_session_attrs=" in parts.query
        self.shown = _without_password(parts)
        self.options = options
        self.pooled = False

    def __repr__(self) -> str:
        return f"<Address {self.shown}>"

    @property
    def prepares(self) -> bool:
        """Whether statements are prepared once and kept."""
        asked = self.options.prepared_statements
        return not self.pooled if asked is None else asked

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        """A new connection to the first of the hosts that takes writes.

        Raises:
            asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError: none does; the last one's reason.

        """
        for tried in range(len(self._hosts)):
            place = (self._first + tried) % len(self._hosts)
            try:
                connection = await self._connect_to(self._hosts[place])
            except DRIVER:
                if tried + 1 == len(self._hosts):
                    raise
            else:
                self._first = place
                return connection
        raise AssertionError("there is at least one host")

    async def _connect_to(self, host: tuple[str, int] | None) -> asyncpg.Connection[asyncpg.Record]:
        if not self.pooled:
            try:
                return await self._open(host, self._settings())
            except asyncpg.PostgresError as error:
                if not _is_about_settings(error):
                    raise
                self.pooled = True
        return await self._open(host, {})

    async def _open(self, host: tuple[str, int] | None, settings: dict[str, str]) -> asyncpg.Connection[asyncpg.Record]:
        attributes = None
        if not self._has_attributes:
            attributes = "any" if self.pooled else "read-write"
        return await asyncpg.connect(
            self._url,
            host=None if host is None else host[0],
            port=None if host is None else host[1],
            timeout=self.options.timeout_s,
            statement_cache_size=256 if self.prepares else 0,
            target_session_attrs=attributes,  # type: ignore[arg-type]  # the stub wants the enum's members
            server_settings={"application_name": "hubbub", **settings},
        )

    def _settings(self) -> dict[str, str]:
        """What a session is opened with.

        Every query here is meant to go by an index, whatever the statistics say of tables that were empty a moment ago;
        and planning the same statements again and again would cost more than running them.
        """
        return {
            **self.limits(),
            "synchronous_commit": self.options.synchronous_commit,
            "tcp_keepalives_idle": "60",  # less than what firewalls allow a connection to be silent
            "plan_cache_mode": "force_generic_plan",
            "enable_seqscan": "off",
            "jit": "off",
        }

    def limits(self) -> dict[str, str]:
        """Time-outs at the server, so that no lock outlives us for long; in milliseconds, a little before ours."""
        most_ms = max(1, int(self.options.timeout_s * 900))
        return {
            "statement_timeout": str(most_ms),
            "lock_timeout": str(most_ms),
            "idle_in_transaction_session_timeout": str(most_ms),  # of a node that stops in the middle of one
        }


def _is_about_settings(error: asyncpg.PostgresError) -> bool:
    """Whether the other side does not take our settings, as PgBouncer does not, and some engines not all."""
    words = str(error)
    return "startup parameter" in words or (error.sqlstate in ("42704", "22023") and "parameter" in words)


def _host(text: str, *, url_host: str) -> tuple[str, int]:
    """Of `host`, `host:port`, `[address]` or `[address]:port`."""
    found = re.fullmatch(r"(\[[^\]]+\]|[^:\[\]]+)(?::(\d{1,5}))?", text)
    if found is None or not 0 < int(found[2] or 5432) < 65_536:
        raise ValueError(f"{_HOSTS}, got {url_host!r}")
    return found[1].strip("[]"), int(found[2] or 5432)


def _without_password(parts: SplitResult) -> str:
    user, separator, netloc = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    return f"{parts.scheme}://{quote(name, safe='%')}{separator}{netloc}{parts.path}"
