"""What the report makes of saved figures and prose."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bench import plots, report, saving
from bench.peers.__main__ import summary
from bench.peers.figures import Figures, Left, Measured
from bench.peers.measure import Delivery, Idle, Losses, Sizes
from bench.saving import Result

MACHINE = {"cpu": "A processor", "cores": 2, "memory_gib": 24.0, "kernel": "6.1", "python": "3.11.7", "load": 0.2}


def delivery(listeners: int, in_flight: int, cpu_us: float, **others: Any) -> Delivery:
    """A measured delivery."""
    usual = {"messages": 10, "redis_us": 0.0, "per_s": 100_000.0, "clients_busy": 0.5, "lost": 0}
    return Delivery(listeners, in_flight, cpu_us=cpu_us, **(usual | others))


def loss(members: int, lost: int, **others: Any) -> Losses:
    """What was lost when all spoke."""
    usual = {"doubled": 0, "told": 0, "seconds": 1.0}
    return Losses(members, 401, 401 * members, lost, **(usual | others))


FIGURES = Figures(
    rounds=3,
    sizes=Sizes(listeners=(100, 1_000), in_flight=(1,), speakers=(100,)),
    peers=[
        Measured(
            "bare",
            "bare C, one `send()` each",
            "nothing",
            {},
            [[delivery(100, 1, cost), delivery(1_000, 1, 4.0)] for cost in (4.0, 5.0, 8.0)],
            [Idle(2_000, 0.1, 0.0, 20_000.0, 30.0, 10.0)] * 3,
            [[loss(100, 0)]] * 3,
        ),
        Measured(
            "hubbub",
            "**Hubbub**",
            "all of it",
            {},
            [[delivery(100, 1, cost), delivery(1_000, 1, 4.4)] for cost in (6.0, 5.0, 16.0)],
            [Idle(2_000, 4.5, 0.0, 5_000.0, 150.0, 120.0)] * 3,
            [[loss(100, 0)]] * 3,
        ),
        Measured(
            "channels-core-uvicorn",
            "Django Channels",
            "up to 100",
            {"channels": "4.3.2", "django": "5.2.19"},
            [[delivery(100, 1, 150.0, redis_us=30.0), delivery(1_000, 1, 250.0, redis_us=50.0, lost=7)]] * 3,
            [Idle(2_000, 33.7, 2.5, 1_000.0, 900.0, 0.0)] * 3,
            [[loss(100, 22_055, told=0)], [loss(100, 20_050)], [loss(100, 24_060)]],
        ),
    ],
    left=[Left("centrifugo", "Centrifugo (Go)", "there is no Go here,\nof which Centrifugo is built")],
)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Folders for prose and results, both empty."""
    prose, results = tmp_path / "prose", tmp_path / "results"
    prose.mkdir()
    results.mkdir()
    return prose, results


def save(folder: Path, name: str, figures: Any, **machine: Any) -> None:
    """A result as a bench saves it."""
    result = Result(name, f"python -m bench.{name}", "2026-11-30T12:00:00+00:00", MACHINE | machine, figures)
    (folder / f"{name}.json").write_bytes(msgspec.json.encode(result))


def made(folders: tuple[Path, Path], **others: Any) -> str:
    """The page."""
    page = Path("docs/page.md")
    return report.documents(*folders, page, **others)[page]


