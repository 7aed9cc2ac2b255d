"""What is said of a load test: the verdict, the tables, the JSON document and the page."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from hubbub.loadtest import observing
from hubbub.loadtest.observing import Observed, listeners
from hubbub.loadtest.page import page
from hubbub.loadtest.plot import Line, Plot, amount, scale, svg
from hubbub.loadtest.progress import Progress
from hubbub.loadtest.report import megabytes, show
from hubbub.loadtest.result import (
    Asked,
    Faults,
    Generator,
    Percentiles,
    PerS,
    Result,
    Second,
    Server,
    Storm,
    document,
    judge,
)
from hubbub.loadtest.telling import Counts, RoomEnd

HARMLESS = Percentiles(100, 1.0, 2.0, 3.0, 4.0, 5.0)


def second(at_s: float, phase: str, **more: object) -> Second:
    """A second in which little happened."""
    fields = {
        "at_s": at_s,
        "phase": phase,
        "live": 4,
        "sent": 20,
        "acked": 20,
        "delivered": 80,
        "refused": 0,
        "failed": 0,
        "closed": 0,
        "ack": HARMLESS,
        "delivery": HARMLESS,
        "server_cpu": 0.5,
        "server_rss": 10**8,
        "load_cpu": 0.2,
        **more,
    }
    return msgspec.convert(fields, Second)


def result(**more: object) -> Result:
    """A load test that went well, but for what is given."""
    fields: dict[str, object] = {
        "version": 1,
        "hubbub": "0.0.0",
        "began": 1_800_000_000_000,
        "asked": Asked("ws://h/ws", "1234abcd", 4, 1, 1, 4, 20.0, 200, 2.0, 500.0, 0.0, 0.0, 0, 1, 1),
        "interrupted": False,
        "load_s": 2.0,
        "counts": Counts(sent=40, acked=40, delivered=160),
        "per_s": PerS(20.0, 80.0),
        "ack": HARMLESS,
        "delivery": HARMLESS,
        "resumed": 0,
        "delivery_resumed": Percentiles(),
        "history": Percentiles(),
        "connect": HARMLESS,
        "faults": Faults(),
        "storm": None,
        "server": Server([7], "hubbub serve", 1, 1.0, 0.5, 6_250.0, 10**8, 2 * 10**8, 5_000.0),
        "generator": Generator([0.2], HARMLESS, HARMLESS, False),
        "seconds": [
            second(1, "connect", sent=0, acked=0, delivered=0, ack=Percentiles(), delivery=Percentiles()),
            second(2, "load"),
            second(3, "load"),
            second(4, "settle", server_cpu=None, server_rss=None),
        ],
    }
    made = Result(**{**fields, **more})  # type: ignore[arg-type]  # by name
    judge(made, max_ack_ms=None, max_delivery_ms=None)
    return made


FAULTS = [name for name in Faults.__struct_fields__ if name != "rooms"]


def test_what_went_well_passes() -> None:
    """Without a fault it passes, and nothing is remarked."""
    well = result()
    assert (well.passed, well.reasons, well.notes) == (True, [], [])


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_fails_and_is_named(fault: str) -> None:
    """One of any fault is enough to fail, with a reason that counts it in proper words."""
    for count in (1, 1_234):
        bad = result(faults=Faults(**{fault: count}))  # type: ignore[arg-type]  # by name
        assert not bad.passed
        assert len(bad.reasons) == 1
        assert bad.reasons[0].startswith(f"{count:,} ")
    assert result(faults=Faults(**{fault: 1})).reasons != bad.reasons  # type: ignore[arg-type]  # by name


def test_refusals_fail() -> None:
    """Messages and pages that were refused fail it, by code."""
    counts = Counts(refused={"rate_limited": 3}, page_errors={"internal": 1})
    assert result(counts=counts).reasons == [
        "3 messages refused: rate_limited",
        "1 page of history refused: internal",
    ]


def test_limits_are_held_against_the_99th_percentile() -> None:
    """A limit fails what is above it and what was not measured, and passes what is below."""
    slow = result()
    judge(slow, max_ack_ms=3.0, max_delivery_ms=2.5)
    assert slow.reasons == ["delivery p99: at most 2.5 ms were asked for, found 3.0 ms"]
    judge(slow, max_ack_ms=3.0, max_delivery_ms=3.0)
    assert slow.passed
    slow.ack = Percentiles()
    judge(slow, max_ack_ms=3.0, max_delivery_ms=None)
    assert slow.reasons == ["ack p99: at most 3 ms were asked for, found none came"]


def test_notes_tell_what_is_no_failure() -> None:
    """Connections that ended, attempts that failed and a load test that was its own bottleneck are told."""
    counts = Counts(closed={"1012": 3}, failed={"no answer": 2, "refused": 7}, slow_closed={"4408": 1})
    asked = msgspec.structs.replace(result().asked, slow=2)
    generator = Generator([0.9], HARMLESS, HARMLESS, True, "it was the bottleneck")
    told = result(counts=counts, asked=asked, generator=generator, interrupted=True)
    assert told.passed
    assert told.notes == [
        "ended by hand, after 2 s of load",
        "the load test measured itself more than the server: it was the bottleneck",
        "connections ended, by close code: 1012: 3",
        "connections that did not read, closed by the server: 4408: 1",
        "9 attempts to connect failed, most often: refused",
    ]


def test_a_proxy_is_not_taken_for_the_server() -> None:
    """Where it is a proxy that listens it is said so, and how to name who is meant."""
    server = Server([7], "nginx", 1, 1.0, 0.5, 6_250.0, 10**8, 2 * 10**8, 5_000.0)
    assert result(server=server).notes == ["who listens there is nginx; --pid names the server behind it"]


def test_the_document_is_the_result() -> None:
    """The JSON document has all of the result, and nothing gets lost in it."""
    made = result(faults=Faults(lost=1, rooms=[RoomEnd("r", 1)]), storm=Storm(4, 4, HARMLESS))
    assert msgspec.json.decode(document(made), type=Result) == made
    assert json.loads(document(made))["faults"]["rooms"] == [{"room": "r", "lost": 1, "doubled": 0, "disordered": 0}]


def test_the_tables_say_what_was_found() -> None:
    """A reader sees figures, faults by room, notes, reasons and the verdict."""
    out = io.StringIO()
    rooms = [RoomEnd(f"room-{number}", 1) for number in range(7)]
    bad = result(faults=Faults(lost=7, rooms=rooms), storm=Storm(4, 3, HARMLESS), resumed=3)
    show(bad, Console(file=out, width=118, highlight=False))
    text = out.getvalue()
    for words in (
        "cut in the storm",
        "160",
        "20.0",
        "lost 7",
        "room-4: lost 1",
        "and 2 rooms more",
        "back after the storm",
        "failed: 7 del",
    ):
        assert words in text
    assert "room-5" not in text
    assert text.rstrip().endswith("FAIL")
    out.truncate(0)
    show(result(server=None), Console(file=out, width=118, highlight=False))
    assert out.getvalue().rstrip().endswith("PASS")
    assert "server" not in out.getvalue()


def test_the_page_needs_nothing_else_and_forges_nothing() -> None:
    """The page loads nothing, forbids itself to, and shows what came from elsewhere as text."""
    evil = "<script>alert(1)</script>"
    bad = result(faults=Faults(lost=1, rooms=[RoomEnd(evil, 1)]), counts=Counts(failed={evil: 1}))
    bad.asked.url = f"ws://h/{evil}"
    text = page(bad)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 3
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?\s*(https?:|//)|@import""", text)
    assert "default-src 'none'" in text
    assert text.count("<svg") == 7
    for drawn in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ET.fromstring(drawn)


