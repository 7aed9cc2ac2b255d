"""Each sentence under "Promises" on a port is the name of a test that runs over every adapter."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from documents import ROOT
from hubbub import ports

SHORTEST = 5
"""A test may be named after the beginning of a sentence: that many words of it at least."""


def promises(port: type) -> list[str]:
    """The sentences, each as one line."""
    _, _, listed = (inspect.getdoc(port) or "").partition("Promises:\n")
    return [re.sub(r"\s+", " ", item).strip() for item in re.split(r"^\s*- ", listed, flags=re.MULTILINE)[1:]]


def contract_tests() -> set[str]:
    """The names of all tests in the folder, without `test_`."""
    names: set[str] = set()
    for path in Path(ROOT / "tests" / "contract").glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                names.add(node.name.removeprefix("test_"))
    return names


def as_name(sentence: str) -> str:
    """A sentence as it is written in the name of a test."""
    return re.sub(r"[^a-z0-9]+", "_", sentence.lower().replace("'", "")).strip("_")


@pytest.mark.parametrize("port", [ports.Store, ports.ReadyStore, ports.Sink, ports.Fanout, ports.Directory])
def test_every_promise_is_the_name_of_a_test(port: type) -> None:
    """Of the whole sentence, or of its beginning."""
    known = [name for name in contract_tests() if name.count("_") >= SHORTEST - 1]
    made = promises(port)
    assert made
    missing = [sentence for sentence in made if not any(as_name(sentence).startswith(name) for name in known)]
    assert not missing, "no contract test has these promises as its name:\n" + "\n".join(missing)
