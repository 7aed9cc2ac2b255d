"""The public names are there, explained, and cheap to import."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import hubbub


@pytest.mark.parametrize("name", sorted(hubbub.__all__))
def test_public_names_import_and_are_explained(name: str) -> None:
    """Every name in `hubbub.__all__` imports, and everything but the version has a docstring of its own."""
    found = getattr(hubbub, name)
    if name == "__version__":
        assert found.count(".") == 2
        return
    explained = found.__dict__.get("__doc__") if inspect.isclass(found) else inspect.getdoc(found)
    assert explained, f"hubbub.{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that Hubbub does not have says so and names itself."""
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = hubbub.Nonsense


@pytest.mark.slow
def test_importing_hubbub_loads_nothing_heavy() -> None:
    """`import hubbub` loads none of its own modules and none of the libraries that they need."""
    listing = "import sys, hubbub; print(*[m for m in sys.modules if m.split('.')[0] in sys.argv[1:]])"
    heavy = ["msgspec", "starlette", "uvicorn", "httpx", "joserfc", "typer", "rich", "uvloop"]
    shown = subprocess.run(
        [sys.executable, "-c", listing, "hubbub", *heavy], capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.split() == ["hubbub"]