def test_a_page_of_a_load_test_that_did_nothing_can_be_made() -> None:
    """Ended at once, there is still a page, which says where nothing was measured."""
    text = page(result(seconds=[], server=None, ack=Percentiles(), delivery=Percentiles()))
    assert "Until delivered: nothing was measured." in text


def test_a_plot_draws_each_value_and_leaves_gaps() -> None:
    """A line has a point for each value and is broken where there is none."""
    drawn = ET.fromstring(svg(Plot("T", "ms", [1, 2, 3, 4, 5], [Line("a", [1, 2, None, 4, 5])], (1, 9))))
    lines = [each for each in drawn if each.tag == "polyline"]
    assert [len(each.attrib["points"].split()) for each in lines] == [2, 2]
    assert [each[0].text for each in drawn if each.tag == "circle"] == [f"a: {n} ms at {n} s" for n in (1, 2, 4, 5)]
    heights = [float(each.attrib["cy"]) for each in drawn if each.tag == "circle"]
    assert heights == sorted(heights, reverse=True), "what is more is higher up"


def test_a_long_plot_keeps_its_peaks() -> None:
    """Of many seconds the highest are drawn: a peak of one second is seen after an hour."""
    values: list[float | None] = [1.0] * 3_600
    values[1_777] = 50.0
    text = svg(Plot("T", "ms", list(range(3_600)), [Line("a", values)]))
    assert text.count("<circle") <= 600
    assert "a: 50 ms" in text


@pytest.mark.parametrize(
    ("highest", "top", "steps"),
    [(0, 1, 1), (1, 1, 4), (7, 8, 4), (99, 100, 4), (0.03, 0.03, 3), (1_234_567, 1_500_000, 3)],
)
def test_axes_have_round_numbers(highest: float, top: float, steps: int) -> None:
    """An axis reaches just above the highest value in a few round steps."""
    found, marks = scale(highest)
    assert found == pytest.approx(top)
    assert len(marks) == steps + 1
    assert marks[-1] == pytest.approx(top)


def test_sizes_have_what_counts() -> None:
    """Little is not nothing, and much is not told to the byte."""
    assert [megabytes(size) for size in (0, 41_700, 4_170_000, 99_900_000, 2_345_678_901)] == [
        *("0 MB", "0.0417 MB", "4.17 MB", "99.9 MB", "2,346 MB"),
    ]


