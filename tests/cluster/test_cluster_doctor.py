"""`hubbub doctor` looks at PostgreSQL and NATS as `hubbub serve` would use them, and changes nothing there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scripts.servers import Nats, Postgres, free_port

from clusterlab import Shared
from hubbub.config import Settings
from hubbub.doctor import Finding, examine
from hubbub.store import open_store
from live import SECRET

PASSWORD = "4815162342"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def look(what: str, **settings: Any) -> Finding:
    """The finding of that name; no finding has the password that the settings have."""
    findings = await examine(Settings(**{"port": 0, "secret": SECRET, **settings}))
    assert not any(PASSWORD in finding.words for finding in findings)
    (found,) = [finding for finding in findings if finding.what == what]
    return found


async def test_a_server_without_fsync_is_no_place_for_a_chat(servers: Shared):
    """What it acknowledges is lost when its machine fails; tests use such a one."""
    found = await look("store", store=servers.settings()["store"], fanout=servers.nats.url)
    assert found.state == "warn"
    assert "synchronous_commit is on" in found.words
    assert found.words.endswith("but fsync is off: a power cut loses what was acknowledged")


async def test_a_good_server_is_shown_with_its_version(tmp_path_factory: pytest.TempPathFactory):
    """And whether there are tables yet: looking makes none."""
    with Postgres(safe=True) as postgres:
        found = await look("store", store=postgres.url)
        assert found.state == "ok"
        assert found.words.startswith("PostgreSQL ")
        assert found.words.endswith("no tables yet: `serve` makes them")
        assert postgres.run_sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'hubbub'", "hubbub") == "0"
        async with open_store(postgres.url):
            pass
        found = await look("store", store=postgres.url)
        assert (found.state, "no tables" in found.words) == ("ok", False)


async def test_a_server_that_acknowledges_too_early_is_refused(servers: Shared):
    """Where the URL asks for commits that are not on the disk; what is to be done is said."""
    store = servers.settings()["store"]
    found = await look("store", store=f"{store}?synchronous_commit=off")
    assert found.state == "fail"
    assert "expected synchronous_commit to be one of on, remote_apply, remote_write, got 'off'" in found.words


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("postgresql://chat:{password}@127.0.0.1:{nobody}/chat", "does not answer"),
        ("postgresql://hubbub:{password}@127.0.0.1:{port}/nowhere", "create the database first"),
        ("postgresql://hubbub:{password}@127.0.0.1:{port}/hubbub?wishes=3", "unknown parameter 'wishes'"),
    ],
)
async def test_a_store_that_cannot_be_had_is_said_with_what_to_do(servers: Shared, store: str, words: str):
    """And never with its password."""
    url = store.format(password=PASSWORD, nobody=free_port(), port=servers.postgres.port)
    found = await look("store", store=url)
    assert found.state == "fail"
    assert words in found.words


async def test_nats_is_asked_whether_it_is_there(servers: Shared):
    """The servers that the URL names are named, a password is not."""
    store = servers.settings()["store"]
    found = await look("fan-out", store=store, fanout=servers.nats.url)
    assert found == Finding("ok", "fan-out", f"a NATS server answers, of 127.0.0.1:{servers.nats.port}")
    found = await look("fan-out", store=store, fanout=f"nats://chat:{PASSWORD}@127.0.0.1:{free_port()}")
    assert found.state == "fail"
    assert "no NATS server at 127.0.0.1" in found.words
    found = await look("fan-out", store=store, fanout=f"{servers.nats.url}?wishes=3")
    assert found.state == "fail"
    assert "there is no parameter 'wishes'" in found.words


async def test_nats_that_does_not_let_us_in_is_said(servers: Shared):
    """With what the server says."""
    with Nats(arguments=["--user", "chat", "--pass", "another"]) as nats:
        url = f"nats://chat:{PASSWORD}@127.0.0.1:{nats.port}"
        found = await look("fan-out", store=servers.settings()["store"], fanout=url)
    assert found.state == "fail"
    assert "uthorization" in found.words


async def test_what_several_nodes_or_workers_lack_is_said(servers: Shared):
    """A shared store with a fan-out of one node, and workers whose metrics are those of whoever answers."""
    store = servers.settings()["store"]
    found = await look("fan-out", store=store)
    assert (found.state, "--fanout nats://" in found.words) == ("warn", True)
    found = await look("admin port", store=store, fanout=servers.nats.url, workers=2)
    assert (found.state, "--admin-port" in found.words) == ("warn", True)


async def test_every_worker_s_admin_port_is_looked_at(servers: Shared):
    """They follow one another from the first on."""
    findings = await examine(
        Settings(port=0, secret=SECRET, workers=3, admin_port=free_port(), **_shared(servers.settings()))
    )
    assert [finding.what for finding in findings].count("admin port") == 3


def _shared(settings: dict[str, str]) -> dict[str, str]:
    return {name: settings[name] for name in ("store", "fanout")}
