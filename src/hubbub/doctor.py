"""What `hubbub doctor` looks at: everything that keeps a node from starting or from carrying its load."""

from __future__ import annotations

import asyncio
import datetime
import errno
import os
import resource
import shutil
import socket
import stat
import time
from pathlib import Path
from typing import Any, Literal

import httpx
import msgspec

from hubbub.auth import JwtVerifier
from hubbub.config import Settings, SettingsError, dev_secret, masked, read_keys
from hubbub.errors import HubbubError, Unavailable
from hubbub.gateway import accelerator
from hubbub.gateway.integrations.webhook import Webhook
from hubbub.listening.certificates import BadCertificate, read_pair
from hubbub.store import open_store

FILES_OF_ITS_OWN = 100
"""Open files that a node needs beside its connections."""

FEW_FILES = 4_096
LITTLE_SPACE = 512 * 1024 * 1024
SLOW_WRITE_MS = 50.0
ANSWER_WITHIN_S = 2.0
LOOK_WITHIN_S = 5.0
ENDS_SOON = datetime.timedelta(days=14)
BUILT = 1_764_000_000
"""A time before which no clock of a running Hubbub can be, epoch seconds."""


class Finding(msgspec.Struct, frozen=True):
    """One thing looked at: its state, and in words what was found and what to do."""

    state: Literal["ok", "warn", "fail"]
    what: str
    words: str


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything, and change nothing: what is not there yet is not made."""
    findings = [Finding("ok", "settings", "all known and possible")]
    if settings.handler is not None:
        findings.append(await _handler(settings, settings.handler))
    else:
        findings += [await _keys(settings), await _store(settings), *await _fanout(settings), *_folders(settings)]
    if settings.tls_cert is not None:
        findings.append(_certificate(settings, settings.tls_cert))
    findings.append(await _port("port", settings.host, settings.port))
    if settings.admin_port:
        host = settings.admin_host or settings.host
        ports = range(settings.admin_port, settings.admin_port + settings.workers)
        findings += [await _port("admin port", host, port) for port in ports]
    elif settings.workers > 1:
        words = "/metrics is that of whichever worker answers; set --admin-port to have one for each"
        findings.append(Finding("warn", "admin port", words))
    return [*findings, _clock(settings), _files(settings), _accelerator()]


async def _keys(settings: Settings) -> Finding:
    try:
        if settings.dev and not settings.has_key and dev_secret(Path(settings.data), create=False) is None:
            return Finding("ok", "keys", "none yet: `serve --dev` makes a development secret")
        keys = read_keys(settings, create=False)
        async with JwtVerifier(
            secrets=keys.secrets,
            public_keys=keys.public_keys,
            jwks_url=settings.jwks_url,
            algorithms=settings.algorithms,
        ) as verifier:
            count = await verifier.count_keys()
    except (SettingsError, ValueError) as error:
        return Finding("fail", "keys", str(error))
    except Unavailable:
        return Finding("fail", "keys", f"jwks_url: no keys come from {settings.jwks_url}; look at it with curl")
    if count == 0:
        return Finding("fail", "keys", f"jwks_url: there is no usable key at {settings.jwks_url}")
    if settings.dev:
        return Finding("warn", "keys", "--dev: everybody on this machine gets tokens by name; not for the public")
    return Finding("ok", "keys", f"{count} to verify tokens with")


async def _handler(settings: Settings, url: str) -> Finding:
    """Whether the endpoint is there. It gets no event, and no call that would do anything."""
    try:
        Webhook(url, secrets=settings.handler_secret)
        async with httpx.AsyncClient(
            trust_env=False, verify=httpx.create_ssl_context(trust_env=True), timeout=ANSWER_WITHIN_S
        ) as client:
            answer = await client.head(url)
    except ValueError as error:
        return Finding("fail", "handler", str(error))
    except httpx.HTTPError as error:
        reason = str(error) or "no answer in time"
        return Finding("fail", "handler", f"{url} cannot be called: {reason}; start it, or set another --handler")
    if answer.is_redirect:
        where = answer.headers.get("location")
        return Finding(
            "warn", "handler", f"{url} redirects to {where}: redirects are not followed; set --handler to it"
        )
    if answer.status_code == 404 or answer.is_server_error:
        words = f"{url} answers {answer.status_code}: is that the right path?"
        return Finding("warn", "handler", words)
    if not settings.handler_secret and not settings.dev:
        return Finding("warn", "handler", f"{url} answers, but calls are not signed; set handler_secret")
    return Finding("ok", "handler", f"{url} answers")


def _store_file(settings: Settings) -> Path | None:
    """The file that the store is in; None where it is in none."""
    scheme, _, path = settings.store_url.partition("://")
    return Path(path.removeprefix("/")) if scheme == "sqlite" and path != ":memory:" else None


async def _store(settings: Settings) -> Finding:
    if settings.store_url.startswith(("postgresql:", "postgres:")):
        return await _postgres(settings.store_url)
    file = _store_file(settings)
    if settings.store_url == "sqlite://:memory:":
        return Finding("warn", "store", "in memory: what is said is gone when the server ends; set --store to keep it")
    try:
        if file is not None and not file.exists():
            return Finding("ok", "store", f"none yet: `serve` makes {file}")
        async with open_store(settings.store_url) as store:
            started = time.perf_counter()
            await store.ping()
            took_ms = (time.perf_counter() - started) * 1_000
    except OSError as error:
        return Finding("fail", "store", f"cannot look at {file}: {error.strerror}; set another --store")
    except (ValueError, HubbubError) as error:
        words = str(error).removeprefix("store: ")
        if "in use by process" in words:
            return Finding("warn", "store", f"{words}; is a Hubbub running here already?")
        return Finding("fail", "store", words)
    if file is not None and took_ms > SLOW_WRITE_MS:
        return Finding("warn", "store", f"opens and writes, but a write takes {took_ms:.0f} ms: try a quicker disk")
    return Finding("ok", "store", f"opens and writes, {took_ms:.1f} ms a write")


async def _postgres(url: str) -> Finding:
    """Whether the server can be used; it gets no tables here, and nothing is written."""
    try:
        from hubbub.store.postgres.looking import look

        started = time.perf_counter()
        async with asyncio.timeout(LOOK_WITHIN_S):
            found = await look(url)
        took_ms = (time.perf_counter() - started) * 1_000
    except ModuleNotFoundError as missing:
        return Finding("fail", "store", f"{missing.name} is not installed: pip install 'hubbub[postgres]'")
    except TimeoutError:
        return Finding("fail", "store", f"{masked(url)} does not answer within {LOOK_WITHIN_S:g} s")
    except (ValueError, HubbubError) as error:
        return Finding("fail", "store", str(error).removeprefix("store: "))
    words = (
        f"PostgreSQL {found.server}, synchronous_commit is {found.synchronous_commit}, a look takes {took_ms:.0f} ms"
    )
    if not found.tables:
        words += "; no tables yet: `serve` makes them"
    if not found.has_fsync:
        return Finding("warn", "store", f"{words}; but fsync is off: a power cut loses what was acknowledged")
    return Finding("ok", "store", words)


async def _fanout(settings: Settings) -> list[Finding]:
    """Whether NATS answers; nothing where nodes share no fan-out."""
    if settings.fanout == "local":
        if settings.is_store_shared:
            words = "local: with this store it is for one node alone; several need --fanout nats://…"
            return [Finding("warn", "fan-out", words)]
        return []
    try:
        from hubbub.fanout.nats import NatsStats, parse_address
        from hubbub.fanout.nats.link import Link

        address = parse_address(settings.fanout)
        link = Link(
            address,
            name="hubbub doctor",
            receive=lambda subject, data: None,
            connected=lambda: None,
            lost=lambda: None,
            stats=NatsStats(),
        )
        await link.open(LOOK_WITHIN_S)
        await link.aclose()
    except ModuleNotFoundError as missing:
        return [Finding("fail", "fan-out", f"{missing.name} is not installed: pip install 'hubbub[nats]'")]
    except (ValueError, HubbubError) as error:
        return [Finding("fail", "fan-out", str(error).removeprefix("fanout: "))]
    return [Finding("ok", "fan-out", f"a NATS server answers, of {', '.join(address.servers)}")]


def _folders(settings: Settings) -> list[Finding]:
    data, file = Path(settings.data), _store_file(settings)
    found = [_folder("data folder", data)]
    if file is not None and file.parent.absolute() != data.absolute():
        found.append(_folder("log folder", file.parent))
    return found


def _folder(what: str, path: Path) -> Finding:
    there = path
    try:
        while not there.exists() and there != there.parent:
            there = there.parent
        is_folder, free = there.is_dir(), shutil.disk_usage(there).free
    except OSError as error:
        return Finding("fail", what, f"cannot look at {path}: {error.strerror}; set another --data")
    if not is_folder:
        return Finding("fail", what, f"{there} is a file, not a folder; set another --data")
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding("fail", what, f"{there} cannot be written: change its owner, or set another --data")
    if free < LITTLE_SPACE:
        return Finding("warn", what, f"only {free // 2**20} MB are free where {path} is; make room")
    return Finding("ok", what, f"{path}, {free / 2**30:.0f} GB free{'' if there == path else '; not made yet'}")


async def _port(what: str, host: str, port: int) -> Finding:
    if port == 0:
        return Finding("ok", what, "a free one is taken at the start")
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        return Finding("fail", what, f"there is no address for the host {host!r}; set --host to one of this machine")
    troubles = [trouble for family, _, _, _, address in addresses if (trouble := _bind_trouble(family, address))]
    serious = [trouble for trouble in troubles if trouble.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)]
    if serious or len(troubles) == len(addresses):  # localhost may have one address less on this machine
        return await _port_trouble((serious or troubles)[0], what, host, port)
    return Finding("ok", what, f"{host}:{port} is free")


def _bind_trouble(family: int, address: tuple[Any, ...]) -> OSError | None:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None


async def _port_trouble(error: OSError, what: str, host: str, port: int) -> Finding:
    flag = f"--{what.replace(' ', '-')}"
    if error.errno == errno.EADDRINUSE:
        if await _is_hubbub(host, port):
            return Finding("warn", what, f"a Hubbub runs on {host}:{port} already; a second one needs another {flag}")
        return Finding("fail", what, f"{host}:{port} is in use; choose another with {flag}, or stop what uses it")
    if error.errno == errno.EACCES:
        return Finding("fail", what, f"{port} needs more rights than you have; choose one above 1023 with {flag}")
    return Finding("fail", what, f"cannot listen on {host}:{port}: {error.strerror}; choose another --host")


async def _is_hubbub(host: str, port: int) -> bool:
    there = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  only compared with
    for scheme in ("http", "https"):
        try:
            # Nothing is told to it, so it may be anybody.
            async with httpx.AsyncClient(trust_env=False, verify=False, timeout=ANSWER_WITHIN_S) as client:  # noqa: S501
                answer = await client.get(httpx.URL(scheme=scheme, host=there, port=port, path="/healthz"))
            if answer.json() == {"status": "ok"}:
                return True
        except (httpx.HTTPError, ValueError):
            continue
    return False


def _certificate(settings: Settings, file: str) -> Finding:
    """Whether TLS can be spoken with what the settings name, and for how long."""
    key = Path(settings.tls_key) if settings.tls_key else None
    try:
        pair = read_pair(Path(file), key)
    except BadCertificate as error:
        return Finding("fail", "certificate", str(error))
    now = datetime.datetime.now(datetime.UTC)
    names = ", ".join(pair.names) or "no name, so that no client takes it"
    if pair.begins > now:
        words = f"{file} holds from {pair.begins:%Y-%m-%d %H:%M} UTC only; is the clock right?"
        return Finding("fail", "certificate", words)
    if pair.expires <= now:
        return Finding("fail", "certificate", f"{file} has expired on {pair.expires:%Y-%m-%d}; renew it")
    words = f"for {names}, until {pair.expires:%Y-%m-%d}"
    if not pair.names:
        return Finding("fail", "certificate", f"{words}; have it issued with subject alternative names")
    if (key or Path(file)).stat().st_mode & stat.S_IROTH:
        return Finding("warn", "certificate", f"{words}; but every user can read its key in {key or file}: chmod 640")
    if pair.expires - now < ENDS_SOON:
        return Finding("warn", "certificate", f"{words}, which is soon; is it being renewed?")
    return Finding("ok", "certificate", words)


def _clock(settings: Settings) -> Finding:
    now = time.time()
    if now < BUILT:
        return Finding("fail", "clock", f"it says {time.ctime(now)}: tokens cannot be judged; set the clock")
    try:
        newest = max((file.stat().st_mtime for file in Path(settings.data).glob("*")), default=0.0)
    except OSError:
        newest = 0.0
    if newest > now + 60:
        return Finding("warn", "clock", f"files in {settings.data} are from the future: has the clock been set back?")
    return Finding("ok", "clock", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))


def _files(settings: Settings) -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # `serve` raises the soft limit to the hard one
    if hard == resource.RLIM_INFINITY:
        return Finding("ok", "open files", "no limit")
    room = max(0, hard - FILES_OF_ITS_OWN)
    words = f"{hard} allowed: room for about {room} connections"
    more = "LimitNOFILE= in systemd raises it, or `ulimit -Hn` as root"
    if settings.max_connections is not None and settings.max_connections > room:
        return Finding("fail", "open files", f"{words}, and max_connections is {settings.max_connections}; {more}")
    if hard < FEW_FILES:
        return Finding("warn", "open files", f"{words}; {more}")
    return Finding("ok", "open files", words)


def _accelerator() -> Finding:
    if accelerator.is_used():
        return Finding("ok", "accelerator", "frames are written by it")
    words = f"frames are written in plain Python, which costs more with many listeners: {accelerator.missing}"
    return Finding("ok" if accelerator.WANTED else "warn", "accelerator", words)
