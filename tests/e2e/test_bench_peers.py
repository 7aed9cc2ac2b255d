"""Two servers measured in turns, as `make bench-peers` does it, with tiny numbers."""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
from bench import native, report, saving
from bench.peers import __main__ as command
from bench.peers import catalogue, install

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
    assert command.main(["--only", ",".join([*names, "hubbub"]), "--save", *TINY]) == 0
    said = capsys.readouterr().out
    assert "round 2 of 2: websockets" in said
    result = saving.saved(tmp_path)["peers"]
    for peer in result.figures["peers"]:
        assert len(peer["deliveries"]) == len(peer["idle"]) == len(peer["losses"]) == 2
        for times in peer["deliveries"]:
            assert [(each["listeners"], each["in_flight"], each["lost"]) for each in times] == [(4, 1, 0), (4, 16, 0)]
            assert all(each["messages"] >= each["in_flight"] and each["cpu_us"] > 0 for each in times)
        assert [each["lost"] + each["doubled"] + each["told"] for times in peer["losses"] for each in times] == [0, 0]
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


def test_a_peer_that_cannot_run_is_named_and_the_others_run(
    names: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is missing is said in its place, and the exit status tells."""
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    assert command.main(["--only", "bare,websockets", "--measures", "losses", *TINY]) == 1
    said = capsys.readouterr().out
    assert "bare                    not measured: expected a C compiler for broadcaster.c, got none" in said
    assert "websockets              6 speak: 0.0% lost" in said
