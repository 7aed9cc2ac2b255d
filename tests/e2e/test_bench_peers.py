"""Two servers measured in turns, as `make bench-peers` does it, with tiny numbers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest
from bench import native, report, saving
from bench.peers import __main__ as command
from bench.peers import catalogue, install, measure

from documents import ROOT
from live import until

TINY = ("--rounds", "2", "--listeners", "4", "--seconds", "0.1", "--idle", "10", "--speakers", "6")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Peers that need no more than tests have: `websockets` in our environment, the bare one where C compiles."""
    monkeypatch.setattr(install, "python", lambda name: Path(sys.executable).parent)
    return ["websockets", *(["bare"] if shutil.which("cc") else [])]


def test_peers_are_measured_in_turns_and_become_a_page(
    names: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is started, delivers, loses nothing and is saved; the report makes tables and plots of it."""
    monkeypatch.setattr(saving, "save", partial(saving.save, folder=tmp_path))
    monkeypatch.setattr(measure, "CALM_S", (0.1, 0.1))  # nobody goes by these figures
    assert command.main(["--only", ",".join([*names, "hubbub"]), "--save", *TINY], tmp_path / "unfinished") == 0
    said = capsys.readouterr().out
    assert "round 2 of 2: websockets" in said
    result = saving.saved(tmp_path)["peers"]
    for peer in result.figures["peers"]:
        assert len(peer["deliveries"]) == len(peer["idle"]) == 2
        for times in peer["deliveries"]:
            assert [(each["listeners"], each["in_flight"], each["lost"]) for each in times] == [(4, 1, 0), (4, 16, 0)]
            assert all(each["messages"] >= each["in_flight"] and each["cpu_us"] > 0 for each in times)
        assert [each["lost"] + each["doubled"] + each["told"] for times in peer["losses"] for each in times] == [0]
    prose = tmp_path / "prose"
    prose.mkdir()
    (prose / "page.md").write_text("<!-- figures: peers -->\n")
    documents = report.documents(prose, tmp_path, tmp_path / "page.md")
    assert "| **Hubbub**, SQLite with fsync |" in documents[tmp_path / "page.md"]
    assert tmp_path / "benchmarks" / "peers-memory.svg" in documents


def test_a_peer_that_loses_messages_is_found_out(
    names: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that drops every eleventh delivery without a word fails the smoke test with what was lost."""
    lossy = tmp_path / "websockets_chat.py"
    honest = (catalogue.APPS / "websockets_chat.py").read_text()
    dropping = honest.replace(
        "broadcast(listeners, said)", "0 if said[3:10].endswith('7') else broadcast(listeners, said)"
    )
    assert dropping != honest
    lossy.write_text(dropping)
    monkeypatch.setattr(catalogue, "APPS", tmp_path)
    assert command.main(["--only", "websockets", "--smoke"]) == 1
    assert "of 200 deliveries 20 were lost, 0 doubled" in capsys.readouterr().out


DYING = """
import asyncio, os, signal, sys
from pathlib import Path
from bench.peers import install
from bench.peers.catalogue import PEERS
from bench.peers.measure import served

async def main():
    async with served(PEERS["websockets"]) as running:
        print(running.server.pid, flush=True)
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        await asyncio.sleep(60)

install.python = lambda name: Path(sys.executable).parent
install.BUILD = Path(sys.argv[2])
asyncio.run(main())
"""


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody waits for stays a zombie."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
async def test_no_server_outlives_the_bench(name: str, tmp_path: Path) -> None:
    """However that ends: or it would take processor time from whatever is measured next."""
    bench = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DYING, name, str(tmp_path), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    said, errors = await bench.communicate()
    assert bench.returncode == -getattr(signal, name), errors
    await until(lambda: is_gone(int(said)), "the server ends")


async def test_data_is_on_the_disk_of_the_checkout(names: list[str]) -> None:
    """And not in a temporary folder, which may be in memory, where fsync costs nothing."""
    places: list[catalogue.Place] = []
    peer = catalogue.PEERS["websockets"]

    def start(place: catalogue.Place) -> catalogue.Start:
        places.append(place)
        return peer.start(place)

    async with measure.served(dataclasses.replace(peer, start=start)):
        assert places[0].folder.parent == install.BUILD
        assert places[0].folder.is_dir()
    assert not places[0].folder.exists()


async def test_a_server_that_fails_meanwhile_says_its_last_words() -> None:
    """They are with the error, whatever it is."""
    program = str(catalogue.APPS / "websockets_chat.py")
    loud = f"print('it is too hot', flush=True); import runpy; runpy.run_path({program!r}, run_name='__main__')"
    peer = dataclasses.replace(
        catalogue.PEERS["websockets"],
        start=lambda place: catalogue.Start([sys.executable, "-c", loud, str(place.port)]),
    )
    with pytest.raises(TimeoutError) as failed:
        async with measure.served(peer):
            raise TimeoutError("nobody answers")
    assert failed.value.__notes__ == ["it is too hot"]


def test_a_peer_that_cannot_run_is_named_and_the_others_run(
    names: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is missing is said in its place, and the exit status tells."""
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    assert command.main(["--only", "bare,websockets", "--measures", "losses", *TINY], tmp_path / "unfinished") == 1
    said = capsys.readouterr().out
    assert "bare                    not here: expected a C compiler for broadcaster.c, got none" in said
    assert "bare                    not measured: expected a C compiler for broadcaster.c, got none" in said
    assert "websockets              6 speak: 0.0% lost" in said
