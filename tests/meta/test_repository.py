"""The repository's text speaks of Hubbub and of nothing that belongs elsewhere."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from documents import ROOT

# Written so that this file does not contain what it looks for.
FORBIDDEN = {
    "a path of somebody's machine": re.compile(r"/wor[k]/|/roo[t]/|/hom[e]/\w|/Use[r]s/\w|\.\./share[d]\b"),
    "a package registry": re.compile(r"pypi\.or[g]|pythonhoste[d]|npmjs\.or[g]|--(extra-)?index-ur[l]|PIP_INDEX_UR[L]"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KE[Y]-----\\?n?[A-Za-z0-9+/]{20}"),
    "unfinished work": re.compile(r"\b(TOD[O]|FIXM[E]|XX[X])\b"),
    "how it was made": re.compile(r"\bAI[- ]generate[d]\b|\bas an A[I]\b|\bth[e] issue\b", re.IGNORECASE),
}

OURS = (".ci", "bench", "clients", "deploy", "docs", "examples", "scripts", "src", "tests")
TEXT = {
    "",
    ".css",
    ".html",
    ".js",
    ".json",
    ".md",
    ".mjs",
    ".py",
    ".sql",
    ".svg",
    ".toml",
    ".ts",
    ".txt",
    ".yaml",
    ".yml",
}
GENERATED = {"__pycache__", "node_modules", "screenshots", ".hypothesis", "results"}


def texts() -> Iterator[tuple[Path, str]]:
    """Every text file of the repository."""
    candidates = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
    for folder in OURS:
        candidates += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    for path in sorted(candidates):
        if path.suffix in TEXT and not GENERATED & set(path.relative_to(ROOT).parts):
            yield path, path.read_text(encoding="utf-8", errors="replace")


def test_texts_contain_nothing_that_belongs_elsewhere() -> None:
    """No file names a machine's paths, a package registry, a key, or unfinished work."""
    found = [
        f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {what}: {match[0]!r}"
        for path, text in texts()
        for what, pattern in FORBIDDEN.items()
        for match in pattern.finditer(text)
    ]
    assert not found, "\n".join(found)


def test_the_search_reads_the_repository() -> None:
    """The search above reaches code, tests, documents and the settings at the top."""
    read = {str(path.relative_to(ROOT)) for path, _ in texts()}
    assert {"README.md", "pyproject.toml", "src/hubbub/protocol.py", "docs/protocol.md", "Makefile"} <= read


def test_every_module_opens_by_saying_what_it_decides() -> None:
    """Every module of the package begins with a docstring of at least a sentence."""
    for path in (ROOT / "src").rglob("*.py"):
        assert re.match(r'r?"""[A-Z`].{20,}', path.read_text(encoding="utf-8")), path.relative_to(ROOT)


def test_the_licence_is_the_one_that_is_declared() -> None:
    """The licence file is the Apache License 2.0 that the package declares."""
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


def test_the_version_is_the_same_everywhere() -> None:
    """The package, its metadata and the newest version of the change log are the same."""
    import hubbub

    assert f'version = "{hubbub.__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    newest = re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == hubbub.__version__


def test_every_test_module_has_a_name_of_its_own() -> None:
    """Pytest imports modules of folders without `__init__.py` by their name alone, and refuses the second of two."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert {name for name, count in names.items() if count > 1} == set()
