"""`hubbub doctor`: what each finding is when all is well, when not quite, and when nothing would work."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import sqlite3
import time
from collections import namedtuple
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from scripts.servers import free_port

from endpoint import Endpoint, response
from hubbub import doctor
from hubbub.app import Node
from hubbub.config import Settings, dev_secret
from hubbub.doctor import Finding, examine
from hubbub.errors import Unavailable
from hubbub.gateway import accelerator
from hubbub.store import SqliteStore, open_store
from live import SECRET
from tlslab import Issuer, replace
from tokens import JwksServer, private_key, public_jwk, public_pem

Examine = Callable[..., Awaitable[Finding]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def look(what: str, **settings: Any) -> Finding:
    """The finding of that name, with settings that are fine except for what is given."""
    findings = await examine(Settings(**{"port": 0, "secret": SECRET, **settings}))
    (found,) = [finding for finding in findings if finding.what == what]
    return found


async def test_on_a_good_machine_all_is_well(monkeypatch: pytest.MonkeyPatch):
    """Everything is looked at, in this order."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (65_536, 65_536))
    findings = await examine(Settings(port=0, secret=SECRET, admin_port=free_port()))
    assert [finding.what for finding in findings] == [
        "settings",
        "keys",
        "store",
        "data folder",
        "port",
        "admin port",
        "clock",
        "open files",
        "accelerator",
    ]
    assert {finding.state for finding in findings} == {"ok"}


async def test_looking_changes_nothing(folder: Path):
    """No folder, database or secret is made: whoever looks may be another user than the one who serves."""
    await examine(Settings(port=0, dev=True))
    await examine(Settings(port=0, secret=SECRET, store="sqlite:///logs/hubbub.db"))
    assert list(folder.iterdir()) == []


# Keys


async def test_no_keys_is_a_failure_that_says_what_to_set():
    """The words are those that `serve` refuses with."""
    found = await look("keys", secret=None)
    assert found.state == "fail"
    assert "HUBBUB_SECRET" in found.words
    assert "--dev" in found.words


async def test_keys_that_can_be_used_are_counted(folder: Path):
    """Each secret and each public key."""
    (folder / "secret").write_text(f"{SECRET}\n{SECRET}-older")
    (folder / "key.pem").write_text(public_pem(private_key("ES256")))
    found = await look("keys", secret=None, secret_file="secret", public_keys=["key.pem"])
    assert found == Finding("ok", "keys", "3 to verify tokens with")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"secret": "short"}, "secret: expected at least 32 bytes, got 5"),
        ({"secret": None, "secret_file": "none"}, "secret_file: cannot read none"),
        ({"public_keys": ["weak.pem"]}, "public_keys: expected the curve P-256 or Ed25519, got P-384"),
        ({"algorithms": ["RS256"]}, "algorithms: expected one that there is a key for, got RS256"),
        ({"jwks_url": "http://"}, "jwks_url: expected an http or https address"),
    ],
)
async def test_a_key_that_cannot_be_used_is_a_failure(folder: Path, settings: dict[str, Any], words: str):
    """The setting is named."""
    (folder / "weak.pem").write_text(public_pem(ec.generate_private_key(ec.SECP384R1())))
    found = await look("keys", **settings)
    assert found.state == "fail"
    assert words in found.words


async def test_development_is_no_failure_and_a_warning_once_there_is_a_secret(folder: Path):
    """Before the first start there is nothing yet; then it is said what it means."""
    found = await look("keys", secret=None, dev=True)
    assert found == Finding("ok", "keys", "none yet: `serve --dev` makes a development secret")
    dev_secret(folder / "hubbub-data", create=True)
    for settings in ({"secret": None}, {}):
        found = await look("keys", dev=True, **settings)
        assert (found.state, found.words.endswith("not for the public")) == ("warn", True)


async def test_a_development_secret_that_is_broken_is_a_failure(folder: Path):
    """It is not mistaken for one that is not there yet."""
    (folder / "hubbub-data").mkdir()
    (folder / "hubbub-data/dev-secret").write_text("")
    found = await look("keys", secret=None, dev=True)
    assert (found.state, "remove the file" in found.words) == ("fail", True)


async def test_keys_at_an_address_are_fetched(jwks: JwksServer):
    """They count like others; an address without keys, or without an answer, is a failure that names it."""
    jwks.document = {"keys": [public_jwk("ES256", private_key("ES256"))]}
    assert await look("keys", secret=None, jwks_url=jwks.url) == Finding("ok", "keys", "1 to verify tokens with")
    jwks.document = {"keys": []}
    found = await look("keys", secret=None, jwks_url=jwks.url)
    assert found == Finding("fail", "keys", f"jwks_url: there is no usable key at {jwks.url}")
    jwks.document = b"<html>"
    found = await look("keys", secret=None, jwks_url=jwks.url)
    assert found.state == "fail"
    assert jwks.url in found.words
    assert "curl" in found.words


