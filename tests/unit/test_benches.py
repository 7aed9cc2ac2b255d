"""The frame in which benches run and save."""

from __future__ import annotations

import datetime
import importlib.util
from pathlib import Path

import pytest
from bench import __main__ as benches
from bench import saving


def test_what_is_saved_says_where_when_and_by_which_command(tmp_path: Path) -> None:
    """A result has the figures, the command, the date and the machine, and is read back as it was written."""
    path = saving.save(
        "example", {"rows": [{"listeners": 10, "us": 1.5}]}, ran="python -m bench.example", folder=tmp_path
    )

    result = saving.saved(tmp_path)["example"]

    assert path == tmp_path / "example.json"
    assert (result.name, result.command) == ("example", "python -m bench.example")
    assert result.figures == {"rows": [{"listeners": 10, "us": 1.5}]}
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(result.date)
    assert abs(age) < datetime.timedelta(minutes=5)
    assert {"cpu", "cores", "memory_gib", "kernel", "python", "load", "hubbub", "uvloop"} <= result.machine.keys()
    assert result.machine["cores"] >= 1


def test_a_command_is_what_was_typed_without_save(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that is kept measures the same again and saves nothing."""
    monkeypatch.setattr("sys.argv", ["bench/curves.py", "--sizes", "10", "--save"])
    monkeypatch.setattr("sys.modules", {"__main__": type("Main", (), {"__spec__": None})})

    assert saving.command() == "python -m curves.py --sizes 10"


def test_a_result_is_not_written_outside_its_folder(tmp_path: Path) -> None:
    """A name that is a path is refused, and the message says what was expected."""
    with pytest.raises(ValueError, match=r"expected a name of letters.*'\.\./x'"):
        saving.save("../x", {}, folder=tmp_path)


@pytest.mark.parametrize("name", benches.BENCHES)
def test_every_bench_is_there_and_can_save(name: str) -> None:
    """Each bench that `python -m bench` knows is a module that takes `--save`."""
    spec = importlib.util.find_spec(f"bench.{name}")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text()
    assert "saving" in source
    assert benches.command(name, quick=True, save=True)[-1] == "--save"


def test_a_bench_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """`--only` with an unknown name says which there are, and what came."""
    with pytest.raises(SystemExit):
        benches.main(["--only", "delivery,speed"])

    said = capsys.readouterr().err
    assert "expected some of delivery" in said
    assert "got 'speed'" in said


def test_a_list_says_which_benches_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    """`--list` names every bench and runs none."""
    assert benches.main(["--list"]) == 0

    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(benches.BENCHES)


def test_one_that_fails_does_not_keep_the_others_from_running(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that were asked for are run, and the exit status tells that one failed."""
    ran: list[str] = []

    def run(name: str, *, quick: bool, save: bool) -> int:
        ran.append(name)
        return int(name == "sends")

    monkeypatch.setattr(benches, "run", run)

    assert benches.main(["--only", "sends,memory"]) == 1
    assert ran == ["sends", "memory"]
    assert "failed: sends" in capsys.readouterr().err
