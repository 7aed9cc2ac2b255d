"""What `hubbub doctor` looks at: everything that keeps a node from starting or from carrying its load."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import time
from pathlib import Path
from typing import Literal

import msgspec

from hubbub.auth import JwtVerifier
from hubbub.config import Settings, SettingsError, read_keys
from hubbub.errors import HubbubError
from hubbub.store import open_store

FILES_OF_ITS_OWN = 100
"""Open files that a node needs beside its connections."""

FEW_FILES = 4_096
LITTLE_SPACE = 512 * 1024 * 1024
BUILT = 1_764_000_000
"""A time before which no clock of a running Hubbub can be, epoch seconds."""


class Finding(msgspec.Struct, frozen=True):
    """One thing looked at: its state, and in words what was found and what to do."""

    state: Literal["ok", "warn", "fail"]
    what: str
    words: str


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything."""
    return [
        Finding("ok", "settings", "all known and possible"),
        _keys(settings),
        await _store(settings),
        _space(settings),
        _port("port", settings.host, settings.port),
        *(
            [_port("admin port", settings.admin_host or settings.host, settings.admin_port)]
            if settings.admin_port
            else []
        ),
        _clock(settings),
        _files(settings),
    ]


def _keys(settings: Settings) -> Finding:
    try:
        keys = read_keys(settings, create=False)
        JwtVerifier(secrets=keys.secrets, public_keys=keys.public_keys, algorithms=settings.algorithms)
    except SettingsError as error:
        if settings.dev:
            return Finding("ok", "keys", "none yet: `serve --dev` makes a development secret")
        return Finding("fail", "keys", str(error))
    except ValueError as error:
        return Finding("fail", "keys", str(error))
    if settings.dev:
        return Finding("warn", "keys", "--dev: anybody who reaches the page gets a token; not for the public")
    count = len(keys.secrets) + len(keys.public_keys) + bool(settings.jwks_url)
    return Finding("ok", "keys", f"{count} to verify tokens with")


async def _store(settings: Settings) -> Finding:
    try:
        async with open_store(settings.store_url) as store:
            started = time.perf_counter()
            await store.ping()
            took_ms = (time.perf_counter() - started) * 1_000
    except (ValueError, HubbubError) as error:
        words = str(error)
        if "in use by process" in words:
            return Finding("warn", "store", f"{words}: is a Hubbub running here already?")
        return Finding("fail", "store", words)
    if took_ms > 50:
        return Finding("warn", "store", f"opens and writes, but a write takes {took_ms:.0f} ms: a slow disk")
    return Finding("ok", "store", f"opens and writes, {took_ms:.1f} ms a write")


def _space(settings: Settings) -> Finding:
    folder = Path(settings.data)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        return Finding(
            "fail", "data folder", f"{settings.data} cannot be written: change its owner, or set another --data"
        )
    if free < LITTLE_SPACE:
        return Finding("warn", "data folder", f"only {free // 2**20} MB are free where {settings.data} is")
    return Finding("ok", "data folder", f"{settings.data}, {free / 2**30:.0f} GB free")


def _port(what: str, host: str, port: int) -> Finding:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        words = f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port, or stop what uses it"
        return Finding("fail", what, words)
    return Finding("ok", what, f"{host}:{port} is free")


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
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = max(0, soft - FILES_OF_ITS_OWN)
    words = f"{soft} allowed: room for about {room} connections"
    if settings.max_connections is not None and settings.max_connections > room:
        return Finding(
            "fail", "open files", f"{words}, max_connections is {settings.max_connections}; raise `ulimit -n`"
        )
    if soft < FEW_FILES:
        more = f"`ulimit -n {hard}` is possible" if hard > soft else "LimitNOFILE= in systemd raises it"
        return Finding("warn", "open files", f"{words}; {more}")
    return Finding("ok", "open files", words)
