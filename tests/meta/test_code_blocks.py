"""The Python that the documents show is Python that works.

A block after `<!-- runs: chat -->` makes a `Chat`, after `token` a token: these run here. Those after `client`
speak to a server and run in tests/e2e/test_examples.py; `flask`, `django` and `gateway` run in tests/e2e/test_views.py.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import jwt
import pytest
import typer

from documents import PAGES, ROOT, Block, blocks, runnable
from hubbub import Chat, cli
from hubbub.chat.registry import BUILT_IN

PYTHON = [block for page in PAGES for block in blocks(page, "python")]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.where)
def test_python_in_documents_compiles(block: Block) -> None:
    """Every Python block in the documents is Python."""
    compile(block.text, block.where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_markers_are_of_a_known_kind_and_before_a_block() -> None:
    """Every `runs` marker in the documents names a kind that a test runs, and stands before a Python block."""
    for page in PAGES:
        kinds = re.findall(r"^<!-- runs: (.*) -->\n```python$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(kinds) <= {"chat", "token", "client", "flask", "django", "gateway"}
        assert len(kinds) == page.read_text(encoding="utf-8").count("<!-- runs:"), page.name


@pytest.mark.parametrize("block", runnable("chat"), ids=lambda block: block.where)
def test_chats_in_documents_can_be_made(block: Block) -> None:
    """A block that makes a chat runs, and its chat has what the block registers beside the built-in actions."""
    names: dict[str, object] = {}
    exec(compile(block.text, block.where, "exec"), names)
    made = names["chat"]
    assert isinstance(made, Chat)
    assert made.actions.keys() - BUILT_IN.actions.keys() == set(re.findall(r'@chat\.action\("(\w+)"\)', block.text))
    assert made.befores.keys() == set(re.findall(r'@chat\.before\("(\w+)"\)', block.text))
    assert made.listeners.keys() == set(re.findall(r'@chat\.on\("([\w.]+)"\)', block.text))


@pytest.mark.parametrize("block", runnable("token"), ids=lambda block: block.where)
def test_tokens_in_documents_say_who_one_is(block: Block) -> None:
    """A block that makes a token makes one that verifies and has what the chat requires."""
    names: dict[str, object] = {}
    exec(compile(block.text, block.where, "exec"), names)
    made = names["chat_token"]
    assert callable(made)
    claims = jwt.decode(made("s" * 32, "42", "Ada"), "s" * 32, algorithms=["HS256"])
    assert claims["sub"] == "42"
    assert claims["exp"] > claims["iat"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_says_what_it_is(path: Path) -> None:
    """Every example opens with a sentence on what it shows, and is named in the documents."""
    explained = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert explained
    assert any(f"examples/{path.name}" in page.read_text(encoding="utf-8") for page in PAGES)


def commands_in_documents() -> list[tuple[str, str]]:
    """The `hubbub …` commands in the documents: where each stands, and its words."""
    command = re.compile(r"(?:^\$ .*?|`|\()(?:\.venv/bin/)?hubbub ([a-z]+[^`|\n)]*)", re.MULTILINE)
    found: list[tuple[str, str]] = []
    for page in PAGES:
        text, name = page.read_text(encoding="utf-8"), page.relative_to(ROOT)
        lines = [(text.count("\n", 0, match.start()) + 1, match[1].strip()) for match in command.finditer(text)]
        found += [(f"{name}:{line}", words) for line, words in lines]
    return found


@pytest.mark.parametrize("where, words", commands_in_documents())
def test_commands_in_documents_exist(where: str, words: str) -> None:
    """Every `hubbub` command that the documents show is one, and has the flags they show."""
    commands = typer.main.get_group(cli.app).commands
    name, *rest = words.partition(" -- ")[0].split()  # what follows is somebody else's command
    assert name in commands, f"{where}: there is no `hubbub {name}`"
    flags = {"--help"} | {flag for parameter in commands[name].params for flag in parameter.opts}
    assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= flags, where