# The store


async def test_a_store_that_is_there_is_opened_and_written(folder: Path):
    """And how long a write takes is said."""
    async with open_store("sqlite:///hubbub-data/hubbub.db"):
        pass
    found = await look("store")
    assert found.state == "ok"
    assert "opens and writes, " in found.words


async def test_a_store_that_is_not_there_yet_is_no_failure():
    """`serve` makes it."""
    assert await look("store") == Finding("ok", "store", "none yet: `serve` makes hubbub-data/hubbub.db")


async def test_a_store_in_memory_is_a_warning():
    """What is said there is gone at the end."""
    found = await look("store", store="sqlite://:memory:")
    assert (found.state, "--store" in found.words) == ("warn", True)


async def test_a_store_in_use_is_a_warning(folder: Path):
    """It may be the very server that one asks about."""
    async with open_store("sqlite:///hubbub-data/hubbub.db"):
        found = await look("store")
    assert found.state == "warn"
    assert f"in use by process {os.getpid()}" in found.words
    assert found.words.endswith("is a Hubbub running here already?")


@pytest.mark.parametrize("kind", ["rubbish", "folder", "newer"])
async def test_a_store_that_cannot_be_opened_is_a_failure(folder: Path, kind: str):
    """The file is named, and left as it is."""
    file = folder / "log.db"
    if kind == "folder":
        file.mkdir()
    elif kind == "rubbish":
        file.write_bytes(b"rubbish" * 1_000)
    else:
        database = sqlite3.connect(file)
        database.execute("PRAGMA user_version = 999")
        database.close()
    found = await look("store", store="sqlite:///log.db")
    assert found.state == "fail"
    assert "log.db" in found.words
    if kind == "rubbish":
        assert file.read_bytes() == b"rubbish" * 1_000


async def test_a_slow_disk_is_a_warning(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Every acknowledgement waits for it."""
    async with open_store("sqlite:///hubbub-data/hubbub.db"):
        pass
    monkeypatch.setattr(doctor, "SLOW_WRITE_MS", 0.0)
    found = await look("store")
    assert (found.state, "quicker disk" in found.words) == ("warn", True)


async def test_a_store_that_cannot_be_written_is_a_failure(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Opening is not enough."""

    async def full(self: SqliteStore) -> None:
        raise Unavailable("The disk is full.")

    async with open_store("sqlite:///hubbub-data/hubbub.db"):
        pass
    monkeypatch.setattr(SqliteStore, "ping", full)
    assert await look("store") == Finding("fail", "store", "The disk is full.")


# Folders


Usage = namedtuple("Usage", "total used free")


async def test_a_folder_with_room_is_well(folder: Path):
    """Whether it is there already is said."""
    assert (await look("data folder")).words.endswith("; not made yet")
    (folder / "hubbub-data").mkdir()
    found = await look("data folder")
    assert (found.state, found.words.endswith("GB free")) == ("ok", True)


async def test_little_space_is_a_warning(monkeypatch: pytest.MonkeyPatch):
    """A full disk ends the chat."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 2**40, 100 * 2**20))
    found = await look("data folder")
    assert found == Finding("warn", "data folder", "only 100 MB are free where hubbub-data is; make room")


async def test_a_file_in_the_folders_place_is_a_failure(folder: Path):
    """Also further up in its path."""
    (folder / "file").write_text("")
    for data in ("file", "file/below"):
        found = await look("data folder", data=data)
        assert found.state == "fail"
        assert "file" in found.words


async def test_a_folder_that_cannot_be_written_is_a_failure(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """It is said whose owner to change."""
    (folder / "hubbub-data").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = await look("data folder")
    assert found == Finding(
        "fail", "data folder", "hubbub-data cannot be written: change its owner, or set another --data"
    )


async def test_a_log_elsewhere_has_its_folder_looked_at_too(folder: Path):
    """`--store` may name another disk."""
    (folder / "file").write_text("")
    found = await look("log folder", store="sqlite:///file/hubbub.db")
    assert found.state == "fail"


# Ports


@pytest.fixture
def taken() -> Any:
    """A port on which something listens that is no Hubbub and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0)
        yield listener.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
async def test_a_free_port_is_well(host: str):
    """So is whichever is free."""
    port = free_port()
    assert await look("port", host=host, port=port) == Finding("ok", "port", f"{host}:{port} is free")
    assert (await look("port", host=host, port=0)).state == "ok"


