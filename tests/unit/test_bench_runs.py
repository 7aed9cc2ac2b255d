"""The turns of `make bench-peers`: one after the other, kept, resumed, tried again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from bench import saving
from bench.cluster import cpu_of
from bench.peers import __main__ as command
from bench.peers import install
from bench.peers.catalogue import PEERS, Peer, Place, Start
from bench.peers.figures import kept
from bench.peers.measure import Idle, _Patient


class Bench:
    """Two peers that are not there, measured by the book; each turn may go wrong."""

    def __init__(self) -> None:
        self.turns: list[str] = []
        self.trouble: Callable[[int, str], BaseException | None] = lambda turn, name: None

    async def idle(self, peer: Peer, connections: int) -> Idle:
        """A turn."""
        self.turns.append(peer.name)
        error = self.trouble(len(self.turns), peer.name)
        if error is not None:
            raise error
        return Idle(connections, float(len(self.turns)), 0.0, 1.0, 1.0, 1.0)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    """Peers `ws` and `nats` whose programs are not needed; what is saved goes to `tmp_path`."""
    bench = Bench()
    monkeypatch.setattr(install, "version_of", lambda program: "1.0")
    monkeypatch.setattr(
        command, "PEERS", {name: replace(PEERS[name], start=lambda place: Start([])) for name in ("ws", "nats")}
    )
    monkeypatch.setattr(command, "idle", bench.idle)
    monkeypatch.setattr(command, "let_connect", lambda count: None)
    monkeypatch.setattr(saving, "save", partial(saving.save, folder=tmp_path))
    monkeypatch.setattr(saving, "command", lambda: "python -m bench.peers --measures idle")
    return bench


def run(tmp_path: Path, *arguments: str) -> int:
    """What `python -m bench.peers` comes to."""
    return command.main(arguments, tmp_path / "run" / "unfinished.json")


def memory(tmp_path: Path) -> dict[str, list[float]]:
    """What was saved, by peer: of each turn its number."""
    figures = saving.saved(tmp_path)["peers"].figures
    return {peer["name"]: [each["kb"] for each in peer["idle"]] for peer in figures["peers"]}


def test_a_run_that_was_interrupted_goes_on_where_it_was(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--resume` measures the turns that are left and no others, and saves what the whole run would have."""
    bench.trouble = lambda turn, name: KeyboardInterrupt() if turn == 4 else None
    assert run(tmp_path, "--measures", "idle", "--rounds", "3", "--save") == 130
    assert "interrupted after 3 of 6 turns; --resume goes on" in capsys.readouterr().err
    assert "peers" not in saving.saved(tmp_path)
    assert run(tmp_path, "--resume") == 0
    assert bench.turns == ["ws", "nats", "ws", "nats", "nats", "ws", "nats"]
    assert memory(tmp_path) == {"ws": [1.0, 3.0, 6.0], "nats": [2.0, 5.0, 7.0]}
    assert saving.saved(tmp_path)["peers"].command == "python -m bench.peers --measures idle"
    assert kept(tmp_path / "run" / "unfinished.json") is None


def test_there_must_be_something_to_resume(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise it is said, as it is of what another version left; and other options would mean nothing."""
    assert run(tmp_path, "--resume") == 2
    assert "there is none to resume" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "unfinished.json").write_text("{}")
    assert run(tmp_path, "--resume") == 2
    assert "is not a run of this version" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(tmp_path, "--resume", "--quick")
    assert bench.turns == []


def test_whoever_watches_sees_how_far_it_is(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After each turn: how many are over, and how long the others take."""
    run(tmp_path, "--measures", "idle", "--rounds", "2")
    said = capsys.readouterr().out
    assert "round 2 of 2: ws\n    connections\n  so far: 2.0 KB; 1 us a connect\n" in said
    assert "\n  3 of 4 turns are over, this one took 0 s; about" in said
    assert "4 of 4 turns are over, this one took 0 s; about 0 min to go" in said


def test_a_turn_that_fails_once_is_repeated(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And costs none of what was measured of the peer."""
    bench.trouble = lambda turn, name: TimeoutError("no answer") if turn == 3 else None
    assert run(tmp_path, "--measures", "idle", "--rounds", "2", "--save") == 0
    assert "TimeoutError: no answer; once more" in capsys.readouterr().out
    assert memory(tmp_path) == {"ws": [1.0, 4.0], "nats": [2.0, 5.0]}


def test_a_peer_that_fails_twice_is_left_with_the_reason(bench: Bench, tmp_path: Path) -> None:
    """The others go on, and the exit status tells."""
    bench.trouble = lambda turn, name: RuntimeError("it broke") if name == "ws" and turn > 2 else None
    assert run(tmp_path, "--measures", "idle", "--rounds", "3", "--save") == 1
    assert bench.turns == ["ws", "nats", "ws", "ws", "nats", "nats"]
    assert memory(tmp_path) == {"nats": [2.0, 5.0, 6.0]}
    [left] = saving.saved(tmp_path)["peers"].figures["left"]
    assert (left["name"], left["why"], left["is_missing"]) == ("ws", "in round 2: it broke", False)


def test_a_peer_that_cannot_be_had_is_no_failure_unless_it_was_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is known before the first round, and said at once and at the end."""

    def missing(place: Place) -> Start:
        raise install.Unavailable("there is no Node.js here")

    monkeypatch.setitem(command.PEERS, "ws", replace(command.PEERS["ws"], start=missing))
    assert run(tmp_path, "--measures", "idle", "--rounds", "1", "--save") == 0
    said = capsys.readouterr().out
    assert said.index("ws                      not here: there is no Node.js here") < said.index("round 1")
    assert memory(tmp_path) == {"nats": [1.0]}
    assert run(tmp_path, "--measures", "idle", "--rounds", "1", "--only", "ws") == 1


def test_too_many_connections_are_refused_in_one_line(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is started."""

    def refuse(count: int) -> None:
        raise OSError(f"{count} connections need more open files")

    monkeypatch.setattr(command, "let_connect", refuse)
    assert run(tmp_path, "--idle", "70000") == 2
    assert capsys.readouterr().err == "bench.peers: 70000 connections need more open files\n"
    assert bench.turns == []


def test_settings_for_servers_do_not_reach_those_that_are_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever has some in his shell measures what everybody measures: one process, at its defaults."""
    for name in ("HUBBUB_WORKERS", "WEB_CONCURRENCY", "NODE_OPTIONS", "GOMAXPROCS"):
        monkeypatch.setenv(name, "4711")
    monkeypatch.setenv("LANG", "C.UTF-8")
    server = _Patient(["true"], port=1, log=tmp_path / "log", environment={"HUBBUB_RATE": "0"})
    assert {name: value for name, value in server.variables().items() if value == "4711"} == {}
    assert (server.variables()["HUBBUB_RATE"], server.variables()["LANG"]) == ("0", "C.UTF-8")


@pytest.mark.slow
def test_the_time_of_threads_that_ended_counts() -> None:
    """A server that hands its work to threads of their own is not cheaper for that."""
    work = (
        "import threading, time\n"
        "def work():\n"
        "    while time.thread_time() < 0.3: pass\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()\n"
        "print('over', flush=True); input()\n"
    )
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert cpu_of(process.pid) >= 0.3
        process.communicate(b"\n")
