"""The options of `make bench-peers`, and what is asked of the machine."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest
from bench.peers import install, measure
from bench.peers.__main__ import main, options
from bench.peers.catalogue import PEERS, Place
from bench.peers.measure import QUICK, Sizes


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said of options that are refused."""
    with pytest.raises(SystemExit) as refused:
        options(arguments)
    assert refused.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--only", "hubbub,redis"), "expected some of bare, bare-joined, hubbub,"),
        (("--only", "hubbub,redis"), "got 'redis'"),
        (("--measures", "speed"), "expected some of delivery, idle, losses; got 'speed'"),
        (("--rounds", "0"), "expected a number from 1 on, got '0'"),
        (("--listeners", "100,many"), "expected a number from 1 on, got 'many'"),
        (("--idle", "-5"), "expected a number from 1 on, got '-5'"),
        (("--seconds", "soon"), "expected seconds above 0, got 'soon'"),
        (("--seconds", "-1"), "expected seconds above 0, got '-1'"),
        (("--seconds", "nan"), "expected seconds above 0, got 'nan'"),
    ],
)
def test_bad_options_are_refused_with_what_was_expected(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    """And with what came."""
    assert says in refusal(capsys, *arguments)


def test_all_peers_run_in_full_unless_less_is_asked_for() -> None:
    """`--quick` has small sizes, and what is given counts more than either."""
    assert options([]).only == list(PEERS)
    assert options([]).sizes == Sizes()
    assert options(["--quick"]).sizes == QUICK
    chosen = options(["--quick", "--listeners", "5,7", "--seconds", "0.5", "--only", "ws, nats"])
    assert (chosen.sizes.listeners, chosen.sizes.seconds, chosen.sizes.idle) == ((5, 7), 0.5, QUICK.idle)
    assert chosen.only == ["ws", "nats"]


def test_losses_are_looked_for_once() -> None:
    """A run for them alone has one round; others look for them in their first, see the end-to-end tests."""
    assert options(["--measures", "losses"]).rounds == 1
    assert options(["--measures", "losses,idle"]).rounds == options([]).rounds == 3


def test_the_list_names_each_peer_with_its_versions(capsys: pytest.CaptureFixture[str]) -> None:
    """Without installing or starting any."""
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(PEERS)
    assert any(line.startswith("channels-core-daphne ") and "daphne 4." in line for line in lines)
    assert any(line.startswith("centrifugo ") and "centrifugo 6." in line for line in lines)


@pytest.mark.parametrize("name", [name for name in PEERS if not name.startswith(("bare", "hubbub"))])
def test_every_peer_has_a_pinned_version(name: str) -> None:
    """Of all that it is named after; the pins of Python have hashes."""
    versions = PEERS[name].versions()
    assert versions
    assert all(version[0].isdigit() for version in versions.values())
    environment = PEERS[name].environment
    if environment and environment != "node":
        pins = (install.HERE / "requirements" / f"{environment}.txt").read_text()
        assert pins.count("--hash=sha256:") >= pins.count("==")


def test_the_pins_of_node_name_no_place() -> None:
    """They say what is wanted, and not from where: that is the machine's to know."""
    lock = (install.HERE / "node" / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert '"integrity"' in lock


def test_a_peer_without_its_program_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each of Node.js, Go, a C compiler, by name and with what brings it where it is a package."""
    monkeypatch.setattr(install, "BUILD", tmp_path / "build")
    monkeypatch.setenv("PATH", str(tmp_path))
    place = Place(1, tmp_path)
    for name, says in (("ws", "no Node.js with npm"), ("centrifugo", "no Go here"), ("bare", "a C compiler")):
        with pytest.raises(install.Unavailable, match=says):
            PEERS[name].start(place)


def test_an_installation_that_fails_says_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment that cannot be made makes a peer unavailable with what was said, and is tried again next time."""
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho the disk is full >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(install, "BUILD", tmp_path / "build")
    monkeypatch.setattr(sys, "executable", str(broken))
    for _ in range(2):
        with pytest.raises(install.Unavailable, match=r"-m venv failed: the disk is full"):
            install.python("websockets")


def test_an_environment_is_made_once_for_its_pins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And anew when they change."""
    runs: list[list[str]] = []

    def run(command: list[str], **_: object) -> None:
        runs.append(command)
        (tmp_path / "build" / "some").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(install, "BUILD", tmp_path / "build")
    monkeypatch.setattr(install, "HERE", tmp_path)
    monkeypatch.setattr(install, "_run", run)
    (tmp_path / "requirements").mkdir()
    pins = tmp_path / "requirements" / "some.txt"
    pins.write_text("some==1.0\n")
    assert install.python("some") == install.python("some") == tmp_path / "build" / "some" / "bin"
    assert len(runs) == 2
    assert "--require-hashes" in runs[1]
    pins.write_text("some==1.1\n")
    install.python("some")
    assert len(runs) == 4


def test_more_connections_than_open_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started, with both numbers."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1_000, 1_000))
    measure.let_connect(800)
    with pytest.raises(OSError, match="5000 connections need more open files than the 1000"):
        measure.let_connect(5_000)


async def test_a_server_that_does_not_start_says_its_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And nothing of it is left running."""
    from bench.peers.catalogue import Start

    peer = PEERS["websockets"]
    broken = type(peer)(
        "broken", "broken", "", lambda place: Start(["sh", "-c", "echo I cannot; exit 3"]), peer.dialect
    )
    with pytest.raises(RuntimeError, match="I cannot"):
        async with measure.served(broken):
            raise AssertionError("it runs")