async def test_a_port_in_use_is_a_failure(taken: int, monkeypatch: pytest.MonkeyPatch):
    """It is said which flag chooses another."""
    monkeypatch.setattr(doctor, "ANSWER_WITHIN_S", 0.1)
    found = await look("port", port=taken)
    assert found == Finding(
        "fail", "port", f"127.0.0.1:{taken} is in use; choose another with --port, or stop what uses it"
    )
    found = await look("admin port", admin_port=taken)
    assert (found.state, "--admin-port" in found.words) == ("fail", True)


async def test_a_port_in_use_by_a_hubbub_is_a_warning():
    """Who asks about a server that runs is not told that it cannot."""
    from hubbub.app import Node

    async with Node(Settings(port=0, secret=SECRET)) as node:
        for host in ("127.0.0.1", "0.0.0.0"):
            found = await look("port", host=host, port=node.port)
            assert found.state == "warn"
            assert f"a Hubbub runs on {host}:{node.port} already" in found.words


async def test_a_port_that_needs_more_rights_is_a_failure(monkeypatch: pytest.MonkeyPatch):
    """It is said which ports need none."""

    class Denied(socket.socket):
        def bind(self, address: Any) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", Denied)
    found = await look("port", port=80)
    assert found == Finding("fail", "port", "80 needs more rights than you have; choose one above 1023 with --port")


@pytest.mark.parametrize("host", ["a..b", "192.0.2.1"])
async def test_a_host_that_is_not_here_is_a_failure(host: str):
    """Neither a name without an address nor somebody else's address."""
    found = await look("port", host=host, port=free_port())
    assert found.state == "fail"
    assert host in found.words
    assert "--host" in found.words


# A handler


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with Endpoint() as running:
        yield running


WHSEC = "whsec_" + "A" * 43 + "="