def cells(page: str, first: str) -> list[str]:
    """The cells of the first row that begins with `first`."""
    row = next(line for line in page.splitlines() if line.startswith(f"| {first}"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_snippets_come_in_the_order_of_their_names(folders: tuple[Path, Path]) -> None:
    """And an empty line is between them."""
    (folders[0] / "20-second.md").write_text("## Second\n")
    (folders[0] / "10-first.md").write_text("# First\n\n\n")
    assert made(folders) == "# First\n\n## Second\n"


def test_figures_stand_where_prose_names_them(folders: tuple[Path, Path]) -> None:
    """With the command, the day and the machine; prose for the time before is left out."""
    (folders[0] / "a.md").write_text(
        "# Page\n\n<!-- figures: sends -->\n\n<!-- unless: sends -->\nAbout 3.\n<!-- /unless -->\n\nEnd.\n"
    )
    assert "About 3." in made(folders)
    assert "<!--" not in made(folders)
    save(folders[1], "sends", {"rows": [{"senders": 256, "per_s": 31_234.5, "p99_ms": 8.123}]})
    page = made(folders)
    assert "About 3." not in page
    assert "`python -m bench.sends`: measured on 2026-11-30 on A processor, 2 cores, 24 GiB, Linux 6.1" in page
    assert "| senders | a second | p99, ms |\n| --- | --- | --- |\n| 256 | 31,234 | 8.12 |" in page
    assert page.index("31,234") < page.index("End.")


def test_a_busy_machine_is_said_to_have_been_one(folders: tuple[Path, Path]) -> None:
    """A load beyond half of its cores is in the text, a small one is not."""
    (folders[0] / "a.md").write_text("<!-- figures: quiet -->\n\n<!-- figures: busy -->\n")
    save(folders[1], "quiet", {"x": 1})
    assert "busy" not in made(folders)
    save(folders[1], "busy", {"x": 1}, load=11.5)
    assert "**The machine was busy with other things** (load 11.5 when it began)" in made(folders)


def test_what_no_prose_names_comes_last(folders: tuple[Path, Path]) -> None:
    """Under what its bench says that it measures."""
    (folders[0] / "a.md").write_text("# Page\n")
    save(folders[1], "crowds", {"room": [{"listeners": 10, "cpu_us": 4.0}], "worst": 1.02})
    page = made(folders, about={"crowds": "what a crowd costs"})
    assert "## Further figures\n\n### What a crowd costs\n" in page
    assert "| worst | 1.02 |" in page
    assert "**Room**\n\n| listeners | cpu, µs |" in page


def test_nested_figures_become_columns_and_captions(folders: tuple[Path, Path]) -> None:
    """Objects within rows are columns, lists of lists are lines, and a bar in a text does not end a cell."""
    (folders[0] / "a.md").write_text("<!-- figures: deep -->\n")
    save(
        folders[1], "deep", {"by": {"tls": [{"name": "a|b", "cpu": {"server_us": 0.012345}, "ok": True}]}, "n": [1, 2]}
    )
    page = made(folders)
    assert "**By, tls**" in page
    assert "| a\\|b | 0.0123 | yes |" in page
    assert "**N**\n\n1, 2" in page


def test_names_of_figures_tell_units(folders: tuple[Path, Path]) -> None:
    """Times, rates and shares of a core are shown as such, however a bench spells them."""
    (folders[0] / "a.md").write_text("<!-- figures: idle -->\n")
    rest = {"share": 0.0123, "load_busy": 0.98, "us_per_ping": 12.3, "pings_per_second": 8.8, "per_s": 5.0}
    save(folders[1], "idle", {"real": rest, "pretended": rest})
    page = made(folders)
    assert "|  | share | load busy | µs per ping | pings, a second | a second |" in page
    assert "| real | 1.23% | 98% | 12.3 | 8.80 | 5.00 |" in page


def test_objects_of_one_kind_are_rows(folders: tuple[Path, Path]) -> None:
    """Their names are the first column."""
    (folders[0] / "a.md").write_text("<!-- figures: sends -->\n")
    save(
        folders[1],
        "sends",
        {"1": {"acks_per_s": 2_000.0, "p99_ms": 0.5}, "256": {"acks_per_s": 31_000.0, "p99_ms": 9.0}},
    )
    assert (
        "|  | acks, a second | p99, ms |\n| --- | --- | --- |\n| 1 | 2,000 | 0.50 |\n| 256 | 31,000 | 9.00 |"
        in made(folders)
    )


def test_curves_have_a_plot_and_a_verdict(folders: tuple[Path, Path]) -> None:
    """Of each quantity: what an operation costs at a size, how it grows, and why; what should not stands out."""
    (folders[0] / "a.md").write_text("<!-- figures: curves -->\n")
    rows = [{"size": 10, "message": 40.0, "page": 5.0}, {"size": 1_000, "message": 4_000.0, "page": 0.0}]
    growth = [
        {"operation": "message", "exponent": 1.0, "grows": "linear", "why": "everybody gets it", "is_fine": True},
        {"operation": "page", "exponent": None, "grows": "unknown", "why": "", "is_fine": False},
    ]
    save(folders[1], "curves", {"room": {"about": "listeners of a room", "rows": rows, "growth": growth}})
    page = Path("docs/page.md")
    documents = report.documents(*folders, page)
    text = documents[page]
    assert "#### Listeners of a room\n\n![Listeners of a room: processor time, µs](benchmarks/curves-room.svg)" in text
    assert "| 1,000 | 4,000 | 0 |" in text
    assert "| message | linear | 1.00 | everybody gets it |" in text
    assert "| page | **unknown, which it should not** |  |  |" in text
    root = ET.fromstring(documents[Path("docs/benchmarks/curves-room.svg")])
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 3  # a zero has no place on the scale


def test_markers_that_do_not_end_are_refused(folders: tuple[Path, Path]) -> None:
    """So is a folder without prose."""
    with pytest.raises(ValueError, match=r"expected snippets \*\.md in"):
        made(folders)
    (folders[0] / "a.md").write_text("<!-- unless: sends -->\nAbout 3.\n")
    with pytest.raises(ValueError, match="without its"):
        made(folders)


def test_peers_are_compared_within_rounds(folders: tuple[Path, Path]) -> None:
    """A ratio is the median of the rounds' ratios and not the ratio of medians; costs are medians."""
    (folders[0] / "a.md").write_text("<!-- figures: peers -->\n")
    save(folders[1], "peers", FIGURES)
    page = made(folders)
    assert cells(page, "**Hubbub**")[1:3] == ["**1.50** (6.00)", "**1.10** (4.40)"]
    assert cells(page, "bare C")[1:3] == ["**1.00** (5.00)", "**1.00** (4.00)"]


def test_redis_is_counted_with_the_server_that_needs_it(folders: tuple[Path, Path]) -> None:
    """In ratios, costs, plots and what a core does in a second; its share is told beside."""
    (folders[0] / "a.md").write_text("<!-- figures: peers -->\n")
    save(folders[1], "peers", FIGURES)
    page = Path("docs/page.md")
    documents = report.documents(*folders, page)
    assert cells(documents[page], "Django Channels")[1:] == ["**36.00** (180.00)", "**75.00** (300.00)", "17%"]
    assert cells(documents[page], "**Hubbub**")[3] == ""
    assert cells(documents[page].partition("### Rate")[2], "Django Channels")[2] == "3.33"
    assert ">300<" in documents[Path("docs/benchmarks/peers-delivery-1000-1.svg")]


def test_to_connect_and_to_listen_are_told_apart(folders: tuple[Path, Path]) -> None:
    """Where who connects listens there is no second figure."""
    (folders[0] / "a.md").write_text("<!-- figures: peers -->\n")
    save(folders[1], "peers", FIGURES)
    connections = made(folders).partition("### Connections")[2]
    assert cells(connections, "**Hubbub**")[1:] == ["2,000", "4.50", "", "6,667", "150", "120"]
    assert cells(connections, "Django Channels")[1:] == ["2,000", "33.7", "2.50", "1,111", "900", ""]


def test_who_was_not_asked_what_he_loses_is_not_said_to_lose_nothing(folders: tuple[Path, Path]) -> None:
    """A peer that was not asked has no row, and a run that asked nobody has no table."""
    (folders[0] / "a.md").write_text("<!-- figures: peers -->\n")
    mute = msgspec.structs.replace(FIGURES.peers[1], losses=[])
    save(folders[1], "peers", msgspec.structs.replace(FIGURES, peers=[FIGURES.peers[0], mute]))
    assert "**Hubbub**" not in made(folders).partition("### Lost")[2].partition("###")[0]
    save(folders[1], "peers", msgspec.structs.replace(FIGURES, peers=[mute]))
    assert "### Lost" not in made(folders)
    save(folders[1], "peers", msgspec.structs.replace(FIGURES, peers=[msgspec.structs.replace(mute, losses=[[]])]))
    assert "### Lost" not in made(folders)


def test_a_small_loss_does_not_look_like_none(folders: tuple[Path, Path]) -> None:
    """Below a thousandth the deliveries are counted out."""
    (folders[0] / "a.md").write_text("<!-- figures: peers -->\n")
    lossy = msgspec.structs.replace(FIGURES.peers[1], losses=[[loss(100, 3)]])
    save(folders[1], "peers", msgspec.structs.replace(FIGURES, peers=[lossy]))
    assert cells(made(folders).partition("### Lost")[2], "**Hubbub**")[1] == "**3 of 40,100**"


README = "# Hubbub\n\n<!-- measured -->\nOf old.\n<!-- /measured -->\n\nMore.\n"


def test_the_readme_has_what_was_saved_last(folders: tuple[Path, Path]) -> None:
    """Its table is made of the saved run of peers; while there is none, what stands there stays."""
    assert report.readme(README, {}) == README
    save(folders[1], "peers", FIGURES)
    text = report.readme(README, saving.saved(folders[1]))
    assert "Of old." not in text
    assert text.endswith("\n<!-- /measured -->\n\nMore.\n")
    assert "measured on 2026-11-30 on A processor, 2 cores" in text
    assert cells(text, "**Hubbub**") == ["**Hubbub**", "1.10", "100", "4.50", "0"]
    assert cells(text, "Django Channels")[-1] == "**55.0%**"
    assert report.readme(text, saving.saved(folders[1])) == text


def test_a_readme_without_a_place_for_figures_is_refused() -> None:
    """Or they would be lost without a word."""
    with pytest.raises(ValueError, match="expected lines `<!-- measured -->`"):
        report.readme("# Hubbub\n", {})


def test_what_peers_lose_is_shown(folders: tuple[Path, Path]) -> None:
    """As a share of what should have come, in all rounds together; nobody's zero is hidden."""
    (folders[0] / "a.md").write_text("<!-- figures: peers -->\n")
    save(folders[1], "peers", FIGURES)
    page = made(folders)
    lost = page.partition("### Lost messages")[2]
    assert cells(lost, "Django Channels") == ["Django Channels", "**55.0%**", "0", "0"]
    assert cells(lost, "**Hubbub**") == ["**Hubbub**", "0", "0", "0"]
    assert cells(page.partition("### Rate")[2], "Django Channels")[-1] == "21"


def test_peers_that_did_not_run_are_named_with_the_reason(folders: tuple[Path, Path]) -> None:
    """In one line each; and versions are with those that did."""
    (folders[0] / "a.md").write_text("<!-- figures: peers -->\n")
    save(folders[1], "peers", FIGURES)
    page = made(folders)
    assert "- Centrifugo (Go): there is no Go here, of which Centrifugo is built\n" in page
    assert "| `channels-core-uvicorn` | Django Channels | channels 4.3.2, django 5.2.19 | up to 100 |" in page


def test_every_plot_is_shown_and_is_svg(folders: tuple[Path, Path]) -> None:
    """The page names each, with a text for who does not see it; each has a title and all its rows."""
    (folders[0] / "a.md").write_text("<!-- figures: peers -->\n")
    save(folders[1], "peers", FIGURES)
    page = Path("docs/page.md")
    documents = report.documents(*folders, page)
    drawn = {path: text for path, text in documents.items() if path != page}
    assert len(drawn) == 2
    for path, svg in drawn.items():
        assert f"]({path.relative_to('docs')})" in documents[page]
        root = ET.fromstring(svg)
        says = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
        assert "Hubbub" in says
        assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 3
        assert documents[page].count(f"]({path.relative_to('docs')})") == 1
    assert report.documents(*folders, page) == documents


def test_the_report_does_without_a_base(folders: tuple[Path, Path]) -> None:
    """Where neither the bare broadcaster nor picows ran there are costs and no ratios."""
    (folders[0] / "a.md").write_text("<!-- figures: peers -->\n")
    save(folders[1], "peers", msgspec.structs.replace(FIGURES, peers=FIGURES.peers[1:]))
    page = made(folders)
    assert cells(page, "**Hubbub**")[1:3] == ["6.00", "4.40"]
    assert "without ratios" in page


def test_whoever_watches_sees_medians() -> None:
    """The summary has a line for each peer, also for those that did not run."""
    lines = summary(FIGURES).splitlines()
    assert lines[1].startswith("hubbub ")
    assert "100x1: 6.00 us; 1000x1: 4.40 us; 4.5 KB; 150 us a connect; 100 speak: 0.0% lost" in lines[1]
    assert "100 speak: 55.0% lost" in lines[2]
    assert lines[3].startswith("centrifugo ")


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_plots_refuse_what_has_no_place_on_their_scale(value: float) -> None:
    """With what was expected and what came."""
    with pytest.raises(ValueError, match="numbers above zero"):
        plots.points("Plot", [plots.Point("a", value, "")])
    with pytest.raises(ValueError, match="numbers above zero"):
        plots.lines("Plot", {"a": [(1.0, value)]}, across="x", up="y")
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.points("Plot", [])


def test_points_show_how_much_the_rounds_differed() -> None:
    """A line of each point's colour reaches from the least to the most of them, and the scale has room for it."""
    svg = plots.points("Plot", [plots.Point("a", 10.0, "10", True, [8.0, 10.0, 40.0])])
    [line] = [
        each for each in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}line") if each.get("stroke") == plots.OURS
    ]
    [circle] = ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}circle")
    assert float(line.attrib["x1"]) < float(circle.attrib["cx"]) < float(line.attrib["x2"]) < 860
    with pytest.raises(ValueError, match="numbers above zero"):
        plots.points("Plot", [plots.Point("a", 10.0, "10", True, [0.0])])


