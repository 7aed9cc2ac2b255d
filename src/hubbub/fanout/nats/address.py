"""The URL of a cluster fan-out: servers, credentials, TLS, and the few numbers that may be chosen.

`nats://[user:password@]host[:port][,host[:port]…][?parameter=…]`, `tls://` for servers that must speak TLS.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from hubbub.fanout.nats.subjects import PREFIX_PATTERN

DEFAULT_PORT = 4222


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the NATS servers are, how to be let in, and what is chosen.

    Attributes:
        servers: `host:port` of each; further ones of their cluster are learnt from them.
        is_tls: whether a connection that is not encrypted is refused.
        user, password, token: for servers that ask for them; never in what is logged.
        creds: a file with a JWT and a seed, as `nsc` makes it; needs the package `nkeys`.
        nkey: a file with a seed; needs the package `nkeys`.
        tls_ca, tls_cert, tls_key: files; the authority that has signed the servers' certificates (without it, those
            that the system trusts), our own certificate and its key.
        tls_name: the name in the servers' certificates, where it is not their host.
        prefix: what all subjects begin with.
        single: up to how many rooms, and users, a node subscribes to one by one; above, to groups of them.
        heartbeat_s, lease_s: how often a node says that it lives, and after which silence it is taken for dead.
        heads_s: within which time the end of each log with listeners is looked at.
        connect_s: how long a node that starts waits for a server.
        pending_bytes: how much may wait to be sent, also while no server is there.

    """

    servers: tuple[str, ...]
    is_tls: bool = False
    user: str | None = None
    password: str | None = None
    token: str | None = None
    creds: str | None = None
    nkey: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_name: str | None = None
    prefix: str = "hubbub"
    single: int = 16_384
    heartbeat_s: float = 2.0
    lease_s: float = 8.0
    heads_s: float = 10.0
    connect_s: float = 10.0
    pending_bytes: int = 8 * 1024 * 1024

    def __repr__(self) -> str:
        return f"<Address {'tls' if self.is_tls else 'nats'}://{','.join(self.servers)}>"

    def tls_context(self) -> ssl.SSLContext | None:
        """How to speak TLS; None where nothing was said of it.

        Raises:
            ValueError: a file is not there, or is none of that kind.

        """
        if not self.is_tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_cert is not None:
                context.load_cert_chain(self.tls_cert, self.tls_key)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(file for file in (self.tls_ca, self.tls_cert, self.tls_key) if file)
            raise ValueError(f"fanout: cannot use the TLS files {files}: {error}") from error
        return context


def _number(least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise ValueError(f"expected a number from {least:g} to {most:g}")
        return value

    return read


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise ValueError(f"expected a whole number from {least} to {most}")
        return int(text)

    return read


def _file(text: str) -> str:
    if not Path(text).is_file():
        raise ValueError("expected a file")
    return text


def _prefix(text: str) -> str:
    if PREFIX_PATTERN.fullmatch(text) is None:
        raise ValueError("expected words of A-Z a-z 0-9 _ - with dots between them")
    return text


PARAMETERS: dict[str, Callable[[str], str | float | int]] = {
    "creds": _file,
    "nkey": _file,
    "tls_ca": _file,
    "tls_cert": _file,
    "tls_key": _file,
    "tls_name": str,
    "prefix": _prefix,
    "single": _whole(0, 1_000_000),
    "heartbeat_s": _number(0.1, 60),
    "lease_s": _number(0.3, 600),
    "heads_s": _number(1, 600),
    "connect_s": _number(0, 600),
    "pending_bytes": _whole(65_536, 1024**3),
}
"""What may stand behind the question mark, and how it is read."""


def parse_address(url: str) -> Address:
    """The address that `url` says.

    Raises:
        ValueError: it says none; the message has neither user nor password.

    """
    scheme, _, rest = url.partition("://")
    if scheme not in ("nats", "tls") or not rest:
        raise ValueError("fanout: expected nats://host:port[,host:port…] or tls://…")
    if "@" in rest and "@" not in re.split("[/?#]", rest, maxsplit=1)[0]:  # what seems to be a host is a password then
        raise ValueError(
            "fanout: expected user and password as in URLs, where / is %2F, ? is %3F and # is %23, "
            "and an @ behind the hosts is %40; got an @ behind one of these"
        )
    try:
        parts = urlsplit(f"//{rest}")
    except ValueError:  # of brackets, which may be the password's
        raise ValueError("fanout: the URL cannot be read; [ and ] in a password are %5B and %5D") from None
    if parts.path not in ("", "/") or parts.fragment:
        raise ValueError("fanout: expected nothing between the NATS servers and the parameters, such as ?prefix=chat")
    login, at, hosts = parts.netloc.rpartition("@")
    chosen = _chosen(parts.query)
    user, colon, password = login.partition(":")
    given = {"user": unquote(user), "password": unquote(password)} if colon else {"token": unquote(user)}
    if not at or not login:
        given = {}
    has_tls_files = any(name.startswith("tls_") for name in chosen)
    address = Address(
        servers=tuple(map(_server, hosts.split(","))),
        is_tls=scheme == "tls" or has_tls_files,
        **given,  # type: ignore[arg-type]  # words
        **chosen,  # type: ignore[arg-type]  # each was read as what its field is
    )
    _check(address, has_login=bool(given))
    return address


def _chosen(query: str) -> dict[str, str | float | int]:
    chosen: dict[str, str | float | int] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in PARAMETERS:
            raise ValueError(f"fanout: there is no parameter {name!r}; expected one of {', '.join(PARAMETERS)}")
        if name in chosen:
            raise ValueError(f"fanout: the parameter {name} is there twice")
        try:
            chosen[name] = PARAMETERS[name](text)
        except ValueError as error:
            raise ValueError(f"fanout: {name}: {error}, got {text!r}") from None
    return chosen


def _server(text: str) -> str:
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        parts, port = urlsplit("//"), None
    if not parts.hostname or "@" in text:
        raise ValueError(f"fanout: expected a NATS server as host or host:port, got {text.rpartition('@')[2]!r}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port or DEFAULT_PORT}"


def _check(address: Address, *, has_login: bool) -> None:
    if has_login + (address.creds is not None) + (address.nkey is not None) > 1:
        raise ValueError("fanout: expected one of a user or token before the @, creds and nkey")
    if address.tls_key is not None and address.tls_cert is None:
        raise ValueError("fanout: tls_key without tls_cert")
    if address.lease_s < 2 * address.heartbeat_s:
        raise ValueError(
            f"fanout: expected lease_s of at least twice heartbeat_s ({address.heartbeat_s:g}), got {address.lease_s:g}"
        )
