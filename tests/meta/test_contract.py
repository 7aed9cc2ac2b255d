"""Every promise of docs/contract.md names a test that shows it."""

from __future__ import annotations

import re

import pytest

from documents import ROOT

PAGE = ROOT / "docs" / "contract.md"
WITHOUT_TESTS = ("Where the gateway differs", "Not there yet")


def sections() -> dict[str, list[str]]:
    """The rows of the page's tables, by heading."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        rows = [line for line in text.splitlines() if line.startswith("|")]
        found[heading] = rows[2:]  # without the table's head and its rule
    return found


PROMISES = [(heading, row) for heading, rows in sections().items() if heading not in WITHOUT_TESTS for row in rows]


def test_there_are_promises() -> None:
    """The page has the sections that it had, each with promises."""
    assert [heading for heading, rows in sections().items() if rows] == [
        *("Events", "Choosing the route", "Connecting", "Answers", "Closing"),
        WITHOUT_TESTS[0],
    ]
    assert len(PROMISES) > 30


@pytest.mark.parametrize(("heading", "row"), PROMISES, ids=[f"{heading}: {row[2:50]}" for heading, row in PROMISES])
def test_every_promise_names_a_test(heading: str, row: str) -> None:
    """A row has what is promised and, behind it, at least one test, by file and name, and that test is there."""
    assert len(re.findall(r"(?<!\\)\|", row)) == 3, "a row has two cells"
    what, shown_by = row.strip("| ").split(" | ")
    assert what
    named = re.findall(r"`(tests/[\w./]+\.py)::(test_\w+)`", shown_by)
    assert named, f"{heading}: nothing shows that {what}"
    assert ", ".join(f"`{path}::{name}`" for path, name in named) == shown_by, "tests and nothing else"
    for path, name in named:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), name