async def test_with_a_handler_nothing_of_a_chat_is_looked_at(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch):
    """No keys of tokens, no store, no folder; the endpoint is asked without an event."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (65_536, 65_536))
    endpoint.answer = lambda call: response(405)
    findings = await examine(Settings(port=0, handler=endpoint.url, handler_secret=[WHSEC]))
    assert [finding.what for finding in findings] == [
        "settings",
        "handler",
        "port",
        "clock",
        "open files",
        "accelerator",
    ]
    assert {finding.state for finding in findings} == {"ok"}
    assert [(call.line, call.body) for call in endpoint.calls] == [("HEAD /events HTTP/1.1", b"")]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (response(301, location="/events/"), "redirects to /events/: redirects are not followed"),
        (response(404), "answers 404: is that the right path?"),
        (response(503), "answers 503"),
    ],
)
async def test_a_handler_that_answers_oddly_is_a_warning(endpoint: Endpoint, answer: bytes, words: str):
    """It may yet take events."""
    endpoint.answer = lambda call: answer
    found = await look("handler", handler=endpoint.url, handler_secret=[WHSEC])
    assert found.state == "warn"
    assert f"{endpoint.url} {words}" in found.words


async def test_a_handler_without_a_secret_is_a_warning_but_in_development(endpoint: Endpoint):
    """Whoever reaches it could play the gateway."""
    found = await look("handler", handler=endpoint.url)
    assert (found.state, "set handler_secret" in found.words) == ("warn", True)
    assert await look("handler", handler=endpoint.url, dev=True) == Finding("ok", "handler", f"{endpoint.url} answers")


async def test_a_handler_that_cannot_be_called_is_a_failure():
    """It is said what to do."""
    url = f"http://127.0.0.1:{free_port()}/events"
    found = await look("handler", handler=url, handler_secret=[WHSEC])
    assert found.state == "fail"
    assert found.words.startswith(f"{url} cannot be called: ")
    assert found.words.endswith("; start it, or set another --handler")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"handler": "events"}, "expected an http or https address such as"),
        ({"handler": "http://x", "handler_secret": ["whsec_YWJj"]}, "expected at least 24 bytes, got 3"),
    ],
)
async def test_a_handler_that_cannot_be_one_is_a_failure(settings: dict[str, Any], words: str):
    """As `serve` would say."""
    found = await look("handler", **settings)
    assert (found.state, words in found.words) == ("fail", True)


# Clock and limits


async def test_a_clock_from_long_ago_is_a_failure(monkeypatch: pytest.MonkeyPatch):
    """No token could be judged."""
    monkeypatch.setattr(time, "time", lambda: 1_000_000_000.0)
    found = await look("clock")
    assert (found.state, found.words.endswith("set the clock")) == ("fail", True)


async def test_files_from_the_future_are_a_warning(folder: Path):
    """The clock may have been set back."""
    data = folder / "hubbub-data"
    data.mkdir()
    (data / "hubbub.db-wal").write_text("")
    assert (await look("clock", store="sqlite://:memory:")).state == "ok"
    os.utime(data / "hubbub.db-wal", (time.time() + 3_600,) * 2)
    found = await look("clock", store="sqlite://:memory:")
    assert (found.state, "has the clock been set back?" in found.words) == ("warn", True)


@pytest.mark.parametrize(
    ("limits", "max_connections", "state", "words"),
    [
        ((65_536, 65_536), None, "ok", "65536 allowed: room for about 65436 connections"),
        ((65_536, 65_536), 65_000, "ok", "room for"),
        ((1_024, 65_536), None, "ok", "65536 allowed"),
        ((1_024, resource.RLIM_INFINITY), None, "ok", "no limit"),
        ((1_024, 1_024), None, "warn", "LimitNOFILE= in systemd raises it"),
        ((50, 50), None, "warn", "room for about 0 connections"),
        ((65_536, 65_536), 65_437, "fail", "max_connections is 65437"),
        ((1_024, 4_096), 5_000, "fail", "LimitNOFILE= in systemd raises it"),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 10**6, "ok", "no limit"),
    ],
)
async def test_the_limit_of_open_files_is_held_against_the_connections(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], max_connections: int | None, state: str, words: str
):
    """Few are a warning, fewer than what is configured a failure, and how to raise it is said.

    What counts is the hard limit, since `serve` takes all that it may have.
    """
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    found = await look("open files", max_connections=max_connections)
    assert found.state == state
    assert words in found.words


# The certificate


async def test_a_certificate_that_holds_is_well(folder: Path):
    """What it is for and until when is said; without TLS there is no such line."""
    issuer = Issuer(folder)
    issuer.write("chat.example.com", days=60)
    found = await look("certificate", tls_cert=str(issuer.cert), tls_key=str(issuer.key))
    assert found.state == "ok"
    assert found.words.startswith("for chat.example.com, until 20")
    assert "certificate" not in [each.what for each in await examine(Settings(port=0, secret=SECRET))]


@pytest.mark.parametrize(
    ("since_days", "days", "state", "words"),
    [
        (60, 5, "warn", "which is soon"),
        (60, -1, "fail", "has expired on"),
        (-2, 60, "fail", "UTC only; is the clock right?"),
    ],
)
async def test_a_certificate_that_does_not_hold_is_told(
    folder: Path, since_days: float, days: float, state: str, words: str
):
    """Before clients find out."""
    issuer = Issuer(folder)
    issuer.write("chat.example.com", days=days, since_days=since_days)
    found = await look("certificate", tls_cert=str(issuer.cert), tls_key=str(issuer.key))
    assert found.state == state
    assert words in found.words


async def test_a_key_that_does_not_belong_to_the_certificate_is_a_failure(folder: Path):
    """The words are those that `serve` refuses with."""
    issuer = Issuer(folder)
    issuer.write()
    old = issuer.key.read_bytes()
    issuer.write()
    replace(issuer.key, old)
    found = await look("certificate", tls_cert=str(issuer.cert), tls_key=str(issuer.key))
    assert (found.state, found.words.partition(":")[0]) == ("fail", "tls_key")


async def test_a_key_that_everybody_reads_is_a_warning(folder: Path):
    """As it would be of a secret."""
    issuer = Issuer(folder)
    issuer.write(days=60)
    issuer.key.chmod(0o644)
    found = await look("certificate", tls_cert=str(issuer.cert), tls_key=str(issuer.key))
    assert found.state == "warn"
    assert "every user can read its key" in found.words


async def test_a_port_where_a_hubbub_speaks_tls_is_known(folder: Path):
    """A port that one has is told from one that somebody else has."""
    issuer = Issuer(folder)
    issuer.write()
    tls = {"tls_cert": str(issuer.cert), "tls_key": str(issuer.key)}
    async with Node(Settings(port=0, secret=SECRET, data=str(folder), **tls)) as node:
        found = await look("port", port=node.port, **tls)
    assert found.state == "warn"
    assert "a Hubbub runs on" in found.words


async def test_it_says_whether_frames_are_written_by_the_accelerator(monkeypatch: pytest.MonkeyPatch):
    """One that was not built is worth a warning, one that was switched off is not."""
    monkeypatch.setattr(accelerator, "missing", "")
    assert await look("accelerator") == Finding("ok", "accelerator", "frames are written by it")
    in_python = "frames are written in plain Python, which costs more with many listeners: "
    monkeypatch.setattr(accelerator, "missing", "it was not built")
    monkeypatch.setattr(accelerator, "WANTED", "")
    assert await look("accelerator") == Finding("warn", "accelerator", in_python + "it was not built")
    monkeypatch.setattr(accelerator, "WANTED", "0")
    assert (await look("accelerator")).state == "ok"