def test_amounts_are_short() -> None:
    """Numbers at an axis fit beside it."""
    assert [amount(value) for value in (0, 0.25, 2_500, 25_000, 1_500_000)] == ["0", "0.25", "2,500", "25k", "1.5M"]


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the line is written over, is no longer than that, and is gone in the end."""
    monkeypatch.setenv("COLUMNS", "90")
    screen = Screen()
    progress = Progress(screen)
    progress(second(1, "connect"), "connecting 4 of 100")
    progress(second(2, "load", refused=3, closed=1), "1 s of 30")
    progress.end()
    assert "\n" not in screen.getvalue()
    assert screen.getvalue().endswith("\r\x1b[K")
    first, then = screen.getvalue().split("\r")[1:3]
    assert first.startswith("connecting 4 of 100")
    assert "sent/s" not in first
    assert "20 sent/s  80 delivered/s  3 refused  1 closed  p99 ack 3.0 ms" in then
    assert "server" not in then, "what does not fit is left out, and nothing is cut in two"


def test_what_is_done_before_the_first_connection_is_shown() -> None:
    """While it is tried out and rooms are made a line says so, on a terminal the same one each time."""
    screen, file = Screen(), io.StringIO()
    for out in (screen, file):
        progress = Progress(out)
        for number in range(7):
            progress.wait(f"trying out, {number} rooms made")
        progress(second(1, "connect"), "connecting 4 of 100")
    assert "\n" not in screen.getvalue()
    assert screen.getvalue().count("\r") == 8
    assert file.getvalue().count("\n") == 3
    assert "5 rooms made" in file.getvalue()


def test_progress_elsewhere_is_a_line_now_and_then() -> None:
    """In a file or pipe there are lines, few of them, without control characters."""
    out = io.StringIO()
    progress = Progress(out)
    for number in range(11):
        progress(second(number, "load", refused=2), f"{number} s of 30")
    progress.end()
    lines = out.getvalue().splitlines()
    assert [line.partition(" s of")[0] for line in lines] == ["0", "5", "10"]
    assert "\x1b" not in out.getvalue()
    assert "2 refused" in lines[0]


LISTEN = """
import socket, subprocess, sys
listener = socket.create_server(("127.0.0.1", 0))
listener.set_inheritable(True)
child = subprocess.Popen([sys.executable, "-c", "sum(range(10**7)); print('done', flush=True); input()"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False)
child.stdout.readline()
print(listener.getsockname()[1], child.pid, flush=True)
input()
child.kill()
child.wait()
"""


@pytest.mark.slow
def test_who_listens_is_found_and_watched_with_its_children() -> None:
    """The process that listens on a port is found, once, and what its children use counts with it."""
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        port, child = map(int, server.stdout.readline().split())
        assert listeners(port) == [server.pid], "its child has the socket too, and is counted as its child"
        both, alone = Observed([server.pid]), Observed([child])
        assert both.look().processes == 2
        assert both.look().rss_bytes > alone.look().rss_bytes > 1_000_000
        assert both.look().cpu_s >= alone.look().cpu_s > 0
        assert both.name == Path(sys.executable).name
        used = both.look().cpu_s
        server.stdin.write("\n")
        server.stdin.flush()
        server.wait(30)
        assert both.look().processes == 0
        assert both.look().cpu_s >= used, "what was used before it ended stays counted"


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("/venv/bin/python -P -m hubbub serve --store postgresql://me:hunter2@db/chat", "python hubbub serve"),
        ("/venv/bin/python3.11 /venv/bin/hubbub serve --secret hunter2", "python3.11 hubbub serve"),
        ("uvicorn shop.app:app --port 80", "uvicorn shop.app:app"),
        ("node server.js redis://:hunter2@cache", "node server.js"),
        ("redis-server -a hunter2", "redis-server"),
        ("serve TOKEN=hunter2 more", "serve"),
    ],
)
def test_how_the_server_was_called_is_told_without_what_may_be_secret(
    command: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that is passed on has the program and its command, and nothing of its flags and URLs."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cmdline").write_bytes("\0".join(command.split(" ")).encode() + b"\0")
    monkeypatch.setattr(observing, "_PROC", tmp_path)
    assert observing.name_of(7) == shown


@pytest.mark.slow
def test_a_server_that_is_started_again_is_seen_again() -> None:
    """When who listened has ended, and somebody else listens on the port, he is looked at from then on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        ended = subprocess.Popen([sys.executable, "-c", ""])
        seen = Observed([ended.pid], port)
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert seen.look().processes >= 1, "this process listens there"
        assert seen.pids == [ended.pid, os.getpid()]
        ended.wait()


def test_a_system_without_proc_shows_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where processes cannot be seen there is none, and no failure."""
    monkeypatch.setattr(observing, "_PROC", tmp_path / "nothing")
    assert listeners(80) == []
    assert Observed([1]).look().processes == 0


def test_a_port_of_nobody_has_no_listener() -> None:
    """Where nobody listens nobody is found."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        assert listeners(probe.getsockname()[1]) == []
    assert Observed([]).look().processes == 0
    assert os.getpid() not in listeners(1)
