"""Every promise of docs/contract.md names tests that show it, and they are there."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from documents import ROOT

PAGE = ROOT / "docs" / "contract.md"

SECTIONS = (
    "Events",
    "Choosing the route",
    "Connecting",
    "Authorizers",
    "Signatures, API keys and parameters",
    "Answers",
    "Integrations",
    "Templates and mappings",
    "Models",
    "Binary",
    "Closing",
    "`@connections`",
    "Groups",
    "Quotas",
    "Stages, APIs and domains",
    "Lambda: invoking",
    "Lambda: the Runtime API",
    "Lambda: concurrency and limits",
    "Lambda: events that fail",
)
DIFFERENCES = "Where the gateway differs"
LEFT_OUT = "Not there"

SHOWS_NOTHING = {"test_freeing.py", "test_sharing.py"}
"""Modules of conformance tests that are about something else than the contract."""


def sections() -> dict[str, list[str]]:
    """The lines of the page, by heading."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        found[heading] = text.splitlines()
    return found


def rows(heading: str) -> list[str]:
    """The rows of a section's table, without its head."""
    return [line for line in sections().get(heading, []) if line.startswith("|")][2:]


def cells(row: str) -> list[str]:
    """What is in a row's cells."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def named(shown_by: str) -> list[tuple[str, str]]:
    """The tests that a cell names: their file and their name."""
    return re.findall(r"`(tests/[\w./]+\.py)::(test_\w+)`", shown_by)


@cache
def found_in(path: str) -> frozenset[str]:
    """The tests that pytest finds in a file."""
    assert re.fullmatch(r"tests/(\w+/)+test_\w+\.py", path), f"{path}: there pytest looks for no tests"
    module = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = [each for each in module.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    return frozenset(each.name for each in functions if each.name.startswith("test_"))


PROMISES = [(heading, row) for heading in SECTIONS for row in rows(heading)]


def test_the_page_has_all_its_sections() -> None:
    """Each has rows; the last two say what is different and what is not there."""
    assert list(sections()) == [*SECTIONS, DIFFERENCES, LEFT_OUT]
    assert all(len(rows(heading)) >= 4 for heading in SECTIONS)
    assert len(PROMISES) > 150


@pytest.mark.parametrize(("heading", "row"), PROMISES, ids=[f"{heading}: {row[2:50]}" for heading, row in PROMISES])
def test_every_promise_names_tests_that_are_there(heading: str, row: str) -> None:
    """A row has what is promised and, behind it, at least one test, by file and name, and nothing else."""
    assert len(cells(row)) == 2, "a row has two cells"
    what, shown_by = cells(row)
    assert what
    tests = named(shown_by)
    assert tests, f"{heading}: nothing shows that {what}"
    assert ", ".join(f"`{path}::{name}`" for path, name in tests) == shown_by, "tests and nothing else"
    assert len(set(tests)) == len(tests), "a test is named twice"
    for path, name in tests:
        assert name in found_in(path), f"there is no test {name} in {path}"


def test_no_promise_is_made_twice() -> None:
    """What is promised in one place is not promised in another."""
    promised = [cells(row)[0] for _, row in PROMISES]
    assert len(set(promised)) == len(promised)


def test_a_difference_says_what_aws_does_and_what_is_done_here() -> None:
    """In three cells: what, AWS, ours; and none of them is empty."""
    differences = [cells(row) for row in rows(DIFFERENCES)]
    assert len(differences) > 20
    assert all(len(each) == 3 and all(each) for each in differences)
    assert len({what for what, *_ in differences}) == len(differences)


def test_what_is_left_out_is_said_with_what_it_means() -> None:
    """A list of names, each with a sentence."""
    items = re.split(r"^- ", "\n".join(sections()[LEFT_OUT]), flags=re.MULTILINE)[1:]
    assert items
    assert all(re.fullmatch(r"\*\*.+?\*\*: .+\.", " ".join(item.split())) for item in items)


def test_every_module_of_conformance_tests_shows_something() -> None:
    """A module that no row names would show something that the page does not promise."""
    shown = {path for _, row in PROMISES for path, _ in named(row)}
    modules = {path.name for path in (ROOT / "tests" / "conformance").glob("test_*.py")}
    assert {name for name in modules if f"tests/conformance/{name}" not in shown} == SHOWS_NOTHING
