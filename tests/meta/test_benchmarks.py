"""The page of benchmarks is what the report makes of saved results and prose, and says what can be repeated."""

from __future__ import annotations

import re
import subprocess

from bench import report, saving
from bench.__main__ import BENCHES
from bench.peers.catalogue import PEERS

from documents import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
GUIDE = ROOT / "docs" / "how-to" / "run-the-benchmarks.md"


def test_the_page_is_what_the_report_makes() -> None:
    """The page and its plots are what the report makes of what lies in the repository, and no plot is left over."""
    made = report.made_here()
    assert PAGE in made
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"run `python -m bench.report`: {path.name} is stale"
    assert {path for path in (PAGE.parent / report.PLOTS).glob("*") if path not in made} == set()


def test_every_saved_figure_has_a_command_of_this_repository() -> None:
    """What is saved names the module that measures it, and that module is there."""
    for name, result in saving.saved().items():
        module = re.match(r"python -m (bench[\w.]*)", result.command)
        assert module is not None, f"{name}: {result.command}"
        path = ROOT / module[1].replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"{name}: {result.command}"


def test_every_command_of_prose_is_there() -> None:
    """Each `python -m bench.…` on the page and in its guide is a module."""
    found = re.findall(r"python -m (bench[\w.]*)", PAGE.read_text(encoding="utf-8") + GUIDE.read_text(encoding="utf-8"))
    assert len(found) > 10
    for module in found:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_figures_of_old_give_way_to_those_that_are_saved() -> None:
    """A table that is written by hand is of one bench, and is left out as soon as that has saved its own."""
    for path in sorted(report.PROSE.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        by_hand = re.sub(r"<!-- unless: [\w-]+ -->.*?<!-- /unless -->", "", text, flags=re.DOTALL)
        assert re.search(r"\d \|$", by_hand, re.MULTILINE) is None, f"{path.name}: a figure outside of `unless`"
        shown, kept = (set(re.findall(rf"<!-- {each}: ([\w-]+) -->", text)) for each in ("figures", "unless"))
        assert kept <= shown, path.name


def test_the_peers_that_were_measured_are_those_that_there_are() -> None:
    """A saved run of peers has none that is not in the catalogue any more."""
    result = saving.saved().get("peers")
    if result is not None:
        assert {peer["name"] for peer in result.figures["peers"]} <= PEERS.keys()
    assert {"hubbub", "bare", "channels-core-daphne", "channels-pubsub-uvicorn"} <= PEERS.keys()


def test_the_command_for_the_peers_saves_what_it_found() -> None:
    """`make bench-peers` measures all of them and makes the page of that, also where no package can be installed."""
    says = subprocess.run(["make", "-n", "bench-peers"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = [line for line in says.splitlines() if "bench" in line or "system" in line]
    assert "scripts/setup system gcc nodejs npm redis-server ||" in lines[-2]
    assert "python -m bench.peers --save;" in lines[-1]
    assert "python -m bench.report" in lines[-1]


def test_every_bench_says_what_it_measures() -> None:
    """Which is the heading of its figures, when no prose names it."""
    assert all(bench.about for bench in BENCHES.values())
