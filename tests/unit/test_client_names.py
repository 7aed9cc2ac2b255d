"""Both clients have everything that the protocol has, and the type declarations everything that the module has."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from hubbub.client import Client
from hubbub.protocol import ACTIONS

JS = Path(__file__).resolve().parents[2] / "clients" / "js"
PYTHON_NAMES = {"rooms": "public_rooms"}
JS_NAMES = {"rooms": "publicRooms"}
_METHOD = re.compile(r"^  (?:async )?(?:get )?([a-z]\w*)(?:\(| \{)", re.MULTILINE)


def class_body(text: str, name: str) -> str:
    """The source between the braces of a class that begins at the left margin."""
    found = re.search(rf"^export class {name} [^\n]*\{{\n(.*?)^\}}", text, re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return found[1]


def module_methods() -> set[str]:
    """The public methods and getters of the module's Chat, and its constructor."""
    return set(_METHOD.findall(class_body((JS / "hubbub.js").read_text(), "Chat")))


def declared() -> set[str]:
    """The members that the declarations give to Chat."""
    body = class_body((JS / "hubbub.d.ts").read_text(), "Chat")
    return set(re.findall(r"^  (?:readonly )?([a-z]\w*)[(<:]", body, re.MULTILINE))


@pytest.mark.parametrize("action", ACTIONS)
def test_each_action_has_a_method_in_both_clients(action: str) -> None:
    """Whatever the protocol can ask, a client's user can ask without building frames."""
    assert inspect.iscoroutinefunction(getattr(Client, PYTHON_NAMES.get(action, action)))
    assert JS_NAMES.get(action, action) in module_methods()


def test_the_declarations_have_every_public_method() -> None:
    """What the module offers is declared, and what is declared is there."""
    other = {"state", "constructor"}  # an attribute, which the constructor sets
    assert len(module_methods()) > len(ACTIONS)
    assert module_methods() | other == declared()


def test_the_declarations_have_every_export() -> None:
    """Each name that the module exports for applications is declared."""
    module = set(re.findall(r"^export (?:class|function|const) (\w+)", (JS / "hubbub.js").read_text(), re.MULTILINE))
    types = set(re.findall(r"^export (?:class|function|const) (\w+)", (JS / "hubbub.d.ts").read_text(), re.MULTILINE))
    assert module - {"Session"} == types  # Session is for the vectors