def test_names_of_lines_are_outside_of_the_plot() -> None:
    """However many there are: above everything that is drawn."""
    svg = plots.lines("Plot", {f"line {n}": [(1.0, 9.0), (10.0, 9.5)] for n in range(7)}, across="x", up="y")
    root = ET.fromstring(svg)
    names = [float(each.attrib["y"]) for each in root.iter("{http://www.w3.org/2000/svg}text") if "line" in each.text]
    assert max(names) < min(float(each.attrib["cy"]) for each in root.iter("{http://www.w3.org/2000/svg}circle"))
    assert max(names) < min(float(each.attrib["y1"]) for each in root.iter("{http://www.w3.org/2000/svg}line"))


def test_lines_are_where_their_values_are() -> None:
    """On a logarithmic scale, equal factors are equal distances; names with signs of XML are texts."""
    svg = plots.lines("A & B", {"<rooms>": [(1.0, 1.0), (10.0, 10.0), (100.0, 100.0)]}, across="x", up="y")
    root = ET.fromstring(svg)
    circles = [
        (float(each.attrib["cx"]), float(each.attrib["cy"])) for each in root.iter("{http://www.w3.org/2000/svg}circle")
    ]
    (x1, y1), (x2, y2), (x3, y3) = circles
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)
    assert x1 < x3
    assert y1 > y3
    assert "<rooms>" in [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize(
    ("value", "says"),
    [(1_234_567, "1,234,567"), (0.5, "0.50"), (12.34, "12.3"), (345.6, "346"), (0.00123, "0.00123"), (True, "yes")],
)
def test_figures_have_the_digits_that_count(value: float, says: str) -> None:
    """Whole numbers are exact, others have about three."""
    assert report.number(value) == says
